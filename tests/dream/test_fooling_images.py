"""Fooling images: the model is as sure as it says, evolution only ever gains, and chance is that of the formulas."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lightning_viz.dream import FoolingImages, fool
from lightning_viz.dream.genomes import Direct, EvolvedCPPN, polynomial_mutation
from lightning_viz.errors import DreamWarning
from lightning_viz.pixels import PixelSpace

ENCODINGS = ("direct", "cppn")


def small_net(channels: int = 1, size: int = 8, classes: int = 4, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        convolution = nn.Conv2d(channels, 6, 3, padding=1)
        net = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(6 * size * size, classes))
    for weight in net.parameters():
        weight.data *= 2
    return net.eval()


@pytest.fixture(scope="module", params=ENCODINGS)
def fooling(request, digits) -> FoolingImages:
    return fool(
        digits.model,
        (1, 28, 28),
        encoding=request.param,
        generations=80,
        pixel_space=digits.pixel_space,
        progress=False,
    )


def test_every_digit_is_seen_with_certainty_where_there_is_none(digits, fooling):
    assert fooling.confidences.min() > 0.9999
    answers = digits.model(fooling.inputs).double().softmax(1)
    assert answers.argmax(1).tolist() == list(range(10))
    torch.testing.assert_close(answers.diagonal(), fooling.confidences, rtol=1e-6, atol=0)


def test_the_images_are_far_from_every_digit(digits, fooling):
    real = digits.pixel_space.to_pixels(digits.images).flatten(1)
    real = nn.functional.normalize(real - real.mean(1, keepdim=True), dim=1)
    seen = fooling.pixels.flatten(1)
    seen = nn.functional.normalize(seen - seen.mean(1, keepdim=True), dim=1)
    likeness = [
        (seen[label] @ real[digits.labels == label].T).mean() / (real[digits.labels == label].mean(0).norm() ** 2)
        for label in range(10)
    ]
    assert max(likeness) < 0.8  # 1 is a digit's likeness to those of its class


def test_the_first_generation_above_is_that_of_the_curve(fooling):
    for reached, curve in zip(fooling.reached, fooling.curve.T, strict=True):
        assert curve[reached] > 0.9999
        assert not (curve[:reached] > 0.9999).any()


def test_a_class_that_never_gets_there_says_so():
    found = fool(small_net(), (1, 8, 8), generations=0, population=2, progress=False)
    assert found.reached == tuple(0 if one > 0.9999 else None for one in found.confidences)
    assert None in found.reached


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_elite_never_gets_worse_and_is_the_best_of_all_that_was_seen(encoding):
    model, seen = small_net(), []

    def forward(model, images):
        seen.append(model(images).double().log_softmax(1).numpy())
        return model(images)

    found = fool(model, (1, 8, 8), encoding=encoding, generations=12, population=30, progress=False, forward=forward)
    assert len(seen) == 13 and found.evaluations == sum(map(len, seen)) == 390
    best = np.maximum.accumulate([one.max(0) for one in seen])
    np.testing.assert_allclose(found.curve.numpy(), np.exp(best), rtol=1e-12)
    assert (found.curve[-1] > found.curve[0]).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_same_seed_gives_the_same_images_and_another_seed_others(encoding):
    def run(seed):
        return fool(small_net(), (1, 8, 8), encoding=encoding, generations=5, seed=seed, progress=False).pixels

    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))


def test_smaller_batches_show_the_model_the_same_children():
    sizes = []

    def forward(model, images):
        sizes.append(len(images))
        return model(images)

    options = {"generations": 3, "population": 25, "progress": False}
    small = fool(small_net().double(), (1, 8, 8), batch_size=10, forward=forward, **options)
    assert sizes == [10, 10, 5] * 4
    torch.testing.assert_close(small.pixels, fool(small_net().double(), (1, 8, 8), **options).pixels)


def test_some_classes_alone_are_still_sure_against_all_of_them():
    model = small_net()
    found = fool(model, (1, 8, 8), classes=[3, 1], generations=40, progress=False)
    answers = model(found.inputs).double().softmax(1)
    assert found.classes == (3, 1) and len(found.pixels) == 2
    torch.testing.assert_close(answers[[0, 1], [3, 1]], found.confidences, rtol=1e-6, atol=0)
    assert answers.argmax(1).tolist() == [3, 1]


@pytest.mark.parametrize("pixel_space", [PixelSpace(), PixelSpace((0.3,), (0.2,)), PixelSpace(bounds=(-1, 1))])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 9)], ids=["gray", "color"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_shape_and_any_normalization_stays_within_the_pixels(encoding, shape, pixel_space):
    with torch.random.fork_rng():
        model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 4))
    found = fool(
        model.eval(), shape, encoding=encoding, generations=20, population=50, pixel_space=pixel_space, progress=False
    )
    assert found.pixels.shape == (4, *shape)
    assert found.pixels.min() >= 0 and found.pixels.max() <= 1
    low, high = pixel_space.bounds
    torch.testing.assert_close(pixel_space.to_pixels(found.inputs), low + (high - low) * found.pixels)
    assert (found.confidences > found.curve[0]).all()


def test_frames_end_with_the_images():
    found = fool(small_net(), (1, 8, 8), generations=20, frames=5, progress=False)
    assert len(found.frames) == len(found.frame_steps) == 5
    assert found.frame_steps[0] == 0 and found.frame_steps[-1] == 20
    assert torch.equal(found.frames[-1], (found.pixels * 255).round().to(torch.uint8))


def test_the_model_and_chance_are_left_as_found():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 36, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chance = torch.get_rng_state()
    with pytest.warns(DreamWarning, match="train mode"), torch.inference_mode():
        fool(model, (1, 8, 8), generations=2, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and all(one.requires_grad and one.grad is None for one in model.parameters())
    assert torch.equal(torch.get_rng_state(), chance)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoding": "pixel"}, "encoding='pixel' is unknown; pass one of 'direct', 'cppn'"),
        ({"classes": [4]}, "the model has 4, give some of 0 to 3"),
        ({"classes": []}, r"classes=\[\]"),
        ({"population": 0}, "population=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"forward": lambda model, images: model(images)[:, None]}, "no scores of classes"),
        ({"forward": lambda model, images: model(images).mean(0, keepdim=True)}, "for 200 images"),
        ({"forward": lambda model, images: model(images) * torch.nan}, "NaN"),
    ],
)
def test_what_makes_no_sense_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        fool(small_net(), (1, 8, 8), progress=False, **options)


def test_an_image_that_the_model_cannot_take_is_named():
    with pytest.raises(ValueError, match=r"cannot take images of 1 x 9 x 9"):
        fool(small_net(), (1, 9, 9), progress=False)
    with pytest.raises(ValueError, match=r"give channels, rows and columns"):
        fool(small_net(), (8, 8), progress=False)


@pytest.mark.parametrize(("eta", "bounds"), [(15.0, (0.0, 1.0)), (3.0, (-10.0, 10.0))])
def test_polynomial_mutation_has_its_distribution(eta, bounds):
    low, high = bounds
    middle = np.full(20_000, (low + high) / 2, np.float32)
    everything = np.ones_like(middle, bool)
    mutated = polynomial_mutation(middle, np.random.default_rng(0), chosen=everything, eta=eta, bounds=bounds)
    change = np.abs((mutated - middle) / (high - low))
    inside = change < 0.499  # beyond, it is clipped
    cumulated = stats.beta(1, eta + 1).cdf
    assert stats.kstest(change[inside], lambda size: cumulated(size) / cumulated(0.499)).pvalue > 0.01
    assert inside.mean() == pytest.approx(cumulated(0.499), abs=0.01)
    assert abs((mutated > middle).mean() - 0.5) < 0.02
    assert mutated.min() >= low and mutated.max() <= high


def test_a_tenth_of_the_pixels_changes_and_half_of_that_after_a_thousand_generations():
    rng = np.random.default_rng(0)
    parents = Direct().random(20, (1, 40, 40), rng)
    for generation, rate in ((1, 0.1), (999, 0.1), (1000, 0.05), (2500, 0.025)):
        changed = (Direct().mutate(parents, generation, rng) != parents).mean()
        assert changed == pytest.approx(rate, abs=0.006)


def test_a_population_of_networks_draws_what_each_draws_node_by_node():
    rng = np.random.default_rng(1)
    encoding = EvolvedCPPN()
    genomes = encoding.random(6, (2, 5, 9), rng)
    for generation in range(30):
        genomes = encoding.mutate(genomes, generation, rng)
    assert ((genomes["functions"][:, 4:20] >= 0).sum(1) > 2).all()
    drawn = encoding.draw(genomes, (2, 5, 9))
    functions = (np.sin, lambda s: 2 / (1 + np.exp(-s)) - 1, lambda s: np.exp(-(s**2)), lambda s: max(-1, min(1, s)))
    for genome, image in zip(genomes, drawn, strict=True):
        for row, column in ((0, 0), (2, 4), (4, 1)):
            x, y = -1 + 2 * column / 8, (-1 + 2 * row / 4) * 5 / 9
            nodes = [x, y, np.hypot(x, y), 1.0]
            for node in range(4, 20):
                total = sum(float(genome["weights"][i, node]) * nodes[i] for i in range(node))
                function = genome["functions"][node]
                nodes.append(functions[function](total) if function >= 0 else 0.0)
            outputs = [sum(float(genome["weights"][i, 20 + c]) * nodes[i] for i in range(20)) for c in range(2)]
            np.testing.assert_allclose(image[:, row, column], 1 / (1 + np.exp(-np.array(outputs))), atol=2e-4)


def test_networks_grow_within_their_places_and_stay_wired_forward():
    rng = np.random.default_rng(0)
    encoding = EvolvedCPPN(places=5)
    genomes = encoding.random(50, (3, 8, 8), rng)
    parents = genomes.copy()
    for generation in range(40):
        children = encoding.mutate(genomes, generation, rng)
        assert (genomes == parents).all()  # parents stay as they are
        genomes, parents = children, children.copy()
    weights, exists = genomes["weights"], genomes["functions"] >= 0
    assert (weights == np.triu(weights, 1)).all() and not weights[:, :, :4].any() and not weights[:, 9:].any()
    assert not weights[~exists].any() and not weights.transpose(0, 2, 1)[~exists].any()
    assert np.abs(weights).max() <= 10
    assert exists[:, 4:9].all(1).any() and not exists[:, 4:9].all()
    assert np.unique(genomes["functions"][:, 4:9]).tolist() == [-1, 0, 1, 2, 3]


def test_a_pattern_is_drawn_finer_at_another_size():
    rng = np.random.default_rng(0)
    encoding = EvolvedCPPN()
    genomes = encoding.random(4, (1, 9, 9), rng)
    np.testing.assert_allclose(
        encoding.draw(genomes, (1, 9, 9)), encoding.draw(genomes, (1, 17, 17))[..., ::2, ::2], atol=1e-5
    )
