"""Checkpoints as somebody who means no good would write them, or a fault of a disk or of another program."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import torch

from .nets import Net

VIEW = "FirstLayerFilters()"
"""Name of the view of which the checkpoints hold a state."""


def content(**more):
    """A checkpoint as Lightning saves it, with a view's state."""
    torch.manual_seed(0)
    view = {
        "last_step": 6,
        "indices": {"__tuple__": [0, 1, 2]},
        "state": {"limits": {"__tuple__": [0.0, 1.0]}},
        "memories": {"filters/conv1": {"edges": torch.zeros(3)}},
        "frames": {"filters/conv1": [{"__tuple__": [6, torch.zeros(4, dtype=torch.uint8)]}]},
        "recipe": {"view": "FirstLayerFilters", "arguments": {"every_n_epochs": 1}},
    }
    return {
        "epoch": 1,
        "global_step": 6,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": Net().state_dict(),
        "loops": {"fit_loop": {"epoch_loop.state_dict": {"_batches_that_stepped": 6}}},
        "hparams_name": "kwargs",
        "hyper_parameters": {"width": 4, "classes": 3, "rate": 0.05},
        "lightning_viz": {VIEW: view},
        **more,
    }


def placed(place, value):
    """A checkpoint with a value at the end of a way of names."""
    whole = content()
    part = whole
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    return whole


def weight(value, name="fc.weight"):
    return placed(("state_dict", name), value)


def view(name, value):
    return placed(("lightning_viz", VIEW, name), value)


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def laughs(levels):
    """Few lists in each other that stand for 10^levels values."""
    value = ["ha"]
    for _ in range(levels):
        value = [value] * 10
    return value


def itself():
    value = []
    value.append(value)
    return value


def quantized():
    return torch.quantize_per_tensor(torch.zeros(3, 4), 0.1, 0, torch.qint8)


LOOPS = ("loops", "fit_loop", "epoch_loop.state_dict", "_batches_that_stepped")
FIELDS = {
    "state_dict": ("state_dict",),
    "weight": ("state_dict", "fc.weight"),
    "global_step": ("global_step",),
    "epoch": ("epoch",),
    "loops": ("loops",),
    "loops.fit_loop": LOOPS[:2],
    "loops.fit_loop.epoch_loop.state_dict": LOOPS[:3],
    "_batches_that_stepped": LOOPS,
    "hyper_parameters": ("hyper_parameters",),
    "hparams_name": ("hparams_name",),
    "lightning_viz": ("lightning_viz",),
    "view": ("lightning_viz", VIEW),
    **{name: ("lightning_viz", VIEW, name) for name in content()["lightning_viz"][VIEW]},
    "recipe.view": ("lightning_viz", VIEW, "recipe", "view"),
    "recipe.arguments": ("lightning_viz", VIEW, "recipe", "arguments"),
}
"""Everything that the analysis reads of a checkpoint: by its name, the way to it."""
OPTIONAL = ("hyper_parameters", "hparams_name", "last_step", "indices", "recipe")
"""Those that may be None."""

FORMS = {
    "global_step is a word": lambda: content(global_step="abc"),
    "global_step is NaN": lambda: content(global_step=float("nan")),
    "global_step is infinite": lambda: content(global_step=float("inf")),
    "global_step is a list": lambda: content(global_step=[6]),
    "global_step is None": lambda: content(global_step=None),
    "global_step is true": lambda: content(global_step=True),
    "global_step is negative": lambda: content(global_step=-1),
    "global_step is 10^100": lambda: content(global_step=10**100),
    "global_step is a tensor": lambda: content(global_step=torch.tensor(6)),
    "epoch is a mapping": lambda: content(epoch={"a": 1}),
    "epoch is a fraction": lambda: content(epoch=0.5),
    "loops are a list": lambda: content(loops=[1]),
    "loops are None": lambda: content(loops=None),
    "fit_loop is a word": lambda: content(loops={"fit_loop": "abc"}),
    "loop is a number": lambda: content(loops={"fit_loop": {"epoch_loop.state_dict": 3}}),
    "updates are a word": lambda: placed(LOOPS, "six"),
    "hyper-parameters are a list": lambda: content(hyper_parameters=[1, 2]),
    "hyper-parameters are a word": lambda: content(hyper_parameters="abc"),
    "hyper-parameters 10,000 levels deep": lambda: content(hyper_parameters={"width": nested(10_000)}),
    "hyper-parameters that hold themselves": lambda: content(hyper_parameters={"width": itself()}),
    "hyper-parameters of 10^12 values": lambda: content(hyper_parameters={"width": laughs(12)}),
    "name of hyper-parameters is a list": lambda: content(hparams_name=["kwargs"]),
    "state_dict is a word": lambda: content(state_dict="abc"),
    "state_dict is a list": lambda: content(state_dict=[torch.zeros(3)]),
    "state_dict is None": lambda: content(state_dict=None),
    "state_dict with numbers for names": lambda: content(state_dict={0: torch.zeros(3)}),
    "weights are words": lambda: content(state_dict=dict.fromkeys(Net().state_dict(), "abc")),
    "weight is a list": lambda: weight([[0.0] * 4] * 3),
    "weight is None": lambda: weight(None),
    "weight is sparse": lambda: weight(torch.eye(3, 4).to_sparse()),
    "weight is sparse by rows": lambda: weight(torch.eye(3, 4).to_sparse_csr()),
    "weight is nested": lambda: weight(torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])),
    "weight is quantized": lambda: weight(quantized()),
    "weight is meta": lambda: weight(torch.empty(3, 4, device="meta")),
    "weight is meta and large": lambda: weight(torch.empty(2**30, 2**30, device="meta")),
    "weight is one number seen 10^12 times": lambda: weight(torch.zeros(1).expand(10**6, 10**6)),
    "weights are one number seen 10^8 times": lambda: content(
        state_dict={name: torch.zeros(1).expand(10**4, 10**4) for name in map(str, range(100))}
    ),
    "extra state 10,000 levels deep": lambda: weight(nested(10_000), "conv1._extra_state"),
    "views are a word": lambda: content(lightning_viz="abc"),
    "views are a list": lambda: content(lightning_viz=[{}]),
    "view is a number": lambda: content(lightning_viz={VIEW: 3}),
    "view has a number for a name": lambda: content(lightning_viz={3: {}}),
    "last_step is a word": lambda: view("last_step", "six"),
    "indices are a word": lambda: view("indices", "abc"),
    "indices are words": lambda: view("indices", {"__tuple__": ["a"]}),
    "indices are negative": lambda: view("indices", [-1]),
    "state is a list": lambda: view("state", [1]),
    "memories are a number": lambda: view("memories", 3),
    "memory is sparse": lambda: view("memories", {"a": torch.eye(3).to_sparse()}),
    "memory is bfloat16": lambda: view("memories", {"a": torch.zeros(3, dtype=torch.bfloat16)}),
    "memory wants a gradient": lambda: view("memories", {"a": torch.zeros(3, requires_grad=True)}),
    "memory is one number seen 10^12 times": lambda: view("memories", {"a": torch.zeros(1).expand(10**6, 10**6)}),
    "memory is a tuple of no list": lambda: view("memories", {"a": {"__tuple__": 3}}),
    "memory 10,000 levels deep": lambda: view("memories", {"a": nested(10_000)}),
    "frames are a list": lambda: view("frames", [1]),
    "frame is a word": lambda: view("frames", {"a": ["abc"]}),
    "frame is no picture": lambda: view("frames", {"a": [{"__tuple__": [1, "abc"]}]}),
    "recipe is a word": lambda: view("recipe", "abc"),
    "recipe is a list": lambda: view("recipe", [1]),
    "recipe is empty": lambda: view("recipe", {}),
    "recipe of a view that is a list": lambda: view("recipe", {"view": ["GradCAM"], "arguments": {}}),
    "recipe of arguments that are a list": lambda: view("recipe", {"view": "GradCAM", "arguments": [1]}),
    "recipe of arguments without names": lambda: view("recipe", {"view": "GradCAM", "arguments": {3: 1}}),
    "content is a list": lambda: [content()],
    "content is a tensor": lambda: torch.zeros(3),
    "content is a number": lambda: 3,
    "content is None": lambda: None,
    "content is empty": dict,
    "content without weights": lambda: {"global_step": 6, "optimizer_states": []},
    "names without weights that turn the line": lambda: {"a\nb\u202e\x1b[2J": 1},
}
"""Contents that torch loads and that are no checkpoint: by what is wrong."""


def archive(path, compression=zipfile.ZIP_STORED, whole=None, **changes):
    """A checkpoint's archive written anew, with other content of some of its entries."""
    file = io.BytesIO()
    torch.save(content() if whole is None else whole, file)
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(path, "w", compression) as after:
        for entry in before.infolist():
            name = entry.filename.partition("/")[2]
            after.writestr(entry.filename, changes.get(name, before.read(entry)))


class Made:
    """Reduces to a call of what torch lets a checkpoint call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def calls(path, function, *arguments):
    with path.open("wb") as file:
        torch.save(content(hyper_parameters={"width": Made(function, *arguments)}), file)


def declared(path, size):
    """The archive's directory says that an entry is so large."""
    archive(path)
    whole = bytearray(path.read_bytes())
    place = whole.index(b"PK\x01\x02")
    whole[place + 20 : place + 28] = struct.pack("<II", size, size)
    path.write_bytes(whole)


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", pickle.dumps({"state_dict": OrderedDict()}, 2))
        file.writestr("archive/version", "3")
        file.writestr("archive/data/0", bytes(2**24))


def scrambled(path):
    """The pickle's bytes from the middle on in another order."""
    file = io.BytesIO()
    torch.save(content(), file)
    with zipfile.ZipFile(file) as before:
        data = next(before.read(name) for name in before.namelist() if name.endswith("data.pkl"))
    middle = len(data) // 2
    archive(path, **{"data.pkl": data[:middle] + data[:middle:-1]})


FILES = {
    "no bytes": lambda path: path.write_bytes(b""),
    "cut short": lambda path: (torch.save(content(), path), path.write_bytes(path.read_bytes()[:1500])),
    "zeros": lambda path: path.write_bytes(bytes(5000)),
    "an archive's first bytes": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
    "an archive of something else": lambda path: zipfile.ZipFile(path, "w").close(),
    "no pickle in the archive": lambda path: archive(path, **{"data.pkl": b""}),
    "a pickle without an end": lambda path: archive(path, **{"data.pkl": b"\x80\x02}q\x00"}),
    "a pickle that pops too much": lambda path: archive(path, **{"data.pkl": b"\x80\x02000."}),
    "a pickle that asks for what is not there": lambda path: archive(path, **{"data.pkl": b"\x80\x02h\x07."}),
    "a pickle in another order": scrambled,
    "a weight larger than the file": lambda path: archive(
        path, whole={"state_dict": {"a": torch.ones(100_000)}}, **{"data/0": b"abc"}
    ),
    "entries that are compressed": lambda path: archive(path, zipfile.ZIP_DEFLATED),
    "entries that inflate": bomb,
    "an entry of 4 GB in a file of 5 kB": lambda path: declared(path, 2**32 - 2),
    "a number of 5,000 digits": lambda path: torch.save(content(global_step=10**5000), path),
    "a buffer of 10^15 bytes": lambda path: calls(path, bytearray, 10**15),
    "a tensor of 10^15 numbers": lambda path: calls(path, torch.Tensor, 10**15),
}
"""Files that torch does not load."""
