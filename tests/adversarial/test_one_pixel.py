"""A few pixels fool the digits net: no more than were asked for change, and every image that it sees is counted."""

import random
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.optimize import differential_evolution
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz.adversarial import AttackResult, one_pixel
from lightning_viz.pixels import PixelSpace


class Native(NamedTuple):
    """A convnet trained on digits at 8 x 8, and samples that it has right."""

    model: nn.Module
    images: Tensor
    labels: Tensor


@pytest.fixture(scope="module")
def native() -> Native:
    flat, classes = load_digits(return_X_y=True)
    images, labels = torch.tensor(flat, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(classes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        order = torch.randperm(len(images))
        images, labels = images[order], labels[order]
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(72, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(6):
            for batch in torch.randperm(1400).split(64):
                loss = F.cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    held, truth = images[1400:], labels[1400:]
    with torch.no_grad():
        right = model.eval()(held).argmax(1) == truth
    assert right.float().mean() > 0.9
    return Native(model, held[right], truth[right])


def few(native: Native, count: int = 4, **options: object) -> AttackResult:
    chosen = {"generations": 5, "population": 40, "progress": False, **options}
    return one_pixel(native.model, native.images[:count], native.labels[:count], **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize("pixels", [1, 3, 5])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_no_more_pixels_change_than_were_asked_for_and_all_within_bounds(pixels: int, channels: int) -> None:
    torch.manual_seed(pixels)
    model = nn.Sequential(nn.Flatten(), nn.Linear(channels * 5 * 7, 4)).eval()
    pixel_space = PixelSpace([0.5, 0.2, 0.7][:channels], [0.1, 0.2, 0.3][:channels])
    images = torch.rand(3, channels, 5, 7)
    found = one_pixel(
        model,
        pixel_space.to_inputs(images),
        pixels=pixels,
        generations=3,
        population=20,
        pixel_space=pixel_space,
        progress=False,
    )
    changed = (found.perturbations != 0).any(1).flatten(1).sum(1)
    assert bool((changed <= pixels).all()) and bool((changed > 0).all())
    assert found.pixels.min() >= 0 and found.pixels.max() <= 1
    assert torch.allclose(pixel_space.to_pixels(found.inputs), found.pixels, atol=1e-6)


def test_more_pixels_fool_more_often(native: Native) -> None:
    rates = [few(native, 12, pixels=pixels, generations=15, population=100).success for pixels in (1, 5)]
    assert rates[0] < rates[1] - 0.2


def test_what_the_record_says_of_the_result_is_what_the_model_says(native: Native) -> None:
    found = few(native, 8, pixels=3)
    with torch.no_grad():
        probabilities = native.model(found.inputs).softmax(1)
    assert torch.equal(found.record.classes[-1], probabilities.argmax(1))
    assert torch.allclose(found.record.confidences[-1], probabilities.amax(1), atol=1e-6)
    assert torch.equal(found.fooled, probabilities.argmax(1) != found.labels)


def test_the_best_candidate_stays(native: Native) -> None:
    found = few(native, 8, pixels=1, generations=8)
    searched = found.record.losses[1:]  # from the random generation on
    still = (found.first_success_step < 0).nonzero().flatten()
    assert len(still) > 1
    assert bool((searched[1:, still] >= searched[:-1, still]).all())
    assert bool((searched[-1, still] > searched[0, still]).any())


def test_a_plain_search_by_scipy_finds_the_same(native: Native) -> None:
    """An independent objective, one image at a time, the probability itself; same random numbers."""
    image, label = native.images[0, 0], int(native.labels[0])
    found = few(native, 1, generations=4)
    assert not found.fooled

    def draw(candidate: np.ndarray) -> Tensor:
        changed = image.clone()
        changed[min(int(candidate[0]), 7), min(int(candidate[1]), 7)] = candidate[2]
        return changed

    def probability(candidate: np.ndarray) -> float:
        with torch.no_grad():
            return native.model(draw(candidate)[None, None]).double().softmax(1)[0, label].item()

    rng = np.random.default_rng((0, 0))
    start = np.concatenate([rng.uniform(0, 8, (40, 1, 2)), rng.normal(128, 127, (40, 1, 1)).clip(0, 255) / 255], 2)
    best = differential_evolution(
        probability, [(0, 8), (0, 8), (0, 1)], strategy="rand1bin", mutation=0.5, recombination=1, init=start[:, 0],
        maxiter=4, tol=0, atol=-1, polish=False, updating="deferred", seed=rng,
    )  # fmt: skip
    assert torch.allclose(found.pixels[0, 0], draw(best.x), atol=1e-6)
    assert found.record.losses[-1].item() == pytest.approx(-np.log(best.fun), rel=1e-4)


def test_every_image_that_the_model_sees_is_counted(native: Native) -> None:
    seen: list[int] = []
    handle = native.model.register_forward_hook(lambda module, inputs, outputs: seen.append(len(inputs[0])))
    found = few(native, 6, pixels=5)
    handle.remove()
    assert sum(seen) == found.queries.sum()
    generations = torch.where(found.fooled, found.first_success_step, 6)
    assert torch.equal(found.queries, 1 + 40 * generations)
    assert seen[1:] == [40] * (len(seen) - 1)  # a generation is one batch
    assert not bool(found.backwards.any())


def test_a_sample_is_done_with_the_first_candidate_that_fools(native: Native) -> None:
    found = few(native, 12, pixels=5, generations=10)
    flipped = found.first_success_step[found.fooled]
    assert len(flipped) > 2
    assert 1 <= flipped.min() < flipped.max()
    assert bool((found.queries[~found.fooled] == 1 + 40 * 11).all())


def test_a_seed_repeats_and_a_sample_does_not_mind_who_comes_after_it(native: Native) -> None:
    alone, together = few(native, 2), few(native, 5)
    assert torch.equal(alone.pixels, together.pixels[:2])
    assert not torch.equal(alone.pixels, few(native, 2, seed=1).pixels)


def test_batches_change_nothing(native: Native) -> None:
    whole, parts = few(native, 3), few(native, 3, batch_size=7)
    assert torch.equal(whole.pixels, parts.pixels)
    assert torch.equal(whole.queries, parts.queries)


def test_a_target_is_climbed(native: Native) -> None:
    target = (native.labels[:6] + 1) % 10
    found = few(native, 6, pixels=5, target=target, generations=10)
    with torch.no_grad():
        before, after = (
            native.model(one).log_softmax(1)[range(6), target] for one in (native.images[:6], found.inputs)
        )
    assert bool((after > before).all())
    assert torch.equal(found.fooled, found.record.classes[-1] == target)


def test_every_pixel_can_be_the_one() -> None:
    """Also in the last row and column of images that are no square, for as long as evolution goes on: nothing helps."""
    touched = torch.zeros(3, 8, dtype=torch.bool)

    def indifferent(model: nn.Module, images: Tensor) -> Tensor:
        touched.logical_or_((images != 0.5).any(1).any(0))
        return torch.tensor([[1.0, 0.0]]).expand(len(images), 2)

    images = torch.full((1, 1, 3, 8), 0.5)
    found = one_pixel(nn.Identity().eval(), images, generations=3, population=100, progress=False, forward=indifferent)
    assert bool(touched.all())
    assert found.queries.tolist() == [401]


def test_samples_that_the_model_has_wrong_are_left_alone(native: Native) -> None:
    wrong = (native.labels[:3] + 1) % 10
    found = one_pixel(native.model, native.images[:3], wrong, progress=False)
    assert torch.equal(found.pixels, found.original)
    assert found.queries.tolist() == [1, 1, 1]


def test_a_model_that_leaves_torch_is_attacked_as_well(native: Native) -> None:
    def nearest(model: nn.Module, images: Tensor) -> Tensor:
        means = np.stack([native.images[native.labels == one].mean(0).numpy() for one in range(10)])
        return torch.from_numpy(-((images.numpy()[:, None] - means) ** 2).sum((2, 3, 4)))

    found = few(native, 6, pixels=5, forward=nearest)
    assert bool(found.fooled.any())


def test_the_model_and_all_chance_are_left_as_found(native: Native) -> None:
    before = {name: one.clone() for name, one in native.model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    few(native, 2)
    assert all(torch.equal(one, before[name]) for name, one in native.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1]) and random.getstate() == states[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": 65}, "pixels=65: the images have 64"),
        ({"pixels": 0}, "pixels=0"),
        ({"population": 4}, "population=4"),
        ({"generations": -1}, "generations=-1"),
        ({"target": 11}, "out of range"),
    ],
)
def test_what_makes_no_sense_is_said(native: Native, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        few(native, 2, **options)


def test_vectors_have_no_pixels() -> None:
    with pytest.raises(ValueError, match=r"\[3, 4\], but one_pixel needs images .* forward="):
        one_pixel(nn.Linear(4, 2).eval(), torch.rand(3, 4))
