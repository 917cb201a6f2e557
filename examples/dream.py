"""Images made by optimization (activation maximization, inversion, ...): sheets, as PNG and in TensorBoard.

Trains a small network on scikit-learn's digits; with ``--torchvision vgg16`` it takes a network of torchvision with its
pretrained weights instead (downloaded on first use), and scikit-learn's photographs.
"""

import argparse
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torchvision
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from lightning_viz import PixelSpace
from lightning_viz.callbacks.writers import FolderWriter, TensorBoardWriter
from lightning_viz.dream import (
    YOSINSKI,
    blur,
    decay,
    deep_dream,
    edge_energy,
    fool,
    fourier,
    invert,
    l2,
    maximize,
    pixels,
    search_priors,
    standard,
    style_transfer,
    total_variation,
)
from lightning_viz.hooks import logit, select_layers, unit
from lightning_viz.render.dreams import climb_curves, dream_animation, dream_table, dream_tiles
from lightning_viz.render.page import Page, lay_out
from lightning_viz.render.tiles import confidence_text, to_rgb


@dataclass
class Photographic:
    """A network for photographs, layers of it from shallow to deep, and the one that holds the content of a style."""

    model: nn.Module
    pixel_space: PixelSpace
    layers: list[str]
    content: str


@dataclass
class Subject:
    """A network, samples that it knows, and what to ask of it."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    names: list[str]
    pixel_space: PixelSpace
    classes: list[int]
    layers: list[str]
    natural: float  # weight of the edge energy
    trials: int  # of presets
    photographic: Photographic | None = None
    height: int = 214  # of the photographs, in pixels

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])


def digits() -> Subject:
    """A small network, trained here."""
    torch.manual_seed(0)
    data = load_digits()
    ink = F.interpolate(torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, (28, 28), mode="bilinear")
    pixel_space = PixelSpace((ink.mean().item(),), (ink.std().item(),))
    images, labels = pixel_space.to_inputs(ink), torch.tensor(data.target)
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 5, padding=2), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(16, 32, 3, padding=1), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(32, 64, 3, padding=1), relu3=nn.ReLU(), flat=nn.Flatten(),
            fc1=nn.Linear(64 * 49, 64), relu4=nn.ReLU(), fc2=nn.Linear(64, 10),
        )
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(8):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    names = [str(one) for one in range(10)]
    layers = ["conv1", "conv2", "conv3", "fc1", "fc2"]
    return Subject(model.eval(), images, labels, names, pixel_space, list(range(10)), layers, natural=0.05, trials=40)


def pretrained(name: str) -> Subject:
    """A network of torchvision with its default weights, and two photographs."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    model = torchvision.models.get_model(name, weights=weights).eval()
    pixel_space = PixelSpace.of_transform(weights.transforms()) or PixelSpace(
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    images = torch.stack([weights.transforms()(one) for one in photographs(427)])
    labels = model(images).argmax(1).detach()
    convolutions = list(select_layers(model, nn.Conv2d))
    spread = [convolutions[round(place)] for place in torch.linspace(0, len(convolutions) - 1, 5).tolist()]
    classes = [1, 71, 130, 323, 417, 555, 817, 933]
    names, known = weights.meta["categories"], Photographic(model, pixel_space, spread, content=spread[-2])
    return Subject(model, images, labels, names, pixel_space, classes, spread, 1e-3, trials=5, photographic=known)


def photographs(height: int) -> Tensor:
    """Scikit-learn's two, ``[2, 3, height, ...]`` in [0, 1]."""
    both = torch.stack([torch.from_numpy(one.copy()) for one in load_sample_images().images])
    return F.interpolate(both.permute(0, 3, 1, 2) / 255, (height, round(height * 1.5)), mode="bilinear", antialias=True)


@cache
def of_photographs() -> Photographic:
    """A network that tells in which photograph, and where in it, a patch lies: trained here, half a minute."""
    torch.manual_seed(0)
    pixel_space = PixelSpace((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    whole = pixel_space.to_inputs(photographs(427))

    def block(channels: int, more: int, pool: bool) -> list[nn.Module]:
        convolution = [nn.Conv2d(channels, more, 3, padding=1), nn.BatchNorm2d(more), nn.ReLU()]
        return convolution + [nn.AvgPool2d(2)] * pool

    blocks = (block(3, 24, True), block(24, 48, True), block(48, 64, False), block(64, 96, True))
    layers = [layer for one in blocks for layer in one]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 24))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(350):
        which, row, column = (torch.randint(most, (48,)) for most in (2, 3, 4))
        top, left = row * 142 + torch.randint(90, (48,)), column * 160 + torch.randint(110, (48,))
        places = zip(which.tolist(), top.tolist(), left.tolist(), strict=True)
        patches = torch.stack([whole[one, :, y : y + 48, x : x + 48] for one, y, x in places])
        patches = patches[:, torch.randperm(3)] * 2 * torch.rand(48, 3, 1, 1)  # so that colors do not tell the place
        optimizer.zero_grad()
        F.cross_entropy(model(patches), which * 12 + row * 4 + column).backward()
        optimizer.step()
    activations = [name for name, layer in model.named_children() if isinstance(layer, nn.ReLU)]
    return Photographic(model.eval(), pixel_space, activations, content=activations[1])


def classes(subject: Subject) -> Iterator[Page]:
    """What each class wants to see."""
    dream = maximize(
        subject.model,
        [logit(one) for one in subject.classes],
        image=fourier(subject.shape, decay=1.5),
        pixel_space=subject.pixel_space,
        bounded=True,
        priors={edge_energy: subject.natural},
        transforms=standard(max(2, subject.shape[1] // 14)),
    )
    confidences = subject.model(dream.inputs).softmax(1)[range(len(subject.classes)), subject.classes].tolist()
    names = [subject.names[one] for one in subject.classes]
    words = [f"{value:.0f}, {confidence_text(one)}" for value, one in zip(dream.values, confidences, strict=True)]
    title = "What each class wants to see"
    details = ["under it: its logit and confidence"]
    tiles = to_rgb(dream.pixels.numpy())
    yield dream_tiles(
        "classes", tiles, title=title, names=names, words=words, curves=dream.curve.numpy(), details=details
    )
    frames = np.stack([to_rgb(one.numpy() / 255) for one in dream.frames])
    yield dream_animation("classes/climb", frames, dream.frame_steps, title=title, names=names)


def units(subject: Subject) -> Iterator[Page]:
    """What the middle unit of some channels of each layer wants to see: the deeper, the more of the image."""
    rows = []
    for layer in subject.layers[:3]:
        objectives = [unit(layer, index) for index in range(8)]
        dream = maximize(
            subject.model,
            objectives,
            image=subject.shape,
            pixel_space=subject.pixel_space,
            update_steps=[decay(0.05), blur(0.5, 4)],
        )
        rows.append(to_rgb(dream.pixels.numpy()))
    yield dream_table(
        "units",
        np.stack(rows),
        title="What one unit of each layer wants to see",
        rows=subject.layers[:3],
        columns=[f"ch {index}" for index in range(8)],
        details=["the unit in the middle of a channel's map", "gray: no matter"],
    )


def priors(subject: Subject) -> Iterator[Page]:
    """The same dreams under each prior."""
    objectives = [logit(one) for one in subject.classes[:8]]
    base = {"image": pixels(subject.shape), "pixel_space": subject.pixel_space}
    found = {
        "none": maximize(subject.model, objectives, **base),
        "edge energy": maximize(subject.model, objectives, **base, priors={edge_energy: subject.natural}),
        "total variation": maximize(subject.model, objectives, **base, priors={total_variation: subject.natural}),
        "L2": maximize(subject.model, objectives, **base, priors={l2: subject.natural}),
    }
    for name, preset in YOSINSKI.items():
        found[f"Yosinski: {name}"] = maximize(subject.model, objectives, **base, update_steps=preset)
    searched = search_priors(
        subject.model, objectives, **base, references=subject.images[:500], trials=subject.trials, steps=100
    )
    print(f"the best of {subject.trials} presets: {searched.presets[0]}")
    found["the search's best"] = searched.dream
    tiles = np.stack([to_rgb(dream.pixels.numpy()) for dream in found.values()])
    columns = [subject.names[one] for one in subject.classes[:8]]
    yield dream_table("priors", tiles, title="The same classes under each prior", rows=list(found), columns=columns)


def inversions(subject: Subject) -> Iterator[Page]:
    """Inversion of each layer, for some samples."""
    firsts = [int((subject.labels == one).nonzero()[0]) for one in subject.labels.unique()[:8]]
    originals = subject.images[firsts]
    rows, words = [to_rgb(subject.pixel_space.to_pixels(originals).numpy())], [[""] * len(firsts)]
    for layer in subject.layers:
        found = invert(subject.model, originals, layer, pixel_space=subject.pixel_space)
        rows.append(to_rgb(found.pixels[:, 0].numpy()))
        words.append([f"{100 * error:.0f} %" for error in found.pixel_errors.mean(1)])
    yield dream_table(
        "inversion",
        np.stack(rows),
        title="Inversion of each layer",
        rows=["the image", *subject.layers],
        words=words,
        details=["images with the layer's activations for the first row", "under each: distance to it, of its norm"],
    )


def fooling(subject: Subject) -> Iterator[Page]:
    """Fooling images: evolved for high confidence."""
    rows, least, shown = [], 1.0, subject.classes[:8]
    for encoding in ("direct", "cppn"):
        found = fool(subject.model, subject.shape, encoding=encoding, classes=shown, pixel_space=subject.pixel_space)
        rows.append(to_rgb(found.pixels.numpy()))
        least = min(least, found.confidences.min().item())
    yield dream_table(
        "fooling",
        np.stack(rows),
        title="Fooling images",
        rows=["pixels", "patterns"],
        columns=[subject.names[one] for one in shown],
        details=["evolved in 200 generations", f"confidence in the class above: 1 − {1 - least:.0e} or more"],
    )


def deep_dreams(subject: Subject) -> Iterator[Page]:
    """Photographs in which DeepDream amplifies what a layer detects."""
    known = subject.photographic or of_photographs()
    layer, inputs = known.layers[-1], known.pixel_space.to_inputs(photographs(subject.height))
    dream = deep_dream(known.model, inputs, layer, pixel_space=known.pixel_space)
    title = f"DeepDream of layer {layer}"
    rise = ", ".join(f"{(one.after / one.before).mean():.2g}" for one in dream.octaves)
    details = [f"{len(dream.octaves)} octaves", f"squared norm in each times {rise}"]
    before = to_rgb(photographs(subject.height).numpy())
    table = np.stack([before, to_rgb(dream.pixels.numpy())])
    yield dream_table("deep_dream", table, title=title, rows=["photo", "dream"], details=details)
    frames = np.stack([to_rgb(one.numpy() / 255) for one in dream.frames])
    yield dream_animation("deep_dream/climb", frames, dream.frame_steps, title=title, names=["China", "flower"])


def styles(subject: Subject) -> Iterator[Page]:
    """One photograph in the style of the other."""
    known = subject.photographic or of_photographs()
    china, flower = known.pixel_space.to_inputs(photographs(subject.height))
    rows = []
    for content, style in ((china, flower), (flower, china)):
        how = {
            "content_layers": [known.content],
            "style_layers": known.layers,
            "pixel_space": known.pixel_space,
            "steps": 150,
        }
        found = [style_transfer(known.model, content, style, start=start, **how) for start in ("content", "noise")]
        shown = torch.cat([known.pixel_space.to_pixels(torch.stack([content, style])), *(one.pixels for one in found)])
        rows.append(to_rgb(shown.numpy()))
    columns = ["content", "style", "from the content", "from noise"]
    yield dream_table("style", np.stack(rows), title="Style transfer", rows=["1", "2"], columns=columns)
    losses = [found[1].content_loss, found[1].style_loss]
    curves = np.stack([(loss / loss[0]).numpy() for loss in losses])
    title, label = "Both losses, from noise", "share of the first"
    yield climb_curves("style/losses", curves, names=["content", "style"], title=title, label=label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/dream", help="folder for the sheets and TensorBoard's files")
    parser.add_argument("--torchvision", metavar="NAME", help="a classifier of torchvision, with its default weights")
    parser.add_argument("--only", nargs="*", default=list(TECHNIQUES), choices=list(TECHNIQUES), help="which sheets")
    options = parser.parse_args()
    subject = pretrained(options.torchvision) if options.torchvision else digits()
    with SummaryWriter(options.out) as writer:
        writers = [FolderWriter(Path(options.out)), TensorBoardWriter(writer)]
        for name in options.only:
            for picture in TECHNIQUES[name](subject):
                for writer in writers:
                    writer.picture(lay_out(picture), 0)
            print(f"{name}: done")
    print(f"The sheets are in {options.out}. Look at them with:\n\n    tensorboard --logdir {options.out}\n")


TECHNIQUES = {
    "classes": classes,
    "units": units,
    "priors": priors,
    "inversions": inversions,
    "fooling": fooling,
    "deep_dreams": deep_dreams,
    "styles": styles,
}

if __name__ == "__main__":
    main()
