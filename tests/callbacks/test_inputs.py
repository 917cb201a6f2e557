"""The right pictures, of whatever goes into a network: what is drawn is what the network does."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.models import VisionTransformer

from lightning_viz import (
    ActivationMaps,
    FirstLayerFilters,
    GradCAM,
    Hyperplanes,
    LayerEmbeddings,
    PixelSpace,
    Probe,
    Saliency,
    default_views,
)
from lightning_viz.render.hyperplanes import clip_lines
from lightning_viz.render.parts import Tile

from .conftest import ConvNet, Net, Perceptron, fit, images, loader, plane


def drawn_filters(page, shape):
    """The weights of a page of filters."""
    return np.stack([tile.weights for tile in page.parts(Tile) if tile.weights is not None]).reshape(shape)


def watched(views, data):
    """What of the data the views' probe took, and its labels."""
    x, y = data
    indices = list(views[0].indices)
    return x[indices], y[indices]


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 8, 8), (6, 8, 8), (3, 17, 23), (1, 23, 17)])
def test_drawn_is_what_the_network_does(channels, height, width, tmp_path, drawn_at_once):
    data = images(channels=channels, height=height, width=width)
    model = ConvNet(channels)
    views = [FirstLayerFilters(), ActivationMaps(layers=["conv1", "conv2"]), GradCAM(samples=16), Saliency(samples=16)]
    fit(tmp_path, model, views, loader(*data))
    model.eval()
    x, y = watched(views, data)
    assert len(x) == 16
    assert torch.bincount(y).min() >= 5  # balanced

    weights = model.conv1.weight.detach().numpy()
    np.testing.assert_array_equal(drawn_filters(drawn_at_once.pages("filters/conv1")[6], weights.shape), weights)

    conv1 = model.conv1(x)
    conv2 = model.conv2(F.max_pool2d(F.relu(conv1), 2)).detach().requires_grad_()
    for name, maps in (("conv1", conv1), ("conv2", conv2)):
        drawn = drawn_at_once.arguments(f"activations/{name}")[6]
        torch.testing.assert_close(torch.as_tensor(drawn["maps"]), maps[:8, drawn["channels"]].detach())

    score = model.fc(F.relu(conv2).mean((2, 3))).gather(1, y[:, None]).sum()
    slope = torch.autograd.grad(score, conv2)[0]
    heat = F.relu((slope.mean((2, 3), keepdim=True) * conv2).sum(1)).detach()
    assert heat.max() > 0
    torch.testing.assert_close(torch.as_tensor(drawn_at_once.arguments("grad_cam/conv2")[6]["maps"][:, 0]), heat)

    leaf = x.clone().requires_grad_()
    gradient = torch.autograd.grad(model(leaf).gather(1, y[:, None]).sum(), leaf)[0]
    torch.testing.assert_close(torch.as_tensor(drawn_at_once.arguments("saliency/gradient")[6]["maps"]), gradient)

    for tag in ("grad_cam/conv2", "saliency/gradient"):
        assert "each sample's true class" in drawn_at_once.pictures(tag)[6].description

    tags = ("activations/conv1", "activations/conv2", "grad_cam/conv2", "saliency/gradient")
    gray = x if channels in (1, 3) else x.mean(1, keepdim=True)
    pixels = (gray.expand(-1, 3, -1, -1).permute(0, 2, 3, 1) * 255).round()
    for tag in tags:
        given = torch.as_tensor(drawn_at_once.arguments(tag)[6]["images"]).float()
        torch.testing.assert_close(given, pixels[: len(given)], atol=1, rtol=0)
        said = drawn_at_once.pictures(tag)[6].description
        assert ("mean of 6 channels" in said) == (channels == 6)


def test_captions_name_layer_class_scale_and_step(tmp_path, drawn_at_once):
    views = [
        FirstLayerFilters(),
        ActivationMaps(layers="conv1"),
        GradCAM(samples=16, target=2),
        Saliency(samples=16, target="predicted"),
        LayerEmbeddings(layers="fc", input=False),
    ]
    data = loader(*images())
    data.dataset.classes = ["ape", "bee", "cat"]
    fit(tmp_path, ConvNet(), views, data)
    wanted = {
        "filters/conv1": ("conv1", "3 × 3", "display scale ±", "weights' norm "),
        "activations/conv1": ("conv1", "each channel on its own display scale", "% of values beyond"),
        "grad_cam/conv2": ("conv2", "class cat", "number: maximum", "bar: confidence, full at 100 %"),
        "saliency/gradient": ("Gradient", "predicted class", "99th percentile"),
        "embedding/every_layer": ("layer by layer", "true class", "24 samples", "PCA"),
    }
    for tag, words in wanted.items():
        for step, picture in drawn_at_once.pictures(tag).items():
            assert f"step {step}" in picture.description
            for word in words:
                assert word in picture.description, (tag, word, picture.description)
        assert sorted(drawn_at_once.pictures(tag)) == [0, 6]
    verdicts = drawn_at_once.arguments("grad_cam/conv2")[6]["verdicts"]
    assert {one.truth for one in verdicts} == {"ape", "bee", "cat"}


def test_scales_channels_and_samples_stay_the_same_over_a_run(tmp_path, drawn_at_once):
    torch.manual_seed(0)  # each channel's scale holds in this run
    views = [ActivationMaps(layers="conv1"), FirstLayerFilters()]
    fit(tmp_path, ConvNet(), views, loader(*images(), shuffle=True), loader(*images()), max_epochs=3)
    looks = drawn_at_once.arguments("activations/conv1")
    assert sorted(looks) == [0, 6, 12, 18]
    assert len({tuple(look["channels"]) for look in looks.values()}) == 1
    assert len({tuple(look["limits"]) for look in looks.values()}) == 1
    assert all(np.array_equal(look["images"], looks[0]["images"]) for look in looks.values())
    assert len({look["limit"] for look in drawn_at_once.arguments("filters/conv1").values()}) == 1


def test_lines_of_hyperplanes_are_where_units_switch(tmp_path, drawn_at_once):
    model = Perceptron()
    fit(tmp_path, model, [Hyperplanes(deeper=True, grid=12)], loader(*plane(), batch_size=8))
    drawn = drawn_at_once.arguments("hyperplanes/hidden")
    assert sorted(drawn) == [0, 1, 2, 3, 5]
    last = drawn[5]
    ends = clip_lines(last["weights"], last["biases"], last["extent"])
    points = torch.as_tensor(ends[np.isfinite(ends).all((1, 2))], dtype=torch.float32)
    assert len(points) >= 2
    units = [unit for unit in range(5) if np.isfinite(ends[unit]).all()]
    switched = model.hidden(points)[torch.arange(len(units)), :, units]
    torch.testing.assert_close(switched, torch.zeros_like(switched), atol=1e-5, rtol=0)
    assert len({look["extent"] for look in drawn.values()}) == 1

    x0, x1, y0, y1 = last["extent"]
    row, column = 3, 8
    point = torch.tensor([[x0 + (x1 - x0) * column / 11, y0 + (y1 - y0) * row / 11]])
    regions = last["regions"]
    expected = model(point).log_softmax(1)[0]
    assert regions.class_count == 2 and expected.argmax() in regions.classes
    torch.testing.assert_close(torch.as_tensor(regions.log_probabilities[:, row, column]), expected[regions.classes])
    deeper = torch.as_tensor(drawn_at_once.arguments("hyperplanes/deeper")[5]["values"])
    torch.testing.assert_close(deeper[:, row, column], model.deeper(F.relu(model.hidden(point)))[0])

    x, y = plane()
    accuracy = (model(x).argmax(1) == y).float().mean().item()
    assert last["accuracy"] == pytest.approx(accuracy)
    said = drawn_at_once.pictures("hyperplanes/hidden")[5].description
    for word in ("hidden", "step 5", "5 units", f"{accuracy:.0%}".replace("%", " %")):
        assert word in said


def test_a_batch_as_a_dict_goes_by_the_names_of_forward(tmp_path, drawn_at_once):
    class ClassSpec(ConvNet):
        def forward(self, image):
            return super().forward(image)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch["image"]), batch["label"])

        def validation_step(self, batch, batch_idx):
            pass

    x, y = images()
    # A mask of the image's shape comes first, to be told from it by name alone.
    rows = [{"mask": torch.ones(1, 8, 8), "image": one, "label": label} for one, label in zip(x, y, strict=True)]
    views = [GradCAM(samples=16), ActivationMaps(layers="conv1")]
    model = ClassSpec()
    fit(tmp_path, model, views, DataLoader(rows, batch_size=4))
    watched_x, watched_y = watched(views, (x, y))
    drawn = drawn_at_once.arguments("activations/conv1")[6]
    torch.testing.assert_close(torch.as_tensor(drawn["maps"]), model.conv1(watched_x)[:8, drawn["channels"]].detach())
    assert [one.truth for one in drawn["verdicts"]] == [str(int(label)) for label in watched_y[:8]]


def test_a_model_with_two_inputs(tmp_path, drawn_at_once):
    class Two(Net):
        def __init__(self):
            super().__init__()
            self.table, self.conv = nn.Linear(5, 4), nn.Conv2d(1, 4, 3)
            self.fc = nn.Linear(4, 3)

        def forward(self, numbers, image):
            return self.fc(F.relu(self.conv(image)).mean((2, 3)) + self.table(numbers))

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0], batch[1]), batch[2])

        def validation_step(self, batch, batch_idx):
            pass

    x, y = images()
    numbers = torch.randn(24, 5, generator=torch.Generator().manual_seed(3))
    views = [
        Saliency(samples=16),
        GradCAM(samples=16),
        LayerEmbeddings(layers="fc"),
        Saliency(samples=16, method="smooth_grad", noise_samples=2),
    ]
    model = Two()
    fit(tmp_path, model, views, loader(numbers, x, y))
    watched_x, watched_y = watched(views, (x, y))
    leaf = watched_x[:16].clone().requires_grad_()  # the head; the embeddings' population comes after it
    score = model(numbers[list(views[0].indices)[:16]], leaf).gather(1, watched_y[:16, None]).sum()
    gradient = torch.autograd.grad(score, leaf)[0]
    torch.testing.assert_close(torch.as_tensor(drawn_at_once.arguments("saliency/gradient")[6]["maps"]), gradient)
    tags = drawn_at_once.tags()
    assert {"saliency/smooth_grad", "grad_cam/conv", "embedding/every_layer"} <= set(tags)
    embedded = drawn_at_once.arguments("embedding/input")[6]["vectors"]
    torch.testing.assert_close(torch.as_tensor(embedded), watched_x.flatten(1))  # what is shown: the image


class SmallViT(Net):
    def __init__(self):
        super().__init__()
        self.net = VisionTransformer(
            image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3
        )

    def forward(self, x):
        return self.net(x)


def test_a_small_vit_gives_maps_of_its_tokens(tmp_path, drawn_at_once):
    data = images(channels=3, height=16, width=16)
    block = "net.encoder.layers.encoder_layer_0"
    model = SmallViT()
    views = [GradCAM(samples=16, layers=block), ActivationMaps(layers=block)]
    fit(tmp_path, model, views, loader(*data))
    model.eval()
    x, y = watched(views, data)
    kept = []
    handle = model.net.encoder.layers.encoder_layer_0.register_forward_hook(lambda m, i, out: kept.append(out))
    score = model(x).gather(1, y[:, None]).sum()
    handle.remove()
    slope = torch.autograd.grad(score, kept[0])[0]

    def square(tokens):
        return tokens[:, 1:].transpose(1, 2).reshape(16, 8, 4, 4)

    heat = F.relu((square(slope).mean((2, 3), keepdim=True) * square(kept[0])).sum(1)).detach()
    drawn = torch.as_tensor(drawn_at_once.arguments(f"grad_cam/{block}")[6]["maps"][:, 0])
    torch.testing.assert_close(drawn, heat, atol=1e-5, rtol=1e-4)
    maps = drawn_at_once.arguments(f"activations/{block}")[6]
    torch.testing.assert_close(
        torch.as_tensor(maps["maps"]), square(kept[0])[:8, maps["channels"]].detach(), atol=1e-5, rtol=1e-4
    )


def test_default_views_of_a_small_vit_are_all_that_suit(tmp_path, drawn_at_once, capsys):
    fit(tmp_path, SmallViT(), default_views(), loader(*images(channels=3, height=16, width=16)))
    kinds = {tag.split("/")[0] for tag in drawn_at_once.tags()}
    assert kinds == {"filters", "activations", "grad_cam", "attention", "saliency", "embedding", "health", "mistakes"}
    assert [line for line in capsys.readouterr().err.splitlines() if "skipped" in line] == [
        "lightning_viz: skipped Hyperplanes: the model's input is not the plane: Hyperplanes is for perceptrons "
        "whose first layer is nn.Linear(2, units)"
    ]


def test_normalized_images_are_shown_as_pixels(tmp_path, drawn_at_once):
    x, y = images(channels=3)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    normalized = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    views = [Saliency(samples=16, pixel_space=PixelSpace(mean=mean, std=std))]
    fit(tmp_path, ConvNet(3), views, loader(normalized, y))
    pixels = (x[list(views[0].indices)].permute(0, 2, 3, 1) * 255).round()
    shown = torch.as_tensor(drawn_at_once.arguments("saliency/gradient")[0]["images"]).float()
    torch.testing.assert_close(shown, pixels, atol=1, rtol=0)


def test_the_normalize_of_the_data_is_found(tmp_path, drawn_at_once):
    from torchvision.transforms import Compose, Normalize

    x, y = images(channels=3)

    class Normalized(torch.utils.data.Dataset):
        transform = Compose([Normalize([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])])

        def __len__(self):
            return len(x)

        def __getitem__(self, index):
            return self.transform(x[index]), int(y[index])

    views = [Saliency(samples=16)]
    fit(tmp_path, ConvNet(3), views, DataLoader(Normalized(), batch_size=4))
    pixels = (x[list(views[0].indices)].permute(0, 2, 3, 1) * 255).round()
    drawn = drawn_at_once.arguments("saliency/gradient")[0]
    torch.testing.assert_close(torch.as_tensor(drawn["images"]).float(), pixels, atol=1, rtol=0)
    assert drawn["notes"] == ()


@pytest.mark.filterwarnings("ignore:lightning_viz. pixel range guessed")
def test_a_guessed_pixel_range_is_said_in_the_caption(tmp_path, drawn_at_once):
    x, y = images()
    fit(tmp_path, ConvNet(), [Saliency(), GradCAM(pixel_space=PixelSpace())], loader(x * 7 - 3, y))
    assert "pixel range guessed" in drawn_at_once.pictures("saliency/gradient")[0].description
    assert "guessed" not in drawn_at_once.pictures("grad_cam/conv2")[0].description


# Nothing to see is said.


@pytest.mark.filterwarnings("ignore:lightning_viz. the data set holds 24 samples")
def test_nan_weights_are_said_in_every_caption(tmp_path, drawn_at_once):
    model = ConvNet()
    model.conv1.weight.data[1] = torch.nan
    views = [
        FirstLayerFilters(),
        ActivationMaps(layers="conv1", channels="first"),
        GradCAM(samples=16),
        Saliency(samples=16),
        LayerEmbeddings(layers="conv1", input=False),
    ]
    fit(tmp_path, model, views)
    words = {
        "filters/conv1": "NaN in 1 of 4 filters",
        "activations/conv1": "NaN in 6 of 24 maps",
        "grad_cam/conv2": "NaN in 16 of 16 maps",
        "saliency/gradient": "NaN in 16 of 16 samples",
        "embedding/every_layer": "conv1: NaN or infinity in 24 of 24 samples",
    }
    for tag, said in words.items():
        assert said in drawn_at_once.pictures(tag)[0].description
        assert sorted(drawn_at_once.pictures(tag)) == [0, 6]  # after an update all is NaN, which has no scale


def test_nan_in_a_plane_is_said(tmp_path, drawn_at_once):
    model = Perceptron()
    model.hidden.weight.data[2] = torch.nan
    fit(tmp_path, model, [Hyperplanes(deeper=True, grid=8)], loader(*plane(), batch_size=8))
    assert "NaN in the weights" in drawn_at_once.pictures("hyperplanes/hidden")[0].description
    assert "NaN in 4 of 4 units" in drawn_at_once.pictures("hyperplanes/deeper")[0].description


def test_an_all_zero_gradient_is_said(tmp_path, drawn_at_once):
    class Dead(ConvNet):
        def forward(self, x):
            return super().forward(x) * 0

    fit(tmp_path, Dead(), [Saliency(samples=16), GradCAM(samples=16)])
    assert "all-zero gradient in 16 of 16 samples" in drawn_at_once.pictures("saliency/gradient")[0].description
    assert (
        "all zero (nothing positive left after its ReLU) in 16 of 16 maps"
        in drawn_at_once.pictures("grad_cam/conv2")[0].description
    )


def test_a_map_of_one_value_is_said(tmp_path, drawn_at_once):
    class Shrunk(ConvNet):
        def forward(self, x):
            return super().forward(F.adaptive_avg_pool2d(x, 2))  # the pooling leaves conv2 one value

    fit(tmp_path, Shrunk(), [GradCAM(samples=16), ActivationMaps(layers="conv2")])
    assert "1 × 1 map in 16 of 16 maps" in drawn_at_once.pictures("grad_cam/conv2")[0].description
    assert "1 × 1 map in 36 of 36 maps" in drawn_at_once.pictures("activations/conv2")[0].description


def test_a_perceptron_on_images_shows_its_weights_in_the_shape_of_its_input(tmp_path, drawn_at_once):
    class Flat(Perceptron):
        def forward(self, x):
            return super().forward(x.flatten(1))

    model = Flat(inputs=3 * 5 * 4, classes=3)
    fit(tmp_path, model, [FirstLayerFilters()], loader(*images(channels=3, height=5, width=4)))
    weights = model.hidden.weight.detach().numpy().reshape(5, 3, 5, 4)
    np.testing.assert_array_equal(drawn_filters(drawn_at_once.pages("filters/hidden")[6], weights.shape), weights)


def test_samples_given_are_the_samples_watched(tmp_path, drawn_at_once):
    x, y = images(5)
    views = [Saliency(probe=Probe(inputs=x, labels=y))]
    fit(tmp_path, ConvNet(), views)
    shown = torch.as_tensor(drawn_at_once.arguments("saliency/gradient")[6]["images"]).float()
    expected = (x.expand(-1, 3, -1, -1).permute(0, 2, 3, 1) * 255).round()
    torch.testing.assert_close(shown, expected, atol=1, rtol=0)
    assert [one.truth for one in drawn_at_once.arguments("saliency/gradient")[6]["verdicts"]] == list("01201")


def test_a_layer_called_twice_has_a_picture_for_each_call(tmp_path, drawn_at_once):
    class Twice(ConvNet):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            x = F.max_pool2d(self.relu(self.conv1(x)), 2)
            return self.fc(self.relu(self.conv2(x)).mean((2, 3)))

    data, model = images(), Twice()
    views = [ActivationMaps(layers=["conv1", "relu"], channels="first"), GradCAM(layers="relu")]
    fit(tmp_path, model, views, loader(*data))
    x, _ = watched(views, data)
    before = model.conv1(x)[:8].detach()
    drawn = {name: drawn_at_once.arguments(f"activations/{name}")[6]["maps"] for name in ("conv1", "relu:0", "relu:1")}
    torch.testing.assert_close(torch.as_tensor(drawn["conv1"]), before)  # not what the ReLU wrote over it
    torch.testing.assert_close(torch.as_tensor(drawn["relu:0"]), before.relu())
    after = model.conv2(F.max_pool2d(model.conv1(x).relu(), 2)).relu()[:8, :6].detach()
    torch.testing.assert_close(torch.as_tensor(drawn["relu:1"]), after)
    assert {"grad_cam/relu:0", "grad_cam/relu:1"} <= set(drawn_at_once.tags())
