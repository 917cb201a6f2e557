"""The table in the documentation, and the harness itself."""

import importlib.util
from pathlib import Path

import pytest

from .situation import ARGUMENT, REFUSED, RIGHT, Call, Seen, Situation

ROOT = Path(__file__).parents[2]


def generator():
    """tools/situations.py as a module."""
    spec = importlib.util.spec_from_file_location("situations_table", ROOT / "tools" / "situations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_is_up_to_date():
    written = generator()
    assert written.TABLE.read_text() == written.table(), "run python tools/situations.py"


def test_sixty_situations_of_which_forty_five_need_no_argument():
    from .situation import REGISTRY

    generator().table()
    assert len(REGISTRY) >= 60
    assert sum(row.outcome == RIGHT for row in REGISTRY.values()) >= 45


def row(function, outcome, says="", check=lambda seen: None):
    return Situation(1, "row", "a row", lambda: (Call(function), check), outcome, says)


def warn(*lines):
    """Prints as lightning_viz does."""
    from lightning_viz.errors import inform

    for line in lines:
        inform(line)


def fail():
    raise ValueError("images are [3, 4]: give probe=")


def test_right(tmp_path):
    row(lambda: 3, RIGHT).verify(tmp_path)


def test_a_wrong_value_is_not_right(tmp_path):
    def check(seen: Seen):
        assert seen.value == 4

    with pytest.raises(AssertionError):
        row(lambda: 3, RIGHT, check=check).verify(tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        ["GradCAM failed at step 0: RuntimeError: shapes (training continues)"],
        ["GradCAM failed at step 0: shapes", "Saliency failed at step 2: shapes"],
    ],
    ids=["a fault", "a cause twice"],
)
def test_what_is_not_right(tmp_path, lines):
    with pytest.raises(AssertionError):
        row(lambda: warn(*lines), RIGHT).verify(tmp_path)


def test_an_argument_must_be_named_in_one_line(tmp_path):
    row(lambda: warn("give target="), ARGUMENT, "target=").verify(tmp_path)
    for lines in ([], ["give target=", "or target="]):
        with pytest.raises(AssertionError):
            row(lambda lines=lines: warn(*lines), ARGUMENT, "target=").verify(tmp_path)


def test_a_refusal_must_give_the_reason(tmp_path):
    row(fail, REFUSED, "probe=").verify(tmp_path)
    with pytest.raises(AssertionError):
        row(fail, REFUSED, "target=").verify(tmp_path)
    with pytest.raises(AssertionError):
        row(lambda: 3, REFUSED, "probe=").verify(tmp_path)
