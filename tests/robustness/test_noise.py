"""Noise has the paper's variances and shares."""

import numpy as np
import pytest
import torch

from lightning_viz.robustness import corrupt

GRAY = torch.full((1, 1, 256, 256), 0.5)


@pytest.mark.parametrize(("severity", "deviation"), [(1, 0.08), (2, 0.12), (3, 0.18)])
def test_gaussian_noise_has_the_papers_deviation_where_it_is_not_cut(severity, deviation):
    noise = corrupt(GRAY, "gaussian_noise", severity) - GRAY
    assert noise.std().item() == pytest.approx(deviation, rel=0.02) and abs(noise.mean().item()) < 0.002


@pytest.mark.parametrize(("severity", "photons"), [(1, 60), (2, 25), (3, 12), (4, 5), (5, 3)])
def test_shot_noise_is_whole_photons_of_poisson_variance(severity, photons):
    dark = torch.full((1, 1, 256, 256), 0.1)
    counts = photons * corrupt(dark, "shot_noise", severity)
    assert torch.allclose(counts, counts.round(), atol=1e-4)
    assert counts.mean().item() == pytest.approx(0.1 * photons, rel=0.03)
    assert counts.var().item() == pytest.approx(0.1 * photons, rel=0.05)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.03), (2, 0.06), (3, 0.09), (4, 0.17), (5, 0.27)])
def test_impulse_noise_is_salt_and_pepper_in_equal_parts(severity, share):
    hurt = corrupt(GRAY, "impulse_noise", severity)
    values, counts = np.unique(hurt.numpy(), return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    assert counts[[0, 2]] / hurt.numel() == pytest.approx(share / 2, rel=0.05)
