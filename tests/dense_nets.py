"""Dense predictors small enough to be trained in a test, and shapes on noise for them to find."""

from typing import NamedTuple

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

CLASSES = ("background", "disc", "square", "triangle")


class Shapes(NamedTuple):
    """Images ``[N, 1, S, S]`` in [0, 1], and the class of each pixel ``[N, S, S]``."""

    images: Tensor
    masks: Tensor


class ShapeData(TensorDataset):
    """Shapes as a data set that knows the names of its classes."""

    classes = CLASSES


def shapes(count: int, size: int = 32, seed: int = 0) -> Shapes:
    """One disc, square or triangle an image, as bright as the others, on noise."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    kinds = torch.arange(count) % 3 + 1
    images, masks = [], []
    for kind in kinds.tolist():
        radius = float(torch.empty(()).uniform_(size * 0.2, size * 0.3, generator=generator))
        center = torch.empty(2).uniform_(radius + 1, size - radius - 1, generator=generator)
        dy, dx = y - center[0], x - center[1]
        inside = {
            1: dy**2 + dx**2 < radius**2,
            2: torch.maximum(dy.abs(), dx.abs()) < 0.87 * radius,
            3: (dy < 0.8 * radius) & (2 * dx.abs() - dy < radius),
        }[kind]
        noise = torch.rand(size, size, generator=generator)
        images.append(0.4 * noise + 0.6 * inside)
        masks.append(inside * kind)
    return Shapes(torch.stack(images)[:, None], torch.stack(masks).long())


class Dense(pl.LightningModule):
    """A dense predictor: of pixels' classes by default."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        rare = torch.tensor([0.3, *[1.0] * (len(CLASSES) - 1)])  # most pixels are background
        return F.cross_entropy(self(x), y, rare)

    def validation_step(self, batch, batch_idx):
        return self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 5e-3)


class UNet(Dense):
    """Two levels with skips: functional ReLUs, concatenation, transposed convolutions."""

    def __init__(self, width: int = 6, classes: int = len(CLASSES)):
        super().__init__()
        self.down1 = self.block(1, width)
        self.down2 = self.block(width, 2 * width)
        self.bottom1 = self.block(2 * width, 6 * width)
        self.bottom2 = self.block(6 * width, 6 * width)
        self.up2 = nn.ConvTranspose2d(6 * width, 2 * width, 2, stride=2)
        self.merge2 = self.block(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merge1 = self.block(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def block(channels: int, features: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(channels, features, 3, padding=1), nn.BatchNorm2d(features))

    def forward(self, x):
        fine = F.relu(self.down1(x))
        middle = F.relu(self.down2(F.max_pool2d(fine, 2)))
        coarse = F.relu(self.bottom2(F.relu(self.bottom1(F.max_pool2d(middle, 2)))))
        middle = F.relu(self.merge2(torch.cat([middle, self.up2(coarse)], 1)))
        fine = F.relu(self.merge1(torch.cat([fine, self.up1(middle)], 1)))
        return self.head(fine)


class Unpooling(Dense):
    """An encoder and a decoder that puts values back where max-pooling took them (SegNet), in-place ReLUs."""

    def __init__(self, width: int = 8, classes: int = len(CLASSES)):
        super().__init__()
        self.encode1 = self.block(nn.Conv2d(1, width, 3, padding=1))
        self.encode2 = self.block(nn.Conv2d(width, 4 * width, 3, padding=1))
        self.bottom = nn.Sequential(
            self.block(nn.Conv2d(4 * width, 4 * width, 3, padding=1)),
            self.block(nn.Conv2d(4 * width, 4 * width, 3, padding=2, dilation=2)),
        )
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.decode2 = self.block(nn.ConvTranspose2d(4 * width, width, 3, padding=1))
        self.decode1 = self.block(nn.ConvTranspose2d(width, width, 3, padding=1))
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def block(convolution: nn.Module) -> nn.Sequential:
        return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))

    def forward(self, x):
        x, first = self.pool(self.encode1(x))
        x, second = self.pool(self.encode2(x))
        x = self.unpool(self.bottom(x), second)
        x = self.unpool(self.decode2(x), first)
        return self.head(self.decode1(x))


class Denoiser(Dense):
    """From a noisy image to the image, by what it adds to it."""

    def __init__(self, width: int = 12):
        super().__init__()
        self.inner1 = nn.Conv2d(1, width, 3, padding=1)
        self.inner2 = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x):
        return x + self.head(F.relu(self.inner2(F.relu(self.inner1(x)))))

    def training_step(self, batch, batch_idx):
        noisy, clean = batch
        return F.mse_loss(self(noisy), clean)


def noisy_shapes(count: int, size: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Shapes under noise, and the shapes themselves, ``[N, 1, S, S]`` each."""
    clean = (shapes(count, size, seed).masks > 0).float()[:, None] * 0.8 + 0.1
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed + 1))
    return (clean + 0.25 * noise).clamp(0, 1), clean


def trained(build: type[Dense], data: tuple[Tensor, Tensor], updates: int = 300, seed: int = 0) -> Dense:
    """A network after some updates on batches of 16, always alike."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
        optimizer = model.configure_optimizers()
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, updates)
        done = 0
        while done < updates:
            for batch in torch.randperm(len(data[0])).split(16):
                loss = model.training_step((data[0][batch], data[1][batch]), 0)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                done += 1
                if done == updates:
                    break
    return model.eval()


def loader(data: tuple[Tensor, Tensor], **options) -> DataLoader:
    return DataLoader(ShapeData(*data), batch_size=32, **options)


def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits at 28 x 28 pixels, black where nothing is written, and their classes."""
    flat, labels = load_digits(return_X_y=True)
    small = torch.tensor(flat, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    return F.interpolate(small, (28, 28), mode="bilinear"), torch.tensor(labels)


NOTHING = 10
"""The finder's class of windows in whose middle there is no digit."""


def crops(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Windows on digits: half of them within 2 pixels, the others anywhere; beside a digit is nothing."""
    padded, offsets = F.pad(images, (14,) * 4), torch.randint(-14, 15, (len(images), 2), generator=generator)
    near = torch.rand(len(images), generator=generator) < 0.5
    offsets[near] = torch.randint(-2, 3, (int(near.sum()), 2), generator=generator)
    windows = [one[:, 14 + y : 42 + y, 14 + x : 42 + x] for one, (y, x) in zip(padded, offsets.tolist(), strict=True)]
    far = offsets.abs().amax(1)
    clear = far != 3
    return torch.stack(windows)[clear], torch.where(far <= 2, labels, NOTHING)[clear]


def trained_finder(epochs: int = 8) -> nn.Sequential:
    """A network that knows the first 1,500 digits, and that there may be none."""
    images, labels = (part[:1500] for part in digits())
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(64 * 49, 64), nn.ReLU(), nn.Linear(64, NOTHING + 1)),
        )
        optimizer = torch.optim.Adam(model.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs * 24)
        for _ in range(epochs):
            windows, classes = crops(images, labels, generator)
            for batch in torch.randperm(len(windows))[: 24 * 60].split(60)[:23]:
                loss = F.cross_entropy(model(windows[batch]), classes[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return model.eval()


class Canvases(NamedTuple):
    """Images ``[N, 1, S, S]`` with a digit each, rows and columns of its corner ``[N, 2]``, and its class ``[N]``."""

    images: Tensor
    corners: Tensor
    labels: Tensor


def canvases(count: int, size: int, seed: int = 0) -> Canvases:
    """Digits that the finder does not know, somewhere on black."""
    images, labels = (part[1500:] for part in digits())
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randperm(len(images), generator=generator)[:count]
    corners = torch.randint(0, size - 28, (count, 2), generator=generator)
    sheet = torch.zeros(count, 1, size, size)
    for one, digit, (y, x) in zip(sheet, images[picks], corners.tolist(), strict=True):
        one[:, y : y + 28, x : x + 28] = digit
    return Canvases(sheet, corners, labels[picks])
