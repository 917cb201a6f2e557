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

from lightning_viz.callbacks.writers import FolderWriter
from lightning_viz.render.page import Page, compose, lay_out
from lightning_viz.render.parts import HStack, Tile, VStack
from lightning_viz.render.text import fixed_point, number
from lightning_viz.render.tiles import to_rgb
from lightning_viz.robustness import compare_corruption_error, shape_bias, stylized

COLUMNS, TILE = 6, 109  # images in a row, and pixels of each


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
    facts = []
    for name, model in {"plain": plain, "stylized": both}.items():
        bias = shape_bias(model, cues[conflict], shapes[conflict], textures[conflict])
        error = errors[name]
        print(
            f"{name}: shape bias {bias.bias:.2f} on {int(conflict.sum())} images, error {error.clean:.3f} clean and "
            f"{error.errors.mean():.3f} corrupted, mCE {error.mce:.2f}"
        )
        clean, corrupted = number(100 * error.clean, 2), number(100 * float(error.errors.mean()), 2)
        facts.append(f"{name}: shape bias {fixed_point(bias.bias)}, error {clean} % clean, {corrupted} % corrupted")
    changed = [n for n in range(len(images)) if not torch.equal(mixed[n][0], images[n])][: 2 * COLUMNS]
    FolderWriter(Path(options.out)).picture(lay_out(page(images[changed], mixed, changed, facts)), options.steps)


def page(originals, mixed, changed, facts) -> Page:
    """Some images, each above its stylized copy, and how the networks with and without such copies compare."""
    copies = torch.stack([mixed[n][0] for n in changed])
    rows = []
    for start in range(0, len(changed), COLUMNS):
        for images in (originals, copies):
            pixels = to_rgb(images[start : start + COLUMNS].clamp(0, 1).numpy())
            rows.append(HStack([Tile((TILE, TILE), image) for image in pixels], gap=4))
    return compose(
        "stylized/copies",
        "Style transfer as augmentation",
        VStack(rows, gap=4),
        facts,
        "Each image stands above its stylized copy: the same shape with the texture of another class. A network that "
        "is trained on such copies, too, cannot tell the classes by texture and goes by shape more often. Shape bias: "
        "the share of images with one class's shape and another's texture that are decided by shape.",
    )


if __name__ == "__main__":
    main()
