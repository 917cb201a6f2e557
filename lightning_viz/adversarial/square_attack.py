"""Squares at random, kept where they help: no gradient, only scores (Andriushchenko et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attacked_model import (
    AttackedModel,
    Classes,
    Epsilons,
    attacked_model,
    check_images,
    radii_of,
)
from lightning_viz.adversarial.norms import (
    L2,
    LINF,
    SMALLEST,
    Loss,
    LossName,
    Norm,
    NormName,
    resolve_loss,
    resolve_norm,
    spread,
)
from lightning_viz.adversarial.result import AttackRecorder, AttackResult
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["square"]

_HALVED_AT = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # of the queries: where squares halve in area

_Uniform = Callable[[int], Tensor]  # from a count to numbers in [0, 1) for each row, [n, count]
_Start = Callable[[Tensor, Tensor, _Uniform], Tensor]  # from samples, radii and chance to perturbations
_Propose = Callable[[Tensor, Tensor, float, _Uniform], Tensor]  # from perturbations, radii, share and chance likewise


_NO_SQUARE = "no square that was tried raises the loss. Give more queries, or a larger epsilon"


def square(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    epsilon: Epsilons = 8 / 255,
    norm: Norm | NormName = "linf",
    queries: int = 5000,
    share: float = 0.8,
    target: Classes | int | None = None,
    loss: Loss | LossName | None = None,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""Random search with squares (Andriushchenko et al., 2020).

    .. math:: x_{k+1} = \begin{cases} x' & L(x') > L(x_k) \\ x_k & \text{else} \end{cases}, \qquad
        L = \max_{j \ne y} z_j - z_y

    where x' is :math:`x_k` with a square at a random place moved to the ball's surface: in L-inf every channel of it by
    plus or minus epsilon; in L2 a bump and its negative, which take over the length that a second square gives up. The
    first x' has vertical stripes (L2: a grid of bumps). Squares begin with a share p of the image and halve in area at
    0.1, 0.5, 2, 5, 10, 20, 40, 60 and 80 % of the queries. A sample is done as soon as the model is fooled.

    No gradient is asked for: the model may be anything that returns scores. The record has a step for each query.

    Args:
        model: any classifier; it runs in eval mode and is left as found.
        inputs: images as the model takes them, ``[N, C, H, W]``.
        labels: the classes to lead away from, ``[N]``; what the model says of the samples if omitted.
        epsilon: radius of the ball, in pixels (8/255, the usual one for photographs); for several, results lead with E.
        norm: in which the ball is measured, ``"linf"`` or ``"l2"``.
        queries: how often a changed sample is shown to the model, at most (5000, the usual number).
        share: p (0.8, AutoAttack's; the paper has 0.05 for photographs).
        target: classes to lead to, one for all or ``[N]``; any wrong one if omitted.
        loss: L, what is raised; the `margin`, and towards a target the cross entropy, if omitted (the paper's).
        pixel_space: how the inputs map to pixels; they are pixels in [0, 1] if omitted.
        seed: of the squares; those of a sample depend on it and on the sample's place among the inputs.
        batch_size: samples shown at a time; N if omitted.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: inputs that are no images, options that make no sense, or what `attacked_model` refuses.
    """
    check_images(inputs, "square")
    if queries < 1 or not 0 < share <= 1:
        raise InvalidArgumentError(
            f"queries={queries}, share={share}: give 1 query or more, and a share above 0, 1 at most"
        )
    norm = resolve_norm(norm)
    if norm not in _WAYS:
        raise InvalidArgumentError(f"norm={norm.name}: squares are known in {LINF.name} and {L2.name}")
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as under_attack:
        radii, asked = radii_of(epsilon, under_attack.pixels, under_attack.pixel_space.bounds, norm)
        raised = resolve_loss(loss or ("margin" if target is None else "cross_entropy"))
        trail = _search(under_attack, radii, norm, raised, queries, share, seed, progress)
        return trail.attacked(asked, name="square", lead=asked.dim() > 0, unmoved=_NO_SQUARE)


def _search(
    under_attack: AttackedModel,
    radii: Tensor,
    norm: Norm,
    loss: Loss,
    queries: int,
    share: float,
    seed: int,
    progress: bool,
) -> AttackRecorder:
    """Query by query, of the rows that are not done."""
    trail, (start, propose) = AttackRecorder(under_attack, len(radii) // len(under_attack.pixels)), _WAYS[norm]
    trail.begin(under_attack.begin().scores)
    chances = [np.random.default_rng((seed, sample)) for sample in trail.samples.tolist()]
    best = torch.full_like(radii, -torch.inf)
    rows = (~trail.fooled & (radii > 0)).nonzero().flatten()
    for number in progress_bar("square", items=range(queries), shown=progress):
        if not len(rows):
            break
        samples, current, epsilon = trail.original[rows], trail.pixels[rows], radii[rows]
        uniform = _uniform([chances[row] for row in rows.tolist()], samples)
        if number == 0:
            moved = start(samples, epsilon, uniform)
        else:
            moved = propose(current - samples, epsilon, _halved(share, number / queries), uniform)
        pixels = (samples + moved).clamp(*under_attack.pixel_space.bounds)
        scores = under_attack(pixels).scores
        values = under_attack.loss(loss, scores, trail.samples[rows]).to(best.dtype)
        better = (values > best[rows]) | under_attack.fooled(scores, trail.samples[rows])
        trail.see(rows[better], pixels[better], scores[better])
        trail.asked(rows)
        trail.step()
        best[rows[better]] = values[better]
        rows = rows[~trail.fooled[rows]]
    return trail


def _stripes(samples: Tensor, epsilon: Tensor, uniform: _Uniform) -> Tensor:
    """Vertical stripes of plus or minus epsilon, one pixel wide, each channel its own."""
    count, channels, _, width = samples.shape
    signs = _signs(uniform(channels * width)).view(count, channels, 1, width)
    return (signs * spread(epsilon, samples)).expand_as(samples)


def _recolored(perturbations: Tensor, epsilon: Tensor, share: float, uniform: _Uniform) -> Tensor:
    """A square, every channel of it moved by plus or minus epsilon."""
    channels, height, width = perturbations.shape[1:]
    side = max(_side(share, height, width), 1)
    chance = uniform(2 + channels)
    inside = _window(chance[:, :2], side, height, width)
    signs = _signs(chance[:, 2:])[..., None, None]
    return torch.where(inside, signs * spread(epsilon, perturbations), perturbations)


def _bumps(samples: Tensor, epsilon: Tensor, uniform: _Uniform) -> Tensor:
    """Bumps side by side, five in a row, of random sign for each channel."""
    count, channels, height, width = samples.shape
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    chance = uniform((1 + channels) * down * across).view(count, 1 + channels, down, 1, across, 1)
    bump = _bump(side, samples)[:, None]  # [side, 1, side]: to go with [down, side, across, side]
    tiles = torch.where(chance[:, :1] < 0.5, bump, bump.transpose(0, 2)) * _signs(chance[:, 1:])
    placed = torch.zeros_like(samples)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    placed[:, :, top : top + down * side, left : left + across * side] = tiles.flatten(4).flatten(2, 3)
    return L2.normalize(placed) * spread(epsilon, samples)


def _moved_bump(perturbations: Tensor, epsilon: Tensor, share: float, uniform: _Uniform) -> Tensor:
    r"""What two windows hold goes into one of them, with a new bump on top.

    .. math:: \nu_{W_1} \leftarrow \sqrt{\lVert \nu_{W_1 \cup W_2} \rVert^2 + (\epsilon^2 - \lVert \nu \rVert^2) / C}
        \; \frac{u}{\lVert u \rVert}, \qquad
        u = \rho \, \eta + \frac{\nu_{W_1}}{\lVert \nu_{W_1} \rVert}, \qquad \nu_{W_2} \leftarrow 0

    channel by channel, and all of it back to length epsilon, of which clamping takes some.
    """
    count, channels, height, width = perturbations.shape
    side = min(max(_side(share, height, width), 3) // 2 * 2 + 1, height, width)
    chance = uniform(5 + channels)
    places, inside = _places(chance[:, :2], side, height, width), _window(chance[:, :2], side, height, width)
    union = inside | _window(chance[:, 2:4], side, height, width)
    unused = (epsilon.square() - L2.length(perturbations).square()).clamp_min(0) / channels
    available = (_lengths(perturbations * union).square() + spread(unused, perturbations)).sqrt()
    bump = _bump(side, perturbations)
    turned = torch.where(chance[:, 4, None, None] < 0.5, bump, bump.T)[:, None]  # [n, 1, side, side]
    at = (torch.arange(count, device=bump.device)[:, None, None], slice(None), *places)  # [n, side, side, C]
    old = perturbations[at].movedim(-1, 1)
    new = _signs(chance[:, 5:])[..., None, None] * turned + old / _lengths(old).clamp_min(SMALLEST)
    moved = perturbations.masked_fill(union, 0)
    moved[at] = (new / _lengths(new).clamp_min(SMALLEST) * available).movedim(1, -1)
    return L2.normalize(moved) * spread(epsilon, moved)


_WAYS: dict[Norm, tuple[_Start, _Propose]] = {LINF: (_stripes, _recolored), L2: (_bumps, _moved_bump)}


def _bump(side: int, like: Tensor) -> Tensor:
    """A hill in one half of a square and a valley in the other, of length 1, ``[side, side]``."""
    bump = torch.cat([_hill(side // 2, side, like), -_hill(side - side // 2, side, like)])
    return bump / bump.square().sum().sqrt()


def _hill(height: int, width: int, like: Tensor) -> Tensor:
    """Steps of 1 / k² that rise to the middle, k rings of pixels from the innermost."""
    rows, columns = (torch.arange(side, device=like.device).sub(side // 2).abs() for side in (height, width))
    ring = torch.maximum(rows[:, None], columns)
    rings: Tensor = torch.arange(1, max(height, width) // 2 + 2, device=like.device).to(like)
    hill: Tensor = rings.pow(-2).flip(0).cumsum(0).flip(0)[ring]
    return hill


def _halved(share: float, spent: float) -> float:
    """The squares' share of the image when a share of the queries is spent."""
    halvings: int = sum(spent > one for one in _HALVED_AT)
    return share * 0.5**halvings


def _side(share: float, height: int, width: int) -> int:
    return min(round(math.sqrt(share * height * width)), height, width)


def _places(chance: Tensor, side: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows ``[n, side, 1]`` and columns ``[n, 1, side]`` of squares, all places within the image alike likely."""
    steps = torch.arange(side, device=chance.device)
    top = (chance[:, 0] * (height - side + 1)).long()
    left = (chance[:, 1] * (width - side + 1)).long()
    return (top[:, None] + steps)[:, :, None], (left[:, None] + steps)[:, None]


def _window(chance: Tensor, side: int, height: int, width: int) -> Tensor:
    """Where those squares are, ``[n, 1, H, W]``."""
    inside = torch.zeros(len(chance), height, width, dtype=torch.bool, device=chance.device)
    every, (rows, columns) = torch.arange(len(chance), device=chance.device), _places(chance, side, height, width)
    inside[every[:, None, None], rows, columns] = True
    return inside[:, None]


def _lengths(windows: Tensor) -> Tensor:
    """Of each channel, ``[n, C, 1, 1]``."""
    lengths: Tensor = torch.linalg.vector_norm(windows, dim=(2, 3), keepdim=True)
    return lengths


def _signs(chance: Tensor) -> Tensor:
    return torch.where(chance < 0.5, -1.0, 1.0)


def _uniform(chances: Sequence[np.random.Generator], like: Tensor) -> _Uniform:
    """Each row draws from its own generator: its squares do not depend on which others are left."""

    def draw(count: int) -> Tensor:
        drawn = np.stack([one.random(count, dtype=np.float32) for one in chances])
        return torch.from_numpy(drawn).to(like)

    return draw
