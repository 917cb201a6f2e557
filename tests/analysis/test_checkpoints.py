"""A checkpoint is read without running anything in it, and one that cannot be read is refused in one sentence."""

import os
import pickle
import zipfile

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lightning_viz.analysis.config import ClassSpec
from lightning_viz.analysis.models import Checkpoint, find_checkpoints, in_order, network, read_checkpoint
from lightning_viz.errors import AnalysisError


class Runs:
    """Runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def saved(path, step=6, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(step)
    torch.save({"global_step": step, "state_dict": nn.Linear(2, 2).state_dict(), **more}, path)
    return path


def malicious(folder, kind):
    file, made = folder / "bad.ckpt", folder / "made by the checkpoint"
    if kind == "pickle":
        file.write_bytes(pickle.dumps(Runs(made), protocol=2))
    elif kind == "in a checkpoint":
        saved(file, callbacks={"innocent": Runs(made)})
    elif kind == "old format":
        torch.save({"state_dict": Runs(made)}, file, _use_new_zipfile_serialization=False)
    return file, made


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", ["pickle", "in a checkpoint", "old format"])
def test_a_malicious_pickle_runs_nothing(kind, mapped, tmp_path):
    file, made = malicious(tmp_path, kind)
    with pytest.raises(AnalysisError, match=r"bad.ckpt is not loaded: .*run code.*--trust"):
        read_checkpoint(file, mapped=mapped)
    assert not made.exists()
    if kind == "in a checkpoint":
        read_checkpoint(file, trusted=True)  # which is what it says: it runs
        assert made.exists()


def test_the_refusal_names_what_the_file_asks_for(tmp_path):
    file, _ = malicious(tmp_path, "in a checkpoint")
    with pytest.raises(AnalysisError, match=r"it names (posix|nt)\.mkdir"):
        read_checkpoint(file)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_said_to_be_cut_short(share, tmp_path):
    path = saved(tmp_path / "cut.ckpt")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    for mapped in (False, True):
        with pytest.raises(AnalysisError, match=r"cut.ckpt \([\d,]+ bytes\) cannot be read as a checkpoint: .*copy it"):
            read_checkpoint(path, mapped=mapped)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "text.ckpt").write_text("step,loss\n1,0.5\n")
    (tmp_path / "shards.ckpt").mkdir()
    torch.save({"optimizer": {}, "epoch": 3}, tmp_path / "no_weights.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with zipfile.ZipFile(tmp_path / "zip.ckpt", "w") as archive:
        archive.writestr("a.txt", "a")
    for name, words in {
        "text.ckpt": "cannot be read|is not loaded",
        "zip.ckpt": "cannot be read",
        "shards.ckpt": "no checkpoint in shards",
        "no_weights.ckpt": r"holds no weights: .*\['optimizer', 'epoch'\]",
        "list.ckpt": "this file has a list",
        "absent.ckpt": "there is no checkpoint",
    }.items():
        with pytest.raises(AnalysisError, match=words):
            read_checkpoint(tmp_path / name)


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    with pytest.raises(AnalysisError, match="holds no checkpoint"):
        find_checkpoints([tmp_path])


def test_a_runs_checkpoints_are_put_in_the_order_of_their_steps(tmp_path):
    for name, step in {"b=9": 90, "a=10": 100, "last": 100, "c": 5}.items():
        saved(tmp_path / "version_0" / "checkpoints" / f"{name}.ckpt", step)
    found = in_order(find_checkpoints([tmp_path]))
    assert {step: path.stem for step, path in found.items()} == {5: "c", 90: "b=9", 100: "a=10"}
    assert list(found) == [5, 90, 100]


def test_checkpoints_of_two_runs_are_no_series(tmp_path):
    for version in (0, 1):
        weights = {"weight": torch.full((2, 2), float(version))}
        saved(tmp_path / f"version_{version}" / "a.ckpt", 90, state_dict=weights)
    with pytest.raises(AnalysisError, match=r"both of step 90 and hold different weights: .*--compare"):
        in_order(find_checkpoints([tmp_path]))


@pytest.mark.parametrize(
    ("steps", "stepped", "step"),
    [(6, 6, 6), (6, 5, 6), (12, 6, 6), (0, 0, 0)],  # the third has two optimizers
)
def test_the_step_is_that_of_the_runs_own_curves(steps, stepped, step, tmp_path):
    loops = {"fit_loop": {"epoch_loop.state_dict": {"_batches_that_stepped": stepped}}}
    assert read_checkpoint(saved(tmp_path / "a.ckpt", steps, loops=loops)).step == step


def test_a_file_of_weights_alone_is_a_checkpoint_of_step_zero(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    found = read_checkpoint(tmp_path / "weights.pt")
    assert found.step == 0 and set(found.state_dict) == {"weight", "bias"}


class Sized(nn.Module):
    def __init__(self, width, depth=1):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


def checkpoint(tmp_path, model, **kept):
    return Checkpoint(tmp_path / "a.ckpt", {"state_dict": model.state_dict(), "hyper_parameters": kept})


def test_the_model_of_a_class_is_made_with_what_its_checkpoint_kept(tmp_path):
    kept = checkpoint(tmp_path, Sized(3, 2), width=3, depth=2, learning_rate=0.1, _class_path="os.system")
    for model in (Sized, ClassSpec(f"{__name__}.Sized"), ClassSpec(f"{__name__}.Sized", {"width": 3})):
        found = network(model, kept)
        assert len(found.layers) == 2 and not found.training
        torch.testing.assert_close(dict(found.state_dict()), dict(kept.state_dict))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Sized(3, 3), r"a.ckpt is not of Sized: 2 weights missing \(layers.2.weight, layers.2.bias\); give the model"),
        (Sized(3, 1), r"2 unexpected \(layers.1.weight"),
        (Sized(4, 2), r"4 of another shape \(layers.0.weight, .*\.\.\.\)"),
        (nn.Linear(2, 2), "is not of Linear: 2 weights missing .*; 4 unexpected"),
        (Sized, "Sized cannot be made: .*width.*save_hyperparameters"),
        (ClassSpec(f"{__name__}.Sized"), r"cannot be made without \['width'\]: give them as --model.NAME VALUE"),
        (ClassSpec(f"{__name__}.Sized", {"width": "wide"}), "cannot be made"),
        (
            ClassSpec(f"{__name__}.Sized", {"width": 3, "height": 2}),
            r"takes no 'height': it takes \['width', 'depth'\]",
        ),
        (ClassSpec(f"{__name__}.Absent"), "has no 'Absent'"),
        (ClassSpec("no_such_package.Model"), "there is no module 'no_such_package' here"),
        (ClassSpec("Model"), "is no class path: give package.module.Class"),
        (ClassSpec("collections.OrderedDict"), "is of another kind: give the class path of a Module"),
        (ClassSpec(f"{__name__}.saved"), "cannot be made|takes no|gives a"),
    ],
)
def test_a_wrong_model_is_refused_in_one_sentence(model, words, tmp_path):
    with pytest.raises(AnalysisError, match=words):
        network(model, checkpoint(tmp_path, Sized(3, 2)))


class Lazy(nn.Sequential):
    def __init__(self):
        super().__init__(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))


class Late(pl.LightningModule):
    """Makes its layers where Lightning asks for them."""

    def configure_model(self):
        self.layer = nn.Linear(2, 2)


class WithState(nn.Linear):
    """Saves more than weights."""

    def __init__(self):
        super().__init__(2, 2)
        self.state = 0

    def get_extra_state(self):
        return {"count": self.state}

    def set_extra_state(self, state):
        self.state = state["count"]


def test_weights_that_are_made_late_are_loaded(tmp_path):
    lazy, late, more = Lazy(), Late(), WithState()
    lazy(torch.zeros(1, 1, 8, 8))
    late.configure_model()
    more.state = 3
    for model, saved in ((Lazy(), lazy), (Late(), late), (WithState(), more)):
        found = network(model, checkpoint(tmp_path, saved)).state_dict()
        torch.testing.assert_close(dict(found), dict(saved.state_dict()))


def test_one_argument_that_holds_all_is_taken_from_the_checkpoint(tmp_path):
    class Whole(pl.LightningModule):
        def __init__(self, hparams):
            super().__init__()
            self.save_hyperparameters(hparams)
            self.layer = nn.Linear(hparams["width"], 1)

    model = Whole({"width": 3})
    content = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "hparams_name": "hparams"}
    assert model._hparams_name == "hparams"
    assert network(Whole, Checkpoint(tmp_path / "a.ckpt", content)).layer.in_features == 3
