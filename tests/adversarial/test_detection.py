"""Attacks on a detection's score."""

import pytest
import torch

from lightning_viz.adversarial import deepfool, fgsm, pgd, square
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks import observe
from lightning_viz.hooks.observe import resolve_target

from ..detectors import SquareDetector, squares

images, truths = squares()


@pytest.fixture
def detector():
    return SquareDetector().eval()


@pytest.mark.parametrize("attack", [pgd, fgsm, square])
@pytest.mark.parametrize("index", [0, 1])
def test_attack_halves_the_score_of_the_detection_and_no_more_than_epsilon(attack, index, detector):
    fixed = resolve_target(detector, images, f"box[{index}]")
    result = attack(detector, images, f"box[{index}]", epsilon=0.25)
    assert result.labels.tolist() == [1, 1] and result.fooled.all()
    assert result.perturbations.abs().max() <= 0.25 + 1e-6
    before = observe(detector, images, fixed).scores
    sizes = [image.shape[1:] for image in images]
    attacked = [image[:, :h, :w] for image, (h, w) in zip(result.inputs, sizes, strict=True)]
    after = observe(detector, attacked, fixed).scores
    assert (after < before / 2).all()


def test_samples_that_are_finished_leave_the_others_their_own_boxes(detector):
    """In a batch of one and after the first image was fooled, each image is still attacked at its own box."""
    together = pgd(detector, images, epsilon=0.12, steps=6, seed=1, random_start=False, stop_on_success=True)
    alone = [pgd(detector, [image], epsilon=0.12, steps=6, random_start=False) for image in images]
    batched = pgd(detector, images, epsilon=0.12, steps=6, random_start=False, batch_size=1)
    for index, (image, single) in enumerate(zip(images, alone, strict=True)):
        _, height, width = image.shape
        torch.testing.assert_close(together.pixels[index, :, :height, :width], single.pixels[0])
        torch.testing.assert_close(batched.pixels[index], together.pixels[index])


def test_what_cannot_be_attacked_says_so(detector):
    with pytest.raises(InvalidArgumentError, match="attacked by lowering its score"):
        pgd(detector, images, "box[0]", target=2)
    with pytest.raises(InvalidArgumentError, match="labels are 'top 3 classes'"):
        pgd(detector, images, "top:3")
    with pytest.raises(InvalidArgumentError, match=r"which a detector .* need: choose fgsm"):
        deepfool(detector, images, "box[0]")
