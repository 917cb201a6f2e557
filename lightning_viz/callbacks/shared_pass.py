"""One forward and one backward for all views that are due on the same probe and target."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_viz.activations.random_projection import vectorizer
from lightning_viz.callbacks.display import input_form
from lightning_viz.callbacks.probe import Samples, displayed_input
from lightning_viz.callbacks.run import LightningModule, Trainer
from lightning_viz.callbacks.snapshot import INPUT, Requirements, Snapshot, TargetChoice, resolved
from lightning_viz.hooks.layers import named_layers
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.observe import observe, observe_batches
from lightning_viz.hooks.pytree import map_tensors, on_device


class SharedPass:
    """Runs a model on a probe for all who ask.

    Args:
        trainer: of the run; tells device and precision.
        model: the LightningModule.
    """

    def __init__(self, trainer: Trainer, model: LightningModule) -> None:
        self._trainer, self._model = trainer, model
        self._flatten = vectorizer()
        self._inputs: dict[int, Tensor] = {}  # a probe's inputs as vectors, which stay the same
        self.population_seconds = 0.0
        """What the last run took for the population alone."""

    @contextmanager
    def context(self) -> Iterator[None]:
        """Forward passes run in the run's precision, as its training steps do."""
        with self._trainer.precision_plugin.forward_context():
            yield

    def run(self, requirements: Mapping[str, Requirements], samples: Samples, step: int) -> dict[str, Snapshot]:
        """Observe once for every distinct target that is to be explained, and once in all if none is.

        Args:
            requirements: by view.
            samples: of the probe that they share.
            step: completed updates.
        """
        self.population_seconds = 0.0
        if not any(need.head for need in requirements.values()):
            weights = self._weights(_union(need.weights for need in requirements.values()))
            alone = Observation(samples.part(0, samples.head), labels=samples.labels, weights=weights, step=step)
            alone = map_tensors(alone, Tensor.cpu)
            return {view: Snapshot(alone, samples, step, need) for view, need in requirements.items()}
        targets: dict[TargetChoice, list[str]] = {}
        for view, need in requirements.items():
            if need.explains:
                targets.setdefault(need.target, []).append(view)
        first: TargetChoice = next(iter(targets), "label")
        targets.setdefault(first, []).extend(view for view, need in requirements.items() if not need.explains)
        snapshots = {}
        for target, views in targets.items():
            observation = self._observe([requirements[view] for view in views], target, samples, step)
            form = input_form(self._model, observation.inputs)
            snapshots.update(
                {view: Snapshot(observation, samples, step, requirements[view], form=form) for view in views}
            )
        return snapshots

    def _observe(
        self, requirements: list[Requirements], target: TargetChoice, samples: Samples, step: int
    ) -> Observation:
        layers = _union(need.layers for need in requirements)
        gradients = _union(need.gradients for need in requirements)
        vectors = _union(need.vectors for need in requirements)
        reduce = {name: self._flatten for name in vectors if name != INPUT}
        population = min(max((need.population for need in requirements), default=0), len(samples))
        head = on_device(self._model, samples.part(0, samples.head))
        with self.context():
            seen = observe(
                self._model,
                head,
                resolved(target, samples),
                layers=layers,
                gradients=gradients or False,
                input_gradient=any(need.input_gradient for need in requirements),
                rules=_union(need.rules for need in requirements),
                reduce=reduce,
            )
            reduced = dict(seen.reduced)
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
            labels=samples.labels,
            reduced=reduced,
            weights=self._weights(_union(need.weights for need in requirements)),
            step=step,
        )
        return map_tensors(plain, Tensor.cpu)  # type: ignore[no-any-return]

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
            return {name: weight.detach().float().clone() for name, weight in found.items() if weight is not None}


def _union(names: Any) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))
