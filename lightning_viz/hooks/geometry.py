"""The geometry of a layer's output: which of its axes are places, and which one holds the channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import pooling
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from lightning_viz.hooks.pytree import all_tensors, first_tensor, sample_count

__all__ = ["Layout", "as_maps"]

_PREFIX = 8  # at most so many class and register tokens stand before a vision transformer's patches
_POOLING = tuple(
    base
    for name, base in vars(pooling).items()
    if isinstance(base, type) and issubclass(base, nn.Module) and "Pool" in name and not name.startswith("Fractional")
)
_FIRST = (_ConvNd, _NormBase, nn.GroupNorm, nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, *_POOLING)
_ATTENTION = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_LAST = (nn.Linear, nn.Embedding, nn.RNNBase, *_ATTENTION)


@dataclass(frozen=True)
class Layout:
    """How a layer's output ``[N, ...]`` holds channels and places.

    Attributes:
        grid: the numbers of places, ``(L,)``, ``(H, W)`` or ``(D, H, W)``; empty where the output has none, as a vector
            per sample, or a sequence that no grid belongs to.
        channel_axis: of the output.
        prefix: number of tokens in front of those that are places.
    """

    grid: tuple[int, ...] = ()
    channel_axis: int = 1
    prefix: int = 0


def as_maps(output: Tensor, layout: Layout | None = None) -> Tensor | None:
    """Turn a layer's output into maps with one, two or three dimensions; None where it has no places.

    Args:
        output: ``[N, K, *S]``, ``[N, *S, K]`` or tokens ``[N, T, K]``.
        layout: of the output, see `Observation.layouts`; channels first, ``[N, K, *S]``, if omitted.

    Returns:
        ``[N, K, L]``, ``[N, K, H, W]`` or ``[N, K, D, H, W]``, without the class and register tokens.
    """
    if layout is None:
        return output if 3 <= output.dim() <= 5 else None
    if not layout.grid:
        return None
    places = output[:, layout.prefix :] if layout.prefix else output
    maps = places.movedim(layout.channel_axis, 1)
    return maps if maps.shape[2:] == layout.grid else maps.reshape(len(maps), maps.shape[1], *layout.grid)


class Geometry:
    """The layouts of the outputs of one forward pass.

    Modules say where their channels are: first after a convolution, a batch normalization or a pooling, last after a
    linear layer, a layer normalization or an attention. What passes on the output of others (an activation, a block)
    has the layout of the latest output of that shape; where axes are equally long, a block that keeps the shape has
    that of the first output inside it. Tokens ``[N, T, K]`` belong to the latest grid of a convolution
    that has so many places beside the model's own class and register tokens, to one of its halvings (patches merged),
    or, where no convolution cut the patches, to the grid of square patches of an input; else they are a sequence.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        tensors = all_tensors(inputs)
        self._model, self._count = model, sample_count(inputs)
        self._shapes = [tuple(x.shape[1:]) for x in tensors if x.is_floating_point() and x.dim() > 2]
        self._ids = {x.shape[1] for x in tensors if _is_integer(x) and x.dim() == 2}  # lengths of texts
        self._axes: dict[tuple[int, ...], tuple[int, int]] = {}  # by shape: channel axis, and its place in memory
        self._calls: list[tuple[nn.Module, tuple[int, ...], int]] = []
        self._grids: dict[tuple[int, ...], int] = {}  # with the number of channels, the latest last
        self._patch: int | None = None  # values that the first linear layer takes
        self._prefixes: dict[int, set[int]] = {}
        self._own: dict[int, list[tuple[str, int]]] = {}
        self.open = True

    def see(self, module: nn.Module, output: Any) -> None:
        """Take note of a module's output."""
        tensor, axis = first_tensor(output), None
        if self.open and tensor is not None and not tensor.is_nested and tensor.dim() > 2:
            axis = _channel_axis(module, tensor)
        if tensor is None or axis is None:
            return
        shape = tuple(tensor.shape[1:])
        self._axes.pop(shape, None)
        self._axes[shape] = axis, _memory_order(tensor).index(axis)
        self._calls.append((module, shape, axis))
        if self._patch is None and isinstance(module, nn.Linear):
            self._patch = module.in_features
        grid = shape[1:]
        flattened = len(grid) == 1 and any(len(known) > 1 and math.prod(known) == grid[0] for known in self._grids)
        if axis == 1 and math.prod(grid) > 1 and not flattened:
            self._grids.pop(grid, None)
            self._grids[grid] = shape[0]

    def layout(self, module: nn.Module, inputs: Any, output: Tensor, name: str = "") -> Layout:
        """The layout of the output of a module, whose name and inputs are known."""
        if output.is_nested or output.dim() < 3:
            return Layout()
        self.see(module, output)
        shape, last = tuple(output.shape[1:]), output.dim() - 1
        axis = _channel_axis(module, output) or self._passed_on(module, inputs, output)
        if axis is None and last == 2:
            return self._unseen(output, name)
        if axis is None and self._are_heads(shape):
            return Layout((), last)
        if axis is None:  # a new shape: as the latest output with so many dimensions
            axis = next((known for of, (known, _) in reversed(self._axes.items()) if len(of) == last), 1)
        if axis == 1:
            return Layout(shape[1:] if last <= 4 else ())
        if last == 2:
            return self._tokens(output, name)
        own = (not self._count or len(output) == self._count) and last <= 4
        return Layout(shape[:-1] if own and self._plausible(shape[:-1]) else (), last)

    def _passed_on(self, module: nn.Module, inputs: Any, output: Tensor) -> int | None:
        """The channel axis of the latest output of that shape, which may have been permuted."""
        shape, source = tuple(output.shape[1:]), first_tensor(inputs)
        if shape not in self._axes:
            return None
        axis, place = self._axes[shape]
        if shape.count(shape[axis - 1]) > 1 and source is not None and source.shape == output.shape:
            parts = set(module.modules())
            inside = list(takewhile(lambda call: call[0] in parts, reversed(self._calls)))
            first = next((known for _, of, known in reversed(inside) if of == shape), None)
            if first is not None:
                return first
        moved = _memory_order(output)[place]  # of axes of the same length, memory tells which is which
        return moved if moved in (1, output.dim() - 1) and shape[moved - 1] == shape[axis - 1] else axis

    def _unseen(self, output: Tensor, name: str) -> Layout:
        """The layout of ``[N, a, b]`` where no output had that shape before."""
        first, last = output.shape[1:]
        for grid, channels in reversed(self._grids.items()):
            count = math.prod(grid)
            if last == channels and first - count in self._extra(channels):
                return self._tokens(output, name)
            if first == channels and last == count:
                return Layout(grid)  # flattened
        series = next((axis == 1 for shape, (axis, _) in reversed(self._axes.items()) if len(shape) == 2), False)
        return Layout((last,)) if series else self._tokens(output, name)

    def _tokens(self, output: Tensor, name: str) -> Layout:
        """The layout of tokens ``[N, T, K]``."""
        samples, count, channels = output.shape
        return self.tokens(samples, count, channels, name)

    def tokens(self, samples: int, count: int, channels: int, name: str) -> Layout:
        """The layout of tokens ``[N, T, K]``.

        Args:
            samples: N.
            count: T.
            channels: K.
            name: of the layer.
        """
        if (self._count and samples != self._count) or count in self._ids or self._are_queries(count, name):
            return Layout((), 2)
        prefixes = self._extra(channels)
        # The hidden layer of a block has the block's tokens, but not their width, by which a class token is known.
        prefixes = prefixes.union(
            *(self._extra(shape[1]) for shape in self._axes if shape[0] == count and len(shape) == 2)
        )
        for grid in reversed(self._grids):
            if count - math.prod(grid) in prefixes:
                return Layout(grid, 2, count - math.prod(grid))
        for grid in chain.from_iterable(map(_halvings, reversed(self._grids))):
            if math.prod(grid) == count:
                return Layout(grid, 2)
        grids = [] if self._grids else list(chain.from_iterable(map(self._of_patches, self._shapes)))
        fitting = [grid for grid in grids if count - math.prod(grid) in prefixes]
        if not fitting:
            return Layout((), 2)
        grid = min(fitting, key=lambda grid: count - math.prod(grid))
        return Layout(grid, 2, count - math.prod(grid))

    def _of_patches(self, shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Grids of the patches of an image or a series; those first, and alone, that the first linear layer takes."""
        if len(shape) == 2:  # a series [L, C] as it is, or [C, L] in patches
            yield from [(shape[0],)] * (shape[0] > 1 and self._patch in (None, shape[1]))
        options = [(shape[0], shape[1:]), (shape[-1], shape[:-1])]
        grids = {
            tuple(side // patch for side in sides): channels * patch ** len(sides)
            for channels, sides in options
            for patch in range(1, min(sides) + 1)
            if all(side % patch == 0 for side in sides) and math.prod(sides) > patch ** len(sides)
        }
        exact = [grid for grid, values in grids.items() if values == self._patch]
        yield from exact or (grids if len(shape) == 3 else ())

    def _plausible(self, grid: tuple[int, ...]) -> bool:
        """Whether places are those of the image, and not attention heads and tokens."""
        grids = [known for known in self._grids if len(known) == len(grid)]
        inputs = {part for shape in self._shapes for part in (shape[1:], shape[:-1])}
        return not grids or grid in grids or grid in inputs or any(grid in _halvings(known) for known in grids)

    def _extra(self, channels: int) -> set[int]:
        """Numbers of tokens that the model may put in front of others: none, or of its parameters ``[1, p, K]``."""
        if channels not in self._prefixes:
            sums = {0}
            for _, count in self._tokens_of_its_own(channels):
                sums |= {count + other for other in sums if count + other <= _PREFIX}
            self._prefixes[channels] = sums
        return self._prefixes[channels]

    def class_token(self, channels: int, prefix: int) -> bool:
        """Whether the first token in front of the patches is a class token: the only one, or known by its name.

        Args:
            channels: of a token.
            prefix: how many stand in front.
        """
        names = [name.lower() for name, _ in self._tokens_of_its_own(channels)]
        named = any("cls" in name or "class" in name for name in names)
        return prefix > 0 and (named or (prefix == 1 and not any("reg" in name for name in names)))

    def _tokens_of_its_own(self, channels: int) -> list[tuple[str, int]]:
        if channels not in self._own:
            self._own[channels] = _own_tokens(self._model, channels)
        return self._own[channels]

    def _are_heads(self, shape: tuple[int, ...]) -> bool:
        """Whether an output ``[N, heads, T, K]`` is what attention made of tokens ``[N, T, heads * K]``."""
        return len(shape) == 3 and (shape[1], shape[0] * shape[2]) in self._axes

    def _are_queries(self, count: int, name: str) -> bool:
        """Whether a decoder's tokens are its object queries."""
        if "decoder" not in name:
            return False
        weights = self._model.named_parameters()
        return any("quer" in key and weight.dim() > 1 and weight.shape[-2] == count for key, weight in weights)


@contextmanager
def watch_geometry(
    model: nn.Module, inputs: Any, *, skip: Callable[[nn.Module], bool] = lambda module: False
) -> Iterator[Geometry]:
    """Follow how the inputs' shapes reach the layers, by hooks on the modules that decide, inside the context.

    Args:
        model: whose forward pass follows.
        inputs: of the pass.
        skip: modules inside which no hook is registered.
    """
    geometry = Geometry(model, inputs)

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        geometry.see(module, output)

    handles = [module.register_forward_hook(hook) for module in deciding_modules(model, skip)]
    try:
        yield geometry
    finally:
        for handle in handles:
            handle.remove()


def deciding_modules(module: nn.Module, skip: Callable[[nn.Module], bool] = lambda module: False) -> list[nn.Module]:
    """The modules inside that say where channels are, each once."""
    modules: dict[nn.Module, None] = {}

    def visit(part: nn.Module) -> None:
        if isinstance(part, torch.jit.ScriptModule) or skip(part):
            return
        if _decides(part):
            modules[part] = None
        if not isinstance(part, _ATTENTION):  # hooks inside would switch off torch's fast path
            for child in part.children():
                visit(child)

    visit(module)
    return list(modules)


def _decides(module: nn.Module) -> bool:
    return isinstance(module, (*_FIRST, *_LAST)) or _is_layer_norm(module)


def _is_layer_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.LayerNorm) or type(module).__name__.lower().endswith(
        ("layernorm", "rmsnorm", "norm2d")
    )


def _channel_axis(module: nn.Module, output: Tensor) -> int | None:
    """Where a module has put the channels of its output ``[N, ...]``; None if it leaves them where they were."""
    last = output.dim() - 1
    if isinstance(module, _FIRST):
        return 1
    if isinstance(module, _LAST):
        return last
    if not _is_layer_norm(module):
        return None
    sizes: Sequence[int] = getattr(module, "normalized_shape", None) or ()
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    if len(sizes) > 1:  # over channels and places
        return None
    named = type(module).__name__.lower().endswith("2d") or getattr(module, "data_format", "") == "channels_first"
    placed = bool(sizes) and output.shape[1] == sizes[0] != output.shape[last]
    return 1 if named or placed else last


def _memory_order(output: Tensor) -> list[int]:
    """The axes of each sample, those with the largest steps in memory first."""
    return sorted(range(1, output.dim()), key=output.stride, reverse=True)


def _halvings(grid: Sequence[int]) -> list[tuple[int, ...]]:
    """A grid after two, four, ... places were merged on each side, rounded up or down."""
    grids = []
    for power in (2, 4, 8, 16, 32):
        grids += [tuple(-(-side // power) for side in grid), tuple(side // power for side in grid)]
    return [grid for grid in grids if math.prod(grid) > 1]


def _own_tokens(model: nn.Module, channels: int) -> list[tuple[str, int]]:
    """Names of the parameters that are tokens, few enough to stand in front of others, and how many each holds."""
    counts = []
    for module in model.modules():
        if _decides(module):
            continue
        for name, weight in module.named_parameters(recurse=False):
            token = weight.dim() > 1 and math.prod(weight.shape[:-2]) == 1
            token = token or (weight.dim() == 1 and any(word in name for word in ("token", "class", "cls")))
            if token and weight.shape[-1] == channels and "quer" not in name:
                counts.append((name, 1 if weight.dim() == 1 else weight.shape[-2]))
    return [(name, count) for name, count in counts if 0 < count <= _PREFIX]


def _is_integer(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
