"""The view of what a classifier gets wrong, in the whole of the validation data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_confusion_matrix

from lightning_viz.activations.top_k import NO_SAMPLE, TopK
from lightning_viz.attribution.cam import class_activation_map
from lightning_viz.callbacks.changed_samples import new_among
from lightning_viz.callbacks.display import input_form, shown_inputs
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.population import Batch, Reading
from lightning_viz.callbacks.probe import displayed_input
from lightning_viz.callbacks.snapshot import Snapshot
from lightning_viz.callbacks.view import PopulationView
from lightning_viz.errors import LayerNotFoundError, TargetError, ViewError
from lightning_viz.hooks.geometry import Layout
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.observe import observe
from lightning_viz.hooks.outputs import class_probabilities
from lightning_viz.hooks.pytree import all_tensors, map_tensors, on_device
from lightning_viz.render.mistakes import MOST_CLASSES, MOST_WORST, confusion_table, worst_samples
from lightning_viz.render.tiles import Verdict

__all__ = ["Mistakes"]

_NO_CLASSES = "the model's output is not of classes, as far as is known"


@dataclass(frozen=True)
class _Mistaken:
    """The samples with the largest loss, and how many of each class were taken for which.

    Attributes:
        ranking: of the losses, as of one channel.
        confusion: counts ``[K, K]``, true classes as rows.
        reason: why there is nothing to count, in words; empty if there is something.
        kept: of the samples in the ranking, their inputs and label.
    """

    ranking: TopK
    confusion: NDArray[np.int64]
    reason: str = ""
    kept: Mapping[int, Any] = field(default_factory=dict)

    @property
    def samples(self) -> NDArray[np.int64]:
        """Numbers of the samples in the ranking."""
        return self.ranking.samples

    def merge(self, other: _Mistaken) -> _Mistaken:
        """Of both."""
        if self.reason or other.reason:
            return self if self.reason else other
        ranking, kept = self.ranking.merge(other.ranking), {**other.kept, **self.kept}
        kept = {number: kept[number] for number in ranking.samples.ravel().tolist() if number in kept}
        return _Mistaken(ranking, self.confusion + other.confusion, kept=kept)


class Mistakes(PopulationView):
    """What a classifier gets wrong (tags ``mistakes/worst`` and ``mistakes/confusion``).

    The samples of the whole validation set with the largest loss, each with truth, prediction, confidence and Grad-CAM
    of the predicted class, and the confusion matrix. The losses come from the validation pass that runs anyway, of all
    processes; the maps from one pass of the view's own, of the samples shown.

    Args:
        layers: whose output holds the scores of the classes ``[N, K]``, logits or probabilities; the last of the
            outermost modules with weights if omitted.
    """

    layers: Layers = "last_part"

    kind: ClassVar[str] = "mistakes"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.optional = self.private  # then it is left out, which ends no run

    def check(self, model: nn.Module) -> None:
        """The layer must exist, and samples be shown."""
        super().check(model)
        if self.private:
            raise ViewError("its pictures are samples, which private=True keeps out of logs")

    def read(self, call: str, module: nn.Module, output: Tensor, layout: Layout) -> Reading:
        """The scores of the classes."""
        return Reading(output.detach().flatten().double(), partial(self._add, tuple(output.shape)))

    def _add(self, shape: tuple[int, ...], numbers: NDArray[np.float64], batch: Batch, so_far: Any) -> Any:
        labels, nothing = batch.labels, np.zeros((0, 0), dtype=np.int64)
        if len(shape) != 2 or shape[1] < 2:
            words = f"the output is {list(shape)} per batch, no scores of classes [N, K]: name their layer in layers="
            return _Mistaken(TopK.empty(1, MOST_WORST), nothing, words)
        known = labels is not None and labels.dim() == 1 and not labels.is_floating_point()
        if labels is None or not known or len(labels) < shape[0] or bool((labels >= shape[1]).any()):
            return _Mistaken(TopK.empty(1, MOST_WORST), nothing, "the batches hold no class for each sample")
        scores, true = torch.from_numpy(numbers.reshape(shape)), labels[: shape[0]].cpu().long()
        losses = _losses(scores, true).numpy()
        peaks = np.stack([losses, np.zeros_like(losses)], axis=-1)[:, None]  # as of one channel, at one place
        before = so_far or _Mistaken(TopK.empty(1, MOST_WORST), np.zeros((shape[1], shape[1]), dtype=np.int64))
        ranking = replace(before.ranking, kept=before.kept).update(peaks, 1, batch.numbers, batch.sample)
        counted = true >= 0
        confusion = multiclass_confusion_matrix(scores.argmax(1)[counted], true[counted], shape[1]).numpy()
        return _Mistaken(replace(ranking, kept={}), before.confusion + confusion, before.reason, ranking.kept)

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """What the model says of the worst samples, and why."""
        assert snapshot.population is not None
        found: _Mistaken = next(reversed(snapshot.population.by_call().values()))
        if found.reason:
            raise ViewError(found.reason)
        numbers = [n for n in found.samples[0].tolist() if n != NO_SAMPLE and n in found.kept]
        shapes = {n: [x.shape for x in all_tensors(found.kept[n][0])] for n in numbers}
        numbers = [n for n in numbers if shapes[n] == shapes[numbers[0]]]
        if not numbers:
            raise ViewError("the batches hold no class for each sample")
        whole = iter([torch.cat(same) for same in zip(*(all_tensors(found.kept[n][0]) for n in numbers), strict=True)])
        inputs = on_device(model, map_tensors(found.kept[numbers[0]][0], lambda _: next(whole)))
        layers = _map_layers(model) if input_form(model, inputs) == "image" else []
        try:
            seen = observe(model, inputs, layers=layers, gradients=bool(layers))
        except TargetError as error:  # which names an argument of views that have a target
            raise ViewError(_NO_CLASSES) from error
        if seen.outputs is None or seen.meaning is None or seen.outputs.dim() != 2 or not seen.meaning.classifies:
            raise ViewError(_NO_CLASSES)
        maps, layer = None, ""
        for call in seen.activations if layers else ():
            activations, gradients = seen.maps(call), seen.gradient_maps(call)
            if activations is not None and gradients is not None:
                maps, layer = class_activation_map(activations, gradients).float().cpu().numpy(), call
        images = shown_inputs(
            map_tensors(displayed_input(inputs), Tensor.cpu),
            input_form(model, inputs),
            self.pixel_space or snapshot.samples.pixel_space,
        )
        probabilities = class_probabilities(seen.outputs, seen.meaning).cpu()
        labels = [found.kept[n][1] for n in numbers]
        return {"found": found, "numbers": numbers, "images": images, "maps": maps, "layer": layer,
                "probabilities": probabilities, "labels": labels}  # fmt: skip

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """The worst samples, and the confusion matrix."""
        assert snapshot.population is not None
        extra, name = snapshot.extra, snapshot.samples.name
        confusion = extra["found"].confusion
        names = [name(index) for index in range(len(confusion))]
        longest = max(names, key=len)
        verdicts = [
            Verdict(names[label], names[int(row.argmax())], float(row.max()), longest)
            for label, row in zip(extra["labels"], extra["probabilities"], strict=True)
        ]
        shared = {"step": snapshot.step, "population": snapshot.population.describe()}
        notes = (*snapshot.population.notes, *snapshot.notes(self.pixel_space))
        wrong = int(confusion.sum() - np.trace(confusion))
        marks = new_among(self.state, snapshot.step, [extra["numbers"]])
        yield DrawTask(
            worst_samples,
            {
                **shared,
                "tag": f"{self.kind}/worst",
                "images": extra["images"],
                "maps": extra["maps"],
                "new": None if marks is None else marks[0],
                "wrong": wrong,
                "samples": int(confusion.sum()),
                "layer": extra["layer"],
                "verdicts": verdicts,
                "notes": notes,
            },
            scalars={f"{self.kind}/share": wrong / max(1, int(confusion.sum()))},
        )
        missed = confusion.sum(1) + confusion.sum(0) - 2 * np.diag(confusion)
        most = np.sort(np.argsort(-missed, kind="stable")[:MOST_CLASSES]).tolist()
        shown = self.state.setdefault("classes", most)
        yield DrawTask(
            confusion_table,
            {
                **shared,
                "tag": f"{self.kind}/confusion",
                "counts": confusion[np.ix_(shown, shown)],
                "names": [names[index] for index in shown],
                "classes": len(names),
                "notes": snapshot.population.notes,
            },
        )


def _losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of scores ``[n, K]``, logits or probabilities; NaN, which no ranking takes, without a label."""
    sums = scores.sum(1)
    probable = bool((scores >= 0).all()) and bool(torch.isclose(sums, torch.ones_like(sums), atol=1e-3).all())
    logarithms = scores.clamp_min(1e-30).log() if probable else scores.log_softmax(1)
    losses = -logarithms.gather(1, labels.clamp_min(0)[:, None])[:, 0]
    return losses.masked_fill(labels < 0, torch.nan)


def _map_layers(model: nn.Module) -> list[str]:
    try:
        return list(select_layers(model, "last_maps"))
    except LayerNotFoundError:
        return []
