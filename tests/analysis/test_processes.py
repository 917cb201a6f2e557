"""An analysis on two processes finds what one finds alone, to the bit, and the first process alone writes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.callbacks.conftest import ConvNet

SCRIPT = """
import sys
from pathlib import Path
import torch
from tests.callbacks.conftest import ConvNet, images, loader
from lightning_viz.analysis import analyzing, findings
from lightning_viz.analysis.technique import Technique
from lightning_viz.callbacks.processes import first_process

checkpoints, out, processes, scenario = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

class Model(ConvNet):
    def validation_step(self, batch, batch_idx):
        if scenario == "a step that fails" and batch_idx == 1:
            raise AttributeError("nothing to log to")
        self(batch[0])

def study(subject):
    yield "mean", float(subject.images.mean())

analyzing.TECHNIQUES = (Technique("mean", "the samples' mean", study, lambda subject: ""),)
put = findings.Findings.put

def watched(self, name, *args):
    print(f"rank {0 if first_process() else 1} puts {name}", flush=True)
    put(self, name, *args)

findings.Findings.put = watched

if __name__ == "__main__":
    torch.set_num_threads(1)
    options = {"strategy": "ddp"} if processes > 1 else {}
    data = loader(*images(41), batch_size=6)  # no batch of one sample: torch convolves that with other last digits
    analyzing.analyze(
        checkpoints, model=Model, data=data, out=out, samples=20,
        views=["filters", "top_samples", "statistics"],
        trainer={"accelerator": "cpu", "devices": processes, **options},
    )
    print(f"rank {0 if first_process() else 1} ends", flush=True)
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two steps of a run, of weights alone."""
    folder = tmp_path_factory.mktemp("run")
    model = ConvNet()
    for step in (3, 5):
        torch.nn.init.normal_(model.conv2.weight, generator=torch.Generator().manual_seed(step))
        torch.save({"state_dict": model.state_dict(), "global_step": step}, folder / f"step={step}.ckpt")
    return folder


def run(checkpoints, folder, processes, scenario=""):
    """What was found, by part, and what was said."""
    folder.mkdir(exist_ok=True)
    script = folder / "look.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(checkpoints), str(folder / "out"), str(processes), scenario]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    ends = [line for line in done.stdout.splitlines() if line.endswith("ends")]
    assert sorted(ends) == [f"rank {rank} ends" for rank in range(processes)]
    assert (folder / "out" / "report.html").exists()
    return found(folder / "out"), done


def found(out):
    """By part, all that lies in its folder but the key, which knows how many processes there were."""
    parts = {}
    for place in sorted((out / "findings").iterdir()):
        listed = json.loads((place / "finding.json").read_text())
        del listed["key"]
        parts[place.name] = listed, {path.name: path.read_bytes() for path in place.glob("*.png")}
    return parts


def puts(done):
    return [line for line in done.stdout.splitlines() if " puts " in line]


@pytest.fixture(scope="module")
def alone(checkpoints, tmp_path_factory):
    return run(checkpoints, tmp_path_factory.mktemp("one") / "run", 1)[0]


@pytest.fixture(scope="module")
def together(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "run"
    return *run(checkpoints, folder, 2), folder


@pytest.mark.slow
def test_two_processes_find_what_one_finds(alone, together):
    parts, _, _ = together
    assert list(parts) == ["mean", "views-00000003", "views-00000005"]
    for name, (listed, pictures) in alone.items():
        assert parts[name][0] == listed, name
        assert parts[name][1] == pictures, name
    listed, pictures = parts["views-00000005"]
    assert len(pictures) == len(listed["pictures"]) > 3
    assert listed["numbers"]["fares"]["samples"] == 41
    assert not listed["faults"]
    assert any("41 validation samples" in one["description"] for one in listed["pictures"])


@pytest.mark.slow
def test_the_first_process_alone_writes(together):
    _, done, folder = together
    assert puts(done) == [f"rank 0 puts {part}" for part in ("views-00000003", "views-00000005", "mean")]
    assert len(list(folder.glob("out/tensorboard/events*"))) == 1


@pytest.mark.slow
def test_two_processes_go_on_where_two_were_interrupted(checkpoints, together, tmp_path):
    parts, _, folder = together
    missing = ["views-00000003", "mean"]  # one pass with views, one for the samples alone
    shutil.copytree(folder / "out", tmp_path / "run" / "out")
    for part in missing:
        shutil.rmtree(tmp_path / "run" / "out" / "findings" / part)
    resumed, done = run(checkpoints, tmp_path / "run", 2)
    assert resumed == parts
    assert puts(done) == [f"rank 0 puts {part}" for part in missing]


@pytest.mark.slow
def test_where_the_modules_own_step_fails_both_run_the_forward_alone(checkpoints, alone, tmp_path):
    parts, _ = run(checkpoints, tmp_path / "run", 2, "a step that fails")
    for name, (listed, pictures) in alone.items():
        notes = parts[name][0]["numbers"].pop("notes", [])
        assert all("its forward alone is run" in note for note in notes) and bool(notes) == ("views" in name)
        assert parts[name][1] == pictures
        assert {**listed["numbers"], "notes": []} == {**parts[name][0]["numbers"], "notes": []}
