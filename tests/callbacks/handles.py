"""Data sets that hold something which is shared with whoever else reads them: a handle, memory, a thread, a lock."""

import io
import mmap
import multiprocessing
import os
import queue
import socket
import sqlite3
import tarfile
import threading
import zipfile

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

COUNT, SIZE = 29, 64  # more than the data set has samples: whoever reads all of these does not come round to the first
RECORDS = [bytes((7 * index + place) % 256 for place in range(SIZE)) for index in range(COUNT)]
HANDLES = {}
ENDING = []
"""What closes the handles that were opened."""


def handle(name):
    """Register a builder: from a folder to a reader by number, and a function that tells the state of what it reads."""

    def register(build):
        HANDLES[name] = build
        return build

    return register


def held(handle):
    """A handle that stays open until `close_all`."""
    ENDING.append(handle.close)
    return handle


def close_all():
    """End of a test."""
    while ENDING:
        ENDING.pop()()


class Records(Dataset):
    """Images ``[1, 8, 8]`` of single records; keeps which were read in this process, and what came."""

    def __init__(self, read):
        self.read, self.seen = read, []

    def __len__(self):
        return 24

    def __getitem__(self, index):
        record = bytes(self.read(index))
        self.seen.append((index, record))
        return torch.tensor(list(record)).view(1, 8, 8) / 255, index % 3


def file_of(folder, name="records", mode="rb", **options):
    (folder / name).write_bytes(b"".join(RECORDS))
    return held((folder / name).open(mode, **options))


@handle("a file that is read on, whatever is asked for")
def tape(folder):
    file = file_of(folder, buffering=0)
    return lambda index: file.read(SIZE) or (file.seek(0), file.read(SIZE))[1], file.tell


@handle("a file with a buffer")
def buffered(folder):
    file = file_of(folder, buffering=2 * SIZE)

    def read(index):
        file.seek(index * SIZE)
        return file.read(SIZE)

    return read, file.tell


@handle("a file without a name")
def deleted(folder):
    file = file_of(folder, buffering=0)
    (folder / "records").unlink()
    return lambda index: file.read(SIZE) or (file.seek(0), file.read(SIZE))[1], file.tell


@handle("a map of a file")
def mapped(folder):
    memory = held(mmap.mmap(file_of(folder).fileno(), 0, access=mmap.ACCESS_READ))

    def read(index):
        memory.seek(index * SIZE)
        return memory.read(SIZE)

    return read, memory.tell


@handle("a map of a file that is written when a sample is seen")
def written(folder):
    file_of(folder)
    memory = np.memmap(folder / "records", np.uint8, "r+").reshape(COUNT, SIZE)

    def read(index):
        memory[index] += 1
        return memory[index].tobytes()

    return read, lambda: (folder / "records").read_bytes()


@handle("a log of what is read")
def logged(folder):
    log = held((folder / "log").open("a", buffering=1))

    def read(index):
        log.write(f"{index}\n")
        return RECORDS[index]

    return read, lambda: (folder / "log").read_text()


@handle("a zip archive")
def zipped(folder):
    with zipfile.ZipFile(folder / "zip", "w") as archive:
        for index, record in enumerate(RECORDS):
            archive.writestr(str(index), record)
    archive = held(zipfile.ZipFile(folder / "zip"))
    return lambda index: archive.read(str(index)), archive.fp.tell


@handle("a tar archive")
def tarred(folder):
    with tarfile.open(folder / "tar", "w") as archive:
        for index, record in enumerate(RECORDS):
            info = tarfile.TarInfo(str(index))
            info.size = SIZE
            archive.addfile(info, io.BytesIO(record))
    archive = held(tarfile.open(folder / "tar"))
    return lambda index: archive.extractfile(str(index)).read(), archive.fileobj.tell


@handle("HDF5")
def hdf5(folder):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "h5", "w") as file:
        file["records"] = np.array([list(record) for record in RECORDS], np.uint8)
    file = held(h5py.File(folder / "h5", "r"))
    return lambda index: file["records"][index].tobytes(), lambda: None


@handle("sqlite with a journal in shared memory")
def database(folder):
    connection = held(sqlite3.connect(folder / "db"))
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table records (number integer primary key, record blob, seen integer default 0)")
    connection.executemany("insert into records (number, record) values (?, ?)", enumerate(RECORDS))
    connection.commit()

    def read(index):
        return connection.execute("select record from records where number = ?", (index,)).fetchone()[0]

    return read, lambda: connection.execute("pragma integrity_check").fetchall()


@handle("LMDB")
def lmdb(folder):
    store = held(pytest.importorskip("lmdb").open(str(folder / "lmdb")))
    with store.begin(write=True) as transaction:
        for index, record in enumerate(RECORDS):
            transaction.put(str(index).encode(), record)

    def read(index):
        with store.begin() as transaction:
            return transaction.get(str(index).encode())

    return read, lambda: [(reader.split()[1:]) for reader in store.readers().splitlines()]


@handle("a counter of multiprocessing")
def counter(folder):
    count = multiprocessing.Value("i", 0)

    def read(index):
        with count.get_lock():
            count.value += 1
        return RECORDS[(index + count.value) % COUNT]

    return read, lambda: count.value


@handle("a tensor in shared memory")
def shared_tensor(folder):
    count = torch.zeros(3, dtype=torch.long).share_memory_()

    def read(index):
        count.add_(1)
        return RECORDS[(index + int(count[2])) % COUNT]

    return read, count.tolist


@handle("shared memory without a file")
def anonymous(folder):
    memory = held(mmap.mmap(-1, 4096))

    def read(index):
        memory[0] = (memory[0] + 1) % 256
        return RECORDS[(index + memory[0]) % COUNT]

    return read, lambda: memory[0]


@handle("a cache that is filled on first sight")
def cached(folder):
    cache = {}
    return lambda index: cache.setdefault(index, RECORDS[(index + len(cache)) % COUNT]), lambda: dict(cache)


@handle("a thread")
def fed_by_thread(folder):
    asked, answers = queue.Queue(), queue.Queue()

    def serve():
        count = 0
        while (index := asked.get()) is not None:
            answers.put(RECORDS[(index + count) % COUNT])
            count += 1

    threading.Thread(target=serve, daemon=True).start()
    ENDING.append(lambda: asked.put(None))

    def read(index):
        asked.put(index)
        return answers.get()

    return read, asked.qsize


@handle("a connection to a server")
def connected(folder):
    here, there = socket.socketpair()

    def serve():
        count = 0
        while message := there.recv(1):
            there.sendall(RECORDS[(message[0] + count) % COUNT])
            count += 1

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    ENDING.extend([there.close, server.join, here.close])

    def read(index):
        here.sendall(bytes([index]))
        return here.recv(SIZE, socket.MSG_WAITALL)

    return read, lambda: None


@handle("a pipe")
def piped(folder):
    reader, writer = os.pipe()
    os.write(writer, b"".join(RECORDS) * 4)
    ENDING.extend([lambda: os.close(reader), lambda: os.close(writer)])
    return lambda index: os.read(reader, SIZE), lambda: None


@handle("a lock that a thread holds, but for moments")
def locked(folder):
    lock, ended = threading.Lock(), threading.Event()

    def hold():
        while not ended.is_set():
            with lock:
                ended.wait(0.01)
            ended.wait(0.001)

    threading.Thread(target=hold, daemon=True).start()
    ENDING.append(ended.set)

    def read(index):
        with lock:
            return RECORDS[index]

    return read, lambda: None
