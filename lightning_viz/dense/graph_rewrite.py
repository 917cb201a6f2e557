"""Graph rewriting of a traced classifier for maps: each vector is replaced by the map it was flattened from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn import functional as F

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.pytree import first_tensor

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


def rewrite(network: fx.GraphModule) -> None:
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

    Elementwise operations stay unchanged, and so do unknown ones, which `check_equal` detects at the end.
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
        inputs = [
            argument for argument in node.all_input_nodes if _shape(argument) is not None and argument.op != "get_attr"
        ]
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


def _source(node: fx.Node) -> fx.Node | None:
    """The first tensor argument of a node."""
    return next(
        (argument for argument in node.all_input_nodes if _shape(argument) is not None and argument.op != "get_attr"),
        None,
    )


def _shape(node: fx.Node | None) -> torch.Size | None:
    """The shape of a node's output at the classifier's input size; None if it is not one tensor."""
    return getattr(node.meta.get("tensor_meta"), "shape", None) if node is not None else None


def check_equal(network: fx.GraphModule, inputs: Tensor, expected: Tensor) -> None:
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
        raise InvalidArgumentError(
            f"convolutionalized, the model returns {shape}, not {[*expected.shape, 1, 1]}: {cause}"
        )
    gap = float((output[..., 0, 0] - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not gap <= _TOLERANCE:
        raise InvalidArgumentError(f"convolutionalized, the model differs by {gap:.1%} of its largest output: {cause}")


def stride_of(network: fx.GraphModule, shape: torch.Size) -> ImageSize:
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
            raise InvalidArgumentError(
                f"the model cannot take an image larger than {list(shape[2:])}: {error}"
            ) from error
        assert maps is not None
        if maps.shape[axis] == 1:
            raise InvalidArgumentError(
                "the class maps do not grow with the image, because a layer before them pools all positions"
            )
        strides.append(round(_FAR / (maps.shape[axis] - 1)))
    return strides[0], strides[1]
