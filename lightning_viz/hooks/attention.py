"""Attention weights, recorded beside an untouched forward pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.attention_calls import MOST_WEIGHT_BYTES, AttentionCall, AttentionWatch, watching
from lightning_viz.hooks.calls import as_call, call_model
from lightning_viz.hooks.geometry import Geometry, Layout
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.observation import AttentionRows, Attentions
from lightning_viz.hooks.pytree import map_tensors, sample_count
from lightning_viz.hooks.recording import call_names
from lightning_viz.hooks.windows import windows_of

__all__ = ["AttentionPart", "attention_weights"]

AttentionPart: TypeAlias = Literal["rows", "rollout"]
"""What to keep of a pass's attention weights, see `Attentions`."""


class AttentionRecord:
    """What is kept of the attention weights of a pass, layer by layer as they come.

    Args:
        model: that runs.
        inputs: of the pass.
        parts: what to keep.
    """

    def __init__(self, model: nn.Module, inputs: Any, parts: Sequence[AttentionPart]) -> None:
        self._parts, self._count, self.geometry = parts, sample_count(inputs), Geometry(model, inputs)
        self._rows: defaultdict[str, list[AttentionRows]] = defaultdict(list)
        self._rolled: Tensor | None = None
        self._refused, self._layout, self._class_token = "", Layout(), False
        self.watch = AttentionWatch(model, inputs, self._see)

    def _see(self, layer: str, call: AttentionCall) -> None:
        layout, class_token = call.tokens_of(self.geometry, layer)
        tokens = None if self._rolled is None else self._rolled.shape[1]
        if "rollout" in self._parts and not self._refused:
            self._refused = changes(layer, call, self._count, tokens)
        rolls = "rollout" in self._parts and not self._refused
        first, mean, of_heads = call.reduced(rows="rows" in self._parts, heads=rolls)
        if of_heads is not None:
            self._rolled = rolled(of_heads, self._rolled)
            self._layout, self._class_token = layout, class_token
        if first is not None and mean is not None:
            windows = windows_of(self.watch.running, call.batch, call.keys, self._count)
            if windows is not None:
                first = mean = windows.spread(mean)
                layout = Layout(windows.grid, 2)
            self._rows[layer].append(AttentionRows(first, mean, call.queries, call.keys, layout, class_token))

    def kept(self) -> Attentions:
        """What the pass gave."""
        rollout = None
        if self._rolled is not None and not self._refused:
            tokens = self._rolled.shape[1]
            first, mean = self._rolled[:, :1].clone(), self._rolled.mean(1, keepdim=True)
            rollout = AttentionRows(first, mean, tokens, tokens, self._layout, self._class_token)
        return Attentions(call_names(self._rows), rollout, self._refused, dict(self.watch.missed))


def rolled(attention: Tensor, below: Tensor | None) -> Tensor:
    """One step of the rollout: ``A~ R`` of a layer's mean over heads and what the layers below it gave.

    Args:
        attention: ``[N, T, T]``.
        below: R, ``[N, T, T]``; the identity if None.
    """
    mixed = attention + torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)
    mixed = mixed / mixed.sum(-1, keepdim=True)
    return mixed if below is None else mixed @ below


def changes(layer: str, call: AttentionCall, count: int, tokens: int | None) -> str:
    """Why a layer's attention cannot be multiplied with that below; empty if it can.

    Args:
        layer: its name.
        call: of it.
        count: number of samples.
        tokens: number of tokens in the layers below; None of the first.
    """
    if call.batch != count:
        return f"{layer!r} attends within {call.batch // max(1, count)} windows, not among all tokens"
    if call.queries != call.keys:
        return f"{layer!r} attends from {call.queries} tokens to {call.keys} others"
    if tokens is not None and call.keys != tokens:
        return f"the number of tokens changes from {tokens} to {call.keys} at {layer!r}"
    return ""


@contextmanager
def recording_attention(
    model: nn.Module, inputs: Any, parts: Sequence[AttentionPart]
) -> Iterator[AttentionRecord | None]:
    """Record the attention of the pass in the context; None if nothing is to be kept."""
    if not parts:
        yield None
        return
    record = AttentionRecord(model, inputs, parts)
    with watching(record.watch, record.geometry):
        yield record


def attention_weights(
    model: nn.Module, inputs: Any, *, forward: Callable[[nn.Module, Any], Any] | None = None
) -> dict[str, Tensor]:
    r"""Attention weights of one forward pass in eval mode, ``softmax(Q K^T / sqrt(d) + mask)``.

    Computed again from the queries and keys of fused attention, beside an untouched forward; see `AttentionWatch` for
    what is recognized. Dropout of weights plays no part.

    Args:
        model: any module; its state is restored.
        inputs: as the model takes them, see `observe`.
        forward: calls the model, ``forward(model, inputs)``; ``model(inputs)`` if omitted.

    Returns:
        By the name of the module that calls it ``[N, heads, T, S]``, of windows ``[N * windows, heads, T, S]``; of
        several calls ``"name:0"``, ``"name:1"``, ...

    Raises:
        InvalidArgumentError: there is no attention, some could not be recorded, or weights take over 512 MB.
    """
    inputs = as_call(inputs)
    weights: defaultdict[str, list[Tensor]] = defaultdict(list)
    used = 0

    def see(layer: str, call: AttentionCall) -> None:
        nonlocal used
        used += 4 * call.batch * call.heads * call.queries * call.keys
        if used > MOST_WEIGHT_BYTES:
            raise InvalidArgumentError(f"attention weights take over {MOST_WEIGHT_BYTES >> 20} MB: give fewer inputs")
        whole = torch.cat([part.clone() for _, part in call.chunks()])
        weights[layer].append(whole.view(call.batch, call.heads, call.queries, call.keys))

    watch = AttentionWatch(model, inputs, see)
    with evaluation_mode(model), torch.no_grad(), watching(watch):
        call_model(model, map_tensors(inputs, torch.clone), forward)
    check_attention(weights, watch.missed)
    return call_names(weights)


def check_attention(calls: Mapping[str, Any], missed: Mapping[str, str]) -> None:
    """Raise an `InvalidArgumentError` if no attention was recorded, or not all of it."""
    if missed:
        layer, why = next(iter(missed.items()))
        raise InvalidArgumentError(f"the attention of {layer!r} cannot be recorded: {why}")
    if not calls:
        raise InvalidArgumentError(
            "no attention was seen in the forward pass: neither F.scaled_dot_product_attention nor a softmax over the "
            "last axis of [N, heads, T, S] that is multiplied with values"
        )
