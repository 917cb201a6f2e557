"""Arrays to pictures. Knows no model and no torch: the drawing process imports this room and little else."""
