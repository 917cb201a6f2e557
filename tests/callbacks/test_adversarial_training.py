"""Adversarial training moves what the training step is given, within epsilon, and nothing else."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from lightning_viz.adversarial import pgd
from lightning_viz.callbacks.adversarial_training import AdversarialTraining
from lightning_viz.errors import ViewError
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
    return TensorDataset(F.avg_pool2d(digits.pixel_space.to_pixels(digits.images), 4)[:1000], digits.labels[:1000])


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*num_workers"),
    pytest.mark.filterwarnings("ignore:.*log_every_n_steps"),
    pytest.mark.filterwarnings("ignore:.*You called `self.log.*no logger"),
]


@pytest.mark.parametrize(("norm", "share"), [("linf", 0.5), ("l2", 1.0)])
def test_the_share_is_moved_within_epsilon_and_the_rest_is_not(norm: str, share: float, small: TensorDataset) -> None:
    plain = trained(small)
    hard = trained(small, AdversarialTraining(epsilon=0.2, norm=norm, share=share))
    count = round(50 * share)
    assert len(hard.given) == len(plain.given) == 20
    for (before, labels), (after, same) in zip(plain.given, hard.given, strict=True):
        moved = (after - before).flatten(1)
        length = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
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


def test_the_pixels_of_normalized_data_are_found_or_asked_for(small: TensorDataset) -> None:
    pixel_space = PixelSpace((0.5,), (0.25,))

    class Normalize:
        mean, std = (0.5,), (0.25,)

    class Normalized(Dataset):
        def __init__(self, transform: object) -> None:
            self.transform = transform

        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return pixel_space.to_inputs(small[index][0][None])[0], small[index][1]

    plain, hard = trained(Normalized(Normalize())), trained(Normalized(Normalize()), AdversarialTraining(epsilon=0.1))
    moved = hard.given[0][0] - plain.given[0][0]
    assert moved.abs().max() == pytest.approx(0.1 / 0.25, abs=1e-5)
    with pytest.raises(
        ViewError,
        match=r"cannot attack the batch: the samples have pixels from .* give pixel_space=PixelSpace\(mean, std\)",
    ):
        trained(Normalized(None), AdversarialTraining(epsilon=0.1))
    given = trained(Normalized(None), AdversarialTraining(epsilon=1.0, norm="l2", pixel_space=pixel_space))
    longest = (0.25 * (given.given[0][0] - plain.given[0][0])).flatten(1).norm(dim=1).max()
    assert 0.95 < longest < 1 + 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": 0.0}, "epsilon=0"),
        ({"norm": "L1"}, "norm='L1': give one of 'linf', 'l2'"),
        ({"steps": 0}, "steps=0"),
        ({"share": 1.5}, "share=1.5"),
        ({"step_size": -1.0}, "step_size=-1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_options_that_make_no_sense_are_said_at_once(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdversarialTraining(**options)


def fitted(model: pl.LightningModule, batches: object, *callbacks: pl.Callback, **options: object) -> pl.Trainer:
    given = {"max_epochs": 1, "enable_checkpointing": False, **QUIET, **options}
    trainer = pl.Trainer(callbacks=list(callbacks), **given)
    trainer.fit(model, batches)
    return trainer


def repeated(small: TensorDataset, count: int = 4, label: int | None = None) -> DataLoader:
    """Batches that are all the same: what differs between them is due to the random start."""
    labels = small.tensors[1][:8].clone()
    if label is not None:
        labels[0] = label
    return DataLoader([(small.tensors[0][:8] / 2 + 0.25, labels)] * count, batch_size=None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: {"image": x, "number": y.float()}, "this one has .* and no labels"),
        (lambda x, y: ("a name", y), "this one has .* and no labels"),
        (lambda x, y: ((255 * x).byte(), y), "floating-point .*torch.uint8"),
        (lambda x, y: (x, y[:-1]), "this one has .* and no labels"),  # 7 are not those of 8 images
        (lambda x, y: (x, y + 10), "cannot attack the batch: .*the model has 10 classes"),
    ],
)
def test_batches_that_it_cannot_move_are_said(change: object, words: str, small: TensorDataset) -> None:
    batches = DataLoader([change(small.tensors[0][:8], small.tensors[1][:8])], batch_size=None)
    with pytest.raises(ViewError, match=words):
        fitted(Module(), batches, AdversarialTraining())


def test_a_model_that_does_not_run_on_its_inputs_alone_is_said_at_the_start(small: TensorDataset) -> None:
    class Pair(Module):
        def forward(self, x: Tensor, extra: Tensor) -> Tensor:
            return self.net(x)

    class Nothing(Module):
        forward = pl.LightningModule.forward

    for model, words in ((Pair(), r"Pair\.forward\(x.*extra.* make it forward\(inputs\)"), (Nothing(), "no forward")):
        with pytest.raises(ViewError, match=words):
            fitted(model, repeated(small), AdversarialTraining())
        assert not model.given


def test_a_second_one_is_refused_and_the_model_left_alone(small: TensorDataset) -> None:
    model = Module()
    with pytest.raises(ViewError, match="two AdversarialTraining among the callbacks: keep one"):
        fitted(model, repeated(small), AdversarialTraining(), AdversarialTraining(epsilon=0.2))
    assert "training_step" not in model.__dict__


def test_a_step_that_others_wrapped_meanwhile_is_left_to_them_and_moves_nothing_any_more(small: TensorDataset) -> None:
    class Wrapping(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, model: Module) -> None:
            inner = model.training_step
            model.training_step = lambda batch, batch_idx: inner(batch, batch_idx)

    model, batches = Module(), repeated(small)
    fitted(model, batches, AdversarialTraining(epsilon=0.2), Wrapping())
    assert "training_step" in model.__dict__
    assert not torch.equal(model.given[-1][0], batches.dataset[0][0])
    fitted(model, batches)
    assert torch.equal(model.given[-1][0], batches.dataset[0][0])


def test_validation_by_the_training_step_sees_the_samples_as_they_are(small: TensorDataset) -> None:
    class Shared(Module):
        def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            self.training_step(batch, batch_idx)
            self.shown.append(self.given.pop()[0])

    model, batches = Shared(), repeated(small)
    model.shown = []
    trainer = pl.Trainer(
        max_epochs=1, callbacks=[AdversarialTraining(epsilon=0.2)], enable_checkpointing=False, **QUIET
    )
    trainer.fit(model, batches, batches)
    assert len(model.given) == 4 and len(model.shown) > 4  # some before training
    assert all(torch.equal(each, batches.dataset[0][0]) for each in model.shown)
    assert not any(torch.equal(each, batches.dataset[0][0]) for each, _ in model.given)


@pytest.mark.parametrize(("size", "share", "count"), [(1, 0.5, 1), (4, 0.1, 1), (30, 0.1, 3), (7, 0.5, 4)])
def test_one_sample_of_a_small_batch_is_moved_at_least(
    size: int, share: float, count: int, small: TensorDataset
) -> None:
    batches, model = DataLoader(Subset(small, range(30)), batch_size=size), Module()
    fitted(model, batches, AdversarialTraining(epsilon=0.2, share=share), limit_train_batches=1)
    moved = (model.given[0][0] != small.tensors[0][:size]).flatten(1).any(1)
    assert moved.sum() == count


def starts(model: Module, batches: DataLoader, **options: object) -> list[Tensor]:
    """The random start of each batch: one step that is next to none."""
    fitted(model, batches, AdversarialTraining(epsilon=0.2, steps=1, step_size=1e-9, share=1.0), **options)
    return [given - batches.dataset[0][0] for given, _ in model.given]


def test_batches_of_one_update_and_processes_start_differently(
    small: TensorDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = starts(Module(), repeated(small), accumulate_grad_batches=4)
    assert all(not torch.allclose(one[0], other, atol=1e-3) for other in one[1:])
    again = starts(Module(), repeated(small), accumulate_grad_batches=4)
    assert all(torch.allclose(first, second, atol=1e-6) for first, second in zip(one, again, strict=True))
    monkeypatch.setattr(AdversarialTraining, "_seed", _of_rank_1(AdversarialTraining._seed))
    second = starts(Module(), repeated(small), accumulate_grad_batches=4)
    assert not any(torch.allclose(first, other, atol=1e-3) for first in one for other in second)


def _of_rank_1(seed: object) -> object:
    def asked(self: AdversarialTraining, trainer: pl.Trainer, model: pl.LightningModule) -> int:
        return seed(self, SimpleNamespace(fit_loop=trainer.fit_loop, global_rank=1), model)

    return asked


def test_closures_of_one_batch_start_alike(small: TensorDataset) -> None:
    class Closures(Module):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.LBFGS(self.parameters(), lr=1e-3, max_iter=3, tolerance_grad=0, tolerance_change=0)

    found = starts(Closures(), repeated(small, 2))
    half = len(found) // 2
    assert half > 1 and all(torch.allclose(found[0], each, atol=1e-6) for each in found[:half])
    assert not torch.allclose(found[0], found[-1], atol=1e-3)


def test_a_resumed_run_starts_where_the_whole_one_did(small: TensorDataset, tmp_path: Path) -> None:
    whole = starts(Module(), repeated(small), max_epochs=2)
    trainer = fitted(Module(), repeated(small), AdversarialTraining(epsilon=0.2))
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    model, batches = Module(), repeated(small)
    hard = AdversarialTraining(epsilon=0.2, steps=1, step_size=1e-9, share=1.0)
    pl.Trainer(max_epochs=2, callbacks=[hard], enable_checkpointing=False, **QUIET).fit(
        model, batches, ckpt_path=tmp_path / "half.ckpt"
    )
    assert len(model.given) == 4
    for first, (given, _) in zip(whole[4:], model.given, strict=True):
        assert torch.allclose(first, given - batches.dataset[0][0], atol=1e-6)


def test_samples_whose_label_is_ignored_stay_as_they_are(small: TensorDataset) -> None:
    model, batches = Module(), repeated(small, label=-100)
    fitted(model, batches, AdversarialTraining(epsilon=0.2, share=1.0))
    moved = (model.given[0][0] != batches.dataset[0][0]).flatten(1).any(1)
    assert moved.tolist() == [False] + 7 * [True]


def test_augmentation_may_leave_the_pixels_range_a_little(small: TensorDataset) -> None:
    pixels, labels = small.tensors[0][:8], small.tensors[1][:8]

    def given(by: float) -> Tensor:
        model = Module()
        fitted(
            model,
            DataLoader([((1 + 2 * by) * pixels - by, labels)], batch_size=None),
            AdversarialTraining(epsilon=0.2, share=0.5),
        )
        return model.given[0][0]

    assert pixels.min() == 0 and pixels.max() > 0.99
    little = given(0.04)
    assert little[:4].min() >= 0 and little[:4].max() <= 1 and little[4:].min() == pytest.approx(-0.04)
    with pytest.raises(ViewError, match=r"pixels from -0\.08 to"):
        given(0.08)
