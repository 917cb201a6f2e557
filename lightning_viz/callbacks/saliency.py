"""The view of which input values matter."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from lightning_viz import attribution
from lightning_viz.attribution.cam import class_activation_map
from lightning_viz.attribution.gradients import check_relus
from lightning_viz.attribution.guided_backprop import enlarged
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.probe import Samples, shown
from lightning_viz.callbacks.sanity_check import randomization_scores, sanity_check_text
from lightning_viz.callbacks.snapshot import Requirements, Snapshot, TargetChoice, on_device, resolved, target_choice
from lightning_viz.callbacks.view import View
from lightning_viz.errors import AttributionWarning, InvalidArgumentError, NoGradientError
from lightning_viz.hooks.feature_maps import feature_count
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.observe import resolve_target
from lightning_viz.hooks.pytree import all_tensors, flatten_like, image_of, map_tensors
from lightning_viz.hooks.relu import Rule
from lightning_viz.hooks.targets import Target
from lightning_viz.render.heatmaps import class_columns, saliency_maps

__all__ = ["Saliency"]

Method = Literal[
    "gradient",
    "smooth_grad",
    "input_times_gradient",
    "integrated_gradients",
    "guided_backprop",
    "deconvolution",
    "guided_grad_cam",
]


class Kind(NamedTuple):
    """How a method is shown, and what it takes: its own rule at ReLUs, or passes of its own."""

    title: str
    display: str
    unit: str = ""
    rule: Rule | None = None
    alone: bool = False


KINDS: dict[str, Kind] = {
    "gradient": Kind("Gradient", "size", "logits per unit of input"),
    "smooth_grad": Kind("SmoothGrad", "size", "logits per unit of input", alone=True),
    "input_times_gradient": Kind("Input × gradient", "signed", "logits"),
    "integrated_gradients": Kind("Integrated gradients", "signed", "logits", alone=True),
    "guided_backprop": Kind("Guided backpropagation", "image", rule="guided"),
    "deconvolution": Kind("Deconvolution", "image", rule="deconvolution"),
    "guided_grad_cam": Kind("Guided Grad-CAM", "image", rule="guided"),
}
"""How each method is shown."""


@dataclass(kw_only=True, eq=False)
class Saliency(View):
    """How the target changes with each pixel (tag ``saliency/<method>``).

    Args:
        method: from the pass that all views share: ``"gradient"`` (Simonyan et al., 2014), ``"input_times_gradient"``,
            and with a backward more ``"guided_backprop"`` (Springenberg et al., 2015), ``"deconvolution"`` (Zeiler and
            Fergus, 2014), ``"guided_grad_cam"`` of the last maps (Selvaraju et al., 2017). With passes of their own:
            ``"smooth_grad"`` (Smilkov et al., 2017), ``"integrated_gradients"`` (Sundararajan et al., 2017).
        target: the class explained: ``"label"`` (each sample's own; predicted where it is not known), ``"predicted"``,
            one class for all, or several side by side: a list of classes, or ``"top 3"``; of a segmentation also
            ``"region"``, each sample's largest true class beside class 0 where it is, or ``"region 2"``, that class.
        reduce: over the input's channels, the ``"sum"`` of absolute values (Fleuret) or their ``"max"`` (Simonyan), of
            the gradient and SmoothGrad.
        copies: noisy copies per sample, for SmoothGrad, or steps, for integrated gradients (50: the papers').
        fraction: noise level for SmoothGrad, of each sample's range (0.15: within the paper's 0.1 to 0.2).
        sanity_check: also plot how little the maps change when the weights are replaced by random ones
            (``saliency/<method>/randomization``; Adebayo et al., 2018): near 1 they do not show what was learned.
    """

    method: Method = "gradient"
    target: TargetChoice = "label"
    reduce: Literal["sum", "max"] = "sum"
    copies: int = 50
    fraction: float = 0.15
    sanity_check: bool = False

    kind: ClassVar[str] = "saliency"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in KINDS:
            raise InvalidArgumentError(f"method is {self.method!r}: give one of {list(KINDS)}")
        if self.reduce not in ("sum", "max"):
            raise InvalidArgumentError(f"reduce is {self.reduce!r}: give 'sum' or 'max'")
        if self.copies < 1 or self.fraction < 0:
            raise InvalidArgumentError(
                f"copies is {self.copies}, fraction {self.fraction}: give 1 or more, and 0 or more"
            )
        self.target = target_choice(self.target)
        self._layers: dict[str, int | None] = {}

    def check(self, model: nn.Module) -> None:
        """Guided Grad-CAM needs a layer with maps."""
        if self.method == "guided_grad_cam":
            self._layers = {name: feature_count(layer) for name, layer in select_layers(model, "last_maps").items()}

    def requirements(self, model: nn.Module) -> Requirements:
        """The gradient towards the input, under a rule perhaps; some methods look by themselves."""
        kind, layers = KINDS[self.method], tuple(self._layers)
        if kind.alone:
            return Requirements(target=self.target)
        rules = (kind.rule,) if kind.rule else ()
        return Requirements(input_gradient=not rules, rules=rules, layers=layers, gradients=layers, target=self.target)

    def passes(self, samples: Samples) -> float:
        """One per copy or step; to be believable, as many again and what the shared pass takes."""
        alone = float(self.copies) if KINDS[self.method].alone else 0.0
        return alone + (max(1.0, alone) if self.sanity_check else 0.0)

    def look(self, model: nn.Module, look: Snapshot) -> Mapping[str, Any]:
        """The passes of the methods that look by themselves, and those of a network with random weights."""
        extra: dict[str, Any] = {"targets": look.seen.targets}
        if KINDS[self.method].alone:  # the shared pass may have explained another target
            inputs = on_device(model, look.seen.inputs)
            extra["targets"] = resolve_target(model, inputs, resolved(self.target, look.samples))
            extra["maps"] = self._attribute(model, look, extra["targets"])
        if self.sanity_check:
            name = str(self.method)

            def again() -> dict[str, Tensor]:
                return {name: _of_image(self._attribute(model, look, extra["targets"]), look.seen.inputs)}

            own = {name: self._maps_of(extra.get("maps"), look)}
            extra["score"] = randomization_scores(again, model, own, seed=self.probe.seed)[name]
        return extra

    def draw(self, look: Snapshot) -> Iterable[DrawTask]:
        """One page."""
        kind = KINDS[self.method]
        score = look.extra.get("score")
        words = {
            "smooth_grad": [f"{self.copies} copies, noise {self.fraction:g} of each image's range"],
            "integrated_gradients": [f"{self.copies} steps from 0"],
            "guided_grad_cam": [f"at {', '.join(self._layers)}"],
        }.get(self.method, [])
        notes = look.notes(self.pixel_space)
        maps, relus = self._maps_of(look.extra.get("maps"), look), look.seen.relus
        if kind.rule is not None and relus is not None:
            words.append(f"its rule at {relus.met} ReLUs")
            notes = (*notes, *([f"{', '.join(relus.others)} stay plain"] if relus.others else []))
        if score is not None:
            words.append(sanity_check_text(score))
        tag = f"{self.kind}/{self.method}"
        arguments = {
            "tag": tag,
            "images": look.images(self.pixel_space),
            "method": kind.title,
            "step": look.step,
            "display": self.reduce if kind.display == "size" else kind.display,
            "unit": kind.unit,
            "details": words,
            "verdicts": look.verdicts(),
            "notes": notes,
        }
        scalars = {} if score is None else {f"{tag}/randomization": score}
        if maps.dim() == 5:
            columns = {"maps": maps.numpy(), "names": look.target_names(look.explained(maps.shape[:2]))}
            yield DrawTask(class_columns, {**arguments, **columns, "tag": f"{tag}/classes"}, scalars=scalars)
        else:
            single = {"gradient": maps.numpy(), "target": look.target_name(self.target)}
            yield DrawTask(saliency_maps, {**arguments, **single}, scalars=scalars)

    def _attribute(self, model: nn.Module, look: Snapshot, target: Target) -> Any:
        """The method's maps by passes of its own, on the CPU, in the form of the inputs or of the image."""
        every: dict[str, dict[str, Any]] = {
            "smooth_grad": {
                "samples": self.copies,
                "fraction": self.fraction,
                "seed": self.probe.seed,
                "progress": False,
            },
            "integrated_gradients": {"steps": self.copies, "progress": False},
        }
        method: Callable[..., Any] = getattr(attribution, self.method)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AttributionWarning)  # the picture says it
            found = method(model, on_device(model, look.seen.inputs), target, **every.get(self.method, {}))
        if self.method == "guided_grad_cam":
            return next(iter(found.values())).cpu()
        return map_tensors(found, Tensor.cpu)

    def _maps_of(self, own: Any, look: Snapshot) -> Tensor:
        """What is shown ``[N, C, H, W]``, or ``[T, N, C, H, W]`` of several classes."""
        seen = look.seen
        if own is not None:
            return _of_image(own, seen.inputs)
        rule = KINDS[self.method].rule
        if rule is not None:
            check_relus(seen.relus, rule)
        slope = _of_image(seen.input_gradient if rule is None else seen.ruled.get(rule), seen.inputs)
        if self.method == "input_times_gradient":
            return slope * _as_image(shown(seen.inputs).float(), seen.inputs)
        for layer, features in self._layers.items():
            call = look.calls(layer)[-1]
            gradient = seen.gradients[call]
            heat = None
            if gradient is not None:
                heat = class_activation_map(seen.activations[call].float(), gradient.float(), features=features)
            if heat is None:
                raise NoGradientError(f"layer {call!r} has no maps that the target depends on")
            slope = slope * enlarged(heat, slope.shape[-2:])
        return slope


def _of_image(gradient: Any, inputs: Any) -> Tensor:
    """The gradient ``[N, C, H, W]`` towards what is shown: the image among the inputs, or a strip of their values."""
    if isinstance(gradient, Tensor) and not isinstance(inputs, Tensor):  # of the image alone
        return gradient.float()
    tensors = all_tensors(inputs)
    place = next(index for index, tensor in enumerate(tensors) if tensor is shown(inputs))
    found: list[Tensor | None] = [None] * len(tensors) if gradient is None else flatten_like(gradient, inputs)
    slope = found[place]
    if slope is None:  # zeros would be a picture of something that was not seen
        raise NoGradientError
    return _as_image(slope.float(), inputs)


def _as_image(values: Tensor, inputs: Any) -> Tensor:
    """What goes with the thing shown; a strip where that is no image."""
    if image_of(inputs) is not None:
        return values
    lead = values.dim() - shown(inputs).dim() + 1  # samples, after targets if there are several
    return values.flatten(lead)[..., None, None, :] if values.dim() > lead else values[..., None, None, None]
