"""The figures of the lectures, each by the command that draws it: a page of pictures, and how to get them.

Runs offline: a LeNet that learns scikit-learn's digits, and a small network that learns to tell crops of scikit-learn's
two photographs apart, stand for the lectures' networks. With ``--pretrained`` the second is VGG19 of torchvision with
its pretrained weights (downloaded on first use), on the photographs themselves.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.datasets import load_sample_images
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz.__main__ import main as lightning_viz

ROOT = Path(__file__).resolve().parents[1]
SIDE = 64  # pixels of the crops


@dataclass(frozen=True)
class Figure:
    """A figure of the lectures.

    Attributes:
        shows: what it shows there.
        call: arguments of ``lightning-viz``, or of ``python examples/...``; PLANE, DIGITS and PHOTOS stand for a
            model and its data.
        picture: part of the path of the picture that is shown; the first by name if empty.
    """

    shows: str
    call: str
    picture: str = ""


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
        "Hidden units of a perceptron as lines in the plane; live, over training: the view Hyperplanes",
        "analyze PLANE --views hyperplanes --techniques",
        "hyperplanes",
    ),
    "2": Figure("LeNet's convolutions as images", "filters DIGITS --layers conv1 conv2"),
    "3, 4": Figure(
        "The first convolution, per input channel and in color; the second as a table",
        "filters PHOTOS --layers features.0 features.3",
    ),
    "5": Figure("A fully connected unit's weights in the shape of its input", "filters DIGITS --layers fc1"),
    "6": Figure("Maps of channels, layer by layer", "analyze DIGITS --views activations --techniques", "activations"),
    "9": Figure(
        "Distributions of activations over a population", "analyze DIGITS --views statistics --techniques", "statistics"
    ),
    "10": Figure(
        "t-SNE of each layer of a LeNet on digits",
        "embed tsne DIGITS --layers conv1 conv2 fc1 fc2 --samples 500 --perplexity 50",
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
    "17": Figure(
        "Grad-CAM of several classes on one image", "attribute grad_cam PHOTOS --target class:china class:flower"
    ),
    "17 (guided)": Figure("Guided Grad-CAM", "attribute guided_grad_cam PHOTOS"),
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
    "25": Figure("Images that fool", "dream fool DIGITS --classes 0 1 2 3 4 5 6 7 8 9"),
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
        "Fully connected layers as convolutions: a digit found on a larger canvas", "examples/dense.py", "found"
    ),
}


def train(model: pl.LightningModule, data: pl.LightningDataModule, folder: Path, epochs: int) -> None:
    """Train a network, with a checkpoint in a folder."""
    pl.seed_everything(0)
    kept = ModelCheckpoint(folder, filename="last")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    pl.Trainer(max_epochs=epochs, callbacks=[kept], **quiet).fit(model, datamodule=data)


def sources(out: Path, pretrained: bool) -> dict[str, list[str]]:
    """Arguments for the models and their data, trained first if need be."""
    from examples.digits import Digits, LeNet
    from examples.plane import Perceptron, Plane

    if not (out / "plane" / "last.ckpt").exists():
        train(Perceptron(), Plane(), out / "plane", 20)
    plane = [str(out / "plane" / "last.ckpt"), "--model", "examples.plane.Perceptron", "--data", "examples.plane.Plane"]

    if not (out / "digits" / "last.ckpt").exists():
        train(LeNet(), Digits(), out / "digits", 6)
    digits = [str(out / "digits" / "last.ckpt"), "--model", "examples.digits.LeNet", "--data", "examples.digits.Digits"]
    if pretrained:
        folder = out / "photographs"
        folder.mkdir(parents=True, exist_ok=True)
        for name, photo in zip(Photos.classes, load_sample_images().images, strict=True):
            Image.fromarray(photo).save(folder / f"{name}.jpg")
        return {"PLANE": plane, "DIGITS": digits, "PHOTOS": ["--torchvision", "vgg19", "--images", str(folder)]}
    if not (out / "photos" / "last.ckpt").exists():
        train(CropNet(), Crops(), out / "photos", 8)
    photos = [
        str(out / "photos" / "last.ckpt"),
        "--model",
        "examples.lectures.CropNet",
        "--data",
        "examples.lectures.Crops",
    ]
    return {"PLANE": plane, "DIGITS": digits, "PHOTOS": photos}


def words(call: str, models: dict[str, list[str]]) -> list[str]:
    """A call as arguments."""
    return [word for part in shlex.split(call) for word in models.get(part, [part])]


def draw(figure: Figure, folder: Path, models: dict[str, list[str]]) -> list[Path]:
    """Run a figure's call and find the pictures that it wrote, those of the figure first."""
    done = folder / "lecture.json"
    if not done.exists() or json.loads(done.read_text()) != [figure.call]:
        shutil.rmtree(folder, ignore_errors=True)
        if figure.call.startswith("examples/"):
            path, *options = shlex.split(figure.call)
            subprocess.run([sys.executable, str(ROOT / path), *options, "--out", str(folder)], check=True)
        else:
            status = lightning_viz([*words(figure.call, models), "--out", str(folder)])
            if status:
                raise SystemExit(status)
        done.write_text(json.dumps([figure.call]))
    pictures = sorted(folder.rglob("*.png"), key=lambda path: (figure.picture not in str(path), str(path)))
    if not pictures:
        raise RuntimeError(f"{figure.call} wrote no picture")
    return pictures


def document(figures: dict[str, Figure], pictures: dict[str, Path], folder: Path) -> None:
    """Write a page of all figures, each with its call."""
    (folder / "lectures").mkdir(parents=True, exist_ok=True)
    lines = [
        "# The lectures' figures",
        "",
        "Written by `python examples/lectures.py`; PLANE, DIGITS and PHOTOS stand for a model and its data.",
        "",
    ]
    for number, figure in figures.items():
        name = f"lectures/{number.replace(', ', '-').replace(' ', '_').replace('(', '').replace(')', '')}.png"
        image = Image.open(pictures[number]).convert("RGB").quantize(128)
        image.save(folder / name, optimize=True)
        call = figure.call if figure.call.startswith("examples/") else f"lightning-viz {figure.call}"
        lines += [f"## {number}. {figure.shows}", "", f"```bash\n{call}\n```", "", f"![{figure.shows}]({name})", ""]
    (folder / "lectures.md").write_text("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/lectures"))
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="NUMBER")
    parser.add_argument(
        "--pretrained", action="store_true", help="VGG19 of torchvision, with its weights, on photographs"
    )
    parser.add_argument("--document", type=Path, help="folder to write lectures.md and its pictures to")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    models = sources(arguments.out, arguments.pretrained)
    pictures = {}
    for number in arguments.only:
        print(f"{number}. {FIGURES[number].shows}", flush=True)
        folder = arguments.out / "".join(letter if letter.isalnum() else "_" for letter in number)
        pictures[number] = draw(FIGURES[number], folder, models)[0]
    if arguments.document:
        document({number: FIGURES[number] for number in arguments.only}, pictures, arguments.document)


if __name__ == "__main__":
    main()
