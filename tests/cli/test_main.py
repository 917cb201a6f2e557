"""The command line: what works without further words, and one clear sentence for what does not."""

import errno
import importlib
import io
import logging
import os
import pickle
import re
import resource
import subprocess
import sys
import time
import warnings
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_sample_images

from lightning_viz.__main__ import main
from lightning_viz.analysis.checkpoint_run import validate
from lightning_viz.cli import progress as bars
from lightning_viz.cli.analyze import board_options, has_display
from lightning_viz.cli.main import COMMANDS, in_sentences
from lightning_viz.cli.progress import working
from lightning_viz.errors import AnalysisError, LayerNotFoundError
from lightning_viz.hooks.batching import BARS, progress_bar
from tests.analysis import nets

NET, SQUARES = "tests.analysis.nets.Net", "tests.analysis.nets.Squares"
QUICK = ["--accelerator", "cpu", "--views", "filters", "--techniques"]  # no technique


@pytest.fixture
def checkpoint(tmp_path):
    net = nets.Net()
    torch.save(
        {"state_dict": net.state_dict(), "hyper_parameters": dict(net.hparams), "global_step": 3}, tmp_path / "a.ckpt"
    )
    return tmp_path / "a.ckpt"


def analyze(*arguments):
    return main(["analyze", *map(str, arguments), *QUICK])


HELP = ["--help", *(f"{name} --help" for name in COMMANDS)]


@pytest.mark.parametrize("words", HELP)
def test_help_answers_within_half_a_second_and_without_torch(words):
    def seconds():  # of a processor: others may use the machine, too
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "lightning_viz", *words.split()], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5
    code = f"""
import sys
from lightning_viz.__main__ import main
try:
    main({words.split()})
except SystemExit:
    pass
print([name for name in ("torch", "pytorch_lightning", "matplotlib") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.endswith("[]\n")


def test_help_names_every_command_and_fits_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in overview
    for name in COMMANDS:
        if name in ("analyze", "board", "digest", "draw", "filters"):
            with pytest.raises(SystemExit, match="0"):
                main([name, "--help"])
        else:
            assert main([name, "--help"]) == 0
        page = capsys.readouterr().out
        assert "example:\n  lightning-viz" in page
        assert max(map(len, page.partition("example:")[0].splitlines())) <= 80
        assert "null" not in page


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("lightning-viz 0.")


def test_a_cli_runs_folder_and_the_name_of_its_model(cli_run, tmp_path, capfd, drawing_process):
    assert analyze(cli_run, "--model", NET, "--out", tmp_path / "out") == 0
    said = capfd.readouterr()
    assert said.out == f"report: {tmp_path}/out/report.html\nTensorBoard: lightning-viz board {tmp_path}/out\n"
    lines = said.err.splitlines()  # nothing of Lightning's devices, tips and warnings
    assert lines[0] == "analyze: measuring the model (1 of 1)" and len(lines) > 1
    assert all(
        re.fullmatch(r"analyze: \w+-00000002 \(\d of \d(, about \d+ (s|min) left)?\)", line) for line in lines[1:]
    )
    assert (tmp_path / "out/report.html").stat().st_size > 1000
    assert analyze(cli_run, "--trust", "--out", tmp_path / "out") == 0
    assert capfd.readouterr().err == ""  # it is done already
    assert board_options(tmp_path / "out", "localhost", 7)[-2:] == [
        "--samples_per_plugin=images=1000",
        "--reload_multifile=true",
    ]


def test_a_plain_checkpoint_with_a_model_and_data(checkpoint, tmp_path):
    assert analyze(checkpoint, "--model", NET, "--data", SQUARES, "--data.count", 6, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out/findings/model-00000003").is_dir()


def test_a_torchvision_model_and_a_folder_of_images(tmp_path):
    (tmp_path / "photographs").mkdir()
    for number, image in enumerate(load_sample_images().images):
        Image.fromarray(image).save(tmp_path / f"photographs/{number}.jpg")
    named = ["--torchvision", "squeezenet1_1", "--weights", "none", "--images", tmp_path / "photographs"]
    assert analyze(*named, "--out", tmp_path / "out") == 0
    assert list((tmp_path / "out/findings").glob("*-00000000/*.png"))


def test_a_torchvision_detector_takes_images_of_their_own_sizes(tmp_path):
    (tmp_path / "photographs").mkdir()
    for number, size in enumerate([(96, 64), (64, 80)]):
        Image.fromarray(load_sample_images().images[number]).resize(size).save(tmp_path / f"photographs/{number}.jpg")
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    named = ["--torchvision", name, "--weights", "none", "--images", tmp_path / "photographs"]
    views = ["--views", "filters", "predictions", "--techniques"]
    assert main(["analyze", *map(str, named), "--out", str(tmp_path / "out"), *views]) == 0
    assert len(list((tmp_path / "out/findings").glob("*-00000000/*.png"))) == 2


class Payload:
    def __reduce__(self):
        return os.mkdir, ("payload-ran",)


SOURCES = ["--model", NET, "--data", SQUARES]
REFUSED = {
    "malicious": (["a.ckpt", *SOURCES], r"a\.ckpt is not loaded: it names .*mkdir.* --trust"),
    "malicious pickle": (["raw.ckpt", *SOURCES], r"raw\.ckpt is not loaded: .* would run code.* --trust"),
    "truncated": (["short.ckpt", *SOURCES], r"short\.ckpt .* cannot be read as a checkpoint: it is cut short"),
    "empty": (["empty", *SOURCES], r"the folder empty holds no checkpoint"),
    "missing": (["nowhere.ckpt", *SOURCES], r"there is no file and no folder nowhere\.ckpt"),
    "missing run": (["runs/nowhere"], r"there is no file and no folder runs/nowhere"),
    "swallowed": (["--views", "filters", "good.ckpt"], r"--views takes several values, and took good\.ckpt"),
    "wrong model": (["good.ckpt", *SOURCES, "--model.width", "9"], r"good\.ckpt is not of Net: .* of another shape"),
    "no data": (["good.ckpt", "--model", NET], r"which data\? Give --data"),
    "no model": (["good.ckpt", "--data", SQUARES], r"which model\?"),
    "no such class": (["good.ckpt", "--model", "tests.analysis.nets.Nett", "--data", SQUARES], "has no 'Nett'"),
    "no such module": (["good.ckpt", "--model", "nett.Net", "--data", SQUARES], "there is no module 'nett' here"),
    "no such argument": (["good.ckpt", *SOURCES, "--model.depth", "2"], "takes no 'depth'"),
    "wrong type": (["good.ckpt", *SOURCES, "--model.width", "four"], "cannot be made: .*width.*four"),
    "breaks": (["good.ckpt", "--model", "tests.analysis.nets.Breaks", "--data", SQUARES], "ZeroDivisionError: made to"),
    "no such model": (["--torchvision", "resnet51", "--data", SQUARES], "did you mean resnet50"),
    "no such option": (["good.ckpt", "--bogus"], "there is no option --bogus: see --help"),
    "no such view": (
        ["good.ckpt", *SOURCES, "--views", "grad_cm"],
        r"there is no view 'grad_cm': did you mean grad_cam",
    ),
    "no such technique": (
        ["good.ckpt", *SOURCES, "--techniques", "dream"],
        r"no technique 'dream': did you mean dreams",
    ),
    "wrong number": (["good.ckpt", "--samples", "0"], r"--samples: 0 does not conform .*; see --help"),
    "no such device": (["good.ckpt", *SOURCES, "--accelerator", "abacus"], r"Lightning refuses these .*abacus"),
    "no devices": (["good.ckpt", *SOURCES, "--devices", "x"], r"Lightning refuses these .*devices"),
    "video": (["--torchvision", "r3d_18", "--weights", "none", "--images", "."], r"r3d_18 takes no single images"),
    "no such strategy": (["good.ckpt", *SOURCES, "--strategy", "hope"], r"Lightning refuses these .*hope"),
    "no value": (["good.ckpt", "--model.width"], r"--model\.width needs a value"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_ends_with_one_sentence(what, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": nets.Net().state_dict(), "global_step": 3}, "good.ckpt")
    (tmp_path / "short.ckpt").write_bytes((tmp_path / "good.ckpt").read_bytes()[:900])
    (tmp_path / "empty").mkdir()
    torch.save({"state_dict": {}, "more": Payload()}, "a.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps({"state_dict": {}, "more": Payload()}))
    arguments, words = REFUSED[what]
    assert main(["analyze", "--accelerator", "cpu", *arguments]) == (1 if what == "truncated" else 2)
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("analyze: ")]
    assert len(said) == 1
    assert said[0].startswith("lightning-viz: ")
    assert re.search(words, said[0])
    assert not (tmp_path / "payload-ran").exists()


def test_a_reader_that_has_seen_enough_is_no_fault(monkeypatch, capfd):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert main(["--help"]) == 1
    assert capfd.readouterr().err == ""


def test_a_warning_is_told_once(capsys):
    with in_sentences():
        warnings.simplefilter("always")
        for _ in range(3):
            warnings.warn("so it is", stacklevel=1)
    assert capsys.readouterr().err == "lightning-viz: so it is\n"


def test_an_interrupted_method_does_not_claim_to_go_on(checkpoint, capsys, monkeypatch, tmp_path):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_viz.cli.source_options.model_under_study_of", interrupted)
    assert main(["filters", str(checkpoint), *SOURCES, "--out", str(tmp_path / "out")]) == 130
    assert "begins anew" in capsys.readouterr().err


def test_a_command_that_there_is_not(capsys):
    assert main(["anlyze"]) == 2
    assert capsys.readouterr().err == "lightning-viz: there is no command 'anlyze': did you mean analyze?\n"
    assert main([]) == 2


@pytest.fixture
def fails_with(monkeypatch, checkpoint, tmp_path):
    """Runs a command behind which an error is raised."""

    def run(error):
        def analyze(*arguments, **options):
            raise error

        monkeypatch.setattr(importlib.import_module("lightning_viz.analysis.analyze"), "analyze_run", analyze)
        return main(["analyze", str(checkpoint), *SOURCES, "--out", str(tmp_path / "out")])

    return run


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "the disk is full: what is finished is kept"),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), 1, "/out: Permission denied"),
        (MemoryError("12 GiB"), 1, "out of memory (12 GiB): try fewer --samples"),
        (KeyboardInterrupt(), 130, "interrupted: what is finished is kept"),
        (AnalysisError("so it is"), 2, "so it is"),
    ],
)
def test_what_fails_says_what_is_kept(fails_with, capsys, error, status, words):
    assert fails_with(error) == status
    assert capsys.readouterr().err.startswith(f"lightning-viz: {words}")


def test_what_nobody_foresaw_shows_where_it_happened(fails_with, capsys, monkeypatch):
    assert fails_with(KeyError("strange")) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "it is a bug in lightning_viz; please report" in said
    monkeypatch.setenv("LIGHTNING_VIZ_TRACEBACK", "1")
    with pytest.raises(AnalysisError):
        fails_with(AnalysisError("so it is"))


def test_without_jsonargparse_the_remedy_is_said(monkeypatch, capsys):
    monkeypatch.setattr("lightning_viz.cli", sys.modules["lightning_viz.cli"])  # put back, as the modules are
    for name in [name for name in sys.modules if name.startswith("lightning_viz.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    assert main(["attack", "pgd", "--help"]) == 1
    assert capsys.readouterr().err == "lightning-viz: jsonargparse is missing: pip install 'lightning-viz[cli]'\n"


def test_the_exit_status_goes_by_the_type_of_an_error_and_not_by_its_place(fails_with, capsys):
    from lightning_viz.hooks.layers import select_layers

    try:
        select_layers(torch.nn.ReLU(), "conv9")
    except LayerNotFoundError as error:
        assert fails_with(error) == 2
    try:
        torch.nn.Linear(2, 2)(torch.zeros(3))
    except RuntimeError as error:
        assert fails_with(error) == 1
    assert fails_with(ValueError("raised on purpose, but not by us")) == 1


def test_an_error_from_a_worker_of_the_data_is_one_sentence(fails_with, capsys):
    words = "Caught AnalysisError in DataLoader worker process 0.\nOriginal Traceback:\n  File x\n"
    assert fails_with(AnalysisError(f"{words}lightning_viz.errors.AnalysisError: cannot read a.png")) == 2
    assert capsys.readouterr().err == "lightning-viz: cannot read a.png\n"


def test_board_has_something_to_show(tmp_path, capsys):
    assert main(["board", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["board", str(tmp_path)]) == 2
    assert "holds nothing for TensorBoard" in capsys.readouterr().err


def test_the_bars_of_functions_are_among_the_commands_own(monkeypatch):
    page = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda **given: Console(file=page, force_terminal=True, width=80))
    monkeypatch.setattr(bars, "_DELAY", -1)
    with working("attack pgd") as progress:
        progress("Net", 1, 3)
        assert list(progress_bar("square", shown=True, items=range(5))) == [0, 1, 2, 3, 4]
        assert list(islice(progress_bar("one_pixel", shown=True, items=range(9)), 3)) == [0, 1, 2]
        with progress_bar("dream", shown=True, total=20) as bar:
            bar.update(7)
            time.sleep(0.15)  # a refresh
    said = page.getvalue()
    assert "attack pgd: Net" in said
    assert "1/3" in said
    assert "dream" in said
    assert "7/20" in said
    assert BARS.get() is None


def test_where_there_is_no_terminal_there_is_a_line_per_part(capfd, monkeypatch):
    with working("dream") as progress:
        progress("layer1", 0, 2)
        assert list(progress_bar("square", shown=True, items=range(3))) == [0, 1, 2]
        progress("layer2", 1, 2)
    assert capfd.readouterr().err == "dream: layer1 (1 of 2)\ndream: layer2 (2 of 2)\n"
    monkeypatch.setenv("LOCAL_RANK", "1")  # another process of the same run is silent
    with working("dream") as progress:
        progress("layer1", 0, 2)
    assert capfd.readouterr().err == ""


def test_lightnings_words_for_those_who_train_are_not_shown(caplog):
    logger = logging.getLogger("pytorch_lightning")
    before = logger.level
    logger.addHandler(caplog.handler)
    try:
        validate(nets.Net(), nets.Squares(), [], accelerator="cpu")
        assert caplog.records == []
        assert logger.level == before
    finally:
        logger.removeHandler(caplog.handler)


@pytest.mark.filterwarnings("ignore:html5lib:DeprecationWarning")
def test_the_board_opens_on_the_pictures_where_there_is_a_display(tmp_path, monkeypatch, capsys):
    (tmp_path / "events.out.tfevents.1").touch()
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("tensorboard.program.TensorBoard.launch", lambda board: f"http://there:{board.flags.port}/")

    class Ended:
        def wait(self):
            raise KeyboardInterrupt

    monkeypatch.setattr("lightning_viz.cli.analyze.threading", SimpleNamespace(Event=Ended))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert main(["board", str(tmp_path), "--port", "7007"]) == 0
    assert opened == [] and not has_display()
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["board", str(tmp_path), "--port", "7007", "--no_browser"]) == 0
    assert opened == []
    assert main(["board", str(tmp_path), "--port", "7007"]) == 0
    assert opened == ["http://there:7007/#images"]
    assert capsys.readouterr().out.splitlines() == ["pictures: http://there:7007/#images (Ctrl-C ends it)"] * 3
