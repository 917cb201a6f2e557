"""How the options of dreams are written: units, ways to write images down, priors, steps between updates, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, resize

from lightning_viz.analysis.data import read_image
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.attribution.occlusion import blurred, mean_color
from lightning_viz.callbacks.dreams import named_units
from lightning_viz.cli.function_options import Written
from lightning_viz.cli.samples import images_of, said, true_classes
from lightning_viz.dream.parametrization import Image, cppn, fourier, pixels
from lightning_viz.dream.regularization import PRIORS, YOSINSKI, Preset, edge_energy
from lightning_viz.dream.transforms import standard
from lightning_viz.errors import InvalidArgumentError, LayerNotFoundError
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.observe import resolve_target
from lightning_viz.hooks.target_algebra import Target
from lightning_viz.hooks.target_words import TargetLike, as_target, class_list, parse_target
from lightning_viz.hooks.targets import ClassTarget
from lightning_viz.render.tiles import Verdict

_BASELINES: dict[str, Any] = {"mean": mean_color, "blur": blurred}


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


def explained(subject: ModelUnderStudy, target: TargetLike) -> Explained:
    """What a target means for the samples.

    Args:
        subject: with model and samples.
        target: as the attribution took it.
    """
    images = images_of(subject)
    columns: dict[str, Tensor] = {}
    verdicts: list[Verdict] = []
    names: list[list[str]] = []
    fixed = resolve_target(subject.model, images, target)
    found = fixed.index if isinstance(fixed, ClassTarget) else None
    if subject.classifies:
        predicted, confidences = said(subject, images)
        columns = {"predicted": predicted, "confidence": confidences}
        verdicts = subject.verdicts(subject.labels, predicted, confidences)
    if isinstance(found, Tensor):
        several = found.cpu().expand(-1, len(images)) if found.dim() == 2 else found.cpu()[None]
        columns |= {"target" if len(several) == 1 else f"target {t}": each for t, each in enumerate(several)}
        names = [[subject.samples.name(int(one)) for one in each] for each in several] if found.dim() == 2 else []
    return Explained(_in_words(subject, target), columns, verdicts, names)


def _in_words(subject: ModelUnderStudy, target: TargetLike) -> str:
    target = as_target(target)
    if not isinstance(target, ClassTarget):
        return target.name
    if target.count is not None or (isinstance(target.index, Tensor) and target.index.dim() == 2):
        return "several classes"
    if target.index is None:
        return "each sample's predicted class"
    return (
        f"class {subject.samples.name(target.index)}" if isinstance(target.index, int) else "each sample's true class"
    )


def _target(value: Sequence[int | str], subject: ModelUnderStudy) -> Target:
    """What is explained, of its words."""
    names = subject.samples.class_names
    if len(value) > 1:
        return class_list(value, names)
    word = str(value[0]).strip()
    target = parse_target(word, model=subject.model, class_names=names)
    return target.bind(true_classes(subject) if word == "label" else None, names)


def _feature(value: str | None, subject: ModelUnderStudy) -> Target | None:
    """A layer's channel, ``"conv2[7]"``."""
    return None if value is None else _target([value], subject)


def _layers(value: Sequence[str], subject: ModelUnderStudy) -> str | list[str]:
    return value[0] if len(value) == 1 else list(value)


def _size(value: Sequence[int] | None, subject: ModelUnderStudy) -> int | tuple[int, int] | None:
    if value is None or len(value) == 1:
        return None if value is None else value[0]
    if len(value) > 2:
        raise InvalidArgumentError("give a side, or height and width")
    return value[0], value[1]


def _baseline(value: float | str, subject: ModelUnderStudy) -> Any:
    if isinstance(value, str) and value not in _BASELINES:
        raise InvalidArgumentError(f"give a number, or one of {', '.join(_BASELINES)}")
    return _BASELINES[value] if isinstance(value, str) else value


WRITTEN: Mapping[str, Written] = {
    "target": Written(
        int | str,
        "what to explain: a class, 3 or class:ox, or several; top:3; label, each sample's true class; predicted; or "
        "something inside, 'conv2[7]', 'max(conv2)'",
        plain=lambda default: ["predicted"],
        several=True,
        meant=_target,
    ),
    "layers": Written(
        str, "one or more whose output is maps", plain=lambda default: [default], several=True, meant=_layers
    ),
    "noise_samples": Written(int, "noisy copies of each sample (50: the paper's)"),
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
        "what stands in the patch: a number in the model's input values, mean (the image's color), or blur",
        meant=_baseline,
    ),
    "feature": Written(str | None, "a channel of which to map the activity: 'conv2[7]'", meant=_feature),
}
"""Those of occlusion."""


_EACH = 10  # channels or classes where no number is given
_NATURAL = 40.0  # weight of the edge energy at one pixel: it is a sum over pixels, the logit is not
_IMAGES: dict[str, Callable[..., Image]] = {"pixels": pixels, "fourier": fourier, "cppn": cppn}


def _shape(subject: ModelUnderStudy) -> tuple[int, ...]:
    return tuple(images_of(subject).shape[1:])


def _objectives(value: Sequence[str], subject: ModelUnderStudy) -> list[Target]:
    """What units are called, as objectives."""
    outputs = subject.outputs(1)
    classes = 0 if outputs is None or outputs.dim() < 2 else outputs.shape[1]
    names = subject.samples.class_names
    return [unit.target for text in value for unit in named_units(subject.model, text, _EACH, classes, names)]


def of_units(value: str, subject: ModelUnderStudy) -> str | Target:
    """A layer by its name, or a unit as a target.

    Args:
        value: the words.
        subject: whose layers are meant.

    Raises:
        ViewError: there is neither.
    """
    try:
        select_layers(subject.model, value)
        return value
    except LayerNotFoundError:
        return _objectives([value], subject)[0]


def _classes(value: Sequence[int | str] | None, subject: ModelUnderStudy) -> list[Target]:
    """Logits of classes by number or name; of the first ones."""
    if value is None:
        return _objectives(["logits"], subject)
    return _objectives([str(word) for word in value], subject)


def _image(value: Sequence[str], subject: ModelUnderStudy) -> Image:
    """A way to write images down, and its options."""
    name, *options = value
    if name not in _IMAGES:
        raise InvalidArgumentError(f"give one of {', '.join(_IMAGES)}")
    try:
        return _IMAGES[name](_shape(subject), **_settings(options))
    except TypeError as error:
        raise InvalidArgumentError(str(error)) from error


def _priors(value: Sequence[str] | None, subject: ModelUnderStudy) -> dict[Any, float]:
    """Penalties and their weights."""
    found = _settings(value or ())
    unknown = [name for name in found if name not in PRIORS]
    if unknown:
        raise InvalidArgumentError(f"there is no prior {unknown[0]!r}: {', '.join(PRIORS)}")
    return {PRIORS[name]: weight for name, weight in found.items()}


def _natural(value: Sequence[str] | None, subject: ModelUnderStudy) -> dict[Any, float]:
    """The same; the edge energy, by the number of pixels, if omitted."""
    _, height, width = _shape(subject)
    usual: dict[Any, float] = {edge_energy: _NATURAL / (height * width)} if min(height, width) > 5 else {}
    return usual if value is None else _priors(value, subject)


def _update_steps(value: Sequence[str] | None, subject: ModelUnderStudy) -> Preset | str | tuple[()]:
    """Steps between updates: a preset's name, or its fields."""
    if not value:
        return ()
    if len(value) == 1 and "=" not in value[0]:
        if value[0] not in YOSINSKI:
            raise InvalidArgumentError(f"there is no preset of that name: {', '.join(map(repr, YOSINSKI))}")
        return value[0]
    settings, known = _settings(value), [one.name for one in fields(Preset)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise InvalidArgumentError(f"there is no {unknown[0]!r}: {', '.join(known)}")
    whole = ("blur_every", "iterations")
    return Preset(**{name: int(one) if name in whole else one for name, one in settings.items()})


def _moved(value: int | None, subject: ModelUnderStudy) -> list[Any]:
    """The usual transformations, by so many pixels."""
    far = max(2, min(_shape(subject)[1:]) // 14) if value is None else value
    return standard(far) if far else []


def _settings(value: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE``, several."""
    pairs = [one.partition("=") for one in value]
    for name, equals, text in pairs:
        if not equals or not isinstance(yaml.safe_load(text), (int, float)):
            raise InvalidArgumentError(f"{name + equals + text!r} is not NAME=NUMBER")
    return {name: yaml.safe_load(text) for name, _, text in pairs}


def _nothing(default: Any) -> None:
    return None


_PRIOR = "penalties and their weights, NAME=WEIGHT: " + ", ".join(PRIORS)
_WAY = "how images are written down: pixels, fourier or cppn, and its options: fourier decay=1.5"
DREAMT: Mapping[str, Written] = {
    "objectives": Written(
        str,
        "what to dream of: 'conv2[7]' (a channel), conv2 (its first ten), 3 or class:ox, logits",
        name="of",
        several=True,
        meant=_objectives,
    ),
    "image": Written(str, _WAY, plain=lambda default: ["pixels"], several=True, meant=_image),
    "priors": Written(str, _PRIOR, name="prior", several=True, meant=_priors),
    "update_steps": Written(
        str,
        f"after each update: one of {', '.join(map(repr, YOSINSKI))}, or NAME=VALUE of decay, blur_width, blur_every, "
        "norm_percentile, contribution_percentile",
        plain=_nothing,
        several=True,
        meant=_update_steps,
    ),
    "transforms": Written(
        int, "the usual random changes before each pass, by so many pixels; 0: none", plain=lambda _: 0, meant=_moved
    ),
}
"""Options of `maximize`."""

WANTED: Mapping[str, Written] = {
    **DREAMT,
    "objectives": Written(
        int | str,
        "which, by number or name; the first ten if omitted",
        plain=_nothing,
        name="classes",
        several=True,
        meant=_classes,
    ),
    "image": Written(str, _WAY, plain=lambda default: ["fourier", "decay=1.5"], several=True, meant=_image),
    "bounded": Written(bool, plain=lambda default: True),
    "priors": Written(
        str,
        f"{_PRIOR}; edge_energy, {_NATURAL:g} by the number of pixels, if omitted",
        name="prior",
        several=True,
        meant=_natural,
    ),
    "transforms": Written(
        int | None,
        "the usual random changes before each pass, by so many pixels; a fourteenth of the side if omitted; 0: none",
        plain=_nothing,
        meant=_moved,
    ),
}
"""The same for classes, with what makes images natural."""


def one_image(what: str) -> Written:
    """How an image is written: a file, or the number of a sample.

    Args:
        what: it is.
    """
    return Written(
        str,
        f"the {what}: an image file, scaled to the samples' shorter side, or the number of a sample",
        meant=_picture,
    )


def _picture(value: str, subject: ModelUnderStudy) -> Tensor:
    """A file's image, or a sample, as the model takes it ``[C, H, W]``."""
    images = images_of(subject)
    if value.isdigit():
        if int(value) >= len(images):
            raise InvalidArgumentError(f"there are {len(images)} samples, numbered from 0")
        return images[int(value)]
    channels, *sides = images.shape[1:]
    read = pil_to_tensor(read_image(Path(value)).convert("L" if channels == 1 else "RGB"))
    scaled = resize(read, min(sides), antialias=True)[None].float() / 255
    return subject.pixel_space.to_inputs(scaled.to(images))[0]
