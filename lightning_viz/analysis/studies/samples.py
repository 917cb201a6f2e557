"""Samples of a study: what techniques require of them, how many they can afford, and rows of tables."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.functional import pil_to_tensor, resize

from lightning_viz.analysis.data import read_image
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.errors import AnalysisError, InvalidArgumentError, UnsuitableModelError, ViewError
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.observe import call_model
from lightning_viz.hooks.pytree import device_of, first_tensor
from lightning_viz.pixels import PixelSpace, clamp_inputs
from lightning_viz.render.tiles import to_rgb

_AFFORDED = 1e13  # floating-point operations of one technique: a minute or two of two cores
_LEAST = 5e6  # of a pass: below that the time goes to calling operations
_BATCH = 64
_BATCH_VALUES = 2**21  # of a batch's input: 13 images of 3 x 224 x 224
_SLACK = 0.02  # of the pixels' range: by how much augmentation may leave it


def images_of(study: ModelUnderStudy) -> Tensor:
    """The samples' images ``[N, C, H, W]`` on the model's device.

    Args:
        study: the model and its samples.

    Raises:
        UnsuitableModelError: the model takes no image, or other inputs as well.
    """
    if study.images is None:
        raise UnsuitableModelError(f"{study.name} does not take one image [N, C, H, W] alone, as this requires")
    return study.images.to(device_of(study.model))


def require_classifier(study: ModelUnderStudy) -> None:
    """Require a model that classifies images.

    Args:
        study: the model and its samples.

    Raises:
        UnsuitableModelError: it does not.
    """
    if not study.classifies:
        raise UnsuitableModelError(f"{study.name} is not a classifier of images, as this requires")


def predictions(study: ModelUnderStudy) -> tuple[Tensor, Tensor]:
    """The predicted class of each sample and the confidence in it, ``[N]`` each, on the CPU.

    Args:
        study: a classifier and its samples.

    Raises:
        UnsuitableModelError: the model is not a classifier of images.
        AnalysisError: the model returns NaN or infinity.
    """
    require_classifier(study)
    outputs = study.outputs(len(study.samples))
    assert outputs is not None
    lost = int((~outputs.isfinite().all(1)).sum())
    if lost:
        raise AnalysisError(
            f"the model returns NaN or infinity for {lost} of {len(outputs)} samples: look for NaN in its weights, or "
            "give an earlier checkpoint"
        )
    confidences, classes = outputs.float().softmax(1).max(1)
    return classes, confidences


def probabilities(study: ModelUnderStudy, inputs: Tensor) -> Tensor:
    """The probability of each class, ``[n, K]``, on the CPU.

    Args:
        study: a classifier.
        inputs: as it takes them.
    """
    with evaluation_mode(study.model), torch.no_grad():
        scores = first_tensor(call_model(study.model, inputs))
    assert scores is not None
    return scores.float().softmax(1).cpu()


def predict(study: ModelUnderStudy, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The predicted class of each input and the confidence in it, ``[n]`` each, on the CPU.

    Args:
        study: a classifier.
        inputs: as it takes them.
    """
    confidences, classes = probabilities(study, inputs).max(1)
    return classes, confidences


def bounded_images(study: ModelUnderStudy) -> Tensor:
    """The images of a classifier, clamped to the range of pixels, from which augmentation may have moved them a little.

    Args:
        study: a classifier and its samples.

    Raises:
        UnsuitableModelError: the model is not a classifier of images, or the images lie outside that range.
        AnalysisError: the model returns NaN or infinity.
    """
    predictions(study)
    try:
        return clamp_inputs(images_of(study), study.pixel_space, _SLACK)
    except ViewError as error:
        raise UnsuitableModelError(
            f"{study.name}: {error} (on the command line --pixel_space.mean and --pixel_space.std)"
        ) from error


def true_classes(study: ModelUnderStudy) -> Tensor:
    """The samples' classes ``[N]``, as the data have them, on the model's device.

    Args:
        study: the model and its samples.

    Raises:
        UnsuitableModelError: they are not known.
    """
    if study.labels is None:
        raise UnsuitableModelError("the samples' true classes are not known: give data with labels")
    return study.labels.to(device_of(study.model))


def classes_of(study: ModelUnderStudy) -> Tensor:
    """The samples' true classes ``[N]``, or the predicted ones if these are not known, on the model's device.

    Args:
        study: a classifier and its samples.
    """
    return true_classes(study) if study.labels is not None else predictions(study)[0].to(device_of(study.model))


def class_index(study: ModelUnderStudy, text: int | str) -> int:
    """The number of a class.

    Args:
        study: the model and its samples, whose data name the classes.
        text: its number, ``3``, or its name, ``class:ox``.

    Raises:
        InvalidArgumentError: there is no such class.
    """
    word = str(text)
    if word.isdecimal():
        return int(word)
    names = list(study.samples.class_names)
    name = word.removeprefix("class:")
    if name in names:
        return names.index(name)
    known = ", ".join(map(repr, names[:8])) or "none"
    raise InvalidArgumentError(f"{word!r} is no class: give '3' or 'class:ox', of {known}{', ...' * (len(names) > 8)}")


def image_named(study: ModelUnderStudy, text: str) -> Tensor:
    """An image as the model takes it ``[C, H, W]``.

    Args:
        study: the model and its samples.
        text: an image file, scaled to the shorter side of the samples, or the number of a sample.

    Raises:
        InvalidArgumentError: there is no such sample, or the file is not an image.
    """
    images = images_of(study)
    if text.isdecimal():
        if int(text) >= len(images):
            raise InvalidArgumentError(f"there is no sample {text}: {len(images)} samples are numbered from 0")
        return images[int(text)]
    channels, *sides = images.shape[1:]
    image = pil_to_tensor(read_image(Path(text)).convert("L" if channels == 1 else "RGB"))
    scaled = resize(image, min(sides), antialias=True)[None].float() / 255
    return study.pixel_space.to_inputs(scaled.to(images))[0]


def to_display(pixels: Tensor, pixel_space: PixelSpace | None = None) -> Any:
    """Pixels ``[N, C, H, W]`` as pages take them, uint8 ``[N, H, W, 3]``.

    Args:
        pixels: from 0 to 1, or within the bounds of a space.
        pixel_space: that has the bounds.
    """
    low, high = (0.0, 1.0) if pixel_space is None else pixel_space.bounds
    return to_rgb(((pixels.detach() - low) / (high - low)).float().cpu().numpy())


def sample_rows(study: ModelUnderStudy, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table with a row for each sample: its number in the data set, its true class, and what was measured.

    Args:
        study: the model and its samples.
        columns: by name, a value for each sample ``[N]``.
    """
    count = len(next(iter(columns.values())))
    first = {
        "sample": list(study.samples.indices or range(count))[:count],
        "truth": [None] * count if study.labels is None else study.labels[:count].tolist(),
    }
    values = {**first, **{name: column.tolist() for name, column in columns.items()}}
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def affordable(study: ModelUnderStudy, passes: float, *, most: int, least: int) -> int:
    """How many samples, updates or copies a technique can afford, which depends on the model and not on the machine.

    Args:
        study: the model and its samples.
        passes: forwards of one sample that each of them takes; a backward counts as two.
        most: for small models.
        least: for large ones.
    """
    image = images_of(study)[:1]
    with warnings.catch_warnings(), evaluation_mode(study.model), torch.no_grad():
        warnings.simplefilter("ignore", UserWarning)  # of compiled modules: their hooks fire twice, which is harmless
        with FlopCounterMode(display=False) as counter:
            call_model(study.model, image)
    return max(least, min(most, int(_AFFORDED / (passes * max(_LEAST, counter.get_total_flops())))))


def batch_size_for(images: Tensor, given: int | None = None) -> int:
    """The size of batches, such that results do not depend on how fast a machine is.

    Args:
        images: of which one or more make a batch.
        given: the size that is asked for.
    """
    return given or max(1, min(_BATCH, _BATCH_VALUES // images[0].numel()))
