"""Occlusion in the windows that a patch reaches, beside whole passes in the best batches: multiplications, time, error.

Counted are the multiplications of convolutions and linear layers, of all that runs for so many positions; the least is
that of windows of just what each position changes, as long as they are no more than the whole map. Both ways take turns
in one process; the times are processor times of occlusion(), the median over the rounds of their ratio.

    python benchmarks/occlusion.py [MODEL ...] [--rounds 3] [--threads 1] [--all]

`--all` counts and times all 9,409 positions of 32 / 2 at 224 x 224 instead of a sample of 324.
"""

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor, nn
from turns import network

from lightning_viz.attribution import occluded_passes, occlusion
from lightning_viz.attribution.occlusion import Grid
from lightning_viz.hooks import patched_operations
from lightning_viz.hooks.patched_copies import Patched, SharedMaps, covered_copies
from lightning_viz.hooks.patched_maps import PatchedMaps
from lightning_viz.hooks.reach import PatchWindows
from lightning_viz.hooks.work_counter import WorkCounter

MODELS = ("vgg19", "alexnet", "resnet18", "densenet121", "mobilenet_v2", "convnext_tiny")
SIDE, PATCH, STRIDE = 224, 32, 2
BAND = 6  # rows and columns of the sample


@contextmanager
def some_positions(every: bool) -> Iterator[int]:
    """All positions, or a sample, three bands of rows times three of columns."""
    grid = Grid((PATCH,) * 2, (STRIDE,) * 2, (SIDE,) * 2)
    rows, columns = grid.positions
    if every:
        yield rows * columns
        return
    chosen = torch.cat([torch.arange(middle - BAND // 2, middle + BAND // 2) for middle in (16, 48, 80)])
    places = grid.places.view(rows, columns, 2)[chosen][:, chosen].flatten(0, 1)
    with (
        mock.patch.object(Grid, "places", places),
        mock.patch.object(Grid, "positions", (len(chosen),) * 2),
        mock.patch("lightning_viz.attribution.occlusion._by_coverage", lambda drop, grid: drop),
    ):
        yield len(places)


@contextmanager
def whole_passes() -> Iterator[None]:
    with mock.patch.object(occluded_passes, "is_sharded", lambda model: True):
        yield


def drops(model: nn.Module, x: Tensor) -> Tensor:
    return occlusion(model, x, 0, patch=PATCH, stride=STRIDE, progress=False).drop


def counted(work: Callable[[], object]) -> int:
    with WorkCounter() as mode:
        work()
    return int(mode.work.multiplications)


def least(name: str, one: int) -> float:
    """The share of a pass that is multiplied if each position computes just what it changes, on average over all.

    Rows and columns are independent, so that the positions of a diagonal tell both; on tensors without values.
    """
    places, sizes = Grid((PATCH,) * 2, (STRIDE,) * 2, (SIDE,) * 2).places, []
    model, image = network(name).to("meta"), torch.empty(1, 3, SIDE, SIDE, device="meta")

    def note(kept: SharedMaps, result: Patched, multiplications: int) -> None:
        channels = result.shared.numel() // math.prod(result.sides)
        sizes[-1].append((*result.windows.size, *result.sides, channels * multiplications))

    patched = mock.patch.multiple(patched_operations, _ENOUGH=1.0, _count=note)
    with patched, torch.no_grad():
        for start in range(0, SIDE - PATCH + 1, STRIDE):
            sizes.append([])
            windows = PatchWindows(torch.tensor([[start, start]]), (PATCH, PATCH))
            model(PatchedMaps(covered_copies(image, image, windows, SharedMaps())))
    assert len(places) == len(sizes) ** 2
    table = torch.tensor(sizes, dtype=torch.double)  # [rows, operations, 5]
    rows, columns, height, width, each = table.mean(0).unbind(-1)
    return 1 - float(((height * width - rows * columns) * each).sum()) / one


def measure(name: str, every: bool, rounds: int) -> None:
    torch.manual_seed(0)
    model, x = network(name), torch.randn(1, 3, SIDE, SIDE)
    with some_positions(every) as count:
        with torch.no_grad():
            one = counted(lambda: model(x))
        share = counted(lambda: drops(model, x)) / (count * one)
        ratios, error = [], 0.0
        for _ in range(rounds):
            started = time.process_time()
            windowed = drops(model, x)
            between = time.process_time()
            with whole_passes():
                whole = drops(model, x)
            ratios.append((between - started) / (time.process_time() - between))
            error = max(error, float((windowed - whole).abs().max() / model(x).abs().max()))
    figures = f"{share:10.3f}{least(name, one):10.3f}{statistics.median(ratios):10.3f}{error:10.1e}"
    print(f"{name:<16}{figures}   {min(ratios):.3f} to {max(ratios):.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads; {PATCH} / {STRIDE} at {SIDE}, shares of whole passes")
    print(f"{'':<16}{'counted':>10}{'least':>10}{'time':>10}{'error':>10}   rounds")
    for name in options.models:
        measure(name, options.all, options.rounds)


if __name__ == "__main__":
    main()
