"""How far a dense prediction is right: of classes by overlap, of images by noise."""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = 255
"""The class that masks of PASCAL VOC and most data sets after it give to pixels that do not count."""


def intersection_over_union(prediction: Tensor, truth: Tensor, classes: int, *, ignore_index: int = IGNORED) -> Tensor:
    r"""The overlap of each class's predicted and true pixels, over all samples together (Jaccard, 1901).

    .. math:: \mathrm{IoU}_c = \frac{|P_c \cap T_c|}{|P_c \cup T_c|}

    Args:
        prediction: class of each pixel, ``[N, H, W]`` or any other shape.
        truth: of the same shape.
        classes: how many there are.
        ignore_index: pixels of this true class, and of negative ones, do not count.

    Returns:
        ``[classes]`` in [0, 1]; NaN for a class that is neither predicted nor true anywhere.

    Raises:
        ValueError: the shapes differ, or the truth holds a class that does not exist.
    """
    counted = _counted(prediction, truth, ignore_index)
    if bool((truth[counted] >= classes).any()):
        raise ValueError(
            f"the masks hold class {int(truth[counted].max())} where there are {classes}: give that which does not "
            "count as ignore_index"
        )
    pairs = torch.bincount(truth[counted].long() * classes + prediction[counted].long(), minlength=classes**2)
    confusion = pairs.view(classes, classes).double()
    both = confusion.diagonal()
    return (both / (confusion.sum(0) + confusion.sum(1) - both)).float()


def pixel_accuracy(prediction: Tensor, truth: Tensor, *, ignore_index: int = IGNORED) -> float:
    """The share of pixels whose class is right; NaN where none counts.

    Args:
        prediction: class of each pixel, ``[N, H, W]`` or any other shape.
        truth: of the same shape.
        ignore_index: pixels of this true class, and of negative ones, do not count.
    """
    counted = _counted(prediction, truth, ignore_index)
    return float((prediction == truth)[counted].float().mean())


def peak_signal_to_noise(images: Tensor, truth: Tensor) -> Tensor:
    r"""How little images differ from what they should be, in decibels.

    .. math:: \mathrm{PSNR} = -10 \log_{10} \operatorname{mean}\big((x - y)^2\big)

    Args:
        images: pixels in [0, 1], ``[N, C, H, W]``.
        truth: of the same shape.

    Returns:
        ``[N]``; infinite where the two are equal.
    """
    return -10 * (images - truth).square().flatten(1).mean(1).log10()


def _counted(prediction: Tensor, truth: Tensor, ignore_index: int) -> Tensor:
    if prediction.shape != truth.shape:
        raise ValueError(f"the prediction is {list(prediction.shape)}, the truth {list(truth.shape)}: give one of each")
    return (truth != ignore_index) & (truth >= 0)
