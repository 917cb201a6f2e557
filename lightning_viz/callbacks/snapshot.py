"""What a view asks for, and what it is given to draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Union, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.callbacks.display import InputForm, input_form, shown_inputs
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.layer_readings import Reading
from lightning_viz.callbacks.population import Population
from lightning_viz.callbacks.probe import IGNORE_INDEX, Probe, Samples
from lightning_viz.callbacks.run_protocol import Named, Run
from lightning_viz.callbacks.schedule import Schedule
from lightning_viz.errors import InvalidArgumentError, LayerNotReachedError, ViewError
from lightning_viz.hooks.attention import AttentionPart
from lightning_viz.hooks.box_target import BoxTarget
from lightning_viz.hooks.calls import image_sizes
from lightning_viz.hooks.dependence import images_among
from lightning_viz.hooks.detection import Detections
from lightning_viz.hooks.geometry import Layout
from lightning_viz.hooks.layers import Layers
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.outputs import class_probabilities
from lightning_viz.hooks.pytree import image_of
from lightning_viz.hooks.relu import Rule
from lightning_viz.hooks.target_types import ClassTarget, SideBySide, Target
from lightning_viz.hooks.targets import as_target, logit, parse_target, target_list, target_unit
from lightning_viz.pixels import PixelSpace
from lightning_viz.render.detections import ObjectFrame, Objects, framed_page
from lightning_viz.render.tiles import Verdict, confidence_text, describe_channels, neutral

__all__ = ["Snapshot", "Requirements"]

TargetChoice = Union[int, str, Sequence[Union[int, str]], Target]
"""The target explained: one class for all samples, several side by side, ``[3, "class:ox"]`` or
``["conv2[7]", "conv2[9]"]``, or any target in words
(see `lightning_viz.parse_target`) or as an object. ``"label"`` is the predicted class where labels are not known.
"""

INPUT = "input"
"""Name under which the inputs themselves stand among the layers of a population."""


@dataclass(frozen=True)
class Requirements:
    """What a view asks of the shared pass.

    Attributes:
        layers: whose outputs for the head of the probe.
        gradients: layers towards which the target's gradient is wanted.
        input_gradient: the gradient towards the inputs.
        rules: the same under these backward rules at ReLUs.
        target: what the gradients are of.
        vectors: layers (or `INPUT`) whose outputs, one vector per sample, are wanted over the population.
        population: how many samples of the probe, the head among them.
        weights: parameters of which a copy is wanted.
        head: whether the head of the probe is to go forward; a view that asks for weights alone needs no pass.
        attention: what of the attention weights, see `AttentionPart`.
        continuous: whether the view differentiates by the inputs in passes of its own.
    """

    layers: tuple[str, ...] = ()
    gradients: tuple[str, ...] = ()
    input_gradient: bool = False
    rules: tuple[Rule, ...] = ()
    target: TargetChoice = "label"
    vectors: tuple[str, ...] = ()
    population: int = 0
    weights: tuple[str, ...] = ()
    head: bool = True
    attention: tuple[AttentionPart, ...] = ()
    continuous: bool = False

    @property
    def samples(self) -> bool:
        """Whether there must be samples."""
        return self.head or bool(self.vectors) or self.population > 0

    @property
    def explains(self) -> bool:
        """Whether a backward pass is needed."""
        return bool(self.gradients) or self.input_gradient or bool(self.rules)

    @property
    def beyond_head(self) -> bool:
        """Whether the population beyond the head must go forward."""
        return self.population > 0 and any(name != INPUT for name in self.vectors)


@dataclass(frozen=True)
class Snapshot:
    """All that a view draws from: plain data.

    Attributes:
        observation: the shared pass's, of the head of the probe, on the CPU.
        samples: the probe.
        step: completed updates.
        requirements: of the view, in answer to which it was made.
        extra: what the view's own passes gave.
        population: what the view has summed up over the validation pass, or over samples run for it alone.
        form: of the inputs, as far as the model tells it, see `input_form`.
        private: whether the inputs are not to be shown.
        seen: of a model that takes several images, by call of a layer the number of the one that it depends on.
        rates: by the id of each parameter in training the number of its optimizer, and its learning rate; None of a
            checkpoint, whose updates are not there to be seen.
    """

    observation: Observation
    samples: Samples
    step: int
    requirements: Requirements = Requirements()
    extra: Mapping[str, Any] = field(default_factory=dict)
    population: Population | None = None
    form: InputForm | None = None
    private: bool = False
    seen: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[int, tuple[int, float]] | None = None

    def calls(self, layer: str) -> list[str]:
        """Names under which a layer's calls were recorded.

        Raises:
            LayerNotReachedError: the pass did not call it.
        """
        if layer in self.observation.unreached:
            raise LayerNotReachedError(f"layer {layer!r} is not called in the forward pass: leave it out")
        return self.observation.calls(layer)

    @property
    def input_form(self) -> InputForm:
        """Whether the inputs are images, series, volumes or vectors."""
        return self.form or input_form(None, self.observation.inputs)

    def images(self, pixel_space: PixelSpace | None, call: str = "") -> NDArray[Any]:
        """The head's inputs as pages take them, see `shown_inputs`; of private ones an even ground.

        Args:
            pixel_space: of images.
            call: of a layer, for the image that it depends on; the first if omitted.
        """
        number, inputs = self.seen.get(call, 0), self.observation.inputs
        inputs = images_among(inputs)[number] if number else inputs
        shown = shown_inputs(inputs, self.input_form, pixel_space or self.samples.pixel_space)
        return neutral(shown) if self.private else shown

    def notes(self, pixel_space: PixelSpace | None, call: str = "") -> tuple[str, ...]:
        """What should be said of the images shown."""
        image, count = image_of(self.observation.inputs), len(images_among(self.observation.inputs))
        several = (f"image {self.seen.get(call, 0) + 1} of the {count} that the model takes",) if count > 1 else ()
        channels = "" if image is None else describe_channels(image.shape[1])
        guessed = () if pixel_space is not None else self.samples.pixel_space_notes
        if self.private:
            return ("inputs are private, gray in their place",)
        return (*several, *((f"images: {channels}",) if channels else ()), *guessed)

    @property
    def probabilities(self) -> Tensor | None:
        """Of each sample of the head that of each class ``[N, K]``; None where the model does not classify."""
        outputs, meaning = self.observation.outputs, self.observation.meaning
        if outputs is None or meaning is None or not meaning.classifies or outputs.dim() not in (1, 2):
            return None
        if meaning.kind == "scores" and (outputs.dim() == 1 or outputs.shape[1] == 1):
            return None
        return class_probabilities(outputs, meaning)

    def verdicts(self) -> tuple[Verdict, ...]:
        """Truth, prediction and confidence of each sample of the head; empty where the model does not classify."""
        if self.observation.detections is not None:
            return self._detection_verdicts()
        probabilities, labels = self.probabilities, self.observation.labels
        if probabilities is None:
            return ()
        confidence, predicted = probabilities.max(1)
        sets = self._memberships(probabilities)
        longest = "" if sets else max(map(self.samples.name, range(probabilities.shape[1])), key=len)
        return tuple(
            Verdict(
                truth=sets[0][index] if sets else self._truth(None if labels is None else int(labels[index])),
                prediction=sets[1][index] if sets else self.samples.name(int(predicted[index])),
                confidence=float(confidence[index]) if bool(confidence[index].isfinite()) else None,
                longest=longest,
            )
            for index in range(len(probabilities))
        )

    def _truth(self, label: int | None) -> str | None:
        return None if label is None or label < 0 else self.samples.name(label)

    def _memberships(self, probabilities: Tensor) -> tuple[list[str], list[str]] | None:
        """Of a multi-label model the true and the predicted classes, by name; None where it has one class a sample."""
        meaning, truths = self.observation.meaning, self.samples.truths
        if meaning is None or meaning.kind != "multi-label" or truths is None or truths.shape != probabilities.shape:
            return None

        def names(row: Tensor) -> str:
            return ", ".join(self.samples.name(index) for index in row.nonzero().flatten().tolist())

        strongest = probabilities == probabilities.amax(1, keepdim=True)
        told = probabilities > 0.5
        predicted = torch.where(told.any(1, keepdim=True), told, strongest)
        return [names(row) or "none" for row in truths], [names(row) for row in predicted]

    def unit(self, unit: str) -> str:
        """The unit of maps of a class's score, in place of logits: what the model's scores are.

        Args:
            unit: of the method.
        """
        meaning, target = self.observation.meaning, self.extra.get("targets")
        if isinstance(target, Target) and target.layers:
            return target_unit(target, unit)
        if self.observation.detections is not None:
            return unit.replace("logits", "score")
        words = {"probability": "probability", "output": "units of the output"}
        return unit if meaning is None else unit.replace("logits", words.get(meaning.unit, "logits"))

    def _detection_verdicts(self) -> tuple[Verdict, ...]:
        """Of each image the detection that is explained, and its score."""
        found, scores = self.observation.targets, self.observation.scores
        if found is None or scores is None or found.dim() != 1:
            return ()
        return tuple(
            Verdict(prediction=self.samples.name(label), confidence=score)
            if label >= 0
            else Verdict(prediction="no detection")
            for label, score in zip(found.tolist(), scores.tolist(), strict=True)
        )

    def frames(self, *, masks: bool = True) -> list[list[ObjectFrame]]:
        """Of each image the box of the detection that is explained, with its mask if there is one."""
        observation, boxes = self.observation, self.observation.boxes
        if observation.detections is None or boxes is None or observation.targets is None:
            return []
        frames: list[list[ObjectFrame]] = []
        for index, (image, box) in enumerate(zip(observation.detections, boxes, strict=True)):
            if int(observation.targets[index]) < 0:
                frames.append([])
                continue
            place = next((n for n in range(len(image)) if torch.equal(image.boxes[n], box)), None)
            shown = self.objects((image,), index)[0]
            left, top, right, bottom = shown.boxes[place or 0].tolist()
            mask = None if place is None or not masks else shown.mask(place)
            frames.append([ObjectFrame((left, top, right, bottom), mask=mask)])
        return frames

    def objects(self, images: Sequence[Detections], first: int = 0) -> list[Objects]:
        """Objects in pixels of the images that are shown.

        Args:
            images: found or true objects of some of the head's images.
            first: number of the first of these.
        """
        shown, sizes = image_of(self.observation.inputs), image_sizes(self.observation.inputs)
        assert shown is not None
        height, width = shown.shape[2:]
        parts = []
        for number, image in enumerate(images, first):
            own = (height, width) if sizes is None else tuple(map(int, sizes[number]))
            masks = None
            if image.masks is not None:
                masks = np.zeros((len(image.masks), height, width), dtype=bool)
                rows, columns = (min(pair) for pair in zip(image.masks.shape[1:], (height, width), strict=True))
                masks[:, :rows, :columns] = image.masks[:, :rows, :columns].numpy()
            boxes = image.in_pixels(own[0], own[1]).float().numpy()
            parts.append(Objects(boxes, image.labels.numpy(), image.scores.float().numpy(), masks))
        return parts

    def framed(self, task: DrawTask, shown: Sequence[int] | None = None) -> DrawTask:
        """A task that draws a page of the head's samples, with the boxes that are explained; of a detector only.

        Args:
            task: that draws it.
            shown: numbers of the samples on the page; those of the head if omitted.
        """
        frames = self.frames()
        if not frames:
            return task
        frames = frames if shown is None else [frames[index] for index in shown]
        return replace(
            task, function=framed_page, arguments={**task.arguments, "page": task.function, "frames": frames}
        )

    def target_name(self, choice: TargetChoice) -> str:
        """The explained class, in words."""
        target = as_target(choice)  # type: ignore[arg-type]
        if self.observation.detections is not None and isinstance(target, (ClassTarget, BoxTarget)):
            index = target.index if isinstance(target, BoxTarget) else 0
            return f"box[{index}], each image's {'best' if index == 0 else f'number {index}'} detection"
        if not isinstance(target, ClassTarget) or target.count is not None:
            return target.name
        if target.position is not None:
            return target.name
        meaning = self.observation.meaning
        if meaning is not None and meaning.kind == "regression":
            return "the output"
        if meaning is not None and meaning.kind in ("features", "images"):
            return f"output {target.index}"
        kind, _, name = (target.word or "").partition(":")
        if kind == "region" and _masks(self.samples) is not None:
            return f"class {self._class_name(name)} where it truly is" if name else "each sample's true region"
        if kind == "class":
            return f"class {self._class_name(name)}"
        if kind == "label" and self.observation.labels is not None:
            head = self.observation.labels[: self.samples.head]
            return f"each sample's true class{', predicted where unknown' if bool((head < 0).any()) else ''}"
        words = "each sample's predicted class" if target.index is None else f"class {self._class_name(target.index)}"
        return f"{words}, summed over places" if meaning is not None and meaning.kind == "dense" else words

    def _class_name(self, word: Any) -> str:
        """A class's name, of its number or of itself."""
        digits = str(word).isdecimal() and word not in self.samples.class_names
        return self.samples.name(int(word)) if digits else str(word)

    def target_names(self, targets: Tensor) -> list[list[str]]:
        """Of classes ``[T, N]`` the names, with the probability that each sample's is given."""
        probabilities = self.probabilities
        shares = None if probabilities is None else probabilities.gather(1, targets.T).T
        return [
            [
                self.samples.name(int(one)) + ("" if shares is None else f": {confidence_text(float(shares[t, n]))}")
                for n, one in enumerate(row)
            ]
            for t, row in enumerate(targets)
        ]

    @property
    def several(self) -> bool:
        """Whether the view explained several targets of each sample."""
        return bool(self.extra["targets"].several)

    def column_names(self, shape: Sequence[int], target: Target | None = None) -> list[list[str]]:
        """The names of the targets that the view explained, of classes with the probability that each is given.

        Args:
            shape: their number and that of the samples, T and N.
            target: one of them; all if omitted.
        """
        target = self.extra["targets"] if target is None else target
        if isinstance(target, SideBySide):
            return [self.column_names((1, shape[1]), part)[0] for part in target.parts]
        if isinstance(target, ClassTarget) and target.index is not None and target.position is None:
            return self.target_names(torch.as_tensor(target.index).cpu().expand(*shape))
        if shape[0] > 1:
            raise ViewError(f"target {target} is several, and no classes: give a list of targets, ['conv2[7]', ...]")
        return [[target.name] * shape[1]]


def target_choice(choice: TargetChoice) -> TargetChoice:
    """A view's target, checked; several classes as a tuple.

    Args:
        choice: as a user writes it.

    Raises:
        InvalidArgumentError: it is none.
    """
    if isinstance(choice, str):
        parse_target(choice)
    if isinstance(choice, (str, int, Target)):
        return choice
    several = tuple(word if isinstance(word, str) else int(word) for word in choice)
    if not several:
        raise InvalidArgumentError("target is an empty list: give one class or more")
    for word in several:
        parse_target(str(word))
    return several


def resolved(choice: TargetChoice, samples: Samples) -> Target:
    """The target of a pass over the head of a probe; each sample's predicted class where labels are not known.

    Args:
        choice: of a view.
        samples: of its probe, whose labels may be known.
    """
    names = samples.class_names
    if isinstance(choice, (list, tuple)):
        return target_list(choice, names)
    target = as_target(choice)  # type: ignore[arg-type]
    if isinstance(target, ClassTarget) and target.word is not None and target.word.startswith("region"):
        masks = _masks(samples)
        if masks is None:
            raise InvalidArgumentError(
                "target is 'region', and the batches hold no masks [N, H, W]: give 'predicted', or masks"
            )
        return target.bind(masks.where(masks != IGNORE_INDEX, 0), names)
    labels = samples.true_classes
    target = target.bind(None if labels is None else labels[: samples.head], names)
    return ClassTarget() if isinstance(target, ClassTarget) and target.word == "label" else target


def explained_target(choice: TargetChoice, snapshot: Snapshot) -> Target:
    """The same target, with the classes named that the shared pass explained.

    Args:
        choice: of a view.
        snapshot: of the pass that explained it.
    """
    target, observation = resolved(choice, snapshot.samples), snapshot.observation
    if observation.boxes is not None and target.open:
        return BoxTarget(target.index if isinstance(target, BoxTarget) else 0, observation.boxes, observation.targets)
    return logit(snapshot.observation.targets) if target.open and snapshot.observation.targets is not None else target


def _masks(samples: Samples) -> Tensor | None:
    """Of a segmentation's probe the true class of each pixel ``[n, H, W]``."""
    truths = samples.truths
    return truths if truths is not None and truths.dim() == 3 else None


class ViewLike(Named, Protocol):
    """What a session needs of a view."""

    probe: Probe
    schedule: Schedule
    pixel_space: PixelSpace | None
    max_overhead: float
    finish_seconds: float
    free_megabytes: float
    log_megabytes: float
    animation: bool
    keep_parts: bool
    optional: bool
    private: bool
    last_step: int | None
    indices: tuple[int, ...] | None
    memories: dict[str, Any]
    frames: dict[str, list[tuple[int, NDArray[np.uint8]]]]

    def changed(self) -> dict[str, str]:
        """Arguments that change what it draws and are not the defaults, as they are written."""

    def check(self, model: nn.Module) -> None:
        """Raise a `ViewError` that says what to do, if the view does not suit the model."""

    def requirements(self, model: nn.Module) -> Requirements:
        """What the shared pass must give."""

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """Passes of the view's own."""

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """What to draw of a snapshot."""

    def facts(self, snapshot: Snapshot) -> Mapping[str, Any]:
        """What was found, in plain values, and the tag of the page that shows it."""

    def before_update(self, run: Run | None) -> None:
        """See the weights right before an update."""


@runtime_checkable
class PopulationViewLike(ViewLike, Protocol):
    """A view that reads its layers' outputs in a whole validation pass."""

    layers: Layers
    samples: int

    @property
    def before_training(self) -> bool:
        """Whether it also looks before the first update, at samples that are run for it alone."""

    @property
    def by_sample(self) -> bool:
        """Whether it needs outputs with a row for each sample, and their layout; else it takes any as it is."""

    def read(self, call: str, module: nn.Module, output: Tensor, layout: Layout) -> Reading:
        """What to take of a layer's output for a batch."""
