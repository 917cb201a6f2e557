"""What a run had no time to draw is kept beside it, whatever ends it, and drawn later to the same bytes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lightning_viz import FirstLayerFilters, LayerEmbeddings, Probe, ViewWarning, default_views
from lightning_viz.analysis.late_drawing import draw_undrawn
from lightning_viz.callbacks import DrawTask, drawing
from lightning_viz.callbacks.session import session
from lightning_viz.callbacks.undrawn import PATTERN, Undrawn, read_undrawn, write_undrawn
from lightning_viz.cli.main import run_command_line
from lightning_viz.errors import AnalysisError, MalformedFileError
from lightning_viz.render.activations import Crop
from lightning_viz.render.detections import ObjectFrame, framed_page
from lightning_viz.render.tiles import Verdict
from lightning_viz.render.weights import filters

from . import drawings
from .conftest import ConvNet, Watch, fit, images, loader, said
from .test_writers import events


def kept(folder, seconds=60):
    """The file of what was not drawn, as soon as it is there; the drawing process writes it by itself."""
    deadline = time.monotonic() + seconds
    while not (paths := list(Path(folder).rglob(PATTERN))) and time.monotonic() < deadline:
        time.sleep(0.05)
    (path,) = paths
    return path


def pictures(folder):
    """By tag and step, the encoded picture or number."""
    return {
        (tag, step): value.tensor.SerializeToString()
        for tag, steps in events(folder).items()
        for step, value in steps.items()
        if tag not in ("loss", "val_loss", "epoch")
    }


# The file.

TASK = DrawTask(
    filters, {"tag": "filters/conv1", "weights": np.ones((2, 1, 3, 3), np.float32), "layer": "a", "step": 2}
)


def same(one, other):
    if isinstance(one, np.ndarray):
        return (
            type(one) is type(other)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 2**80, -0.0, float("nan"), float("-inf"), "text", "line\nbreak \ud800 \x00", b"\x89PNG\x00", b"",
        [1, (2, [3])], (), {}, {"a": 1}, {1: "one", (2, 3): None}, {"tuple": 1, "array": 0},
        np.zeros((0, 3)), np.array(2.5, np.float16), np.arange(6).reshape(2, 3).T, np.array([True, False]),
        np.array(["a", "bc"]), np.float32(1.1), np.int64(-1), np.uint8(255), np.bool_(True), np.array([np.nan, np.inf]),
        Verdict("cat", None, 0.5), [[Crop(np.zeros((2, 2, 3), np.uint8), None, 1.0, "", False, True)]],
        ObjectFrame((1.0, 2.0, 3.0, 4.0), mask=np.eye(3) > 0), framed_page,
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value))[:60].encode("ascii", "replace").decode(),
)  # fmt: skip
def test_a_value_comes_back_as_it_was(value, tmp_path):
    path = write_undrawn(tmp_path, Undrawn([("view", 3, DrawTask(filters, {"value": value}))], {"name": value}))
    read = read_undrawn(path)
    assert same(read.tasks[0][2].arguments["value"], value) or type(value).__name__ in ("ObjectFrame", "list")
    assert repr(read.memories["name"]) == repr(value)
    assert [path.name for path in tmp_path.iterdir()] == ["lightning_viz_undrawn_0.npz"]
    np.load(path, allow_pickle=False).close()


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, lambda: 0, np.array([object()]), Path("a"), 1j, Watch],
    ids=["object", "set", "lambda", "objects", "path", "complex", "class"],
)
def test_what_no_file_may_hold_is_refused_whole(value, tmp_path):
    with pytest.raises(TypeError, match="cannot be kept"):
        write_undrawn(tmp_path, Undrawn([("view", 3, DrawTask(filters, {"value": value}))]))
    assert list(tmp_path.iterdir()) == []


def test_files_do_not_replace_each_other(tmp_path):
    first, second = (write_undrawn(tmp_path, Undrawn([("view", step, TASK)])) for step in (1, 2))
    assert [read_undrawn(path).tasks[0][1] for path in (first, second)] == [1, 2]


def changed(path, change, compression=zipfile.ZIP_STORED):
    """The file with its JSON changed."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(content["values.json"])
    document = change(document) or document
    content["values.json"] = json.dumps(document).encode()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, part in content.items():
            archive.writestr(name, part)


def put(name, kind="function"):
    """Another function or class in place of the task's own."""

    def change(document):
        task = document["tasks"][0]["tuple"][2]
        if kind == "function":
            task["fields"]["function"] = {"function": name}
        else:
            task["fields"]["arguments"] = {"dict": [["tag", {"object": name, "fields": {}}]]}

    return change


HOSTILE = {
    "another package's function": put("os:system"),
    "a function of Python's": put("builtins:eval"),
    "one of ours that does not draw": put("lightning_viz.callbacks.undrawn:write_undrawn"),
    "one that draws nothing": put("lightning_viz.render.layout:paste"),
    "a private one": put("lightning_viz.render.tiles:_page"),
    "imported by a module of ours": put("lightning_viz.render.page:dataclass"),
    "a module within": put("lightning_viz.render.page:io:open"),
    "no name": put(7),
    "none there": put("lightning_viz.render.nothing:draw"),
    "a class for a function": put("lightning_viz.render.page:Page"),
    "another package's class": put("subprocess:Popen", "object"),
    "a class that is no dataclass": put("lightning_viz.errors:AnalysisError", "object"),
    "a function for a class": put("lightning_viz.render.weights:filters", "object"),
    "an array that is not there": lambda document: document["memories"]["dict"].append(["a", {"array": 99}]),
    "an unknown kind": lambda document: document["memories"]["dict"].append(["a", {"pickle": "x"}]),
    "an empty kind": lambda document: document["memories"]["dict"].append(["a", {}]),
    "no tasks": lambda document: {"memories": {"dict": []}},
    "more than there may be": lambda document: {**document, "code": "x"},
    "a list": lambda document: [1],
    "a number": lambda document: 3,
    "a step in words": lambda document: document["tasks"][0]["tuple"].__setitem__(1, "three"),
    "a name that is none": lambda document: document["tasks"][0]["tuple"].__setitem__(0, 3),
    "no task": lambda document: document["tasks"][0]["tuple"].__setitem__(2, {"dict": []}),
    "tasks in a dict": lambda document: {**document, "tasks": {"dict": []}},
    "memories in a list": lambda document: {**document, "memories": []},
    "frames in a list": lambda document: {**document, "frames": []},
    "frames that are numbers": lambda document: {**document, "frames": {"dict": [["a", {"dict": [["b", [1, 2]]]}]]}},
    "numbers that are words": lambda document: document["tasks"][0]["tuple"][2]["fields"].update(
        scalars={"dict": [["a", "b"]]}
    ),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_a_file_names_is_called_but_what_draws(change, tmp_path, monkeypatch):
    path = write_undrawn(tmp_path, Undrawn([("view", 3, TASK)]))
    changed(path, change)
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("it was called"))
    with pytest.raises(MalformedFileError) as caught:
        read_undrawn(path)
    assert "\n" not in str(caught.value)
    assert run_command_line(["draw", str(tmp_path)]) == 1
    assert path.exists()


def nested(path):
    changed(path, lambda document: None)
    content = path.read_bytes().replace(b'"memories": {"dict": []}', b'"memories": ' + b"[" * 50_000)
    path.write_bytes(content)


def claiming(path):
    """An array of a small file that claims to be large."""
    with zipfile.ZipFile(path) as archive:
        text = archive.read("values.json")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        archive.writestr("values.json", text)


DAMAGED = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "text": lambda path: path.write_text("no file of ours"),
    "other arrays": lambda path: np.savez(path, a=np.zeros(3)),
    "compressed": lambda path: changed(path, lambda document: None, zipfile.ZIP_DEFLATED),
    "nested": nested,
    "claims": claiming,
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_one_sentence(damage, tmp_path, capsys):
    path = write_undrawn(tmp_path, Undrawn([("view", 3, TASK)]))
    damage(path)
    assert run_command_line(["draw", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert path.name in line


def test_where_nothing_is_kept_that_is_said(tmp_path):
    with pytest.raises(AnalysisError, match="holds no undrawn pictures"):
        draw_undrawn(tmp_path)


# A run.


@pytest.mark.slow
@pytest.mark.parametrize("cores", [1, 2])
def test_what_is_drawn_late_is_what_would_have_been_drawn(cores, tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "_cores", lambda: cores)

    def views(**options):
        probe = Probe(samples=8)
        return [
            *default_views(every_n_train_steps=3, probe=probe, **options),
            LayerEmbeddings(layers=["conv2", "fc"], pages="scatter", every_n_train_steps=3, **options),
        ]

    data = loader(*images(36), batch_size=6)  # t-SNE takes 30
    fit(tmp_path / "live", ConvNet(), views(finish_seconds=float("inf")), data)
    fit(tmp_path / "late", ConvNet(), views(finish_seconds=0.0), data)
    path = kept(tmp_path / "late")
    assert path.parent == tmp_path / "late" / "run"
    assert len(read_undrawn(path).tasks) > 20
    assert draw_undrawn(tmp_path / "late", report=lambda line: None) == 0
    assert not path.exists()
    live, late = (pictures(tmp_path / name) for name in ("live", "late"))
    assert live.keys() == late.keys()
    assert [key for key in live if live[key] != late[key]] == []
    assert any(tag.endswith("/animation") for tag, _ in live)
    files = {path.relative_to(tmp_path / "live"): path for path in (tmp_path / "live").rglob("vectors.tsv")}
    assert files
    assert all((tmp_path / "late" / name).read_bytes() == path.read_bytes() for name, path in files.items())


class Slow(Watch):
    """Pages that take a while; and numbers that go on from each other."""

    seconds = 0.3

    def draw(self, snapshot):
        yield DrawTask(drawings.draw, {"tag": "slow/page", "step": snapshot.step, "seconds": self.seconds})
        yield DrawTask(drawings.count, {"tag": "counted", "step": snapshot.step}, name="count")


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("training broke"), SystemExit(3)], ids=repr)
def test_a_run_cut_short_keeps_what_is_not_drawn_and_waits_for_nothing(error, tmp_path, capfd):
    class Interrupted(ConvNet):
        def training_step(self, batch, batch_idx):
            if batch_idx == 4:
                processes.append(session(self.trainer).pictures.process.process)
                raise error
            return super().training_step(batch, batch_idx)

    processes, view = [], Slow(every_n_train_steps=1)
    view.seconds = 60.0
    with pytest.raises((type(error), SystemExit)) as caught:
        fit(tmp_path, Interrupted(), [view])
    if not isinstance(error, KeyboardInterrupt):
        assert caught.value is error
    assert processes[0].wait(60) == 0
    assert [(step, task.arguments["tag"]) for _, step, task in read_undrawn(kept(tmp_path), trusted=True).tasks] == [
        (step, tag) for step in range(5) for tag in ("slow/page", "counted")
    ]
    assert (
        f"10 drawings were not finished: they are kept beside the run, and drawn by: lightning-viz draw {tmp_path}/run"
        in (capfd.readouterr().err)
    )


def test_where_nobody_draws_the_run_itself_keeps_what_it_saw(tmp_path, monkeypatch):
    def no_process(*args, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    with pytest.warns(ViewWarning, match="the drawing process cannot be started"):
        fit(tmp_path, ConvNet(), [FirstLayerFilters(every_n_train_steps=3)])
    monkeypatch.undo()
    assert [step for _, step, _ in read_undrawn(kept(tmp_path, seconds=0)).tasks] == [0, 3, 6]


class Stopped(ConvNet):
    """The drawing process is stopped, as by a debugger, and training ends soon after."""

    def training_step(self, batch, batch_idx):
        if batch_idx == 2:
            os.kill(session(self.trainer).pictures.process.process.pid, signal.SIGSTOP)
        return super().training_step(batch, batch_idx)


@pytest.mark.slow
def test_where_the_drawing_process_hangs_the_run_itself_keeps_what_it_saw(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_viz.callbacks.picture_log._KEEP_SECONDS", 0.2)
    fit(tmp_path, Stopped(), [Slow(every_n_train_steps=1, finish_seconds=0.0)])
    tasks = read_undrawn(kept(tmp_path, seconds=0), trusted=True).tasks
    assert sorted({step for _, step, _ in tasks})[-4:] == [3, 4, 5, 6]


def test_on_a_disk_with_no_room_nothing_is_kept_and_that_is_said(tmp_path, monkeypatch):
    def no_process(*args, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    monkeypatch.setattr("lightning_viz.callbacks.undrawn.free_space", lambda folder: 150e6)
    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, ConvNet(), [FirstLayerFilters(every_n_train_steps=3)])
    assert any(
        "3 drawings were not finished and are lost: OSError: [Errno 28] No space left on device" in line
        for line in said(caught)
    )
    assert not list(tmp_path.rglob(PATTERN + "*"))


@pytest.mark.slow
def test_drawings_of_other_packages_are_drawn_where_they_are_trusted(tmp_path, capsys):
    fit(tmp_path, ConvNet(), [Slow(every_n_train_steps=2, finish_seconds=0.0)])
    kept(tmp_path)
    assert run_command_line(["draw", str(tmp_path)]) == 1
    assert "drawings.py" not in (words := capsys.readouterr().err)
    assert "tests.callbacks.drawings:draw, which is not of lightning_viz: --trust imports and calls it" in words
    assert run_command_line(["draw", str(tmp_path), "--trust"]) == 0
    assert list(events(tmp_path)["slow/page"]) == [0, 2, 4, 6]
    counted = events(tmp_path)["counted/count"]
    assert [value.tensor.float_val[0] for value in counted.values()] == [1, 2, 3, 4]
    assert run_command_line(["draw", str(tmp_path)]) == 2


@pytest.mark.slow
def test_what_fails_is_told_and_its_file_stays(tmp_path):
    failing = DrawTask(drawings.draw_or_fail, {"tag": "a", "step": 1})
    path = write_undrawn(tmp_path, Undrawn([("view", 1, failing), ("view", 2, TASK)]))
    lines = []
    assert draw_undrawn(tmp_path, trusted=True, report=lines.append) == 1
    assert lines[0] == "view failed at step 1: RuntimeError: no pencil"
    assert path.exists()
    assert (tmp_path / "filters" / "conv1" / "00000002.png").exists()


SCRIPT = """
import signal, sys, time, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # both are ignored in what a shell starts in the background
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from tests.callbacks.conftest import ConvNet, images, loader, make_trainer
from tests.callbacks.test_undrawn import Slow
from pytorch_lightning.callbacks import OnExceptionCheckpoint

class Endless(ConvNet):
    def training_step(self, batch, batch_idx):
        print("step", self.trainer.global_step, flush=True)
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)

torch.set_num_threads(1)
data = loader(*images(), num_workers=int(sys.argv[2]), persistent_workers=bool(int(sys.argv[2])))
callbacks = [Slow(every_n_train_steps=1), OnExceptionCheckpoint(sys.argv[1], "interrupted")]
make_trainer(sys.argv[1], callbacks, max_epochs=10**6, enable_checkpointing=True).fit(Endless(), data)
"""
SIGNALS = {
    "Ctrl-C twice": ([signal.SIGINT, signal.SIGINT], 0),
    "SIGTERM": ([signal.SIGTERM], 2),
    "SIGHUP": ([signal.SIGHUP], 0),
    "SIGKILL": ([signal.SIGKILL], 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_to_the_whole_group_keeps_what_is_not_drawn(name, tmp_path):
    signals, workers = SIGNALS[name]
    with (tmp_path / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path), str(workers)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
    try:
        while "step 20" not in process.stdout.readline():
            assert process.poll() is None, (tmp_path / "stderr").read_text()[-500:]
        for number in signals:
            (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
            time.sleep(0.2)
        process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()  # closes its pipe, of which a later test would be told
    tasks = read_undrawn(kept(tmp_path), trusted=True).tasks
    steps = [step for _, step, task in tasks if task.arguments["tag"] == "slow/page"]
    written = list(events(tmp_path).get("slow/page", {}))
    assert all(after - before == 1 for before, after in pairwise(sorted({*steps, *written})))
    assert max(steps) >= 18
    assert (tmp_path / "interrupted.ckpt").exists() == (name in ("Ctrl-C twice", "SIGTERM"))
