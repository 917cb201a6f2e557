"""What is said of model and data, by a run's config.yaml, by the checkpoint and by the user, comes together rightly."""

import sys
import warnings

import pytest
import torch
import yaml
from PIL import Image

from lightning_viz import FirstLayerFilters
from lightning_viz.analysis.config import ClassSpec, instantiate
from lightning_viz.analysis.models import pretrained
from lightning_viz.callbacks.serialization import CLASSES
from lightning_viz.cli.source_options import (
    add_source,
    command_parser,
    folded,
    model_under_study_of,
    run_config_of,
)
from lightning_viz.errors import AnalysisError
from lightning_viz.pixels import PixelSpace
from tests.analysis import nets

NET, SQUARES = "tests.analysis.nets.Net", "tests.analysis.nets.Squares"
AROUND = "tests.analysis.nets.Around"


def options_of(*arguments):
    parser = command_parser("test", "A test.", "none")
    add_source(parser, out="out")
    return parser.parse_args(folded([str(one) for one in arguments]))


def case(*arguments):
    return run_config_of(options_of(*arguments))


@pytest.fixture
def run_folder(tmp_path):
    """Makes a run's folder of a configuration."""

    def make(name="run", **content):
        place = tmp_path / name
        (place / "checkpoints").mkdir(parents=True)
        torch.save({"state_dict": nets.Net(5).state_dict(), "global_step": 4}, place / "checkpoints/last.ckpt")
        (place / "config.yaml").write_text(yaml.safe_dump(content))
        return place

    return make


@pytest.mark.parametrize("said", [["--model", NET], ["--data", SQUARES], ["--trust"]])
def test_the_folder_of_a_cli_run_says_all_but_whose_code_may_run(cli_run, said):
    for place in (cli_run, cli_run.parent, cli_run / "checkpoints", next(cli_run.rglob("*.ckpt"))):
        found = case(place, *said)
        assert found.model == ClassSpec(NET, {"width": 5, "classes": 3, "rate": 0.05})
        assert found.data == ClassSpec(SQUARES, {"count": 8, "batch": 4})
        assert found.seed == 7
        assert found.trainer["precision"] == "32-true"


def test_what_is_typed_goes_before_what_the_run_says(cli_run):
    found = case(cli_run, "--trust", "--data.count", 4, "--model.rate=0.1", "--seed", 0, "--precision", "64-true")
    assert found.data.init_args == {"count": "4", "batch": 4}
    assert found.model.init_args == {"width": 5, "classes": 3, "rate": "0.1"}
    assert (found.seed, found.trainer["precision"]) == (0, "64-true")


def test_the_arguments_of_another_class_are_not_taken_over(cli_run):
    assert case(cli_run, "--model", AROUND).model == ClassSpec(AROUND)
    assert case(cli_run, "--model", "moved.to.Net", "--data", SQUARES).model.init_args["width"] == 5


def test_a_cli_of_fixed_classes_needs_their_names_alone(run_folder):
    place = run_folder(model={"width": 5}, data={"count": 8})
    with pytest.raises(AnalysisError, match=r"config.yaml does not name the class of its model .* give --model"):
        case(place)
    with pytest.raises(AnalysisError, match=r"does not name the class of its data"):
        case(place, "--model", NET)
    found = case(place, "--model", NET, "--data", SQUARES, "--data.batch", 2)
    assert found.model == ClassSpec(NET, {"width": 5})
    assert found.data == ClassSpec(SQUARES, {"count": 8, "batch": "2"})


@pytest.fixture(scope="module")
def fixed_run(tmp_path_factory):
    """The folder of a run of LightningCLI whose classes are given in code, with a view."""
    from pytorch_lightning.cli import LightningCLI

    folder = tmp_path_factory.mktemp("fixed")
    trainer = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": "false", "default_root_dir": folder}
    arguments = [f"--trainer.{name}={value}" for name, value in trainer.items()]
    options = {"trainer_defaults": {"callbacks": [FirstLayerFilters()]}, "save_config_kwargs": {"overwrite": True}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LightningCLI(nets.Net, nets.Squares, args=["fit", *arguments, "--model.width=5", "--data.count=8"], **options)
    return next(folder.rglob("config.yaml")).parent


def test_the_classes_of_a_cli_of_fixed_classes_are_in_its_checkpoint(fixed_run):
    assert "class_path" not in yaml.safe_load((fixed_run / "config.yaml").read_text())["model"]
    found = case(fixed_run, "--trust")
    assert found.model == ClassSpec(NET, {"width": 5, "classes": 3, "rate": 0.05})
    assert found.data == ClassSpec(SQUARES, {"count": 8, "batch": 4})
    assert case(fixed_run, "--model", NET).data.class_path == SQUARES  # of a package that was typed
    assert case(fixed_run, "--data", SQUARES, "--model.width", "6").model == ClassSpec(
        NET, {"width": "6", "classes": 3, "rate": 0.05}
    )


def test_a_class_that_a_checkpoint_names_is_not_imported_without_trust(fixed_run):
    with pytest.raises(AnalysisError, match=r"ckpt would call tests\.analysis\.nets\.Net .*--trust"):
        case(fixed_run)


@pytest.mark.parametrize(
    ("path", "trust", "says"),
    [
        ("os.system", True, "os.system as its model, which is none of Lightning's"),
        ("os.system", False, "without --trust a file may name only"),
        ("__main__.Net", True, r"last\.ckpt says __main__\.Net, .*give --model SCRIPT\.Net"),
        ("nowhere.Net", True, "there is no module 'nowhere' here"),
        (7, True, "does not name the class of its model"),
    ],
)
def test_what_a_checkpoint_names_as_its_class_is_checked(run_folder, path, trust, says):
    place = run_folder(model={"width": 5}, data={"count": 8})
    kept = {"state_dict": nets.Net(5).state_dict(), "global_step": 4, CLASSES: {"model": path}}
    torch.save(kept, place / "checkpoints/last.ckpt")
    with pytest.raises(AnalysisError, match=says):
        case(place, *(["--trust"] if trust else []))


def test_a_class_of_the_script_that_was_run_is_asked_for(run_folder):
    place = run_folder(model={"class_path": "__main__.Net", "init_args": {"width": 5}}, data={"class_path": SQUARES})
    with pytest.raises(AnalysisError, match=r"give --model SCRIPT\.Net"):
        case(place)
    assert case(place, "--model", NET).model == ClassSpec(NET, {"width": 5})


def test_what_a_checkpoint_names_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    kept = {"state_dict": {}, "hyper_parameters": {"_class_path": "evil.Net", "_instantiator": "evil.make"}}
    torch.save(kept, tmp_path / "a.ckpt")
    with pytest.raises(AnalysisError, match="which model"):
        case(tmp_path / "a.ckpt", "--data", SQUARES)
    assert "evil" not in sys.modules


def test_several_runs_are_not_one(run_folder):
    first = run_folder("one", model={"class_path": NET}, data={"class_path": SQUARES})
    second = run_folder("two", model={"class_path": NET}, data={"class_path": SQUARES})
    for places in ([first.parent], [first, second]):
        with pytest.raises(AnalysisError, match=r"2 runs are given .*one.*two"):
            case(*places)


def test_another_tools_configuration_is_passed_over(run_folder):
    place = run_folder(optimizer="adam")
    assert case(place, "--model", NET, "--data", SQUARES).model == ClassSpec(NET)
    with pytest.raises(AnalysisError, match="is no configuration of a LightningCLI"):
        case(place, "--config", place / "config.yaml")


def test_a_configuration_runs_no_code(run_folder):
    place = run_folder()
    (place / "config.yaml").write_text("model: !!python/object/apply:os.system ['false']")
    with pytest.raises(AnalysisError, match="cannot be read as YAML"):
        case("--config", place / "config.yaml")


def test_data_that_the_model_brings_itself(run_folder):
    assert case(run_folder(model={"class_path": NET}), "--model", NET).data is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (["--model", AROUND, "--model.inner", NET, "--model.inner.width", "6"], (6, 1)),
        (["--model", AROUND, "--model.inner", NET, "--model.inner.init_args.width=6", "--model.depth=2"], (6, 2)),
        (["--model", f'{{"class_path": "{AROUND}", "init_args": {{"depth": 3}}}}', "--model.inner", NET], (4, 3)),
        (["--model.init_args.depth", "4", "--model.inner", NET, "--model", AROUND], (4, 4)),
    ],
)
def test_arguments_are_written_as_for_lightnings_cli(said, meant):
    found = instantiate(case(*said, "--data", SQUARES).model, nets.Around, "model")
    assert (found.inner.conv1.out_channels, found.depth) == meant


def test_arguments_that_are_not_given_come_from_the_checkpoint(tmp_path):
    net = nets.Net(width=6)
    torch.save(
        {"state_dict": net.state_dict(), "hyper_parameters": dict(net.hparams), "global_step": 3}, tmp_path / "a.ckpt"
    )
    options = options_of(tmp_path / "a.ckpt", "--model", NET, "--data", SQUARES, "--samples", 5, "--accelerator", "cpu")
    subject = model_under_study_of(options)
    assert torch.equal(subject.model.conv1.weight, net.conv1.weight)
    assert (subject.step, len(subject.samples), subject.name) == (3, 5, "Net")


def test_the_strategy_of_a_run_is_for_several_devices(run_folder):
    place = run_folder(model={"class_path": NET}, data={"class_path": SQUARES}, trainer={"strategy": "ddp"})
    assert "strategy" not in case(place, "--trust").trainer
    assert case(place, "--trust", "--devices", 2).trainer["strategy"] == "ddp"
    assert case(place, "--trust", "--devices", 2, "--strategy", "fsdp").trainer == {
        "accelerator": "auto",
        "devices": 2,
        "strategy": "fsdp",
    }


def test_how_inputs_map_to_pixels_is_said(cli_run):
    assert case(cli_run, "--trust").pixel_space is None
    found = case(cli_run, "--trust", "--pixel_space.mean", 0.5, 0.4, 0.3, "--pixel_space.std", 0.2)
    assert found.pixel_space == PixelSpace((0.5, 0.4, 0.3), (0.2,))


def test_a_torchvision_model_needs_its_name_and_a_folder_of_images(tmp_path):
    Image.new("RGB", (30, 40)).save(tmp_path / "a.png")
    found = case("--torchvision", "squeezenet1_1", "--weights", "none", "--images", tmp_path)
    assert found.title() == "squeezenet1_1"
    assert found.data[0].shape == (3, 224, 224)
    assert found.data.classes[0] == "tench"
    assert found.pixel_space.mean == (0.485, 0.456, 0.406)
    again = case("--torchvision", "squeezenet1_1", "--weights", "none", "--images", tmp_path)
    assert again.key(None, "views") == found.key(None, "views")


def test_images_for_a_model_of_ones_own(tmp_path, cli_run):
    Image.new("RGB", (30, 40), (128, 128, 128)).save(tmp_path / "a.png")
    found = case(
        cli_run,
        "--trust",
        "--images",
        tmp_path,
        "--size",
        8,
        "--gray",
        "--pixel_space.mean",
        0.5,
        "--pixel_space.std",
        0.25,
    )
    assert found.data[0].shape == (1, 8, 8)
    assert found.data[0].abs().max() < 0.01


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([], "which model"),
        (["--model", NET], "which data"),
        (["--model.width", "3"], "not of which class: give --model"),
        (["--torchvision", "resnet81", "--data", SQUARES], "no model 'resnet81'; did you mean resnet18"),
        (["--torchvision", "resnet18", "--weights", "V9", "--data", SQUARES], "no weights 'V9': it has IMAGENET1K_V1"),
        (["--torchvision", "resnet18", "--model", NET], "two models"),
        (["--model", NET, "--data", SQUARES, "--images", "."], "two sources of data"),
        (["--torchvision", "resnet18", "--images", "nowhere"], "there is no folder nowhere"),
        (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_what_is_missing_is_said_with_the_remedy(said, words):
    with pytest.raises(AnalysisError, match=words):
        case(*said)


def test_an_option_without_a_value():
    with pytest.raises(ValueError, match=r"--model\.width needs a value"):
        folded(["--model", NET, "--model.width"])


@pytest.mark.parametrize(
    ("what", "path"), [("model", "os.mkdir"), ("data", "os.mkdir"), ("data", "subprocess.Popen"), ("model", SQUARES)]
)
def test_a_runs_file_names_no_function_to_call(what, path, run_folder, tmp_path):
    made_by_it = tmp_path / "made by the file"
    named = {"model": {"class_path": NET}, "data": {"class_path": SQUARES}}
    place = run_folder(**{**named, what: {"class_path": path, "init_args": {"path": str(made_by_it)}}})
    with pytest.raises(AnalysisError, match=f"config.yaml would call .*; give --{what} .*, or, .* add --trust"):
        case(place, *(["--model", NET] if what == "data" else []))
    with pytest.raises(AnalysisError, match=f"names {path} as its {what}, .*give --{what} {path}"):
        case(place, "--trust")
    assert not made_by_it.exists()
    known = {"model": NET, "data": SQUARES, what: path}
    assert getattr(case(place, "--model", known["model"], "--data", known["data"]), what).class_path == path  # is meant


def test_random_weights_need_no_network(monkeypatch):
    def offline(*arguments, **options):
        raise AssertionError("something is downloaded")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    assert pretrained("lraspp_mobilenet_v3_large", "none").load().backbone
