"""The nastiest rows of `benchmarks/faults.py`: whatever strikes the views' work, a run ends as without them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLUMNS = ("end", "weights", "checkpoints", "torn", "left")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of each row, by stage, fault and place."""
    path = tmp_path_factory.mktemp("faults") / "results.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--slice", "--json", str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert path.exists(), done.stderr[-1000:]
    return json.loads(path.read_text())


@pytest.mark.slow
def test_every_fault_strikes(results):
    assert len(results) >= 12
    assert [result["row"] for result in results if not result["fired"]] == []


@pytest.mark.slow
@pytest.mark.parametrize("column", COLUMNS)
def test_nothing_is_otherwise_than_without_views(column, results):
    assert [(result["row"], words) for result in results if (words := result["wrong"][column])] == []
