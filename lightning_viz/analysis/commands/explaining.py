"""What attributions explain: targets as they are written on the command line, and in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_viz.analysis.commands.options import Written
from lightning_viz.analysis.commands.samples import class_of, images_of, said, true_classes
from lightning_viz.analysis.subject import Subject
from lightning_viz.attribution.baselines import blurred, mean_colour
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.observing import settled
from lightning_viz.hooks.target import Inner, Target, Top, channel, classes, top
from lightning_viz.render.tiles import Verdict

_UNIT = re.compile(r"(.+) (\d+)")
_BASELINES: dict[str, Any] = {"mean": mean_colour, "blur": blurred}


@dataclass(frozen=True)
class Explained:
    """What was explained of the samples.

    Attributes:
        words: what it is.
        columns: of a table, what the model says of each sample, and the class explained.
        verdicts: what stands under the samples; empty where the model does not classify.
        names: of several classes, T times N; else empty.
    """

    words: str
    columns: Mapping[str, Tensor]
    verdicts: list[Verdict]
    names: list[list[str]]


def explained(subject: Subject, target: Target) -> Explained:
    """What a target means for the samples.

    Args:
        subject: with model and samples.
        target: as the attribution took it.
    """
    images = images_of(subject)
    columns: dict[str, Tensor] = {}
    verdicts: list[Verdict] = []
    names: list[list[str]] = []
    found = settled(subject.model, images, target)
    if subject.classifies:
        predicted, confidences = said(subject, images)
        columns = {"predicted": predicted, "confidence": confidences}
        verdicts = subject.verdicts(subject.labels, predicted, confidences)
    if isinstance(found, Tensor):
        several = found.cpu().expand(-1, len(images)) if found.dim() == 2 else found.cpu()[None]
        columns |= {"target" if len(several) == 1 else f"target {t}": each for t, each in enumerate(several)}
        names = [[subject.samples.name(int(one)) for one in each] for each in several] if found.dim() == 2 else []
    return Explained(_in_words(subject, target), columns, verdicts, names)


def _in_words(subject: Subject, target: Target) -> str:
    if target is None:
        return "each sample's predicted class"
    if isinstance(target, int):
        return f"class {subject.samples.name(target)}"
    if isinstance(target, Inner):
        return f"channel {target.index} of {target.layer}"
    if isinstance(target, Top) or (isinstance(target, Tensor) and target.dim() == 2):
        return "several classes"
    return "each sample's true class"


def _target(value: Sequence[int | str], subject: Subject) -> Target:
    """What is explained, of how it is written."""
    if len(value) == 1 and isinstance(value[0], str):
        word = value[0]
        if word == "predicted":
            return None
        if word == "label":
            return true_classes(subject)
        if (found := _UNIT.fullmatch(word)) and word not in subject.samples.class_names:
            return top(int(found[2])) if found[1] == "top" else _channel(word, subject)
    numbers = [number for one in value if (number := class_of(one, subject)) is not None]
    return numbers[0] if len(numbers) == 1 else classes(*numbers)


def _channel(value: str | None, subject: Subject) -> Target:
    """A layer's channel, ``"conv2 7"``."""
    if value is None:
        return None
    found = _UNIT.fullmatch(value)
    if found is None:
        raise ValueError("give a layer and the number of a channel: 'conv2 7'")
    select_layers(subject.model, found[1].partition(":")[0])
    return channel(found[1], int(found[2]))


def _layers(value: Sequence[str], subject: Subject) -> str | list[str]:
    return value[0] if len(value) == 1 else list(value)


def _size(value: Sequence[int] | None, subject: Subject) -> int | tuple[int, int] | None:
    if value is None or len(value) == 1:
        return None if value is None else value[0]
    if len(value) > 2:
        raise ValueError("give a side, or height and width")
    return value[0], value[1]


def _baseline(value: float | str, subject: Subject) -> Any:
    if isinstance(value, str) and value not in _BASELINES:
        raise ValueError(f"give a number, or one of {', '.join(_BASELINES)}")
    return _BASELINES[value] if isinstance(value, str) else value


WRITTEN: Mapping[str, Written] = {
    "target": Written(
        int | str,
        "what to explain: a class by number or name, or several; 'top 3'; label, each sample's true class; predicted; "
        "or a layer's channel, 'conv2 7'",
        plain=lambda default: ["predicted"],
        several=True,
        meant=_target,
    ),
    "layers": Written(
        str, "one or more whose output is maps", plain=lambda default: [default], several=True, meant=_layers
    ),
    "samples": Written(int, "noisy copies of each sample (50: the paper's)", name="copies"),
    "baseline": Written(float, "what the way begins with, in the model's input values"),
}
"""How the methods' options are written."""

COVERING: Mapping[str, Written] = {
    **WRITTEN,
    "patch": Written(
        int, "a side, or height and width; a seventh of the shorter side if omitted", several=True, meant=_size
    ),
    "stride": Written(int, "between positions; a quarter of the patch if omitted", several=True, meant=_size),
    "baseline": Written(
        float | str,
        "what stands in the patch: a number in the model's input values, mean (the image's colour), or blur",
        meant=_baseline,
    ),
    "feature": Written(str | None, "a channel of which to map the activity: 'conv2 7'", meant=_channel),
}
"""Those of occlusion."""
