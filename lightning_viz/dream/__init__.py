"""Inputs made by optimization: what a unit wants, what a layer still knows."""

from lightning_viz._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
