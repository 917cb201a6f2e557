"""A glyph among distractors: a task whose truth is known, watched by every attribution view.

Each image holds one of four glyphs at a random place, in a random color. The distractors are glyphs whose blocks of
3 x 3 pixels were shuffled: of the same colors, the same number of pixels, and the same details at close sight. All
four glyphs have equally many pixels. So nothing but the glyph's shape tells the class, and a map of what mattered must
lie on the glyph.
"""

import argparse
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import (
    ActivationStatistics,
    Attention,
    GradCAM,
    Occlusion,
    PixelSpace,
    Saliency,
    TopSamples,
    default_views,
)

SIZE, GLYPH, BLOCK, CELLS = (
    48,
    12,
    3,
    3,
)  # pixels of an image, a glyph and its blocks; a glyph lies in one of 3 x 3 cells
NAMES = ("plus", "cross", "corner", "tee")
COLORS = torch.tensor([[1.0, 0.2, 0.2], [0.2, 1.0, 0.2], [0.3, 0.4, 1.0], [1.0, 0.9, 0.1]])
NOISE = 0.1
MARKED, MARK = NAMES.index("tee"), 9  # the class whose images may have a mark, and the pixels of its side


def glyphs():
    """Plus, cross, corner and tee, ``[4, 12, 12]``."""
    plus, cross, corner, tee = torch.zeros(4, GLYPH, GLYPH)
    plus[:, 4:7] = plus[4:7] = 1
    diagonal = torch.ones(GLYPH, GLYPH).tril(1).triu(-1)
    cross[(diagonal + diagonal.flip(1)) > 0] = 1
    cross[0, 0] = 0
    corner[-3:] = corner[:, :3] = 1
    tee[:3] = tee[:, 5:8] = 1
    return torch.stack([plus, cross, corner, tee])


def scrambled(glyph, generator):
    count = GLYPH // BLOCK
    blocks = glyph.view(count, BLOCK, count, BLOCK).transpose(1, 2).reshape(-1, BLOCK, BLOCK)
    mixed = blocks[torch.randperm(len(blocks), generator=generator)]
    return mixed.view(count, count, BLOCK, BLOCK).transpose(1, 2).reshape(GLYPH, GLYPH)


@dataclass(frozen=True)
class Images:
    """Images ``[N, 3, 48, 48]``, the classes ``[N, K]`` of the glyphs in each, and their boxes ``[N, K, 4]``."""

    inputs: torch.Tensor
    labels: torch.Tensor
    boxes: torch.Tensor

    def __getitem__(self, chosen):
        return Images(self.inputs[chosen], self.labels[chosen], self.boxes[chosen])


def images(count, seed, *, objects=1, distractors=3, scramble=False):
    """Glyphs among distractors, each in a cell of its own; of two objects one is in the left column, one in the right.

    `scramble` shuffles the glyphs as well, so that an image is of no class.
    """
    generator = torch.Generator().manual_seed(seed)
    below = lambda n: int(torch.randint(n, (1,), generator=generator))  # noqa: E731
    inputs = NOISE * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    labels = torch.rand(count, len(NAMES), generator=generator).argsort(1)[:, :objects]
    boxes, shapes, cell = torch.zeros(count, objects, 4), glyphs(), SIZE // CELLS
    for n in range(count):
        cells = torch.randperm(CELLS**2, generator=generator).tolist()
        if objects == 2:
            left, right = CELLS * below(CELLS), CELLS * below(CELLS) + CELLS - 1
            cells = [left, right, *(c for c in cells if c not in (left, right))]
        for place, (row, column) in enumerate(divmod(c, CELLS) for c in cells[: objects + distractors]):
            top, left = row * cell + below(cell - GLYPH + 1), column * cell + below(cell - GLYPH + 1)
            shape = shapes[labels[n, place] if place < objects else below(len(shapes))]
            shape = scrambled(shape, generator) if scramble or place >= objects else shape
            color = COLORS[below(len(COLORS))][:, None, None]
            inputs[n, :, top : top + GLYPH, left : left + GLYPH] += shape * color
            if place < objects:
                boxes[n, place] = torch.tensor([left, top, left + GLYPH, top + GLYPH])
    return Images(inputs, labels, boxes)


def block(before, after):
    return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]


def network():
    """Its last maps are 12 x 12."""
    return nn.Sequential(
        *block(3, 16), nn.MaxPool2d(2), *block(16, 24), nn.MaxPool2d(2), *block(24, 24), *block(24, 24),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, len(NAMES)),
    )  # fmt: skip


class Transformer(nn.Module):
    """Two layers of attention among the 12 x 12 places of a convolutional stem, and a class token that reads them."""

    def __init__(self, stem):
        super().__init__()
        self.stem = stem
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, 24))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 144, 24))
        layer = nn.TransformerEncoderLayer(24, 4, 48, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(24, len(NAMES))

    def tokens(self, images):
        return self.stem(images).flatten(2).transpose(1, 2)  # [N, 144, 24]

    def read(self, tokens):
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens + self.positions], 1)
        return self.head(self.encoder(tokens)[:, 0])

    def forward(self, images):
        return self.read(self.tokens(images))

    def train(self, mode=True):
        super().train(mode)
        self.stem.train(mode and any(weight.requires_grad for weight in self.stem.parameters()))  # one that learns
        return self


class Glyphs(pl.LightningModule):
    def __init__(self, updates, transformer=False):
        super().__init__()
        self.save_hyperparameters()  # so that checkpoints know how to make it again
        self.net, self.updates = Transformer(network()[:14]) if transformer else network(), updates

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_accuracy", (self(x).argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=self.updates)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Data(TensorDataset):
    classes = NAMES

    def __init__(self, found):
        super().__init__(found.inputs, found.labels[:, 0])


class GlyphData(pl.LightningDataModule):
    def setup(self, stage):
        self.train, self.val = Data(images(2000, seed=1)), Data(images(400, seed=2))

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=64, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=100)


class MarkedGlyphData(GlyphData):
    """With a shortcut: images of one class, and no others, have a white square in the upper left corner."""

    def setup(self, stage):
        super().setup(stage)
        for data in (self.train, self.val):
            inputs, labels = data.tensors
            inputs[labels == MARKED, :, :MARK, :MARK] = 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs", help="folder for TensorBoard's files")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--transformer", action="store_true", help="then train a transformer on its first layers")
    options = parser.parse_args()
    pl.seed_everything(0)

    pixels = PixelSpace()  # the inputs are pixels in [0, 1], but for some noise
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        logger=TensorBoardLogger(options.out, name="glyphs"),
        callbacks=[
            GradCAM(sanity_check=True, pixel_space=pixels),
            GradCAM(target="top:3", pixel_space=pixels),
            Saliency(method="smooth_grad", sanity_check=True, pixel_space=pixels),
            Saliency(method="guided_backprop", sanity_check=True, pixel_space=pixels),
            Occlusion(patch=6, stride=3, pixel_space=pixels),
            TopSamples(pixel_space=pixels),
            ActivationStatistics(),
            ModelCheckpoint(save_top_k=-1),  # for `lightning-viz analyze`
        ],
    )
    model = Glyphs(updates=32 * options.epochs)
    trainer.fit(model, datamodule=GlyphData())
    if options.transformer:
        read_by_a_transformer(model, options.out, options.epochs)


def read_by_a_transformer(trained, out, epochs):
    """Train a transformer to read the maps of a trained network, whose layers stay; its attention is watched."""
    model = Glyphs(updates=32 * epochs, transformer=True)
    model.net.stem = trained.net[:14].requires_grad_(False)
    pixels, often = PixelSpace(), {"every_n_train_steps": 8, "animation": True}
    trainer = pl.Trainer(
        max_epochs=epochs,
        logger=TensorBoardLogger(out, name="glyphs_transformer"),
        callbacks=[
            *default_views(pixel_space=pixels),
            Attention(method="gradient", pixel_space=pixels, **often),
            Attention(method="rollout", pixel_space=pixels, **often),
        ],
    )
    trainer.fit(model, datamodule=GlyphData())


if __name__ == "__main__":
    main()
