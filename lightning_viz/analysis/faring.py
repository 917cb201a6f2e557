"""How a model fares on the validation data, by torchmetrics, over all processes of a run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_viz.analysis.judging import Figures, Task, judge_of, task_of, with_names
from lightning_viz.analysis.networks import network_of
from lightning_viz.callbacks.lightning import Callback, LightningModule, Trainer
from lightning_viz.callbacks.probe import Probe, class_names, dense_truth, split_batch
from lightning_viz.callbacks.processes import NOTHING, Numbering, connected, from_every_process, numbering
from lightning_viz.callbacks.sampling import first_loader
from lightning_viz.hooks.guard import looking
from lightning_viz.hooks.observing import run
from lightning_viz.hooks.structure import first_tensor, map_tensors, sample_count
from lightning_viz.pixels import PixelSpace


class Fares(Callback):
    """Judges what a model puts out while it is validated, by the first of the validation loaders.

    It hangs on the network's forward in the validation pass that runs anyway; where the module's step does without
    it, it runs the network by itself. What goes wrong ends nothing, and is said among the figures.

    Attributes:
        numbers: the figures when the pass has ended, in plain values, on the first process: ``samples``, and of
            classes ``accuracy``, ``top5_accuracy``, ``cross_entropy``, ``calibration_error``, ``recall`` and
            ``confusion`` (true, predicted); of masks ``mean_iou``, ``pixel_accuracy`` and ``iou``; of images
            ``psnr``; and ``note``.
    """

    def __init__(self) -> None:
        self.numbers: Figures = {}
        self._handle: Any = None
        self._forget()

    def _forget(self) -> None:
        self.numbers = {}
        self._task: Task | None = None
        self._judge: Metric | None = None
        self._fault = ""
        self._count = 0
        self._output: Tensor | None = None
        self._numbering, self._space = Numbering(), PixelSpace()
        self._names: tuple[str, ...] = ()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._forget()
        with self._harmless():
            loader, _ = first_loader(trainer, Probe())
            dataset = getattr(loader, "dataset", None)
            self._numbering = numbering(trainer, loader)
            self._names, self._space = class_names(dataset), PixelSpace.of_transform(dataset) or PixelSpace()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Hang on to the network."""
        self._let_go()
        self._output = None
        if dataloader_idx == 0 and not self._fault:
            self._handle = network_of(pl_module).register_forward_hook(self._take)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Judge the batch."""
        self._let_go()
        if dataloader_idx == 0 and not self._fault:
            with self._harmless(), torch.no_grad():
                self._see(trainer, network_of(pl_module), batch)
        self._output = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring together what all processes saw; before anything is drawn, for which the others would wait."""
        said = from_every_process(trainer, (self._task, self._fault))
        faults = [_fault_of(one, rank, len(said)) for rank, one in enumerate(said)]
        tasks = dict.fromkeys(one[0] for one in said if one is not NOTHING and one[0] is not None)
        if len(tasks) > 1:
            faults.append("batches are of different kinds")
        found: Figures = {}
        if any(faults):
            found = {"note": "; ".join(filter(None, faults))}
        elif tasks:  # all processes come by here, or none
            with self._harmless(), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # torchmetrics', of a process that saw no batch
                judge = self._judge or self._prepared(next(iter(tasks)), pl_module.device)
                for part in (one for one in judge.modules() if isinstance(one, Metric)):
                    part.sync_on_compute = connected(trainer)  # not with processes that do not take part
                found = with_names(judge.compute(), self._names)
            found = {"note": self._fault} if self._fault else found
        self.numbers = found if trainer.is_global_zero else {}
        self._judge = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hook behind."""
        self._let_go()

    def _take(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Of the first call in a batch; copied, as what follows may write into it."""
        if self._output is None:
            found = first_tensor(output)
            self._output = None if found is None else found.detach().clone()

    def _let_go(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def _see(self, trainer: Trainer, network: nn.Module, batch: Any) -> None:
        inputs, labels = split_batch(batch, network)
        size = sample_count(inputs)
        output = self._output
        if output is None or output.dim() == 0 or len(output) != size:
            with looking(network), torch.no_grad(), trainer.precision_plugin.forward_context():
                output = first_tensor(run(network, map_tensors(inputs, torch.clone)))
        valid = len(self._numbering.among(self._count, size))
        self._count += size
        if output is None or output.dim() == 0 or len(output) != size:
            return
        found = task_of(output, labels, dense_truth(batch, network), inputs)
        if found is None:
            return
        task, truth = found
        if self._judge is None:
            self._task, self._judge = task, self._prepared(task, output.device)
        if task != self._task:
            raise ValueError("batches are of different kinds")
        self._judge.update(
            *(one[:valid].detach().to(self._judge.device) for one in (output.float(), truth)),
        )

    def _prepared(self, task: Task, device: torch.device) -> Metric:
        """A judge where the model is, as processes speak to one another there; Apple's devices have no float64."""
        return judge_of(task, self._space).to("cpu" if device.type == "mps" else device)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._fault = f"{type(error).__name__}: {error}"


def _fault_of(said: Any, rank: int, processes: int) -> str:
    fault = "nothing came of it" if said is NOTHING else said[1]
    where = f" on process {rank}" if processes > 1 else ""
    return f"the validation pass could not be judged{where}: {fault}" if fault else ""
