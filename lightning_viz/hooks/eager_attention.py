"""Attention computed eagerly, so that a target can be differentiated by its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_viz.errors import ObservationError
from lightning_viz.hooks.attention_calls import AttentionCall, AttentionWatch, place, watching
from lightning_viz.hooks.geometry import Geometry, Layout

_WAITING = 8  # softmax results that wait for the product with values
_SOFTMAX = (torch.softmax, Tensor.softmax, F.softmax, torch.special.softmax, torch._safe_softmax)

# torch's function would hide the softmax inside from a function mode; this copy does not ask whether there is one
_multi_head_attention = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda arguments: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


@dataclass(frozen=True)
class EagerCall:
    """A call of attention that was computed eagerly.

    Attributes:
        layer: name of the module that called it.
        call: the same, as it was seen.
        weights: ``[N, heads, T, S]``, or with samples and heads in one axis; part of the graph.
        layout: of the keys.
        class_token: whether the first token is a class token.
    """

    layer: str
    call: AttentionCall
    weights: Tensor
    layout: Layout
    class_token: bool


class _Eager(TorchFunctionMode):
    """Replaces fused attention by its formula, and keeps what every softmax gives."""

    def __init__(self) -> None:
        super().__init__()
        self.softmaxes: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with self:
                return _multi_head_attention(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            with self:
                return _attention(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in _SOFTMAX:
            if torch.is_grad_enabled() and not result.requires_grad:
                result.requires_grad_()
            self.softmaxes.append(result)
        return result


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(Q K^T / sqrt(d) + mask) V``, with the arguments of ``F.scaled_dot_product_attention``."""
    if enable_gqa:
        key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        open_ = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~open_, -torch.inf)
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if masked else scores + attn_mask
    weights = torch._safe_softmax(scores, -1)
    return F.dropout(weights, dropout_p) @ value


@contextmanager
def eager_attention(model: nn.Module, inputs: Any) -> Iterator[list[EagerCall]]:
    """Compute the attention of the pass in the context eagerly; the list holds its calls in order.

    Outputs equal those of fused attention up to rounding. What is not Python (traced code) cannot be replaced.

    Args:
        model: that runs.
        inputs: of the pass.

    Raises:
        ObservationError: the weights of a call are not part of the graph.
    """
    calls: list[EagerCall] = []
    mode, geometry = _Eager(), Geometry(model, inputs)

    def see(layer: str, call: AttentionCall) -> None:
        own = None if call.softmax is None else place(call.softmax)
        weights = next((one for one in reversed(mode.softmaxes) if place(one) == own), None)
        if weights is None or not weights.requires_grad:
            why = "it runs outside Python" if weights is None else "it runs under torch.no_grad"
            raise ObservationError(f"the attention of layer {layer!r} cannot be differentiated: {why}")
        mode.softmaxes = [one for one in mode.softmaxes if one is not weights][-_WAITING:]
        calls.append(EagerCall(layer, call, weights, *call.tokens_of(geometry, layer)))

    watch = AttentionWatch(model, inputs, see)
    with mode, watching(watch, geometry):
        yield calls
