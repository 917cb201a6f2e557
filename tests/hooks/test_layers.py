"""Layers by name, pattern, type and role, whatever wraps the model."""

import pytest
import torch
import torchvision
from torch import nn

from lightning_viz.errors import LayerNotFoundError
from lightning_viz.hooks.layers import named_layers, select_layers, top_level_blocks


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(x + self.conv2(self.relu(self.conv1(x))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.layer1 = nn.Sequential(Block(4), Block(4))
        self.layer2 = Block(4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.flatten(self.pool(self.layer2(self.layer1(self.stem(x))))))


class Wrapper(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


CONVOLUTIONS = ["stem", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2"]
CONVOLUTIONS += ["layer2.conv1", "layer2.conv2"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("layer1.0", ["layer1.0"]),
        (["head", "stem"], ["head", "stem"]),
        (["stem", "st*", nn.Conv2d, "stem"], CONVOLUTIONS),
        ("layer1.*", ["layer1.0", "layer1.0.conv1", "layer1.0.conv2", "layer1.0.relu",
                      "layer1.1", "layer1.1.conv1", "layer1.1.conv2", "layer1.1.relu"]),
        ("layer?.conv2", ["layer2.conv2"]),
        ("*.conv[1]", ["layer1.0.conv1", "layer1.1.conv1", "layer2.conv1"]),
        (nn.Conv2d, CONVOLUTIONS),
        ("Conv2d", CONVOLUTIONS),
        (Block, ["layer1.0", "layer1.1", "layer2"]),
        ("Block", ["layer1.0", "layer1.1", "layer2"]),
        ("_ConvNd", CONVOLUTIONS),
        ((nn.Linear, nn.Flatten), ["head", "flatten"]),
        ("first_conv", ["stem"]),
        ("last_conv", ["layer2.conv2"]),
        ("first_linear", ["head"]),
        (["last_linear", "first_conv"], ["head", "stem"]),
        ("blocks", ["layer1.0", "layer1.1", "layer2"]),
        ("parts", ["stem", "layer1", "layer2", "head"]),
        ("last_maps", ["layer2"]),
        ([], []),
    ],
)  # fmt: skip
def test_layers_by_name_glob_type_and_role_in_the_order_asked_for(asked, expected):
    net = Net()
    found = select_layers(net, asked)
    assert list(found) == expected
    for name, module in found.items():
        assert module is net.get_submodule(name)


def test_a_name_goes_before_a_role_and_a_type():
    class ClassSpec(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Linear(2, 2)
            self.Linear = nn.ReLU()
            self.other = nn.Linear(2, 2)

    net = ClassSpec()
    assert list(select_layers(net, "blocks")) == ["blocks"]
    assert select_layers(net, "Linear") == {"Linear": net.Linear}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("layr2", "no layer matches 'layr2'; did you mean 'layer2', 'layer1', 'layer2.relu'?"),
        ("layer1.0.conv3", "no layer matches 'layer1.0.conv3'; did you mean 'layer1.0.conv2', 'layer1.0.conv1', "
                           "'layer1.1.conv2'?"),
        ("zzz", "no layer matches 'zzz'; the model's layers are 'stem', 'layer1', 'layer1.0', 'layer1.0.conv1', "
                "'layer1.0.conv2', 'layer1.0.relu', 'layer1.1', 'layer1.1.conv1', 'layer1.1.conv2', 'layer1.1.relu', "
                "'layer2', 'layer2.conv1' and 5 more"),
    ],
)  # fmt: skip
def test_the_error_lists_the_nearest_names(asked, message):
    with pytest.raises(LayerNotFoundError) as error:
        select_layers(Net(), asked)
    assert str(error.value) == message


def test_the_error_for_types_and_roles_says_what_the_model_has():
    with pytest.raises(LayerNotFoundError) as error:
        select_layers(nn.Sequential(nn.Linear(2, 2)), nn.Conv2d)
    assert str(error.value) == "no layer is a Conv2d; the model's layers are '0'"
    with pytest.raises(LayerNotFoundError) as error:
        select_layers(nn.Sequential(nn.Linear(2, 2)), "last_conv")
    assert str(error.value) == "the model has no last conv; its layers are '0'"
    with pytest.raises(LayerNotFoundError, match="the model has no blocks; its layers are none"):
        select_layers(nn.Identity(), "blocks")


def test_one_wrong_name_among_right_ones_is_an_error():
    with pytest.raises(LayerNotFoundError, match="layr4"):
        select_layers(Net(), ["stem", "layr4"])


def test_a_compiled_model_and_compiled_parts_keep_their_names():
    whole = torch.compile(Net(), backend="eager")
    assert list(select_layers(whole, nn.Conv2d)) == CONVOLUTIONS
    assert list(select_layers(whole, "blocks")) == ["layer1.0", "layer1.1", "layer2"]
    part = Net()
    inner, part.layer2 = part.layer2, torch.compile(part.layer2, backend="eager")
    assert select_layers(part, "layer2")["layer2"] is inner
    assert list(named_layers(part)) == list(named_layers(Net()))
    both = torch.compile(part, backend="eager")
    assert list(named_layers(both)) == list(named_layers(Net()))
    inside = Net()
    inside.layer1[0].compile(backend="eager")
    assert list(named_layers(inside)) == list(named_layers(Net()))


def test_a_shared_module_answers_to_each_of_its_names_and_counts_once_by_type():
    shared = nn.Conv2d(4, 4, 3)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert select_layers(net, ["0", "2"]) == {"0": shared, "2": shared}
    assert list(select_layers(net, nn.Conv2d)) == ["0"]
    assert list(select_layers(net, "last_conv")) == ["0"]


def test_a_lone_wrapper_is_entered_for_blocks():
    assert top_level_blocks(Wrapper(Net())) == ["net.stem", "net.layer1", "net.layer2", "net.head"]
    assert top_level_blocks(Wrapper(Wrapper(Net())))[0] == "net.net.stem"
    assert top_level_blocks(Wrapper(nn.Linear(2, 2))) == ["net"]
    assert top_level_blocks(Wrapper(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)))) == ["net.1"]
    assert top_level_blocks(torch.compile(Wrapper(Net()), backend="eager"))[0] == "net.stem"
    assert top_level_blocks(Wrapper(nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.ReLU()}))) == ["net.a"]
    metric_beside = Wrapper(Net())
    metric_beside.loss = nn.CrossEntropyLoss()  # holds no weights
    assert top_level_blocks(metric_beside)[0] == "net.stem"


def test_a_list_of_modules_is_never_called_so_its_parts_are_the_blocks():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(2, 2)
            self.stages = nn.ModuleList([nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))])

    assert top_level_blocks(Listed()) == ["stem", "stages.0", "stages.1"]
    assert top_level_blocks(Wrapper(Listed())) == ["net.stem", "net.stages.0", "net.stages.1"]


def test_roles_on_a_real_network():
    net = torchvision.models.resnet18()
    assert list(select_layers(net, ["first_conv", "last_conv", "last_linear"])) == ["conv1", "layer4.1.conv2", "fc"]
    assert top_level_blocks(net) == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]


@pytest.mark.parametrize(
    ("name", "last", "first_block", "blocks"),
    [
        ("resnet18", "layer4.1", "layer1.0", 8),
        ("densenet121", "features.denseblock4", "features.denseblock1", 4),  # 58 layers in 4 stages
        ("googlenet", "inception5b", "inception3a", 9),
        ("efficientnet_b0", "features.8", "features.1.0", 16),
        ("convnext_tiny", "features.7.2", "features.1", 4),
        ("swin_t", "features.7.1.norm1", "features.1.0", 12),
        ("maxvit_t", "blocks.3", "blocks.0.layers.0", 11),
        ("vit_b_16", "encoder.layers.encoder_layer_11.ln_1", "encoder.layers.encoder_layer_0", 12),
        ("vgg11", "features.18", "features", 2),
    ],
)
def test_the_last_maps_and_the_blocks_of_known_architectures(name, last, first_block, blocks):
    options = {"googlenet": {"init_weights": False, "aux_logits": True}}.get(name, {})
    with torch.device("meta"):
        net = getattr(torchvision.models, name)(**options)
    assert list(select_layers(net, "last_maps")) == [last]
    assert next(iter(select_layers(net, "blocks"))) == first_block
    assert len(select_layers(net, "blocks")) == blocks


def test_the_last_maps_of_a_segmentation_net_are_those_of_its_encoder():
    with torch.device("meta"):
        net = torchvision.models.segmentation.fcn_resnet50(weights_backbone=None)
    assert list(select_layers(net, "last_maps")) == ["backbone.layer4.2"]
    up = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.ConvTranspose2d(8, 4, 2, 2))
    assert list(select_layers(nn.Sequential(*up, nn.Conv2d(4, 2, 1)), "last_maps")) == ["2"]
    parts = {"segformer": nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), "decode_head": nn.Conv2d(4, 2, 1)}
    assert list(select_layers(nn.ModuleDict({"model": nn.ModuleDict(parts)}), "last_maps")) == ["model.segformer.1"]


def test_a_lone_convolution_goes_on_to_its_normalization_and_activation():
    normalized = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    assert list(select_layers(normalized, "last_maps")) == ["2"]
    assert list(select_layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "last_maps")) == ["0"]


def test_many_blocks_without_stages_are_thinned_and_end_with_the_last():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.ModuleList([Block(2) for _ in range(24)])

    assert list(select_layers(Encoder(), "blocks")) == [f"layer.{index}" for index in range(1, 24, 2)]


@pytest.mark.parametrize("role", ["last_conv", "last_maps", "blocks"])
def test_a_role_is_found_without_listing_the_layers_for_each_of_them(role, monkeypatch):
    counts, listed = [], named_layers
    for size in (2, 20):
        calls = []
        monkeypatch.setattr("lightning_viz.hooks.layers.named_layers", lambda model: calls.append(1) or listed(model))
        select_layers(nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()) for _ in range(size))), role)
        counts.append(len(calls))
    assert counts[0] == counts[1]
