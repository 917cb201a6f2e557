"""What a model endures: how far its inputs may move, what is around them, and what the world does to images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_viz.adversarial.deepfool import deepfool
from lightning_viz.adversarial.gradient_attacks import pgd
from lightning_viz.adversarial.result import Attack
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.studies.attacks import run
from lightning_viz.analysis.studies.samples import Taken, affordable, batch_size, number, numbers, taken
from lightning_viz.analysis.technique import Found
from lightning_viz.errors import AttackWarning, CorruptionWarning
from lightning_viz.render.corruptions import corruption_sheet, corruption_table
from lightning_viz.render.page import Page
from lightning_viz.render.robustness_curves import defense_bars, epsilon_curves, sphere_plot
from lightning_viz.render.text import number as written
from lightning_viz.robustness.corruption_error import CorruptionError, compare_corruption_error
from lightning_viz.robustness.corruptions.catalogue import all_corruptions
from lightning_viz.robustness.defenses import EpsilonCurve, defenses, epsilon_curve
from lightning_viz.robustness.random_directions import random_directions

FIRST, LAST = 1 / 512, 0.5
"""The least and the largest epsilon, in the pixels' range; each is twice the one before."""

ENOUGH = 0.1  # of accuracy: no larger epsilon is tried
_SMALL = 0.06  # of the pixels' range: epsilons below that are written as gray levels
_STEPS = 10
_PIXELS = 2**19  # of all images that are corrupted: 128 of 64 x 64
_AROUND = 16  # samples on whose spheres points are tried


def epsilons(subject: ModelUnderStudy) -> Iterator[Found]:
    """How far inputs may move (tags ``robustness/epsilon``, ``robustness/sphere``, ``robustness/defenses``).

    Accuracy under PGD within an L-inf epsilon, and what changing the input first would help; the random directions
    around samples, twice as far as DeepFool went.

    Args:
        subject: with a classifier of images within the range of pixels.
    """
    many = taken(subject, affordable(subject, 40 * _STEPS, most=128, least=8), within=True)
    curve = curved(subject, many)
    yield "epsilon", {"epsilons": numbers(curve.epsilons), "accuracy": numbers(curve.accuracy)}
    right = "accuracy" if many.truths is not None else "what it says of the samples itself counts as right"
    low, high = subject.pixel_space.bounds
    yield epsilon_curves(
        "robustness/epsilon",
        {subject.name: ((curve.epsilons / (high - low)).numpy(), curve.accuracy.numpy())},
        norm="L-inf",
        gray_levels=bool(curve.epsilons[-1] < _SMALL * (high - low)),
        step=subject.step,
        details=[f"PGD, {_STEPS} steps, on {len(many.images)} samples", "" if right == "accuracy" else right],
    )
    yield from _spheres(subject)
    yield from _defended(subject, many, curve)


def curved(subject: ModelUnderStudy, many: Taken) -> EpsilonCurve:
    """Accuracy against epsilon, up to the first epsilon that leaves less than a tenth.

    Args:
        subject: with the model.
        many: samples within the range of pixels.
    """
    low, high = subject.pixel_space.bounds
    rising = [0.0]
    while (following := max(FIRST, 2 * rising[-1])) <= LAST:
        rising.append(following)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)
        found = epsilon_curve(
            subject.model,
            many.images,
            many.labels,
            [one * (high - low) for one in rising],
            attack=_pgd(subject, many.images),
            progress=False,
        )
    low_enough = (found.accuracy < ENOUGH).nonzero().flatten().tolist()
    kept = max(2, low_enough[0] + 1) if low_enough else len(rising)
    return EpsilonCurve(found.epsilons[:kept], found.accuracy[:kept], found.fooled_at)


def corrupted(subject: ModelUnderStudy) -> Iterator[Found]:
    """What noise, blur, weather and encoding cost (tags ``corruptions/table``, ``corruptions/sheet``).

    Args:
        subject: with a classifier of images within the range of pixels, and labels.
    """
    assert subject.images is not None
    height, width = subject.images.shape[2:]
    # Not by what the model costs: models compare only on the same samples.
    many = taken(subject, max(32, min(128, _PIXELS // (height * width))), within=True)
    found = errors(subject, many)
    kinds, each = found.kinds, found.errors
    table = dict(zip(kinds, (numbers(row) for row in each), strict=True))
    means = dict(zip(kinds, numbers(each.mean(1)), strict=True))
    yield (
        "all_corruptions",
        {"clean": number(found.clean), "mean": number(each.mean()), "kinds": means, "errors": table,
         "severities": list(found.severities), "count": found.count},
    )  # fmt: skip
    yield corruption_table(
        "corruptions/table",
        each.numpy(),
        kinds=kinds,
        severities=found.severities,
        clean=found.clean,
        name=subject.name,
        details=[f"on {found.count} samples"],
    )
    yield one_corrupted("corruptions/sheet", subject, many.images[:1], kinds=kinds, severities=found.severities)


def one_corrupted(
    tag: str, subject: ModelUnderStudy, image: Tensor, *, kinds: Sequence[str], severities: Sequence[int]
) -> Page:
    """One image under corruptions.

    Args:
        tag: of the picture.
        subject: whose image it is.
        image: as the model takes it ``[1, C, H, W]``.
        kinds: of corruptions.
        severities: of each.
    """
    some: dict[str, Any] = {"kinds": kinds, "severities": severities}
    hurt = all_corruptions(image, **some, pixel_space=subject.pixel_space, seed=subject.seed)
    shown = subject.rgb(torch.cat([one.inputs for one in hurt]))
    table = shown.reshape(len(kinds), len(severities), *shown.shape[1:])
    return corruption_sheet(tag, subject.rgb(image)[0], table, **some)


def errors(subject: ModelUnderStudy, many: Taken) -> CorruptionError:
    """The model's errors under all corruptions.

    Args:
        subject: with the model.
        many: samples within the range of pixels, with their classes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorruptionWarning)  # of a reference, which there is not
        return compare_corruption_error(
            {subject.name: subject.model},
            (many.images, many.labels),
            reference=subject.name,
            pixel_space=subject.pixel_space,
            seed=subject.seed,
            batch_size=batch_size(many.images),
            progress=False,
        )[subject.name]


def _pgd(subject: ModelUnderStudy, images: Tensor) -> Attack:
    return partial(
        pgd,
        steps=_STEPS,
        pixel_space=subject.pixel_space,
        seed=subject.seed,
        batch_size=batch_size(images),
        progress=False,
    )


def _spheres(subject: ModelUnderStudy) -> Iterator[Found]:
    """Random directions, twice as far as DeepFool went."""
    few = taken(subject, affordable(subject, 500, most=_AROUND, least=4), within=True)
    fooled = run(subject, few, partial(deepfool, progress=False))
    radii = 2 * fooled.record.l2[-1].cpu()
    points = affordable(subject, len(few.images), most=1000, least=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)
        around = random_directions(
            subject.model,
            few.images,
            radii,
            points,
            pixel_space=subject.pixel_space,
            seed=subject.seed,
            batch_size=batch_size(few.images),
            progress=False,
        )
    changed = around.changed.cpu()
    moved = radii > 0
    yield (
        "random_directions",
        {"changed": number(changed[moved].mean()), "radius": number(radii[moved].median()), "points": points},
    )
    if not bool(moved.any()):
        return  # DeepFool found no way, of which the double would say something
    low, high = subject.pixel_space.bounds
    yield sphere_plot(
        "robustness/sphere",
        changed.numpy(),
        samples=points,
        radii=(radii / (high - low)).numpy(),
        step=subject.step,
    )


def _defended(subject: ModelUnderStudy, many: Taken, curve: EpsilonCurve) -> Iterator[Found]:
    """What changing the input helps, at the first epsilon that costs half of the accuracy, or else the last."""
    low, high = subject.pixel_space.bounds
    halved = (curve.accuracy <= curve.accuracy[0] / 2).nonzero().flatten().tolist()
    epsilon = float(curve.epsilons[max(1, halved[0]) if halved else -1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttackWarning)
        attacked = _pgd(subject, many.images)(subject.model, many.images, many.labels, epsilon=epsilon)
        found = defenses(subject.model, attacked, batch_size=batch_size(many.images))
    each = zip(found.names, numbers(found.clean), numbers(found.attacked), strict=True)
    yield (
        "defenses",
        {"epsilon": epsilon, "accuracy": {name: {"clean": clean, "attacked": left} for name, clean, left in each}},
    )
    yield defense_bars(
        "robustness/defenses",
        found.names,
        found.clean.numpy(),
        found.attacked.numpy(),
        attack=f"PGD, ε {written(epsilon / (high - low))}",
        details=[f"{len(many.images)} samples", "the attack did not know of it"],
    )
