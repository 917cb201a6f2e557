"""A residual net predicts how shapes in the plane move and bounce: what each of its layers draws.

Two shapes, a disc and a square, fly through a box and bounce off its walls and each other. The net sees two moments and
draws a later one. Nothing tells it where a shape is or how fast: its 18 convolutions keep the image's size, so that the
maps of each layer can be looked at as pictures.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from one_cycle import fit
from torch import nn
from torch.nn import functional as F

from lightning_viz.callbacks.writers import FolderWriter
from lightning_viz.hooks import observe
from lightning_viz.render.layout import heads
from lightning_viz.render.page import compose, lay_out
from lightning_viz.render.parts import HStack, Text, Tile, VStack
from lightning_viz.render.text import number
from lightning_viz.render.tiles import to_rgb

SIDE, RADIUS = 28, 4.0  # pixels of an image, and of a shape from its middle
SEEN, AHEAD, PARTS = 3, 6, 4  # moments between the two that are seen, and to the one that is drawn; steps a moment
CHANNELS, BLOCKS = 10, 8  # two convolutions a block, one before and one after all of them: 18
LAYERS = ("first", *(f"blocks.{n}" for n in (0, 2, 4, 6, 7)))
TILE, SHOWN = 80, 131  # pixels of a map, and of what is seen and predicted


def move(places, speeds, moments):
    """Places ``[N, 2, 2]`` and speeds of both shapes after some moments; equal masses, no friction."""
    for _ in range(moments * PARTS):
        places = places + speeds / PARTS
        out = (places < RADIUS) & (speeds < 0) | (places > SIDE - RADIUS) & (speeds > 0)
        speeds = torch.where(out, -speeds, speeds)
        apart = places[:, 0] - places[:, 1]
        distance = apart.norm(dim=1, keepdim=True).clamp_min(1e-6)
        along = apart / distance
        closing = ((speeds[:, 0] - speeds[:, 1]) * along).sum(1, keepdim=True)
        kick = torch.where((distance < 2 * RADIUS) & (closing < 0), closing, 0) * along
        speeds = torch.stack([speeds[:, 0] - kick, speeds[:, 1] + kick], 1)
    return places, speeds


def drawn(places):
    """Images ``[N, 1, 28, 28]`` of a disc and a square, whose edges are a pixel wide."""
    axis = torch.arange(SIDE) + 0.5
    across, down = (axis - places[..., side, None] for side in (0, 1))  # [N, 2, 28]
    x, y = across[:, :, None, :].expand(-1, -1, SIDE, -1), down[:, :, :, None].expand(-1, -1, -1, SIDE)
    disc, square = (x**2 + y**2).sqrt()[:, 0], torch.maximum(x.abs(), y.abs())[:, 1] + 0.12 * RADIUS
    inside = (RADIUS + 0.5 - torch.stack([disc, square], 1)).clamp(0, 1)
    return inside.amax(1, keepdim=True)


def scenes(count, seed):
    """What is seen ``[N, 2, 28, 28]``, what follows ``[N, 1, 28, 28]``, and whether speeds changed between."""
    generator = torch.Generator().manual_seed(seed)
    start = RADIUS + (SIDE - 2 * RADIUS) * torch.rand(3 * count, 2, 2, generator=generator)
    start = start[(start[:, 0] - start[:, 1]).norm(dim=1) > 2 * RADIUS][:count]
    angle = 2 * torch.pi * torch.rand(len(start), 2, generator=generator)
    speeds = (0.4 + 0.8 * torch.rand(len(start), 2, 1, generator=generator)) * torch.stack(
        [angle.cos(), angle.sin()], 2
    )
    seen, fast = move(start, speeds, SEEN)
    later, end = move(seen, fast, AHEAD)
    return torch.cat([drawn(start), drawn(seen)], 1), drawn(later), (fast != end).flatten(1).any(1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS)

    def forward(self, x):
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Forecast(nn.Module):
    """18 convolutions with skips over every two of them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, CHANNELS, 3, padding=1), nn.Conv2d(CHANNELS, 1, 3, padding=1)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))

    def forward(self, seen):
        return self.last(self.blocks(F.relu(self.first(seen))))


def train(model, steps):
    seen, later, _ = scenes(3000, seed=1)

    def loss_of_batch():
        rows = torch.randint(len(seen), (24,))
        return F.binary_cross_entropy_with_logits(model(seen[rows]), later[rows])

    return fit(model, torch.optim.Adam(model.parameters()), steps, loss_of_batch, what="cross-entropy")


def gray(values, limits):
    """A map ``[h, w]`` as an image, black and white at the limits."""
    scaled = (values - limits[0]) / max(limits[1] - limits[0], 1e-9)
    return to_rgb(np.clip(scaled, 0, 1)[None, None])[0]


def tiles(maps, size=TILE, limits=None):
    """Maps ``[K, h, w]`` side by side, each from its least to its most unless limits are given."""
    return HStack(
        [Tile((size, size), gray(one, limits or (float(one.min()), float(one.max())))) for one in maps], gap=5
    )


def page(model, seen, later, error, unmoved):
    """What is seen, what follows, what is predicted; and the maps of each layer."""
    observation = observe(model, seen, layers=LAYERS)
    predicted = torch.as_tensor(observation.outputs).float().sigmoid()
    rows = []
    for n in range(len(seen)):
        before, now, truth, guess = (part.numpy() for part in (*seen[n], later[n, 0], predicted[n, 0]))
        shown = tiles([before, now, truth, guess, abs(guess - truth)], SHOWN, (0, 1))
        words = (f"{SEEN} before", "now", f"{AHEAD} later", "predicted", "difference")
        rows.append(VStack([HStack(heads(words, SHOWN), gap=5), shown], gap=2))
    for layer in LAYERS:
        maps = observation.maps(layer)[0].float().numpy()
        strongest = np.argsort(-maps.std(axis=(1, 2)), kind="stable")[:8]
        at = 1 if layer == "first" else 2 * int(layer.rpartition(".")[2]) + 3
        words = f"after convolution {at} of 18, channels {', '.join(map(str, strongest))}"
        rows.append(VStack([Text([words], 676), tiles(maps[strongest])], gap=2))
    return compose(
        "moving_shapes/layers",
        "What each layer of a residual net draws of moving shapes",
        VStack(rows, gap=8),
        (
            f"mean squared error {number(error)}, of the image as it stands {number(unmoved)}",
            "maps are of the first row, each from its least (black) to its most (white)",
        ),
        "The net is given two moments of a disc and a square that fly and bounce, and predicts a later one. First "
        "what it sees, the truth and its prediction; then, layer by layer, the eight channels whose maps vary most.",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/moving_shapes"), help="folder for the picture")
    parser.add_argument("--steps", type=int, default=400, help="of training")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = train(Forecast(), options.steps)
    seen, later, bounced = scenes(300, seed=2)
    with torch.no_grad():
        error = float((model(seen).sigmoid() - later).square().mean())
    unmoved = float((seen[:, 1:] - later).square().mean())
    print(f"mean squared error {error:.4f}; of the image as it stands {unmoved:.4f}")
    rows = torch.cat([bounced.nonzero()[:1, 0], (~bounced).nonzero()[:1, 0]])
    picture = lay_out(page(model, seen[rows], later[rows], error, unmoved))
    FolderWriter(options.out).picture(picture, options.steps)


if __name__ == "__main__":
    main()
