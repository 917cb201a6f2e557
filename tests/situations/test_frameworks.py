"""Kind 7: frameworks around the Trainer, and the Trainer's own ways to run."""

import copy
import dataclasses
import multiprocessing
import os
import typing
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from pytorch_lightning.tuner import Tuner

from lightning_viz import FirstLayerFilters, GradCAM, View, default_views
from lightning_viz.analysis.models import network, read_checkpoint
from lightning_viz.cli.source_options import add_source, command_parser, run_config_of
from tests.analysis import nets

from .brought import Classifier, Quarters, pictures, rows
from .situation import ARGUMENT, REFUSED, Call, Training, situation, situations, usual_views
from .truth import all_right, shown_as_images

images, labels = pictures()


def data():
    return rows(images, labels)


class Data(pl.LightningDataModule):
    """Of a user."""

    def train_dataloader(self):
        return data()

    def val_dataloader(self):
        return data()


@situation(7, "a LightningDataModule")
def data_module():
    return Training(Classifier(), Data()), shown_as_images


@situation(
    7,
    "Hydra's `instantiate` of a Trainer with views: OmegaConf takes no dataclass with such fields",
)
def hydra_callbacks():
    def structured(value):
        """As OmegaConf: an object of a dataclass is a structured config, whose unions are of primitives alone."""
        if not dataclasses.is_dataclass(value):
            return value
        for name, hint in typing.get_type_hints(type(value)).items():
            for part in typing.get_args(hint):
                if part not in (int, float, bool, str, bytes, type(None)):
                    raise ValueError(f"Unsupported type: {name} is {hint}")
        return value

    def check(seen):
        assert all(view.kind for view in seen.value)

    return Call(lambda: [structured(copy.deepcopy(view)) for view in default_views()]), check


@situation(7, "Hydra itself: `_target_: lightning_viz.GradCAM` among a Trainer's callbacks")
def hydra_itself():
    def call():
        hydra = pytest.importorskip("hydra")
        callbacks = [{"_target_": "lightning_viz.GradCAM", "target": "predicted"}]
        trainer = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "logger": False}
        return hydra.utils.instantiate({**trainer, "callbacks": callbacks})

    def check(seen):
        assert any(isinstance(callback, GradCAM) for callback in seen.value.callbacks)

    return Call(call), check


def configured(callbacks):
    """A training whose callbacks are made one by one, as the lightning-hydra-template makes them; a list would nest."""

    def start(trainer):
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 1}
        folder = trainer.default_root_dir
        made = callbacks()
        assert not any(isinstance(callback, (list, tuple)) for callback in made)
        pl.Trainer(accelerator="cpu", callbacks=made, default_root_dir=folder, **options).fit(
            Classifier(), data(), data()
        )

    return Training(None, None, views=[], start=start, draws=("filters", "grad_cam")), shown_as_images


def made_by_hydra(*configurations):
    """As `instantiate_callbacks` of the template does."""
    hydra, omegaconf = pytest.importorskip("hydra"), pytest.importorskip("omegaconf")
    return [hydra.utils.instantiate(omegaconf.OmegaConf.create(one)) for one in configurations]


@situation(7, "what `default_views()` gives stands among other callbacks as one of them")
def views_as_one_callback():
    return configured(lambda: [pl.callbacks.Timer(), default_views(), pl.callbacks.ModelSummary()])


@situation(7, "Hydra: `_target_: lightning_viz.default_views` among callbacks that are made one by one")
def hydra_default_views():
    timer = {"_target_": "pytorch_lightning.callbacks.Timer"}
    return configured(lambda: made_by_hydra(timer, {"_target_": "lightning_viz.default_views"}))


class Listed(Sequence):
    """A list of a configuration, as OmegaConf's, which is no `list`."""

    def __init__(self, *values):
        self.values = values

    def __getitem__(self, index):
        return self.values[index]

    def __len__(self):
        return len(self.values)


def listed(make):
    def check(seen):
        view = seen.value
        assert view.name == GradCAM(layers=["conv"], target=["predicted", 1], steps=[0, 2]).name
        assert view.schedule.steps == (0, 2)

    return Call(make), check


@situation(7, "arguments that are lists of a configuration, no Python lists")
def configured_lists():
    return listed(lambda: GradCAM(layers=Listed("conv"), target=Listed("predicted", 1), steps=Listed(0, 2)))


@situation(7, "Hydra: arguments that are OmegaConf's lists")
def omegaconf_lists():
    arguments = {"layers": ["conv"], "target": ["predicted", 1], "steps": [0, 2]}
    return listed(lambda: made_by_hydra({"_target_": "lightning_viz.GradCAM", **arguments})[0])


@situation(7, "a view of a user's that is decorated as a dataclass: no dataclass to others either")
def decorated_view():
    @dataclasses.dataclass(kw_only=True, eq=False)
    class Own(GradCAM):
        depth: int = 1

    def check(seen):
        assert seen.value.name == "Own(layers='conv', depth=2)"
        assert not dataclasses.is_dataclass(seen.value)

    return Call(lambda: Own(layers="conv", depth=2, every_n_epochs=3)), check


class Wide(Classifier):
    """Its hyper-parameters hold a function with arguments, as those of the lightning-hydra-template."""

    def __init__(self, optimizer, sharpness: float = 20.0):
        super().__init__(Quarters(sharpness=sharpness))
        self.save_hyperparameters()

    def configure_optimizers(self):
        return self.hparams.optimizer(self.parameters())


def partial_checkpoint(*, trusted: bool):
    """A checkpoint whose hyper-parameters hold a partial, read again."""

    def start(trainer):
        trainer.fit(Wide(partial(torch.optim.SGD, lr=0.0), 10.0), data(), data())
        trainer.save_checkpoint(path := Path(trainer.default_root_dir) / "saved.ckpt")
        return network(Wide, read_checkpoint(path, trusted=trusted))

    return Training(None, None, start=start)


@situation(7, "a checkpoint whose hyper-parameters hold a `functools.partial`, with `--trust`")
def partial_in_hyper_parameters():
    def check(seen):
        assert seen.value.net.sharpness == 10.0

    return partial_checkpoint(trusted=True), check


@situation(7, "the same without `--trust`: one sentence", REFUSED, says="--trust")
def partial_without_trust():
    return partial_checkpoint(trusted=False), lambda seen: None


def fixed_classes(model, *options):
    """A LightningCLI's run whose configuration names no classes, which the run's views leave in its checkpoint."""

    def start(trainer):
        trainer.fit(model, nets.Squares(8, 4))
        folder = Path(trainer.default_root_dir)
        trainer.save_checkpoint(folder / "last.ckpt")
        (folder / "config.yaml").write_text("model: {width: 5}\n")
        parser = command_parser("test", "A test.", "none")
        add_source(parser, out="out")
        return run_config_of(parser.parse_args([str(folder), *options])).model

    def check(seen):
        assert seen.error or (seen.value.class_path == f"{nets.__name__}.Net" and seen.value.init_args == {"width": 5})

    return Training(None, None, views=[FirstLayerFilters()], start=start, draws=("filters",)), check


@situation(7, "`LightningCLI(Model, Data)`, the classes given in code: `analyze RUN --trust` finds them", ARGUMENT)
def classes_in_code():
    return fixed_classes(nets.Net(5), "--trust")


@situation(7, "the same without `--trust`: one sentence names the class", REFUSED, says=r"nets\.Net .*--trust")
def classes_in_code_without_trust():
    return fixed_classes(nets.Net(5))


@situation(7, "the same of a class of the script that was run: one sentence", REFUSED, says=r"give --model SCRIPT\.Own")
def classes_of_a_script():
    kind = type("Own", (nets.Net,), {"__module__": "__main__", "__qualname__": "Own"})
    return fixed_classes(kind(), "--trust")


@situation(7, "`Trainer.validate` alone: views draw once")
def validate_alone():
    def check(seen):
        shown_as_images(seen)
        assert len(seen.of("grad_cam")) == 1

    return Training(None, None, start=lambda trainer: trainer.validate(Classifier(), data())), check


@situation(7, "`Trainer.test` alone: views draw once, of the test data")
def only_tested():
    class Model(Classifier):
        test_step = Classifier.validation_step

    def check(seen):
        shown_as_images(seen)
        assert len(seen.of("grad_cam")) == 1

    return Training(None, None, start=lambda trainer: trainer.test(Model(), data())), check


def evaluated(start, looks, **options):
    """Looks at Grad-CAM, as tags and steps, and nothing else."""

    class Model(Classifier):
        test_step = Classifier.validation_step

    def check(seen):
        shown_as_images(seen)
        assert [(drawing.tag, drawing.step) for drawing in seen.of("grad_cam")] == looks

    return Training(None, None, start=lambda trainer: start(trainer, Model()), **options), check


@situation(7, "`Trainer.validate` after `fit`: nothing is drawn twice, and it is said", says="step 2 before")
def validate_after_fit():
    def start(trainer, model):
        trainer.fit(model, data(), data())
        trainer.validate(model, data())

    return evaluated(start, [("grad_cam/net.conv", 0), ("grad_cam/net.conv", 2)])


@situation(7, "`Trainer.validate` before `fit`: step 0 is drawn once")
def validate_before_fit():
    def start(trainer, model):
        trainer.validate(model, data())
        trainer.fit(model, data(), data())

    return evaluated(start, [("grad_cam/net.conv", 0), ("grad_cam/net.conv", 2)])


@situation(7, "`Trainer.validate(ckpt_path=...)` in a new Trainer: drawn at the checkpoint's step")
def validate_checkpoint():
    def start(trainer, model):
        options = {"accelerator": "cpu", "logger": False, "max_epochs": 1, "enable_progress_bar": False}
        first = pl.Trainer(callbacks=[GradCAM()], default_root_dir=trainer.default_root_dir, **options)
        first.fit(model, data(), data())
        first.save_checkpoint(path := Path(trainer.default_root_dir) / "saved.ckpt")
        trainer.validate(model, data(), ckpt_path=path)

    return evaluated(start, [("grad_cam/net.conv", 0), ("grad_cam/net.conv", 2), ("grad_cam/net.conv", 2)])


@situation(7, "`Trainer.test` of a checkpoint after `fit`, then `fit` again: test data under tags of their own")
def fit_test_fit():
    def start(trainer, model):
        trainer.fit(model, data(), data())
        trainer.save_checkpoint(path := Path(trainer.default_root_dir) / "saved.ckpt")
        trainer.test(model, rows(images.flip(0), labels.flip(0)), ckpt_path=path)
        trainer.fit_loop.max_epochs = 2
        trainer.fit(model, data(), data())

    own, tested = "grad_cam/net.conv", "grad_cam/net.conv/test"
    return evaluated(start, [(own, 0), (own, 2), (tested, 2), (own, 4)])


@situation(7, "a Trainer fits again: views go on, and draw no step twice")
def fit_again():
    def start(trainer, model):
        trainer.fit(model, data(), data())
        trainer.fit_loop.max_epochs = 2
        trainer.fit(model, data(), data())

    return evaluated(start, [("grad_cam/net.conv", step) for step in (0, 2, 4)])


@situation(7, "a Trainer fits another model: views go on in its steps")
def fit_another_model():
    def start(trainer, model):
        trainer.fit(model, data(), data())
        trainer.fit_loop.max_epochs = 2
        trainer.fit(type(model)(), data(), data())

    return evaluated(start, [("grad_cam/net.conv", step) for step in (0, 2, 4)])


@situation(7, "`fast_dev_run`: nothing is written, nothing goes wrong")
def fast_dev_run():
    def check(seen):
        assert not list(seen.folder.rglob("*.png"))

    return Training(Classifier(), data(), options={"fast_dev_run": True}, draws=()), check


@situation(7, "`limit_val_batches=0`: the samples are training data, said once", says="training data")
def no_validation_batches():
    return Training(Classifier(), data(), options={"limit_val_batches": 0}), shown_as_images


@situation(7, "`overfit_batches=1`")
def overfit_batches():
    return Training(Classifier(), data(), options={"overfit_batches": 1}), shown_as_images


@situation(7, "no validation loader: the samples are training data, said once", says="training data")
def no_validation_loader():
    return Training(Classifier(), data(), None), shown_as_images


def tuned(tune):
    """Views draw the training after a tuner's tries, from step 0 on, and not the tries."""

    class Model(Classifier):
        learning_rate, batch_size = 0.0, 4

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

        def train_dataloader(self):
            return rows(images, labels, batch_size=self.batch_size)

        def val_dataloader(self):
            return rows(images, labels, batch_size=self.batch_size)

    def start(trainer):
        model = Model()
        tune(Tuner(trainer), model)
        trainer.fit(model)

    def check(seen):
        shown_as_images(seen)
        steps = [drawing.step for drawing in seen.of("grad_cam")]
        assert steps == sorted(set(steps)) and steps[0] == 0, steps

    return Training(None, None, start=start), check


@situation(7, "the learning rate finder before training")
def learning_rate_finder():
    return tuned(lambda tuner, model: tuner.lr_find(model, num_training=3, update_attr=False))


@situation(7, "the batch size finder before training")
def batch_size_finder():
    return tuned(lambda tuner, model: tuner.scale_batch_size(model, max_trials=1, steps_per_trial=1))


@situation(7, "folds: the same views in a new Trainer for each begin anew")
def folds():
    def start(trainer):
        trainer.fit(Classifier(), data(), data())
        views = [callback for callback in trainer.callbacks if hasattr(callback, "schedule")]
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        again = pl.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=views, default_root_dir=trainer.default_root_dir, **options
        )
        again.fit(Classifier(), data(), data())

    def check(seen):
        all_right(seen)
        assert [drawing.step for drawing in seen.of("filters")] == [0, 2, 0, 2]

    return Training(
        None, None, views=[FirstLayerFilters(), GradCAM()], start=start, draws=("filters", "grad_cam")
    ), check


def averaged(callback):
    """Which weights were drawn is said in the picture or in a line."""

    def check(seen):
        words = str([drawing.arguments.get("notes") for drawing in seen.drawings]) + str(seen.lines)
        assert "averag" in words.lower(), words

    return Training(Classifier(), data(), views=[callback, *usual_views()], options={"max_epochs": 2}), check


@situation(7, "averaged weights (EMA): which weights were drawn is said")
def exponential_average():
    return averaged(EMAWeightAveraging())


@situation(7, "stochastic weight averaging: which weights were drawn is said")
def stochastic_average():
    return averaged(StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1))


@situation(7, "a system without `os.fork` (macOS, Windows)")
def no_fork():
    def start(trainer):
        methods = mock.patch.object(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
        with mock.patch.object(os, "fork", side_effect=AttributeError("fork")), methods:
            trainer.fit(Classifier(), data(), data())

    return Training(None, None, start=start), shown_as_images


@situation(7, "`default_views(private=True)`: maps and numbers only, no input in logs or files")
def private():
    def check(seen):
        all_right(seen)
        for drawing in seen.drawings:
            images = drawing.arguments.get("images")
            assert images is None or images.min() == images.max(), drawing.tag

    views = [view for view in default_views(private=True) if view.kind != "embedding"]
    return Training(Classifier(), data(), views=views), check


@pytest.mark.parametrize("row", situations(__name__))
def test_frameworks(row, tmp_path: Path):
    row.verify(tmp_path)


class LastLook(View):
    """Keeps the weights that it sees; after step 1 it looks only when training has ended."""

    kind = "last_look"

    def compute(self, model, snapshot):
        self.seen = next(model.parameters()).detach().clone()
        return {}

    def draw(self, snapshot):
        return []


@pytest.mark.filterwarnings("ignore")  # of Lightning's
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("make", [EMAWeightAveraging, lambda: StochasticWeightAveraging(0.5, swa_epoch_start=1)])
def test_the_line_about_averaged_weights_is_true(make, before, tmp_path: Path, capfd):
    class Learns(nets.Net):
        def __init__(self):
            super().__init__(rate=0.5)

    view, averaging = LastLook(steps=[1]), make()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    callbacks = [averaging, view] if before else [view, averaging]
    trainer = pl.Trainer(max_epochs=3, accelerator="cpu", callbacks=callbacks, default_root_dir=tmp_path, **options)
    trainer.fit(model := Learns(), nets.Squares(8, 4))
    assert torch.equal(view.seen, next(model.parameters())) == before
    assert ("a look after the last epoch's end draws the averaged ones" in capfd.readouterr().err) == before
