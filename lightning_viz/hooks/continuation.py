"""Passes that change a layer's output, and take what comes before the layer from an earlier pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.hooks.calls import call_model
from lightning_viz.hooks.observe import Forward
from lightning_viz.hooks.pytree import map_tensors, replace_first_tensor, take_samples

Change = Callable[[Tensor], Tensor]


class ReplayError(Exception):
    """The model called its modules in another order than before."""


class Continuation:
    """A layer's call, from which passes of copies of the samples go on.

    Modules that returned before the call are not run again: they return what they returned to the recorded pass. Both
    passes are for `observe`, as its ``forward=``. The hooks and stand-ins last for that pass alone.

    Args:
        layer: whose output is changed.
        call: which of its calls in a pass.
        count: number of samples.
        forward: calls the model, if not ``model(inputs)``.
    """

    def __init__(self, layer: nn.Module, call: int, count: int, forward: Forward | None = None) -> None:
        self._layer, self._call, self._count, self._forward = layer, call, count, forward
        self._returned: list[tuple[nn.Module, Any]] = []
        self.shortened = True
        """Whether passes leave out what comes before the layer; they run everything if not."""

    def record(self, model: nn.Module, inputs: Any) -> Any:
        """A pass as it is, that keeps what modules return before the layer, and what the layer returns."""
        returned: list[list[tuple[nn.Module, Any]]] = [[]]  # to each module that runs, from the outermost
        calls, before = 0, None

        def enter(module: nn.Module, args: Any) -> None:
            nonlocal calls, before
            if module is self._layer:
                if calls == self._call:
                    before = [each for of_one in returned for each in of_one]
                calls += 1
            returned.append([])

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            returned.pop()
            if before is None:
                returned[-1].append((module, map_tensors(output, torch.clone)))
            elif module is self._layer and not self._returned:
                self._returned = [*before, (module, map_tensors(output, torch.clone))]

        with ExitStack() as handles:
            for module in model.modules():
                if not isinstance(module, torch.jit.ScriptModule):  # which is run again
                    handles.callback(module.register_forward_pre_hook(enter).remove)
                    handles.callback(module.register_forward_hook(leave).remove)
            outputs = call_model(model, inputs, self._forward)
        self.shortened = bool(self._returned) and all(self._of_samples(output) for _, output in self._returned)
        return outputs

    def changed(self, samples: Tensor, change: Change) -> Forward:
        """A pass of copies of the samples, with the layer's first tensor changed.

        Args:
            samples: of each copy its sample's index ``[n]``.
            change: of the layer's output for these copies.
        """

        def forward(model: nn.Module, inputs: Any) -> Any:
            with self._replayed(samples, change) if self.shortened else self._hooked(change):
                return call_model(model, inputs, self._forward)

        return forward

    @contextmanager
    def _replayed(self, samples: Tensor, change: Change) -> Iterator[None]:
        waiting = iter(self._returned)
        left = len(self._returned)

        def stand_in(module: nn.Module, own: Callable[..., Any]) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                if not left:
                    return own(*args, **kwargs)
                expected, output = next(waiting)
                if expected is not module:
                    raise ReplayError
                left -= 1
                copies = map_tensors(output, lambda x: take_samples(x, samples, self._count))
                return copies if left else replace_first_tensor(copies, change)

            return forward

        with ExitStack() as undone:
            for module in dict.fromkeys(module for module, _ in self._returned):
                attributes = vars(module)
                undone.callback(attributes.__setitem__, "forward", attributes["forward"]) if (
                    "forward" in attributes
                ) else undone.callback(attributes.pop, "forward", None)
                attributes["forward"] = stand_in(module, module.forward)
            yield

    @contextmanager
    def _hooked(self, change: Change) -> Iterator[None]:
        calls = 0

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            nonlocal calls
            calls += 1
            return replace_first_tensor(output, change) if calls == self._call + 1 else output

        handle = self._layer.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def _of_samples(self, output: Any) -> bool:
        """Whether an output holds nothing but tensors of one row for each sample."""
        if isinstance(output, Tensor):
            return output.dim() > 0 and len(output) == self._count
        parts = output.values() if isinstance(output, Mapping) else output
        return isinstance(output, (Mapping, tuple, list)) and all(map(self._of_samples, parts))
