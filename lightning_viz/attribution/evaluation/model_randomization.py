"""Model randomization: does a map depend on what the model has learned?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_viz.attribution.evaluation.heatmap import Attribute, as_heat, image_size, plain_target, single_target
from lightning_viz.errors import AttributionWarning
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.observe import Forward
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.hooks.random_weights import randomized_weights
from lightning_viz.hooks.targets import TargetLike
from lightning_viz.rich_display import html_display

__all__ = ["ModelRandomization", "model_randomization", "rank_correlation"]

EVERYTHING = "everything"
"""Name of the last stage if some parameters are in none of the chosen layers."""


@html_display("score", "undefined", "layers", "correlations")
@dataclass(frozen=True)
class ModelRandomization:
    """How similar maps stay as the model is re-initialized from the top.

    Attributes:
        layers: the layer that each stage re-initializes in addition, from the top; after the last one it is everything.
        correlations: rank correlation with the model's own map ``[L, N]``, in -1..1; NaN if a map is constant and so
            has no ranks.
    """

    layers: tuple[str, ...]
    correlations: Tensor

    @property
    def score(self) -> float:
        """Mean correlation with the completely re-initialized model: near 1 the map does not depend on the weights.

        The mean is over samples that have a correlation; NaN if none has.
        """
        return float(self.correlations[-1].nanmean())

    @property
    def undefined(self) -> int:
        """Samples without a correlation with the completely re-initialized model, because a map is constant."""
        return int(self.correlations[-1].isnan().sum())


def model_randomization(
    attribute: Attribute,
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    layers: Layers = "parts",
    signed: bool = True,
    seed: int = 0,
    original: Any = None,
    forward: Forward | None = None,
) -> ModelRandomization:
    r"""Model randomization: correlates a map with those of more and more random models (Adebayo et al., 2018).

    .. math:: \rho_l = \operatorname{corr}\big(\operatorname{rank} M(f),\ \operatorname{rank} M(f_{\geq l})\big),
        \qquad f_{\geq l}: \text{layer } l \text{ and all above it re-initialized}

    The paper's cascading randomization, with Spearman's rank correlation over the locations of each sample. Of the
    paper's two variants, signed sums over channels ("No ABS") are the default, because only they are uncorrelated for
    unrelated models: absolute values agree in textured regions and far from the border, whatever the weights.
    Measured on two unrelated ResNet-18: gradients correlate by 0.00 with signs and 0.4 without, guided
    backpropagation by 0.3 and 0.6.

    Args:
        attribute: the method, ``attribute(model, inputs, target)``.
        model: any module; left as found (see `lightning_viz.hooks.randomized_weights`).
        inputs: as the model takes them, images among them.
        target: one per sample; the class that the model itself predicts if omitted, at every stage.
        layers: the stages, in the reverse order of the forward pass. Its top-level blocks by default; ``()`` for the
            completely re-initialized model alone, from which `ModelRandomization.score` is computed, at the cost of
            one attribution beside the model's own.
        signed: compare signed sums over channels; otherwise sums of absolute values (the paper's "ABS").
        seed: of the new weights.
        original: the model's own attribution, if it is known; it is computed if omitted.
        forward: how to run the model, if not ``model(inputs)``; for the target and the order of layers alone.

    Returns:
        A correlation for each stage and sample.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        InvalidTypeError: no images among the inputs, or `attribute` returns no maps.
        InvalidArgumentError: several targets, or maps of several layers.
    """
    size, chosen = image_size(inputs), select_layers(model, layers)
    observation, fixed = single_target(model, inputs, target, reduce=dict.fromkeys(chosen, _nothing), forward=forward)
    target = plain_target(fixed, all_tensors(inputs)[0].device)
    stages = _from_the_top(observation, list(chosen))
    held = {id(p) for name in stages for p in chosen[name].parameters()}
    rest = any(id(p) not in held for p in model.parameters())
    own = _ranks(as_heat(attribute(model, inputs, target) if original is None else original, size, signed=signed))
    rows = []
    for stage in [*(stages[: count + 1] for count in range(len(stages))), *([None] if rest else [])]:
        with randomized_weights(model, stage, seed=seed), warnings.catch_warnings():
            warnings.simplefilter("ignore", AttributionWarning)  # a constant map has the correlation NaN
            rows.append(_correlation(own, _ranks(as_heat(attribute(model, inputs, target), size, signed=signed))))
    return ModelRandomization((*stages, *([EVERYTHING] if rest else [])), torch.from_numpy(np.stack(rows)))


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of two maps of each sample ``[N]``, in -1..1; NaN if one of them is constant.

    Args:
        first: ``[N, H, W]``.
        second: of the same shape.
    """
    return torch.from_numpy(_correlation(_ranks(first), _ranks(second)))


def _from_the_top(observation: Observation, names: list[str]) -> list[str]:
    """Layers in the reverse order of their first calls; those that were not called at the end."""
    called = dict.fromkeys(name for call in observation.reduced for name in names if call in observation.calls(name))
    return [*reversed(called), *observation.unreached]


def _nothing(output: Tensor) -> Tensor:
    return output.new_zeros(0)


def _ranks(heat: Tensor) -> NDArray[np.float64]:
    from scipy.stats import rankdata  # which takes a while to import

    return np.asarray(rankdata(heat.flatten(1).double().cpu().numpy(), axis=1))


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation of the ranks, row by row; NaN if all ranks of a row are equal."""
    first, second = (ranks - ranks.mean(1, keepdims=True) for ranks in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1)))
