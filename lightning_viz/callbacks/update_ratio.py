"""The view of how far single updates move the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

from torch import nn

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.run_protocol import Run
from lightning_viz.callbacks.snapshot import Requirements, Snapshot
from lightning_viz.callbacks.view import View
from lightning_viz.callbacks.weight_copy import WeightCopy, precedes_look, trained_weights
from lightning_viz.errors import ViewError
from lightning_viz.hooks.layers import Layers
from lightning_viz.render.animation import thin
from lightning_viz.render.weights import update_ratios

__all__ = ["UpdateRatio"]

_KEPT = 64  # steps of which the ratios are kept


class UpdateRatio(View):
    r"""Relative size of the last update of each layer's weights (tag ``update_ratio``), about 1e-3 in a healthy run.

    .. math:: \lVert w_k - w_{k-1} \rVert_2 \,/\, \lVert w_{k-1} \rVert_2

    of the one update before each look: a page of layers by steps, and a curve for each layer (tag
    ``update_ratio/<layer>``). The weights are copied before that update and dropped after it. A look whose update
    cannot be foreseen (the end of an epoch of unknown length, or of a run that is stopped) has no ratio. A checkpoint
    does not hold the weights of two consecutive updates, so this view is drawn in training only.

    Args:
        layers: whose weights; every layer with a weight of two or more dimensions if omitted.
        max_bytes: size of the copy (256 MiB); layers beyond it are left out, which the caption says.
    """

    layers: Layers = ()
    max_bytes: int = 256 * 2**20

    kind: ClassVar[str] = "update_ratio"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._copy = WeightCopy(self.max_bytes)

    def check(self, model: nn.Module) -> None:
        """The model must have weights that are trained."""
        if not trained_weights(model, self.layers):
            raise ViewError("no layer has a weight of two or more dimensions: name others in layers=")

    def requirements(self, model: nn.Module) -> Requirements:
        """No pass: the weights alone."""
        return Requirements(head=False)

    def before_update(self, run: Run | None) -> None:
        """Copy the weights, if the update that comes now is followed by a look."""
        due = partial(precedes_look, schedule=self.schedule)
        self._copy.before_update(run, due, lambda: trained_weights(run.model, self.layers) if run else {})

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """The ratio of each layer; nothing if the weights before the update were not copied."""
        if snapshot.rates is None:
            raise ViewError(
                "UpdateRatio compares the weights of two consecutive updates, which a checkpoint does not hold: it is "
                "drawn in training only"
            )
        copied, after = set(self._copy.weights), trained_weights(model, self.layers)
        ratios = self._copy.ratios(snapshot.step, after)
        return {} if ratios is None else {"ratios": ratios, "left_out": len(after.keys() - copied)}

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page of all steps so far, and a number for each layer."""
        if not snapshot.extra.get("ratios"):
            return
        ratios, left_out = snapshot.extra["ratios"], snapshot.extra["left_out"]
        history = {step: row for step, row in self.state.get("history", {}).items() if step < snapshot.step}
        history[snapshot.step] = ratios
        kept = thin(list(history), most=_KEPT)
        self.state["history"] = {step: history[step] for step in (list(history)[place] for place in kept)}
        arguments = {
            "tag": self.kind,
            "layers": list(ratios),
            "steps": list(self.state["history"]),
            "ratios": [[row.get(name, math.nan) for name in ratios] for row in self.state["history"].values()],
            "step": snapshot.step,
            "notes": (f"{left_out} layers beyond max_bytes={self.max_bytes:,} left out",) if left_out else (),
        }
        scalars = {f"{self.kind}/{name}": value for name, value in ratios.items() if math.isfinite(value)}
        yield DrawTask(update_ratios, arguments, scalars=scalars)
