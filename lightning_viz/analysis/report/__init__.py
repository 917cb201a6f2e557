"""The report: one page that holds all that was found."""
