"""The notebooks run from top to bottom, without network, in less than two minutes, and show something in each cell."""

import ast
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.py"))
SECONDS = 120  # of a processor; on two cores it takes less time
RUN = """
import ast, re, socket, sys

def refuse(*_):
    raise OSError("no network in this test")

socket.socket.connect = refuse
names = {"__name__": "__main__"}
for cell in re.split(r"^# %%.*$", open(sys.argv[1]).read(), flags=re.M):
    tree = ast.parse(cell)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    if hasattr(value, "_repr_html_"):
        print("SHOWN", type(value).__name__, len(value._repr_html_()))
"""


def shown_cells(path):
    """How many cells end in a value to be shown: a name or a call, but no ``print`` and no ``fit``."""
    trees = [ast.parse(cell) for cell in re.split(r"^# %%.*$", path.read_text(), flags=re.M)]
    last = [ast.unparse(tree.body[-1].value) for tree in trees if tree.body and isinstance(tree.body[-1], ast.Expr)]
    return len([code for code in last if not re.match(r"print\(|['\"]", code)])


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == [
        "1_watch_a_training",
        "2_understand_a_checkpoint",
        "3_attack_and_harden",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom_and_shows_what_it_speaks_of(path, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "TQDM_DISABLE": "1"}
    environment |= {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path)], cwd=tmp_path, env=environment, text=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-3000:]
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS
    shown = re.findall(r"^SHOWN (\w+) (\d+)$", done.stdout, re.M)
    assert len(shown) == shown_cells(path) >= 5
    assert all(100 < int(size) < 400_000 for _, size in shown)
    if path.stem.startswith("1"):
        worst = re.search(r"largest loss: \[(.*)\]", done.stdout)[1].split(", ")
        assert set(worst[:3]) == {"100", "200", "300"}  # the planted mistakes
