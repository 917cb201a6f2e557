"""A traced classifier's graph, rewritten for maps: a vector stands for the map that was flattened into it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn import functional as F

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.pytree import first_tensor

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


def rewrite(network: fx.GraphModule) -> None:
    """Give every layer between the last maps and the classes its form for maps, in place.

    Args:
        network: traced, its nodes' shapes known at the classifier's own size (`ShapeProp`).

    Raises:
        ValueError: a pooling's windows are of different sizes.
    """
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
        raise InvalidArgumentError(
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


def check_equal(network: fx.GraphModule, inputs: Tensor, expected: Tensor) -> None:
    """What was rewritten must give what the model gave; a layer whose form for maps is not known shows here.

    Args:
        network: rewritten.
        inputs: of the classifier's own size.
        expected: what the model returned for them, ``[N, classes]``.

    Raises:
        ValueError: it does not.
    """
    remedy = "between its last maps and its classes stands a layer whose form for maps is not known"
    try:
        found = first_tensor(network(inputs.clone()))
    except (RuntimeError, ValueError, TypeError) as error:
        raise InvalidArgumentError(f"the model has no convolutional form ({error}): {remedy}") from error
    if found is None or found.shape != (*expected.shape, 1, 1):
        shape = None if found is None else list(found.shape)
        raise InvalidArgumentError(
            f"made convolutional the model returns {shape}, not {[*expected.shape, 1, 1]}: {remedy}"
        )
    gap = float((found[..., 0, 0] - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not gap <= _TOLERANCE:
        raise InvalidArgumentError(f"made convolutional the model differs by {gap:.1%} of its largest output: {remedy}")


def stride_of(network: fx.GraphModule, shape: torch.Size) -> Size:
    """Pixels from one cell of the class maps to the next: how many more cells a much larger image has.

    Args:
        network: rewritten.
        shape: of images of the classifier's own size.

    Raises:
        ValueError: it does not take larger images, or the maps do not grow with them.
    """
    shapes = {name: one.to("meta") for name, one in (*network.named_parameters(), *network.named_buffers())}
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
                "the class maps do not grow with the image: a layer pools all places on the way to them"
            )
        strides.append(round(_FAR / (maps.shape[axis] - 1)))
    return strides[0], strides[1]
