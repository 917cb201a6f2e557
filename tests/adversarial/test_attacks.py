"""What every attack must do, one row each: say bad input, leave the model as found, count NaN as no success."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lightning_viz.adversarial import (
    L2,
    apgd,
    auto_attack,
    carlini_wagner,
    deepfool,
    fab,
    fgsm,
    gradient_ascent,
    minimum_epsilon,
    one_pixel,
    pgd,
    square,
    transfer,
)
from lightning_viz.errors import AttackWarning
from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness import epsilon_curve, random_directions

ATTACKS = {
    "gradient_ascent": partial(gradient_ascent, normalize=L2, progress=False),
    "fgsm": partial(fgsm, epsilon=0.3),
    "pgd": partial(pgd, epsilon=0.3, progress=False),
    "pgd_l2": partial(pgd, epsilon=2.0, norm=L2, progress=False),
    "apgd": partial(apgd, epsilon=0.3, steps=20, progress=False),
    "deepfool": partial(deepfool, progress=False),
    "carlini_wagner": partial(carlini_wagner, binary_search_steps=5, steps=100, initial_const=1.0, progress=False),
    "minimum_epsilon": partial(minimum_epsilon, attack=partial(pgd, progress=False), progress=False),
    "one_pixel": partial(one_pixel, pixels=20, generations=5, progress=False),
    "square": partial(square, epsilon=0.3, queries=100, progress=False),
    "fab": partial(fab, steps=10, progress=False),
    "auto_attack": partial(auto_attack, epsilon=0.3, steps=10, queries=30, progress=False),
}
TARGETED = [name for name in ATTACKS if name not in ("deepfool", "minimum_epsilon", "auto_attack")]
pytestmark = pytest.mark.filterwarnings("ignore:auto_attack leaves out APGD-DLR")


def net(classes: int = 3) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes)).eval()


IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = net()(IMAGES).argmax(1)


@pytest.mark.parametrize("name", ATTACKS)
def test_bad_input_is_said(name: str) -> None:
    attack, model = ATTACKS[name], net()
    with pytest.raises(ValueError, match=r"labels \[3\] of samples \[.*out of range: the model has 3 classes"):
        attack(model, IMAGES, torch.full((6,), 3))
    with pytest.raises(ValueError, match=r"pixels from .* should lie in \(0.0, 1.0\)"):
        attack(model, 3 * IMAGES, LABELS)
    with pytest.raises(ValueError, match="two classes or more"):
        attack(nn.Sequential(net(), nn.Unflatten(1, (3, 1))).eval(), IMAGES)
    with pytest.raises(TypeError, match="the inputs are ndarray"):
        attack(model, IMAGES.numpy(), LABELS)
    with pytest.raises(ValueError, match="NaN or infinity for the unmodified samples"):
        attack(
            model, IMAGES, forward=lambda model, x: model(x) * torch.nan
        ) if name != "minimum_epsilon" else minimum_epsilon(nn.Sequential(model, Nan()).eval(), IMAGES, attack=pgd)


class Nan(nn.Module):
    def forward(self, scores: Tensor) -> Tensor:
        return scores * torch.nan


@pytest.mark.parametrize("name", TARGETED)
def test_a_target_that_is_the_label_is_said(name: str) -> None:
    with pytest.raises(ValueError, match=r"the target is the label of samples \["):
        ATTACKS[name](net(), IMAGES, LABELS, target=int(LABELS[0]))


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_model_in_train_mode_is_said_at_the_user_s_line_and_once(name: str, part: bool) -> None:
    model = net()
    (model[1] if part else model).train()
    before = [module.training for module in model.modules()]
    with pytest.warns(
        AttackWarning, match=f"{'a part of the model' if part else 'the model'} is in train mode"
    ) as seen:
        ATTACKS[name](model, IMAGES, LABELS)
    assert [one.filename for one in seen if "train mode" in str(one.message)] == [__file__]
    assert [module.training for module in model.modules()] == before


class Fragile(nn.Module):
    """Answers with NaN whatever is not one of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> Tensor:
        known = (x.detach()[:, None] == IMAGES).flatten(2).all(2).any(1)
        return torch.where(known[:, None], self.net(x), torch.nan)


@pytest.mark.filterwarnings("ignore:.*left unchanged", "ignore:.*reached a flat loss", "ignore:within epsilon")
@pytest.mark.parametrize("name", ATTACKS)
def test_nan_is_no_success(name: str) -> None:
    said = pytest.warns(AttackWarning, match="NaN or infinity for perturbed|does not fool the model")
    if name in ("carlini_wagner", "one_pixel", "square", "fab"):  # they keep what fooled the model, which nothing did
        said = pytest.warns(AttackWarning)
    with said:
        found = ATTACKS[name](Fragile().eval(), IMAGES, LABELS)
    assert not found.fooled.any()
    assert bool(found.pixels.isfinite().all())


@pytest.mark.filterwarnings("ignore:.*left unchanged", "ignore:.*reached a flat loss", "ignore:.*NaN")
def test_infinite_gradients_lead_nowhere() -> None:
    rooted = nn.Sequential(Root(), net()).eval()
    black = torch.zeros(3, 1, 8, 8)
    for name in ("gradient_ascent", "pgd_l2", "deepfool"):
        assert bool(ATTACKS[name](rooted, black).pixels.isfinite().all())


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


@pytest.mark.filterwarnings("ignore:within epsilon")
@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "minimum_epsilon"])
def test_what_becomes_of_a_sample_does_not_depend_on_the_others(name: str) -> None:
    wrong = LABELS.clone()
    wrong[0] = (wrong[0] + 1) % 3  # done from the start
    whole, others = (ATTACKS[name](net(), IMAGES, labels).pixels for labels in (LABELS, wrong))
    torch.testing.assert_close(whole[1:], others[1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "square", "auto_attack"])
def test_what_becomes_of_it_does_not_depend_on_other_epsilons(name: str) -> None:
    attack = ATTACKS[name]
    both, alone = attack(net(), IMAGES, LABELS, epsilon=[0.5, 0.2]), attack(net(), IMAGES, LABELS, epsilon=0.2)
    torch.testing.assert_close(both.pixels[1], alone.pixels, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:within epsilon")
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_what_comes_back_is_what_the_model_takes(name: str, kind: torch.dtype) -> None:
    model, images = net().to(kind), IMAGES.to(kind)
    found = ATTACKS[name](model, images)
    assert found.inputs.dtype is kind
    assert torch.equal(model(found.inputs).argmax(1), found.record.classes[-1])


@pytest.mark.parametrize("name", [name for name in ATTACKS if "pgd" in name or name in ("fgsm", "gradient_ascent")])
def test_gradients_are_counted_that_were_taken(name: str) -> None:
    found = ATTACKS[name](net(), IMAGES, (LABELS + 1) % 3)
    assert not found.backwards.any()  # all wrong from the start
    found = ATTACKS[name](net(), IMAGES, LABELS)
    done = found.fooled
    assert bool(done.any())
    first = 2 if "pgd" in name else 1  # a random start is looked at as well
    assert torch.equal(found.backwards[done], found.queries[done] - first)


def test_an_ascent_that_is_bounded_begins_within_the_bounds() -> None:
    with pytest.raises(ValueError, match="pixels from"):
        gradient_ascent(net(), IMAGES, LABELS, start=5 * IMAGES, bounded=True)
    far = gradient_ascent(net(), IMAGES, LABELS, start=5 * IMAGES, normalize=L2, steps=1, stop_on_success=False)
    assert far.pixels.amax() > 3


def test_the_images_range_does_not_matter() -> None:
    wide = PixelSpace(bounds=(0.0, 255.0))
    scaled = nn.Sequential(Scale(), net()).eval()
    attack = partial(carlini_wagner, binary_search_steps=4, steps=50, initial_const=1.0, progress=False)
    small, large = attack(net(), IMAGES), attack(scaled, 255 * IMAGES, pixel_space=wide)
    assert torch.equal(small.fooled, large.fooled) and bool(small.fooled.any())
    torch.testing.assert_close(255 * small.record.l2[-1], large.record.l2[-1], rtol=1e-2, atol=0.1)


class Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 255


def test_a_confidence_that_is_not_reached_is_said() -> None:
    with pytest.warns(AttackWarning, match="carlini_wagner left unchanged samples"):
        carlini_wagner(
            net(), IMAGES, (LABELS + 1) % 3, confidence=500.0, binary_search_steps=2, steps=5, progress=False
        )


def test_any_attack_transfers() -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    attack = partial(minimum_epsilon, attack=partial(pgd, progress=False), progress=False)

    def without_space(model: nn.Module, inputs: Tensor, labels: Tensor, *, pixel_space: PixelSpace) -> object:
        return attack(model, inputs, labels)

    found = transfer(net(), IMAGES, LABELS, surrogate=other, attack=without_space)
    assert found.pixels.shape == IMAGES.shape


def test_points_where_the_model_is_nan_do_not_count_on_a_sphere() -> None:
    with pytest.warns(AttackWarning, match="for some points on the spheres"):
        around = random_directions(Fragile().eval(), IMAGES, 0.5, samples=10, progress=False)
    assert int(around.counts.sum()) == 0


def test_samples_that_no_epsilon_moves_are_named_as_the_caller_has_them() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores = net()(x)
            dark = x.flatten(1).mean(1) < 0.2
            return torch.where(dark[:, None], scores.detach() + 0 * x.flatten(1)[:, :3], scores)

    images = IMAGES.clone()
    images[[2, 4]] *= 0.1
    labels = Flat()(images).argmax(1)
    with pytest.warns(AttackWarning, match=r"left unchanged samples \[2, 4\]"):
        epsilon_curve(Flat().eval(), images, labels, [0.01, 0.05], attack=fgsm, progress=False)
    with pytest.raises(ValueError, match="5 labels for 6 samples"):
        epsilon_curve(Flat().eval(), images, labels[:5], [0.1], attack=fgsm)
