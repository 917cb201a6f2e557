"""Observation of a model: its outputs, activations and gradients, with the model's state preserved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz.errors import InvalidArgumentError, LayerNotReachedError, ObservationError, OutputError, TargetError
from lightning_viz.hooks.attention import AttentionPart, recording_attention
from lightning_viz.hooks.batching import out_of_memory
from lightning_viz.hooks.box_target import BoxTarget, detector_target
from lightning_viz.hooks.calls import as_call, call_model, image_sizes
from lightning_viz.hooks.calls_by_image import joined_calls
from lightning_viz.hooks.detection import detections_of, resized_images
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.model_state import evaluation_mode, seed_torch
from lightning_viz.hooks.observation import Observation, ReLUs, layer_of_call
from lightning_viz.hooks.outputs import OutputMeaning, interpret, watching_squashing
from lightning_viz.hooks.pytree import all_tensors, map_tensors, part_at, sample_count
from lightning_viz.hooks.recording import Activations, Recording, Reduce, StopForward, call_names, recording
from lightning_viz.hooks.relu import ReLURule, Rule, relu_rule
from lightning_viz.hooks.shards import is_sharded, own_part
from lightning_viz.hooks.target_types import Target
from lightning_viz.hooks.targets import TargetLike, as_target

__all__ = ["Passes", "observe", "observe_batches", "passes"]

Forward = Callable[[nn.Module, Any], Any]
"""Calls a model on inputs, ``forward(model, inputs)``, if that is not ``model(inputs)``."""

_Gradients = dict[int, Tensor | None]  # by the id of a tensor


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
    attention: Sequence[AttentionPart] = (),
    forward: Forward | None = None,
) -> Observation:
    """Observe one forward pass and, if gradients are requested, one backward pass, in eval mode; the state is restored.

    The backward pass stops at the shallowest requested layer and computes no gradient of any weight; each further
    target or ReLU rule takes another backward through the same forward. In-place operations after a recorded layer do
    not change what was recorded. Works inside `torch.no_grad` and `torch.inference_mode`; compiled modules run eagerly
    for this pass.

    Args:
        model: any module; its state is restored bit for bit (see `preserve_state`).
        inputs: as the model takes them, on its device: a tensor, a tuple (``model(*inputs)``), a dict
            (``model(**inputs)``), or a detector's list of images ``[C, H, W]``, each of its own size.
        target: the scalar to explain, one per sample; the predicted class's score if omitted.
        layers: layers whose outputs to record.
        gradients: True for the gradients with respect to those outputs, or other layers for theirs.
        input_gradient: also record the gradient with respect to the inputs.
        rules: also record the gradient with respect to the inputs under these ReLU rules (see `relu_rule`).
        reduce: by layer, a function whose result is recorded instead of the output (for large layers).
        attention: also record of the attention weights "rows", a row of each call, or their "rollout", see
            `Attentions`.
        forward: calls the model, ``forward(model, inputs)``, if not as above.

    Returns:
        Detached tensors on the model's device. A layer called several times is ``"name:0"``, ``"name:1"``, ...

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        InvalidArgumentError: the model does not have the target.
        ObservationError: a layer runs under `torch.no_grad` or in a block under reentrant activation checkpointing, so
            that its gradient cannot be computed.
    """
    resolvable, needed = as_target(target, model=model), target is not None
    return _observed(
        model, inputs, resolvable, layers, gradients, input_gradient, rules, reduce, forward, needed, attention
    )[0]


def _observed(
    model: nn.Module,
    inputs: Any,
    target: Target,
    layers: Layers,
    gradients: bool | Layers,
    input_gradient: bool,
    rules: Sequence[Rule],
    reduce: Mapping[str, Reduce] | None,
    forward: Forward | None,
    needed: bool = True,
    attention: Sequence[AttentionPart] = (),
) -> tuple[Observation, Target]:
    """The observation (see `observe`), and the target with classes that depend on the input replaced by indices."""
    inputs = as_call(inputs)
    recorded = select_layers(model, layers)
    differentiated = recorded if gradients is True else select_layers(model, gradients or ())
    target_layers = layers_read(model, target)
    reductions = {
        name: (module, function)
        for selector, function in (reduce or {}).items()
        for name, module in select_layers(model, selector).items()
    }
    differentiates = bool(differentiated) or input_gradient or bool(rules)
    with evaluation_mode(model), torch.set_grad_enabled(differentiates):
        leaf_inputs = map_tensors(inputs, lambda x: _copied(x, input_gradient or bool(rules)))
        model_inputs = map_tensors(leaf_inputs, torch.clone)  # the model may write to them
        tapped = {**differentiated, **target_layers} if differentiates else {}
        observed = {**recorded, **differentiated, **target_layers}
        with recording(model, leaf_inputs, observed, gradients=tapped, reduce=reductions) as record:
            watching = watching_squashing(model, differentiates=differentiates)
            rule = relu_rule(rules[0]) if rules else nullcontext()
            attending = recording_attention(model, leaf_inputs, attention)
            with rule as relus, watching as watch, resized_images(model) as extents, attending as attended:
                outputs = call_model(model, model_inputs, forward)
            record.close()
            _check_traced(tapped, record)
            detections = detections_of(outputs)
            target = target if detections is None else detector_target(target)
            output, meaning, scores, targets = None, None, None, None
            with suppress(OutputError):  # which a target that reads no scores does not need
                meaning = interpret(model, outputs, watch)
                output = part_at(outputs, meaning.path)
            try:
                scores, targets, target = target.scores(_activations(target_layers, record, outputs, meaning))
            except (OutputError, TargetError):
                if differentiates or needed:
                    raise
            sources = [call for name in differentiated for call in record.calls[name]]
            leaf_list = [x for x in all_tensors(leaf_inputs) if x.requires_grad]
            gradients_by_id, ruled_by_id = _backwards(
                scores, sources + (leaf_list if input_gradient else []), leaf_list, rules, relus
            )
    requested = {**recorded, **differentiated, **reductions}
    outer = joined_calls(record, gradients_by_id, differentiated, image_sizes(leaf_inputs))
    observation = Observation(
        inputs=map_tensors(leaf_inputs, Tensor.detach),
        outputs=map_tensors(output, _copied),
        detections=None if detections is None else tuple(image.kept() for image in detections),
        boxes=target.boxes if isinstance(target, BoxTarget) else None,
        extents=extents.shares if outer.extents is None else outer.extents,
        meaning=meaning,
        targets=targets,
        scores=map_tensors(scores, _copied),
        activations={name: call.detach() for name, call in call_names(outer.calls).items()},
        gradients=call_names(outer.gradients),
        input_gradient=map_tensors(leaf_inputs, lambda x: gradients_by_id.get(id(x))) if input_gradient else None,
        ruled={rule: map_tensors(leaf_inputs, lambda x: of_rule.get(id(x))) for rule, of_rule in ruled_by_id.items()},
        relus=_relus(relus, scores, model),
        reduced=call_names(outer.reduced),
        dimensions=call_names(outer.of_calls(record.dimensions)),
        layouts=call_names(outer.layouts),
        attention=None if attended is None else attended.kept(),
        unreached=tuple(name for name in requested if not record.calls.get(name) and not record.reduced.get(name)),
    )
    return observation, target


def resolve_target(model: nn.Module, inputs: Any, target: TargetLike, *, forward: Forward | None = None) -> Target:
    """Replace classes that depend on the input (predicted, top) by their indices, so that the target stays fixed.

    The model runs once, and only if the target depends on the input; its state is restored.

    Raises:
        InvalidArgumentError: not as many targets as samples, or no sample.
    """
    inputs, target = as_call(inputs), as_target(target, model=model)
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
    """The observation of one forward pass (see `observe`), and the target resolved by it (see `resolve_target`).

    Raises:
        InvalidArgumentError: not as many targets as samples, or no sample.
    """
    inputs, target = as_call(inputs), as_target(target, model=model)
    _check_samples(inputs, target)
    return _observed(
        model, inputs, target, layers, gradients=False, input_gradient=False, rules=(), reduce=reduce, forward=forward
    )


def observe_batches(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    count: int,
    reduce: Mapping[str, Reduce],
    forward: Forward | None = None,
) -> dict[str, Tensor]:
    """Reduce layer outputs over many batches: forward passes only, nothing but the results is kept.

    The results of a layer are allocated as one block at the first batch: small tensors allocated between a large
    model's temporaries would fragment the heap (by gigabytes for a ResNet-152).

    Args:
        model: any module; its state is restored.
        batches: inputs as in `observe`; fetched inside the guard, so that random generators are restored too.
        count: number of samples in all batches.
        reduce: by layer name, a function from the output ``[n, ...]`` to the result ``[n, d]``.
        forward: calls the model, ``forward(model, inputs)``; ``model(inputs)`` if omitted.

    Returns:
        The results of all samples ``[count, d]``, by call (see `observe`); of a call that puts out anything else than a
        row for each sample (of a box, say, or of a graph's node) none.
    """
    layers = {name: (select_layers(model, name)[name], function) for name, function in reduce.items()}
    results: dict[str, Tensor] = {}
    uneven, done = set[str](), 0
    with evaluation_mode(model), torch.no_grad():
        for batch in batches:
            with recording(model, batch, {}, reduce=layers) as record:
                call_model(model, map_tensors(batch, torch.clone), forward)
            outer = joined_calls(record, {}, (), image_sizes(batch))
            uneven |= {name for name, result in call_names(outer.reduced).items() if len(result) != sample_count(batch)}
            for name, result in call_names(outer.reduced).items():
                if name in uneven:
                    continue
                if name not in results:  # NaN where a layer is not called
                    results[name] = result.new_full((count, *result.shape[1:]), torch.nan)
                results[name][done : done + len(result)] = result
            done += len(all_tensors(batch)[0])
    return {name: result for name, result in results.items() if name not in uneven}


def _copied(tensor: Tensor, differentiable: bool = False) -> Tensor:
    leaf = tensor.detach().clone()
    return leaf.requires_grad_() if differentiable and leaf.is_floating_point() else leaf


def _check_traced(wanted: Iterable[str], record: Recording) -> None:
    for name in wanted:
        if record.calls.get(name) and name not in record.traced:
            raise ObservationError(
                f"layer {name!r} runs under torch.no_grad, so it has no gradient; if it is part of a checkpointed "
                "block, call torch.utils.checkpoint.checkpoint with use_reentrant=False"
            )


def layers_read(model: nn.Module, target: Target) -> dict[str, nn.Module]:
    """The layers that a target reads, by name; a target may name a call of a layer, ``"relu:1"``."""
    return {
        name: module for layer in target.layers for name, module in select_layers(model, layer_of_call(layer)).items()
    }


def _activations(
    layers: Mapping[str, nn.Module], record: Recording, outputs: Any, meaning: OutputMeaning | None
) -> Activations:
    """The recorded outputs of some layers."""
    calls = call_names({name: record.calls[name] for name in layers if name in record.calls})
    return Activations(calls, outputs, tuple(layers), call_names(record.layouts), meaning)


def _backwards(
    scores: Tensor | None, sources: list[Tensor], leaves: list[Tensor], rules: Sequence[Rule], relus: ReLURule | None
) -> tuple[_Gradients, dict[str, _Gradients]]:
    """One backward per target and rule through one graph, which the last of them frees."""
    passes: list[tuple[Rule, list[Tensor]]] = [(rule, leaves) for rule in rules if leaves]
    if sources:
        passes.append(("backprop", sources))
    gradients: dict[str, _Gradients] = {"backprop": {}, **{rule: {} for rule in rules}}
    for index, (rule, tensors) in enumerate(passes):
        if relus is not None:
            relus.rule = rule
        gradients[rule] = gradients_of(scores, tensors, keep=index + 1 < len(passes))
    return gradients.pop("backprop"), gradients


def gradients_of(scores: Tensor | None, sources: Sequence[Tensor], *, keep: bool = False) -> _Gradients:
    """Gradients of the scores with respect to each tensor, by its id; samples are independent, so scores are summed."""
    if scores is None or not scores.requires_grad:
        return {id(tensor): None for tensor in sources}
    rows = (scores.sum(),) if scores.dim() < 2 else scores.sum(-1).unbind()  # one per target
    try:
        by_row = [
            torch.autograd.grad(row, sources, allow_unused=True, retain_graph=keep or index + 1 < len(rows))
            for index, row in enumerate(rows)
        ]
    except RuntimeError as error:
        if "use_reentrant" in str(error) or ("checkpoint" in str(error).lower() and "backward()" in str(error)):
            raise ObservationError(
                "a block under reentrant activation checkpointing has no gradient; call "
                "torch.utils.checkpoint.checkpoint with use_reentrant=False"
            ) from error
        raise
    several = scores.dim() == 2
    gradients = [
        parts[0] if parts[0] is None or not several else torch.stack(parts) for parts in zip(*by_row, strict=True)
    ]
    return {id(tensor): gradient for tensor, gradient in zip(sources, gradients, strict=True)}


def _relus(relus: ReLURule | None, scores: Tensor | None, model: nn.Module) -> ReLUs | None:
    """The ReLUs that the rules met or missed, according to the graph of the scores."""
    if relus is None or scores is None:
        return None
    relus.rule = "guided"  # any rule but the plain one reports what escaped
    return ReLUs(relus.met, tuple(relus.escaped(scores, model)), tuple(relus.others(scores)))


def _check_samples(inputs: Any, target: Target) -> None:
    count = sample_count(inputs)
    if count == 0:
        raise InvalidArgumentError("the inputs have no samples; pass at least one")
    target.check_count(count)


class Passes:
    """Repeated forward passes of a model, whose state is restored after the last one.

    The first pass runs to the end, unless the model fails after the last requested layer, e.g. because its head cannot
    take images of this size. Every later pass ends at the last call that the first pass recorded.

    Attributes:
        like: an empty tensor with the device and dtype of the model's first weight.
        meaning: of the model's output, by the first pass; None before, or if it is unclear.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module], whole: bool, forward: Forward | None) -> None:
        whole = whole or is_sharded(model)  # of a pass that ends in its midst FSDP2 would not know
        self._model, self._layers, self._whole, self._forward = model, layers, whole, forward
        self._calls: int | None = None
        self.meaning: OutputMeaning | None = None
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
        self.like = own_part(like).new_empty(0)

    def __call__(self, inputs: Any) -> Activations:
        """Run one forward on a copy of inputs, which may be part of a graph.

        Raises:
            LayerNotReachedError: the forward does not call a requested layer.
        """
        outputs = None
        until = None if self._whole else self._calls
        first = self.meaning is None
        differentiates = torch.is_grad_enabled() and any(x.requires_grad for x in all_tensors(inputs))
        watching = watching_squashing(self._model, differentiates=differentiates) if first else nullcontext()
        recorder = recording(self._model, inputs, self._layers, gradients=self._layers, until=until)
        with recorder as record, watching as watch:
            try:
                outputs = call_model(self._model, map_tensors(inputs, torch.clone), self._forward)
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
        if first and outputs is not None:
            with suppress(OutputError):
                self.meaning = interpret(self._model, outputs, watch)
        calls, layouts = call_names(record.calls), call_names(record.layouts)
        return Activations(calls, outputs, tuple(self._layers), layouts, self.meaning)


@contextmanager
def passes(
    model: nn.Module,
    layers: Layers = (),
    *,
    whole: bool = True,
    forward: Forward | None = None,
    seed: int | None = None,
) -> Iterator[Passes]:
    """Context for repeated forward passes, in which gradients of activations can be computed, but none of any weight.

    Args:
        model: any module; its state is restored bit for bit (see `preserve_state`).
        layers: layers whose outputs to record.
        whole: whether the model's output is needed as well; if not, a pass ends at the last of the layers.
        forward: calls the model, ``forward(model, inputs)``; ``model(inputs)`` if omitted.
        seed: of torch's generators, from which the model may draw; not seeded if None.

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
    """Errors of a model that cannot take images of a size name the size, as an `InvalidArgumentError`."""
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        if isinstance(error, LayerNotReachedError) or out_of_memory(error):
            raise
        raise InvalidArgumentError(f"the model cannot take images of {' x '.join(map(str, shape))}: {error}") from error
