"""The report: one page that holds all that was found, to be opened anywhere and sent to anyone."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lightning_viz.analysis.report.captions import READINGS, SECTIONS, Reading, kind_of, reading_of
from lightning_viz.analysis.report.tables import HEIGHT, WIDTH, Numbers, Table, numbers, numbers_in, said, tables
from lightning_viz.analysis.results import ModelReport, Result, Shown
from lightning_viz.render.text import step_text

_SANITY_CHECK = "/randomization"
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
        sanity_check: how far its maps can be believed, where that was measured.
        faults: what could not be done.
    """

    key: str
    title: str
    groups: tuple[Group, ...]
    sanity_check: Numbers | None
    faults: tuple[str, ...]


def report(studies: Sequence[ModelReport], *, together: Result | None = None) -> str:
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
        sections=_sections(studies, frames, together or Result()),
        waiting=[(study.name, study.waiting) for study in studies if study.waiting],
        size=(WIDTH, HEIGHT),
    )


def _sections(studies: Sequence[ModelReport], frames: Frames, together: Result) -> list[Section]:
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
        sanity_check = [
            {tag: values for tag, values in one.items() if tag.endswith(_SANITY_CHECK) and kind_of(tag) in here}
            for one in scalars
        ]
        if groups or faults.get(key):
            score = numbers("Rank correlation with an untrained network's maps", _short(sanity_check), _names(studies))
            found.append(Section(key, title, tuple(groups), score, tuple(faults.get(key, ()))))
    return found


def _group(kind: str, rows: tuple[Row, ...], measured: dict[str, str], studies: Sequence[ModelReport]) -> Group:
    scalars = [
        {tag: one for tag, one in _scalars(study).items() if kind_of(tag) == kind and not tag.endswith(_SANITY_CHECK)}
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


def _scalars(study: ModelReport) -> dict[str, dict[int, float]]:
    """What was plotted, by tag and step."""
    found: dict[str, dict[int, float]] = {}
    for finding in study.findings:
        for tag, value, step in finding.scalars:
            found.setdefault(tag, {})[step] = value
    return found


def _short(scalars: Sequence[dict[str, dict[int, float]]]) -> list[dict[str, dict[int, float]]]:
    return [{tag.removesuffix(_SANITY_CHECK): values for tag, values in one.items()} for one in scalars]


def _names(studies: Sequence[ModelReport]) -> list[str]:
    return [study.name for study in studies]


def _faults(studies: Sequence[ModelReport]) -> dict[str, list[str]]:
    """What could not be done, by section; a fault begins with the name of the view or technique."""
    found: dict[str, list[str]] = {}
    for study in studies:
        for finding in study.findings:
            for fault in finding.faults:
                name = re.split(r"[ :]", fault, maxsplit=1)[0]
                words = f"{study.name}: {fault}" if len(studies) > 1 else fault
                found.setdefault(reading_of(kind_of(name)).section, []).append(words)
    return found


def _model(studies: Sequence[ModelReport]) -> Table:
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


def _layers(study: ModelReport) -> Table:
    known: list[dict[str, Any]] = study.numbers.get("model", {}).get("layers", [])
    head = tuple(dict.fromkeys(name for layer in known for name in layer))
    rows = tuple(tuple(said(layer.get(name)) for name in head) for layer in known)
    return Table(f"Layers of {study.name}", head, rows)


def _fares(studies: Sequence[ModelReport]) -> tuple[Numbers | None, list[Table]]:
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


def _notes(study: ModelReport) -> list[str]:
    """What views had to say of all checkpoints, each once."""
    return list(dict.fromkeys(str(note) for one in study.findings for note in one.numbers.get("notes", [])))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


_Key = tuple[str, int]
"""A tag, and how often it came before at the same step."""


@dataclass(frozen=True)
class Frame:
    """A picture at one step.

    Attributes:
        number: of its image; equal images have the same.
        source: the image itself, as a data URI; empty where an earlier frame has it.
        width: of the image, in pixels.
        height: of the image, in pixels.
        alt: what it shows, for who cannot see it.
        words: the caption's paragraphs.
        only: the step, where there is a picture of no other.
        at: the slider's positions at which it is shown.
        last: whether it is shown at the last of them.
    """

    number: int
    source: str
    width: int
    height: int
    alt: str
    words: tuple[Markup, ...]
    only: str
    at: tuple[int, ...]
    last: bool


@dataclass(frozen=True)
class Row:
    """One tag.

    Attributes:
        tag: of the pictures.
        cells: for each model its frames, none where it has no such picture.
        joint: whether there is one cell only, of all models.
    """

    tag: str
    cells: tuple[tuple[Frame, ...], ...]
    joint: bool = False


class Frames:
    """Everything that studies show, as frames.

    Args:
        studies: side by side.
    """

    def __init__(self, studies: Sequence[ModelReport]) -> None:
        self._studies = studies
        self._images: dict[bytes, int] = {}
        self.steps = [sorted({*study.views, *(one.step for one in study.pictures())}) for study in studies]
        """Of each study, those of which there is something."""

    @property
    def labels(self) -> list[str]:
        """What the slider says at each position."""
        count = max((len(steps) for steps in self.steps), default=0)
        if all(steps == self.steps[0] for steps in self.steps):
            return [step_text(step) for step in self.steps[0]] if self.steps else []
        return [f"look {position + 1} of {count}" for position in range(count)]

    def rows(self) -> list[Row]:
        """One for each tag, in order; where a tag comes several times at a step, one for each.

        Models whose layers are not called alike show their first layer beside the first, and so on.
        """
        series = [_series(study) for study in self._studies]
        return [
            Row(
                next(key[0] for key in keys if key is not None),
                tuple(self._frames(place, series[place].get(key, {}) if key else {}) for place, key in enumerate(keys)),
            )
            for keys in _beside([list(one) for one in series])
        ]

    def joint(self, finding: Result) -> list[Row]:
        """One for each picture of all models together, shown whatever the step.

        Args:
            finding: with the pictures.
        """
        positions = tuple(range(len(self.labels)))
        frames = [self._frame(shown, positions, only="", last=True) for shown in finding.pictures]
        return [
            Row(shown.picture.tag, ((frame,),), joint=True)
            for shown, frame in zip(finding.pictures, frames, strict=True)
        ]

    def _frames(self, place: int, by_step: dict[int, Shown]) -> tuple[Frame, ...]:
        if not by_step:
            return ()
        steps, positions = self.steps[place], range(len(self.labels))
        at: dict[int, list[int]] = {}
        for position in positions:
            now = steps[min(position, len(steps) - 1)]
            earlier = [step for step in by_step if step <= now]
            at.setdefault(max(earlier) if earlier else min(by_step), []).append(position)
        alone = len(by_step) == 1 and len(steps) > 1
        return tuple(
            self._frame(
                by_step[step], tuple(at[step]), only=step_text(step) if alone else "", last=positions[-1] in at[step]
            )
            for step in sorted(at)
        )

    def _frame(self, shown: Shown, at: tuple[int, ...], *, only: str, last: bool) -> Frame:
        picture = shown.picture
        new = picture.image not in self._images
        number = self._images.setdefault(picture.image, len(self._images))
        kind = "gif" if picture.image.startswith(b"GIF") else "png"
        source = f"data:image/{kind};base64,{base64.b64encode(picture.image).decode()}" if new else ""
        head = picture.description.partition("\n\n")[0].replace("**", "")
        alt = " ".join(head.split()) or picture.tag
        words = paragraphs(picture.description)
        return Frame(number, source, picture.width, picture.height, alt, words, only, at, last)


def paragraphs(description: str) -> tuple[Markup, ...]:
    r"""A picture's description as HTML: escaped, but for bold and line breaks.

    Args:
        description: Markdown, as `Picture.description`.

    >>> paragraphs("**Maps of <b>**  \nstep 3\n\nLeft the input.")
    (Markup('<strong>Maps of &lt;b&gt;</strong><br>step 3'), Markup('Left the input.'))
    """
    found = []
    for part in re.split(r"\n\s*\n", description.strip()):
        lines = [
            re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(line.strip()))) for line in part.split("\n")
        ]
        found.append(Markup("<br>".join(lines)))
    return tuple(found)


def _beside(keys: Sequence[Sequence[_Key]]) -> list[tuple[_Key | None, ...]]:
    """What stands in one row, of each model: the same tags, or what a view drew at the same place.

    >>> _beside([[("maps/conv1", 0), ("maps/conv2", 0)], [("maps/stem", 0)], [("filters", 0)]])[:2]
    [(('maps/conv1', 0), ('maps/stem', 0), None), (('maps/conv2', 0), None, None)]
    """
    rows: list[tuple[_Key | None, ...]] = []
    for kind in dict.fromkeys(tag.partition("/")[0] for one in keys for tag, _ in one):
        here = [[key for key in one if key[0].partition("/")[0] == kind] for one in keys]
        named = list(dict.fromkeys(key for one in here for key in one))
        alike = any(all(key in one for one in here if one) for key in named)
        rows += [tuple(key if key in one else None for one in here) for key in named] if alike else zip_longest(*here)
    return rows


def _series(study: ModelReport) -> dict[_Key, dict[int, Shown]]:
    """Of each tag, and each time that it comes at a step, the pictures by step."""
    found: dict[_Key, dict[int, Shown]] = {}
    for shown in study.pictures():
        tag, turn = shown.picture.tag, 0
        while shown.step in found.setdefault((tag, turn), {}):
            turn += 1
        found[tag, turn][shown.step] = shown
    return found
