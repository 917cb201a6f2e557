"""Activations over many samples: statistics, top-k samples per channel, random projections."""

from lightning_viz._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
