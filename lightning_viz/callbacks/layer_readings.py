"""What views read of their layers' outputs, or of the model's, batch by batch: hooks, and sums over the batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.callbacks.entrances import is_compiled, is_redirected
from lightning_viz.errors import InvalidArgumentError, InvalidTypeError
from lightning_viz.hooks.geometry import Geometry, Layout, watch_geometry
from lightning_viz.hooks.outputs import OutputKnowledge
from lightning_viz.hooks.pytree import all_tensors, first_tensor, map_tensors
from lightning_viz.hooks.shards import Outputs, whole_outputs

OUTPUT = "output"
"""Name under which the model itself stands among layers."""


@dataclass(frozen=True)
class Batch:
    """A batch of the samples that pass.

    Attributes:
        inputs: as the model takes them, where it is.
        labels: classes ``[n]``; None where they are not known.
        numbers: of the samples, each its own ``[n]``; the rest of the batch are doubles and do not count.
        knowledge: of the step that it passes through, which tells what the model's output means; None if there is none.
    """

    inputs: Any
    labels: Tensor | None
    numbers: NDArray[np.int64]
    knowledge: OutputKnowledge | None = None

    def __len__(self) -> int:
        return len(all_tensors(self.inputs)[0])

    def sample(self, row: int) -> tuple[Any, int | None]:
        """The inputs of one sample, a batch of one on the CPU, and its class."""
        with torch.inference_mode(False):  # else what is kept could not be computed with later
            inputs = map_tensors(self.inputs, lambda x: x[row : row + 1].detach().cpu().clone())
        return inputs, None if self.labels is None else int(self.labels[row])


class Reading(NamedTuple):
    """What a view takes of a layer's output in a batch.

    Attributes:
        numbers: one-dimensional, float64 as a rule, small, still on the layer's device.
        add: from these on the CPU, the batch, and what was summed up before (None before the first), to the new sum.
    """

    numbers: Tensor
    add: Callable[[NDArray[np.float64], Batch, Any], Any]


class Reader(Protocol):
    """A view that reads its layers' outputs for a whole population."""

    @property
    def name(self) -> str:
        """Tells it from others."""

    @property
    def by_sample(self) -> bool:
        """Whether it needs outputs with a row for each sample, and their layout; else it takes any as it is."""

    def read(self, call: str, module: nn.Module, output: Tensor, layout: Layout) -> Reading:
        """What to take of a layer's output for a batch ``[n, ...]``; nothing that waits for the device."""


@runtime_checkable
class OutputReader(Reader, Protocol):
    """A view that reads what layers, or the model itself, return: tensors, or any structure of them."""

    def read_output(self, output: Any, batch: Batch) -> Reading:
        """What to take of what was returned for a batch; nothing that waits for the device."""


class Accumulator:
    """Sums up what views read of their layers' outputs: hooks around each batch, one transfer to the CPU after it.

    What goes wrong in a hook does not reach the forward pass.

    Attributes:
        sums: by view and call.
        faults: the first of each view, which then reads no more.
    """

    def __init__(self) -> None:
        self.sums: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, Exception] = {}
        self._watch = ExitStack()  # of the hooks
        self._readings: list[tuple[str, str, Reading]] = []
        self._batch: Batch | None = None
        self._of_model: list[OutputReader] = []  # that read what the model returns

    def open(self, model: nn.Module, batch: Batch, layers: Sequence[tuple[Reader, Mapping[str, nn.Module]]]) -> None:
        """Register hooks, for a batch that is about to pass.

        Args:
            model: that it passes through; what is compiled in it is left alone.
            batch: on the model's device.
            layers: by view, those that it reads, the model itself as `OUTPUT`.
        """
        self.close()
        self._batch = batch
        self._of_model = [view for view, modules in layers if isinstance(view, OutputReader) and OUTPUT in modules]
        outputs = self._watch.enter_context(whole_outputs(model))
        geometry = self._watch.enter_context(watch_geometry(model, batch.inputs, skip=is_compiled))
        for view, modules in layers:
            if view.name not in self.faults:
                for name, module in modules.items():
                    self._register(view, name, module, batch, geometry, outputs)

    def reread(self, batch: Batch) -> bool:
        """Tell the parts of the batch that has passed better than before; whether the model is to be run on them again.

        The hooks are removed.

        Args:
            batch: the same one.
        """
        self._watch.close()  # what runs again is not read by the others
        self._batch = batch
        names = [view.name for view in self._of_model]
        self._readings = [reading for reading in self._readings if reading[0] not in names]
        for name in names:
            self.faults.pop(name, None)
        return bool(names)

    def returned(self, output: Any) -> None:
        """What the model returned for the batch, run for views that read that.

        Args:
            output: of the model.
        """
        for view in self._of_model:
            self._take(view, f"{OUTPUT}:0", output)

    def close(self) -> None:
        """Remove the hooks, and add up what they read."""
        self._watch.close()
        batch, self._batch = self._batch, None
        readings = [reading for reading in self._readings if reading[0] not in self.faults]
        self._readings = []
        if batch is None or not readings:
            return
        parts = [reading.numbers for *_, reading in readings if len(reading.numbers)]  # those without may lie anywhere
        together = torch.cat(parts or [torch.zeros(0)]).cpu().double().numpy()
        ends = np.cumsum([len(reading.numbers) for *_, reading in readings])
        for (view, call, reading), numbers in zip(readings, np.split(together, ends[:-1]), strict=True):
            try:
                sums = self.sums.setdefault(view, {})
                sums[call] = reading.add(numbers, batch, sums.get(call))
            except Exception as error:
                self._fail(view, error)

    def _register(
        self, view: Reader, name: str, module: nn.Module, batch: Batch, geometry: Geometry, outputs: Outputs
    ) -> None:
        """Have a layer's outputs read; of a module through which Lightning leads its step not what the step returns."""
        redirected: list[bool] = []
        if name == OUTPUT:
            if is_compiled(module):
                return
            before = module.register_forward_pre_hook(lambda module, _: redirected.append(is_redirected(module)))
            self._watch.callback(before.remove)
        hook = self._hook(view, name, batch, geometry, outputs, redirected)
        self._watch.callback(module.register_forward_hook(hook, prepend=outputs.first(module)).remove)

    def _take(self, view: OutputReader, call: str, output: Any) -> None:
        """Read what was returned for the batch."""
        try:
            if self._batch is not None and len(self._batch.numbers) and view.name not in self.faults:
                self._readings.append((view.name, call, view.read_output(output, self._batch)))
        except Exception as error:
            self._fail(view.name, error)

    def _hook(
        self,
        view: Reader,
        layer: str,
        batch: Batch,
        geometry: Geometry,
        outputs: Outputs,
        redirected: list[bool],
    ) -> Callable[[nn.Module, Any, Any], None]:
        calls, size, valid = 0, len(batch), len(batch.numbers)

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            nonlocal calls
            if redirected and redirected.pop():
                return
            call, calls = f"{layer}:{calls}", calls + 1
            if isinstance(view, OutputReader):
                self._take(view, call, output)
                return
            if view.name in self.faults:
                return
            try:
                tensor = first_tensor(output)
                if tensor is not None:
                    tensor, _ = outputs.whole(inputs, tensor, layer)
                if not view.by_sample:
                    if tensor is not None and tensor.dim() and tensor.numel() and valid:
                        counted = tensor[:valid] if len(tensor) == size else tensor
                        self._readings.append((view.name, call, view.read(call, module, counted.detach(), Layout())))
                    return
                if tensor is None:
                    raise InvalidTypeError(f"layer {layer!r} puts out no tensor of floating-point numbers")
                if tensor.dim() == 0 or len(tensor) != size:
                    shape = list(tensor.shape)
                    raise InvalidArgumentError(f"layer {layer!r} puts out {shape} for a batch of {size} samples")
                layout = geometry.layout(module, inputs, tensor, layer)
                if valid:
                    counted = tensor[:valid].detach()
                    counted = counted[:, None] if counted.dim() == 1 else counted  # one unit
                    self._readings.append((view.name, call, view.read(call, module, counted, layout)))
            except Exception as error:
                self._fail(view.name, error)

        return hook

    def _fail(self, view: str, error: Exception) -> None:
        error.__traceback__ = None  # holds the tensors of the batch
        self.faults[view] = error
