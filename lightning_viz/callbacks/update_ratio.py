"""The view of how far single updates move the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.run import LightningModule, Trainer
from lightning_viz.callbacks.session import session
from lightning_viz.callbacks.snapshot import Requirements, Snapshot
from lightning_viz.callbacks.view import View
from lightning_viz.errors import InvalidArgumentError, ViewError
from lightning_viz.hooks.layers import Layers, named_layers, select_layers
from lightning_viz.render.animation import thin
from lightning_viz.render.weights import update_ratios

__all__ = ["UpdateRatio"]

_KEPT = 64  # steps of which the ratios are kept


class UpdateRatio(View):
    r"""Relative size of the last update of each layer's weights (tag ``update_ratio``), about 1e-3 in a healthy run.

    .. math:: \lVert w_k - w_{k-1} \rVert_2 \,/\, \lVert w_{k-1} \rVert_2

    of the one update before each look: a page of layers by steps, and a curve for each layer. The weights are copied
    before that update and dropped after it. A look whose update cannot be foreseen (the end of an epoch of unknown
    length, or of a run that is stopped) has no ratio. A checkpoint does not hold the weights of two consecutive
    updates, so this view is drawn in training only.

    Args:
        layers: whose weights; every layer with a weight of two or more dimensions if omitted.
        max_bytes: size of the copy (256 MiB); layers beyond it are left out, which the caption says.
    """

    layers: Layers = ()
    max_bytes: int = 256 * 2**20

    kind: ClassVar[str] = "update_ratio"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_bytes < 1:
            raise InvalidArgumentError(f"max_bytes is {self.max_bytes}: give 1 or more")
        self._before: tuple[int, dict[str, Tensor]] | None = None  # completed updates, and the weights after these

    def check(self, model: nn.Module) -> None:
        """The model must have weights that are trained."""
        if not _weights(model, self.layers):
            raise ViewError("no layer has a weight of two or more dimensions: name others in layers=")

    def requirements(self, model: nn.Module) -> Requirements:
        """No pass: the weights alone."""
        return Requirements(head=False)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Look, if due; copy the weights, if the update that comes now is followed by a look."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        running = session(trainer)
        if running is None or self not in running.views:
            self._before = None
            return
        step, epoch = running.run.step, running.run.epoch
        if self._before is not None and self._before[0] == step:  # gradients are accumulated over several batches
            return
        ends_epoch = batch_idx + 1 == trainer.num_training_batches
        due = (
            self.schedule.at_step(step + 1)
            or step + 1 == trainer.max_steps
            or (ends_epoch and (self.schedule.at_epoch_end(epoch) or epoch + 1 == trainer.max_epochs))
        )
        self._before = (step, self._copy(pl_module)) if due else None

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """The ratio of each layer; nothing if the weights before the update were not copied."""
        if self._trainer is None:
            raise ViewError(
                "UpdateRatio compares the weights of two consecutive updates, which a checkpoint does not hold: it is "
                "drawn in training only"
            )
        before, self._before = self._before, None
        if before is None or before[0] + 1 != snapshot.step:
            return {}
        after = _weights(model, self.layers)
        norms = {
            name: torch.stack([(after[name].detach() - old).norm(), old.norm()]).float()
            for name, old in before[1].items()
        }
        values = torch.stack(list(norms.values())).cpu().tolist()  # one transfer for all layers
        ratios = {name: change / size for name, (change, size) in zip(norms, values, strict=True) if size > 0}
        return {"ratios": ratios, "left_out": len(after) - len(norms)}

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

    def _copy(self, model: nn.Module) -> dict[str, Tensor]:
        """Copies of the weights, layer by layer, as far as `max_bytes` goes."""
        copies, left = {}, self.max_bytes
        for name, weight in _weights(model, self.layers).items():
            if weight.nbytes <= left:
                copies[name], left = weight.detach().clone(), left - weight.nbytes
        return copies

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_before": None}


def _weights(model: nn.Module, layers: Layers) -> dict[str, Tensor]:
    """The weights of layers by name, but those that are shared, not trained, or vectors."""
    modules = select_layers(model, layers) if layers else named_layers(model)
    weights = {name: getattr(module, "weight", None) for name, module in modules.items()}
    trained = {name: weight for name, weight in weights.items() if isinstance(weight, nn.Parameter)}
    own = {id(weight): name for name, weight in reversed(trained.items())}
    return {
        name: weight
        for name, weight in trained.items()
        if weight.requires_grad and weight.dim() > 1 and own[id(weight)] == name
    }
