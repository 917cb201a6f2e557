"""Lightning, under whichever of its two names it is installed.

``pytorch_lightning`` and ``lightning.pytorch`` hold unrelated classes of the same names; a callback that descends from
both runs in both.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

Trainer = Any
LightningModule = Any

_installed = [
    importlib.import_module(name)
    for name, package in (("pytorch_lightning", "pytorch_lightning"), ("lightning.pytorch", "lightning"))
    if importlib.util.find_spec(package) is not None
]

if TYPE_CHECKING:

    class Callback:
        """What Lightning calls during a run."""

else:
    Callback = type(
        "Callback",
        tuple(package.Callback for package in _installed),
        {"__doc__": "What Lightning calls during a run.", "__module__": __name__},
    )
