"""Detectors for tests: a tiny one by formula, and torchvision's with features that do not vanish."""

import torch
from torch import nn
from torch.nn import functional as F


class SquareDetector(nn.Module):
    """Finds bright red (class 1) and blue (class 2) squares: takes and returns what torchvision's detectors do.

    An object is a peak of the color's mean over windows of 8 x 8, with a box of 8 x 8 that leans to where there is more
    of the color; its score is a sigmoid.

    Args:
        masks: whether it returns masks, too.
    """

    def __init__(self, masks=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([[1.0, -0.5, -0.5], [-0.5, -0.5, 1.0]])[:, :, None, None]
        self.masks = masks

    def forward(self, images, targets=None):
        found = [self.of_image(image) for image in images]
        if not self.training:
            return found
        return {"loss_scores": sum(1 - image["scores"].sum() for image in found)}

    def of_image(self, image):
        colors = F.relu(self.conv(image[None]))
        means = F.avg_pool2d(colors, 8, stride=2)[0]  # [2, h, w]
        boxes, labels, scores = [], [], []
        for label, mean in enumerate(means, 1):
            peaks = (mean == F.max_pool2d(mean[None], 5, stride=1, padding=2)[0]) & (mean > 0.1)
            for y, x in peaks.nonzero().tolist():
                left, top = 2 * x + 0.4 * mean[y, x], 2 * y + 0.2 * mean[y, x]
                boxes.append(torch.stack([left, top, left + 8, top + 8]))
                labels.append(label)
                scores.append(torch.sigmoid(4 * mean[y, x] - 2))
        if not boxes:
            return {
                "boxes": image.new_zeros(0, 4),
                "labels": torch.zeros(0, dtype=torch.long),
                "scores": image.new_zeros(0),
                **({"masks": image.new_zeros(0, 1, *image.shape[1:])} if self.masks else {}),
            }
        order = torch.stack(scores).argsort(descending=True)
        result = {
            "boxes": torch.stack(boxes)[order],
            "labels": torch.tensor(labels)[order],
            "scores": torch.stack(scores)[order],
        }
        if self.masks:
            result["masks"] = torch.stack([self.mask(image, box) for box in result["boxes"].detach()])
        return result

    @staticmethod
    def mask(image, box):
        mask = torch.zeros(1, *image.shape[1:])
        left, top, right, bottom = box.round().int().tolist()
        mask[:, max(top, 0) : bottom, max(left, 0) : right] = 0.9
        return mask


def squares(sizes=((24, 32), (32, 24))):
    """Images ``[3, H, W]`` of some sizes, each with a red and a weaker blue square, and their truth."""
    images, truths = [], []
    for number, (height, width) in enumerate(sizes):
        image = torch.full((3, height, width), 0.1)
        top, left = 2 + 2 * (number % 2), 4
        image[0, top : top + 8, left : left + 8] = 0.9
        image[2, -10:-2, -10:-2] = 0.6
        boxes = [[left, top, left + 8, top + 8], [width - 10, height - 10, width - 2, height - 2]]
        masks = torch.zeros(2, height, width, dtype=torch.uint8)
        for mask, (x, y, right, bottom) in zip(masks, boxes, strict=True):
            mask[y:bottom, x:right] = 1
        images.append(image)
        truths.append({"boxes": torch.tensor(boxes).float(), "labels": torch.tensor([1, 2]), "masks": masks})
    return images, truths


def faster_rcnn():
    """A small torchvision detector of random weights whose activations are normalized, as trained ones' are."""
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=4,
        min_size=64,
        max_size=96,
        box_score_thresh=0,
        rpn_score_thresh=0,
        rpn_pre_nms_top_n_test=30,
        rpn_post_nms_top_n_test=20,
        box_detections_per_img=10,
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.backbone.train()((torch.rand(8, 3, 64, 96) - 0.45) / 0.225)
    return model.eval()
