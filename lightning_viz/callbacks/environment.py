"""The variable ``LIGHTNING_VIZ``: views of scripts that do not know of them, or none at all. Imports nothing."""

import os

VARIABLE = "LIGHTNING_VIZ"
"""``1`` adds `lightning_viz.default_views` to every Trainer, kinds of views (``grad_cam,health``) add these alone, and
``0`` lets the views of a script see nothing."""


def asked() -> str:
    """What the variable asks for; empty if it is not set."""
    return os.environ.get(VARIABLE, "").strip()


def silenced() -> bool:
    """Whether views are to see nothing, those that a script passes among them."""
    return asked() == "0"
