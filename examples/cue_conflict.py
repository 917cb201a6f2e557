"""Shape or texture: which of the two a network follows on images with one class's shape and another's texture.

Shapes and textures are drawn, four of each, so that the truth is known. A network, trained here to tell both, transfers
the textures to the shapes; with ``--torchvision vgg19`` a network of torchvision does, with its pretrained weights
(downloaded on first use). Three classifiers are compared: two see the same images, of which any shape may have any
texture, and learn the one or the other; the third sees shapes with their own textures alone.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from lightning_viz import PixelSpace
from lightning_viz.callbacks.writers import FolderWriter, TensorBoardWriter
from lightning_viz.hooks import select_layers
from lightning_viz.render.page import Page, lay_out
from lightning_viz.render.shape_bias import Conflict, cue_sheet, shape_bias_plot
from lightning_viz.render.tiles import to_rgb
from lightning_viz.robustness import CueConflict, ShapeBias, cue_conflict, shape_bias

IMAGENET = PixelSpace((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIZE = 48
SHAPES = {  # within a circle of about 1, y down
    "flower": lambda x, y: torch.hypot(x, y) < 0.72 + 0.28 * torch.cos(6 * torch.atan2(y, x)),
    "tree": lambda x, y: (torch.hypot(x, y + 0.3) < 0.72) | ((x.abs() < 0.14) & (y > 0) & (y < 1)),
    "house": lambda x, y: torch.where(y < 0, y > 0.95 * x.abs() - 0.95, (x.abs() < 0.7) & (y < 0.95)),
    "fish": lambda x, y: (
        ((x + 0.25) ** 2 / 0.56 + y**2 / 0.2 < 1) | ((x > 0.35) & (x < 1) & (y.abs() < 0.75 * x - 0.19))
    ),
}
NAMES = list(SHAPES)
COLORS = [  # of each texture, two: of dots, leaves, bricks and waves
    [[0.95, 0.6, 0.45], [0.75, 0.15, 0.3]],
    [[0.15, 0.35, 0.1], [0.45, 0.65, 0.25]],
    [[0.7, 0.35, 0.25], [0.9, 0.85, 0.8]],
    [[0.2, 0.35, 0.6], [0.6, 0.75, 0.85]],
]


@dataclass
class Painter:
    """A network for the style transfer, and which layers of it hold what."""

    model: nn.Module
    pixel_space: PixelSpace
    content: str
    style: list[str]
    strength: float  # of the texture


def coordinates(middle: Tensor, turn: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Places ``[N, 96, 96]`` in the coordinates of what is drawn; the image reaches from -1 to 1."""
    fine = (torch.arange(2 * SIZE) + 0.5) / SIZE - 1
    y, x = fine[None, :, None] - middle[0], fine[None, None] - middle[1]
    return (turn.cos() * x + turn.sin() * y) / scale, (turn.cos() * y - turn.sin() * x) / scale


def chosen(drawn: list[Tensor], labels: Tensor) -> Tensor:
    """Of each image what its label says, smooth at its edges, ``[N, 1, 48, 48]``."""
    return F.avg_pool2d(torch.stack(drawn)[labels, torch.arange(len(labels))].float()[:, None], 2)


def silhouettes(labels: Tensor, generator: torch.Generator, *, variety: float = 1.0) -> Tensor:
    """1 within a shape, 0 around it, ``[N, 1, 48, 48]``; of any place, size and turn."""
    middle, turn, size = torch.rand(4, len(labels), 1, 1, generator=generator).split([2, 1, 1])
    x, y = coordinates(
        variety * (middle - 0.5) * 0.3, variety * (turn[0] - 0.5) / 2, 0.75 + variety * (size[0] - 0.5) * 0.3
    )
    return chosen([inside(x, y) for inside in SHAPES.values()], labels)


def surfaces(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Dots, leaves, bricks and waves of any phase, size and turn and of various colors, ``[N, 3, 48, 48]``."""
    count = len(labels)
    phase, turn, size = torch.rand(4, count, 1, 1, generator=generator).split([2, 1, 1])
    x, y = coordinates(9 + phase, (turn[0] - 0.5) / 2, 0.26 + 0.1 * size[0])
    noise = F.interpolate(torch.randn(count, 1, 14, 14, generator=generator), size=(2 * SIZE, 2 * SIZE), mode="bicubic")
    shifted = (y + x.floor() % 2 / 2) % 1
    drawn = [
        (x % 1 - 0.5) ** 2 + (shifted - 0.5) ** 2 < 0.11,
        noise[:, 0] > 0,
        (1.6 * y % 1 < 0.25) | ((0.8 * x + (1.6 * y).floor() % 2 / 2) % 1 < 0.14),
        (y + (x % 1 - 0.5).abs()) % 1 < 0.5,
    ]
    grain = chosen(drawn, labels)
    colors = torch.tensor(COLORS)[labels] + 0.1 * torch.randn(count, 2, 3, generator=generator)
    first, second = colors[..., None, None].unbind(1)
    return (first + (second - first) * grain).clamp(0.02, 0.98)


def scenes(shapes: Tensor, textures: Tensor, seed: int) -> Tensor:
    """A texture in the silhouette of a shape, around it, or on both of them, darker in one, ``[N, 3, 48, 48]``."""
    generator = torch.Generator().manual_seed(seed)
    count = len(shapes)
    inside, surface = silhouettes(shapes, generator), surfaces(textures, generator)
    darker, gray = (
        0.3 + 0.45 * torch.rand(count, 1, 1, 1, generator=generator),
        torch.rand(count, 1, 1, 1, generator=generator),
    )
    kinds = [
        surface * (1 - darker * inside),
        surface * (1 - darker * (1 - inside)),
        surface * inside + (0.5 + gray / 2) * (1 - inside),
    ]
    kind = torch.randint(len(kinds), (count,), generator=generator)
    images = torch.stack(kinds)[kind, torch.arange(count)]
    return (images + 0.03 * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def network(classes: int) -> nn.Module:
    """Convolutions, each at half the size of the one before; averages, as maxima leave a grid in what is painted."""
    layers: list[nn.Module] = []
    for channels, more in pairwise((3, 16, 32, 48)):
        layers += [nn.Conv2d(channels, more, 3, padding=1), nn.BatchNorm2d(more), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 36, classes))


def taught(images: Tensor, labels: Tensor, *, classes: int = len(NAMES), epochs: int = 8) -> nn.Module:
    """A network, trained on images and their labels."""
    model = network(classes)
    optimizer = torch.optim.Adam(model.parameters())
    parts = [part for _ in range(epochs) for part in torch.randperm(len(images)).split(50)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=len(parts))
    for part in parts:
        optimizer.zero_grad()
        F.cross_entropy(model(images[part]), labels[part]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def crossed(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images of which any shape may have any texture, and the classes of both."""
    shapes, textures = torch.randint(len(NAMES), (2, count), generator=torch.Generator().manual_seed(seed))
    return scenes(shapes, textures, seed), shapes, textures


def trained_painter(images: Tensor, shapes: Tensor, textures: Tensor) -> Painter:
    """A network that tells shape and texture."""
    model = taught(images, len(NAMES) * shapes + textures, classes=len(NAMES) ** 2)
    activations = list(select_layers(model, nn.ReLU))
    return Painter(model, PixelSpace(), content=activations[0], style=activations, strength=30)


def pretrained_painter(name: str) -> Painter:
    """A network of torchvision with its default weights."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    model = torchvision.models.get_model(name, weights=weights).eval()
    convolutions = list(select_layers(model, nn.Conv2d))
    spread = [convolutions[round(place)] for place in torch.linspace(0, len(convolutions) - 1, 5).tolist()]
    pixel_space = PixelSpace.of_transform(weights.transforms()) or IMAGENET
    return Painter(model, pixel_space, content=spread[-2], style=spread, strength=1)


def paint(painter: Painter, steps: int) -> tuple[CueConflict, Tensor, Tensor]:
    """Two images for each pair of a shape and a texture of another class; the silhouettes and the textures."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(len(NAMES)).repeat(2)
    drawn = silhouettes(labels, generator, variety=0.3).expand(-1, 3, -1, -1)
    shapes = 0.75 - 0.5 * drawn  # neither black nor white: room for the texture
    textures = surfaces(labels, generator)
    classes = range(len(NAMES))
    different = [(shape, (shape + step) % len(NAMES)) for step in classes[1:] for shape in classes]
    found = cue_conflict(
        painter.model,
        painter.pixel_space.to_inputs(shapes),
        painter.pixel_space.to_inputs(textures),
        shape_labels=labels,
        texture_labels=labels,
        pairs=[(shape + copy, texture + copy) for copy in (0, len(NAMES)) for shape, texture in different],
        content_layers=[painter.content],
        style_layers=painter.style,
        texture_strength=painter.strength,
        start="noise",  # a silhouette has no grain to start from
        steps=steps,
        pixel_space=painter.pixel_space,
    )
    return found, shapes, textures


def classifiers(images: Tensor, shapes: Tensor, textures: Tensor) -> dict[str, nn.Module]:
    """Two that see the same images and learn the one or the other; a third that may learn what it likes."""
    return {
        "taught shape": taught(images, shapes),
        "taught texture": taught(images, textures),
        "taught both": taught(scenes(shapes, shapes, seed=3), shapes),
    }


def pictures(said: dict[str, ShapeBias], found: CueConflict, shapes: Tensor, textures: Tensor) -> Iterator[Page]:
    """What each classifier says to each image, and all of them in one plot."""
    images, drawn, patches = (to_rgb(one.numpy()) for one in (found.pixels, shapes, textures))
    names = 2 * NAMES  # of the shapes and of the textures
    for name, bias in said.items():
        answers = [
            [(NAMES[which], sure) for which, sure in zip(*one, strict=True)]
            for one in zip(bias.top.tolist(), bias.confidences.tolist(), strict=True)
        ]
        conflicts = [
            Conflict(image, drawn[shape], patches[texture], names[shape], names[texture], answer)
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
    data = crossed(1500, seed=1)
    painter = pretrained_painter(options.torchvision) if options.torchvision else trained_painter(*data)
    found, shapes, textures = paint(painter, options.steps)
    said = {
        name: shape_bias(model, found.pixels, found.shape_labels, found.texture_labels)
        for name, model in classifiers(*data).items()
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
