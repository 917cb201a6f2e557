"""Plain values as tables and sparklines."""

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
        points: of an SVG polyline.
        end: left and top of the last point.
        first: step and value, as text.
        last: step and value, as text.
    """

    model: str
    points: str
    end: tuple[float, float]
    first: tuple[str, str]
    last: tuple[str, str]


@dataclass(frozen=True)
class NumberCurve:
    """A number over the steps, with a line for each model that has it at several.

    Attributes:
        name: of the number.
        ends: its minimum and maximum, as text.
        lines: of the models, None for those without.
    """

    name: str
    ends: tuple[str, str]
    lines: tuple[Line | None, ...]


@dataclass(frozen=True)
class Numbers:
    """Numbers that were measured at steps.

    Attributes:
        curves: of those that were measured at several steps and changed.
        table: of all numbers by step; for several models a column each, at its last step.
    """

    curves: tuple[NumberCurve, ...]
    table: Table


def numbers_over_steps(title: str, models: Sequence[Series], names: Sequence[str]) -> Numbers | None:
    """Sparklines and a table of numbers over the steps; None if there are no numbers.

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
        rows = [["", *map(step_text, steps)]]
        rows += [[tag, *(cell_text(models[0][tag].get(step)) for step in steps)] for tag in tags]
        head, *rows = map(list, zip(*rows, strict=True)) if len(steps) > len(tags) else rows  # taller than wide
    else:
        head = ["", *names]
        last = [{tag: values[max(values)] for tag, values in series.items() if values} for series in models]
        rows = [[tag, *(cell_text(values.get(tag)) for values in last)] for tag in tags]
    curves = [_curve(tag, [series.get(tag, {}) for series in models], names) for tag in tags]
    changing = tuple(curve for curve in curves if any(curve.lines))
    return Numbers(changing, Table(title, tuple(head), tuple(map(tuple, rows))))


def _curve(tag: str, models: Sequence[Mapping[int, float]], names: Sequence[str]) -> NumberCurve:
    finite = [{step: value for step, value in sorted(series.items()) if math.isfinite(value)} for series in models]
    steps = [step for series in finite for step in series]
    values = [value for series in finite for value in series.values()]
    lines: list[Line | None] = []
    for name, series in zip(names, finite, strict=True):
        if len(series) < 2 or len(set(values)) == 1:  # a flat line adds nothing to the table
            lines.append(None)
            continue
        points = [
            (_position(step, steps, WIDTH), round(HEIGHT - _position(value, values, HEIGHT), 1))
            for step, value in series.items()
        ]
        ends = [(step_text(step), cell_text(float(series[step]))) for step in (min(series), max(series))]
        lines.append(Line(name, " ".join(f"{x:g},{y:g}" for x, y in points), points[-1], ends[0], ends[1]))
    lowest, highest = (cell_text(float(end(values))) if values else "" for end in (min, max))
    return NumberCurve(tag, (lowest, highest), tuple(lines))


def _position(value: float, values: Sequence[float], length: int) -> float:
    """A value's position between the minimum and the maximum."""
    share = (value - min(values)) / (max(values) - min(values))
    return round(_MARGIN + share * (length - 2 * _MARGIN), 1)


_LONGEST = 12  # items of a list in one cell
_MOST = 40  # numbers of a model in one column


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        title: of the table.
        head: of the columns.
        rows: as many cells as the head has.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def cell_text(value: Any) -> str:
    """A plain value as the text of a cell.

    >>> cell_text(61706), cell_text(0.95499998), cell_text(None), cell_text([1, 3]), cell_text("<b>")
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
        return ", ".join(map(cell_text, value)) or "–"
    return str(value)


def tables(title: str, values: Sequence[Any], names: Sequence[str]) -> list[Table]:
    """Measured values as tables: one for all that are not nested, and one for each that is.

    Several models have a column each. For one model, a mapping of mappings has rows and columns, and lists of equal
    length stand side by side. A short list among numbers fits into one cell.

    Args:
        title: of the values; that of their parts if empty.
        values: plain, of each model; None if they were not measured.
        names: of the models.

    Returns:
        No table if nothing was measured.
    """
    paths = [path for value in values for path, _ in _leaves(value)]
    if not paths:
        return []
    if all(len(path) == 2 for path in paths):
        lists = [isinstance(part, (list, tuple)) for value in values for part in _parts(value).values()]
        if not any(lists) or len(values) > 1 or not isinstance(values[0], Mapping):
            return [_table(title, values, names)]
        if all(lists):
            columns = (map(cell_text, column) for column in values[0].values())
            return [Table(title, tuple(values[0]), tuple(itertools.zip_longest(*columns, fillvalue="–")))]
    parts = [_parts(value) for value in values]
    keys = list(dict.fromkeys(key for part in parts for key in part))
    nested = [key for key in keys if any(_nested(part.get(key)) for part in parts)]
    flat = [{key: _in_line(value) for key, value in part.items() if key not in nested} for part in parts]
    result = [_table(title, flat, names)] if len(nested) < len(keys) else []
    for key in nested:
        result += _of_models(f"{title}: {key}" if title else str(key), [part.get(key) for part in parts], names)
    return result


def _of_models(title: str, values: Sequence[Any], names: Sequence[str]) -> list[Table]:
    """One table of all models; a large one, such as a confusion matrix, for each."""
    if len(values) > 1 and any(sum(len(path) == 2 for path, _ in _leaves(value)) > _MOST for value in values):
        return [_table(f"{title}, {name}", [value], [name]) for value, name in zip(values, names, strict=True)]
    return [_table(title, values, names)]


def _parts(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return {} if value is None else {"": value}


def _nested(value: Any) -> bool:
    """Whether a value takes a table of its own; a short list does not."""
    if isinstance(value, (list, tuple)):
        return len(value) > _LONGEST or any(isinstance(item, (Mapping, list, tuple)) for item in value)
    return isinstance(value, Mapping)


def _in_line(value: Any) -> Any:
    return cell_text(value) if isinstance(value, (list, tuple)) else value


def _table(title: str, values: Sequence[Any], names: Sequence[str]) -> Table:
    models = [dict(_leaves(value)) for value in values]
    paths = list(dict.fromkeys(path for leaves in models for path in leaves))
    if len(models) == 1 and paths and all(len(path) == 2 for path in paths):
        columns = list(dict.fromkeys(path[1] for path in paths))
        names_of_rows = dict.fromkeys(path[0] for path in paths)
        rows = [(row, *(cell_text(models[0].get((row, column))) for column in columns)) for row in names_of_rows]
        return Table(title, ("", *columns), tuple(rows))
    head = ("", *(names if len(models) > 1 else ("value",)))
    rows = [(" · ".join(path) or title, *(cell_text(leaves.get(path)) for leaves in models)) for path in paths]
    return Table(title, head, tuple(rows))


def numbers_in(value: Any) -> dict[str, float]:
    """The numbers among plain values that are not nested, by name."""
    flat = value.items() if isinstance(value, Mapping) else ()
    return {str(name): float(item) for name, item in flat if isinstance(item, (int, float))}


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        mixed = not all(isinstance(part, (Mapping, list, tuple)) for part in value.values())
        for name, part in value.items():
            yield from _leaves(_in_line(part) if mixed and not _nested(part) else part, (*path, str(name)))
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value, 1):
            yield from _leaves(part, (*path, str(index)))
    elif value is not None or path:
        yield path, value
