"""Occlusion: how the target changes when patches of the input are covered, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, Union

import torch
from torch import Tensor, nn

from lightning_viz.attribution.gradients import copy_batches, scores_of
from lightning_viz.attribution.occluded_passes import OccludedPasses
from lightning_viz.errors import InvalidArgumentError, by_name
from lightning_viz.hooks.calls import as_call
from lightning_viz.hooks.observe import Forward, layers_read, observe, observe_resolved
from lightning_viz.hooks.outputs import OutputMeaning, class_scores
from lightning_viz.hooks.patched_maps import ordinary
from lightning_viz.hooks.pytree import spatial_input
from lightning_viz.hooks.recording import Activations
from lightning_viz.hooks.shards import is_sharded
from lightning_viz.hooks.targets import TargetLike, as_target
from lightning_viz.hooks.work_counter import WorkCounter
from lightning_viz.host_copies import to_device
from lightning_viz.pixels import gaussian_blur
from lightning_viz.rich_display import html_display

__all__ = ["OcclusionMaps", "blurred", "mean_color", "occlusion"]

PatchSize = Union[int, tuple[int, ...]]
"""Of height and width, or of both; of a series its length, of a volume depth, height and width."""


@html_display()
@dataclass(frozen=True)
class OcclusionMaps:
    """Maps of the effect of each patch; several targets stand in a leading dimension T.

    Attributes:
        heat: the drop of the target, averaged over the patches that cover each pixel ``[N, 1, H, W]``; positive where
            the image holds evidence for the target. Of a series ``[N, 1, L]``, of a volume ``[N, 1, D, H, W]``.
        drop: the same on the grid of positions ``[N, h, w]``, likewise.
        activity: of a feature, with each patch covered ``[N, h, w]``; None without a feature.
        predicted: the most probable class with each patch covered ``[N, h, w]``; None if the model is no classifier.
    """

    heat: Tensor
    drop: Tensor
    predicted: Tensor | None
    activity: Tensor | None = None


@dataclass(frozen=True)
class Grid:
    """The positions of patches on an image, or of windows on a series or a volume.

    Attributes:
        patch: height and width in pixels.
        stride: vertical and horizontal.
        shape: of the image.
    """

    patch: tuple[int, ...]
    stride: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        """Numbers of rows and columns that cover the image, the last ones cut off at the border."""
        of = zip(self.shape, self.patch, self.stride, strict=True)
        return tuple(1 + max(0, -(-(length - size) // step)) for length, size, step in of)

    @property
    def places(self) -> Tensor:
        """The first row and column of each position, row by row from the top left, ``[P, d]``."""
        axes = [
            step * torch.arange(count, device="cpu") for count, step in zip(self.positions, self.stride, strict=True)
        ]
        return torch.cartesian_prod(*axes).view(-1, len(axes))


def grid_of(shape: Sequence[int], patch: PatchSize | None = None, stride: PatchSize | None = None) -> Grid:
    """The grid of positions on an image of some height and width, on a series or on a volume.

    Raises:
        InvalidArgumentError: patch or stride is not positive or has other dimensions, or the stride is larger than the
            patch.

    >>> grid_of((224, 224), 32, 2).positions
    (97, 97)
    """
    size = _sides(max(1, round(min(shape) / 7)) if patch is None else patch, shape, "patch")
    step = _sides(tuple(max(1, side // 4) for side in size) if stride is None else stride, shape, "stride")
    if any(length > side for length, side in zip(step, size, strict=True)):
        raise InvalidArgumentError(f"the stride {step} is larger than the patch {size}, which leaves gaps")
    return Grid(size, step, tuple(shape))


def occlusion(
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    patch: PatchSize | None = None,
    stride: PatchSize | None = None,
    baseline: Baseline = 0.0,
    feature: TargetLike = None,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> OcclusionMaps:
    r"""Occlusion: measures how far the target drops when each patch of the image is covered (Zeiler and Fergus, 2014).

    .. math:: y(x) - y(x \text{ with a patch replaced by the baseline})

    and, from the same passes, the paper's two other maps: a feature's activity and the most probable class. No
    gradients. A pass computes the windows of the layers that the patch reaches, as long as they are less than the whole
    maps, and takes the rest from the uncovered image; where that is not possible, or not less work, it is whole, and
    the log says so.

    Args:
        model: any module; left as found.
        inputs: as the model takes them, an image ``[N, C, H, W]`` among them, or a detector's list of images, for which
            maps are padded to one size, or a series ``[N, C, L]`` or a volume ``[N, C, D, H, W]``, whose windows are
            covered.
        target: what to explain, see `TargetLike`; the class predicted for the whole image if omitted.
        patch: height and width in pixels; a seventh of the shorter side if omitted (32 at 224).
        stride: between positions; a quarter of the patch if omitted (2 takes sixteen times the passes at 224). Patches
            in the last row and column are cut off at the border.
        baseline: replaces the patch: a number in the model's input values (0: the mean image if inputs are
            normalized), ``"mean_color"``, ``"blurred"``, or an image.
        feature: of which to map the activity, such as ``"features.10[7]"``.
        batch_size: covered images per pass; what suits the inputs and fits if None.
        progress: show a bar when it takes long.
        forward: how to run the model, if not ``model(inputs)``.

    Returns:
        The maps, unnormalized; drops are in logits.

    Raises:
        InvalidArgumentError: the inputs hold no image, series or volume, patch, stride or batch size are not positive,
            or the stride is larger than the patch.
    """
    inputs = as_call(inputs)
    image = spatial_input(inputs)
    if image is None:
        raise InvalidArgumentError("occlusion needs an image [N, C, H, W], a series or a volume among the inputs")
    grid, count = grid_of(image.shape[2:], patch, stride), len(image)
    cover = baseline_image(image, baseline)
    with nullcontext() if is_sharded(model) else WorkCounter() as counted:
        first, fixed = observe_resolved(model, inputs, target, forward=forward)
    whole = scores_of(first)
    mapped = None if feature is None else as_target(feature, model=model)
    inside = {} if mapped is None else layers_read(model, mapped)
    if mapped is not None:
        mapped.check_count(count)
    results: list[list[Tensor]] = [[], [], []]  # scores, predicted classes, activities, batch after batch

    def measure(samples: Tensor, given: Any, run: Forward | None) -> list[Tensor | None]:
        observation = observe(model, given, fixed.select(samples), layers=list(inside), forward=run)
        parts: list[Tensor | None] = [scores_of(observation), None, None]
        if observation.outputs is not None and observation.meaning is not None:
            parts[1] = _predicted(observation.outputs, observation.meaning)
        if mapped is not None:
            meaning = None if observation.meaning is None else replace(observation.meaning, path=())
            outputs, layouts = observation.outputs, observation.layouts
            activations = Activations(ordinary(observation.activations), outputs, tuple(inside), layouts, meaning)
            parts[2] = mapped.select(samples).scores(activations).values
        return parts

    def measure_batch(items: Tensor) -> None:
        for parts in passes.run(items, batches, measure):
            for kept, part in zip(results, parts, strict=True):
                if part is not None:
                    kept.append(part)

    work = 0.0 if counted is None else counted.work.total / count
    passes = OccludedPasses(model, inputs, image, cover, grid.places, grid.patch, batch_size, work, forward)
    batches = copy_batches(model, inputs, len(grid.places), passes.batch_size, progress, "occlusion")
    batches.run(measure_batch)
    scores, predicted, activity = (
        passes.on_grid(torch.cat(parts, -1), grid.positions) if parts else None for parts in results
    )
    assert scores is not None
    drop = whole.view(*whole.shape, *[1] * len(grid.shape)) - scores
    return OcclusionMaps(_by_coverage(drop, grid), drop, predicted, activity)


def _sides(size: PatchSize, shape: Sequence[int], name: str) -> tuple[int, ...]:
    sides = (size,) * len(shape) if isinstance(size, int) else tuple(map(int, size))
    if len(sides) != len(shape):
        raise InvalidArgumentError(f"{name} is {size}, the inputs are {list(shape)}: give {len(shape)} numbers, or one")
    if min(sides) < 1:
        raise InvalidArgumentError(f"{name} is {size}: give 1 pixel or more")
    return sides


def _by_coverage(drop: Tensor, grid: Grid) -> Tensor:
    """Drops ``[..., N, h, w]`` laid over the image where their patches were, ``[..., N, 1, H, W]``, and averaged.

    In double precision on the CPU: a thousand patches may cover a pixel, which half precision cannot add up, and a GPU
    may be allowed to multiply single precision in ten bits.
    """
    total, times = drop.cpu().double(), torch.ones((), dtype=torch.double, device="cpu")
    for axis, side in enumerate(zip(grid.positions, grid.patch, grid.stride, grid.shape, strict=True)):
        covering, at = _covering(*side), axis - len(grid.shape)
        total = total @ covering if at == -1 else (covering.T @ total.movedim(at, -2)).movedim(-2, at)
        times = times[..., None] * covering.sum(0)
    return to_device((total / times).unsqueeze(-1 - len(grid.shape)), drop.device, drop.dtype)


def _covering(positions: int, patch: int, stride: int, length: int) -> Tensor:
    """Which pixels of a side each position covers, ``[positions, length]``."""
    first = stride * torch.arange(positions, device="cpu")[:, None]
    pixels = torch.arange(length, device="cpu")
    return ((pixels >= first) & (pixels < first + patch)).double()


Baseline = Union[float, Literal["mean_color", "blurred"], Tensor, Callable[[Tensor], Tensor]]
"""A value in the model's input, a tensor to go with the images, or a function of them or its name."""


def baseline_image(images: Tensor, baseline: Baseline) -> Tensor:
    """A baseline (see `Baseline`) for each of the images ``[N, C, H, W]``, series or volumes, of its shape.

    Raises:
        InvalidArgumentError: a tensor that does not go with the images.
    """
    baseline = by_name(_BASELINES, baseline, "baseline")
    value = baseline(images) if callable(baseline) else baseline
    value = value if isinstance(value, Tensor) else to_device(torch.as_tensor(value, device="cpu"), images.device)
    try:
        return value.to(images).expand_as(images)
    except RuntimeError as error:
        shapes = f"{list(value.shape)}, the images {list(images.shape)}"
        raise InvalidArgumentError(f"the baseline is {shapes}: give a number, or a tensor that broadcasts") from error


def mean_color(images: Tensor) -> Tensor:
    """Each image's own mean, channel by channel.

    Args:
        images: ``[N, C, H, W]``, or series or volumes.
    """
    return images.mean(tuple(range(2, images.dim())), keepdim=True)


def blurred(images: Tensor, *, window: int = 11, deviation: float = 5.0) -> Tensor:
    """Images without their details, by a Gaussian; borders repeat.

    Args:
        images: ``[N, C, H, W]``.
        window: width and height of the kernel in pixels, odd (11: RISE's, for images of 224 x 224).
        deviation: of the Gaussian, in pixels (5: RISE's).

    Raises:
        InvalidArgumentError: they are no images.
    """
    if images.dim() != 4:
        raise InvalidArgumentError(f"only images [N, C, H, W] are blurred, these are {list(images.shape)}: give 0")
    return gaussian_blur(images, deviation, radius=window // 2, border="replicate")


_BASELINES: dict[str, Callable[[Tensor], Tensor]] = {"mean_color": mean_color, "blurred": blurred}


def _predicted(scores: Tensor, meaning: OutputMeaning) -> Tensor | None:
    """The most probable class ``[n]``; None where the output is not of classes."""
    if scores.dim() == 0 or meaning.kind in ("regression", "features", "tokens", "images"):
        return None
    table = class_scores(scores, meaning)
    return None if table.shape[1] == 1 else table.argmax(1)
