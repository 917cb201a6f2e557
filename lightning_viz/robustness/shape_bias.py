"""Shape or texture: which of two cues a model follows where they contradict each other (Geirhos et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_viz.dream.objectives import taken
from lightning_viz.errors import CueConflictWarning, InvalidArgumentError, InvalidTypeError, warn_user
from lightning_viz.hooks.observe import Forward, Passes, passes
from lightning_viz.hooks.targets import class_scores
from lightning_viz.robustness.cue_conflict import Labels, labels_of

__all__ = ["ShapeBias", "shape_bias"]

_MOST_PROBABLE = 3


@dataclass(frozen=True)
class ShapeBias:
    """What a model says to N images whose shape is of one class and whose texture of another.

    Attributes:
        names: of the K classes that it chooses among; numbers where none were given.
        top: the three most probable classes (two of two), ``[N, 3]``; the first is the decision.
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
        """How many decisions are the shape's class."""
        return int(self.by_shape.sum())

    @property
    def texture(self) -> int:
        """How many decisions are the texture's class."""
        return int(self.by_texture.sum())

    @property
    def neither(self) -> int:
        """How many decisions are another class."""
        return len(self.top) - self.shape - self.texture

    @property
    def bias(self) -> float:
        """Shape / (shape + texture): 1 follows the shape alone, 0 the texture alone; NaN where it follows neither."""
        either = self.shape + self.texture
        return self.shape / either if either else math.nan

    @property
    def decided(self) -> float:
        """Share of the decisions that are the shape's class or the texture's."""
        return (self.shape + self.texture) / len(self.top)

    @property
    def class_counts(self) -> Tensor:
        """Among the images with the shape of each class the decisions for shape, texture and neither, ``[K, 3]``."""
        kinds = torch.stack([self.by_shape, self.by_texture, ~(self.by_shape | self.by_texture)], 1)
        return kinds.new_zeros(len(self.names), 3, dtype=torch.long).index_add_(0, self.shape_labels, kinds.long())

    @property
    def class_bias(self) -> Tensor:
        """The bias among the images with the shape of each class, ``[K]``; NaN where none follows either cue."""
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
    r"""Whether a model goes by shape or by texture where they contradict each other (Geirhos et al., 2019).

    .. math:: \text{bias} = \frac{\#\{\text{decision} = \text{shape}\}}
        {\#\{\text{decision} = \text{shape}\} + \#\{\text{decision} = \text{texture}\}}

    Decisions for a third class do not count; how many they are is there to see.

    Args:
        model: any classifier of two or more classes; it runs in eval mode and is left as found.
        images: as the model takes them, ``[N, C, H, W]``, those of `cue_conflict` or others.
        shape_labels: class of each image's shape, ``[N]``.
        texture_labels: class of its texture, ``[N]``; another than the shape's.
        mapping: categories that the labels count, each with the model's classes that belong to it, in a list, or with
            the categories' names in a dict (ImageNet's 1,000 classes and Geirhos's 16). A category's probability is
            the mean over its classes, as a share of all categories' means.
        batch_size: images shown at a time.
        seed: of what the model itself may draw.
        forward: how to run the model, ``forward(model, images)``, if not ``model(images)``.

    Raises:
        ValueError: no images, labels that are not one for each or out of range, a shape and a texture of one class, a
            mapping to classes that there are not, too few classes, or an answer that is NaN.
        TypeError: the images or labels are not numbers of the right kind, or the model returns no scores.
    """
    _check_shown(images, batch_size)
    of_shape = labels_of(shape_labels, len(images), "shape")
    of_texture = labels_of(texture_labels, len(images), "texture")
    alike = (of_shape == of_texture).nonzero().flatten().tolist()
    if alike:
        raise InvalidArgumentError(
            f"images {alike[:8]} have shape and texture of one class: no conflict, leave them out"
        )
    names, groups = _categories(mapping)
    highest = int(torch.cat([of_shape, of_texture]).max())
    if model.training:
        warn_user("the model is in train mode: it decides in eval mode, as it would be used", CueConflictWarning)
    with passes(model, forward=forward, seed=seed) as run, torch.no_grad():
        parts = [_probabilities(run, part, groups, highest) for part in torch.split(images, batch_size)]
    probable = torch.cat(parts)
    unanswered = probable.isnan().any(1).nonzero().flatten().tolist()
    if unanswered:
        raise InvalidArgumentError(
            f"the model returns NaN or infinity for images {unanswered[:8]}: there is no decision to count"
        )
    confidences, top = probable.topk(min(_MOST_PROBABLE, probable.shape[1]), dim=1)
    found = ShapeBias(
        names=names or tuple(map(str, range(probable.shape[1]))),
        top=top,
        confidences=confidences,
        shape_labels=of_shape,
        texture_labels=of_texture,
    )
    if math.isnan(found.bias):
        what = f"none of {len(images)} decisions is the class of the shape or of the texture"
        warn_user(f"{what}: the shape bias is NaN; are the labels the model's classes?", CueConflictWarning)
    return found


def _probabilities(run: Passes, images: Tensor, groups: Sequence[Sequence[int]] | None, highest: int) -> Tensor:
    """Softmax probabilities ``[n, K]`` in float64, of classes or of groups of them; the highest label is one of K."""
    with taken(images.shape[1:]):
        scores = class_scores(run(images.to(run.like)).outputs)
    count = scores.shape[1]
    if len(scores) != len(images) or count < 2:
        what = f"the model returns scores {list(scores.shape)} for {len(images)} images"
        raise InvalidArgumentError(f"{what}: too few classes, a shape bias needs two or more, one row for each image")
    probable = scores.cpu().double().softmax(1)
    if highest >= (choices := count if groups is None else len(groups)):
        raise InvalidArgumentError(
            f"a label is {highest}: there are {choices} classes, give labels of 0 to {choices - 1}"
        )
    if groups is None:
        return probable
    most = max(max(group) for group in groups)
    if most >= count:
        raise InvalidArgumentError(
            f"mapping names class {most}: the model has {count} classes, give some of 0 to {count - 1}"
        )
    means = torch.stack([probable[:, list(group)].mean(1) for group in groups], 1)
    return means / means.sum(1, keepdim=True)


def _categories(
    mapping: Mapping[str, Sequence[int]] | Sequence[Sequence[int]] | None,
) -> tuple[tuple[str, ...], Sequence[Sequence[int]] | None]:
    """The categories' names, and the classes of each."""
    if mapping is None:
        return (), None
    names = tuple(mapping) if isinstance(mapping, Mapping) else tuple(map(str, range(len(mapping))))
    groups = [list(group) for group in (mapping.values() if isinstance(mapping, Mapping) else mapping)]
    if not all(isinstance(name, str) for name in names):
        raise InvalidTypeError(f"mapping has keys {list(names)}: give names, or a list in the order of the labels")
    if len(groups) < 2 or not all(groups):
        raise InvalidArgumentError(
            f"mapping has {len(groups)} categories, {groups}: give two or more, of one class or more each"
        )
    every = [index for group in groups for index in group]
    if min(every) < 0 or len(set(every)) < len(every):
        raise InvalidArgumentError(
            f"mapping has classes {sorted(every)}: give each of them, 0 or more, in one category only"
        )
    return names, groups


def _check_shown(images: Tensor, batch_size: int) -> None:
    if not images.is_floating_point():
        raise InvalidTypeError(f"the images are {images.dtype}: give a floating-point tensor, as the model takes them")
    if images.dim() < 2 or not len(images):
        raise InvalidArgumentError(f"the images are {list(images.shape)}: give [N, C, H, W], one or more")
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size={batch_size}: give 1 or more")
