"""Watches a module's own step once: what it passes to its outermost calls of modules, and what it does with outputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_viz.callbacks.batch_parts import (
    BatchReading,
    Source,
    keep_reading,
    tensors_of,
)
from lightning_viz.callbacks.batch_sources import channels_last, list_of_images, same_memory, source_of
from lightning_viz.callbacks.entrances import entrances, is_compiled, is_redirected
from lightning_viz.callbacks.given_labels import named_labels, without_labels
from lightning_viz.callbacks.output_uses import Meeting, form_of_meeting
from lightning_viz.callbacks.probe import Probe
from lightning_viz.callbacks.true_objects import are_objects, objects_path
from lightning_viz.hooks.calls import CallStep, Constant, Returned, Slot, padded
from lightning_viz.hooks.pytree import Path, all_tensors, map_leaves, sample_count

_LOSSES = frozenset(
    [
        *("cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss"),
        *("l1_loss", "smooth_l1_loss", "huber_loss", "multi_margin_loss", "multilabel_margin_loss", "kl_div"),
        *("multilabel_soft_margin_loss", "soft_margin_loss", "hinge_embedding_loss", "poisson_nll_loss", "ctc_loss"),
        *("gaussian_nll_loss", "cosine_embedding_loss", "margin_ranking_loss", "triplet_margin_loss"),
    ]
)
_SQUASHING = ("softmax", "sigmoid")
_BOUNDING = ("clamp", "clamp_min", "clip", "add", "__add__")  # between a probability's logarithm and the loss, say
UNSEEN: Any = object()
"""The batch of a step that alone knows it: what the step gives its first call by name stands for it."""

_FAST_PATHS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)

_KEPT = 64  # samples of inputs that only the step can make


@dataclass
class _Outermost:
    """One call of a module by the step.

    Attributes:
        step: the call, with slots in the watch's own list of tensors.
        given: the tensors that it was given.
        origins: of them.
        trained: whether it may be the model: not one of which no weight is trained.
        output: what it returned.
        squashed: function that the output comes out of.
        loss: that was computed inside.
    """

    step: CallStep
    given: list[Tensor]
    origins: list[frozenset[Any]]
    trained: bool
    output: Any = None
    squashed: str = ""
    loss: str = ""


def _has_fast_path(module: nn.Module) -> bool:
    """Whether a function mode would keep it off torch's fast path, whose results differ in the last digits."""
    return not module.training and isinstance(module, _FAST_PATHS)


class StepWatch(TorchFunctionMode):
    """Watches one step, and changes nothing: everything is passed through as it is, no hook is registered.

    Modules are watched where all are called, which no module can tell; compiled ones from outside. Losses and metrics
    are no models.

    Args:
        model: the LightningModule.
        batch: that the step is given; `UNSEEN` where it alone knows it.
        replays: name of the step if it may be run again, for a part of it; ``training_step`` has an optimizer.
    """

    def __init__(self, model: nn.Module, batch: Any, *, replays: str = "") -> None:
        super().__init__()
        self._model, self._batch, self._replays = model, batch, replays
        self._parts = list(tensors_of(batch))
        self._origins: dict[int, frozenset[Any]] = {id(x): frozenset([path]) for path, x in self._parts}
        self._alive: list[Any] = []  # what has an origin, so that no id is given twice
        self._bounded: set[int] = set()  # outputs as they are, or kept away from 0
        self._logarithms: set[int] = set()  # of these
        self._open, self._inside, self._comparing = False, False, False
        self._squashed: deque[tuple[str, Tensor]] = deque(maxlen=4)
        self._losses: list[str] = []  # inside the call that runs
        self._inner_labels: list[Path] = []  # that these losses were given as they are in the batch
        self._tensors: list[Tensor] = []
        self._sources: list[Source | None] = []
        self._calls: list[_Outermost] = []
        self._meetings: list[Meeting] = []
        self._compared: set[int] = set()  # calls whose outputs meet those of others
        self._restore: Callable[[], Any] = bool

    def start(self) -> None:
        """Begin, right before the step."""
        known = {id(module): (name, is_compiled(module)) for name, module in entrances(self._model)}
        call = nn.Module.__call__

        def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if not self._open or self._comparing:
                return call(module, *args, **kwargs)
            name, compiled = known.get(id(module), (None, False))
            passes = name is None or is_redirected(module)
            with self._suspended() if _has_fast_path(module) or (compiled and not passes) else nullcontext():
                if name is None or passes or self._inside:
                    return call(module, *args, **kwargs)
                return self._passed(name, module, call, args, kwargs)

        nn.Module.__call__ = watched  # type: ignore[method-assign]
        self._restore = partial(setattr, nn.Module, "__call__", call)
        self.__enter__()  # type: ignore[no-untyped-call]
        self._open = True

    def stop(self) -> None:
        """End, right after the step, or after it has failed."""
        if self._open:
            self._open = False
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._restore()

    @contextmanager
    def _suspended(self) -> Iterator[None]:
        """Compiled code finds everything as it was compiled, or it would be compiled anew; fast paths are taken."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        watched = nn.Module.__call__
        self._restore()
        try:
            yield
        finally:
            nn.Module.__call__ = watched  # type: ignore[method-assign]
            self.__enter__()  # type: ignore[no-untyped-call]

    def _passed(self, name: str, module: nn.Module, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An outermost call, as it is."""
        with self._comparison():
            seen = self._begun(name, module, args, kwargs)
        self._inside = True
        try:
            output = call(module, *args, **kwargs)
        finally:
            self._inside = False
        with self._comparison():
            self._ended(seen, output)
        return output

    @contextmanager
    def _comparison(self) -> Iterator[None]:
        """Our own work on tensors is no part of the step."""
        self._comparing = True
        try:
            with torch.no_grad():
                yield
        finally:
            self._comparing = False

    def _begun(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Outermost:
        """A call, with what it is given, before it may write to it."""
        if self._batch is UNSEEN:
            self._batch, self._parts = kwargs, list(tensors_of(kwargs))
            self._origins.update({id(x): frozenset([path]) for path, x in self._parts})
        self._squashed.clear()
        self._losses.clear()
        parameters = list(module.parameters())
        args = tuple(x for x in args if not are_objects(x))  # in evaluation mode a detector needs no truth
        kwargs = {key: x for key, x in kwargs.items() if not are_objects(x)}
        step = CallStep(name, tuple(map(self._template, args)), {key: self._template(x) for key, x in kwargs.items()})
        trained = not parameters or any(parameter.requires_grad for parameter in parameters)
        given = all_tensors((args, kwargs))
        return _Outermost(step, given, [self._origin(x) for x in given], trained)

    def _ended(self, call: _Outermost, output: Any) -> None:
        tensors = [x for _, x in tensors_of(output)]
        earlier = [origin for origins in call.origins for origin in origins if isinstance(origin, int)]
        if earlier and not any(x.dim() for x in tensors):  # a loss written as a module
            name = type(self._model.get_submodule(call.step.module)).__name__
            self._meet(call.given, call.origins, next(iter(self._losses), name), False, is_loss=True)
            return
        call.output, call.loss = output, next(iter(self._losses), "")
        call.squashed = next(
            (name for name, result in self._squashed for x in tensors if x is result or same_memory(x, result)), ""
        )
        self._alive.append(output)
        for x in tensors:
            self._origins[id(x)] = frozenset([len(self._calls), *earlier])
            self._bounded.add(id(x))
        self._calls.append(call)

    def _template(self, given: Any) -> Any:
        """An argument with a slot, an earlier result or a constant for each of its tensors."""
        images = list_of_images(given, self._batch)
        if images is not None:
            first, second = (
                self._slot(x, Source(images, listed=part))
                for x, part in zip(padded(given), ("images", "sizes"), strict=True)
            )
            return Slot(first, sizes=second)
        return map_leaves(given, Tensor, self._leaf)

    def _leaf(self, x: Tensor) -> Slot | Returned | Constant:
        for index, call in enumerate(self._calls):
            for path, output in tensors_of(call.output):
                if output is x or (same_memory(output, x) and output.numel() == x.numel()):
                    return Returned(index, path, None if output.shape == x.shape else tuple(x.shape[1:]))
        for normalized in (False, True):
            for path, part in self._parts:
                if (found := source_of(part, x, path, normalized=normalized)) is not None:
                    source, given, shape = found
                    if shape is None and source.order is None and channels_last(x):
                        source, given = replace(source, order=(0, 3, 1, 2)), given.permute(0, 3, 1, 2)
                        return Slot(self._slot(given, source), order=(0, 2, 3, 1))
                    return Slot(self._slot(given, source), shape)
        count = sample_count(self._batch)
        if x.dim() > 0 and (not count or len(x) == count or not self._sources):
            return Slot(self._slot(x, None))
        return Constant(x)

    def _slot(self, tensor: Tensor, source: Source | None) -> int:
        if source is not None and source in self._sources:
            return self._sources.index(source)
        self._tensors.append(tensor.detach())
        self._sources.append(source)
        return len(self._sources) - 1

    # What the step does between the calls.

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass a function on, and see what comes of what."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._open and not self._comparing:
            name = getattr(func, "__name__", "")
            if self._inside:
                if name in _SQUASHING and isinstance(result, Tensor):
                    self._squashed.append((name, result))
                elif name in _LOSSES:
                    self._losses.append(name)
                    given = [self._origin(x) for x in all_tensors((list(args[1:]), kwargs))]
                    self._inner_labels += [path for some in given if len(some) == 1 for path in some]
            else:
                self._follow(name, all_tensors((list(args), kwargs)), all_tensors(result))
        return result

    def _follow(self, name: str, given: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        if name.endswith("_like") or name.startswith("new_"):  # takes the form alone
            return
        origins = [self._origin(x) for x in given]
        together = frozenset().union(*origins) if origins else frozenset()
        if not together:
            return
        self._meet(given, origins, name, any(id(x) in self._logarithms for x in given), is_loss=name in _LOSSES)
        for kept, passing in ((self._bounded, _BOUNDING), (self._logarithms, _BOUNDING)):
            if name in passing and any(id(x) in kept for x in given):
                kept.update(map(id, results))
        if name in ("log", "log_") and any(id(x) in self._bounded for x in given):
            self._logarithms.update(map(id, results))
        self._alive.append((given, results))
        for x in results:
            self._origins[id(x)] = self._origin(x) | together

    def _origin(self, x: Tensor) -> frozenset[Any]:
        return self._origins.get(id(x), frozenset())

    def _meet(
        self,
        given: Sequence[Tensor],
        origins: Sequence[frozenset[Any]],
        name: str,
        logarithm: bool,
        *,
        is_loss: bool,
    ) -> None:
        """See whether outputs meet a part of the batch that is no input, or a loss."""
        calls = frozenset(origin for some in origins for origin in some if isinstance(origin, int))
        if not calls:
            return
        sources = [source for source in self._sources if source is not None]
        whole = {path for path, x in self._parts if not x.is_floating_point()}  # may be given to the model as well
        used = [source.path for source in sources if source.path not in whole]
        apart = [some for some in origins if len(some) == 1 and not any(isinstance(origin, int) for origin in some)]
        labels = next((path for some in apart for path in some if path not in used), None)
        itself = is_loss and labels is None and any(some <= set(used) for some in apart)
        parts = list(dict.fromkeys(some & calls for some in origins if some & calls))
        self._compared.update(parts[0].union(*parts[1:]) if len(parts) > 1 else ())
        if is_loss or labels is not None:
            outputs = [self._calls[call].output for call in calls]
            scored = [x for x, some in zip(given, origins, strict=True) if some & calls]
            compared = next((x for x, some in zip(given, origins, strict=True) if some == {labels}), None)
            part = next((x for path, x in self._parts if path == labels), None)  # the step may have taken it out
            form: dict[str, Any] = {}
            with self._comparison(), suppress(Exception):  # a step never fails by being watched
                form = form_of_meeting(outputs, scored, part, compared)
            self._meetings.append(Meeting(calls, labels, name if is_loss else "", logarithm, itself=itself, **form))

    # What was seen.

    def reading(self) -> BatchReading | None:
        """How the step calls its model; None where no call of a module was seen."""
        if not self._calls:
            return None
        losses = [meeting for meeting in self._meetings if meeting.loss]
        reaching = {call for meeting in losses or self._meetings for call in meeting.calls} or range(len(self._calls))
        chosen = max([call for call in reaching if self._calls[call].trained] or list(reaching))
        meetings = [meeting for meeting in [*losses, *self._meetings] if chosen in meeting.calls]
        labels = next((meeting.labels for meeting in meetings if meeting.labels is not None), None)
        first = next((meeting for meeting in meetings if meeting.loss), None)
        met = next((meeting for meeting in meetings if meeting.labels is not None), None)
        form: dict[str, Any] = {}
        if first is not None:
            form = {"scores": first.scores, "direct": first.direct, "itself": first.itself}
        if not meetings and chosen in self._compared:
            form["direct"] = False
        form |= {} if met is None else {"shift": met.shift, "paired": met.paired}
        steps = self._chain(chosen)
        if any(self._between(call) for call in self._needed(chosen)):
            steps = [self._replayed(chosen)]
        steps[-1], named = without_labels(self._model, steps[-1], self._sources)
        used: list[int] = []
        for step in steps:
            map_leaves((step.arguments, step.keywords), Slot, lambda slot: used.extend((slot.index, slot.sizes)))
        kept = [index for index in dict.fromkeys(used) if index is not None]
        if not kept:  # a graph, say, whose tensors no batch of samples holds
            return None
        place = {index: number for number, index in enumerate(kept)}

        def moved(slot: Slot) -> Slot:
            return replace(slot, index=place[slot.index], sizes=None if slot.sizes is None else place[slot.sizes])

        reading = BatchReading(
            tuple(self._sources[index] for index in kept),
            tuple(
                replace(
                    step,
                    arguments=map_leaves(step.arguments, Slot, moved),
                    keywords=map_leaves(step.keywords, Slot, moved),
                )
                for step in steps
            ),
            objects_path(self._batch)
            or labels
            or named
            or named_labels(self._sources)
            or next(iter(self._inner_labels), None),
            first.loss if first else self._calls[chosen].loss,
            self._calls[chosen].squashed,
            first is not None and first.logarithm,
            **form,
        )
        return reading if reading.complete else self._made(reading, [self._tensors[index] for index in kept], chosen)

    def _made(self, reading: BatchReading, tensors: Sequence[Tensor], chosen: int) -> BatchReading:
        """With inputs that only the step can make, as it made them, and their labels if they are of the batch."""
        origins = [some for index in self._needed(chosen) for some in self._calls[index].origins]
        of_batch = any(not isinstance(origin, int) for some in origins for origin in some)
        labels, _ = reading.truth(self._batch) if of_batch else (None, None)
        if labels is not None and labels.dim() and len(labels) == len(tensors[0]):
            reading = replace(reading, made_labels=labels[:_KEPT].cpu().clone())
        if len({len(x) for x in tensors}) > 1:  # a graph's nodes and edges, say
            return reading
        return replace(reading, made=reading.inputs([x[:_KEPT].cpu().clone() for x in tensors]))

    def _needed(self, chosen: int) -> list[int]:
        """A call, after those whose outputs it takes as they are."""
        needed: list[int] = []

        def visit(index: int) -> None:
            step = self._calls[index].step
            map_leaves((step.arguments, step.keywords), Returned, lambda result: visit(result.step))
            if index not in needed:
                needed.append(index)

        visit(chosen)
        return needed

    def _chain(self, chosen: int) -> list[CallStep]:
        needed = self._needed(chosen)
        steps = [self._calls[index].step for index in needed]
        moved = partial(
            map_leaves, kinds=Returned, change=lambda result: replace(result, step=needed.index(result.step))
        )
        return [CallStep(step.module, moved(step.arguments), moved(step.keywords)) for step in steps]

    def _between(self, index: int) -> bool:
        """Whether the step makes a call's arguments of earlier outputs by functions of its own."""
        step, made = self._calls[index].step, []
        map_leaves((step.arguments, step.keywords), Slot, lambda slot: made.append(self._sources[slot.index] is None))
        earlier = any(isinstance(origin, int) for origins in self._calls[index].origins for origin in origins)
        return any(made) and earlier and bool(self._replays)

    def _replayed(self, chosen: int) -> CallStep:
        """The step itself, up to the end of a call, as a function of the batch."""
        count = sample_count(self._batch)
        used = [source.path for source in self._sources if source is not None]
        order = sorted(self._parts, key=lambda part: used.index(part[0]) if part[0] in used else len(used))
        slots = {id(x): Slot(self._slot(x, Source(path))) for path, x in order if x.dim() > 0 and len(x) == count}
        batch = map_leaves(self._batch, Tensor, lambda x: slots.get(id(x)) or Constant(x))
        module = self._calls[chosen].step.module
        number = [index for index, call in enumerate(self._calls) if call.step.module == module].index(chosen)
        return CallStep(module, (batch,), replay=(self._replays, number))


class StepReader:
    """Reads once in a run how the module's own step calls it, and remembers it with the module.

    Args:
        model: the LightningModule.
        probe: that may name the batch's fields.

    Attributes:
        pending: whether a step is still to be read.
    """

    def __init__(self, model: nn.Module, probe: Probe = Probe()) -> None:  # noqa: B008
        self._model, self._probe = model, probe
        keep_reading(model, probe.reading(None))  # not that of another run, of other data perhaps
        self._watch: StepWatch | None = None
        self.pending = not probe.named and not is_compiled(model)

    def start(self, batch: Any, step: str) -> None:
        """Watch the step that is about to be run, if none has been read.

        Args:
            batch: that it is given.
            step: its name, ``"validation_step"``, ``"test_step"`` or ``"training_step"``.
        """
        method = getattr(self._model, step, None)
        if not self.pending or self._watch is not None or hasattr(method, "_torchdynamo_orig_callable"):
            return
        self._watch = StepWatch(self._model, batch, replays="" if step == "training_step" else step)
        self._watch.start()

    def stop(self) -> BatchReading | None:
        """The step has been run: what was read of it; None if it was not watched, or called no module."""
        watch, self._watch = self._watch, None
        if watch is None:
            return None
        watch.stop()
        self.pending = False
        reading = self._probe.reading(watch.reading())
        keep_reading(self._model, reading)
        return reading
