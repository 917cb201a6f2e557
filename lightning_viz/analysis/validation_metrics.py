"""Metrics of a validation pass: a callback that takes the outputs from the pass that runs anyway."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_viz.analysis.metrics import MetricValues, Task, infer_task, metric_for, name_classes
from lightning_viz.analysis.models import network_of
from lightning_viz.callbacks.batch_parts import BatchParts, reading_of, split_batch
from lightning_viz.callbacks.distributed import NOTHING, Numbering, connected, from_every_process, numbering
from lightning_viz.callbacks.model_knowledge import output_knowledge
from lightning_viz.callbacks.probe import Probe, Samples, find_class_names
from lightning_viz.callbacks.probe_loading import first_loader
from lightning_viz.callbacks.run import Callback, LightningModule, Trainer, TrainerRun, error_text
from lightning_viz.errors import InvalidArgumentError, OutputError
from lightning_viz.hooks.calls import call_model
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.outputs import (
    OutputMeaning,
    SquashingWatch,
    interpret,
    keep_knowledge,
    knowledge_of,
    watching_squashing,
)
from lightning_viz.hooks.pytree import map_tensors, part_at, sample_count
from lightning_viz.pixels import PixelSpace


class ValidationMetrics(Callback):
    """Torchmetrics of a model's outputs on the first validation loader.

    A forward hook takes the outputs from the validation pass that runs anyway; if the module's step does not call its
    network, the callback does. Errors do not end the run: they become the ``note`` among the values.

    Attributes:
        values: after the pass, on the first process, plain numbers: ``samples``; of a classifier ``accuracy``,
            ``top5_accuracy``, ``cross_entropy``, ``calibration_error``, ``recall`` and ``confusion`` (true class,
            predicted class); of a segmentation ``mean_iou``, ``pixel_accuracy`` and ``iou``; of an image-to-image
            model ``psnr``; and ``note``.
    """

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._watching = ExitStack()
        self._reset()

    def _reset(self) -> None:
        self.values: MetricValues = {}
        self._task: Task | None = None
        self._metric: Metric | None = None
        self._error = ""
        self._samples = 0
        self._returned: Any = None
        self._output: Any = None
        self._watch: SquashingWatch | None = None
        self._meaning: OutputMeaning | None = None
        self._numbering, self._pixel_space = Numbering(), PixelSpace()
        self._names: tuple[str, ...] = ()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset, and read the data set's class names and pixel space."""
        self._reset()
        with self._keep_error():
            loader, _ = first_loader(TrainerRun(trainer, pl_module), Probe())
            dataset = getattr(loader, "dataset", None)
            self._numbering = numbering(trainer, loader)
            self._names, self._pixel_space = find_class_names(dataset), PixelSpace.of_transform(dataset) or PixelSpace()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Register the hooks."""
        self._remove_hooks()
        self._output = self._returned = None
        if dataloader_idx == 0 and not self._error:
            network = network_of(pl_module)
            self._handles = [
                network.register_forward_pre_hook(self._begin_watch),
                network.register_forward_hook(self._keep_output, always_call=True),
            ]

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Update the metric."""
        self._remove_hooks()
        if dataloader_idx == 0 and not self._error:
            with self._keep_error(), torch.no_grad():
                self._update(trainer, network_of(pl_module), batch)
        self._output = self._returned = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the values over all processes, before anything is drawn, for which the others would wait."""
        shares = from_every_process(trainer, (self._task, self._error))
        errors = [_share_error(share, rank, len(shares)) for rank, share in enumerate(shares)]
        tasks = dict.fromkeys(share[0] for share in shares if share is not NOTHING and share[0] is not None)
        if len(tasks) > 1:
            errors.append("batches are of different kinds")
        values: MetricValues = {}
        if any(errors):
            values = {"note": "; ".join(filter(None, errors))}
        elif tasks:  # the same on all processes, so that all of them synchronize or none
            with self._keep_error(), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # torchmetrics', on a process that had no batch
                metric = self._metric or self._make_metric(next(iter(tasks)), pl_module.device)
                for part in metric.modules():
                    if isinstance(part, Metric):
                        part.sync_on_compute = connected(trainer)  # not with processes that do not take part
                values = name_classes(metric.compute(), self._names)
            values = {"note": self._error} if self._error else values
        self.values = values if trainer.is_global_zero else {}
        self._metric = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the hooks."""
        self._remove_hooks()

    def _begin_watch(self, module: nn.Module, inputs: Any = None) -> None:
        """See in the first pass whether scores come out of a softmax."""
        if self._meaning is None and self._output is None:
            self._watch = self._watching.enter_context(watching_squashing(module, differentiates=False))

    def _keep_output(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the first call's output, as a copy, since later operations may write into it."""
        self._watching.close()
        if self._output is None and output is not None:
            self._returned = output if self._meaning is None else None
            self._output = map_tensors(output, lambda x: x.detach().clone())

    def _remove_hooks(self) -> None:
        self._watching.close()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _update(self, trainer: Trainer, network: nn.Module, batch: Any) -> None:
        reading = reading_of(network)
        parts = split_batch(batch, network, reading)
        size = sample_count(parts.inputs)
        valid = len(self._numbering.among(self._samples, size))
        self._samples += size
        with suppress(OutputError):  # no scores among what the model returns, or several that could be
            outputs = self._scores(trainer, network, parts)
            meaning = self._meaning_of(network, outputs, parts)
            inferred = infer_task(outputs, parts.labels, parts.truth, parts.inputs, meaning)
            if reading is not None and reading.compared == "nothing":  # noise that the step makes, say
                return
            if len(outputs) == size and inferred is not None:
                self._add(*inferred, outputs, valid)

    def _scores(self, trainer: Trainer, network: nn.Module, parts: BatchParts) -> Tensor:
        """The scores of a batch, of the step's own pass if it ran the network on just this batch."""
        if self._output is not None:
            scores: Tensor = part_at(self._output, self._meaning_of(network, self._returned, parts).path)
            if scores.shape[:1] == (sample_count(parts.inputs),):
                return scores
        with evaluation_mode(network), torch.no_grad(), trainer.precision_plugin.forward_context():
            self._begin_watch(network)
            with self._watching:
                outputs = call_model(network, map_tensors(parts.inputs, torch.clone))
        scores = part_at(outputs, self._meaning_of(network, outputs, parts).path)
        return scores if scores.dim() else scores.unsqueeze(0)

    def _meaning_of(self, network: nn.Module, outputs: Any, parts: BatchParts) -> OutputMeaning:
        """What the output means, told once: by what is known of the model, and by its first pass."""
        if self._meaning is None:
            if knowledge_of(network) is None:
                reading = reading_of(network)
                compared = "" if reading is None else reading.compared
                samples = Samples(parts.inputs, parts.labels, 1, self._names, truths=parts.truth, compared=compared)
                keep_knowledge(network, output_knowledge(network, samples))
            self._meaning = interpret(network, outputs, self._watch)
        return self._meaning

    def _add(self, task: Task, target: Tensor, outputs: Tensor, valid: int) -> None:
        if self._metric is None:
            self._task, self._metric = task, self._make_metric(task, outputs.device)
        if task != self._task:
            raise InvalidArgumentError("batches are of different kinds")
        device = self._metric.device
        self._metric.update(outputs[:valid].detach().float().to(device), target[:valid].detach().to(device))

    def _make_metric(self, task: Task, device: torch.device) -> Metric:
        """On the model's device, over which processes communicate, except Apple's, which have no float64."""
        return metric_for(task, self._pixel_space).to("cpu" if device.type == "mps" else device)

    @contextmanager
    def _keep_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._error = error_text(error)


def _share_error(share: Any, rank: int, processes: int) -> str:
    error = "the process sent no result" if share is NOTHING else share[1]
    process = f" on process {rank}" if processes > 1 else ""
    return f"the metrics of the validation pass failed{process}: {error}" if error else ""
