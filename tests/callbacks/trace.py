"""All that training does, step by step, in a form that can be compared bit for bit."""

import hashlib
import itertools
import random
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import _get_current_function_mode_stack
from torch.utils.data import Dataset

from lightning_viz.callbacks.run import Callback
from lightning_viz.callbacks.step_watch import StepWatch

_ABSENT = "absent"
_NOT_OF_THE_RUN = {"_modules", "_torchdynamo_wrapper_id"}  # the submodules, which come by themselves; a process's count


@dataclass
class Trace:
    """What was found at each event of a run: name of the event, then every value by its path."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def add(self, event: str, **values: Any) -> None:
        found: dict[str, Any] = {}
        for name, value in values.items():
            _flatten(name, value, found)
        self.events.append((event, found))

    @property
    def values(self) -> int:
        return sum(len(found) for _, found in self.events)

    def kinds(self) -> Counter[str]:
        """How many values there are of weights, losses, ..."""
        return Counter(path.split("/")[0] for _, found in self.events for path in found)


def differences(one: Trace, other: Trace) -> list[str]:
    """Where two runs part: event and path of every value that is not the same, to the bit."""
    found = []
    for number, pair in enumerate(itertools.zip_longest(one.events, other.events, fillvalue=(_ABSENT, {}))):
        (event, left), (name, right) = pair
        if event != name:
            found.append(f"{number}: {event} against {name}")
            continue
        paths = [path for path in {**left, **right} if left.get(path, _ABSENT) != right.get(path, _ABSENT)]
        found += [f"{number} ({event}): {path}" for path in paths]
    return found


class Recorder(Callback):
    """Writes down everything at every event of a run; one stands before the views and one behind them."""

    def __init__(self, trace: Trace, place: str, watched: Mapping[str, Any]) -> None:
        self._trace, self._place, self._watched = trace, place, watched

    def _record(self, event: str, trainer: Any, module: nn.Module, **more: Any) -> None:
        self._trace.add(
            f"{event}, {self._place} the views",
            model=dict(_described(module)),
            optimizers=[optimizer.state_dict() for optimizer in trainer.optimizers],
            schedulers=[config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            random=_randomness(),
            torch=_settings(),
            watched=self._watched,
            trainer=_loops(trainer),
            metrics=[trainer.callback_metrics, trainer.logged_metrics],
            **more,
        )

    def on_sanity_check_end(self, trainer, module):
        self._record("sanity check end", trainer, module)

    def on_train_start(self, trainer, module):
        self._record("train start", trainer, module)

    def on_train_epoch_start(self, trainer, module):
        self._record("epoch start", trainer, module)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self._record("batch start", trainer, module, batch=batch)

    def on_before_zero_grad(self, trainer, module, optimizer):
        self._record("before zero_grad", trainer, module)

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self._record("before the optimizer's step", trainer, module)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self._record("batch end", trainer, module, loss=outputs, batch=batch)

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        self._record("validation batch start", trainer, module, batch=batch)

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        self._record("validation batch end", trainer, module, loss=outputs, batch=batch)

    def on_train_epoch_end(self, trainer, module):
        self._record("epoch end", trainer, module)

    def on_train_end(self, trainer, module):
        self._record("train end", trainer, module)

    def on_fit_end(self, trainer, module):
        self._record("fit end", trainer, module)


def _described(model: nn.Module) -> Any:
    """Every attribute of every submodule: weights and their gradients, buffers, modes, hooks, counters, generators."""
    for name, module in model.named_modules():
        yield name or "itself", {key: value for key, value in vars(module).items() if key not in _NOT_OF_THE_RUN}


def _loops(trainer: Any) -> list[Any]:
    loop = trainer.fit_loop.epoch_loop
    return [
        trainer.global_step,
        trainer.current_epoch,
        loop._batches_that_stepped,
        loop.batch_idx,
        trainer.should_stop,
        str(trainer.state.fn),
        str(trainer.state.stage),
    ]


def _randomness() -> list[Any]:
    return [random.getstate(), np.random.get_state(), torch.get_rng_state()]


def _settings() -> list[Any]:
    """What of torch's global settings decides how a step is computed."""
    dynamo = sys.modules.get("torch._dynamo")
    return [
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        str(torch.get_default_dtype()),
        torch.get_num_threads(),
        sum(not isinstance(mode, StepWatch) for mode in _get_current_function_mode_stack()),  # which passes all on
        dynamo and dynamo.eval_frame._stance.stance,
        dynamo and dynamo.utils.counters["stats"]["unique_graphs"],
    ]


def _flatten(path: str, value: Any, found: dict[str, Any]) -> None:
    """Enter a value, or what it is made of, as something that is equal only if every bit is."""
    if is_lazy(value):
        found[path] = type(value).__qualname__
    elif isinstance(value, Tensor):
        found[path] = _bits(value), value.requires_grad
        if value.is_leaf and value.grad is not None:
            found[f"{path}.grad"] = _bits(value.grad)
    elif isinstance(value, np.ndarray):
        found[path] = str(value.dtype), value.shape, value.tobytes()
    elif isinstance(value, torch.Generator):
        found[path] = _bits(value.get_state())
    elif isinstance(value, random.Random):
        found[path] = _short(repr(value.getstate()).encode())
    elif isinstance(value, np.random.Generator):
        found[path] = repr(value.bit_generator.state)
    elif isinstance(value, Dataset) or type(value).__name__ == "Outside":
        _flatten(path, vars(value), found)
    elif isinstance(value, Mapping):
        arbitrary = "_hooks" in path or "_metric_attributes" in path  # keys from a counter of all hooks, and addresses
        for number, (key, part) in enumerate(value.items()):
            _flatten(f"{path}/{number if arbitrary else key}", part, found)
        found[f"{path}/length"] = len(value)
    elif isinstance(value, (list, tuple)) and len(value) < 100:
        for number, part in enumerate(value):
            _flatten(f"{path}/{number}", part, found)
        found[f"{path}/length"] = len(value)
    elif isinstance(value, (int, float, str, bytes, tuple, list, set, type(None))):
        found[path] = _short(repr(value).encode())
    else:
        found[path] = getattr(value, "__qualname__", type(value).__qualname__)


def _bits(tensor: Tensor) -> tuple[Any, ...]:
    flat = tensor.detach().reshape(-1).contiguous()
    return str(tensor.dtype), tuple(tensor.shape), _short(flat.view(torch.uint8).numpy().tobytes())


def _short(content: bytes) -> bytes:
    return content if len(content) <= 64 else hashlib.blake2b(content, digest_size=16).digest()
