"""The view of what a detector or a dense model predicts, beside the truth."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_jaccard_index
from torchmetrics.functional.image import peak_signal_noise_ratio

from lightning_viz.callbacks.draw_task import DrawTask, numbers_alone
from lightning_viz.callbacks.probe import IGNORE_INDEX
from lightning_viz.callbacks.snapshot import Snapshot
from lightning_viz.callbacks.view import View
from lightning_viz.errors import InvalidArgumentError, ViewError, inform
from lightning_viz.hooks.detection import WEAK, Detections
from lightning_viz.hooks.feature_maps import resize
from lightning_viz.hooks.pytree import image_of
from lightning_viz.pixels import PixelSpace
from lightning_viz.plain_text import plain_text
from lightning_viz.render.dense import MOST_PREDICTIONS, UNCOUNTED, class_predictions, image_predictions
from lightning_viz.render.detections import MATCHING, detection_predictions, matches
from lightning_viz.render.text import percent
from lightning_viz.render.tiles import to_rgb

__all__ = ["Predictions"]


class Predictions(View):
    """What a detector, a segmentation or an image-to-image model predicts, beside the truth (tag ``predictions``).

    A detector's boxes and masks stand beside the true ones, those that match (of one class, with an intersection over
    union of 0.5 or more) in whole frames, what was missed or is false in broken ones; recall and precision are plotted
    over the head of the probe.

    Which of the others it is, the outputs and the truth in the batches tell: scores of classes ``[N, K, H, W]`` beside
    masks ``[N, H, W]`` of whole numbers (or one score ``[N, 1, H, W]`` beside masks of zeros and ones) are classes of
    pixels; outputs like the truth ``[N, C, H, W]`` are images, and where the batches hold no truth but outputs are like
    the input, an autoencoder's. Of classes also plots mean and each class's intersection over union and the share of
    right pixels, of images the peak signal-to-noise ratio, over the head of the probe.

    Args:
        class_names: of the classes; those that the data set knows (its ``classes``) if omitted.
        ignore_index: true class of pixels that do not count (255: PASCAL VOC's); negative ones never do.
        background: class that is left without color; None: every class is colored.
        threshold: of a detector, least score of the detections that are drawn and counted.
        limit: of images, the absolute difference at the color scale's end, in pixels of 0 to 1.
        target_pixel_space: how images to predict map to pixels; unchanged if within [0, 1], else as the inputs.
    """

    class_names: tuple[str, ...] = ()
    ignore_index: int = IGNORE_INDEX
    background: int | None = 0
    threshold: float = 0.5
    limit: float = 0.25
    target_pixel_space: PixelSpace | None = None

    kind: ClassVar[str] = "predictions"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.limit > 0:
            raise InvalidArgumentError(f"limit is {self.limit!r}: give a difference of pixels, above 0")
        self.class_names = tuple(map(plain_text, self.class_names))

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page."""
        if snapshot.observation.detections is not None:
            yield self._detections(snapshot, snapshot.observation.detections)
            return
        outputs, truth = snapshot.observation.outputs, snapshot.samples.truths
        if outputs is None or outputs.dim() != 4:
            shape = "no tensor" if outputs is None else list(outputs.shape)
            raise ViewError(f"the model returns {shape}: predictions are shown of maps [N, K, H, W]")
        outputs = outputs.float()
        mask = None if truth is None else mask_of(truth, outputs.shape[1])
        if mask is not None:
            yield self._classes(snapshot, outputs, mask)
            return
        image = image_of(snapshot.observation.inputs)
        itself = truth is None and image is not None and image.shape == outputs.shape
        if itself and snapshot.samples.compared == "nothing":
            raise ViewError(
                "the step's loss compares the output with nothing in the batch (noise that it makes, say): to compare "
                "it with something, give probe=Probe(inputs=..., labels=...) with images"
            )
        target = image if itself else truth
        if target is None or target.shape != outputs.shape:
            found = "no masks and no images" if target is None else list(target.shape)
            raise ViewError(
                f"the model returns {list(outputs.shape)}, and to compare it with the batches hold {found}: give "
                "probe=Probe(inputs=..., labels=...) with masks [N, H, W] or images of the same shape"
            )
        yield self._images(snapshot, outputs, target.float(), "input itself" if itself else "target")

    def _detections(self, snapshot: Snapshot, found: tuple[Detections, ...]) -> DrawTask:
        true = snapshot.samples.objects
        truth = None if true is None else snapshot.objects(true[: len(found)])
        prediction, notes = snapshot.objects(found), snapshot.notes(self.pixel_space)
        certain = [[n for n, score in enumerate(one.scores) if score >= self.threshold] for one in prediction]
        if not any(len(one) and float(one.scores[0]) > WEAK for one in found):
            notes = (*notes, f"no detection above {WEAK}")
        scalars = {}
        if truth is not None:
            pairs = zip(prediction, truth, certain, strict=True)
            hits = sum(len(matches(one, own, places, MATCHING)) for one, own, places in pairs)
            counts = {"recall": sum(len(own.labels) for own in truth), "precision": sum(map(len, certain))}
            scalars = {f"{self.kind}/{name}": hits / count for name, count in counts.items() if count}
        labels = {int(label) for one in (*prediction, *(truth or ())) for label in one.labels}
        named = dict(enumerate(self.class_names)) if self.class_names else {}
        return DrawTask(
            detection_predictions,
            {
                "tag": self.kind,
                "images": snapshot.images(self.pixel_space),
                "truth": truth,
                "prediction": prediction,
                "step": snapshot.step,
                "names": {label: named.get(label, snapshot.samples.name(label)) for label in sorted(labels)},
                "threshold": self.threshold,
                "match_overlap": MATCHING,
                "notes": notes,
            },
            scalars=scalars,
        )

    def _classes(self, snapshot: Snapshot, scores: Tensor, truth: Tensor) -> DrawTask:
        notes = snapshot.notes(self.pixel_space)
        if scores.shape[2:] != truth.shape[1:]:
            sizes = [" × ".join(map(str, shape)) for shape in (scores.shape[2:], truth.shape[1:])]
            notes = (*notes, f"scores of {sizes[0]} places enlarged to the masks' {sizes[1]}")
            scores = resize(scores, truth.shape[1:])
        if not bool(scores.isfinite().all()):
            notes = (*notes, "NaN or infinite scores")
        classes = max(scores.shape[1], 2)
        predicted = scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > _threshold(scores)).long()
        uncounted = (truth == self.ignore_index) | (truth < 0)
        overlaps, accuracy = _agreement(predicted[~uncounted], truth[~uncounted], classes)
        names = [*self.class_names, *map(snapshot.samples.name, range(len(self.class_names), classes))][:classes]
        if bool(uncounted.any()):
            notes = (*notes, f"{percent(float(uncounted.float().mean()))} % of the pixels do not count")
        return DrawTask(
            class_predictions,
            {
                "tag": self.kind,
                "images": snapshot.images(self.pixel_space)[:MOST_PREDICTIONS],
                "truth": truth.masked_fill(uncounted, UNCOUNTED)[:MOST_PREDICTIONS].to(torch.int16).numpy(),
                "prediction": predicted[:MOST_PREDICTIONS].to(torch.int16).numpy(),
                "step": snapshot.step,
                "names": names,
                "overlaps": overlaps.tolist(),
                "accuracy": accuracy,
                "samples": len(truth),
                "background": self.background,
                "notes": notes,
            },
            scalars=_finite(
                {
                    f"{self.kind}/mean_iou": float(overlaps.nanmean()),
                    f"{self.kind}/pixel_accuracy": accuracy,
                    **{f"{self.kind}/iou/{name}": float(one) for name, one in zip(names, overlaps, strict=True)},
                }
            ),
        )

    def _images(self, snapshot: Snapshot, outputs: Tensor, truth: Tensor, name: str) -> DrawTask:
        pixel_space = self._space(snapshot, truth)
        pixels, target = pixel_space.to_pixels(outputs), pixel_space.to_pixels(truth)
        ratios = peak_signal_noise_ratio(pixels, target, 1.0, reduction="none", dim=(1, 2, 3))
        psnr = _finite({f"{self.kind}/psnr": float(ratios.mean())})
        shown: dict[str, Any] = {
            "images": snapshot.images(self.pixel_space)[:MOST_PREDICTIONS],
            "truth": to_rgb(target[:MOST_PREDICTIONS].numpy()),
            "prediction": to_rgb(pixels[:MOST_PREDICTIONS].numpy()),
            "difference": (pixels - target)[:MOST_PREDICTIONS].abs().mean(1).numpy(),
        }
        if self.private:
            if not self.state:
                inform("Predictions plots numbers alone: predicted images show their inputs, which are private")
            self.state["numbers_alone"] = True
            return DrawTask(numbers_alone, {"tag": self.kind}, scalars=psnr)
        options = {"noise_ratios": ratios.tolist(), "limit": self.limit, "truth_name": name}
        return DrawTask(
            image_predictions,
            {"tag": self.kind, "step": snapshot.step, **shown, **options, "notes": snapshot.notes(self.pixel_space)},
            scalars=psnr,
        )

    def _space(self, snapshot: Snapshot, truth: Tensor) -> PixelSpace:
        low, high = truth.aminmax()
        if self.target_pixel_space is not None:
            return self.target_pixel_space
        if low >= 0 and high <= 1:
            return PixelSpace()
        return self.pixel_space or snapshot.samples.pixel_space or PixelSpace()


def _agreement(predicted: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, float]:
    """Each class's intersection over union ``[classes]``, NaN if it is absent, and the accuracy of pixels ``[n]``."""
    if bool((labels >= classes).any()):
        raise ViewError(
            f"the masks hold class {int(labels.max())}, but the model predicts {classes} classes: give the class that "
            "does not count as ignore_index"
        )
    overlaps = multiclass_jaccard_index(
        predicted, labels, classes, average=None, zero_division=math.nan, validate_args=False
    )
    return overlaps, float((predicted == labels).float().mean())


def mask_of(truth: Tensor, channels: int) -> Tensor | None:
    """The class of each pixel ``[N, H, W]``, where a truth is one; None where it is an image.

    Args:
        truth: ``[N, H, W]`` of whole numbers, ``[N, 1, H, W]``, or images ``[N, C, H, W]``.
        channels: of the model's output; beside a single one zeros and ones are two classes.
    """
    flat = truth[:, 0] if truth.dim() == 4 and truth.shape[1] == 1 else truth
    if flat.dim() != 3:
        return None
    binary = channels == 1 and bool(((flat == 0) | (flat == 1)).all())
    return flat.long() if binary or not flat.is_floating_point() else None


def _threshold(scores: Tensor) -> float:
    """Of a single score: a half where they are probabilities, else 0, as of logits."""
    return 0.5 if bool((scores >= 0).all()) and bool((scores <= 1).all()) else 0.0


def _finite(scalars: dict[str, float]) -> dict[str, float]:
    return {tag: value for tag, value in scalars.items() if torch.tensor(value).isfinite()}
