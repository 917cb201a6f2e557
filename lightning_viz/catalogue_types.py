"""Types of the rows of `lightning_viz.catalogue`, which holds the captions: a method, a technique, a view."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

__all__ = ["Descriptor", "Family", "Method", "Need", "Technique", "ViewEntry"]

Family = Literal["attribution", "attack", "dream", "robustness", "embedding", "filters"]

Need = Literal[
    "target",  # a class, or another scalar, that is explained
    "gradient",  # of the target
    "relu",  # a model with ReLUs
    "maps",  # a layer whose output has locations
    "attention",  # a transformer
    "image",  # inputs [N, C, H, W]
    "classes",  # a classifier
    "labels",  # the samples' true classes
    "pixels",  # inputs within the range of pixels
    "attack",  # another attack
    "surrogate",  # a second model
    "cues",  # images with the shape of one class and the texture of another
]


@dataclass(frozen=True)
class Descriptor:
    """What is said of one thing, wherever it is listed or drawn.

    Attributes:
        name: by which it is chosen.
        title: its name in the field, as headings and pictures show it.
        caption: what it does or shows, and how to read it; empty if all its pages are another entry's.
        section: of the report, a key of `SECTIONS`.
        module: below `lightning_viz`; empty for pages of several models.
        symbol: the function or class in the module; the entry's name if empty.
        tags: beginnings of the tags of its pictures and numbers; the first is its key.
        needs: what it asks of model and samples.
    """

    name: str
    title: str
    caption: str = ""
    _: KW_ONLY
    section: str
    module: str = ""
    symbol: str = ""
    tags: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()

    def load(self) -> Any:
        """Import the function or class that the entry describes."""
        return getattr(importlib.import_module(f"lightning_viz.{self.module}"), self.symbol or self.name)


@dataclass(frozen=True)
class Method(Descriptor):
    """A method of the field: one function of a model and inputs.

    Attributes:
        family: of methods that are used alike; each has a command.
        source: paper, by authors and year.
        view: kind of the live view that draws it; empty if none does.
        display: how its maps are drawn, of `lightning_viz.render.tiles.DISPLAYS`.
        worth: what its maps say and what not, for the caption of its pictures.
        unit: of its values; for an attack the norm in which its perturbations are usually measured, as it is chosen.
        cost: passes of each sample, or in words what their number grows with.
        rule: backward rule at ReLUs, of `lightning_viz.hooks.relu_rule`.
        study: function below `lightning_viz.analysis.studies` that computes and draws it, for its command; empty if it
            has no command.
        samples: how many its command takes.
        example: options in the example of its command.
    """

    _: KW_ONLY
    family: Family
    source: str = ""
    view: str = ""
    display: str = ""
    worth: str = ""
    unit: str = ""
    cost: int | str = 1
    rule: str = ""
    study: str = ""
    samples: int = 16
    example: str = ""

    @property
    def summary(self) -> str:
        """One line for a list of methods."""
        source = f" ({self.source})" if self.source else ""
        return f"{self.title}: {self.caption[0].lower()}{self.caption[1:].removesuffix('.')}{source}"


@dataclass(frozen=True)
class Technique(Descriptor):
    """A study of a trained model by `analyze`.

    Attributes:
        summary: what it finds out, in one line.
        shows_inputs: whether its pictures show samples, or what was made of them, which may be private.
    """

    _: KW_ONLY
    summary: str
    shows_inputs: bool = False


@dataclass(frozen=True)
class ViewEntry(Descriptor):
    """A live view; its name is its kind.

    Attributes:
        default: whether `default_views` has it.
        offline: arguments of each view of this kind that `analyze` adds to those of the run; none if it adds none.
    """

    _: KW_ONLY
    default: bool = False
    offline: tuple[Mapping[str, Any], ...] = field(default=({},), hash=False)
