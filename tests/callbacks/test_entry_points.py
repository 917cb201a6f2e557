"""Views without a line of code: what the entry points add to a Trainer, by the variable LIGHTNING_VIZ, and when not."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import LambdaCallback

import lightning_viz
from lightning_viz import FabricCallback, GradCAM, Health, View, ViewWarning, default_views
from lightning_viz.callbacks.applicable_views import AddedViews
from lightning_viz_callbacks import fabric_callbacks, trainer_callbacks

from .conftest import ConvNet, fit, images, loader, make_trainer, said

ROOT = Path(lightning_viz.__file__).parents[1]
GROUPS = [
    f"{package}.callbacks_factory"
    for package in ("lightning.pytorch", "pytorch_lightning", "lightning.fabric", "lightning_fabric")
]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The entry points of this checkout, as an installation has them, whenever that was made."""
    sections = re.findall(
        r'^\[project\.entry-points\."(.+)"\]\n((?:\w.*\n)+)', (ROOT / "pyproject.toml").read_text(), re.M
    )
    assert {group for group, _ in sections} >= set(GROUPS)
    place = tmp_path / "installed" / "lightning_viz-9.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: lightning-viz\nVersion: 9\n")
    (place / "entry_points.txt").write_text(
        "\n".join(f"[{name}]\n{lines}" for name, lines in sections).replace('"', "")
    )
    monkeypatch.syspath_prepend(place.parent)
    monkeypatch.delenv("LIGHTNING_VIZ", raising=False)
    return place


def kinds(callbacks):
    return [view.kind for one in callbacks for view in (one if isinstance(one, AddedViews) else [one])]


def weights_of(path):
    return {name: value.clone() for name, value in torch.load(path).items()}


# Without the variable.


@pytest.mark.parametrize("value", [None, "", " ", "0"])
def test_without_being_asked_nothing_is_added_and_nothing_imported(value):
    code = (
        "import os, sys\n"
        f"value = {value!r}\n"
        "os.environ.pop('LIGHTNING_VIZ', None) if value is None else os.environ.update(LIGHTNING_VIZ=value)\n"
        "from lightning_viz_callbacks import fabric_callbacks, trainer_callbacks\n"
        "assert trainer_callbacks() == [] and fabric_callbacks() == []\n"
        "ours = [name for name in sys.modules if name.startswith('lightning_viz')]\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "assert ours == ['lightning_viz_callbacks'], ours\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_trainer_gets_no_callback_of_ours_without_the_variable(installed, tmp_path):
    assert not [one for one in make_trainer(tmp_path, None).callbacks if "lightning_viz" in type(one).__module__]


@pytest.mark.parametrize("broken", ["lightning_viz.callbacks.applicable_views", "lightning_viz.errors"])
def test_what_cannot_be_imported_adds_nothing_and_raises_nothing(broken, monkeypatch, recwarn):
    monkeypatch.setenv("LIGHTNING_VIZ", "1")
    monkeypatch.setitem(sys.modules, broken, None)
    assert trainer_callbacks() == [] and fabric_callbacks() == []


# What is asked for.


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_every_trainer_of_either_package_gets_the_default_views(package, installed, monkeypatch):
    monkeypatch.setenv("LIGHTNING_VIZ", "1")
    trainer = importlib.import_module(package).Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    added = [one for one in trainer.callbacks if isinstance(one, AddedViews)]
    assert kinds(added) == kinds(default_views()) and all(view.optional for view in added[0])


@pytest.mark.parametrize(
    ("value", "expected", "warned"),
    [
        ("grad_cam,health", ["grad_cam", "health"], ""),
        (" Grad-CAM , health,grad_cam", ["grad_cam", "health"], ""),
        ("occlusion", ["occlusion"], ""),  # none of the default views
        ("grad_cm,health", ["health"], "there is no view 'grad_cm': did you mean grad_cam?"),
        ("true", [], "there is no view 'true': choose one of"),
    ],
)
def test_kinds_of_views_are_named_and_what_is_none_is_said(value, expected, warned, monkeypatch, recwarn):
    monkeypatch.setenv("LIGHTNING_VIZ", value)
    added = trainer_callbacks()
    assert kinds(added) == expected and all(view.optional for one in added for view in one)
    assert [warned in str(one.message) for one in recwarn if one.category is ViewWarning] == [True] * bool(warned)


def test_a_name_that_is_none_ends_no_run_where_warnings_are_errors(monkeypatch):
    monkeypatch.setenv("LIGHTNING_VIZ", "grad_cm")
    assert trainer_callbacks() == []  # filterwarnings = error


def test_what_a_script_passes_itself_it_has_once(installed, monkeypatch, tmp_path, drawn_at_once):
    monkeypatch.setenv("LIGHTNING_VIZ", "grad_cam,health,activations")
    own = GradCAM(layers="conv1")
    trainer = fit(tmp_path, ConvNet(), [own])
    views = [one for one in trainer.callbacks if isinstance(one, View)]
    assert [view.kind for view in views] == ["grad_cam", "health", "activations"] and views[0] is own
    assert {"grad_cam/conv1", "health", "activations/conv1", "activations/conv2"} == set(drawn_at_once.tags())


@pytest.mark.parametrize("passed", ["as one", "of the module"])
def test_views_that_a_script_passes_otherwise_are_had_once_too(passed, installed, monkeypatch, tmp_path, drawn_at_once):
    monkeypatch.setenv("LIGHTNING_VIZ", "1")
    own, model = default_views(every_n_epochs=5), ConvNet()
    if passed == "of the module":
        own = [GradCAM(every_n_epochs=5), Health(every_n_epochs=5)]
        model.configure_callbacks = lambda: own
    setups = []
    last = type("Last", (View,), {"setup": lambda self, *_, **__: setups.append(self)})()
    trainer = fit(tmp_path, model, [own, last] if passed == "as one" else [last])
    views = [one for one in trainer.callbacks if isinstance(one, View)]
    assert len({view.kind for view in views}) == len(views) and len(setups) == 1
    assert sum(view.every_n_epochs == 5 for view in views) == len(own)
    assert kinds(views).count("grad_cam") == 1 and "saliency" in kinds(views)


def test_a_callback_behind_views_that_are_all_left_out_is_set_up(installed, monkeypatch, tmp_path, drawn_at_once):
    monkeypatch.setenv("LIGHTNING_VIZ", "grad_cam")
    seen = []
    trainer = make_trainer(tmp_path, [GradCAM()])
    trainer.callbacks.append(LambdaCallback(setup=lambda *_, **__: seen.append(1)))
    trainer.fit(ConvNet(), loader(*images()))
    assert seen == [1] and kinds(one for one in trainer.callbacks if isinstance(one, View)) == ["grad_cam"]


# Silence.


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_a_zero_silences_the_views_of_a_script(stage, installed, monkeypatch, tmp_path, drawn_at_once, capsys):
    monkeypatch.setenv("LIGHTNING_VIZ", "0")
    view = GradCAM(layers="no such layer")  # which would be an error
    trainer, model = make_trainer(tmp_path, [view, Health()]), ConvNet()
    model.test_step = model.validation_step
    for _ in range(2):
        if stage == "fit":
            trainer.fit(model, loader(*images()), loader(*images()))
        else:
            getattr(trainer, stage)(model, loader(*images()), verbose=False)
    assert not drawn_at_once and view.last_step is None
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning_viz")]
    assert lines == (["lightning_viz: views see nothing, as LIGHTNING_VIZ=0 asks"] if stage == "fit" else [])


def test_a_silenced_run_keeps_what_views_go_on_from(monkeypatch, tmp_path, drawn_at_once):
    first = fit(tmp_path, ConvNet(), [Health()])
    first.save_checkpoint(tmp_path / "first.ckpt")
    monkeypatch.setenv("LIGHTNING_VIZ", "0")
    second = fit(tmp_path, ConvNet(), [Health()], ckpt_path=tmp_path / "first.ckpt", max_epochs=2)
    second.save_checkpoint(tmp_path / "second.ckpt")
    kept = [torch.load(tmp_path / name)["lightning_viz"] for name in ("first.ckpt", "second.ckpt")]
    assert str(kept[0]) == str(kept[1]) and kept[0]  # NaN among them


# Scripts that know nothing of us.


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*bottleneck.*", "ignore:.*log.*interval.*")
@pytest.mark.parametrize(
    ("script", "shown", "warned"),
    [
        ("autoencoder", {"health", "filters/encoder.0"}, ["no validation data: the samples are training data"]),
        ("image_classifier", {"health", "mistakes/worst", "grad_cam/backbone.conv2", "saliency/gradient"}, []),
        (
            "fabric_classifier",
            {"health", "grad_cam/conv2", "saliency/gradient", "embedding/every_layer"},
            ["no validation data: the samples are training data", "no labels found in the batches"],
        ),
    ],
)
def test_scripts_that_know_nothing_of_us_are_drawn_and_train_the_same(
    script, shown, warned, installed, monkeypatch, tmp_path, drawn_at_once, recwarn
):
    main = importlib.import_module(f"tests.callbacks.scripts.{script}").main
    monkeypatch.chdir(tmp_path)
    main(tmp_path / "without.pt")
    assert not drawn_at_once
    monkeypatch.setenv("LIGHTNING_VIZ", "1")
    ends = []
    monkeypatch.setattr("atexit.register", ends.append)  # of a program, for which Fabric has no hook
    main(tmp_path / "with.pt")
    for end in ends:
        end()
    without, watched = weights_of(tmp_path / "without.pt"), weights_of(tmp_path / "with.pt")
    assert without.keys() == watched.keys() and all(torch.equal(without[name], watched[name]) for name in without)
    assert shown <= set(drawn_at_once.tags()), drawn_at_once.tags()
    assert said(recwarn) == [f"lightning_viz: {line}" for line in warned]


@pytest.mark.parametrize("package", ["lightning.fabric", "lightning_fabric"])
def test_every_fabric_of_either_package_is_watched_once(package, installed, monkeypatch, tmp_path, drawn_at_once):
    monkeypatch.setenv("LIGHTNING_VIZ", "grad_cam")
    monkeypatch.setattr("atexit.register", lambda end: None)
    Fabric = importlib.import_module(package).Fabric
    for own in (True, False):
        fabric = Fabric(accelerator="cpu", callbacks=[FabricCallback([Health()], logdir=tmp_path)] if own else None)
        model = ConvNet.__mro__[0]()
        module, optimizer = fabric.setup(torch.nn.Sequential(*list(model.children())[:1]), model.configure_optimizers())
        module(images()[0]).mean().backward()
        optimizer.step()
        watches = [one._watch for one in fabric._callbacks if isinstance(one, FabricCallback)]
        kinds_of = [[view.kind for view in one.views] for one in watches if one is not None]
        assert kinds_of == ([["health"]] if own else [["grad_cam"]])
        for one in fabric._callbacks[: len(watches)]:
            one.on_exception()
