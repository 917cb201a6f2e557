"""Cheap techniques in place of those of the catalogue."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.results import Output
from lightning_viz.catalogue_types import Technique


@dataclass(frozen=True, kw_only=True)
class FakeTechnique(Technique):
    """A technique that is given rather than imported."""

    function: Callable[..., Iterator[Output]]

    def load(self) -> Callable[..., Iterator[Output]]:
        return self.function


def fakes(**functions: Callable[[ModelUnderStudy], Iterator[Output]]) -> dict[str, Technique]:
    """Techniques by name."""
    return {
        name: FakeTechnique(name, name, section="others", summary=name, function=function)
        for name, function in functions.items()
    }
