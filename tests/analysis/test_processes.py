"""An analysis on two processes finds what one finds alone, to the bit, and the first process alone writes."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from tests.callbacks.conftest import ConvNet

from . import two_processes

ROOT = Path(__file__).parents[2]
PARTS = [*(f"{kind}-{step:08d}" for step in (3, 5) for kind in ("model", *two_processes.VIEWS)), "mean"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two steps of a run, of weights alone."""
    folder = tmp_path_factory.mktemp("run")
    model = ConvNet()
    for step in (3, 5):
        torch.nn.init.normal_(model.conv2.weight, generator=torch.Generator().manual_seed(step))
        torch.save({"state_dict": model.state_dict(), "global_step": step}, folder / f"step={step}.ckpt")
    return folder


def found(out):
    """By part, all that lies in its folder but the key, which knows how many processes there were."""
    parts = {}
    for place in sorted((out / "findings").iterdir()):
        listed = json.loads((place / "finding.json").read_text())
        del listed["key"]
        parts[place.name] = listed, {path.name: path.read_bytes() for path in place.glob("*.png")}
    return parts


@pytest.fixture(scope="module")
def alone(checkpoints, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        two_processes.run(checkpoints, out, 1)
    return found(out)


@pytest.fixture(scope="module")
def of_two(checkpoints, tmp_path_factory):
    """By scenario, the folder in which two processes wrote, and the lines that they said."""
    folder = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.analysis.two_processes", str(checkpoints), str(folder), "2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=400)
    places = [folder / str(place) for place in range(len(two_processes.SCENARIOS))]
    errors = [(place / "stderr").read_text() for place in places if place.exists()]
    assert done.returncode == 0, f"{done.stderr} {errors}"[-3000:]
    lines = [(place / "stdout").read_text().splitlines() for place in places]
    for place, of_place in zip(places, lines, strict=True):
        assert sorted(line for line in of_place if line.endswith("ends")) == ["rank 0 ends", "rank 1 ends"]
        assert (place / "out" / "report.html").exists()
    return dict(zip(two_processes.SCENARIOS, zip(places, lines, strict=True), strict=True))


def puts(lines):
    return [line for line in lines if " puts " in line]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(alone, of_two):
    folder, _ = of_two["nothing fails"]
    parts = found(folder / "out")
    assert sorted(parts) == sorted(PARTS)
    for name, (listed, pictures) in alone.items():
        assert parts[name][0] == listed, name
        assert parts[name][1] == pictures, name
    listed, pictures = parts["top_samples-00000005"]
    assert len(pictures) == len(listed["pictures"]) > 0
    assert parts["model-00000005"][0]["numbers"]["fares"]["samples"] == 41
    assert not any(of_part["faults"] for of_part, _ in parts.values())
    assert any("41 validation samples" in one["description"] for one in listed["pictures"])


@pytest.mark.slow
def test_the_first_process_alone_writes(of_two):
    folder, lines = of_two["nothing fails"]
    assert sorted(puts(lines)) == sorted(f"rank 0 puts {part}" for part in PARTS)
    assert len(list(folder.glob("out/tensorboard/events*"))) == 1


@pytest.mark.slow
def test_two_processes_go_on_where_two_were_interrupted(of_two):
    whole, _ = of_two["nothing fails"]
    folder, lines = of_two["two were interrupted"]
    assert found(folder / "out") == found(whole / "out")
    assert puts(lines) == [f"rank 0 puts {part}" for part in two_processes.MISSING]


@pytest.mark.slow
def test_where_the_modules_own_step_fails_both_run_the_forward_alone(alone, of_two):
    folder, _ = of_two["a step fails"]
    parts = found(folder / "out")
    for name, (listed, pictures) in alone.items():
        notes = parts[name][0]["numbers"].pop("notes", [])
        assert all("its forward alone is run" in note for note in notes) and bool(notes) == name.startswith("model")
        assert parts[name][1] == pictures
        assert {**listed["numbers"], "notes": []} == {**parts[name][0]["numbers"], "notes": []}
