"""One forward and one backward for all views that are due on the same probe and target."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_viz.activations.random_projection import vectorizer
from lightning_viz.callbacks.display import input_form
from lightning_viz.callbacks.model_knowledge import output_knowledge
from lightning_viz.callbacks.probe import Samples, displayed_input
from lightning_viz.callbacks.run_protocol import Run
from lightning_viz.callbacks.snapshot import INPUT, Requirements, Snapshot, TargetChoice, resolved
from lightning_viz.errors import (
    AttributionWarning,
    InvalidArgumentError,
    InvalidTypeError,
    format_indices,
    inform,
    warn_safely,
)
from lightning_viz.hooks.dependence import images_of_calls
from lightning_viz.hooks.detection import WEAK
from lightning_viz.hooks.layers import named_layers
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.observation import Observation, layer_of_call
from lightning_viz.hooks.observe import observe, observe_batches
from lightning_viz.hooks.outputs import keep_knowledge, known_labels
from lightning_viz.hooks.pytree import device_of, map_tensors, on_device
from lightning_viz.hooks.shards import whole
from lightning_viz.host_copies import HostCopies


class SharedPass:
    """Runs a model on a probe for all who ask.

    Args:
        run: whose model it is; tells its precision.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._model = run, run.model
        self._flatten = vectorizer()
        self._inputs: dict[int, Tensor] = {}  # a probe's inputs as vectors, which stay the same
        self._seen: dict[tuple[str, ...], dict[str, int]] = {}  # by layers, see `Snapshot.seen`
        self._said_empty = False
        self.population_seconds = 0.0
        """What the last run took for the population alone."""
        self.failures: dict[str, Exception] = {}
        """Of the last run, why a view's target could not be explained."""
        self.said_unlabeled = False
        """Whether it was said that no label names a class of the model."""
        self._said: set[str] = set()

    @contextmanager
    def context(self) -> Iterator[None]:
        """Forward passes run in the run's precision, as its training steps do."""
        with self._run.forward_context():
            yield

    def run(self, requirements: Mapping[str, Requirements], samples: Samples, step: int) -> dict[str, Snapshot]:
        """Observe once for every distinct target that is to be explained, and once in all if none is.

        Views whose target the model does not have are left out, see `failures`.

        Args:
            requirements: by view.
            samples: of the probe that they share.
            step: completed updates.
        """
        self.population_seconds, self.failures, copies = 0.0, {}, HostCopies()
        keep_knowledge(self._model, output_knowledge(self._model, samples))
        if not any(need.head for need in requirements.values()):
            weights = self._weights(_union(need.weights for need in requirements.values()))
            alone = Observation(samples.part(0, samples.head), labels=samples.true_classes, weights=weights, step=step)
            alone = map_tensors(alone, copies.copy)
            copies.wait()
            return {view: Snapshot(alone, samples, step, need) for view, need in requirements.items()}
        targets: dict[TargetChoice, list[str]] = {}
        for view, need in requirements.items():
            if need.explains:
                targets.setdefault(need.target, []).append(view)
        others = [view for view, need in requirements.items() if not need.explains]
        observed: list[tuple[list[str], Observation]] = []
        for target, views in targets.items():
            together = [*views, *others]
            try:
                observation = self._observe([requirements[view] for view in together], target, samples, step, copies)
            except (InvalidArgumentError, InvalidTypeError) as error:  # the target's own, which no other view suffers
                error.__traceback__ = None  # holds every tensor of the failed pass
                self.failures.update(dict.fromkeys(views, error))
                continue
            observed.append((together, observation))
            others = []
        if others:
            observation = self._observe([requirements[view] for view in others], None, samples, step, copies)
            observed.append((others, observation))
        copies.wait()
        snapshots = {}
        for names, observation in observed:
            snapshots.update(self._snapshots(names, requirements, observation, samples))
        return snapshots

    def _snapshots(
        self, views: list[str], requirements: Mapping[str, Requirements], observation: Observation, samples: Samples
    ) -> dict[str, Snapshot]:
        form, step = input_form(self._model, observation.inputs), observation.step or 0
        layers = tuple(dict.fromkeys(map(layer_of_call, observation.activations)))
        if layers not in self._seen:
            inputs = on_device(self._model, observation.inputs)
            self._seen[layers] = images_of_calls(self._model, inputs, layers)
        seen = self._seen[layers]
        return {view: Snapshot(observation, samples, step, requirements[view], form=form, seen=seen) for view in views}

    def _observe(
        self,
        requirements: list[Requirements],
        target: TargetChoice | None,
        samples: Samples,
        step: int,
        copies: HostCopies,
    ) -> Observation:
        """What is observed, on the CPU: its tensors hold their values when the copies have been waited for."""
        layers = _union(need.layers for need in requirements)
        gradients = _union(need.gradients for need in requirements)
        vectors = _union(need.vectors for need in requirements)
        reduce = {name: self._flatten for name in vectors if name != INPUT}
        population = min(max((need.population for need in requirements), default=0), len(samples))
        head = samples.head_on(device_of(self._model))
        with self.context(), warnings.catch_warnings():
            warnings.simplefilter("ignore", AttributionWarning)  # is said below
            seen = observe(
                self._model,
                head,
                None if target is None else resolved(target, samples),
                layers=layers,
                gradients=gradients or False,
                input_gradient=any(need.input_gradient for need in requirements),
                rules=_union(need.rules for need in requirements),
                reduce=reduce,
                attention=_union(need.attention for need in requirements),
            )
            self._check_detections(seen)
            reduced = self._rows_of_samples(seen.reduced, min(samples.head, len(samples)))
            if reduce and population > samples.head:
                started = time.monotonic()
                rest = map(partial(on_device, self._model), samples.batches(samples.head, population))
                found = observe_batches(self._model, rest, count=population - samples.head, reduce=reduce)
                reduced = {name: torch.cat([part, found.pop(name)]) for name, part in reduced.items() if name in found}
                self.population_seconds += time.monotonic() - started
        if INPUT in vectors:
            reduced[INPUT] = self._input_vectors(samples, population)
            seen = replace(seen, dimensions={**seen.dimensions, INPUT: displayed_input(samples.inputs)[:1].numel()})
        plain = replace(
            seen,
            labels=self._known_labels(seen, samples.true_classes),
            reduced=reduced,
            weights=self._weights(_union(need.weights for need in requirements)),
            step=step,
        )
        return map_tensors(plain, copies.copy)  # type: ignore[no-any-return]

    def _rows_of_samples(self, reduced: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        """What layers put out, if it has a row for each sample; else the layer is left out, which is said once."""
        rows = {name: result for name, result in reduced.items() if len(result) == count}
        for name in sorted(reduced.keys() - rows.keys() - self._said):
            self._said.add(name)
            inform(f"layer {name!r} puts out {len(reduced[name])} rows for {count} samples: its vectors are left out")
        return rows

    def _known_labels(self, seen: Observation, labels: Tensor | None) -> Tensor | None:
        """The labels with -1 for those that name no class, which is said once; None where none does."""
        outputs, meaning = seen.outputs, seen.meaning
        if labels is None or not len(labels) or outputs is None or meaning is None or not meaning.classifies:
            return labels
        count = max(2, outputs.shape[1] if outputs.dim() > 1 else 1)
        known = known_labels(labels, count)
        unknown = known < 0
        if bool(unknown.any()):
            values = sorted(set(labels[unknown].tolist()))
            words = ", ".join(map(str, values[:5])) + ", ..." * (len(values) > 5)
            note = (
                f"{int(unknown.sum())} of {len(labels)} labels ({words}) name none of the model's {count} classes: "
                "these samples are explained by their prediction"
            )
            if note not in self._said:
                self._said.add(note)
                self.said_unlabeled = bool(unknown.all())
                warn_safely(note)
        return None if bool(unknown.all()) else known

    def _check_detections(self, seen: Observation) -> None:
        """Say once if a detector finds nothing in some images."""
        empty = [
            index
            for index, image in enumerate(seen.detections or ())
            if not len(image) or float(image.scores[0]) <= WEAK
        ]
        if empty and not self._said_empty:
            self._said_empty = True
            which = "any of the probe's images" if len(empty) == len(seen.detections or ()) else format_indices(empty)
            inform(f"no detection above {WEAK} in {which} at first: box[0] explains what little there is")

    def _input_vectors(self, samples: Samples, population: int) -> Tensor:
        key = id(samples)
        if key not in self._inputs or len(self._inputs[key]) < population:
            self._inputs[key] = torch.cat(
                [self._flatten(displayed_input(batch)) for batch in samples.batches(0, population)]
            )
        return self._inputs[key][:population]

    def _weights(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Copies of parameters; those that are computed (weight norm, spectral norm) as they are in eval mode."""
        if not names:
            return {}
        layers = named_layers(self._model)
        with evaluation_mode(self._model), torch.no_grad():
            found = {name: getattr(layers[name.rpartition(".")[0]], name.rpartition(".")[2], None) for name in names}
            return {
                name: whole(weight.detach()).float().clone() for name, weight in found.items() if weight is not None
            }


def _union(names: Any) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))
