"""Adversarial attacks: small perturbations that change a prediction."""

from lightning_viz._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
