"""Two networks learn which pixels are a disc, a square or a triangle; a digit is found on a larger canvas."""

import argparse
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import ActivationMaps, GradCAM, Predictions
from lightning_viz.dense import class_maps
from lightning_viz.render.dense import found_on_canvas
from lightning_viz.render.page import lay_out
from lightning_viz.render.tiles import to_rgb

SIDE = 32
CLASSES = ["background", "disc", "square", "triangle"]
NOTHING = 10  # a digit classifier's class where there is no digit


class Shapes(TensorDataset):
    """One shape an image, on noise, and the class of each pixel."""

    classes = CLASSES

    def __init__(self, count):
        kind = (torch.arange(count) % 3 + 1)[:, None, None]
        radius = torch.empty(count, 1, 1).uniform_(0.2 * SIDE, 0.3 * SIDE)
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        y, x = (axis - radius - 1 - torch.rand(count, 1, 1) * (SIDE - 2 * radius - 2) for axis in (y, x))
        disc, square = x**2 + y**2 < radius**2, torch.maximum(x.abs(), y.abs()) < 0.87 * radius
        triangle = (y < 0.8 * radius) & (2 * x.abs() - y < radius)
        inside = torch.where(kind == 1, disc, torch.where(kind == 2, square, triangle))
        super().__init__((0.4 * torch.rand(count, SIDE, SIDE) + 0.6 * inside)[:, None], inside * kind)


def block(channels, features):
    return nn.Sequential(nn.Conv2d(channels, features, 3, padding=1), nn.BatchNorm2d(features), nn.ReLU(inplace=True))


class Segmenter(pl.LightningModule):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y, torch.tensor([0.3, 1, 1, 1]))  # most pixels are background

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_accuracy", (self(x).argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class UNet(Segmenter):
    """What is fine comes over the skips."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = block(1, 6), block(6, 12), nn.Sequential(block(12, 36), block(36, 36))
        self.up2, self.merge2 = nn.ConvTranspose2d(36, 12, 2, stride=2), block(24, 12)
        self.up1, self.merge1 = nn.ConvTranspose2d(12, 6, 2, stride=2), block(12, 6)
        self.head = nn.Conv2d(6, len(CLASSES), 1)

    def forward(self, x):
        fine = self.down1(x)
        middle = self.down2(F.max_pool2d(fine, 2))
        coarse = self.bottom(F.max_pool2d(middle, 2))
        middle = self.merge2(torch.cat([middle, self.up2(coarse)], 1))
        return self.head(self.merge1(torch.cat([fine, self.up1(middle)], 1)))


class Unpooling(Segmenter):
    """What is fine comes back to where max-pooling took it."""

    def __init__(self):
        super().__init__()
        self.encode1, self.encode2, self.bottom = block(1, 8), block(8, 32), nn.Sequential(block(32, 32), block(32, 32))
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.decode2, self.decode1, self.head = block(32, 8), block(8, 8), nn.Conv2d(8, len(CLASSES), 1)

    def forward(self, x):
        x, first = self.pool(self.encode1(x))
        x, second = self.pool(self.encode2(x))
        x = self.decode2(self.unpool(self.bottom(x), second))
        return self.head(self.decode1(self.unpool(x, first)))


def segment(model, out, epochs, png):
    views = [Predictions(), ActivationMaps(layers="head"), GradCAM(target="region", layers="bottom")]
    train, val = DataLoader(Shapes(960), batch_size=16, shuffle=True), DataLoader(Shapes(60), batch_size=60)
    name = f"dense-{type(model).__name__}"
    where = {"logger": TensorBoardLogger(out, name=name)}
    if png:  # which the views write by themselves where there is no logger for pictures
        where = {"logger": False, "default_root_dir": Path(out) / name, "enable_checkpointing": False}
    pl.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=views, **where).fit(model, train, val)


def windows(digits, labels):
    """Half of them on a digit, the others beside one."""
    offsets = torch.randint(-14, 15, (len(digits), 2))
    near = torch.rand(len(digits)) < 0.5
    offsets[near] = torch.randint(-2, 3, (int(near.sum()), 2))
    padded, far = F.pad(digits, (14,) * 4), offsets.abs().amax(1)
    cut = [one[:, 14 + y : 42 + y, 14 + x : 42 + x] for one, (y, x) in zip(padded, offsets.tolist(), strict=True)]
    return torch.stack(cut)[far != 3], torch.where(far <= 2, labels, NOTHING)[far != 3]


def find_digits(out, epochs):
    """A classifier of windows of 28 x 28 pixels, looking at canvases of 112 x 112 in one pass."""
    flat, labels = load_digits(return_X_y=True)
    digits = F.interpolate(torch.tensor(flat, dtype=torch.float32).view(-1, 1, 8, 8) / 16, (28, 28), mode="bilinear")
    labels = torch.tensor(labels)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, NOTHING + 1)),
    )
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(epochs):
        images, classes = windows(digits[:1500], labels[:1500])
        for batch in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(model(images[batch]), classes[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    canvas = torch.zeros(3, 1, 112, 112)
    corners = [(14, 70), (60, 22), (37, 41)]
    for one, digit, (top, left) in zip(canvas, digits[1500:], corners, strict=False):
        one[:, top : top + 28, left : left + 28] = digit
    maps = class_maps(model.eval(), canvas, size=28)
    found = [maps.log_probabilities().strongest(int(label))[n] for n, label in enumerate(labels[1500:1503])]
    chances = torch.stack([maps.scores.softmax(1)[n, one.label] for n, one in enumerate(found)])
    page = found_on_canvas(
        "found",
        to_rgb(canvas.numpy()),
        chances.numpy(),
        [one.window for one in found],
        size=maps.size,
        stride=maps.stride,
        names=[f"digit {one.label}" for one in found],
    )
    Path(out).mkdir(parents=True, exist_ok=True)
    (Path(out) / "found.png").write_bytes(lay_out(page).image)
    for one, corner in zip(found, corners, strict=True):
        print(f"digit {one.label}: placed at {corner}, found at {(one.window.top, one.window.left)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs", help="folder for TensorBoard's files and found.png")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--png", action="store_true", help="write PNG files instead of TensorBoard's")
    options = parser.parse_args()
    pl.seed_everything(0)
    torch.set_num_threads(1)  # more are slower on networks as small as these
    for build in (UNet, Unpooling):
        segment(build(), options.out, options.epochs, options.png)
    find_digits(options.out, options.epochs)


if __name__ == "__main__":
    main()
