"""A technique: something to be found out about a model, offline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Union

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.render.page import Page

Found = Union[Page, tuple[str, Any]]
"""A picture, or a number (or plain values of them) by its name."""


@dataclass(frozen=True)
class Technique:
    """One row of the table of techniques.

    Attributes:
        name: as one asks for it.
        summary: what it finds out, in one line.
        study: makes its pictures and numbers, one after the other.
        unsuited: why a model is not for it, in words; empty where it is.
    """

    name: str
    summary: str
    study: Callable[[ModelUnderStudy], Iterator[Found]]
    unsuited: Callable[[ModelUnderStudy], str]


def not_a_classifier(subject: ModelUnderStudy) -> str:
    """Why a technique for classifiers of images is not for a model; empty where it is.

    Args:
        subject: with the model.
    """
    return "" if subject.classifies else "the model does not tell classes of images"


def without_labels(subject: ModelUnderStudy) -> str:
    """The same for a technique that must know the true classes.

    Args:
        subject: with the model.
    """
    return not_a_classifier(subject) or (
        "" if subject.labels is not None else "the samples' true classes are not known"
    )
