"""The base of views of a population: they see a whole data set pass, without a pass of their own where that works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_viz.callbacks.accumulator import Batch, Population, Reading, Readings, Tally
from lightning_viz.callbacks.lightning import LightningModule, Trainer
from lightning_viz.callbacks.probe import Samples
from lightning_viz.callbacks.snapshot import Requirements, Snapshot, on_device
from lightning_viz.callbacks.validation_watcher import Watcher
from lightning_viz.callbacks.view import View, leader_of, not_observed
from lightning_viz.errors import InvalidArgumentError, ViewError
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.observe import call_model
from lightning_viz.hooks.pytree import all_tensors, map_tensors


@dataclass(kw_only=True, eq=False)
class PopulationView(View):
    """Sees every validation pass that its schedule allows, and draws when it has ended, at the pass's step.

    It hangs on the forward passes that the validation loop runs anyway, on every process, and runs none of its own.
    Where it cannot (no validation data, or the model is compiled), it runs some of the probe's data set forward by
    itself. Between occasions of the schedule and validation passes: an occasion waits for the next pass.

    Args:
        layers: to watch.
        samples: of the probe's data set, where the view runs them itself.
    """

    layers: Layers = "last_conv"
    samples: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise InvalidArgumentError(f"samples is {self.samples}: give 1 or more")

    def _forget(self) -> None:
        super()._forget()
        self.found: Population | None = None
        """Of the validation pass that has just ended."""
        self.unwatchable = ""
        """Why the validation pass cannot be watched, in words; empty where it can."""

        self.watcher: Watcher | None = None

    # What a view of a population is made of.

    def read(self, call: str, module: nn.Module, output: Tensor) -> Reading:
        """What to take of a layer's output for a batch ``[n, ...]``; nothing that waits for the device.

        Args:
            call: the layer's name and number of the call, ``"layer1:0"``.
            module: the layer.
            output: of the call.
        """
        raise NotImplementedError

    # The validation pass, which the first view of a population watches for all.

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be ready to watch, on every process."""
        super().on_fit_start(trainer, pl_module)
        views = [view for view in trainer.callbacks if isinstance(view, PopulationView)]
        if views[0] is self and not not_observed(trainer, pl_module):
            leader = leader_of(trainer)
            self.watcher = Watcher(trainer, pl_module, views, leader.observer if leader else None)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whose turn it is."""
        if self.watcher is not None:
            self.watcher.begin()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Hang on to the layers."""
        super().on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        if self.watcher is not None:
            self.watcher.open(batch, dataloader_idx)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Let go of them."""
        if self.watcher is not None:
            self.watcher.shut()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring together what all processes saw."""
        if self.watcher is not None:
            self.watcher.end()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Remember what the schedule asks for."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self.watcher is not None:
            self.watcher.on_step()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise."""
        super().on_train_epoch_end(trainer, pl_module)
        if self.watcher is not None:
            self.watcher.on_epoch_end()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say it where there was nothing to watch."""
        if self.watcher is not None:
            self.watcher.finish()
        super().on_train_end(trainer, pl_module)

    def _close(self) -> None:
        super()._close()
        if self.watcher is not None:
            self.watcher.shut()
            self.watcher = None

    def __getstate__(self) -> dict[str, Any]:
        """The watcher, too, lives only in this process."""
        return {**super().__getstate__(), "watcher": None, "found": None}

    # A view like others, but for when and at what it looks.

    def check(self, model: nn.Module) -> None:
        """The layers must exist."""
        if not select_layers(model, self.layers):
            raise ViewError("no layers given: name at least one")

    def requirements(self, model: nn.Module) -> Requirements:
        """Nothing of the shared pass; samples, where the view runs them itself."""
        self._layers = tuple(select_layers(model, self.layers))
        return Requirements(head=False, population=self.samples if self.unwatchable else 0)

    def passes(self, samples: Samples) -> float:
        """A forward over the population, a third of a forward + backward, where the view runs it itself."""
        return min(self.samples, len(samples)) / 3 / samples.head if self.unwatchable else 0.0

    def due(self, step: int, occasion: bool) -> bool:
        """When a validation pass has just ended; by the schedule, where the view runs samples itself."""
        if self.unwatchable:
            return super().due(step, occasion)
        return self.found is not None and self.found.step == step and self.last_step != step

    def population(self, model: nn.Module, look: Snapshot) -> Population:
        """What was seen of the validation pass, or what a pass of the view's own sees now."""
        found, self.found = self.found, None
        return found if found is not None else self._survey(model, look)

    def _survey(self, model: nn.Module, look: Snapshot) -> Population:
        samples, count = look.samples, min(self.samples, len(look.samples))
        tally, done = Tally(), 0
        with evaluation_mode(model), torch.no_grad():
            for inputs in samples.batches(0, count):
                size = len(all_tensors(inputs)[0])
                given = on_device(model, inputs)
                labels = None if samples.labels is None else samples.labels[done : done + size]
                readings = Readings(size)
                handles = readings.hooks(self, select_layers(model, self._layers))
                try:
                    call_model(model, map_tensors(given, torch.clone))
                finally:
                    for handle in handles:
                        handle.remove()
                if self.name in readings.faults:
                    raise readings.faults[self.name]
                tally.add(readings, Batch(given, labels, np.arange(done, done + size)))
                done += size
        notes = (f"{self.unwatchable}: the view runs {count:,} samples by itself",)
        return Population(tally.by_call(self.name), look.step, count, notes, validation=False)
