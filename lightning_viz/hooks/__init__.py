"""Hooks: select layers, record outputs and gradients, replace ReLU's backward, preserve the model's state.

Imports are lazy, so that the drawing process unpickles an `Observation` without importing torch.
"""

from lightning_viz._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
