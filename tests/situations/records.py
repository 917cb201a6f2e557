"""A data set of records in a file that is opened once, which knows what it read wrongly."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .brought import Classifier, pictures
from .situation import Training
from .truth import shown_as_images

images, labels = pictures()
RECORDS = [images[index].numpy().tobytes() + bytes([int(labels[index])]) for index in range(16)]
SIZE = len(RECORDS[0])
READS = 8 + 16 + 16  # two batches of four in the sanity check, the training, the validation


class Records(Dataset):
    """Records of an image and its label, read through one handle that is opened once.

    Attributes:
        wrong: numbers of the records that this process read wrongly.
        reads: how many it read.
    """

    def __init__(self, read):
        self.read, self.wrong, self.reads = read, [], 0

    def __len__(self):
        return 16

    def __getitem__(self, index):
        record = self.read(index)
        self.reads += 1
        if record != RECORDS[index]:
            self.wrong.append(index)
            record = RECORDS[index]
        pixels = torch.frombuffer(bytearray(record[:-1]), dtype=torch.float32)
        return pixels.view(3, 16, 16), record[-1]


OPEN: list[Any] = []
"""Handles that data sets hold; a test closes them when it has ended."""


def held(handle: Any) -> Any:
    """A handle that stays open during a test."""
    OPEN.append(handle)
    return handle


def close_all() -> None:
    """End of a test."""
    while OPEN:
        OPEN.pop().close()


def written(**options: Any) -> Any:
    """A file of all records, which is gone when it is closed."""
    file = held(tempfile.TemporaryFile(**options))
    file.write(b"".join(RECORDS))
    file.flush()
    return file


def reading(read):
    """Training reads the records that it asks for, and as many as without views."""
    data = Records(read)

    def check(seen):
        shown_as_images(seen)
        assert not data.wrong, f"{len(data.wrong)} of {data.reads} records that training read are wrong"
        assert data.reads == READS, f"{data.reads} reads in the training process"

    return Training(Classifier(), DataLoader(data, 4), DataLoader(data, 4)), check


def seeking(file):
    """A reader that seeks and reads."""

    def read(index):
        file.seek(index * SIZE)
        return file.read(SIZE)

    return read
