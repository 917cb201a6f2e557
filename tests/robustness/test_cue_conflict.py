"""A cue conflict looks in outline like its own shape and is covered with its own texture, more than any other of the
set, by measures of the test's own; its labels say which."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz.dream import style_transfer
from lightning_viz.errors import CueConflictWarning, LayerNotFoundError
from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness import CueConflict, cue_conflict

SPACE = PixelSpace((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LAYERS = {"content_layers": ["1"], "style_layers": ["1", "4"]}
SIZE = 36


def photographed() -> list[Tensor]:
    """Petals, foliage and tiles of a roof out of scikit-learn's photographs, pixels ``[3, h, w]`` of three sizes."""
    china, flower = (torch.tensor(one).permute(2, 0, 1) / 255 for one in load_sample_images().images)
    parts = flower[:, 130:310, 215:395], china[:, 340:420, 380:540], china[:, 243:285, 95:235]
    return [F.interpolate(one[None], scale_factor=40 / one.shape[1], mode="area")[0] for one in parts]


def silhouettes() -> Tensor:
    """A disc, a cross and a triangle, dark on light, pixels ``[3, 3, 36, 36]``."""
    y, x = torch.meshgrid(torch.linspace(-1.4, 1.4, SIZE), torch.linspace(-1.4, 1.4, SIZE), indexing="ij")
    disc = x**2 + y**2 < 1
    cross = ((x.abs() < 0.35) | (y.abs() < 0.35)) & (x.abs() < 1.1) & (y.abs() < 1.1)
    triangle = (y < 0.9) & (x.abs() < (y + 1.1) / 1.8)
    return (0.8 - 0.55 * torch.stack([disc, cross, triangle]).float())[:, None].expand(-1, 3, -1, -1)


SHAPES = SPACE.to_inputs(silhouettes())
TEXTURES = [SPACE.to_inputs(one[None])[0] for one in photographed()]


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
            nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3),
        ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def painter() -> nn.Sequential:
    """It tells the textures by small patches; trained here in a second."""
    model = network()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(60):
            which, top, left = torch.randint(3, (24,)), torch.randint(20, (24,)), torch.randint(20, (24,))
            places = zip(which.tolist(), top.tolist(), left.tolist(), strict=True)
            patches = torch.stack([TEXTURES[one][:, y : y + 20, x : x + 20] for one, y, x in places])
            optimizer.zero_grad()
            loss = F.cross_entropy(model(patches), which)
            loss.backward()
            optimizer.step()
    assert loss < 0.3
    return model


def paint(model: nn.Module, **changed) -> CueConflict:
    options = {
        "shape_labels": [0, 1, 2],
        "texture_labels": [0, 1, 2],
        "pixel_space": SPACE,
        "progress": False,
        "steps": 40,
    }
    return cue_conflict(model, **({"shapes": SHAPES, "textures": TEXTURES} | options | LAYERS | changed))


@pytest.fixture(scope="module", params=["content", "noise"])
def conflict(request, painter) -> CueConflict:
    return paint(painter, start=request.param, texture_strength=5.0)


def outline(pixels: Tensor) -> np.ndarray:
    """What is dark and what is light, coarsely, rows of ``[N, 81]`` of mean 0 and norm 1."""
    rows = F.avg_pool2d(pixels.mean(1, keepdim=True), 4).flatten(1).double().numpy()
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def surface(model: nn.Sequential, inputs: Tensor) -> np.ndarray:
    """Which features of the first layers come together, anywhere: the Gram matrices of one image, in one row."""
    with torch.no_grad():
        maps = [model[:depth](inputs[None])[0].flatten(1).double().numpy() for depth in (2, 5)]
    return np.concatenate([(one @ one.T / one.shape[1]).ravel() / (one**2).mean() for one in maps])


def test_all_pairs_of_different_classes_are_painted_in_order(conflict):
    assert conflict.pairs.tolist() == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    assert torch.equal(conflict.shape_labels, conflict.pairs[:, 0])
    assert torch.equal(conflict.texture_labels, conflict.pairs[:, 1])


def test_each_has_the_outline_of_its_own_shape(conflict):
    likeness = outline(conflict.pixels) @ outline(silhouettes()).T
    assert likeness.argmax(1).tolist() == conflict.shape_labels.tolist()
    assert likeness[range(6), conflict.shape_labels].min() > 0.9


def test_each_is_covered_with_its_own_texture(painter, conflict):
    painted = np.stack([surface(painter, one) for one in conflict.inputs])
    taken = np.stack([surface(painter, one) for one in TEXTURES])
    distance = np.linalg.norm(painted[:, None] - taken, axis=2)
    assert distance.argmin(1).tolist() == conflict.texture_labels.tolist()
    plain = np.stack([surface(painter, SHAPES[shape]) for shape, _ in conflict.pairs.tolist()])
    before = np.linalg.norm(plain - taken[conflict.texture_labels], axis=1)
    assert (distance.min(1) < 0.5 * before).all()


def test_the_style_loss_is_known_before_each_step_and_falls_towards_the_texture(conflict):
    assert conflict.content_loss.shape == conflict.style_loss.shape == (6, 41)
    assert (conflict.style_loss[:, -1] < 0.25 * conflict.style_loss[:, 0]).all()


def test_they_are_pixels_and_what_the_model_takes(conflict):
    assert conflict.pixels.shape == (6, 3, SIZE, SIZE)
    assert conflict.pixels.min() >= 0 and conflict.pixels.max() <= 1
    torch.testing.assert_close(SPACE.to_pixels(conflict.inputs), conflict.pixels)


def test_an_image_is_the_style_transfer_of_its_pair(painter):
    found = paint(painter, pairs=[(2, 0), (0, 1)], steps=5, start="noise", seed=3, texture_strength=7.0)
    options = {"pixel_space": SPACE, "steps": 5, "start": "noise", "progress": False} | LAYERS
    for place, (shape, texture) in enumerate([(2, 0), (0, 1)]):
        balance = style_transfer(painter, SHAPES[shape], TEXTURES[texture], seed=3 + place, **options).style_weight
        one = style_transfer(
            painter, SHAPES[shape], TEXTURES[texture], seed=3 + place, style_weight=7 * balance, **options
        )
        assert torch.equal(found.inputs[place], one.inputs[0])
    assert found.shape_labels.tolist() == [2, 0] and found.texture_labels.tolist() == [0, 1]


def test_more_strength_brings_more_texture_and_leaves_less_of_the_shape(painter):
    weak, strong = (paint(painter, pairs=[(0, 1)], texture_strength=one) for one in (0.3, 30.0))
    assert strong.style_loss[0, -1] < 0.5 * weak.style_loss[0, -1]
    assert strong.content_loss[0, -1] > 1.5 * weak.content_loss[0, -1]


def test_the_same_seed_paints_the_same_and_another_seed_another(painter):
    first, again, other = (paint(painter, pairs=[(0, 1)], steps=3, start="noise", seed=one) for one in (0, 0, 1))
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, other.pixels)


def test_two_images_of_one_class_are_never_paired(painter):
    found = paint(painter, shape_labels=[5, 7, 7], texture_labels=[7, 5, 5], steps=0)
    assert found.pairs.tolist() == [[0, 0], [1, 1], [1, 2], [2, 1], [2, 2]]
    assert found.shape_labels.tolist() == [5, 7, 7, 7, 7] and found.texture_labels.tolist() == [7, 5, 5, 5, 5]


def test_the_model_and_chance_are_left_as_found_and_train_mode_is_said_once():
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chance = torch.get_rng_state()
    with pytest.warns(CueConflictWarning, match="train mode") as told:
        paint(model, steps=1)
    assert len(told) == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and all(one.requires_grad and one.grad is None for one in model.parameters())
    assert torch.equal(torch.get_rng_state(), chance)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shapes": SHAPES[0]}, r"the shapes are \[3, 36, 36\]; pass images of one size"),
        ({"shapes": SHAPES[:0], "shape_labels": []}, "there are no shapes"),
        ({"textures": [TEXTURES[0], TEXTURES[1], TEXTURES[2][None]]}, r"texture 2 is \[1, 3,"),
        ({"textures": [TEXTURES[0], TEXTURES[1], 9 * TEXTURES[2]]}, "texture 2 has pixels from"),
        ({"shape_labels": [0, 1]}, r"shape_labels are \[2\] for 3 samples"),
        ({"texture_labels": [0, -2, 1]}, "texture_labels hold -2"),
        ({"shape_labels": [1, 1, 1], "texture_labels": [1, 1, 1]}, "no shape and texture are of different"),
        ({"pairs": []}, "no shape and texture"),
        ({"pairs": [(0, 1), (0, 3)]}, r"pairs has \(0, 3\), of 3 shapes and 3 textures"),
        ({"pairs": [(0, 1), (2, 2)]}, r"pair \(2, 2\) has shape and texture of class 2, so there is no conflict"),
        ({"texture_strength": 0.0}, "texture_strength=0.0"),
        ({"start": "gray"}, "'content' or 'noise'"),
    ],
)
def test_what_makes_no_sense_is_named_before_anything_is_painted(changed, words):
    def forward(model, images):
        raise AssertionError("it ran")

    with pytest.raises(ValueError, match=words):
        paint(network(), forward=forward, **changed)


def test_the_default_layers_are_those_of_vgg19_and_others_say_which_they_miss():
    with pytest.raises(LayerNotFoundError, match=r"features\.21"):
        cue_conflict(network(), SHAPES, TEXTURES, shape_labels=[0, 1, 2], texture_labels=[0, 1, 2], pixel_space=SPACE)
