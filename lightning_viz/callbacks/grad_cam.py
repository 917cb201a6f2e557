"""The view of where the evidence for a class lies."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_viz.attribution.cam import MERGED, class_activation_map, image_maps, merged_maps, not_before
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.sanity_check import SCORE_TAG, randomization_scores, sanity_check_text
from lightning_viz.callbacks.shown_samples import check_shown, shown_samples
from lightning_viz.callbacks.snapshot import (
    Requirements,
    Snapshot,
    TargetChoice,
    explained_target,
    resolved,
    target_choice,
)
from lightning_viz.callbacks.target_columns import target_columns
from lightning_viz.callbacks.view import View
from lightning_viz.catalogue import method, methods
from lightning_viz.catalogue_types import CamMethod
from lightning_viz.costs import Facts
from lightning_viz.errors import (
    AttributionWarning,
    InvalidArgumentError,
    LayerNotFoundError,
    NoGradientError,
    ViewError,
)
from lightning_viz.hooks.calls import image_sizes
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.observe import resolve_target
from lightning_viz.hooks.pytree import on_device
from lightning_viz.hooks.target_types import Target
from lightning_viz.hooks.targets import TargetLike
from lightning_viz.render.attribution_maps import attribution_maps
from lightning_viz.render.text import some_of

__all__ = ["GradCAM"]


class GradCAM(View):
    """Where, seen from a layer, the evidence for a class lies (Selvaraju et al., 2017; tag ``<method>/<layer>``).

    Args:
        method: of `lightning_viz.attribution`, such as ``"grad_cam"`` or ``"layer_cam"``, from the pass that all views
            share; ``"score_cam"`` and ``"ablation_cam"`` take a forward pass for each of the layer's channels.
        layers: whose activations to weight; the last ones with locations if omitted, before a
            transformer's last attention.
        target: the class explained: ``"label"`` (each sample's own; predicted where it is not known), ``"predicted"``,
            one class for all, ``3`` or ``"class:ox"``, several side by side, a list of them or ``"top:3"``, something
            inside the model, ``"conv2[7]"``, ``"max(layer3)"`` or a list of these, or of a segmentation ``"region"``,
            each sample's largest true class beside class 0 where it is, or ``"region:2"``, that class (see
            `lightning_viz.parse_target`).
        merge: one map of all layers together (tag ``<method>/merged``): the mean of their maps at the image's size,
            each divided by its maximum, as is usual for a detector's layers of several sizes.
        samples: how many of the probe's to show, the same at every step: its first ones; of a network that has most of
            them right at the first look, its mistakes first.
        sanity_check: also plot how little the maps change when the weights are replaced by random ones
            (``<method>/<layer>/randomization``; Adebayo et al., 2018): near 1 they do not show what was learned.
    """

    method: CamMethod = "grad_cam"
    layers: Layers = "last_maps"
    target: TargetChoice = "label"
    merge: bool = False
    samples: int = 8
    sanity_check: bool = False

    kind: ClassVar[str] = "grad_cam"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in methods(view=self.kind):
            raise InvalidArgumentError(f"method is {self.method!r}: give one of {list(methods(view=self.kind))}")
        check_shown(self.samples)
        self.target = target_choice(self.target)

    def check(self, model: nn.Module) -> None:
        """There must be a layer with maps."""
        try:
            found = select_layers(model, self.layers)
        except LayerNotFoundError as error:
            if self.layers == "last_maps":
                raise ViewError("the model has no convolution, so no maps to weigh: name layers= with maps") from error
            raise
        flat = [name for name, module in found.items() if isinstance(module, nn.Flatten)]
        if flat or not found:
            raise ViewError(f"layers {flat} have no maps: name convolutions or blocks of them")

    def requirements(self, model: nn.Module) -> Requirements:
        """The layers' activations, and the target's gradient with respect to them."""
        if self._alone:
            return Requirements(target=self.target)
        layers = tuple(select_layers(model, self.layers))
        gradients = layers if "gradient" in method(self.method).needs else ()
        return Requirements(layers=layers, gradients=gradients, target=self.target)

    def passes(self, facts: Facts) -> float:
        """Those of the method, if the shared pass does not have its maps, and as many again with random weights."""
        once = method(self.method).passes(channels=facts.channels)
        return facts.head * once * (self._alone + self.sanity_check)

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """The maps, from the shared pass or by passes of the method's own, and those of a network of random weights."""
        targets = explained_target(self.target, snapshot)
        if self._alone:
            inputs = on_device(model, snapshot.observation.inputs)
            targets = resolve_target(model, inputs, resolved(self.target, snapshot.samples))
        maps = self._attribute(model, snapshot, targets) if self._alone else self._from_pass(snapshot, targets)
        if not self.sanity_check:
            return {"targets": targets, "maps": maps}
        again = lambda: self._attribute(model, snapshot, targets)  # noqa: E731
        several = targets.several and "target" in method(self.method).needs
        scores = randomization_scores(again, model, maps, several=several, seed=self.probe.seed)
        return {"targets": targets, "maps": maps, "scores": scores}

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page per call of each layer."""
        described = method(self.method)
        if snapshot.input_form == "vector":
            raise ViewError(f"the model's input is a vector without places, over which no map of {self.method} can lie")
        verdicts, several = snapshot.verdicts(), snapshot.several and "target" in described.needs
        for call, heat in snapshot.extra["maps"].items():
            images = snapshot.images(self.pixel_space, call)
            shown = shown_samples(self.state, snapshot, self.samples, len(images))
            tag = f"{self.method}/{call}"
            score = snapshot.extra.get("scores", {}).get(call)
            arguments = {
                "tag": tag,
                "images": images[shown],
                "layer": " and ".join(snapshot.requirements.layers) or "several layers" if call == MERGED else call,
                "step": snapshot.step,
                "method": described.title,
                "display": described.display,
                "unit": snapshot.unit(described.unit),
                "details": [
                    "" if several else some_of(len(shown), len(images), "samples"),
                    "" if score is None else sanity_check_text(score),
                ],
                "verdicts": [verdicts[index] for index in shown] if verdicts else [],
                "notes": snapshot.notes(self.pixel_space, call),
            }
            scalars = {} if score is None else {f"{tag}{SCORE_TAG}": score}
            if several:
                yield from target_columns(snapshot, heat, shown, arguments, scalars)
            else:
                target = snapshot.target_name(self.target) if "target" in described.needs else ""
                single = {"maps": heat[shown].numpy(), "target": target}
                yield snapshot.framed(DrawTask(attribution_maps, {**arguments, **single}, scalars=scalars), shown)

    @property
    def _alone(self) -> bool:
        """Whether the method has passes of its own."""
        return isinstance(method(self.method).cost, str)

    def _attribute(self, model: nn.Module, snapshot: Snapshot, target: TargetLike) -> dict[str, Tensor]:
        """The maps by passes of the method's own, on the CPU."""
        options = {"merge": self.merge, **({"progress": False} if self._alone else {})}
        layers = list(select_layers(model, self.layers))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AttributionWarning)  # the picture says it
            maps = method(self.method).load()(
                model, on_device(model, snapshot.observation.inputs), target, layers=layers, **options
            )
        return self._placed({call: heat.float().cpu() for call, heat in maps.items()}, snapshot.observation)

    def _from_pass(self, snapshot: Snapshot, target: Target) -> dict[str, Tensor]:
        """The maps from what the shared pass recorded, ``[N, 1, h, w]`` or ``[T, N, 1, h, w]``."""
        maps, observation, needs = {}, snapshot.observation, method(self.method).needs
        for layer in snapshot.requirements.layers:
            for call in snapshot.calls(layer):
                activations = observation.maps(call)
                if activations is None:
                    shape = list(observation.activations[call].shape)
                    raise ViewError(f"the output of layer {call!r} is {shape}, without locations: name a convolution")
                gradients = observation.gradient_maps(call) if "gradient" in needs else activations
                if gradients is None:
                    if target.layers and not target.outputs:
                        raise ViewError(not_before(call, target))
                    raise NoGradientError(f"{snapshot.target_name(self.target)} does not depend on layer {call!r}")
                maps[call] = class_activation_map(activations, gradients, self.method)
        if self.merge:
            return {MERGED: merged_maps(maps.values(), observation)}
        return self._placed(maps, observation)

    def _placed(self, maps: dict[str, Tensor], observation: Observation) -> dict[str, Tensor]:
        """The maps as they are; where a detector pads its images, on the images alone."""
        padded = observation.extents is not None or image_sizes(observation.inputs) is not None
        if not padded or self.merge:
            return maps
        return {call: image_maps(heat, observation) for call, heat in maps.items()}
