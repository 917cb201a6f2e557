"""Situations in which views are used: what a user wrote, what must come of it, and how both are compared."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch

from lightning_viz import View, default_views
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.drawing_queue import FinishedDrawing
from lightning_viz.callbacks.snapshot import Requirements, Snapshot
from lightning_viz.hooks.calls import Call as ModelCall

RIGHT = "right without any argument"
ARGUMENT = "right with the argument named in one line"
REFUSED = "refused with the reason"
OUTCOMES = (RIGHT, ARGUMENT, REFUSED)

KINDS = {
    1: "How the model is called",
    2: "What the output means",
    3: "Labels",
    4: "The geometry of a layer's output",
    5: "Detection and instance segmentation",
    6: "The same samples read without a trace",
    7: "Frameworks and Trainer's arguments",
    8: "One cause, one line",
    9: "Tags and looks",
}

_PREFIX = "lightning_viz: "
_FAULT = re.compile(r"failed at step|\w+Error\b|left out of this run|switched off|logging failed")
_LEFT_OUT = "the look at step "  # which tells of one that waits for a step to watch
_OWN_SUBJECT = re.compile(r"^(skipped \w+|.*? failed at step \d+[^:]*|.*? is left out of this run|logging failed): ")


@dataclass(frozen=True)
class Drawing:
    """A picture's arguments, as they were handed to the drawing process."""

    view: str
    step: int
    tag: str
    arguments: dict[str, Any]


@dataclass
class Seen:
    """What a user sees of a run or a call, and what a test may ask besides.

    Attributes:
        lines: of warning and information that lightning_viz printed.
        drawings: all that was drawn.
        snapshots: of the shared pass, look by look.
        error: that ended the run or the call.
        value: of the call.
        trainer: of the run.
        folder: that the run wrote to.
    """

    lines: list[str] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    error: Exception | None = None
    value: Any = None
    trainer: Any = None
    folder: Path = Path()

    @property
    def faults(self) -> list[str]:
        """Lines that tell of something that went wrong."""
        return [line for line in self.lines if _FAULT.search(line) and not line.startswith(_LEFT_OUT)]

    @property
    def causes(self) -> list[str]:
        """Lines without the view's name and step."""
        return [_OWN_SUBJECT.sub("", line) for line in self.lines]

    @property
    def kinds(self) -> set[str]:
        """First parts of the tags that were drawn."""
        return {drawing.tag.partition("/")[0] for drawing in self.drawings}

    def said(self, pattern: str) -> list[str]:
        """Lines that match a pattern."""
        return [line for line in self.lines if re.search(pattern, line, re.IGNORECASE)]

    def of(self, tag: str) -> list[Drawing]:
        """Drawings whose tag begins so."""
        return [drawing for drawing in self.drawings if drawing.tag.startswith(tag)]

    def last(self, tag: str) -> dict[str, Any]:
        """Arguments of the last drawing whose tag begins so."""
        drawings = self.of(tag)
        assert drawings, f"nothing drawn under {tag!r}: {sorted(self.kinds)}; lines: {self.lines}"
        return drawings[-1].arguments

    def map(self, tag: str) -> torch.Tensor:
        """The map ``[N, ...]`` that the last attribution whose tag begins so draws, on the layer's own places."""
        return torch.as_tensor(self.last(tag)["maps"]).squeeze(1)

    @property
    def verdicts(self) -> list[Any]:
        """Truth, prediction and confidence, as the last picture states them that does."""
        stated = [drawing.arguments["verdicts"] for drawing in self.drawings if "verdicts" in drawing.arguments]
        assert stated or self.snapshots, f"no look succeeded; lines: {self.lines}"
        return list(stated[-1] if stated else self.snapshots[-1].verdicts())

    @property
    def inputs(self) -> Any:
        """What the model was given at the last look: a tensor, or several."""
        assert self.snapshots, f"no look succeeded; lines: {self.lines}"
        inputs = self.snapshots[-1].observation.inputs
        tensors = inputs.tensors if isinstance(inputs, ModelCall) else inputs
        return tensors[0] if isinstance(tensors, tuple) and len(tensors) == 1 else tensors


@dataclass(kw_only=True, eq=False)
class Spy(View):
    """Keeps the shared pass's snapshots and draws nothing."""

    kind = "spy"

    def __post_init__(self):
        super().__post_init__()
        self.snapshots = []

    def requirements(self, model):
        return Requirements()

    def draw(self, snapshot):
        self.snapshots.append(snapshot)
        return ()


def usual_views() -> list[View]:
    """`default_views()`, but for the embeddings, which take long."""
    return [view for view in default_views() if view.kind != "embedding"]


class DrawsAtOnce(DrawingProcess):
    """In place of the drawing process: keeps what it is to draw, and draws the first picture of each tag, or all."""

    def __init__(self, drawings: list[Drawing], *, draws_all: bool, slow: bool) -> None:
        super().__init__()
        self._drawings, self._left = drawings, {}
        self._draws_all, self._slow = draws_all, slow

    def submit(self, owner, step, task):
        tag = str(task.arguments.get("tag", task.function.__name__))
        again = any(drawing.tag == tag and drawing.view == owner for drawing in self._drawings)
        self._drawings.append(Drawing(owner, step, tag, dict(task.arguments)))
        if again and task.name is None and not self._draws_all:
            return
        try:
            self._results.put((None, FinishedDrawing(owner, step, task.draw(self._left), name=task.name)))
        except Exception as error:
            self._results.put((None, FinishedDrawing(owner, step, None, f"{type(error).__name__}: {error}")))

    def behind(self):
        return self._slow


@contextlib.contextmanager
def listening(seen: Seen):
    """Keep what is printed and warned; an error ends the block and is kept."""
    errors = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(errors):
        warnings.simplefilter("always")
        try:
            yield
        except Exception as error:
            seen.error = error
    lines = [str(warning.message) for warning in caught] + errors.getvalue().splitlines()
    ours = [line.removeprefix(_PREFIX) for line in lines if line.startswith(_PREFIX)]
    seen.lines += [line for line in ours if not line.startswith(("no logger takes images", "watched by"))]


@dataclass
class Training:
    """A run of a Trainer, as a user writes it.

    Attributes:
        model: the LightningModule.
        train: its data, a loader or a LightningDataModule.
        val: likewise; the training loader if omitted.
        views: the callbacks; those of `default_views` if omitted.
        draws: kinds of views that must have drawn.
        options: of the Trainer.
        start: what is called on the trainer in place of ``fit``.
        draws_all: whether every picture is drawn, and not only the first of a tag.
        slow: whether drawing is behind all the time.
    """

    model: Any
    train: Any
    val: Any = "train"
    views: Sequence[Any] | None = None
    draws: Sequence[str] = ("filters", "activations", "grad_cam", "saliency")
    options: dict[str, Any] = field(default_factory=dict)
    start: Callable[[Any], Any] | None = None
    draws_all: bool = False
    slow: bool = False

    def run(self, folder: Path) -> Seen:
        """Train for an epoch."""
        seen, spy = Seen(folder=folder), Spy()
        given = {
            "max_epochs": 1,
            "accelerator": "cpu",
            "logger": False,
            "default_root_dir": folder,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
        }
        at_once = mock.patch(
            "lightning_viz.callbacks.picture_log.DrawingProcess",
            lambda *_, **__: DrawsAtOnce(seen.drawings, draws_all=self.draws_all, slow=self.slow),
        )
        with at_once, listening(seen):
            views = usual_views() if self.views is None else list(self.views)
            seen.trainer = pl.Trainer(callbacks=[spy, *views], **{**given, **self.options})
            if self.start is not None:
                seen.value = self.start(seen.trainer)
            elif isinstance(self.train, pl.LightningDataModule):
                seen.trainer.fit(self.model, datamodule=self.train)
            else:
                val = self.train if isinstance(self.val, str) else self.val
                seen.trainer.fit(self.model, self.train, val)
        seen.snapshots = spy.snapshots
        return seen


@dataclass
class Call:
    """A call of a function, as a user writes it."""

    function: Callable[[], Any]
    draws: Sequence[str] = ()

    def run(self, folder: Path) -> Seen:
        """Call it."""
        seen = Seen(folder=folder)
        with listening(seen):
            seen.value = self.function()
        return seen


@dataclass(frozen=True)
class Situation:
    """A row of the table.

    Attributes:
        kind: number of the kind, see `KINDS`.
        name: of the row.
        what: the situation in words.
        build: makes what the user wrote and a check of the truth of what came of it.
        outcome: `RIGHT`, `ARGUMENT` or `REFUSED`.
        says: pattern of the one line that names the argument or gives the reason.
        today: what happens instead, where it does.
    """

    kind: int
    name: str
    what: str
    build: Callable[[], tuple[Training | Call, Callable[[Seen], None]]]
    outcome: str = RIGHT
    says: str = ""
    today: str = ""

    def verify(self, folder: Path) -> None:
        """Run it, and compare what came of it with what must come of it."""
        torch.manual_seed(0)
        action, check = self.build()
        seen = action.run(folder)
        assert len(seen.causes) == len(set(seen.causes)), f"one cause, several lines: {seen.lines}"
        if self.outcome == REFUSED:
            refusals = [str(seen.error)] if seen.error is not None else seen.lines
            reasons = [line for line in refusals if re.search(self.says, line, re.IGNORECASE)]
            assert len(reasons) == 1, f"no one reason {self.says!r}: {seen.error!r} {seen.lines}"
        else:
            assert seen.error is None, f"{type(seen.error).__name__}: {seen.error}"
            if self.outcome == RIGHT:
                assert not seen.faults, seen.faults
            if self.says:
                told = seen.said(self.says)
                assert len(told) == 1, f"no one line says {self.says!r}: {seen.lines}"
        if seen.error is None:
            missing = set(action.draws) - seen.kinds
            assert not missing, f"nothing drawn by {sorted(missing)}; lines: {seen.lines}"
        check(seen)


REGISTRY: dict[str, Situation] = {}
"""All rows by name, in the order in which they are written."""


def situation(kind: int, what: str, outcome: str = RIGHT, *, says: str = "", today: str = ""):
    """Register a builder as a row of the table; its name is the row's."""

    def register(build):
        assert build.__name__ not in REGISTRY, f"two rows are called {build.__name__!r}"
        assert says or outcome != REFUSED, f"{build.__name__}: a reason is given in words"
        REGISTRY[build.__name__] = Situation(kind, build.__name__, what, build, outcome, says, today)
        return build

    return register


def situations(module: str) -> list[Any]:
    """A module's rows as parameters of a test; what goes wrong today must go wrong, until it is mended."""
    return [
        pytest.param(row, id=row.name, marks=pytest.mark.xfail(reason=row.today, strict=True) if row.today else ())
        for row in REGISTRY.values()
        if row.build.__module__ == module
    ]
