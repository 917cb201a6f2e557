"""The view of what happens when a patch of the image is covered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Union

import torch
from torch import Tensor, nn

from lightning_viz.attribution.occlusion import Baseline, OcclusionMaps, blurred, grid_of, mean_color, occlusion
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.sanity_check import SCORE_TAG, randomization_scores, sanity_check_text
from lightning_viz.callbacks.snapshot import (
    Requirements,
    Snapshot,
    TargetChoice,
    resolved,
    target_choice,
)
from lightning_viz.callbacks.target_columns import target_columns
from lightning_viz.callbacks.view import View
from lightning_viz.catalogue import method
from lightning_viz.costs import Facts
from lightning_viz.errors import InvalidArgumentError, LayerNotFoundError, ViewError
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.observe import resolve_target
from lightning_viz.hooks.pytree import map_tensors, on_device, spatial_input
from lightning_viz.hooks.targets import TargetLike, channel
from lightning_viz.render.attribution_maps import MOST_SAMPLES
from lightning_viz.render.occlusion import occlusion_maps

__all__ = ["Occlusion"]

_BASELINES: dict[str, Baseline] = {"zero": 0.0, "mean": mean_color, "blur": blurred}


class Occlusion(View):
    """What happens when a patch of the image is covered (Zeiler and Fergus, 2014; tag ``occlusion``).

    How much the target drops, the most probable class, and the activity of the channel that each sample excites most,
    for every position of the patch, all from the same passes.

    Args:
        target: the class explained: ``"label"`` (each sample's own; predicted where it is not known), ``"predicted"``,
            one class for all, ``3`` or ``"class:ox"``, several side by side, a list of them or ``"top:3"``, something
            inside the model, ``"conv2[7]"``, ``"max(layer3)"`` or a list of these, or of a segmentation ``"region"``,
            each sample's largest true class beside class 0 where it is, or ``"region:2"``, that class (see
            `lightning_viz.parse_target`).
        patch: its side in pixels; a seventh of the image's if omitted (32 at 224).
        stride: between positions, in pixels; a quarter of the patch if omitted (the lecture's 2 at sixteen times the
            passes).
        baseline: what the patch shows: ``"zero"`` in the model's input values (the mean image, where they are
            normalized), the image's ``"mean"`` color, or the image as a ``"blur"``.
        feature: the layer of which to map a channel's activity, or None.
        samples: how many of the probe's; each takes a forward for every position.
        sanity_check: also plot how little the maps change when the weights are replaced by random ones
            (``occlusion/randomization``; Adebayo et al., 2018): near 1 they do not show what was learned.
    """

    target: TargetChoice = "label"
    patch: Union[int, None] = None
    stride: Union[int, None] = None
    baseline: Literal["zero", "mean", "blur"] = "zero"
    feature: Union[str, None] = "last_maps"
    samples: int = 3
    sanity_check: bool = False

    kind: ClassVar[str] = "occlusion"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline not in _BASELINES:
            raise InvalidArgumentError(f"baseline is {self.baseline!r}: give one of {list(_BASELINES)}")
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise InvalidArgumentError(f"samples is {self.samples}: give 1 to {MOST_SAMPLES}")
        grid_of((224, 224), self.patch, self.stride)
        self.target = target_choice(self.target)

    def check(self, model: nn.Module) -> None:
        """The feature's layer must exist, if it was named."""
        if self.feature not in (None, "last_maps"):
            select_layers(model, self.feature)

    def requirements(self, model: nn.Module) -> Requirements:
        """The feature's layer, to find the channel that each sample excites most."""
        try:
            layers = () if self.feature is None else tuple(select_layers(model, self.feature))
        except LayerNotFoundError:
            layers = ()
        return Requirements(layers=layers[:1], target=self.target)

    def passes(self, facts: Facts) -> float:
        """A forward of each sample for each position, and as many again with random weights."""
        positions = math.prod(grid_of(facts.sides, self.patch, self.stride).positions) if facts.sides else 0
        return positions * min(self.samples, facts.head) * (1.0 + self.sanity_check)

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """A forward for each position."""
        image = spatial_input(snapshot.observation.inputs)
        if image is None or snapshot.input_form not in ("image", "volume", "series"):
            raise ViewError("the model takes no image [N, C, H, W], series [N, C, L] or volume: nothing can be covered")
        some = torch.arange(min(self.samples, len(image)))
        head = on_device(model, snapshot.observation.inputs)
        inputs = map_tensors(head, lambda x: x[: len(some)])
        whole = resolve_target(model, head, resolved(self.target, snapshot.samples))
        target, feature = whole.select(some), self._feature(snapshot)

        def maps(of: TargetLike = feature) -> OcclusionMaps:
            given: Baseline = _BASELINES[self.baseline]
            options: dict[str, Any] = {"patch": self.patch, "stride": self.stride, "baseline": given}
            return occlusion(model, inputs, target, feature=of, progress=False, **options)

        own_maps: OcclusionMaps = map_tensors(maps(), Tensor.cpu)
        score = None
        if self.sanity_check:
            own = {self.kind: own_maps.heat}
            again = lambda: {self.kind: maps(None).heat.cpu()}  # noqa: E731
            score = randomization_scores(again, model, own, several=target.several, seed=self.probe.seed)[self.kind]
        return {"maps": own_maps, "score": score, "targets": target}

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page."""
        maps, score, layers = snapshot.extra["maps"], snapshot.extra["score"], snapshot.requirements.layers
        shape, outputs = maps.heat.shape[3 if snapshot.several else 2 :], snapshot.observation.outputs
        count, grid = maps.drop.shape[1 if snapshot.several else 0], grid_of(shape, self.patch, self.stride)
        classes = outputs.shape[1] if outputs is not None and outputs.dim() > 1 else 1
        arguments = {
            "tag": self.kind,
            "images": snapshot.images(self.pixel_space)[:count],
            "step": snapshot.step,
            "details": [] if score is None else [sanity_check_text(score)],
            "verdicts": snapshot.verdicts()[:count],
            "notes": snapshot.notes(self.pixel_space),
        }
        scalars = {} if score is None else {f"{self.kind}{SCORE_TAG}": score}
        if snapshot.several:
            described = method(self.kind)
            several = {"display": described.display, "method": described.title, "unit": snapshot.unit(described.unit)}
            yield from target_columns(snapshot, maps.heat, range(count), {**arguments, **several}, scalars)
            return
        single = {
            "drop": maps.drop.float().numpy(),
            "predicted": None if maps.predicted is None else maps.predicted.numpy(),
            "activity": None if maps.activity is None else maps.activity.float().numpy(),
            "uncovered": None if snapshot.probabilities is None else snapshot.probabilities[:count].argmax(1).numpy(),
            "feature": f"each sample's channel that led at the first look, {layers[0]}" if layers else "",
            "class_names": snapshot.samples.class_names,
            "classes": 1 if maps.predicted is None else max(2, classes),
            "target": snapshot.target_name(self.target),
            "patch": grid.patch,
            "unit": snapshot.unit("logits"),
            "positions": grid.positions,
        }
        yield snapshot.framed(DrawTask(occlusion_maps, {**arguments, **single}, scalars=scalars))

    def _feature(self, snapshot: Snapshot) -> TargetLike:
        """The channel that each sample excites most, the same at every step."""
        for layer in snapshot.requirements.layers:
            calls = [] if layer in snapshot.observation.unreached else snapshot.calls(layer)
            calls = [
                call for call in calls if snapshot.seen.get(call, 0) == 0
            ]  # of several images the first is covered
            maps = snapshot.observation.maps(calls[-1]) if calls else None
            if maps is not None:
                strongest = maps[: self.samples].flatten(2).amax(2).argmax(1).tolist()
                return channel(calls[-1], self.state.setdefault("channels", strongest))
        return None
