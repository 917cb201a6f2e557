"""Corruption errors are the paper's ratios, whatever the batches, and leave models and generators as they were."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz.errors import CorruptionWarning
from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness import CorruptionError, compare_corruption_error, corrupt, corruption_error

KINDS, SEVERITIES = ("gaussian_noise", "brightness", "contrast"), (1, 3, 5)
OPTIONS = {"kinds": KINDS, "severities": SEVERITIES, "progress": False}


class Threshold(nn.Module):
    """Whether an image is bright: a classifier whose mistakes a user can foresee."""

    def __init__(self, at=0.5):
        super().__init__()
        self.at = nn.Parameter(torch.tensor(at))

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([self.at - mean, mean - self.at], 1)


class Guessing(Threshold):
    def forward(self, images):
        return super().forward(images) + 0.1 * torch.randn(len(images), 2)


def data(count=40, seed=0):
    rng = torch.Generator().manual_seed(seed)
    levels = torch.rand(count, 1, 1, 1, generator=rng)
    images = (levels + 0.1 * torch.randn(count, 1, 8, 8, generator=rng)).clamp(0, 1)
    return images, (levels.flatten() > 0.45).long()


IMAGES, LABELS = data()
PLAIN, OTHER = Threshold().eval(), Threshold(0.7).eval()


def share_of_mistakes(model, images):
    with torch.no_grad():
        return (model(images).argmax(1) != LABELS).double().mean().item()


def test_errors_and_ratios_are_those_of_the_formula():
    found = corruption_error(OTHER, (IMAGES, LABELS), reference=PLAIN, **OPTIONS)
    errors = [
        np.array([[share_of_mistakes(model, corrupt(IMAGES, kind, one)) for one in SEVERITIES] for kind in KINDS])
        for model in (OTHER, PLAIN)
    ]
    clean = [share_of_mistakes(model, IMAGES) for model in (OTHER, PLAIN)]
    assert found.errors.numpy() == pytest.approx(errors[0]) and found.reference_errors.numpy() == pytest.approx(
        errors[1]
    )
    assert (found.clean, found.reference_clean, found.count) == (*clean, 40)
    ce = errors[0].sum(1) / errors[1].sum(1)
    assert found.ce.numpy() == pytest.approx(ce) and found.mce == pytest.approx(ce.mean())
    added = [(error - one).sum(1) for error, one in zip(errors, clean, strict=True)]
    defined = added[1] > 0
    assert found.relative_ce.numpy()[defined] == pytest.approx(added[0][defined] / added[1][defined])
    assert found.relative_mce == pytest.approx((added[0][defined] / added[1][defined]).mean())


@pytest.mark.parametrize("kind", [Threshold, Guessing])
def test_the_reference_against_itself_is_exactly_one(kind):
    model = kind().eval()
    for found in (
        corruption_error(model, (IMAGES, LABELS), reference=model, **OPTIONS),
        *compare_corruption_error({"a": model, "b": model}, (IMAGES, LABELS), reference="a", **OPTIONS).values(),
    ):
        assert found.ce.tolist() == [1.0] * 3 and found.mce == 1.0
        assert found.relative_mce == 1.0


def test_a_model_that_draws_gives_the_same_errors_whatever_was_drawn_before():
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(corruption_error(Guessing().eval(), (IMAGES, LABELS), reference=PLAIN, **OPTIONS).errors)
    assert torch.equal(*found)


def test_wrong_labels_are_said_at_the_first_batch():
    calls = []

    def counted(model, images):
        calls.append(len(images))
        return model(images)

    labels = torch.cat([LABELS[:-1], torch.tensor([7])])
    with pytest.raises(ValueError, match="label 7 is out of range"):
        corruption_error(OTHER, (IMAGES, labels), reference=PLAIN, batch_size=5, forward=counted, **OPTIONS)
    assert calls == [5]


def test_batches_change_nothing():
    whole = corruption_error(OTHER, (IMAGES, LABELS), reference=PLAIN, **OPTIONS)
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=7)
    for given, size in (((IMAGES, LABELS), 3), (loader, 64), (loader, 2), ([[IMAGES, LABELS, None]], 64)):
        found = corruption_error(OTHER, given, reference=PLAIN, batch_size=size, **OPTIONS)
        assert torch.equal(found.errors, whole.errors) and found.clean == whole.clean
        assert torch.equal(found.reference_errors, whole.reference_errors)
    other = corruption_error(OTHER, (IMAGES, LABELS), reference=PLAIN, seed=1, **OPTIONS)
    assert not torch.equal(other.errors[0], whole.errors[0])


def test_several_models_see_the_same_images_and_a_measured_one_is_a_reference():
    shown = []

    def seen(model, images):
        shown.append(images.clone())
        return model(images)

    both = compare_corruption_error(
        {"plain": PLAIN, "other": OTHER}, (IMAGES, LABELS), reference="plain", forward=seen, **OPTIONS
    )
    assert len(shown) == 2 * (1 + 9) and all(torch.equal(*shown[at : at + 2]) for at in range(0, 20, 2))
    assert both["plain"].mce == 1 and both["other"].reference_name == "plain"
    later = corruption_error(OTHER, (IMAGES, LABELS), reference=both["plain"], **OPTIONS)
    assert torch.equal(later.ce, both["other"].ce) and later.reference_name == "plain"


def test_models_and_generators_are_left_as_they_were():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(72, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state(), np.random.get_state()[1].copy()
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=16, shuffle=True)
    with pytest.warns(CorruptionWarning, match="model is in train mode"):
        corruption_error(model, loader, reference=Guessing().eval(), **OPTIONS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(random[0], torch.get_rng_state()) and (random[1] == np.random.get_state()[1]).all()


def test_normalized_images_are_corrupted_in_pixels():
    pixel_space = PixelSpace((0.5,), (0.25,))
    found = corruption_error(
        Threshold(0.8).eval(),
        (pixel_space.to_inputs(IMAGES), LABELS),
        reference=Threshold(0.0).eval(),
        pixel_space=pixel_space,
        **OPTIONS,
    )
    in_pixels = corruption_error(OTHER, (IMAGES, LABELS), reference=PLAIN, **OPTIONS)
    assert found.errors.numpy() == pytest.approx(in_pixels.errors.numpy(), abs=0.03)


def test_what_the_reference_never_mistakes_is_undefined_and_named():
    right = (IMAGES.mean((1, 2, 3)) > 0.5).long()
    with pytest.warns(
        CorruptionWarning, match="CE is undefined for contrast, where reference makes no mistake"
    ) as told:
        found = corruption_error(OTHER, (IMAGES, right), reference=Unshaken(IMAGES), **OPTIONS)
    assert len(told) == 1
    assert found.ce.isnan().tolist() == [False, False, True]
    assert found.mce == pytest.approx(found.ce[:2].mean().item())


class Unshaken(Threshold):
    """Knows the right answer of pale images, by their deviation, and of the others nothing."""

    def __init__(self, images):
        super().__init__()
        self.means = images.mean((1, 2, 3))
        self.eval()

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        known = (mean - self.means[: len(mean)]).abs() < 1e-4  # contrast keeps the mean
        scores = super().forward(images)
        return torch.where(known[:, None], scores, -scores)


def test_nan_is_a_mistake():
    broken = Threshold(float("nan")).eval()
    found = corruption_error(broken, (IMAGES, LABELS), reference=PLAIN, **OPTIONS)
    assert found.clean == 1 and (found.errors == 1).all()


def test_what_cannot_be_measured_is_said():
    pair = (IMAGES, LABELS)
    for given, words in (
        ((IMAGES, LABELS[:-1]), "one class each"),
        ((IMAGES, LABELS.float()), "integers"),
        ((IMAGES, LABELS + 1), "label 2 is out of range: .* has classes 0 to 1"),
        ((IMAGES, LABELS - 1), "label -1 is negative"),
        ((IMAGES + 1, LABELS), "give pixel_space="),
        ((IMAGES[:0], LABELS[:0]), "no images"),
        ([], "no images"),
        (iter(()), "no images"),
    ):
        with pytest.raises(ValueError, match=words):
            corruption_error(OTHER, given, reference=PLAIN, **OPTIONS)
    with pytest.raises(TypeError, match="pass pairs of images and labels"):
        corruption_error(OTHER, [IMAGES], reference=PLAIN, **OPTIONS)
    measured = corruption_error(OTHER, pair, reference=PLAIN, **OPTIONS)
    for wrong, words in (
        ({"reference": "plan"}, "no model is called 'plan'"),
        ({"reference": replace(measured, severities=(1, 2, 3))}, "the same"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"kinds": ["fogg"]}, "did you mean fog"),
    ):
        with pytest.raises(ValueError, match=words):
            compare_corruption_error({"plain": PLAIN}, pair, **{**OPTIONS, "reference": "plain", **wrong})
    with pytest.raises(ValueError, match="models is empty"):
        compare_corruption_error({}, pair, reference="plain", **OPTIONS)
    with pytest.raises(ValueError, match="both called 'a'"):
        corruption_error(OTHER, pair, reference=PLAIN, name="a", reference_name="a", **OPTIONS)
    one_logit = nn.Sequential(nn.Flatten(), nn.Linear(64, 1)).eval()
    assert corruption_error(one_logit, pair, reference=PLAIN, **OPTIONS).clean < 1  # of two classes, by its sign
    too_large = nn.Sequential(nn.Flatten(), nn.Linear(65, 2)).eval()
    with pytest.raises(ValueError, match="cannot take images of 1 x 8 x 8"):
        corruption_error(too_large, pair, reference=PLAIN, **OPTIONS)


def test_the_means_are_over_the_defined_kinds():
    errors = torch.tensor([[0.2, 0.4], [0.1, 0.1], [0.0, 0.3]], dtype=torch.float64)
    against = torch.tensor([[0.4, 0.8], [0.0, 0.0], [0.1, 0.1]], dtype=torch.float64)
    found = CorruptionError("a", KINDS, (1, 2), 10, 0.1, errors, "b", 0.1, against)
    assert found.ce.nan_to_num(-1).tolist() == pytest.approx([0.5, -1, 1.5]) and found.mce == pytest.approx(1)
    assert found.relative_ce.nan_to_num(-1).tolist() == pytest.approx([0.4, -1, -1])
    assert found.relative_mce == pytest.approx(0.4)
