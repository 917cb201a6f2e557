"""Style transfer as augmentation: shape bias and corruption error before and after (Geirhos et al., 2019).

In the training images every shape has its own texture (see `cue_conflict.py`), so a network may learn either. A network
that was trained on them stylizes a copy of them with the textures of all classes: then only the shape tells the class.
A second network is trained on a mixture of both, and the two are compared on images of which the truth is known.
"""

import argparse
from pathlib import Path

import torch
from cue_conflict import NAMES, crossed, scenes, surfaces, taught
from torch.utils.data import TensorDataset

from lightning_viz.robustness import compare_corruption_error, shape_bias, stylized


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/stylized", help="folder for the stylized images")
    parser.add_argument("--images", type=int, default=1000, help="for training")
    parser.add_argument("--steps", type=int, default=40, help="of the style transfer")
    options = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(len(NAMES), (options.images,), generator=generator)
    images = scenes(labels, labels, seed=4)
    plain = taught(images, labels)
    mixed = stylized(
        TensorDataset(images, labels),
        surfaces(torch.arange(len(NAMES)).repeat(2), generator),
        model=plain,
        folder=Path(options.out),
        share=0.6,
        content_layers=["2"],
        style_layers=["2", "6", "10"],
        style_strength=30,
        steps=options.steps,
    )
    both = taught(torch.stack([image for image, _ in mixed]), labels)

    cues, shapes, textures = crossed(800, seed=5)
    conflict = shapes != textures
    kinds = ["gaussian_noise", "shot_noise", "impulse_noise", "contrast", "brightness", "pixelate"]
    new = torch.randint(len(NAMES), (300,), generator=generator)
    errors = compare_corruption_error(
        {"plain": plain, "stylized": both}, (scenes(new, new, seed=6), new), reference="plain", kinds=kinds
    )
    for name, model in {"plain": plain, "stylized": both}.items():
        bias = shape_bias(model, cues[conflict], shapes[conflict], textures[conflict])
        error = errors[name]
        print(
            f"{name}: shape bias {bias.bias:.2f} on {int(conflict.sum())} images, error {error.clean:.3f} clean and "
            f"{error.errors.mean():.3f} corrupted, mCE {error.mce:.2f}"
        )


if __name__ == "__main__":
    main()
