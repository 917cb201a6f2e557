"""The view of what units and classes want to see, made anew as they learn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.dream_units import LOGITS, Unit, named_units
from lightning_viz.callbacks.snapshot import Requirements, Snapshot
from lightning_viz.callbacks.unit_crops import Fields, SeenByUnits, UnitCrops
from lightning_viz.callbacks.view import View
from lightning_viz.costs import PASSES, Facts
from lightning_viz.dream.maximize import maximize
from lightning_viz.dream.parametrization import pixels
from lightning_viz.dream.regularization import Preset
from lightning_viz.errors import DreamWarning, InvalidArgumentError, ViewError
from lightning_viz.hooks.calls import call_model
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.observation import layer_of_call
from lightning_viz.hooks.observe import Forward
from lightning_viz.hooks.outputs import OutputMeaning, class_probabilities, class_scores
from lightning_viz.hooks.pytree import image_of, map_tensors, on_device, part_at, take_samples
from lightning_viz.pixels import PixelSpace
from lightning_viz.render.dreams import dream_tiles
from lightning_viz.render.text import number
from lightning_viz.render.tiles import confidence_text, to_rgb

__all__ = ["Dreams"]

_BLUR_EVERY = 4  # updates, as in Yosinski's presets


def _last_maps_and_logits() -> list[str]:
    return ["last_maps", LOGITS]


class Dreams(View):
    """What units and classes want to see, as training goes on (Erhan et al., 2009; tag ``dreams/<layer>``).

    Images that gradient ascent made to excite a channel or a class's logit; plotted too, as
    ``dreams/<layer>/<channel>``. Each look goes on from the images of the look before, which are kept in the
    checkpoint. Of a channel whose positions see less than the image the one in the middle of its map is excited, and
    the dream cut to what that sees; of others the sum over the map. Beside each stand its strongest samples, of the
    probe's first.
    What holds them down does not depend on the scale of what they climb, so that looks compare.

    Args:
        units: what to dream of: ``"conv2[7]"`` (a layer's channel), ``"conv2"`` (its first ones), ``"3"`` or
            ``"class:ox"`` (a class), ``"logits"`` (the first classes). The last layer with maps and the logits if
            omitted.
        each: so many channels or classes where no number is given.
        updates: of the images at a look, the first of which starts from noise; the next ones are still catching up.
        decay: share of its distance from gray that an image loses at each update: what is no longer wanted fades.
        blur: width in pixels of the Gaussian that every fourth update ends with; 0 for none.
    """

    units: Sequence[str] = field(default_factory=_last_maps_and_logits)
    each: int = 10
    updates: int = 30
    decay: float = 0.02
    blur: float = 1.0

    kind: ClassVar[str] = "dreams"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.units, str) or not self.units:
            raise InvalidArgumentError(f"units is {self.units!r}: give a list such as ['conv2[7]', 'logits']")
        if min(self.each, self.updates) < 1:
            raise InvalidArgumentError(f"each is {self.each}, updates is {self.updates}: give 1 or more")
        if not 0 <= self.decay < 1 or self.blur < 0:
            raise InvalidArgumentError(
                f"decay is {self.decay}, blur {self.blur}: give a share from 0 to below 1, and 0 or more"
            )

    def forget(self) -> None:
        """As before the first look."""
        super().forget()
        self._fields: Fields = {}

    def check(self, model: nn.Module) -> None:
        """The layers and channels must exist."""
        self._units(model, self.each)

    def requirements(self, model: nn.Module) -> Requirements:
        """The outputs, to count the classes, and the layers, to count their calls."""
        layers = [layer_of_call(unit.layer) for unit in self._units(model, self.each) if unit.layer != LOGITS]
        return Requirements(layers=tuple(dict.fromkeys(layers)))

    def passes(self, facts: Facts) -> float:
        """A forward and a backward of each image at each update."""
        each = (facts.classes if unit == LOGITS else facts.channels or self.each for unit in self.units)
        return PASSES * self.updates * sum(min(self.each, count) for count in each)

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """The climb, from where the last look ended."""
        image, outputs = image_of(snapshot.observation.inputs), snapshot.observation.outputs
        if image is None:
            raise ViewError("the model takes no image [N, C, H, W], so there is nothing to dream of")
        meaning = snapshot.observation.meaning
        classes = 0 if outputs is None or meaning is None else dreamed_classes(outputs, meaning)
        units = [self._called(unit, snapshot) for unit in self._units(model, classes, snapshot.samples.class_names)]
        shape, start = tuple(image.shape[1:]), self.state.get("images")
        warm = start is not None and start.shape == (len(units), *shape)
        seen = self._seen(model, snapshot, units)
        less = [call for call, of_call in seen.items() if of_call.less]
        forward = _image_alone(on_device(model, snapshot.observation.inputs))
        with evaluation_mode(model), warnings.catch_warnings():
            warnings.simplefilter("ignore", DreamWarning)  # the picture says it
            dream = maximize(
                model,
                [unit.target_in_the_middle if unit.layer in less else unit.target for unit in units],
                image=pixels(shape, start=torch.from_numpy(start) if warm else None),
                pixel_space=self.pixel_space or snapshot.samples.pixel_space or PixelSpace(),
                update_steps=Preset(decay=self.decay, blur_width=self.blur, blur_every=_BLUR_EVERY),
                steps=self.updates,
                seed=self.probe.seed,
                frames=0,
                progress=False,
                forward=forward,
            )
            with torch.no_grad():
                confidences = _confidences(forward(model, dream.inputs), units, meaning)
        images, climb = dream.images.float().cpu(), torch.cat([dream.curve, dream.values[:, None]], 1).cpu()
        finite = images.isfinite().flatten(1).all(1)[:, None, None, None]
        self.state["images"] = images.where(finite, 0.0).numpy()  # a network that recovers from NaN dreams again
        return {
            "units": units,
            "seen": seen,
            "pixels": dream.pixels.float().cpu(),
            "values": climb[:, -1].tolist(),
            "confidences": confidences,
            "still": climb.amax(1) == climb.amin(1),  # also a channel that is off wherever one looks
        }

    def _seen(self, model: nn.Module, snapshot: Snapshot, units: Sequence[Unit]) -> dict[str, SeenByUnits]:
        """By layer with channels what they see."""
        observation, result = snapshot.observation, {}
        inputs, image = on_device(model, observation.inputs), image_of(observation.inputs)
        assert image is not None
        for call in dict.fromkeys(unit.layer for unit in units if unit.layer != LOGITS):
            channels = [unit.index for unit in units if unit.layer == call]
            crops = UnitCrops(call, channels, (image.shape[2], image.shape[3]))
            crops.add(observation.activations[call].float(), observation.maps(call))
            shown = snapshot.images(self.pixel_space)
            visible = not self.private and shown.shape[1:3] == crops.size
            result[call] = crops.seen(model, inputs, shown if visible else None, self._fields)
        return result

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page per layer."""
        units, values = snapshot.extra["units"], snapshot.extra["values"]
        for layer in dict.fromkeys(unit.layer for unit in units):
            places = [place for place, unit in enumerate(units) if unit.layer == layer]
            scalars = {f"{self.kind}/{layer}/{units[place].index}": values[place] for place in places}
            yield DrawTask(dream_tiles, self._page(snapshot, layer, places), scalars=scalars)

    def _page(self, snapshot: Snapshot, layer: str, places: list[int]) -> dict[str, Any]:
        """What to draw of a layer: some of the dreams, by their places."""
        extra, classes = snapshot.extra, layer == LOGITS
        units, still = [extra["units"][place] for place in places], extra["still"][places]
        meaning = snapshot.observation.meaning
        numbers = classes and meaning is not None and meaning.kind in ("features", "regression")
        seen = extra["seen"].get(layer)  # None of classes
        kind, what = ("output", "its value") if numbers else ("channel", "its sum over the map")
        what = "its activation" if seen is not None and seen.less else what
        names = [snapshot.samples.name(u.index) if classes and not numbers else f"{kind} {u.index}" for u in units]
        whose = "the outputs" if numbers else "classes" if classes else f"channels of {layer}"
        shares = [extra["confidences"].get(unit) for unit in units]
        words = [_said(extra["values"][place], share) for place, share in zip(places, shares, strict=True)]
        shown = extra["pixels"][places].where(~still[:, None, None, None], 0.5)  # else its noise would pass for a dream
        pixels = shown.numpy()
        if seen is not None:
            pixels = seen.shown(pixels)
        alone = [name for name, stays in zip(names, still.tolist(), strict=True) if stays]
        return {
            "tag": f"{self.kind}/{layer}",
            "images": to_rgb(pixels),
            "samples": () if seen is None else seen.samples,
            "sample_count": 0 if seen is None else seen.count,
            "title": f"What {whose} want to see",
            "names": names,
            "words": words,
            "step": snapshot.step,
            "details": [
                f"{self.updates} updates of each image",
                f"under it: {'its logit and confidence' if classes and not numbers else what}",
                *(() if seen is None else seen.words),
            ],
            "reading": "Each image was made by gradient ascent to excite one class or channel, from the image of the "
            "look before: it follows what the network learns. Brightness and contrast are each image's own.",
            "notes": [
                *([f"nothing leads up for {', '.join(alone)}"] if alone else []),
                *snapshot.notes(self.pixel_space),
            ],
        }

    def _called(self, unit: Unit, snapshot: Snapshot) -> Unit:
        """A unit of a layer that is called several times: in the first call that depends on the image dreamed."""
        calls = [] if unit.layer == LOGITS else snapshot.calls(layer_of_call(unit.layer))
        if unit.layer in calls or len(calls) < 2:
            return unit
        return Unit(next(call for call in calls if snapshot.seen.get(call, 0) == 0), unit.index)

    def _units(self, model: nn.Module, classes: int, class_names: Sequence[str] | None = None) -> list[Unit]:
        """What to dream of, in order.

        Args:
            model: whose layers are meant.
            classes: how many the model tells apart.
            class_names: in the order of the classes; None if not known yet.
        """
        units = (unit for text in self.units for unit in named_units(model, text, self.each, classes, class_names))
        return list(dict.fromkeys(units))


def _image_alone(inputs: Any) -> Forward:
    """How to run a model on images alone: what else it takes is that of the probe's first sample."""
    image = image_of(inputs)

    def forward(model: nn.Module, images: Any) -> Any:
        first = torch.zeros(len(images), dtype=torch.long)
        count = 0 if image is None else len(image)
        return call_model(model, map_tensors(inputs, lambda x: images if x is image else take_samples(x, first, count)))

    return forward


def dreamed_classes(outputs: Tensor, meaning: OutputMeaning) -> int:
    """How many logits there are to dream of; none of a sequence's."""
    return 0 if meaning.kind in ("tokens", "images") else class_scores(outputs, meaning).shape[1]


def _confidences(outputs: Any, units: Sequence[Unit], meaning: OutputMeaning | None) -> dict[Unit, float]:
    """Of the classes how sure the model is, given the images made for them; empty where it does not classify."""
    if meaning is None or not meaning.classifies:
        return {}
    scores = part_at(outputs, meaning.path)
    if meaning.kind == "scores" and (scores.dim() == 1 or scores.shape[1] == 1):
        return {}
    shares = class_probabilities(scores, meaning)
    logits = {unit: float(shares[place, unit.index]) for place, unit in enumerate(units) if unit.layer == LOGITS}
    return {unit: share for unit, share in logits.items() if math.isfinite(share)}


def _said(value: float, share: float | None) -> str:
    """How far a dream came: the objective, and of a class, in one line, the confidence."""
    return number(value) if share is None else f"{number(round(value, 2))}, {confidence_text(share)}"
