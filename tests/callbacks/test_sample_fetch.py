"""Samples are fetched so that training does not notice: nothing is shared, nothing hangs, nothing read back runs."""

import os
import signal
import threading
import time
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from lightning_viz import Saliency
from lightning_viz.callbacks import probe_loading, sample_fetch
from lightning_viz.callbacks.distributed import Numbering, numbering
from lightning_viz.callbacks.sample_fetch import Fetcher

from .conftest import ConvNet, fit, images, loader, said
from .handles import HANDLES, Records, close_all


class Data(torch.utils.data.Dataset):
    """What a function gives for each number."""

    def __init__(self, item, count=24):
        self.item, self.count = item, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.item(index)


def fetch(item, order=range(24), count=8, *, seconds=60.0, **options):
    return Fetcher(seconds).fetch(DataLoader(Data(item), **options), list(order), count, 0)


def files():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def children():
    """Processes that this one started, ended ones that nobody waited for included."""
    return {number for task in Path("/proc/self/task").iterdir() for number in (task / "children").read_text().split()}


# Training is the same.


def trained(folder, handle, views):
    """Weights after training, every record that it read, and what else is left."""
    folder.mkdir()
    try:
        read, state = HANDLES[handle](folder)
        data, model = Records(read), ConvNet()
        fit(folder, model, views, DataLoader(data, batch_size=4), DataLoader(data, batch_size=8, sampler=range(8)))
        return [parameter.tolist() for parameter in model.parameters()], data.seen, state()
    finally:
        close_all()


@pytest.mark.parametrize("handle", HANDLES)
@pytest.mark.filterwarnings("ignore:.*lightning_viz.*:lightning_viz.errors.ViewWarning")
def test_training_is_the_same_for_data_that_hold_what_is_shared(handle, tmp_path, drawn_at_once, monkeypatch):
    monkeypatch.setattr(probe_loading, "FETCH_SECONDS", 1.0)
    runs = []
    for views in ([], [Saliency(every_n_train_steps=2)]):
        torch.manual_seed(5)
        runs.append(trained(tmp_path / str(len(views)), handle, views))
    assert len(drawn_at_once) >= 2
    assert runs[1] == runs[0]


@pytest.mark.parametrize("count", [3, 24])
def test_no_process_and_no_file_stays(count):
    before, running = files(), children()
    for seconds in (60.0, 0.05):
        fetch(lambda index: (time.sleep(0.02), torch.zeros(2))[1], count=count, seconds=seconds)
    assert files() == before
    assert children() <= running


def test_handlers_of_signals_stay_in_the_run(tmp_path):
    """Lightning's own would requeue the job."""
    before = signal.signal(signal.SIGUSR1, lambda *_: (tmp_path / "handled").touch())
    try:
        fetched = fetch(lambda index: os.kill(os.getpid(), signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "process that reads it has ended" in fetched.failure
    assert not list(tmp_path.iterdir())


def test_no_process_stays_where_the_run_is_killed_while_it_fetches(tmp_path):
    def item(index):
        (tmp_path / "new").write_text(str(os.getpid()))
        (tmp_path / "new").rename(tmp_path / "process")
        time.sleep(60)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12, of a fork beside threads
        run = os.fork()
    if run == 0:
        fetch(item)
        os._exit(0)
    path, deadline = tmp_path / "process", time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(run, signal.SIGKILL)
    os.waitpid(run, 0)
    while is_alive(process := int(path.read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(process)


def is_alive(process):
    path = Path(f"/proc/{process}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


# One limit of time.


def test_what_hangs_is_given_up_once_for_all_probes():
    lock = threading.Lock()
    fetcher, started = Fetcher(0.5), time.monotonic()
    with lock:
        hanging = [DataLoader(Data(lambda index: lock.acquire()), batch_size=2) for _ in range(3)]
        failures = [fetcher.fetch(one, range(24), 8, 0).failure for one in hanging]
    assert set(failures) == {"the data set could not be read within 0.5 s"}
    assert 0.5 <= time.monotonic() - started < 20.0


def test_what_came_before_the_limit_is_taken(tmp_path, drawn_at_once, monkeypatch, recwarn):
    monkeypatch.setattr(probe_loading, "FETCH_SECONDS", 2.0)
    monkeypatch.setattr(sample_fetch, "_BATCH", 4)
    x, y = images()
    main, read = os.getpid(), []

    def item(index):
        read.append(index)
        if os.getpid() != main and len(read) > 20:
            time.sleep(60)
        return x[index], int(y[index])

    view = Saliency()
    fit(tmp_path, ConvNet(), [view], loader(x, y), DataLoader(Data(item), batch_size=8))
    assert len(view.indices) == 16
    assert not [line for line in said(recwarn) if "as they pass" in line]


# Samples that cannot be read.


def test_the_next_sample_takes_the_place_of_a_broken_one():
    def item(index):
        if index in (1, 4):
            raise OSError(f"file {index} is truncated")
        return torch.full((2,), float(index))

    fetched = fetch(item, order=[4, 3, 1, 0, 2, 5, 6], count=4)
    assert fetched.indices == [3, 0, 2, 5]
    assert torch.cat(fetched.batches)[:, 0].tolist() == [3, 0, 2, 5]
    assert fetched.broken == {4: "file 4 is truncated", 1: "file 1 is truncated"}
    assert fetched.notes[0].startswith("samples 4 and 1 more are left out")
    assert not fetched.failure


def test_data_that_cannot_be_read_are_not_tried_for_ever():
    def item(index):
        raise OSError("gone")

    fetched = fetch(item, order=[index % 24 for index in range(10**5)], count=10**5)
    assert fetched.failure == "the data set could not be read unnoticed: gone"
    assert len(fetched.broken) <= 64


def test_images_of_unlike_sizes_come_one_by_one():
    fetched = fetch(lambda index: torch.zeros(1, 4 + index, 4), count=3, batch_size=1)
    assert [batch.shape[2] for batch in fetched.batches] == [4, 5, 6]
    assert fetched.indices == [0, 1, 2]


# What is read back.


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_that_is_read_back_runs(tmp_path):
    path = tmp_path / "ran"
    fetched = fetch(lambda index: (torch.zeros(2), Bomb(str(path))), collate_fn=list, batch_size=2)
    assert "more than tensors, numbers, strings" in fetched.failure
    assert not path.exists()


def test_batches_hold_strings_numbers_and_containers():
    def item(index):
        return {"x": torch.zeros(2), "id": f"sample {index}", "sizes": (index, 0.5), "nested": {"flag": True}}

    fetched = fetch(item, count=2, batch_size=2)
    assert fetched.batches[0]["id"] == ["sample 0", "sample 1"]
    assert fetched.batches[0]["sizes"][1].tolist() == [0.5, 0.5]
    assert fetched.batches[0]["nested"]["flag"].tolist() == [True, True]


def test_batches_of_a_class_are_taken_as_they_pass(tmp_path, drawn_at_once, recwarn):
    Pair = namedtuple("Pair", "image label")
    x, y = images()
    given = loader(x, y, collate_fn=lambda rows: Pair(*map(torch.stack, zip(*rows, strict=True))))
    fit(tmp_path, ConvNet(), [Saliency()], given, num_sanity_val_steps=2)
    assert drawn_at_once.tags() == {"saliency/gradient": [0, 6]}
    lines = [line for line in said(recwarn) if "as they pass" in line]
    assert len(lines) == 1 and "give probe=Probe(inputs=" in lines[0]


# Without processes that can be forked.


class Rows(torch.utils.data.Dataset):
    """Can be pickled; counts how often it is asked."""

    def __init__(self):
        self.asked, self.rng = 0, np.random.default_rng(0)

    def __len__(self):
        return 24

    def __getitem__(self, index):
        self.asked += 1
        return torch.full((2,), index + 0 * self.rng.random() + 0 * torch.rand(1).item())


def test_without_fork_a_copy_is_read(monkeypatch):
    monkeypatch.setattr(sample_fetch.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    data, state = Rows(), torch.get_rng_state()
    fetched = Fetcher(60.0).fetch(DataLoader(data, batch_size=4), list(range(24)), 3, 0)
    assert fetched.indices == [0, 1, 2] and not fetched.failure
    assert data.asked == 0 and torch.equal(torch.get_rng_state(), state)
    assert data.rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_without_fork_what_cannot_be_copied_is_refused(monkeypatch):
    monkeypatch.setattr(sample_fetch.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    asked = []
    assert "unnoticed" in fetch(asked.append).failure
    assert not asked


# Data sets that make their batches.


def test_whole_batches_are_asked_for_by_their_own_numbers():
    made = DataLoader(Data(lambda index: torch.full((5, 2), float(index)), 4), batch_size=None)
    fetched = Fetcher(60.0).fetch(made, [2, 0, 3, 1], 8, 0)
    assert [batch[0, 0].item() for batch in fetched.batches] == [2.0, 0.0]
    assert fetched.indices == []


def test_lists_are_asked_for_where_the_sampler_gives_lists():
    whole = Data(lambda indices: torch.tensor(indices) * torch.ones(len(indices)))
    made = DataLoader(whole, sampler=BatchSampler(SequentialSampler(whole), 8, drop_last=False), batch_size=None)
    fetched = Fetcher(60.0).fetch(made, [7, 3, 5, 1], 3, 0)
    assert fetched.indices == [7, 3, 5] == fetched.batches[0].tolist()


class Process:
    """A Trainer, as far as numbering asks it."""

    world_size = 2

    def __init__(self, rank):
        self.global_rank, self.is_global_zero = rank, rank == 0


@pytest.mark.parametrize("kind", ["shared out", "not shared out", "lists, not shared out"])
def test_samples_of_whole_batches_are_counted_once(kind):
    """Three batches of 5 samples for two processes, the fourth of which doubles the first."""
    data = Data(lambda index: torch.zeros(5, 2), 3)
    counted = []
    for rank in range(2):
        sampler = {
            "shared out": torch.utils.data.DistributedSampler(data, 2, rank, shuffle=False),
            "not shared out": None,
            "lists, not shared out": BatchSampler(SequentialSampler(data), 5, drop_last=False),
        }[kind]
        numbers = numbering(Process(rank), DataLoader(data, sampler=sampler, batch_size=None))
        batches = 2 if kind == "shared out" else 3
        counted += [number for batch in range(batches) for number in numbers.among(5 * batch, 5, batch)]
    assert len(counted) == len(set(counted)) == 15


def test_numbers_of_samples_are_as_before():
    assert Numbering(1, 2, 6).among(0, 4, 0).tolist() == [1, 3, 5]
