"""Plain values as tables: what was measured, in words and rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_viz.render.text import number, step_text

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


_LONGEST = 12  # of a list that stands in one line
_MOST = 40  # numbers of a model in one column


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first column names them.

    Attributes:
        title: what it shows.
        head: above the columns.
        rows: as many cells as the head has.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def said(value: Any) -> str:
    """A plain value as a table shows it.

    >>> said(61706), said(0.95499998), said(None), said([1, 3]), said("<b>")
    ('61,706', '0.955', '–', '1, 3', '<b>')
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else ("∞" if value > 0 else "−∞")
    if isinstance(value, (list, tuple)):
        return ", ".join(said(one) for one in value) or "–"
    return str(value)


def tables(title: str, values: Sequence[Any], names: Sequence[str]) -> list[Table]:
    """What was measured of models: what stands alone in one table, and one for each that is nested.

    Of several models each has a column. Of one, what is nested twice lies in rows and columns, and lists of the same
    length stand side by side. A short list beside numbers stands in one line.

    Args:
        title: what was measured; that of the parts if empty.
        values: plain, of each model; None where it was not measured.
        names: of the models.

    Returns:
        No table where nothing was measured.
    """
    paths = [path for value in values for path, _ in _leaves(value)]
    if not paths:
        return []
    if all(len(path) == 2 for path in paths):
        nested = [isinstance(one, (list, tuple)) for value in values for one in _parts(value).values()]
        if not any(nested) or len(values) > 1 or not isinstance(values[0], Mapping):
            return [_table(title, values, names)]
        if all(nested):
            return [_listed(title, values[0])]
    parts = [_parts(value) for value in values]
    keys = list(dict.fromkeys(key for one in parts for key in one))
    deep = [key for key in keys if any(_nested(one.get(key)) for one in parts)]
    flat = [{key: _in_line(value) for key, value in one.items() if key not in deep} for one in parts]
    alone = [_table(title, flat, names)] if len(deep) < len(keys) else []
    rest = [_each(f"{title}: {key}" if title else str(key), [one.get(key) for one in parts], names) for key in deep]
    return alone + [one for several in rest for one in several]


def _each(title: str, values: Sequence[Any], names: Sequence[str]) -> list[Table]:
    """One table of all models; of what has many rows and columns, such as a confusion, one for each."""
    if len(values) > 1 and any(sum(len(path) == 2 for path, _ in _leaves(value)) > _MOST for value in values):
        return [_table(f"{title}, {name}", [one], [name]) for one, name in zip(values, names, strict=True)]
    return [_table(title, values, names)]


def _parts(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return {} if value is None else {"": value}


def _nested(value: Any) -> bool:
    """Whether a value takes a table of its own; a short list does not."""
    if isinstance(value, (list, tuple)):
        return len(value) > _LONGEST or any(isinstance(one, (Mapping, list, tuple)) for one in value)
    return isinstance(value, Mapping)


def _in_line(value: Any) -> Any:
    return said(value) if isinstance(value, (list, tuple)) else value


def _listed(title: str, lists: Mapping[str, Sequence[Any]]) -> Table:
    """Lists side by side; what is missing at the end of a shorter one is left open."""
    rows = itertools.zip_longest(*([said(one) for one in values] for values in lists.values()), fillvalue="–")
    return Table(title, tuple(lists), tuple(rows))


def _table(title: str, values: Sequence[Any], names: Sequence[str]) -> Table:
    found = [dict(_leaves(value)) for value in values]
    paths = list(dict.fromkeys(path for leaves in found for path in leaves))
    if len(found) == 1 and paths and all(len(path) == 2 for path in paths):
        columns = list(dict.fromkeys(path[1] for path in paths))
        kinds = dict.fromkeys(path[0] for path in paths)
        rows = [(kind, *(said(found[0].get((kind, one))) for one in columns)) for kind in kinds]
        return Table(title, ("", *columns), tuple(rows))
    head = ("", *(names if len(found) > 1 else ("value",)))
    rows = [(" · ".join(path) or title, *(said(leaves.get(path)) for leaves in found)) for path in paths]
    return Table(title, head, tuple(rows))


def numbers_in(value: Any) -> dict[str, float]:
    """The numbers among measured values that stand alone, not in rows or classes, by name.

    Args:
        value: plain.
    """
    flat = value.items() if isinstance(value, Mapping) else ()
    return {str(name): float(one) for name, one in flat if isinstance(one, (int, float))}


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        beside = not all(isinstance(one, (Mapping, list, tuple)) for one in value.values())
        for name, one in value.items():
            yield from _leaves(_in_line(one) if beside and not _nested(one) else one, (*path, str(name)))
    elif isinstance(value, (list, tuple)):
        for place, one in enumerate(value, 1):
            yield from _leaves(one, (*path, str(place)))
    elif value is not None or path:
        yield path, value
