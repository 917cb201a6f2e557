"""Arrays to pictures: grids, heat maps, overlays, plots, sprites, animations. Knows no model and no torch."""
