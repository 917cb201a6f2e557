"""Numbers over the steps of a run: small curves, and a table of the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_viz.analysis.report.tabulating import Table, said
from lightning_viz.render.text import step_text

WIDTH, HEIGHT = 240, 56
_MARGIN = 5  # so that the end's dot is whole

Series = Mapping[str, Mapping[int, float]]
"""By name, the values by step."""


@dataclass(frozen=True)
class Line:
    """One model's values over the steps.

    Attributes:
        model: its name.
        points: as SVG takes them.
        end: left and top of the last.
        first: step and value, in words.
        last: step and value, in words.
    """

    model: str
    points: str
    end: tuple[float, float]
    first: tuple[str, str]
    last: tuple[str, str]


@dataclass(frozen=True)
class Curve:
    """A number over the steps, a line for each model that has it at several.

    Attributes:
        name: of the number.
        ends: its least and its most, between which the curve lies.
        lines: of the models, None for those without.
    """

    name: str
    ends: tuple[str, str]
    lines: tuple[Line | None, ...]


@dataclass(frozen=True)
class Numbers:
    """Numbers that were measured at steps.

    Attributes:
        curves: of those that were measured at several, and changed.
        table: of all, by number and step; of several models a column for each, at its last step.
    """

    curves: tuple[Curve, ...]
    table: Table


def numbers(title: str, models: Sequence[Series], names: Sequence[str]) -> Numbers | None:
    """Curves and a table of what was measured over the steps; None where there is nothing.

    Args:
        title: of the table.
        models: what was measured of each.
        names: of the models.
    """
    tags = list(dict.fromkeys(tag for series in models for tag in series))
    if not tags:
        return None
    if len(models) == 1:
        steps = sorted({step for values in models[0].values() for step in values})
        cells = [[said(models[0][tag].get(step)) for step in steps] for tag in tags]
        head, rows = _longer_down(tags, [step_text(step) for step in steps], cells)
    else:
        head = ["", *names]
        rows = [[tag, *(said(_last(series.get(tag, {}))) for series in models)] for tag in tags]
    curves = [_curve(tag, [series.get(tag, {}) for series in models], names) for tag in tags]
    return Numbers(
        tuple(one for one in curves if any(one.lines)), Table(title, tuple(head), tuple(tuple(row) for row in rows))
    )


def _longer_down(
    tags: Sequence[str], steps: Sequence[str], cells: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table that is rather long than wide."""
    if len(steps) > len(tags):
        return ["", *tags], [[step, *column] for step, column in zip(steps, zip(*cells, strict=True), strict=True)]
    return ["", *steps], [[tag, *row] for tag, row in zip(tags, cells, strict=True)]


def _last(values: Mapping[int, float]) -> float | None:
    return values[max(values)] if values else None


def _curve(tag: str, models: Sequence[Mapping[int, float]], names: Sequence[str]) -> Curve:
    finite = [{step: value for step, value in sorted(one.items()) if math.isfinite(value)} for one in models]
    steps = [step for one in finite for step in one]
    values = [value for one in finite for value in one.values()]
    lines: list[Line | None] = []
    for name, one in zip(names, finite, strict=True):
        if len(one) < 2 or len(set(values)) == 1:  # a flat line tells nothing that the table does not
            lines.append(None)
            continue
        points = [
            (_place(step, steps, WIDTH), round(HEIGHT - _place(value, values, HEIGHT), 1))
            for step, value in one.items()
        ]
        ends = [(step_text(step), said(float(one[step]))) for step in (min(one), max(one))]
        lines.append(Line(name, " ".join(f"{x:g},{y:g}" for x, y in points), points[-1], ends[0], ends[1]))
    lowest, highest = (said(float(end(values))) if values else "" for end in (min, max))
    return Curve(tag, (lowest, highest), tuple(lines))


def _place(value: float, among: Sequence[float], length: int) -> float:
    """Where a value lies between the least and the most."""
    share = (value - min(among)) / (max(among) - min(among))
    return round(_MARGIN + share * (length - 2 * _MARGIN), 1)
