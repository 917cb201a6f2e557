"""Digital corruptions: paler by the factor given, blocks of one color, waves of the height given, stored as JPEG."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_viz.robustness import corrupt, corruption_kinds

IMAGES = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("severity", "kept"), [(1, 0.4), (2, 0.3), (3, 0.2), (4, 0.1), (5, 0.05)])
def test_contrast_shrinks_the_deviation_and_keeps_the_mean(severity, kept):
    hurt = corrupt(IMAGES, "contrast", severity)
    assert torch.allclose(hurt.std((2, 3)), kept * IMAGES.std((2, 3)))
    assert torch.allclose(hurt.mean((2, 3)), IMAGES.mean((2, 3)))


def test_pixels_become_blocks_of_their_mean():
    hurt = corrupt(IMAGES, "pixelate", 5)
    means = torch.nn.functional.avg_pool2d(IMAGES, 4)
    assert torch.allclose(hurt, means.repeat_interleave(4, 2).repeat_interleave(4, 3), atol=1e-6)
    for rows, columns, severity, share in ((28, 28, 4, 0.3), (33, 20, 1, 0.6), (3, 50, 3, 0.4), (1, 9, 5, 0.25)):
        uneven = torch.rand(2, rows, columns, dtype=torch.float64).numpy()
        down, right = (  # the block that each pixel's middle lies in
            ((np.arange(side) + 0.5) * max(1, round(share * side)) / side).astype(int) for side in (rows, columns)
        )
        block = down[:, None] * columns + right
        expected = np.stack([np.bincount(block.ravel(), one.ravel()) for one in uneven])
        expected = (expected / np.maximum(np.bincount(block.ravel()), 1))[:, block]
        assert corrupt(torch.from_numpy(uneven)[None], "pixelate", severity)[0].numpy() == pytest.approx(expected)
    for side, severity, blocks in ((28, 1, 17), (8, 5, 2), (30, 3, 12)):
        small = corrupt(torch.rand(1, 1, side, side), "pixelate", severity)[0, 0]
        assert len(torch.unique(small, dim=0)) == len(torch.unique(small.T, dim=0)) == blocks


def test_waves_move_a_ramp_by_their_height(monkeypatch):
    """Of a ramp, whose value is the place, an elastic image shows where each of its pixels comes from."""
    monkeypatch.setattr(corruption_kinds, "_CORNERS", 0)
    side = 224
    ramp = torch.linspace(0, 1, side, dtype=torch.float64).expand(8, 1, side, side)
    inner = slice(40, -40)
    for severity, rise in zip(range(1, 6), (2, 3.5, 5, 7.5, 10), strict=True):
        moved = (corrupt(ramp, "elastic_transform", severity) - ramp)[..., inner, inner] * (side - 1)
        assert moved.square().mean().sqrt().item() == pytest.approx(rise, rel=0.15)


def test_jpeg_is_what_a_file_would_hold():
    stored = (IMAGES[0] * 255).round().byte()
    for pixels, severity, quality in ((stored, 1, 25), (stored, 5, 7), (stored[:1], 3, 15)):
        buffer = BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy()).save(buffer, "JPEG", quality=quality)
        expected = torch.tensor(np.asarray(Image.open(buffer))).view(64, 64, -1).permute(2, 0, 1) / 255
        assert torch.allclose(corrupt(pixels[None] / 255, "jpeg_compression", severity)[0], expected, atol=1e-6)


def test_jpeg_of_many_channels_takes_each_alone():
    many = torch.rand(1, 5, 24, 24)
    whole = corrupt(many, "jpeg_compression", 4)
    assert all(torch.equal(whole[:, [one]], corrupt(many[:, [one]], "jpeg_compression", 4)) for one in range(5))
