"""Cue conflict: images whose shape is of one class and whose texture is of another (Geirhos et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attacked_model import Labels, class_indices
from lightning_viz.dream.parametrization import centered
from lightning_viz.dream.style_transfer import VGG19_CONTENT, VGG19_STYLE, StyleTransfer, style_transfer
from lightning_viz.errors import CueConflictWarning, InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import evaluation_mode, warn_if_training
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["CueConflict", "cue_conflict"]


@dataclass(frozen=True)
class CueConflict:
    """N images with the shape of one class and the texture of another.

    Attributes:
        inputs: as the model that generated them takes them, ``[N, C, H, W]``.
        pixels: for display, ``[N, C, H, W]`` in [0, 1]. Another model takes ``its_space.to_inputs(pixels)``.
        pixel_space: maps inputs to pixels.
        shape_labels: class of the shape, ``[N]``.
        texture_labels: class of the texture, ``[N]``, which differs from the shape's.
        pairs: indices of the shape and the texture, ``[N, 2]``.
        content_loss: distance from the shape image before each update and at the end, ``[N, steps + 1]``.
        style_loss: distance from the texture image, likewise.
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
    """Cue conflict: style transfer of one class's texture onto another's shape (Geirhos et al., 2019).

    Each image is one `style_transfer` with a shape as the content and a texture as the style. Draw silhouettes in
    mid-grays, dark on light: white and black pixels can only change in one direction.

    Args:
        model: for the style transfer; it need not be the model whose shape bias is measured.
        shapes: images whose shape shows a class, as `model` takes them, ``[A, C, H, W]``.
        textures: images whose texture shows a class, ``[B, C, h, w]``, or B images ``[C, h, w]`` of any sizes.
        shape_labels: classes of the shapes, ``[A]``.
        texture_labels: classes of the textures, ``[B]``.
        content_layers: represent the shape (see `style_transfer`); shallow ones keep its outline sharp.
        style_layers: represent the texture.
        pairs: indices of shape and texture; all pairs of different classes if omitted.
        texture_strength: weight of the texture relative to the balanced weight of `style_transfer` for each pair. Small
            networks need more: 30 to 100 for one of four convolutions.
        start: the shape image, or noise around gray.
        optimizer: see `style_transfer`.
        steps: number of updates of each image.
        pixel_space: how the inputs of `model` map to pixels; inputs are pixels in [0, 1] if omitted.
        seed: of the noise of the first image; later images have the following seeds.
        progress: show a progress bar after a few seconds.
        forward: calls the model, ``forward(model, images)``; ``model(images)`` if omitted.

    Raises:
        LayerNotFoundError: no such layer; the message lists the nearest names.
        InvalidArgumentError: images of the wrong shape or outside the pixel space, labels that are not one per image, a
            pair out of range or of one class, or no pair at all.
    """
    pixel_space = pixel_space or PixelSpace()
    if shapes.dim() != 4:
        raise InvalidArgumentError(f"the shapes are {list(shapes.shape)}; pass images of one size, [A, C, H, W]")
    _check_images(shapes, "shape", pixel_space)
    _check_images(textures, "texture", pixel_space)
    shape_classes = conflict_labels(shape_labels, len(shapes), "shape")
    texture_classes = conflict_labels(texture_labels, len(textures), "texture")
    index_pairs = _pairs(pairs, shape_classes, texture_classes)
    if not 0 < texture_strength < math.inf:
        raise InvalidArgumentError(
            f"texture_strength={texture_strength} must be positive and finite; 1 is the balance of `style_transfer`"
        )
    warn_if_training(model, CueConflictWarning)

    def generate(index: int, shape: int, texture: int) -> StyleTransfer:
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
                seed=seed + index,
                frames=0,
                progress=False,
                forward=forward,
            )

        return transfer(steps, texture_strength * transfer(0).style_weight)

    with evaluation_mode(model):
        bar = progress_bar("cue conflict", items=list(enumerate(index_pairs)), shown=progress)
        transfers = [generate(index, *pair) for index, pair in bar]
    indices = torch.tensor(index_pairs)
    return CueConflict(
        inputs=torch.cat([transfer.inputs for transfer in transfers]),
        pixels=torch.cat([transfer.pixels for transfer in transfers]),
        pixel_space=pixel_space,
        shape_labels=shape_classes[indices[:, 0]],
        texture_labels=texture_classes[indices[:, 1]],
        pairs=indices,
        content_loss=torch.stack([transfer.content_loss for transfer in transfers]),
        style_loss=torch.stack([transfer.style_loss for transfer in transfers]),
    )


def _pairs(
    pairs: Sequence[tuple[int, int]] | None, shape_classes: Tensor, texture_classes: Tensor
) -> list[tuple[int, int]]:
    """Validated pairs of shape and texture; all pairs of different classes if none are given."""
    if pairs is None:
        pairs = [(row, column) for row, column in (shape_classes[:, None] != texture_classes).nonzero().tolist()]
    if not pairs:
        raise InvalidArgumentError(
            "there is no pair of a shape and a texture of different classes; pass labels of two classes or more"
        )
    for shape, texture in pairs:
        if not (0 <= shape < len(shape_classes) and 0 <= texture < len(texture_classes)):
            raise InvalidArgumentError(
                f"pairs has {(shape, texture)}, but there are {len(shape_classes)} shapes and {len(texture_classes)} "
                "textures"
            )
        if shape_classes[shape] == texture_classes[texture]:
            raise InvalidArgumentError(
                f"pair {(shape, texture)} has shape and texture of class {int(shape_classes[shape])}, so there is no "
                "conflict; leave it out"
            )
    return [(int(shape), int(texture)) for shape, texture in pairs]


def conflict_labels(labels: Labels, count: int, cue: str) -> Tensor:
    """Labels ``[count]`` on the CPU, validated; the cue is "shape" or "texture", for the errors.

    Raises:
        InvalidTypeError: they are no integers.
        InvalidArgumentError: they are not one per image, or negative.
    """
    indices = class_indices(labels, count, f"{cue}_labels").cpu()
    if indices.numel() and indices.min() < 0:
        raise InvalidArgumentError(f"{cue}_labels hold {int(indices.min())}; pass class indices of 0 or more")
    return indices


def _check_images(images: Tensor | Sequence[Tensor], cue: str, pixel_space: PixelSpace) -> None:
    """Validate the images before the first style transfer, which may take minutes."""
    if not len(images):
        raise InvalidArgumentError(f"there are no {cue}s; pass at least one image")
    for index, image in enumerate(images):
        if image.dim() != 3:
            raise InvalidArgumentError(f"{cue} {index} is {list(image.shape)}; pass one image each, [C, H, W]")
        centered(image, pixel_space, f"{cue} {index}")
