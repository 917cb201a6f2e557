"""What objectives make of a pass of all their images, which come one objective's after the other's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from lightning_viz.attribution.batches import out_of_memory
from lightning_viz.dream.objectives import Objective, Response, single
from lightning_viz.hooks.layers import LayerNotReachedError
from lightning_viz.hooks.observation import layer_of_call
from lightning_viz.hooks.observing import Forward
from lightning_viz.hooks.repeating import Passes, Seen, passes
from lightning_viz.hooks.structure import first_tensor


def passes_for(
    model: nn.Module, objectives: Sequence[Objective], *, forward: Forward | None = None, seed: int | None = None
) -> AbstractContextManager[Passes]:
    """Passes that go as far as objectives read (see `lightning_viz.hooks.passes`).

    Args:
        model: any module.
        objectives: to be read.
        forward: how to run the model, if not ``model(inputs)``.
        seed: of what the model itself may draw.
    """
    layers = list(dict.fromkeys(layer_of_call(name) for one in objectives for name in one.layers))
    return passes(model, layers, whole=any(one.outputs for one in objectives), forward=forward, seed=seed)


def response(model: nn.Module, images: Tensor, layers: Sequence[str], *, forward: Forward | None = None) -> Response:
    """What images excite in layers, no part of a graph; the model need not be able to go on behind them.

    Args:
        model: any module.
        images: as the model takes them, on any device and in any precision.
        layers: by name, or calls of them.
        forward: how to run the model, if not ``model(inputs)``.
    """
    names = list(dict.fromkeys(map(layer_of_call, layers)))
    with passes(model, names, whole=False, forward=forward) as run, torch.no_grad():
        seen = run(images.to(run.like))
    return Response({name: call.detach() for name, call in seen.calls.items()}, features=seen.features)


@contextmanager
def taken(shape: Sequence[int]) -> Iterator[None]:
    """Runs a model on images of a size that it may not be able to take, which is said.

    Args:
        shape: of an image.

    Raises:
        ValueError: what the model raises, with the size.
    """
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        if isinstance(error, LayerNotReachedError) or out_of_memory(error):
            raise
        raise ValueError(f"the model cannot take images of {' x '.join(map(str, shape))}: {error}") from error


def scalars(seen: Seen, objectives: Sequence[Objective], copies: int) -> Tensor:
    """The objectives, each of its own images, ``[len(objectives) * copies]``.

    Args:
        seen: the pass.
        objectives: in the order of the images.
        copies: images of each.

    Raises:
        ValueError: an output, a layer's or the model's, does not hold the images in its first dimension, or an
            objective is not one scalar for each image.
        TypeError: the objectives read the model's output, which is a dict.
    """
    each = [one(part) for one, part in zip(objectives, _responses(seen, objectives, copies), strict=True)]
    for one, values in zip(objectives, each, strict=True):
        if list(values.shape) != [copies]:
            raise ValueError(
                f"the objective {one.name!r} is {list(values.shape)} for {copies} images: give one scalar for each, "
                f"[{copies}], by .mean((1, 2, 3)), say"
            )
    return torch.cat(each)


def _responses(seen: Seen, objectives: Sequence[Objective], copies: int) -> list[Response]:
    """What the images of each objective excite."""
    count = len(objectives) * copies
    for name, output in seen.calls.items():
        _check_count(output, count, f"layer {name!r}")
    outputs = _outputs(seen) if any(one.outputs for one in objectives) else None
    if outputs is not None:
        _check_count(outputs, count, "the model")
    parts = {name: torch.split(output, copies) for name, output in seen.calls.items()}  # one node of the graph for all
    answers = [None] * len(objectives) if outputs is None else torch.split(outputs, copies)
    return [
        Response({name: part[place] for name, part in parts.items()}, answers[place], seen.features)
        for place in range(len(objectives))
    ]


def _outputs(seen: Seen) -> Tensor | None:
    """The first tensor that the model returned."""
    if isinstance(seen.outputs, Mapping):
        keys = ", ".join(map(repr, seen.outputs))
        raise TypeError(
            f"the model returns a {type(seen.outputs).__name__} with {keys}: say which by "
            "forward=lambda model, images: model(images)[key]"
        )
    outputs = first_tensor(seen.outputs)
    return None if outputs is None else single(outputs)


def _check_count(output: Tensor, count: int, what: str) -> None:
    if output.shape[:1] != (count,):
        raise ValueError(f"{what} puts out {list(output.shape)} for {count} images: not one for each")
