"""Entry points by which Lightning asks for callbacks, unguarded, whenever a Trainer is made anywhere on the machine.

A module beside the package: where the variable ``LIGHTNING_VIZ`` asks for nothing, not even the package is imported,
and in no case is anything raised.
"""

from __future__ import annotations

import os

__all__ = ["fabric_callbacks", "trainer_callbacks"]


def trainer_callbacks() -> list[object]:
    """The callbacks of a Trainer that the variable asks for."""
    return _asked("trainer_callbacks")


def fabric_callbacks() -> list[object]:
    """The callbacks of a Fabric that the variable asks for."""
    return _asked("fabric_callbacks")


def _asked(factory: str) -> list[object]:
    if os.environ.get("LIGHTNING_VIZ", "").strip() in ("", "0"):
        return []
    try:
        from lightning_viz.callbacks import asked_views

        return list(getattr(asked_views, factory)())
    except Exception:  # a broken installation is no reason to end a run that did not name us
        return []
