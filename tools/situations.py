"""Writes docs/situations.md, the table of the situations that are tested: python tools/situations.py."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs" / "situations.md"

_HEAD = """# What happens in situations from use

Written by `python tools/situations.py` from `tests/situations`, where each row is a test that checks the truth of what
is drawn. A row that is not right yet says what happens instead.
"""


def table() -> str:
    """The table in Markdown, a section for each kind."""
    sys.path.insert(0, str(ROOT))
    for path in sorted((ROOT / "tests" / "situations").glob("test_*.py")):
        importlib.import_module(f"tests.situations.{path.stem}")
    situation = importlib.import_module("tests.situations.situation")
    rows = list(situation.REGISTRY.values())
    counts = [f"{sum(row.outcome == outcome for row in rows)} {outcome}" for outcome in situation.OUTCOMES]
    lines = [_HEAD, f"{len(rows)} situations: {', '.join(counts)}."]
    for kind, title in situation.KINDS.items():
        lines += ["", f"## {kind}. {title}", "", "| situation | what happens |", "| --- | --- |"]
        for row in sorted((row for row in rows if row.kind == kind), key=lambda row: row.build.__module__):
            happens = f"{row.outcome} (not yet: {row.today})" if row.today else row.outcome
            lines.append(f"| {_cell(row.what)} | {_cell(happens)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Text within a row."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    TABLE.write_text(table())
