"""The shape bias of networks trained on shape and on texture alone is what they were trained for; of known decisions it
is the share that is counted by hand."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz.errors import CueConflictWarning
from lightning_viz.robustness import cue_conflict, shape_bias

SIZE = 24


def silhouettes(kinds: Tensor, generator: torch.Generator) -> Tensor:
    """Discs, squares, triangles and crosses somewhere near the middle, ``[N, 24, 24]`` of 0 and 1."""
    count = len(kinds)
    down, across = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    middle = 12 + torch.randint(-3, 3, (2, count, 1, 1), generator=generator)
    radius = 6 + 2.5 * torch.rand(count, 1, 1, generator=generator)
    y, x = (down - middle[0]) / radius, (across - middle[1]) / radius
    drawn = [
        x**2 + y**2 < 1,
        (x.abs() < 0.88) & (y.abs() < 0.88),
        (y < 0.8) & (x.abs() < (y + 1) / 1.6),
        ((x.abs() < 0.35) | (y.abs() < 0.35)) & (x.abs() < 1) & (y.abs() < 1),
    ]
    return torch.stack(drawn)[kinds, torch.arange(count)].float()


def surfaces(kinds: Tensor, generator: torch.Generator) -> Tensor:
    """Lying stripes, standing stripes, checks and noise, each of any phase, ``[N, 24, 24]``."""
    count = len(kinds)
    phase = torch.randint(0, 4, (2, count, 1, 1), generator=generator)
    down, across = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    lying, standing = ((down + phase[0]) // 2 % 2).float(), ((across + phase[1]) // 2 % 2).float()
    noise = torch.rand(count, SIZE, SIZE, generator=generator).round()
    wide = [one.expand(count, SIZE, SIZE) for one in (lying, standing, (lying - standing).abs(), noise)]
    return torch.stack(wide)[kinds, torch.arange(count)]


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images ``[N, 1, 24, 24]``, the class of each one's shape and the class of its texture, of which none knows the
    other."""
    generator = torch.Generator().manual_seed(seed)
    shape, texture = torch.randint(0, 4, (2, count), generator=generator)
    around = 0.4 * torch.rand(count, 1, 1, generator=generator)
    covered = 0.3 + 0.7 * surfaces(texture, generator)
    image = (around + (1 - around) * silhouettes(shape, generator)) * covered
    return image[:, None], shape, texture


def trained(on: int | None, epochs: int = 8) -> nn.Module:
    """A network trained to tell shapes (1), textures (2) or both, always alike: some seconds."""
    data = drawn(1500, seed=0)
    images, labels = data[0], 4 * data[1] + data[2] if on is None else data[on]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 4 if on else 16),
        )  # fmt: skip
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(50):
                optimizer.zero_grad()
                F.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def conflicts() -> tuple[Tensor, Tensor, Tensor]:
    """Images that no network was trained on, shape and texture never of one class."""
    images, shape, texture = drawn(400, seed=1)
    differ = shape != texture
    return images[differ], shape[differ], texture[differ]


@pytest.fixture(scope="session")
def shape_net() -> nn.Module:
    return trained(1)


@pytest.fixture(scope="session")
def texture_net() -> nn.Module:
    return trained(2, epochs=12)


def answering(decisions: list[int], classes: int = 4) -> tuple[nn.Module, Tensor]:
    """A model and images of which it says what it is told to."""
    scores = F.one_hot(torch.tensor(decisions), classes).float() * 3
    model = nn.Linear(classes, classes, bias=False).eval()
    nn.init.eye_(model.weight)
    return model, scores


def test_a_net_trained_on_shape_goes_by_shape(shape_net, conflicts):
    found = shape_bias(shape_net, *conflicts)
    assert found.bias > 0.9 and found.decided > 0.9
    assert (found.class_bias > 0.8).all()


def test_a_net_trained_on_texture_goes_by_texture(texture_net, conflicts):
    found = shape_bias(texture_net, *conflicts)
    assert found.bias < 0.1 and found.decided > 0.9
    assert (found.class_bias < 0.2).all()


def test_painted_cue_conflicts_tell_both_nets_apart(shape_net, texture_net):
    """Two images for each pair, whose textures a third net, which learned both, painted."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(4).repeat(2)
    shapes = (0.2 + 0.45 * silhouettes(labels, generator))[:, None]
    found = cue_conflict(
        trained(None, epochs=4),
        shapes,
        (0.1 + 0.8 * surfaces(labels, generator))[:, None],
        shape_labels=labels,
        texture_labels=labels,
        pairs=[
            (n + shape, n + texture) for n in (0, 4) for shape in range(4) for texture in range(4) if shape != texture
        ],
        content_layers=["1"],
        style_layers=["1", "4"],
        texture_strength=3.0,
        start="noise",
        optimizer="adam",
        steps=30,
        progress=False,
    )
    by_shape, by_texture = (
        shape_bias(model, found.inputs, found.shape_labels, found.texture_labels) for model in (shape_net, texture_net)
    )
    assert len(found.inputs) == 24
    assert by_shape.bias > 0.7 and by_shape.decided > 0.6
    assert by_texture.bias < 0.3 and by_texture.decided > 0.6


def test_the_bias_is_the_share_of_shape_among_the_decisions_that_are_either():
    decisions, shape, texture = [0, 0, 1, 1, 2, 3, 3], [0, 0, 0, 1, 1, 1, 2], [1, 2, 1, 2, 2, 2, 3]
    model, images = answering(decisions)
    found = shape_bias(model, images, shape, texture)
    assert found.decisions.tolist() == decisions
    assert (found.shape, found.texture, found.neither) == (3, 3, 1)
    assert found.bias == 0.5 and found.decided == 6 / 7
    assert found.class_counts.tolist() == [[2, 1, 0], [1, 1, 1], [0, 1, 0], [0, 0, 0]]
    torch.testing.assert_close(
        found.class_bias, torch.tensor([2 / 3, 1 / 2, 0, math.nan], dtype=torch.float64), equal_nan=True
    )


def test_the_three_most_probable_classes_are_those_of_the_softmax(shape_net, conflicts):
    found = shape_bias(shape_net, *conflicts, batch_size=37)
    expected = shape_net(conflicts[0]).detach().double().softmax(1).sort(1, descending=True)
    assert torch.equal(found.top, expected.indices[:, :3])
    torch.testing.assert_close(found.confidences, expected.values[:, :3], rtol=1e-4, atol=1e-6)


def test_a_model_of_two_classes_has_two_most_probable_ones():
    model, images = answering([0, 1, 1], classes=2)
    found = shape_bias(model, images, [0, 0, 1], [1, 1, 0])
    assert found.top.tolist() == [[0, 1], [1, 0], [1, 0]]
    assert found.bias == 2 / 3


def test_no_decision_for_either_cue_is_nan_and_says_why():
    model, images = answering([3, 3, 2])
    with pytest.warns(CueConflictWarning, match="none of 3 decisions is the class of the shape or of the texture"):
        found = shape_bias(model, images, [0, 1, 0], [1, 2, 1])
    assert math.isnan(found.bias) and found.decided == 0 and found.neither == 3


@pytest.mark.parametrize("named", [True, False])
def test_a_category_is_as_probable_as_its_classes_on_average(named):
    """Geirhos's rule, which a sum would not follow: "many" has most of the probability, each of its classes little."""
    probable = torch.tensor([[0.2, 0.2, 0.2, 0.25, 0.1, 0.05]]).double()
    model = nn.Linear(6, 6, bias=False).double().eval()
    nn.init.eye_(model.weight)
    groups = {"many": [0, 1, 2], "one": [3], "two": [4, 5]}
    mapping = groups if named else list(groups.values())
    found = shape_bias(model, probable.log(), [1], [0], mapping=mapping)
    assert found.names == (("many", "one", "two") if named else ("0", "1", "2"))
    assert found.top.tolist() == [[1, 0, 2]] and found.bias == 1
    means = torch.tensor([[0.25, 0.2, 0.075]]).double()
    torch.testing.assert_close(found.confidences, means / means.sum())


def test_a_mapping_of_a_class_each_changes_nothing(texture_net, conflicts):
    plain = shape_bias(texture_net, *conflicts)
    mapped = shape_bias(texture_net, *conflicts, mapping=[[0], [1], [2], [3]])
    assert torch.equal(plain.top, mapped.top)
    torch.testing.assert_close(plain.confidences, mapped.confidences)


def test_the_model_and_chance_are_left_as_found():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 484, 4))
    images, shape, texture = drawn(8, seed=2)
    texture = (shape + 1) % 4
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chance = torch.get_rng_state()
    with pytest.warns(CueConflictWarning) as told:
        in_training = shape_bias(model, images, shape, texture)
    assert "train mode" in str(told[0].message)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and torch.equal(torch.get_rng_state(), chance)
    assert torch.equal(in_training.decisions, model.eval()(images).argmax(1))


def test_an_image_without_conflict_is_refused_and_named():
    model, images = answering([0, 1, 2])
    with pytest.raises(ValueError, match=r"images \[1\] have shape and texture of one class"):
        shape_bias(model, images, [0, 1, 2], [1, 1, 3])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shape_labels": [0, 1]}, r"shape_labels are \[2\] for 3 samples"),
        ({"texture_labels": [1, 2, -1]}, "texture_labels hold -1"),
        ({"shape_labels": [4, 0, 1]}, "label 4 is out of range: pass labels of 0 to 3"),
        ({"images": torch.zeros(0, 4), "shape_labels": [], "texture_labels": []}, "at least one image"),
        ({"images": torch.full((3, 4), torch.nan)}, "NaN"),
        ({"images": torch.zeros(3, 5)}, "cannot take images of 5"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"mapping": [[0, 1, 2, 3]]}, "mapping has categories"),
        ({"mapping": [[0], [], [1]]}, "of one class or more each"),
        ({"mapping": [[0, 1], [1, 2], [3]]}, "in one category"),
        ({"mapping": [[0], [1], [2, 4]]}, "mapping has class 4, the model has classes 0 to 3"),
        ({"mapping": [[0], [1, 2]]}, "label 2 is out of range"),
        ({"forward": lambda model, images: model(images)[:, :1]}, "label 2 is out of range: pass labels of 0 to 1"),
        ({"forward": lambda model, images: model(images).mean(0, keepdim=True)}, "one row per image"),
    ],
)
def test_what_makes_no_sense_is_named(changed, words):
    model, images = answering([0, 1, 2])
    given = {"images": images, "shape_labels": [0, 1, 2], "texture_labels": [1, 2, 0]} | changed
    with pytest.raises(ValueError, match=words):
        shape_bias(model, **given)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"images": torch.zeros(3, 4, dtype=torch.uint8)}, "uint8"),
        ({"texture_labels": [1.0, 2.0, 0.0]}, "texture_labels are torch.float32"),
        ({"mapping": {0: [0], 1: [1], 2: [2]}}, r"mapping has keys \[0, 1, 2\]; pass names"),
    ],
)
def test_what_is_of_the_wrong_kind_is_named(changed, words):
    model, images = answering([0, 1, 2])
    given = {"images": images, "shape_labels": [0, 1, 2], "texture_labels": [1, 2, 0]} | changed
    with pytest.raises(TypeError, match=words):
        shape_bias(model, **given)


def test_what_can_be_known_before_is_said_before_the_model_runs():
    def forward(model, images):
        raise AssertionError("it ran")

    model, images = answering([0, 1, 2])
    with pytest.raises(ValueError, match="no conflict"):
        shape_bias(model, images, [0, 1, 2], [0, 2, 0], forward=forward)
