"""Shape bias and cue conflict: whether a model follows shape or texture (Geirhos et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Labels
from lightning_viz.adversarial.attacked_model import class_indices
from lightning_viz.dream.parametrization import centered
from lightning_viz.dream.style_transfer import VGG19_CONTENT, VGG19_STYLE, StyleTransfer, style_transfer
from lightning_viz.errors import CueConflictWarning, InvalidArgumentError, InvalidTypeError, format_indices, warn_user
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import evaluation_mode, warn_if_training
from lightning_viz.hooks.observe import Forward, Passes, image_size_errors, passes
from lightning_viz.hooks.outputs import class_logits
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_display

__all__ = ["CueConflict", "ShapeBias", "cue_conflict", "shape_bias"]

_MOST_PROBABLE = 3


@html_display("shape_labels", "texture_labels", images=("pixels",))
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
    _check_cue_images(shapes, "shape", pixel_space)
    _check_cue_images(textures, "texture", pixel_space)
    shape_classes = conflict_labels(shape_labels, len(shapes), "shape")
    texture_classes = conflict_labels(texture_labels, len(textures), "texture")
    index_pairs = _pairs(pairs, shape_classes, texture_classes)
    if not 0 < texture_strength < math.inf:
        raise InvalidArgumentError(f"texture_strength={texture_strength} must be positive and finite")
    warn_if_training(model, CueConflictWarning)

    def generate(index: int, shape: int, texture: int) -> StyleTransfer:
        transfer = partial(
            style_transfer,
            model,
            shapes[shape],
            textures[texture],
            content_layers=content_layers,
            style_layers=style_layers,
            start=start,
            optimizer=optimizer,
            pixel_space=pixel_space,
            seed=seed + index,
            frames=0,
            progress=False,
            forward=forward,
        )
        return transfer(steps=steps, style_weight=texture_strength * transfer(steps=0).style_weight)

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


@html_display("shape", "texture", "neither", "names")
@dataclass(frozen=True)
class ShapeBias:
    """Decisions of a model on N images whose shape is of one class and whose texture of another.

    Attributes:
        names: of the K classes; their indices if no mapping with names was given.
        top: the three most probable classes (or both of two), ``[N, 3]``; the first is the decision.
        confidences: their softmax probabilities, in float64.
        shape_labels: class of the shape, ``[N]``.
        texture_labels: class of the texture, ``[N]``.
    """

    names: tuple[str, ...]
    top: Tensor
    confidences: Tensor
    shape_labels: Tensor
    texture_labels: Tensor

    @property
    def decisions(self) -> Tensor:
        """The most probable class, ``[N]``."""
        return self.top[:, 0]

    @property
    def by_shape(self) -> Tensor:
        """Whether the decision is the shape's class, ``[N]``."""
        return self.decisions == self.shape_labels

    @property
    def by_texture(self) -> Tensor:
        """Whether the decision is the texture's class, ``[N]``."""
        return self.decisions == self.texture_labels

    @property
    def shape(self) -> int:
        """Number of decisions for the shape's class."""
        return int(self.by_shape.sum())

    @property
    def texture(self) -> int:
        """Number of decisions for the texture's class."""
        return int(self.by_texture.sum())

    @property
    def neither(self) -> int:
        """Number of decisions for another class."""
        return len(self.top) - self.shape - self.texture

    @property
    def bias(self) -> float:
        """Shape / (shape + texture): 1 is shape alone, 0 texture alone; NaN if all decisions are for other classes."""
        either = self.shape + self.texture
        return self.shape / either if either else math.nan

    @property
    def decided(self) -> float:
        """Fraction of the decisions for the shape's or the texture's class."""
        return (self.shape + self.texture) / len(self.top)

    @property
    def class_counts(self) -> Tensor:
        """Decisions for shape, texture and neither, by the class of the shape, ``[K, 3]``."""
        kinds = torch.stack([self.by_shape, self.by_texture, ~(self.by_shape | self.by_texture)], 1)
        return kinds.new_zeros(len(self.names), 3, dtype=torch.long).index_add_(0, self.shape_labels, kinds.long())

    @property
    def class_bias(self) -> Tensor:
        """The bias by the class of the shape, ``[K]``; NaN if no decision is for either cue."""
        shape, texture, _ = self.class_counts.double().unbind(1)
        return shape / (shape + texture)


def shape_bias(
    model: nn.Module,
    images: Tensor,
    shape_labels: Labels,
    texture_labels: Labels,
    *,
    mapping: Mapping[str, Sequence[int]] | Sequence[Sequence[int]] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    forward: Forward | None = None,
) -> ShapeBias:
    r"""Shape bias: the fraction of decisions for shape among those for shape or texture (Geirhos et al., 2019).

    .. math:: \text{bias} = \frac{\#\{\text{decision} = \text{shape}\}}
        {\#\{\text{decision} = \text{shape}\} + \#\{\text{decision} = \text{texture}\}}

    Decisions for a third class do not count; `ShapeBias.neither` is their number.

    Args:
        model: classifier of two or more classes; it runs in eval mode, and its state is restored.
        images: as the model takes them, ``[N, C, H, W]``, those of `cue_conflict` or others.
        shape_labels: class of each image's shape, ``[N]``.
        texture_labels: class of its texture, ``[N]``; must differ from the shape's.
        mapping: for each category that the labels index, the model's classes in it: a list, or a dict by category name
            (ImageNet's 1,000 classes and Geirhos's 16). The probability of a category is the mean over its classes,
            normalized over the categories.
        batch_size: images per forward pass.
        seed: of random numbers that the model itself draws.
        forward: calls the model, ``forward(model, images)``; ``model(images)`` if omitted.

    Raises:
        InvalidArgumentError: no images, labels out of range or not one per image, shape and texture of one class, a
            mapping to classes out of range, too few classes, or scores that are NaN.
        InvalidTypeError: the images are not floating point, the labels not integers, or the model returns no scores.
    """
    _check_images(images, batch_size)
    shapes = conflict_labels(shape_labels, len(images), "shape")
    textures = conflict_labels(texture_labels, len(images), "texture")
    alike = (shapes == textures).nonzero().flatten().tolist()
    if alike:
        raise InvalidArgumentError(
            f"images {format_indices(alike)} have shape and texture of one class, so no conflict; leave them out"
        )
    names, groups = _categories(mapping)
    highest = int(torch.cat([shapes, textures]).max())
    warn_if_training(model, CueConflictWarning)
    with passes(model, forward=forward, seed=seed) as run, torch.no_grad():
        parts = [_probabilities(run, part, groups, highest) for part in torch.split(images, batch_size)]
    probabilities = torch.cat(parts)
    undecided = probabilities.isnan().any(1).nonzero().flatten().tolist()
    if undecided:
        raise InvalidArgumentError(f"NaN or infinite scores for images {format_indices(undecided)}; leave them out")
    confidences, top = probabilities.topk(min(_MOST_PROBABLE, probabilities.shape[1]), dim=1)
    result = ShapeBias(
        names=names or tuple(map(str, range(probabilities.shape[1]))),
        top=top,
        confidences=confidences,
        shape_labels=shapes,
        texture_labels=textures,
    )
    if math.isnan(result.bias):
        warn_user(
            f"none of {len(images)} decisions is the class of the shape or of the texture, so the shape bias is NaN; "
            "check that the labels are the model's classes",
            CueConflictWarning,
        )
    return result


def _pairs(
    pairs: Sequence[tuple[int, int]] | None, shape_classes: Tensor, texture_classes: Tensor
) -> list[tuple[int, int]]:
    """Validated pairs of shape and texture; all pairs of different classes if none are given."""
    if pairs is None:
        pairs = [(row, column) for row, column in (shape_classes[:, None] != texture_classes).nonzero().tolist()]
    if not pairs:
        raise InvalidArgumentError("no shape and texture are of different classes; pass labels of two classes or more")
    for shape, texture in pairs:
        if not (0 <= shape < len(shape_classes) and 0 <= texture < len(texture_classes)):
            raise InvalidArgumentError(
                f"pairs has {(shape, texture)}, of {len(shape_classes)} shapes and {len(texture_classes)} textures"
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


def _check_cue_images(images: Tensor | Sequence[Tensor], cue: str, pixel_space: PixelSpace) -> None:
    """Validate the images before the first style transfer, which may take minutes."""
    if not len(images):
        raise InvalidArgumentError(f"there are no {cue}s; pass at least one image")
    for index, image in enumerate(images):
        if image.dim() != 3:
            raise InvalidArgumentError(f"{cue} {index} is {list(image.shape)}; pass one image each, [C, H, W]")
        centered(image, pixel_space, f"{cue} {index}")


def _probabilities(run: Passes, images: Tensor, groups: Sequence[Sequence[int]] | None, highest: int) -> Tensor:
    """Softmax probabilities ``[n, K]`` in float64 of classes or groups; checks that the highest label fits."""
    with image_size_errors(images.shape[1:]):
        scores = class_logits(*run(images.to(run.like)).scores())
    count = scores.shape[1]
    if len(scores) != len(images) or count < 2:
        raise InvalidArgumentError(
            f"the model returns scores {list(scores.shape)} for {len(images)} images; the shape bias needs two classes "
            "or more and one row per image"
        )
    probabilities = scores.cpu().double().softmax(1)
    if highest >= (choices := count if groups is None else len(groups)):
        raise InvalidArgumentError(f"label {highest} is out of range: pass labels of 0 to {choices - 1}")
    if groups is None:
        return probabilities
    largest = max(max(group) for group in groups)
    if largest >= count:
        raise InvalidArgumentError(f"mapping has class {largest}, the model has classes 0 to {count - 1}")
    means = torch.stack([probabilities[:, list(group)].mean(1) for group in groups], 1)
    return means / means.sum(1, keepdim=True)


def _categories(
    mapping: Mapping[str, Sequence[int]] | Sequence[Sequence[int]] | None,
) -> tuple[tuple[str, ...], Sequence[Sequence[int]] | None]:
    """Names of the categories, and the classes of each."""
    if mapping is None:
        return (), None
    names = tuple(mapping) if isinstance(mapping, Mapping) else tuple(map(str, range(len(mapping))))
    groups = [list(group) for group in (mapping.values() if isinstance(mapping, Mapping) else mapping)]
    if not all(isinstance(name, str) for name in names):
        raise InvalidTypeError(f"mapping has keys {list(names)}; pass names, or a list in the order of the labels")
    if len(groups) < 2 or not all(groups):
        raise InvalidArgumentError(f"mapping has categories {groups}; pass two or more, of one class or more each")
    indices = [index for group in groups for index in group]
    if min(indices) < 0 or len(set(indices)) < len(indices):
        raise InvalidArgumentError(f"mapping has classes {sorted(indices)}; each must be 0 or more, in one category")
    return names, groups


def _check_images(images: Tensor, batch_size: int) -> None:
    if not images.is_floating_point():
        raise InvalidTypeError(f"the images are {images.dtype}; pass a floating-point tensor, as the model takes them")
    if images.dim() < 2 or not len(images):
        raise InvalidArgumentError(f"the images are {list(images.shape)}; pass [N, C, H, W] with at least one image")
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size={batch_size} must be at least 1")
