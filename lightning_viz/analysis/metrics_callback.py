"""Metrics of a model on the validation data, over all processes of a run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_viz.analysis.metrics import MetricValues, Task, infer_task, metric_for, name_classes
from lightning_viz.analysis.models import network_of
from lightning_viz.callbacks.distributed import NOTHING, Numbering, connected, from_every_process, numbering
from lightning_viz.callbacks.probe import Probe, find_class_names, split_batch
from lightning_viz.callbacks.probe_loading import first_loader
from lightning_viz.callbacks.run import Callback, LightningModule, Trainer
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.observe import call_model
from lightning_viz.hooks.pytree import first_tensor, map_tensors, sample_count
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
        self._handle: Any = None
        self._reset()

    def _reset(self) -> None:
        self.values: MetricValues = {}
        self._task: Task | None = None
        self._metric: Metric | None = None
        self._error = ""
        self._samples = 0
        self._output: Tensor | None = None
        self._numbering, self._pixel_space = Numbering(), PixelSpace()
        self._names: tuple[str, ...] = ()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset, and read the data set's class names and pixel space."""
        self._reset()
        with self._keep_error():
            loader, _ = first_loader(trainer, Probe())
            dataset = getattr(loader, "dataset", None)
            self._numbering = numbering(trainer, loader)
            self._names, self._pixel_space = find_class_names(dataset), PixelSpace.of_transform(dataset) or PixelSpace()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Register the forward hook."""
        self._remove_hook()
        self._output = None
        if dataloader_idx == 0 and not self._error:
            self._handle = network_of(pl_module).register_forward_hook(self._keep_output)

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
        self._remove_hook()
        if dataloader_idx == 0 and not self._error:
            with self._keep_error(), torch.no_grad():
                self._update(trainer, network_of(pl_module), batch)
        self._output = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the values over all processes, before anything is drawn, for which the others would wait."""
        shares = from_every_process(trainer, (self._task, self._error))
        errors = [_error_text(share, rank, len(shares)) for rank, share in enumerate(shares)]
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
        """Remove the forward hook."""
        self._remove_hook()

    def _keep_output(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the first call's output, as a copy, since later operations may write into it."""
        if self._output is None:
            tensor = first_tensor(output)
            self._output = None if tensor is None else tensor.detach().clone()

    def _remove_hook(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def _update(self, trainer: Trainer, network: nn.Module, batch: Any) -> None:
        inputs, labels, truth = split_batch(batch, network)
        size = sample_count(inputs)
        outputs = self._output
        if outputs is None or outputs.dim() == 0 or len(outputs) != size:
            with evaluation_mode(network), torch.no_grad(), trainer.precision_plugin.forward_context():
                outputs = first_tensor(call_model(network, map_tensors(inputs, torch.clone)))
        valid = len(self._numbering.among(self._samples, size))
        self._samples += size
        if outputs is None or outputs.dim() == 0 or len(outputs) != size:
            return
        inferred = infer_task(outputs, labels, truth, inputs)
        if inferred is None:
            return
        task, target = inferred
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
            self._error = f"{type(error).__name__}: {error}"


def _error_text(share: Any, rank: int, processes: int) -> str:
    error = "the process sent no result" if share is NOTHING else share[1]
    process = f" on process {rank}" if processes > 1 else ""
    return f"the metrics of the validation pass failed{process}: {error}" if error else ""
