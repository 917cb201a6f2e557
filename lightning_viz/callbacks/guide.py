"""What a run says of its views as it begins: which they are, the command that shows them, how to read each."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from lightning_viz.callbacks.run_protocol import Named
from lightning_viz.catalogue import CATALOGUE, OVERVIEW, views
from lightning_viz.catalogue_types import Method

GUIDE_TAG = "how_to_read"
"""Under which the text of `reading_guide` stands on TensorBoard."""


def opening_line(running: Sequence[Named], folder: Path | None) -> str:
    """What is watched, and the command that opens the pictures.

    Args:
        running: views that suit the model.
        folder: of TensorBoard's log; None where there is none, or on no local file system.
    """
    names = ", ".join(dict.fromkeys(view.label for view in running))
    command = "" if folder is None else f"; to see the pictures: lightning-viz board {shlex.quote(str(folder))}"
    return f"watched by {names}{command}"


def reading_guide(running: Sequence[Named]) -> str:
    """How to read the pictures of each view, as Markdown.

    Args:
        running: views of the run.
    """
    kinds = dict.fromkeys(view.kind for view in running)
    ordered = sorted(kinds, key=lambda kind: OVERVIEW.index(kind) if kind in OVERVIEW else len(OVERVIEW))
    lines = ["How to read the pictures (Images tab). A picture's own line says its step, scale and counts."]
    for kind in ordered:
        entry = views().get(kind)
        if entry is not None:
            lines.append(f"- **{entry.title}** (`{kind}`): {entry.caption} {_methods(kind, running)}".rstrip())
    return "\n".join([lines[0], "", *lines[1:]])


def _methods(kind: str, running: Sequence[Named]) -> str:
    """The captions of the methods by which a kind of view draws."""
    used = {getattr(view, "method", "") for view in running if view.kind == kind}
    rows = [each for each in CATALOGUE if isinstance(each, Method) and each.view == kind and each.name in used]
    return " ".join(f"{row.title}: {row.caption}" for row in rows)
