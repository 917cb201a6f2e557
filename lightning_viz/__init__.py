"""See what a network learns, while it learns: ``Trainer(callbacks=lightning_viz.default_views())``."""

from lightning_viz._lazy import attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)
