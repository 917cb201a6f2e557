"""The report: one page that holds all that was found, to be opened anywhere and sent to anyone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lightning_viz.analysis.findings import Finding
from lightning_viz.analysis.report.curving import HEIGHT, WIDTH, Numbers, numbers
from lightning_viz.analysis.report.framing import Frames, Row
from lightning_viz.analysis.report.reading import READINGS, SECTIONS, Reading, kind_of, reading_of
from lightning_viz.analysis.report.tabulating import Table, numbers_in, said, tables
from lightning_viz.analysis.study import Study

_BELIEVABLE = "/randomisation"
_OURS = ("model", "fares", "notes")  # numbers that have places of their own
_LISTED = 10  # classes that are named
_FIGURES = {
    "recall": "Recall of each class",
    "confusion": "Confusions: true classes in rows, predicted ones in columns",
}


@dataclass(frozen=True)
class Group:
    """All of one kind.

    Attributes:
        key: the kind.
        reading: how to read it.
        rows: of pictures.
        numbers: over the steps.
        tables: of what a technique measured.
    """

    key: str
    reading: Reading
    rows: tuple[Row, ...]
    numbers: Numbers | None
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Section:
    """One chapter.

    Attributes:
        key: of `reading.SECTIONS`.
        title: above it.
        groups: in order.
        believable: how far its maps can be believed, where that was measured.
        faults: what could not be done.
    """

    key: str
    title: str
    groups: tuple[Group, ...]
    believable: Numbers | None
    faults: tuple[str, ...]


def report(studies: Sequence[Study], *, together: Finding | None = None) -> str:
    """All that was found of a model, or of several side by side, as one page without any other file.

    The same studies give the same page, to the byte.

    Args:
        studies: of the models; each has its column.
        together: what was drawn of all of them into one picture.

    Returns:
        HTML.
    """
    frames = Frames(studies)
    names = [study.name for study in studies]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["slug"] = _slug
    return environment.get_template("report.html.jinja").render(
        names=names,
        labels=frames.labels,
        techniques=any(study.techniques for study in studies),
        model=_model(studies),
        layers=[(study.name, _layers(study)) for study in studies],
        fares=_fares(studies),
        notes=[(study.name, notes) for study in studies if (notes := _notes(study))],
        sections=_sections(studies, frames, together or Finding()),
        waiting=[(study.name, study.waiting) for study in studies if study.waiting],
        size=(WIDTH, HEIGHT),
    )


def _sections(studies: Sequence[Study], frames: Frames, together: Finding) -> list[Section]:
    """Those that have something to show or to say."""
    rows: dict[str, list[Row]] = {}
    for row in [*frames.joint(together), *frames.rows()]:
        rows.setdefault(kind_of(row.tag), []).append(row)
    measured = {name: kind_of(name) for study in studies for name in study.numbers if name not in _OURS}
    scalars = [_scalars(study) for study in studies]
    known = list(READINGS)
    kinds = sorted(
        dict.fromkeys([*rows, *measured.values(), *(kind_of(tag) for one in scalars for tag in one)]),
        key=lambda kind: known.index(kind) if kind in known else len(known),
    )
    faults = _faults(studies)
    found = []
    for key, title in SECTIONS.items():
        here = [kind for kind in kinds if reading_of(kind).section == key]
        groups = [_group(kind, tuple(rows.get(kind, ())), measured, studies) for kind in here]
        believable = [
            {tag: values for tag, values in one.items() if tag.endswith(_BELIEVABLE) and kind_of(tag) in here}
            for one in scalars
        ]
        if groups or faults.get(key):
            score = numbers("Rank correlation with an untrained network's maps", _short(believable), _names(studies))
            found.append(Section(key, title, tuple(groups), score, tuple(faults.get(key, ()))))
    return found


def _group(kind: str, rows: tuple[Row, ...], measured: dict[str, str], studies: Sequence[Study]) -> Group:
    scalars = [
        {tag: one for tag, one in _scalars(study).items() if kind_of(tag) == kind and not tag.endswith(_BELIEVABLE)}
        for study in studies
    ]
    measures = [
        one
        for name, belongs in measured.items()
        if belongs == kind
        for one in tables(name, [study.numbers.get(name) for study in studies], _names(studies))
    ]
    read = reading_of(kind)
    return Group(kind, read, rows, numbers(read.title, scalars, _names(studies)), tuple(measures))


def _scalars(study: Study) -> dict[str, dict[int, float]]:
    """What was plotted, by tag and step."""
    found: dict[str, dict[int, float]] = {}
    for finding in study.findings:
        for tag, value, step in finding.scalars:
            found.setdefault(tag, {})[step] = value
    return found


def _short(scalars: Sequence[dict[str, dict[int, float]]]) -> list[dict[str, dict[int, float]]]:
    return [{tag.removesuffix(_BELIEVABLE): values for tag, values in one.items()} for one in scalars]


def _names(studies: Sequence[Study]) -> list[str]:
    return [study.name for study in studies]


def _faults(studies: Sequence[Study]) -> dict[str, list[str]]:
    """What could not be done, by section; a fault begins with the name of the view or technique."""
    found: dict[str, list[str]] = {}
    for study in studies:
        for finding in study.findings:
            for fault in finding.faults:
                name = re.split(r"[ :]", fault, maxsplit=1)[0]
                words = f"{study.name}: {fault}" if len(studies) > 1 else fault
                found.setdefault(reading_of(kind_of(name)).section, []).append(words)
    return found


def _model(studies: Sequence[Study]) -> Table:
    """What the models are."""
    known = [study.numbers.get("model", {}) for study in studies]
    facts = dict.fromkeys(name for one in known for name, value in one.items() if name != "layers" and value)
    rows = [(name.capitalize(), *(_fact(one.get(name)) for one in known)) for name in facts]
    return Table("The model", ("", *_names(studies)), tuple(rows))


def _fact(value: Any) -> str:
    if isinstance(value, list) and len(value) > _LISTED and all(isinstance(one, str) for one in value):
        return f"{len(value):,}: {', '.join(value[:_LISTED])}, …"
    shapes = isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], (list, tuple))
    return ", ".join(" × ".join(said(side) for side in shape) for shape in value) if shapes else said(value)


def _layers(study: Study) -> Table:
    known: list[dict[str, Any]] = study.numbers.get("model", {}).get("layers", [])
    head = tuple(dict.fromkeys(name for layer in known for name in layer))
    rows = tuple(tuple(said(layer.get(name)) for name in head) for layer in known)
    return Table(f"Layers of {study.name}", head, rows)


def _fares(studies: Sequence[Study]) -> tuple[Numbers | None, list[Table]]:
    """How the models fare: numbers over the steps, and of the last what is nested, such as figures by class."""
    over: list[dict[str, dict[int, float]]] = []
    for study in studies:
        found: dict[str, dict[int, float]] = {}
        for step, finding in study.views.items():
            for name, value in numbers_in(finding.numbers.get("fares")).items():
                found.setdefault(name, {})[step] = value
        over.append(found)
    last = [study.numbers.get("fares", {}) for study in studies]
    nested = [
        {_FIGURES.get(key, key): value for key, value in one.items() if isinstance(value, (dict, list, str))}
        for one in last
    ]
    return numbers("How it fares", over, _names(studies)), tables("", nested, _names(studies)) if any(nested) else []


def _notes(study: Study) -> list[str]:
    """What views had to say of all checkpoints, each once."""
    return list(dict.fromkeys(str(note) for one in study.findings for note in one.numbers.get("notes", [])))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
