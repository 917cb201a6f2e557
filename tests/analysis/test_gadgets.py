"""Nothing that is read runs code: not a checkpoint, not a run's config.yaml, not a folder of results.

Each gadget is a class path with init args that would leave a mark if it were called. In a checkpoint it reaches the
model as the plain value that it is; in a configuration it is refused in one sentence.
"""

import enum
import functools
import operator
import os
import pickle
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn
from torch.nn import functional as F

from lightning_viz.__main__ import main
from lightning_viz.analysis import analyze, config_values
from lightning_viz.analysis.config import ClassSpec, Configuration
from lightning_viz.analysis.config_values import Origin, permitted_class
from lightning_viz.analysis.data import data_of
from lightning_viz.analysis.models import Checkpoint, network
from lightning_viz.analysis.recipes import recorded_views
from lightning_viz.cli.source_options import add_source, command_parser, folded, run_config_of
from lightning_viz.errors import AnalysisError

from . import nets

KEEPS, DATA = f"{__name__}.Keeps", f"{__name__}.Data"
CHECKED = "os.system os.fork subprocess.Popen webbrowser.open ctypes.dlopen shutil.rmtree shutil.move sqlite3.connect"

SUSPECT = "touch MARK victim libc.so file:/// false"


class Keeps(nets.Net):
    """Takes anything, without type hints or with those under which jsonargparse imports and calls."""

    def __init__(
        self,
        width: int = 4,
        note=None,
        loose: Any = None,
        act: Callable = F.relu,
        kind: type = nn.ReLU,
        inner: nn.Module | None = None,
        block: nn.Module | None = None,
        parts: list[nn.Module] | None = None,
        table: dict[str, Any] | None = None,
        settings: dict | None = None,
        make: Callable[..., nn.Module] = nn.Identity,
        **more,
    ):
        super().__init__(width)
        self.kept = {"note": note, "loose": loose, "act": act, "kind": kind, "table": table, **more}
        self.inner, self.parts, self.make = inner, parts, make


class Data(nets.Squares):
    def __init__(self, count: int = 6, batch: int = 3, note=None):
        super().__init__(count, batch)
        self.note = note


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def gadgets(mark="MARK"):
    """Class path to init args; MARK is what a call would make."""
    python, touch = f"open({mark!r}, 'w')", f"touch {mark}"
    return {
        "os.system": {"command": touch},
        "os.popen": {"cmd": touch},
        "os.mkdir": {"path": mark},
        "os.makedirs": {"name": mark},
        "os.execv": {"path": "/bin/false", "argv": ["false"]},
        "posix.system": {"command": touch},
        "subprocess.Popen": {"args": ["touch", mark]},
        "subprocess.run": {"args": ["touch", mark]},
        "subprocess.call": {"args": ["touch", mark]},
        "subprocess.check_output": {"args": ["touch", mark]},
        "subprocess.getoutput": {"cmd": touch},
        "asyncio.create_subprocess_shell": {"cmd": touch},
        "runpy.run_path": {"path_name": "evil.py"},
        "runpy.run_module": {"mod_name": "evil"},
        "importlib.import_module": {"name": "evil"},
        "importlib.__import__": {"name": "evil"},
        "pkgutil.resolve_name": {"name": "evil"},
        "timeit.timeit": {"stmt": python, "number": 1},
        "timeit.repeat": {"stmt": python, "number": 1},
        "pydoc.locate": {"path": "evil"},
        "pydoc.importfile": {"path": "evil.py"},
        "pydoc.pipepager": {"text": "", "cmd": touch},
        "cProfile.run": {"statement": python},
        "profile.run": {"statement": python},
        "code.interact": {"banner": "", "local": {}},
        "pdb.run": {"statement": python},
        "yaml.unsafe_load": {"stream": f"!!python/object/apply:os.mkdir [{mark}]"},
        "pickle.loads": {"data": "cos\nsystem\n"},
        "pickle.load": {"file": "bad.pkl"},
        "shutil.rmtree": {"path": "under_attack"},
        "shutil.move": {"src": "under_attack", "dst": mark},
        "shutil.copy": {"src": "evil.py", "dst": mark},
        "pathlib.Path": {"args": mark},
        "pathlib.Path.touch": {"self": mark},
        "pathlib.Path.write_text": {"self": mark, "data": "x"},
        "builtins.eval": {"source": python},
        "builtins.exec": {"source": python},
        "builtins.open": {"file": mark, "mode": "w"},
        "builtins.__import__": {"name": "evil"},
        "io.open": {"file": mark, "mode": "w"},
        "ctypes.CDLL": {"name": "libc.so.6"},
        "webbrowser.open": {"url": "file:///"},
        "multiprocessing.Process": {"target": "os.getpid"},
        "threading.Timer": {"interval": 0, "function": "os.getpid"},
        "functools.partial": {"func": "os.system"},
        "operator.methodcaller": {"name": "system"},
        "logging.FileHandler": {"filename": mark},
        "logging.config.dictConfig": {"config": {"version": 1}},
        "sqlite3.connect": {"database": mark},
        "zipfile.ZipFile": {"file": mark, "mode": "w"},
        "tempfile.mkdtemp": {"dir": "."},
        "evil.Net": {},
        "folder.evil.Net": {},
        ".evil.Net": {},
        "evil": {},
        "": {},
        "torch.load": {"f": "bad.pt", "weights_only": False},
        "torch.serialization.load": {"f": "bad.pt", "weights_only": False},
        "torch.save": {"obj": 1, "f": mark},
        "torch.jit.load": {"f": "bad.pt"},
        "torch.hub.load": {"repo_or_dir": ".", "model": "evil", "source": "local"},
        "torch.hub._import_module": {"name": "evil", "path": "evil.py"},
        "torch.hub.download_url_to_file": {"url": "file:///etc/hostname", "dst": mark},
        "torch.utils.cpp_extension.load": {"name": "x", "sources": ["x.cpp"]},
        "torch.utils.benchmark.Timer": {"stmt": python},
        "torch.utils.data.DataLoader": {"dataset": [1], "num_workers": 1},
        "torch.os.system": {"command": touch},
        "torch.hub.os.mkdir": {"path": mark},
        "torch.nn.Module.__init__": {},
        "torch.nn.Module.__class__": {},
        "torchvision.datasets.FakeData": {},
        "pytorch_lightning.Trainer": {"default_root_dir": mark},
        "pytorch_lightning.LightningModule.load_from_checkpoint": {"checkpoint_path": "bad.pt"},
        "pytorch_lightning.cli.LightningCLI": {"model_class": "evil.Net"},
        "pytorch_lightning.loggers.CSVLogger": {"save_dir": mark},
        "lightning_viz.__main__.main": {"arguments": ["--version"]},
        "lightning_viz.analysis.config.made": {},
    }


GADGETS = list(gadgets())

PLACES = {
    "untyped": ({}, "note"),
    "Any": ({}, "loose"),
    "a callable": ({}, "act"),
    "a type": ({}, "kind"),
    "a callable for modules": ({}, "make"),
    "a module": ({}, "inner"),
    "a mapping": ({}, "settings"),
    "of no parameter": ({}, "unknown"),
    "a key with dots": ({}, "note.class_path"),
    "in a list": ({"note": [[1], "x"]}, "note.0.0"),
    "in a list of modules": ({"parts": [{"class_path": "torch.nn.ReLU"}, None]}, "parts.1"),
    "in a mapping": ({"table": {"a": {"b": 1}}}, "table.a.b"),
    "three deep": ({"note": {"a": [{"b": {"c": 0}}]}}, "note.a.0.b.c"),
    "in a module's arguments": (
        {"block": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 0, "out_features": 1}}},
        "block.init_args.in_features",
    ),
    "in dict_kwargs": ({"block": {"class_path": "torch.nn.ReLU", "dict_kwargs": {"x": 0}}}, "block.dict_kwargs.x"),
    "in a constructor's arguments": (
        {"make": {"class_path": "torch.nn.Dropout", "init_args": {"p": 0}}},
        "make.init_args.p",
    ),
}


def placed(content, way, gadget):
    """A copy of the content with a gadget at the end of the way, whose last step may be a key with dots."""
    content = yaml.safe_load(yaml.safe_dump(content))
    if way not in PLACES["a key with dots"]:
        *steps, last = [int(step) if step.isdigit() else step for step in way.split(".")]
        functools.reduce(operator.getitem, steps, content)[last] = gadget
    else:
        content[way] = gadget
    return content


class Watch:
    """What happens in this process to what the gadgets name."""

    def __init__(self):
        self.on, self.events = False, []
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.on and event in CHECKED.split() and any(word in str(arguments) for word in SUSPECT.split()):
            self.events.append((event, arguments))


WATCH = Watch()


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """A working folder full of traps; at the end none of them has gone off."""
    made = tmp_path / "MARK"
    evil = f"open({str(made)!r}, 'w')\nclass Net: pass\ndef evil(): pass\n"
    (tmp_path / "folder").mkdir()
    (tmp_path / "under_attack").mkdir()
    for name in ("evil.py", "hubconf.py", "folder/evil.py"):
        (tmp_path / name).write_text(evil)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(Runs(made)))
    torch.save(Runs(made), tmp_path / "bad.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    WATCH.on, WATCH.events = True, []
    yield str(made)
    WATCH.on = False
    assert not made.exists()
    assert (tmp_path / "under_attack").is_dir()
    assert not {"evil", "folder.evil", "hubconf"} & sys.modules.keys()
    assert WATCH.events == []


def gadget_of(path, mark):
    arguments = gadgets(mark)[path]
    return {"class_path": path, "init_args": arguments} if arguments else {"class_path": path}


def write_run(folder, content, **more):
    """A run's folder: a configuration, and a checkpoint of the model."""
    (folder / "run/checkpoints").mkdir(parents=True, exist_ok=True)
    path = folder / "run/checkpoints/last.ckpt"
    if not path.exists() or more:
        torch.save({"state_dict": nets.Net().state_dict(), "global_step": 3, **more}, path)
    if content is not None:
        (folder / "run/config.yaml").write_text(yaml.safe_dump(content))
    return folder / "run"


@functools.cache
def parser():
    found = command_parser("test", "A test.", "none")
    add_source(found, out="out")
    return found


def case(*arguments):
    return run_config_of(parser().parse_args(folded([str(one) for one in arguments])))


def assert_one_sentence(said, path):
    lines = [line for line in said.splitlines() if not line.startswith(("analyze: ", "filters: "))]
    assert len(lines) == 1, said
    assert lines[0].startswith("lightning-viz: ")
    assert "config.yaml" in lines[0] and f" {path} (" in lines[0] and "add --trust" in lines[0], said


def test_there_are_more_than_thirty():
    assert len(GADGETS) > 60


def said_in_file(sections, what, typed):
    """What a configuration of these sections says, where the user typed a class path."""
    given = {"class_path": typed} if typed else None
    found = Configuration(Path("runs/config.yaml"), sections)
    return found.named(what, given, packages=frozenset({__name__.partition(".")[0]}))


def assert_refused(refusal, path, place):
    words = str(refusal.value)
    assert words.startswith((f"runs/config.yaml would call {path} ({place}", f"runs/config.yaml names {path} ({place}"))
    assert "add --trust" in words


@pytest.mark.parametrize("path", GADGETS)
def test_a_configuration_names_it_for_an_argument(path, mark):
    for content, way in PLACES.values():
        section = {"class_path": KEEPS, "init_args": placed(content, way, gadget_of(path, mark))}
        for typed in (KEEPS, None):
            with pytest.raises(AnalysisError) as refusal:
                network(said_in_file({"model": section}, "model", typed), None)
            assert_refused(refusal, path, "model.")
    section = {"class_path": DATA, "init_args": {"note": [gadget_of(path, mark)]}}
    with pytest.raises(AnalysisError) as refusal:
        data_of(said_in_file({"data": section}, "data", DATA))
    assert_refused(refusal, path, "data.note.0.class_path)")


@pytest.mark.parametrize("what", ["model", "data"])
@pytest.mark.parametrize("path", GADGETS)
def test_a_configuration_names_it_as_its_model_or_data(path, what, mark):
    with pytest.raises(AnalysisError) as refusal:
        said_in_file({what: gadget_of(path, mark)}, what, None)
    assert_refused(refusal, path, f"{what}.class_path)")


@pytest.mark.parametrize("command", ["analyze", "attribute gradient"])  # filters read no data
def test_commands_refuse_each_in_one_sentence(command, mark, tmp_path, capsys):
    for number, path in enumerate(GADGETS):
        content, way = list(PLACES.values())[number % len(PLACES)]
        note = placed(content, way, gadget_of(path, mark))
        sections = [
            {"model": {"class_path": KEEPS, "init_args": note}, "data": {"class_path": DATA}},
            {"model": {"class_path": KEEPS}, "data": {"class_path": DATA, "init_args": {"note": note}}},
            {"model": gadget_of(path, mark), "data": {"class_path": DATA}},
        ][number % 3]
        typed = ["--model", KEEPS] if number % 3 < 2 else ["--data", DATA]
        run = write_run(tmp_path, sections)
        assert main([*command.split(), str(run), *typed, "--accelerator", "cpu", "--out", str(tmp_path / "out")]) == 2
        assert_one_sentence(capsys.readouterr().err, path)


@pytest.mark.parametrize("path", GADGETS)
def test_a_checkpoint_keeps_it_for_the_model(path, mark):
    gadget = gadget_of(path, mark)
    kept = {"note": gadget, "loose": [gadget], "act": gadget, "kind": path, "table": {"a": gadget}, "more": str(gadget)}
    marks = {"_class_path": path, "_instantiator": path, 3: gadget}
    hyper = {"state_dict": nets.Net().state_dict(), "hyper_parameters": {**kept, **marks, "inner": gadget}}
    for model in (Keeps, ClassSpec(KEEPS), ClassSpec(KEEPS, {"width": "4"})):
        for name in ({}, {"hparams_name": "whole"}, {"hparams_name": "_instantiator"}):
            made = network(model, Checkpoint(Path("a.ckpt"), {**hyper, **name}))
            made.kept.pop("whole", None)
            assert made.kept == kept and made.inner == gadget


@pytest.mark.parametrize("way", ["analyze", "filters", "python"])
def test_a_checkpoint_full_of_them_is_analyzed(way, mark, tmp_path, capsys):
    hyper = {f"note_{number}": gadget_of(path, mark) for number, path in enumerate(GADGETS)}
    hyper |= {"note": hyper["note_0"], "_instantiator": "evil.make", "_class_path": "evil.Net"}
    saved = {**dict.fromkeys(("state", "memories"), hyper["note_0"]), "indices": None, "last_step": 3, "frames": {}}
    recipes = {
        name: {**saved, "recipe": {"view": name, "arguments": {"layers": hyper["note_0"], "probe": hyper["note_0"]}}}
        for name in ("GradCAM", "default_views", "os.system", "__loader__")
    }
    run = write_run(tmp_path, None, hyper_parameters=hyper, hparams_name="kwargs", lightning_viz=recipes)
    out = tmp_path / "out"
    if way == "python":
        analyze(
            run, model=Keeps, data=Data(), out=out, views=["filters"], techniques=[], trainer={"accelerator": "cpu"}
        )
    else:
        quick = ["--views", "filters", "--techniques"] if way == "analyze" else []
        typed = ["--model", KEEPS, "--data", DATA, "--accelerator", "cpu", "--out", str(out)]
        assert main([way, str(run), *typed, *quick]) == 0
        assert "Traceback" not in capsys.readouterr().err
    assert list(out.rglob("*.png"))


def test_the_gadgets_are_real(tmp_path, capsys, monkeypatch):
    """With --trust a configuration is read as LightningCLI reads it."""
    made = tmp_path / "made"
    gadget = {"class_path": "os.mkdir", "init_args": {"path": str(made)}}
    run = write_run(tmp_path, {"model": {"class_path": KEEPS, "init_args": {"loose": gadget}}})
    network(case(run, "--model", KEEPS, "--data", DATA, "--trust").model, None)
    assert made.is_dir()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_net.py").write_text("from tests.analysis.nets import Net, Squares\n")
    own = {"model": {"class_path": "own_net.Net", "init_args": {"width": 4}}, "data": {"class_path": "own_net.Squares"}}
    run = write_run(tmp_path, own)
    typed = ["--accelerator", "cpu", "--out", str(tmp_path / "out")]
    assert main(["filters", str(run), *typed]) == 2
    assert "would call own_net.Net (model.class_path)" in capsys.readouterr().err
    assert "own_net" not in sys.modules
    for more in (["--trust"], ["--model", "own_net.Net", "--overwrite"]):
        assert main(["filters", str(run), *typed, *more]) == 0


# Other ways in.


@pytest.mark.parametrize("argument", ["act", "kind", "make", "inner"])
@pytest.mark.parametrize("name", ["os.system", "evil.Net", "torch.load", "torch.hub.load"])
def test_a_string_is_no_name_of_code(argument, name, mark, tmp_path):
    run = write_run(tmp_path, {"model": {"class_path": KEEPS, "init_args": {argument: name}}})
    with pytest.raises(AnalysisError, match=f"would call {name} .model.{argument}.*add --trust"):
        network(case(run, "--model", KEEPS, "--data", DATA).model, None)


def test_strings_that_look_like_yaml_and_keys_with_dots_stay_what_they_are(mark, tmp_path):
    text = f"{{class_path: os.system, init_args: {{command: touch {mark}}}}}"
    kept = {
        "note": text, "loose": "os.system", "note.class_path": "os.system", "note.init_args.command": f"touch {mark}",
        "_target_": "os.system", "table": {"class_path": 3, "init_args": text},
        "other": {"class_path": "os.system", "x": 1},
    }  # fmt: skip
    run = write_run(tmp_path, {"model": {"class_path": KEEPS, "init_args": kept}})
    made = network(case(run, "--model", KEEPS, "--data", DATA).model, None)
    assert {name: made.kept[name] for name in kept} == kept


def test_what_is_typed_over_a_files_value_does_not_free_it(mark, tmp_path):
    gadget = {"class_path": "os.system", "init_args": {"command": f"touch {mark}"}}
    run = write_run(tmp_path, {"model": {"class_path": KEEPS, "init_args": {"note": gadget}}})
    for typed in (["--model.width", "4"], ["--model.note.x", "1"], ["--model.note.init_args.x", "1"]):
        with pytest.raises(AnalysisError, match=r"os\.system \(model\.note"):
            network(case(run, "--model", KEEPS, "--data", DATA, *typed).model, None)
    assert network(case(run, "--model", KEEPS, "--data", DATA, "--model.note", "x").model, None).kept["note"] == "x"


LAUGHS = "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9) if i else 1}]\n" for i in range(12))
HOSTILE = {
    "nested deep": "model: " + "{a: " * 80 + "1" + "}" * 80,
    "nested without end": "model: " + "[" * 20_000,
    "itself": "model: &a {init_args: {note: *a}}",
    "a billion laughs": LAUGHS + "model: {class_path: x.Y, init_args: {note: *x11}}",
    "a tag": "model: !!python/object/apply:os.mkdir [MARK]",
    "a tag within": "model: {class_path: x.Y, init_args: {note: !!python/name:os.system }}",
    "a class path that is none": "model: {class_path: [os.system]}",
    "arguments that are none": "model: {class_path: torch.nn.ReLU, init_args: [1]}",
    "arguments without names": "model: {class_path: torch.nn.ReLU, init_args: {3: 1}}",
    "merged": "a: &a {class_path: os.system}\nmodel: {<<: *a, init_args: {command: touch MARK}}",
    "no section": "model: os.system\ntrainer: {strategy: {class_path: os.system}}",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence(what, mark, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(HOSTILE[what])
    typed = ["--config", "config.yaml", "--data", DATA, "--out", str(tmp_path / "out")]
    assert main(["filters", *typed]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lightning-viz: ") and len(said.splitlines()) == 1 and "config.yaml" in said


def test_a_file_does_not_bring_modules_of_the_working_folder(mark, tmp_path, monkeypatch):
    elsewhere = tmp_path / "venv"  # within the working folder, as environments often are
    elsewhere.mkdir()
    (elsewhere / "honest.py").write_text("from torch import nn\nclass Net(nn.Module): pass\n")
    (elsewhere / "hungry.py").write_text("import evil\n")
    monkeypatch.syspath_prepend(elsewhere)
    monkeypatch.setattr(config_values, "PACKAGES", ("evil", "folder", "honest", "hungry"))
    origin, path = Origin(Path("config.yaml"), True, frozenset()), list(sys.path)
    for entry in (str(tmp_path), "", "."):
        monkeypatch.syspath_prepend(entry)
        for name in ("evil.Net", "folder.evil.Net", "hungry.Net"):
            with pytest.raises(AnalysisError, match=f"names {name} .* from outside the working folder.*--trust"):
                permitted_class(name, "model.class_path", origin)
    assert permitted_class("honest.Net", "model.class_path", origin).__name__ == "Net"
    assert all(entry in sys.path for entry in path)
    monkeypatch.delitem(sys.modules, "honest")


def test_the_views_saved_state_names_no_code(mark):
    views = ["GradCAM", "Saliency", "Dreams", "Adversarial", "TopSamples", "View", "Predictions", "FirstLayerFilters"]
    others = [
        "default_views",
        "Probe",
        "AdversarialTraining",
        "observe",
        "__loader__",
        "os.system",
        "evil.Net",
        3,
        None,
        [],
    ]
    fields = "layers target method probe pixel_space target_pixel_space units feature steps class_names".split()
    fields += ["forward", "callback", "kind"]
    gadget = {"class_path": "os.system", "init_args": {"command": f"touch {mark}"}}
    for view in views + others:
        for name in fields:
            for value in (
                gadget,
                [gadget],
                "os.system",
                "load",
                "__import__",
                {"inputs": gadget, "labels": "evil.Net"},
            ):
                recipe = {"view": view, "arguments": {name: value}}
                kept = {**dict.fromkeys(("state", "memories", "indices", "last_step"), gadget), "recipe": recipe}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    for found in recorded_views({"lightning_viz": {"a": kept, 3: recipe, "b": [gadget]}}):
                        assert type(found).__name__ in views
    assert recorded_views({"lightning_viz": [gadget]}) == []


def test_a_damaged_folder_of_results_runs_nothing(mark, tmp_path, capsys):
    run, out = write_run(tmp_path, None), tmp_path / "out"
    typed = [str(run), "--model", KEEPS, "--data", DATA, "--accelerator", "cpu", "--out", str(out)]
    for command in (
        ["analyze", *typed, "--views", "filters", "--techniques"],
        ["filters", *typed, "--out", str(out / "f")],
    ):
        assert main(command) == 0
        for file in [file for file in out.rglob("*") if file.suffix in (".pt", ".npz", ".npy")]:
            file.write_bytes(pickle.dumps(Runs(mark)))
        assert main(command) == 0
        for file in out.rglob("finding.json"):
            file.write_text(file.read_text().replace('"step"', '"class_path"'))
        assert main(command) == 0
        assert "Traceback" not in capsys.readouterr().err


# What a configuration may say.


class Color(enum.Enum):
    RED = 1


@dataclass
class Settings:
    rate: float
    color: Color = Color.RED
    places: tuple[int, ...] = ()


class Typed(nn.Module):
    def __init__(
        self,
        color: Color,
        place: Path | None = None,
        size: tuple[int, int] = (1, 1),
        settings: Settings | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        scheduler: LRSchedulerCallable | None = None,
        inner: nn.Module | None = None,
        stack: list[nn.Module] | None = None,
        norm: Callable[..., nn.Module] = nn.Identity,
        block: type[nn.Module] = nn.Identity,
        act: str | Callable = "relu",
        call: Callable[[torch.Tensor], torch.Tensor] | None = None,
        mixed: int | str | nn.Module = 0,
        anything=None,
    ):
        super().__init__()
        self.said = {name: value for name, value in locals().items() if name not in ("self", "__class__")}


def said_of(tmp_path, *typed, **arguments):
    arguments = {"color": "RED", **arguments}
    run = write_run(tmp_path, {"model": {"class_path": f"{__name__}.Typed", "init_args": arguments}})
    return network(case(run, "--model", f"{__name__}.Typed", "--data", DATA, *typed).model, None).said


def test_plain_values_are_converted_by_their_annotations(tmp_path):
    settings = {"rate": "0.5", "color": "RED", "places": [1, 2]}
    said = said_of(tmp_path, place="a/b", size=[3, 4], settings=settings, act="gelu", mixed="x", anything={"a": [1]})
    assert (said["color"], said["place"], said["size"]) == (Color.RED, Path("a/b"), (3, 4))
    assert said["settings"] == Settings(0.5, Color.RED, (1, 2))
    assert (said["act"], said["mixed"], said["anything"]) == ("gelu", "x", {"a": [1]})
    with pytest.raises(AnalysisError, match=r"config.yaml gives model.color as 'GREEN', which is no Color"):
        said_of(tmp_path, color="GREEN")


def test_optimizers_and_schedulers_are_constructors(tmp_path):
    said = said_of(
        tmp_path,
        optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.25}},
        scheduler={"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 3}},
    )
    optimizer = said["optimizer"]([nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["lr"] == 0.25
    assert said["scheduler"](optimizer).step_size == 3
    assert said_of(tmp_path, optimizer="torch.optim.SGD")["optimizer"] is torch.optim.SGD


def test_modules_within_modules(tmp_path):
    linear = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}}
    layer = {
        "class_path": "torch.nn.TransformerEncoderLayer",
        "init_args": {"d_model": 4, "nhead": 2, "activation": "gelu", "batch_first": True},
    }
    encoder = {"class_path": "torch.nn.TransformerEncoder", "init_args": {"encoder_layer": layer, "num_layers": 2}}
    norm = {"class_path": "torch.nn.BatchNorm2d", "init_args": {"eps": 0.5}}
    own = {"class_path": "tests.analysis.nets.Around", "init_args": {"inner": linear}}
    said = said_of(
        tmp_path,
        inner=encoder,
        stack=[linear, own],
        norm=norm,
        block="torch.nn.ReLU",
        call={"class_path": "torch.nn.Tanh"},
    )
    assert len(said["inner"].layers) == 2
    assert (said["stack"][0].out_features, said["stack"][1].inner.in_features) == (3, 2)
    assert said["norm"](4).eps == 0.5 and said["block"] is nn.ReLU and isinstance(said["call"], nn.Tanh)
    assert said_of(tmp_path, norm="torch.nn.BatchNorm2d")["norm"] is nn.BatchNorm2d
    typed = said_of(tmp_path, "--model.inner.out_features", "8", inner=linear)
    assert (typed["inner"].in_features, typed["inner"].out_features) == (2, 8)


def test_a_run_of_lightnings_own_classes_says_all_by_itself(tmp_path):
    boring = "pytorch_lightning.demos.boring_classes.Boring"
    run = write_run(
        tmp_path, {"model": {"class_path": f"{boring}Model"}, "data": {"class_path": f"{boring}DataModule"}}
    )
    found = case(run)
    assert type(network(found.model, None)).__name__ == "BoringModel"
    assert type(data_of(found.data)).__name__ == "BoringDataModule"


def test_a_class_that_cannot_be_made_is_told_with_its_place(tmp_path):
    with pytest.raises(
        AnalysisError, match=r"torch.nn.Linear \(model.inner in .*config.yaml\) cannot be made: TypeError"
    ):
        said_of(tmp_path, inner={"class_path": "torch.nn.Linear", "init_args": {"in_features": 2}})
