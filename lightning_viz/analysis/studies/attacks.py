"""How little changes a model's mind: adversarial twins, and the record of a way to them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from lightning_viz.adversarial.deepfool import deepfool
from lightning_viz.adversarial.gradient_attacks import fgsm, gradient_ascent, pgd
from lightning_viz.adversarial.norms import L2
from lightning_viz.adversarial.result import Attack, AttackResult
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.studies.samples import Taken, batch_size, number, taken
from lightning_viz.analysis.technique import Found
from lightning_viz.errors import AttackWarning
from lightning_viz.render.attacks import record_table, twins
from lightning_viz.render.page import Page
from lightning_viz.render.text import percent
from lightning_viz.render.tiles import describe_channels, to_rgb

SAMPLES = 8
GRAY_LEVELS = (8, 16, 32, 64)
"""Epsilon of FGSM and PGD, of 255: the first, usual for photographs, or the least at which PGD turns half of them."""

_STEPS = 20
_ASCENT = 100  # steps at most of the ascent that is recorded


def attacks(subject: ModelUnderStudy) -> Iterator[Found]:
    """The same samples under each attack, and a record of the ascent (tags ``attacks/<name>``, ``attacks/record``).

    They lead away from what the model says of a sample, right or wrong. Epsilon is doubled from 8 gray levels until
    PGD turns half of the samples.

    Args:
        subject: with a classifier of images within the range of pixels.
    """
    few = taken(subject, SAMPLES, within=True)
    levels, turned = _turning(subject, few)
    epsilon = _epsilon(subject, levels)
    found = {
        "fgsm": run(subject, few, partial(fgsm, epsilon=epsilon)),
        "pgd": turned,
        "deepfool": run(subject, few, partial(deepfool, progress=False)),
    }
    titles = {"fgsm": f"FGSM, ε {levels}/255", "pgd": f"PGD, ε {levels}/255", "deepfool": "DeepFool, L2"}
    for name, attacked in found.items():
        yield twin_page(subject, attacked, f"attacks/{name}", titles[name])
    ascent = partial(gradient_ascent, normalize=L2, lr=_stride(found["deepfool"]), steps=_ASCENT, progress=False)
    found["ascent"] = run(subject, few, ascent)
    yield record_page(
        subject,
        found["ascent"],
        "attacks/record",
        "gradient ascent in equal steps",
        ["label: what the network says at first"],
    )
    bounds = {"fgsm": epsilon, "pgd": epsilon}
    yield "attacks", {name: {**told(one), "epsilon": bounds.get(name)} for name, one in found.items()}


def run(subject: ModelUnderStudy, few: Taken, attack: Attack) -> AttackResult:
    """An attack that leads away from what the model says.

    Args:
        subject: with the model.
        few: the samples.
        attack: with its options.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)  # the picture says it
        size = batch_size(few.images)
        return attack(subject.model, few.images, few.said, pixel_space=subject.pixel_space, batch_size=size)


def told(attacked: AttackResult) -> dict[str, float | None]:
    """An attack's numbers: the share of samples that it turned, and of those the median of what that took.

    Args:
        attacked: the samples.
    """
    turned, last = attacked.fooled & ~attacked.initially_misclassified, attacked.record
    lengths = {"relative": last.relative, "l2": last.l2, "linf": last.linf}
    medians = {
        name: number(each[-1][turned].median()) if bool(turned.any()) else None for name, each in lengths.items()
    }
    return {"success": number(attacked.success), **medians}


def _turning(subject: ModelUnderStudy, few: Taken) -> tuple[int, AttackResult]:
    """PGD at the least epsilon, in gray levels, that turns half of the samples; else at the largest."""
    for levels in GRAY_LEVELS:
        epsilon = _epsilon(subject, levels)
        attack = partial(pgd, epsilon=epsilon, steps=_STEPS, seed=subject.seed, progress=False)
        attacked = run(subject, few, attack)
        if attacked.success >= 0.5:
            break
    return levels, attacked


def twin_page(subject: ModelUnderStudy, attacked: AttackResult, tag: str, title: str) -> Page:
    """Samples, their twins, and the differences.

    Args:
        subject: whose first samples were attacked.
        attacked: what was made of them.
        tag: of the picture.
        title: the attack's name and how far it went.
    """
    (low, high), record = attacked.pixel_space.bounds, attacked.record
    truths = None if subject.labels is None else subject.labels[: len(attacked.labels)]
    channels = describe_channels(attacked.original.shape[1])
    return twins(
        tag,
        shown(attacked.original, attacked),
        shown(attacked.pixels, attacked),
        (attacked.perturbations / (high - low)).float().cpu().numpy(),
        before=subject.verdicts(truths, record.classes[0], record.confidences[0]),
        after=subject.verdicts(truths, record.classes[-1], record.confidences[-1]),
        norms=[f"{percent(one, 1)} %" for one in record.relative[-1].tolist()],
        attack=title,
        norm="its L2 norm, of the image's",
        step=subject.step,
        notes=[f"images: {channels}"] if channels else [],
    )


def record_page(
    subject: ModelUnderStudy, attacked: AttackResult, tag: str, title: str, details: Sequence[str] = ()
) -> Page:
    """What the model says after each step.

    Args:
        subject: whose first samples were attacked.
        attacked: what was made of them.
        tag: of the picture.
        title: the attack's name.
        details: further facts for the caption.
    """
    steps, names = attacked.record, subject.samples.class_names
    classes = steps.classes.cpu().numpy()
    return record_table(
        tag,
        shown(attacked.original, attacked),
        classes,
        steps.confidences.cpu().numpy(),
        attacked.labels.cpu().numpy(),
        names=names if len(names) > classes.max() else None,
        relative=steps.relative.cpu().numpy(),
        attack=title,
        details=details,
    )


def shown(pixels: Tensor, attacked: AttackResult) -> Any:
    """Pixels as a page takes them, ``[N, H, W, 3]``.

    Args:
        pixels: of samples or of their twins, ``[N, C, H, W]``.
        attacked: in whose space they are.
    """
    low, high = attacked.pixel_space.bounds
    return to_rgb(((pixels - low) / (high - low)).float().cpu().numpy())


def _epsilon(subject: ModelUnderStudy, levels: int) -> float:
    low, high = subject.pixel_space.bounds
    return levels / 255 * (high - low)


def _stride(attacked: AttackResult) -> float:
    """A fifth of the way that DeepFool found, in the median: the ascent takes some steps for it, not hundreds."""
    lengths = attacked.record.l2[-1]
    moved = lengths[lengths > 0]
    return float(moved.median()) / 5 if len(moved) else 0.1
