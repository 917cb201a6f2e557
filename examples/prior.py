"""Why a prior makes dreams natural: in the plane, where climbing a class's score f ends, and where f - h does.

Two classes, a net that tells them apart, and h = -log p, p a density fitted to the samples of both.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from lightning_viz.attribution import gradient
from lightning_viz.callbacks.writers import FolderWriter, TensorBoardWriter
from lightning_viz.render.colors import class_colors
from lightning_viz.render.page import Page, compose, lay_out
from lightning_viz.render.parts import ClassKey, Text, Tile, VStack

EXTENT = (-4.0, 5.6, -1.8, 1.8)  # x0, x1, y0, y1 of the panels
WIDTH = 676  # pixels
BANDWIDTHS = (0.05, 0.07, 0.1, 0.14, 0.2)  # of the density, of which the one is taken that held-out samples favor
RARE = 0.01  # share of the samples where the density is lower than what counts as inside


def samples(count: int) -> tuple[Tensor, Tensor]:
    """Two arcs, one for each class, each around an end of the other."""
    labels = torch.arange(count) % 2
    angle, sign = torch.pi * torch.rand(count), 1.0 - 2 * labels
    points = torch.stack([angle.cos() - 0.5 * sign, sign * (angle.sin() - 0.25)], 1)
    return points + 0.1 * torch.randn(count, 2), labels


class Score(nn.Module):
    """f, the logit of class 1 against class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, points: Tensor) -> Tensor:
        scores: Tensor = self.layers(points)
        return scores


class LogDensity(nn.Module):
    """log p = -h: a mean of Gaussians around the samples (Parzen, 1962)."""

    def __init__(self, centers: Tensor, bandwidth: float) -> None:
        super().__init__()
        self.centers, self.bandwidth = nn.Buffer(centers), bandwidth

    def forward(self, points: Tensor) -> Tensor:
        squares = torch.cdist(points, self.centers) ** 2 / (2 * self.bandwidth**2)
        constant = np.log(len(self.centers) * 2 * np.pi * self.bandwidth**2)
        return (-squares).logsumexp(1, keepdim=True) - constant


def fit_density(points: Tensor, held_out: Tensor) -> LogDensity:
    densities = [LogDensity(points, bandwidth) for bandwidth in BANDWIDTHS]
    return max(densities, key=lambda density: float(density(held_out).mean()))


class Sum(nn.Module):
    """f - h."""

    def __init__(self, score: nn.Module, density: nn.Module) -> None:
        super().__init__()
        self.score, self.density = score, density

    def forward(self, points: Tensor) -> Tensor:
        total: Tensor = self.score(points) + self.density(points)
        return total


def train(points: Tensor, labels: Tensor, steps: int) -> Score:
    score = Score()
    optimizer = torch.optim.Adam(score.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(score(points)[:, 0], labels.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = ((score(points)[:, 0] > 0) == (labels == 1)).float().mean()
    print(f"the net has {100 * right:.1f} % of {len(points)} samples right")
    return score.eval()


def climb(function: nn.Module, starts: Tensor, steps: int = 1000, rate: float = 4e-3, longest: float = 0.02) -> Tensor:
    """Gradient ascent from each start, in steps no longer than `longest`: the paths ``[steps + 1, N, 2]``."""
    places = [starts]
    for _ in range(steps):
        step = rate * gradient(function, places[-1], 1)
        places.append(places[-1] + step * (longest / step.norm(dim=1, keepdim=True).clamp_min(longest)))
    return torch.stack(places)


def panel(function: nn.Module, paths: Tensor | None, points: Tensor, labels: Tensor, levels: int, low: float) -> Tile:
    """A function in the plane, light where it is high, its slopes as arrows; samples, and paths with their ends."""
    x0, x1, y0, y1 = EXTENT
    height = round(WIDTH * (y1 - y0) / (x1 - x0))
    figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(x0, x1), ylim=(y0, y1), xticks=[], yticks=[])
    across, up = torch.meshgrid(torch.linspace(x0, x1, 193), torch.linspace(y0, y1, 81), indexing="xy")
    grid = torch.stack([across.flatten(), up.flatten()], 1)
    values = function(grid).detach().view(across.shape).clamp_min(low).numpy()
    axes.contourf(across, up, values, levels=levels, cmap="gray", vmin=1.6 * values.min() - 0.6 * values.max())
    xs, ys = torch.meshgrid(torch.arange(x0 + 0.3, x1, 0.6), torch.arange(y0 + 0.25, y1, 0.5), indexing="xy")
    feet = torch.stack([xs.flatten(), ys.flatten()], 1)
    slope = F.normalize(gradient(function, feet, 1)).numpy()
    axes.quiver(*feet.T.numpy(), *slope.T, color="black", scale=26, width=0.0035, alpha=0.55, pivot="mid")
    colors = class_colors(2) / 255
    axes.scatter(*points[:400].T.numpy(), c=colors[labels[:400].numpy()], s=12, linewidths=0)
    if paths is not None:
        for path in paths.unbind(1):
            axes.plot(*path.T.numpy(), color="black", linewidth=2)
        beyond = paths.clamp(torch.tensor([x0, y0]) + 0.12, torch.tensor([x1, y1]) - 0.12)  # ends out of view: rim
        inside = ((paths[-1] > torch.tensor([x0, y0])) & (paths[-1] < torch.tensor([x1, y1]))).all(1)
        first_out = (paths != beyond).any(2).float().argmax(0)
        ends = torch.where(inside[:, None], paths[-1], beyond[first_out, torch.arange(paths.shape[1])])
        axes.scatter(*paths[0].T.numpy(), c="white", s=45, edgecolors="black", linewidths=1.5, zorder=3)
        axes.scatter(*ends.T.numpy(), c="#FFD400", s=260, marker="*", edgecolors="black", linewidths=1.2, zorder=4)
    canvas.draw()
    return Tile((WIDTH, height), np.asarray(canvas.buffer_rgba())[..., :3].copy())


def page(score: Score, density: LogDensity, points: Tensor, labels: Tensor, starts: Tensor) -> Page:
    """The three panels, and of how many climbs the end is where samples are."""
    both = Sum(score, density)
    usual = density(points).detach().quantile(RARE)
    free, bound = climb(score, starts), climb(both, starts)
    inside = [int((density(paths[-1]) >= usual).sum()) for paths in (free, bound)]
    count = len(starts)
    titles = [
        f"f, the score of class 1: {inside[0]} of {count} climbs end where samples are",
        "p, the density of the samples, and the slopes of −h = log p",
        f"f − h: {inside[1]} of {count} climbs end where samples are",
    ]
    low = float(usual) - 30
    panels = [
        panel(score, free, points, labels, 20, -1e9),
        panel(density, None, points, labels, 20, low),
        panel(both, bound, points, labels, 20, low),
    ]
    parts = [VStack([Text([title], WIDTH), drawn], gap=2) for title, drawn in zip(titles, panels, strict=True)]
    key = ClassKey(["class 0", "class 1"], class_colors(2))
    print(f"climbs that end where samples are: f {inside[0]} of {count}, f - h {inside[1]} of {count}")
    print(f"median log p at the ends: f {density(free[-1]).median():.1f}, f - h {density(bound[-1]).median():.1f}")
    return compose(
        "prior/plane",
        "Why a prior makes dreams natural",
        VStack([*parts, key], gap=10),
        (
            "lighter: higher",
            "arrows: uphill",
            "line: a climb from its circle to its star, at the rim if it ends out of view",
        ),
        "The score of a class keeps rising away from all samples, so an input that maximizes it is none of them. With "
        "h = −log p as a prior, every climb ends among samples, from wherever it starts.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/prior", help="folder for the picture and TensorBoard's files")
    parser.add_argument("--steps", type=int, default=300, help="of training")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    points, labels = samples(2000)
    score, density = train(points, labels, options.steps), fit_density(points[:1000], points[1000:])
    x0, x1, y0, y1 = EXTENT
    anywhere = torch.tensor([x0, y0]) + torch.tensor([x1 - x0, y1 - y0]) * torch.rand(6, 2)
    starts = torch.cat([points[1000:1006], 0.9 * anywhere])
    picture = lay_out(page(score, density, points[1000:], labels[1000:], starts))
    with SummaryWriter(options.out) as writer:
        for place in (FolderWriter(Path(options.out)), TensorBoardWriter(writer)):
            place.picture(picture, 0)
    print(f"The picture is in {options.out}.")


if __name__ == "__main__":
    main()
