"""Loops that are not Lightning's are watched as Lightning's is: the same pictures, and training does not notice."""

import pytest
import pytorch_lightning as pl
import torch
from lightning.fabric import Fabric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lightning_viz import (
    FabricCallback,
    HuggingFaceCallback,
    UpdateRatio,
    default_views,
    watch,
)

from .conftest import images, make_trainer

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

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.dropout, self.fc = nn.Conv2d(4, 6, 3, padding=1), nn.Dropout(0.2), nn.Linear(6, 3)

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
def test_training_is_bit_for_bit_the_same(loop, tmp_path, drawn_at_once):
    trained, states = [], []
    for chosen in (None, views()):
        trained.append(weights(loop(tmp_path, chosen)))
        states.append(torch.random.get_rng_state())
    assert all(torch.equal(trained[0][name], value) for name, value in trained[1].items())
    assert torch.equal(*states) and drawn_at_once
