"""Shape bias: whether a model decides by shape or by texture, on cue-conflict images from a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightning_viz.analysis.files import files_in
from lightning_viz.analysis.image_files import read_image
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.results import Output, rows_of
from lightning_viz.costs import Cost, costing
from lightning_viz.errors import AnalysisError, MalformedFileError, UnsuitableModelError
from lightning_viz.pixels import PixelSpace
from lightning_viz.plain_text import plain_text
from lightning_viz.render.page import Page
from lightning_viz.render.shape_bias import shape_bias_plot
from lightning_viz.render.text import percent
from lightning_viz.robustness.shape_bias import shape_bias

_NAMED = re.compile(r"(?P<shape>[^\d-]+)\d*-(?P<texture>[^\d-]+)\d*")
_CLASSES = "classes.json"


@dataclass(frozen=True)
class Conflicts:
    """Cue-conflict images.

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
    paths = [path for path in files_in(folder)[0] if path.suffix.lower() in (".png", ".jpg", ".jpeg")]
    matches = [(path, match) for path in paths if (match := _NAMED.fullmatch(path.stem))]
    cues = [(path, _cue(match["shape"]), _cue(match["texture"])) for path, match in matches]
    named = [(path, shape_cue, texture_cue) for path, shape_cue, texture_cue in cues if shape_cue != texture_cue]
    if not named:
        raise AnalysisError(f"{folder} holds no cue conflicts, which are files with names like 'cat4-elephant2.png'")
    mapping = _mapping(folder, sorted({cue for _, *cues in named for cue in cues}), classes)
    categories = list(mapping)
    return Conflicts(
        torch.stack([_read(path, shape, pixel_space) for path, *_ in named]),
        torch.tensor([categories.index(shape_cue) for _, shape_cue, _ in named]),
        torch.tensor([categories.index(texture_cue) for *_, texture_cue in named]),
        mapping,
    )


def _cue(name: str) -> str:
    return plain_text(name.rstrip("_ "))


def _mapping(folder: Path, categories: list[str], classes: Sequence[str]) -> dict[str, list[int]]:
    file = folder / _CLASSES
    members = _members(file) if file.is_file() else {}
    places = {name: place for place, name in enumerate(classes)}
    mapping = {category: members.get(category, [category]) for category in categories}
    unknown = [name for names in mapping.values() for name in names if name not in places]
    if unknown:
        raise AnalysisError(
            f"the cue conflicts in {folder} are of {unknown[0]!r}, none of the model's {len(classes)} classes: "
            f'list the classes of each category in {file}, {{"{categories[0]}": ["name of a class", ...]}}'
        )
    return {category: [places[name] for name in names] for category, names in mapping.items()}


def _members(file: Path) -> dict[str, list[str]]:
    """By category, the names of its classes, as a file lists them."""
    try:
        members = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise MalformedFileError(f"{plain_text(file)} cannot be read as JSON: {plain_text(error)}") from error
    lists = members.values() if isinstance(members, dict) else [None]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise MalformedFileError(f'{plain_text(file)} is no list of classes by category: {{"cat": ["tabby", ...]}}')
    return dict(members)


def _read(path: Path, shape: Sequence[int], pixel_space: PixelSpace) -> Tensor:
    from torchvision.transforms.v2 import functional as transforms  # which takes a while to import

    image = read_image(path).convert("L" if shape[0] == 1 else "RGB")
    height, width = shape[1:]
    scale = max(height / image.height, width / image.width)
    size = [max(height, round(image.height * scale)), max(width, round(image.width * scale))]
    fitted = transforms.center_crop(transforms.resize(image, size, antialias=True), [height, width])
    return pixel_space.to_inputs(transforms.pil_to_tensor(fitted)[None].float() / 255)[0]


def shape_or_texture(study: ModelUnderStudy, *, conflicts: str) -> Output:
    """Shape bias: the share of cue-conflict images, decided by shape or texture, that are decided by shape.

    Args:
        study: a classifier of images whose classes have names.
        conflicts: folder of images with one class's shape and another's texture, with names like cat4-elephant2.png.

    Raises:
        AnalysisError: the folder holds no such images.
        UnsuitableModelError: the model is not a classifier of images, or its classes have no names.
    """
    study.require_classifier()
    shape, names = study.require_images().shape[1:], study.samples.class_names
    if not names:
        raise UnsuitableModelError(f"the classes of {study.name} have no names: give data that name them")
    images = read_conflicts(Path(conflicts), names, shape, study.pixel_space)
    bias = shape_bias(study.model, images.images, images.shapes, images.textures, mapping=images.mapping)

    def pictures() -> Iterator[Page]:
        yield shape_bias_plot(
            "robustness/shape_bias",
            bias.class_bias[None].numpy(),
            [bias.bias],
            names=bias.names,
            models=[study.name],
            details=[f"{len(images.images)} cue conflicts", f"{percent(bias.decided)} % decided for either cue"],
        )

    classes = dict(zip(bias.names, bias.class_bias.tolist(), strict=True))
    numbers = {"bias": bias.bias, "decided": bias.decided, "conflicts": len(images.images), "classes": classes}
    rows = rows_of({"class": bias.names, "shape_bias": bias.class_bias.tolist()})
    found = f"{percent(bias.bias)} % of the {len(images.images)} cue conflicts decided for either cue, by shape"
    return Output("shape_bias", pictures(), numbers, {"shape_bias": rows}, found=found)


@costing(lambda facts: Cost(facts.conflicts, pages=1))
def biases(study: ModelUnderStudy) -> Iterator[Output]:
    """The shape bias of a classifier of images, if cue conflicts were given."""
    if study.conflicts is None:
        raise UnsuitableModelError("no cue conflicts were given: conflicts=, a folder of images")
    yield shape_or_texture(study, conflicts=str(study.conflicts))
