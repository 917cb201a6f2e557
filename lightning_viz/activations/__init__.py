"""What the samples excite: channels to show, layers as vectors, the strongest samples, statistics."""

from lightning_viz._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
