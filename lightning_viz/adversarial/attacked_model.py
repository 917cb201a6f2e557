"""The victim: a model under attack, what it is asked, and what it must not be asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Union

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.norms import LINF, Loss, Norm
from lightning_viz.errors import AttackWarning, InvalidArgumentError, InvalidTypeError, warn_user
from lightning_viz.hooks.observe import Forward, Passes, passes
from lightning_viz.hooks.targets import class_scores
from lightning_viz.pixels import PixelSpace

Asked = Callable[[Tensor, Tensor], Union[Tensor, None]]
"""From scores ``[n, K]`` and the places of these among the images of a pass to the scalar whose gradient is asked for:
``[n]``, or several, ``[T, n]``, a backward each; None for no gradient."""

Fold = Callable[[Tensor, Tensor], Tensor]
"""From what was asked for, ``[T, n]``, and its gradients ``[T, n, ...]`` to what is kept of them, ``[n, ...]``."""


class Answer(NamedTuple):
    """What a model says to images.

    Attributes:
        scores: ``[n, K]``.
        gradients: of what was asked for, towards the pixels, ``[n, ...]``, or ``[T, n, ...]`` for several; 0 for
            samples of which none was asked for or that is not finite, None where there are no others.
    """

    scores: Tensor
    gradients: Tensor | None


class AttackedModel:
    """A model, samples, and the classes to lead away from, or to.

    Attributes:
        pixels: of the samples, ``[N, ...]``, at least in single precision, on the model's device.
        pixel_space: how the model's inputs map to pixels.
        labels: the right classes ``[N]``, as given, or as the model sees the samples.
        target: the wrong classes to lead to ``[N]``; None if any will do.
    """

    def __init__(
        self,
        run: Passes,
        pixels: Tensor,
        labels: Tensor | None,
        target: Tensor | None,
        pixel_space: PixelSpace,
        batch_size: int | None,
    ) -> None:
        self._run, self._given, self._batch_size = run, labels is not None, batch_size or len(pixels)
        self.pixels, self.pixel_space = pixels, pixel_space
        device = pixels.device
        unknown = torch.full((len(pixels),), -1, device=device)
        self.labels = unknown if labels is None else labels.to(device)
        self.target = None if target is None else target.to(device)

    @property
    def dtype(self) -> torch.dtype:
        """The model's precision."""
        return self._run.like.dtype

    def of_inputs(self, inputs: Tensor) -> Tensor:
        """Pixels of other inputs ``[n, ...]``, as the samples' are."""
        return pixels_of(inputs, self.pixel_space, self._run.like).to(self.pixels.dtype)

    def begin(self, asked: Asked | None = None, fold: Fold | None = None) -> Answer:
        """The first pass, of the samples as they are, which shows whether classes and scores are in order.

        Args:
            asked: as for every pass.
            fold: likewise.

        Raises:
            ValueError: scores that are no ``[N, classes]`` or not finite, classes that there are not, or a target that
                is the label.
        """
        return self._answer(self.pixels, asked, fold, first=True)

    def __call__(self, pixels: Tensor, asked: Asked | None = None, fold: Fold | None = None) -> Answer:
        """One forward of images and, of those of which a gradient is asked for, one backward.

        Args:
            pixels: ``[n, ...]``.
            asked: what to differentiate; no graph is made if omitted.
            fold: what to make of several gradients, batch by batch, so that not all are held at once.
        """
        return self._answer(pixels, asked, fold, first=False)

    def fooled(self, scores: Tensor, samples: Tensor) -> Tensor:
        """Whether the model now says what the attack wants, ``[n]``; not where it says NaN.

        Args:
            scores: ``[n, K]``.
            samples: which of the N they are of, ``[n]``.
        """
        classes = scores.argmax(1)
        wanted = classes != self.labels[samples] if self.target is None else classes == self.target[samples]
        return wanted & scores.isfinite().all(1)

    def loss(self, loss: Loss, scores: Tensor, samples: Tensor) -> Tensor:
        """What the attack raises, ``[n]``: a loss of the label, or minus the loss of the target."""
        if self.target is None:
            return loss(scores, self.labels[samples])
        return -loss(scores, self.target[samples])

    def _check(self, scores: Tensor, places: Tensor) -> None:
        """See that the model and the classes are fit for an attack, at the first sight of scores."""
        if scores.dim() != 2 or len(scores) != len(places):
            what = f"the model returns {list(scores.shape)} for {len(places)} samples"
            raise InvalidArgumentError(f"{what}: give forward= that returns [N, classes]")
        if scores.shape[1] < 2:
            raise InvalidArgumentError(
                "the model returns one score for each sample: an attack needs two classes or more; make two of one "
                "logit by forward=lambda model, inputs: model(inputs).reshape(-1, 1) * torch.tensor([-0.5, 0.5])"
            )
        if not bool(torch.isfinite(scores).all()):
            raise InvalidArgumentError(
                "the model returns NaN or infinity for the samples as they are: there is nothing to attack"
            )
        if not self._given:
            self.labels[places] = scores.argmax(1)
        check_classes(self.labels[places], places, scores.shape[1], "labels")
        if self.target is not None:
            check_classes(self.target[places], places, scores.shape[1], "target")
            same = places[self.target[places] == self.labels[places]].tolist()
            if same:
                what = "label" if self._given else "class that the model sees now"
                raise InvalidArgumentError(
                    f"the target is the {what} of samples {format_indices(same)}: take another, or leave these out"
                )

    def _answer(self, pixels: Tensor, asked: Asked | None, fold: Fold | None, *, first: bool) -> Answer:
        every = torch.arange(len(pixels), device=pixels.device)
        if len(pixels) <= self._batch_size:
            return self._part(pixels, every, asked, fold, first)
        parts = [self._part(pixels[each], each, asked, fold, first) for each in torch.split(every, self._batch_size)]
        found = [part.gradients for part in parts]
        like = next((one for one in found if one is not None), None)
        if like is None:
            return Answer(torch.cat([part.scores for part in parts]), None)
        leads = like.shape[: like.dim() - pixels.dim()]
        filled = [
            one if one is not None else like.new_zeros(*leads, len(part.scores), *pixels.shape[1:])
            for one, part in zip(found, parts, strict=True)
        ]
        return Answer(torch.cat([part.scores for part in parts]), torch.cat(filled, dim=len(leads)))

    def _part(self, pixels: Tensor, places: Tensor, asked: Asked | None, fold: Fold | None, first: bool) -> Answer:
        leaf = pixels.detach().requires_grad_(asked is not None)  # of which the model is given a copy
        with torch.set_grad_enabled(asked is not None):
            scores = self._scores(leaf)
            if first:
                self._check(scores.detach(), places)
            values = None if asked is None else asked(scores, places)
        if values is None or not values.requires_grad:
            return Answer(scores.detach(), None)
        rows = values.reshape(-1, len(pixels)).sum(1)
        found = [
            torch.autograd.grad(row, leaf, retain_graph=place + 1 < len(rows))[0].nan_to_num_(0, 0, 0)
            for place, row in enumerate(rows)
        ]
        gradients = found[0] if values.dim() == 1 else torch.stack(found)
        return Answer(scores.detach(), fold(values.detach(), gradients) if fold else gradients)

    def _scores(self, pixels: Tensor) -> Tensor:
        inputs = PixelSpace(bounds=self.pixel_space.bounds).into(pixels, self.pixel_space)
        outputs = self._run(inputs.to(self._run.like.dtype)).outputs
        scores = class_scores(outputs)
        return scores.to(torch.promote_types(scores.dtype, torch.float32))


@contextmanager
def attacked_model(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    target: Classes | int | None = None,
    pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    forward: Forward | None = None,
) -> Iterator[AttackedModel]:
    """A model under attack: it runs in eval mode and is left as found, with no gradient of any weight.

    Args:
        model: any classifier of two or more classes.
        inputs: samples as the model takes them, ``[N, ...]``.
        labels: their right classes ``[N]``; what the model says of them if omitted.
        target: wrong classes to lead to, one for all or ``[N]``; any if omitted.
        pixel_space: how the inputs map to pixels; they are pixels in [0, 1] if omitted.
        batch_size: samples shown at a time; all if omitted.
        seed: of what the model itself may draw.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: no samples, pixels out of bounds, classes that there are not, not one for each sample, or a target
            that is the label.
        TypeError: the inputs are no floating-point tensor, or the model returns no scores.
    """
    pixel_space = pixel_space or PixelSpace()
    check_inputs(inputs, batch_size, seed)
    warn_training_mode(model)
    with passes(model, forward=forward, seed=seed) as run:
        right = None if labels is None else classes_of(labels, len(inputs), "labels")
        wrong = None if target is None else classes_of(target, len(inputs), "target")
        pixels = within(pixels_of(inputs, pixel_space, run.like), pixel_space)
        yield AttackedModel(run, pixels, right, wrong, pixel_space, batch_size)


@contextmanager
def suppress_attack_warnings() -> Iterator[None]:
    """Runs of attacks on some of a caller's samples, whose warnings would number them otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)
        yield


def warn_training_mode(model: nn.Module) -> None:
    """Say that a model, or a part of it, is in train mode.

    Args:
        model: to be attacked.
    """
    if any(module.training for module in model.modules()):
        which = "the model is" if model.training else "a part of the model is"
        what = f"{which} in train mode: it is attacked in eval mode, with the statistics it would be used with"
        warn_user(what, AttackWarning)


Classes = Union[Tensor, Sequence[int]]
"""A class for each sample, ``[N]``."""

Epsilons = Union[float, Sequence[float], Tensor]
"""How far pixels may move: a radius, E of them ``[E]``, or one for each sample ``[E, N]``."""

_SLACK = 1e-3  # of the pixels' range: what rounding leaves outside


def check_inputs(inputs: Tensor, batch_size: int | None, seed: int | None) -> None:
    """See that inputs can be attacked.

    Args:
        inputs: as the model takes them.
        batch_size: samples shown at a time.
        seed: of everything random.

    Raises:
        TypeError: they are no floating-point tensor.
        ValueError: they are no samples, or not finite; or an option that makes no sense.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise InvalidTypeError(f"the inputs are {kind}: give a floating-point tensor, as the model takes them")
    if inputs.dim() < 2 or inputs.numel() == 0:
        raise InvalidArgumentError(
            f"the inputs are {list(inputs.shape)}: give [N, C, H, W] or [N, features], one sample or more"
        )
    if not bool(torch.isfinite(inputs).all()):
        raise InvalidArgumentError("the inputs hold NaN or infinity")
    if batch_size is not None and batch_size < 1:
        raise InvalidArgumentError(f"batch_size={batch_size}: give 1 or more")
    if seed is not None and seed < 0:
        raise InvalidArgumentError(f"seed={seed}: give 0 or more")


def check_images(inputs: Tensor, name: str) -> None:
    """See that inputs are images, for an attack that knows of rows and columns.

    Args:
        inputs: as the model takes them.
        name: of the attack.

    Raises:
        ValueError: they are not ``[N, C, H, W]``.
    """
    if isinstance(inputs, Tensor) and inputs.dim() != 4:
        raise InvalidArgumentError(
            f"the inputs are {list(inputs.shape)}: {name} needs images [N, C, H, W]; where a model takes vectors, "
            "give forward=lambda model, images: model(images.flatten(1))"
        )


def check_classes(classes: Tensor, places: Tensor, count: int, what: str) -> None:
    """See that a model has the classes.

    Args:
        classes: ``[n]``.
        places: the numbers of their samples, ``[n]``.
        count: of the model's classes.
        what: they are.

    Raises:
        ValueError: it has not.
    """
    outside = (classes < 0) | (classes >= count)
    if bool(outside.any()):
        found, samples = sorted(set(classes[outside].tolist())), places[outside].tolist()
        raise InvalidArgumentError(
            f"{what} {format_indices(found)} of samples {format_indices(samples)} are out of range: the model has "
            f"{count} classes"
        )


def classes_of(classes: Classes | int, count: int, what: str) -> Tensor:
    """A class for each sample, ``[N]``.

    Args:
        classes: one each; of a target one for all as well.
        count: N.
        what: they are, "labels" or "target".

    Raises:
        TypeError: they are no whole numbers.
        ValueError: they are not one for each sample.
    """
    found = classes if isinstance(classes, Tensor) else torch.tensor(classes)
    if found.is_floating_point() or found.is_complex() or found.dtype is torch.bool:
        raise InvalidTypeError(f"{what} are {found.dtype}: give the numbers of classes, as integers")
    if found.dim() == 0 and what == "target":
        found = found.expand(count)
    if list(found.shape) != [count]:
        raise InvalidArgumentError(f"{what} are {list(found.shape)} for {count} samples: give one for each, [{count}]")
    return found.long()


def pixels_of(inputs: Tensor, pixel_space: PixelSpace, like: Tensor) -> Tensor:
    """Pixels of what a model takes, also beyond the bounds, at least in single precision: small steps vanish in half.

    Args:
        inputs: ``[N, ...]``.
        pixel_space: how they map to pixels.
        like: a tensor on the model's device, in its precision.
    """
    kind = torch.promote_types(torch.promote_types(inputs.dtype, like.dtype), torch.float32)
    return pixel_space.into(inputs.detach().to(like.device, kind), PixelSpace())


def within(pixels: Tensor, pixel_space: PixelSpace) -> Tensor:
    """Pixels within the space's bounds, which rounding may leave a little.

    Args:
        pixels: of the samples.
        pixel_space: whose bounds are meant.

    Raises:
        ValueError: they lie outside.
    """
    low, high = pixel_space.bounds
    slack = _SLACK * (high - low)
    least, most = (one.item() for one in pixels.aminmax())
    if not low - slack <= least <= most <= high + slack:
        raise InvalidArgumentError(
            f"the images have pixels from {least:.3g} to {most:.3g}, they should lie in {pixel_space.bounds}: give "
            "pixel_space=PixelSpace(mean, std) with the mean and std that normalized them"
        )
    return pixels.clamp(low, high)


def radii_of(
    epsilon: Epsilons, pixels: Tensor, bounds: tuple[float, float], norm: Norm = LINF
) -> tuple[Tensor, Tensor]:
    """The radius of each row ``[E * N]``, and the epsilons as they were asked for: ``[]``, ``[E]`` or ``[E, N]``.

    Args:
        epsilon: in pixels.
        pixels: of the samples, ``[N, ...]``.
        bounds: of pixels.
        norm: in which they are radii.

    Raises:
        ValueError: they are negative, none, or more than the whole range of pixels.
    """
    (low, high), count = bounds, len(pixels)
    asked = torch.as_tensor(epsilon, dtype=pixels.dtype, device=pixels.device)
    if asked.numel() == 0 or asked.dim() > 2 or (asked.dim() == 2 and asked.shape[1] != count):
        raise InvalidArgumentError(
            f"epsilon is {list(asked.shape)} for {count} samples: give a number, a list, or [E, {count}]"
        )
    longest = norm.length(torch.full_like(pixels[:1], high - low)).item()
    if not 0 <= asked.min().item() <= asked.max().item() <= longest:
        raise InvalidArgumentError(
            f"epsilon={epsilon}: give 0 to {longest:.3g}, the pixels' whole range in {norm.name}; 8 gray levels of 255 "
            f"are {8 * (high - low) / 255:.3g}"
        )
    each = asked if asked.dim() == 2 else asked.reshape(-1, 1).expand(-1, count)
    return each.reshape(-1), asked


def format_indices(numbers: Sequence[int], most: int = 8) -> str:
    """Numbers, not too many of them, for a message.

    Args:
        numbers: all.
        most: shown.
    """
    shown = ", ".join(map(str, numbers[:most]))
    return f"[{shown}]" if len(numbers) <= most else f"[{shown}, ...] ({len(numbers)} of them)"
