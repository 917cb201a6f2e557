"""The samples that excite a channel most, of however many, however they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["NO_SAMPLE", "TopK", "peaks_of"]

NO_SAMPLE = -1
"""Stands for a sample where there are fewer than asked for."""


@dataclass(frozen=True)
class TopK:
    r"""For each of K channels the k samples whose maps :math:`A` reach highest, at most once each, strongest first.

    .. math:: \operatorname{top}_k\ \max_{ij} A_{ij}(x_n), \qquad n = 1, \dots, N

    Plain data. However the samples are cut into batches and processes, the result is the same to the bit: what is
    equally strong stands in the order of the samples' numbers, and a sample that comes twice stands once.

    Attributes:
        values: the maxima ``[K, k]``; minus infinity where there is no sample.
        samples: numbers of the samples ``[K, k]``; `NO_SAMPLE` where there is none.
        places: row and column of each maximum in its map ``[K, k, 2]``; the first, where it is reached several times.
        kept: by number, what is kept of those samples (their inputs), of no others.
        seen: how many samples there were.
        broken: how many of their maxima were NaN, and are left out.
    """

    values: NDArray[np.float64]
    samples: NDArray[np.int64]
    places: NDArray[np.int64]
    kept: Mapping[int, Any] = field(default_factory=dict)
    seen: int = 0
    broken: int = 0

    @classmethod
    def nobody(cls, channels: int, most: int) -> TopK:
        """Before the first sample.

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
        """With a batch's samples among them.

        Args:
            peaks: of the batch (see `peaks_of`), ``[n, K, 2]``.
            width: of the maps.
            samples: their numbers ``[n]``.
            keep: from a row of the batch to what is kept of the sample; asked for those alone that enter.
        """
        values, flat = peaks[..., 0].T, peaks[..., 1].T.astype(np.int64)
        numbers = np.where(np.isnan(values), NO_SAMPLE, samples)
        batch = TopK(
            np.where(np.isnan(values), -np.inf, values),
            numbers,
            np.stack(np.divmod(flat, width), axis=-1),
            seen=len(samples),
            broken=int(np.isnan(values).sum()),
        )
        merged = self.merge(batch)
        rows = {int(number): row for row, number in enumerate(samples)}
        wanted = set(merged.samples.ravel().tolist()) - {NO_SAMPLE}
        return replace(merged, kept={n: self.kept[n] if n in self.kept else keep(rows[n]) for n in sorted(wanted)})

    def merge(self, other: TopK) -> TopK:
        """The strongest of both.

        Args:
            other: of the same channels.
        """
        most = self.values.shape[1]
        values = np.concatenate([self.values, other.values], axis=1)
        samples = np.concatenate([self.samples, other.samples], axis=1)
        places = np.concatenate([self.places, other.places], axis=1)
        # Strongest first; then by number; nobody behind a sample that is at minus infinity.
        order = np.lexsort((samples, samples == NO_SAMPLE, -values), axis=1)
        chosen = np.stack([_first(samples[row, order[row]], order[row], most) for row in range(len(values))])
        samples = np.take_along_axis(samples, chosen, axis=1)
        kept = {**other.kept, **self.kept}
        return TopK(
            np.take_along_axis(values, chosen, axis=1),
            samples,
            np.take_along_axis(places, chosen[..., None], axis=1),
            {int(number): kept[number] for number in np.unique(samples) if number in kept},
            self.seen + other.seen,
            self.broken + other.broken,
        )


def peaks_of(maps: Tensor, channels: Sequence[int]) -> Tensor:
    """Where channels are strongest: the maximum of each map, and its place ``y * W + x``.

    Args:
        maps: of a batch ``[n, K', H, W]``.
        channels: K numbers of channels.

    Returns:
        Float64 ``[n, K, 2]`` on the maps' device (float32 where that has no other), small.
    """
    shown = maps.detach()[:, list(channels)].flatten(2).float()
    values, places = shown.max(2)
    return torch.stack([values.to(widest(maps)), places.to(widest(maps))], dim=-1)


def widest(tensor: Tensor) -> torch.dtype:
    """The widest floating-point type of a tensor's device: float64, but on Apple's."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _first(samples: NDArray[np.int64], order: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The first `most` entries, each sample once, of those in an order; filled up with nobodies."""
    _, first = np.unique(samples, return_index=True)
    somebody = np.zeros(len(samples), dtype=bool)
    somebody[first] = True
    somebody &= samples != NO_SAMPLE
    # There are `most` nobodies or doubles at least, wherever there are fewer than `most` samples.
    return np.concatenate([order[somebody], order[samples == NO_SAMPLE]])[:most]
