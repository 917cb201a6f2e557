"""Whether a model goes by shape or by texture, where images of both are at hand."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_viz.adversarial.bias import shape_bias
from lightning_viz.analysis.conflicts import read_conflicts
from lightning_viz.analysis.studies.taking import number, numbers
from lightning_viz.analysis.subject import Subject
from lightning_viz.analysis.technique import Found, not_a_classifier
from lightning_viz.render.cues import shape_bias_plot
from lightning_viz.render.text import percent


def biases(subject: Subject) -> Iterator[Found]:
    """The shape bias on the cue conflicts that were given.

    Args:
        subject: with `conflicts`.
    """
    assert subject.images is not None and subject.conflicts is not None
    shape, names = subject.images.shape[1:], subject.samples.class_names
    given = read_conflicts(subject.conflicts, names, shape, subject.space)
    found = shape_bias(subject.model, given.images, given.shapes, given.textures, mapping=given.mapping)
    yield shape_bias_plot(
        "robustness/shape_bias",
        found.class_bias[None].numpy(),
        [found.bias],
        names=found.names,
        models=[subject.name],
        details=[f"{len(given.images)} cue conflicts", f"{percent(found.decided)} % decided for either cue"],
    )
    yield (
        "shape_bias",
        {
            "bias": number(found.bias),
            "decided": found.decided,
            "conflicts": len(given.images),
            "classes": dict(zip(found.names, numbers(found.class_bias), strict=True)),
        },
    )


def without_conflicts(subject: Subject) -> str:
    """Why the shape bias cannot be found; empty where it can."""
    if reason := not_a_classifier(subject):
        return reason
    if not subject.samples.class_names:
        return "the model's classes have no names"
    return "" if subject.conflicts is not None else "no cue conflicts were given: conflicts=, a folder of images"
