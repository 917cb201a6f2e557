"""The guide to a new method is followed on a copy of the package, where the method is everywhere by itself."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
STEP = re.compile(r"`(?P<path>(?:lightning_viz|tests)/[\w/]+\.py)`|^```diff\n(?P<change>.*?)^```$", re.M | re.S)
CHOSEN = "absolute_cam or every_public_function or types_of_method_names"
APPEARS = '''
"""What nobody wrote for absolute_cam."""

from pathlib import Path

import pytest

import lightning_viz
from lightning_viz import GradCAM, attribution
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.studies.attribution import every_attribution
from lightning_viz.callbacks.probe import Samples
from lightning_viz.cli.main import run_command_line
from lightning_viz.pixels import PixelSpace
from tests.callbacks.conftest import LIGHTNING_SAYS, ConvNet, fit, images

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_SAYS]
ROOT = Path(__file__).parents[1]


def test_absolute_cam_is_a_function_of_the_copy():
    assert Path(lightning_viz.__file__).is_relative_to(ROOT) and "absolute_cam" in attribution.__all__


def test_absolute_cam_is_a_command(tmp_path, capsys):
    source = ["--model", "tests.callbacks.conftest.ConvNet", "--data", "tests.analysis.nets.Squares"]
    assert run_command_line(["attribute", "absolute_cam", *source, "--out", str(tmp_path)]) == 0
    assert list(tmp_path.rglob("*.png")) and "absolute_cam" in capsys.readouterr().out


def test_absolute_cam_is_a_view(tmp_path):
    fit(tmp_path, ConvNet(), [GradCAM(method="absolute_cam", every_n_epochs=1)], logger=False)
    assert list((tmp_path / "lightning_viz_logs").rglob("*absolute_cam*"))


def test_absolute_cam_is_in_the_report():
    shown, labels = images(4, height=16, width=16)
    study = ModelUnderStudy("net", ConvNet().eval(), Samples(shown, labels, 4), PixelSpace())
    numbers = {output.name: output.numbers for output in every_attribution(study, samples=2, copies=2)}
    assert "Absolute CAM" in numbers["attributions"]


def test_absolute_cam_is_in_the_documentation(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import documentation

    assert "Absolute CAM" in documentation.completed("<!-- generated: methods attribution -->")
'''


def steps():
    """Each change of the guide, with the file that was named last before it."""
    path, found = "", []
    for match in STEP.finditer(GUIDE):
        path = match["path"] or path
        if match["change"] is not None:
            found.append((path, match["change"]))
    return found


def follow(folder, path, change):
    """Make a change: lines with ``+`` are new, the others are there and say where; at the end if there are none."""
    lines = change.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if not line.startswith("+"))
    after = "".join(line[1:] for line in lines)
    text = (folder / path).read_text()
    assert not before or text.count(before) == 1, f"{path} is another now; the guide looks for\n{before}"
    (folder / path).write_text(text.replace(before, after) if before else text + after)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    for part in ("lightning_viz", "tests", "tools"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (ROOT / "pyproject.toml", ROOT / "README.md", *ROOT.glob("lightning_viz_*.py")):
        shutil.copy(file, folder)
    for path, change in steps():
        follow(folder, path, change)
    run(folder, "tools/public_face.py")
    return folder


def run(folder, *command):
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.slow
def test_a_method_made_by_the_guide_is_in_views_commands_report_and_documentation_and_passes_every_methods_tests(copy):
    (copy / "tests" / "test_absolute_cam.py").write_text(APPEARS)
    files = ("test_absolute_cam.py", "test_catalogue.py", "attribution/test_cam_weightings.py")
    files = [f"tests/{file}" for file in (*files, "attribution/test_methods.py")]
    said = run(copy, "-m", "pytest", "-p", "no:cacheprovider", "-k", CHOSEN, *files)
    assert int(re.search(r"(\d+) passed", said)[1]) > 40 and "skipped" not in said


def test_the_guides_code_is_in_the_projects_style(copy):
    changed = sorted({path for path, _ in steps()})
    assert len(changed) == 4
    for command in (["check"], ["format", "--check"]):
        run(copy, "-m", "ruff", *command, "--no-cache", *changed)
