"""Can an attribution be believed? Checks that run on any attribution function ``(model, inputs, target) -> maps``.

Options go in with `functools.partial`, a map that is there already as ``lambda *_: heat``.
"""

from lightning_viz._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
