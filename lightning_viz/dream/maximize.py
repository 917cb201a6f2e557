"""Images that maximize objectives, all of them in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from lightning_viz.dream.objectives import as_targets, diversity, passes_for, scalars
from lightning_viz.dream.parametrization import Image, Pixels, as_bytes, pixels, squashed, unsquashed, visible
from lightning_viz.dream.regularization import PRIORS, YOSINSKI, Preset, PresetName, Prior, PriorName, Step, largest
from lightning_viz.dream.transforms import Transform, fitted
from lightning_viz.errors import DreamWarning, InvalidArgumentError, InvalidTypeError, by_name, warn_user
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import warn_if_training
from lightning_viz.hooks.observe import Forward, Passes, image_size_errors
from lightning_viz.hooks.recording import Activations
from lightning_viz.hooks.target_types import Target
from lightning_viz.hooks.targets import TargetLike
from lightning_viz.host_copies import HostCopies
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_display

__all__ = ["Dream", "maximize"]

Optimizer = Callable[[list[Tensor]], torch.optim.Optimizer]
"""From the parameters of the images to what climbs by their gradient: ``partial(torch.optim.LBFGS, max_iter=20)``."""

_STEPS = 250
_GAIN = 0.5  # of what an objective has gained, of a copy alone, that copies alike in every respect lose


@html_display("names", "values", "curve", "bounded", "seeds", images=("pixels",))
@dataclass(frozen=True)
class Dream:
    """Images that were made to maximize objectives, N of them: those of the first objective, of the second, ...

    Attributes:
        names: of the objectives, one for each image.
        images: centered, ``[N, C, H, W]`` (see `PixelSpace.centered`).
        inputs: the same as the model takes them, in its precision.
        pixel_space: how the inputs map to pixels.
        bounded: whether the images keep to the pixels' bounds.
        curve: the objective before each update, ``[N, steps]``; under the transformations of that step.
        values: the objective of `images`, ``[N]``.
        frames: pixels in 0 to 255 on the way, the first and the last among them, ``[F, N, C, H, W]``.
        frame_steps: updates made by then.
        seeds: of each image's start.
    """

    names: tuple[str, ...]
    images: Tensor
    inputs: Tensor
    pixel_space: PixelSpace
    bounded: bool
    curve: Tensor
    values: Tensor
    frames: Tensor
    frame_steps: tuple[int, ...]
    seeds: tuple[int, ...]

    @property
    def pixels(self) -> Tensor:
        """What to look at, ``[N, C, H, W]`` in [0, 1]: the pixels where they are bounded, else see `displayed`."""
        return visible(self.images, self.pixel_space, self.bounded)


def maximize(
    model: nn.Module,
    objectives: TargetLike | Sequence[TargetLike],
    *,
    image: Image | Sequence[int],
    pixel_space: PixelSpace | None = None,
    bounded: bool = False,
    priors: Mapping[Prior | PriorName, float | Sequence[float]] | None = None,
    update_steps: Sequence[Step] | Preset | PresetName = (),
    transforms: Sequence[Transform] = (),
    small_gradients: float = 0.0,
    steps: int | None = None,
    lr: float | None = None,
    optimizer: Optimizer | None = None,
    copies: int = 1,
    diverse: str | None = None,
    seed: int = 0,
    frames: int = 30,
    progress: bool = True,
    forward: Forward | None = None,
) -> Dream:
    r"""Activation maximization: gradient ascent on targets in image space (Erhan et al., 2009; Simonyan et al., 2014).

    .. math:: x^* = \arg\max_x f(x) - \sum_h \lambda_h h(x)

    One forward, which ends at the deepest layer that an objective reads, and one backward for all of them at each
    update. The model is left as found; it runs in eval mode, and no gradient is computed for a weight.

    Args:
        model: any module; the images are made on its device and in its precision, single at least.
        objectives: f, one or a list of what `lightning_viz.hooks` calls targets, ``channel("conv2", 7)`` or
            ``"conv2[7]"``; a list is a list of them, ``[3, 7]`` two classes.
        image: how images are written down, `pixels`, `fourier`, `maco` or `cppn`; a shape ``(C, H, W)`` stands for
            pixels.
        pixel_space: how the model's inputs map to pixels; inputs are pixels in [0, 1] if omitted.
        bounded: keep the pixels within `space.bounds`, by a sigmoid; their contrast is free if not.
        priors: penalties h of the centered image, functions or names (``"edge_energy"``), and their weights: one
            for all objectives, or one for each.
        update_steps: steps after each update, of `pixels` alone: a list, a `Preset`, or the name of one of `YOSINSKI`.
        transforms: random changes of the image before each pass, the same for all images.
        small_gradients: so many per cent of the values of each image's gradient, the smallest, count as 0.
        steps: updates; those of the preset, else 250.
        lr: learning rate of Adam; that of the preset, else of the kind of image, if omitted (0.1 for pixels).
        optimizer: from parameters to another optimizer of torch's; L-BFGS runs several passes for each step.
        copies: images of each objective, from seeds of their own.
        diverse: layer in whose Gram matrices the copies of an objective should differ, see `diversity`. Copies alike in
            every respect lose half of what a copy gains alone, which a climb before finds out; for another weight add
            ``weight * diversity(layer)`` to the objective.
        seed: of the first copy's start, the next ones count on; also of the transformations.
        frames: how many images on the way to keep, evenly in log steps.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, images)``, if not ``model(images)``.

    Raises:
        LayerNotFoundError: no such layer; the message lists the nearest names.
        LayerNotReachedError: a layer that the forward does not call.
        ValueError: an index out of range, an image that the model cannot take, or an option that makes no sense.
        TypeError: the model returns a dict and the objective reads its output: give `forward`; or a step or a
            transformation stands where a list of them should.
    """
    for name, argument in (("update_steps", update_steps), ("transforms", transforms)):
        if callable(argument):
            raise InvalidTypeError(f"{name} is one function: give a list of them, {name}=[...]")
    targets = as_targets(objectives, model)
    drawn = pixels(image) if isinstance(image, Sequence) else image
    preset = by_name(YOSINSKI, update_steps, "update_steps") if isinstance(update_steps, str) else update_steps
    count = steps if steps is not None else preset.iterations if isinstance(preset, Preset) else _STEPS
    changes = list(preset)
    _check(targets, drawn, changes, count, bounded, copies)
    if diverse is not None and copies < 2:
        raise InvalidArgumentError(f"diverse={diverse!r} compares the copies of an objective: give copies=2 or more")
    warn_if_training(model, DreamWarning)
    rates = (lr, preset.lr if isinstance(preset, Preset) else None, drawn.rate)
    rate = next(one for one in rates if one is not None)

    def climbed(image: Image, copies: int, frames: int, unlike: Sequence[Target] = ()) -> Dream:
        with passes_for(model, [*targets, *unlike], forward=forward, seed=seed) as run:
            climb = Climb(
                run=run,
                objectives=targets,
                image=image,
                pixel_space=pixel_space or PixelSpace(),
                bounded=bounded,
                priors={by_name(PRIORS, prior, "prior"): weight for prior, weight in (priors or {}).items()},
                transforms=transforms,
                small_gradients=small_gradients,
                copies=copies,
                seed=seed,
                unlike=unlike,
            )
            ascent = (optimizer or partial(torch.optim.Adam, lr=rate))(climb.parameters)
            return climb.ascend(ascent, count, changes, frames=frames, progress=progress)

    if diverse is None:
        return climbed(drawn, copies, frames)
    alone = climbed(_first_starts(drawn, copies), 1, 0)
    gains = (alone.values - alone.curve[:, 0]).clamp_min(0).tolist() if count else [0.0] * len(targets)
    return climbed(drawn, copies, frames, [_GAIN * gain * diversity(diverse) for gain in gains])


def filmed(
    picture: Callable[[], Tensor], film: dict[int, Tensor], name: str, steps: int, frames: int, progress: bool
) -> Iterator[int]:
    """Count the updates made so far, under a progress bar of a name.

    Pictures join the film, on the CPU, by the number of updates made by then: at the start and on the way, so many
    evenly in log steps, and one at the end, when all hold their values.
    """
    kept, copies = log_spaced(steps, frames), HostCopies()
    for number in progress_bar(name, items=range(steps), shown=progress):
        if number in kept:
            film[number] = copies.copy(picture())
        yield number
    film[steps] = copies.copy(picture())
    copies.wait()


def _check(
    objectives: Sequence[Target], image: Image, changes: Sequence[Step], steps: int, bounded: bool, copies: int
) -> None:
    if not objectives:
        raise InvalidArgumentError("objectives is empty: give one or more, channel('conv2', 7) say")
    if steps < 0 or copies < 1:
        raise InvalidArgumentError(f"steps={steps}, copies={copies}: give 0 or more steps, and 1 copy or more")
    if changes and (bounded or not isinstance(image, Pixels)):
        what = "bounded images" if bounded else type(image).__name__
        raise InvalidArgumentError(f"steps between updates change pixels, not those of {what}; use image=pixels(...)")


def _first_starts(image: Image, copies: int) -> Image:
    """The same image, of those that copies start from the first of each objective."""
    if isinstance(image, Pixels) and image.start is not None and image.start.dim() == 4 and len(image.start) > 1:
        return replace(image, start=image.start[::copies])
    return image


def _chosen(names: Sequence[str], mask: Tensor) -> str:
    """The names at which a mask is true, in words."""
    return ", ".join(dict.fromkeys(name for name, true in zip(names, mask.tolist(), strict=True) if true))


def log_spaced(steps: int, count: int) -> list[int]:
    """Updates after which to keep `count` frames, before the last one: evenly in log steps, the start among them."""
    if count < 2 or steps < 1:
        return []
    return sorted({0, *np.geomspace(steps, 1, count - 1).round().astype(int).tolist()} - {steps})


@dataclass
class Climb:
    """Images on their way up; see `lightning_viz.dream.maximize` for the arguments.

    Attributes:
        parameters: of the images, what an optimizer changes.
        seeds: of each image's start.
        names: of each image's objective.
    """

    run: Passes
    objectives: Sequence[Target]
    image: Image
    pixel_space: PixelSpace
    bounded: bool
    priors: Mapping[Prior, float | Sequence[float]]
    transforms: Sequence[Transform]
    small_gradients: float
    copies: int
    seed: int
    unlike: Sequence[Target] = ()

    def __post_init__(self) -> None:
        image, self._centered = self.image, self.pixel_space.centered()
        self.pixel_space.to_inputs(torch.zeros(1, *image.shape))  # an error where the space has other channels
        self.seeds = tuple(self.seed + copy for _ in self.objectives for copy in range(self.copies))
        self.names = tuple(objective.name for objective in self.objectives for _ in range(self.copies))
        if self.bounded and isinstance(image, Pixels) and image.start is not None:
            image = replace(image, start=unsquashed(image.start.view(-1, *image.shape), self._centered))
        start = image.parameters([torch.Generator().manual_seed(seed) for seed in self.seeds])
        weight = self.run.like
        like = weight.to(torch.promote_types(weight.dtype, torch.float32))  # small steps vanish in half precision
        self.parameters = [parameter.to(like).requires_grad_() for parameter in start]
        self._weights = {prior: self._prior_weights(prior, like) for prior in self.priors}
        self._gradient = torch.zeros(())  # of the objectives, towards the images

    def ascend(
        self, ascent: torch.optim.Optimizer, steps: int, changes: Sequence[Step], *, frames: int, progress: bool
    ) -> Dream:
        """So many updates by an optimizer of `parameters`, with changes after each of them."""
        curve: list[Tensor] = []
        film: dict[int, Tensor] = {}
        for number in filmed(self.picture, film, "dream", steps, frames, progress):
            curve.append(self.update(ascent, number))
            for change in changes:
                self.change(change, number + 1)
        images, values = self.result()
        if lost := _chosen(self.names, ~values.isfinite()):
            warn_user(
                f"the dream of {lost} ended in NaN or infinity: give a smaller lr or, if it begins so, look for NaN in "
                "the model's weights",
                DreamWarning,
            )
        return Dream(
            names=self.names,
            images=images,
            inputs=self.to_inputs(images.clone()),  # a model that is shown them may write to them
            pixel_space=self.pixel_space,
            bounded=self.bounded,
            curve=torch.stack(curve, 1) if curve else values.new_zeros(len(values), 0),
            values=values,
            frames=torch.stack(list(film.values())),
            frame_steps=tuple(film),
            seeds=self.seeds,
        )

    def update(self, ascent: torch.optim.Optimizer, number: int) -> Tensor:
        """One step of an optimizer of `parameters` after so many updates; returns the objectives before it, ``[N]``."""
        before: list[Tensor] = []

        def closure() -> Tensor:
            images = self._images()
            changed = images.clone()  # where the objectives' gradient, without the priors', is met
            if changed.requires_grad:
                changed.register_hook(self._record_gradient)  # type: ignore[no-untyped-call]
            activations = self._activations(changed, number)
            values = scalars(activations, self.objectives, self.copies).to(images)
            before.append(values.detach())
            loss = (self._penalty(images) - values).sum()
            if self.unlike:
                loss = loss - scalars(activations, self.unlike, self.copies).to(images).sum()
            gradients: Sequence[Tensor | None] = [None] * len(self.parameters)
            if loss.requires_grad:
                gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                gradient_or_zero = torch.zeros_like(parameter) if gradient is None else gradient
                parameter.grad = gradient_or_zero.contiguous()  # L-BFGS views it flat
            return loss.detach()

        ascent.step(closure)  # type: ignore[arg-type]  # a tensor is what torch's own optimizers take
        if number == 0:
            self._check_gradient()
        return before[0]

    def change(self, step: Step, number: int) -> None:
        """A step from images to images between two updates, of which so many were made."""
        with torch.no_grad():
            self.parameters[0].copy_(step(self.parameters[0], self._gradient, number))

    def result(self) -> tuple[Tensor, Tensor]:
        """The images as they are, centered ``[N, C, H, W]``, and their objectives ``[N]`` without transformations."""
        with torch.no_grad():
            images = self._images().clone()
            activations = self._activations(images, None)
            return images, scalars(activations, self.objectives, self.copies).to(images)

    def picture(self) -> Tensor:
        """What to look at, pixels in 0 to 255 ``[N, C, H, W]``."""
        with torch.no_grad():
            return as_bytes(visible(self._images(), self.pixel_space, self.bounded))

    def to_inputs(self, images: Tensor) -> Tensor:
        """What the model takes for centered images ``[N, C, H, W]``."""
        return self._centered.into(images, self.pixel_space).to(self.run.like.dtype)

    def _images(self) -> Tensor:
        images = self.image.draw(self.parameters)
        return squashed(images, self._centered) if self.bounded else images

    def _activations(self, images: Tensor, number: int | None) -> Activations:
        """What a pass of images records, under the transformations of an update or under none."""
        size = images.shape[2:]
        if number is not None:
            generator = torch.Generator().manual_seed((self.seed + 1) * 1_000_003 + number)
            for transform in self.transforms:
                images = transform(images, generator)
        inputs = self.to_inputs(fitted(images, size))
        with nullcontext() if number else image_size_errors(self.image.shape):
            return self.run(inputs)

    def _penalty(self, images: Tensor) -> Tensor:
        """Of each image, ``[N]``."""
        terms = [weight * prior(images) for prior, weight in self._weights.items()]
        return torch.stack(terms).sum(0) if terms else images.new_zeros(len(images))

    def _prior_weights(self, prior: Prior, like: Tensor) -> Tensor:
        """Of a prior for each image, ``[N]``."""
        weights, count = torch.as_tensor(self.priors[prior], dtype=like.dtype, device=like.device), len(self.objectives)
        if weights.dim() and len(weights) != count:
            name = getattr(prior, "__name__", prior)
            raise InvalidArgumentError(
                f"{len(weights)} weights of {name} for {count} objectives: give one, or one each"
            )
        return weights.expand(count).repeat_interleave(self.copies)

    def _record_gradient(self, gradient: Tensor) -> Tensor:
        """Keep the objectives' gradient towards the images, without its smallest values."""
        if self.small_gradients:
            gradient = largest(gradient, gradient.abs(), self.small_gradients)
        self._gradient = gradient
        return gradient

    def _check_gradient(self) -> None:
        moved = (
            self._gradient.flatten(1).any(1) if self._gradient.dim() else torch.zeros(len(self.seeds), dtype=torch.bool)
        )
        if still := _chosen(self.names, ~moved):
            warn_user(
                f"the gradient of {still} is zero where the dream starts: nothing leads up from there. What "
                "lies behind a ReLU may be off: take the layer before the ReLU, or start from another image",
                DreamWarning,
            )
