"""Kind 5: detectors with torchvision's interface; targets `box[k]`, fixed on the unperturbed image."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_viz import ActivationMaps, FirstLayerFilters, GradCAM, LayerEmbeddings, Predictions, Saliency
from lightning_viz.adversarial import pgd
from lightning_viz.attribution import grad_cam, gradient, occlusion

from .brought import Module, loader
from .detector import CELL, Detector, box_score
from .situation import ARGUMENT, Call, Training, situation, situations, usual_views


def scenes(count: int = 16, *sizes: tuple[int, int]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images with a red or blue cell, and where it is."""
    generator = torch.Generator().manual_seed(1)
    images, targets = [], []
    for number in range(count):
        height, width = sizes[number % len(sizes)] if sizes else (24, 32)
        image = torch.rand(3, height, width, generator=generator) * 0.2
        row, column = number % (height // CELL), number // 2 % (width // CELL)
        top, left = row * CELL, column * CELL
        image[2 * (number % 2), top : top + CELL, left : left + CELL] += 0.7
        mask = torch.zeros(1, height, width, dtype=torch.uint8)
        mask[0, top : top + CELL, left : left + CELL] = 1
        boxes = torch.tensor([[left, top, left + CELL, top + CELL]], dtype=torch.float32)
        targets.append({"boxes": boxes, "labels": torch.tensor([number % 2 + 1]), "masks": mask})
        images.append(image)
    return images, targets


class Detection(Module):
    """A LightningModule as torchvision's tutorials have it."""

    def forward(self, images, targets=None):
        return self.net(images, targets)

    def training_step(self, batch, batch_idx):
        return sum(self(*batch).values())

    def validation_step(self, batch, batch_idx):
        found = self(batch[0])
        self.log("detections", float(sum(len(one["boxes"]) for one in found)), batch_size=len(found))


def batches(images, targets):
    """Lists of images and of targets, as torchvision's references collate them."""
    return loader(
        lambda index: (images[index], targets[index]),
        len(images),
        collate_fn=lambda rows: tuple(zip(*rows, strict=True)),
    )


DRAWN = ("filters", "activations", "grad_cam", "saliency")


def explains_boxes(seen) -> None:
    """Grad-CAM is brightest in the cell of the detection."""
    targets = {float(image.sum()): target for image, target in zip(*scenes(), strict=True)}
    shown = seen.last("grad_cam")
    assert "box" in str(shown["target"]), shown["target"]
    images, _ = seen.inputs  # and their sizes
    for heat, image in zip(seen.map("grad_cam"), images[:8], strict=True):
        left, top, *_ = targets[min(targets, key=lambda key: abs(key - float(image.sum())))]["boxes"][0].int().tolist()
        full = F.interpolate(heat[None, None], (24, 32), mode="bilinear")[0, 0]
        row, column = divmod(int(full.argmax()), 32)
        assert top <= row < top + CELL and left <= column < left + CELL, (row, column, top, left)


@situation(5, "a detector in training: losses in training mode, detections in evaluation; every view draws `box[0]`")
def detector():
    return Training(Detection(Detector()), batches(*scenes()), draws=DRAWN), explains_boxes


@situation(5, "images of unlike sizes in a list")
def images_of_unlike_sizes():
    def check(seen):
        assert seen.of("grad_cam")

    return Training(Detection(Detector()), batches(*scenes(16, (24, 32), (16, 40), (32, 24))), draws=DRAWN), check


@situation(5, "instance segmentation: masks beside boxes")
def instance_segmentation():
    return Training(Detection(Detector(masks=True)), batches(*scenes()), draws=DRAWN), explains_boxes


@situation(5, "`Predictions` of a detector: boxes beside the truth, matched and missed ones told apart")
def predicted_boxes():
    def check(seen):
        drawn = seen.last("predictions")
        assert any("box" in name or "match" in name for name in drawn), sorted(drawn)

    views = [FirstLayerFilters(), Predictions()]
    return Training(Detection(Detector()), batches(*scenes()), views=views, draws=("filters", "predictions")), check


@situation(5, "activation maps and embeddings of a detector's layers")
def layers_of_detector():
    views = [ActivationMaps(), LayerEmbeddings(layers=["net.backbone"])]

    def check(seen):
        drawn = seen.last("activations/net.backbone.0")
        assert drawn["maps"].shape[-2:] == (24, 32)
        assert len(drawn["images"]) > 1, "one image of all that the list holds"

    return Training(Detection(Detector()), batches(*scenes()), views=views, draws=("activations", "embedding")), check


@situation(
    5,
    "nothing is detected above 0.05: that is said once, filters and activations are drawn",
    ARGUMENT,
    says=r"no detection above 0\.05",
)
def nothing_detected():
    images, targets = scenes()
    dark = [0.05 * image for image in images]
    detector = Detector()
    detector.head.bias.data -= 6.0
    return Training(Detection(detector), batches(dark, targets), draws=("filters", "activations")), lambda seen: None


@situation(5, "a target that names the second detection, `box[1]`")
def second_box():
    def check(seen):
        assert "box" in str(seen.last("saliency")["target"])

    views = [Saliency(target="box[1]"), GradCAM(target="box[1]")]
    detector = Detector(threshold=0.0)
    return Training(Detection(detector), batches(*scenes()), views=views, draws=("saliency", "grad_cam")), check


def by_hand(detector: Detector, images: list[Tensor]):
    """The score of the first detections, fixed on these images, as a function of images."""
    with torch.no_grad():
        fixed = detector(images)
    return lambda perturbed: box_score(detector, perturbed, fixed)


@situation(5, "the gradient of `box[0]` equals autograd on the detector's own forward, to 1e-6")
def gradient_of_box():
    detector, images = Detector().eval(), scenes(4)[0]
    score = by_hand(detector, images)
    leaves = [image.clone().requires_grad_() for image in images]
    expected = torch.autograd.grad(score(leaves).sum(), leaves)

    def check(seen):
        for given, truth in zip(seen.value, expected, strict=True):
            torch.testing.assert_close(given, truth, atol=1e-6, rtol=1e-6)

    return Call(lambda: gradient(detector, images, "box[0]")), check


@situation(5, "without a target a detector's `box[0]` is explained")
def default_target_is_a_box():
    detector, images = Detector().eval(), scenes(4)[0]

    def check(seen):
        for given, named in zip(*seen.value, strict=True):
            torch.testing.assert_close(given, named)

    return Call(lambda: (gradient(detector, images), gradient(detector, images, "box[0]"))), check


@situation(5, "Grad-CAM of `box[0]` equals the map by hand, to 1e-6")
def grad_cam_of_box():
    detector, images = Detector().eval(), scenes(4)[0]
    score, kept = by_hand(detector, images), []
    handle = detector.backbone[1].register_forward_hook(lambda module, inputs, output: kept.append(output))
    value = score(images)
    handle.remove()
    gradients = torch.autograd.grad(value.sum(), kept)
    pairs = zip(kept, gradients, strict=True)
    expected = torch.cat([F.relu((slope.mean((2, 3), keepdim=True) * maps).sum(1)) for maps, slope in pairs]).detach()

    def check(seen):
        drawn = torch.cat([heat.flatten(0, 1) for heat in seen.value.values()])
        torch.testing.assert_close(drawn, expected, atol=1e-6, rtol=1e-6)

    return Call(lambda: grad_cam(detector, images, "box[0]", layers="backbone.1")), check


@situation(5, "occlusion of `box[0]`: the score times the IoU with the fixed box")
def occlusion_of_box():
    detector, images = Detector().eval(), scenes(4)[0]
    score = by_hand(detector, images)

    def check(seen):
        with torch.no_grad():
            plain = score(images)
            for row, column in ((0, 0), (1, 2), (2, 3)):
                covered = [image.clone() for image in images]
                for image in covered:
                    image[:, row * CELL : row * CELL + CELL, column * CELL : column * CELL + CELL] = 0
                torch.testing.assert_close(seen.value.drop[:, row, column], plain - score(covered), atol=1e-6, rtol=0)

    return Call(lambda: occlusion(detector, images, "box[0]", patch=CELL, stride=CELL, progress=False)), check


@situation(5, "an attack on a detection's score lowers it")
def attack_on_box():
    detector, images = Detector().eval(), scenes(4)[0]
    score = by_hand(detector, images)

    def check(seen):
        attacked = list(seen.value.pixels)
        assert (score(attacked) < score(images) - 0.1).all()

    return Call(lambda: pgd(detector, images, labels="box[0]", epsilon=0.2, progress=False)), check


@situation(5, "torchvision's own detector, lists of images: the gradient of `box[0]` equals autograd's, to 1e-6")
def torchvision_detector():
    detection = pytest.importorskip("torchvision.models.detection")
    torch.manual_seed(0)
    net = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64, box_score_thresh=0.0,
        rpn_pre_nms_top_n_test=20, rpn_post_nms_top_n_test=5,
    ).eval()  # fmt: skip
    images = [torch.rand(3, 48, 64)]
    score = by_hand(net, images)
    leaves = [image.clone().requires_grad_() for image in images]
    (expected,) = torch.autograd.grad(score(leaves).sum(), leaves)

    def check(seen):
        torch.testing.assert_close(seen.value[0], expected, atol=1e-6, rtol=1e-4)

    return Call(lambda: gradient(net, images, "box[0]")), check


@situation(
    5,
    "Hugging Face's DETR: `logits` and `pred_boxes`, the truth as `class_labels` and centers in shares of the image",
)
def detr():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.detector = Detector()

        def forward(self, images):
            maps = self.detector.head(self.detector.backbone(images)).flatten(2).transpose(1, 2)
            none = torch.zeros_like(maps[..., :1])
            boxes = torch.rand(len(images), maps.shape[1], 4, generator=torch.Generator().manual_seed(0))
            return {"logits": torch.cat([maps, none], 2), "pred_boxes": boxes + 0 * maps[..., :1]}

    class Model(Module):
        def forward(self, images):
            return self.net(images)

        def step(self, batch):
            output = self(batch["pixel_values"])
            return output["logits"].square().mean() + output["pred_boxes"].mean()

    def check(seen):
        assert "box" in str(seen.last("grad_cam")["target"])
        assert seen.of("saliency/guided_backprop")
        (truth,) = seen.last("predictions")["truth"][:1]
        assert truth.boxes.tolist() == [[4, 4, 12, 12]] and truth.labels.tolist() == [2]

    images = scenes()[0]
    height, width = images[0].shape[1:]
    middle = torch.tensor([[8 / width, 8 / height, 8 / width, 8 / height]])

    def collated(parts):
        found = [{"class_labels": torch.tensor([2]), "boxes": middle} for _ in parts]
        return {"pixel_values": torch.stack(parts), "labels": found}

    data = loader(lambda index: images[index], collate_fn=collated)
    views = [*usual_views(), Predictions(), Saliency(method="guided_backprop")]
    return Training(Model(Net()), data, views=views, draws=(*DRAWN, "predictions")), check


@pytest.mark.parametrize("row", situations(__name__))
def test_detection(row, tmp_path: Path):
    row.verify(tmp_path)
