"""A layer's output as maps: a place in the map is the place in the image."""

import pytest
import torch
import torchvision
from torch import nn

from lightning_viz.hooks.feature_maps import as_maps, feature_count
from lightning_viz.hooks.layers import select_layers
from lightning_viz.hooks.observe import observe


def maps_of(model, images, layer):
    seen = observe(model, images, layers=layer)
    return as_maps(seen.activations[layer], features=feature_count(select_layers(model, layer)[layer]))


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


def test_register_tokens_in_front_are_left_out():
    patches = torch.arange(9.0).view(1, 9, 1).expand(2, 9, 5)
    with_registers = torch.cat([torch.full((2, 5, 5), -1.0), patches], dim=1)
    assert as_maps(with_registers, features=5)[1, 3].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


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
    output = torch.rand(1, 256, 32, 32)
    assert torch.equal(as_maps(output, features=feature_count(block)), output)


def test_vectors_and_sequences_of_channels_have_no_places():
    assert as_maps(torch.rand(2, 10)) is None
    assert as_maps(torch.rand(2, 3, 9), features=3) is None  # [N, K, L] of a one-dimensional convolution
    assert as_maps(torch.rand(2, 3, 5)) is None  # too few tokens for a square
    assert as_maps(torch.rand(2, 34, 5), features=5) is None  # nine in front would be too many
    assert as_maps(torch.rand(2, 3, 4, 5, 6)) is None


def test_a_layers_features_are_those_of_its_last_weights():
    assert feature_count(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())) == 8
    assert feature_count(nn.Linear(4, 7)) == 7
    assert feature_count(nn.LayerNorm((3, 6))) == 6
    assert feature_count(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))) is None
