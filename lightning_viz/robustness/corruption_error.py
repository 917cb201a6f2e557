"""How much corruptions cost a network, measured against another (Hendrycks and Dietterich, 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import TypeGuard

import torch
from torch import Tensor, nn

from lightning_viz.dream.objectives import taken
from lightning_viz.errors import CorruptionWarning, InvalidArgumentError, InvalidTypeError, warn_user
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import same_randomness, seed_torch
from lightning_viz.hooks.observe import Forward, Passes, passes
from lightning_viz.hooks.targets import class_scores
from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness.corruptions.catalogue import SEVERITIES, all_corruptions, check_kinds

__all__ = ["CorruptionError", "compare_corruption_error", "corruption_error"]

Data = tuple[Tensor, Tensor] | Iterable[Sequence[Tensor]]
"""Images ``[N, C, H, W]`` with labels ``[N]``, or batches of them, such as a `DataLoader`'s; gone through once."""


@dataclass(frozen=True)
class CorruptionError:
    """How often a network is mistaken under corruptions, and how often its reference is, on the same images.

    Attributes:
        name: of the network.
        kinds: of corruptions, K of them.
        severities: of each, S of them.
        count: how many images.
        clean: share of mistakes on the images as they are.
        errors: share of mistakes for each kind and severity, ``[K, S]``, in float64.
        reference_name: of the network that it is measured against.
        reference_clean: its share of mistakes on the images as they are.
        reference_errors: its share of mistakes for each kind and severity, ``[K, S]``.
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
        """Corruption error of each kind, ``[K]``: 1 is the reference's; NaN where that makes no mistake."""
        return _ratio(self.errors, self.reference_errors)

    @property
    def relative_ce(self) -> Tensor:
        """The same of what the corruption adds to the clean error; NaN where it adds nothing to the reference's."""
        return _ratio(self.errors - self.clean, self.reference_errors - self.reference_clean)

    @property
    def mce(self) -> float:
        """Mean of `ce` over the kinds for which it is defined."""
        return self.ce.nanmean().item()

    @property
    def relative_mce(self) -> float:
        """Mean of `relative_ce` over the kinds for which it is defined."""
        return self.relative_ce.nanmean().item()


def corruption_error(
    model: nn.Module,
    data: Data,
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
    """How much corruptions cost a network, measured against another; see `compare_corruption_error`.

    Args:
        model: any classifier of two or more classes.
        data: images and labels; see there.
        reference: what to measure against: another classifier, or the errors of one that was measured before.
        name: of the model.
        reference_name: of the reference, where it is a model.
        kinds: of `CORRUPTIONS`; all 15 if omitted.
        severities: of each kind.
        pixel_space: how the models' inputs map to pixels; inputs are pixels in [0, 1] if omitted.
        seed: of everything random.
        batch_size: images corrupted and shown at a time, at most.
        progress: show a bar when it takes long.
        forward: how to run a model, ``forward(model, images)``, if not ``model(images)``.

    Raises:
        ValueError: see there.
    """
    models = {name: model} if isinstance(reference, CorruptionError) else {reference_name: reference, name: model}
    if name == reference_name:
        raise InvalidArgumentError(f"model and reference are both called {name!r}: give name= or reference_name=")
    found = compare_corruption_error(
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
    return found[name]


def compare_corruption_error(
    models: Mapping[str, nn.Module],
    data: Data,
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
    r"""How much corruptions cost several networks, side by side on the same images (Hendrycks and Dietterich, 2019).

    .. math:: CE_c = \frac{\sum_s E_{s,c}}{\sum_s E^{ref}_{s,c}}, \qquad
        CE^{rel}_c = \frac{\sum_s (E_{s,c} - E)}{\sum_s (E^{ref}_{s,c} - E^{ref})}

    E is the share of mistakes, on clean images or at a severity s of a kind c; the mean over kinds is mCE. Every image
    is corrupted once for all models. They run in eval mode and are left as found; so are all random generators.

    Args:
        models: classifiers of two or more classes, by name.
        data: images as the models take them ``[N, C, H, W]`` with their labels ``[N]``, or batches of both.
        reference: name of the model to measure against, or the errors of one that was measured before, on the same data
            with the same seed.
        kinds: of `CORRUPTIONS`; all 15 if omitted.
        severities: of each kind.
        pixel_space: how the models' inputs map to pixels; inputs are pixels in [0, 1] if omitted.
        seed: of everything random, the models' own drawing too.
        batch_size: images corrupted and shown at a time, at most; they come out alike whatever it is.
        progress: show a bar when it takes long.
        forward: how to run a model, ``forward(model, images)``, if not ``model(images)``.

    Returns:
        By name the errors of each model. A mistake is also what is NaN.

    Raises:
        ValueError: no such kind, severity or reference, no data, labels that are not one class for each image, pixels
            outside the bounds, or a model that cannot take the images.
        TypeError: data that are no images and labels, or a model that returns no scores.
    """
    asked = check_kinds(kinds, severities, seed)
    _check(models, reference, asked, severities, batch_size)
    for name, model in models.items():
        if model.training:
            warn_user(f"{name} is in train mode: it is measured in eval mode, as it would be used", CorruptionWarning)
    mistakes = {name: torch.zeros(1 + len(asked) * len(severities), dtype=torch.float64) for name in models}
    first, batches = 0, _batches(data, batch_size)
    bar = progress_bar("corruption error", shown=progress, total=len(data[0]) if _whole(data) else None)
    with ExitStack() as stack, bar:
        runs = {name: stack.enter_context(passes(model, forward=forward)) for name, model in models.items()}
        for images, labels, highest in batches:
            hurt = all_corruptions(
                images, kinds=asked, severities=severities, pixel_space=pixel_space, seed=seed, first=first
            )
            for place, shown in enumerate(chain([images], (one.inputs for one in hurt))):
                for name, run in runs.items():
                    scores = _scores(run, shown, seed + first)
                    _check_scores(scores, len(images), highest, name)
                    mistakes[name][place] += ((scores.argmax(1) != labels) | scores.isnan().any(1)).sum()
            first += len(images)
            bar.update(len(images))
    if not first:
        raise InvalidArgumentError(
            "the data hold no images: were they gone through before, or is a last, small batch dropped?"
        )
    return _against(mistakes, reference, asked, tuple(severities), first)


def _scores(run: Passes, images: Tensor, seed: int) -> Tensor:
    """What a model says ``[n, classes]``; what it draws itself does not depend on other models, or on what they see."""
    with same_randomness(), torch.no_grad(), taken(images.shape[1:]):
        seed_torch(seed)
        return class_scores(run(images.to(run.like)).outputs).cpu()


def _against(
    mistakes: Mapping[str, Tensor],
    reference: str | CorruptionError,
    kinds: tuple[str, ...],
    severities: tuple[int, ...],
    count: int,
) -> dict[str, CorruptionError]:
    """The errors of each model beside the reference's; where that makes no mistake is said."""
    clean = {name: (each[0] / count).item() for name, each in mistakes.items()}
    errors = {name: (each[1:] / count).view(len(kinds), len(severities)) for name, each in mistakes.items()}
    if isinstance(reference, CorruptionError):
        against = reference.name, reference.clean, reference.errors
    else:
        against = reference, clean[reference], errors[reference]
    found = {
        name: CorruptionError(name, kinds, severities, count, clean[name], errors[name], *against) for name in mistakes
    }
    one = next(iter(found.values()))
    lost = [kind for kind, error in zip(kinds, one.reference_errors.sum(1).tolist(), strict=True) if not error]
    if lost:
        what = f"CE is undefined for {', '.join(lost)}, where {one.reference_name} makes no mistake"
        warn_user(
            f"{what}: mCE is the mean over the other kinds; more severities or images may help", CorruptionWarning
        )
    return found


def _ratio(errors: Tensor, reference: Tensor) -> Tensor:
    """Of their sums over the severities, ``[K]``; NaN where the reference's is not positive."""
    base = reference.sum(1)
    return torch.where(base > 0, errors.sum(1) / base, torch.nan)


def _whole(data: Data) -> TypeGuard[tuple[Tensor, Tensor]]:
    """Whether the data are all images and all labels, not batches of them."""
    return isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(each, Tensor) for each in data)


def _batches(data: Data, size: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Images and labels, at most so many at a time, and the highest label of all that are at hand."""
    for batch in [data] if _whole(data) else data:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise InvalidTypeError(
                f"a batch of the data is a {type(batch).__name__}: give images and labels, (images, labels)"
            )
        images, labels = batch[0], torch.as_tensor(batch[1]).cpu()
        if not len(images):
            continue
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            what = f"labels are {labels.dtype} {list(labels.shape)} for {len(images)} images"
            raise InvalidArgumentError(f"{what}: give one class for each, integers [{len(images)}]")
        if labels.min() < 0:
            raise InvalidArgumentError(f"a label is {int(labels.min())}: give classes of 0 or more")
        highest = int(labels.max())
        for some, theirs in zip(torch.split(images, size), torch.split(labels, size), strict=True):
            yield some, theirs, highest


def _check_scores(scores: Tensor, count: int, highest: int, name: str) -> None:
    if len(scores) != count or scores.shape[1] < 2:
        what = f"{name} returns scores {list(scores.shape)} for {count} images"
        raise InvalidArgumentError(
            f"{what}: give a classifier of two classes or more, or forward= that returns [N, classes]"
        )
    classes = scores.shape[1]
    if highest >= classes:
        raise InvalidArgumentError(
            f"a label is {highest}: {name} has {classes} classes, give labels of 0 to {classes - 1}"
        )


def _check(
    models: Mapping[str, nn.Module],
    reference: str | CorruptionError,
    kinds: tuple[str, ...],
    severities: Sequence[int],
    batch_size: int,
) -> None:
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size={batch_size}: give 1 or more")
    if not models:
        raise InvalidArgumentError("models is empty: give one or more, {'plain': model}")
    if not isinstance(reference, CorruptionError):
        if reference not in models:
            raise InvalidArgumentError(
                f"no model is called {reference!r}: reference must be one of {', '.join(map(repr, models))}"
            )
    elif (reference.kinds, reference.severities) != (kinds, tuple(severities)):
        what = f"the reference was measured for {list(reference.kinds)} at {list(reference.severities)}"
        raise InvalidArgumentError(f"{what}: give kinds= and severities= the same")
