"""The path of a report, which a notebook shows with what was found."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from lightning_viz.plain_text import plain_text
from lightning_viz.rich_display import html_table

_Path: Any = type(Path())  # of this system: before Python 3.12 Path itself has no subclasses of others


class ReportPath(_Path):  # type: ignore[misc]
    """A path like any other; paths that are made of it have no findings.

    Attributes:
        found: title and sentence of each finding, of each model that was analyzed.
    """

    found: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, path: Path, found: Iterable[tuple[str, str]]) -> Path:
        """A report's path with its findings.

        Args:
            path: of the report.
            found: see `found`.
        """
        report = cls(path)
        report.found = tuple(found)
        result: Path = report
        return result

    def _repr_html_(self) -> str:
        link = f'<a href="{escape(self.resolve().as_uri())}">{escape(plain_text(self.name))}</a>'
        return html_table("Report", dict(self.found), link)
