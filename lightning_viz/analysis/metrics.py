"""Metrics of a model's outputs and labels, by task, from torchmetrics.

The results are the same in whatever order the samples come and on however many processes: counts are integers, sums of
real numbers are float64, and results keep the six significant digits that no order of summation changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
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

from lightning_viz.callbacks.predictions import mask_of
from lightning_viz.callbacks.probe import IGNORE_INDEX
from lightning_viz.hooks.feature_maps import resize
from lightning_viz.hooks.outputs import (
    OutputMeaning,
    class_logits,
    two_classes,
)
from lightning_viz.pixels import PixelSpace

_MOST_RECALLS, _MOST_CONFUSIONS = 1000, 40  # classes of which a recall each, and a confusion matrix, are reported

MetricValues = dict[str, Any]
"""By name: a number, or numbers by class; None for what is undefined or infinite."""


class Task(NamedTuple):
    """What a model predicts.

    Attributes:
        kind: the class of a sample, the class of each pixel, or an image.
        scores: number of scores of a sample or pixel; a single one decides between two classes.
        meaning: of the output.
    """

    kind: Literal["classification", "segmentation", "images"]
    scores: int = 0
    meaning: OutputMeaning = OutputMeaning()

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return max(self.scores, 2)


def infer_task(
    outputs: Tensor, labels: Tensor | None, truth: Tensor | None, inputs: Any, meaning: OutputMeaning
) -> tuple[Task, Tensor] | None:
    """Infer the task from a batch.

    Args:
        outputs: scores ``[n, K]``, ``[n, 1]`` or ``[n]``, or maps ``[n, C, h, w]``.
        labels: classes ``[n]``.
        truth: masks or images ``[n, ...]``.
        inputs: of the batch; the target of an autoencoder.
        meaning: of the outputs.

    Returns:
        The task and its target; None if the batch has no target that fits the outputs.
    """
    scores = outputs.shape[1] if outputs.dim() > 1 else 1
    if outputs.dim() in (1, 2) and labels is not None and len(labels) == len(outputs):
        exclusive = meaning.kind in ("scores", "classifier", "binary")
        return (Task("classification", scores, meaning), labels) if exclusive else None
    if outputs.dim() != 4:
        return None
    mask = None if truth is None else mask_of(truth, scores)
    if mask is not None:
        return Task("segmentation", scores, meaning), mask
    image = inputs if truth is None else truth
    return (Task("images"), image) if isinstance(image, Tensor) and image.shape == outputs.shape else None


def metric_for(task: Task, pixel_space: PixelSpace) -> Metric:
    """Make the metric of a task; its ``compute`` returns `MetricValues`, empty if no sample counted."""
    if task.kind == "images":
        return UnknownRange(ImageMetrics(PixelSpace()), ImageMetrics(pixel_space))
    return ClassificationMetrics(task) if task.kind == "classification" else SegmentationMetrics(task)


class UnknownRange(Metric):
    """Updates the metrics of pixels and of values to be mapped to pixels; returns those that the targets' range fits.

    Args:
        pixels: if all of the targets' values lie in [0, 1].
        mapped: if any lies outside.
    """

    full_state_update = False
    outside: Tensor

    def __init__(self, pixels: Metric, mapped: Metric) -> None:
        super().__init__()
        self.pixels, self.mapped = pixels, mapped
        self.add_state("outside", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, target: Tensor) -> None:
        """Add a batch."""
        self.outside += ((target < 0) | (target > 1)).sum()
        self.pixels.update(outputs, target)
        self.mapped.update(outputs, target)

    def compute(self) -> MetricValues:
        """The values of the metric whose range fits."""
        values: MetricValues = (self.mapped if self.outside else self.pixels).compute()
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
        task: what the scores are of.
    """

    not_finite: Tensor
    too_high: Tensor

    def __init__(self, task: Task) -> None:
        self.task, classes = task, task.classes
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
        self.add_count("not_finite")
        self.add_count("too_high")

    def update(self, outputs: Tensor, labels: Tensor) -> None:
        """Add the outputs and labels ``[n]`` of a batch; labels outside 0 to K - 1 are unknown and do not count."""
        log_probabilities = _log_probabilities(outputs.double(), self.task.meaning)
        finite, known = ~log_probabilities.isnan().any(1), (labels >= 0) & (labels < self.task.classes)
        self.not_finite += (~finite & known).sum()
        self.too_high += (labels >= self.task.classes).sum()
        counted = finite & known
        self.samples += counted.sum()
        if counted.any():
            preds, target = log_probabilities[counted], labels[counted].long()
            self.metrics.update(preds=preds, target=target, value=F.nll_loss(preds, target, reduction="none"))

    def compute(self) -> MetricValues:
        """Empty also if a single score meets labels beyond two classes: then it is a regression."""
        if self.task.scores == 1 and self.too_high:
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
        task: what the scores are of.
    """

    def __init__(self, task: Task) -> None:
        self.task, classes = task, task.classes
        super().__init__(
            {
                "mean_iou": MulticlassJaccardIndex(classes, average="macro", validate_args=False),
                "pixel_accuracy": MulticlassAccuracy(classes, average="micro", validate_args=False),
                "iou": MulticlassJaccardIndex(classes, average=None, zero_division=math.nan, validate_args=False),
            }
        )

    def update(self, outputs: Tensor, masks: Tensor) -> None:
        """Add a batch's outputs, enlarged to its masks ``[n, H, W]``.

        Labels outside 0 to K - 1, and 255, do not count, nor do masks without any other.
        """
        counted = (masks >= 0) & (masks < self.task.classes) & (masks != IGNORE_INDEX)
        self.samples += counted.flatten(1).any(1).sum()
        if not counted.any():
            return
        if outputs.shape[2:] != masks.shape[1:]:
            outputs = resize(outputs, masks.shape[1:])
        scores = two_classes(outputs, self.task.meaning) if self.task.scores == 1 else outputs
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


def _log_probabilities(scores: Tensor, meaning: OutputMeaning) -> Tensor:
    """Normalized ``[n, K]``; of a probability of 0 minus infinity."""
    if meaning.squashed != "softmax" and (not meaning.squashed or scores[:1].numel() > 1):
        return class_logits(scores, meaning).log_softmax(1)
    table = scores.reshape(len(scores), -1)
    shares = two_classes(table, meaning) if table.shape[1] == 1 else table
    return (shares / shares.sum(1, keepdim=True)).log()


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    if isinstance(value, int):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
