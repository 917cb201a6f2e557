"""Convolutionalization: classifiers as fully convolutional networks, which return class maps of larger images."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.model_state import evaluation_mode
from lightning_viz.hooks.pytree import first_tensor
from lightning_viz.hooks.receptive_field import Rectangle
from lightning_viz.rich_display import html_display

__all__ = ["ClassMaps", "FullyConvolutional", "class_maps", "convolutionalize"]


ImageSize = tuple[int, int]

_TOLERANCE = 1e-4  # of the largest output: single precision, with sums in another order
_FAR = 10**6  # pixels added to count the cells they add, on the meta device

_FLAT = ("flatten", "view", "reshape", "squeeze", torch.flatten, torch.reshape, torch.squeeze, nn.Flatten)
_SOFTMAX = ("softmax", "log_softmax", torch.softmax, torch.log_softmax, F.softmax, F.log_softmax)
_POOLS: dict[Any, type[nn.AvgPool2d | nn.MaxPool2d]] = {
    **dict.fromkeys((nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d, torch.mean, "mean"), nn.AvgPool2d),
    **dict.fromkeys((nn.AdaptiveMaxPool2d, torch.amax, "amax"), nn.MaxPool2d),
}
"""Poolings to a fixed number of positions, and the corresponding pooling over windows."""


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


@html_display()
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
            channel = channel if label is None else label
            locations.append(ClassLocation(channel, float(scores[best]), self.window(row, column)))
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
        raise InvalidArgumentError(f"inputs are {list(inputs.shape)}; pass images [N, C, H, W] of the input size")
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
        _rewrite(network)
        _check_equal(network, noise, expected)
    size = (example.shape[2], example.shape[3])
    return FullyConvolutional(network, size, _stride_of(network, example.shape))


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


# Rewriting of the traced graph: each vector is replaced by the map that it was flattened from.


def _rewrite(network: fx.GraphModule) -> None:
    """Convert every layer between the last maps and the classes to its form for maps, in place.

    The network is traced, and its nodes have their shapes at the classifier's input size (`ShapeProp`).

    Raises:
        InvalidArgumentError: the windows of a pooling have different sizes.
    """
    vectors: dict[fx.Node, torch.Size] = {}  # the map [K, h, w] of each flattened vector
    flattenings = []
    for node in list(network.graph.nodes):
        source, kind = _source(node), _kind(network, node)
        before, after = _shape(source), _shape(node)
        if source is None or before is None or after is None:
            continue
        if _flattens(kind, before, after) and (source in vectors or len(before) == 4):
            _slide_pooling_before(network, source)
            vectors[node] = vectors.get(source, before[1:])
            flattenings.append(node)
        elif source in vectors:
            vectors[node] = _as_convolution(network, node, vectors[source])
        elif kind in _POOLS and len(before) == 4 and after[1:] == before[1:2]:  # pools and flattens in one
            vectors[_slide(network, node)] = torch.Size((before[1], 1, 1))
    for node in flattenings:
        node.replace_all_uses_with(node.all_input_nodes[0])
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()


def _flattens(kind: Any, before: torch.Size, after: torch.Size) -> bool:
    """Whether a call flattens a map to a vector; from a single position possibly one dimension at a time."""
    same = kind in _FLAT and len(after) < 4 and after[1:].numel() == before[1:].numel()
    return same and (len(after) == 2 or before[1:].numel() == before[1])


def _as_convolution(network: fx.GraphModule, node: fx.Node, places: torch.Size) -> torch.Size:
    """Convert a layer of vectors that were maps ``[K, h, w]``; returns the shape of its output as maps.

    Elementwise operations stay unchanged, and so do unknown ones, which `_check_equal` detects at the end.
    """
    layer = _kind(network, node)
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, nn.Linear):
        window = (places[1], places[2])
        convolution = nn.Conv2d(places[0], module.out_features, window, bias=module.bias is not None)
        convolution.weight = nn.Parameter(module.weight.detach().view(-1, *places))
        convolution.bias = None if module.bias is None else nn.Parameter(module.bias.detach())
        network.set_submodule(str(node.target), convolution)
        return torch.Size((module.out_features, 1, 1))
    if isinstance(module, nn.BatchNorm1d):
        module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]  # they differ only in the shapes they accept
    elif isinstance(module, (nn.Softmax, nn.LogSoftmax)):
        module.dim = 1  # the dimension of the classes
    elif layer in _SOFTMAX:
        node.args, node.kwargs = node.args[:1], {**node.kwargs, "dim": 1}
    return places


def _slide_pooling_before(network: fx.GraphModule, node: fx.Node | None) -> None:
    """Replace the pooling before a node, with only single-input layers between, by one over windows."""
    while node is not None:
        before, after = _shape(_source(node)), _shape(node)
        if _kind(network, node) in _POOLS and before is not None and after is not None and before[:2] == after[:2]:
            _slide(network, node)
            return
        inputs = _sources(node)
        node = inputs[0] if len(inputs) == 1 else None


def _slide(network: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Replace a pooling to a fixed number of positions by one over windows; a global pooling gets stride 1."""
    source = node.all_input_nodes[0]
    height, width = source.meta["tensor_meta"].shape[2:]
    rows, columns = node.meta["tensor_meta"].shape[2:] or (1, 1)
    if height % rows or width % columns:
        raise InvalidArgumentError(
            f"{node.name!r} pools {height} x {width} positions to {rows} x {columns}, in windows of different sizes; "
            f"pass inputs of a size at which both are multiples, usually the size that the model was trained at"
        )
    window = (height // rows, width // columns)
    stride = (window[0] if rows > 1 else 1, window[1] if columns > 1 else 1)
    network.add_submodule(f"{node.name}_sliding", _POOLS[_kind(network, node)](window, stride))
    with network.graph.inserting_after(node):
        sliding = network.graph.call_module(f"{node.name}_sliding", (source,))
    sliding.meta = node.meta
    node.replace_all_uses_with(sliding)
    network.graph.erase_node(node)
    return sliding


def _kind(network: fx.GraphModule, node: fx.Node) -> Any:
    """The callee of a node: a module's class, a function, or a method's name."""
    return type(network.get_submodule(str(node.target))) if node.op == "call_module" else node.target


def _sources(node: fx.Node) -> list[fx.Node]:
    """The tensor arguments of a node that are no weights."""
    return [argument for argument in node.all_input_nodes if _shape(argument) is not None and argument.op != "get_attr"]


def _source(node: fx.Node) -> fx.Node | None:
    """The first of them."""
    return next(iter(_sources(node)), None)


def _shape(node: fx.Node | None) -> torch.Size | None:
    """The shape of a node's output at the classifier's input size; None if it is not one tensor."""
    return getattr(node.meta.get("tensor_meta"), "shape", None) if node is not None else None


def _check_equal(network: fx.GraphModule, inputs: Tensor, expected: Tensor) -> None:
    """Check that the rewritten network reproduces the model, which detects layers without a known form for maps.

    Raises:
        InvalidArgumentError: its outputs for inputs of the classifier's size are not those expected, ``[N, classes]``.
    """
    cause = "a layer between its last maps and its classes has no known form for maps"
    try:
        output = first_tensor(network(inputs.clone()))
    except (RuntimeError, ValueError, TypeError) as error:
        raise InvalidArgumentError(f"the model has no convolutional form ({error}): {cause}") from error
    if output is None or output.shape != (*expected.shape, 1, 1):
        shape = None if output is None else list(output.shape)
        raise InvalidArgumentError(f"the converted model returns {shape}, not {[*expected.shape, 1, 1]}: {cause}")
    gap = float((output[..., 0, 0] - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not gap <= _TOLERANCE:
        raise InvalidArgumentError(f"the converted model differs by {gap:.1%} of its largest output: {cause}")


def _stride_of(network: fx.GraphModule, shape: torch.Size) -> ImageSize:
    """Pixels between neighboring cells of the class maps, from the number of cells of a much larger image.

    Raises:
        InvalidArgumentError: it does not take larger images, or the maps do not grow with them.
    """
    shapes = {name: value.to("meta") for name, value in (*network.named_parameters(), *network.named_buffers())}
    strides = []
    for axis in (2, 3):
        larger = list(shape)
        larger[axis] += _FAR
        try:
            maps = first_tensor(functional_call(network, shapes, (torch.empty(larger, device="meta"),)))
        except RuntimeError as error:
            raise InvalidArgumentError(f"the model takes no image larger than {list(shape[2:])}: {error}") from error
        assert maps is not None
        if maps.shape[axis] == 1:
            raise InvalidArgumentError("the class maps do not grow with the image: a layer pools all positions")
        strides.append(round(_FAR / (maps.shape[axis] - 1)))
    return strides[0], strides[1]
