"""Kinds of training that views must leave alone: each cell builds a module, its data and its Trainer's arguments."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, default_collate
from torchmetrics import MeanMetric

from .random_data import (
    CLASSES,
    Images,
    Order,
    OwnGenerators,
    Points,
    Stream,
    augmented,
    mixed,
    shuffled,
    validation,
)


@dataclass
class Run:
    """What a cell trains.

    Attributes:
        updates: how many there are to be.
        watched: what else belongs to the run and must stay the same.
        images: whether its inputs are images, or points of the plane.
        dense: whether it predicts a class for every pixel.
        attends: whether it has attention.
        resumed_at: go on from the checkpoint of this step, in a second run.
    """

    model: nn.Module
    train: Any
    validation: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    callbacks: list[Any] = field(default_factory=list)
    updates: int = 8
    watched: dict[str, Any] = field(default_factory=dict)
    images: bool = True
    dense: bool = False
    attends: bool = False
    resumed_at: int | None = None


CELLS: dict[str, Callable[[Any], Run]] = {}


def cell(name: str) -> Callable[[Callable[[Any], Run]], Callable[[Any], Run]]:
    def register(build: Callable[[Any], Run]) -> Callable[[Any], Run]:
        CELLS[name] = build
        return build

    return register


class Classifier:
    """Two convolutions with dropout and BatchNorm, the second one frozen, an in-place ReLU, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.relu, self.dropout, self.fc = nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(5, CLASSES)
        self.norm2.eval().requires_grad_(False)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dropout(self.relu(self.norm1(self.conv1(x))))
        return F.relu(self.norm2(self.conv2(F.max_pool2d(x, 2)))).mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.dropout(self.features(x)))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y, _ = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y, _ = batch
        loss = F.cross_entropy(self(x), y)
        self.log("val_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


def module(pl: Any, body: type = Classifier) -> Any:
    """A body made a LightningModule of either package."""
    return type(body.__name__, (body, pl.LightningModule), {})()


@cell("dropout, BatchNorm, some of it frozen")
def plain(pl: Any) -> Run:
    return Run(module(pl), shuffled(Images()), validation())


@cell("augmentation with random, NumPy and torch")
def augmentation(pl: Any) -> Run:
    return Run(module(pl), shuffled(Images(augmented)), validation())


@cell("augmentation and shuffling with 2 workers, no validation")
def workers(pl: Any) -> Run:
    return Run(module(pl), shuffled(Images(augmented), num_workers=2))


@cell("persistent workers, for validation too")
def persistent(pl: Any) -> Run:
    options = {"num_workers": 2, "persistent_workers": True}
    return Run(module(pl), shuffled(Images(augmented), **options), validation(**options))


@cell("a data set that owns its generators, a loader that owns one")
def owned(pl: Any) -> Run:
    data, order = OwnGenerators(), torch.Generator().manual_seed(5)
    return Run(module(pl), shuffled(data, generator=order), watched={"data": data, "order": order})


@cell("validation data that own their generators")
def owned_validation(pl: Any) -> Run:
    data = OwnGenerators()
    return Run(module(pl), shuffled(Images()), DataLoader(data, batch_size=10), watched={"data": data})


@cell("streams of samples")
def streams(pl: Any) -> Run:
    train, check = Stream(), Stream(30)
    loaders = DataLoader(train, batch_size=6), DataLoader(check, batch_size=10)
    return Run(module(pl), *loaders, watched={"train": train, "validation": check})


@cell("a stream of samples, no validation")
def stream(pl: Any) -> Run:
    data = Stream()
    return Run(module(pl), DataLoader(data, batch_size=6), watched={"data": data})


@cell("accumulation and clipping")
def accumulation(pl: Any) -> Run:
    options = {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}  # 4 batches: 3 and 1
    return Run(module(pl), shuffled(Images()), validation(), options, updates=4)


@cell("bf16 autocast")
def autocast(pl: Any) -> Run:
    return Run(module(pl), shuffled(Images()), validation(), {"precision": "bf16-mixed"})


@cell("bf16 weights")
def bf16(pl: Any) -> Run:
    return Run(module(pl), shuffled(Images()), validation(), {"precision": "bf16-true"})


class TwoOptimizers(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y, _ = batch
        for optimizer in self.optimizers():
            self.toggle_optimizer(optimizer)
            loss = F.cross_entropy(self(x), y)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)
        self.lr_schedulers().step()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        body = torch.optim.SGD([*self.conv1.parameters(), *self.conv2.parameters()], lr=0.05, momentum=0.9)
        head = torch.optim.Adam(self.fc.parameters(), lr=0.01)
        return [body, head], [torch.optim.lr_scheduler.ExponentialLR(head, 0.9)]


@cell("two optimizers in manual optimization")
def manual(pl: Any) -> Run:
    return Run(module(pl, TwoOptimizers), shuffled(Images()), validation())


class Remembers(Classifier):
    """Its forward logs, counts, keeps a list, draws from generators of its own, and writes buffers in any mode."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.history, self.shapes, self.best = 0, [], set(), None
        self.generator, self.rng, self.dice = (
            torch.Generator().manual_seed(4),
            np.random.default_rng(4),
            random.Random(4),
        )
        self.metric = MeanMetric()
        self.register_buffer("running", torch.zeros(5))
        self.register_buffer("average", torch.zeros(5))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        features = self.features(x)
        mean = features.detach().mean(0)
        self.history.append(float(mean.mean()))
        self.shapes.add((len(self.history), *x.shape))
        self.best = mean if self.best is None else torch.maximum(self.best, mean)
        self.running.mul_(0.9).add_(mean)
        self.average = 0.5 * self.average + mean
        self.scratch[0] = self.dice.random() + self.rng.random()
        self.metric.update(features.detach().mean())
        self.log("forward/mean", mean.mean())
        self.log_dict({"forward/max": mean.max(), "forward/metric": self.metric})
        self.logger.log_metrics({"forward/by itself": float(mean.min())}, step=self.global_step)
        return self.fc(features + 0.1 * torch.rand(features.shape, generator=self.generator) + 0.1 * self.scratch)


@cell("a forward that logs, counts, keeps and draws")
def remembers(pl: Any) -> Run:
    return Run(module(pl, Remembers), shuffled(Images()), validation())


class Quiet(Classifier):
    """Logs at the end of a batch: compiled, `log` breaks into dozens of graphs."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y, _ = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.training_step(batch, batch_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("loss", outputs["loss"])


@cell("the whole module compiled")
def compiled(pl: Any) -> Run:
    return Run(torch.compile(module(pl, Quiet), backend="eager"), shuffled(Images()), validation())


class CompiledInPlace(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.conv1.compile(backend="aot_eager")
        self.fc = torch.compile(nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.2), nn.Linear(6, CLASSES)), backend="eager")


@cell("compiled submodules")
def compiled_parts(pl: Any) -> Run:
    return Run(module(pl, CompiledInPlace), shuffled(Images()), validation())


@cell("resumed from a checkpoint in the middle of an epoch")
def resumed(pl: Any) -> Run:
    return Run(module(pl), shuffled(Images()), validation(), resumed_at=3)


class Normalized(Classifier):
    """Weights that are computed from others, one kind of which iterates in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = parametrizations.spectral_norm(self.conv1)
        self.conv2 = parametrizations.weight_norm(self.conv2)
        self.fc = nn.utils.spectral_norm(self.fc)


@cell("spectral and weight norm")
def normalized(pl: Any) -> Run:
    return Run(module(pl, Normalized), shuffled(Images()), validation())


class ClosureRunsTwice(Classifier):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS([p for p in self.parameters() if p.requires_grad], lr=0.1, max_iter=2)


@cell("LBFGS")
def lbfgs(pl: Any) -> Run:
    return Run(module(pl, ClosureRunsTwice), shuffled(Images()), validation())


class AugmentsBatches(Classifier):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y, index = batch
        return (x + 0.1 * torch.randn_like(x) if self.trainer.training else x), y, index


@cell("augmentation in a batch hook, no validation")
def batch_hook(pl: Any) -> Run:
    return Run(module(pl, AugmentsBatches), shuffled(Images()))


class Plateau(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.5, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}


@cell("validation within the epoch, a plateau's schedule, early stopping")
def plateau(pl: Any) -> Run:
    stop = pl.callbacks.EarlyStopping("val_loss", patience=50)
    options = {"val_check_interval": 0.5, "num_sanity_val_steps": 0}
    return Run(module(pl, Plateau), shuffled(Images()), validation(shuffle=True), options, [stop])


@cell("stochastic weight averaging")
def averaging(pl: Any) -> Run:
    swa = pl.callbacks.StochasticWeightAveraging(0.02, swa_epoch_start=1, annealing_epochs=1)
    return Run(module(pl), shuffled(Images()), validation(), {"max_epochs": 3}, [swa], updates=13)


@cell("an exponential average of the weights")
def exponential_average(pl: Any) -> Run:
    ema = pl.callbacks.EMAWeightAveraging(decay=0.8)
    return Run(module(pl), shuffled(Images()), validation(), callbacks=[ema])


@cell("layers thawed on the way")
def thawed(pl: Any) -> Run:
    class Thaw(pl.callbacks.BaseFinetuning):
        def freeze_before_training(self, pl_module: Any) -> None:
            self.freeze(pl_module.conv1)

        def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.conv1, optimizer)

    return Run(module(pl), shuffled(Images()), validation(), callbacks=[Thaw()])


class MadeLate(Classifier):
    def configure_model(self) -> None:
        if isinstance(self.fc, nn.Linear) and self.fc.out_features == CLASSES:
            self.fc = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, CLASSES))


@cell("layers made in configure_model")
def made_late(pl: Any) -> Run:
    return Run(module(pl, MadeLate), shuffled(Images()), validation())


class Tokens(Classifier):
    """Looking a row up in the table shrinks it in place."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 3, max_norm=0.5)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        rows = (5 * x[:, 0].abs()).long().clamp_max(15)
        return super().features(x + self.table(rows).permute(0, 3, 1, 2))


@cell("a table of embeddings under max_norm")
def tokens(pl: Any) -> Run:
    return Run(module(pl, Tokens), shuffled(Images()), validation())


class Checkpointed(Classifier):
    def features(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(super().features, x, use_reentrant=False)


@cell("activation checkpointing")
def checkpointed(pl: Any) -> Run:
    return Run(module(pl, Checkpointed), shuffled(Images()), validation())


class Hooked(Classifier):
    """Hooks of its own, which count, and one that changes a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}
        self.conv1.register_forward_hook(lambda *_: self.seen.update(forward=self.seen.get("forward", 0) + 1))
        self.conv2.register_full_backward_hook(lambda *_: self.seen.update(backward=self.seen.get("backward", 0) + 1))
        self.conv2.weight.register_hook(lambda gradient: 2 * gradient)


@cell("hooks of its own")
def hooked(pl: Any) -> Run:
    return Run(module(pl, Hooked), shuffled(Images()), validation())


class Several(Classifier):
    """Batches are dicts, out of several loaders; every other one is left out."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx % 2:
            return None
        return super().training_step((*batch["mixed"].values(), None), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> torch.Tensor:
        return super().validation_step((*batch.values(), None), batch_idx)


@cell("several loaders of dicts, collated at random, made anew every epoch; steps left out")
def several(pl: Any) -> Run:
    order = DataLoader(Images(augmented), batch_sampler=Order())
    loaders = {"mixed": shuffled(Images(), collate_fn=mixed), "other": order}
    checks = [validation(collate_fn=mixed), validation(collate_fn=mixed)]
    options = {"reload_dataloaders_every_n_epochs": 1, "check_val_every_n_epoch": 2, "max_epochs": 3, "max_steps": 11}
    return Run(module(pl, Several), loaders, checks, options, updates=11)


class Lazy(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.fc = nn.LazyConv2d(4, 3, padding=1), nn.LazyLinear(CLASSES)


def lazy(pl: Any) -> Run:
    """No cell: views have nothing to look at before the first batch has passed."""
    return Run(module(pl, Lazy), shuffled(Images()), validation())


class Perceptron(Classifier):
    def __init__(self) -> None:
        super().__init__()
        for name in ("conv1", "norm1", "conv2", "norm2", "fc"):
            delattr(self, name)
        self.hidden, self.norm, self.deeper = nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Linear(6, 5)
        self.output = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(F.relu(self.deeper(self.dropout(F.relu(self.norm(self.hidden(x)))))))


@cell("a perceptron on the plane")
def perceptron(pl: Any) -> Run:
    return Run(module(pl, Perceptron), shuffled(Points()), images=False)


class Segmenter(Classifier):
    """A class for every pixel: the mask is where the first channel is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(5, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.relu(self.norm2(self.conv2(self.dropout(self.norm1(self.conv1(x))))))
        return self.fc(self.dropout(maps))


def masked(samples: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, masks and indices of a batch."""
    images, _, indices = default_collate(samples)
    return images, (images[:, 0] > images[:, 0].mean()).long(), indices


@cell("a class for every pixel")
def segmenter(pl: Any) -> Run:
    return Run(module(pl, Segmenter), shuffled(Images(), collate_fn=masked), validation(collate_fn=masked), dense=True)


class Transformer(Classifier):
    """Two layers of attention, which drops out, among 4 x 4 patches and a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.norm2 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(4, 6, 2, stride=2)
        self.class_token, self.places = nn.Parameter(torch.zeros(1, 1, 6)), nn.Parameter(torch.zeros(1, 17, 6))
        layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(6, CLASSES)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x))))).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], 1) + self.places
        return self.encoder(tokens)[:, 0]


@cell("a transformer whose attention drops out")
def transformer(pl: Any) -> Run:
    return Run(module(pl, Transformer), shuffled(Images()), validation(), attends=True)
