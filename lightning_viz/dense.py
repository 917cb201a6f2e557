"""Dense prediction: classifiers made convolutional, whose classes become maps over images larger than they learned."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from lightning_viz.hooks.guard import looking
from lightning_viz.hooks.receptive_field import Rectangle
from lightning_viz.hooks.structure import first_tensor

Size = tuple[int, int]

_TOLERANCE = 1e-4  # of the largest output: single precision sums thousands of products in another order
_FAR = 10**6  # pixels added to see how many cells they add; nothing of that size is computed

_FLAT = ("flatten", "view", "reshape", "squeeze", torch.flatten, torch.reshape, torch.squeeze, nn.Flatten)
_SOFTMAX = ("softmax", "log_softmax", torch.softmax, torch.log_softmax, F.softmax, F.log_softmax)
_POOLS: dict[Any, type[nn.AvgPool2d | nn.MaxPool2d]] = {
    **dict.fromkeys((nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d, torch.mean, "mean"), nn.AvgPool2d),
    **dict.fromkeys((nn.AdaptiveMaxPool2d, torch.amax, "amax"), nn.MaxPool2d),
}
"""What pools to a number of places, whatever the map's size, and what pools over a window of one size."""


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

    def forward(self, images: Tensor) -> Tensor:
        """Class maps ``[N, classes, H', W']`` of images ``[N, C, H, W]`` of at least the classifier's own size."""
        if images.dim() != 4 or images.shape[2] < self.size[0] or images.shape[3] < self.size[1]:
            least = f"{self.size[0]} x {self.size[1]}"
            raise ValueError(f"images are {list(images.shape)}: give [N, C, H, W] of at least {least} pixels")
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
        raise ValueError(f"inputs are {list(inputs.shape)}: give images of the classifier's own size, [N, C, H, W]")
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    with looking(model), torch.no_grad():
        expected = first_tensor(model(noise.clone()))
        if expected is None or expected.dim() != 2:
            shape = "no tensor" if expected is None else list(expected.shape)
            raise ValueError(f"{type(model).__name__} returns {shape}: a classifier returns [N, classes]")
        try:
            traced = fx.symbolic_trace(model)
        except Exception as error:
            raise ValueError(
                f"{type(model).__name__} cannot be traced ({type(error).__name__}: {error}): torch.fx needs a forward "
                "without branches on values; give the part of the model that has none"
            ) from error
    network = copy.deepcopy(traced).eval()
    network.requires_grad_(True)
    with torch.no_grad():
        ShapeProp(network).propagate(noise.clone())
        _rewrite(network)
        _check_equal(network, noise, expected)
    size = (example.shape[2], example.shape[3])
    return FullyConvolutional(network, size, _stride(network, example.shape))


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
            raise ValueError("size is missing: give the height and width of the images that the classifier takes")
        height, width = (size, size) if isinstance(size, int) else size
        model = convolutionalize(model, canvas.new_zeros(1, canvas.shape[1], height, width))
    with torch.no_grad():
        scores = model(canvas)
    return ClassMaps(scores, model.stride, model.size, (canvas.shape[2], canvas.shape[3]))


# The rewriting of a traced graph: a vector [N, F] stands for the map that was flattened into it, of known places.


def _rewrite(network: fx.GraphModule) -> None:
    """Every layer between the last maps and the classes in its form for maps, in place."""
    vectors: dict[fx.Node, torch.Size] = {}  # the map [K, h, w] that each stands for
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
    """Whether a call makes a vector of a map; of a single place it may take one dimension at a time."""
    same = kind in _FLAT and len(after) < 4 and after[1:].numel() == before[1:].numel()
    return same and (len(after) == 2 or before[1:].numel() == before[1])


def _as_convolution(network: fx.GraphModule, node: fx.Node, places: torch.Size) -> torch.Size:
    """The form for maps of a layer of vectors, which stand for maps ``[K, h, w]``; what its output stands for.

    What acts on every value alike stays as it is, and what is not known too: the check at the end tells them apart.
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
        module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]  # they differ in the shape that they allow
    elif isinstance(module, (nn.Softmax, nn.LogSoftmax)):
        module.dim = 1  # the classes' dimension, which was the last one too
    elif layer in _SOFTMAX:
        node.args, node.kwargs = node.args[:1], {**node.kwargs, "dim": 1}
    return places


def _slide_pooling_before(network: fx.GraphModule, node: fx.Node | None) -> None:
    """Make the pooling that leads to a node, with nothing but layers of one input between, one over windows."""
    while node is not None:
        before, after = _shape(_source(node)), _shape(node)
        if _kind(network, node) in _POOLS and before is not None and after is not None and before[:2] == after[:2]:
            _slide(network, node)
            return
        inputs = [one for one in node.all_input_nodes if _shape(one) is not None and one.op != "get_attr"]
        node = inputs[0] if len(inputs) == 1 else None


def _slide(network: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Put in the place of a pooling to a number of places one over windows; of all places, one that moves by one."""
    source = node.all_input_nodes[0]
    height, width = source.meta["tensor_meta"].shape[2:]
    rows, columns = node.meta["tensor_meta"].shape[2:] or (1, 1)
    if height % rows or width % columns:
        raise ValueError(
            f"{node.name!r} pools {height} x {width} places to {rows} x {columns}, in windows of different sizes: give "
            f"inputs of a size at which both are multiples, as a rule the size that the model was trained at"
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
    """What a node calls: a module's class, a function, or a method's name."""
    return type(network.get_submodule(str(node.target))) if node.op == "call_module" else node.target


def _source(node: fx.Node) -> fx.Node | None:
    """The first tensor that a node is given."""
    return next((one for one in node.all_input_nodes if _shape(one) is not None and one.op != "get_attr"), None)


def _shape(node: fx.Node | None) -> torch.Size | None:
    """The shape of a node's output at the classifier's own size; None where it is no single tensor."""
    return getattr(node.meta.get("tensor_meta"), "shape", None) if node is not None else None


def _check_equal(network: fx.GraphModule, inputs: Tensor, expected: Tensor) -> None:
    """What was rewritten must give what the model gave; a layer whose form for maps is not known shows here."""
    remedy = "between its last maps and its classes stands a layer whose form for maps is not known"
    try:
        found = first_tensor(network(inputs.clone()))
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"the model has no convolutional form ({error}): {remedy}") from error
    if found is None or found.shape != (*expected.shape, 1, 1):
        shape = None if found is None else list(found.shape)
        raise ValueError(f"made convolutional the model returns {shape}, not {[*expected.shape, 1, 1]}: {remedy}")
    gap = float((found[..., 0, 0] - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not gap <= _TOLERANCE:
        raise ValueError(f"made convolutional the model differs by {gap:.1%} of its largest output: {remedy}")


def _stride(network: fx.GraphModule, shape: torch.Size) -> Size:
    """Pixels from one cell of the class maps to the next: how many more cells a much larger image has."""
    shapes = {name: one.to("meta") for name, one in (*network.named_parameters(), *network.named_buffers())}
    strides = []
    for axis in (2, 3):
        larger = list(shape)
        larger[axis] += _FAR
        try:
            maps = first_tensor(functional_call(network, shapes, (torch.empty(larger, device="meta"),)))
        except RuntimeError as error:
            raise ValueError(f"the model cannot take an image larger than {list(shape[2:])}: {error}") from error
        assert maps is not None
        if maps.shape[axis] == 1:
            raise ValueError("the class maps do not grow with the image: a layer pools all places on the way to them")
        strides.append(round(_FAR / (maps.shape[axis] - 1)))
    return strides[0], strides[1]
