"""What fooled one net is shown to another, which judges for itself; spaces may differ, pixels stay the same."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz.adversarial import AttackResult, deepfool, fgsm, one_pixel, pgd, square, transfer
from lightning_viz.errors import AttackWarning
from lightning_viz.pixels import PixelSpace
from tests.dream.conftest import Digits

PGD = partial(pgd, epsilon=0.15, stop_on_success=False, progress=False)


@pytest.fixture(scope="module")
def surrogate(digits: Digits) -> nn.Module:
    """Another net, trained from another seed on pixels as they are."""
    pixels = digits.pixel_space.to_pixels(digits.images)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 5, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 10),
        )
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(4):
            for batch in torch.randperm(len(pixels)).split(64):
                loss = F.cross_entropy(model(pixels[batch]), digits.labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return model.eval()


def moved(digits: Digits, surrogate: nn.Module, count: int = 40, **options: object) -> AttackResult:
    chosen = {"attack": PGD, "pixel_space": digits.pixel_space, "surrogate_pixel_space": PixelSpace(), **options}
    return transfer(digits.model, digits.images[:count], digits.labels[:count], surrogate=surrogate, **chosen)  # type: ignore[arg-type]


def test_the_pixels_are_the_attack_s_and_the_judgement_the_model_s(digits: Digits, surrogate: nn.Module) -> None:
    found = moved(digits, surrogate)
    pixels, labels = digits.pixel_space.to_pixels(digits.images[:40]), digits.labels[:40]
    theirs = PGD(surrogate, pixels, labels)
    with torch.no_grad():
        fooled = digits.model(digits.pixel_space.to_inputs(theirs.pixels)).argmax(1) != labels
    left = ~found.initially_misclassified
    assert torch.allclose(found.pixels[left], theirs.pixels[left], atol=1e-5)
    assert torch.equal(found.fooled[left], fooled[left])
    assert 0.1 < found.success < theirs.success  # some transfer, not all
    assert found.record.classes.shape == (2, 40)
    assert found.perturbations.abs().max() <= 0.15 + 1e-6 and found.epsilon == torch.tensor(0.15)


def test_what_fools_the_surrogate_fools_its_like(digits: Digits) -> None:
    found = moved(digits, digits.model, surrogate_pixel_space=None, attack=partial(PGD, stop_on_success=True))
    own = pgd(
        digits.model,
        digits.images[:40],
        digits.labels[:40],
        epsilon=0.15,
        pixel_space=digits.pixel_space,
        progress=False,
    )
    assert torch.equal(found.fooled, own.fooled) and found.success > 0.8


def test_going_on_past_the_boundary_transfers_more(digits: Digits, surrogate: nn.Module) -> None:
    with pytest.warns(AttackWarning, match="transfer left unchanged"):  # those that the surrogate has wrong
        short = moved(digits, surrogate, 100, attack=partial(PGD, stop_on_success=True))
    assert moved(digits, surrogate, 100).success > short.success


def test_every_look_at_the_model_is_counted_and_none_at_the_surrogate(digits: Digits, surrogate: nn.Module) -> None:
    seen: list[int] = []
    handle = digits.model.register_forward_hook(lambda module, inputs, outputs: seen.append(len(inputs[0])))
    labels = digits.labels[:5].clone()
    labels[2] = (labels[2] + 1) % 10  # which the model has wrong
    found = transfer(
        digits.model, digits.images[:5], labels, surrogate=surrogate, attack=PGD, pixel_space=digits.pixel_space,
        surrogate_pixel_space=PixelSpace(),
    )  # fmt: skip
    handle.remove()
    assert found.queries.tolist() == [2, 2, 1, 2, 2] and sum(seen) == 9
    assert torch.equal(found.pixels[2], found.original[2])
    assert not bool(found.backwards.any())


def test_several_epsilons_and_targets_pass_through(digits: Digits, surrogate: nn.Module) -> None:
    target = (digits.labels[:20] + 1) % 10
    found = moved(digits, surrogate, 20, attack=partial(PGD, epsilon=[0.02, 0.4]), target=target)
    assert found.pixels.shape == (2, 20, 1, 28, 28)
    assert bool((found.perturbations.abs().amax((1, 2, 3, 4)) <= torch.tensor([0.02, 0.4]) + 1e-6).all())
    assert torch.equal(found.fooled, found.record.classes[-1] == target)
    assert found.success[0] <= found.success[1]


@pytest.mark.parametrize(
    "attack",
    [
        partial(fgsm, epsilon=0.2),
        partial(square, epsilon=0.2, queries=5, progress=False),
        partial(one_pixel, pixels=5, generations=1, population=10, progress=False),
    ],
    ids=["fgsm", "square", "one_pixel"],
)
def test_any_attack_will_do(digits: Digits, surrogate: nn.Module, attack: partial[AttackResult]) -> None:
    found = moved(digits, surrogate, 4, attack=attack)
    assert bool((found.perturbations.flatten(1) != 0).any(1).all())


def test_both_models_are_left_as_found(digits: Digits, surrogate: nn.Module) -> None:
    def state() -> list[Tensor]:
        return [one.clone() for model in (digits.model, surrogate) for one in model.state_dict().values()]

    before, chance = state(), torch.get_rng_state()
    moved(digits, surrogate, 3)
    assert all(torch.equal(one, other) for one, other in zip(before, state(), strict=True))
    assert torch.equal(torch.get_rng_state(), chance)


def test_an_attack_that_moves_nothing_is_said(digits: Digits, surrogate: nn.Module) -> None:
    def idle(model: nn.Module, inputs: Tensor, labels: Tensor, **options: object) -> AttackResult:
        return pgd(model, inputs, (labels + 1) % 10, pixel_space=PixelSpace(), progress=False)  # wrong from the start

    with pytest.warns(AttackWarning, match=r"transfer left unchanged samples \[0, 1\]: the attack on the surrogate"):
        moved(digits, surrogate, 2, attack=idle)


def test_spaces_of_different_bounds_are_refused(digits: Digits, surrogate: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"lie in \(0.0, 1.0\), the surrogate's in \(0.0, 255.0\)"):
        moved(digits, surrogate, 2, surrogate_pixel_space=PixelSpace(bounds=(0.0, 255.0)))


def test_an_attack_that_takes_no_target_transfers_as_well(digits: Digits, surrogate: nn.Module) -> None:
    found = moved(digits, surrogate, 10, attack=partial(deepfool, overshoot=0.5, progress=False))
    assert 0 < found.fooled.sum() < 10
