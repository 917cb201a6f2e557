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
from lightning_viz.callbacks.layer_readings import Batch, Reading
from lightning_viz.callbacks.probe import displayed_input
from lightning_viz.callbacks.probe_loading import check_rows
from lightning_viz.callbacks.snapshot import Snapshot
from lightning_viz.callbacks.view import PopulationView
from lightning_viz.errors import (
    InvalidArgumentError,
    LayerNotFoundError,
    LightningVizError,
    NoClassesError,
    NoLabelsError,
    OutputError,
    ViewError,
)
from lightning_viz.hooks.detection import detections_of
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.observe import observe
from lightning_viz.hooks.outputs import batch_meaning, class_logits, class_probabilities, known_labels, scores_path
from lightning_viz.hooks.pytree import Path, all_tensors, map_tensors, on_device, part_at
from lightning_viz.render.mistakes import MOST_CLASSES, MOST_WORST, confusion_table, worst_samples
from lightning_viz.render.tiles import Verdict

__all__ = ["Mistakes"]

_NO_CLASSES = "the model's output is not of classes, as far as is known"
_NO_LABELS = "the batches hold no class of the model for each sample"


@dataclass(frozen=True)
class _Mistaken:
    """The samples with the largest loss, and how many of each class were taken for which.

    Attributes:
        ranking: of the losses, as of one channel.
        confusion: counts ``[K, K]``, true classes as rows.
        reason: why there is nothing to count; None if there is something.
        flawed: number of samples that are not counted, as the model's scores of them are NaN.
        kept: of the samples in the ranking, their inputs and label.
    """

    ranking: TopK
    confusion: NDArray[np.int64]
    reason: LightningVizError | None = None
    flawed: int = 0
    kept: Mapping[int, Any] = field(default_factory=dict)

    @property
    def samples(self) -> NDArray[np.int64]:
        """Numbers of the samples in the ranking."""
        return self.ranking.samples

    def merge(self, other: _Mistaken) -> _Mistaken:
        """Of both."""
        if self.reason is not None or other.reason is not None:
            return other if self.reason is None else self
        ranking, kept = self.ranking.merge(other.ranking), {**other.kept, **self.kept}
        kept = {number: kept[number] for number in ranking.samples.ravel().tolist() if number in kept}
        return _Mistaken(ranking, self.confusion + other.confusion, None, self.flawed + other.flawed, kept)


class Mistakes(PopulationView):
    """What a classifier gets wrong (tags ``mistakes/worst`` and ``mistakes/confusion``).

    The samples of the whole validation set with the largest loss, each with truth, prediction, confidence and Grad-CAM
    of the predicted class, and the confusion matrix. The losses come from the validation pass that runs anyway, of all
    processes; the maps from one pass of the view's own, of the samples shown.

    Args:
        layers: whose output holds the scores, if it is not the model's own: logits or probabilities ``[N, K]`` of the
            classes, or single ones, ``[N]`` or ``[N, 1]``, of the second of two.
    """

    layers: Layers = ()

    kind: ClassVar[str] = "mistakes"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.optional = self.private  # then it is left out, which ends no run

    def check(self, model: nn.Module) -> None:
        """Layers that are named must exist, and samples be shown."""
        select_layers(model, self.layers)
        if self.private:
            raise ViewError("its pictures are samples, which private=True keeps out of logs")

    def read_output(self, output: Any, batch: Batch) -> Reading:
        """The scores of the classes."""
        check_rows(batch.inputs)
        nothing = torch.zeros(0)
        if detections_of(output) is not None:
            return Reading(nothing, partial(_refused, NoClassesError(_NO_CLASSES)))
        try:
            path = scores_path(output, batch.knowledge)
        except OutputError as error:
            return Reading(nothing, partial(_refused, error))
        scores = part_at(output, path).detach()
        if scores.dim() not in (1, 2):
            return Reading(nothing, partial(_refused, NoClassesError(_NO_CLASSES)))
        if len(scores) != len(batch):
            raise InvalidArgumentError(f"the output is {list(scores.shape)} for a batch of {len(batch)} samples")
        scores = scores[: len(batch.numbers)]
        return Reading(scores.flatten().double(), partial(_add, path, tuple(scores.shape)))

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """What the model says of the worst samples, and why."""
        assert snapshot.population is not None
        found: _Mistaken = next(reversed(snapshot.population.by_call().values()))
        if found.reason is not None:
            raise found.reason
        if not found.confusion.any() and not found.flawed:
            raise NoLabelsError(_NO_LABELS)
        numbers = [n for n in found.samples[0].tolist() if n != NO_SAMPLE and n in found.kept]
        shapes = {n: [x.shape for x in all_tensors(found.kept[n][0])] for n in numbers}
        numbers = [n for n in numbers if shapes[n] == shapes[numbers[0]]]
        if not numbers:
            return {"found": found, "numbers": [], "images": np.zeros((0, 1, 1, 3), dtype=np.uint8), "maps": None,
                    "layer": "", "unit": "", "probabilities": (), "labels": ()}  # fmt: skip
        whole = iter([torch.cat(same) for same in zip(*(all_tensors(found.kept[n][0]) for n in numbers), strict=True)])
        inputs = on_device(model, map_tensors(found.kept[numbers[0]][0], lambda _: next(whole)))
        layers = _map_layers(model) if input_form(model, inputs) == "image" else []
        seen = observe(model, inputs, layers=layers, gradients=bool(layers))
        if seen.outputs is None or seen.meaning is None or not seen.meaning.classifies:
            raise NoClassesError(_NO_CLASSES)
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
        unit = "probability" if seen.meaning.squashed else "logits"
        return {"found": found, "numbers": numbers, "images": images, "maps": maps, "layer": layer, "unit": unit,
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
                "flawed": extra["found"].flawed,
                "samples": int(confusion.sum()),
                "layer": extra["layer"],
                "unit": extra["unit"],
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

    def facts(self, snapshot: Snapshot) -> Mapping[str, Any]:
        """The samples with the largest loss, by their place in the data set."""
        found, extra = snapshot.extra["found"], snapshot.extra
        losses = dict(zip(found.samples[0].tolist(), found.ranking.values[0].tolist(), strict=True))
        worst = []
        for number, label, row in zip(extra["numbers"], extra["labels"], extra["probabilities"], strict=True):
            truth, prediction = (
                {"index": index, "name": snapshot.samples.name(index)} for index in (int(label), int(row.argmax()))
            )
            sample = {"index": number, "loss": losses[number], "truth": truth, "prediction": prediction}
            worst.append({**sample, "confidence": float(row.max())})
        counted = int(found.confusion.sum())
        return {
            "tag": f"{self.kind}/worst",
            "samples": counted,
            "wrong": counted - int(np.trace(found.confusion)),
            "flawed": found.flawed,
            "worst": worst,
        }


def _refused(reason: LightningVizError, numbers: NDArray[np.float64], batch: Batch, so_far: Any) -> _Mistaken:
    return _Mistaken(TopK.empty(1, MOST_WORST), np.zeros((0, 0), dtype=np.int64), reason)


def _add(path: Path, shape: tuple[int, ...], numbers: NDArray[np.float64], batch: Batch, so_far: Any) -> _Mistaken:
    """With a batch of scores ``[n, K]``, or of single ones ``[n]`` or ``[n, 1]``."""
    scores, labels = torch.from_numpy(numbers.reshape(shape)), batch.labels
    meaning = batch_meaning(scores, path, batch.knowledge)
    if meaning.kind not in ("scores", "classifier", "binary"):
        several = meaning.kind == "multi-label"
        reason = ViewError("a sample may be of several classes") if several else NoClassesError(_NO_CLASSES)
        return _refused(reason, numbers, batch, so_far)
    if labels is None or labels.dim() != 1 or labels.is_floating_point() or len(labels) != len(batch):
        return _refused(NoLabelsError(_NO_LABELS), numbers, batch, so_far)
    logits = class_logits(scores, meaning)
    classes = logits.shape[1]
    true = known_labels(labels[: len(scores)].cpu().long(), classes)
    losses = -logits.log_softmax(1).gather(1, true.clamp_min(0)[:, None])[:, 0]
    losses = losses.masked_fill(true < 0, torch.nan)  # which no ranking takes
    peaks = torch.stack([losses, torch.zeros_like(losses)], -1)[:, None].numpy()  # as of one channel, at one place
    before = so_far or _Mistaken(TopK.empty(1, MOST_WORST), np.zeros((classes, classes), dtype=np.int64))
    if before.reason is not None:
        return before
    ranking = replace(before.ranking, kept=before.kept).update(peaks, 1, batch.numbers, batch.sample)
    counted = ~losses.isnan()
    confusion = multiclass_confusion_matrix(logits.argmax(1)[counted], true[counted], classes).numpy()
    flawed = before.flawed + int((~counted & (true >= 0)).sum())
    return _Mistaken(replace(ranking, kept={}), before.confusion + confusion, None, flawed, ranking.kept)


def _map_layers(model: nn.Module) -> list[str]:
    try:
        return list(select_layers(model, "last_maps"))
    except LayerNotFoundError:
        return []
