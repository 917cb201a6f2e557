"""The tools that our attacks are compared with; one of them imports what SciPy has deprecated."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox
    import torchattacks

__all__ = ["foolbox", "torchattacks"]
