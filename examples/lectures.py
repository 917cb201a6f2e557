"""The figures of the lectures, each by the call that draws it: a page of pictures, and how to get them.

Runs offline: a LeNet that learns scikit-learn's digits, and a small network that learns to tell crops of scikit-learn's
two photographs apart, stand for the lectures' networks. With ``--pretrained`` the second is VGG19 of torchvision with
its pretrained weights (downloaded on first use), on the photographs themselves or on those of a folder (``--images``).
"""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.datasets import load_sample_images
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import ActivationMaps, TopSamples, View
from lightning_viz.__main__ import main as lightning_viz
from lightning_viz.analysis.data import Images
from lightning_viz.analysis.models import pretrained

ROOT = Path(__file__).resolve().parents[1]
SIDE = 64  # pixels of the crops
WEIGHTS = "DEFAULT"  # of VGG19; "none" are random ones
VGG19 = {
    "features.0": ["features.0"],
    "features.3": ["features.2"],
    "features.6": ["features.16"],
    "features.9": ["features.34"],
    "features.11": ["features.36"],
    "class:china": [f"class:{name}" for name in ("lakeside", "palace", "fountain", "coffee mug")],
    "class:flower": [f"class:{name}" for name in ("daisy", "bee", "bagel", "African elephant")],
}
"""What stands for layers and classes of the small network where it is VGG19."""


@dataclass(frozen=True)
class Figure:
    """A figure of the lectures.

    Attributes:
        shows: what it shows there.
        call: arguments of ``lightning-viz``, or of ``python examples/...``; PLANE, DIGITS and PHOTOS stand for a
            model and its data. Or a view, which is drawn by a Trainer that validates.
        picture: part of the path of the picture that is shown; the first by name if empty.
        on: the model and its data that a view watches.
    """

    shows: str
    call: str | View
    picture: str = ""
    on: str = "PHOTOS"

    @property
    def text(self) -> str:
        """The call as one writes it."""
        if isinstance(self.call, View):
            return f"Trainer(callbacks=[{self.call.name}]).validate({self.on})"
        return self.call if self.call.startswith("examples/") else f"lightning-viz {self.call}"


@dataclass(frozen=True)
class Source:
    """A model and its data.

    Attributes:
        words: as arguments of ``lightning-viz``.
        model: as a Trainer takes it.
        data: with which it validates.
        checkpoint: of its weights; None: it has them.
        names: what stands for the layers and classes of the calls.
    """

    words: list[str]
    model: Callable[[], pl.LightningModule]
    data: Callable[[], Any]
    checkpoint: Path | None = None
    names: Mapping[str, list[str]] = field(default_factory=dict)


class Photos(TensorDataset):
    """Images of named classes."""

    classes = ("china", "flower")


class Crops(pl.LightningDataModule):
    """Crops of the two photographs, mirrored at random: a temple or a flower."""

    def setup(self, stage):
        rng = np.random.default_rng(0)
        crops, labels = [], []
        for label, photo in enumerate(load_sample_images().images):
            for _ in range(400):
                side = int(rng.integers(96, 300))
                top, left = rng.integers(photo.shape[0] - side), rng.integers(photo.shape[1] - side)
                crop = Image.fromarray(photo[top : top + side, left : left + side]).resize((SIDE, SIDE))
                crops.append(np.asarray(crop)[:, :: rng.choice([-1, 1])].copy())
                labels.append(label)
        pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
        order = torch.from_numpy(rng.permutation(len(pixels)))
        pixels, labels = pixels[order], torch.tensor(labels)[order]
        self.train, self.val = Photos(pixels[200:], labels[200:]), Photos(pixels[:200], labels[:200])

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=32, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=100)


class CropNet(pl.LightningModule):
    """Four convolutions with pooling, and two fully connected layers, as small as VGG is large."""

    def __init__(self):
        super().__init__()
        widths = [3, 16, 32, 32, 64]
        blocks = [
            layer
            for before, after in pairwise(widths)
            for layer in (nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        ]
        self.features, self.classifier = (
            nn.Sequential(*blocks),
            nn.Sequential(nn.Linear(1024, 32), nn.ReLU(), nn.Linear(32, 2)),
        )

    def forward(self, images):
        return self.classifier(self.features(images - 0.5).flatten(1))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


FIGURES = {
    "1": Figure(
        "Hidden units of a perceptron as lines in the plane, over training (live: the view Hyperplanes)",
        "examples/plane.py --panels",
        "disc",
    ),
    "1 (second set)": Figure("The same on a second set", "examples/plane.py --panels", "spirals"),
    "2": Figure("LeNet's convolutions as images", "filters DIGITS --layers conv1 conv2"),
    "3, 4": Figure(
        "The first convolution, per input channel and in color; the second as a table",
        "filters PHOTOS --layers features.0 features.3",
    ),
    "5": Figure("A fully connected unit's weights in the shape of its input", "filters DIGITS --layers fc1"),
    "6": Figure("Maps of channels, layer by layer", "analyze DIGITS --views activations --techniques", "activations"),
    "7": Figure(
        "One channel large, its map of several images",
        ActivationMaps(layers="features.9", channels=[7], layout="large"),
    ),
    "8": Figure(
        "Prediction of the dynamics of shapes: what each layer of a residual net draws", "examples/moving_shapes.py"
    ),
    "9": Figure(
        "Distributions of activations over a population", "analyze DIGITS --views statistics --techniques", "statistics"
    ),
    "10": Figure(
        "t-SNE of each layer of a LeNet on digits",
        "embed tsne DIGITS --layers conv1 conv2 fc1 fc2 --samples 500 --perplexity 50",
    ),
    "11": Figure(
        "t-SNE with the digits in their places",
        "embed tsne DIGITS --layers fc1 --samples 500 --perplexity 50",
        "thumbnails",
    ),
    "11 (grid)": Figure(
        "t-SNE of a top layer, spread over a grid of thumbnails",
        "embed tsne PHOTOS --layers features --samples 196",
        "grid",
    ),
    "10 (Swiss roll)": Figure("A Swiss roll with a dimension of noise: t-SNE unrolls it", "examples/swiss_roll.py"),
    "12": Figure(
        "Occlusion: the class's score, a feature map's activity, the most probable class",
        "attribute occlusion PHOTOS --feature features.9[7] --samples 3",
    ),
    "13": Figure("Gradient of a class's score: noisy", "attribute gradient PHOTOS"),
    "13 (irregularity)": Figure(
        "Three partial derivatives of one pixel along a short walk", "attribute gradient_irregularity PHOTOS"
    ),
    "14": Figure("SmoothGrad", "attribute smooth_grad PHOTOS --fraction 0.25"),
    "15": Figure(
        "Guided backpropagation of the maximum feature response",
        "attribute guided_backprop PHOTOS --target max(features.9)",
    ),
    "15 (deconvolution)": Figure(
        "Deconvolution of the same", "attribute deconvolution PHOTOS --target max(features.9)"
    ),
    "16": Figure(
        "The samples that excite each channel most", "analyze DIGITS --views top_samples --techniques", "top_samples"
    ),
    "16 (pooling units)": Figure(
        "Preferred images of units after pooling, each with its receptive field framed",
        TopSamples(layers="features.11", whole=True),
    ),
    "17": Figure(
        "Grad-CAM of several classes on one image", "attribute grad_cam PHOTOS --target class:china class:flower"
    ),
    "17 (guided)": Figure("Guided Grad-CAM", "attribute guided_grad_cam PHOTOS"),
    "17 (question)": Figure("A question about an image: Grad-CAM of a network with two inputs", "examples/question.py"),
    "18": Figure(
        "Images that maximize classes, without a prior: high frequencies",
        "dream classes PHOTOS --image pixels --bounded false --priors l2=0 --jitter 0",
    ),
    "19": Figure("Why a prior makes dreams natural: f, p and -h, f - h", "examples/prior.py"),
    "20": Figure(
        "The multi-scale edge energy as prior: channels",
        "dream maximize PHOTOS --objectives features.6[3] features.9[7] features.9[12] --priors edge_energy=0.01",
    ),
    "20 (classes)": Figure("The same for classes", "dream classes PHOTOS"),
    "21": Figure(
        "Yosinski's priors",
        "dream classes DIGITS --image pixels --bounded false --priors l2=0 --jitter 0 --update_steps 'small norm'",
    ),
    "22": Figure(
        "Inversion from every layer",
        "dream invert PHOTOS --layer features.0 features.3 features.6 features.9 --samples 2",
    ),
    "23": Figure("DeepDream", "dream deep_dream PHOTOS --layer features.6"),
    "23 (style)": Figure(
        "Style transfer",
        "dream style_transfer PHOTOS --content 0 --style 1 --content_layers features.6 "
        "--style_layers features.0 features.3 features.6",
    ),
    "24": Figure(
        "Adversarial ascent: original, adversarial, difference; the class after each step",
        "attack gradient_ascent DIGITS --normalize l2 --steps 15",
    ),
    "24 (sphere)": Figure("1,000 points on the sphere of twice the radius", "robustness random_directions DIGITS"),
    "25": Figure("Images that fool, pixel by pixel", "dream fool DIGITS --encoding direct"),
    "25 (CPPN)": Figure("Images that fool, as networks of the coordinates", "dream fool DIGITS --encoding cppn"),
    "26": Figure("The sign of the gradient, with its own class", "attack fgsm DIGITS --epsilon 0.2", "sum"),
    "26 (robust accuracy)": Figure(
        "White box and black box, as an ensemble: AutoAttack",
        "robustness robust_accuracy DIGITS --epsilon 0.1 --samples 8",
    ),
    "26 (one pixel)": Figure("One-pixel attacks", "attack one_pixel DIGITS"),
    "26 (defenses)": Figure("Noise, smoothing and re-encoding as defenses", "robustness defenses DIGITS --epsilon 0.2"),
    "27": Figure("Fifteen corruptions in five severities", "robustness corruptions DIGITS"),
    "27 (stability)": Figure("Perturbation stability", "robustness perturbation_stability DIGITS"),
    "27 (cue conflicts)": Figure(
        "Cue conflicts, and shape against texture bias of networks", "examples/cue_conflict.py", "shape_bias"
    ),
    "28": Figure(
        "Fully connected layers as convolutions: a digit found on a larger canvas", "examples/dense.py --png", "found"
    ),
    "28 (larger again)": Figure(
        "Max-unpooling, overlapping windows summed, transposed convolution", "examples/segmentation.py", "larger_again"
    ),
    "28 (U-Net)": Figure("A U-Net", "examples/dense.py --png", "UNet/lightning_viz_logs/version_0/predictions"),
    "28 (unpooling)": Figure(
        "A net with max-unpooling", "examples/dense.py --png", "Unpooling/lightning_viz_logs/version_0/predictions"
    ),
    "28 (four questions)": Figure(
        "Classification, detection, semantic and instance segmentation", "examples/segmentation.py", "answers"
    ),
    "28 (augmentation)": Figure("Style transfer as data augmentation", "examples/stylized.py"),
}


def train(model: pl.LightningModule, data: pl.LightningDataModule, folder: Path, epochs: int) -> None:
    """Train a network, with a checkpoint in a folder."""
    pl.seed_everything(0)
    kept = ModelCheckpoint(folder, filename="last")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    pl.Trainer(max_epochs=epochs, callbacks=[kept], **quiet).fit(model, datamodule=data)


def sources(out: Path, images: Path | None) -> dict[str, Source]:
    """The models and their data, trained first if need be.

    Args:
        out: folder for checkpoints.
        images: folder of photographs for VGG19; None: a small network learns crops instead.
    """
    from examples.digits import Digits, LeNet
    from examples.plane import Perceptron, Plane

    found = {
        "PLANE": trained(Perceptron, Plane, out / "plane", 20),
        "DIGITS": trained(LeNet, Digits, out / "digits", 6),
    }
    if images is None:
        return {**found, "PHOTOS": trained(CropNet, Crops, out / "photos", 8)}
    known = pretrained("vgg19", WEIGHTS)
    shown = Images(images, known.transform, classes=known.classes)
    words = ["--torchvision", "vgg19", "--weights", WEIGHTS, "--images", str(images)]
    return {**found, "PHOTOS": Source(words, lambda: Alone(known.load()), lambda: DataLoader(shown, 8), None, VGG19)}


def photographs(folder: Path) -> Path:
    """A folder of scikit-learn's two photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, photo in zip(Photos.classes, load_sample_images().images, strict=True):
        Image.fromarray(photo).save(folder / f"{name}.jpg")
    return folder


def trained(model: type[pl.LightningModule], data: type[pl.LightningDataModule], folder: Path, epochs: int) -> Source:
    """A network with its checkpoint in a folder, trained first if there is none."""
    path = folder / "last.ckpt"
    if not path.exists():
        train(model(), data(), folder, epochs)
    named = [f"{part.__module__}.{part.__name__}" for part in (model, data)]
    named = [name.replace("__main__", "examples.lectures") for name in named]
    words = [str(path), "--model", named[0], "--data", named[1]]
    return Source(words, model, data, path)


class Alone(pl.LightningModule):
    """A network of torchvision as a Trainer takes it, its layers by their names."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.features, self.avgpool, self.classifier = net.features, net.avgpool, net.classifier

    def forward(self, images):
        return self.classifier(self.avgpool(self.features(images)).flatten(1))

    def validation_step(self, batch, batch_idx):
        self(batch[0] if isinstance(batch, (list, tuple)) else batch)


def translated(word: str, names: Mapping[str, list[str]]) -> list[str]:
    """A word of a call with a source's own names of layers and classes, of which several may stand for one."""
    if word in names:
        return names[word]
    return [re.sub(r"features\.\d+", lambda found: names.get(found[0], [found[0]])[0], word)]


def words(call: str, models: dict[str, Source]) -> list[str]:
    """A call as arguments."""
    parts = shlex.split(call)
    names = next((models[part].names for part in parts if part in models), {})
    return [word for part in parts for word in (models[part].words if part in models else translated(part, names))]


def look(view: View, source: Source, folder: Path) -> None:
    """Draw a view of a trained network."""
    given = {name: getattr(view, name) for name in view.changed()}
    if isinstance(given.get("layers"), str):
        given["layers"] = translated(given["layers"], source.names)
    view = type(view)(**given)
    options = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    data = source.data()
    held = {"datamodule": data} if isinstance(data, pl.LightningDataModule) else {"dataloaders": data}
    trainer = pl.Trainer(default_root_dir=folder, callbacks=[view], **options)
    trainer.validate(source.model(), verbose=False, ckpt_path=source.checkpoint, **held)


def newest_first(path: Path) -> tuple[str, int, str]:
    """An order of pictures by folder; in each that of the last step first."""
    step = int(path.stem) if re.fullmatch(r"\d{8}", path.stem) else 0
    return str(path.parent), -step, path.name


def draw(figure: Figure, folder: Path, models: dict[str, Source]) -> list[Path]:
    """Run a figure's call and find the pictures that it wrote, those of the figure first."""
    done = folder / "lecture.json"
    if not done.exists() or json.loads(done.read_text()) != [figure.text]:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(figure.call, View):
            look(figure.call, models[figure.on], folder)
        elif figure.call.startswith("examples/"):
            path, *options = shlex.split(figure.call)
            subprocess.run([sys.executable, str(ROOT / path), *options, "--out", str(folder)], check=True)
        else:
            status = lightning_viz([*words(figure.call, models), "--out", str(folder)])
            if status:
                raise SystemExit(status)
        done.write_text(json.dumps([figure.text]))
    pictures = sorted(folder.rglob("*.png"), key=lambda path: (figure.picture not in str(path), *newest_first(path)))
    if not pictures:
        raise RuntimeError(f"{figure.text} wrote no picture")
    return pictures


def document(pictures: dict[str, Path], folder: Path) -> None:
    """Write a page of all figures, each with its call; those that were not drawn now stay as they are."""
    (folder / "lectures").mkdir(parents=True, exist_ok=True)
    lines = [
        "# The lectures' figures",
        "",
        "Written by `python examples/lectures.py`; PLANE, DIGITS and PHOTOS stand for a model and its data.",
        "",
    ]
    for number, figure in FIGURES.items():
        name = f"lectures/{number.replace(', ', '-').replace(' ', '_').replace('(', '').replace(')', '')}.png"
        if number in pictures:
            Image.open(pictures[number]).convert("RGB").quantize(128).save(folder / name, optimize=True)
        elif not (folder / name).exists():
            continue
        mark = "<!-- not run: DIGITS and the like stand for a model and its data -->\n```python"
        fence = mark if isinstance(figure.call, View) else "```bash"
        lines += [f"## {number}. {figure.shows}", "", f"{fence}\n{figure.text}\n```", ""]
        lines += [f"![{figure.shows}]({name})", ""]
    (folder / "lectures.md").write_text("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/lectures"))
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="NUMBER")
    parser.add_argument(
        "--pretrained", action="store_true", help="VGG19 of torchvision, with its weights, on photographs"
    )
    parser.add_argument("--images", type=Path, help="folder of photographs for VGG19; scikit-learn's two if omitted")
    parser.add_argument("--document", type=Path, help="folder to write lectures.md and its pictures to")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    out, images = arguments.out, None
    if arguments.pretrained:
        out = arguments.out / "vgg19"
        images = arguments.images or photographs(out / "photographs")
    models = sources(out, images)
    pictures = {}
    for number in arguments.only:
        print(f"{number}. {FIGURES[number].shows}", flush=True)
        folder = out / re.sub(r"\W+", "_", FIGURES[number].text)[:100]
        pictures[number] = draw(FIGURES[number], folder, models)[0]
    if arguments.document:
        document(pictures, arguments.document)


if __name__ == "__main__":
    main()
