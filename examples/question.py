"""A question about an image: Grad-CAM of a network with two inputs shows where it looks for the answer.

Two glyphs of different shapes and colors stand left and right. The question names a color or a side, the answer is the
shape of the glyph that is meant. So the same image has several answers, and the truth is known: the map of each must
lie on the glyph that its question means.
"""

import argparse
from pathlib import Path

import torch
from glyphs import COLORS, GLYPH, NAMES, NOISE, glyphs
from one_cycle import fit
from torch import nn
from torch.nn import functional as F

from lightning_viz.attribution import grad_cam
from lightning_viz.attribution.evaluation import pointing_game
from lightning_viz.callbacks.writers import FolderWriter
from lightning_viz.render.page import compose, lay_out
from lightning_viz.render.parts import ColorBar, HStack, MapTile, Text, Tile, VStack
from lightning_viz.render.text import percent
from lightning_viz.render.tiles import to_rgb

HEIGHT, WIDTH = 24, 48
QUESTIONS = ("red", "green", "blue", "yellow", "left", "right")  # the glyph of this color, or on this side
LEFT = QUESTIONS.index("left")
TILE = (160, 80)  # pixels


def scenes(count, seed):
    """Images ``[N, 3, 24, 48]``, shapes, colors ``[N, 2]`` and boxes ``[N, 2, 4]`` of their left and right glyphs."""
    generator = torch.Generator().manual_seed(seed)
    inputs = NOISE * torch.randn(count, 3, HEIGHT, WIDTH, generator=generator)
    labels, colors = (torch.rand(count, 4, generator=generator).argsort(1)[:, :2] for _ in range(2))
    corners = torch.randint(WIDTH // 2 - GLYPH + 1, (count, 2, 2), generator=generator)
    corners[..., 1] += torch.tensor([0, WIDTH // 2])  # top and left
    shapes = glyphs()
    for image, two, tints, places in zip(inputs, labels, colors, corners.tolist(), strict=True):
        for shape, color, (top, left) in zip(two, tints, places, strict=True):
            image[:, top : top + GLYPH, left : left + GLYPH] += shapes[shape] * COLORS[color][:, None, None]
    lefts = corners.flip(2)
    return inputs, labels, colors, torch.cat([lefts, lefts + GLYPH], 2)


def asked(colors, questions):
    """Which of the two glyphs a question means ``[N]``: 0 left, 1 right."""
    return torch.where(questions >= LEFT, questions - LEFT, (colors[:, 1] == questions).long())


def ask(colors, generator):
    """A question for each scene: one of its colors, or a side."""
    choices = torch.cat([colors, torch.tensor([[LEFT, LEFT + 1]]).expand(len(colors), -1)], 1)
    return choices.gather(1, torch.randint(4, (len(colors), 1), generator=generator))[:, 0]


class Answer(nn.Module):
    """Convolutions of the image, whose channels the question scales and shifts (FiLM; Perez et al., 2018)."""

    def __init__(self):
        super().__init__()
        self.see = nn.Sequential(
            nn.Conv2d(5, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        )  # fmt: skip
        self.question = nn.Embedding(len(QUESTIONS), 2 * 32)
        self.combine = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.answer = nn.Linear(32, len(NAMES))

    def forward(self, images, questions):
        across = torch.linspace(-1, 1, WIDTH).expand(len(images), 1, HEIGHT, WIDTH)
        seen = self.see(torch.cat([images, across, -across], 1))
        scale, shift = self.question(questions)[:, :, None, None].chunk(2, 1)
        return self.answer(self.combine(F.relu((1 + scale) * seen + shift)).mean((2, 3)))


def train(model, steps):
    images, labels, colors, _ = scenes(3000, seed=1)
    generator = torch.Generator().manual_seed(0)

    def loss_of_batch():
        rows = torch.randint(len(images), (48,), generator=generator)
        questions = ask(colors[rows], generator)
        answers = labels[rows].gather(1, asked(colors[rows], questions)[:, None])[:, 0]
        return F.cross_entropy(model(images[rows], questions), answers)

    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-3)
    return fit(model, optimizer, steps, loss_of_batch, what="cross-entropy")


def attribute(model, inputs, target):
    (maps,) = grad_cam(model, inputs, target, layers="combine.2").values()
    return maps


def row(model, image, labels, colors):
    """An image, and the maps of its answers to four questions."""
    questions = torch.tensor([*colors.tolist(), LEFT, LEFT + 1])
    four, truths = image.expand(4, -1, -1, -1), labels[asked(colors.expand(4, -1), questions)]
    with torch.no_grad():
        sure, answers = model(four, questions).softmax(1).max(1)
    maps, picture = attribute(model, (four, questions), answers).numpy(force=True), to_rgb(image[None].numpy())[0]
    tiles = [Tile(TILE, picture)]
    tiles += [MapTile(TILE, picture, values=heat[0], value=float(heat.max()) or None, display="heat") for heat in maps]
    lines = [("", "")]
    for question, answer, truth, share in zip(questions, answers, truths, sure, strict=True):
        mark = "✓" if answer == truth else "✗"
        lines.append((f"which is {QUESTIONS[question]}?", f"{mark} {NAMES[answer]} {percent(float(share))} %"))
    texts = [VStack([Text([line], TILE[0]) for line in two], gap=0) for two in lines]
    return VStack([HStack(tiles, gap=9), HStack(texts, gap=9)], gap=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/question"), help="folder for the picture")
    parser.add_argument("--steps", type=int, default=400, help="of training")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more are slower on a network as small as this
    model = train(Answer(), options.steps)

    images, labels, colors, boxes = scenes(400, seed=2)
    questions = ask(colors, torch.Generator().manual_seed(3))
    meant = asked(colors, questions)
    answers, places = labels.gather(1, meant[:, None])[:, 0], torch.arange(len(meant))
    with torch.no_grad():
        right = (model(images, questions).argmax(1) == answers).float().mean()
    on_it, on_other = (
        pointing_game(attribute, model, (images, questions), answers, boxes=boxes[places, glyph].float()).rate
        for glyph in (meant, 1 - meant)
    )
    print(f"{right:.1%} of {len(images)} answers right; the maximum lies on the glyph that is meant: {on_it:.1%}")
    print(f"on the other glyph: {on_other:.1%}")
    rows = [row(model, images[n], labels[n], colors[n]) for n in range(5)]
    drawn = compose(
        "question/grad_cam",
        "Grad-CAM of an answer: where the network looks for it",
        VStack([*rows, ColorBar("heat", "0", "each map's maximum")], gap=10),
        (
            f"{percent(float(right), 1)} % of {len(images)} answers right",
            f"of their maps' maxima {percent(on_it)} % on the glyph that is meant, {percent(on_other)} % on the other",
        ),
        "Each row is one image under four questions. The network has two inputs, the image and the question; below "
        "each map stand the question and the answer, ✓ if right. The same image is looked at in another place if "
        "another glyph is meant.",
    )
    FolderWriter(options.out).picture(lay_out(drawn), options.steps)


if __name__ == "__main__":
    main()
