"""The view of where the evidence for a class lies."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from lightning_viz import attribution
from lightning_viz.attribution.cam import WEIGHTINGS, class_activation_map
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.probe import Samples
from lightning_viz.callbacks.sanity_check import randomization_scores, sanity_check_text
from lightning_viz.callbacks.snapshot import Requirements, Snapshot, TargetChoice, on_device, resolved, target_choice
from lightning_viz.callbacks.view import View
from lightning_viz.errors import (
    AttributionWarning,
    InvalidArgumentError,
    LayerNotFoundError,
    NoGradientError,
    ViewError,
)
from lightning_viz.hooks.feature_maps import feature_count
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.observe import resolve_target
from lightning_viz.hooks.targets import Target
from lightning_viz.render.heatmaps import class_columns, heat_overlays

__all__ = ["GradCAM"]

TITLES = {
    "grad_cam": "Grad-CAM",
    "grad_cam_plus_plus": "Grad-CAM++",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "score_cam": "Score-CAM",
    "eigen_cam": "EigenCAM",
}
"""The methods' names, as pictures say them."""


@dataclass(kw_only=True, eq=False)
class GradCAM(View):
    """Where, seen from a layer, the evidence for a class lies (Selvaraju et al., 2017; tag ``<method>/<layer>``).

    Args:
        method: how the layer's maps are weighed: ``"grad_cam"``, ``"grad_cam_plus_plus"``, ``"hires_cam"``,
            ``"layer_cam"``, ``"eigen_cam"`` (whatever the class), all from the pass that all views share; or
            ``"score_cam"``, with a forward for each of the layer's channels.
        layers: whose maps to weigh; the last ones if omitted, before a transformer's last attention.
        target: the class explained: ``"label"`` (each sample's own; predicted where it is not known), ``"predicted"``,
            one class for all, or several side by side: a list of classes, or ``"top 3"``; of a segmentation also
            ``"region"``, each sample's largest true class beside class 0 where it is, or ``"region 2"``, that class.
        sanity_check: also plot how little the maps change when the weights are replaced by random ones
            (``<method>/<layer>/randomization``; Adebayo et al., 2018): near 1 they do not show what was learned.
    """

    method: Literal["grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam", "score_cam", "eigen_cam"] = "grad_cam"
    layers: Layers = "last_maps"
    target: TargetChoice = "label"
    sanity_check: bool = False

    kind: ClassVar[str] = "grad_cam"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in TITLES:
            raise InvalidArgumentError(f"method is {self.method!r}: give one of {list(TITLES)}")
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
        """The layers' outputs, and the target's gradient towards them."""
        self._features = {name: feature_count(module) for name, module in select_layers(model, self.layers).items()}
        layers = tuple(self._features)
        if self.method == "score_cam":
            self._channels = sum(features or 256 for features in self._features.values())
            return Requirements(target=self.target)
        return Requirements(layers=layers, gradients=layers if self.method != "eigen_cam" else (), target=self.target)

    def passes(self, samples: Samples) -> float:
        """A third for each channel's forward; to be believable, as much again, or one."""
        alone = self._channels / 3 if self.method == "score_cam" else 0.0
        return alone + (max(1.0, alone) if self.sanity_check else 0.0)

    def look(self, model: nn.Module, look: Snapshot) -> Mapping[str, Any]:
        """The passes of Score-CAM, and those of a network with random weights."""
        extra: dict[str, Any] = {"targets": look.seen.targets}
        if self.method == "score_cam":
            extra["targets"] = resolve_target(
                model, on_device(model, look.seen.inputs), resolved(self.target, look.samples)
            )
            extra["maps"] = self._attribute(model, look, extra["targets"])
        if self.sanity_check:
            own = extra.get("maps") or self._maps_of(look)
            extra["scores"] = randomization_scores(
                lambda: self._attribute(model, look, extra["targets"]), model, own, seed=self.probe.seed
            )
        return extra

    def draw(self, look: Snapshot) -> Iterable[DrawTask]:
        """One page per call of each layer."""
        maps: Mapping[str, Tensor] = look.extra.get("maps") or self._maps_of(look)
        for call, heat in maps.items():
            tag = f"{self.method}/{call}"
            score = look.extra.get("scores", {}).get(call)
            arguments = {
                "tag": tag,
                "images": look.images(self.pixel_space),
                "layer": call,
                "step": look.step,
                "method": TITLES[self.method],
                "unit": "logits" if self.method in WEIGHTINGS and self.method != "eigen_cam" else "of activation",
                "details": [] if score is None else [sanity_check_text(score)],
                "verdicts": look.verdicts(),
                "notes": look.notes(self.pixel_space),
            }
            scalars = {} if score is None else {f"{tag}/randomization": score}
            if heat.dim() == 5:
                names = look.target_names(look.explained(heat.shape[:2]))
                several = {"maps": heat.numpy(), "names": names, "display": "heat"}
                yield DrawTask(class_columns, {**arguments, **several, "tag": f"{tag}/classes"}, scalars=scalars)
            else:
                target = "any class" if self.method == "eigen_cam" else look.target_name(self.target)
                single = {"heat": heat[:, 0].numpy(), "target": target}
                yield DrawTask(heat_overlays, {**arguments, **single}, scalars=scalars)

    def _attribute(self, model: nn.Module, look: Snapshot, target: Target) -> dict[str, Tensor]:
        """The maps by passes of the method's own, on the CPU."""
        options = {"progress": False} if self.method == "score_cam" else {}
        method: Callable[..., dict[str, Tensor]] = getattr(attribution, self.method)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AttributionWarning)  # the picture says it
            found = method(model, on_device(model, look.seen.inputs), target, layers=list(self._features), **options)
        return {call: heat.float().cpu() for call, heat in found.items()}

    def _maps_of(self, look: Snapshot) -> dict[str, Tensor]:
        """The maps from what the shared pass recorded, ``[N, 1, h, w]`` or ``[T, N, 1, h, w]``."""
        maps = {}
        for layer, features in self._features.items():
            for call in look.calls(layer):
                activation = look.seen.activations[call].float()
                slope = look.seen.gradients.get(call) if self.method != "eigen_cam" else activation
                if slope is None:
                    raise NoGradientError(f"{look.target_name(self.target)} does not depend on layer {call!r}")
                weighting = WEIGHTINGS[self.method]
                heat = class_activation_map(activation, slope.float(), weighting, features=features)
                if heat is None:
                    shape = list(activation.shape)
                    raise ViewError(f"the output of layer {call!r} is {shape}, without places: name a convolution")
                maps[call] = heat
        return maps
