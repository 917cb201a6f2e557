"""What goes deeper into a model than the live views: a file for each section of the report."""
