"""Square attack: random search with squares, on scores alone (Andriushchenko et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Epsilon, Labels, shared_arguments
from lightning_viz.adversarial.attacked_model import attacked_model, require_images
from lightning_viz.adversarial.norms import (
    L2,
    LINF,
    MIN_LENGTH,
    Loss,
    LossName,
    Norm,
    NormName,
    per_sample,
    resolve_loss,
    resolve_norm,
)
from lightning_viz.adversarial.result import AttackRecorder, AttackResult, overwrite_rows
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.host_copies import to_device
from lightning_viz.pixels import PixelSpace

__all__ = ["square"]

_HALVED_AT = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # fractions of the queries

_Uniform = Callable[[int], Tensor]  # from a count to random numbers in [0, 1) for each row, [n, count]
_Start = Callable[[Tensor, Tensor, _Uniform], Tensor]  # from samples and radii to perturbations
_Propose = Callable[[Tensor, Tensor, float, _Uniform], Tensor]  # from perturbations, radii and share to perturbations

_REMEDY = "no proposed square raises the loss; try more queries, or a larger epsilon"


@shared_arguments()
def square(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Tensor,
    labels: Labels | None = None,
    *,
    epsilon: Epsilon = 8 / 255,
    norm: Norm | NormName = "linf",
    queries: int = 5000,
    share: float = 0.8,
    target: Labels | int | None = None,
    loss: Loss | LossName | None = None,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""Square attack: random search with squares, on scores alone (Andriushchenko et al., 2020).

    .. math:: x_{k+1} = \begin{cases} x' & L(x') > L(x_k) \\ x_k & \text{else} \end{cases}, \qquad
        L = \max_{j \ne y} z_j - z_y

    where x' is :math:`x_k` with a square at a random position moved to the surface of the ball: in L-inf each channel
    by plus or minus epsilon; in L2 a bump and its negative, with the length that a second square gives up. The first x'
    has vertical stripes (L2: a grid of bumps). Squares start with a share p of the image and halve in area at 0.1, 0.5,
    2, 5, 10, 20, 40, 60 and 80 % of the queries. A sample leaves the batch as soon as it is fooled.

    Gradients are not needed: the model may be anything that returns scores. The record has a step for each query.

    Args:
        inputs: images as the model takes them, ``[N, C, H, W]``.
        norm: of the ball, ``"linf"`` or ``"l2"``.
        queries: maximum number of perturbed images per sample (5,000, as in AutoAttack).
        share: p (0.8, as in AutoAttack; the paper has 0.05 for photographs).
        loss: L, maximized; ``"margin"`` if omitted, ``"cross_entropy"`` with a target (as in the paper).
        seed: of the squares; those of a sample also depend on its position among the inputs.

    Raises:
        InvalidArgumentError: inputs that are no images, or an invalid option (see `attacked_model`).
    """
    require_images(inputs, "square")
    if queries < 1 or not 0 < share <= 1:
        raise InvalidArgumentError(f"queries={queries} must be at least 1, share={share} in (0, 1]")
    norm = resolve_norm(norm)
    if norm not in _PROPOSALS:
        raise InvalidArgumentError(f"norm={norm.name} is not supported by square; pass {LINF.name} or {L2.name}")
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as attacked:
        recorder = AttackRecorder.in_balls(attacked, epsilon, norm)
        recorder.record_originals(attacked.evaluate_originals().scores)
        maximized = resolve_loss(loss or ("margin" if target is None else "cross_entropy"))
        rows = (~recorder.fooled & (recorder.radii > 0)).nonzero().flatten()
        bar = progress_bar("square", shown=progress, total=queries)
        for _ in square_steps(recorder, rows, norm, queries, share, loss=maximized, seed=seed):
            bar.update()
        bar.close()
        return recorder.result("square", _REMEDY)


def square_steps(
    recorder: AttackRecorder, rows: Tensor, norm: Norm, queries: int, share: float, *, loss: Loss, seed: int
) -> Iterator[Tensor]:
    """Random search with squares on some rows: after each query those that are left.

    Args:
        recorder: takes what each query finds.
        rows: indices of the samples that are attacked, ``[n]``.
        norm: in which they may move.
        queries: at most.
        share: of the pixels that the first squares cover, 0 to 1.
        loss: what is raised.
        seed: of the search.
    """
    attacked, (start, propose) = recorder.attacked, _PROPOSALS[norm]
    generators = [np.random.default_rng((seed, sample)) for sample in recorder.samples[rows].tolist()]
    best = torch.full_like(recorder.radii, -torch.inf)
    for number in range(queries):
        if not len(rows):
            break
        samples, current, radii = recorder.original[rows], recorder.pixels[rows], recorder.radii[rows]
        uniform = _uniform(generators, samples)
        if number == 0:
            perturbations = start(samples, radii, uniform)
        else:
            perturbations = propose(current - samples, radii, _halved(share, number / queries), uniform)
        pixels = (samples + perturbations).clamp(*attacked.pixel_space.bounds)
        scores = attacked(pixels, samples=recorder.samples[rows]).scores
        values = attacked.loss(loss, scores, recorder.samples[rows]).to(best.dtype)
        better = (values > best[rows]) | attacked.fooled(scores, recorder.samples[rows])
        recorder.record(rows, pixels, scores, better)
        recorder.count(rows)
        recorder.finish_step()
        overwrite_rows(best, rows, values, better)
        left = [place for place, fooled in enumerate(recorder.fooled[rows].tolist()) if not fooled]  # waits, to stop
        if len(left) < len(rows):
            generators = [generators[place] for place in left]
            rows = rows[to_device(torch.tensor(left, dtype=torch.long, device="cpu"), rows.device)]
        yield rows


def _stripes(samples: Tensor, epsilon: Tensor, uniform: _Uniform) -> Tensor:
    """Vertical stripes of plus or minus epsilon, one pixel wide, independent in each channel."""
    count, channels, _, width = samples.shape
    signs = _signs(uniform(channels * width)).view(count, channels, 1, width)
    return (signs * per_sample(epsilon, samples)).expand_as(samples)


def _move_square(perturbations: Tensor, epsilon: Tensor, share: float, uniform: _Uniform) -> Tensor:
    """A square in which each channel is moved by plus or minus epsilon."""
    channels, height, width = perturbations.shape[1:]
    side = max(_side(share, height, width), 1)
    randoms = uniform(2 + channels)
    inside = _window(randoms[:, :2], side, height, width)
    signs = _signs(randoms[:, 2:])[..., None, None]
    return torch.where(inside, signs * per_sample(epsilon, perturbations), perturbations)


def _bumps(samples: Tensor, epsilon: Tensor, uniform: _Uniform) -> Tensor:
    """A grid of bumps, five in a row, of random sign in each channel."""
    count, channels, height, width = samples.shape
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    randoms = uniform((1 + channels) * down * across).view(count, 1 + channels, down, 1, across, 1)
    bump = _bump(side, samples)[:, None]  # [side, 1, side]: to go with [down, side, across, side]
    tiles = torch.where(randoms[:, :1] < 0.5, bump, bump.transpose(0, 2)) * _signs(randoms[:, 1:])
    grid = torch.zeros_like(samples)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    grid[:, :, top : top + down * side, left : left + across * side] = tiles.flatten(4).flatten(2, 3)
    return L2.normalize(grid) * per_sample(epsilon, samples)


def _move_bump(perturbations: Tensor, epsilon: Tensor, share: float, uniform: _Uniform) -> Tensor:
    r"""Moves the length of two windows into the first of them, and adds a new bump there.

    .. math:: \nu_{W_1} \leftarrow \sqrt{\lVert \nu_{W_1 \cup W_2} \rVert^2 + (\epsilon^2 - \lVert \nu \rVert^2) / C}
        \; \frac{u}{\lVert u \rVert}, \qquad
        u = \rho \, \eta + \frac{\nu_{W_1}}{\lVert \nu_{W_1} \rVert}, \qquad \nu_{W_2} \leftarrow 0

    in each channel, then rescaled to length epsilon, of which clamping had taken some.
    """
    count, channels, height, width = perturbations.shape
    side = min(max(_side(share, height, width), 3) // 2 * 2 + 1, height, width)
    randoms = uniform(5 + channels)
    corners = randoms[:, :2]
    union = _window(corners, side, height, width) | _window(randoms[:, 2:4], side, height, width)
    unused = (epsilon.square() - L2.length(perturbations).square()).clamp_min(0) / channels
    available = (_lengths(perturbations * union).square() + per_sample(unused, perturbations)).sqrt()
    bump = _bump(side, perturbations)
    turned = torch.where(randoms[:, 4, None, None] < 0.5, bump, bump.T)[:, None]  # [n, 1, side, side]
    rows, columns = _positions(corners, side, height, width)
    window = (torch.arange(count, device=bump.device)[:, None, None], slice(None), rows, columns)  # [n, side, side, C]
    old = perturbations[window].movedim(-1, 1)
    new = _signs(randoms[:, 5:])[..., None, None] * turned + old / _lengths(old).clamp_min(MIN_LENGTH)
    moved = perturbations.masked_fill(union, 0)
    moved[window] = (new / _lengths(new).clamp_min(MIN_LENGTH) * available).movedim(1, -1)
    return L2.normalize(moved) * per_sample(epsilon, moved)


_PROPOSALS: dict[Norm, tuple[_Start, _Propose]] = {LINF: (_stripes, _move_square), L2: (_bumps, _move_bump)}


def _bump(side: int, like: Tensor) -> Tensor:
    """A hill in one half of a square and a valley in the other, of L2 norm 1, ``[side, side]``."""
    bump = torch.cat([_hill(side // 2, side, like), -_hill(side - side // 2, side, like)])
    return bump / bump.square().sum().sqrt()


def _hill(height: int, width: int, like: Tensor) -> Tensor:
    """A hill that rises to the middle by 1 / k² at the k-th ring of pixels from the innermost."""
    rows, columns = (torch.arange(side, device=like.device).sub(side // 2).abs() for side in (height, width))
    ring = torch.maximum(rows[:, None], columns)
    rings: Tensor = torch.arange(1, max(height, width) // 2 + 2, device=like.device).to(like)
    hill: Tensor = rings.pow(-2).flip(0).cumsum(0).flip(0)[ring]
    return hill


def _halved(share: float, spent: float) -> float:
    """Area of the squares, as a share of the image, after a share of the queries."""
    halvings = sum(spent > threshold for threshold in _HALVED_AT)
    return share * 0.5**halvings


def _side(share: float, height: int, width: int) -> int:
    return min(round(math.sqrt(share * height * width)), height, width)


def _positions(corners: Tensor, side: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Rows ``[n, side, 1]`` and columns ``[n, 1, side]`` of squares, uniform in the image for corners in [0, 1)."""
    steps = torch.arange(side, device=corners.device)
    top = (corners[:, 0] * (height - side + 1)).long()
    left = (corners[:, 1] * (width - side + 1)).long()
    return (top[:, None] + steps)[:, :, None], (left[:, None] + steps)[:, None]


def _window(corners: Tensor, side: int, height: int, width: int) -> Tensor:
    """Mask of those squares, ``[n, 1, H, W]``."""
    inside = torch.zeros(len(corners), height, width, dtype=torch.bool, device=corners.device)
    rows, columns = _positions(corners, side, height, width)
    inside[torch.arange(len(corners), device=corners.device)[:, None, None], rows, columns] = True
    return inside[:, None]


def _lengths(windows: Tensor) -> Tensor:
    """L2 norm of each channel, ``[n, C, 1, 1]``."""
    lengths: Tensor = torch.linalg.vector_norm(windows, dim=(2, 3), keepdim=True)
    return lengths


def _signs(randoms: Tensor) -> Tensor:
    return torch.where(randoms < 0.5, -1.0, 1.0)


def _uniform(generators: Sequence[np.random.Generator], like: Tensor) -> _Uniform:
    """Random numbers from one generator per row, so that its squares do not depend on the other rows."""

    def draw(count: int) -> Tensor:
        randoms = np.stack([generator.random(count, dtype=np.float32) for generator in generators])
        return to_device(torch.from_numpy(randoms), like.device, like.dtype)

    return draw
