"""Transfer attack: adversarial examples of a surrogate model, evaluated on another."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_viz.adversarial.attack_arguments import Labels, shared_arguments
from lightning_viz.adversarial.attacked_model import attacked_model
from lightning_viz.adversarial.result import Attack, AttackRecorder, AttackResult
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace

__all__ = ["transfer"]

_REMEDY = "the attack on the surrogate did not change them; the surrogate may misclassify them already"


@shared_arguments()
def transfer(  # noqa: D417 (others: `shared_arguments`)
    model: nn.Module,
    inputs: Tensor,
    labels: Labels | None = None,
    *,
    surrogate: nn.Module,
    attack: Attack,
    target: Labels | int | None = None,
    pixel_space: PixelSpace | None = None,
    surrogate_pixel_space: PixelSpace | None = None,
    batch_size: int | None = None,
    forward: Forward | None = None,
) -> AttackResult:
    """Transfer attack: adversarial examples of a surrogate, evaluated on the model (Papernot et al., 2016).

    The attack runs on the surrogate; the model evaluates each sample before and after it. Samples that the model
    misclassifies already stay unchanged. An attack that stops as soon as the surrogate is fooled transfers less than
    one that goes on: ``partial(pgd, stop_on_success=False)``. Transfer was first seen by Szegedy et al. (2014).

    >>> import torch
    >>> from functools import partial
    >>> from lightning_viz.adversarial import pgd
    >>> surrogate, model = (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval() for _ in range(2))
    >>> attack = partial(pgd, epsilon=0.3, stop_on_success=False, progress=False)
    >>> transfer(model, torch.rand(5, 1, 2, 2), surrogate=surrogate, attack=attack).queries.amax().item()
    2

    Args:
        surrogate: a classifier of the same classes.
        attack: called as ``attack(surrogate, inputs, labels, target=..., pixel_space=...)``, with inputs as the
            surrogate takes them.
        pixel_space: maps the model's inputs to pixels; inputs are pixels in [0, 1] if omitted.
        surrogate_pixel_space: maps the surrogate's inputs to pixels; `pixel_space` if omitted.
        batch_size: samples per forward pass of the model; N if omitted.

    Returns:
        The result on the model, with the attack's bound. Passes through the surrogate are not counted.

    Raises:
        InvalidArgumentError: pixel spaces of different bounds, or an invalid argument of `attacked_model`.
    """
    pixel_space = pixel_space or PixelSpace()
    surrogate_space = surrogate_pixel_space or pixel_space
    if surrogate_space.bounds != pixel_space.bounds:
        raise InvalidArgumentError(
            f"the model's pixels lie in {pixel_space.bounds}, the surrogate's in {surrogate_space.bounds}; pass pixel "
            "spaces with the same bounds"
        )
    with attacked_model(
        model, inputs, labels, target=target, pixel_space=pixel_space, batch_size=batch_size, forward=forward
    ) as attacked:
        scores = attacked.evaluate_originals().scores
        options = {} if attacked.target is None else {"target": attacked.target}  # not every attack has a target
        surrogate_inputs = surrogate_space.to_inputs(attacked.pixels)
        result = attack(surrogate, surrogate_inputs, attacked.labels, pixel_space=surrogate_space, **options)
        pixels = result.pixels.to(attacked.pixels).reshape(-1, *attacked.pixels.shape[1:])
        copies = len(pixels) // len(attacked.pixels) if result.pixels.dim() > attacked.pixels.dim() else None
        epsilon = None if result.epsilon is None else result.epsilon.to(attacked.pixels)
        recorder = AttackRecorder(attacked, epsilon, copies=copies)
        recorder.record_originals(scores)
        rows = (~recorder.fooled).nonzero().flatten()
        if len(rows):
            recorder.record(rows, pixels[rows], attacked(pixels[rows]).scores)
            recorder.count(rows)
        recorder.finish_step()
        return recorder.result("transfer", _REMEDY)
