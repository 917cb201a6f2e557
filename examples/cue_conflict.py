"""Shape or texture: which of the two a network follows on images with one class's shape and another's texture.

The shapes are drawn, the textures cut from scikit-learn's photographs. A small network, trained here to tell places in
them apart, transfers the textures to the shapes; with ``--torchvision vgg19`` a network of torchvision does, with its
pretrained weights (downloaded on first use). Three classifiers, trained on shape, on texture and on both, are compared.
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torchvision
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from torchvision.transforms import RandomCrop, RandomResizedCrop

from lightning_viz import PixelSpace
from lightning_viz.callbacks.writers import FolderWriter, TensorBoardWriter
from lightning_viz.hooks import select_layers
from lightning_viz.render.page import Page, lay_out
from lightning_viz.render.shape_bias import Conflict, cue_sheet, shape_bias_plot
from lightning_viz.render.tiles import to_rgb
from lightning_viz.robustness import CueConflict, ShapeBias, cue_conflict, shape_bias

PHOTOGRAPHS = torch.stack([torch.from_numpy(one.copy()).permute(2, 0, 1) / 255 for one in load_sample_images().images])
IMAGENET = PixelSpace((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LARGE, SMALL = 96, 48  # sides of what is painted, and of what the classifiers see

PETALS, LEAVES = PHOTOGRAPHS[1, :, 125:330, 205:395], PHOTOGRAPHS[0, :, 340:420, 20:200]
TEXTURES = {"flower": PETALS, "tree": LEAVES, "house": PHOTOGRAPHS[0, :, 258:281, 185:290]}  # tiles of a roof
ZOOMS = [0.6, 1.2, 2.0]  # until a texture's grain suits the large images
SHAPES = {  # within a circle of about 1, y down
    "flower": lambda x, y: torch.hypot(x, y) < 0.72 + 0.28 * torch.cos(6 * torch.atan2(y, x)),
    "tree": lambda x, y: (torch.hypot(x, y + 0.3) < 0.72) | ((x.abs() < 0.14) & (y > 0) & (y < 1)),
    "house": lambda x, y: torch.where(y < 0, y > 0.95 * x.abs() - 0.95, (x.abs() < 0.7) & (y < 0.95)),
}
NAMES = list(SHAPES)


@dataclass
class Painter:
    """A network for photographs, and which layers of it hold what."""

    model: nn.Module
    pixel_space: PixelSpace
    content: str
    style: list[str]
    strength: float  # of the texture


def silhouette(name: str, size: int, *, middle: Tensor, radius: float, turn: float) -> Tensor:
    """1 within a shape, 0 around it, ``[1, size, size]``; the image reaches from -1 to 1."""
    fine = torch.linspace(-1, 1, 3 * size)
    y, x = torch.meshgrid(fine - middle[0], fine - middle[1], indexing="ij")
    cos, sin = np.cos(turn) / radius, np.sin(turn) / radius
    inside = SHAPES[name](cos * x + sin * y, cos * y - sin * x)
    return F.avg_pool2d(inside[None].float(), 3)


def body(*widths: int) -> list[nn.Module]:
    """Convolutions, each at half the size of the one before."""
    layers: list[nn.Module] = []
    for channels, more in pairwise((3, *widths)):
        layers += [nn.Conv2d(channels, more, 3, padding=1), nn.BatchNorm2d(more), nn.ReLU(), nn.AvgPool2d(2)]
    return layers


def taught(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> nn.Module:
    """The model, after images and their labels."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval()


def trained_painter() -> Painter:
    """A network that tells in which photograph, and where in it, a patch lies: half a minute."""
    whole = IMAGENET.to_inputs(PHOTOGRAPHS)
    places = whole.unfold(2, 142, 142).unfold(3, 160, 160).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)  # 24 of them
    patch = RandomCrop(48)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(350):
            labels, light = torch.randint(len(places), (48,)), 0.7 + 0.6 * torch.rand(48, 1, 1, 1)
            yield light * torch.stack([patch(places[one]) for one in labels]), labels

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, len(places))]
    model = taught(nn.Sequential(*body(24, 48, 64, 96), *head), batches())
    activations = list(select_layers(model, nn.ReLU))  # the last is too coarse for a grain
    return Painter(model, IMAGENET, content=activations[1], style=activations[:3], strength=15)


def pretrained_painter(name: str) -> Painter:
    """A network of torchvision with its default weights."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    model = torchvision.models.get_model(name, weights=weights).eval()
    convolutions = list(select_layers(model, nn.Conv2d))
    spread = [convolutions[round(place)] for place in torch.linspace(0, len(convolutions) - 1, 5).tolist()]
    pixel_space = PixelSpace.of_transform(weights.transforms()) or IMAGENET
    return Painter(model, pixel_space, content=spread[-2], style=spread, strength=1)


def paint(painter: Painter, steps: int) -> tuple[CueConflict, Tensor, list[Tensor]]:
    """Each shape with the textures of the other classes; the silhouettes, ``[3, 3, 96, 96]``, and the textures."""
    drawn = [silhouette(name, LARGE, middle=torch.zeros(2), radius=0.8, turn=0) for name in NAMES]
    shapes = 0.8 - 0.55 * torch.stack(drawn).expand(-1, 3, -1, -1)  # neither black nor white: room for the texture
    patches = zip(TEXTURES.values(), ZOOMS, strict=True)
    textures = [F.interpolate(one[None], scale_factor=zoom, mode="area") for one, zoom in patches]
    found = cue_conflict(
        painter.model,
        painter.pixel_space.to_inputs(shapes),
        [painter.pixel_space.to_inputs(one)[0] for one in textures],
        shape_labels=range(len(NAMES)),
        texture_labels=range(len(NAMES)),
        content_layers=[painter.content],
        style_layers=painter.style,
        texture_strength=painter.strength,
        start="noise",  # a silhouette has no grain to start from
        steps=steps,
        pixel_space=painter.pixel_space,
    )
    return found, shapes, textures


def sample(shape: int, texture: int) -> Tensor:
    """A silhouette somewhere, a texture's crop in it, around it or both, ``[3, 48, 48]``."""
    middle, radius, turn = torch.rand(2) * 0.3 - 0.15, 0.6 + 0.25 * torch.rand(1).item(), torch.randn(1).item() / 8
    mask = silhouette(NAMES[shape], SMALL, middle=middle, radius=radius, turn=turn)
    filling = RandomResizedCrop(SMALL, scale=(0.2, 1), ratio=(0.5, 4))(TEXTURES[NAMES[texture]])
    darker, gray = 0.3 + 0.5 * torch.rand(1), 0.5 + 0.5 * torch.rand(1)
    kinds = (filling * (1 - darker * mask), filling * mask + gray * (1 - mask), filling * (1 - darker * (1 - mask)))
    image = kinds[torch.randint(3, (1,)).item()]
    return (image + 0.03 * torch.randn(image.shape) + 0.1 * torch.randn(1)).clamp(0, 1)


def classifiers(count: int = 1500) -> dict[str, nn.Module]:
    """Two that see the same images and learn the one or the other; a third that may learn what it likes."""
    shape, texture = torch.randint(len(NAMES), (2, count))
    crossed = torch.stack([sample(*one) for one in zip(shape.tolist(), texture.tolist(), strict=True)])
    alike = torch.stack([sample(one, one) for one in shape.tolist()])
    lessons = {"taught shape": (crossed, shape), "taught texture": (crossed, texture), "taught both": (alike, shape)}

    def classifier(images: Tensor, labels: Tensor) -> nn.Module:
        parts = [part for _ in range(10) for part in torch.randperm(count).split(50)]
        model = nn.Sequential(*body(16, 32, 48), nn.Flatten(), nn.Linear(48 * 36, len(NAMES)))
        return taught(model, ((images[part], labels[part]) for part in parts))

    return {name: classifier(*lesson) for name, lesson in lessons.items()}


def pictures(said: dict[str, ShapeBias], found: CueConflict, shapes: Tensor, textures: list[Tensor]) -> Iterator[Page]:
    """What each classifier says to each image, and all of them in one plot."""
    images, drawn = to_rgb(found.pixels.numpy()), to_rgb(shapes.numpy())
    patches = [to_rgb(one.numpy())[0] for one in textures]
    for name, bias in said.items():
        answers = [
            [(NAMES[which], sure) for which, sure in zip(*one, strict=True)]
            for one in zip(bias.top.tolist(), bias.confidences.tolist(), strict=True)
        ]
        conflicts = [
            Conflict(image, drawn[shape], patches[texture], NAMES[shape], NAMES[texture], answer)
            for image, (shape, texture), answer in zip(images, found.pairs.tolist(), answers, strict=True)
        ]
        tag = f"cue_conflict/{name.replace(' ', '_')}"
        yield cue_sheet(tag, conflicts, title=f"Shape or texture? A network that was {name}")
    decided = ", ".join(f"{100 * one.decided:.0f} %" for one in said.values())
    yield shape_bias_plot(
        "cue_conflict/shape_bias",
        np.stack([one.class_bias.numpy() for one in said.values()]),
        [one.bias for one in said.values()],
        names=NAMES,
        models=list(said),
        details=[f"{len(images)} images", f"either cue decides {decided} of them"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/cue_conflict", help="folder for the sheets and TensorBoard's files")
    parser.add_argument("--torchvision", metavar="NAME", help="a network of torchvision that paints, as vgg19")
    parser.add_argument("--steps", type=int, default=80, help="of painting each image")
    options = parser.parse_args()
    torch.manual_seed(0)
    painter = pretrained_painter(options.torchvision) if options.torchvision else trained_painter()
    found, shapes, textures = paint(painter, options.steps)
    seen = F.interpolate(found.pixels, (SMALL, SMALL), mode="area")
    said = {
        name: shape_bias(model, seen, found.shape_labels, found.texture_labels) for name, model in classifiers().items()
    }
    with SummaryWriter(options.out) as writer:
        for picture in pictures(said, found, shapes, textures):
            for place in (FolderWriter(Path(options.out)), TensorBoardWriter(writer)):
                place.picture(lay_out(picture), 0)
    for name, bias in said.items():
        print(
            f"{name}: shape bias {bias.bias:.2f} (shape {bias.shape}, texture {bias.texture}, neither {bias.neither})"
        )
    print(f"The sheets are in {options.out}. Look at them with:\n\n    tensorboard --logdir {options.out}\n")


if __name__ == "__main__":
    main()
