"""Gradient ascent on a batch of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from lightning_viz.dream.objectives import scalars
from lightning_viz.dream.parametrization import Image, Pixels, as_bytes, squashed, unsquashed, visible
from lightning_viz.dream.regularization import Prior, Step
from lightning_viz.dream.transforms import Transform, fitted
from lightning_viz.errors import DreamWarning, InvalidArgumentError, warn_user
from lightning_viz.hooks.observe import Passes, image_size_errors
from lightning_viz.hooks.target_algebra import Target
from lightning_viz.pixels import PixelSpace


class Climb:
    """Images on their way up; see `lightning_viz.dream.maximize` for the arguments.

    Attributes:
        parameters: of the images, what an optimizer changes.
        pixel_space: how the model's inputs map to pixels.
        seeds: of each image's start.
        names: of each image's objective.
    """

    def __init__(
        self,
        run: Passes,
        objectives: Sequence[Target],
        image: Image,
        *,
        pixel_space: PixelSpace,
        bounded: bool,
        priors: Mapping[Prior, float | Sequence[float]],
        transforms: Sequence[Transform],
        small_gradients: float,
        copies: int,
        seed: int,
    ) -> None:
        self._run, self._objectives, self._image, self._copies = run, objectives, image, copies
        self.pixel_space, self._centered, self._bounded = pixel_space, pixel_space.centered(), bounded
        pixel_space.to_inputs(torch.zeros(1, *image.shape))  # an error where the space has other channels
        self._transforms, self._small_gradients, self._seed = transforms, small_gradients, seed
        self.seeds = tuple(seed + copy for _ in objectives for copy in range(copies))
        self.names = tuple(one.name for one in objectives for _ in range(copies))
        if bounded and isinstance(image, Pixels) and image.start is not None:
            image = replace(image, start=unsquashed(image.start.view(-1, *image.shape), self._centered))
        start = image.parameters([torch.Generator().manual_seed(one) for one in self.seeds])
        like = run.like.to(torch.promote_types(run.like.dtype, torch.float32))  # small steps vanish in half precision
        self.parameters = [one.to(like).requires_grad_() for one in start]
        self._priors = {prior: self._weights(prior, weight, like) for prior, weight in priors.items()}
        self._gradient = torch.zeros(())  # of the objectives, towards the images

    def update(self, ascent: torch.optim.Optimizer, number: int) -> Tensor:
        """One step of an optimizer of `parameters` after so many updates; returns the objectives before it, ``[N]``."""
        before: list[Tensor] = []

        def closure() -> Tensor:
            images = self._images()
            changed = images.clone()  # where the objectives' gradient, without the priors', is met
            if changed.requires_grad:
                changed.register_hook(self._record_gradient)  # type: ignore[no-untyped-call]
            values = self._values(changed, number)
            before.append(values.detach())
            loss = (self._penalty(images) - values).sum()
            reached = self.parameters if loss.requires_grad else ()
            found = torch.autograd.grad(loss, reached, allow_unused=True) if reached else [None] * len(self.parameters)
            for parameter, gradient in zip(self.parameters, found, strict=True):
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

    def found(self) -> tuple[Tensor, Tensor]:
        """The images as they are, centered ``[N, C, H, W]``, and their objectives ``[N]`` without transformations."""
        with torch.no_grad():
            images = self._images().clone()
            return images, self._values(images, None)

    def picture(self) -> Tensor:
        """What to look at, pixels in 0 to 255 ``[N, C, H, W]``, on the CPU."""
        with torch.no_grad():
            return as_bytes(visible(self._images(), self.pixel_space, self._bounded))

    def to_inputs(self, images: Tensor) -> Tensor:
        """What the model takes for centered images ``[N, C, H, W]``."""
        return self._centered.into(images, self.pixel_space).to(self._run.like.dtype)

    def _images(self) -> Tensor:
        images = self._image.draw(self.parameters)
        return squashed(images, self._centered) if self._bounded else images

    def _values(self, images: Tensor, number: int | None) -> Tensor:
        """The objectives of images, under the transformations of an update or under none."""
        size = images.shape[2:]
        if number is not None:
            generator = torch.Generator().manual_seed((self._seed + 1) * 1_000_003 + number)
            for transform in self._transforms:
                images = transform(images, generator)
        given = self.to_inputs(fitted(images, size))
        with nullcontext() if number else image_size_errors(self._image.shape):
            seen = self._run(given)
        return scalars(seen, self._objectives, self._copies).to(images)

    def _penalty(self, images: Tensor) -> Tensor:
        """Of each image, ``[N]``."""
        terms = [weight * prior(images) for prior, weight in self._priors.items()]
        return torch.stack(terms).sum(0) if terms else images.new_zeros(len(images))

    def _weights(self, prior: Prior, weight: float | Sequence[float], like: Tensor) -> Tensor:
        """Of a prior for each image, ``[N]``."""
        each = torch.as_tensor(weight, dtype=like.dtype, device=like.device)
        if each.dim() and len(each) != len(self._objectives):
            name = getattr(prior, "__name__", prior)
            raise InvalidArgumentError(
                f"{len(each)} weights of {name} for {len(self._objectives)} objectives: give one, or one each"
            )
        return each.expand(len(self._objectives)).repeat_interleave(self._copies)

    def _record_gradient(self, gradient: Tensor) -> Tensor:
        """Keep the objectives' gradient towards the images, without its smallest values."""
        if self._small_gradients:
            size = gradient.abs().flatten(1)
            limit = torch.quantile(size, self._small_gradients / 100, dim=1)
            gradient = gradient * (gradient.abs() >= limit[:, None, None, None])
        self._gradient = gradient
        return gradient

    def _check_gradient(self) -> None:
        moved = self._gradient.flatten(1).any(1) if self._gradient.dim() else torch.zeros(len(self.seeds))
        still = list(dict.fromkeys(name for name, moves in zip(self.names, moved.tolist(), strict=True) if not moves))
        if still:
            warn_user(
                f"the gradient of {', '.join(still)} is zero where the dream starts: nothing leads up from there. What "
                "lies behind a ReLU may be off: take the layer before the ReLU, or start from another image",
                DreamWarning,
            )
