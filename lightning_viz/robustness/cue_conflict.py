"""Images whose shape is of one class and whose texture is of another (Geirhos et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_viz.dream.parametrization import centered
from lightning_viz.dream.style_transfer import VGG19_CONTENT, VGG19_STYLE, StyleTransfer, style_transfer
from lightning_viz.errors import CueConflictWarning, InvalidArgumentError, InvalidTypeError, warn_user
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["CueConflict", "cue_conflict"]

Labels = Tensor | Sequence[int]
"""One class for each image."""


@dataclass(frozen=True)
class CueConflict:
    """Images of one class's shape with another class's texture, N of them.

    Attributes:
        inputs: as the model that painted them takes them, ``[N, C, H, W]``.
        pixels: what to look at, ``[N, C, H, W]`` in [0, 1]. Another model takes ``its_space.to_inputs(pixels)``.
        pixel_space: how the inputs map to pixels.
        shape_labels: class of the shape, ``[N]``.
        texture_labels: class of the texture, ``[N]``, never that of the shape.
        pairs: which shape and which texture each is made of, ``[N, 2]``.
        content_loss: before each update and at last, how far each is from its shape image, ``[N, steps + 1]``.
        style_loss: the same from its texture image.
    """

    inputs: Tensor
    pixels: Tensor
    pixel_space: PixelSpace
    shape_labels: Tensor
    texture_labels: Tensor
    pairs: Tensor
    content_loss: Tensor
    style_loss: Tensor


def cue_conflict(
    model: nn.Module,
    shapes: Tensor,
    textures: Tensor | Sequence[Tensor],
    *,
    shape_labels: Labels,
    texture_labels: Labels,
    content_layers: Sequence[str] = VGG19_CONTENT,
    style_layers: Sequence[str] = VGG19_STYLE,
    pairs: Sequence[tuple[int, int]] | None = None,
    texture_strength: float = 1.0,
    start: Literal["content", "noise"] = "content",
    optimizer: Literal["lbfgs", "adam"] = "lbfgs",
    steps: int = 300,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    progress: bool = True,
    forward: Forward | None = None,
) -> CueConflict:
    """Images with one class's shape and another's texture, painted by style transfer (Geirhos et al., 2019).

    Each is one `style_transfer` with a shape as the content and a texture as the style. Silhouettes leave most room
    when they are mid-grays, dark on light: white and black are the ends of what a pixel can do.

    Args:
        model: that paints; it need not be the one whose decisions are asked for.
        shapes: images that show a class by its shape, as `model` takes them, ``[A, C, H, W]``.
        textures: images that show a class by its texture, ``[B, C, h, w]`` or B of any sizes, ``[C, h, w]`` each.
        shape_labels: classes of the shapes, ``[A]``.
        texture_labels: classes of the textures, ``[B]``.
        content_layers: that hold the shape (see `style_transfer`); shallow ones keep its outline sharp.
        style_layers: that hold the texture.
        pairs: which shape with which texture; all of different classes if omitted.
        texture_strength: weight of the texture against the shape, in units of the balance that `style_transfer` finds
            for each pair. Small networks need more: 30 to 100 for one of four convolutions.
        start: from the shape image, or from noise around gray.
        optimizer: see `style_transfer`.
        steps: updates of each image.
        pixel_space: how the inputs of `model` map to pixels; inputs are pixels in [0, 1] if omitted.
        seed: of the noise of the first image, the next ones count on.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, images)``, if not ``model(images)``.

    Raises:
        LayerNotFoundError: no such layer; the message lists the nearest names.
        ValueError: images that are none or lie outside the space, labels that are not one for each, a pair of what
            there is not or of one class, or no pair at all.
    """
    pixel_space = pixel_space or PixelSpace()
    if shapes.dim() != 4:
        raise InvalidArgumentError(f"the shapes are {list(shapes.shape)}: give images of one size, [A, C, H, W]")
    _check_images(shapes, "shape", pixel_space)
    _check_images(textures, "texture", pixel_space)
    of_shape = labels_of(shape_labels, len(shapes), "shape")
    of_texture = labels_of(texture_labels, len(textures), "texture")
    chosen = _pairs(pairs, of_shape, of_texture)
    if not 0 < texture_strength < math.inf:
        raise InvalidArgumentError(
            f"texture_strength={texture_strength}: give more than 0; 1 is the balance of `style_transfer`"
        )
    if model.training:
        warn_user("the model is in train mode: it paints in eval mode, as it would be used", CueConflictWarning)

    def painted(place: int, shape: int, texture: int) -> StyleTransfer:
        def transfer(steps: int, style_weight: float | None = None) -> StyleTransfer:
            return style_transfer(
                model,
                shapes[shape],
                textures[texture],
                content_layers=content_layers,
                style_layers=style_layers,
                style_weight=style_weight,
                start=start,
                optimizer=optimizer,
                steps=steps,
                pixel_space=pixel_space,
                seed=seed + place,
                frames=0,
                progress=False,
                forward=forward,
            )

        return transfer(steps, texture_strength * transfer(0).style_weight)

    with evaluation_mode(model):
        bar = progress_bar("cue conflict", items=list(enumerate(chosen)), shown=progress)
        found = [painted(place, *pair) for place, pair in bar]
    which = torch.tensor(chosen)
    return CueConflict(
        inputs=torch.cat([one.inputs for one in found]),
        pixels=torch.cat([one.pixels for one in found]),
        pixel_space=pixel_space,
        shape_labels=of_shape[which[:, 0]],
        texture_labels=of_texture[which[:, 1]],
        pairs=which,
        content_loss=torch.stack([one.content_loss for one in found]),
        style_loss=torch.stack([one.style_loss for one in found]),
    )


def _pairs(pairs: Sequence[tuple[int, int]] | None, of_shape: Tensor, of_texture: Tensor) -> list[tuple[int, int]]:
    """Which shape with which texture, checked; all of different classes if none are given."""
    if pairs is None:
        pairs = [(row, column) for row, column in (of_shape[:, None] != of_texture).nonzero().tolist()]
    if not pairs:
        raise InvalidArgumentError(
            "there is no pair of a shape and a texture of different classes: nothing can be in conflict"
        )
    for shape, texture in pairs:
        if not (0 <= shape < len(of_shape) and 0 <= texture < len(of_texture)):
            what = f"there are {len(of_shape)} shapes and {len(of_texture)} textures"
            raise InvalidArgumentError(f"pairs holds {(shape, texture)}: {what}")
        if of_shape[shape] == of_texture[texture]:
            what = f"pair {(shape, texture)} has shape and texture of class {int(of_shape[shape])}"
            raise InvalidArgumentError(f"{what}: no conflict, leave it out")
    return [(int(shape), int(texture)) for shape, texture in pairs]


def labels_of(labels: Labels, count: int, what: str) -> Tensor:
    """Labels ``[count]`` on the CPU, checked.

    Args:
        labels: as given.
        count: how many there should be.
        what: they are of, "shape" or "texture", for the error.

    Raises:
        TypeError: they are no integers.
        ValueError: they are not one for each, or negative.
    """
    found = torch.as_tensor(labels).cpu()
    if found.is_floating_point() or found.dtype is torch.bool:
        raise InvalidTypeError(f"{what}_labels are {found.dtype}: give the numbers of classes, as integers")
    if list(found.shape) != [count]:
        raise InvalidArgumentError(
            f"{what}_labels are {list(found.shape)} for {count} images: give one for each, [{count}]"
        )
    if found.numel() and found.min() < 0:
        raise InvalidArgumentError(f"{what}_labels hold {int(found.min())}: give classes of 0 or more")
    return found.long()


def _check_images(images: Tensor | Sequence[Tensor], what: str, pixel_space: PixelSpace) -> None:
    """Before the first is painted, which may take minutes."""
    if not len(images):
        raise InvalidArgumentError(f"there are no {what}s: give one image or more")
    for place, one in enumerate(images):
        if one.dim() != 3:
            raise InvalidArgumentError(f"{what} {place} is {list(one.shape)}: give one image for each, [C, H, W]")
        centered(one, pixel_space, f"{what} {place}")
