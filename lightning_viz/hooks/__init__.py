"""The hook core: choose layers, record them, change ReLU's backward rule, leave everything as found. Knows torch only.

Nothing is imported before it is asked for: the drawing process unpickles an `Observation` without paying for torch.
"""

from lightning_viz._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
