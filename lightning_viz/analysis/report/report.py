"""The report: one HTML page without other files."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lightning_viz.analysis.plan import VIEW, Plan
from lightning_viz.analysis.report.tables import (
    HEIGHT,
    WIDTH,
    Numbers,
    Table,
    cell_text,
    numbers_in,
    numbers_over_steps,
    tables,
)
from lightning_viz.analysis.results import FOUND, LEFT_OUT, ModelReport, Result, Shown
from lightning_viz.callbacks.sanity_check import SCORE_TAG
from lightning_viz.catalogue import CATALOGUE, SECTIONS, entry_of, techniques, views
from lightning_viz.catalogue_types import Descriptor
from lightning_viz.plain_text import plain_text
from lightning_viz.render.text import number, step_text

_OURS = ("model", "fares", "notes", LEFT_OUT, FOUND)  # numbers that have places of their own
_LISTED = 10  # classes that are named
_FIGURES = {
    "recall": "Recall of each class",
    "confusion": "Confusions: true classes in rows, predicted ones in columns",
}


@dataclass(frozen=True)
class Group:
    """Everything of one entry of the catalogue.

    Attributes:
        entry: with title and caption.
        rows: of pictures.
        numbers: over the steps.
        tables: of what a technique measured.
    """

    entry: Descriptor
    rows: tuple[Row, ...]
    numbers: Numbers | None
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        key: of `lightning_viz.catalogue.SECTIONS`.
        title: above it.
        groups: in order.
        sanity_check: rank correlations of its maps with an untrained network's, if they were measured.
        faults: what could not be done.
    """

    key: str
    title: str
    groups: tuple[Group, ...]
    sanity_check: Numbers | None
    faults: tuple[str, ...]


def report(studies: Sequence[ModelReport], *, together: Result | None = None) -> str:
    """The results of a model, or of several side by side, as one page without other files.

    The same results give the same page, to the byte.

    Args:
        studies: results of the models; each has a column.
        together: pictures of all models together.

    Returns:
        HTML.
    """
    frames = Frames(studies)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"slug": _slug, "number": number}
    return environment.get_template("report.html.jinja").render(
        names=_names(studies),
        labels=frames.labels,
        techniques=any(study.techniques for study in studies),
        model=_model(studies),
        layers=[(study.name, _layers(study)) for study in studies],
        fares=_fares(studies),
        found=[(study.name, found) for study in studies if (found := findings(study))],
        notes=[(study.name, notes) for study in studies if (notes := _notes(study))],
        plan=studies[0].plan if studies else Plan({}),
        shortened=_shortened(studies[0].plan if studies else Plan({})),
        sections=_sections(studies, frames, together or Result()),
        waiting=[(study.name, study.waiting) for study in studies if study.waiting],
        size=(WIDTH, HEIGHT),
    )


def _sections(studies: Sequence[ModelReport], frames: Frames, together: Result) -> list[Section]:
    """Those that have something to show or a fault."""
    rows: dict[Descriptor, list[Row]] = {}
    for row in [*frames.joint(together), *frames.rows()]:
        rows.setdefault(entry_of(row.tag), []).append(row)
    measured = dict.fromkeys(name for study in studies for name in study.numbers if name not in _OURS)
    names, faults = _names(studies), _faults(studies)
    scalars = [
        _by_step((tag, step, value) for result in study.findings for tag, value, step in result.scalars)
        for study in studies
    ]
    plotted = [entry_of(tag) for by_tag in scalars for tag in by_tag]
    entries = sorted(
        dict.fromkeys([*rows, *map(entry_of, measured), *plotted]),
        key=lambda entry: CATALOGUE.index(entry) if entry in CATALOGUE else len(CATALOGUE),
    )

    def numbers(title: str, here: Sequence[Descriptor], *, checks: bool) -> Numbers | None:
        """Plotted numbers of entries: their sanity checks, or all others."""
        chosen = [
            {
                tag.removesuffix(SCORE_TAG): values
                for tag, values in by_tag.items()
                if tag.endswith(SCORE_TAG) == checks and entry_of(tag) in here
            }
            for by_tag in scalars
        ]
        return numbers_over_steps(title, chosen, names)

    def group(entry: Descriptor) -> Group:
        own = (
            tables(name, [study.numbers.get(name) for study in studies], names)
            for name in measured
            if entry_of(name) == entry
        )
        plots = numbers(entry.title, [entry], checks=False)
        return Group(entry, tuple(rows.get(entry, ())), plots, tuple(chain.from_iterable(own)))

    sections = []
    for key, title in SECTIONS.items():
        here = [entry for entry in entries if entry.section == key]
        if here or faults.get(key):
            check = numbers("Rank correlation with an untrained network's maps", here, checks=True)
            sections.append(Section(key, title, tuple(map(group, here)), check, tuple(faults.get(key, ()))))
    return sections


def _by_step(values: Iterable[tuple[str, int, float]]) -> dict[str, dict[int, float]]:
    """Names, steps and values as a mapping from name and step."""
    by_name: dict[str, dict[int, float]] = {}
    for name, step, value in values:
        by_name.setdefault(name, {})[step] = value
    return by_name


def _names(studies: Sequence[ModelReport]) -> list[str]:
    return [study.name for study in studies]


def _faults(studies: Sequence[ModelReport]) -> dict[str, list[str]]:
    """What could not be done, by section."""
    by_section: dict[str, list[str]] = {}
    for study in studies:
        for fault in chain.from_iterable(result.faults for result in study.findings):
            words = f"{study.name}: {fault}" if len(studies) > 1 else str(fault)
            by_section.setdefault(entry_of(fault.source).section, []).append(words)
    return by_section


def _model(studies: Sequence[ModelReport]) -> Table:
    """Facts about the models."""
    models = [study.numbers.get("model", {}) for study in studies]
    facts = dict.fromkeys(name for model in models for name, value in model.items() if name != "layers" and value)
    rows = [(name.capitalize(), *(_fact(model.get(name)) for model in models)) for name in facts]
    return Table("The model", ("", *_names(studies)), tuple(rows))


def _fact(value: Any) -> str:
    if isinstance(value, list) and len(value) > _LISTED and all(isinstance(item, str) for item in value):
        return f"{len(value):,}: {', '.join(value[:_LISTED])}, …"
    shapes = isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], (list, tuple))
    return ", ".join(" × ".join(cell_text(side) for side in shape) for shape in value) if shapes else cell_text(value)


def _layers(study: ModelReport) -> Table:
    layers: list[dict[str, Any]] = study.numbers.get("model", {}).get("layers", [])
    head = tuple(dict.fromkeys(name for layer in layers for name in layer))
    rows = tuple(tuple(cell_text(layer.get(name)) for name in head) for layer in layers)
    return Table(f"Layers of {study.name}", head, rows)


def _fares(studies: Sequence[ModelReport]) -> tuple[Numbers | None, list[Table]]:
    """The models' metrics: numbers over the steps, and nested values, such as those by class, of the last step."""
    metrics = [
        _by_step(
            (name, step, value)
            for step, result in study.views.items()
            for name, value in numbers_in(result.numbers.get("fares")).items()
        )
        for study in studies
    ]
    nested = [
        {_FIGURES.get(key, key): value for key, value in last.items() if isinstance(value, (dict, list, str))}
        for last in (study.numbers.get("fares", {}) for study in studies)
    ]
    names = _names(studies)
    return numbers_over_steps("How it fares", metrics, names), tables("", nested, names) if any(nested) else []


def findings(study: ModelReport) -> list[tuple[str, str]]:
    """What the techniques found: title of each, and its sentence.

    Args:
        study: the results of a model.
    """
    found = {name: text for result in study.findings for name, text in result.numbers.get(FOUND, {}).items()}
    return [(entry_of(name).title, text) for name, text in found.items()]


def _notes(study: ModelReport) -> list[str]:
    """The views' notes on all checkpoints, each once, and why techniques were left out, each reason once."""
    notes = dict.fromkeys(str(note) for result in study.findings for note in result.numbers.get("notes", []))
    reasons: dict[str, list[str]] = {}
    for result in study.findings:
        for technique, reason in result.numbers.get(LEFT_OUT, {}).items():
            reasons.setdefault(reason, []).append(technique)
    return [*notes, *(f"left out: {', '.join(names)}: {reason}" for reason, names in reasons.items())]


def _shortened(plan: Plan) -> Table:
    """What the plan shortens or leaves out, and how it is had as a whole."""
    rows = []
    for name, choice in {**plan.shortened, **plan.left_out}.items():
        one, _, own = name.partition("/")
        other = "techniques" if name.startswith(VIEW) else "views"
        done = choice.words() or f"left out: at its least about {duration(choice.seconds)}"
        command = f"--{one} {own} --{other} --minutes {plan.minutes_for(name)} --out {own}"
        rows.append((_title(name), done, duration(choice.whole_seconds), command))
    return Table("Shortened", ("", "done", "as a whole", "for it alone"), tuple(rows))


def _title(name: str) -> str:
    """Of a kind of views or a technique, by its name in a plan."""
    one, _, own = name.partition("/")
    entry = views()[own] if f"{one}/" == VIEW else techniques().get(own)
    return own if entry is None else entry.title


def duration(seconds: float) -> str:
    """A time in words, as precise as an estimate is.

    Args:
        seconds: in all.

    >>> duration(0.4), duration(31), duration(200), duration(9000)
    ('1 s', '31 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{number(round(seconds / 60))} min" if seconds < 5400 else f"{number(round(seconds / 3600, 1))} h"


def _harmless(value: Any) -> Any:
    """What the page shows of a name, before it is escaped: without what turns the text around it."""
    return plain_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


_Key = tuple[str, int]
"""A tag, and how often it came before at the same step."""


@dataclass(frozen=True)
class Frame:
    """A picture at one step.

    Attributes:
        number: of its image; equal images have the same.
        source: the image as a data URI; empty if an earlier frame has it.
        width: of the image, in pixels.
        height: of the image, in pixels.
        alt: text in place of the image.
        words: the caption's paragraphs.
        only: the step, if there is a picture of no other.
        at: the slider's positions at which it is shown.
        last: whether it is shown at the last position.
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
    """The pictures of one tag.

    Attributes:
        tag: of the pictures.
        cells: each model's frames, empty if it has no such picture.
        joint: whether there is one cell only, for all models.
    """

    tag: str
    cells: tuple[tuple[Frame, ...], ...]
    joint: bool = False


class Frames:
    """All pictures of the results, as frames.

    Args:
        studies: results of the models, side by side.
    """

    def __init__(self, studies: Sequence[ModelReport]) -> None:
        self._studies = studies
        self._images: dict[bytes, int] = {}
        self.steps = [sorted({*study.views, *(shown.step for shown in study.pictures())}) for study in studies]
        """Of each model, those with a result."""

    @property
    def labels(self) -> list[str]:
        """The slider's labels by position."""
        count = max((len(steps) for steps in self.steps), default=0)
        if all(steps == self.steps[0] for steps in self.steps):
            return [step_text(step) for step in self.steps[0]] if self.steps else []
        return [f"look {position + 1} of {count}" for position in range(count)]

    def rows(self) -> list[Row]:
        """One for each tag, in order; if a tag occurs several times at a step, one for each time.

        Models whose layers have different names show their first layers side by side, and so on.
        """
        series = [_series(study) for study in self._studies]
        return [
            Row(
                next(key[0] for key in keys if key is not None),
                tuple(self._frames(index, series[index].get(key, {}) if key else {}) for index, key in enumerate(keys)),
            )
            for keys in _beside([list(by_key) for by_key in series])
        ]

    def joint(self, together: Result) -> list[Row]:
        """One for each picture of all models together, shown at every position.

        Args:
            together: with the pictures.
        """
        positions = tuple(range(len(self.labels)))
        return [
            Row(shown.picture.tag, ((self._frame(shown, positions, only="", last=True),),), joint=True)
            for shown in together.pictures
        ]

    def _frames(self, index: int, by_step: dict[int, Shown]) -> tuple[Frame, ...]:
        if not by_step:
            return ()
        steps, count = self.steps[index], len(self.labels)
        at: dict[int, list[int]] = {}
        for position in range(count):
            now = steps[min(position, len(steps) - 1)]
            at.setdefault(max((step for step in by_step if step <= now), default=min(by_step)), []).append(position)
        alone = len(by_step) == 1 and len(steps) > 1
        return tuple(
            self._frame(
                by_step[step], tuple(at[step]), only=step_text(step) if alone else "", last=count - 1 in at[step]
            )
            for step in sorted(at)
        )

    def _frame(self, shown: Shown, at: tuple[int, ...], *, only: str, last: bool) -> Frame:
        picture = shown.picture
        new = picture.image not in self._images
        number = self._images.setdefault(picture.image, len(self._images))
        source = f"data:image/{picture.kind};base64,{base64.b64encode(picture.image).decode()}" if new else ""
        head = picture.description.partition("\n\n")[0].replace("**", "")
        alt = " ".join(head.split()) or picture.tag
        words = paragraphs(picture.description)
        return Frame(number, source, picture.width, picture.height, alt, words, only, at, last)


def paragraphs(description: str) -> tuple[Markup, ...]:
    r"""A picture's description as HTML: escaped, but for lines in bold and line breaks.

    Args:
        description: Markdown, as `Picture.description`.

    >>> paragraphs("**Maps of <b>**  \nstep 3\n\nLeft the input.")
    (Markup('<strong>Maps of &lt;b&gt;</strong><br>step 3'), Markup('Left the input.'))
    """
    blocks = []
    for part in re.split(r"\n\s*\n", description.strip()):
        escaped = (str(escape(plain_text(line.strip()))) for line in part.split("\n"))
        lines = (re.sub(r"^\*\*(.+)\*\*$", r"<strong>\1</strong>", line) for line in escaped)
        blocks.append(Markup("<br>".join(lines)))
    return tuple(blocks)


def _beside(keys: Sequence[Sequence[_Key]]) -> list[tuple[_Key | None, ...]]:
    """The keys in one row, of each model: the same tags, or those at the same index of a view.

    >>> _beside([[("maps/conv1", 0), ("maps/conv2", 0)], [("maps/stem", 0)], [("filters", 0)]])[:2]
    [(('maps/conv1', 0), ('maps/stem', 0), None), (('maps/conv2', 0), None, None)]
    """
    rows: list[tuple[_Key | None, ...]] = []
    for kind in dict.fromkeys(tag.partition("/")[0] for own in keys for tag, _ in own):
        here = [[key for key in own if key[0].partition("/")[0] == kind] for own in keys]
        named = list(dict.fromkeys(key for own in here for key in own))
        alike = any(all(key in own for own in here if own) for key in named)
        rows += [tuple(key if key in own else None for own in here) for key in named] if alike else zip_longest(*here)
    return rows


def _series(study: ModelReport) -> dict[_Key, dict[int, Shown]]:
    """Pictures by step, for each tag and each time that it occurs at a step."""
    series: dict[_Key, dict[int, Shown]] = {}
    for shown in study.pictures():
        tag, turn = shown.picture.tag, 0
        while shown.step in series.setdefault((tag, turn), {}):
            turn += 1
        series[tag, turn][shown.step] = shown
    return series
