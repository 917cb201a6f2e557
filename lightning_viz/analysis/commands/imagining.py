"""How the options of dreams are written: units, ways to write images down, priors, steps between updates, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, resize

from lightning_viz.analysis.commands.options import Written
from lightning_viz.analysis.commands.samples import class_of, images_of
from lightning_viz.analysis.images import read_image
from lightning_viz.analysis.subject import Subject
from lightning_viz.callbacks.units import named_units
from lightning_viz.dream.between import YOSINSKI, Preset
from lightning_viz.dream.images import Image, cppn, fourier, pixels
from lightning_viz.dream.objectives import Objective, logit
from lightning_viz.dream.priors import alpha_norm, edge_energy, l2, total_variation
from lightning_viz.dream.transforms import standard
from lightning_viz.hooks.layers import LayerNotFoundError, select_layers

_EACH = 10  # channels or classes where no number is given
_NATURAL = 40.0  # weight of the edge energy at one pixel: it is a sum over pixels, the logit is not
_IMAGES: dict[str, Callable[..., Image]] = {"pixels": pixels, "fourier": fourier, "cppn": cppn}
_PRIORS: dict[str, Any] = {one.__name__: one for one in (edge_energy, total_variation, l2, alpha_norm)}


def _shape(subject: Subject) -> tuple[int, ...]:
    return tuple(images_of(subject).shape[1:])


def _objectives(value: Sequence[str], subject: Subject) -> list[Objective]:
    """What units are called, as objectives."""
    outputs = subject.outputs(1)
    classes = 0 if outputs is None or outputs.dim() < 2 else outputs.shape[1]
    return [unit.objective for one in value for unit in named_units(subject.model, one, _EACH, classes)]


def of_units(value: str, subject: Subject) -> str | Objective:
    """A layer by its name, or a unit as an objective.

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


def _classes(value: Sequence[int | str] | None, subject: Subject) -> list[Objective]:
    """Logits of classes by number or name; of the first ones."""
    if value is None:
        return _objectives(["logits"], subject)
    return [logit(number) for one in value if (number := class_of(one, subject)) is not None]


def _image(value: Sequence[str], subject: Subject) -> Image:
    """A way to write images down, and its options."""
    name, *options = value
    if name not in _IMAGES:
        raise ValueError(f"give one of {', '.join(_IMAGES)}")
    try:
        return _IMAGES[name](_shape(subject), **_settings(options))
    except TypeError as error:
        raise ValueError(str(error)) from error


def _priors(value: Sequence[str] | None, subject: Subject) -> dict[Any, float]:
    """Penalties and their weights."""
    found = _settings(value or ())
    unknown = [name for name in found if name not in _PRIORS]
    if unknown:
        raise ValueError(f"there is no prior {unknown[0]!r}: {', '.join(_PRIORS)}")
    return {_PRIORS[name]: weight for name, weight in found.items()}


def _natural(value: Sequence[str] | None, subject: Subject) -> dict[Any, float]:
    """The same; the edge energy, by the number of pixels, if omitted."""
    _, height, width = _shape(subject)
    usual: dict[Any, float] = {edge_energy: _NATURAL / (height * width)} if min(height, width) > 5 else {}
    return usual if value is None else _priors(value, subject)


def _between(value: Sequence[str] | None, subject: Subject) -> Preset | str | tuple[()]:
    """Steps between updates: a preset's name, or its fields."""
    if not value:
        return ()
    if len(value) == 1 and "=" not in value[0]:
        if value[0] not in YOSINSKI:
            raise ValueError(f"there is no preset of that name: {', '.join(map(repr, YOSINSKI))}")
        return value[0]
    settings, known = _settings(value), [one.name for one in fields(Preset)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise ValueError(f"there is no {unknown[0]!r}: {', '.join(known)}")
    whole = ("blur_every", "iterations")
    return Preset(**{name: int(one) if name in whole else one for name, one in settings.items()})


def _moved(value: int | None, subject: Subject) -> list[Any]:
    """The usual transformations, by so many pixels."""
    far = max(2, min(_shape(subject)[1:]) // 14) if value is None else value
    return standard(far) if far else []


def _settings(value: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE``, several."""
    pairs = [one.partition("=") for one in value]
    for name, equals, text in pairs:
        if not equals or not isinstance(yaml.safe_load(text), (int, float)):
            raise ValueError(f"{name + equals + text!r} is not NAME=NUMBER")
    return {name: yaml.safe_load(text) for name, _, text in pairs}


def _nothing(default: Any) -> None:
    return None


_PRIOR = "penalties and their weights, NAME=WEIGHT: " + ", ".join(_PRIORS)
_WAY = "how images are written down: pixels, fourier or cppn, and its options: fourier decay=1.5"
DREAMT: Mapping[str, Written] = {
    "objectives": Written(
        str,
        "what to dream of: 'conv2 7' (a channel), conv2 (its first ten), 'logit 3', logits",
        name="of",
        several=True,
        meant=_objectives,
    ),
    "image": Written(str, _WAY, plain=lambda default: ["pixels"], several=True, meant=_image),
    "priors": Written(str, _PRIOR, name="prior", several=True, meant=_priors),
    "between": Written(
        str,
        f"between updates: one of {', '.join(map(repr, YOSINSKI))}, or NAME=VALUE of decay, blur_width, blur_every, "
        "norm_percentile, contribution_percentile",
        plain=_nothing,
        several=True,
        meant=_between,
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


def _picture(value: str, subject: Subject) -> Tensor:
    """A file's image, or a sample, as the model takes it ``[C, H, W]``."""
    images = images_of(subject)
    if value.isdigit():
        if int(value) >= len(images):
            raise ValueError(f"there are {len(images)} samples, numbered from 0")
        return images[int(value)]
    channels, *sides = images.shape[1:]
    read = pil_to_tensor(read_image(Path(value)).convert("L" if channels == 1 else "RGB"))
    scaled = resize(read, min(sides), antialias=True)[None].float() / 255
    return subject.space.to_inputs(scaled.to(images))[0]
