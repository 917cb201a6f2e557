"""Running top-k samples per channel, independent of batch order; and the channels to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Union

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.rich_display import html_display

__all__ = ["NO_SAMPLE", "Channels", "TopK", "channel_peaks", "choose_channels"]

NO_SAMPLE = -1
"""Index of a missing sample, if there are fewer than k."""


Channels = Union[Literal["random", "first", "strongest"], Sequence[int]]
"""Channels of a layer: a rule for choosing them, or their indices."""


@html_display("values", "samples", "seen", "broken")
@dataclass(frozen=True)
class TopK:
    r"""Top-k: for each of K channels the k samples with the largest maxima of their maps :math:`A`, in order.

    .. math:: \operatorname{top}_k\ \max_{ij} A_{ij}(x_n), \qquad n = 1, \dots, N

    Plain data. The result does not depend on how samples are divided into batches and processes: ties are in the order
    of the samples' indices, and a repeated sample counts once.

    Attributes:
        values: the maxima ``[K, k]``; minus infinity for missing samples.
        samples: indices of the samples ``[K, k]``; `NO_SAMPLE` for missing ones.
        places: row and column of each maximum in its map ``[K, k, 2]``; the first of several.
        kept: data of these samples (their inputs), by index.
        seen: number of samples processed.
        broken: number of maxima that were NaN and are left out.
    """

    values: NDArray[np.float64]
    samples: NDArray[np.int64]
    places: NDArray[np.int64]
    kept: Mapping[int, Any] = field(default_factory=dict)
    seen: int = 0
    broken: int = 0

    @classmethod
    def empty(cls, channels: int, most: int) -> TopK:
        """The value before the first sample.

        Args:
            channels: K.
            most: k.
        """
        return cls(
            np.full((channels, most), -np.inf),
            np.full((channels, most), NO_SAMPLE),
            np.zeros((channels, most, 2), dtype=np.int64),
        )

    def update(
        self,
        peaks: NDArray[np.float64],
        width: int,
        samples: NDArray[np.int64],
        keep: Callable[[int], Any] = lambda row: None,
    ) -> TopK:
        """The result with the samples of another batch.

        Args:
            peaks: of the batch (see `channel_peaks`), ``[n, K, 2]``.
            width: of the maps.
            samples: their indices ``[n]``.
            keep: from a row of the batch to the data to keep; called only for samples that enter the top k.
        """
        values, flat = peaks[..., 0].T, peaks[..., 1].T.astype(np.int64)
        indices = np.where(np.isnan(values), NO_SAMPLE, samples)
        batch = TopK(
            np.where(np.isnan(values), -np.inf, values),
            indices,
            np.stack(np.divmod(flat, width), axis=-1),
            seen=len(samples),
            broken=int(np.isnan(values).sum()),
        )
        merged = self.merge(batch)
        rows = {int(index): row for row, index in enumerate(samples)}
        chosen = set(merged.samples.ravel().tolist()) - {NO_SAMPLE}
        return replace(merged, kept={n: self.kept[n] if n in self.kept else keep(rows[n]) for n in sorted(chosen)})

    def merge(self, other: TopK) -> TopK:
        """The top k of both.

        Args:
            other: of the same channels.
        """
        most = self.values.shape[1]
        values = np.concatenate([self.values, other.values], axis=1)
        samples = np.concatenate([self.samples, other.samples], axis=1)
        places = np.concatenate([self.places, other.places], axis=1)
        # By value, then by index; missing samples come after those at minus infinity.
        order = np.lexsort((samples, samples == NO_SAMPLE, -values), axis=1)
        chosen = np.stack([_first(samples[row, order[row]], order[row], most) for row in range(len(values))])
        samples = np.take_along_axis(samples, chosen, axis=1)
        data = {**other.kept, **self.kept}
        return TopK(
            np.take_along_axis(values, chosen, axis=1),
            samples,
            np.take_along_axis(places, chosen[..., None], axis=1),
            {int(index): data[index] for index in np.unique(samples) if index in data},
            self.seen + other.seen,
            self.broken + other.broken,
        )


def channel_peaks(maps: Tensor, channels: Sequence[int]) -> Tensor:
    """Maximum of each channel's map, and its flat position ``y * W + x``.

    Args:
        maps: of a batch ``[n, K', *S]``.
        channels: indices of K channels.

    Returns:
        Float64 ``[n, K, 2]`` on the maps' device (float32 if it has no float64).
    """
    flat = maps.detach()[:, list(channels)].flatten(2).float()
    values, places = flat.max(2)
    return torch.stack([values.to(widest(maps)), places.to(widest(maps))], dim=-1)


def choose_channels(maps: Tensor, channels: Channels, count: int, *, seed: int = 0) -> list[int]:
    """Choose channels of a layer to show.

    Args:
        maps: of a first observation, ``[N, K, *S]``.
        channels: ``"random"`` (seeded), ``"first"``, ``"strongest"`` (by mean absolute value), or indices.
        count: maximum number.
        seed: of the random choice.

    Raises:
        InvalidArgumentError: a channel that the layer does not have.
    """
    available = maps.shape[1]
    if channels == "first":
        return list(range(min(count, available)))
    if channels == "random":
        generator = torch.Generator().manual_seed(seed)
        return sorted(torch.randperm(available, generator=generator)[:count].tolist())
    if channels == "strongest":
        strength = maps.float().abs().mean([axis for axis in range(maps.dim()) if axis != 1]).nan_to_num()
        return strength.argsort(descending=True, stable=True)[:count].tolist()
    chosen = [int(channel) for channel in channels]
    missing = [channel for channel in chosen if not 0 <= channel < available]
    if missing:
        raise InvalidArgumentError(f"channels {missing} do not exist: the layer has {available}, numbered from 0")
    return chosen[:count]


def widest(tensor: Tensor) -> torch.dtype:
    """The widest floating-point type of a tensor's device: float64, except on MPS."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _first(samples: NDArray[np.int64], order: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The first `most` entries in an order, each sample once, filled up with missing samples."""
    _, first = np.unique(samples, return_index=True)
    distinct = np.zeros(len(samples), dtype=bool)
    distinct[first] = True
    distinct &= samples != NO_SAMPLE
    # With fewer than `most` samples, at least `most` entries are missing ones or duplicates.
    return np.concatenate([order[distinct], order[samples == NO_SAMPLE]])[:most]
