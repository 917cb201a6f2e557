"""Weights: filters as images, and hyperplanes of units with two-dimensional inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_viz.hooks.layers import convolutions, fully_connected, named_layers

__all__ = ["count_units", "filter_images", "first_layer", "hides_inputs", "importance", "is_transposed", "plane_layers"]


def first_layer(model: nn.Module) -> str | None:
    """Name of the first convolution, else of the first fully connected layer; None if there is neither.

    A fully connected layer behind a recurrent layer, an embedding or one of another kind is not first.
    """
    names = convolutions(model)[:1] or fully_connected(model)[:1]
    return None if not names or (hides_inputs(model) and not convolutions(model)) else names[0]


def hides_inputs(model: nn.Module) -> str | None:
    """Name of a layer of another kind before the first fully connected one: recurrent, an embedding, a graph's, say."""
    for name, module in named_layers(model).items():
        if isinstance(module, nn.Linear):
            return None
        weight = getattr(module, "weight", None)
        weighted = not any(module.children()) and isinstance(weight, nn.Parameter) and weight.dim() > 1
        if weighted or isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            return name
    return None


def filter_images(weight: Tensor, *, shape: tuple[int, ...] | None = None) -> Tensor:
    """Each unit's weights as an image ``[K, C, h, w]``, as slices ``[K, C, d, h, w]`` or as curves ``[K, C, l]``.

    Args:
        weight: of a convolution ``[K, C, h, w]``, ``[K, C, d, h, w]`` or ``[K, C, l]``, which is returned as it is, or
            of a fully connected layer ``[K, D]``.
        shape: of the layer's input without the sample dimension, ``(C, H, W)`` or ``(C, D, H, W)``, if known: a fully
            connected layer's weights are reshaped to it if the number matches, otherwise to one row.
    """
    if weight.dim() > 2:
        return weight
    if shape is not None and len(shape) < 5 and torch.Size(shape).numel() == weight.shape[1]:
        channels, *sides = (1, 1, *shape) if len(shape) == 1 else (1, *shape) if len(shape) == 2 else shape
        return weight.reshape(len(weight), channels, *sides)
    return weight.reshape(len(weight), 1, 1, -1)


def is_transposed(module: nn.Module) -> bool:
    """Whether a layer's weight has the input channels first."""
    return isinstance(module, _ConvNd) and module.transposed


def plane_layers(model: nn.Module) -> list[str]:
    """Names of a model's fully connected layers if the first has two inputs, else none."""
    names = fully_connected(model)
    first = named_layers(model)[names[0]] if names and not convolutions(model) else None
    return names if isinstance(first, nn.Linear) and first.in_features == 2 else []


def importance(outgoing: Tensor) -> Tensor:
    """Importance of each of K units, 0 to 1: the norm of its outgoing weights divided by the largest norm.

    Args:
        outgoing: the next layer's weight ``[M, K]``.
    """
    norms = outgoing.float().norm(dim=0)
    return torch.div(norms, norms.max().clamp_min(torch.finfo(torch.float32).tiny))


def count_units(
    weight: Tensor, bias: Tensor, samples: Tensor, extent: tuple[float, float, float, float]
) -> dict[str, int]:
    """Number of units of a first layer with two inputs that are not visible as separate lines.

    Args:
        weight: ``[K, 2]``.
        bias: ``[K]``.
        samples: ``[N, 2]``.
        extent: x0, x1, y0, y1 of the visible plane.

    Returns:
        ``"dead"``: not positive on any sample; ``"duplicate"``: the same line as an earlier unit's, within one degree
        and a hundredth of the extent; ``"out of view"``: no point of the line is within the extent. A unit counts once,
        by the first that applies.
    """
    x0, x1, y0, y1 = extent
    corners = torch.tensor([[x0, y0], [x0, y1], [x1, y0], [x1, y1]], dtype=torch.float64)
    weight, bias, samples = weight.double(), bias.double(), samples.double()
    dead = ~(samples @ weight.T + bias > 0).any(0)
    sides = corners @ weight.T + bias
    outside = (sides > 0).all(0) | (sides < 0).all(0) | (weight.norm(dim=1) == 0)
    normal = weight / weight.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    center = torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2], dtype=torch.float64)
    offset = (weight @ center + bias) / weight.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
    aligned = normal @ normal.T  # cosine between units
    is_near = (offset[:, None] - aligned.sign() * offset[None, :]).abs() < 0.01 * max(x1 - x0, y1 - y0)
    same_line = (aligned.abs() > torch.cos(torch.deg2rad(torch.tensor(1.0)))) & is_near
    is_duplicate = same_line.tril(-1).any(1)
    counts = {"dead": dead, "duplicate": is_duplicate & ~dead & ~outside, "out of view": outside & ~dead}
    return {kind: int(mask.sum()) for kind, mask in counts.items()}
