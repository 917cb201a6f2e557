"""Views: Lightning callbacks that look at a training run and leave it alone.

Nothing is imported before it is asked for: the drawing process lives in this room and must not pay for torch.
"""

from lightning_viz._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
