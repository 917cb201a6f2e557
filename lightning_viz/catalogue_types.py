"""Types of the rows of `lightning_viz.catalogue`, which holds the captions: a method, a technique, a view."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from lightning_viz.costs import PASSES

__all__ = [
    "AttackMethod",
    "AttentionMethod",
    "CamMethod",
    "Descriptor",
    "Family",
    "Method",
    "Need",
    "SaliencyMethod",
    "SmoothedMethod",
    "Technique",
    "ViewEntry",
]

Family = Literal["attribution", "attack", "dream", "robustness", "embedding", "filters"]
"""Of methods that are used alike: each has a command."""

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
"""What a method asks of model and samples."""

CamMethod = Literal[
    "grad_cam",
    "grad_cam_plus_plus",
    "xgrad_cam",
    "hires_cam",
    "layer_cam",
    "score_cam",
    "ablation_cam",
    "eigen_cam",
]
"""Methods of the view `GradCAM`; a test compares these types with the rows."""

SaliencyMethod = Literal[
    "gradient",
    "smooth_grad",
    "input_times_gradient",
    "integrated_gradients",
    "guided_backprop",
    "deconvolution",
    "guided_grad_cam",
    "lrp",
    "rise",
]
"""Methods of the view `Saliency`."""

SmoothedMethod = Literal[
    "gradient", "input_times_gradient", "integrated_gradients", "guided_backprop", "deconvolution", "lrp"
]
"""Those whose maps have the form of the inputs, so that `smooth_grad` can average them over noise."""

AttentionMethod = Literal["raw", "rollout", "gradient"]
"""Methods of the view `Attention`, the last parts of their tags."""

AttackMethod = Literal["deepfool", "pgd", "apgd", "fgsm", "fab", "gradient_ascent"]
"""Methods of the view `Adversarial`."""


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

    def passes(self, **amounts: float) -> float:
        """Forward passes that a sample takes, one with its backward counted as three.

        Args:
            **amounts: by the words of `cost`, how many there are.
        """
        count = amounts[self.cost] if isinstance(self.cost, str) else self.cost
        return count * (PASSES if "gradient" in self.needs else 1)

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
        rungs: settings of its function, from the whole to the least that is worth while, of which `analyze` chooses.
    """

    _: KW_ONLY
    summary: str
    shows_inputs: bool = False
    rungs: tuple[Mapping[str, Any], ...] = field(default=({},), hash=False)


@dataclass(frozen=True)
class ViewEntry(Descriptor):
    """A live view; its name is its kind.

    Attributes:
        default: whether `default_views` has it.
        cost: of a look beside the pass that all views share, in words.
        rungs: arguments of each view of this kind that `analyze` adds to those of the run, from the whole to the least
            that is worth while, of which it chooses; no view if it adds none.
        pages: that it draws at a look, roughly, by which its drawing is estimated.
    """

    _: KW_ONLY
    default: bool = False
    cost: str = "no pass of its own"
    rungs: tuple[tuple[Mapping[str, Any], ...], ...] = field(default=(({},),), hash=False)
    pages: float = 1.0

    @property
    def offline(self) -> tuple[Mapping[str, Any], ...]:
        """Arguments of each view of this kind that `analyze` adds, with time enough."""
        return self.rungs[0]
