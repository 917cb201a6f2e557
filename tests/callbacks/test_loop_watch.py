"""Loops that are not Lightning's are watched as Lightning's is: the same pictures, and training does not notice."""

import time

import pytest
import pytorch_lightning as pl
import torch
from lightning.fabric import Fabric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter

from lightning_viz import (
    FabricCallback,
    GradCAM,
    Health,
    HuggingFaceCallback,
    Mistakes,
    PixelSpace,
    Probe,
    UpdateRatio,
    ViewError,
    default_views,
    watch,
)
from lightning_viz.callbacks.loop_run import loader_of
from lightning_viz.callbacks.probe import Samples

from .conftest import Watch, images, make_trainer, said

EPOCHS = 2


class Pictures(Dataset):
    """Images by the names that Hugging Face's Trainer passes on."""

    def __init__(self):
        self.images, self.labels = images()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


class Layers:
    """The same layers and forward for all loops: loss and logits, as Hugging Face's models return them."""

    dropped = 0.0  # as Hugging Face's Trainer sets a seed of its own

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.dropout, self.fc = nn.Conv2d(4, 6, 3, padding=1), nn.Dropout(self.dropped), nn.Linear(6, 3)

    def forward(self, pixel_values=None, labels=None):
        x = F.max_pool2d(F.relu(self.norm(self.conv1(pixel_values))), 2)
        logits = self.fc(self.dropout(F.relu(self.conv2(x)).mean((2, 3))))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits} if labels is not None else {"logits": logits}


class Plain(Layers, nn.Module):
    pass


class Lightning(Layers, pl.LightningModule):
    def training_step(self, batch, batch_idx):
        return self(**batch)["loss"]

    def configure_optimizers(self):
        return sgd(self)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05)


def loader():
    return DataLoader(Pictures(), batch_size=4)


def views():
    chosen = [*default_views(max_overhead=100.0), UpdateRatio(max_overhead=100.0)]
    for view in chosen:
        view.optional = True
    return chosen


def plain(folder, chosen=None, data=None):
    model = Plain()
    optimizer, batches = sgd(model), loader()
    if chosen is None:
        for _ in range(EPOCHS):
            for batch in batches:
                optimizer.zero_grad()
                model(**batch)["loss"].backward()
                optimizer.step()
        return model
    data = batches if data is None else data
    with watch(model, data=data, views=chosen, logdir=folder, optimizer=optimizer) as watched:
        for _ in range(EPOCHS):
            for batch in watched.epoch(batches):
                optimizer.zero_grad()
                model(**batch)["loss"].backward()
                optimizer.step()
                watched.step()
    return model


def fabric(folder, chosen=None):
    fabric = Fabric(accelerator="cpu")
    original = Plain()
    model, optimizer = fabric.setup(original, sgd(original))
    batches = fabric.setup_dataloaders(loader())
    if chosen is None:
        return original
    with watch(model, data=batches, views=chosen, logdir=folder, optimizer=optimizer) as watched:
        for _ in range(EPOCHS):
            for batch in watched.epoch(batches):
                optimizer.zero_grad()
                fabric.backward(model(**batch)["loss"])
                optimizer.step()
                watched.step()
    return original


def fabric_hooks(folder, chosen):
    """A loop that calls its callbacks, after Fabric's own `build_your_own_trainer`."""
    batches = loader()
    callback = FabricCallback(chosen, data=batches, logdir=folder, batches_per_epoch=len(batches))
    fabric = Fabric(accelerator="cpu", callbacks=[callback])
    original = Plain()
    model, optimizer = fabric.setup(original, sgd(original))
    batches = fabric.setup_dataloaders(batches)
    for _ in range(EPOCHS):
        for batch_idx, batch in enumerate(batches):
            fabric.call("on_train_batch_start", batch, batch_idx)
            optimizer.zero_grad()
            fabric.backward(model(**batch)["loss"])
            optimizer.step()
            fabric.call("on_train_batch_end", None, batch, batch_idx)
        fabric.call("on_train_epoch_end")
    fabric.call("on_fit_end")
    return original


def hugging_face(folder, chosen=None):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    model = Plain()
    optimizer = sgd(model)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), num_train_epochs=EPOCHS, per_device_train_batch_size=4, max_grad_norm=0.0,
        report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, logging_strategy="no",
        remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    callbacks = [] if chosen is None else [HuggingFaceCallback(chosen, data=Pictures(), logdir=folder)]
    InOrder(
        model=model, args=arguments, train_dataset=Pictures(), callbacks=callbacks,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
    ).train()  # fmt: skip
    return model


def lightning(folder, chosen):
    model = Lightning()
    make_trainer(folder, chosen, max_epochs=EPOCHS).fit(model, loader())
    return model


def pictures(folder):
    """What was written below a folder: the bytes of each picture and its description, by tag and step."""
    found = {}
    for events in sorted(folder.rglob("events*")):
        read = EventAccumulator(str(events), size_guidance={"tensors": 0}).Reload()
        for tag in read.Tags()["tensors"]:
            if read.SummaryMetadata(tag).plugin_data.plugin_name == "images":
                for event in read.Tensors(tag):
                    content = tuple(event.tensor_proto.string_val)
                    found[tag, event.step] = content, read.SummaryMetadata(tag).summary_description
    return found


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def lightning_run(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("lightning"), {}

    def run():
        if not made:
            made.update(weights=weights(lightning(folder, views())), pictures=pictures(folder))
        return made

    return run


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("loop", [plain, fabric, fabric_hooks, hugging_face], ids=lambda loop: loop.__name__)
def test_every_loop_gives_lightnings_pictures_to_the_byte(loop, lightning_run, tmp_path, drawn_at_once):
    expected = lightning_run()
    trained = weights(loop(tmp_path, views()))
    assert all(torch.equal(trained[name], value) for name, value in expected["weights"].items())
    found = pictures(tmp_path)
    assert found.keys() == expected["pictures"].keys()
    assert {key for key in found if found[key] != expected["pictures"][key]} == set()
    tags, steps = ({key[place] for key in found} for place in (0, 1))
    assert steps == {0, 6, 12} and {"1_overview/1_health", "1_overview/3_grad_cam/conv2", "update_ratio"} <= tags


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("loop", [plain, hugging_face], ids=lambda loop: loop.__name__)
def test_training_is_bit_for_bit_the_same(loop, tmp_path, drawn_at_once, monkeypatch):
    monkeypatch.setattr(Layers, "dropped", 0.2)
    trained, states = [], []
    for chosen in (None, views()):
        trained.append(weights(loop(tmp_path, chosen)))
        states.append(torch.random.get_rng_state())
    assert all(torch.equal(trained[0][name], value) for name, value in trained[1].items())
    assert torch.equal(*states) and drawn_at_once


# What a loop of one's own may be.


def few():
    """Cheap views, one that reads validation passes among them."""
    return [Watch(every_n_train_steps=4), GradCAM(every_n_train_steps=4), Mistakes(every_n_train_steps=4)]


def loop_of(model, data, chosen, *, steps=6, epochs=False, **options):
    """Train on one batch again and again, and tell of updates alone."""
    optimizer = sgd(model)
    batch = next(iter(loader()))
    with watch(model, data=data, views=chosen, **options) as watched:
        for _ in range(steps):
            optimizer.zero_grad()
            model(**batch)["loss"].backward()
            optimizer.step()
            watched.step()
        if epochs:
            watched.end_epoch()


@pytest.mark.parametrize("form", ["loader", "data set", "batch", "samples", "probe"])
def test_data_may_come_in_any_form(form, tmp_path, drawn_at_once):
    x, y = images()
    whole = {"pixel_values": x, "labels": y}
    data = {
        "loader": loader(),
        "data set": Pictures(),
        "batch": whole,
        "samples": Samples(x[:6], y[:6], head=4, pixel_space=PixelSpace()),
        "probe": Probe(inputs=x[:4], labels=y[:4], samples=4),
    }[form]
    loop_of(Plain(), data, few(), logdir=tmp_path)
    steps = {step for _, step in pictures(tmp_path)}
    assert steps == {0, 4, 6} and drawn_at_once.tags().keys() == {
        "watch/page", "grad_cam/conv2", "mistakes/worst", "mistakes/confusion",
    }  # fmt: skip
    shown = drawn_at_once.arguments("grad_cam/conv2")[0]["images"]
    assert len(shown) == (4 if form in ("samples", "probe") else min(8, len(shown)))


def test_without_data_the_first_batch_that_passes_is_watched(tmp_path, drawn_at_once, recwarn):
    model = Plain()
    optimizer, batches = sgd(model), loader()
    with watch(model, views=[GradCAM(every_n_epochs=1)], logdir=tmp_path) as watched:
        for batch in watched.epoch(batches):
            optimizer.zero_grad()
            model(**batch)["loss"].backward()
            optimizer.step()
            watched.step()
    assert {step for _, step in pictures(tmp_path)} == {0, 6} and watched.run.epoch == 1
    assert said(recwarn) == ["lightning_viz: no validation data: the samples are training data"]


def test_an_exception_leaves_at_once_and_what_is_not_drawn_is_kept(tmp_path, capsys):
    model = Plain()
    with pytest.raises(KeyboardInterrupt), watch(model, data=loader(), views=few(), logdir=tmp_path):
        raise KeyboardInterrupt
    while not list(tmp_path.glob("lightning_viz_undrawn_*.npz")):  # which the drawing process writes
        time.sleep(0.1)
    assert "drawings were not finished: they are kept beside the run" in capsys.readouterr().err
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_a_loop_that_is_left_by_break_reads_its_step_no_longer(tmp_path, drawn_at_once):
    model, call = Plain(), nn.Module.__call__
    with watch(model, data=loader(), views=[Watch()], logdir=tmp_path) as watched:
        for _ in watched.epoch(loader()):
            assert nn.Module.__call__ is not call
            break
        assert nn.Module.__call__ is call and watched.run.epoch == 0


def test_a_loop_that_tells_of_no_epoch_is_told_so(tmp_path, drawn_at_once, capsys):
    loop_of(Plain(), loader(), [Watch()], logdir=tmp_path)
    assert "no epoch was ended, so the views looked at the first and the last step only" in capsys.readouterr().err
    for chosen, epochs in (([Watch()], True), (few(), False), ([Watch(steps="log")], False)):
        loop_of(Plain(), loader(), chosen, epochs=epochs, logdir=tmp_path)
        assert "no epoch was ended" not in capsys.readouterr().err


def test_a_loop_that_is_resumed_goes_on(tmp_path, drawn_at_once):
    first = watch(Plain(), data=loader(), views=[GradCAM(), Health()], logdir=tmp_path)
    with first:
        first.step()
    state = first.state_dict()
    second = watch(Plain(), data=loader(), views=[GradCAM(), Health()], logdir=tmp_path)
    second.load_state_dict(state)
    with second:
        assert second.run.step == 1 and second.views[0].indices == first.views[0].indices
        second.step()
    assert drawn_at_once.tags()["grad_cam/conv2"] == [0, 1, 2]


@pytest.mark.parametrize("given", ["their own", "in a list"])
def test_the_users_own_writer_takes_the_pictures(given, tmp_path, drawn_at_once):
    with SummaryWriter(tmp_path) as writer:
        loop_of(Plain(), loader(), [Watch()], logger=[writer] if given == "in a list" else writer)
        writer.add_scalar("mine", 1.0, 0)  # it is still open
    assert len(list(tmp_path.glob("events*"))) == 1 and {step for _, step in pictures(tmp_path)} == {0, 6}


def test_what_is_asked_for_wrongly_is_an_error_with_the_remedy(tmp_path, drawn_at_once):
    with pytest.raises(TypeError, match=r"the model is a str: give the torch\.nn\.Module"):
        watch("model")
    with pytest.raises(TypeError, match="views holds a str: give views"):
        watch(Plain(), views=["grad_cam"])
    with pytest.raises(ViewError, match="two equal views: GradCAM"), watch(Plain(), views=[GradCAM(), GradCAM()]):
        pass
    with pytest.raises(ValueError, match="no layer matches 'conv9'"), watch(Plain(), views=[GradCAM(layers="conv9")]):
        pass
    with watch(Plain(), data=loader(), views=[Watch()], logdir=tmp_path) as watched:
        with pytest.raises(ValueError, match="watched already"):
            watched.begin()
        with pytest.raises(ValueError, match="load the state before"):
            watched.load_state_dict({})


def test_a_zero_silences_a_loop(monkeypatch, tmp_path, drawn_at_once):
    monkeypatch.setenv("LIGHTNING_VIZ", "0")
    loop_of(Plain(), loader(), [GradCAM(layers="no such layer")], logdir=tmp_path)
    assert not drawn_at_once and not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrapped", ["data parallel", "compiled"])
def test_a_wrapped_model_is_seen_without_its_wrapper(wrapped, tmp_path, drawn_at_once):
    plain = Plain()
    if wrapped == "data parallel":
        model = nn.DataParallel(plain)
    else:
        model = torch.compile(plain, backend="eager")
    loop_of(model, loader(), [GradCAM(every_n_train_steps=3)], steps=3, logdir=tmp_path)
    assert drawn_at_once.tags() == {"grad_cam/conv2": [0, 3]}


def test_lazy_and_sharded_models_are_refused_in_a_line(tmp_path, drawn_at_once, recwarn):
    class FullyShardedDataParallel(Plain):
        pass

    for model in (nn.Sequential(nn.LazyLinear(3)), FullyShardedDataParallel()):
        with watch(model, data=loader(), views=[Watch()], logdir=tmp_path):
            pass
    lazy, sharded = said(recwarn)
    assert "lazy modules" in lazy and "FullyShardedDataParallel shards the parameters" in sharded
    assert not drawn_at_once


def test_loaders_of_what_is_given():
    batches, data, stream = loader(), Pictures(), iter(())
    assert loader_of(batches) is batches and loader_of(None) is None and loader_of(stream) is stream
    assert loader_of(data).dataset is data and loader_of((1, 2)) == [(1, 2)]
