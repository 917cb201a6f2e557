"""Does a map depend on what the model has learned?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from lightning_viz.attribution.evaluation.heatmap import Attribute, as_heat, image_size, plain_target, single_target
from lightning_viz.errors import AttributionWarning
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.observe import Forward
from lightning_viz.hooks.random_weights import randomized_weights
from lightning_viz.hooks.target_words import TargetLike

__all__ = ["ModelRandomization", "model_randomization", "rank_correlation"]

EVERYTHING = "everything"
"""Name of the last stage where parameters remain that no chosen layer holds."""


@dataclass(frozen=True)
class ModelRandomization:
    """How similar maps stay as the model is re-initialized from the top.

    Attributes:
        layers: what each stage adds to what is re-initialized, from the top; after the last one it is everything.
        correlations: rank correlation with the model's own map, ``[L, N]``, in -1..1; NaN where a map is constant
            and so has no ranks.
    """

    layers: tuple[str, ...]
    correlations: Tensor

    @property
    def score(self) -> float:
        """Mean correlation at the wholly re-initialized model: near 1 the map does not depend on the weights.

        Over the samples that have a correlation; NaN if none has.
        """
        return float(self.correlations[-1].nanmean())

    @property
    def undefined(self) -> int:
        """How many samples have no correlation at the wholly re-initialized model, because a map is constant."""
        return int(self.correlations[-1].isnan().sum())


def model_randomization(
    attribute: Attribute,
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    layers: Layers = "blocks",
    signed: bool = True,
    seed: int = 0,
    original: Any = None,
    forward: Forward | None = None,
) -> ModelRandomization:
    r"""Rank correlation of a map with the maps of ever more re-initialized models (Adebayo et al., 2018).

    .. math:: \rho_l = \operatorname{corr}\big(\operatorname{rank} M(f),\ \operatorname{rank} M(f_{\geq l})\big),
        \qquad f_{\geq l}: \text{layer } l \text{ and all above it re-initialized}

    The paper's cascading randomization, with Spearman's correlation over the places of each sample. Of the paper's two
    variants signed sums over channels are the default ("No ABS"), because only their zero means something: absolute
    values agree wherever an image is busy, or far from the border, with whatever weights. Measured: two unrelated
    ResNet-18's gradients correlate by 0.00 with signs and by 0.4 without, guided backprop's by 0.3 and 0.6.

    Args:
        attribute: the method, ``attribute(model, inputs, target)``.
        model: any module; left as found (see `lightning_viz.hooks.randomized_weights`).
        inputs: as the model takes them, images among them.
        target: one per sample; the class that the model itself predicts if omitted, at every stage.
        layers: the stages; ordered as the forward pass calls them, last first. Its top-level blocks by default;
            ``()`` for the wholly re-initialized model alone, which is what `Randomization.score` is of: it costs one
            attribution beside the model's own.
        signed: compare signed sums over channels, else sums of absolute values (the paper's "ABS").
        seed: of the new weights.
        original: the model's own attribution where it is at hand; else it is computed.
        forward: how to run the model, if not ``model(inputs)``; for the target and the order of layers alone.

    Returns:
        A correlation for each stage and sample.

    Raises:
        LayerNotFoundError: no layer matches; the message lists the nearest names.
        TypeError: no images among the inputs, or no maps from `attribute`.
        ValueError: several targets, or maps of several layers.
    """
    size, chosen = image_size(inputs), select_layers(model, layers)
    seen, fixed = single_target(model, inputs, target, reduce=dict.fromkeys(chosen, _nothing), forward=forward)
    target = plain_target(fixed)
    stages = _from_the_top(seen, list(chosen))
    held = {id(p) for name in stages for p in chosen[name].parameters()}
    rest = any(id(p) not in held for p in model.parameters())
    own = _ranks(as_heat(attribute(model, inputs, target) if original is None else original, size, signed=signed))
    rows = []
    for stage in [*(stages[: count + 1] for count in range(len(stages))), *([None] if rest else [])]:
        with randomized_weights(model, stage, seed=seed), warnings.catch_warnings():
            warnings.simplefilter("ignore", AttributionWarning)  # that a map is constant is said by NaN
            rows.append(_correlation(own, _ranks(as_heat(attribute(model, inputs, target), size, signed=signed))))
    return ModelRandomization((*stages, *([EVERYTHING] if rest else [])), torch.from_numpy(np.stack(rows)))


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's correlation of two maps of each sample ``[N]``, in -1..1; NaN where one of them is constant.

    Args:
        one: ``[N, H, W]``.
        other: of the same shape.
    """
    return torch.from_numpy(_correlation(_ranks(one), _ranks(other)))


def _from_the_top(seen: Observation, names: list[str]) -> list[str]:
    """Layers in the order in which the pass called them first, the last one first; those it did not call at the end."""
    called = dict.fromkeys(name for call in seen.reduced for name in names if call in seen.calls(name))
    return [*reversed(called), *seen.unreached]


def _nothing(output: Tensor) -> Tensor:
    return output.new_zeros(0)


def _ranks(heat: Tensor) -> NDArray[np.float64]:
    return np.asarray(rankdata(heat.flatten(1).double().cpu().numpy(), axis=1))


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's of the ranks, row by row; NaN where all ranks of a row are the same."""
    one, other = (ranks - ranks.mean(1, keepdims=True) for ranks in (one, other))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1)))
