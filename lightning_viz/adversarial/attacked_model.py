"""The attacked model: validated inputs, forward passes and gradients with respect to pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Union

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Epsilon, Labels
from lightning_viz.adversarial.norms import Loss, Norm, dlr, targeted_dlr
from lightning_viz.errors import AttackWarning, InvalidArgumentError, InvalidTypeError, format_indices
from lightning_viz.hooks.box_target import BoxTarget
from lightning_viz.hooks.calls import Call, as_call
from lightning_viz.hooks.detection import detections_of
from lightning_viz.hooks.model_state import warn_if_training
from lightning_viz.hooks.observe import Forward, Passes, passes
from lightning_viz.hooks.outputs import class_logits
from lightning_viz.hooks.pytree import image_of, map_tensors, take_samples
from lightning_viz.hooks.recording import Activations
from lightning_viz.hooks.target_types import Target
from lightning_viz.hooks.targets import as_target
from lightning_viz.host_copies import to_device
from lightning_viz.pixels import PixelSpace, clamp_pixels

ScoreFunction = Callable[[Tensor, Tensor], Union[Tensor, None]]
"""From scores ``[n, K]`` and their positions in the pass to the scalars to differentiate: ``[n]``, or ``[T, n]`` with
one backward each; None for no gradient."""

GradientReduction = Callable[[Tensor, Tensor], Tensor]
"""From the values of an objective ``[T, n]`` and their gradients ``[T, n, ...]`` to one tensor ``[n, ...]``."""

SLACK = 1e-3  # of the pixels' range: what rounding leaves outside


class Evaluation(NamedTuple):
    """Scores of images and, if an objective was given, its gradients.

    Attributes:
        scores: ``[n, K]``.
        gradients: of the objective with respect to pixels, ``[n, ...]``, or ``[T, n, ...]`` for T objectives; 0 for
            samples without an objective and for non-finite values, None if no sample has an objective.
    """

    scores: Tensor
    gradients: Tensor | None


class AttackedModel:
    """A model with the samples to perturb and their classes; `attacked_model` creates it.

    Attributes:
        pixels: of the samples, ``[N, ...]``, at least in single precision, on the model's device.
        pixel_space: maps the model's inputs to pixels.
        labels: the true classes ``[N]``, or the model's predictions for the samples.
        target: the target classes ``[N]``; None for an untargeted attack.
    """

    def __init__(
        self,
        run: Passes,
        pixels: Tensor,
        labels: Tensor | None,
        target: Tensor | None,
        pixel_space: PixelSpace,
        batch_size: int | None,
        inputs: Any = None,
        detection: BoxTarget | None = None,
    ) -> None:
        self._run, self._predicts_labels, self._batch_size = run, labels is None, batch_size or len(pixels)
        self._inputs, self._image = inputs, image_of(inputs)
        self._detection = None if detection is None else AttackedDetection(detection, len(pixels))
        self.pixels, self.pixel_space = pixels, pixel_space
        unknown = torch.full((len(pixels),), -1, device=pixels.device)
        self.labels = unknown if labels is None else labels.to(pixels.device)
        self.target = None if target is None else target.to(pixels.device)

    @property
    def dtype(self) -> torch.dtype:
        """The model's precision."""
        return self._run.like.dtype

    def to_pixels(self, inputs: Tensor) -> Tensor:
        """Pixels of other inputs ``[n, ...]``, in the precision of the samples' pixels."""
        return _pixels(inputs, self.pixel_space, self._run.like).to(self.pixels.dtype)

    def evaluate_originals(
        self, objective: ScoreFunction | None = None, reduction: GradientReduction | None = None
    ) -> Evaluation:
        """Run the first pass, on the unmodified samples, and validate scores, labels and target.

        Raises:
            InvalidArgumentError: scores that are not ``[N, classes]`` or not finite, classes out of range, or a target
                that equals the label.
        """
        return self(self.pixels, objective, reduction, check=True)

    def __call__(
        self,
        pixels: Tensor,
        objective: ScoreFunction | None = None,
        reduction: GradientReduction | None = None,
        *,
        check: bool = False,
        samples: Tensor | None = None,
    ) -> Evaluation:
        """Run one forward on images and, for those with an objective, one backward; in batches.

        Args:
            pixels: ``[n, ...]``.
            objective: what to differentiate; no graph is built if omitted.
            reduction: reduces several gradients batch by batch, so that not all are held at once.
            check: whether these are the samples themselves, whose scores and classes are to be validated.
            samples: of which of the N samples they are changed copies, ``[n]``; which a detector's must tell.
        """
        positions = torch.arange(len(pixels), device=pixels.device)
        samples = positions if check else samples
        if len(pixels) <= self._batch_size:
            return self._evaluate(pixels, positions, objective, reduction, check, samples)
        parts = [
            self._evaluate(
                pixels[batch], batch, objective, reduction, check, None if samples is None else samples[batch]
            )
            for batch in torch.split(positions, self._batch_size)
        ]
        scores = torch.cat([part.scores for part in parts])
        like = next((part.gradients for part in parts if part.gradients is not None), None)
        if like is None:
            return Evaluation(scores, None)
        axis = like.dim() - pixels.dim()  # of the samples
        gradients = [
            like.new_zeros(*like.shape[:axis], len(part.scores), *pixels.shape[1:])
            if part.gradients is None
            else part.gradients
            for part in parts
        ]
        return Evaluation(scores, torch.cat(gradients, dim=axis))

    def fooled(self, scores: Tensor, samples: Tensor) -> Tensor:
        """Whether scores ``[n, K]`` of some of the N samples mean success, ``[n]``; false if they are not finite."""
        classes = scores.argmax(1)
        success = classes != self.labels[samples] if self.target is None else classes == self.target[samples]
        return success & scores.isfinite().all(1)

    def loss(self, loss: Loss, scores: Tensor, samples: Tensor, target: Tensor | None = None) -> Tensor:
        """The quantity that the attack maximizes, ``[n]``: the loss of the label, or minus the loss of the target.

        Args:
            loss: of a class.
            scores: ``[n, K]``.
            samples: of which samples they are, ``[n]``.
            target: classes to lead to, ``[n]``, if others than those of the attack.
        """
        if target is None:
            if self.target is None:
                return loss(scores, self.labels[samples])
            target = self.target[samples]
        return targeted_dlr(scores, self.labels[samples], target) if loss is dlr else -loss(scores, target)

    def rivals(self, scores: Tensor, samples: Tensor, count: int) -> Tensor:
        """The classes with the highest scores besides the label, ``[n, T]``, at most `count`."""
        others = scores.detach().scatter(1, self.labels[samples, None], -torch.inf)
        return others.topk(min(count, scores.shape[1] - 1)).indices

    def _evaluate(
        self,
        pixels: Tensor,
        positions: Tensor,
        objective: ScoreFunction | None,
        reduction: GradientReduction | None,
        check: bool,
        samples: Tensor | None,
    ) -> Evaluation:
        leaf = pixels.detach().requires_grad_(objective is not None)  # the model gets a copy
        with torch.set_grad_enabled(objective is not None):
            scores = self._scores(leaf, samples)
            if check:
                self._check(scores.detach(), positions)
            values = None if objective is None else objective(scores, positions)
        if values is None or not values.requires_grad:
            return Evaluation(scores.detach(), None)
        rows = values.reshape(-1, len(pixels)).sum(1)
        by_row = [
            torch.autograd.grad(row, leaf, retain_graph=index + 1 < len(rows))[0].nan_to_num_(0, 0, 0)
            for index, row in enumerate(rows)
        ]
        gradients = by_row[0] if values.dim() == 1 else torch.stack(by_row)
        return Evaluation(scores.detach(), reduction(values.detach(), gradients) if reduction else gradients)

    def _scores(self, pixels: Tensor, samples: Tensor | None) -> Tensor:
        inputs: Any = PixelSpace(bounds=self.pixel_space.bounds).into(pixels, self.pixel_space)
        inputs = inputs.to(self._run.like.dtype)
        if self._image is not None and self._inputs is not self._image:
            where, image, count = _of_samples(samples), self._image, len(self.pixels)
            given = inputs
            inputs = map_tensors(self._inputs, lambda x: given if x is image else take_samples(x, where, count))
        activations = self._run(inputs)
        if self._detection is None and detections_of(activations.outputs) is not None:
            self._detection = AttackedDetection(BoxTarget(), len(self.pixels))
        if self._detection is None:
            outputs, meaning = activations.scores()
            if meaning.kind in ("regression", "tokens"):
                raise InvalidArgumentError(
                    f"the model returns {list(outputs.shape)}, no scores of classes as far as is known, but an "
                    "attack needs two classes or more; pass a forward= that returns [N, classes]"
                )
            scores = class_logits(outputs, meaning)
        else:
            scores = self._detection.scores(activations, _of_samples(samples))
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def _check(self, scores: Tensor, positions: Tensor) -> None:
        """Validate the first scores of samples, and take the predictions as labels if none were given."""
        if scores.dim() != 2 or len(scores) != len(positions):
            raise InvalidArgumentError(
                f"the model returns scores {list(scores.shape)} for {len(positions)} samples; pass a forward= that "
                "returns [N, classes]"
            )
        if not bool(torch.isfinite(scores).all()):
            raise InvalidArgumentError("NaN or infinity for the unmodified samples; check the weights and the inputs")
        if self._predicts_labels:
            self.labels[positions] = scores.argmax(1)
        _check_range(self.labels[positions], positions, scores.shape[1], "labels")
        if self.target is not None:
            _check_range(self.target[positions], positions, scores.shape[1], "target")
            same = positions[self.target[positions] == self.labels[positions]].tolist()
            if same:
                name = "predicted class" if self._predicts_labels else "label"
                raise InvalidArgumentError(
                    f"the target is the {name} of samples {format_indices(same)}; choose another or leave them out"
                )


class AttackedDetection:
    """A detection under attack, as scores of two classes: 0, it is lost, and 1, it stands.

    The score of 1 is that of the detection (see `box`), that of 0 half of what it was in the unmodified image, so that
    an attack succeeds where it halves the detection's score.

    Args:
        target: the detection.
        count: of samples.
    """

    def __init__(self, target: BoxTarget, count: int) -> None:
        self._target, self._count = target, count
        self._fixed: list[tuple[Tensor, Tensor, Tensor] | None] = [None] * count  # box, class, half its score

    def scores(self, activations: Activations, samples: Tensor) -> Tensor:
        """Scores ``[n, 2]`` of some of the samples, whose first pass is that of the unmodified images."""
        numbers = samples.tolist()
        if any(self._fixed[number] is None for number in numbers):
            values, labels, first = self._target.scores(activations)
            assert isinstance(first, BoxTarget) and first.boxes is not None and labels is not None
            for number, *parts in zip(numbers, first.boxes, labels, values.detach() / 2, strict=True):
                self._fixed[number] = (parts[0], parts[1], parts[2])
        fixed = [part for number in numbers if (part := self._fixed[number]) is not None]
        boxes, labels, halves = (torch.stack(parts) for parts in zip(*fixed, strict=True))
        values = BoxTarget(self._target.index, boxes, labels).scores(activations).values
        return torch.stack([halves, values], 1)


def _of_samples(samples: Tensor | None) -> Tensor:
    if samples is None:
        raise InvalidArgumentError(
            "this attack does not tell which sample each of its images is of, which a detector and inputs beside the "
            "image need: choose fgsm, pgd, gradient_ascent, apgd, square, one_pixel, fab or auto_attack"
        )
    return samples


@contextmanager
def attacked_model(
    model: nn.Module,
    inputs: Any,
    labels: Labels | None = None,
    *,
    target: Labels | int | None = None,
    pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    forward: Forward | None = None,
) -> Iterator[AttackedModel]:
    """Run a model under attack in eval mode, with no gradient of any weight, and restore its state on leaving.

    Args:
        model: any module.
        inputs: samples as it takes them, ``[N, C, H, W]`` or ``[N, features]``, or a call with several inputs.
        labels: true classes ``[N]``, None where an attack needs none; or a detection, ``"box[0]"``, to be lowered.
        target: class that the attack aims at, one for all or ``[N]``, if it aims at one.
        pixel_space: maps inputs to pixels; inputs are pixels in [0, 1] if omitted.
        batch_size: most samples in a pass.
        seed: of what the model itself may draw, as of `lightning_viz.hooks.passes`.
        forward: calls the model, if not ``model(inputs)``.

    Raises:
        InvalidArgumentError: no samples, pixels out of bounds, classes out of range, not one class per sample, or a
            target that equals the label.
        InvalidTypeError: the inputs are no floating-point tensor, or the model returns no scores.
    """
    pixel_space = pixel_space or PixelSpace()
    given = as_call(inputs)
    inputs = image_of(given) if isinstance(given, Call) else given
    check_inputs(inputs, batch_size, seed)
    detection = _as_detection(labels)
    labels = None if detection is not None else labels
    if detection is not None and target is not None:
        raise InvalidArgumentError(f"target={target}: {detection.name} is attacked by lowering its score; leave it out")
    warn_if_training(model, AttackWarning)
    with passes(model, forward=forward, seed=seed) as run:
        label_indices = None if labels is None else class_indices(labels, len(inputs), "labels")
        target_indices = None if target is None else class_indices(target, len(inputs), "target")
        pixels = clamp_pixels(_pixels(inputs, pixel_space, run.like), pixel_space, SLACK)
        yield AttackedModel(run, pixels, label_indices, target_indices, pixel_space, batch_size, given, detection)


def _as_detection(labels: Any) -> BoxTarget | None:
    """The detection that an attack is to lower, where one is given in place of labels.

    Raises:
        InvalidArgumentError: another target, or words.
    """
    if not isinstance(labels, (str, Target)):
        return None
    target = as_target(labels)
    if not isinstance(target, BoxTarget):
        raise InvalidArgumentError(f"labels are {target.name!r}: give classes [N], or a detection, 'box[0]'")
    return target


@contextmanager
def suppress_attack_warnings() -> Iterator[None]:
    """Silence attacks on a subset of the caller's samples, because their warnings would number the samples wrongly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)
        yield


def check_inputs(inputs: Tensor, batch_size: int | None, seed: int | None) -> None:
    """Validate the samples and options that every attack takes.

    Args:
        inputs: samples, ``[N, C, H, W]`` or ``[N, features]``.
        batch_size: samples in a pass, 1 or more, or None.
        seed: 0 or more, or None.

    Raises:
        InvalidTypeError: the inputs are no floating-point tensor.
        InvalidArgumentError: no samples, samples that are not finite, or an option out of range.
    """
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise InvalidTypeError(f"the inputs are {kind}; pass a floating-point tensor, as the model takes them")
    if inputs.dim() < 2 or inputs.numel() == 0:
        raise InvalidArgumentError(
            f"the inputs are {list(inputs.shape)}; pass [N, C, H, W] or [N, features] with at least one sample"
        )
    if not bool(torch.isfinite(inputs).all()):
        raise InvalidArgumentError("the inputs contain NaN or infinity; remove these samples")
    if batch_size is not None and batch_size < 1:
        raise InvalidArgumentError(f"batch_size={batch_size} must be at least 1")
    if seed is not None and seed < 0:
        raise InvalidArgumentError(f"seed={seed} must be at least 0")


def require_images(inputs: Tensor, name: str) -> None:
    """Check that inputs are images ``[N, C, H, W]``, for an attack that works on rows and columns.

    Args:
        inputs: samples.
        name: of the attack, for the message.

    Raises:
        InvalidArgumentError: they are of another shape.
    """
    if isinstance(inputs, Tensor) and inputs.dim() != 4:
        raise InvalidArgumentError(
            f"the inputs are {list(inputs.shape)}, but {name} needs images [N, C, H, W]; for a model of vectors, pass "
            "images and forward=lambda model, images: model(images.flatten(1))"
        )


def class_indices(classes: Labels | int, count: int, name: str) -> Tensor:
    """Class indices ``[count]``, given one per sample; a target may also be one for all.

    Args:
        classes: integers, ``[count]`` or a single one.
        count: of samples.
        name: of the argument, for messages; a single class is taken of ``"target"`` alone.

    Raises:
        InvalidTypeError: they are no integers.
        InvalidArgumentError: they are not one per sample.
    """
    indices = torch.as_tensor(classes)
    if indices.is_floating_point() or indices.is_complex() or indices.dtype is torch.bool:
        raise InvalidTypeError(f"{name} are {indices.dtype}; pass class indices as integers")
    if indices.dim() == 0 and name == "target":
        indices = indices.expand(count)
    if list(indices.shape) != [count]:
        raise InvalidArgumentError(f"{name} are {list(indices.shape)} for {count} samples; pass one each, [{count}]")
    return indices.long()


def checked_epsilons(epsilon: Epsilon, attacked: AttackedModel, norm: Norm) -> Tensor:
    """The epsilons in the form they were given, ``[]``, ``[E]`` or ``[E, N]``, in pixels and in the norm.

    Args:
        epsilon: a number, a list, or one for each sample.
        attacked: the model and its samples.
        norm: that they bound.

    Raises:
        InvalidArgumentError: no epsilon, a negative one, or one beyond the pixels' range.
    """
    (low, high), pixels, count = attacked.pixel_space.bounds, attacked.pixels, len(attacked.pixels)
    epsilons = torch.as_tensor(epsilon, dtype=pixels.dtype, device="cpu")
    if epsilons.numel() == 0 or epsilons.dim() > 2 or (epsilons.dim() == 2 and epsilons.shape[1] != count):
        raise InvalidArgumentError(
            f"epsilon is {list(epsilons.shape)} for {count} samples; pass a number, a list, or [E, {count}]"
        )
    longest = norm.length(torch.full_like(pixels[:1], high - low, device="cpu")).item()
    if not 0 <= epsilons.min().item() <= epsilons.max().item() <= longest:
        raise InvalidArgumentError(
            f"epsilon={epsilon} must lie in 0 to {longest:.3g}, the pixels' whole range in {norm.name}; 8 of 255 gray "
            f"levels are {8 * (high - low) / 255:.3g}"
        )
    return to_device(epsilons, pixels.device)


def _pixels(inputs: Tensor, pixel_space: PixelSpace, like: Tensor) -> Tensor:
    """Pixels, not clamped, on the device of `like`, at least in single precision: small steps vanish in half."""
    kind = torch.promote_types(torch.promote_types(inputs.dtype, like.dtype), torch.float32)
    return pixel_space.into(inputs.detach().to(like.device, kind), PixelSpace())


def _check_range(classes: Tensor, samples: Tensor, count: int, name: str) -> None:
    outside = (classes < 0) | (classes >= count)
    if bool(outside.any()):
        values, indices = sorted(set(classes[outside].tolist())), samples[outside].tolist()
        raise InvalidArgumentError(
            f"{name} {format_indices(values)} of samples {format_indices(indices)} are out of range: the model has "
            f"{count} classes"
        )
