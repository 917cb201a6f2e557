"""What a view asks for, and what it is given to draw."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Union

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.callbacks.probe import IGNORE_INDEX, Samples
from lightning_viz.errors import InvalidArgumentError, LayerNotReachedError
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.pytree import all_tensors, image_of, map_tensors
from lightning_viz.hooks.relu import Rule
from lightning_viz.hooks.targets import Target, classes, region, top
from lightning_viz.pixels import PixelSpace
from lightning_viz.render.tiles import Verdict, confidence_text, describe_channels, to_rgb

__all__ = ["Snapshot", "Requirements"]

TargetChoice = Union[int, str, Sequence[int]]
"""The class explained: one for all samples, each sample's ``"label"`` (predicted where not known), its ``"predicted"``
class, or several side by side: a list of classes, or the most probable ones, ``"top 3"``. Of a segmentation also a
class summed over the places where it truly is: ``"region 2"``, or ``"region"``, each sample's largest beside class 0.
"""

_TOP = re.compile(r"top (\d+)")
_REGION = re.compile(r"region(?: (\d+))?")

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
        head: whether anything is; a view that asks for none of this is given the samples alone.
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

    @property
    def explains(self) -> bool:
        """Whether a backward pass is needed."""
        return bool(self.gradients) or self.input_gradient or bool(self.rules)

    @property
    def surveys(self) -> bool:
        """Whether the population beyond the head must go forward."""
        return self.population > 0 and any(name != INPUT for name in self.vectors)


@dataclass(frozen=True)
class Snapshot:
    """All that a view draws from: plain data.

    Attributes:
        seen: the shared pass's observation of the head of the probe, on the CPU.
        samples: the probe.
        step: completed updates.
        extra: what the view's own passes gave.
    """

    seen: Observation
    samples: Samples
    step: int
    extra: Mapping[str, Any] = field(default_factory=dict)

    def calls(self, layer: str) -> list[str]:
        """Names under which a layer's calls were recorded.

        Raises:
            LayerNotReachedError: the pass did not call it.
        """
        if layer in self.seen.unreached:
            raise LayerNotReachedError(f"layer {layer!r} is not called in the forward pass: leave it out")
        return self.seen.calls(layer)

    def pixels(self, pixel_space: PixelSpace | None) -> Tensor | None:
        """The head's images ``[N, C, H, W]`` in [0, 1]; None where the model takes no images."""
        image = image_of(self.seen.inputs)
        return (
            None
            if image is None
            else (pixel_space or self.samples.pixel_space or PixelSpace()).to_pixels(image.float())
        )

    def images(self, pixel_space: PixelSpace | None) -> NDArray[np.uint8]:
        """The head's images as they are shown, ``[N, H, W, 3]``; an input that is no image is a strip of its values."""
        pixels = self.pixels(pixel_space)
        if pixels is None:
            flat = all_tensors(self.seen.inputs)[0].float().flatten(1)
            low, high = flat.amin(), flat.amax()
            pixels = ((flat - low) / (high - low).clamp_min(1e-12))[:, None, None, :]
        return to_rgb(pixels.numpy())

    def notes(self, pixel_space: PixelSpace | None) -> tuple[str, ...]:
        """What should be said of the images shown."""
        image = image_of(self.seen.inputs)
        channels = "" if image is None else describe_channels(image.shape[1])
        guessed = () if pixel_space is not None else tuple(note for note in self.samples.notes if "pixel range" in note)
        return (*((f"images: {channels}",) if channels else ()), *guessed)

    def verdicts(self) -> tuple[Verdict, ...]:
        """Truth, prediction and confidence of each sample of the head; empty where the model does not classify."""
        outputs, labels = self.seen.outputs, self.seen.labels
        if outputs is None or outputs.dim() != 2 or outputs.shape[1] < 2:
            return ()
        probabilities = outputs.float().softmax(1)
        confidence, predicted = probabilities.max(1)
        return tuple(
            Verdict(
                truth=None if labels is None else self.samples.name(int(labels[index])),
                prediction=self.samples.name(int(predicted[index])),
                confidence=float(confidence[index]) if bool(confidence[index].isfinite()) else None,
            )
            for index in range(len(outputs))
        )

    def target_name(self, choice: TargetChoice) -> str:
        """The explained class, in words."""
        if isinstance(choice, int):
            return f"class {self.samples.name(choice)}"
        if isinstance(choice, str) and (of := _REGION.fullmatch(choice)) and _masks(self.samples) is not None:
            return f"class {self.samples.name(int(of[1]))} where it truly is" if of[1] else "each sample's true region"
        if choice == "label" and self.seen.labels is not None:
            return "each sample's true class"
        return "each sample's predicted class"

    def target_names(self, targets: Tensor) -> list[list[str]]:
        """Of classes ``[T, N]`` the names, with the probability that each sample's is given."""
        outputs = self.seen.outputs
        classifies = outputs is not None and outputs.dim() == 2 and outputs.shape[1] > 1
        shares = outputs.float().softmax(1).gather(1, targets.T).T if classifies and outputs is not None else None
        return [
            [
                self.samples.name(int(one)) + ("" if shares is None else f" {confidence_text(float(shares[t, n]))}")
                for n, one in enumerate(row)
            ]
            for t, row in enumerate(targets)
        ]

    def explained(self, shape: Sequence[int]) -> Tensor:
        """The classes that the view's own `look` explained, ``[T, N]``."""
        return torch.as_tensor(self.extra["targets"]).cpu().expand(*shape)


def on_device(model: nn.Module, inputs: Any) -> Any:
    """Inputs where the model is.

    Args:
        model: to be run.
        inputs: in its form.
    """
    device = device_of(model)
    return map_tensors(inputs, lambda x: x.to(device))


def device_of(model: nn.Module) -> torch.device:
    """Where a model is; on the CPU if it holds no tensors.

    Args:
        model: any module.
    """
    return next((one.device for one in chain(model.parameters(), model.buffers())), torch.device("cpu"))


def target_choice(choice: TargetChoice) -> TargetChoice:
    """A view's target, checked; several classes as a tuple.

    Args:
        choice: as a user writes it.

    Raises:
        ValueError: it is none.
    """
    if isinstance(choice, str):
        top_some = _TOP.fullmatch(choice) and int(choice[4:]) > 0
        if choice not in ("label", "predicted") and not top_some and not _REGION.fullmatch(choice):
            forms = "'label', 'predicted', 'top 3', a class, or a list of classes"
            raise InvalidArgumentError(f"target is {choice!r}: give {forms}; of a segmentation 'region' or 'region 2'")
        return choice
    several = choice if isinstance(choice, int) else tuple(int(one) for one in choice)
    if several == ():
        raise InvalidArgumentError("target is an empty list: give one class or more")
    return several


def resolved(choice: TargetChoice, samples: Samples) -> Target:
    """The target of a pass over the head of a probe; None, which is each sample's predicted class, as a last resort.

    Args:
        choice: of a view.
        samples: of its probe, whose labels may be known.
    """
    if isinstance(choice, int):
        return choice
    if isinstance(choice, str):
        found = _TOP.fullmatch(choice)
        if found:
            return top(int(found[1]))
        if of := _REGION.fullmatch(choice):
            return _true_region(samples, None if of[1] is None else int(of[1]))
        return samples.labels[: samples.head] if choice == "label" and samples.labels is not None else None
    return classes(*choice)


def _true_region(samples: Samples, index: int | None) -> Target:
    """A class, or each sample's largest beside class 0, where the masks have it."""
    masks = _masks(samples)
    if masks is None:
        raise InvalidArgumentError(
            "target is 'region', and the batches hold no masks [N, H, W]: give 'predicted', or masks"
        )
    if index is not None:
        return region(masks == index, index)
    counted = [mask[(mask > 0) & (mask != IGNORE_INDEX)].long() for mask in masks]
    largest = torch.stack([torch.bincount(mask, minlength=1).argmax() for mask in counted])
    return region(masks == largest[:, None, None], largest)


def _masks(samples: Samples) -> Tensor | None:
    """Of a segmentation's probe the true class of each pixel ``[n, H, W]``."""
    truths = samples.truths
    return truths if truths is not None and truths.dim() == 3 else None
