"""Images by optimization: dreams of units and classes, DeepDream, style transfer, fooling images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal

import numpy as np
import torch
import yaml

from lightning_viz.analysis.model_under_study import ModelUnderStudy, to_display
from lightning_viz.analysis.results import Output, rows_of
from lightning_viz.analysis.studies.dreamed_units import seen_by_units, unit_pages
from lightning_viz.callbacks.dream_units import Unit, named_units
from lightning_viz.costs import PASSES, Cost, Facts, costing
from lightning_viz.dream.deep_dream import deep_dream
from lightning_viz.dream.fooling_images import fool
from lightning_viz.dream.maximize import Dream, maximize
from lightning_viz.dream.parametrization import Image, centered, cppn, fourier, maco, pixels
from lightning_viz.dream.regularization import YOSINSKI, Preset, edge_energy
from lightning_viz.dream.style_transfer import style_transfer
from lightning_viz.dream.transforms import standard
from lightning_viz.errors import InvalidArgumentError, LayerNotFoundError
from lightning_viz.hints import unknown_name
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.target_types import Target
from lightning_viz.hooks.targets import logit
from lightning_viz.render.dreams import climb_curves, dream_animation, dream_table, dream_tiles
from lightning_viz.render.page import Page, Picture
from lightning_viz.render.text import number as format_number
from lightning_viz.render.tiles import confidence_text

Settings = Mapping[str, float] | Sequence[str]
"""Values by name, or ``NAME=VALUE`` each."""

_COUNT = 10  # of channels or classes if no number is given
_NATURAL = 40.0  # weight of the edge energy at one pixel, at most: it is a sum over pixels, the logit is not
_SHARE = 0.03  # of what the logits gain without it, that the edge energy may cost
_TRIAL = 50  # updates without it
_MOST = 8  # samples on a page
_IMAGES: dict[str, Callable[..., Image]] = {"pixels": pixels, "fourier": fourier, "maco": maco, "cppn": cppn}


def dream_units(
    study: ModelUnderStudy,
    options: Mapping[str, Any] | None = None,
    *,
    objectives: Sequence[str],
    image: str | Sequence[str] = "pixels",
    priors: Settings = (),
    update_steps: Settings = (),
    jitter: int = 0,
) -> Output:
    """Activation maximization: images optimized to excite units, channels or classes.

    Args:
        study: the model and its samples.
        options: of `lightning_viz.dream.maximize`, by keyword.
        objectives: conv2[7] (a channel; its middle alone where a position sees less than the image), conv2 (its first
            ten), 3 or class:ox (a class), logits (the first ten).
        image: parametrization of the images, pixels, fourier, cppn or maco (phases alone, with
            the samples' mean spectrum), and its options: fourier decay=1.5.
        priors: penalties and their weights, NAME=WEIGHT: edge_energy, total_variation, l2, alpha_norm.
        update_steps: what follows each update: 'small norm', 'decay', 'blur' or 'contribution', or NAME=VALUE of decay,
            blur_width, blur_every, norm_percentile, contribution_percentile.
        jitter: pixels of random transformations before each pass; 0 for none.

    Raises:
        InvalidArgumentError: there is no such unit, prior or parametrization.
    """
    arguments = {**_arguments(study, image, priors, update_steps, jitter), **(options or {})}
    units = _units(study, objectives)
    seen = seen_by_units(study, units)
    less = [layer for layer, of_layer in seen.items() if of_layer.less]
    targets = [unit.target_in_the_middle if unit.layer in less else unit.target for unit in units]
    dream = maximize(study.model, targets, **arguments)
    names = [unit.target.name for unit in units for _ in range(len(dream.values) // len(units))]
    columns = {"value": dream.values.tolist(), "seed": list(dream.seeds)}
    words = [format_number(round(value, 2)) for value in columns["value"]]
    details = ["under it: the objective"]
    if study.classifies:
        confidences, classes = (part.tolist() for part in study.probabilities(dream.inputs).max(1))
        columns |= {"class": classes, "confidence": confidences}
        predictions = map(study.samples.name, classes)
        rows = zip(words, predictions, confidences, strict=True)
        words = [f"{word}; {name}, {confidence_text(confidence)}" for word, name, confidence in rows]
        details = ["under it: the objective; the prediction"]
    pages = unit_pages(dream, units, seen, words, details)
    values = ", ".join(
        f"{name} {format_number(round(value, 2))}" for name, value in zip(names, dream.values.tolist(), strict=True)
    )
    return _output(study, dream, names, pages, columns, found=f"the objectives reached: {values}")


def dream_classes(
    study: ModelUnderStudy,
    options: Mapping[str, Any] | None = None,
    *,
    classes: Sequence[int | str] | None = None,
    image: str | Sequence[str] = ("fourier", "decay=1.5"),
    bounded: bool = True,
    priors: Settings | None = None,
    update_steps: Settings = (),
    jitter: int | None = None,
) -> Output:
    """Activation maximization of classes: images that raise a class's logit, under priors that keep them natural.

    Args:
        study: a classifier of images and its samples.
        options: of `lightning_viz.dream.maximize`, by keyword.
        classes: 3 or class:ox each; the first ten if omitted.
        image: parametrization of the images, pixels, fourier, cppn or maco (phases alone, with
            the samples' mean spectrum), and its options: fourier decay=1.5.
        bounded: keep pixels within their range, by a sigmoid.
        priors: penalties and their weights, NAME=WEIGHT: edge_energy, total_variation, l2, alpha_norm; edge_energy with
            40 / (height x width), or less where the logits gain little, if omitted.
        update_steps: what follows each update: 'small norm', 'decay', 'blur' or 'contribution', or NAME=VALUE of decay,
            blur_width, blur_every, norm_percentile, contribution_percentile.
        jitter: pixels of random transformations before each pass, 0 for none; a fourteenth of the side, but at least
            1, if omitted.

    Raises:
        UnsuitableModelError: the model is not a classifier of images.
        InvalidArgumentError: there is no such class, prior or parametrization.
    """
    study.predictions()
    count = min(_COUNT, study.classes)
    chosen = list(range(count)) if classes is None else [study.class_index(word) for word in classes]
    height, width = study.require_images().shape[2:]
    moved = max(1, min(height, width) // 14) if jitter is None else jitter
    arguments = {**_arguments(study, image, priors or (), update_steps, moved), "bounded": bounded, **(options or {})}
    targets = [logit(index) for index in chosen]
    if priors is None and min(height, width) > 5:
        arguments["priors"] = {edge_energy: _natural_weight(study, targets, arguments)}
    dream = maximize(study.model, targets, **arguments)
    copies = len(dream.values) // len(chosen)
    indices = torch.tensor(chosen).repeat_interleave(copies)
    probabilities = study.probabilities(dream.inputs).cpu()
    confidences, reached = probabilities.gather(1, indices[:, None])[:, 0], probabilities.argmax(1) == indices
    names = [study.samples.name(index) for index in indices.tolist()]
    pairs = zip(dream.values.tolist(), confidences.tolist(), strict=True)
    words = [f"{format_number(round(value, 1))}, {percentage(confidence)}" for value, confidence in pairs]
    columns = {"value": dream.values.tolist(), "seed": list(dream.seeds), "confidence": confidences.tolist()}
    columns["reached"] = reached.tolist()
    numbers = {"classes": names, "logits": dream.values, "confidences": confidences, "reached": reached}
    page: dict[str, Any] = {"tag": "dreams/classes", "title": "Images that maximize classes", "words": words}
    page |= {"places": list(range(len(names))), "reached": reached.tolist()}
    page |= {"details": ["under it: its logit and confidence"]}
    missed = ", ".join(dict.fromkeys(name for name, each in zip(names, reached.tolist(), strict=True) if not each))
    found = f"{int(reached.sum())} of {len(names)} images are taken for their class" + f"; not {missed}" * bool(missed)
    return _output(study, dream, names, [page], columns, numbers, found)


def _natural_weight(study: ModelUnderStudy, targets: list[Target], arguments: Mapping[str, Any]) -> float:
    """Weight of the edge energy: what is usual, but no more than a share of what the logits gain without it."""
    free = maximize(study.model, targets, **{**arguments, "steps": _TRIAL, "copies": 1, "frames": 0})
    energy = edge_energy(free.pixels - free.pixels.mean((1, 2, 3), keepdim=True))
    gain = (free.curve[:, -1] - free.curve[:, 0]).to(energy)
    height, width = free.pixels.shape[2:]
    usual = _NATURAL / (height * width)
    found = float((_SHARE * gain / energy.clamp_min(1e-12)).median())
    return min(usual, found) if found > 0 else usual


def deep_dream_of(study: ModelUnderStudy, options: Mapping[str, Any] | None = None, *, layer: str) -> Output:
    """DeepDream: amplifies in the samples what a layer detects in them.

    Args:
        study: the model and its samples.
        options: of `lightning_viz.dream.deep_dream`, by keyword.
        layer: a layer, or a unit: conv2[7], 3 or class:ox.

    Raises:
        InvalidArgumentError: there is neither.
    """
    images = study.require_images()
    target: str | Target = layer
    try:
        select_layers(study.model, layer)
    except LayerNotFoundError:
        target = _units(study, [layer])[0].target
    dream = deep_dream(study.model, images, target, **study.settings(deep_dream), **(options or {}))
    title, octaves = f"DeepDream of {dream.name}", [vars(octave) for octave in dream.octaves]

    def pictures() -> Iterator[Page | Picture]:
        table = np.stack([study.rgb(images[:4]), to_display(dream.pixels[:4])])
        details = [f"{len(octaves)} octaves"]
        yield dream_table("deep_dream", table, title=title, rows=["image", "dream"], details=details)
        yield from animation(dream, title, [f"sample {place}" for place in range(len(images))])

    numbers = {"of": dream.name, "octaves": octaves}
    before, after = (float(getattr(dream.octaves[-1], when).mean()) for when in ("before", "after"))
    found = (
        f"{dream.name} of {len(images)} samples: {format_number(before)} to {format_number(after)} in the last octave"
    )
    return Output("deep_dream", pictures(), numbers, arrays={"images": {"pixels": dream.pixels}}, found=found)


def transfer_style(
    study: ModelUnderStudy, options: Mapping[str, Any] | None = None, *, content: str, style: str
) -> Output:
    """Style transfer: the content of one image in the style of another.

    Args:
        study: the model and its samples.
        options: of `lightning_viz.dream.style_transfer`, by keyword.
        content: the content: an image file, scaled to the shorter side of the samples, or the number of a sample.
        style: the style: an image file, scaled to the shorter side of the samples, or the number of a sample.

    Raises:
        InvalidArgumentError: there is no such image.
    """
    images: dict[str, Any] = {"content": study.image(content), "style": study.image(style)}
    result = style_transfer(study.model, **images, **study.settings(style_transfer), **(options or {}))
    losses = {"content": result.content_loss, "style": result.style_loss}

    def pictures() -> Iterator[Page | Picture]:
        tiles = np.stack([study.rgb(images["content"][None])[0], to_display(result.pixels)[0]])[None]
        title = "The content of one image in the style of another"
        yield dream_table("style", tiles, title=title, rows=[""], columns=["content", "in the style"])
        given = study.rgb(images["style"][None])
        yield dream_tiles("style/given", given, title="The style", names=["the image that gives the style"])
        shares = np.stack([(loss / loss.max().clamp_min(1e-12)).cpu().numpy() for loss in losses.values()])
        yield climb_curves(
            "style/losses", shares, names=list(losses), title="Both losses", label="share of the largest"
        )
        yield from animation(result, title, ["the image"])

    numbers: dict[str, Any] = {"content_weight": result.content_weight, "style_weight": result.style_weight}
    numbers |= {f"{name}_loss": loss for name, loss in losses.items()}
    fell = [
        f"{name} {percentage(float(loss[-1] / loss.max().clamp_min(1e-12)), '{:.0%}')}" for name, loss in losses.items()
    ]
    found = f"losses at the end, of their largest: {', '.join(fell)}"
    return Output("style_transfer", pictures(), numbers, arrays={"images": {"pixels": result.pixels}}, found=found)


def fooling_images(
    study: ModelUnderStudy,
    options: Mapping[str, Any] | None = None,
    *,
    classes: Sequence[int | str] | None = None,
    encoding: Literal["direct", "cppn"] = "direct",
) -> Output:
    """Fooling images: images that mean nothing to people, evolved until the model is confident of a class.

    Args:
        study: a classifier of images and its samples.
        options: of `lightning_viz.dream.fool`, by keyword.
        classes: 3 or class:ox each; all if omitted.
        encoding: of the images: pixel by pixel, or by a compositional pattern-producing network.

    Raises:
        UnsuitableModelError: the model is not a classifier of images.
        InvalidArgumentError: there is no such class.
    """
    study.predictions()
    chosen = None if classes is None else [study.class_index(word) for word in classes]
    settings, shape = {**study.settings(fool), **(options or {})}, study.require_images().shape[1:]
    result = fool(study.model, shape, classes=chosen, encoding=encoding, **settings)
    names = [study.samples.name(index) for index in result.classes]
    confidences, title = result.curve[-1].tolist(), "Images that fool the model"

    def pictures() -> Iterator[Page | Picture]:
        yield dream_tiles(
            "fooling",
            to_display(result.pixels),
            title=title,
            names=names,
            words=[confidence_text(confidence) for confidence in confidences],
            curves=result.curve.T.cpu().numpy(),
            details=[f"evolved in {len(result.curve) - 1} generations", "under it: the model's confidence"],
        )
        yield from animation(result, title, names)

    rows = rows_of({"class": result.classes, "name": names, "confidence": confidences})
    numbers = {"curve": result.curve, "evaluations": result.evaluations}
    arrays = {"images": {"pixels": result.pixels, "inputs": result.inputs}}
    sure = sum(confidence >= 0.5 for confidence in confidences)
    found = f"{sure} of {len(names)} classes: the model is surer than 50 % of an image that means nothing"
    return Output("fooling_images", pictures(), numbers, {"classes": rows}, arrays, found)


def _dreams_cost(facts: Facts, *, classes: int, steps: int) -> Cost:
    return Cost(PASSES * min(classes, facts.classes) * (_TRIAL + steps), pages=2)


@costing(_dreams_cost)
def dreams(study: ModelUnderStudy, *, classes: int = _COUNT, steps: int = 250) -> Iterator[Output]:
    """Images that maximize the classes that are most frequent among the samples, as an analysis shows them."""
    few = study.first(_MOST)
    few.predictions()
    predicted = study.predictions()[0] if study.labels is None else study.labels
    found = torch.bincount(predicted[(predicted >= 0) & (predicted < study.classes)].cpu(), minlength=study.classes)
    chosen = sorted(found.argsort(descending=True, stable=True)[:classes].tolist())
    yield dream_classes(few, {"steps": steps, "frames": 0}, classes=chosen)


def _output(
    study: ModelUnderStudy,
    dream: Dream,
    names: Sequence[str],
    pages: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Sequence[Any]],
    numbers: Mapping[str, Any] | None = None,
    found: str = "",
) -> Output:
    """Dreams, a tile each, with their curves and the animation; a page holds those at its places."""

    def pictures() -> Iterator[Page | Picture]:
        curves = dream.curve.cpu().numpy()
        for page in pages:
            places = page["places"]
            shown: dict[str, Any] = {"images": to_display(dream.pixels[places]), "step": study.step, **page}
            del shown["places"]
            yield dream_tiles(names=[names[place] for place in places], curves=curves[places], **shown)
        yield from animation(dream, pages[0]["title"], names)

    rows = rows_of({"of": names, **columns})
    arrays = {"images": {"pixels": dream.pixels, "inputs": dream.inputs}, "curve": {"curve": dream.curve}}
    return Output("dreams", pictures(), numbers or {}, {"dreams": rows}, arrays, found)


def animation(result: Any, title: str, names: Sequence[str], tag: str = "") -> Iterator[Page | Picture]:
    """The frames of an optimization, if they were kept.

    Args:
        result: of a function of `lightning_viz.dream`.
        title: of the picture.
        names: of the images.
        tag: end of the picture's tag.
    """
    if len(result.frames) > 1:
        frames = np.stack([to_display(frame.float() / 255) for frame in result.frames])
        yield dream_animation(f"climb/{tag}".rstrip("/"), frames, result.frame_steps, title=title, names=names)


def _arguments(
    study: ModelUnderStudy, image: str | Sequence[str], priors: Settings, update_steps: Settings, jitter: int
) -> dict[str, Any]:
    """Of `maximize`, from words."""
    return {
        "image": _image(image, study),
        "priors": _settings(priors),
        "update_steps": _update_steps(update_steps),
        "transforms": standard(jitter) if jitter else [],
        **study.settings(maximize),
    }


def _units(study: ModelUnderStudy, words: Sequence[str]) -> list[Unit]:
    """Units of words; a layer, or all logits, stand for their first ten."""
    classes, names = study.classes, study.samples.class_names
    return [unit for text in words for unit in named_units(study.model, text, _COUNT, classes, names)]


def _image(words: str | Sequence[str], study: ModelUnderStudy) -> Image:
    """A parametrization and its options."""
    name, *options = [words] if isinstance(words, str) else words
    _check_names("parametrization", [name], list(_IMAGES))
    images = study.require_images()
    arguments = _settings(options)
    if name == "maco":
        arguments["images"] = centered(images, study.pixel_space, "the samples")
    try:
        return _IMAGES[name](images.shape[1:], **arguments)
    except TypeError as error:
        raise InvalidArgumentError(f"image={name!r}: {error}") from error


def _update_steps(settings: Settings) -> Any:
    """Regularization after each update: the name of a preset, or its fields."""
    if not settings:
        return ()
    words = list(settings)
    if len(words) == 1 and isinstance(settings, Sequence) and "=" not in words[0]:
        _check_names("preset", words, list(YOSINSKI))
        return words[0]
    values = _settings(settings)
    _check_names("setting", values, [field.name for field in fields(Preset)])
    whole = ("blur_every", "iterations")
    arguments: dict[str, Any] = {name: int(value) if name in whole else value for name, value in values.items()}
    return Preset(**arguments)


def _settings(settings: Settings) -> dict[Any, Any]:
    """Values by name, of ``NAME=VALUE`` each."""
    if isinstance(settings, Mapping):
        return dict(settings)
    values = {}
    for text in settings:
        name, _, value = text.partition("=")
        values[name] = yaml.safe_load(value) if value else None
        if isinstance(values[name], bool) or not isinstance(values[name], (int, float)):
            raise InvalidArgumentError(f"{text!r} is not NAME=NUMBER")
    return values


def _check_names(what: str, names: Sequence[str] | Mapping[str, Any], known: Sequence[str]) -> None:
    if message := unknown_name(what, names, known):
        raise InvalidArgumentError(message)


def percentage(share: float, form: str = "") -> str:
    """A share in words; a dash if it is not finite.

    Args:
        share: from 0 to 1.
        form: of a format string; that of confidences if empty.
    """
    if not np.isfinite(share):
        return "–"
    return form.format(share).replace("%", " %") if form else confidence_text(share)
