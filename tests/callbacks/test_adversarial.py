"""The view of attacks: it shows and plots what the attack finds, magnified alike at each look."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_viz import Adversarial, PixelSpace, Probe
from lightning_viz.adversarial import L2, LINF, deepfool, fab, fgsm, fgsm_terms, gradient_ascent, pgd
from lightning_viz.adversarial.norms import NORMS

from .conftest import ConvNet, Net, Perceptron, fit, images, loader, said

X, Y = images(6, channels=3)
SPACE = PixelSpace((0.5,), (0.25,))
NORMAL = SPACE.to_inputs(X)
WATCHED = Probe(inputs=NORMAL, labels=Y, samples=6)
OPTIONS = {"probe": WATCHED, "pixel_space": SPACE, "attack_steps": 5}


class Frozen(ConvNet):
    """A network that learns nothing, so that every look is at the same one."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def train_with(view, tmp_path, model=None):
    model = model or Frozen(channels=3)
    fit(tmp_path, model, [view], loader(NORMAL, Y, batch_size=3))
    return model.eval()


ATTACKS = {
    "deepfool": lambda model, x: deepfool(model, x, steps=5, pixel_space=SPACE),
    "pgd": lambda model, x: pgd(model, x, epsilon=0.2, steps=5, norm=LINF, pixel_space=SPACE),
    "fgsm": lambda model, x: fgsm(model, x, epsilon=0.2, pixel_space=SPACE),
    "fab": lambda model, x: fab(model, x, norm=L2, steps=5, pixel_space=SPACE),
    "gradient_ascent": lambda model, x: gradient_ascent(model, x, steps=5, normalize=L2, pixel_space=SPACE),
}


@pytest.mark.filterwarnings("ignore::lightning_viz.errors.AttackWarning")
@pytest.mark.parametrize("method", ATTACKS)
def test_the_page_and_the_curves_are_what_the_attack_finds(method, drawn_at_once, tmp_path):
    norm = "linf" if method == "pgd" else "l2"
    model = train_with(Adversarial(method=method, norm=norm, epsilon=0.2, **OPTIONS), tmp_path)
    found, tag = ATTACKS[method](model, NORMAL), f"adversarial/{method}"
    arguments = drawn_at_once.arguments(tag)
    assert list(arguments) == [0, 2]
    assert np.allclose(arguments[0]["differences"], found.perturbations, atol=1e-6)
    assert [one.prediction for one in arguments[0]["after"]] == [str(int(one)) for one in found.record.classes[-1]]
    scalars = next(one.drawn.scalars for one in drawn_at_once if one.step == 0)
    assert scalars[f"{tag}/fooled"] == pytest.approx(float(found.fooled.float().mean()))
    assert found.fooled.any()
    lengths = found.record.linf if method in ("pgd", "fgsm") else found.record.l2
    assert scalars[f"{tag}/length"] == pytest.approx(float(lengths[-1][found.fooled].median()), rel=1e-4)
    assert scalars[f"{tag}/relative"] == pytest.approx(
        float(found.record.relative[-1][found.fooled].median()), rel=1e-4
    )


def test_fgsm_is_drawn_as_a_sum_too(drawn_at_once, tmp_path):
    model = train_with(Adversarial(method="fgsm", epsilon=0.2, **OPTIONS), tmp_path)
    terms, shown = (
        fgsm_terms(model, NORMAL, epsilon=0.2, pixel_space=SPACE),
        drawn_at_once.arguments("adversarial/fgsm/sum")[0],
    )
    assert [one.prediction for one in shown["alone"]] == [str(int(one)) for one in terms.classes]
    assert [one.confidence for one in shown["alone"]] == pytest.approx(terms.confidences.tolist(), rel=1e-4)
    assert [one.prediction for one in shown["after"]] == [str(int(x)) for x in terms.result.record.classes[-1]]
    assert np.array_equal(shown["signs"][..., 0] > 127, terms.signs[:, 0] > 0)
    assert shown["epsilon"] == "51/255"


def test_differences_are_magnified_alike_while_they_fit(drawn_at_once, tmp_path):
    view = Adversarial(method="fgsm", epsilon=0.01, **OPTIONS)
    train_with(view, tmp_path, ConvNet(channels=3))
    factors = [one["magnify"] for one in drawn_at_once.arguments("adversarial/fgsm").values()]
    assert factors[0] == factors[1] == pytest.approx(50, rel=0.01)
    assert view.state["scale"]["limits"] == pytest.approx((-0.01, 0.01), rel=0.01)


@pytest.mark.parametrize(
    ("method", "given", "norm"),
    [
        *(("deepfool", None, "l2"), ("deepfool", "linf", "linf"), ("pgd", None, "linf"), ("pgd", "l2", "l2")),
        *(("fab", None, "linf"), ("fab", "l2", "l2")),
    ],
)
def test_each_method_has_its_own_norm_unless_another_is_given(method, given, norm, drawn_at_once, tmp_path):
    view = Adversarial(method=method, norm=given, epsilon=0.2, **OPTIONS)
    model, tag = train_with(view, tmp_path), f"adversarial/{method}"
    expected = {
        "deepfool": lambda: deepfool(model, NORMAL, steps=5, norm=norm, pixel_space=SPACE),
        "pgd": lambda: pgd(model, NORMAL, epsilon=0.2, steps=5, norm=norm, pixel_space=SPACE),
        "fab": lambda: fab(model, NORMAL, steps=5, norm=norm, pixel_space=SPACE),
    }[method]()
    arguments = drawn_at_once.arguments(tag)[0]
    assert np.allclose(arguments["differences"], expected.perturbations, atol=1e-6)
    assert arguments["attack"].endswith(f", {NORMS[norm].name}")


class Bright(Net):
    """Says class 0 of an image whose pixels' largest is within [0, 1], class 1 of one beyond."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(1.005))

    def forward(self, x):
        beyond = 100 * (SPACE.into(x, PixelSpace()).amax((1, 2, 3)) - self.offset)
        return torch.stack([-beyond, beyond], 1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.filterwarnings("ignore::lightning_viz.errors.AttackWarning")
def test_the_verdicts_before_are_of_the_samples_that_were_attacked(drawn_at_once, tmp_path):
    inputs = SPACE.to_inputs(1.01 * X / X.flatten(1).amax(1).view(-1, 1, 1, 1))
    view = Adversarial(probe=Probe(inputs=inputs, labels=Y % 2, samples=6), pixel_space=SPACE, method="fgsm")
    fit(tmp_path, Bright(), [view], loader(inputs, Y % 2, batch_size=3))
    before = drawn_at_once.arguments("adversarial/fgsm")[0]["before"]
    assert [one.prediction for one in before] == ["0"] * 6
    assert [one.truth for one in before] == [str(int(label) % 2) for label in Y]


def test_samples_that_are_no_pixels_of_the_space_are_said(drawn_at_once, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_with(Adversarial(probe=WATCHED, pixel_space=PixelSpace()), tmp_path)
    assert "but they should lie in (0.0, 1.0); give pixel_space=PixelSpace(mean, std)" in " ".join(said(caught))
    assert not drawn_at_once


def test_a_pixel_range_that_is_given_is_not_said_to_be_guessed(drawn_at_once, tmp_path):
    for pixels, guessed in ((SPACE, False), (None, True)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train_with(Adversarial(probe=WATCHED, pixel_space=pixels, method="fgsm"), tmp_path)
        assert ("pixel range guessed" in " ".join(said(caught))) == guessed


@pytest.mark.parametrize(
    "wrong",
    [{"method": "magic"}, {"norm": "L1"}, {"attack_steps": 0}, {"epsilon": 0.0}],
    ids=lambda one: next(iter(one)),
)
def test_arguments_that_make_no_sense_are_an_error(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Adversarial(**wrong)


class Regression(Net):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 64, 1)

    def forward(self, x):
        return self.fc(x.flatten(1))[:, 0]

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self(batch[0]), batch[1].float())

    def validation_step(self, batch, batch_idx):
        pass


def test_a_model_without_classes_is_said_and_training_goes_on(drawn_at_once, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_with(Adversarial(**OPTIONS), tmp_path, Regression())
    assert "not of classes as far as is known" in " ".join(said(caught))
    assert not drawn_at_once


def test_vectors_are_shown_as_strips(drawn_at_once, tmp_path):
    points = torch.rand(6, 2)
    fit(tmp_path, Perceptron(), [Adversarial(attack_steps=5)], loader(points, torch.arange(6) % 2, batch_size=3))
    assert drawn_at_once.arguments("adversarial/deepfool")[0]["images"].shape == (6, 1, 2, 3)


@pytest.mark.parametrize("method", ["auto_attack", "carlini_wagner", "one_pixel", "square"])
def test_an_attack_of_too_many_passes_is_refused_with_its_command(method):
    with pytest.raises(ValueError, match=f"thousands of passes of a sample: run lightning-viz attack {method}, "):
        Adversarial(method=method)
