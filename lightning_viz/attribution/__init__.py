"""What in the input mattered."""
