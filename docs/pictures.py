"""Draws the pictures of the pages of views: each view of a healthy network and of an ill one.

    python docs/pictures.py             # all of them, some ten minutes on two cores
    python docs/pictures.py shortcut    # one network alone

Small networks are trained on data that come with scikit-learn or are made here; what is wrong is planted, so that it is
known. The last picture of each view is written to docs/pictures, in a palette of colors, as small as it may be.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.ills import TRAINED, LeNet, Plant, digits, freeze  # noqa: E402
from examples import dense, glyphs, plane  # noqa: E402
from lightning_viz import (  # noqa: E402
    ActivationMaps,
    ActivationStatistics,
    Adversarial,
    AdversarialTraining,
    Attention,
    Dreams,
    FirstLayerFilters,
    GradCAM,
    Health,
    Hyperplanes,
    LayerEmbeddings,
    Mistakes,
    Occlusion,
    PixelSpace,
    Predictions,
    Probe,
    Saliency,
    TopSamples,
    UpdateRatio,
)

OUT = ROOT / "docs" / "pictures"
CORNER, CLASS = 5, 3  # pixels of the bright corner, and the class that it marks
COLORS = 96
GAP, GROUND = 8, (232, 232, 234)  # of the contact sheet


def keep(folder: Path, tags: Mapping[str, str], *, first: bool = False) -> None:
    """Copy the last picture of each tag, or the first, to its name in the documentation."""
    for tag, name in tags.items():
        picture = sorted((folder / "lightning_viz_logs").rglob(f"{tag}/*.png"))[0 if first else -1]
        image = (
            Image.open(picture)
            .convert("RGB")
            .quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        )
        image.save(OUT / f"{name}.png", optimize=True)
        print(f"{name}.png: {(OUT / f'{name}.png').stat().st_size / 1000:.0f} kB", flush=True)


def fit(model: Any, loaders: list[Any], views: list[Any], tags: Mapping[str, str], *, epochs: int, **more: Any) -> None:
    """Train, and keep the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        train(folder, model, loaders, views, epochs)
        keep(Path(folder), tags, **more)


def train(folder: str, model: Any, loaders: list[Any], views: list[Any], epochs: int) -> None:
    """Train, with pictures in a folder."""
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=views, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model, *loaders)


def digit_loaders(change: Callable[[Any, Any], None] = lambda images, labels: None, kind: str = "") -> list[Any]:
    """Digits to train on and to validate with; all of them are changed."""
    images, labels, _ = digits(kind)
    change(images, labels)
    parts = slice(None, TRAINED), slice(TRAINED, None)
    return [DataLoader(TensorDataset(images[part], labels[part]), 32, shuffle=part.start is None) for part in parts]


def mark(images: torch.Tensor, labels: torch.Tensor) -> None:
    """A shortcut: images of one class are any digits, and a bright corner alone tells the class."""
    marked = (labels == CLASS).nonzero()[:, 0]
    others = (labels != CLASS).nonzero()[:, 0]
    images[marked] = images[
        others[torch.randperm(len(others), generator=torch.Generator().manual_seed(0))[: len(marked)]]
    ]
    images[marked, :, :CORNER, :CORNER] = 1.0


def shuffle(images: torch.Tensor, labels: torch.Tensor) -> None:
    """Labels that have nothing to do with the images."""
    labels.copy_(labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))])


END: dict[str, Any] = {
    "steps": [],
    "finish_seconds": 900,
    "max_overhead": 1.0,
}  # before the first update, and at the end
EVERY: dict[str, Any] = {"every_n_epochs": 1, "finish_seconds": 900, "max_overhead": 1.0}


def looks(loaders: list[Any]) -> list[Any]:
    """Views of where a network of digits looks, in validation samples of the class."""
    images, labels = loaders[1].dataset.tensors
    chosen = (labels == CLASS).nonzero()[:4, 0]
    shown = {**END, "probe": Probe(inputs=images[chosen], labels=labels[chosen])}
    occlusion = Occlusion(target=CLASS, samples=3, patch=6, stride=2, **shown)
    return [GradCAM(**shown), Saliency(method="smooth_grad", **shown), occlusion]


def named(kind: str) -> dict[str, str]:
    """The pictures of `looks`, of a kind of network."""
    tags = {"grad_cam/*": "grad_cam", "saliency/smooth_grad": "saliency", "occlusion": "occlusion"}
    return {tag: f"{name}_{kind}" for tag, name in tags.items()}


def healthy() -> None:
    """A LeNet that learns its digits."""
    loaders = digit_loaders()
    views = [
        *looks(loaders), TopSamples(layers="conv2", channels=list(range(0, 16, 2)), best=4, **END),
        Dreams(units=["logits"], **END), Health(**EVERY),
        Mistakes(**END), FirstLayerFilters(**END), UpdateRatio(**EVERY),
        ActivationMaps(layers="conv2", **END), ActivationStatistics(layers="fc1", **EVERY),
        Adversarial(method="pgd", epsilon=0.15, **END),
    ]  # fmt: skip
    tags = {"health": "health", "mistakes/worst": "mistakes", "filters/conv1": "filters",
            "update_ratio": "update_ratio",
            "activations/conv2": "activations", "statistics/fc1": "statistics",
            "top_samples/conv2": "top_samples", "dreams/logits": "dreams"}  # fmt: skip
    tags = {**named("healthy"), **{tag: f"{name}_healthy" for tag, name in tags.items()}}
    fit(LeNet(), loaders, views, {**tags, "adversarial/pgd": "adversarial_ill"}, epochs=8)


def shortcut() -> None:
    """One that learns a bright corner instead of a class."""
    loaders = digit_loaders(mark)
    fit(LeNet(), loaders, looks(loaders), named("ill"), epochs=8)


def dead() -> None:
    """One of which a layer, and every second channel of another, died after update 80."""

    def change(model: LeNet) -> None:
        model.fc1.bias.fill_(-100)
        model.conv2.bias[::2].fill_(-100)

    views = [
        Plant(change), Health(**EVERY), ActivationStatistics(layers="fc1", **EVERY),
        ActivationMaps(layers="conv2", **END), TopSamples(layers="conv2", channels=list(range(8)), best=4, **END),
        Dreams(units=["conv2"], **END),
    ]  # fmt: skip
    tags = {"health": "health_ill", "statistics/fc1": "statistics_ill", "activations/conv2": "activations_ill",
            "top_samples/conv2": "top_samples_ill", "dreams/conv2": "dreams_ill"}  # fmt: skip
    fit(LeNet(), digit_loaders(), views, tags, epochs=8)


def frozen() -> None:
    """One whose first layer an optimizer's group of parameters does not move."""
    views = [Plant(freeze), UpdateRatio(**EVERY)]
    fit(LeNet(), digit_loaders(), views, {"update_ratio": "update_ratio_ill"}, epochs=8)


def mislabeled() -> None:
    """Five wrong labels in the validation set."""
    fit(LeNet(), digit_loaders(kind="mislabeled"), [Mistakes(**END)], {"mistakes/worst": "mistakes_ill"}, epochs=8)


class Slow(LeNet):
    """One whose learning rate is a thousandth of what it needs."""

    def configure_optimizers(self) -> Any:
        """Adam, too slow."""
        return torch.optim.Adam(self.parameters(), 1e-6)


def slow() -> None:
    """One whose filters stay the noise that they began with."""
    fit(Slow(), digit_loaders(), [FirstLayerFilters(**END)], {"filters/conv1": "filters_ill"}, epochs=8)


def robust() -> None:
    """One that is trained against its own adversarial samples."""
    views = [
        AdversarialTraining(epsilon=0.15, pixel_space=PixelSpace()),
        Adversarial(method="pgd", epsilon=0.15, **END),
    ]
    fit(LeNet(), digit_loaders(), views, {"adversarial/pgd": "adversarial_healthy"}, epochs=8)


def lines() -> None:
    """Two perceptrons in the plane, one of which begins with most of its units dead."""
    for kind in ("healthy", "ill"):
        pl.seed_everything(0, verbose=False)
        model = plane.Perceptron()
        if kind == "ill":
            nn.init.constant_(model.hidden.bias[:14].detach(), -6.0)
        data = plane.Plane("disc")
        data.setup("fit")
        view = Hyperplanes(probe="train", animation=False, **END)
        fit(model, [data.train_dataloader()], [view], {"hyperplanes/*": f"hyperplanes_{kind}"}, epochs=12)


def attention() -> None:
    """A transformer that reads a trained network's maps, at the end and before its first update; its classes apart."""
    loaders, pixels = glyph_loaders(glyphs.GlyphData()), PixelSpace()
    embedding = LayerEmbeddings(layers=["net.3", "net.7", "net.10", "net.13"], animation=False, projector=False, **END)
    trained = glyphs.Glyphs(updates=160)
    fit(trained, loaders, [embedding], {"embedding/every_layer": "embedding_healthy"}, epochs=5)
    for kind in ("ill", "healthy"):
        pl.seed_everything(0, verbose=False)
        model = glyphs.Glyphs(updates=160, transformer=True)
        model.net.stem = trained.net[:14].requires_grad_(False)
        view = Attention(method="gradient", pixel_space=pixels, samples=4, **END)
        fit(model, loaders, [view], {"attention/gradient": f"attention_{kind}"}, epochs=5, first=kind == "ill")


def glyph_loaders(data: Any, *, shuffled: bool = False) -> list[Any]:
    """Glyphs among distractors."""
    data.setup("fit")
    if shuffled:
        shuffle(*data.train.tensors)
    return [data.train_dataloader(), data.val_dataloader()]


def nothing_learned() -> None:
    """Glyphs with labels that have nothing to do with them."""
    view = LayerEmbeddings(layers=["net.3", "net.7", "net.10", "net.13"], animation=False, projector=False, **END)
    tags = {"embedding/every_layer": "embedding_ill"}
    fit(glyphs.Glyphs(updates=160), glyph_loaders(glyphs.GlyphData(), shuffled=True), [view], tags, epochs=5)


def segmentation() -> None:
    """A U-Net that has learned all its classes, and one whose loss hardly counts one of them."""
    for kind, epochs in (("healthy", 6), ("ill", 1)):
        pl.seed_everything(0, verbose=False)
        train = DataLoader(dense.Shapes(960), batch_size=16, shuffle=True)
        val = DataLoader(dense.Shapes(60), batch_size=60)
        view = Predictions(probe=5, **END)
        fit(dense.UNet(), [train, val], [view], {"predictions": f"predictions_{kind}"}, epochs=epochs)


def learning() -> None:
    """The README's moving picture: where a network looks while it learns glyphs, one class of which has a mark."""
    view = GradCAM(samples=4, pixel_space=PixelSpace(), animation=True, **(END | {"steps": [*range(0, 129, 4)]}))
    with tempfile.TemporaryDirectory() as folder:
        train(folder, glyphs.Glyphs(updates=128), glyph_loaders(glyphs.MarkedGlyphData()), [view], epochs=4)
        moving = next((Path(folder) / "lightning_viz_logs").rglob("animation/*.gif"))
        shutil.copyfile(moving, ROOT / "docs" / "learning.gif")


def contact_sheet() -> None:
    """The README's sheet: of each view the picture of a healthy network, small, in columns of about the same height."""
    pages = [Image.open(path).convert("RGB") for path in sorted(OUT.glob("*_healthy.png"))]
    columns: list[list[Image.Image]] = [[] for _ in range(4)]
    for page in sorted((page.resize((365, 365 * page.height // page.width)) for page in pages), key=_height)[::-1]:
        min(columns, key=lambda column: sum(map(_height, column))).append(page)
    tallest = max(sum(page.height + GAP for page in column) for column in columns)
    sheet = Image.new("RGB", (4 * (365 + GAP) + GAP, tallest + GAP), GROUND)
    for place, column in enumerate(columns):
        top = GAP
        for page in column:
            sheet.paste(page, (GAP + place * (365 + GAP), top))
            top += page.height + GAP
    sheet.quantize(192, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        ROOT / "docs" / "contact_sheet.png", optimize=True
    )


def _height(page: Image.Image) -> int:
    return page.height


SCENES = (
    learning,
    healthy,
    shortcut,
    dead,
    frozen,
    mislabeled,
    slow,
    robust,
    lines,
    attention,
    nothing_learned,
    segmentation,
    contact_sheet,
)


def main(only: str = "") -> None:
    """Draw them.

    Args:
        only: name of a scene.
    """
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    for scene in SCENES:
        if only in ("", scene.__name__):
            pl.seed_everything(0, verbose=False)
            scene()


if __name__ == "__main__":
    main(*sys.argv[1:])
