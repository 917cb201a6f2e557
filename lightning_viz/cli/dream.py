"""``lightning-viz dream``: images made by optimization."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.output import CommandResult
from lightning_viz.cli.function_options import Behind, Method, Written, parser_of, run_method
from lightning_viz.cli.parsing import DREAMT, WANTED, of_units, one_image
from lightning_viz.cli.samples import class_of, images_of, rows_of, said
from lightning_viz.dream.deep_dream import deep_dream
from lightning_viz.dream.fooling_images import fool
from lightning_viz.dream.inversion import invert
from lightning_viz.dream.maximize import maximize
from lightning_viz.dream.style_transfer import style_transfer
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.dreams import climb_curves, dream_animation, dream_table, dream_tiles
from lightning_viz.render.page import Page, Picture
from lightning_viz.render.text import number
from lightning_viz.render.tiles import confidence_text, to_rgb


def maximized(title: str, subject: ModelUnderStudy, arguments: Mapping[str, Any]) -> CommandResult:
    """What units or classes want to see.

    Args:
        title: of the pictures.
        subject: with the model.
        arguments: of `maximize`, by keyword.
    """
    dream = maximize(subject.model, **arguments)
    columns = {"value": dream.values.tolist(), "seed": list(dream.seeds)}
    words = [number(round(value, 2)) for value in columns["value"]]
    if subject.classifies:
        classes, confidences = (one.tolist() for one in said(subject, dream.inputs))
        columns |= {"class": classes, "confidence": confidences}
        names = map(subject.samples.name, classes)
        seen = zip(words, names, confidences, strict=True)
        words = [f"{word}; {name}, {confidence_text(share)}" for word, name, share in seen]

    def pictures() -> Iterator[Page | Picture]:
        yield dream_tiles(
            "dreams",
            _rgb(dream.pixels),
            title=title,
            names=dream.names,
            words=words,
            curves=dream.curve.cpu().numpy(),
            step=subject.step,
            details=[f"under it: how far it came{'; what the model says' * subject.classifies}"],
        )
        yield from _animated(dream.frames, dream.frame_steps, title, dream.names)

    rows = [
        {"of": name, **{column: values[place] for column, values in columns.items()}}
        for place, name in enumerate(dream.names)
    ]
    arrays = {"pixels": dream.pixels, "inputs": dream.inputs}
    return CommandResult(pictures(), {"curve": dream.curve}, {"dreams": rows}, {"images": arrays})


def inverted(subject: ModelUnderStudy, arguments: Mapping[str, Any]) -> CommandResult:
    """What layers still know of the samples.

    Args:
        subject: with model and samples.
        arguments: of `invert`, by keyword, with several layers.
    """
    images, layers = images_of(subject), arguments["layer"]
    options = {name: value for name, value in arguments.items() if name != "layer"}
    found = {layer: invert(subject.model, images, layer, **options) for layer in layers}
    errors = {
        layer: {
            "pixel_errors": one.pixel_errors,
            "feature_errors": one.feature_errors,
            "diversity": one.diversity,
            "weights": one.weights,
            "sigma": one.sigma,
        }
        for layer, one in found.items()
    }

    def pictures() -> Iterator[Page | Picture]:
        shown = images[:8]
        rows = [subject.rgb(shown), *(_rgb(one.pixels[: len(shown), 0]) for one in found.values())]
        words = [[f"{100 * each:.0f} %" for each in one.pixel_errors.mean(1)[: len(shown)]] for one in found.values()]
        yield dream_table(
            "inversion",
            np.stack(rows),
            title="What each layer still knows of an image",
            rows=["the image", *found],
            words=[[""] * len(shown), *words],
            details=["images that the layer answers as it does the first row", "under each: distance, of its norm"],
        )
        for layer, one in found.items():
            names = [f"sample {place // one.pixel_errors.shape[1]}" for place in range(len(one.dream.names))]
            yield from _animated(one.dream.frames, one.dream.frame_steps, f"What {layer} still knows", names, layer)

    columns = {
        f"{what}/{layer}": getattr(one, f"{what}s").mean(1)
        for layer, one in found.items()
        for what in ("pixel_error", "feature_error")
    }
    arrays = {layer: one.pixels for layer, one in found.items()}
    return CommandResult(pictures(), {"layers": errors}, {"samples": rows_of(subject, columns)}, {"images": arrays})


def deeply(subject: ModelUnderStudy, arguments: Mapping[str, Any]) -> CommandResult:
    """The samples with more of what a layer sees in them.

    Args:
        subject: with model and samples.
        arguments: of `deep_dream`, by keyword.
    """
    images = images_of(subject)
    dream = deep_dream(subject.model, images, **arguments)
    title = f"DeepDream of {dream.name}"
    octaves = [vars(one) for one in dream.octaves]

    def pictures() -> Iterator[Page | Picture]:
        table = np.stack([subject.rgb(images[:4]), _rgb(dream.pixels[:4])])
        yield dream_table(
            "deep_dream", table, title=title, rows=["image", "dream"], details=[f"{len(octaves)} octaves"]
        )
        names = [f"sample {place}" for place in range(len(images))]
        yield from _animated(dream.frames, dream.frame_steps, title, names)

    return CommandResult(pictures(), {"of": dream.name, "octaves": octaves}, {}, {"images": {"pixels": dream.pixels}})


def styled(subject: ModelUnderStudy, arguments: Mapping[str, Any]) -> CommandResult:
    """The content of one image in the style of another.

    Args:
        subject: with the model.
        arguments: of `style_transfer`, by keyword.
    """
    found = style_transfer(subject.model, **arguments)
    losses = {"content": found.content_loss, "style": found.style_loss}

    def pictures() -> Iterator[Page | Picture]:
        tiles = [subject.rgb(arguments["content"][None])[0], _rgb(found.pixels)[0]]
        title = "The content of one image in the style of another"
        yield dream_table("style", np.stack(tiles)[None], title=title, rows=[""], columns=["content", "in the style"])
        style = subject.rgb(arguments["style"][None])
        yield dream_tiles("style/given", style, title="The style", names=["the image whose style it is"])
        shares = np.stack([(loss / loss.max().clamp_min(1e-12)).cpu().numpy() for loss in losses.values()])
        yield climb_curves(
            "style/losses", shares, names=list(losses), title="Both losses", label="share of the largest"
        )
        yield from _animated(found.frames, found.frame_steps, title, ["the image"])

    weights = {"content_weight": found.content_weight, "style_weight": found.style_weight}
    numbers = {**weights, **{f"{name}_loss": loss for name, loss in losses.items()}}
    return CommandResult(pictures(), numbers, {}, {"images": {"pixels": found.pixels}})


def fooled(subject: ModelUnderStudy, arguments: Mapping[str, Any]) -> CommandResult:
    """Images that the model is sure of.

    Args:
        subject: with the model.
        arguments: of `fool`, by keyword.
    """
    found = fool(subject.model, tuple(images_of(subject).shape[1:]), **arguments)
    names = [subject.samples.name(one) for one in found.classes]
    confidences = found.curve[-1].tolist()
    title = "Images that the model is sure of, and nobody else"

    def pictures() -> Iterator[Page | Picture]:
        words = [confidence_text(share) for share in confidences]
        details = [f"evolved in {len(found.curve) - 1} generations", "under it: the model's confidence"]
        curves = found.curve.T.cpu().numpy()
        tiles = _rgb(found.pixels)
        yield dream_tiles("fooling", tiles, title=title, names=names, words=words, curves=curves, details=details)
        yield from _animated(found.frames, found.frame_steps, title, names)

    pairs = zip(found.classes, names, confidences, strict=True)
    rows = [{"class": one, "name": name, "confidence": share} for one, name, share in pairs]
    numbers = {"curve": found.curve, "evaluations": found.evaluations}
    return CommandResult(
        pictures(), numbers, {"classes": rows}, {"images": {"pixels": found.pixels, "inputs": found.inputs}}
    )


def _rgb(pixels: Tensor) -> Any:
    return to_rgb(pixels.detach().float().cpu().numpy())


def _animated(
    frames: Tensor, steps: Sequence[int], title: str, names: Sequence[str], tag: str = ""
) -> Iterator[Page | Picture]:
    """The way there, if it was kept."""
    if len(frames) > 1:
        shown = np.stack([_rgb(one.float() / 255) for one in frames])
        yield dream_animation(f"climb/{tag}".rstrip("/"), shown, steps, title=title, names=names)


_LAYERS = Written(str, "one layer or more, each its own row", name="layer", several=True)


def _pair(value: Sequence[float] | None, subject: ModelUnderStudy) -> tuple[float, float] | None:
    if value is not None and len(value) != 2:
        raise InvalidArgumentError("give two weights, of R_alpha and of R_V")
    return None if value is None else (value[0], value[1])


METHODS = {
    "classes": Method(
        (Behind(maximize, frozenset({"optimizer"}), WANTED),),
        partial(maximized, "What each class wants to see"),
        "What each class wants to see: maximize, with what makes images natural",
        example="--classes 0 1 2",
    ),
    "maximize": Method(
        (Behind(maximize, frozenset({"optimizer"}), DREAMT),),
        partial(maximized, "What units want to see"),
        example='--of "conv2[7]" 3',
    ),
    "invert": Method(
        (
            Behind(
                invert,
                frozenset({"image"}),
                {"layer": _LAYERS, "weights": Written(float, name="penalties", several=True, meant=_pair)},
            ),
        ),
        inverted,
        samples=4,
        example="--layer conv1 conv2",
    ),
    "deep_dream": Method(
        (
            Behind(
                deep_dream,
                frozenset({"photograph"}),
                {"layer": Written(str, "a layer, or a unit: 'conv2[7]', 3", meant=of_units)},
            ),
        ),
        deeply,
        samples=2,
        example="--layer conv2",
    ),
    "style_transfer": Method(
        (Behind(style_transfer, frozenset(), {"content": one_image("content"), "style": one_image("style")}),),
        styled,
        example="--content photo.jpg --style painting.jpg",
    ),
    "fool": Method(
        (
            Behind(
                fool,
                frozenset({"shape"}),
                {
                    "encoding": Written(Literal["direct", "cppn"]),
                    "classes": Written(
                        int | str,
                        "which to fool, by number or name; all if omitted",
                        several=True,
                        meant=lambda value, subject: value and [class_of(one, subject) for one in value],
                    ),
                },
            ),
        ),
        fooled,
    ),
}
"""By name."""


def parser() -> ArgumentParser:
    """Its arguments, by method."""
    return parser_of(
        "dream",
        "Make images by optimization: what a unit or a class wants to see, what a layer still knows.\n"
        "Each method has the options of the function behind it.",
        METHODS,
    )


def run(options: Namespace) -> None:
    """Dream.

    Args:
        options: parsed.
    """
    run_method("dream", METHODS, options)
