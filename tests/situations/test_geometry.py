"""Kind 4: a layer's output as maps, by its module and by how the input's shape reached it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz import ActivationMaps, ActivationStatistics, FirstLayerFilters, GradCAM
from lightning_viz.attribution import grad_cam, occlusion
from lightning_viz.hooks.layers import select_layers

from .brought import Classifier, rows
from .nets import BertClassifier, MlpMixer, ResNet, SwinTransformer, UNet, VisionTransformer
from .situation import REFUSED, Call, Training, situation, situations
from .truth import grad_cam_by_hand, own_class

labels = torch.arange(4)


def maps_of_tokens(model: nn.Module, layer: nn.Module, images: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    """Grad-CAM of a layer's tokens ``[N, T, K]`` without those in front, by hand ``[N, h, w]``."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    outputs = model(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(own_class(labels)(outputs).sum(), kept[0])
    weights = gradient[:, prefix:].mean(1, keepdim=True)
    return F.relu((weights * kept[0][:, prefix:]).sum(2)).view(-1, *grid).detach()


def equal(drawn: Tensor, by_hand: Tensor) -> None:
    """The same map, to 1e-6, on the same places."""
    assert drawn.squeeze(1).shape == by_hand.shape, f"{list(drawn.shape)} is not {list(by_hand.shape)}"
    torch.testing.assert_close(drawn.squeeze(1), by_hand, atol=1e-6, rtol=1e-6)


def transformer(grid: tuple[int, int], prefix: int):
    """Grad-CAM of a vision transformer's last block, on one grid."""
    model = VisionTransformer(grid, prefix).eval()
    images = torch.rand(4, 3, 4 * grid[0], 4 * grid[1])

    def check(seen):
        equal(seen.value["blocks.1.norm1"], maps_of_tokens(model, model.blocks[1].norm1, images, grid, prefix))

    return Call(lambda: grad_cam(model, images, labels, layers="blocks.1.norm1")), check


@situation(4, "a ViT on 64 x 96 in patches of 16: 4 x 6 patches and a class token are 25, no 5 x 5")
def vit_of_25_tokens():
    return transformer((4, 6), 1)


@situation(4, "a ViT on 224 x 256 in patches of 16: 14 x 16 and a class token, 225, no 15 x 15")
def vit_of_225_tokens():
    return transformer((14, 16), 1)


@situation(4, "a ViT with a class token and four registers, as DINOv2's")
def vit_with_registers():
    return transformer((3, 7), 5)


@situation(4, "a distilled ViT with two tokens in front, as DeiT's")
def vit_distilled():
    return transformer((2, 7), 2)


@situation(4, "a ViT without any token in front, 2 x 8 patches: 16, no 4 x 4")
def vit_without_prefix():
    return transformer((2, 8), 0)


@situation(4, "ten grids of a ViT, with 0 to 8 tokens in front")
def vit_on_ten_grids():
    grids = [
        ((4, 6), 1),
        ((6, 4), 3),
        ((2, 8), 0),
        ((5, 3), 1),
        ((3, 3), 4),
        ((7, 2), 2),
        ((1, 9), 7),
        ((2, 4), 8),
        ((8, 5), 6),
        ((3, 8), 5),
    ]
    cases = []
    for grid, prefix in grids:
        model, images = VisionTransformer(grid, prefix).eval(), torch.rand(4, 3, 4 * grid[0], 4 * grid[1])
        by_hand = maps_of_tokens(model, model.blocks[0].norm2, images, grid, prefix)
        cases.append((model, images, by_hand))

    def check(seen):
        for drawn, (*_, by_hand) in zip(seen.value, cases, strict=True):
            equal(drawn, by_hand)

    return Call(
        lambda: [
            grad_cam(model, images, labels, layers="blocks.0.norm2")["blocks.0.norm2"] for model, images, _ in cases
        ]
    ), check


@situation(4, "a ViT in training, on 16 x 24")
def vit_in_training():
    images = torch.rand(16, 3, 16, 24)

    def check(seen):
        assert seen.map("grad_cam").shape[1:] == (4, 6)

    return Training(Classifier(VisionTransformer((4, 6))), rows(images, torch.arange(16) % 4)), check


def swin(height: int, width: int):
    """Grad-CAM of channels last, whose number is the map's width or height."""
    model, images = SwinTransformer().eval(), torch.rand(4, 3, 4 * height, 4 * width)

    def check(seen):
        kept: list[Tensor] = []
        handle = model.features[1].register_forward_hook(lambda module, inputs, output: kept.append(output))
        outputs = model(images)
        handle.remove()
        (gradient,) = torch.autograd.grad(own_class(labels)(outputs).sum(), kept[0])
        by_hand = F.relu((gradient.mean((1, 2), keepdim=True) * kept[0]).sum(3)).detach()
        equal(seen.value["features.1"], by_hand)

    return Call(lambda: grad_cam(model, images, labels, layers="features.1")), check


@situation(4, "Swin: channels last, 3 x 8 places of 8 channels")
def swin_as_wide_as_deep():
    return swin(3, 8)


@situation(4, "Swin: channels last, 8 x 3 places of 8 channels")
def swin_as_high_as_deep():
    return swin(8, 3)


@situation(4, "Swin: 8 x 8 places of 8 channels")
def swin_cube():
    return swin(8, 8)


def convolutional(dimensions: int, channels: int) -> nn.Sequential:
    """A classifier of series or volumes."""
    convolution, pooling = ((nn.Conv1d, nn.AdaptiveAvgPool1d), (nn.Conv3d, nn.AdaptiveAvgPool3d))[dimensions == 3]
    return nn.Sequential(
        convolution(1, channels, 3, padding=1), nn.ReLU(), pooling(1), nn.Flatten(), nn.Linear(channels, 4)
    )


def convolution_maps(inputs: Tensor, channels: int, layer: int):
    """Grad-CAM at a layer in one or three dimensions, by hand and by us."""
    model = convolutional(inputs.dim() - 2, channels).eval()

    def check(seen):
        by_hand = grad_cam_by_hand(model[layer], lambda: model(inputs), own_class(labels))
        equal(seen.value[str(layer)], by_hand)

    return Call(lambda: grad_cam(model, inputs, labels, layers=str(layer))), check


@situation(4, "Conv1d, Grad-CAM at the convolution: a value for each of 60 steps")
def conv1d_at_convolution():
    return convolution_maps(torch.rand(4, 1, 60), 64, 0)


@situation(4, "Conv1d, Grad-CAM at the activation after it: 64 channels are no grid of tokens")
def conv1d_at_activation():
    return convolution_maps(torch.rand(4, 1, 60), 64, 1)


@situation(4, "Conv1d with as many steps as channels")
def conv1d_square():
    return convolution_maps(torch.rand(4, 1, 64), 64, 1)


@situation(4, "Conv3d, Grad-CAM at the activation: a volume")
def conv3d_maps():
    return convolution_maps(torch.rand(4, 1, 6, 8, 5), 4, 1)


@situation(4, "a series in training: every view draws curves over its steps")
def series_in_training():
    def check(seen):
        assert seen.map("grad_cam").shape[-1] == 60
        assert seen.last("activations")["maps"].shape[-1] == 60

    return Training(Classifier(convolutional(1, 8)), rows(torch.rand(16, 1, 60), torch.arange(16) % 4)), check


@situation(4, "a volume in training: every view draws slices")
def volume_in_training():
    def check(seen):
        assert tuple(seen.map("grad_cam").shape[-3:]) == (6, 8, 5)
        assert tuple(seen.last("activations")["maps"].shape[-3:]) == (6, 8, 5)

    return Training(Classifier(convolutional(3, 4)), rows(torch.rand(16, 1, 6, 8, 5), torch.arange(16) % 4)), check


@situation(4, "filters of Conv3d(1, 4, 3): slices, never depth as color")
def conv3d_filters():
    def check(seen):
        drawn = seen.last("filters")
        assert not (drawn.get("as_rgb") and drawn["weights"].shape[1] == 3), "depth is drawn as color"
        assert drawn["weights"].size == 4 * 27

    volumes = rows(torch.rand(16, 1, 6, 8, 5), torch.arange(16) % 4)
    return Training(Classifier(convolutional(3, 4)), volumes, views=[FirstLayerFilters()], draws=("filters",)), check


def statistics(inputs: Tensor):
    """Distributions over the layer, whose channels are counted and not its places."""

    def check(seen):
        drawn = seen.last("statistics")
        assert drawn["units"][0] == 4, drawn["units"]
        assert drawn["numbers"]["dead"] == pytest.approx(0.25)

    net = convolutional(inputs.dim() - 2, 4)
    net[0].weight.data.abs_()
    net[0].bias.data[0] = -100.0
    views = [ActivationStatistics(layers="net.1", steps=[0])]
    return Training(Classifier(net), rows(inputs, torch.arange(16) % 4), views=views, draws=("statistics",)), check


@situation(4, "statistics of Conv3d: per channel, one of four is dead")
def conv3d_statistics():
    return statistics(torch.rand(16, 1, 6, 8, 5))


@situation(4, "statistics of Conv1d: per channel, one of four is dead")
def conv1d_statistics():
    return statistics(torch.rand(16, 1, 60))


def occluded(inputs: Tensor, patch: int):
    """Occlusion without overlap, by hand and by us."""
    model = convolutional(inputs.dim() - 2, 4).eval()

    def check(seen):
        score = own_class(labels)
        counts = [size // patch for size in inputs.shape[2:]]
        drops = []
        for place in torch.cartesian_prod(*map(torch.arange, counts)).view(-1, len(counts)):
            covered = inputs.clone()
            window = [slice(int(start) * patch, int(start) * patch + patch) for start in place]
            covered[(slice(None), slice(None), *window)] = 0
            drops.append((score(model(inputs)) - score(model(covered)))[:, 0])
        by_hand = torch.stack(drops, 1).view(4, *counts).detach()
        equal(seen.value.drop[:, None], by_hand)

    return Call(lambda: occlusion(model, inputs, labels, patch=patch, stride=patch, progress=False)), check


@situation(4, "occlusion of a series: windows of time")
def occlusion_of_series():
    return occluded(torch.rand(4, 1, 60), 10)


@situation(4, "occlusion of a volume: cubes")
def occlusion_of_volume():
    return occluded(torch.rand(4, 1, 6, 8, 4), 2)


@situation(
    4,
    "Grad-CAM of a text encoder's tokens: 16 words are no 4 x 4 image",
    REFUSED,
    says="sequence|no (image|grid|place|location)|without (place|location)",
)
def text_as_image():
    model = BertClassifier().eval()
    ids = torch.randint(0, 20, (4, 16))
    return Call(lambda: grad_cam(model, ids, labels, layers="encoder.layer.0")), lambda seen: None


@situation(
    4,
    "an MLP's hidden units as maps: 16 units are no 4 x 4 image",
    REFUSED,
    says="without (place|location)|no (map|place|location)",
)
def units_as_image():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    return Call(lambda: grad_cam(model, torch.rand(4, 3, 4, 4), labels, layers="1")), lambda seen: None


def default_layer(model: nn.Module, *expected: str):
    """The layer of Grad-CAM if none is named."""

    def check(seen):
        assert list(seen.value) and set(seen.value) <= set(expected), list(seen.value)

    return Call(lambda: select_layers(model, "last_maps")), check


@situation(
    4,
    "Grad-CAM's layer in a ResNet: the last block, no convolution before its BatchNorm and skip",
)
def last_block_of_resnet():
    return default_layer(ResNet(), "layer2", "layer2.1")


@situation(4, "Grad-CAM's layer in an MLP-Mixer: the last mixer, on its grid")
def last_mixer():
    model, images = MlpMixer((3, 5)).eval(), torch.rand(4, 3, 12, 20)

    def check(seen):
        ((call, heat),) = seen.value.items()
        assert call.startswith("blocks.1"), call
        equal(heat, maps_of_tokens(model, model.get_submodule(call), images, (3, 5), 0))

    return Call(lambda: grad_cam(model, images, labels, layers="last_maps")), check


@situation(
    4,
    "Grad-CAM's layer in a segmentation net: the last block of the encoder",
)
def last_encoder_block():
    return default_layer(UNet(), "encoder.1")


def blocks(model: nn.Module, *expected: str):
    """What ``"blocks"`` names."""

    def check(seen):
        assert list(seen.value) == list(expected), list(seen.value)

    return Call(lambda: select_layers(model, "blocks")), check


@situation(4, '`"blocks"` of a timm transformer')
def blocks_of_timm():
    return blocks(VisionTransformer((2, 3)), "blocks.0", "blocks.1")


@situation(4, '`"blocks"` of a torchvision ResNet')
def blocks_of_torchvision():
    return blocks(ResNet(), "layer1.0", "layer1.1", "layer2.0", "layer2.1")


@situation(4, '`"blocks"` of a Hugging Face encoder')
def blocks_of_hugging_face():
    return blocks(BertClassifier(), "encoder.layer.0", "encoder.layer.1")


@situation(
    4,
    "a U-Net in training: activation maps and Grad-CAM of a class over its region",
)
def unet_in_training():
    class Model(Classifier):
        pass

    images = torch.rand(16, 3, 16, 24)
    masks = (images.mean(1) > 0.5).long()
    views = [FirstLayerFilters(), ActivationMaps(), GradCAM(target="region")]

    def check(seen):
        assert seen.map("grad_cam/net.encoder.1").shape[1:] == (8, 12)

    return Training(
        Model(UNet()), rows(images, masks), views=views, draws=("filters", "activations", "grad_cam")
    ), check


@pytest.mark.parametrize("row", situations(__name__))
def test_geometry(row, tmp_path: Path):
    row.verify(tmp_path)
