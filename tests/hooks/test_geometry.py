"""A layer's output as maps: a place in the map is the place in the image."""

import captum.attr
import pytest
import torch
import torchvision
from torch import nn

from lightning_viz.attribution import grad_cam
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.feature_maps import feature_count, resize
from lightning_viz.hooks.geometry import Layout, as_maps
from lightning_viz.hooks.observe import observe
from lightning_viz.hooks.receptive_field import receptive_fields
from lightning_viz.hooks.targets import unit


def maps_of(model, images, layer):
    return observe(model, images, layers=layer).maps(layer)


def places_moved(model, layer, row, column, size, patch):
    """Where a layer's maps change most when one patch of the image does, and how many patches the maps have."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, size, size)
    moved = image.clone()
    moved[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] += 3
    before, after = maps_of(model, image, layer), maps_of(model, moved, layer)
    change = (after - before).abs().sum(1)[0]
    return divmod(int(change.argmax()), change.shape[1]), tuple(before.shape[1:]), change


def small_vit():
    torch.manual_seed(0)
    return torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=5
    )


@pytest.mark.parametrize("layer", ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1", "encoder.ln"])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 2), (3, 0), (2, 3)])
def test_a_vision_transformers_tokens_go_back_to_their_patches(layer, row, column):
    place, shape, _ = places_moved(small_vit(), layer, row, column, size=64, patch=16)
    assert shape == (24, 4, 4)
    assert place == (row, column)


class Attention(nn.Module):
    """Attention as timm writes it: an identity sees queries [N, heads, T, K]."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.seen, self.qkv = heads, nn.Identity(), nn.Linear(width, 3 * width)

    def forward(self, x):
        samples, count, width = x.shape
        q, k, v = self.qkv(x).view(samples, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (self.seen(q) @ k.mT).softmax(-1)
        return (weights @ v).transpose(1, 2).reshape(samples, count, width)


class Block(nn.Module):
    """Patches, a class token, and a block with a hidden layer of another width."""

    def __init__(self):
        super().__init__()
        self.patches, self.cls_token = nn.Conv2d(3, 12, 4, stride=4), nn.Parameter(torch.zeros(1, 1, 12))
        self.norm, self.attention = nn.LayerNorm(12), Attention(12, 3)
        self.wide, self.act, self.narrow = nn.Linear(12, 40), nn.GELU(), nn.Linear(40, 12)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + self.attention(self.norm(x))
        return x + self.narrow(self.act(self.wide(x)))


def test_a_blocks_hidden_layer_has_the_blocks_places_and_heads_have_none():
    seen = observe(
        Block(), torch.rand(2, 3, 16, 16), layers=["wide", "act", "narrow", "attention.qkv", "attention.seen"]
    )
    for layer in ("wide", "act", "narrow", "attention.qkv"):
        assert seen.layouts[layer] == Layout((4, 4), 2, 1), layer
    assert seen.layouts["attention.seen"] == Layout((), 3) and seen.maps("attention.seen") is None


def test_register_tokens_in_front_are_left_out():
    patches = torch.arange(9.0).view(1, 9, 1).expand(2, 9, 5)
    with_registers = torch.cat([torch.full((2, 5, 5), -1.0), patches], dim=1)
    assert as_maps(with_registers, Layout((3, 3), 2, 5))[1, 3].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize(
    ("layer", "cells", "channels"),
    [("features.0", 16, 96), ("features.1.0", 16, 96), ("features.2", 8, 192), ("features.5", 4, 384)],
)
def test_swins_channels_come_forward_and_places_stay(layer, cells, channels):
    torch.manual_seed(0)
    model = torchvision.models.swin_t(num_classes=5)
    row, column = cells - 2, 1
    place, shape, change = places_moved(model, layer, row, column, size=64, patch=64 // cells)
    assert shape == (channels, cells, cells)
    assert place == (row, column)
    assert change[row, column] > 0


@pytest.mark.parametrize(("layer", "reach"), [("features.0", 0), ("features.1.0", 3), ("features.1.0.block.5", 3)])
def test_convnext_blocks_and_the_linear_layers_inside_them(layer, reach):
    torch.manual_seed(0)
    model = torchvision.models.convnext_tiny(num_classes=5, layer_scale=1.0)
    _, shape, change = places_moved(model, layer, 5, 2, size=64, patch=4)
    assert shape == (96, 16, 16)
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[5 - reach : 6 + reach, max(0, 2 - reach) : 3 + reach] = True
    assert torch.equal(change > 0, expected)  # the patch, and as far around it as the block's convolution reaches


def test_a_map_with_as_many_columns_as_its_last_branch_has_channels_is_not_turned():
    """An Inception block's last convolution has fewer channels than the block: 32 of 256, on a map of 32 x 32."""
    block = torchvision.models.googlenet(init_weights=False, aux_logits=False).inception3a
    seen = observe(nn.Sequential(block), torch.rand(1, 192, 32, 32), layers="0")
    assert seen.activations["0"].shape == (1, 256, 32, 32)
    assert torch.equal(seen.maps("0"), seen.activations["0"])


def test_vectors_and_sequences_have_no_places():
    assert as_maps(torch.rand(2, 10)) is None
    assert as_maps(torch.rand(2, 10), Layout()) is None
    assert as_maps(torch.rand(2, 16, 5), Layout((), 2)) is None


def test_a_layers_features_are_those_of_its_last_weights():
    assert feature_count(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())) == 8
    assert feature_count(nn.Linear(4, 7)) == 7
    assert feature_count(nn.LayerNorm((3, 6))) == 6
    assert feature_count(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))) is None


# --- Vision transformers on any grid.


class Transformer(nn.Module):
    """Tokens of patches of 4 x 4 behind class and register tokens."""

    def __init__(self, grid, prefix, width=8, cut="convolution"):
        super().__init__()
        self.cut = cut
        self.project = nn.Conv2d(3, width, 4, 4) if cut == "convolution" else nn.Linear(48, width)
        self.unfold = nn.Unfold(4, stride=4)
        self.register_tokens = nn.Parameter(torch.randn(1, prefix, width))
        self.position = nn.Parameter(torch.randn(1, prefix + grid[0] * grid[1], width))
        self.block = nn.TransformerEncoderLayer(width, 2, 16, batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def patches(self, images):
        if self.cut == "convolution":
            return self.project(images).flatten(2).transpose(1, 2)
        if self.cut == "unfold":
            return self.project(self.unfold(images).transpose(1, 2))
        n, c, h, w = images.shape
        cells = images.view(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1)
        return self.project(cells.reshape(n, -1, 16 * c))

    def forward(self, images):
        front = self.register_tokens.expand(len(images), -1, -1)
        tokens = self.norm(self.block(torch.cat([front, self.patches(images)], 1) + self.position))
        return self.head(tokens.mean(1))


def map_by_hand(model, images, target, layer, grid, prefix):
    """Grad-CAM of the tokens of patches, laid out on their grid."""
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: kept.append(output))
    scores = model(images)[:, target].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(scores, kept[0])
    weights = gradient[:, prefix:].mean(1, keepdim=True)
    return (weights * kept[0][:, prefix:]).sum(2).relu().view(-1, 1, *grid).detach()


GRIDS = [((4, 6), 1), ((14, 16), 1), ((2, 8), 0), ((3, 7), 5), ((2, 7), 2), ((5, 3), 3), ((8, 2), 8), ((1, 9), 7),
         ((3, 3), 4), ((6, 4), 6)]  # fmt: skip


@pytest.mark.parametrize("cut", ["convolution", "unfold", "reshape"])
@pytest.mark.parametrize(("grid", "prefix"), GRIDS)
def test_grad_cam_of_tokens_equals_the_map_made_by_hand_from_their_grid(grid, prefix, cut):
    torch.manual_seed(0)
    model = Transformer(grid, prefix, cut=cut).eval()
    images = torch.rand(2, 3, 4 * grid[0], 4 * grid[1])
    for layer in ("block", "norm"):
        drawn = grad_cam(model, images, 2, layers=layer)[layer]
        by_hand = map_by_hand(model, images, 2, layer, grid, prefix)
        assert drawn.shape == by_hand.shape
        assert torch.allclose(drawn, by_hand, atol=1e-6, rtol=1e-6)


def test_a_convolutions_grid_goes_before_a_square():
    """25 tokens are 4 x 6 and a class token; 16 are 3 x 5 and one."""
    for grid in ((4, 6), (3, 5)):
        seen = observe(Transformer(grid, 1), torch.rand(1, 3, 4 * grid[0], 4 * grid[1]), layers="norm")
        assert seen.layouts["norm"] == Layout(grid, 2, 1)


@pytest.mark.parametrize("tokens", [16, 17, 25])
def test_words_are_never_places(tokens):
    model = nn.Sequential(nn.Embedding(9, 8), nn.LayerNorm(8), nn.Linear(8, 6))
    seen = observe(model, torch.randint(9, (2, tokens)), lambda output: output.sum((1, 2)), layers=["0", "1", "2"])
    assert [seen.maps(layer) for layer in ("0", "1", "2")] == [None] * 3
    with pytest.raises(InvalidArgumentError, match="a sequence, without locations"):
        grad_cam(model, torch.randint(9, (2, tokens)), lambda output: output.sum((1, 2)), layers="2")


class Detector(nn.Module):
    """Object queries attend to the tokens of an image."""

    def __init__(self, queries=10):
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 4, 4)
        self.query_embeddings = nn.Embedding(queries, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        memory = self.encoder(self.backbone(images).flatten(2).transpose(1, 2))
        queries = self.query_embeddings.weight.expand(len(images), -1, -1)
        return self.head(self.decoder(queries, memory))


@pytest.mark.parametrize("queries", [10, 6, 9])
def test_object_queries_are_never_places(queries):
    seen = observe(Detector(queries), torch.rand(2, 3, 8, 12), layers=["backbone", "encoder", "decoder"])
    assert seen.maps("backbone").shape == seen.maps("encoder").shape == (2, 8, 2, 3)
    assert seen.maps("decoder") is None


@pytest.mark.parametrize("side", [(8, 3), (3, 8), (8, 8)])
def test_channels_last_are_told_by_the_module_also_where_all_sides_are_alike(side):
    torch.manual_seed(0)

    class Last(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.inner = nn.Conv2d(8, 8, 3, padding=1), Last(nn.LayerNorm(8), nn.Linear(8, 8))

        def forward(self, x):
            return x + self.inner(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), First(), nn.Sequential(First(), First()))
    layers = ["1", "2", "2.inner", "3"]
    seen = observe(model, torch.rand(2, 3, *side), lambda output: output.sum((1, 2, 3)), layers=layers)
    assert torch.equal(seen.maps("2.inner"), seen.activations["2.inner"].permute(0, 3, 1, 2))
    for layer in ("1", "2", "3"):
        assert torch.equal(seen.maps(layer), seen.activations[layer])


# --- Series and volumes.


def convolutional(dimensions, channels):
    convolution = {1: nn.Conv1d, 3: nn.Conv3d}[dimensions]
    pooling = {1: nn.MaxPool1d, 3: nn.MaxPool3d}[dimensions](2)
    torch.manual_seed(0)
    return nn.Sequential(
        convolution(2, channels, 3, padding=1), nn.ReLU(), pooling, convolution(channels, 6, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.LazyLinear(4),
    ).eval()  # fmt: skip


@pytest.mark.parametrize(("places", "channels"), [((60,), 8), ((16,), 16), ((9,), 9), ((6, 8, 4), 4), ((4, 4, 4), 4)])
def test_series_and_volumes_equal_captums_grad_cam(places, channels):
    model, inputs = convolutional(len(places), channels), torch.randn(3, 2, *places)
    model(inputs)
    target = torch.tensor([0, 3, 1])
    for layer in ("0", "1", "2", "3", "4"):
        drawn = grad_cam(model, inputs, target, layers=layer)[layer]
        captums = captum.attr.LayerGradCam(model, model.get_submodule(layer)).attribute(
            inputs, target, relu_attributions=True
        )
        assert drawn.shape == captums.shape
        assert torch.allclose(drawn, captums, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("places", "words", "index"), [((10,), "0[5,3]", (5, 3)), ((4, 6, 2), "0[5,1,3,0]", (5, 1, 3, 0))]
)
def test_units_channels_and_maxima_of_series_and_volumes(places, words, index):
    model, inputs = convolutional(len(places), 7), torch.randn(3, 2, *places)
    model(inputs)
    output = model[0](inputs).detach()
    scores = {target: observe(model, inputs, target).scores for target in (words, "0[5]", "max(0[5])")}
    assert torch.equal(scores[words], output[(slice(None), *index)])
    assert torch.allclose(scores["0[5]"], output[:, 5].flatten(1).sum(1), atol=1e-5)
    assert torch.equal(scores["max(0[5])"], output[:, 5].flatten(1).amax(1))
    middle = observe(model, inputs, unit("0", 5)).scores
    assert torch.equal(middle, output[(slice(None), 5, *(side // 2 for side in places))])


def test_a_recurrent_net_has_a_value_for_each_step():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.lstm(x)[0][:, -1])

    seen = observe(Steps(), torch.randn(2, 24, 6), layers="lstm")
    assert torch.equal(seen.maps("lstm"), seen.activations["lstm"].transpose(1, 2))


def test_a_receptive_field_of_a_series_is_refused():
    model, inputs = convolutional(1, 4), torch.randn(3, 2, 60)
    model(inputs)
    with pytest.raises(InvalidArgumentError, match="needs an image"):
        receptive_fields(model, inputs, "0", [(0, 3)])


@pytest.mark.parametrize("size", [(9,), (9, 5), (4, 9, 5)])
def test_maps_are_enlarged_in_their_own_dimensions(size):
    constant = resize(torch.full((2, 3, 1, *[2] * len(size)), 4.0), size)
    assert constant.shape == (2, 3, 1, *size)
    assert torch.allclose(constant, torch.tensor(4.0))
