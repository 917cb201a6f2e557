"""Adversarial examples of one model, shown to another."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_viz.adversarial.attacked_model import Classes, attacked_model
from lightning_viz.adversarial.result import Attack, AttackRecorder, AttackResult
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["transfer"]


def transfer(
    model: nn.Module,
    inputs: Tensor,
    labels: Classes | None = None,
    *,
    surrogate: nn.Module,
    attack: Attack,
    target: Classes | int | None = None,
    pixel_space: PixelSpace | None = None,
    surrogate_pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    forward: Forward | None = None,
) -> AttackResult:
    """What fools one model may fool another, of which nothing is known (Szegedy et al., 2014; Papernot et al., 2016).

    A surrogate is attacked, and the model sees each sample twice: as it is, and as the attack left it. Samples that the
    model has wrong already are left alone. An attack that ends where the surrogate is just fooled transfers less than
    one that goes on: ``partial(pgd, stop_on_success=False)``.

    >>> import torch
    >>> from functools import partial
    >>> from lightning_viz.adversarial import pgd
    >>> mine, theirs = (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2))
    >>> attack = partial(pgd, epsilon=0.3, stop_on_success=False, progress=False)
    >>> transfer(theirs.eval(), torch.rand(5, 1, 2, 2), surrogate=mine.eval(), attack=attack).queries.amax().item()
    2

    Args:
        model: any classifier; it runs in eval mode and is left as found.
        inputs: as the model takes them, ``[N, ...]``.
        labels: the classes to lead away from, ``[N]``; what the model says of the samples if omitted.
        surrogate: a classifier of the same classes.
        attack: called as ``attack(surrogate, inputs, labels, target=..., pixel_space=...)``, with inputs as the
            surrogate takes them.
        target: classes to lead to, one for all or ``[N]``; any wrong one if omitted.
        pixel_space: how the model's inputs map to pixels; they are pixels in [0, 1] if omitted.
        surrogate_pixel_space: how the surrogate's do; as the model's if omitted.
        batch_size: samples shown to the model at a time; N if omitted.
        forward: how to run the model, ``forward(model, inputs)``, if not ``model(inputs)``.

    Returns:
        What the model made of them; the bound is the attack's. What the attack asked of the surrogate is not counted.

    Raises:
        ValueError: two spaces of different bounds, or what `attacked_model` refuses.
    """
    pixel_space = pixel_space or PixelSpace()
    other = surrogate_pixel_space or pixel_space
    if other.bounds != pixel_space.bounds:
        raise InvalidArgumentError(
            f"the model's pixels lie in {pixel_space.bounds}, the surrogate's in {other.bounds}: make them alike"
        )
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as under_attack:
        scores = under_attack.begin().scores
        asked = {} if under_attack.target is None else {"target": under_attack.target}  # which not every attack takes
        found = attack(surrogate, other.to_inputs(under_attack.pixels), under_attack.labels, pixel_space=other, **asked)
        count = len(under_attack.pixels)
        moved = found.pixels.to(under_attack.pixels).reshape(-1, *under_attack.pixels.shape[1:])
        trail = AttackRecorder(under_attack, len(moved) // count)
        trail.begin(scores)
        left = (~trail.fooled).nonzero().flatten()
        if len(left):
            trail.see(left, moved[left], under_attack(moved[left]).scores)
            trail.asked(left)
        trail.step()
        epsilon = None if found.epsilon is None else found.epsilon.to(under_attack.pixels)
        return trail.attacked(
            epsilon,
            name="transfer",
            lead=found.pixels.dim() > under_attack.pixels.dim(),
            unmoved="the attack left them as they are, where the surrogate has them wrong already or nothing leads up",
        )
