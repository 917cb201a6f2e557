"""Calls of attention in a forward pass, seen however attention is called and without changing a digit of it."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_viz.hooks.geometry import Geometry, Layout, deciding_modules
from lightning_viz.hooks.layers import named_layers
from lightning_viz.hooks.pytree import sample_count

MOST_WEIGHT_BYTES = 2**29
"""That attention weights may take at a time."""

_SOFTMAX = ("_softmax", "_safe_softmax")
_PRODUCTS = ("bmm", "baddbmm")
_SAME_WEIGHTS = ("_to_copy", "clone", "mul", "native_dropout")  # weights cast, copied, or masked by head
_FUSED = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math_for_mps",
)
_FAST_PATHS = ("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
_SEEN = frozenset((*_SOFTMAX, *_PRODUCTS, *_SAME_WEIGHTS, *_FUSED, *_FAST_PATHS))
_CANDIDATES = 4  # softmax results that wait for the product with values

Weigh = Callable[[slice], Tensor]
"""Makes the attention weights ``[b, T, S]`` of some of a call's samples and heads, which stand in one dimension."""


@dataclass(frozen=True)
class AttentionCall:
    """A call of attention.

    Attributes:
        batch: number of samples, or of windows of all samples.
        heads: number of heads.
        queries: number of queries T.
        keys: number of keys S.
        width: of all heads' values together.
        weigh: makes weights of a range of the ``batch * heads``.
        softmax: what a softmax gave, if it was called by itself.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    width: int
    weigh: Weigh
    softmax: Tensor | None = None

    def tokens_of(self, geometry: Geometry, layer: str) -> tuple[Layout, bool]:
        """Where its keys lie, and whether the first of them is a class token.

        Args:
            geometry: of the pass.
            layer: that called it.
        """
        layout = geometry.tokens(self.batch, self.keys, self.width, layer)
        return layout, self.queries == self.keys and geometry.class_token(self.width, layout.prefix)

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Weights ``[b, T, S]``, as many samples and heads at a time as take at most `MOST_WEIGHT_BYTES`."""
        each = max(1, MOST_WEIGHT_BYTES // max(1, 4 * self.queries * self.keys))
        each -= each % self.heads if each > self.heads else 0  # whole samples
        for start in range(0, self.batch * self.heads, each):
            part = slice(start, min(start + each, self.batch * self.heads))
            yield part, self.weigh(part)

    def reduced(self, *, rows: bool, heads: bool) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The first query's row and the mean over queries, ``[batch, heads, S]``, and the mean over heads.

        Args:
            rows: whether the first two are wanted.
            heads: whether the last is, ``[batch, T, S]``.
        """
        first, mean, total = list[Tensor](), list[Tensor](), None
        for part, weights in self.chunks():
            if rows:
                first.append(weights[:, 0].clone())
                mean.append(weights.mean(1))
            if heads:
                total = weights.new_zeros(self.batch, self.queries, self.keys) if total is None else total
                if len(weights) % self.heads == 0:
                    some = slice(part.start // self.heads, part.stop // self.heads)
                    total[some] = weights.view(-1, self.heads, self.queries, self.keys).sum(1)
                else:
                    samples = torch.arange(part.start, part.stop, device=weights.device) // self.heads
                    total.index_add_(0, samples, weights)
        shape = (self.batch, self.heads, self.keys)
        both = [torch.cat(parts).view(shape) if parts else None for parts in (first, mean)]
        return both[0], both[1], None if total is None else total / self.heads


class AttentionWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees each call of attention of a pass, by the operators that PyTorch runs, which it leaves as they are.

    Attention is a fused operator (``F.scaled_dot_product_attention``, torch's own fast paths), whose weights are
    computed again from its queries and keys; or a softmax over the last axis of ``[N, heads, T, S]``, or of
    ``[N, T, S]`` of one head, whose result, perhaps cast or masked, is next multiplied with values in a batched
    product. In ``nn.MultiheadAttention`` samples and heads may be one axis. A mode at the level of functions would keep
    torch's modules off their fast paths, as would hooks inside them, and so change the last digits of outputs.

    Attributes:
        seen: calls that are attention, with their modules' names, in order; only if `see` keeps them.
        missed: what looked like attention and could not be recorded, and why.
    """

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, inputs: Any, see: Callable[[str, AttentionCall], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model, self._see, self._count = model, see, sample_count(inputs)
        self._names = {id(module): name for name, module in reversed(named_layers(model).items())}
        self.running: list[tuple[nn.Module, Any]] = []  # with their inputs, the innermost last
        self._softmaxes: dict[int, tuple[str, Tensor, nn.Module | None]] = {}  # by place in memory
        self._thread = threading.get_ident()
        self.missed: dict[str, str] = {}
        self.open = True

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """Forward pre-hook of every module."""
        if threading.get_ident() == self._thread:
            self.running.append((module, inputs))

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Forward hook of every module; one that raised was left, too."""
        if threading.get_ident() == self._thread and any(module is inner for inner, _ in self.running):
            while self.running.pop()[0] is not module:
                pass

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(getattr(func, "overloadpacket", None), "__name__", "")
        if self.open and name in _SEEN:
            named = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)}
            with torch.autocast(args[0].device.type, enabled=False):
                self._take(name, {**named, **(kwargs or {})}, result)
        return result

    def _take(self, operator: str, given: dict[str, Any], result: Any) -> None:
        if operator in _SOFTMAX:
            self._take_softmax(given, result)
        elif operator in _PRODUCTS and self._softmaxes:
            first, second = (given["self"], given["mat2"]) if operator == "bmm" else (given["batch1"], given["batch2"])
            self._take_product(first, second)
        elif operator in _SAME_WEIGHTS and self._softmaxes:
            source, made = given.get("self", given.get("input")), result[0] if isinstance(result, tuple) else result
            known = self._softmaxes.get(place(source)) if isinstance(source, Tensor) else None
            if known is not None and made.numel() == known[1].numel():
                self._softmaxes[place(made)] = known
        elif operator in _FUSED:
            self._take_fused(given)
        elif operator in _FAST_PATHS:
            self._take_fast_path(operator, given)

    def _take_softmax(self, given: Mapping[str, Any], weights: Tensor) -> None:
        if weights.dim() in (3, 4) and given["dim"] in (-1, weights.dim() - 1) and not weights.is_nested:
            self._softmaxes[place(weights)] = self._layer(), weights, self.running[-1][0] if self.running else None
            while len(self._softmaxes) > _CANDIDATES:
                self._softmaxes.pop(next(iter(self._softmaxes)))

    def _take_product(self, first: Tensor, second: Tensor) -> None:
        for weights, values in ((first, second), (second, first)):
            known = self._softmaxes.get(place(weights))
            if known is None or weights.numel() != known[1].numel():
                continue
            self._softmaxes = {place: other for place, other in self._softmaxes.items() if other[1] is not known[1]}
            layer, softmax, module = known
            width = values.shape[-1] if values.shape[1] == softmax.shape[-1] else values.shape[1]
            self._take_weights(layer, softmax, width, module)
            return

    def _take_weights(self, layer: str, softmax: Tensor, width: int, module: nn.Module | None) -> None:
        *batch, queries, keys = softmax.shape
        heads = batch[1] if len(batch) == 2 else 1
        if len(batch) == 1 and batch[0] != self._count:
            if not isinstance(module, nn.MultiheadAttention):
                self.missed[layer] = (
                    f"samples and heads are one axis of {batch[0]}, and how they are mixed is not known"
                )
                return
            heads = module.num_heads
        whole = softmax.detach().reshape(-1, queries, keys)

        def weigh(part: slice) -> Tensor:
            return _exact(whole[part])

        call = AttentionCall(len(whole) // heads, heads, queries, keys, heads * width, weigh, softmax)
        self._see(layer, call)

    def _take_fused(self, given: Mapping[str, Any]) -> None:
        mask = given.get("attn_mask", given.get("attn_bias"))
        self._take_scores(given["query"], given["key"], given.get("scale"), mask, bool(given.get("is_causal")))

    def _take_fast_path(self, operator: str, given: Mapping[str, Any]) -> None:
        """Torch's attention modules in eval mode, which run one operator."""
        x = given["src"] if operator == "_transformer_encoder_layer_fwd" else given["query"]
        if x.is_nested:
            self.missed[self._layer()] = "its samples are of unlike lengths (nested tensors)"
            return
        heads = given["num_heads"] if "num_heads" in given else given["num_head"]
        if given.get("norm_first"):
            x = F.layer_norm(x, x.shape[-1:], given["norm_weight_1"], given["norm_bias_1"], given["eps"])
        q, k, _ = F.linear(x, given["qkv_weight"], given["qkv_bias"]).chunk(3, -1)
        q, k = (part.reshape(*part.shape[:2], heads, -1).transpose(1, 2) for part in (q, k))
        mask, kind = given.get("mask"), given.get("mask_type")
        if mask is not None and kind == 1:  # of padded keys
            mask = mask[:, None, None]
        elif mask is not None and kind == 2:
            mask = mask.view(len(x), -1, *mask.shape[-2:])
        self._take_scores(q, k, None, None if mask is None else ~mask.bool(), causal=False)

    def _take_scores(self, q: Tensor, k: Tensor, scale: float | None, mask: Tensor | None, causal: bool) -> None:
        """Queries ``[N, heads, T, d]`` attend to keys ``[N, heads, S, d]``; a mask is true where open, or added."""
        if len(q) == 1 and q.shape[1] == self._count:  # [N, T, d], to which the operator adds an axis
            q, k = q.transpose(0, 1), k.transpose(0, 1)
            mask = mask.transpose(0, 1) if mask is not None and mask.dim() == 4 else mask
        batch, heads, queries, _ = q.shape
        keys, q, k, shared = k.shape[2], q.detach(), k.detach(), heads // k.shape[1]
        factor = q.shape[-1] ** -0.5 if scale is None else scale

        def weigh(part: slice) -> Tensor:
            index = torch.arange(part.start, part.stop, device=q.device)
            sample, head = index // heads, index % heads
            scores = _exact(q[sample, head]).mul_(factor) @ _exact(k[sample, head // shared]).mT
            if mask is not None:
                whole = mask.detach().expand(batch, heads, queries, keys)[sample, head]
                scores = scores.masked_fill(~whole, -math.inf) if mask.dtype == torch.bool else scores + whole
            if causal:
                closed = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril().logical_not()
                scores = scores.masked_fill(closed, -math.inf)
            weights = scores.softmax(-1)
            if mask is None:
                return weights
            return weights.masked_fill(scores.amax(-1, keepdim=True) == -math.inf, 0)  # all keys are closed

        self._see(self._layer(), AttentionCall(batch, heads, queries, keys, heads * q.shape[-1], weigh))

    def _layer(self) -> str:
        """Name of the innermost module that runs; of a softmax module its holder; of the model itself its class."""
        names = [
            self._names[id(module)]
            for module, _ in self.running
            if id(module) in self._names and not isinstance(module, (nn.Softmax, nn.Dropout))
        ]
        return names[-1] if names else type(self._model).__name__


def place(tensor: Tensor) -> int:
    """Where the values of a tensor are: of all its views the same."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided and not tensor.is_nested else 0


def _exact(tensor: Tensor) -> Tensor:
    """At least in single precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@contextmanager
def watching(watch: AttentionWatch, geometry: Geometry | None = None) -> Iterator[None]:
    """See the attention of the pass that runs in the context; also follow the inputs' shapes to the layers."""
    deciding = set() if geometry is None else set(deciding_modules(watch._model))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        if geometry is not None and module in deciding:
            geometry.see(module, output)
        watch.leave(module, inputs, output)

    # hooks of all modules, because those of a module would keep torch's attention off its fast path
    handles = [register_module_forward_pre_hook(watch.enter), register_module_forward_hook(leave)]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Using `torch.compile")  # whose wrappers are called anew
            with watch:
                yield
    finally:
        watch.open = False
        for handle in handles:
            handle.remove()
