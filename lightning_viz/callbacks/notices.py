"""What a run's log says of its views: faults by their cause, each once, and how many looks were left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_viz.callbacks.run import error_text
from lightning_viz.callbacks.run_protocol import Named, Run
from lightning_viz.errors import NoClassesError, NoLabelsError, OutputError, inform, warn_safely

_LISTED = 8  # steps named at the end


@contextmanager
def harmless(what: str) -> Iterator[None]:
    """Nothing that goes wrong inside reaches the run: one line tells of it.

    Args:
        what: failed, in words.
    """
    try:
        yield
    except Exception as error:
        error.__traceback__ = None  # holds what is no longer needed
        warn_safely(f"{what}: {error_text(error)}")


class Faults:
    """Counts the faults of each view, and reports each cause once.

    A cause that several views share at a step is one line. What a view has failed by before is not reported again, nor
    is what another view failed by at an earlier step, if nobody named the view; but that a view is switched off is.

    Args:
        run: that reports them.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._in_a_row: Counter[str] = Counter()
        self._reported: set[tuple[str, str]] = set()
        self._new: list[tuple[Named, int, Exception | str, bool]] = []
        self._gathers = False

    def add(self, view: Named, step: int, error: Exception | str) -> bool:
        """Note what a view raised; whether it is to be switched off, after too many faults in a row.

        Args:
            view: that failed.
            step: completed updates.
            error: that it raised, or in words.
        """
        self._in_a_row[view.name] += 1
        off = self._in_a_row[view.name] >= self._run.most_faults
        known = view.name, error_text(error)
        told = known in self._reported
        if getattr(view, "optional", False) and not self._gathers_from(step):
            told = told or any(text == known[1] for _, text in self._reported)
        if off or not told:
            self._reported.add(known)
            self._new.append((view, step, error, off))
        if not self._gathers:
            self._report()
        return off

    @property
    def gathering(self) -> set[str]:
        """Names of the views whose faults are gathered, and not reported yet."""
        return {view.name for view, *_ in self._new}

    def _gathers_from(self, step: int) -> bool:
        """Whether faults of the same step are being gathered, which share a line."""
        return any(at == step for _, at, _, _ in self._new)

    def succeeded(self, view: Named) -> None:
        """A view has drawn: its faults are counted anew.

        Args:
            view: that was drawn.
        """
        self._in_a_row[view.name] = 0

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Faults inside are reported together when it ends: one line for each cause."""
        self._gathers = True
        try:
            yield
        finally:
            self._gathers = False
            self._report()

    def _report(self) -> None:
        new, self._new = self._new, []
        alike: defaultdict[tuple[int, str, bool], list[Named]] = defaultdict(list)
        errors: dict[str, Exception | str] = {}
        for view, step, error, off in new:
            alike[step, error_text(error), off].append(view)
            errors[error_text(error)] = error
        for (step, text, off), views in alike.items():
            self._run.report_fault(views, step, errors[text], switched_off=off)


class LeftOut:
    """Looks that were left out: each view's first is said at once, with the reason, their number at the end."""

    def __init__(self) -> None:
        self._steps: defaultdict[tuple[str, str], list[int]] = defaultdict(list)  # the first of them
        self._counts: Counter[tuple[str, str]] = Counter()
        self._latest: dict[tuple[str, str], int] = {}  # a look may be due at two hooks of one step

    def add(self, view: Named, step: int, reason: str) -> None:
        """Note a look that is left out.

        Args:
            view: that would have looked.
            step: completed updates.
            reason: in words.
        """
        steps = self._steps[view.label, reason]
        if self._latest.get((view.label, reason)) == step:
            return
        self._latest[view.label, reason] = step
        if not steps:
            inform(f"{view.label} is logged less often from step {step} {reason}")
        self._counts[view.label, reason] += 1
        if len(steps) < _LISTED:
            steps.append(step)

    def take(self, view: Named, step: int) -> None:
        """A look that was left out at a hook before is taken at another of the same step.

        Args:
            view: that looks.
            step: completed updates.
        """
        for key in [key for key, latest in self._latest.items() if key[0] == view.label and latest == step]:
            del self._latest[key]
            self._counts[key] -= 1
            if step in self._steps[key]:
                self._steps[key].remove(step)

    def report(self) -> None:
        """Say how many there were, view by view."""
        for (view, reason), steps in self._steps.items():
            count = self._counts[view, reason]
            if not count:
                continue
            looks = "1 look was" if count == 1 else f"{count} looks were"
            at = f"step{'s' * (count > 1)} {', '.join(map(str, steps))}"
            inform(f"{looks} left out of {view}, at {at}{', ...' * (count > len(steps))}, {reason}")
        self._steps.clear()
        self._counts.clear()
        self._latest.clear()


def cause_of(error: Exception) -> str | type:
    """What refusals have in common that are told in one line: a kind of error, or their words."""
    if isinstance(error, (NoClassesError, OutputError)):
        return NoClassesError
    return NoLabelsError if isinstance(error, NoLabelsError) else str(error)
