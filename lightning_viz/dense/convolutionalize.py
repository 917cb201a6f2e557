"""Convolutionalization: classifiers as fully convolutional networks, which return class maps of larger images."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from lightning_viz.dense.graph_rewrite import ImageSize, check_equal, rewrite, stride_of
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.pytree import first_tensor
from lightning_viz.hooks.receptive_field import Rectangle

__all__ = ["ClassMaps", "FullyConvolutional", "class_maps", "convolutionalize"]


class ClassLocation(NamedTuple):
    """Position of the highest score of a class in an image.

    Attributes:
        label: the class.
        score: as the model returns it.
        window: the pixels of an input of the classifier's size there.
    """

    label: int
    score: float
    window: Rectangle


@dataclass(frozen=True)
class ClassMaps:
    """Scores of a classifier at every position of larger images.

    Attributes:
        scores: ``[N, classes, H', W']``, as the model returns them.
        stride: rows and columns of pixels between neighboring cells.
        size: height and width of the classifier's inputs, in pixels.
        canvas: height and width of the larger images, in pixels.
    """

    scores: Tensor
    stride: ImageSize
    size: ImageSize
    canvas: ImageSize

    def window(self, row: int, column: int) -> Rectangle:
        """The pixels of a cell: the sliding window that the classifier would have as input."""
        top, left = row * self.stride[0], column * self.stride[1]
        bottom, right = top + self.size[0], left + self.size[1]
        return Rectangle(top, min(bottom, self.canvas[0]), left, min(right, self.canvas[1]))

    def log_probabilities(self) -> ClassMaps:
        """Class maps of each cell's log-probabilities, which separate classes even if all scores are high."""
        return replace(self, scores=self.scores.log_softmax(1))

    def strongest(self, label: int | None = None) -> list[ClassLocation]:
        """Class and cell of the highest score of each image.

        Args:
            label: the class to locate; any if omitted.
        """
        chosen = self.scores if label is None else self.scores[:, label : label + 1]
        locations = []
        for scores in chosen:
            best = torch.unravel_index(scores.argmax(), scores.shape)
            channel, row, column = (int(index) for index in best)
            locations.append(
                ClassLocation(channel if label is None else label, float(scores[best]), self.window(row, column))
            )
        return locations


class FullyConvolutional(nn.Module):
    """A classifier as a fully convolutional network, from images ``[N, C, H, W]`` to class maps.

    Attributes:
        network: the traced layers.
        size: height and width of the inputs at which it equals the classifier, in pixels.
        stride: rows and columns of pixels between neighboring cells of its maps.
    """

    def __init__(self, network: fx.GraphModule, size: ImageSize, stride: ImageSize) -> None:
        super().__init__()
        self.network, self.size, self.stride = network, size, stride
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Class maps ``[N, classes, H', W']`` of images ``[N, C, H, W]`` of at least the classifier's size."""
        if images.dim() != 4 or images.shape[2] < self.size[0] or images.shape[3] < self.size[1]:
            least = f"{self.size[0]} x {self.size[1]}"
            raise InvalidArgumentError(f"images are {list(images.shape)}; pass [N, C, H, W] of at least {least} pixels")
        scores: Tensor | None = first_tensor(self.network(images))
        assert scores is not None
        return scores


def convolutionalize(model: nn.Module, inputs: Tensor) -> FullyConvolutional:
    r"""Convolutionalization: converts fully connected layers to convolutions, for larger images (Long et al., 2015).

    The first of them, on maps of C x h x w values, gets a kernel of the size of the map; later ones are 1 x 1:

    .. math:: W^{conv}_{o,c,y,x} = W_{o,\,(c h + y) w + x}

    A global pooling becomes one over a window of the map's size. So every cell of the class maps holds the scores of a
    sliding window.

    At the classifier's input size the two networks are equal. On a larger image a cell equals the classifier on its
    window if convolutions are not padded; otherwise the classifier has zeros around its image where the cell has the
    surroundings of the window. A pooling that does not lie between the last maps and the classes, as in
    squeeze-and-excitation, keeps pooling the whole image.

    Args:
        model: a classifier that `torch.fx` can trace, without branches on values. Its state is restored; the new
            network is in eval mode and has its own copies of the weights.
        inputs: images of the classifier's input size, ``[N, C, H, W]``; one is enough.

    Raises:
        InvalidArgumentError: the model cannot be traced, does not return ``[N, classes]``, has layers without a known
            convolutional form, or pools windows of different sizes.
    """
    example = inputs[:1].detach()
    if inputs.dim() != 4:
        raise InvalidArgumentError(
            f"inputs are {list(inputs.shape)}; pass images of the classifier's input size, [N, C, H, W]"
        )
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    with evaluation_mode(model), torch.no_grad():
        expected = first_tensor(model(noise.clone()))
        if expected is None or expected.dim() != 2:
            shape = "no tensor" if expected is None else list(expected.shape)
            raise InvalidArgumentError(f"{type(model).__name__} returns {shape}, but a classifier returns [N, classes]")
        try:
            traced = fx.symbolic_trace(model)
        except Exception as error:
            raise InvalidArgumentError(
                f"{type(model).__name__} cannot be traced ({type(error).__name__}: {error}); torch.fx needs a forward "
                "without branches on values, so pass the part of the model that has none"
            ) from error
    network = copy.deepcopy(traced).eval()
    network.requires_grad_(True)
    with torch.no_grad():
        ShapeProp(network).propagate(noise.clone())
        rewrite(network)
        check_equal(network, noise, expected)
    size = (example.shape[2], example.shape[3])
    return FullyConvolutional(network, size, stride_of(network, example.shape))


def class_maps(model: nn.Module, canvas: Tensor, size: int | ImageSize | None = None) -> ClassMaps:
    """Class maps: scores of a classifier at every position of larger images, in one pass.

    Args:
        model: a classifier, which is convolutionalized for this call, or the result of `convolutionalize`.
        canvas: larger images, ``[N, C, H, W]``.
        size: height and width of the classifier's inputs, in pixels; one number if they are square.

    Raises:
        InvalidArgumentError: no size for a classifier, or one without a convolutional form (see `convolutionalize`).
    """
    if not isinstance(model, FullyConvolutional):
        if size is None:
            raise InvalidArgumentError("size is missing; pass the height and width of the classifier's inputs")
        height, width = (size, size) if isinstance(size, int) else size
        model = convolutionalize(model, canvas.new_zeros(1, canvas.shape[1], height, width))
    with torch.no_grad():
        scores = model(canvas)
    return ClassMaps(scores, model.stride, model.size, (canvas.shape[2], canvas.shape[3]))
