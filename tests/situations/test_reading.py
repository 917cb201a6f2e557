"""Kind 6: views read samples without a trace in what training reads, and within a limit of time."""

import io
import itertools
import mmap
import multiprocessing
import os
import queue
import sqlite3
import tarfile
import tempfile
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_viz import FirstLayerFilters

from .brought import Classifier, Quarters, loader, pictures, rows
from .records import READS, RECORDS, SIZE, close_all, held, reading, seeking, written
from .situation import ARGUMENT, REFUSED, Training, situation, situations
from .truth import all_right, shown_as_images

images, labels = pictures()


@situation(6, "a file, opened once")
def one_file():
    return reading(seeking(written()))


@situation(6, "a file without a buffer, opened once: the offset is the system's")
def one_raw_file():
    return reading(seeking(written(buffering=0)))


@situation(6, "a file mapped into memory")
def one_map():
    file = written()
    mapped = held(mmap.mmap(file.fileno(), 0))
    return reading(lambda index: mapped[index * SIZE : (index + 1) * SIZE])


@situation(6, "a zip archive, opened once")
def one_zip():
    file = held(tempfile.TemporaryFile())
    archive = zipfile.ZipFile(file, "w")
    for index, record in enumerate(RECORDS):
        archive.writestr(str(index), record)
    archive.close()
    opened = held(zipfile.ZipFile(file))
    return reading(lambda index: opened.read(str(index)))


@situation(6, "a tar archive, opened once")
def one_tar():
    file = held(tempfile.TemporaryFile())
    with tarfile.open(fileobj=file, mode="w") as archive:
        for index, record in enumerate(RECORDS):
            info = tarfile.TarInfo(str(index))
            info.size = SIZE
            archive.addfile(info, io.BytesIO(record))
    file.seek(0)
    opened = tarfile.open(fileobj=file)
    return reading(lambda index: opened.extractfile(str(index)).read())


@situation(6, "a database of sqlite, connected once")
def one_sqlite():
    path = Path(tempfile.mkdtemp()) / "records.db"
    connection = held(sqlite3.connect(path))
    connection.execute("create table records (number integer primary key, record blob)")
    connection.executemany("insert into records values (?, ?)", enumerate(RECORDS))
    connection.commit()
    return reading(
        lambda index: connection.execute("select record from records where number = ?", (index,)).fetchone()[0]
    )


@situation(6, "HDF5, opened once (where h5py is installed)")
def one_hdf5():
    h5py = pytest.importorskip("h5py")
    path = Path(tempfile.mkdtemp()) / "records.h5"
    with h5py.File(path, "w") as file:
        file["records"] = torch.tensor([list(record) for record in RECORDS], dtype=torch.uint8).numpy()
    opened = held(h5py.File(path, "r"))
    return reading(lambda index: opened["records"][index].tobytes())


@situation(6, "LMDB, opened once (where lmdb is installed)")
def one_lmdb():
    lmdb = pytest.importorskip("lmdb")
    store = held(lmdb.open(tempfile.mkdtemp()))
    with store.begin(write=True) as transaction:
        for index, record in enumerate(RECORDS):
            transaction.put(str(index).encode(), record)

    def read(index):
        with store.begin() as transaction:
            return transaction.get(str(index).encode())

    return reading(read)


@situation(6, "a counter in shared memory counts what training reads, and nothing else")
def shared_counter():
    counter = torch.zeros(1, dtype=torch.long).share_memory_()

    def read(index):
        counter.add_(1)
        return RECORDS[index]

    training, check = reading(read)

    def check_counter(seen):
        check(seen)
        assert int(counter) == READS, int(counter)

    return training, check_counter


@situation(6, "a counter of multiprocessing, guarded by its lock")
def multiprocessing_counter():
    counter = multiprocessing.Value("i", 0)

    def read(index):
        with counter.get_lock():
            counter.value += 1
        return RECORDS[index]

    training, check = reading(read)

    def check_counter(seen):
        check(seen)
        assert counter.value == READS, counter.value

    return training, check_counter


@situation(6, "a pipe, from which each reader takes what the other misses: samples are taken as they pass, said once")
def one_pipe():
    out, into = os.pipe()
    held(os.fdopen(into, "wb"))
    source = held(os.fdopen(out, "rb", buffering=0))
    numbers: list[int] = []

    def read(index):
        os.write(into, bytes([len(numbers)]))
        numbers.append(source.read(1)[0])
        return RECORDS[index]

    training, check = reading(read)

    def check_numbers(seen):
        check(seen)
        assert numbers == list(range(READS))

    return training, check_numbers


@situation(
    6,
    "batches of a class of the user's own, which no file may hold that is read without running code",
    ARGUMENT,
    says=r"as they pass: give probe=Probe\(inputs=",
)
def batches_of_a_class():
    class Pair(NamedTuple):
        images: torch.Tensor
        labels: torch.Tensor

    def collate(samples):
        return Pair(*map(torch.stack, zip(*samples, strict=True)))

    return Training(Classifier(), rows(images, labels, collate_fn=collate)), shown_as_images


@situation(6, "a data set that caches on first sight caches what training has seen, and nothing else")
def cache_on_first_sight():
    cache: dict[int, bytes] = {}
    steps: list[int] = []

    def read(index):
        if os.getpid() == parent:
            steps.append(index)
        return cache.setdefault(index, RECORDS[index])

    parent = os.getpid()
    training, check = reading(read)

    def check_cache(seen):
        check(seen)
        assert set(cache) == set(steps)

    return training, check_cache


@situation(6, "a data set fed by a thread, which does not come along into another process: nothing hangs or is lost")
def fed_by_thread():
    asked: queue.Queue = queue.Queue()
    answers: queue.Queue = queue.Queue()

    def serve():
        while (index := asked.get()) is not None:
            answers.put(RECORDS[index])

    threading.Thread(target=serve, daemon=True).start()

    def read(index):
        asked.put(index)
        return answers.get(timeout=0.1)  # hangs where the thread is not

    return reading(read)


@situation(6, "a lock that another thread holds while the samples are fetched")
def held_lock():
    lock, done = threading.Lock(), threading.Event()
    take, give, parent = queue.Queue(), queue.Queue(), os.getpid()

    def serve():  # the other thread: it holds the lock whenever a process is about to begin
        while take.get():
            with lock:
                give.put(None)
                take.get()
            give.put(None)

    def hand_over():
        if os.getpid() == parent and not done.is_set():
            take.put(True)
            give.get()

    def read(index):
        if not lock.acquire(timeout=0.1):
            raise TimeoutError("the lock is held for ever")
        try:
            return RECORDS[index]
        finally:
            lock.release()

    threading.Thread(target=serve, daemon=True).start()
    os.register_at_fork(before=hand_over, after_in_parent=hand_over)
    training, check = reading(read)

    def check_and_end(seen):
        done.set()
        take.put(False)
        check(seen)

    return training, check_and_end


@situation(6, "a fetch that hangs: views give up within one limit of time, said once", ARGUMENT, says=r"Probe\(inputs=")
def hanging_fetch():
    parent = os.getpid()

    def item(index):
        if os.getpid() != parent:
            time.sleep(30)
        return images[index], labels[index]

    def start(trainer):
        with mock.patch("lightning_viz.callbacks.probe_loading.FETCH_SECONDS", 0.5):
            trainer.fit(Classifier(), loader(item), loader(item))

    def check(seen):
        assert len(seen.of("filters")) == 2

    return Training(None, None, start=start, draws=("filters",)), check


@contextmanager
def daemonic():
    """This process may have no children, as a worker of multiprocessing may not."""
    configuration = multiprocessing.current_process()._config
    configuration["daemon"] = True
    try:
        yield
    finally:
        del configuration["daemon"]


@situation(6, "a run inside a daemonic process, which may have no children")
def daemonic_process():
    def start(trainer):
        with daemonic():
            trainer.fit(Classifier(), rows(images, labels), rows(images, labels))

    return Training(None, None, start=start), shown_as_images


@situation(6, "one broken sample that validation never visits, because of its sampler")
def broken_sample():
    def item(index):
        if index == 5:
            raise OSError("truncated file")
        return images[index], labels[index]

    sound = [index for index in range(16) if index != 5]
    return Training(Classifier(), loader(item, sampler=sound), loader(item, sampler=sound)), all_right


@situation(6, "one broken sample that the training loader's collate leaves out")
def broken_sample_left_out():
    def item(index):
        return None if index == 5 else (images[index], labels[index])

    def collate(samples):
        images, labels = zip(*(sample for sample in samples if sample is not None), strict=True)
        return torch.stack(images), torch.stack(labels)

    return Training(Classifier(), loader(item, collate_fn=collate)), all_right


@situation(6, "a stream that can be read only once in a run")
def stream():
    class Stream(IterableDataset):
        """Each pass goes on where the last one ended."""

        def __init__(self):
            self.numbers = itertools.count()

        def __iter__(self):
            for _ in range(16):
                index = next(self.numbers) % 16
                yield images[index], labels[index]

    stream = Stream()

    def check(seen):
        shown_as_images(seen)
        assert next(stream.numbers) == 16, "the views have read from the stream"

    return Training(Classifier(), DataLoader(stream, 8), DataLoader(Stream(), 8)), check


class Counting(Classifier):
    """Counts its calls in a container within a container, and augments at random."""

    def __init__(self):
        super().__init__(Quarters())
        self.calls = {"forward": [0], "shapes": set()}

    def forward(self, images):
        self.calls["forward"][0] += 1
        self.calls["shapes"].add(tuple(images.shape))
        return self.net(images + 0.01 * torch.rand_like(images))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def without_views(start):
    """A run, its module compared with that of the same run without views."""

    def run(**options):
        pl.seed_everything(3, verbose=False)
        model = Counting()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        start(pl.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet, **options), model)
        return model

    def both(trainer):
        alone = run(default_root_dir=trainer.default_root_dir)
        pl.seed_everything(3, verbose=False)
        watched = Counting()
        start(trainer, watched)
        return alone, watched

    return both


@situation(6, "counters in a module's nested containers, random augmentation: as in the run without views")
def counters_in_containers():
    def start(trainer, model):
        trainer.fit(model, rows(images, labels, shuffle=True), rows(images, labels))

    def check(seen):
        alone, watched = seen.value
        assert watched.calls == alone.calls, (watched.calls, alone.calls)
        for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
            assert torch.equal(one, other)

    return Training(None, None, start=without_views(start)), check


@situation(
    6, "a data set that cannot be read at all in another process or copied: said once", REFUSED, says=r"Probe\(inputs="
)
def unreadable():
    parent, reads = os.getpid(), threading.Lock()  # which no copy can be made of

    def item(index):
        if os.getpid() != parent:
            raise PermissionError("this data set is for one process")
        with reads:
            return images[index], labels[index]

    views = [FirstLayerFilters()]
    return Training(Classifier(), loader(item), views=views, draws=("filters",)), lambda seen: None


@pytest.mark.parametrize("row", situations(__name__))
def test_reading(row, tmp_path: Path):
    try:
        row.verify(tmp_path)
    finally:
        close_all()
