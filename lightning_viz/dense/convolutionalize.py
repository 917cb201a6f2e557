"""Classifiers made convolutional: their classes become maps over images larger than those that they learned."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from lightning_viz.dense.graph_rewrite import Size, check_equal, rewrite, stride_of
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.pytree import first_tensor
from lightning_viz.hooks.receptive_field import Rectangle

__all__ = ["ClassMaps", "FullyConvolutional", "class_maps", "convolutionalize"]


class Found(NamedTuple):
    """Where in an image a class scores highest.

    Attributes:
        label: the class.
        score: as the model returns it.
        window: the pixels of which the model, at its own size, would have been shown.
    """

    label: int
    score: float
    window: Rectangle


@dataclass(frozen=True)
class ClassMaps:
    """A classifier's scores all over larger images, from one pass.

    Attributes:
        scores: ``[N, classes, H', W']``, as the model returns them.
        stride: rows and columns of pixels from one cell to the next.
        size: height and width of the images that the classifier takes, in pixels.
        canvas: height and width of the images given.
    """

    scores: Tensor
    stride: Size
    size: Size
    canvas: Size

    def window(self, row: int, column: int) -> Rectangle:
        """The pixels of a cell: those that the classifier would have been shown by a sliding window."""
        top, left = row * self.stride[0], column * self.stride[1]
        bottom, right = top + self.size[0], left + self.size[1]
        return Rectangle(top, min(bottom, self.canvas[0]), left, min(right, self.canvas[1]))

    def log_probabilities(self) -> ClassMaps:
        """The same of each cell's log-probabilities, which tell a class from the others where all scores are high."""
        return replace(self, scores=self.scores.log_softmax(1))

    def strongest(self, label: int | None = None) -> list[Found]:
        """For each image the class and the cell of the highest score.

        Args:
            label: the class to look for; any if omitted.
        """
        chosen = self.scores if label is None else self.scores[:, label : label + 1]
        found = []
        for scores in chosen:
            best = torch.unravel_index(scores.argmax(), scores.shape)
            which, row, column = (int(index) for index in best)
            found.append(Found(which if label is None else label, float(scores[best]), self.window(row, column)))
        return found


class FullyConvolutional(nn.Module):
    """A classifier without fully connected layers (see `convolutionalize`); of images ``[N, C, H, W]`` class maps.

    Attributes:
        network: the traced layers.
        size: height and width of the images at which it equals the classifier, in pixels.
        stride: rows and columns of pixels from one cell of its maps to the next.
    """

    def __init__(self, network: fx.GraphModule, size: Size, stride: Size) -> None:
        super().__init__()
        self.network, self.size, self.stride = network, size, stride
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Class maps ``[N, classes, H', W']`` of images ``[N, C, H, W]`` of at least the classifier's own size."""
        if images.dim() != 4 or images.shape[2] < self.size[0] or images.shape[3] < self.size[1]:
            least = f"{self.size[0]} x {self.size[1]}"
            raise InvalidArgumentError(f"images are {list(images.shape)}: give [N, C, H, W] of at least {least} pixels")
        scores: Tensor | None = first_tensor(self.network(images))
        assert scores is not None
        return scores


def convolutionalize(model: nn.Module, inputs: Tensor) -> FullyConvolutional:
    r"""A classifier's fully connected layers as convolutions, so that it takes larger images (Long et al., 2015).

    The first of them, over maps of C x h x w places, has the kernel of the whole map; those behind it are 1 x 1:

    .. math:: W^{conv}_{o,c,y,x} = W_{o,\,(c h + y) w + x}

    A pooling of all places becomes one over a window of the places that there are at the classifier's own size. So
    every cell of the class maps is what the classifier would say of a window, and the windows slide.

    At the classifier's own size the two are equal. On a larger image a cell equals the classifier on its window where
    convolutions are not padded; where they are, the classifier saw zeros around its image, and the cell sees what
    surrounds the window. A pooling that is not on the way from the last maps to the classes (squeeze-and-excitation)
    goes on pooling the whole image.

    Args:
        model: a classifier that `torch.fx` can trace: no branches on values. It is left as found; the new network is
            in eval mode and has copies of its weights, which train on their own.
        inputs: images as the model takes them, ``[N, C, H, W]``, of its own size; one is enough.

    Raises:
        ValueError: the model cannot be traced, returns no ``[N, classes]``, has layers whose convolutional form is not
            known, or pools windows of different sizes.
    """
    example = inputs[:1].detach()
    if inputs.dim() != 4:
        raise InvalidArgumentError(
            f"inputs are {list(inputs.shape)}: give images of the classifier's own size, [N, C, H, W]"
        )
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    with evaluation_mode(model), torch.no_grad():
        expected = first_tensor(model(noise.clone()))
        if expected is None or expected.dim() != 2:
            shape = "no tensor" if expected is None else list(expected.shape)
            raise InvalidArgumentError(f"{type(model).__name__} returns {shape}: a classifier returns [N, classes]")
        try:
            traced = fx.symbolic_trace(model)
        except Exception as error:
            raise InvalidArgumentError(
                f"{type(model).__name__} cannot be traced ({type(error).__name__}: {error}): torch.fx needs a forward "
                "without branches on values; give the part of the model that has none"
            ) from error
    network = copy.deepcopy(traced).eval()
    network.requires_grad_(True)
    with torch.no_grad():
        ShapeProp(network).propagate(noise.clone())
        rewrite(network)
        check_equal(network, noise, expected)
    size = (example.shape[2], example.shape[3])
    return FullyConvolutional(network, size, stride_of(network, example.shape))


def class_maps(model: nn.Module, canvas: Tensor, size: int | Size | None = None) -> ClassMaps:
    """A classifier's scores all over images larger than its own, in one pass.

    Args:
        model: a classifier, made convolutional for this once, or what `convolutionalize` made of it.
        canvas: images as the model takes them, ``[N, C, H, W]``.
        size: height and width of the classifier's own images, in pixels; one number where they are square.

    Raises:
        ValueError: a classifier without its size, or one that has no convolutional form (see `convolutionalize`).
    """
    if not isinstance(model, FullyConvolutional):
        if size is None:
            raise InvalidArgumentError(
                "size is missing: give the height and width of the images that the classifier takes"
            )
        height, width = (size, size) if isinstance(size, int) else size
        model = convolutionalize(model, canvas.new_zeros(1, canvas.shape[1], height, width))
    with torch.no_grad():
        scores = model(canvas)
    return ClassMaps(scores, model.stride, model.size, (canvas.shape[2], canvas.shape[3]))
