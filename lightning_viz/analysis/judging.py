"""Metrics of what models put out beside what is true, merged across processes by torchmetrics.

Each sum is of whole numbers, or of numbers rounded by themselves so that float64 adds them up exactly: in whatever
order the samples come, and on however many processes, the figures are the same to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_confusion_matrix

from lightning_viz.callbacks.predictions import mask_of
from lightning_viz.dense.agreement import IGNORED, peak_signal_to_noise
from lightning_viz.pixels import PixelSpace

_CALIBRATION_BINS = 15
_BY_CLASS, _CONFUSED = 1000, 40  # most classes that are told apart, and that are confused one with another
_GRAIN = 2.0**-24  # sums below 2^29 of its multiples are exact in float64

Figures = dict[str, Any]
"""By name: a number, or numbers by class."""


class Task(NamedTuple):
    """What a model does, as far as its output and the batch tell.

    Attributes:
        kind: tell the class of a sample or of each pixel, or make an image.
        classes: how many; 2 where one score tells between two.
        one_score: whether it does.
    """

    kind: Literal["classes", "pixels", "images"]
    classes: int = 0
    one_score: bool = False


def task_of(outputs: Tensor, labels: Tensor | None, truth: Tensor | None, inputs: Any) -> tuple[Task, Tensor] | None:
    """What the model does, and what is true; None where that is not known.

    Args:
        outputs: of a batch.
        labels: classes ``[n]``.
        truth: masks or images ``[n, ...]``.
        inputs: of the batch; what an autoencoder's outputs are compared with.
    """
    if outputs.dim() in (1, 2) and labels is not None and len(labels) == len(outputs):
        classes = outputs.shape[1] if outputs.dim() == 2 else 1
        return Task("classes", max(classes, 2), classes == 1), labels
    if outputs.dim() != 4:
        return None
    channels = outputs.shape[1]
    mask = None if truth is None else mask_of(truth, channels)
    if mask is not None:
        return Task("pixels", max(channels, 2), channels == 1), mask
    image = inputs if truth is None else truth
    same = isinstance(image, Tensor) and image.shape == outputs.shape
    return (Task("images"), image) if same else None


def judge_of(task: Task, space: PixelSpace) -> Metric:
    """The metric for a task, whose `compute` gives figures.

    Args:
        task: what the model does.
        space: how inputs map to pixels.
    """
    if task.kind == "images":
        return Either(Images(space), Images(PixelSpace()), of_truth=True)
    kind = Classes if task.kind == "classes" else Pixels
    return Either(kind(2, "logits"), kind(2, "probabilities")) if task.one_score else kind(task.classes)


class Either(Metric):
    """Judges in two ways, of which it is known when all are seen which is right: whether all values lie in [0, 1].

    Args:
        otherwise: where some lie outside.
        inside: where none does.
        of_truth: the true values, not the model's.
    """

    full_state_update = False
    outside: Tensor

    def __init__(self, otherwise: Metric, inside: Metric, *, of_truth: bool = False) -> None:
        super().__init__()
        self.otherwise, self.inside, self._of_truth = otherwise, inside, of_truth
        self.add_state("outside", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, truth: Tensor) -> None:
        """See a batch."""
        values = truth if self._of_truth else outputs
        self.outside += ((values < 0) | (values > 1)).sum()
        for way in (self.otherwise, self.inside):
            way.update(outputs, truth)

    def compute(self) -> Figures:
        """The figures of the way that is right."""
        found: Figures = (self.otherwise if self.outside else self.inside).compute()
        return found


class Classes(Metric):
    """How a classifier does.

    Args:
        classes: K.
        score: what a single score of two classes is.
    """

    full_state_update = False
    seen: Tensor
    broken: Tensor
    strange: Tensor
    sums: Tensor
    bins: Tensor
    confusion: Tensor

    def __init__(self, classes: int, score: Literal["logits", "probabilities"] | None = None) -> None:
        super().__init__()
        self.classes, self.score = classes, score
        for name in ("seen", "broken", "strange"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")  # right, in 5, cross entropy
        self.add_state("bins", torch.zeros(2, _CALIBRATION_BINS, dtype=torch.float64), dist_reduce_fx="sum")
        if classes <= _BY_CLASS:
            self.add_state("confusion", torch.zeros(classes, classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, truth: Tensor) -> None:
        """See the outputs ``[n, K]`` (or ``[n]``, of one score) of samples, and their classes ``[n]``.

        Classes that there are not (-1 or 255, as a rule) do not count.
        """
        logs = _log_probabilities(outputs if self.score is None else _of_one_score(outputs, self.score))
        finite, known = ~logs.isnan().any(1), (truth >= 0) & (truth < self.classes)
        self.broken += (~finite & known).sum()
        self.strange += (truth >= self.classes).sum()
        logs, truth = logs[finite & known], truth[finite & known]
        self.seen += len(truth)
        if not len(truth):
            return
        confidence, predicted = logs.max(1)
        right = (predicted == truth).double()
        first = logs.topk(min(5, self.classes), dim=1).indices
        in_five = (first == truth[:, None]).any(1).double()
        entropy = _grained(F.nll_loss(logs, truth, reduction="none"))
        self.sums += torch.stack([right.sum(), in_five.sum(), entropy.sum()])
        confidence = _grained(confidence.exp())
        places = (confidence * _CALIBRATION_BINS).long().clamp(max=_CALIBRATION_BINS - 1)
        self.bins.index_add_(1, places, torch.stack([right, confidence]))
        if self.classes <= _BY_CLASS:
            self.confusion += multiclass_confusion_matrix(predicted, truth, self.classes, validate_args=False)

    def compute(self) -> Figures:
        """Of all samples; accuracy and recall are shares of samples, the cross entropy is in nats."""
        seen = int(self.seen)
        if not seen or (self.score and self.strange):  # numbers that are no classes: a regression
            return {}
        right, in_five, entropy = (self.sums / seen).tolist()
        correct, confidence = self.bins
        found: Figures = {"samples": seen, "accuracy": right}
        if self.classes > 5:
            found["top5_accuracy"] = in_five
        found |= {
            "cross_entropy": entropy if math.isfinite(entropy) else None,
            "calibration_error": math.fsum(((correct - confidence).abs() / seen).tolist()),
        }
        if self.classes <= _BY_CLASS:
            found["recall"] = _shares(self.confusion.diagonal(), self.confusion.sum(1))
        if self.classes <= _CONFUSED:
            found["confusion"] = self.confusion.tolist()
        if self.broken:
            found["note"] = f"{int(self.broken):,} samples with NaN or infinite outputs are left out"
        return found


class Pixels(Metric):
    """How a segmentation does.

    Args:
        classes: K.
        score: what a single score of two classes is.
    """

    full_state_update = False
    seen: Tensor
    confusion: Tensor

    def __init__(self, classes: int, score: Literal["logits", "probabilities"] | None = None) -> None:
        super().__init__()
        self.classes, self.threshold = classes, {"logits": 0.0, "probabilities": 0.5, None: None}[score]
        self.add_state("seen", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("confusion", torch.zeros(classes, classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, truth: Tensor) -> None:
        """See the scores ``[n, K, h, w]`` of samples, enlarged to their masks ``[n, H, W]``.

        Classes that there are not, and 255, do not count.
        """
        self.seen += len(truth)
        if not len(truth):
            return
        if outputs.shape[2:] != truth.shape[1:]:
            outputs = F.interpolate(outputs, truth.shape[1:], mode="bilinear", align_corners=False)
        predicted = outputs.argmax(1) if self.threshold is None else (outputs[:, 0] > self.threshold).long()
        counted = (truth >= 0) & (truth < self.classes) & (truth != IGNORED)
        self.confusion += multiclass_confusion_matrix(
            predicted[counted], truth[counted], self.classes, validate_args=False
        )

    def compute(self) -> Figures:
        """Over the pixels of all samples; the mean is over classes that are true or predicted somewhere."""
        both, every = self.confusion.diagonal(), int(self.confusion.sum())
        if not every:
            return {}
        overlaps = _shares(both, self.confusion.sum(0) + self.confusion.sum(1) - both)
        known = [one for one in overlaps if one is not None]
        return {
            "samples": int(self.seen),
            "mean_iou": math.fsum(known) / len(known),
            "pixel_accuracy": int(both.sum()) / every,
            "iou": overlaps,
        }


class Images(Metric):
    """How a model does that makes images.

    Args:
        space: how its outputs, and the images that they should be, map to pixels.
    """

    full_state_update = False
    seen: Tensor
    total: Tensor

    def __init__(self, space: PixelSpace) -> None:
        super().__init__()
        self.space = space
        self.add_state("seen", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, truth: Tensor) -> None:
        """See images ``[n, C, H, W]`` and what they should be."""
        space = self.space if len(self.space.mean) in (1, outputs.shape[1]) else PixelSpace()
        self.seen += len(truth)
        self.total += _grained(
            peak_signal_to_noise(space.to_pixels(outputs.double()), space.to_pixels(truth.double()))
        ).sum()

    def compute(self) -> Figures:
        """In decibels, the mean over the images; None where one is equal to what it should be."""
        mean = float(self.total) / max(1, int(self.seen))
        return {"samples": int(self.seen), "psnr": mean if math.isfinite(mean) else None} if self.seen else {}


def with_names(figures: Figures, names: Sequence[str]) -> Figures:
    """Figures of classes by what these are called.

    Args:
        figures: in the classes' order.
        names: of the classes; their numbers where they have none, or do not differ.
    """

    def named(values: Any) -> Any:
        if not isinstance(values, list):
            return values
        known = names if len(set(names)) == len(names) == len(values) else [str(one) for one in range(len(values))]
        return {name: named(value) for name, value in zip(known, values, strict=True)}

    return {figure: named(values) for figure, values in figures.items()}


def _log_probabilities(outputs: Tensor) -> Tensor:
    """Of scores, or of what are probabilities already, as each sample's sum tells ``[n, K]``."""
    outputs = outputs.double()
    already = (outputs >= 0).all(1) & ((outputs.sum(1) - 1).abs() < 0.01)
    return torch.where(already[:, None], outputs.log(), outputs.log_softmax(1))


def _of_one_score(outputs: Tensor, score: Literal["logits", "probabilities"]) -> Tensor:
    """Two classes' scores ``[n, 2]`` of one ``[n]`` or ``[n, 1]``."""
    one = outputs.double().flatten()
    return torch.stack([-one / 2, one / 2] if score == "logits" else [1 - one, one], dim=1)


def _grained(values: Tensor) -> Tensor:
    return (values.double() / _GRAIN).round() * _GRAIN


def _shares(parts: Tensor, wholes: Tensor) -> list[float | None]:
    """None of what is nothing."""
    return [part / whole if whole else None for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True)]
