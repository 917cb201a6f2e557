"""What a view found, in plain values beside a run's log, for `lightning-viz digest`: JSON alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_viz.archive import json_values, write_whole
from lightning_viz.plain_text import file_name

FACTS = "lightning_viz_digest"
"""Folder of the files, beside a run's log; each holds what a view found at its last look."""


def write_facts(folder: Path, tag: str, step: int, facts: Mapping[str, Any]) -> None:
    """Write what a view found, in place of what it found before.

    Args:
        folder: of the log.
        tag: of the picture that shows it.
        step: completed updates.
        facts: plain values.
    """
    path = folder / FACTS / f"{file_name(tag, tag.replace('/', '.'))}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"tag": tag, "step": step, **facts}
    write_whole(path, json.dumps(json_values(content), allow_nan=False, indent=1).encode())
