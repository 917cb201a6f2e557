"""What is true of a network, found without hooks, modes or any tool, ours included: oracle of tests and benchmarks."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INFINITY = float("inf")


class Reference(torch.autograd.Function):
    """A ReLU of our own, with its backward rule."""

    @staticmethod
    def forward(ctx, s, rule, top):
        ctx.rule, ctx.derivative = rule, ((s > 0) & (s < top)).to(s.dtype)
        return torch.where(s > top, top, torch.where(s > 0, s, 0.0)).to(s.dtype)

    @staticmethod
    def backward(ctx, g):
        positive = torch.maximum(g, torch.zeros_like(g))
        if ctx.rule == "deconvolution":
            return positive, None, None
        return (g if ctx.rule == "backprop" else positive) * ctx.derivative, None, None


@contextmanager
def reference_rule(rule: str) -> Iterator[None]:
    """While this lasts, torch's own names of a ReLU lead to `Reference`."""

    def relu(input, inplace=False, top=INFINITY):
        y = Reference.apply(input, rule, top)
        return input.copy_(y) if inplace else y

    def relu6(input, inplace=False):
        return relu(input, inplace, top=6.0)

    def hardtanh(input, min_val=-1.0, max_val=1.0, inplace=False):
        assert min_val == 0
        return relu(input, inplace, top=max_val)

    def threshold(input, threshold, value, inplace=False):
        assert threshold == value == 0
        return relu(input, inplace)

    def clamp(input, min=None, max=None):
        assert min == 0
        return relu(input, top=INFINITY if max is None else max)

    functions = {"relu": relu, "relu6": relu6, "hardtanh": hardtanh, "threshold": threshold}
    functions |= {"clamp": clamp, "clip": clamp, "clamp_min": clamp}
    with ExitStack() as patches:
        for name, function in functions.items():

            def in_place(input, *args, function=function, **kwargs):
                return input.copy_(function(input, *args, **kwargs))

            for owner in (torch, torch.Tensor, F, torch._C._nn):
                if hasattr(owner, name):
                    patches.enter_context(patch.object(owner, name, function))
                if hasattr(owner, name + "_"):
                    patches.enter_context(patch.object(owner, name + "_", in_place))
        yield


def input_gradient(model: nn.Module, x: Tensor, target: int, rule: str | None = None) -> Tensor:
    """The target's gradient towards the input, plain or under a rule at ReLUs."""
    x = x.clone().requires_grad_()
    with reference_rule(rule) if rule else ExitStack():
        return torch.autograd.grad(model(x)[:, target].sum(), x)[0]


def convolution_evidence(model: nn.Module, x: Tensor, target: int) -> dict[str, Tensor]:
    """Grad-CAM before its ReLU, ``sum_k alpha_k A^k`` ``[N, 1, H, W]``, of every convolution by name.

    To each convolution's output a zero is added: the gradient towards that zero is the one towards the output, and
    whatever is done in place later is done to the sum.
    """
    names = {module: name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    outputs, zeros = {}, {}
    plain = nn.Conv2d.forward

    def probed(self, input):
        y = plain(self, input)
        name = names[self]
        assert name not in outputs, f"convolution {name!r} is called twice"
        outputs[name] = y.detach().clone()
        zeros[name] = torch.zeros_like(y, requires_grad=True)
        return y + zeros[name]

    with patch.object(nn.Conv2d, "forward", probed):
        score = model(x)[:, target].sum()
    slopes = torch.autograd.grad(score, list(zeros.values()))
    evidence = {}
    for (name, activation), slope in zip(outputs.items(), slopes, strict=True):
        evidence[name] = torch.einsum("nk,nkhw->nhw", slope.mean((2, 3)), activation)[:, None]
    return evidence
