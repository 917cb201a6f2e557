"""A drawing task and its result: what crosses to the drawing process and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.render.kept_page import page_bytes
from lightning_viz.render.page import Page, Picture, lay_out

__all__ = ["DrawResult", "DrawTask", "Histogram", "Projection"]


@dataclass(frozen=True)
class Projection:
    """Vectors for TensorBoard's projector.

    Attributes:
        tag: name in the projector.
        vectors: one row per sample, tab-separated.
        metadata: one class name per row.
        sprite: thumbnails, PNG.
        side: of one thumbnail, in pixels.
    """

    tag: str
    vectors: bytes
    metadata: bytes | None = None
    sprite: bytes | None = None
    side: int = 0


@dataclass(frozen=True)
class Histogram:
    """A distribution, for loggers that draw it themselves.

    Attributes:
        edges: of the bins, increasing, ``[bins + 1]``.
        counts: of values in each bin, ``[bins]``.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.float64]

    @property
    def centers(self) -> NDArray[np.float64]:
        """Of the bins, ``[bins]``."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)


@dataclass(frozen=True)
class DrawResult:
    """The result of a drawing task.

    Attributes:
        pictures: to be shown; pages are laid out in the drawing process.
        scalars: numbers to be plotted, by tag.
        memory: passed on to the next task of the same name.
        projections: for the projector.
        histograms: distributions, by tag.
        kept: the pages' parts as files, by tag, if they are to be kept.
    """

    pictures: Sequence[Page | Picture] = ()
    scalars: Mapping[str, float] = field(default_factory=dict)
    memory: Any = None
    projections: Sequence[Projection] = ()
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    kept: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class DrawTask:
    """A function that draws, and its arguments: NumPy arrays and plain values.

    Attributes:
        function: importable without torch; returns a `Page`, a `Picture` or a `DrawResult`.
        arguments: by keyword.
        name: set if a drawing depends on the one before it: the function also gets ``memory=``, the last
            one's `DrawResult.memory`, or `memory` here if there is none.
        memory: of the first task of this name.
        after: name of a task from whose memory the first of this name goes on: the function also gets it, as
            ``before=``; None if that has not been drawn, or if there is a ``memory`` to go on from.
        collects: names of tasks whose memories the function also gets, as ``collected=`` in their order, as the latest
            of each before this one leaves them; only of a task with a name.
        scalars: numbers that are known already, to be plotted with the pictures, by tag.
        keep_parts: whether the pages' parts are kept as well.
    """

    function: Callable[..., Page | Picture | DrawResult]
    arguments: Mapping[str, Any]
    name: str | None = None
    memory: Any = None
    after: str | None = None
    collects: tuple[str, ...] = ()
    scalars: Mapping[str, float] = field(default_factory=dict)
    keep_parts: bool = False

    def draw(self, memories: dict[str, Any] | None = None) -> DrawResult:
        """Draw in this process, and lay pages out.

        Args:
            memories: by name, the memory of earlier tasks; this one's is added.
        """
        if self.name is None:
            result = self.function(**self.arguments)
        else:
            memories = {} if memories is None else memories
            memory = memories.get(self.name, self.memory)
            earlier = None if self.after is None or memory is not None else memories.get(self.after)
            before = {} if self.after is None else {"before": earlier}
            if self.collects:
                before["collected"] = tuple(memories.get(name) for name in self.collects)
            result = self.function(**self.arguments, **before, memory=memory)
        drawn = result if isinstance(result, DrawResult) else DrawResult((result,))
        pages = [page for page in drawn.pictures if isinstance(page, Page) and self.keep_parts]
        drawn = replace(
            drawn,
            pictures=tuple(lay_out(page) for page in drawn.pictures),
            scalars={**self.scalars, **drawn.scalars},
            kept={page.tag: page_bytes(page) for page in pages},
        )
        if self.name is not None and memories is not None:
            memories[self.name] = drawn.memory
        return drawn


def numbers_alone(tag: str) -> DrawResult:
    """No picture: the task's own numbers are plotted.

    Args:
        tag: of the view.
    """
    return DrawResult()
