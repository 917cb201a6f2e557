"""Batches: a size that follows from the inputs, halved where memory does not suffice."""

import itertools
import time

import pytest
import torch
from torch import nn

from lightning_viz.attribution import occlusion, smooth_grad
from lightning_viz.hooks import model_state as guard
from lightning_viz.hooks.batching import Batches, choose_batch_size


def sizes(work, count, size=None, **options):
    """Of the batches that were done; every item must be done once, in order."""
    done = []
    Batches(nn.Identity(), count, size, progress=False, **options).run(lambda items: work(items, done.append))
    assert torch.cat(done).tolist() == list(range(count))
    return [len(items) for items in done]


def plain(items, done):
    done(items)


def fits(most, tried):
    """Work whose memory suffices for a few items."""

    def work(items, done):
        tried.append(len(items))
        if len(items) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        done(items)

    return work


@pytest.mark.parametrize(("count", "size", "expected"), [(10, 4, [4, 4, 2]), (3, 8, [3]), (2, 1, [1, 1]), (0, 4, [])])
def test_batches_have_the_size_given(count, size, expected):
    done = []
    Batches(nn.Identity(), count, size, progress=False).run(done.append)
    assert [len(items) for items in done] == expected


@pytest.mark.parametrize(("values", "size"), [(1, 256), (784, 256), (3 * 96**2, 75), (3 * 224**2, 13), (2**30, 1)])
def test_a_size_that_is_not_given_follows_from_the_inputs(values, size):
    assert choose_batch_size(values) == size
    assert sizes(plain, 3 * size, values=values) == [size] * 3


def test_a_gpu_takes_larger_batches():
    assert choose_batch_size(3 * 224**2, nn.Linear(1, 1, device="meta")) == 55


def test_sizes_do_not_depend_on_how_fast_batches_are():
    now = itertools.count()
    slower = sizes(lambda items, done: (time.sleep(next(now) / 1000), done(items)), 100, values=2**21 // 20)
    assert slower == [20] * 5


@pytest.mark.parametrize("size", [None, 48])
def test_out_of_memory_halves_until_it_fits_and_stays_there(size):
    tried = []
    found = sizes(fits(3, tried), 60, size, values=2**21 // 48)
    assert found == [3] * 20
    assert [one for one in tried if one > 3] == [48, 24, 12, 6]


def test_one_item_that_does_not_fit_is_an_error_and_so_is_any_other():
    with pytest.raises(torch.OutOfMemoryError):
        sizes(fits(0, []), 10)

    def broken(items, done):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        sizes(broken, 10)


def refused():
    torch.empty(10**15)


def refused_on_windows():
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: not enough memory: you tried")


@pytest.mark.parametrize("allocate", [refused, refused_on_windows])
def test_the_cpus_way_to_say_that_memory_is_out_is_understood(allocate):
    def work(items, done):
        if len(items) > 1:
            allocate()
        done(items)

    assert sizes(work, 4, 4) == [1] * 4


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_that_is_none_is_an_error(size):
    with pytest.raises(ValueError, match=f"batch_size={size} must be at least 1, or None for"):
        Batches(nn.Identity(), 3, size)


class Counted(nn.Module):
    """Counts its looks: each asks the modules for what they hold."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        return self.fc(x.flatten(1))


def test_all_batches_are_one_look(monkeypatch):
    looks = []
    evaluating = guard.evaluating
    monkeypatch.setattr(guard, "evaluating", lambda model: looks.append(model) or evaluating(model))
    smooth_grad(Counted(), torch.randn(2, 12), 1, noise_samples=20, batch_size=5)
    assert len(looks) == 1


class Activations(nn.Module):
    """Notes the memory format of its images, and takes them by ``view`` or ``reshape``."""

    def __init__(self, by):
        super().__init__()
        self.by, self.channels_last = by, []
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        self.channels_last.append(x.is_contiguous(memory_format=torch.channels_last))
        x = self.conv(x)
        return getattr(x, self.by)(x.shape[0], -1)


def test_images_are_channels_last_unless_the_model_cannot_take_it():
    x, seen = torch.randn(1, 3, 6, 6), {}
    for by in ("reshape", "view"):
        torch.manual_seed(0)
        model = Activations(by)
        noted = []
        model.register_forward_pre_hook(lambda module, args: noted.append(args[0].stride()))
        seen[by] = noted, smooth_grad(model, x, 1, noise_samples=12, batch_size=4)
    last, usual = (3 * 36, 1, 18, 3), (3 * 36, 36, 6, 1)
    assert seen["reshape"][0] == [last] * 3
    assert seen["view"][0] == [last] + [usual] * 3  # tried once, then all in the usual format
    assert torch.allclose(seen["view"][1], seen["reshape"][1], atol=1e-6)


class Remembers(nn.Module):
    """Adds what it saw last, which it keeps as an attribute, and counts in a buffer."""

    def __init__(self):
        super().__init__()
        self.fc, self.last = nn.Linear(12, 3), None
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        now = self.fc(x.flatten(1)).tanh() * (1 + self.seen)
        result = now if self.last is None else now + self.last
        self.last, self.seen = now, self.seen + 1
        self.get_buffer("seen").add_(1)
        return result


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_model_that_remembers_begins_every_batch_as_it_was(batch_size):
    torch.manual_seed(0)
    model, x = Remembers(), torch.randn(2, 3, 2, 2)
    expected = occlusion(model, x, 1, patch=1, stride=1, batch_size=100).drop
    assert torch.allclose(occlusion(model, x, 1, patch=1, stride=1, batch_size=batch_size).drop, expected, atol=1e-6)
    assert model.last is None and model.seen == 0
