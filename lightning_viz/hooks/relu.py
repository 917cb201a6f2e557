"""Backward rules at ReLUs: backpropagation, deconvolution and guided backpropagation, however ReLU is called."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_viz.errors import InvalidArgumentError

__all__ = ["relu_rule"]

Rule: TypeAlias = Literal["backprop", "deconvolution", "guided"]
_Bounds: TypeAlias = tuple[Any, Any, bool]  # lower, upper, in place

# Which gradients g pass; `on` is where the ReLU's derivative is one.
_PASSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "backprop": lambda on, g: on,
    "deconvolution": lambda on, g: g > 0,
    "guided": lambda on, g: on & (g > 0),
}

# The functions that can be a ReLU, with torch's signature after the input; a call is one if its bounds are a ReLU's.
_BOUNDS: dict[str, Callable[..., _Bounds]] = {
    "relu": lambda inplace=False: (0, None, inplace),
    "relu6": lambda inplace=False: (0, 6, inplace),
    "hardtanh": lambda min_val=-1, max_val=1, inplace=False: (min_val, max_val, inplace),
    "threshold": lambda threshold, value, inplace=False: (threshold if value == 0 else None, None, inplace),
    "clamp": lambda min=None, max=None: (min, max, False),
    "clip": lambda min=None, max=None: (min, max, False),
    "clamp_min": lambda min: (min, None, False),
}

# The nodes of plain ReLU calls in autograd's graph, and their saved bounds.
_NODES: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "ReluBackward0": lambda node: (0, None),
    "HardtanhBackward0": lambda node: (node._saved_min_val, node._saved_max_val),
    "ThresholdBackward0": lambda node: (node._saved_threshold, None),
    "ThresholdBackward1": lambda node: (node._saved_threshold, None),
    "ClampBackward1": lambda node: (node._saved_min, node._saved_max),
    "ClampMinBackward0": lambda node: (node._saved_min, None),
}

# The nodes of other activation functions, for which there is no rule.
_OTHERS = {
    "GeluBackward0": "GELU",
    "SiluBackward0": "SiLU",
    "HardswishBackward0": "Hardswish",
    "EluBackward0": "ELU",
    "LeakyReluBackward0": "LeakyReLU",
    "PreluKernelBackward0": "PReLU",
    "SoftplusBackward0": "Softplus",
    "MishBackward0": "Mish",
    "TanhBackward0": "tanh",
    "SigmoidBackward0": "sigmoid",
    "HardsigmoidBackward0": "hard sigmoid",
}

# Nodes of whole graphs, compiled or recomputed without the rule, whose content is unknown.
_OPAQUE = ("DifferentiableGraphBackward", "CompiledFunctionBackward", "CheckpointFunctionBackward")


def relu_rule(rule: Rule) -> "ReLURule":
    r"""ReLU rule: sets the backward rule of every ReLU called in the ``with`` block, also for a later backward.

    With :math:`s` the input of the ReLU and :math:`g` the gradient of its output, the gradient of its input is

    .. math::
        \text{backprop:}\ 1[s > 0]\, g \qquad
        \text{deconvolution:}\ 1[g > 0]\, g \qquad
        \text{guided:}\ 1[s > 0]\, 1[g > 0]\, g

    (Zeiler & Fergus, 2014, "Visualizing and Understanding Convolutional Networks"; Springenberg et al., 2015,
    "Striving for Simplicity: The All Convolutional Net"). A ReLU6 reads :math:`0 < s < 6` for :math:`s > 0`.

    A ReLU is a call that computes :math:`\max(s, 0)` or :math:`\min(\max(s, 0), 6)` of a floating-point tensor by
    ``relu``, ``relu6``, ``hardtanh``, ``threshold``, ``clamp``, ``clip`` or ``clamp_min``, with its bounds given as
    numbers: as module, function, method or ``aten`` operator, in place or not. Everything else keeps its gradient:
    other bounds, tensors as bounds, ``leaky_relu`` of any slope, ``maximum``, ``where``, GELU, SiLU. Outputs and
    in-place behavior are unchanged.

    Calls outside Python or on another thread cannot be intercepted: see :meth:`ReLURule.escaped`. Call compiled modules
    under ``torch.compiler.set_stance("force_eager")``.

    Args:
        rule: "backprop" only counts calls and keeps autograd's gradient (which a clamp also passes at s = 0);
            "deconvolution" and "guided" replace it.

    Returns:
        The context manager, which yields itself and counts the calls.

    Raises:
        InvalidArgumentError: the rule does not exist.

    Example:
        >>> x = torch.tensor([-1.0, 2.0, 3.0], requires_grad=True)
        >>> with relu_rule("guided") as relus:
        ...     y = torch.tensor([1.0, 1.0, -1.0]) @ torch.relu(x)
        ...     (gradient,) = torch.autograd.grad(y, x)
        >>> gradient, relus.met, relus.escaped(y)
        (tensor([0., 1., 0.]), 1, [])
    """
    return ReLURule(rule)


class ReLURule(TorchFunctionMode):
    """Context manager of :func:`relu_rule`.

    Attributes:
        rule: the current rule. It may be changed between two backwards through one forward; a forward under "backprop"
            keeps autograd's gradient.
        met: number of ReLU calls so far.
    """

    def __init__(self, rule: Rule) -> None:
        if rule not in get_args(Rule):
            raise InvalidArgumentError(f"unknown ReLU rule {rule!r}; use one of {', '.join(map(repr, get_args(Rule)))}")
        super().__init__()
        self.rule: Rule = rule
        self.met = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        relu = _read(func, args, kwargs) if func in _SPELLINGS else None
        if relu is None:
            return func(*args, **kwargs)
        self.met += 1
        return func(*args, **kwargs) if self.rule == "backprop" else _RuledReLU.apply(relu.input, relu, self)

    def escaped(self, output: Tensor, model: nn.Module | None = None) -> list[str]:
        """ReLUs in the graph of `output` that did not follow the rule.

        TorchScript, compiled graphs, other threads (``DataParallel``), reentrant checkpoints and ``nn.RNN`` bypass the
        rule, which their nodes in autograd's graph reveal. A plain ``threshold(x, 0, value)`` looks like a ReLU there
        and is reported. Not detected: a ReLU inside a custom operator or cuDNN's ``nn.RNN``, and an escaped in-place
        call on a view (``CopySlices``).

        Args:
            output: any result of the forward that has a graph, before or after its backward.
            model: searched for traced and scripted modules, to name them.

        Returns:
            For example ``["3 ReluBackward0", "traced or scripted module 'features'"]``; empty if every ReLU followed.
        """
        if self.rule == "backprop":
            return []
        counts = Counter(filter(None, map(_escapee, graph_nodes(output))))
        names = [f"{count} {name}" for name, count in sorted(counts.items())]
        return names + scripted_parts(model) if names and model is not None else names

    @staticmethod
    def others(output: Tensor) -> list[str]:
        """Activation functions without a rule in the graph of `output`, for example ``["12 GELU"]``."""
        counts = Counter(_OTHERS[name] for node in graph_nodes(output) if (name := node.name()) in _OTHERS)
        return [f"{count} {name}" for name, count in sorted(counts.items())]


class _Call(NamedTuple):
    """A call that is a ReLU, with its arguments bound."""

    input: Tensor
    plain: Callable[[Tensor], Tensor]
    ceiling: float
    in_place: bool
    keeps_result: bool
    closed: bool  # autograd's derivative is one at the bounds, too


class _RuledReLU(torch.autograd.Function):
    """The original forward with the backward of the rule."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, relu: _Call, mode: ReLURule) -> Tensor:
        if relu.in_place:
            ctx.mark_dirty(s)
        before = s.clone() if relu.in_place and not relu.keeps_result else s
        result = relu.plain(s)
        # Save what autograd would save, so that checkpoints can recompute it and later in-place calls stay allowed.
        ctx.save_for_backward(result if relu.keeps_result else before)
        ctx.ceiling, ctx.closed, ctx.mode = relu.ceiling, relu.closed, mode
        return result

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        (saved,) = ctx.saved_tensors
        if ctx.closed and ctx.mode.rule == "backprop":
            on = (saved >= 0) & (saved <= ctx.ceiling)
        else:
            on = saved > 0 if ctx.ceiling == math.inf else (saved > 0) & (saved < ctx.ceiling)
        return torch.where(_PASSES[ctx.mode.rule](on, g), g, 0), None, None


def relu_ceiling(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """The upper bound of a call that is a ReLU, 6 or infinity; None if it is none.

    Args:
        func: torch's function, as a `TorchFunctionMode` sees it.
        args: of the call.
        kwargs: likewise.
    """
    call = _read(func, args, kwargs) if func in _SPELLINGS else None
    return None if call is None else call.ceiling


def _spellings() -> Iterator[tuple[Any, str]]:
    """Every torch function that can be a ReLU, with its name."""
    for owner in (torch, Tensor, F, torch._C._nn, torch.ops.aten):
        for name in (name + suffix for name in _BOUNDS for suffix in ("", "_")):
            if (func := getattr(owner, name, None)) is not None:
                yield func, name
                if owner is torch.ops.aten:  # exported graphs call the overload
                    yield func.default, name


_SPELLINGS = dict(_spellings())


def _read(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
    """The call if it is a ReLU, else None."""
    options = dict(kwargs)
    s, *rest = args or (options.pop("self" if "self" in options else "input"),)
    if "out" in options or not s.is_floating_point():
        return None
    name = _SPELLINGS[func]
    lower, upper, in_place = _BOUNDS[name.rstrip("_")](*rest, **options)
    ceiling = _ceiling(lower, upper)
    if ceiling is None:
        return None
    return _Call(
        input=s,
        plain=lambda s: func(s, *rest, **options),
        ceiling=ceiling,
        in_place=in_place or name.endswith("_"),
        keeps_result=name in ("relu", "relu_"),
        closed=name.startswith("cl"),
    )


def _ceiling(lower: Any, upper: Any) -> float | None:
    """The upper bound of a ReLU, 6 or infinity; None if the bounds are not a ReLU's."""
    ceiling = math.inf if upper is None else upper
    if any(isinstance(bound, Tensor) for bound in (lower, upper)) or lower != 0 or ceiling not in (6, math.inf):
        return None
    return float(ceiling)


def graph_nodes(*tops: Any) -> Iterator[Any]:
    """Every node of autograd's graph below tensors or nodes, these included."""
    stack, visited = [top.grad_fn if isinstance(top, Tensor) else top for top in tops], set()
    while stack:
        node = stack.pop()
        if node is not None and node not in visited:
            visited.add(node)
            stack.extend(below for below, _ in node.next_functions)
            yield node


def _escapee(node: Any) -> str | None:
    """Name of a node that is or may contain a plain ReLU; None for any other."""
    name: str = node.name().rpartition("::")[2]
    if name in _OPAQUE:
        return name
    return name if name in _NODES and _ceiling(*_NODES[name](node)) is not None else None


def scripted_parts(model: nn.Module) -> list[str]:
    """The names of the outermost TorchScript modules."""
    names: list[str] = []
    for name, module in model.named_modules():
        inside = any(outer == "" or name.startswith(f"{outer}.") for outer in names)
        if isinstance(module, torch.jit.ScriptModule) and not inside:
            names.append(name)
    return [f"traced or scripted module {name!r}" if name else "the model is traced or scripted" for name in names]
