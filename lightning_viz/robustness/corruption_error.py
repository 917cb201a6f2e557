"""Corruption error: errors under corruptions relative to a reference model (Hendrycks and Dietterich, 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import TypeGuard

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import shared_arguments
from lightning_viz.errors import CorruptionWarning, InvalidArgumentError, InvalidTypeError, warn_user
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import same_randomness, seed_torch, warn_if_training
from lightning_viz.hooks.observe import Forward, Passes, image_size_errors, passes
from lightning_viz.hooks.outputs import class_logits
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_display
from lightning_viz.robustness.corruptions import SEVERITIES, all_corruptions, check_kinds

__all__ = ["CorruptionError", "compare_corruption_error", "corruption_error"]

LabeledData = tuple[Tensor, Tensor] | Iterable[Sequence[Tensor]]
"""Images ``[N, C, H, W]`` with labels ``[N]``, or batches of them, such as a `DataLoader`'s; iterated once."""

_ARGUMENTS = {
    "kinds": "names in `CORRUPTIONS` or `FURTHER_CORRUPTIONS`; the former's 15 if omitted.",
    "severities": "of each kind.",
    "pixel_space": "maps the models' inputs to pixels; inputs are pixels in [0, 1] if omitted.",
    "seed": "of everything random, including what the models draw.",
    "batch_size": "maximum number of images corrupted and evaluated at a time; it does not change the result.",
    "progress": "show a progress bar after a few seconds.",
    "forward": "calls a model, ``forward(model, images)``; ``model(images)`` if omitted.",
}


@html_display("name", "mce", "relative_mce", "kinds", "ce", "clean", "errors", "count", "reference_name")
@dataclass(frozen=True)
class CorruptionError:
    """Error rates of a model and of its reference under corruptions of the same images.

    Attributes:
        name: of the model.
        kinds: the K corruptions.
        severities: the S severities of each.
        count: number of images.
        clean: error rate on the original images.
        errors: error rate for each kind and severity, ``[K, S]``, in float64.
        reference_name: of the reference model.
        reference_clean: its error rate on the original images.
        reference_errors: its error rate for each kind and severity, ``[K, S]``.
    """

    name: str
    kinds: tuple[str, ...]
    severities: tuple[int, ...]
    count: int
    clean: float
    errors: Tensor
    reference_name: str
    reference_clean: float
    reference_errors: Tensor

    @property
    def ce(self) -> Tensor:
        """Corruption error of each kind, ``[K]``: 1 for the reference; NaN if the reference makes no mistake."""
        return _ratio(self.errors, self.reference_errors)

    @property
    def relative_ce(self) -> Tensor:
        """Ratio of the increases over the clean error rate, ``[K]``; NaN if the reference's does not increase."""
        return _ratio(self.errors - self.clean, self.reference_errors - self.reference_clean)

    @property
    def mce(self) -> float:
        """Mean of `ce` over the kinds for which it is defined."""
        return self.ce.nanmean().item()

    @property
    def relative_mce(self) -> float:
        """Mean of `relative_ce` over the kinds for which it is defined."""
        return self.relative_ce.nanmean().item()


@shared_arguments(_ARGUMENTS)
def corruption_error(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    data: LabeledData,
    *,
    reference: nn.Module | CorruptionError,
    name: str = "model",
    reference_name: str = "reference",
    kinds: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = True,
    forward: Forward | None = None,
) -> CorruptionError:
    """Corruption error: errors under corruptions relative to a reference model; see `compare_corruption_error`.

    Args:
        model: classifier of two or more classes.
        data: images and labels; see there.
        reference: another classifier, or the errors of one that was measured before.
        name: of the model.
        reference_name: of the reference, if it is a model.

    Raises:
        InvalidArgumentError: see `compare_corruption_error`; also if both names are the same.
    """
    models = {name: model} if isinstance(reference, CorruptionError) else {reference_name: reference, name: model}
    if name == reference_name:
        raise InvalidArgumentError(f"model and reference are both called {name!r}; pass name= or reference_name=")
    errors = compare_corruption_error(
        models,
        data,
        reference=reference if isinstance(reference, CorruptionError) else reference_name,
        kinds=kinds,
        severities=severities,
        pixel_space=pixel_space,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
        forward=forward,
    )
    return errors[name]


@shared_arguments(_ARGUMENTS)
def compare_corruption_error(  # noqa: D417 (others: `shared_arguments`)
    models: Mapping[str, nn.Module],
    data: LabeledData,
    *,
    reference: str | CorruptionError,
    kinds: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = True,
    forward: Forward | None = None,
) -> dict[str, CorruptionError]:
    r"""Corruption error of several models on the same corrupted images (Hendrycks and Dietterich, 2019).

    .. math:: CE_c = \frac{\sum_s E_{s,c}}{\sum_s E^{ref}_{s,c}}, \qquad
        CE^{rel}_c = \frac{\sum_s (E_{s,c} - E)}{\sum_s (E^{ref}_{s,c} - E^{ref})}

    E is the error rate, on clean images or at a severity s of a kind c; the mean over kinds is mCE. Every image is
    corrupted once for all models. They run in eval mode; their state and all random generators are restored.

    Args:
        models: classifiers of two or more classes, by name.
        data: images as the models take them ``[N, C, H, W]`` with their labels ``[N]``, or batches of both.
        reference: name of one of the models, or the errors of one that was measured before on the same data with the
            same seed.

    Returns:
        The errors of each model, by name. Scores that are NaN count as mistakes.

    Raises:
        InvalidArgumentError: an unknown kind, severity or reference, no data, labels that are not one per image, pixels
            outside the bounds, or a model that cannot take the images.
        InvalidTypeError: data that are no images and labels, or a model that returns no scores.
    """
    kind_names = check_kinds(kinds, severities, seed)
    _check(models, reference, kind_names, severities, batch_size)
    for name, model in models.items():
        warn_if_training(model, CorruptionWarning, name=name)
    mistakes = {name: torch.zeros(1 + len(kind_names) * len(severities), dtype=torch.float64) for name in models}
    first, batches = 0, _batches(data, batch_size)
    bar = progress_bar("corruption error", shown=progress, total=len(data[0]) if _is_single_batch(data) else None)
    with ExitStack() as stack, bar:
        runs = {name: stack.enter_context(passes(model, forward=forward)) for name, model in models.items()}
        for images, labels, highest in batches:
            corruptions = all_corruptions(
                images, kinds=kind_names, severities=severities, pixel_space=pixel_space, seed=seed, first=first
            )
            versions = chain([images], (corrupted.inputs for corrupted in corruptions))
            for index, inputs in enumerate(versions):
                for name, run in runs.items():
                    scores = _scores(run, inputs, seed + first)
                    _check_scores(scores, len(images), highest, name)
                    mistakes[name][index] += ((scores.argmax(1) != labels) | scores.isnan().any(1)).sum()
            first += len(images)
            bar.update(len(images))
    if not first:
        raise InvalidArgumentError("the data hold no images; pass fresh data, and a loader without drop_last")
    return _relative_to_reference(mistakes, reference, kind_names, tuple(severities), first)


def _scores(run: Passes, images: Tensor, seed: int) -> Tensor:
    """Scores ``[n, classes]``; random numbers that the model draws do not depend on the other models."""
    with same_randomness(), torch.no_grad(), image_size_errors(images.shape[1:]):
        seed_torch(seed)
        return class_logits(*run(images.to(run.like)).scores()).cpu()


def _relative_to_reference(
    mistakes: Mapping[str, Tensor],
    reference: str | CorruptionError,
    kinds: tuple[str, ...],
    severities: tuple[int, ...],
    count: int,
) -> dict[str, CorruptionError]:
    """The errors of each model beside the reference's; warns of kinds on which the reference makes no mistake."""
    clean = {name: (counts[0] / count).item() for name, counts in mistakes.items()}
    errors = {name: (counts[1:] / count).view(len(kinds), len(severities)) for name, counts in mistakes.items()}
    if isinstance(reference, CorruptionError):
        baseline = reference.name, reference.clean, reference.errors
    else:
        baseline = reference, clean[reference], errors[reference]
    undefined = [kind for kind, error in zip(kinds, baseline[2].sum(1).tolist(), strict=True) if not error]
    if undefined:
        warn_user(
            f"CE is undefined for {', '.join(undefined)}, where {baseline[0]} makes no mistake; mCE is the mean over "
            "the other kinds, try more severities or images",
            CorruptionWarning,
        )
    return {
        name: CorruptionError(name, kinds, severities, count, clean[name], errors[name], *baseline) for name in mistakes
    }


def _ratio(errors: Tensor, reference: Tensor) -> Tensor:
    """Ratio of the sums over severities, ``[K]``; NaN if the reference's is not positive."""
    base = reference.sum(1)
    return torch.where(base > 0, errors.sum(1) / base, torch.nan)


def _is_single_batch(data: LabeledData) -> TypeGuard[tuple[Tensor, Tensor]]:
    """Whether the data are one tensor of images and one of labels, not batches of them."""
    return isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def _batches(data: LabeledData, size: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Images and labels, at most `size` at a time, and the highest label of their batch of the data."""
    for batch in [data] if _is_single_batch(data) else data:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise InvalidTypeError(f"a batch is a {type(batch).__name__}; pass pairs of images and labels")
        images, labels = batch[0], torch.as_tensor(batch[1]).cpu()
        if not len(images):
            continue
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            raise InvalidArgumentError(
                f"labels are {labels.dtype} {list(labels.shape)} for {len(images)} images: one class each, integers"
            )
        if labels.min() < 0:
            raise InvalidArgumentError(f"label {int(labels.min())} is negative; pass class indices of 0 or more")
        highest = int(labels.max())
        for part, part_labels in zip(torch.split(images, size), torch.split(labels, size), strict=True):
            yield part, part_labels, highest


def _check_scores(scores: Tensor, count: int, highest: int, name: str) -> None:
    if len(scores) != count or scores.shape[1] < 2:
        raise InvalidArgumentError(
            f"{name} returns scores {list(scores.shape)} for {count} images; pass a classifier of two classes or more, "
            "or a forward= that returns [N, classes]"
        )
    classes = scores.shape[1]
    if highest >= classes:
        raise InvalidArgumentError(f"label {highest} is out of range: {name} has classes 0 to {classes - 1}")


def _check(
    models: Mapping[str, nn.Module],
    reference: str | CorruptionError,
    kinds: tuple[str, ...],
    severities: Sequence[int],
    batch_size: int,
) -> None:
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size={batch_size} must be at least 1")
    if not models:
        raise InvalidArgumentError("models is empty; pass one or more, {'plain': model}")
    if not isinstance(reference, CorruptionError):
        if reference not in models:
            raise InvalidArgumentError(f"no model is called {reference!r}; pass one of {', '.join(map(repr, models))}")
    elif (reference.kinds, reference.severities) != (kinds, tuple(severities)):
        raise InvalidArgumentError(
            f"the reference was measured for {list(reference.kinds)} at {list(reference.severities)}; pass the same "
            "kinds= and severities="
        )
