"""Can a view's maps be believed? How much they change when the network's weights are replaced by random ones."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_viz.attribution.evaluation.model_randomization import rank_correlation
from lightning_viz.errors import AttributionWarning
from lightning_viz.hooks.random_weights import randomized_weights
from lightning_viz.render.text import fixed_point

SCORE_TAG = "/randomization"
"""End of the tag under which a view plots the score of its maps."""

MOST_PLACES = 64 * 64
"""Maps are compared at no more places than these: ranks of more take long and tell nothing more."""


def randomization_scores(
    attribute: Callable[[], Mapping[str, Tensor]],
    model: nn.Module,
    own: Mapping[str, Tensor],
    *,
    several: bool,
    seed: int,
) -> dict[str, float]:
    """Mean rank correlation of maps with those of the same network with random weights (Adebayo et al., 2018).

    Near 1 a map shows the image, not what the network has learned.

    Args:
        attribute: makes the maps once more, by name, with the weights that the model then has.
        model: whose weights are replaced for a while.
        own: the maps of the model itself, ``[N, C, ...]`` in time, the plane or space, by name.
        several: whether they are of several targets, ``[T, N, C, ...]``.
        seed: of the random weights.
    """
    with randomized_weights(model, seed=seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", AttributionWarning)  # a map without ranks is told from its score, NaN
        random = attribute()
    small = partial(_small, lead=3 if several else 2)
    return {name: float(rank_correlation(small(maps), small(random[name])).nanmean()) for name, maps in own.items()}


def sanity_check_text(score: float) -> str:
    """A score in a caption.

    Args:
        score: of `randomization_scores`.
    """
    if math.isnan(score):
        return "rank correlation with an untrained network's maps: none, as maps are constant"
    return f"rank correlation with an untrained network's maps {fixed_point(score)} ({SANITY_KEY})"


SANITY_KEY = "near 1: does not depend on what was learned; near 0 alone proves nothing"
"""How to read the score: noise has 0, too."""


def _small(maps: Tensor, lead: int) -> Tensor:
    """Signed sums over the channels, as `model_randomization` compares them; of vectors the numbers themselves."""
    flat = maps.flatten(0, lead - 2)
    places = flat.dim() - 2
    if places == 0:
        return flat
    heat, side = flat.sum(1, keepdim=True), round(MOST_PLACES ** (1 / places))
    sizes = [min(side, size) for size in heat.shape[2:]]
    pool: Any = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[places - 1]
    return cast("Tensor", pool(heat, sizes if places > 1 else sizes[0]))[:, 0]
