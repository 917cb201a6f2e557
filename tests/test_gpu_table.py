"""`make gpu` without a GPU: every line of it runs, so that only the numbers are missing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = {
    "a file of tests": {"device rows"},
    "training with default views": {
        "as it is", "torch.compile", "mixed precision", "channels-last", "CUDA graphs", "CUDA graphs of callables",
    },
    "lenet, of bare passes": {
        "gradient", "input x gradient", "SmoothGrad", "integrated gradients", "RISE", "FGSM", "PGD",
        "dream of a class", "Grad-CAM", "Grad-CAM, every convolution", "guided backpropagation", "Score-CAM",
        "Ablation-CAM", "occlusion",
    },
    "shufflenet_v2_x0_5, of bare passes": {"dream of a class, torch-lucent", "PGD, foolbox"},
}  # fmt: skip
UNMEASURED = ("not installed: ", "no graphs on a CPU")


@pytest.mark.slow
def test_a_dry_run_has_every_row(tmp_path):
    out, tests = tmp_path / "table.md", tmp_path / "test_one.py"
    tests.write_text("def test_one():\n    pass\n")  # the device rows themselves run beside this test
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--quick", "--tests", tests, "--out", out]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert out.read_text() == ended.stdout and "a dry run on the CPU" in ended.stdout
    lines = [line.strip("| ").split(" | ") for line in ended.stdout.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line] for line in lines]
    found: dict[str, set[str]] = {}
    for part, row, *_ in cells:
        found.setdefault("a file of tests" if part == "test_one.py" else part, set()).add(row)
    assert found == ROWS
    assert all(len(line) > 2 and (line[2] or line[-1].startswith(UNMEASURED)) for line in cells), ended.stdout
    assert "1 passed" in ended.stdout and ended.stdout.count("weights are the same") == 4
