"""All that is known of a model when its analysis has ended: what a report is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lightning_viz.analysis.findings import Finding, Shown


@dataclass
class Study:
    """What was found of one model.

    Attributes:
        name: of the model.
        views: by step, what the views drew, in order; their `numbers` hold ``"model"`` (what it is) and ``"fares"``.
        techniques: by name, what went deeper, into the last checkpoint.
        waiting: what is still to be done, where the analysis was interrupted.
    """

    name: str
    views: dict[int, Finding] = field(default_factory=dict)
    techniques: dict[str, Finding] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        """All of them, in order."""
        return [*self.views.values(), *self.techniques.values()]

    @property
    def numbers(self) -> dict[str, Any]:
        """Of the last checkpoint, all that was measured."""
        found: dict[str, Any] = {}
        for finding in self.findings:
            found.update(finding.numbers)
        return found

    def pictures(self) -> Iterator[Shown]:
        """All of them, in order."""
        for finding in self.findings:
            yield from finding.pictures
