"""Passes of images with a patch covered: of the windows that the patch reaches where that is less work, else whole."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, Union

import torch
from torch import Tensor, nn

from lightning_viz.hooks.batching import MOST_ITEMS, Batches, choose_batch_size, out_of_memory, refuses_layout
from lightning_viz.hooks.calls import Call, call_model
from lightning_viz.hooks.observe import Forward
from lightning_viz.hooks.patched_copies import NotFollowedError, SharedMaps, covered_copies
from lightning_viz.hooks.patched_maps import PatchedMaps, ordinary
from lightning_viz.hooks.pytree import map_tensors, sample_size, take_samples
from lightning_viz.hooks.reach import PatchWindows
from lightning_viz.hooks.shards import is_sharded
from lightning_viz.host_copies import to_device

_OVERHEAD = {"cpu": 8e6}
_OVERHEAD_ELSEWHERE = 2e9
"""Multiplications that take as long as the bookkeeping of one operation in windows, some 0.15 ms."""

_TIMES = 3
"""Batches of windows are at most so many times as large as those of whole copies, because less of each is computed."""

_TRIAL = 4
"""Copies of the first pass, which shows what windows spare."""

_LEAST = 0.05
"""The share of a pass's work that windows must spare."""

_FEW, _SMALL = 800, 2e8
"""Copies, and multiplications of a pass: below both, the first pass in windows takes more than the others can spare."""

_TOO_LITTLE = "windows would spare too little"

_log = logging.getLogger("lightning_viz")
_Result = TypeVar("_Result")
_Measure = Callable[[Tensor, Any, Union[Forward, None]], _Result]
"""Runs the model on inputs with ``forward``, given each copy's sample."""


class OccludedPasses:
    """Batches of copies of images, each with one patch covered, in the order of samples and positions.

    The first pass of a sample keeps the maps that all its copies share; in every pass only the windows that differ are
    computed, to the layer from which they are nearly the whole map (exact incremental inference; Nakandala et al.,
    2019). Hooks on modules run as in whole passes, on tensors of the copies' shape. A model that cannot be followed, or
    is too small to gain from it, runs whole passes, and the log says why.

    Args:
        model: any module.
        inputs: of N samples, the image among them.
        image: ``[N, C, *S]``.
        cover: what patches show, of the image's shape.
        places: of each position its first row and column, ``[P, d]``; a patch may end beyond the image.
        patch: height and width.
        batch_size: copies of a batch; what suits the inputs if None.
        work: of a pass of one sample, in multiplications (see `Work`).
        forward: calls the model, if not ``model(inputs)``.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        image: Tensor,
        cover: Tensor,
        places: Tensor,
        patch: tuple[int, ...],
        batch_size: int | None,
        work: float,
        forward: Forward | None,
    ) -> None:
        self._inputs, self._image, self._cover, self._forward = inputs, image, cover.detach(), forward
        self._places, self._patch = places, patch
        self._kept: tuple[int, Tensor, Tensor, SharedMaps] | None = None  # of a sample: number, image, cover, maps
        self._weighed, self._work = False, work
        self.windowed = True
        """Whether passes compute windows."""
        reason = self._reason(model)
        if reason is not None:
            self._give_up(reason)
        self.by_sample = self.windowed
        """Whether items go sample by sample, neighboring positions together; position by position if not."""
        self._whole_size = self._size = batch_size or choose_batch_size(sample_size(inputs), model)
        band = math.isqrt(max(1, batch_size or min(MOST_ITEMS, _TIMES * self._whole_size)))
        self._order = neighbors_together(places, band)
        self.batch_size = band**2 if self.by_sample and batch_size is None else batch_size
        """Copies of a batch, as many rows as columns of neighbors; what suits the inputs if None."""

    def run(self, items: Tensor, batches: Batches, measure: _Measure[_Result]) -> list[_Result]:
        """Run the copies of a batch.

        Args:
            items: their numbers, see `by_sample`.
            batches: that they are of.
            measure: runs the model on inputs with ``forward``; also gets each copy's sample.

        Returns:
            What `measure` returned for successive parts of the batch.
        """
        samples, positions = items % len(self._image), items // len(self._image)
        if self.by_sample:
            samples, positions = items // len(self._places), self._order[items % len(self._places)]
        if self.windowed:
            try:
                return self._all_in_windows(samples, positions, batches, measure)
            except Exception as error:  # of code that no tensor but torch's own suits, too
                self._kept = None
                if out_of_memory(error) or refuses_layout(error):  # to be repeated
                    raise
                known = isinstance(error, NotFollowedError)
                self._give_up(str(error) if known else f"{type(error).__name__}: {error}")
        return self._all_whole(samples, positions, batches, measure)

    def _all_whole(
        self,
        samples: Tensor,
        positions: Tensor,
        batches: Batches,
        measure: _Measure[_Result],
    ) -> list[_Result]:
        parts = [slice(start, start + self._whole_size) for start in range(0, len(samples), self._whole_size)]
        return [self._whole(samples[part], positions[part], batches, measure) for part in parts]

    def _all_in_windows(
        self,
        samples: Tensor,
        positions: Tensor,
        batches: Batches,
        measure: _Measure[_Result],
    ) -> list[_Result]:
        """The results of a batch, sample by sample; of few copies if they show that windows do not pay."""
        results = []
        for sample in sorted(set(samples.tolist())):
            some = positions[samples == sample]
            if not self._weighed:
                results.append(self._in_windows(sample, some[:_TRIAL], batches, measure))
                self._weigh(len(some))
                some = some[_TRIAL:]
            if self.windowed:
                parts = some.tensor_split(math.ceil(len(some) / self._size)) if len(some) else ()
                results += [self._in_windows(sample, part, batches, measure) for part in parts]
            elif len(some):
                results += self._all_whole(torch.full_like(some, sample), some, batches, measure)
        return results

    def _in_windows(
        self,
        sample: int,
        positions: Tensor,
        batches: Batches,
        measure: _Measure[_Result],
    ) -> _Result:
        if self._kept is None or self._kept[0] != sample:
            self._kept = None
            image = batches.lay_out(self._image[sample : sample + 1].detach())
            self._kept = sample, image, self._cover[sample : sample + 1], SharedMaps()
        _, image, cover, kept = self._kept
        kept.start_pass()
        samples = torch.full_like(positions, sample)
        windows = PatchWindows(self._places[positions], self._patch)
        with torch.no_grad():
            given = self._with(PatchedMaps(covered_copies(image, cover, windows, kept)), samples)
        return measure(samples, given, self._ordinary_outputs)

    def _whole(
        self,
        samples: Tensor,
        positions: Tensor,
        batches: Batches,
        measure: _Measure[_Result],
    ) -> _Result:
        image = batches.lay_out(self._image.detach()[to_device(samples, self._image.device)])
        for copy, sample, place in zip(image, samples.tolist(), self._places[positions].tolist(), strict=True):
            window = [slice(None)]
            window += [slice(first, first + size) for first, size in zip(place, self._patch, strict=True)]
            copy[tuple(window)] = self._cover[sample][tuple(window)]
        return measure(samples, self._with(image, samples), self._forward)

    def _ordinary_outputs(self, model: nn.Module, inputs: Any) -> Any:
        return ordinary(call_model(model, inputs, self._forward))

    def _with(self, image: Tensor, samples: Tensor) -> Any:
        """The inputs of copies of samples, with these for their images."""
        count = len(self._image)
        return map_tensors(self._inputs, lambda x: image if x is self._image else take_samples(x, samples, count))

    def on_grid(self, values: Tensor, grid: Sequence[int]) -> Tensor:
        """The values of all items, ``[..., N * P]``, on the grid of positions, ``[..., N, h, w]``."""
        before, count = values.shape[:-1], len(self._image)
        if self.by_sample:
            row_by_row = to_device(self._order.argsort(), values.device)
            return values.view(*before, count, -1)[..., row_by_row].view(*before, count, *grid)
        return values.view(*before, *grid, count).movedim(-1, -1 - len(grid))

    def _reason(self, model: nn.Module) -> str | None:
        """Why windows are not tried; None if they are."""
        if is_sharded(model):
            return "the model is sharded"
        if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
            return "TorchScript runs parts of the model"
        own = self._forward or (self._inputs.forward if isinstance(self._inputs, Call) else None)
        if own is not None and len(self._image) > 1:
            return "the forward given may depend on which samples stand side by side"
        copies = len(self._image) * len(self._places)
        if (copies < _FEW and self._work < _SMALL) or self._work * min(copies, MOST_ITEMS) < self._overhead:
            return _TOO_LITTLE
        return None

    @property
    def _overhead(self) -> float:
        return _OVERHEAD.get(self._image.device.type, _OVERHEAD_ELSEWHERE)

    def _weigh(self, count: int) -> None:
        """Choose the size of batches of windows, at most so many copies; or give them up if they spare too little."""
        assert self._kept is not None
        kept, self._weighed = self._kept[3], True
        spared = kept.spared.total
        left = min(1.0, max(1 / _TIMES, 1 - spared / self._work))
        size = min(count, int(self._whole_size / left))
        if size * spared <= kept.followed * self._overhead or spared < _LEAST * self._work:
            self._give_up(_TOO_LITTLE)
        else:
            self._size = size

    def _give_up(self, reason: str) -> None:
        self.windowed, self._kept = False, None
        _log.info("Occlusion runs whole passes: %s", reason)


def neighbors_together(places: Tensor, band: int) -> Tensor:
    """An order of positions in which those that follow each other are neighbors in all directions, ``[P]``.

    Windows of a batch have one size, and neighbors reach windows of nearly the same. Bands of rows are gone through
    column by column, to and fro.

    Args:
        places: the first row and column of each, on a grid, row by row ``[P, d]``.
        band: rows of a band.

    >>> neighbors_together(torch.cartesian_prod(torch.arange(3), torch.arange(3)), 2).tolist()
    [0, 3, 1, 4, 2, 5, 8, 7, 6]
    """
    numbers = [torch.unique(places[:, axis], return_inverse=True)[1] for axis in range(places.shape[1])]
    last, others = numbers[-1], numbers[:-1]
    bands = torch.zeros_like(last)
    for number in others:
        bands = bands * (int(number.max()) // band + 1) + number // band
    columns = torch.where(bands % 2 == 0, last, int(last.max()) - last)
    order = torch.arange(len(places), device="cpu")
    for key in (columns, bands):
        order = order[key[order].argsort(stable=True)]
    return order
