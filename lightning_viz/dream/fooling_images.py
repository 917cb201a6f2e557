"""Images that a network is sure of and a person sees nothing in (Nguyen, Yosinski and Clune, 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.dream.genomes import ENCODINGS, Encoding, Genomes
from lightning_viz.dream.maximize import filmed
from lightning_viz.dream.parametrization import as_bytes, image_shape
from lightning_viz.errors import DreamWarning, InvalidArgumentError, by_name
from lightning_viz.hooks.model_state import warn_if_training
from lightning_viz.hooks.observe import Forward, Passes, image_size_errors, passes
from lightning_viz.hooks.outputs import class_logits
from lightning_viz.host_copies import to_device
from lightning_viz.pixels import PixelSpace
from lightning_viz.rich_display import html_display

__all__ = ["FoolingImages", "fool"]

_SURE = 0.9999


@html_display("classes", "confidences", "reached", "evaluations", images=("pixels",))
@dataclass(frozen=True)
class FoolingImages:
    """Of each class the image that the model is surest of.

    Attributes:
        classes: K of them.
        pixels: what to look at, ``[K, C, H, W]`` in [0, 1].
        inputs: the same as the model takes them.
        pixel_space: how the inputs map to pixels.
        curve: the best softmax probability after each generation, the random one first, ``[generations + 1, K]``.
        evaluations: how many images the model was shown.
        frames: pixels in 0 to 255 on the way, the last among them, ``[F, K, C, H, W]``.
        frame_steps: generations by then.
        genomes: of the images; an `EvolvedCPPN` draws them at any size.
    """

    classes: tuple[int, ...]
    pixels: Tensor
    inputs: Tensor
    pixel_space: PixelSpace
    curve: Tensor
    evaluations: int
    frames: Tensor
    frame_steps: tuple[int, ...]
    genomes: Genomes

    @property
    def confidences(self) -> Tensor:
        """Softmax probability of its class for each image, ``[K]``, in float64: 0.9999999 is not 1."""
        return self.curve[-1]

    @property
    def reached(self) -> tuple[int | None, ...]:
        """For each class the first generation above 99.99 %, 0 for the random one; None where none was."""
        above = self.curve > _SURE
        return tuple(int(column.int().argmax()) if column.any() else None for column in above.T)


def fool(
    model: nn.Module,
    shape: Sequence[int],
    *,
    encoding: str | Encoding = "direct",
    classes: Sequence[int] | None = None,
    population: int = 200,
    generations: int = 200,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    frames: int = 30,
    progress: bool = True,
    forward: Forward | None = None,
) -> FoolingImages:
    r"""Images that a model is sure of, by evolution alone (Nguyen et al., 2015).

    MAP-Elites over all classes at once: every class keeps the image that it is surest of. A generation mutates
    `population` of them, drawn with replacement, and shows the children to the model; a child takes over each class c
    for which

    .. math:: \log p_c(\text{child}) > \log p_c(\text{elite}_c)

    No gradient is computed, one look serves all generations, and the model is left as found.

    Args:
        model: any classifier of two or more classes; it runs in eval mode.
        shape: channels, rows and columns of the images.
        encoding: "direct" (pixels), "cppn" (patterns), or an `Encoding`.
        classes: which to fool; all if omitted. The softmax goes over all of them either way.
        population: children of a generation (200, the paper's).
        generations: after the random one.
        pixel_space: how the model's inputs map to pixels; inputs are pixels in [0, 1] if omitted.
        seed: of everything random.
        batch_size: images shown at a time; all children if omitted.
        frames: how many states on the way to keep, evenly in log steps.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, images)``, if not ``model(images)``.

    Raises:
        ValueError: no such encoding or class, images that the model cannot take, or an option that makes no sense.
        TypeError: the model returns no scores ``[N, classes]``: give `forward`.
    """
    kind, rng = by_name(ENCODINGS, encoding, "encoding"), np.random.default_rng(seed)
    pixel_space = pixel_space or PixelSpace()
    _check(shape, population, generations, batch_size)
    warn_if_training(model, DreamWarning)

    def draw(genomes: Genomes) -> Tensor:
        return to_device(torch.from_numpy(kind.draw(genomes, shape)), run.like.device, run.like.dtype)

    with passes(model, forward=forward, seed=seed) as run, torch.no_grad():
        certainty = partial(_certainty, run, draw, pixel_space, batch_size or population)
        children = kind.random(population, shape, rng)
        scores = certainty(children)
        indices = _class_indices(classes, scores.shape[1])
        elites, best = children[scores[:, indices].argmax(0)], scores[:, indices].max(0)
        if not np.isfinite(best).all():
            raise InvalidArgumentError("the model returns NaN or infinity for random images: nothing to compare")
        curve = [best]
        film: dict[int, Tensor] = {}
        for number in filmed(lambda: as_bytes(draw(elites)), film, "fool", generations, frames, progress):
            children = kind.mutate(elites[rng.integers(len(elites), size=population)], number + 1, rng)
            scores = certainty(children)[:, indices]
            better = scores.max(0) > best
            elites[better] = children[scores.argmax(0)[better]]
            best = np.where(better, scores.max(0), best)
            curve.append(best)
        pixels = draw(elites)
        return FoolingImages(
            classes=tuple(indices),
            pixels=pixels,
            inputs=_inputs(pixels, pixel_space),
            pixel_space=pixel_space,
            curve=torch.from_numpy(np.exp(np.stack(curve))),
            evaluations=population * (generations + 1),
            frames=torch.stack(list(film.values())),
            frame_steps=tuple(film),
            genomes=elites,
        )


def _certainty(
    run: Passes, draw: Callable[[Genomes], Tensor], pixel_space: PixelSpace, batch_size: int, genomes: Genomes
) -> NDArray[np.float64]:
    """How sure the model is of every class, log softmax ``[n, classes]``; NaN counts as not at all.

    In float64, where 0.9999 and 0.99999 are far apart and so is what lies beyond.
    """
    parts = []
    for start in range(0, len(genomes), batch_size):
        images = draw(genomes[start : start + batch_size])
        with image_size_errors(images.shape[1:]):
            outputs, meaning = run(_inputs(images, pixel_space)).scores()
        if meaning.kind in ("regression", "tokens", "images"):
            raise InvalidArgumentError(f"the model returns {list(outputs.shape)}, no scores of classes: give forward=")
        scores = class_logits(outputs, meaning)
        if scores.dim() != 2 or len(scores) != len(images) or scores.shape[1] < 2:
            what = f"the model returns scores {list(scores.shape)} for {len(images)} images"
            raise InvalidArgumentError(f"{what}: fooling needs two classes or more, one row for each image")
        parts.append(scores)
    certain: NDArray[np.float64] = torch.cat(parts).cpu().double().log_softmax(1).numpy()
    return np.nan_to_num(certain, copy=False, nan=-np.inf)


def _inputs(pixels: Tensor, pixel_space: PixelSpace) -> Tensor:
    """What the model takes for pixels in [0, 1]."""
    low, high = pixel_space.bounds
    return pixel_space.to_inputs(low + (high - low) * pixels)


def _class_indices(classes: Sequence[int] | None, count: int) -> list[int]:
    indices = list(range(count)) if classes is None else list(classes)
    if not indices or any(not 0 <= index < count for index in indices):
        raise InvalidArgumentError(f"classes={indices}: the model has {count}, give some of 0 to {count - 1}")
    return indices


def _check(shape: Sequence[int], population: int, generations: int, batch_size: int | None) -> None:
    image_shape(shape)
    if population < 1 or generations < 0 or (batch_size is not None and batch_size < 1):
        what = f"population={population}, generations={generations}, batch_size={batch_size}"
        raise InvalidArgumentError(f"{what}: give 1 child or more, 0 generations or more, 1 image or more at a time")
