"""Statistics of a method's maps over noisy copies of the input: SmoothGrad, its square, and the variance."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args

import torch
from torch import Tensor, nn

from lightning_viz._docstrings import documented_like
from lightning_viz.attribution.gradients import (
    MEAN,
    Statistic,
    copy_batches,
    gradient,
    integrated_gradients,
    mean_gradient,
    value_range,
)
from lightning_viz.catalogue import method
from lightning_viz.catalogue_types import SmoothedMethod
from lightning_viz.errors import AttributionWarning, InvalidArgumentError, by_name
from lightning_viz.hooks.calls import as_call, as_given
from lightning_viz.hooks.observe import Forward
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.hooks.target_types import Target
from lightning_viz.hooks.targets import TargetLike
from lightning_viz.host_copies import to_device

__all__ = ["smooth_grad"]

NoiseStatistic = Literal["mean", "squared", "variance"]


def _variance(sums: Tensor) -> Tensor:
    return (sums[1] - sums[0] ** 2).clamp_min(0)


STATISTICS: Mapping[str, Statistic] = {
    "mean": MEAN,
    "squared": Statistic(lambda maps: maps[None] ** 2, MEAN.combine),
    "variance": Statistic(lambda maps: torch.stack([maps.double(), maps.double() ** 2]), _variance),
}


@documented_like(integrated_gradients)
def smooth_grad(  # noqa: D417 (see integrated_gradients)
    model: nn.Module,
    inputs: Any,
    target: TargetLike = None,
    *,
    of: Union[SmoothedMethod, Callable[..., Any]] = "gradient",
    statistic: NoiseStatistic = "mean",
    noise_samples: int = 50,
    fraction: float = 0.15,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> Any:
    r"""SmoothGrad: averages the gradient over noisy copies of the input (Smilkov et al., 2017).

    .. math:: \frac{1}{n} \sum_{i=1}^{n} \frac{\partial y}{\partial x}(x + \varepsilon_i),
        \qquad \varepsilon_i \sim \mathcal{N}(0, \sigma^2), \quad \sigma = \text{fraction} \cdot (\max x - \min x)

    or another method's maps in place of the gradient, or of either the mean square (SmoothGrad-Squared, Hooker et al.,
    2019) or the variance (VarGrad, Adebayo et al., 2018).

    Args:
        target: what to explain, see `TargetLike`; the class predicted for the clean input if omitted.
        of: the method whose maps are averaged, by name, or a function ``(model, inputs, target)`` that returns maps in
            the form of the inputs, such as `guided_backprop`; given ``forward=`` if this is.
        statistic: over the copies: the ``"mean"``, the mean of the ``"squared"`` maps, or their ``"variance"`` (divided
            by n).
        noise_samples: n, noisy copies of each sample (50: the paper's).
        fraction: standard deviation of the noise, relative to each sample's own range (0.15: the paper finds 0.1 to 0.2
            best).
        seed: of the noise: the same numbers whatever the batch size and the device.
        batch_size: copies per pass; what suits the inputs and fits if None.

    Returns:
        The mean *signed* map, in the form and shape of `inputs`, in the method's unit, or a statistic in its square;
        None for integers and for what all samples share, which get no noise.

    Raises:
        NoGradientError: the target does not depend on the input.
        InvalidArgumentError: `noise_samples` or `batch_size` is not positive, or there is no such method or statistic.
    """
    if noise_samples < 1:
        raise InvalidArgumentError(f"noise_samples is {noise_samples}: give 1 or more")
    loaders = {name: method(name).load for name in get_args(SmoothedMethod)}
    function = by_name(loaders, of, "of")() if isinstance(of, str) else of
    computed = by_name(STATISTICS, statistic, "statistic")
    whole = as_call(inputs)
    noise = _Noise(all_tensors(whole), seed)

    def noisy(index: int, x: Tensor, copies: Tensor, samples: Tensor) -> Tensor:
        return x + fraction * value_range(x) * to_device(noise.of(index, copies), x.device, x.dtype)

    options: dict[str, Any] = {} if forward is None else {"forward": forward}
    if "progress" in inspect.signature(function).parameters:
        options["progress"] = False  # there is one bar, of the copies

    def attribute(at: Any, explained: Target) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the gradient is exactly zero", AttributionWarning)  # of single copies
            return function(model, at, explained, **options)

    result = mean_gradient(
        model,
        whole,
        target,
        move=noisy,
        weights=torch.full((noise_samples,), 1 / noise_samples, dtype=torch.float64, device="cpu"),
        batches=copy_batches(model, whole, noise_samples, batch_size, progress, "SmoothGrad"),
        attribute=None if function is gradient else attribute,
        statistic=computed,
        forward=forward,
    )
    return as_given(result, inputs)


class _Noise:
    """Standard normal noise, copy after copy from one seed, the same for every sample.

    So a sample's map depends neither on its index in the batch nor on how many copies share a pass.
    """

    def __init__(self, tensors: list[Tensor], seed: int) -> None:
        self._shapes = [x.shape[1:] if x.is_floating_point() else None for x in tensors]
        self._generator = torch.Generator().manual_seed(seed)
        self._draws: list[list[Tensor | None]] = []

    def of(self, index: int, copies: Tensor) -> Tensor:
        """The noise of an input's copies ``[n, ...]``, which are asked for in ascending order."""
        first, last = int(copies[0]), int(copies[-1])
        while len(self._draws) <= last:
            self._draws.append([None if shape is None else self._draw(shape) for shape in self._shapes])
        for passed in range(first - 1, -1, -1):  # no longer needed
            if not self._draws[passed]:
                break
            self._draws[passed] = []
        return torch.stack([self._draws[copy][index] for copy in copies.tolist()])

    def _draw(self, shape: torch.Size) -> Tensor:
        """Whatever torch's default type and device are."""
        return torch.randn(shape, generator=self._generator, dtype=torch.float32, device="cpu")
