"""Arrays to pictures: pages of tiles, plots and text, laid out in one place. Knows no model and no torch."""

from lightning_viz._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
