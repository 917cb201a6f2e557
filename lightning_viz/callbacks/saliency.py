"""The view of which input values matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from lightning_viz.attribution.faults import NoGradientError
from lightning_viz.attribution.gradients import smooth_grad
from lightning_viz.callbacks.look import Look, Needs, TargetChoice, resolved
from lightning_viz.callbacks.probe import Samples, shown
from lightning_viz.callbacks.sketch import Sketch
from lightning_viz.callbacks.view import View
from lightning_viz.hooks.structure import all_tensors, image_of, in_place_of_tensors, map_tensors
from lightning_viz.render.heat import saliency_maps

_TITLES = {"gradient": "Gradient", "smooth_grad": "SmoothGrad"}


@dataclass(kw_only=True, eq=False)
class Saliency(View):
    """How the target changes with each pixel (tag ``saliency/<method>``).

    Args:
        method: ``"gradient"`` (Simonyan et al., 2014), from the pass that all views share, or ``"smooth_grad"``
            (Smilkov et al., 2017), which runs passes of its own.
        target: the class explained: ``"label"`` (each sample's own; predicted where it is not known), ``"predicted"``,
            or one class for all.
        reduce: over the input's channels, the ``"sum"`` of absolute values (Fleuret) or their ``"max"`` (Simonyan).
        copies: noisy copies per sample, for SmoothGrad (50: the paper's).
        fraction: noise level for SmoothGrad, of each sample's range (0.15: within the paper's 0.1 to 0.2).
    """

    method: Literal["gradient", "smooth_grad"] = "gradient"
    target: TargetChoice = "label"
    reduce: Literal["sum", "max"] = "sum"
    copies: int = 50
    fraction: float = 0.15

    kind: ClassVar[str] = "saliency"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in _TITLES:
            raise ValueError(f"method is {self.method!r}: give one of {list(_TITLES)}")
        if self.reduce not in ("sum", "max"):
            raise ValueError(f"reduce is {self.reduce!r}: give 'sum' or 'max'")
        if self.copies < 1 or self.fraction < 0:
            raise ValueError(f"copies is {self.copies}, fraction {self.fraction}: give 1 or more, and 0 or more")

    def needs(self, model: nn.Module) -> Needs:
        """The gradient towards the input; SmoothGrad looks by itself."""
        return Needs(input_gradient=self.method == "gradient", target=self.target)

    def passes(self, samples: Samples) -> float:
        """One per noisy copy."""
        return float(self.copies) if self.method == "smooth_grad" else 0.0

    def look(self, model: nn.Module, look: Look) -> Mapping[str, Any]:
        """The noisy copies' passes."""
        if self.method == "gradient":
            return {}
        device = next(model.parameters()).device
        inputs = map_tensors(look.seen.inputs, lambda x: x.to(device))
        target = resolved(self.target, look.samples)  # not `seen.targets`: the shared pass may have explained another
        smooth = smooth_grad(
            model, inputs, target, samples=self.copies, fraction=self.fraction, seed=self.probe.seed, progress=False
        )
        return {"gradient": map_tensors(smooth, Tensor.cpu)}

    def draw(self, look: Look) -> Iterable[Sketch]:
        """One page."""
        gradient = _of_image(look.extra.get("gradient", look.seen.input_gradient), look.seen.inputs)
        details = f" ({self.copies} copies, noise {self.fraction:g})" if self.method == "smooth_grad" else ""
        yield Sketch(
            saliency_maps,
            {
                "tag": f"{self.kind}/{self.method}",
                "images": look.images(self.pixels),
                "gradient": gradient.numpy(),
                "method": _TITLES[self.method] + details,
                "step": look.step,
                "target": look.target_name(self.target),
                "reduce": self.reduce,
                "verdicts": look.verdicts(),
                "notes": look.notes(self.pixels),
            },
        )


def _of_image(gradient: Any, inputs: Any) -> Tensor:
    """The gradient ``[N, C, H, W]`` towards what is shown: the image among the inputs, or a strip of their values."""
    tensors = all_tensors(inputs)
    place = next(index for index, tensor in enumerate(tensors) if tensor is shown(inputs))
    found: list[Tensor | None] = [None] * len(tensors) if gradient is None else in_place_of_tensors(gradient, inputs)
    slope = found[place]
    if slope is None:  # zeros would be a picture of something that was not seen
        raise NoGradientError
    slope = slope.float()
    return slope.flatten(1)[:, None, None, :] if image_of(inputs) is None else slope
