"""Can a view's maps be believed? How much they change when the network's weights are replaced by random ones."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_viz.attribution.evaluation.heatmap import as_heat
from lightning_viz.attribution.evaluation.model_randomization import rank_correlation
from lightning_viz.errors import AttributionWarning
from lightning_viz.hooks.random_weights import randomized_weights

SCORE_TAG = "/randomization"
"""End of the tag under which a view plots the score of its maps."""

SIDE = 64
"""Maps are compared at this size at the most: ranks of more places take long and tell nothing more."""


def randomization_scores(
    attribute: Callable[[], Mapping[str, Tensor]], model: nn.Module, own: Mapping[str, Tensor], *, seed: int
) -> dict[str, float]:
    """Mean rank correlation of maps with those of the same network with random weights (Adebayo et al., 2018).

    Near 1 a map shows the image, not what the network has learned.

    Args:
        attribute: makes the maps once more, by name, with the weights that the model then has.
        model: whose weights are replaced for a while.
        own: the maps of the model itself, ``[..., C, H, W]``, by name.
        seed: of the random weights.
    """
    with randomized_weights(model, seed=seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", AttributionWarning)  # a map without ranks is told from its score, NaN
        random = attribute()
    return {name: float(rank_correlation(_small(maps), _small(random[name])).nanmean()) for name, maps in own.items()}


def sanity_check_text(score: float) -> str:
    """A score in a caption.

    Args:
        score: of `randomization_scores`.
    """
    if math.isnan(score):
        return "no rank correlation with an untrained network's maps: they are constant"
    return f"rank correlation with an untrained network's maps {score:.2f} (0 is best)"


def _small(maps: Tensor) -> Tensor:
    """Signed sums over the channels, as `checks.model_randomization` compares them."""
    flat = maps.reshape(-1, *maps.shape[-3:])  # also of several targets
    heat = as_heat(flat, (flat.shape[-2], flat.shape[-1]), signed=True)
    return F.adaptive_avg_pool2d(heat[:, None], (min(SIDE, heat.shape[-2]), min(SIDE, heat.shape[-1])))[:, 0]
