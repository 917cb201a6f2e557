"""What a picture is asked: which kinds are in it, where they are, what each pixel is, and which object it belongs to.

One U-Net, trained for a short time on small pictures of shapes, answers all four: classification, detection, semantic
and instance segmentation, side by side with the truth. A second page shows how such nets make maps larger again:
max-unpooling with remembered places, windows that overlap and are summed, transposed convolution.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from one_cycle import fit
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from lightning_viz.callbacks.writers import FolderWriter
from lightning_viz.render.colors import class_colors
from lightning_viz.render.detections import FramedTile, ObjectFrame
from lightning_viz.render.layout import heads
from lightning_viz.render.page import compose, lay_out
from lightning_viz.render.parts import ClassKey, HStack, PaintedTile, Text, Tile, VStack
from lightning_viz.render.text import number, percent
from lightning_viz.render.tiles import to_rgb

SIDE, MOST, TILE = 40, 3, 163  # pixels of a picture, shapes in it, pixels of a tile
KINDS = ("disc", "square", "triangle")
SURE, SPREAD, SCALE = 0.3, 1.5, 10.0  # least score of a detection; of a center's heat; pixels of a unit of length


def scenes(count, seed):
    """Pictures ``[N, 1, 40, 40]``, each pixel's object ``[N, 40, 40]`` (-1: none), kinds and centers of the objects."""
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    kinds, radii = (3 * rand(count, MOST)).long(), 5 + 2.5 * rand(count, MOST)
    centers = radii[..., None] + 1 + rand(count, MOST, 2) * (SIDE - 2 - 2 * radii[..., None])  # x and y
    axis = torch.arange(SIDE) + 0.5
    x, y = axis - centers[..., 0, None, None], axis[:, None] - centers[..., 1, None, None]
    r = radii[..., None, None]
    disc, square = x**2 + y**2 < r**2, torch.maximum(x.abs(), y.abs()) < 0.87 * r
    triangle = (y < 0.8 * r) & (2 * x.abs() - y < r)
    every = torch.stack([disc, square.expand_as(disc), triangle.expand_as(disc)], 2)
    inside = every.gather(2, kinds[:, :, None, None, None].expand(-1, -1, 1, SIDE, SIDE))[:, :, 0]
    earlier = torch.ones(MOST, MOST).tril(-1).bool()
    shown = torch.cdist(centers, centers).masked_fill(~earlier, torch.inf).amin(2) > 9  # none too near an earlier one
    inside &= shown[..., None, None]
    objects = torch.full((count, SIDE, SIDE), -1)
    for place in range(MOST):
        objects[inside[:, place]] = place
    pictures = 0.4 * rand(count, 1, SIDE, SIDE) + 0.6 * (objects >= 0)[:, None]
    return pictures, objects, torch.where(shown, kinds, -1), centers


def truths(objects, kinds, centers):
    """What each pixel is to be told: its kind, its way to its object's center; heat around centers, sizes there."""
    known = objects.clamp_min(0)
    semantic = torch.where(objects >= 0, kinds.gather(1, known.flatten(1)).view_as(objects) + 1, 0)
    axis = torch.arange(SIDE) + 0.5
    grid = torch.stack([axis.expand(SIDE, SIDE), axis[:, None].expand(SIDE, SIDE)])  # x and y of pixels
    own = centers.gather(1, known.flatten(1)[..., None].expand(-1, -1, 2)).mT.view(-1, 2, SIDE, SIDE)
    heat, sizes = torch.zeros(len(objects), 3, SIDE, SIDE), torch.zeros(len(objects), 2, SIDE, SIDE)
    for place in range(MOST):
        there = kinds[:, place] >= 0
        near = (-((grid - centers[:, place, :, None, None]) ** 2).sum(1) / (2 * SPREAD**2)).exp()
        rows, kind = there.nonzero()[:, 0], kinds[there, place]
        heat[rows, kind] = torch.maximum(heat[rows, kind], near[there])
        mask = objects == place
        across, down = mask.any(1).sum(1), mask.any(2).sum(1)
        sizes = torch.where(mask[:, None], torch.stack([across, down], 1)[:, :, None, None] / SCALE, sizes)
    return semantic, (own - grid) / SCALE, heat, sizes


def block(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())


class UNet(nn.Module):
    """One net, four answers: kinds in the picture; class, way to the center, heat of centers and size at each pixel."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = block(1, 12), block(12, 24), nn.Sequential(block(24, 48), block(48, 48))
        self.up2, self.merge2 = nn.ConvTranspose2d(48, 24, 2, stride=2), block(48, 24)
        self.up1, self.merge1 = nn.ConvTranspose2d(24, 12, 2, stride=2), nn.Sequential(block(24, 24), block(24, 24))
        self.head, self.kinds = nn.Conv2d(24, 4 + 2 + 3 + 2, 1), nn.Linear(48, 3)

    def forward(self, pictures):
        fine = self.down1(pictures)
        middle = self.down2(F.max_pool2d(fine, 2))
        coarse = self.bottom(F.max_pool2d(middle, 2))
        middle = self.merge2(torch.cat([middle, self.up2(coarse)], 1))
        outputs = self.head(self.merge1(torch.cat([fine, self.up1(middle)], 1)))
        return self.kinds(coarse.amax((2, 3))), *outputs.split((4, 2, 3, 2), 1)


def present(kinds):
    """Whether each kind is in the picture ``[N, 3]``."""
    return torch.stack([(kinds == kind).any(1) for kind in range(3)], 1).float()


def train(model, steps):
    pictures, objects, kinds, centers = scenes(2000, seed=1)
    semantic, ways, heat, sizes = truths(objects, kinds, centers)
    wanted = present(kinds)

    def loss_of_batch():
        rows = torch.randint(len(pictures), (16,))
        inside = (objects[rows] >= 0)[:, None].float()
        told, classes, way, hot, size = model(pictures[rows])
        loss = F.binary_cross_entropy_with_logits(told, wanted[rows])
        loss += F.cross_entropy(classes, semantic[rows], torch.tensor([0.3, 1, 1, 1]))
        loss += 10 * F.binary_cross_entropy_with_logits(hot, heat[rows])
        return loss + ((way - ways[rows]).abs() * inside).mean() + ((size - sizes[rows]).abs() * inside).mean()

    return fit(model, torch.optim.Adam(model.parameters()), steps, loss_of_batch)


def detected(heat, size):
    """Peaks of a picture's heat ``[3, h, w]`` of centers: score, kind, x, y and the box, the surest first."""
    peaks = (heat == F.max_pool2d(heat[None], 5, 1, 2)[0]) & (heat == heat.amax(0)) & (heat > SURE)
    found = []
    for kind, row, column in peaks.nonzero().tolist():
        wide, high = (SCALE * size[:, row, column]).tolist()
        x, y = column + 0.5, row + 0.5
        box = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
        found.append((float(heat[kind, row, column]), kind, x, y, box))
    return sorted(found, reverse=True)


def instances(classes, way, found):
    """Masks of the detections: each pixel of a shape belongs to the one to whose center its way leads."""
    if not found:
        return []
    axis = torch.arange(SIDE) + 0.5
    votes = torch.stack([axis.expand(SIDE, SIDE), axis[:, None].expand(SIDE, SIDE)]) + SCALE * way
    centers = torch.tensor([[x, y] for _, _, x, y, _ in found])
    nearest = (votes[None] - centers[:, :, None, None]).square().sum(1).argmin(0)
    return [((nearest == place) & (classes > 0)).numpy() for place in range(len(found))]


def row(picture, objects, kinds, outputs):
    """A picture and the four answers."""
    told, classes, way, hot, size = outputs
    image, chances = to_rgb(picture[None].numpy())[0], told.sigmoid()
    found, labels = detected(hot.sigmoid(), size), classes.argmax(0)
    colors = class_colors(4)
    frames = [ObjectFrame(box, "", tuple(map(int, colors[kind + 1]))) for _, kind, _, _, box in found]
    paint = np.concatenate([colors[labels.numpy()], 0.72 * (labels.numpy() > 0)[..., None]], 2)
    separate = np.zeros((SIDE, SIDE, 4))
    for place, mask in enumerate(instances(labels, way, found)):
        separate[mask] = [*_OBJECTS[place % len(_OBJECTS)], 0.72]
    tiles = [
        Tile((TILE, TILE), image),
        FramedTile(Tile((TILE, TILE), image), frames, (SIDE, SIDE)),
        PaintedTile((TILE, TILE), image, paint=paint),
        PaintedTile((TILE, TILE), image, paint=separate),
    ]
    truth = present(kinds[None])[0] > 0
    said = [
        f"{'✓' if (chance > 0.5) == there else '✗'} {name}: {'yes' if chance > 0.5 else 'no'}"
        for name, chance, there in zip(KINDS, chances, truth, strict=True)
    ]
    count = int((kinds >= 0).sum())
    counted = [f"{len(found)} found", f"of {count}", ""]
    semantic = torch.where(objects >= 0, kinds[objects.clamp_min(0)] + 1, 0)
    right = [f"{percent(float((labels == semantic).float().mean()), 1)} % of", "pixels right", ""]
    lines = [said, counted, right, [f"{len(found)} objects", "", ""]]
    texts = [VStack([Text([line], TILE) for line in column if line] or [Text([""], TILE)], gap=0) for column in lines]
    return VStack([HStack(tiles, gap=8), HStack(texts, gap=8)], gap=2)


_OBJECTS = ((230, 25, 75), (60, 180, 75), (67, 99, 216), (245, 130, 49), (145, 30, 180))


def four_answers(model):
    """Classification, detection, semantic and instance segmentation of three pictures."""
    pictures, objects, kinds, centers = scenes(200, seed=2)
    with torch.no_grad():
        outputs = model(pictures)
    semantic = truths(objects, kinds, centers)[0]
    right = float((outputs[1].argmax(1) == semantic).float().mean())
    exact = float(((outputs[0] > 0) == (present(kinds) > 0)).all(1).float().mean())
    print(f"all kinds right in {exact:.1%} of {len(pictures)} pictures; {right:.1%} of pixels right")
    full = ((kinds >= 0).all(1) & (present(kinds).sum(1) == 2)).nonzero()[:3, 0].tolist()
    rows = [row(pictures[n], objects[n], kinds[n], [part[n] for part in outputs]) for n in full]
    titles = ("classification", "detection", "semantic", "instances")
    key = ClassKey(["background", *KINDS], np.concatenate([[[205] * 3], class_colors(4)[1:]]).astype(np.uint8))
    return compose(
        "segmentation/answers",
        "One picture, four questions",
        VStack([HStack(heads(titles, TILE), gap=8), *rows, key], gap=8),
        (
            f"all kinds right in {percent(exact, 1)} % of {len(pictures)} new pictures",
            f"{percent(right, 1)} % of their pixels right",
            "dots: colors of frames and pixels by class",
            "instances: a color for each object",
        ),
        "A small U-Net with four heads. Classification says which kinds are in the picture (✓ if that is right), "
        "detection where each object is, semantic segmentation of which class each pixel is, and instance segmentation "
        "to which object it belongs.",
    )


def larger_again():
    """Pooling and its inverses on a digit of 8 x 8 pixels."""
    digit = torch.tensor(load_digits().images[5] / 16, dtype=torch.float32)[None, None]
    pooled, places = F.max_pool2d(digit, 2, return_indices=True)
    ones = torch.ones(1, 1, 3, 3)
    weights = torch.tensor([0.25, 0.5, 0.25])
    kernel = (4 * weights[:, None] * weights)[None, None]
    steps = [
        ("input, 8 × 8", digit),
        ("max-pooled by 2", pooled),
        ("unpooled to its places", F.max_unpool2d(pooled, places, 2)),
        ("how often 3 × 3 overlap", F.conv_transpose2d(torch.ones_like(pooled), ones, stride=2)),
        ("transposed, all ones", F.conv_transpose2d(pooled, ones, stride=2)),
        ("transposed, bilinear", F.conv_transpose2d(pooled, kernel, stride=2, padding=1, output_padding=1)),
    ]
    size = 218
    parts = []
    for words, maps in steps:
        most = float(maps.max())
        lines = [f"{words}", f"0 to {number(round(most, 2))}"]
        tile = Tile((size, size), to_rgb((maps / most).numpy())[0])
        parts.append(VStack([Text([lines[0]], size), tile, Text([lines[1]], size)], gap=2))
    return compose(
        "segmentation/larger_again",
        "How maps become larger again",
        VStack([HStack(parts[:3], gap=11), HStack(parts[3:], gap=11)], gap=10),
        ("each tile from 0 (black) to its maximum (white)",),
        "Max-unpooling puts each maximum back where it was taken from and 0 elsewhere. A transposed convolution lays a "
        "copy of its kernel, times the value, at every place and sums where the windows overlap; the fourth tile shows "
        "how often they do. A learned kernel can even that out, as the bilinear one does.",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/segmentation"), help="folder for the pictures")
    parser.add_argument("--steps", type=int, default=500, help="of training")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    writer = FolderWriter(options.out)
    writer.picture(lay_out(larger_again()), 0)
    writer.picture(lay_out(four_answers(train(UNet(), options.steps))), options.steps)


if __name__ == "__main__":
    main()
