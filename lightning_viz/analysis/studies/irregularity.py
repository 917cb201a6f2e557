"""The irregularity of the gradient at a pixel of each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.results import Output
from lightning_viz.analysis.studies.attribution import described_target, target_of
from lightning_viz.attribution.irregularity import gradient_irregularity
from lightning_viz.render.irregularity import irregularity_page
from lightning_viz.render.text import fixed_point


def irregular_gradients(
    study: ModelUnderStudy,
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    target: str | Sequence[str] = "predicted",
) -> Output:
    """Partial derivatives of a pixel of each sample along a short walk, as curves and as they are.

    Args:
        study: the model and its samples.
        method: its name in `lightning_viz.catalogue`.
        options: of `gradient_irregularity`, by keyword.
        target: what to explain: predicted; label, each sample's true class; 3 or class:ox; something inside, conv2[7].
    """
    images, options, chosen = study.require_images(), dict(options or {}), target_of(study, target)
    given = {**study.settings(gradient_irregularity), "batch_size": study.batch_size(options.get("batch_size"))}
    found = gradient_irregularity(study.model, images, chosen, **{**options, **given})
    words = described_target(study, chosen)
    curves = found.curves.float().cpu()
    page = irregularity_page(
        method, study.rgb(images), curves.numpy(), pixels=found.pixels.tolist(), target=words,
        fraction=options.get("fraction", 0.01), step=study.step,
    )  # fmt: skip
    jumps = curves.diff(dim=1).abs().mean((1, 2))
    columns = {"row": found.pixels[:, 0], "column": found.pixels[:, 1], "mean jump": jumps}
    jump = float(jumps.mean())
    said = f"the gradient of {words} along a short walk: from place to place it jumps by {fixed_point(jump)} of 1"
    numbers = {"method": method, "explained": words, "mean_jump": float(jumps.mean())}
    return Output(method, [page], numbers, {"samples": study.sample_rows(columns)}, {"maps": {"curves": curves}}, said)
