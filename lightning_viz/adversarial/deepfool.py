"""DeepFool: to the nearest boundary between classes, as if the model were linear."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from lightning_viz.adversarial.attacked_model import Answer, AttackedModel, Classes, attacked_model
from lightning_viz.adversarial.norms import SMALLEST, Norm, NormName, resolve_norm, spread
from lightning_viz.adversarial.result import AttackRecorder, AttackResult
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["deepfool"]

_BEYOND = 1e-4  # pixels: how far every step goes past the boundary, that it may end


_NO_WAY = "no other class gains where they are. Try pgd with a random start, or an attack without gradients"


def deepfool(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    norm: Norm | NormName = "l2",
    steps: int = 50,
    candidates: int = 10,
    overshoot: float = 0.02,
    pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AttackResult:
    r"""The nearest boundary, as if the model were linear, again and again (Moosavi-Dezfooli et al., 2016).

    Every step takes the shortest way to where another class k would overtake the label y,

    .. math:: r = \frac{|z_k - z_y|}{\lVert g_k \rVert_*} \, n(g_k), \qquad g_k = \nabla_x (z_k - z_y), \qquad
        k = \arg\min_j \frac{|z_j - z_y|}{\lVert g_j \rVert_*}

    with n the steepest way of length 1 in the norm, and the dual norm the slope along it; then

    .. math:: x_i = x_0 + (1 + \eta) \sum_{j \le i} r_j

    within the pixels' bounds. A sample is done, and leaves the batch, when it is fooled.

    Args:
        model: any classifier; it runs in eval mode and is left as found.
        inputs: as the model takes them, ``[N, ...]``.
        labels: the classes to lead away from, ``[N]``; what the model says of the samples if omitted.
        norm: in which perturbations are to be small, ``"l2"`` or ``"linf"``.
        steps: at most (50, the paper's), each of one forward and ``candidates - 1`` backwards.
        candidates: classes in question, the label and the best others at the start (10, the paper's).
        overshoot: eta, by which share perturbations go past the boundary (0.02, the paper's).
        pixel_space: how the inputs map to pixels; they are pixels in [0, 1] if omitted.
        batch_size: samples shown at a time; all if omitted.
        progress: show a bar when it takes long.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Raises:
        ValueError: inputs, classes or options that make no sense (see `attacked_model`).
    """
    if steps < 1 or candidates < 2 or not overshoot >= 0:
        what = f"steps={steps}, candidates={candidates}, overshoot={overshoot}"
        raise InvalidArgumentError(f"{what}: give 1 step or more, 2 classes or more, and 0 or a positive share")
    with attacked_model(
        model, inputs, labels, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as under_attack:
        trail, fold = AttackRecorder(under_attack), partial(nearest, norm=resolve_norm(norm))

        def first(scores: Tensor, places: Tensor) -> Tensor | None:
            return _leads(under_attack, scores, places, _rivals(under_attack, scores, places, candidates))

        answer, rows = under_attack.begin(first, fold), trail.samples
        rivals = _rivals(under_attack, answer.scores, rows, candidates)
        _write(trail, rows, trail.pixels.clone(), answer, rivals.shape[1])
        total = torch.zeros_like(trail.pixels)
        for number in progress_bar("deepfool", items=range(steps), shown=progress):
            left = ~trail.fooled[rows]
            if answer.gradients is None or not bool(left.any()):
                break
            rows, way = rows[left], answer.gradients[left]
            total[rows] += way
            pixels = (trail.original[rows] + (1 + overshoot) * total[rows]).clamp(*under_attack.pixel_space.bounds)

            def asked(scores: Tensor, places: Tensor, rows: Tensor = rows) -> Tensor | None:
                return _leads(under_attack, scores, rows[places], rivals[rows[places]])

            goes_on = number + 1 < steps
            answer = under_attack(pixels, asked if goes_on else None, fold)
            _write(trail, rows, pixels, answer, rivals.shape[1] if goes_on else 0)
        return trail.attacked(name="deepfool", unmoved=_NO_WAY)


def nearest(leads: Tensor, gradients: Tensor, *, norm: Norm) -> Tensor:
    """The shortest way to where one of several linear functions is zero, and a little beyond, ``[n, ...]``.

    Args:
        leads: the functions' values, ``[T, n]``.
        gradients: of them, ``[T, n, ...]``; there is no way where all are zero.
        norm: in which it is short.
    """
    ways = norm.normalize(gradients.flatten(0, 1)).view_as(gradients)
    slopes = (gradients * ways).flatten(2).sum(2)
    distances = (leads.abs() / slopes.clamp_min(SMALLEST)).nan_to_num(nan=0)  # where the model says NaN no way leads
    shortest, which = distances.min(0)
    ways = ways[which, torch.arange(len(which), device=which.device)]
    return spread(shortest + _BEYOND, ways) * ways


def _rivals(under_attack: AttackedModel, scores: Tensor, samples: Tensor, candidates: int) -> Tensor:
    """The best classes beside the label, ``[n, T]``."""
    others = scores.detach().scatter(1, under_attack.labels[samples, None], -torch.inf)
    return others.topk(min(candidates, scores.shape[1]) - 1).indices


def _leads(under_attack: AttackedModel, scores: Tensor, samples: Tensor, rivals: Tensor) -> Tensor | None:
    """By how much the rivals are ahead of the label, ``[T, n]``; nothing of samples that are done."""
    done = under_attack.fooled(scores, samples)
    if bool(done.all()):
        return None
    leads = scores.gather(1, rivals) - scores.gather(1, under_attack.labels[samples, None])
    return leads.masked_fill(done[:, None], 0).T


def _write(trail: AttackRecorder, rows: Tensor, pixels: Tensor, answer: Answer, backwards: int) -> None:
    trail.see(rows, pixels, answer.scores)
    trail.asked(rows)
    trail.asked(rows[~trail.fooled[rows]], queries=0, backwards=backwards)
    trail.step()
