"""How a model fares on the validation data, by torchmetrics, over all processes of a run."""

from __future__ import annotations

from typing import Any

from lightning_viz.callbacks.lightning import Callback


class Fares(Callback):
    """Judges what a model puts out while it is validated; `numbers` hold the figures when the pass has ended."""

    def __init__(self) -> None:
        self.numbers: dict[str, Any] = {}
