"""What a study takes: samples that the model can answer, as many as it can afford; and how it writes numbers down."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.technique import not_a_classifier
from lightning_viz.errors import AnalysisError, ViewError
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.observe import call_model
from lightning_viz.pixels import clamp_inputs
from lightning_viz.render.tiles import Verdict

_AFFORDED = 1e13  # floating-point operations of one study: a minute or two of two cores
_LEAST = 5e6  # of a pass: below that the time goes to calling operations
_BATCH = 64
_BATCH_VALUES = 2**21  # of a batch's input: 13 images of 3 x 224 x 224
_SLACK = 0.02  # of the pixels' range: by how much augmentation may leave it


@dataclass(frozen=True)
class Taken:
    """Samples where the model is, and what it says of them.

    Attributes:
        images: as the model takes them, ``[N, C, H, W]``.
        labels: their true classes ``[N]``; what the model says where they are not known.
        said: the classes that the model says ``[N]``.
        confidences: in these ``[N]``, on the CPU.
        truths: the true classes ``[N]`` on the CPU; None where they are not known.
    """

    images: Tensor
    labels: Tensor
    said: Tensor
    confidences: Tensor
    truths: Tensor | None

    def verdicts(self, subject: ModelUnderStudy) -> list[Verdict]:
        """What stands under them.

        Args:
            subject: whose samples they are.
        """
        return subject.verdicts(self.truths, self.said, self.confidences)


def taken(subject: ModelUnderStudy, count: int, *, within: bool = False) -> Taken:
    """The first samples, of which the model must say something.

    Args:
        subject: with the samples.
        count: of them, at most.
        within: clamp their pixels to the bounds, from which augmentation may have moved them a little.

    Raises:
        AnalysisError: the model returns NaN or infinity.
    """
    images, labels = subject.some(count)
    outputs = subject.outputs(len(images))
    assert outputs is not None
    lost = int((~outputs.isfinite().all(1)).sum())
    if lost:
        raise AnalysisError(
            f"the model returns NaN or infinity for {lost} of {len(images)} samples: look for NaN in its weights, or "
            "give an earlier checkpoint"
        )
    confidences, said = outputs.float().softmax(1).max(1)
    if within:
        images = clamp_inputs(images, subject.pixel_space, _SLACK)
    truths = None if subject.labels is None else subject.labels[: len(images)]
    return Taken(images, labels, said.to(images.device), confidences, truths)


def beyond_pixels(subject: ModelUnderStudy) -> str:
    """Why a technique that keeps to the range of pixels is not for a model; empty where it is.

    Args:
        subject: with the model.
    """
    reason = not_a_classifier(subject)
    if reason or subject.images is None:
        return reason
    try:
        clamp_inputs(subject.images, subject.pixel_space, _SLACK)
    except ViewError as error:
        return str(error)
    return ""


def affordable(subject: ModelUnderStudy, passes: float, *, most: int, least: int) -> int:
    """How many samples, updates or copies a study can afford: a matter of what a pass costs, and not of the machine.

    Args:
        subject: whose model is run.
        passes: forwards of one sample that each of them takes; a backward counts as two.
        most: for small models.
        least: for large ones.
    """
    assert subject.images is not None
    image = subject.some(1)[0]
    with warnings.catch_warnings(), evaluation_mode(subject.model), torch.no_grad():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of compiled modules: their hooks fire once more, which is harmless
        with FlopCounterMode(display=False) as counter:
            call_model(subject.model, image)
    return max(least, min(most, int(_AFFORDED / (passes * max(_LEAST, counter.get_total_flops())))))


def batch_size(images: Tensor) -> int:
    """Of passes, such that results do not depend on how fast a machine is.

    Args:
        images: of which one or more make a batch.
    """
    return max(1, min(_BATCH, _BATCH_VALUES // images[0].numel()))


def number(value: Any) -> float | None:
    """A number as JSON holds it: None for NaN and infinity.

    Args:
        value: a number, or a tensor of one.
    """
    found = float(value)
    return found if math.isfinite(found) else None


def numbers(values: Tensor | Sequence[float]) -> list[float | None]:
    """The same of many ``[n]``.

    Args:
        values: the numbers.
    """
    return [number(value) for value in values]
