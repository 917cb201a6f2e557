"""Images with one class's shape and another's texture, from a folder, as the field shares them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.studies.samples import number, numbers
from lightning_viz.analysis.technique import Found, not_a_classifier
from lightning_viz.errors import AnalysisError
from lightning_viz.pixels import PixelSpace
from lightning_viz.render.shape_bias import shape_bias_plot
from lightning_viz.render.text import percent
from lightning_viz.robustness.shape_bias import shape_bias

_NAMED = re.compile(r"(?P<shape>[^\d-]+)\d*-(?P<texture>[^\d-]+)\d*")
_CLASSES = "classes.json"


@dataclass(frozen=True)
class Conflicts:
    """Images whose two cues contradict each other.

    Attributes:
        images: as a model takes them ``[N, C, H, W]``.
        shapes: category of each shape ``[N]``.
        textures: category of each texture ``[N]``.
        mapping: by category, the model's classes that belong to it.
    """

    images: Tensor
    shapes: Tensor
    textures: Tensor
    mapping: dict[str, list[int]]


def read_conflicts(folder: Path, classes: Sequence[str], shape: Sequence[int], pixel_space: PixelSpace) -> Conflicts:
    """Read images named ``<shape><number>-<texture><number>.png``, as those of Geirhos et al. (2019) are.

    Images of which both cues are the same are left out. What categories the model's classes belong to, where they are
    called otherwise, says a file ``classes.json`` in the folder: ``{"cat": ["tabby", "Egyptian cat"], ...}``.

    Args:
        folder: searched however deep.
        classes: names of the model's.
        shape: of the model's input ``(C, H, W)``; images are cropped to its proportions and resized.
        pixel_space: how its inputs map to pixels.

    Raises:
        AnalysisError: no such images, or of categories that the model does not have.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    named = [(path, found["shape"].rstrip("_ "), found["texture"].rstrip("_ ")) for path in paths
             if (found := _NAMED.fullmatch(path.stem)) and found["shape"] != found["texture"]]  # fmt: skip
    if not named:
        raise AnalysisError(f"{folder} holds no cue conflicts: their files are named like 'cat4-elephant2.png'")
    mapping = _mapping(folder, sorted({one for _, *both in named for one in both}), classes)
    categories = list(mapping)
    return Conflicts(
        torch.stack([_read(path, shape, pixel_space) for path, *_ in named]),
        torch.tensor([categories.index(one) for _, one, _ in named]),
        torch.tensor([categories.index(one) for *_, one in named]),
        mapping,
    )


def _mapping(folder: Path, categories: list[str], classes: Sequence[str]) -> dict[str, list[int]]:
    file = folder / _CLASSES
    members = json.loads(file.read_text()) if file.is_file() else {one: [one] for one in categories}
    places = {name: place for place, name in enumerate(classes)}
    unknown = [name for one in categories for name in members.get(one, [one]) if name not in places]
    if unknown:
        raise AnalysisError(
            f"the cue conflicts in {folder} are of {unknown[0]!r}, none of the model's {len(classes)} classes: "
            f'say in {file} which of them belong together, {{"{categories[0]}": ["name of a class", ...]}}'
        )
    return {one: [places[name] for name in members.get(one, [one])] for one in categories}


def _read(path: Path, shape: Sequence[int], pixel_space: PixelSpace) -> Tensor:
    try:
        with Image.open(path) as image:
            gray = shape[0] == 1
            pixels = transforms.pil_to_tensor(image.convert("L" if gray else "RGB")).float() / 255
    except (OSError, UnidentifiedImageError) as error:
        raise AnalysisError(f"{path} cannot be read as an image: {error}") from error
    height, width = shape[1:]
    scale = max(height / pixels.shape[1], width / pixels.shape[2])
    size = [max(height, round(pixels.shape[1] * scale)), max(width, round(pixels.shape[2] * scale))]
    fitted = transforms.center_crop(transforms.resize(pixels, size, antialias=True), [height, width])
    return pixel_space.to_inputs(fitted[None])[0]


def biases(subject: ModelUnderStudy) -> Iterator[Found]:
    """The shape bias on the cue conflicts that were given.

    Args:
        subject: with `conflicts`.
    """
    assert subject.images is not None and subject.conflicts is not None
    shape, names = subject.images.shape[1:], subject.samples.class_names
    given = read_conflicts(subject.conflicts, names, shape, subject.pixel_space)
    found = shape_bias(subject.model, given.images, given.shapes, given.textures, mapping=given.mapping)
    yield shape_bias_plot(
        "robustness/shape_bias",
        found.class_bias[None].numpy(),
        [found.bias],
        names=found.names,
        models=[subject.name],
        details=[f"{len(given.images)} cue conflicts", f"{percent(found.decided)} % decided for either cue"],
    )
    yield (
        "shape_bias",
        {
            "bias": number(found.bias),
            "decided": found.decided,
            "conflicts": len(given.images),
            "classes": dict(zip(found.names, numbers(found.class_bias), strict=True)),
        },
    )


def without_conflicts(subject: ModelUnderStudy) -> str:
    """Why the shape bias cannot be found; empty where it can."""
    if reason := not_a_classifier(subject):
        return reason
    if not subject.samples.class_names:
        return "the model's classes have no names"
    return "" if subject.conflicts is not None else "no cue conflicts were given: conflicts=, a folder of images"
