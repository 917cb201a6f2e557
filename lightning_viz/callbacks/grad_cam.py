"""The view of where the evidence for a class lies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lightning_viz.attribution.cam import class_activation_map
from lightning_viz.attribution.faults import NoGradientError
from lightning_viz.callbacks.look import Look, Needs, TargetChoice
from lightning_viz.callbacks.messages import ViewError
from lightning_viz.callbacks.sketch import Sketch
from lightning_viz.callbacks.view import View
from lightning_viz.hooks.layers import LayerNotFoundError, Layers, select_layers
from lightning_viz.hooks.maps import feature_count
from lightning_viz.render.heat import heat_overlays


@dataclass(kw_only=True, eq=False)
class GradCAM(View):
    """Where, seen from a layer, the evidence for a class lies (Selvaraju et al., 2017; tag ``grad_cam/<layer>``).

    Args:
        layers: whose maps to weigh; the last convolution if omitted.
        target: the class explained: ``"label"`` (each sample's own; predicted where it is not known), ``"predicted"``,
            or one class for all.
    """

    layers: Layers = "last_conv"
    target: TargetChoice = "label"

    kind: ClassVar[str] = "grad_cam"

    def check(self, model: nn.Module) -> None:
        """There must be a layer with maps."""
        try:
            found = select_layers(model, self.layers)
        except LayerNotFoundError as error:
            if self.layers == "last_conv":
                raise ViewError("the model has no convolution, so no maps to weigh: name layers= with maps") from error
            raise
        flat = [name for name, module in found.items() if isinstance(module, nn.Flatten)]
        if flat or not found:
            raise ViewError(f"layers {flat} have no maps: name convolutions or blocks of them")

    def needs(self, model: nn.Module) -> Needs:
        """The layers' outputs, and the target's gradient towards them."""
        self._features = {name: feature_count(module) for name, module in select_layers(model, self.layers).items()}
        return Needs(layers=tuple(self._features), gradients=tuple(self._features), target=self.target)

    def draw(self, look: Look) -> Iterable[Sketch]:
        """One page per call of each layer."""
        for layer, features in self._features.items():
            for call in look.calls(layer):
                activation, slope = look.seen.activations[call].float(), look.seen.gradients.get(call)
                if slope is None:
                    raise NoGradientError(f"{look.target_name(self.target)} does not depend on layer {call!r}")
                heat = class_activation_map(activation, slope.float(), features=features)
                if heat is None:
                    shape = list(activation.shape)
                    raise ViewError(f"the output of layer {call!r} is {shape}, without places: name a convolution")
                yield Sketch(
                    heat_overlays,
                    {
                        "tag": f"{self.kind}/{call}",
                        "images": look.images(self.pixels),
                        "heat": heat[:, 0].numpy(),
                        "layer": call,
                        "step": look.step,
                        "target": look.target_name(self.target),
                        "verdicts": look.verdicts(),
                        "notes": look.notes(self.pixels),
                    },
                )
