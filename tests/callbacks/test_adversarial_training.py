"""Adversarial training moves what the training step is given, within epsilon, and nothing else."""

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_viz.adversarial import pgd
from lightning_viz.callbacks.adversarial_training import AdversarialTraining
from lightning_viz.callbacks.messages import ViewError
from lightning_viz.pixels import PixelSpace
from tests.dream.conftest import (
    Digits,
    digits,  # noqa: F401  # a fixture
)

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}


MODES: list[bool] = []  # in the module they would be put back


class Module(pl.LightningModule):
    """Keeps the batches that its training step was given."""

    def __init__(self, features: int = 49, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(features, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 10)
        )
        self.given = []

    def forward(self, x: Tensor) -> Tensor:
        MODES.append(self.training)
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.given.append(batch)
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)


def trained(data: Dataset, *callbacks: pl.Callback, epochs: int = 1, dropout: float = 0.0) -> Module:
    pl.seed_everything(0)
    model = Module(features=data[0][0].numel(), dropout=dropout)
    loader = DataLoader(data, batch_size=50, shuffle=True, generator=torch.Generator().manual_seed(0))
    trainer = pl.Trainer(max_epochs=epochs, callbacks=list(callbacks), enable_checkpointing=False, **QUIET)
    trainer.fit(model, loader)
    return model


@pytest.fixture(scope="module")
def small(digits: Digits) -> TensorDataset:  # noqa: F811
    return TensorDataset(F.avg_pool2d(digits.space.to_pixels(digits.images), 4)[:1000], digits.labels[:1000])


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*num_workers"),
    pytest.mark.filterwarnings("ignore:.*log_every_n_steps"),
    pytest.mark.filterwarnings("ignore:.*You called `self.log.*no logger"),
]


@pytest.mark.parametrize(("norm", "share"), [("L-inf", 0.5), ("L2", 1.0)])
def test_the_share_is_moved_within_epsilon_and_the_rest_is_not(norm: str, share: float, small: TensorDataset) -> None:
    plain = trained(small)
    hard = trained(small, AdversarialTraining(epsilon=0.2, norm=norm, share=share))
    count = round(50 * share)
    assert len(hard.given) == len(plain.given) == 20
    for (before, labels), (after, same) in zip(plain.given, hard.given, strict=True):
        moved = (after - before).flatten(1)
        length = moved.abs().amax(1) if norm == "L-inf" else moved.norm(dim=1)
        assert torch.equal(labels, same)
        assert bool((length[:count] > 0.1).all()) and length.max() < 0.2 + 1e-5
        assert not length[count:].any()
        assert 0 <= after.min() <= after.max() <= 1


def test_the_data_and_random_generators_stay_as_they_are(small: TensorDataset) -> None:
    pixels = small.tensors[0].clone()
    batches = DataLoader([(small.tensors[0][:50], small.tensors[1][:50])], batch_size=None)  # the data, not a copy
    states = []

    class After(pl.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            states.append(torch.get_rng_state())

    for callbacks in ([After()], [AdversarialTraining(epsilon=0.2), After()]):
        pl.seed_everything(0)
        pl.Trainer(max_epochs=2, callbacks=callbacks, enable_checkpointing=False, **QUIET).fit(
            Module(dropout=0.5), batches
        )
    assert torch.equal(small.tensors[0], pixels)
    assert torch.equal(states[0], states[2]) and torch.equal(states[1], states[3])


def test_it_steps_aside_after_training_and_leaves_the_mode_alone(small: TensorDataset) -> None:
    MODES.clear()
    model = trained(small, AdversarialTraining(epsilon=0.1, steps=3))
    assert "training_step" not in model.__dict__
    assert MODES[:6] == [False] * 5 + [True]  # as it is, at its start, after three steps

    class Broken(Module):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            raise RuntimeError("broken")

    broken = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        pl.Trainer(max_epochs=1, callbacks=[AdversarialTraining()], enable_checkpointing=False, **QUIET).fit(
            broken, DataLoader(small, batch_size=50)
        )
    assert "training_step" not in broken.__dict__


def test_the_share_that_is_fooled_is_logged(small: TensorDataset) -> None:
    pl.seed_everything(0)
    trainer = pl.Trainer(
        max_epochs=1, callbacks=[AdversarialTraining(epsilon=0.3)], enable_checkpointing=False, **QUIET
    )
    trainer.fit(Module(), DataLoader(small, batch_size=50))
    assert 0 < float(trainer.logged_metrics["adversarial_training/fooled"]) <= 1


def test_it_hardens(small: TensorDataset) -> None:
    """At a small scale here; examples and the notes have the figures of a convolutional net."""
    pixels, labels = small.tensors
    right = {}
    for name, callbacks in {"plain": [], "hard": [AdversarialTraining(epsilon=0.1, share=1.0)]}.items():
        model = trained(small, *callbacks, epochs=8).eval()
        right[name] = pgd(model, pixels[:300], labels[:300], epsilon=0.1, steps=20, progress=False).accuracy
    assert right["hard"] > right["plain"] + 0.3


def test_the_pixels_of_normalised_data_are_found_or_asked_for(small: TensorDataset) -> None:
    space = PixelSpace((0.5,), (0.25,))

    class Normalize:
        mean, std = (0.5,), (0.25,)

    class Normalised(Dataset):
        def __init__(self, transform: object) -> None:
            self.transform = transform

        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return space.to_inputs(small[index][0][None])[0], small[index][1]

    plain, hard = trained(Normalised(Normalize())), trained(Normalised(Normalize()), AdversarialTraining(epsilon=0.1))
    moved = hard.given[0][0] - plain.given[0][0]
    assert moved.abs().max() == pytest.approx(0.1 / 0.25, abs=1e-5)
    with pytest.raises(
        ViewError, match=r"cannot attack the batch: the images have pixels from .*PixelSpace\(mean, std\)"
    ):
        trained(Normalised(None), AdversarialTraining(epsilon=0.1))
    given = trained(Normalised(None), AdversarialTraining(epsilon=1.0, norm="L2", pixels=space))
    longest = (0.25 * (given.given[0][0] - plain.given[0][0])).flatten(1).norm(dim=1).max()
    assert 0.95 < longest < 1 + 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": 0.0}, "epsilon=0"),
        ({"norm": "L1"}, "norm='L1': give one of 'L-inf', 'L2'"),
        ({"steps": 0}, "steps=0"),
        ({"share": 1.5}, "share=1.5"),
        ({"step_size": -1.0}, "step_size=-1"),
    ],
)
def test_options_that_make_no_sense_are_said_at_once(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdversarialTraining(**options)


def test_batches_that_it_cannot_move_are_said(small: TensorDataset) -> None:
    class Pair(Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.net(x + 0 * y)

    loader = DataLoader(small, batch_size=50)
    with pytest.raises(ViewError, match=r"one tensor of inputs and one of labels \[N\]: this one has tuple"):
        pl.Trainer(max_epochs=1, callbacks=[AdversarialTraining()], enable_checkpointing=False, **QUIET).fit(
            Pair(), loader
        )
