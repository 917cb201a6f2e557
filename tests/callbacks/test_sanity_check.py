"""The sanity check compares maps sample by sample, whatever places they have."""

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from lightning_viz.callbacks.sanity_check import randomization_scores, sanity_check_text


@pytest.mark.parametrize("places", [(), (7,), (4, 5), (2, 3, 4)], ids=["vector", "series", "image", "volume"])
@pytest.mark.parametrize("several", [False, True])
def test_a_score_is_the_mean_over_samples_of_the_correlation_of_sums_over_channels(places, several):
    generator = torch.Generator().manual_seed(0)
    own, other = (torch.randn(*[3] * several, 4, 6, *places, generator=generator) for _ in range(2))
    score = randomization_scores(lambda: {"maps": other}, nn.Linear(1, 1), {"maps": own}, several=several, seed=0)
    lead = 3 if several else 2
    sums = [(x.sum(lead - 1) if places else x).reshape(4 * 3**several, -1) for x in (own, other)]
    expected = [spearmanr(*pair).statistic for pair in zip(*sums, strict=True)]
    assert score["maps"] == pytest.approx(sum(expected) / len(expected), abs=1e-6)


@pytest.mark.parametrize(("score", "words"), [(0.4, "maps 0.40 ("), (-0.123, "maps −0.12 ("), (-0.001, "maps 0.00 (")])
def test_a_score_is_written_with_a_true_minus(score, words):
    assert words in sanity_check_text(score)
