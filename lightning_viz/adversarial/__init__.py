"""Inputs moved a little, and what then happens: how little changes a network's mind, and to what it is blind."""

from lightning_viz._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
