"""The plan of an analysis: how far each view and technique goes within a time, chosen before anything is computed.

Results depend on the plan, never on how fast the machine is: the same plan gives the same results. Knows no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_viz.archive import write_whole
from lightning_viz.errors import AnalysisError, MalformedFileError
from lightning_viz.plain_text import plain_text

MINUTES = 4.0
"""An analysis takes about so long if nothing is said."""

LOOKS = "looks"
"""Among a view's settings, at how many of the checkpoints it looks."""

VIEWS = "views"
"""Among a view's settings, the arguments of each that is added to those of the run."""

_LEAST_SHARE = 0.5  # of the time, for views and techniques if the validation passes alone would take nearly all of it

VIEW, TECHNIQUE = "views/", "techniques/"
"""Beginnings of the names by which a plan calls kinds of views and techniques, some of which are called alike."""

Rung = Mapping[str, Any]
"""Settings of a view or technique, plain values by name."""


@dataclass(frozen=True)
class Estimate:
    """What a view or technique would take.

    Attributes:
        name: ``"views/KIND"`` or ``"techniques/NAME"``.
        rungs: its settings, from the whole to the least.
        seconds: of each rung.
        required: whether it was asked for by name: its least rung is done in any case.
    """

    name: str
    rungs: Sequence[Rung]
    seconds: Sequence[float]
    required: bool = False


@dataclass(frozen=True)
class Extent:
    """How far one view or technique goes.

    Attributes:
        settings: that it is run with; None if it is left out.
        whole: those that it would have with time enough.
        seconds: estimated for the settings; for the least ones if it is left out.
        whole_seconds: estimated for the whole.
    """

    settings: Rung | None
    whole: Rung
    seconds: float = 0.0
    whole_seconds: float = 0.0

    @property
    def shortened(self) -> bool:
        """Whether it is done, and not as a whole."""
        return self.settings is not None and dict(self.settings) != dict(self.whole)

    def words(self) -> str:
        """What is shortened: ``samples 4 of 16``; empty if nothing is."""
        if self.settings is None:
            return ""
        return ", ".join(_differences(self.settings, self.whole))


@dataclass(frozen=True)
class Plan:
    """How far each view and technique of an analysis goes.

    Attributes:
        choices: by ``"views/KIND"`` and ``"techniques/NAME"``.
        minutes: within which it was to be; infinite if all is whole.
        passes: seconds that the validation passes of all checkpoints were estimated to take.
        forward: seconds of a forward pass of one sample, as it was measured.
        key: of what it was made for; empty if it is to be used for anything.
    """

    choices: Mapping[str, Extent]
    minutes: float = MINUTES
    passes: float = 0.0
    forward: float = 0.0
    key: str = field(default="", compare=False)

    @property
    def seconds(self) -> float:
        """That all of it was estimated to take."""
        return self.passes + sum(choice.seconds for choice in self.choices.values() if choice.settings is not None)

    @property
    def whole_minutes(self) -> int:
        """In which everything would be done as a whole, with some to spare."""
        return math.ceil(1.2 * (self.passes + sum(choice.whole_seconds for choice in self.choices.values())) / 60)

    @property
    def left_out(self) -> dict[str, Extent]:
        """What does not fit, even at its least."""
        return {name: choice for name, choice in self.choices.items() if choice.settings is None}

    @property
    def shortened(self) -> dict[str, Extent]:
        """What is not done as a whole."""
        return {name: choice for name, choice in self.choices.items() if choice.shortened}

    def settings(self, name: str) -> Rung | None:
        """Those of a view or technique; None if it is left out.

        Args:
            name: ``"views/KIND"`` or ``"techniques/NAME"``.

        Raises:
            AnalysisError: the plan says nothing of it.
        """
        if name not in self.choices:
            raise AnalysisError(f"the plan says nothing of {name!r}: leave --plan out, or name others")
        return self.choices[name].settings

    def minutes_for(self, name: str) -> int:
        """In how many minutes one view or technique would be done as a whole, alone, with some to spare.

        Args:
            name: ``"views/KIND"`` or ``"techniques/NAME"``.
        """
        return math.ceil(1.2 * (self.choices[name].whole_seconds + self.passes) / 60)

    def to_json(self) -> bytes:
        """As a file holds it."""
        content = {
            "minutes": self.minutes if math.isfinite(self.minutes) else None,
            "seconds": {"all": _rounded(self.seconds), "validation": self.passes, "forward": self.forward},
            "key": self.key,
            "choices": {name: asdict(choice) for name, choice in self.choices.items()},
        }
        return (json.dumps(content, indent=1) + "\n").encode()

    def write(self, file: Path) -> None:
        """Keep it beside the results, whole or not at all."""
        write_whole(file, self.to_json())


def read_plan(file: Path) -> Plan:
    """A plan that an analysis kept.

    Args:
        file: ``plan.json`` in its folder.

    Raises:
        MalformedFileError: it is no plan.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
        choices = {name: Extent(**choice) for name, choice in content["choices"].items()}
        for choice in choices.values():
            _check(choice)
        minutes = math.inf if content["minutes"] is None else float(content["minutes"])
        passes, forward = (float(content["seconds"][name]) for name in ("validation", "forward"))
        return Plan(choices, minutes, passes, forward, str(content["key"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        words = f"{plain_text(file)} is no plan of an analysis ({plain_text(error)}): give the plan.json of one"
        raise MalformedFileError(words) from error


def choose_plan(
    estimates: Sequence[Estimate], minutes: float = MINUTES, *, passes: float = 0.0, forward: float = 0.0, key: str = ""
) -> Plan:
    """Choose how far each view and technique goes, so that all together take no longer than a time.

    First as many as fit at their least, the cheapest first; then, as long as there is time, whatever is cheapest to
    take one rung further. Half of the time is theirs, however long validation takes.

    Args:
        estimates: in the order in which they are listed.
        minutes: for all of it.
        passes: seconds for the validation passes, which are needed in any case.
        forward: seconds of a forward pass of one sample, for the record.
        key: of what the plan is made for.

    Raises:
        AnalysisError: the time is not above 0.

    >>> halves = Estimate("dreams", [{"steps": 100}, {"steps": 50}], [60, 30])
    >>> choose_plan([halves], minutes=0.75).choices["dreams"].words()
    'steps 50 of 100'
    """
    if not minutes > 0:
        raise AnalysisError(f"minutes={minutes} is no time in which something could be done: give a positive number")
    left = max(60 * minutes - passes, 60 * minutes * _LEAST_SHARE)
    places: dict[int, int] = {}  # of each estimate that is done, the rung
    for at, each in sorted(enumerate(estimates), key=lambda pair: (not pair[1].required, pair[1].seconds[-1], pair[0])):
        if each.required or each.seconds[-1] <= left:
            places[at] = len(each.rungs) - 1
            left -= each.seconds[-1]
    while steps := _steps_up(estimates, places, left):
        more, at = min(steps)
        places[at] -= 1
        left -= more
    choices = {}
    for at, each in enumerate(estimates):
        rung = places.get(at)
        settings, seconds = (None, each.seconds[-1]) if rung is None else (each.rungs[rung], each.seconds[rung])
        choices[each.name] = Extent(settings, each.rungs[0], _rounded(seconds), _rounded(each.seconds[0]))
    return Plan(choices, float(minutes), _rounded(passes), _rounded(forward), key)


def whole_plan(wholes: Mapping[str, Rung], *, key: str = "") -> Plan:
    """A plan in which nothing is shortened, and nothing was measured.

    Args:
        wholes: settings, by ``"views/KIND"`` and ``"techniques/NAME"``.
        key: of what the plan is made for.
    """
    return Plan({name: Extent(settings, settings) for name, settings in wholes.items()}, math.inf, key=key)


def with_fewer_looks(rungs: Sequence[Rung], count: int) -> list[Rung]:
    """Rungs of a view for several checkpoints: at its least it looks at half of them, a quarter, ... the last alone.

    Args:
        rungs: of one look.
        count: of checkpoints.

    >>> with_fewer_looks([{}], 5)
    [{'looks': 5}, {'looks': 3}, {'looks': 2}, {'looks': 1}]
    """
    every: list[Rung] = [{**rung, LOOKS: count} for rung in rungs]
    while count > 1:
        count = (count + 1) // 2
        every.append({**rungs[-1], LOOKS: count})
    return every


def looked_at(steps: Sequence[int], count: int) -> list[int]:
    """The checkpoints at which a view looks: evenly chosen, the last among them.

    Args:
        steps: of all checkpoints, in order.
        count: of looks.

    >>> looked_at([1, 2, 3, 4, 5], 3), looked_at([1, 2, 3, 4, 5], 2), looked_at([1, 2, 3], 1)
    ([1, 3, 5], [1, 5], [3])
    """
    last = len(steps) - 1
    if count <= 1:
        return [steps[last]]
    places = (round(look * last / (count - 1)) for look in range(count))
    return [steps[place] for place in dict.fromkeys(places)]


def _steps_up(estimates: Sequence[Estimate], places: Mapping[int, int], left: float) -> list[tuple[float, int]]:
    """What can be taken a rung further in the time that is left: the seconds that it takes more, and its place."""
    steps = (
        (each.seconds[places[at] - 1] - each.seconds[places[at]], at)
        for at, each in enumerate(estimates)
        if places.get(at)
    )
    return [(more, at) for more, at in steps if more <= max(left, 0.0)]


def _differences(settings: Rung, whole: Rung) -> list[str]:
    """What is less than in the whole, in words."""
    words: list[str] = []
    for name, most in whole.items():
        own = settings.get(name)
        if own == most:
            continue
        if name == VIEWS:
            pairs = zip(own or (), most, strict=False)
            words += dict.fromkeys(each for pair in pairs for each in _differences(*pair))
            words += [f"{len(own or ())} of {len(most)} kinds"] * (len(own or ()) < len(most))
        elif name == LOOKS:
            words.append(f"{own} of {most} checkpoints")
        elif isinstance(most, bool) or own is None:
            words.append(f"without {name.replace('_', ' ')}")
        else:
            words.append(f"{name.replace('_', ' ')} {own} of {most}" if own else f"without {name.replace('_', ' ')}")
    return words


def _check(choice: Extent) -> None:
    """Settings must be plain values by name: they become arguments of functions.

    Raises:
        TypeError: they are something else.
    """
    for settings in (choice.settings, choice.whole):
        if settings is None and settings is choice.settings:
            continue
        if not isinstance(settings, dict):
            raise TypeError("settings are no mapping")
        parts = [settings, *settings.get(VIEWS, ())]
        if not all(isinstance(part, dict) for part in parts):
            raise TypeError("arguments of views are no mappings")
        for part in parts:
            for name, value in part.items():
                if name != VIEWS and not isinstance(value, (str, int, float, bool, type(None))):
                    raise TypeError(f"{name} is no plain value")
    float(choice.seconds), float(choice.whole_seconds)


def _rounded(seconds: float) -> float:
    """To three digits, for people."""
    return float(f"{seconds:.3g}")
