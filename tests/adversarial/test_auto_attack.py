"""AutoAttack leaves what the components of torchattacks leave, in no more passes, and says what it leaves out."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from lightning_viz.adversarial import apgd, auto_attack, square
from lightning_viz.errors import AttackWarning
from tests.adversarial.oracles import torchattacks
from tests.adversarial.watching import grays, linear, watched
from tests.dream.conftest import Digits

COMPONENTS = ["APGD-CE", "APGD-DLR", "FAB", "Square"]


class Pixels(nn.Module):
    """A model of pixels."""

    def __init__(self, digits: Digits) -> None:
        super().__init__()
        self.model, self.pixel_space = digits.model, digits.pixel_space

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(self.pixel_space.to_inputs(pixels))


@contextmanager
def counted(model: nn.Module) -> Iterator[Counter[str]]:
    """Images that a model is shown, and gradients that it is asked for."""
    passes: Counter[str] = Counter()

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        passes["forward"] += len(inputs[0])
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda gradient: passes.update({"backward": len(gradient)}))

    handle = model.register_forward_pre_hook(look)
    yield passes
    handle.remove()


def by_torchattacks(
    view: nn.Module, pixels: Tensor, labels: Tensor, *, epsilon: float, norm: str, steps: int, queries: int
) -> Tensor:
    """Samples that its components leave, each on what the ones before left, with the same number of steps."""
    how = {"norm": norm, "eps": epsilon, "steps": steps}
    attacks = [
        torchattacks.APGD(view, **how),
        torchattacks.APGDT(view, **how),
        torchattacks.FAB(view, multi_targeted=True, **how),
        torchattacks.Square(view, norm=norm, eps=epsilon, n_queries=queries),
    ]
    left = torch.arange(len(pixels))
    for attack in attacks:
        if len(left):
            found = attack(pixels[left], labels[left])
            left = left[view(found).argmax(1) == labels[left]]
    return left


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.08), ("l2", 0.8)])
def test_robust_accuracy_is_that_of_torchattacks_in_no_more_passes(digits: Digits, norm: str, epsilon: float) -> None:
    pixels, labels = digits.pixel_space.to_pixels(digits.images[:16]).clamp(0, 1), digits.labels[:16]
    view = Pixels(digits).eval()
    with counted(view) as ours:
        found = auto_attack(view, pixels, labels, epsilon=epsilon, norm=norm, steps=4, queries=10, progress=False)
    named = {"linf": "Linf", "l2": "L2"}[norm]
    with counted(view) as theirs:
        left = by_torchattacks(view, pixels, labels, epsilon=epsilon, norm=named, steps=4, queries=10)
    assert 1 < len(left) < 15
    assert abs(int((~found.fooled).sum()) - len(left)) <= 1
    assert 0 < ours["forward"] <= theirs["forward"] and 0 < ours["backward"] <= theirs["backward"]
    assert int(found.queries.sum()) == ours["forward"] and found.components == tuple(COMPONENTS)
    lengths = getattr(found.record, norm)[-1]
    assert bool((lengths <= epsilon * (1 + 1e-5)).all())


def test_its_components_are_those_attacks_each_on_what_is_left(digits: Digits) -> None:
    inputs, labels = digits.images[:24], digits.labels[:24]
    how = {"epsilon": 0.08, "pixel_space": digits.pixel_space, "progress": False}
    with watched(digits.model) as seen:
        found = auto_attack(digits.model, inputs, labels, steps=4, queries=8, batch_size=7, **how)
    assert sum(seen.sizes) == int(found.queries.sum()) and max(seen.sizes) == 7
    fallen = found.first_success_step
    alone = apgd(digits.model, inputs, labels, steps=4, **how)
    assert torch.equal(alone.fooled, (fallen == 0) | (fallen == 1))
    torch.testing.assert_close(alone.pixels[fallen == 1], found.pixels[fallen == 1], rtol=0, atol=1e-5)
    robust = fallen < 0
    last = square(digits.model, inputs[robust], labels[robust], queries=8, **how)
    assert not last.fooled.any() and bool((found.queries[robust] > found.queries[fallen == 1].max()).all())
    assert list(found.fooled_by) == COMPONENTS
    assert sum(map(int, found.fooled_by.values())) == int((fallen > 0).sum())
    assert len(found.record.classes) == 5
    with torch.no_grad():
        assert torch.equal(digits.model(found.inputs).argmax(1), found.record.classes[-1])


class Stairs(nn.Module):
    """A linear classifier of gray levels, whose gradient is zero wherever there is one."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = linear(classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.net((8 * images).round() / 8 + 0 * images)


@pytest.mark.filterwarnings("ignore:auto_attack reached a flat loss")
def test_what_hides_its_gradient_falls_to_square_alone() -> None:
    found = auto_attack(Stairs(4).eval(), grays(6), epsilon=0.3, steps=3, queries=60, progress=False)
    fallen = {name: int(count) for name, count in found.fooled_by.items()}
    assert fallen["FAB"] == 0
    assert fallen["Square"] > fallen["APGD-CE"] + fallen["APGD-DLR"]  # which begin at random points


@pytest.mark.parametrize(("classes", "left_out"), [(2, ["APGD-DLR"]), (3, ["APGD-DLR"]), (4, [])])
@pytest.mark.parametrize("images", [True, False], ids=["images", "vectors"])
def test_what_is_left_out_is_said_once(classes: int, left_out: list[str], images: bool) -> None:
    model, inputs = linear(classes), grays(5)
    model, inputs = (model, inputs) if images else (model[1], inputs.flatten(1))
    left_out = left_out + ["Square"] * (not images)
    options = {"epsilon": 0.05, "steps": 4, "queries": 5, "progress": False}
    if left_out:
        with pytest.warns(AttackWarning, match="auto_attack leaves out " + ".*; ".join(left_out)) as said:
            found = auto_attack(model, inputs, **options)
        assert len(said) == 1
    else:
        found = auto_attack(model, inputs, **options)
    assert list(found.left_out) == left_out
    assert list(found.components) == [name for name in COMPONENTS if name not in left_out]
    passes = 2 * (classes > 3)  # at most K - 1 targets: a forward for every start and step
    most = 1 + 5 + passes / 2 * (classes - 1) * 5 + (classes - 1) * 8 + 5 * images
    assert int(found.queries.max()) <= most
    assert bool(found.fooled.any())


def test_one_logit_is_two_classes() -> None:
    class OneLogit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = linear(2)

        def forward(self, images: Tensor) -> Tensor:
            scores = self.net(images)
            return scores[:, 1:] - scores[:, :1]

    with pytest.warns(AttackWarning, match="the model has 2"):
        one = auto_attack(OneLogit().eval(), grays(6), epsilon=0.05, steps=5, queries=5, progress=False)
    with pytest.warns(AttackWarning, match="the model has 2"):
        two = auto_attack(linear(2), grays(6), epsilon=0.05, steps=5, queries=5, progress=False)
    assert torch.equal(one.fooled, two.fooled) and bool(one.fooled.any())


@pytest.mark.parametrize("options", [{"steps": 0}, {"targets": 0}, {"queries": 0}, {"epsilon": 2.0}])
def test_an_option_that_makes_no_sense_is_said(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(options))}={next(iter(options.values()))}"):
        auto_attack(linear(4), grays(2), **options)
