"""Layer-wise relevance propagation: what each operation passes back in place of its gradient."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_viz.errors import InterceptionError
from lightning_viz.hooks.pytree import map_tensors
from lightning_viz.hooks.recording import Activations
from lightning_viz.hooks.relu import graph_nodes, relu_ceiling, scripted_parts
from lightning_viz.hooks.target_types import Scores, Target

Sharing = Callable[[Sequence[Tensor], Tensor], Sequence[Tensor]]
"""From an operation's inputs and the relevance of its output to the relevance of each input."""

# Nodes of autograd's graph that only move values, or choose among them: their gradient is the rule.
_MOVES = (
    "AccumulateGrad View ReshapeAlias UnsafeView Transpose Permute T Squeeze Unsqueeze Clone Alias ToCopy Expand "
    "Slice Select Split SplitWithSizes Unbind Cat Stack Flip Roll Index IndexSelect Gather AsStrided PixelShuffle "
    "ConstantPadNd ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D ReplicationPad3D "
    "MaxPool2DWithIndices MaxPool3DWithIndices AdaptiveMaxPool2D AdaptiveMaxPool3D MkldnnMaxPool2D"
)
_MEANINGS = {
    "NativeBatchNorm": "batch normalization that does not follow a convolution or linear layer",
    "CudnnBatchNorm": "batch normalization that does not follow a convolution or linear layer",
    "NativeLayerNorm": "layer normalization",
    "ScaledDotProduct": "attention",
    "Mul": "products of activations",
    "DifferentiableGraph": "TorchScript",
}
"""What nodes are that are often met without a rule."""


class Relevance(TorchFunctionMode):
    """Context of a forward pass whose backward passes back relevance: epsilon, z+ and flat (Montavon et al., 2019).

    Linear layers follow the epsilon rule, convolutions z+, and what is applied to the input itself the flat rule, with
    batch normalization folded into the layer before it. Sums and average poolings share by size; activation functions,
    and products with constants, pass everything on. Outputs are unchanged.

    Args:
        epsilon: added to every denominator, with its sign.
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = _RULES.get(func)
        result = None if rule is None else rule(_Call(func, args, kwargs), self.epsilon)
        return func(*args, **kwargs) if result is None else result


class RelevanceTarget(Target):
    """A target whose gradient begins as relevance: at what the target reads, with its values times its gradient.

    Args:
        explained: the target.
        model: that it is of.
    """

    def __init__(self, explained: Target, model: nn.Module) -> None:
        super().__init__(explained.name, layers=explained.layers, outputs=explained.outputs)
        self._explained, self._model = explained, model

    @property
    def open(self) -> bool:
        """See `Target`."""
        return self._explained.open

    def scores(self, activations: Activations) -> Scores:
        """See `Target`.

        Raises:
            InterceptionError: there is no rule for a part of the model.
        """
        calls = {call: _seed(output) for call, output in activations.calls.items()}
        values, classes, target = self._explained.scores(
            replace(activations, calls=calls, outputs=map_tensors(activations.outputs, _seed))
        )
        self._check(values)
        return Scores(values, classes, target)

    def check_count(self, count: int) -> None:
        """See `Target`."""
        self._explained.check_count(count)

    def _check(self, values: Tensor) -> None:
        """See that every node between the input and what the target reads has a rule."""
        seeds = [node for node in graph_nodes(values) if getattr(node, "seeds", False)]
        names = Counter(filter(None, (_unknown(node) for node in graph_nodes(*seeds))))
        if names:
            listed = [f"{_meaning(name)} ({count})" for name, count in sorted(names.items())]
            raise InterceptionError(
                f"relevance propagation has no rule for {', '.join([*listed, *scripted_parts(self._model)])}: "
                "use another method, such as integrated_gradients"
            )


class _Call(NamedTuple):
    """A call of a torch function."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def in_place(self) -> bool:
        name: str = self.func.__name__
        return name.endswith("_") and (not name.endswith("__") or name.startswith("__i"))

    def of(self, *tensors: Tensor) -> Any:
        """The result with others in place of the tensors that carry relevance, in order."""
        given = iter(tensors)
        args = [next(given) if _carries(x) else x for x in self.args]
        return self.func(*args, **{key: next(given) if _carries(x) else x for key, x in self.kwargs.items()})

    @property
    def carriers(self) -> list[Tensor]:
        """The tensors that carry relevance."""
        return [x for x in (*self.args, *self.kwargs.values()) if _carries(x)]


@dataclass(frozen=True)
class _Layer:
    """A call of a layer with weights, and the rule that it follows."""

    func: Any
    weight: Tensor
    bias: Tensor | None
    rest: tuple[Any, ...]
    options: dict[str, Any]
    rule: Literal["flat", "z+", "epsilon"]
    epsilon: float

    def of(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        result: Tensor = self.func(x, weight.to(x), None if bias is None else bias.to(x), *self.rest, **self.options)
        return result

    def step(self, tensors: Sequence[Tensor], relevance: Tensor) -> Sequence[Tensor]:
        """The rule: what stands in for input, weight and bias where relevance is shared out by size."""
        (x,), weight, bias = tensors, self.weight, self.bias
        parts: list[tuple[Tensor, Tensor, Tensor | None]]
        if self.rule == "flat":
            parts = [(torch.ones_like(x), torch.ones_like(weight), None)]
        elif self.rule == "epsilon":
            parts = [(x, weight, bias)]
        else:
            parts = [(x.clamp(min=0), weight.clamp(min=0), None if bias is None else bias.clamp(min=0))]
            if bool((x < 0).any()):
                parts.append((x.clamp(max=0), weight.clamp(max=0), None))

        def output(*inputs: Tensor) -> Tensor:
            outputs = [self.of(x, w, b) for x, (_, w, b) in zip(inputs, parts, strict=True)]
            return outputs[0] if len(outputs) == 1 else outputs[0] + outputs[1]

        shares = _shares(output, [x for x, _, _ in parts], relevance, self.epsilon)
        return [shares[0] if len(shares) == 1 else shares[0] + shares[1]]

    def folded(self, scale: Tensor, shift: Tensor) -> _Layer | None:
        """The layer with a factor and a summand for each output channel in it; None if its weights forbid it."""
        axis = 1 if self.func in _TRANSPOSED else 0
        if self.weight.shape[axis] != len(scale):
            return None
        weight = self.weight * scale.view(*[1] * axis, -1, *[1] * (self.weight.dim() - axis - 1))
        return replace(self, weight=weight, bias=shift if self.bias is None else shift + scale * self.bias)


class _Propagation(torch.autograd.Function):
    """An operation as it is, whose backward is a step of relevance; none passes everything on."""

    @staticmethod
    def forward(
        ctx: Any, compute: Callable[..., Tensor], step: Sharing | None, layer: _Layer | None, in_place: bool, *x: Tensor
    ) -> Tensor:
        before = x[0]._version
        kept = [x[0].clone(), *x[1:]] if in_place and step is not None else x
        result = compute(*x)
        ctx.step, ctx.layer = step, layer
        if step is not None:
            ctx.save_for_backward(*kept)
        if x[0]._version != before:
            ctx.mark_dirty(x[0])
            return x[0]
        return result

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor | None, ...]:
        parts = [relevance] if ctx.step is None else ctx.step(ctx.saved_tensors, relevance)
        return None, None, None, None, *parts


class _Seed(torch.autograd.Function):
    """The identity, at which the gradient becomes relevance."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        ctx.seeds = True
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        relevance: Tensor = values * gradient
        return relevance


def _seed(output: Tensor) -> Tensor:
    seeded: Tensor = _Seed.apply(output) if _carries(output) else output
    return seeded


def _shares(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], relevance: Tensor, epsilon: float
) -> list[Tensor]:
    r"""The relevance of each input of a linear function, :math:`R_j = \sum_k x_j w_{jk} R_k / \sum_i x_i w_{ik}`.

    At least in single precision: small values of a denominator are no rare case.
    """
    with torch.enable_grad():
        leaves = [x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_() for x in inputs]
        z = function(*leaves)
    message = relevance.to(z) / torch.where(z < 0, z - epsilon, z + epsilon).detach()
    gradients = torch.autograd.grad(z, leaves, message)
    return [(leaf.detach() * part).to(x) for leaf, part, x in zip(leaves, gradients, inputs, strict=True)]


def _carries(value: Any) -> bool:
    """Whether a value depends on the input: weights have no gradient in these passes."""
    return isinstance(value, Tensor) and value.requires_grad


def _at_input(x: Tensor) -> bool:
    """Whether no layer with weights lies between the input and a tensor."""
    return all(getattr(node, "layer", None) is None for node in graph_nodes(x))


def _layer(call: _Call, epsilon: float) -> Tensor | None:
    def read(input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any) -> _Layer:
        rule: Literal["flat", "z+", "epsilon"] = "epsilon" if call.func is F.linear else "z+"
        return _Layer(call.func, weight, bias, rest, options, "flat" if _at_input(input) else rule, epsilon)

    if len(call.carriers) != 1 or _carries(call.kwargs.get("weight")) or any(map(_carries, call.args[1:])):
        return None  # weights that depend on the input are not the layer's
    layer = read(*call.args, **call.kwargs)
    return _propagated(call, layer.step, layer)


def _batch_norm(call: _Call, epsilon: float) -> Tensor | None:
    def read(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor | None:
        node = input.grad_fn
        while node is not None and node.name() == "CloneBackward0":  # of a recorded layer
            node = node.next_functions[0][0]
        before: _Layer | None = getattr(node, "layer", None)
        if training or before is None or node is None or running_mean is None or running_var is None:
            return None
        scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
        folded = before.folded(scale, (0 if bias is None else bias) - running_mean * scale)
        if folded is None:
            return None
        (x,) = node.saved_tensors  # type: ignore[attr-defined]
        values = input.detach()
        result: Tensor = _Propagation.apply(lambda _: call.of(values), folded.step, folded, False, x)
        return result

    return read(*call.args, **call.kwargs) if len(call.carriers) == 1 else None


def _share(call: _Call, epsilon: float) -> Tensor | None:
    """A sum of what the inputs hold, each of them with its share."""
    carriers = call.carriers
    if not carriers:
        return None
    if len(carriers) == 1 and call.func in _SUMS and _at_input(carriers[0]):  # a constant, that normalizes pixels
        return _propagated(call, None)

    def output(*inputs: Tensor) -> Tensor:
        result: Tensor = call.of(*([inputs[0].clone(), *inputs[1:]] if call.in_place else inputs))
        return result

    return _propagated(call, lambda inputs, relevance: _shares(output, inputs, relevance, epsilon))


def _pass(call: _Call, epsilon: float) -> Tensor | None:
    return _propagated(call, None) if len(call.carriers) == 1 and _carries(call.args[0]) else None


def _relu(call: _Call, epsilon: float) -> Tensor | None:
    ceiling = relu_ceiling(call.func, call.args, call.kwargs) if call.carriers else None
    return None if ceiling is None else _propagated(call, None)


def _propagated(call: _Call, step: Sharing | None, layer: _Layer | None = None) -> Tensor:
    result: Tensor = _Propagation.apply(call.of, step, layer, call.in_place, *call.carriers)
    return result


def _unknown(node: Any) -> str | None:
    """The name of an operation without a rule."""
    if getattr(node, "_forward_cls", None) in (_Propagation, _Seed):
        return None
    name = re.sub(r"Backward\d*$", "", node.name().rpartition("::")[2])
    return None if name in _MOVES.split() else name


def _meaning(name: str) -> str:
    return next((meaning for beginning, meaning in _MEANINGS.items() if name.startswith(beginning)), name)


def _spelled(names: str) -> Iterator[Any]:
    """Every torch function of these names, as function, method or in place."""
    for owner in (torch, Tensor, F, torch._C._nn):
        for name in names.split():
            if (func := getattr(owner, name, None)) is not None:
                yield func


_TRANSPOSED = frozenset(_spelled("conv_transpose1d conv_transpose2d conv_transpose3d"))
_SUMS = frozenset(_spelled("add add_ sub sub_ subtract __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ rsub"))
_POOLS = "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"
_PRODUCTS = "mul mul_ div div_ true_divide __mul__ __rmul__ __imul__ __truediv__ __itruediv__ __div__"
_ACTIVATIONS = "leaky_relu leaky_relu_ elu elu_ selu selu_ celu celu_ gelu silu hardswish mish tanh tanh_ prelu"
_RELUS = "relu relu_ relu6 hardtanh hardtanh_ threshold threshold_ clamp clamp_ clip clip_ clamp_min clamp_min_"

_RULES: dict[Any, Callable[[_Call, float], Tensor | None]] = {
    **dict.fromkeys(_spelled("linear conv1d conv2d conv3d"), _layer),
    **dict.fromkeys(_TRANSPOSED, _layer),
    F.batch_norm: _batch_norm,
    **dict.fromkeys(_SUMS, _share),
    **dict.fromkeys(_spelled(f"{_POOLS} mean sum interpolate"), _share),
    **dict.fromkeys(_spelled(f"{_PRODUCTS} {_ACTIVATIONS}"), _pass),
    **dict.fromkeys(_spelled(_RELUS), _relu),
}
"""By function; one whose rule returns None runs as it is, and what it leaves in the graph is refused."""
