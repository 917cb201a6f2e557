"""What a model wants to see, and what its layers still know of what it saw."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.studies.samples import affordable, number, numbers, taken
from lightning_viz.analysis.technique import Found
from lightning_viz.dream.inversion import Inversion, invert
from lightning_viz.dream.maximize import Dream, maximize
from lightning_viz.dream.parametrization import fourier
from lightning_viz.dream.regularization import alpha_norm, edge_energy, total_variation
from lightning_viz.dream.transforms import standard
from lightning_viz.errors import AnalysisError, DreamWarning, LayerNotReachedError
from lightning_viz.hooks.layers import named_layers, select_layers
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.observe import call_model
from lightning_viz.hooks.pytree import first_tensor
from lightning_viz.hooks.targets import logit
from lightning_viz.render.dreams import dream_table, dream_tiles
from lightning_viz.render.text import number as written
from lightning_viz.render.tiles import confidence_text, to_rgb

CLASSES = 10
LAYERS = 5
_NATURAL = 40.0  # weight of the edge energy at one pixel: it is a sum over pixels, the logit is not
_SHARES = (1e-3, 3e-3)  # what the originals' own R_alpha and R_V cost an inversion


def dreams(subject: ModelUnderStudy) -> Iterator[Found]:
    """What each class wants to see: images that raise its logit, the first ten classes (tag ``dreams/classes``).

    Args:
        subject: with a classifier of images.
    """
    dream, confidences = dreamt(subject)
    names = [subject.samples.name(one) for one in range(len(confidences))]
    yield "dreams", {"classes": names, "logits": numbers(dream.values), "confidences": numbers(confidences)}
    told = zip(dream.values.tolist(), confidences.tolist(), strict=True)
    words = [f"{written(round(value, 1))}, {_share(share)}" for value, share in told]
    yield dream_tiles(
        "dreams/classes",
        to_rgb(dream.pixels.float().cpu().numpy()),
        title="What each class wants to see",
        names=names,
        words=words,
        curves=dream.curve.cpu().numpy(),
        step=subject.step,
        details=["under it: its logit and confidence"],
    )


def _share(confidence: float) -> str:
    return confidence_text(confidence) if math.isfinite(confidence) else "–"


def dreamt(subject: ModelUnderStudy) -> tuple[Dream, Tensor]:
    """The dreams of the first classes, and how sure the model is of each ``[K]``.

    Args:
        subject: with a classifier of images.
    """
    images = taken(subject, 8).images
    outputs = subject.outputs(1)
    assert outputs is not None
    count = min(CLASSES, outputs.shape[1])
    shape = tuple(images.shape[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DreamWarning)  # the picture says it
        dream = maximize(
            subject.model,
            [logit(one) for one in range(count)],
            image=fourier(shape, decay=1.5),
            pixel_space=subject.pixel_space,
            bounded=True,
            priors={edge_energy: _NATURAL / (shape[1] * shape[2])} if min(shape[1:]) > 5 else {},
            transforms=standard(max(2, min(shape[1:]) // 14)),
            steps=affordable(subject, 3 * count, most=250, least=80),
            seed=subject.seed,
            frames=0,
            progress=False,
            forward=_scores,
        )
    with evaluation_mode(subject.model), torch.no_grad():
        shares = _scores(subject.model, dream.inputs).float().softmax(1)
    return dream, shares[range(count), range(count)].cpu()


def _scores(model: nn.Module, images: Any) -> Tensor:
    """Of classes, as `Subject.outputs` finds them."""
    scores = first_tensor(call_model(model, images))
    assert scores is not None
    return scores


def inversions(subject: ModelUnderStudy) -> Iterator[Found]:
    """What layers still know of some samples: others that they answer in the same way (tag ``inversion``).

    The penalties weigh alike for all layers, so that these compare.

    Args:
        subject: with a classifier of images.
    """
    images = taken(subject, affordable(subject, 3 * 200 * LAYERS, most=6, least=2)).images
    rows, words, names, errors = [subject.rgb(images)], [[""] * len(images)], ["the image"], {}
    left_out = {}
    for layer in spread_layers(subject.model):
        try:
            found = inverted(subject, images, layer)
        except (ValueError, TypeError, LayerNotReachedError) as error:
            left_out[layer] = str(error)
            continue
        each = found.pixel_errors.mean(1).cpu()
        errors[layer] = {
            "error": number(each.mean()),
            "errors": numbers(each),
            "feature_error": number(found.feature_errors.mean()),
        }
        rows.append(to_rgb(found.pixels[:, 0].float().cpu().numpy()))
        words.append(["–" if one is None else f"{100 * one:.0f} %" for one in numbers(each)])
        names.append(layer)
    if not errors:
        raise AnalysisError(f"no layer can be inverted: {'; '.join(left_out.values()) or 'the model has none'}")
    yield "inversions", errors
    yield dream_table(
        "inversion",
        np.stack(rows),
        title="What each layer still knows of an image",
        rows=names,
        words=words,
        details=["images that the layer answers as it does the first row", "under each: distance to it, of its norm"],
        reading="Each row is one layer: images made from noise, until the layer's output was that for the first row. "
        "What is lost in them the layer no longer knows.",
        notes=[f"cannot be inverted: {', '.join(left_out)}"] if left_out else [],
    )


def inverted(subject: ModelUnderStudy, images: Tensor, layer: str) -> Inversion:
    """The images that a layer answers as it does some samples.

    Args:
        subject: whose layer it is.
        images: the samples ``[N, C, H, W]``.
        layer: its name.
    """
    originals = subject.pixel_space.into(images.float(), subject.pixel_space.centered())
    sigma = originals.flatten(1).norm(dim=1).mean().item()
    if not sigma:
        raise AnalysisError("the samples are all gray: there is nothing to know of them")
    least = torch.finfo(originals.dtype).tiny  # of images without edges
    costs = (alpha_norm(originals / sigma).mean(), total_variation(originals / sigma).mean())
    weights = [share / max(cost.item(), least) for share, cost in zip(_SHARES, costs, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DreamWarning)  # an image that stays noise says it
        return invert(
            subject.model,
            images,
            layer,
            seeds=1,
            weights=(weights[0], weights[1]),
            sigma=sigma,
            pixel_space=subject.pixel_space,
            steps=affordable(subject, 3 * len(images) * LAYERS, most=200, least=80),
            seed=subject.seed,
            frames=0,
            progress=False,
        )


def spread_layers(model: nn.Module) -> Sequence[str]:
    """Layers from the first to the last: convolutions and fully connected ones, or blocks where these are few.

    Args:
        model: any module.
    """
    every: list[Any] = [nn.Conv2d, nn.Linear]
    held = [kind for kind in every if any(isinstance(module, kind) for module in model.modules())]
    order = list(named_layers(model))
    found = sorted(select_layers(model, held), key=order.index) if held else []
    found = found or list(select_layers(model, "blocks"))
    places = np.linspace(0, len(found) - 1, min(LAYERS, len(found))).round().astype(int)
    return [found[place] for place in places]
