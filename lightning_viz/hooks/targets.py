"""Targets by function calls, words and numbers: one grammar for functions, views and commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Union

import torch
from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.box_target import box
from lightning_viz.hooks.layer_target import LayerTarget
from lightning_viz.hooks.layers import named_layers, nearest_names
from lightning_viz.hooks.target_indices import Indices
from lightning_viz.hooks.target_types import ClassTarget, FunctionTarget, SideBySide, Target

__all__ = [
    "TargetLike",
    "as_target",
    "channel",
    "classes",
    "logit",
    "maximum",
    "parse_target",
    "region",
    "top",
    "unit",
]

TargetLike = Union[Target, Indices, str, Callable[[Any], Tensor], None]
"""Whatever names a target. None is each sample's predicted class, of a detector its best detection; otherwise:

- a `Target`, of the model's output or of something inside, or a sum of them: ``channel("conv2", 7) - 0.1 * logit(3)``;
- its words: ``"conv2[7]"``, ``"top:3"`` (see `parse_target`);
- a class index for all samples, or one for each ``[N]`` (their labels, say), or several, an index tensor ``[T, N]``;
- a function from the model's output to ``[N]``. It may be called on some of the samples, or on copies of them, so it
  must treat every sample alike.

Of several targets every result has a leading dimension T, all from one shared forward. Classes are explained by their
scores as the model returns them, logits as a rule.
"""


def logit(index: Indices) -> Target:
    """A class's score, as the model returns it, before the softmax as a rule; of a dense output summed over its places.

    Of a single logit z class 1 has the score z, class 0 has -z (of a probability p and 1 - p).

    Args:
        index: the class, one for each sample ``[N]``, or several ``[T, 1]`` or ``[T, N]``.
    """
    return ClassTarget(index)


def classes(*indices: int) -> Target:
    """Several classes side by side, each for all samples, over one shared forward.

    Args:
        indices: the classes, T of them; every result has a leading dimension T.

    Raises:
        InvalidArgumentError: there are none.
    """
    if not indices:
        raise InvalidArgumentError("classes(): give 1 class or more")
    return ClassTarget(torch.tensor(indices, dtype=torch.long)[:, None])


def top(count: int) -> Target:
    """Each sample's most probable classes side by side, over one shared forward.

    Args:
        count: how many, T; every result has a leading dimension T.

    Raises:
        InvalidArgumentError: `count` is not positive.
    """
    if count < 1:
        raise InvalidArgumentError(f"top({count}): give 1 class or more")
    return ClassTarget(count=count)


def region(mask: Tensor, index: Indices | Target | None = None) -> Target:
    """A class summed over a region of a dense output ``[N, classes, H, W]``, a segmentation's say.

    Args:
        mask: the places, ``[H, W]`` for all samples or ``[N, H, W]``: True or a weight where they count.
        index: the class, or several, ``classes(281, 207)`` or ``top(5)``; the strongest in the region if omitted.

    Raises:
        InvalidArgumentError: `index` is not a class.
    """
    target = index if isinstance(index, Target) else ClassTarget(index)
    if not isinstance(target, ClassTarget):
        raise InvalidArgumentError(f"region(mask, {target.name}): a region is of a class, as in region(mask, 3)")
    return ClassTarget(target.index, count=target.count, mask=mask, word=target.word, labels=target.labels)


def unit(layer: str, index: Indices) -> Target:
    """One scalar of a layer.

    Args:
        layer: name; of a layer that is called several times the call, ``"relu:1"``.
        index: of a vector's unit; of maps channel, row and column ``(k, y, x)``, for all samples or ``[N, 3]``, or the
            channel alone: in the middle of its map. Of a series ``(k, x)``, of volumes ``(k, z, y, x)``.
    """
    return LayerTarget(layer, index, "unit")


def channel(layer: str, index: Indices) -> Target:
    """A layer's channel, summed over its map.

    Args:
        layer: name; of a layer that is called several times the call, ``"relu:1"``.
        index: the channel, one for each sample ``[N]``, or several ``[T, 1]``.
    """
    return LayerTarget(layer, index, "channel")


def maximum(layer: str, index: Indices | None = None) -> Target:
    """The maximum of a channel's map, or of a layer.

    Args:
        layer: name; of a layer that is called several times the call, ``"relu:1"``.
        index: the channel, as for `channel`; the whole layer if omitted.
    """
    return LayerTarget(layer, index, "maximum")


GRAMMAR = (
    "'predicted'",
    "'label'",
    "'3' or 'class:ox' (a class)",
    "'top:3' (the most probable)",
    "'conv2[7]' (a channel)",
    "'conv2[7,3,4]' (a unit: channel, row, column; in 1-D 'conv2[7,3]', in 3-D 'conv2[7,1,3,4]')",
    "'relu:1[7]' (of the second call)",
    "'max(conv2)' or 'max(conv2[7])' (the maximum)",
    "'box[0]' (a detector's most confident detection)",
    "'token[3]' or 'token[3,7]' (the predicted class, or class 7, at a position of a sequence)",
    "'region', 'region:3' or 'region:ox' (of a segmentation, where the class truly is)",
)
"""Every form of a target in words."""

_WORDS = ("predicted", "label", "region")
_NUMBER = re.compile(r"[0-9]+")
_INDEXED = re.compile(r"(?P<layer>[^\s\[\]()]+)\s*\[(?P<places>[^\[\]()]*)\]")
_MAXIMUM = re.compile(r"max\(\s*(?P<inner>[^\s()]+(\s*\[[^()]*)?)\s*\)")


def as_target(target: TargetLike, *, name: str | None = None, model: nn.Module | None = None) -> Target:
    """The target that words, numbers or a function name.

    Args:
        target: see `TargetLike`.
        name: of a function's target, in words; the function's own if omitted.
        model: whose layers an error names.

    Raises:
        InvalidArgumentError: words that name none.
    """
    if isinstance(target, Target):
        return target
    if isinstance(target, str):
        return parse_target(target, model=model)
    if callable(target):
        words = name or str(getattr(target, "__name__", type(target).__name__))
        return FunctionTarget(words, lambda activations: target(activations.outputs), outputs=True)
    return ClassTarget(target)


def parse_target(text: str, *, model: nn.Module | None = None, class_names: Sequence[str] = ()) -> Target:
    """The target of words.

    ``predicted``, ``label``, ``3``, ``class:ox``, ``top:3``, ``conv2[7]`` (a channel), ``conv2[7,3,4]`` (a unit;
    in one dimension ``conv2[7,3]``, in three ``conv2[7,1,3,4]``),
    ``relu:1[7]`` (of the second call), ``max(layer3)``, ``max(layer3[7])``, of a sequence ``[N, T, K]`` ``token[3]``
    (the class predicted at a position) and ``token[3,7]`` (class 7 there), and of a segmentation ``region``,
    ``region:3``, ``region:ox``: each sample's largest true class beside class 0, or that class, where it truly is; of a
    detector ``box[0]``, each image's most confident detection, ``box[1]`` the next (a layer called ``box``:
    ``channel("box", 0)``).

    What needs labels or class names, ``label``, ``class:ox`` and ``region``, is left open; see `Target.bind`.

    Args:
        text: the words.
        model: whose layers an error names.
        class_names: that an error names.

    Raises:
        InvalidArgumentError: they name no target; the message lists the grammar and the nearest names.

    >>> parse_target("relu:1[7]")
    relu:1 channel 7
    >>> parse_target("max(conv2)") - 0.1 * parse_target("3")
    maximum of conv2 - 0.1 * logit 3
    """
    words = text.strip()
    kind, _, value = words.partition(":")
    if words in _WORDS:
        return ClassTarget(word=None if words == "predicted" else words)
    if _NUMBER.fullmatch(words):
        return ClassTarget(int(words))
    if kind in ("class", "region") and value.strip() == value != "":
        return ClassTarget(word=words)
    if kind == "top" and _NUMBER.fullmatch(value) and int(value) > 0:
        return top(int(value))
    if match := _MAXIMUM.fullmatch(words):
        inner = match["inner"].strip()
        if "[" not in inner and "]" not in inner:
            return maximum(inner)
        if (indexed := _INDEXED.fullmatch(inner)) and len(places := _places(indexed)) == 1:
            return maximum(indexed["layer"], places[0])
    if match := _INDEXED.fullmatch(words):
        layer = match["layer"]
        if layer == "box" and len(_places(match)) == 1:
            return box(*_places(match))
        if layer == "token" and 1 <= len(places := _places(match)) <= 2:
            return ClassTarget(places[1] if len(places) == 2 else None, position=places[0])
        places = _places(match)
        if len(places) == 1:
            return channel(layer, places[0])
        if len(places) in (2, 3, 4):
            return unit(layer, tuple(places))
    raise InvalidArgumentError(
        f"no target is written {text!r}{_hint(words, model, class_names)}; targets are {', '.join(GRAMMAR)}"
    )


def target_list(words: Sequence[int | str], class_names: Sequence[str] = ()) -> Target:
    """Several targets side by side, of their words: ``3`` or ``"class:ox"``, ``"conv2[7]"``, ``"max(conv2)"``.

    Args:
        words: of each.
        class_names: in the order of the classes.

    Raises:
        InvalidArgumentError: there are none, or one depends on the sample, such as ``"label"``.
    """
    targets = []
    for word in words:
        target = parse_target(str(word), class_names=class_names).bind(None, class_names)
        if target.open or target.several or (isinstance(target, ClassTarget) and target.word is not None):
            raise InvalidArgumentError(
                f"{word!r} in {list(words)} depends on the sample: several targets are 3, 'class:ox', 'conv2[7]' or "
                "'max(conv2)' each"
            )
        targets.append(target)
    plain = [target.index for target in targets if isinstance(target, ClassTarget) and target.position is None]
    return classes(*plain) if len(plain) == len(targets) else SideBySide(targets)  # type: ignore[arg-type]


def target_unit(target: Target, unit: str) -> str:
    """The unit of a method's maps for a target.

    Args:
        target: explained.
        unit: of the method's maps of a class, ``"logits"``, ``"logits per unit of input"``.

    >>> target_unit(channel("conv2", 7), "logits per unit of input")
    'units of activation per unit of input'
    """
    if not target.layers:
        return unit
    return unit.replace("logits", "units of the target" if target.outputs else "units of activation")


def _places(match: re.Match[str]) -> list[int]:
    """The numbers between brackets; none if one is none."""
    parts = [part.strip() for part in match["places"].split(",")]
    return [int(part) for part in parts] if all(map(_NUMBER.fullmatch, parts)) else []


def _hint(words: str, model: nn.Module | None, class_names: Sequence[str]) -> str:
    """What was meant, perhaps."""
    spaced = re.fullmatch(r"(\S+) ([0-9]+)", words)
    if spaced:
        name, number = spaced.groups()
        joined = {"top": f"top:{number}", "region": f"region:{number}", "logit": number, "class": number}
        return f"; did you mean {joined.get(name, f'{name}[{number}]')!r}?"
    layers = [] if model is None else [name for name in named_layers(model) if name]
    meant = [word for word in _WORDS if word == words.lower()]
    meant += [f"class:{name}" for name in nearest_names(words, class_names)]
    stem = re.split(r"[\[(]", words.removeprefix("max("))[0].strip()
    meant += [f"{layer}[0]" for layer in ([stem] if stem in layers else nearest_names(stem, layers))]
    meant += [f"top:{words[3:].strip(' :=')}"] * bool(re.fullmatch(r"top[ :=]*[1-9][0-9]*", words))
    return f"; did you mean {' or '.join(map(repr, meant))}?" if meant else ""
