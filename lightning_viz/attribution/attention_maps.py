"""Attention maps: what in the image a transformer's tokens attend to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError, LayerNotReachedError
from lightning_viz.hooks.attention import changes, check_attention
from lightning_viz.hooks.attention_calls import MOST_WEIGHT_BYTES
from lightning_viz.hooks.calls import as_call
from lightning_viz.hooks.eager_attention import EagerCall, eager_attention
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.observation import AttentionRows, Attentions, layer_of_call
from lightning_viz.hooks.observe import Forward, Passes, gradients_of, layers_read, observe, passes, resolve_target
from lightning_viz.hooks.pytree import map_tensors, sample_count, spatial_input, take_samples
from lightning_viz.hooks.target_types import Target
from lightning_viz.hooks.targets import TargetLike

__all__ = ["attention", "attention_rollout", "gradient_attention"]

Heads = Sequence[int] | Literal["mean", "all"]
"""Numbers of heads, all of them, or their mean."""


def attention(
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    layers: Layers | None = None,
    heads: Heads = "mean",
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    r"""Attention: shows what the class token attends to (Vaswani et al., 2017; Dosovitskiy et al., 2021).

    .. math:: A_h = \operatorname{softmax}\Big(\frac{Q_h K_h^\top}{\sqrt{d}} + \text{mask}\Big)

    The class token's row, or, where the model has none, the mean over queries, on the grid of the patches. Recorded
    beside one untouched forward pass however attention is called, see `attention_weights`. The target plays no part.

    Args:
        model: any module; left as found.
        inputs: as the model takes them, an image ``[N, C, H, W]`` among them.
        target: plays no part.
        layers: those that call attention, or hold layers that do, ``"blocks.3"``; all with ``"*"``; the last if
            omitted.
        heads: the ``"mean"`` over heads, ``"all"``, or the numbers of some.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        For each call of each layer the map ``[N, 1, H', W']``, or ``[N, heads, H', W']``, non-negative: shares of the
        query's attention, of which the class token keeps the rest.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        LayerNotReachedError: no attention is called in the layers.
        InvalidArgumentError: there is no attention, some could not be recorded, its tokens lie on no grid that is
            known (words, windows but those of Swin), or there is no such head.
    """
    attended = observe(model, inputs, layers=(), attention=("rows",), forward=forward).attention
    assert attended is not None
    check_attention(attended.calls, attended.missed)
    calls = attention_calls(model, attended, layers)
    maps = {call: heads_of(attention_map(rows, call), heads, call) for call, rows in calls.items()}
    return {call: _as_precise(heat, inputs) for call, heat in maps.items()}


def attention_rollout(
    model: nn.Module, inputs: Any, target: TargetLike = None, *, forward: Forward | None = None
) -> Tensor:
    r"""Attention rollout: follows attention through all layers (Abnar and Zuidema, 2020).

    .. math:: R = \tilde A_L \cdots \tilde A_1, \qquad \tilde A = \operatorname{normalize}\big(\bar A + I\big), \quad
        \bar A = \operatorname{mean}_h A_h

    with rows normalized to a sum of 1; the identity stands for the residual connection.

    Args:
        model: any module; left as found.
        inputs: as the model takes them, an image ``[N, C, H, W]`` among them.
        target: plays no part.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        The class token's row, or, where the model has none, the mean over tokens, on the grid of the patches
        ``[N, 1, H', W']``, non-negative: shares of each patch.

    Raises:
        InvalidArgumentError: there is no attention, some could not be recorded, the number of tokens changes (windows
            of Swin, merged patches, a decoder), or its tokens lie on no grid that is known.
    """
    attended = observe(model, inputs, layers=(), attention=("rollout",), forward=forward).attention
    assert attended is not None
    return _as_precise(rollout_map(attended), inputs)


def gradient_attention(
    model: nn.Module, inputs: Any, target: TargetLike = None, *, forward: Forward | None = None
) -> Tensor:
    r"""Gradient-weighted attention: follows what raises the target through all layers (Chefer et al., 2021).

    .. math:: R \leftarrow R + \operatorname{mean}_h\Big(\frac{\partial y}{\partial A_h} \odot A_h\Big)^{+} R,
        \qquad R = I \text{ at first}

    layer by layer upwards. Takes a pass of its own, in which attention is computed eagerly.

    Args:
        model: any module; left as found.
        inputs: as the model takes them, an image ``[N, C, H, W]`` among them.
        target: what to explain, see `TargetLike`; the predicted class if omitted.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        The class token's row, or, where the model has none, the mean over tokens, on the grid of the patches
        ``[N, 1, H', W']``, non-negative. Several targets stand in a leading dimension.

    Raises:
        InvalidArgumentError: there is no attention, the number of tokens changes (windows of Swin, merged patches, a
            decoder), its tokens lie on no grid that is known, or the target does not depend on any of it.
        ObservationError: attention runs outside Python or under `torch.no_grad`, so that it has no gradient.
    """
    inputs = as_call(inputs)
    fixed = resolve_target(model, inputs, target, forward=forward)
    count, done, size, parts = sample_count(inputs), 0, 1, list[Tensor]()
    with passes(model, tuple(layers_read(model, fixed)), forward=forward) as run:
        while done < count:
            samples = torch.arange(done, min(done + size, count), device="cpu")
            some = map_tensors(inputs, lambda x, samples=samples: take_samples(x, samples, count))  # type: ignore[misc]
            heat, bytes_each, several = _weighted(run, model, some, fixed.select(samples))
            parts.append(heat)
            done, size = done + len(samples), max(1, MOST_WEIGHT_BYTES // bytes_each)
    return _as_precise(torch.cat(parts, 1 if several else 0), inputs)


def _weighted(run: Passes, model: nn.Module, inputs: Any, target: Target) -> tuple[Tensor, int, bool]:
    """Gradient-weighted attention of some samples, the bytes that each takes, and whether targets are several."""
    count = sample_count(inputs)
    inputs = map_tensors(inputs, lambda x: x.detach().clone())
    with eager_attention(model, inputs) as calls:
        scores = target.scores(run(inputs))[0]
        check_attention({one.layer: one for one in calls}, {})
        tokens = None
        for one in calls:
            refuse(changes(one.layer, one.call, count, tokens))
            tokens = one.call.keys
    weights = [one.weights for one in calls]
    gradients = gradients_of(scores, weights)
    by_call = [gradients[id(one)] for one in weights]
    if all(gradient is None for gradient in by_call):
        raise InvalidArgumentError("the target does not depend on any attention weight")
    several, size = scores.dim() == 2, 8 * sum(one.numel() for one in weights) // count
    if not several:
        return _relevance(calls, by_call), size, several
    rows = [[None if part is None else part[row] for part in by_call] for row in range(len(scores))]
    return torch.stack([_relevance(calls, row) for row in rows]), size, several


def _relevance(calls: Sequence[EagerCall], gradients: Sequence[Tensor | None]) -> Tensor:
    """The formula, of one target."""
    last = calls[-1]
    tokens = last.call.keys
    relevance = torch.eye(tokens, device=last.weights.device).expand(last.call.batch, -1, -1)  # [N, T, T]
    for one, gradient in zip(calls, gradients, strict=True):
        if gradient is None:  # the target does not depend on it
            continue
        weighted = (gradient * one.weights.detach()).relu().view(one.call.batch, one.call.heads, tokens, tokens).mean(1)
        relevance = relevance.to(weighted) + weighted @ relevance.to(weighted)
    first, mean = relevance[:, :1], relevance.mean(1, keepdim=True)
    return attention_map(AttentionRows(first, mean, tokens, tokens, last.layout, last.class_token), last.layer)


def _as_precise(maps: Tensor, inputs: Any) -> Tensor:
    """Maps in the precision of the image."""
    image = spatial_input(inputs)
    return maps if image is None else maps.to(image.dtype)


def attention_calls(model: nn.Module, attended: Attentions, layers: Layers | None) -> dict[str, AttentionRows]:
    """The recorded calls of some layers, or of those inside them; the last call if none is named.

    Args:
        model: that was observed.
        attended: what was recorded.
        layers: see `attention`.

    Raises:
        LayerNotReachedError: no attention is called in the layers.
    """
    if layers is None:
        return dict([*attended.calls.items()][-1:])
    names = tuple(select_layers(model, layers))
    chosen = {
        call: rows
        for call, rows in attended.calls.items()
        if any(f"{layer_of_call(call)}.".startswith(f"{name}.") for name in names)
    }
    if not chosen:
        called = ", ".join(repr(call) for call in [*attended.calls][:12])
        raise LayerNotReachedError(f"no attention is called in {layers!r}; it is in {called}")
    return chosen


def attended_tokens(model: nn.Module, inputs: Any) -> dict[str, int]:
    """Among how many tokens a query shares its attention, by call; of windows, those of one.

    Args:
        model: that attends; left as found.
        inputs: as the model takes them, one sample is enough.
    """
    attended = observe(model, inputs, layers=(), attention=("rows",)).attention
    assert attended is not None
    return {call: rows.keys for call, rows in attended.calls.items()}


def attention_map(rows: AttentionRows, call: str) -> Tensor:
    """The class token's row, or the mean over queries, on the grid of the patches ``[N, heads, *S]``.

    Args:
        rows: of a call.
        call: its name.

    Raises:
        InvalidArgumentError: the keys lie on no known grid.
    """
    grid, prefix = rows.layout.grid, rows.layout.prefix
    if not grid:
        raise InvalidArgumentError(
            f"the {rows.first.shape[-1]} tokens of {call!r} lie on no grid that is known: they are windows, words or "
            "queries, or stand behind tokens that the model does not hold as parameters"
        )
    row = rows.first if rows.class_token else rows.mean
    return row[..., prefix:].reshape(*row.shape[:2], *grid)


def rollout_map(attended: Attentions) -> Tensor:
    """The rollout that a pass recorded, on the grid of the patches ``[N, 1, *S]``; see `attention_rollout`."""
    check_attention({"": attended.rollout} if attended.rollout or attended.refused else {}, attended.missed)
    refuse(attended.refused)
    assert attended.rollout is not None
    return attention_map(attended.rollout, "all layers")


def refuse(reason: str) -> None:
    """Raise an `InvalidArgumentError` if attention cannot be followed from layer to layer."""
    if reason:
        raise InvalidArgumentError(
            f"attention cannot be followed through all layers: {reason}; look at single layers instead"
        )


def heads_of(maps: Tensor, heads: Heads, call: str) -> Tensor:
    """Some heads' maps ``[N, heads, *S]``, or their mean ``[N, 1, *S]``.

    Raises:
        InvalidArgumentError: there is no such head.
    """
    if heads == "mean":
        return maps.mean(1, keepdim=True)
    if heads == "all":
        return maps
    if isinstance(heads, str) or not heads or not all(0 <= head < maps.shape[1] for head in heads):
        raise InvalidArgumentError(
            f"heads is {heads!r}: give 'mean', 'all', or numbers from 0 to {maps.shape[1] - 1}, of {call!r}"
        )
    return maps[:, list(heads)]
