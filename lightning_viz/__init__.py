"""See what a network learns, while it learns."""
