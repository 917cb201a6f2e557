"""Perturbation stability of the predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.results import Output, numbers_of
from lightning_viz.costs import Cost, Facts, costing
from lightning_viz.render.page import Page
from lightning_viz.render.robustness import corruption_sheet
from lightning_viz.render.stability import stability_bars
from lightning_viz.render.text import percent
from lightning_viz.robustness.perturbation_sequences import PERTURBATIONS, perturbation_sequence
from lightning_viz.robustness.stability import PerturbationStability, perturbation_stability

_COMMAND = "perturbation_stability"
_FRAMES = 6  # of each sequence that are shown
_PASSES = 32 * len(PERTURBATIONS)  # of one sample


def flip_probabilities(
    study: ModelUnderStudy,
    *,
    kinds: Sequence[str] | None = None,
    reference: str | None = None,
    batch_size: int | None = None,
) -> Output:
    """Perturbation stability: how often predictions change along sequences of small perturbations.

    Args:
        study: a classifier of images within the range of pixels.
        kinds: some of gaussian_noise, shot_noise, motion_blur, zoom_blur, snow, brightness, translate, rotate, tilt,
            scale; all if omitted.
        reference: folder of this command's results for another model on the same data, to which rates are relative.
        batch_size: frames per pass; chosen by their size if omitted.

    Raises:
        InvalidArgumentError: there is no such kind, or the folder holds no such results.
        UnsuitableModelError: the model is not a classifier, or the images are not pixels.
    """
    study.predictions()  # raises where the model is no classifier
    known = None if reference is None else numbers_of(Path(reference), f"robustness {_COMMAND}", _measured)
    images = study.bounded_images()
    found = perturbation_stability(
        study.model, images, kinds=kinds, batch_size=study.batch_size(batch_size),
        **study.settings(perturbation_stability),
    )  # fmt: skip
    numbers: dict[str, Any] = {
        "kinds": list(found.kinds),
        "flips": found.flips.tolist(),
        "distances": None if found.distances is None else found.distances.tolist(),
        "flip_probability": found.flip_probability.mean(),
        "count": len(images),
    }
    options: dict[str, Any] = {}
    curves = {study.name: found.flip_probability.tolist()}
    if known is not None:
        name, other = known
        rate = found.flip_rate(other)
        numbers["reference"] = {"name": name, "flip_rate": rate, "mfr": rate.nanmean()}
        if found.distances is not None and other.distances is not None:
            numbers["reference"]["mt5d"] = found.top5_rate(other).nanmean()
        curves = {name: other.flip_probability.tolist(), **curves}
        options = {"rates": {study.name: rate.tolist()}, "reference": name}

    def pictures() -> Iterator[Page]:
        details = [f"on {len(images)} samples"]
        yield stability_bars("perturbations/flips", curves, kinds=found.kinds, details=details, **options)
        if not study.private:
            yield _sequences(study, images[:1], found.kinds)

    rows = [
        {"perturbation": kind, "flip_probability": flips, "top5_distance": distance}
        for kind, flips, distance in zip(
            found.kinds,
            found.flip_probability.tolist(),
            [None] * len(found.kinds) if found.distances is None else found.distances.mean(1).tolist(),
            strict=True,
        )
    ]
    worst = max(rows, key=lambda row: row["flip_probability"])["perturbation"]
    text = f"the class changes at {percent(float(found.flip_probability.mean()), 1)} % of steps, most often by {worst}"
    return Output(_COMMAND, pictures(), numbers, {"perturbations": rows}, found=text)


def recorded_stability(numbers: Mapping[str, Any]) -> PerturbationStability:
    """A model's stability from the numbers of `flip_probabilities`."""
    distances = numbers["distances"]
    return PerturbationStability(
        tuple(numbers["kinds"]),
        torch.tensor(numbers["flips"], dtype=torch.float64),
        None if distances is None else torch.tensor(distances, dtype=torch.float64),
    )


def _measured(name: str, numbers: Mapping[str, Any]) -> tuple[str, PerturbationStability]:
    return name, recorded_stability(numbers)


def _perturbations_cost(facts: Facts, *, samples: int) -> Cost:
    frames = _PASSES * min(samples, facts.samples)
    return Cost(frames, images=frames, pages=2)


@costing(_perturbations_cost)
def perturbations(study: ModelUnderStudy, *, samples: int = 32) -> Iterator[Output]:
    """Perturbation stability as an analysis measures it."""
    study.predictions()  # raises where the model is no classifier
    yield flip_probabilities(study.first(samples))


def _sequences(study: ModelUnderStudy, image: Tensor, kinds: Sequence[str]) -> Page:
    """One image ``[1, C, H, W]`` in frames of every sequence."""
    options: dict[str, Any] = {"pixel_space": study.pixel_space, "seed": study.seed}
    shares = torch.linspace(0, 1, _FRAMES, dtype=torch.float64)
    frames = []
    for kind in kinds:
        sequence = perturbation_sequence(image, kind, **options)[0]
        frames.append(sequence[(shares * (len(sequence) - 1)).round().long()])
    tiles = study.rgb(torch.cat(frames))
    return corruption_sheet(
        "perturbations/sheet",
        study.rgb(image)[0],
        tiles.reshape(len(kinds), _FRAMES, *tiles.shape[1:]),
        kinds=kinds,
        severities=[f"{percent(share)} %" for share in shares.tolist()],
        title="One image along small steps",
        columns="of the way",
        reading="Each row is one kind of perturbation, from its first frame to its last.",
    )
