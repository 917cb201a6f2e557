"""The nastiest rows of `benchmarks/faults.py`: whatever strikes the views' work, a run ends as without them.

Their processes are forked from this one, which has imported everything.
"""

from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COLUMNS = ("end", "weights", "checkpoints", "torn", "left")


@pytest.fixture(scope="module")
def results():
    """Of each row, by stage, fault and place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import faults

        found = []
        faults.in_turn(faults.NASTIEST, 4, found.append)
    return found


def test_every_fault_strikes(results):
    assert len(results) >= 12
    assert [result["row"] for result in results if not result["fired"]] == []


@pytest.mark.parametrize("column", COLUMNS)
def test_nothing_is_otherwise_than_without_views(column, results):
    assert [(result["row"], words) for result in results if (words := result["wrong"][column])] == []
