"""Corruptions beside the reference implementation's: processor time an image, by kind, size and severity.

    pip install imagecorruptions "setuptools<81"
    python benchmarks/corruptions.py

`imagecorruptions` is the paper's code as a package; it takes and gives one 8-bit image. Our time includes the way from
the model's input to pixels and back, for one image alone and for each of a batch. One thread; both sides take turns in
short series, and each has its least time.
"""

import argparse
import functools
import time

import numpy as np
import skimage.filters
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from lightning_viz.robustness import CORRUPTIONS, corrupt

SEVERITIES = (1, 3, 5)
SERIES, SECONDS = 5, 0.1


def gaussian(image, *args, multichannel=None, **options):
    """What scikit-image called by another name when the reference was written."""
    return FILTER(image, *args, channel_axis=-1 if multichannel else None, **options)


FILTER = skimage.filters.gaussian
skimage.filters.gaussian = functools.wraps(FILTER)(gaussian)
np.float_ = np.float64  # noqa: NPY201  likewise NumPy

import imagecorruptions  # noqa: E402


def least_times(*works):
    """Milliseconds of each work: the least of several short series, in which they take turns."""
    least = [float("inf")] * len(works)
    for _ in range(SERIES):
        for number, work in enumerate(works):
            work()
            began = time.perf_counter()
            while True:
                started = time.process_time()
                work()
                least[number] = min(least[number], time.process_time() - started)
                if time.perf_counter() - began > SECONDS:
                    break
    return [1000 * seconds for seconds in least]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 224])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--kinds", nargs="+", default=list(CORRUPTIONS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"side, kind, and at severities {SEVERITIES}: ms of ours alone, in a batch of {asked.batch}, the reference's;"
    )
    print("    and ours alone and in a batch, as multiples of the reference's")
    for side in asked.sides:
        photo = np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize((side, side)))
        alone = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].contiguous() / 255
        batch = alone.repeat(asked.batch, 1, 1, 1)
        for kind in asked.kinds:
            row = []
            for severity in SEVERITIES:
                ours, many, theirs = least_times(
                    functools.partial(corrupt, alone, kind, severity),
                    functools.partial(corrupt, batch, kind, severity),
                    functools.partial(imagecorruptions.corrupt, photo, severity, kind),
                )
                many /= asked.batch
                row.append(f"{ours:5.2f} {many:5.2f} {theirs:6.2f}: {ours / theirs:4.2f} {many / theirs:4.2f}")
            print(f"{side:4} {kind:18}", "   ".join(row), flush=True)


if __name__ == "__main__":
    main()
