"""The view of which input values matter."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, Union, cast, get_args

from torch import Tensor, nn

from lightning_viz.attribution.cam import class_activation_map, not_before
from lightning_viz.attribution.gradients import check_relus
from lightning_viz.attribution.noise_statistics import STATISTICS, NoiseStatistic, smooth_grad
from lightning_viz.callbacks.display import arrange
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.probe import displayed_input
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
from lightning_viz.catalogue_types import SaliencyMethod, SmoothedMethod
from lightning_viz.costs import Facts
from lightning_viz.errors import AttributionWarning, InvalidArgumentError, NoGradientError, ViewError
from lightning_viz.hooks.feature_maps import resize
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.observe import resolve_target
from lightning_viz.hooks.pytree import all_tensors, flatten_like, map_tensors, on_device
from lightning_viz.hooks.relu import Rule
from lightning_viz.hooks.target_types import Target
from lightning_viz.hooks.targets import TargetLike
from lightning_viz.render.attribution_maps import attribution_maps
from lightning_viz.render.text import number, some_of

__all__ = ["Saliency"]


class Saliency(View):
    """How the target changes with each pixel (tag ``saliency/<method>``).

    Args:
        method: from the pass that all views share: ``"gradient"`` (Simonyan et al., 2014), ``"input_times_gradient"``,
            and with a backward more ``"guided_backprop"`` (Springenberg et al., 2015), ``"deconvolution"`` (Zeiler and
            Fergus, 2014), ``"guided_grad_cam"`` of the last maps (Selvaraju et al., 2017). With passes of their own:
            ``"smooth_grad"`` (Smilkov et al., 2017), ``"integrated_gradients"`` (Sundararajan et al., 2017), ``"lrp"``
            (Bach et al., 2015), ``"rise"`` (Petsiuk et al., 2018).
        target: the class explained: ``"label"`` (each sample's own; predicted where it is not known), ``"predicted"``,
            one class for all, ``3`` or ``"class:ox"``, several side by side, a list of them or ``"top:3"``, something
            inside the model, ``"conv2[7]"``, ``"max(layer3)"`` or a list of these, or of a segmentation ``"region"``,
            each sample's largest true class beside class 0 where it is, or ``"region:2"``, that class (see
            `lightning_viz.parse_target`).
        reduce: over the input's channels, the ``"sum"`` of absolute values (Fleuret) or their ``"max"`` (Simonyan), of
            the gradient and SmoothGrad.
        noise_samples: noisy copies of each sample, over which the maps of any method toward the pixels are averaged;
            50 for SmoothGrad, the paper's, and none for the others if None.
        statistic: over the copies: the ``"mean"``, the mean of the ``"squared"`` maps (SmoothGrad-Squared), or their
            ``"variance"`` (VarGrad).
        fraction: standard deviation of their noise, relative to each sample's range (0.15: the paper's 0.1 to 0.2).
        integration_steps: of integrated gradients (50: the paper finds 20 to 300 enough).
        masks: of RISE, a forward pass of each sample for each (4,000: the paper's for 224 x 224 pixels).
        samples: how many of the probe's to show, the same at every step: its first ones; of a network that has most of
            them right at the first look, its mistakes first.
        sanity_check: also plot how little the maps change when the weights are replaced by random ones
            (``saliency/<method>/randomization``; Adebayo et al., 2018): near 1 they do not show what was learned.
    """

    method: SaliencyMethod = "gradient"
    target: TargetChoice = "label"
    reduce: Literal["sum", "max"] = "sum"
    noise_samples: Union[int, None] = None
    statistic: NoiseStatistic = "mean"
    fraction: float = 0.15
    integration_steps: int = 50
    masks: int = 4000
    samples: int = 8
    sanity_check: bool = False

    kind: ClassVar[str] = "saliency"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in methods(view=self.kind):
            raise InvalidArgumentError(f"method is {self.method!r}: give one of {list(methods(view=self.kind))}")
        if self.reduce not in ("sum", "max"):
            raise InvalidArgumentError(f"reduce is {self.reduce!r}: give 'sum' or 'max'")
        if (self.noise_samples is not None and self.noise_samples < 1) or self.fraction < 0:
            raise InvalidArgumentError(
                f"noise_samples is {self.noise_samples}, fraction {self.fraction}: give 1 or more, and 0 or more"
            )
        if self._noise and self._smoothed not in get_args(SmoothedMethod):
            raise InvalidArgumentError(
                f"noise_samples is {self.noise_samples}, but maps of {self.method} are not averaged over noise: give "
                f"it to one of {list(get_args(SmoothedMethod))}"
            )
        if self.statistic not in STATISTICS or (self.statistic != "mean" and not self._noise):
            raise InvalidArgumentError(
                f"statistic is {self.statistic!r}: give one of {list(STATISTICS)}, and noise_samples= with it"
            )
        if self.integration_steps < 1:
            raise InvalidArgumentError(f"integration_steps is {self.integration_steps}: give 1 or more")
        if self.masks < 1:
            raise InvalidArgumentError(f"masks is {self.masks}: give 1 or more")
        check_shown(self.samples)
        self.target = target_choice(self.target)

    def check(self, model: nn.Module) -> None:
        """Guided Grad-CAM needs a layer with maps."""
        self._layers(model)

    def requirements(self, model: nn.Module) -> Requirements:
        """The gradient with respect to the input, perhaps under a rule; some methods have passes of their own."""
        if self._alone:
            return Requirements(target=self.target, continuous=True)
        rule, layers = self._rule, tuple(self._layers(model))
        rules = () if rule is None else (rule,)
        return Requirements(input_gradient=not rules, rules=rules, layers=layers, gradients=layers, target=self.target)

    def passes(self, facts: Facts) -> float:
        """Those of the method, over noise for each copy, and as many again with random weights."""
        amounts = {"steps": self.integration_steps, "masks": self.masks}
        once = method(self._smoothed).passes(**amounts) * max(1, self._noise)
        return facts.head * once * (self._alone + self.sanity_check)

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """The maps, from the shared pass or by passes of the method's own, and those of a network of random weights."""
        targets = explained_target(self.target, snapshot)
        if self._alone:  # the shared pass may have explained another target
            inputs = on_device(model, snapshot.observation.inputs)
            targets = resolve_target(model, inputs, resolved(self.target, snapshot.samples))
            maps = _of_input(self._attribute(model, snapshot, targets), snapshot)
        else:
            maps = self._from_pass(snapshot, targets)
        extra: dict[str, Any] = {"targets": targets, "maps": maps}
        if self.sanity_check:
            name = str(self.method)

            def again() -> dict[str, Tensor]:
                return {name: _of_input(self._attribute(model, snapshot, targets), snapshot)}

            extra["score"] = randomization_scores(
                again, model, {name: maps}, several=targets.several, seed=self.probe.seed
            )[name]
        return extra

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page."""
        described = method(self.method)
        score, maps, relus = snapshot.extra.get("score"), snapshot.extra["maps"], snapshot.observation.relus
        images, verdicts = snapshot.images(self.pixel_space), snapshot.verdicts()
        shown = shown_samples(self.state, snapshot, self.samples, len(images))
        own = {"steps": f"{self.integration_steps} steps from 0", "masks": f"{self.masks:,} random masks"}
        details = [own[described.cost]] if described.cost in own else []
        if self._noise:
            over = {"mean": "", "squared": "mean square over ", "variance": "variance over "}[self.statistic]
            details.append(f"{over}{self._noise} noisy copies, noise {number(self.fraction)} of each image's range")
        if layers := snapshot.requirements.layers:
            details.append(f"at {', '.join(layers)}")
        notes = snapshot.notes(self.pixel_space)
        if described.rule and relus is not None:
            details.append(f"its rule at {relus.met} ReLUs")
            notes = (*notes, *([f"{', '.join(relus.others)} stay plain"] if relus.others else []))
        if score is not None:
            details.append(sanity_check_text(score))
        tag = f"{self.kind}/{self.method}"
        arguments = {
            "tag": tag,
            "images": images[shown],
            "method": described.title,
            "step": snapshot.step,
            "display": self.reduce if described.display == "sum" or self.statistic != "mean" else described.display,
            "unit": snapshot.unit(described.unit) if self.statistic == "mean" else "",
            "details": ["" if snapshot.several else some_of(len(shown), len(images), "samples"), *details],
            "verdicts": [verdicts[index] for index in shown] if verdicts else [],
            "notes": notes,
        }
        scalars = {} if score is None else {f"{tag}{SCORE_TAG}": score}
        if snapshot.several:
            yield from target_columns(snapshot, maps, shown, arguments, scalars)
        else:
            single = {"maps": maps[shown].numpy(), "target": snapshot.target_name(self.target)}
            yield snapshot.framed(DrawTask(attribution_maps, {**arguments, **single}, scalars=scalars), shown)

    @property
    def _rule(self) -> Rule | None:
        return cast("Rule | None", method(self.method).rule or None)

    @property
    def _alone(self) -> bool:
        """Whether the maps take passes of their own; the shared pass has the others."""
        return self._noise > 0 or method(self.method).cost != 1

    @property
    def _noise(self) -> int:
        """Noisy copies of each sample; none for methods of the input alone."""
        return self.noise_samples or (50 if method(self.method).cost == "noise_samples" else 0)

    @property
    def _smoothed(self) -> str:
        """The method whose maps are averaged over noise."""
        return "gradient" if method(self.method).cost == "noise_samples" else self.method

    def _layers(self, model: nn.Module) -> dict[str, nn.Module]:
        """Those whose maps the method needs."""
        return select_layers(model, "last_maps") if "maps" in method(self.method).needs else {}

    def _attribute(self, model: nn.Module, snapshot: Snapshot, target: TargetLike) -> Any:
        """The method's maps by passes of its own, on the CPU, in the form of the inputs or of the image."""
        described = method(self.method)
        function = method(self._smoothed).load()
        if described.cost == "steps":
            function = partial(function, steps=self.integration_steps, progress=False)
        if described.cost == "masks":
            function = partial(function, masks=self.masks, seed=self.probe.seed, progress=False)
        if self._noise:
            function = partial(
                smooth_grad, of=function, statistic=self.statistic, noise_samples=self._noise, fraction=self.fraction,
                seed=self.probe.seed, progress=False,
            )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AttributionWarning)  # the picture says it
            inputs = on_device(model, snapshot.observation.inputs)
            maps = function(model, inputs, target)
        if "maps" in described.needs:  # by layer
            return next(iter(maps.values())).cpu()
        return map_tensors(maps, Tensor.cpu)

    def _from_pass(self, snapshot: Snapshot, target: Target) -> Tensor:
        """The maps ``[N, C, H, W]``, or ``[T, N, C, H, W]`` of several classes, from what the shared pass recorded."""
        seen, rule = snapshot.observation, self._rule
        if rule is not None:
            check_relus(seen.relus, rule)
        maps = _of_input(seen.input_gradient if rule is None else seen.ruled.get(rule), snapshot)
        if self.method == "input_times_gradient":
            return maps * arrange(displayed_input(seen.inputs).float(), snapshot.input_form)
        for layer in snapshot.requirements.layers:
            call = snapshot.calls(layer)[-1]
            activations, gradients = seen.maps(call), seen.gradient_maps(call)
            if activations is None:
                raise ViewError(f"the output of layer {call!r} has no locations: guided Grad-CAM needs maps")
            if gradients is None:
                raise ViewError(f"{not_before(call, target)}; guided_backprop needs no layer")
            heat = class_activation_map(activations, gradients)
            maps = maps * resize(heat, maps.shape[2 - activations.dim() :])
        return maps


def _of_input(gradient: Any, snapshot: Snapshot) -> Tensor:
    """The gradient ``[N, C, *S]`` with respect to what is shown, see `arrange`."""
    inputs, form = snapshot.observation.inputs, snapshot.input_form
    if isinstance(gradient, Tensor) and not isinstance(inputs, Tensor):  # of the image alone
        return gradient.float()
    tensors = all_tensors(inputs)
    index = next(index for index, tensor in enumerate(tensors) if tensor is displayed_input(inputs))
    gradients: list[Tensor | None] = [None] * len(tensors) if gradient is None else flatten_like(gradient, inputs)
    own = gradients[index]
    if own is None:  # zeros would be a picture of something that was not computed
        raise NoGradientError
    return arrange(own.float(), form, own.dim() - tensors[index].dim() + 1)
