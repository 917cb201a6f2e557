"""Training is over and a checkpoint lies there: the views once more, and what goes deeper, into one report."""

from lightning_viz._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
