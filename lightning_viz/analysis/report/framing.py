"""Pictures side by side and over the steps: what stands where on a report's page, and when."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from markupsafe import Markup, escape

from lightning_viz.analysis.findings import Finding, Shown
from lightning_viz.analysis.study import Study
from lightning_viz.render.text import step_text

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

    def __init__(self, studies: Sequence[Study]) -> None:
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

    def joint(self, finding: Finding) -> list[Row]:
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


def _series(study: Study) -> dict[_Key, dict[int, Shown]]:
    """Of each tag, and each time that it comes at a step, the pictures by step."""
    found: dict[_Key, dict[int, Shown]] = {}
    for shown in study.pictures():
        tag, turn = shown.picture.tag, 0
        while shown.step in found.setdefault((tag, turn), {}):
            turn += 1
        found[tag, turn][shown.step] = shown
    return found
