"""On a sphere around a sample, the share beyond a plane is what geometry says; directions are those of the seed."""

import pytest
import torch
from scipy.special import betainc

from lightning_viz.adversarial import L2, deepfool
from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness import random_directions
from tests.adversarial.watching import distances, grays, linear, watched
from tests.dream.conftest import Digits

MANY = 4000


def cap(share: torch.Tensor, dimensions: int) -> torch.Tensor:
    """The part of a sphere that lies beyond a plane at a share of its radius (Li, 2011)."""
    return torch.from_numpy(betainc((dimensions - 1) / 2, 0.5, 1 - share.double().numpy() ** 2)) / 2


@pytest.mark.parametrize("size", [2, 5])
def test_the_share_beyond_a_plane_is_that_of_the_cap(size: int) -> None:
    model, images = linear(size=size), grays(6, size=size)
    away = distances(model, images)
    found = random_directions(model, images, away * torch.tensor([1.02, 1.2, 1.5, 2.0, 4.0, 20.0]), MANY)
    truth = cap(away / found.radius, size**2)
    assert bool(((found.changed - truth).abs() <= 4 * (truth * (1 - truth) / MANY).sqrt() + 1e-3).all())
    assert truth.max() > 0.3


def test_nothing_changes_within_the_distance_of_the_nearest_boundary() -> None:
    model, images = linear(4), grays(5)
    found = random_directions(model, images, 0.999 * distances(model, images), 500)
    assert found.changed.tolist() == [0.0] * 5
    assert found.counts.sum(1).tolist() == [500] * 5


def test_every_point_has_the_radius_in_pixels_and_none_is_clamped() -> None:
    pixel_space, model, images = PixelSpace((0.4,), (0.2,)), linear(), grays(2)
    with watched(model) as seen:
        random_directions(
            model, pixel_space.to_inputs(images), torch.tensor([0.5, 30.0]), 50, pixel_space=pixel_space, batch_size=7
        )
    assert max(seen.sizes) == 7
    points = pixel_space.into(torch.cat(seen.batches[1:]), PixelSpace())  # the first batch shows the centers
    lengths = L2.length(points - images.repeat_interleave(50, 0))
    torch.testing.assert_close(lengths, torch.tensor([0.5, 30.0]).repeat_interleave(50), rtol=1e-4, atol=1e-4)
    assert points.min() < -1


def test_directions_are_those_of_the_seed_whatever_the_batch_size() -> None:
    model, images = linear(5), grays(3)
    counts = [random_directions(model, images, 3.0, 200, batch_size=size).counts for size in (1, 7, 256)]
    assert torch.equal(counts[0], counts[1])
    assert torch.equal(counts[1], counts[2])
    assert not torch.equal(counts[0], random_directions(model, images, 3.0, 200, seed=1).counts)


def test_classes_are_compared_with_the_labels_given() -> None:
    model, images = linear(lead=5.0), grays(3)
    found = random_directions(model, images, 0.1, 20, labels=[0, 1, 0])
    assert found.changed.tolist() == [0.0, 1.0, 0.0]
    assert found.counts.tolist() == [[20, 0]] * 3


def test_twice_as_far_as_the_boundary_random_directions_do_not_find_it(digits: Digits) -> None:
    near = deepfool(digits.model, digits.images[:10], pixel_space=digits.pixel_space)
    found = random_directions(
        digits.model, digits.images[:10], 2 * near.record.l2[-1], 300, pixel_space=digits.pixel_space
    )
    assert found.changed.mean() < 0.02
    far = random_directions(
        digits.model, digits.images[:10], 60 * near.record.l2[-1], 300, pixel_space=digits.pixel_space
    )
    assert far.changed.mean() > 0.2


@pytest.mark.parametrize(
    ("radius", "options", "words"),
    [
        (-1.0, {}, "radius=-1.0"),
        (float("inf"), {}, "never fooled"),
        (torch.ones(3), {}, r"radius is \[3\] for 2 samples"),
        (1.0, {"samples": 0}, "samples=0"),
        (1.0, {"batch_size": 0}, "batch_size=0"),
        (1.0, {"labels": [0, 9]}, "out of range"),
    ],
)
def test_what_makes_no_sense_is_said(radius: float, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        random_directions(linear(), grays(2), radius, **options)
