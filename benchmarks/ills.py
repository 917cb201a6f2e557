"""Ills planted in a run of digits: which default card shows each, and from which step.

    python -m benchmarks.ills
    python -m benchmarks.ills "dead layer"

A LeNet is trained for five epochs of 38 updates with `default_views(keep_parts=True)`; after update 80 (between the
looks at 76 and 114) something is done to it, or its data have been ill from the start. The kept pages are read back.
"""

from __future__ import annotations

import math
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import default_views
from lightning_viz.render import Page, read_page
from lightning_viz.render.parts import Label, MapTile, Text, Tile
from lightning_viz.render.text import RED

PLANTED = 80  # completed updates
TRAINED, MARKED, ODD = 1200, 3, 5  # samples trained on, the class that a bright corner marks, mislabeled samples


class LeNet(pl.LightningModule):
    """Two convolutions and two fully connected layers; the activation function is given."""

    def __init__(self, function: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(400, 84), nn.Linear(84, 10)
        self.pool, self.function = nn.MaxPool2d(2), function()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.function(self.conv1(x)))
        x = self.pool(self.function(self.conv2(x)))
        return self.fc2(self.function(self.fc1(x.flatten(1))))  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-3)


class Plant(pl.Callback):
    """Does something to the model after some updates."""

    def __init__(self, change: Callable[[LeNet], Any]) -> None:
        self.change = change

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == PLANTED:
            with torch.no_grad():
                self.change(module)


def explode(model: LeNet) -> None:
    """Make one layer's activations a million times as large."""
    model.conv2.weight.mul_(1e6)


def freeze(model: LeNet) -> None:
    """No update moves the first layer any more, which is trained nevertheless."""
    optimizer: Any = model.optimizers()
    group = optimizer.param_groups[0]
    frozen = list(model.conv1.parameters())
    group["params"] = [weight for weight in group["params"] if all(weight is not other for other in frozen)]
    optimizer.add_param_group({"params": frozen, "lr": 0.0})


@dataclass(frozen=True)
class Ill:
    """What is wrong.

    Attributes:
        change: of the model, after some updates.
        function: between its layers.
        data: ``mislabeled`` or ``shortcut``; nothing if empty.
    """

    change: Callable[[LeNet], Any] = lambda model: None
    function: type[nn.Module] = nn.ReLU
    data: str = ""


ILLS = {
    "nothing": Ill(),
    "nothing, tanh": Ill(function=nn.Tanh),
    "a dead layer": Ill(lambda model: model.fc1.bias.fill_(-100)),
    "a saturated layer": Ill(lambda model: model.fc1.weight.mul_(1e4), nn.Tanh),
    "an exploding layer": Ill(explode),
    "weights that do not move": Ill(freeze),
    "NaN in a weight": Ill(lambda model: model.fc2.weight[0, 0].fill_(math.nan)),
    f"{ODD} mislabeled validation samples": Ill(data="mislabeled"),
    "a bright corner that marks a class in training, not in validation": Ill(data="shortcut"),
}


def digits(ill: str) -> tuple[Tensor, Tensor, list[int]]:
    """Images, classes, and the numbers of the validation samples that are odd."""
    known = load_digits()
    images = F.interpolate(torch.tensor(known.images, dtype=torch.float32)[:, None] / 16, size=28)
    classes, odd = torch.tensor(known.target), []
    if ill == "mislabeled":
        odd = list(range(TRAINED + 20, TRAINED + 20 + 40 * ODD, 40))
        classes[odd] = (classes[odd] + 5) % 10
    if ill == "shortcut":  # odd are those of the class without the mark, and a few of others with it
        marked = (classes == MARKED).nonzero()[:, 0]
        others = [number for number in range(TRAINED, len(classes)) if classes[number] != MARKED and number % 10 == 0]
        images[[*marked[marked < TRAINED].tolist(), *others], :, :4, :4] = 1.0
        odd = [*others, *marked[marked >= TRAINED].tolist()]
    return images, classes, odd


def train(ill: Ill, folder: Path) -> tuple[Tensor, list[int]]:
    """Train with default views.

    Returns:
        The validation images, and the numbers of the odd ones.
    """
    pl.seed_everything(0, verbose=False)
    images, classes, odd = digits(ill.data)
    loaders = [
        DataLoader(TensorDataset(images[part], classes[part]), 32, shuffle=part.start is None)
        for part in (slice(None, TRAINED), slice(TRAINED, None))
    ]
    views = default_views(keep_parts=True, finish_seconds=600)
    trainer = pl.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name="", version=""),
        callbacks=[*views, Plant(ill.change)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(LeNet(ill.function), *loaders)
    return images[TRAINED:], [number - TRAINED for number in odd]


def pages(folder: Path) -> dict[str, dict[int, Page]]:
    """The kept pages by tag and step."""
    found: dict[str, dict[int, Page]] = {}
    for file in sorted(folder.rglob("lightning_viz_parts/**/*.npz")):
        page = read_page(file)
        found.setdefault(page.tag, {})[int(file.stem)] = page
    return found


def red_words(page: Page) -> list[str]:
    """What a page says in red, mistaken samples aside."""
    words = [" ".join(text.lines) for text in page.parts(Text) if text.color == RED]
    return [*words, *(label.text for label in page.parts(Label) if label.color == RED), *page.notes]


def seen(folder: Path, images: Tensor, odd: list[int]) -> list[str]:
    """What the cards show, in words."""
    found = pages(folder)
    words = []
    for step, page in found["health"].items():
        if red_words(page):
            words.append(f"health from step {step}: {red_words(page)[0]}")
            break
    verdicts = [" ".join(text.lines) for text in list(found["health"].values())[-1].parts(Text)]
    if not words:
        words.append(f"health: {verdicts[0]}")
    if odd:
        step, page = max(found["mistakes/worst"].items())
        tiles = [tile for tile in page.parts(Tile) if tile.image is not None and not isinstance(tile, MapTile)]
        gray = (images[:, 0] * 255).round().to(torch.uint8).numpy()
        matches = [np.flatnonzero((gray == tile.image[..., 0]).all((1, 2))) for tile in tiles]  # type: ignore[index]
        numbers = [int(match[0]) for match in matches if match.size]
        words.append(
            f"mistakes/worst, step {step}: {len(set(numbers) & set(odd))} of {len(numbers)} shown are odd ones"
        )
        first = min(at for at, page in found["mistakes/worst"].items())
        words.append(f"first at step {first}")
    return words


def main(only: str = "") -> None:
    """Print a table.

    Args:
        only: the ills whose names hold these words.
    """
    warnings.simplefilter("ignore")
    print("| planted | shown by |\n| --- | --- |", flush=True)
    for name, ill in ILLS.items():
        if only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            images, odd = train(ill, Path(folder))
            print(f"| {name} | {'; '.join(seen(Path(folder), images, odd))} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
