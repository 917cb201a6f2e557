"""Which class, channel or unit a target means: one for all samples, one for each, or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor

from lightning_viz.errors import InvalidArgumentError, TargetError
from lightning_viz.host_copies import to_device

Indices = Union[int, Sequence[int], Sequence[Sequence[int]], Tensor]
"""Numbers of classes or channels: one for all samples, one each ``[N]``, or several ``[T, N]`` or ``[T, 1]``."""


def saved(tensor: Tensor) -> Tensor:
    """Fit to be kept for a backward, also where it was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def is_shared(shape: Sequence[int]) -> bool:
    """Whether indices of a shape are the same for all samples: a number, or several ``[T, 1]``."""
    return len(shape) == 0 or (len(shape) == 2 and shape[1] == 1)


def kept(index: Indices | None) -> Indices | None:
    """The same indices on the CPU, where they are checked in every pass, so that no pass waits for a device."""
    return index.detach().cpu() if isinstance(index, Tensor) else index


def as_indices(index: Indices) -> Tensor:
    """Indices as a tensor on the CPU."""
    return torch.as_tensor(index, device="cpu")


def indices_of(index: Indices, samples: Tensor) -> Indices:
    """Those of `kept` indices that are of some samples."""
    if isinstance(index, int):
        return index
    tensor = as_indices(index)
    return tensor if is_shared(tensor.shape) else tensor[..., samples]


def picked(scores: Tensor, chosen: Indices, what: str, of: str) -> tuple[Tensor, Tensor]:
    """From scores ``[N, K]`` those chosen, ``[N]`` or ``[T, N]``, and their indices.

    Args:
        scores: of all.
        chosen: which; those on a device, taken from the scores themselves, are not checked.
        what: a word for one of them.
        of: a word for all.

    Raises:
        InvalidArgumentError: there is one for each of another number of samples.
        TargetError: there is no such score.
    """
    index = saved((chosen if isinstance(chosen, Tensor) else as_indices(chosen)).long())
    samples, count = scores.shape
    if is_shared(index.shape):
        index = index.expand(*index.shape[:-1], samples)
    if index.dim() > 2 or index.shape[-1] != samples:
        raise InvalidArgumentError(_miscounted(index.shape[-1], samples, what))
    if index.device.type == "cpu":
        wrong = sorted({place for place in index.flatten().tolist() if not 0 <= place < count})
        if wrong:
            raise TargetError(f"{what} {', '.join(map(str, wrong[:8]))} is out of range: the model has {count} {of}")
    index = to_device(index, scores.device)
    rows = index if index.dim() == 2 else index[None]
    return scores.gather(1, rows.T).T.view(index.shape), index


def check_indices(shape: Sequence[int], count: int) -> None:
    """Whether indices of a shape are of so many samples.

    Raises:
        InvalidArgumentError: they are of another number.
    """
    if not is_shared(shape) and shape[-1] != count:
        raise InvalidArgumentError(_miscounted(shape[-1], count, "target"))


def _miscounted(given: int, samples: int, what: str) -> str:
    return f"{given} targets for {samples} samples: give one {what}, one per sample [N], or several [T, N]"


def listed_indices(index: Indices) -> str:
    """Indices in words: ``3``, ``281, 207``, ``one per sample``."""
    tensor = as_indices(index)
    if tensor.dim() == 2 and tensor.shape[1] == 1:
        return ", ".join(map(str, tensor[:, 0].tolist()))
    return str(int(tensor)) if tensor.dim() == 0 else "of one per sample"
