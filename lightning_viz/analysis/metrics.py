"""Metrics of a model's outputs and labels, by task, from torchmetrics; the callback has those of a validation pass.

The results are the same in whatever order the samples come and on however many processes: counts are integers, sums of
real numbers are float64, and results keep the six significant digits that no order of summation changes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
    MulticlassRecall,
)
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchmetrics.utilities import dim_zero_cat

from lightning_viz.analysis.models import network_of
from lightning_viz.callbacks.batch_parts import reading_of, split_batch
from lightning_viz.callbacks.distributed import NOTHING, Numbering, connected, from_every_process, numbering
from lightning_viz.callbacks.predictions import mask_of
from lightning_viz.callbacks.probe import IGNORE_INDEX, Probe, find_class_names
from lightning_viz.callbacks.probe_loading import first_loader
from lightning_viz.callbacks.run import Callback, LightningModule, Trainer, error_text
from lightning_viz.errors import InvalidArgumentError, OutputError
from lightning_viz.hooks.calls import call_model
from lightning_viz.hooks.feature_maps import resize
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.outputs import knowledge_of, scores_path
from lightning_viz.hooks.pytree import map_tensors, part_at, sample_count
from lightning_viz.pixels import PixelSpace

_MOST_RECALLS, _MOST_CONFUSIONS = 1000, 40  # classes of which a recall each, and a confusion matrix, are reported

MetricValues = dict[str, Any]
"""By name: a number, or numbers by class; None for what is undefined or infinite."""


class Task(NamedTuple):
    """What a model predicts.

    Attributes:
        kind: the class of a sample, the class of each pixel, or an image.
        classes: number of classes K; 2 if a single score decides between two.
        single_score: whether it does.
    """

    kind: Literal["classification", "segmentation", "images"]
    classes: int = 0
    single_score: bool = False


def infer_task(outputs: Tensor, labels: Tensor | None, truth: Tensor | None, inputs: Any) -> tuple[Task, Tensor] | None:
    """Infer the task from a batch.

    Args:
        outputs: scores ``[n, K]``, ``[n, 1]`` or ``[n]``, or maps ``[n, C, h, w]``.
        labels: classes ``[n]``.
        truth: masks or images ``[n, ...]``.
        inputs: of the batch; the target of an autoencoder.

    Returns:
        The task and its target; None if the batch has no target that fits the outputs.
    """
    if outputs.dim() in (1, 2) and labels is not None and len(labels) == len(outputs):
        scores = outputs.shape[1] if outputs.dim() == 2 else 1
        return Task("classification", max(scores, 2), scores == 1), labels
    if outputs.dim() != 4:
        return None
    channels = outputs.shape[1]
    mask = None if truth is None else mask_of(truth, channels)
    if mask is not None:
        return Task("segmentation", max(channels, 2), channels == 1), mask
    image = inputs if truth is None else truth
    return (Task("images"), image) if isinstance(image, Tensor) and image.shape == outputs.shape else None


def metric_for(task: Task, pixel_space: PixelSpace) -> Metric:
    """Make the metric of a task; its ``compute`` returns `MetricValues`, empty if no sample counted."""
    if task.kind == "images":
        return UnknownScale(ImageMetrics(PixelSpace()), ImageMetrics(pixel_space), of_target=True)
    metrics = ClassificationMetrics if task.kind == "classification" else SegmentationMetrics
    if task.single_score:
        return UnknownScale(metrics(2, _scores_of_probability), metrics(2, _scores_of_logit))
    return metrics(task.classes)


class UnknownScale(Metric):
    """Updates two metrics, and returns the one for the scale that all values together turn out to have.

    Args:
        bounded: if all values lie in [0, 1].
        unbounded: if any lies outside.
        of_target: whether the scale in question is the target's; by default it is the outputs'.
    """

    full_state_update = False
    outside: Tensor

    def __init__(self, bounded: Metric, unbounded: Metric, *, of_target: bool = False) -> None:
        super().__init__()
        self.bounded, self.unbounded, self._of_target = bounded, unbounded, of_target
        self.add_state("outside", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, target: Tensor) -> None:
        """Add a batch."""
        values = target if self._of_target else outputs
        self.outside += ((values < 0) | (values > 1)).sum()
        self.bounded.update(outputs, target)
        self.unbounded.update(outputs, target)

    def compute(self) -> MetricValues:
        """The values of the metric whose scale fits."""
        values: MetricValues = (self.unbounded if self.outside else self.bounded).compute()
        return values


class _SampleMetrics(Metric):
    """A collection of metrics and the number of samples that they are of; subclasses say how a batch updates them."""

    full_state_update = False
    samples: Tensor

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        super().__init__()
        self.names = tuple(metrics)
        # Compute groups form at the first update: a process without any would synchronize other states, and hang.
        self.metrics = MetricCollection(dict(metrics), compute_groups=False)
        self.add_count("samples")

    def add_count(self, name: str) -> None:
        self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def compute(self) -> MetricValues:
        """Plain numbers by name, in the order in which the metrics were given; empty without samples."""
        if not self.samples:
            return {}
        values = self.metrics.compute()  # in alphabetical order
        return {"samples": int(self.samples), **{name: _rounded(values[name].tolist()) for name in self.names}}


class ClassificationMetrics(_SampleMetrics):
    """Accuracy, top-5 accuracy, cross entropy in nats, expected calibration error (15 bins), recalls and confusions.

    Args:
        classes: number of classes K.
        to_scores: maps outputs to scores ``[n, K]``; they are scores already if omitted.
    """

    not_finite: Tensor
    too_high: Tensor

    def __init__(self, classes: int, to_scores: Callable[[Tensor], Tensor] | None = None) -> None:
        metrics: dict[str, Metric] = {"accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False)}
        if classes > 5:
            metrics["top5_accuracy"] = MulticlassAccuracy(classes, top_k=5, average="micro", validate_args=False)
        metrics["cross_entropy"] = MeanMetric().set_dtype(torch.float64)
        metrics["calibration_error"] = CalibrationError(classes, n_bins=15, validate_args=False)
        if classes <= _MOST_RECALLS:
            metrics["recall"] = MulticlassRecall(classes, average=None, zero_division=math.nan, validate_args=False)
        if classes <= _MOST_CONFUSIONS:
            metrics["confusion"] = MulticlassConfusionMatrix(classes, validate_args=False)
        super().__init__(metrics)
        self.classes, self._to_scores = classes, to_scores
        self.add_count("not_finite")
        self.add_count("too_high")

    def update(self, outputs: Tensor, labels: Tensor) -> None:
        """Add the outputs and labels ``[n]`` of a batch; labels outside 0 to K - 1 are unknown and do not count."""
        log_probabilities = _log_probabilities(outputs if self._to_scores is None else self._to_scores(outputs))
        finite, known = ~log_probabilities.isnan().any(1), (labels >= 0) & (labels < self.classes)
        self.not_finite += (~finite & known).sum()
        self.too_high += (labels >= self.classes).sum()
        counted = finite & known
        self.samples += counted.sum()
        if counted.any():
            preds, target = log_probabilities[counted], labels[counted].long()
            self.metrics.update(preds=preds, target=target, value=F.nll_loss(preds, target, reduction="none"))

    def compute(self) -> MetricValues:
        """Empty also if a single score meets labels beyond two classes: then it is a regression."""
        if self._to_scores is not None and self.too_high:
            return {}
        values = super().compute()
        if values and self.not_finite:
            values["note"] = f"{int(self.not_finite):,} samples with NaN or infinite outputs are left out"
        return values


class CalibrationError(MulticlassCalibrationError):
    """Expected calibration error of log-probabilities, summed in float64, where order does not change six digits."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add log-probabilities ``[n, K]`` and labels ``[n]``."""
        super().update(preds.exp(), target)

    def compute(self) -> Tensor:
        """The mean distance of confidence and accuracy, weighted by the samples of a bin."""
        self.confidences = [dim_zero_cat(self.confidences).double()]
        return super().compute()


class SegmentationMetrics(_SampleMetrics):
    """Mean and each class's intersection over union, and pixel accuracy, over the pixels of all samples together.

    The mean is over classes that are true or predicted somewhere.

    Args:
        classes: number of classes K.
        to_scores: maps outputs to scores ``[n, K, h, w]``; they are scores already if omitted.
    """

    def __init__(self, classes: int, to_scores: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__(
            {
                "mean_iou": MulticlassJaccardIndex(classes, average="macro", validate_args=False),
                "pixel_accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False),
                "iou": MulticlassJaccardIndex(classes, average=None, zero_division=math.nan, validate_args=False),
            }
        )
        self.classes, self._to_scores = classes, to_scores

    def update(self, outputs: Tensor, masks: Tensor) -> None:
        """Add a batch's outputs, enlarged to its masks ``[n, H, W]``.

        Labels outside 0 to K - 1, and 255, do not count, nor do masks without any other.
        """
        counted = (masks >= 0) & (masks < self.classes) & (masks != IGNORE_INDEX)
        self.samples += counted.flatten(1).any(1).sum()
        if not counted.any():
            return
        if outputs.shape[2:] != masks.shape[1:]:
            outputs = resize(outputs, masks.shape[1:])
        scores = outputs if self._to_scores is None else self._to_scores(outputs)
        self.metrics.update(scores.argmax(1)[counted], masks[counted])


class ImageMetrics(_SampleMetrics):
    """Peak signal-to-noise ratio in decibels, the mean over images; None if an image equals its target.

    Args:
        pixel_space: how outputs and targets map to pixels.
    """

    def __init__(self, pixel_space: PixelSpace) -> None:
        super().__init__({"psnr": MeanMetric().set_dtype(torch.float64)})
        self.pixel_space = pixel_space

    def update(self, outputs: Tensor, images: Tensor) -> None:
        """Add outputs and target images ``[n, C, H, W]``."""
        pixel_space = self.pixel_space if len(self.pixel_space.mean) in (1, outputs.shape[1]) else PixelSpace()
        pixels, target = pixel_space.to_pixels(outputs.double()), pixel_space.to_pixels(images.double())
        self.samples += len(images)
        self.metrics.update(peak_signal_noise_ratio(pixels, target, 1.0, reduction="none", dim=(1, 2, 3)))


def name_classes(values: MetricValues, names: Sequence[str]) -> MetricValues:
    """Replace lists by class with mappings from the classes' names.

    Args:
        values: lists in the order of the classes.
        names: of the classes; their numbers are taken if names are missing or equal.
    """

    def named(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        usable = len(set(names)) == len(names) == len(value)
        keys = names if usable else [str(label) for label in range(len(value))]
        return {key: named(entry) for key, entry in zip(keys, value, strict=True)}

    return {metric: named(value) for metric, value in values.items()}


def _log_probabilities(scores: Tensor) -> Tensor:
    """Normalized ``[n, K]``, from logits, or from probabilities where a sample's scores are positive and sum to 1."""
    scores = scores.double()
    probabilities = (scores >= 0).all(1) & ((scores.sum(1) - 1).abs() < 0.01)
    return torch.where(probabilities[:, None], scores.log(), scores).log_softmax(1)


def _scores_of_logit(logit: Tensor) -> Tensor:
    """Scores of two classes ``[n, 2, ...]`` from one ``[n]`` or ``[n, 1, ...]``."""
    positive = (logit[:, None] if logit.dim() == 1 else logit) / 2
    return torch.cat([-positive, positive], dim=1)


def _scores_of_probability(probability: Tensor) -> Tensor:
    positive = probability[:, None] if probability.dim() == 1 else probability
    return torch.cat([1 - positive, positive], dim=1)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


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
            tensor = scores_of_output(module, output)
            self._output = None if tensor is None else tensor.detach().clone()

    def _remove_hook(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def _update(self, trainer: Trainer, network: nn.Module, batch: Any) -> None:
        inputs, labels, truth, _ = split_batch(batch, network, reading_of(network))
        size = sample_count(inputs)
        outputs = self._output
        if outputs is None or outputs.dim() == 0 or len(outputs) != size:
            with evaluation_mode(network), torch.no_grad(), trainer.precision_plugin.forward_context():
                outputs = scores_of_output(network, call_model(network, map_tensors(inputs, torch.clone)))
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
            self._error = error_text(error)


def scores_of_output(model: nn.Module, outputs: Any) -> Tensor | None:
    """The scores among what a model returned; None if it is unclear which they are."""
    try:
        scores: Tensor = part_at(outputs, scores_path(outputs, knowledge_of(model)))
    except OutputError:
        return None
    return scores


def _error_text(share: Any, rank: int, processes: int) -> str:
    error = "the process sent no result" if share is NOTHING else share[1]
    process = f" on process {rank}" if processes > 1 else ""
    return f"the metrics of the validation pass failed{process}: {error}" if error else ""
