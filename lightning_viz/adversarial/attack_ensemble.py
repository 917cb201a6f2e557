"""AutoAttack: the standard ensemble of attacks without parameters, each on what those before it left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_viz.adversarial.apgd import adaptive_steps
from lightning_viz.adversarial.attack_arguments import Epsilon, Labels, shared_arguments
from lightning_viz.adversarial.attacked_model import attacked_model
from lightning_viz.adversarial.fast_adaptive_boundary import boundary_steps
from lightning_viz.adversarial.gradient_attacks import Ascent, check_steps
from lightning_viz.adversarial.norms import L2, LINF, Norm, NormName, cross_entropy, dlr, margin, resolve_norm
from lightning_viz.adversarial.result import AttackRecorder, AttackResult
from lightning_viz.adversarial.square_attack import square_steps
from lightning_viz.errors import AttackWarning, InvalidArgumentError, warn_user
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["AutoAttackResult", "auto_attack"]

_SHARE = 0.8  # of the image that the first squares cover
_REMEDY = "the gradient vanishes there, so that only the Square attack counts for them"

_Component = Callable[[], Iterator[Tensor]]  # the steps of one attack, and after each the rows that are left


@dataclass(frozen=True)
class AutoAttackResult(AttackResult):
    """The result of AutoAttack, whose record has a step for each component rather than for each pass.

    Attributes:
        components: names of the attacks that ran, in order; step 1 of the record is after the first.
        left_out: those that model or inputs do not allow, with the reason.
    """

    components: tuple[str, ...]
    left_out: Mapping[str, str]

    @property
    def fooled_by(self) -> dict[str, Tensor]:
        """Number of samples that fell to each component and to none before, a scalar or ``[E]``."""
        first = self.first_success_step
        return {name: (first == step).sum(-1) for step, name in enumerate(self.components, 1)}


@shared_arguments()
def auto_attack(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Any,
    labels: Labels | None = None,
    *,
    epsilon: Epsilon = 8 / 255,
    norm: Norm | NormName = "linf",
    steps: int = 100,
    targets: int = 9,
    queries: int = 5000,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
) -> AutoAttackResult:
    """AutoAttack: APGD-CE, targeted APGD-DLR, targeted FAB and Square, each on what is left (Croce and Hein, 2020).

    The standard version, as published. A sample leaves as soon as it is misclassified, as whatever class; the targeted
    attacks lead to one class after the other, those with the highest scores beside the label, which are at most as many
    as there are other classes. The accuracy that is left (``result.accuracy``) is the robust accuracy by which defenses
    are ranked. Of fewer than four classes APGD-DLR is left out, and of inputs that are no images Square; a warning and
    the result say so.

    A sample that no component fools costs up to 1,900 forwards and backwards, 900 forwards more, and 5,000 of Square.

    Args:
        epsilon: radius of the ball, in pixels (8/255, usual for photographs in L-inf); several give ``[E, ...]``.
        norm: of the ball, ``"linf"`` or ``"l2"``.
        steps: of APGD, and of APGD and FAB for each target (100, as published).
        targets: number of target classes (9, as published).
        queries: of Square (5,000, as published).
        seed: of random starts, of the squares, and of what the model itself draws.
    """
    check_steps(steps)
    if targets < 1 or queries < 1:
        raise InvalidArgumentError(f"targets={targets}, queries={queries}: pass at least 1 of each")
    norm = resolve_norm(norm)
    if norm not in (LINF, L2):
        raise InvalidArgumentError(f"norm={norm.name} is not supported by auto_attack; pass {LINF.name} or {L2.name}")
    with attacked_model(
        model, inputs, labels, pixel_space=pixel_space, batch_size=batch_size, seed=seed, forward=forward
    ) as attacked:
        recorder = RunRecorder.in_balls(attacked, epsilon, norm)
        scores = attacked.evaluate_originals().scores
        recorder.record_originals(scores)
        recorder.finish_run()
        rivals = attacked.rivals(scores, recorder.samples[: len(scores)], targets)[recorder.samples]
        left_out = _left_out(scores.shape[1], attacked.pixels)
        ensemble = _components(recorder, rivals.T, norm, steps, queries, seed)
        components = {name: run for name, run in ensemble.items() if name not in left_out}
        bar = progress_bar("auto_attack", shown=progress, total=(1 + 2 * rivals.shape[1]) * steps + queries)
        for run in components.values():
            for _ in run():
                bar.update()
            recorder.finish_run()
        bar.close()
        if left_out:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            warn_user(f"auto_attack leaves out {reasons}", AttackWarning)
        result = recorder.result("auto_attack", _REMEDY)
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return AutoAttackResult(**values, components=tuple(components), left_out=left_out)


class RunRecorder(AttackRecorder):
    """Records several attacks on the same rows, of which each is one step of the trace."""

    def finish_step(self) -> None:
        """Keep nothing: thousands of passes are not of interest one by one."""

    def finish_run(self) -> None:
        """Append the current values of all rows to the trace."""
        super().finish_step()


def _components(
    recorder: AttackRecorder, rivals: Tensor, norm: Norm, steps: int, queries: int, seed: int
) -> dict[str, _Component]:
    """The attacks in order, by name; `rivals` are the target classes ``[T, R]`` of every row."""

    def rows() -> Tensor:
        return recorder.rows[~recorder.fooled & (recorder.radii > 0)]

    def random(seed: int) -> torch.Generator:
        generator = torch.Generator(recorder.pixels.device)
        generator.manual_seed(seed)
        return generator

    def targeted_ascent() -> Iterator[Tensor]:
        for number, toward in enumerate(rivals):
            start = random(int(np.random.SeedSequence((seed, number)).generate_state(1)[0]))
            yield from adaptive_steps(Ascent(recorder, dlr, toward=toward), rows(), norm, steps, start)

    def targeted_boundary() -> Iterator[Tensor]:
        shortest = recorder.radii.clone()
        for toward in rivals:
            yield from boundary_steps(recorder, rows(), toward, norm, steps, shortest)

    return {
        "APGD-CE": lambda: adaptive_steps(Ascent(recorder, cross_entropy), rows(), norm, steps, random(seed)),
        "APGD-DLR": targeted_ascent,
        "FAB": targeted_boundary,
        "Square": lambda: square_steps(recorder, rows(), norm, queries, _SHARE, loss=margin, seed=seed),
    }


def _left_out(classes: int, pixels: Tensor) -> dict[str, str]:
    """The attacks that do not apply, with the reason."""
    reasons = {}
    if classes < 4:
        reasons["APGD-DLR"] = f"its targeted form needs four classes, the model has {classes}"
    if pixels.dim() != 4:
        reasons["Square"] = f"it needs images [N, C, H, W], the inputs are {list(pixels.shape)}"
    return reasons
