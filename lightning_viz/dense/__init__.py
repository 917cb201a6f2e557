"""Dense prediction: classifiers converted to fully convolutional networks, and their class maps."""

from lightning_viz._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
