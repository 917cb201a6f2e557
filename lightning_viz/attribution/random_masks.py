"""RISE: how probable the target stays, on average, when each place is seen through random masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_viz._docstrings import documented_like
from lightning_viz.attribution.gradients import copy_batches, gradient, probabilities_of
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.calls import as_call
from lightning_viz.hooks.feature_maps import resize
from lightning_viz.hooks.observe import Forward, observe, resolve_target
from lightning_viz.hooks.pytree import map_tensors, spatial_input, take_samples
from lightning_viz.hooks.targets import TargetLike
from lightning_viz.host_copies import to_device

__all__ = ["rise"]


@documented_like(gradient)
def rise(  # noqa: D417 (see gradient)
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    masks: int = 4000,
    cells: int = 7,
    keep: float = 0.5,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> Tensor:
    r"""RISE: averages random masks, weighted by the class's probability through each (Petsiuk et al., 2018).

    .. math:: S = \frac{1}{N p} \sum_{i=1}^{N} f(x \odot M_i)\, M_i

    A mask is a grid of cells, each 1 with probability p and else 0, enlarged bilinearly to one cell more than the
    image and shifted at random by up to a cell. No gradients: one forward pass for each mask.

    Args:
        inputs: as the model takes them, an image ``[N, C, H, W]`` among them, or a series or a volume. What a mask
            hides is 0: the mean image if inputs are normalized.
        target: what to explain, see `TargetLike`; the class predicted for the whole image if omitted.
        masks: N, the same ones for every sample (4,000: the paper's for 224 x 224 and VGG-16).
        cells: along each side of the grid (7: the paper's).
        keep: p, the probability that a cell is seen (0.5: the paper's).
        seed: of the masks: the same ones whatever the batch size and the device.
        batch_size: masked images per pass; what suits the inputs and fits if None.
        progress: show a bar when it takes long.

    Returns:
        The map ``[N, 1, H, W]``, unnormalized, in units of f: the probability of a class by softmax (by sigmoid of a
        single output), what else a target is by itself. It holds what all masks have in common, too: compare places,
        not maps. Several targets stand in a leading dimension.

    Raises:
        InvalidArgumentError: the inputs hold no image, series or volume, `masks`, `cells` or `batch_size` is not
            positive, or `keep` is not between 0 and 1.
    """
    if masks < 1 or cells < 1 or not 0 < keep <= 1:
        raise InvalidArgumentError(f"masks is {masks}, cells {cells}, keep {keep}: give 1 or more, and 0 < keep <= 1")
    inputs = as_call(inputs)
    image = spatial_input(inputs)
    if image is None:
        raise InvalidArgumentError("rise needs an image [N, C, H, W], a series or a volume among the inputs")
    fixed = resolve_target(model, inputs, target, forward=forward)
    drawn, count, total = _Masks(masks, cells, keep, tuple(image.shape[2:]), seed), len(image), list[Tensor]()

    def weigh(items: Tensor) -> None:
        of_mask, samples = items // count, items % count
        seen = to_device(drawn.of(of_mask), image.device)  # [n, 1, H, W]
        masked = batches.lay_out(take_samples(image, samples, count) * seen.to(image))
        given = map_tensors(inputs, lambda x: masked if x is image else take_samples(x, samples, count))
        values = probabilities_of(observe(model, given, fixed.select(samples), forward=forward), fixed)
        several = values.dim() == 2
        shares = values.to(seen).view(*values.shape, *[1] * (seen.dim() - 1)) * seen  # [n, 1, H, W] or [T, n, ...]
        if not total:
            total.append(shares.new_zeros(*shares.shape[:several], count, *shares.shape[several + 1 :]))
        total[0].index_add_(int(several), to_device(samples, shares.device), shares)

    batches = copy_batches(model, inputs, masks, batch_size, progress, "RISE")
    batches.run(weigh)
    return (total[0] / (masks * keep)).to(image)


class _Masks:
    """The masks of one seed: cells and shifts are drawn at once, the masks themselves as they are needed."""

    def __init__(self, count: int, cells: int, keep: float, shape: tuple[int, ...], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._shape, self._cell = shape, [-(-side // cells) for side in shape]
        drawn = torch.rand((count, 1, *[cells] * len(shape)), generator=generator, device="cpu", dtype=torch.float64)
        self._grids = (drawn < keep).float()
        shifts = torch.rand(count, len(shape), generator=generator, device="cpu", dtype=torch.float64)
        self._shifts = (shifts * torch.tensor(self._cell, device="cpu")).long()

    def of(self, masks: Tensor) -> Tensor:
        """Some of the masks ``[n, 1, H, W]``, by their numbers in ascending order."""
        which = torch.arange(int(masks[0]), int(masks[-1]) + 1, device="cpu")  # batches go through them in order
        size = [cell * (side + 1) for cell, side in zip(self._cell, self._grids.shape[2:], strict=True)]
        large = resize(self._grids[which], size)
        shown = []
        for mask, shift in zip(large, self._shifts[which].tolist(), strict=True):
            window = tuple(slice(start, start + side) for start, side in zip(shift, self._shape, strict=True))
            shown.append(mask[0][window][None])
        return torch.stack(shown)[masks - which[0]]
