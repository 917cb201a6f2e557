"""Random squares fool as often as torchattacks' at equal queries, never beyond epsilon; each query is counted."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_viz.adversarial import L2, LINF, AttackResult, Norm, square
from lightning_viz.adversarial.square_attack import _bump, _halved, _move_bump
from lightning_viz.pixels import PixelSpace
from tests.adversarial.oracles import torchattacks
from tests.dream.conftest import Digits


def tried(digits: Digits, count: int = 6, **options: object) -> AttackResult:
    chosen = {"epsilon": 0.1, "queries": 20, "pixel_space": digits.pixel_space, "progress": False, **options}
    return square(digits.model, digits.images[:count], digits.labels[:count], **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", [LINF, L2], ids=lambda norm: norm.name)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (2, 3, 2), (1, 1, 1)])
def test_no_perturbation_leaves_its_ball_or_the_pixels(norm: Norm, shape: tuple[int, ...]) -> None:
    torch.manual_seed(sum(shape))
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 4)).eval()
    pixel_space = PixelSpace([0.5, 0.2, 0.7][: shape[0]], [0.1, 0.2, 0.3][: shape[0]])
    images, radii = torch.rand(4, *shape), torch.tensor([0.0, 0.05, 0.3])
    found = square(
        model,
        pixel_space.to_inputs(images),
        epsilon=radii,
        norm=norm,
        queries=15,
        pixel_space=pixel_space,
        progress=False,
    )
    lengths = norm.length(found.perturbations.flatten(0, 1)).view(3, 4)
    assert bool((lengths <= radii[:, None] + 1e-6).all())
    assert bool((lengths[1:] > 0).any(1).all()) or found.initially_misclassified.all()
    assert found.pixels.min() >= 0 and found.pixels.max() <= 1


@pytest.mark.parametrize(("norm", "name", "epsilon"), [(LINF, "Linf", 0.2), (L2, "L2", 4.0)])
def test_it_fools_as_often_as_torchattacks(digits: Digits, norm: Norm, name: str, epsilon: float) -> None:
    images, labels, queries = digits.images[:30], digits.labels[:30], 50
    found = tried(digits, 30, epsilon=epsilon, norm=norm, queries=queries)
    with torch.random.fork_rng():
        theirs = torchattacks.Square(digits.model, norm=name, eps=epsilon, n_queries=queries - 1)
        theirs.set_normalization_used(list(digits.pixel_space.mean), list(digits.pixel_space.std))
        expected = theirs(images.clone(), labels)
    with torch.no_grad():
        rate = (digits.model(expected).argmax(1) != labels).float().mean()
    assert 0.1 < rate < 0.95
    assert found.fooled.float().mean() >= rate - 0.15  # the noise of 30 samples: 0.09


def test_the_first_query_has_stripes_and_the_next_a_square(digits: Digits) -> None:
    images = torch.full((12, 1, 28, 28), 0.5)

    def model(_: nn.Module, shown: Tensor) -> Tensor:  # anything new is better, never enough
        model.seen.append(shown.clone())
        worth = torch.full((len(shown),), float(len(model.seen)))
        return torch.stack([torch.full_like(worth, 1e3), worth], 1)

    model.seen = []
    square(digits.model, images, epsilon=0.1, queries=3, share=0.25, progress=False, forward=model)
    stripes = model.seen[1] - images
    assert torch.allclose(stripes.abs(), torch.tensor(0.1), atol=1e-6)
    assert torch.equal(stripes, stripes[:, :, :1].expand_as(stripes)) and not torch.equal(stripes[0], stripes[1])
    kept = (model.seen[2] - images).sub(stripes).abs() < 1e-6
    side = round((0.25 / 2**6 * 28 * 28) ** 0.5)  # a third of the queries is spent: halved six times
    changed = [one.nonzero() for one in ~kept[:, 0] if one.any()]  # a square may be as the stripes under it
    assert len(changed) > 6
    assert all(int((one.amax(0) - one.amin(0)).max()) < side for one in changed)


def test_squares_halve_as_in_the_paper() -> None:
    at = {0: 0.8, 10: 0.8, 11: 0.4, 51: 0.2, 201: 0.1, 501: 0.05, 1001: 0.025, 4001: 0.8 / 128, 8001: 0.8 / 512}
    assert {step: pytest.approx(_halved(0.8, step / 10_000)) for step in at} == at


def test_a_bump_is_the_paper_s_sum(digits: Digits) -> None:
    side = 7
    expected = np.zeros((side, side))
    for height, sign, top in ((3, 1, 0), (4, -1, 3)):
        middle, reach = (height // 2, side // 2), max(height, side) // 2
        for row in range(height):
            for column in range(side):
                away = max(abs(row - middle[0]), abs(column - middle[1]))
                expected[top + row, column] = sign * sum(1 / (k + 1) ** 2 for k in range(away, reach + 1))
    expected /= np.linalg.norm(expected)
    assert np.allclose(_bump(side, torch.zeros(())).numpy(), expected, atol=1e-6)


def test_one_window_takes_over_what_another_gives_up() -> None:
    torch.manual_seed(0)
    before = L2.normalize(torch.randn(1, 2, 12, 12))

    def chance(count: int) -> Tensor:  # windows at rows and columns 0 and 9, of 3 x 3
        return torch.tensor([[0.0, 0.0, 0.95, 0.95, 0.3, 0.3, 0.7]])[:, :count]

    after = _move_bump(before, torch.tensor([1.0]), 0.01, chance)
    first, second = slice(0, 3), slice(9, 12)
    held = sum(before[:, :, one, one].square().sum((2, 3)) for one in (first, second))
    outside = before.clone()
    for one in (first, second):
        outside[:, :, one, one] = 0
    assert torch.allclose(after[:, :, first, first].square().sum((2, 3)), held, atol=1e-5)  # channel by channel
    assert not bool(after[:, :, second, second].any())
    after[:, :, first, first] = 0
    assert torch.allclose(after, outside, atol=1e-5)


def test_a_square_reaches_every_pixel() -> None:
    """Also the last row and column, which others leave out."""
    touched = torch.zeros(1, 6, 6, dtype=torch.bool)

    def model(_: nn.Module, shown: Tensor) -> Tensor:
        model.calls += 1
        if model.calls > 2:
            touched.logical_or_(((shown - model.stripes).abs() > 1e-4).any(0))
        elif model.calls == 2:
            model.stripes = shown.clone()
        worth = shown.new_full((len(shown),), 1.0 if model.calls == 2 else 0.0)  # the stripes stay
        return torch.stack([torch.full_like(worth, 2.0), worth], 1)

    model.calls = 0
    images = torch.full((8, 1, 6, 6), 0.5)
    square(nn.Linear(1, 1).eval(), images, epsilon=0.1, queries=60, progress=False, forward=model)
    assert bool(touched.all())


@pytest.mark.parametrize("norm", [LINF, L2], ids=lambda norm: norm.name)
def test_what_is_kept_never_gets_worse_and_the_record_is_the_model_s(digits: Digits, norm: Norm) -> None:
    epsilon = 0.05 if norm is LINF else 1.0
    found = tried(
        digits,
        12,
        norm=norm,
        epsilon=epsilon,
        loss=lambda scores, classes: -scores.log_softmax(1)[range(len(classes)), classes],
    )
    still = (found.first_success_step < 0).nonzero().flatten()
    losses = found.record.losses[1:, still]
    assert len(still) > 3
    assert bool((losses[1:] >= losses[:-1] - 1e-6).all()) and bool((losses[-1] > losses[0]).any())
    with torch.no_grad():
        assert torch.equal(found.record.classes[-1], digits.model(found.inputs).argmax(1))


def test_every_image_that_the_model_sees_is_counted(digits: Digits) -> None:
    seen: list[int] = []
    handle = digits.model.register_forward_hook(lambda module, inputs, outputs: seen.append(len(inputs[0])))
    found = tried(digits, 20, epsilon=[0.05, 0.2])
    handle.remove()
    assert sum(seen) == found.queries.sum() - 20  # two epsilons share the first look
    assert bool((found.queries == torch.where(found.fooled, found.first_success_step, 20) + 1).all())
    assert seen[1] > seen[-1]  # samples that are done leave
    assert not bool(found.backwards.any())


def test_a_larger_epsilon_fools_more(digits: Digits) -> None:
    assert bool((tried(digits, 20, epsilon=[0.02, 0.5]).success.diff() > 0.3).all())


def test_a_seed_repeats_and_a_sample_does_not_mind_its_company(digits: Digits) -> None:
    alone, together = tried(digits, 3), tried(digits, 8)
    assert torch.allclose(alone.pixels, together.pixels[:3], atol=1e-6)
    assert torch.equal(tried(digits, 8).pixels, together.pixels)
    assert not torch.allclose(tried(digits, 3, seed=1).pixels, alone.pixels, atol=1e-3)
    several = tried(digits, 3, epsilon=[0.01, 0.1])
    assert torch.allclose(several.pixels[1], alone.pixels, atol=1e-6)


def test_a_target_is_reached(digits: Digits) -> None:
    target = (digits.labels[:10] + 1) % 10
    found = tried(digits, 10, epsilon=0.5, queries=100, target=target)
    assert found.success > 0.3
    assert torch.equal(found.fooled, found.record.classes[-1] == target)


def test_the_model_and_all_chance_are_left_as_found(digits: Digits) -> None:
    before = {name: one.clone() for name, one in digits.model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    tried(digits, 2)
    assert all(torch.equal(one, before[name]) for name, one in digits.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0]) and np.array_equal(np.random.get_state()[1], states[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 1.5}, "epsilon=1.5 must lie in 0 to 1"),
        ({"epsilon": -0.1}, "epsilon=-0.1"),
        ({"queries": 0}, "queries=0"),
        ({"share": 0.0}, "share=0.0"),
        ({"share": 1.5}, "share=1.5"),
        ({"target": 3}, "the target is the label of samples"),
    ],
)
def test_what_makes_no_sense_is_said(digits: Digits, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tried(digits, **options)


def test_vectors_have_no_squares() -> None:
    with pytest.raises(ValueError, match=r"\[3, 4\], but square needs images"):
        square(nn.Linear(4, 2).eval(), torch.rand(3, 4))
