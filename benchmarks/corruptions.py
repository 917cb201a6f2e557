"""Corruptions beside the reference implementation's: processor time for one image of 224 x 224, by kind.

    pip install imagecorruptions "setuptools<81"
    python benchmarks/corruptions.py

`imagecorruptions` is the paper's code as a package; it takes and gives 8-bit images. Our time includes the way from the
model's input to pixels and back. Times are the least of several, of one thread.
"""

import functools
import time

import numpy as np
import skimage.filters
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from lightning_viz.robustness import CORRUPTIONS, all_corruptions, corrupt

SEVERITIES = (1, 3, 5)
REPEATS = 7


def gaussian(image, *args, multichannel=None, **options):
    """What scikit-image called by another name when the reference was written."""
    return FILTER(image, *args, channel_axis=-1 if multichannel else None, **options)


FILTER = skimage.filters.gaussian
skimage.filters.gaussian = functools.wraps(FILTER)(gaussian)
np.float_ = np.float64  # noqa: NPY201  likewise NumPy

import imagecorruptions  # noqa: E402


def milliseconds(work):
    taken = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return 1000 * min(taken)


def main():
    torch.set_num_threads(1)
    photo = np.asarray(Image.fromarray(load_sample_image("china.jpg")).resize((224, 224)))
    inputs = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255
    print(f"ms an image, ours / reference = ratio, at severities {SEVERITIES}; last column: ours in a loop over all")
    for kind in CORRUPTIONS:
        row = []
        for severity in SEVERITIES:
            ours = milliseconds(lambda: corrupt(inputs, kind, severity))
            theirs = milliseconds(lambda: imagecorruptions.corrupt(photo, severity=severity, corruption_name=kind))
            row.append(f"{ours:5.1f} / {theirs:6.1f} = {ours / theirs:5.2f}")
        together = milliseconds(lambda: list(all_corruptions(inputs, kinds=[kind]))) / 5
        print(f"{kind:18}", "   ".join(row), f"   {together:5.1f}", flush=True)


if __name__ == "__main__":
    main()
