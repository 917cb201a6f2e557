"""The hook core's one entrance: look at a model once, and leave it as found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError, LayerNotReachedError, ObservationError
from lightning_viz.hooks.batching import out_of_memory
from lightning_viz.hooks.feature_maps import feature_count
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.model_state import evaluation_mode, seed_torch
from lightning_viz.hooks.observation import Observation, ReLUs, layer_of_call
from lightning_viz.hooks.pytree import all_tensors, first_tensor, map_tensors, sample_count
from lightning_viz.hooks.recording import Activations, Recording, Reduce, StopForward, call_names, recording
from lightning_viz.hooks.relu import ReLURule, Rule, relu_rule
from lightning_viz.hooks.target_algebra import Target
from lightning_viz.hooks.target_words import TargetLike, as_target
from lightning_viz.hooks.targets import ClassTarget

__all__ = ["Passes", "observe", "observe_batches", "passes"]

Forward = Callable[[nn.Module, Any], Any]
"""How to run a model on inputs, where ``model(*inputs)`` is not the way."""

_Found = dict[int, Tensor | None]


def observe(
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    layers: Layers = (),
    gradients: bool | Layers = False,
    input_gradient: bool = False,
    rules: Sequence[Rule] = (),
    reduce: Mapping[str, Reduce] | None = None,
    forward: Forward | None = None,
) -> Observation:
    """Run one forward and, if a gradient is asked for, one backward, in eval mode, and leave the model as found.

    The backward pass stops at the shallowest thing asked for and computes no gradient for any weight; several targets,
    or other rules at ReLUs, take a backward each through the same forward. In-place operations that follow a recorded
    layer do not change what was recorded. Works inside `torch.no_grad` and `torch.inference_mode`; compiled modules run
    eagerly for this one pass.

    Args:
        model: any module; on leaving it is bit for bit as before (see `unchanged`).
        inputs: as the model takes them, on its device: a tensor, a tuple (``model(*inputs)``) or a dict
            (``model(**inputs)``).
        target: the scalar to explain, one per sample; the predicted class's score if omitted.
        layers: those whose output to keep.
        gradients: towards those layers' outputs (True), or towards the layers named here.
        input_gradient: also the gradient towards the inputs.
        rules: also the gradient towards the inputs under these backward rules at ReLUs (see `relu_rule`).
        reduce: layers of whose output only what a function makes of it is kept, by name (large layers).
        forward: how to run the model, ``forward(model, inputs)``, if not as above.

    Returns:
        Detached tensors on the model's device. A layer called several times is ``"name:0"``, ``"name:1"``, ...

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        ValueError: a target that the model does not have.
        RuntimeError: no gradient can be taken towards a layer that runs under `torch.no_grad`, nor through a block
            under reentrant activation checkpointing.
    """
    return _observed(
        model,
        inputs,
        as_target(target, model=model),
        layers=layers,
        gradients=gradients,
        input_gradient=input_gradient,
        rules=rules,
        reduce=reduce,
        forward=forward,
    )[0]


def _observed(
    model: nn.Module,
    inputs: Any,
    target: Target,
    *,
    layers: Layers = (),
    gradients: bool | Layers = False,
    input_gradient: bool = False,
    rules: Sequence[Rule] = (),
    reduce: Mapping[str, Reduce] | None = None,
    forward: Forward | None = None,
) -> tuple[Observation, Target]:
    """The observation (see `observe`), and the target with the classes named that depend on the input."""
    kept = select_layers(model, layers)
    wanted = kept if gradients is True else select_layers(model, gradients) if gradients is not False else {}
    inside = layers_read(model, target)
    reductions = {
        name: (module, function)
        for asked, function in (reduce or {}).items()
        for name, module in select_layers(model, asked).items()
    }
    differentiates = bool(wanted) or input_gradient or bool(rules)
    with evaluation_mode(model), torch.set_grad_enabled(differentiates):
        leaves = map_tensors(inputs, lambda x: _leaf(x, input_gradient or bool(rules)))
        given = map_tensors(leaves, lambda x: x.clone())  # for the model to write to
        tapped = {**wanted, **inside} if differentiates else {}
        with recording({**kept, **wanted, **inside}, gradients=tapped, reduce=reductions) as record:
            with relu_rule(rules[0]) if rules else nullcontext() as relus:
                outputs = (forward or run)(model, given)
            record.close()
            _check_traced(tapped, record)
            answer = first_tensor(outputs)
            scores, targets = None, None
            if differentiates or not isinstance(target, ClassTarget) or (answer is not None and answer.dim() > 0):
                scores, targets, target = target.scores(_activations(inside, record, outputs))
            towards = [call for name in wanted for call in record.calls[name]]
            leaf_list = [x for x in all_tensors(leaves) if x.requires_grad]
            found, ruled = _backwards(scores, towards + (leaf_list if input_gradient else []), leaf_list, rules, relus)
    observation = Observation(
        inputs=map_tensors(leaves, Tensor.detach),
        outputs=_detached(answer),
        targets=targets,
        scores=_detached(scores),
        activations={name: call.detach() for name, call in call_names(record.calls).items()},
        gradients=call_names({name: [found[id(x)] for x in record.calls[name]] for name in wanted}),
        input_gradient=map_tensors(leaves, lambda x: found.get(id(x))) if input_gradient else None,
        ruled={rule: map_tensors(leaves, lambda x: of_rule.get(id(x))) for rule, of_rule in ruled.items()},
        relus=_relus(relus, scores, model),
        reduced=call_names(record.reduced),
        dimensions=call_names(record.dimensions),
        unreached=_unreached({**kept, **wanted, **reductions}, record),
    )
    return observation, target


def resolve_target(model: nn.Module, inputs: Any, target: TargetLike, *, forward: Forward | None = None) -> Target:
    """The same target, with the classes named that depend on the input: it then means the same for moved inputs.

    Args:
        model: any module, left as found; run once, and only if it must be.
        inputs: as in `observe`.
        target: see `TargetLike`.
        forward: how to run the model, if not ``model(inputs)``.

    Raises:
        ValueError: not as many targets as samples, or no sample.
    """
    target = as_target(target, model=model)
    if target.open:
        return observe_resolved(model, inputs, target, forward=forward)[1]
    _check_samples(inputs, target)
    return target


def observe_resolved(
    model: nn.Module,
    inputs: Any,
    target: TargetLike,
    *,
    layers: Layers = (),
    reduce: Mapping[str, Reduce] | None = None,
    forward: Forward | None = None,
) -> tuple[Observation, Target]:
    """What one forward sees, and the target `resolve_target` by it.

    Args:
        model: any module, left as found.
        inputs: as in `observe`.
        target: see `TargetLike`.
        layers: those whose output to keep.
        reduce: as in `observe`.
        forward: how to run the model, if not ``model(inputs)``.

    Raises:
        ValueError: not as many targets as samples, or no sample.
    """
    target = as_target(target, model=model)
    _check_samples(inputs, target)
    return _observed(model, inputs, target, layers=layers, reduce=reduce, forward=forward)


def observe_batches(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    count: int,
    reduce: Mapping[str, Reduce],
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    """What reductions make of layers' outputs over a population: forward only, batch by batch, nothing else kept.

    What is kept lies in one block per layer from the first batch on: small results that were allocated between a
    large model's temporaries would pin the heap around them (gigabytes, for a ResNet-152).

    Args:
        model: any module, left as found.
        batches: inputs as in `observe`; fetched inside the guard.
        count: samples in all batches together.
        reduce: by layer name, a function from the layer's output ``[n, ...]`` to what is kept of it ``[n, d]``.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        By call (see `observe`), all samples' results ``[count, d]``.
    """
    layers = {name: (select_layers(model, name)[name], function) for name, function in reduce.items()}
    results: dict[str, Tensor] = {}
    done = 0
    with evaluation_mode(model), torch.no_grad():
        for batch in batches:
            with recording({}, reduce=layers) as record:
                (forward or run)(model, map_tensors(batch, torch.clone))
            for name, result in call_names(record.reduced).items():
                if name not in results:
                    results[name] = result.new_full((count, *result.shape[1:]), torch.nan)  # a layer may not be called
                results[name][done : done + len(result)] = result
            done += len(all_tensors(batch)[0])
    return results


def run(model: nn.Module, inputs: Any) -> Any:
    """Call a model.

    Args:
        model: any module.
        inputs: a tensor, a tuple of arguments, or a dict of keyword arguments.
    """
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs)


def _leaf(tensor: Tensor, differentiable: bool) -> Tensor:
    leaf = tensor.detach().clone()
    return leaf.requires_grad_() if differentiable and leaf.is_floating_point() else leaf


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _check_traced(wanted: Iterable[str], record: Recording) -> None:
    for name in wanted:
        if record.calls.get(name) and name not in record.traced:
            raise ObservationError(
                f"layer {name!r} runs under torch.no_grad, so no gradient can be taken towards it; if it is part of a "
                "checkpointed block, call torch.utils.checkpoint.checkpoint with use_reentrant=False"
            )


def layers_read(model: nn.Module, target: Target) -> dict[str, nn.Module]:
    """The layers that a target reads, by name.

    Args:
        model: any module.
        target: which may name a layer with its call, ``"relu:1"``.
    """
    return {
        name: module for layer in target.layers for name, module in select_layers(model, layer_of_call(layer)).items()
    }


def _activations(layers: Mapping[str, nn.Module], record: Recording, outputs: Any) -> Activations:
    """What was recorded of some layers."""
    calls = call_names({name: record.calls[name] for name in layers if name in record.calls})
    return Activations(calls, outputs, {name: feature_count(module) for name, module in layers.items()})


def _backwards(
    scores: Tensor | None,
    towards: list[Tensor],
    leaves: list[Tensor],
    rules: Sequence[Rule],
    relus: ReLURule | None,
) -> tuple[_Found, dict[str, _Found]]:
    """One backward for each target and rule, all through one graph, which the last of them frees."""
    passes: list[tuple[Rule, list[Tensor]]] = [(rule, leaves) for rule in rules if leaves]
    if towards:
        passes.append(("backprop", towards))
    found: dict[str, _Found] = {"backprop": {}, **{rule: {} for rule in rules}}
    for place, (rule, tensors) in enumerate(passes):
        if relus is not None:
            relus.rule = rule
        found[rule] = _gradients(scores, tensors, keep=place + 1 < len(passes))
    return found.pop("backprop"), found


def _gradients(scores: Tensor | None, towards: list[Tensor], *, keep: bool) -> _Found:
    """The gradient of the scores towards each tensor, by its identity; each sample's is its own, so they are summed."""
    if scores is None or not scores.requires_grad:
        return {id(tensor): None for tensor in towards}
    rows = scores.sum(-1).reshape(-1)  # one for each target
    try:
        each = [
            torch.autograd.grad(row, towards, allow_unused=True, retain_graph=keep or place + 1 < len(rows))
            for place, row in enumerate(rows.unbind())
        ]
    except RuntimeError as error:
        if "use_reentrant" in str(error) or ("checkpoint" in str(error).lower() and "backward()" in str(error)):
            raise ObservationError(
                "a checkpointed block refuses the gradient: call torch.utils.checkpoint.checkpoint with "
                "use_reentrant=False"
            ) from error
        raise
    of_tensors = [None if parts[0] is None else _stacked(list(parts), scores) for parts in zip(*each, strict=True)]
    return {id(tensor): gradient for tensor, gradient in zip(towards, of_tensors, strict=True)}


def _stacked(parts: list[Tensor], scores: Tensor) -> Tensor:
    return torch.stack(parts) if scores.dim() == 2 else parts[0]


def _relus(relus: ReLURule | None, scores: Tensor | None, model: nn.Module) -> ReLUs | None:
    """What the rules came upon, read off the graph of the scores."""
    if relus is None or scores is None:
        return None
    relus.rule = "guided"  # any but the plain one
    return ReLUs(relus.met, tuple(relus.escaped(scores, model)), tuple(relus.others(scores)))


def _check_samples(inputs: Any, target: Target) -> None:
    count = sample_count(inputs)
    if count == 0:
        raise InvalidArgumentError("the inputs hold no sample")
    target.check_count(count)


def _unreached(asked: Mapping[str, Any], record: Recording) -> tuple[str, ...]:
    return tuple(name for name in asked if not record.calls.get(name) and not record.reduced.get(name))


class Passes:
    """Runs a model again and again; what it changes in itself or in random generators is put back after the last pass.

    The first pass goes to the end, unless the model fails behind the last layer asked for: an image that its head
    cannot take serves the layers before it. Every later pass ends with the call that was the last of the first pass.

    Attributes:
        like: an empty tensor on the model's device and in its precision, those of its first weight.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module], whole: bool, forward: Forward | None) -> None:
        self._model, self._layers, self._whole, self._forward = model, layers, whole, forward
        self._calls: int | None = None
        self.like = next((one for one in model.parameters() if one.is_floating_point()), torch.zeros(())).new_empty(0)
        self._features = {name: feature_count(module) for name, module in layers.items()}

    def __call__(self, inputs: Any) -> Activations:
        """One forward.

        Args:
            inputs: as the model takes them, part of a graph or not; it is given a copy, to write to.

        Raises:
            LayerNotReachedError: the forward does not call a layer that was asked for.
        """
        outputs = None
        until = None if self._whole else self._calls
        with recording(self._layers, gradients=self._layers, until=until) as record:
            try:
                outputs = (self._forward or run)(self._model, map_tensors(inputs, torch.clone))
            except StopForward:
                pass
            except RuntimeError:
                if self._whole or self._calls is not None or set(record.calls) != set(self._layers):
                    raise
        missing = [name for name in self._layers if not record.calls.get(name)]
        if missing:
            which = f"layer {missing[0]!r} is" if len(missing) == 1 else f"layers {missing} are"
            raise LayerNotReachedError(f"{which} not called in the forward pass")
        self._calls = record.count
        return Activations(call_names(record.calls), outputs, self._features)


@contextmanager
def passes(
    model: nn.Module,
    layers: Layers = (),
    *,
    whole: bool = True,
    forward: Forward | None = None,
    seed: int | None = None,
) -> Iterator[Passes]:
    """One look at a model for many passes; gradients of what they saw can be taken inside, none for any weight.

    Args:
        model: any module; on leaving it is bit for bit as before (see `unchanged`).
        layers: whose outputs are asked for.
        whole: whether the model's output is asked for as well; if not, a pass ends at the last of the layers.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.
        seed: of what the model itself may draw from torch's generators; they go on as they are if None.

    Raises:
        LayerNotFoundError: no layer matches.
    """
    chosen = select_layers(model, layers) if layers else {}
    with evaluation_mode(model):
        if seed is not None:
            seed_torch(seed)
        yield Passes(model, chosen, whole or not chosen, forward)


@contextmanager
def image_size_errors(shape: Sequence[int]) -> Iterator[None]:
    """Errors of a model that cannot take images of a size name the size.

    Args:
        shape: of an image.

    Raises:
        InvalidArgumentError: what the model raises, with the size.
    """
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        if isinstance(error, LayerNotReachedError) or out_of_memory(error):
            raise
        raise InvalidArgumentError(f"the model cannot take images of {' x '.join(map(str, shape))}: {error}") from error
