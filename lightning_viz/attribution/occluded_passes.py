"""Passes of images with a patch covered: of the windows that the patch reaches where that is less work, else whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_viz.hooks.batching import MOST_ITEMS, Batches, out_of_memory, refuses_layout
from lightning_viz.hooks.calls import Call, call_model
from lightning_viz.hooks.observe import Forward
from lightning_viz.hooks.patched_copies import NotFollowedError, SharedMaps, covered_copies
from lightning_viz.hooks.patched_maps import PatchedMaps, ordinary
from lightning_viz.hooks.pytree import map_tensors, take_samples
from lightning_viz.hooks.reach import PatchWindows
from lightning_viz.hooks.shards import is_sharded

_OVERHEAD = {"cpu": 4e6}
_OVERHEAD_ELSEWHERE = 2e9
"""Multiplications that take as long as the bookkeeping of one operation in windows, some 0.2 ms."""

_TOO_LITTLE = "windows would spare too little"

_log = logging.getLogger("lightning_viz")
_Result = TypeVar("_Result")


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
        forward: Forward | None,
    ) -> None:
        self._inputs, self._image, self._cover, self._forward = inputs, image, cover.detach(), forward
        self._places, self._patch = places, patch
        self._kept: tuple[int, Tensor, Tensor, SharedMaps] | None = None  # of a sample: number, image, cover, maps
        self.windowed = True
        """Whether passes compute windows."""
        reason = self._reason(model)
        if reason is not None:
            self._give_up(reason)
        self.by_sample = self.windowed
        """Whether items go sample by sample; position by position if not."""

    def run(
        self, items: Tensor, batches: Batches, measure: Callable[[Tensor, Any, Forward | None], _Result]
    ) -> list[_Result]:
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
            samples, positions = items // len(self._places), items % len(self._places)
        if self.windowed:
            try:
                numbers = sorted(set(samples.tolist()))
                results = [self._in_windows(n, positions[samples == n], batches, measure) for n in numbers]
                return self._weighed(results, len(items))
            except Exception as error:  # of code that no tensor but torch's own suits, too
                self._kept = None
                if out_of_memory(error) or refuses_layout(error):  # to be repeated
                    raise
                known = isinstance(error, NotFollowedError)
                self._give_up(str(error) if known else f"{type(error).__name__}: {error}")
        image = batches.lay_out(self._image.detach()[samples.to(self._image.device)])
        for copy, sample, place in zip(image, samples.tolist(), self._places[positions].tolist(), strict=True):
            window = [slice(None)]
            window += [slice(first, first + size) for first, size in zip(place, self._patch, strict=True)]
            copy[tuple(window)] = self._cover[sample][tuple(window)]
        return [measure(samples, self._with(image, samples), self._forward)]

    def _in_windows(
        self,
        sample: int,
        positions: Tensor,
        batches: Batches,
        measure: Callable[[Tensor, Any, Forward | None], _Result],
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
            return values.view(*before, count, *grid)
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
        kernels = sum(weight.numel() for weight in model.parameters() if weight.dim() > 2)
        copies = min(len(self._places), MOST_ITEMS)
        if kernels * self._image[0, 0].numel() * copies <= self._overhead:  # more than convolutions can take
            return _TOO_LITTLE
        return None

    @property
    def _overhead(self) -> float:
        return _OVERHEAD.get(self._image.device.type, _OVERHEAD_ELSEWHERE)

    def _weighed(self, results: list[_Result], count: int) -> list[_Result]:
        """The results of windows, which are given up if they spare less time than they take."""
        if self._kept is not None:
            kept = self._kept[3]
            if count * kept.spared <= kept.followed * self._overhead:
                self._give_up(_TOO_LITTLE)
        return results

    def _give_up(self, reason: str) -> None:
        self.windowed, self._kept = False, None
        _log.info("Occlusion runs whole passes: %s", reason)
