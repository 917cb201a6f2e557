"""An analysis is done once: what is finished stays, whatever ends it, and the next run completes the same result."""

import errno
import importlib
import json
import math
import multiprocessing
import shutil
import time
import warnings
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_viz.analysis.analyze import analyze
from lightning_viz.analysis.results import Output
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.callbacks.probe import Probe
from lightning_viz.errors import AnalysisError, UnsuitableModelError
from tests.analysis.fakes import fakes
from tests.callbacks.conftest import ConvNet, fit, images, loader

analyzing = importlib.import_module("lightning_viz.analysis.parts")

KINDS = ("filters", "activations", "grad_cam")
FEW = {"views": list(KINDS), "trainer": {"accelerator": "cpu"}, "minutes": math.inf}


def mean(study):
    yield Output("mean", numbers={"value": study.images.mean()})


def unsuited(study):
    raise UnsuitableModelError("it is not for this model")


def broken(study):
    yield Output("before", numbers={"value": 1})
    1 / 0


def interrupted(study):
    raise KeyboardInterrupt


CHEAP = fakes(mean=mean, unsuited=unsuited, broken=broken)


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(analyzing, "techniques", lambda: CHEAP)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two checkpoints, without views."""
    folder = tmp_path_factory.mktemp("run")
    saver = ModelCheckpoint(folder / "checkpoints", save_top_k=-1, save_last=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(folder, ConvNet(), [saver], max_epochs=2, enable_checkpointing=True)
    return folder


def analyzed(run, out, **options):
    return analyze(run, model=ConvNet, data=loader(*images(40)), out=out, **{**FEW, **options})


def content(folder):
    """Everything in a folder but TensorBoard's files, which name time and machine."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "tensorboard" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
    """The folder of an analysis that nobody disturbs, drawn in another process."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyzing, "techniques", lambda: CHEAP)
        analyzed(run, out)
    return out


@pytest.fixture(scope="module")
def whole(undisturbed):
    """What it leaves."""
    return content(undisturbed)


@pytest.fixture
def finished(undisturbed, tmp_path):
    """A folder of one's own in which the analysis is finished."""
    return shutil.copytree(undisturbed, tmp_path / "finished")


def test_every_checkpoint_is_looked_at_and_the_last_by_the_techniques(whole, run, tmp_path):
    assert {path.partition("/")[0] for path in whole} == {"findings", "report.html", "plan.json"}
    parts = {path.split("/")[1] for path in whole if path.startswith("findings")}
    of_steps = {f"{kind}-{step:08d}" for kind in ("model", *KINDS) for step in (6, 12)}  # last.ckpt is step 12 again
    assert parts == of_steps | {"mean", "unsuited", "broken"}
    assert b"ZeroDivisionError" in whole["findings/broken/finding.json"]
    assert (
        b"pictures" in whole["findings/unsuited/finding.json"]
        and b"Zero" not in whole["findings/unsuited/finding.json"]
    )
    assert len([path for path in whole if path.endswith(".png")]) == 2 * 4  # two layers' activation maps


def test_a_second_run_does_nothing_again(whole, run, tmp_path, monkeypatch):
    analyzed(run, tmp_path)
    assert content(tmp_path) == whole
    monkeypatch.setattr(ConvNet, "forward", lambda *inputs: pytest.fail("the model runs again"))
    monkeypatch.setattr(analyzing, "techniques", lambda: fakes(**dict.fromkeys(CHEAP, interrupted)))
    analyzed(run, tmp_path)
    assert content(tmp_path) == whole


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"seed": 1}, 11),
        ({"overwrite": True}, 11),
        ({"samples": 20}, 11),
        ({"techniques": ["mean"]}, 0),
        ({"views": ["filters"]}, 7),
    ],
)
def test_what_an_option_changes_is_done_again(run, finished, change, again):
    told = []
    analyzed(run, finished, **change, progress=lambda name, *_: told.append(name))
    assert len(set(told)) == again


def test_another_checkpoint_under_the_same_name_is_looked_at(run, tmp_path):
    shutil.copytree(run / "checkpoints", tmp_path / "run")
    analyzed(tmp_path / "run", tmp_path / "out")
    before = content(tmp_path / "out")
    path = next((tmp_path / "run").glob("*step=12.ckpt"))
    changed = torch.load(path, weights_only=True)
    changed["state_dict"]["conv1.weight"] *= -1
    torch.save(changed, path)
    (tmp_path / "run" / "last.ckpt").unlink()
    told = []
    analyzed(tmp_path / "run", tmp_path / "out", progress=lambda name, *_: told.append(name))
    assert "grad_cam-00000006" not in told and "grad_cam-00000012" in told and "mean" in told
    after = content(tmp_path / "out")
    assert before["findings/filters-00000006/000.png"] == after["findings/filters-00000006/000.png"]
    assert before["findings/filters-00000012/000.png"] != after["findings/filters-00000012/000.png"]


def test_ctrl_c_leaves_a_report_of_what_is_finished(whole, run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(analyzing, "techniques", lambda: fakes(mean=interrupted, unsuited=unsuited, broken=broken))
        analyzed(run, tmp_path)
    report = (tmp_path / "report.html").read_text()
    assert "mean" in report and report != whole["report.html"].decode()  # it says what is still to be done
    analyzed(run, tmp_path)
    assert content(tmp_path) == whole


def test_ctrl_c_within_lightnings_pass_reaches_us(run, tmp_path):
    class Interrupted(ConvNet):
        def validation_step(self, batch, batch_idx):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyze(run, model=Interrupted, data=loader(*images(40)), out=tmp_path, **FEW)


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_completes_the_same_result(whole, run, tmp_path, drawing_process):
    started = time.monotonic()
    analyzed(run, tmp_path / "undisturbed")
    took = time.monotonic() - started
    fork = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of a fork beside threads
        for share in (0.1, 0.3, 0.5, 0.7, 0.9):
            process = fork.Process(target=analyzed, args=(run, tmp_path / "killed"))
            process.start()
            time.sleep(share * took)
            process.kill()
            process.join()
            left = content(tmp_path / "killed") if (tmp_path / "killed").exists() else {}
            finished = {path: each for path, each in left.items() if "/." not in path}
            for path in (path for path in finished if path.endswith("finding.json")):
                part = str(Path(path).parent)
                assert {p: b for p, b in finished.items() if p.startswith(part)} == {
                    p: b for p, b in whole.items() if p.startswith(part)
                }
    analyzed(run, tmp_path / "killed")
    assert content(tmp_path / "killed") == whole


def test_a_full_disk_leaves_nothing_half_written(whole, run, tmp_path, monkeypatch):
    written, write = [], Path.write_bytes

    def full(self, given):
        written.append(self)
        if len(written) == 3:
            write(self, given[: len(given) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, given)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        analyzed(run, tmp_path)
    assert not list((tmp_path / "findings").glob("[!.]*"))
    monkeypatch.setattr(Path, "write_bytes", write)
    analyzed(run, tmp_path)
    assert content(tmp_path) == whole


def test_names_that_do_not_exist_are_refused_before_anything_is_done(run, tmp_path):
    with pytest.raises(AnalysisError, match="no technique 'means': did you mean mean"):
        analyzed(run, tmp_path, techniques=["means"])
    with pytest.raises(AnalysisError, match="no view 'gradcam': did you mean grad_cam"):
        analyzed(run, tmp_path, views=["gradcam"])
    assert not content(tmp_path)


def test_a_model_as_it_is_needs_no_checkpoint(tmp_path):
    told = []
    options = {"data": loader(*images(40)), "out": tmp_path, **FEW}
    for weight in (0, 1, 1):
        model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 3))
        torch.manual_seed(weight)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        analyze([], model=model, progress=lambda name, *_: told.append(name), **options)
    assert told.count("model-00000000") == 2  # once for each set of weights


def test_a_folder_of_the_users_own_is_not_overwritten(run, tmp_path):
    logs = tmp_path / "tensorboard" / "events"
    logs.parent.mkdir()
    logs.write_text("of the run")
    with pytest.raises(AnalysisError, match=r"tensorboard is not of an analysis.*give another --out"):
        analyzed(run, tmp_path)
    assert logs.read_text() == "of the run"
    with pytest.raises(AnalysisError, match="events cannot be written to"):
        analyzed(run, logs)


@pytest.mark.parametrize(("file", "damage"), [("state.pt", b""), ("state.pt", b"PK"), ("finding.json", b"[]")])
def test_a_damaged_finding_is_found_again(run, finished, file, damage):
    (finished / "findings" / "grad_cam-00000012" / file).write_bytes(damage)
    told = []
    analyzed(run, finished, techniques=[], progress=lambda name, *_: told.append(name))
    assert told == ["grad_cam-00000012"]


def test_a_model_without_weights_and_one_that_is_made_late_are_analyzed(tmp_path):
    class First(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3]

    lazy = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))
    for model in (First(), lazy):
        out = tmp_path / type(model).__name__
        analyze([], model=model, data=loader(*images(20)), out=out, views=["occlusion"], trainer=FEW["trainer"])
        assert list((out / "findings" / "occlusion-00000000").glob("*.png"))


def test_findings_are_of_the_data_the_probe_and_the_arguments_that_they_were_made_from():
    inputs, labels = images(8)
    one, other = torch.zeros(2, 1, 40, 40), torch.zeros(2, 1, 40, 40)
    other[:, :, 20, 20] = 1  # which its repr does not show
    data = TensorDataset(inputs, labels)
    cases = [
        RunConfig(ConvNet, data),
        RunConfig(ConvNet, TensorDataset(inputs + 1, labels)),
        RunConfig(ConvNet, DataLoader(Subset(data, [0, 1]))),
        RunConfig(ConvNet, DataLoader(Subset(data, [0, 2]))),
        RunConfig(ConvNet, [(inputs, labels)]),
        RunConfig(ConvNet, [(inputs + 1, labels)]),
        RunConfig(ConvNet, data, probe=Probe(inputs=one)),
        RunConfig(ConvNet, data, probe=Probe(inputs=other)),
        RunConfig(torch.nn.Sequential(torch.nn.ReLU()), data),
        RunConfig(torch.nn.Sequential(torch.nn.Tanh()), data),
    ]
    keys = [case.key("of the same weights", "views") for case in cases]
    assert len(set(keys)) == len(cases)
    assert RunConfig(ConvNet, TensorDataset(inputs.clone(), labels)).key("of the same weights", "views") == keys[0]


def test_what_a_broken_model_logs_is_json(tmp_path):
    model = ConvNet()
    torch.nn.init.constant_(model.conv1.weight, torch.nan)
    analyze([], model=model, data=loader(*images(20)), out=tmp_path, views=[], trainer=FEW["trainer"])
    text = (tmp_path / "findings" / "model-00000000" / "finding.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["numbers"]["fares"]["val_loss"] is None
