"""What one technique is done on: the subject's samples as it takes them, and classes as a person writes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.studies.samples import beyond_pixels, taken
from lightning_viz.errors import AnalysisError, InvalidArgumentError
from lightning_viz.hooks.pytree import device_of
from lightning_viz.hooks.target_words import parse_target
from lightning_viz.hooks.targets import ClassTarget


def images_of(subject: ModelUnderStudy) -> Tensor:
    """The samples' images ``[N, C, H, W]`` where the model is.

    Args:
        subject: with the samples.

    Raises:
        AnalysisError: the model takes none, or more besides.
    """
    images = subject.images
    if images is None:
        raise AnalysisError(f"{subject.name} does not take one image [N, C, H, W] alone, which this is for")
    return images.to(device_of(subject.model))


def classified(subject: ModelUnderStudy) -> Tensor:
    """The same, of a model that tells classes of images, within the range of pixels.

    Args:
        subject: with the samples.

    Raises:
        AnalysisError: the model is no classifier, or the samples lie outside.
    """
    reason = beyond_pixels(subject).replace(
        "pixel_space=PixelSpace(mean, std)", "--pixel_space.mean and --pixel_space.std"
    )
    if reason:
        raise AnalysisError(f"{subject.name}: {reason}")
    return taken(subject, len(subject.samples), within=True).images


def first_samples(subject: ModelUnderStudy, count: int) -> ModelUnderStudy:
    """A subject with fewer samples: a probe may hold more than were asked for.

    Args:
        subject: with the samples.
        count: of them, at most.
    """
    every = subject.samples
    some = replace(
        every,
        inputs=every.part(0, count),
        labels=None if every.labels is None else every.labels[:count],
        head=min(every.head, count),
        indices=None if every.indices is None else every.indices[:count],
        truths=None if every.truths is None else every.truths[:count],
    )
    return replace(subject, samples=some)


def true_classes(subject: ModelUnderStudy) -> Tensor:
    """The samples' classes ``[N]``, as the data have them.

    Args:
        subject: with the samples.

    Raises:
        AnalysisError: they are not known.
    """
    if subject.labels is None:
        raise AnalysisError("the samples' true classes are not known: give data with labels")
    return subject.labels


def class_of(value: int | str | None, subject: ModelUnderStudy) -> int | None:
    """A class's number.

    Args:
        value: ``3`` or ``class:ox``; None stays None.
        subject: whose data name the classes.

    Raises:
        ValueError: no class has that name.
    """
    if value is None:
        return None
    names = subject.samples.class_names
    target = parse_target(str(value), class_names=names).bind(None, names)
    if isinstance(target, ClassTarget) and isinstance(target.index, int):
        return target.index
    raise InvalidArgumentError(f"{value!r} is no class: give '3' or 'class:ox'")


def sample_rows(subject: ModelUnderStudy, count: int) -> list[dict[str, Any]]:
    """The first columns of a table with a row for each sample: its number in the data set, and its true class.

    Args:
        subject: with the samples.
        count: of rows.
    """
    numbers = subject.samples.indices or range(count)
    truths = [None] * count if subject.labels is None else subject.labels.tolist()
    return [{"sample": number, "truth": truth} for number, truth in zip(numbers[:count], truths[:count], strict=True)]


def rows_of(subject: ModelUnderStudy, columns: dict[str, Tensor]) -> list[dict[str, Any]]:
    """A table with a row for each sample.

    Args:
        subject: with the samples.
        columns: by name, a value for each sample ``[N]``.
    """
    count = len(next(iter(columns.values())))
    lists = {name: column.tolist() for name, column in columns.items()}
    rows = sample_rows(subject, count)
    return [{**row, **{name: column[place] for name, column in lists.items()}} for place, row in enumerate(rows)]


def said(subject: ModelUnderStudy, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """What the model says of inputs, and how sure it is, ``[N]`` each, on the CPU.

    Args:
        subject: with the model.
        inputs: as it takes them.
    """
    with torch.no_grad():
        confidences, classes = subject.model(inputs).float().softmax(1).max(1)
    return classes.cpu(), confidences.cpu()
