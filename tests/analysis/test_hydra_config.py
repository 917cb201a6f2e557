"""A run of Hydra's: its ``.hydra/config.yaml`` names the model and the data, and calls nothing without ``--trust``."""

import functools
from pathlib import Path

import pytest
import torch
import yaml

from lightning_viz.analysis.data import data_of
from lightning_viz.analysis.models import network
from lightning_viz.cli.source_options import add_source, command_parser, folded, run_config_of
from lightning_viz.errors import AnalysisError

from . import nets

NET, DATA = f"{__name__}.Net", f"{__name__}.Data"
ADAM = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.25}


class Net(torch.nn.Module):
    def __init__(self, optimizer=None, inner=None, sizes=(), scheduler=None):
        super().__init__()
        self.optimizer, self.inner, self.sizes, self.scheduler = optimizer, inner, sizes, scheduler


class Data(nets.Squares):
    def __init__(self, folder="", count=6):
        super().__init__(count, 3)
        self.folder = folder


MODEL = {"_target_": NET, "optimizer": ADAM, "inner": {"_target_": "torch.nn.Linear", "_args_": [3, "${width}"]}}
CONFIGURATION = {
    "width": 2,
    "paths": {"root": "${oc.env:PROJECT_ROOT}", "data": "${paths.root}/digits", "out": "${hydra:runtime.output_dir}"},
    "model": MODEL,
    "data": {"_target_": DATA, "folder": "${paths.data}", "count": "${oc.env:COUNT,7}"},
    "trainer": {"_target_": "pytorch_lightning.Trainer", "precision": "64-true", "default_root_dir": "${paths.out}"},
    "seed": 3,
}


def options_of(folder: Path, configuration, *arguments):
    (folder / ".hydra").mkdir(exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(configuration))
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"cwd": "/home/user"}}}))
    (folder / "checkpoints").mkdir(exist_ok=True)
    place = folder / "checkpoints" / "last.ckpt"
    torch.save({"state_dict": nets.Net(4).state_dict(), "global_step": 3}, place)
    parser = command_parser("analyze", "", "")
    add_source(parser, out="out")
    return parser.parse_args(folded([str(place), *arguments]))


def test_model_and_data_are_made_as_hydra_makes_them(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("PROJECT_ROOT", raising=False)
    config = run_config_of(options_of(tmp_path, CONFIGURATION, "--trust"))
    net, data = network(config.model, None), data_of(config.data)
    assert isinstance(net.optimizer, functools.partial) and net.optimizer.func is torch.optim.Adam
    assert net.optimizer.keywords == {"lr": 0.25}
    assert net.inner.weight.shape == (2, 3)
    assert (data.folder, config.seed, config.trainer["precision"]) == ("/home/user/digits", 3, "64-true")


def test_what_is_typed_goes_before_what_the_file_says(tmp_path: Path):
    typed = ("--trust", "--data.folder", "/elsewhere", "--data.count", "5")
    config = run_config_of(options_of(tmp_path, {**CONFIGURATION, "paths": {}}, *typed))
    assert data_of(config.data).folder == "/elsewhere"


def test_without_trust_one_sentence_names_every_target(tmp_path: Path):
    with pytest.raises(AnalysisError) as refusal:
        run_config_of(options_of(tmp_path, CONFIGURATION))
    message = str(refusal.value)
    for target in (NET, DATA, "torch.optim.Adam", "torch.nn.Linear"):
        assert message.count(target) == 1
    assert "--trust" in message and "pytorch_lightning.Trainer" not in message


def test_classes_that_are_typed_take_the_plain_arguments_of_the_file_without_trust(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PROJECT_ROOT", "/root")
    model = {"_target_": NET, "optimizer": ADAM, "sizes": [1, 2]}
    options = options_of(tmp_path, {**CONFIGURATION, "model": model}, "--model", NET, "--data", DATA)
    config = run_config_of(options)
    net = network(config.model, None)
    assert net.optimizer.func is torch.optim.Adam and net.sizes == [1, 2]
    assert data_of(config.data).folder == "/root/digits"


GADGETS = {
    "call": {"_target_": "os.mkdir", "path": "MARK"},
    "positional": {"_target_": "os.mkdir", "_args_": ["MARK"]},
    "partial": {"_target_": "os.mkdir", "_partial_": True, "path": "MARK"},
    "nested": {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "os.mkdir", "path": "MARK"}]},
    "in a list": [{"_target_": "os.mkdir", "path": "MARK"}],
    "in a mapping": {"key": {"_target_": "os.mkdir", "path": "MARK"}},
    "by reference": "${gadget}",
    "of torch": {"_target_": "torch.hub.load", "repo_or_dir": "MARK", "model": "x"},
}


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("gadget", GADGETS.values(), ids=GADGETS)
def test_nothing_is_called_without_trust(tmp_path: Path, gadget, typed):
    mark = tmp_path / "mark"
    gadget, of_file = (
        yaml.safe_load(yaml.safe_dump(one).replace("MARK", str(mark))) for one in (gadget, GADGETS["call"])
    )
    model = {"_target_": NET, "inner": gadget}
    arguments = ("--model", NET, "--data", DATA) if typed else ()
    options = options_of(
        tmp_path, {**CONFIGURATION, "gadget": of_file, "model": model, "paths": {"data": ""}}, *arguments
    )
    with pytest.raises(AnalysisError, match="--trust"):
        network(run_config_of(options).model, None)
    assert not mark.exists()


@pytest.mark.parametrize(
    "loop",
    [{"a": "${b}", "b": "${a}"}, {"a": "${a}${a}", "b": 0}, {"a": ["${a}", "${a}"], "b": "${a}"}],
    ids=["circle", "doubling", "doubling list"],
)
def test_references_that_do_not_end_are_refused(tmp_path: Path, loop):
    model = {"_target_": NET, "inner": "${a}"}
    with pytest.raises(AnalysisError, match=r"inner|which model"):
        run_config_of(options_of(tmp_path, {**CONFIGURATION, **loop, "model": model}, "--trust"))
