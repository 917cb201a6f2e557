"""Runs of several processes that share a model: ``python -m tests.callbacks.sharded_run FOLDER 2:NAME,NAME 4:NAME``.

For each argument so many processes are forked, which run one after the other. Each run leaves in ``FOLDER/NAME`` its
log, what it says, and the weights after training.
"""

import json
import os
import pickle
import socket
import sys
import time
import traceback
import warnings
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import torch
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_viz import (
    ActivationMaps,
    Adversarial,
    Dreams,
    GradCAM,
    Health,
    Occlusion,
    Saliency,
    UpdateRatio,
    default_views,
)
from lightning_viz.callbacks import agreement, picture_log, schedule
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.session import Session
from lightning_viz.callbacks.weight_copy import all_finite, checksums, own_weights
from lightning_viz.hooks.calls import call_model
from lightning_viz.hooks.model_state import evaluation_mode, preserve_state
from lightning_viz.hooks.observe import observe
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.hooks.shards import fsdp_records, own_part, settle, whole

from .conftest import Net, Watch, images, loader, make_trainer
from .drawings import draw
from .watched_run import write_into

KINDS = ("ddp", "static", "data", "tensor", "both")


class SharedNet(Net):
    """A small net of convolutions and a perceptron, sharded over processes as the strategy says."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.last = nn.Conv2d(4, 6, 3, padding=1)
        self.hidden, self.relu, self.output = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(self.last(self.convolutions(x))).mean((2, 3))
        return self.output(self.relu(self.hidden(x)))

    def configure_model(self):
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            self.share(self.device_mesh)

    def share(self, mesh):
        if mesh["tensor_parallel"].size() > 1:
            plan = {"hidden": ColwiseParallel(), "output": RowwiseParallel()}
            parallelize_module(self, mesh["tensor_parallel"], plan)
        if mesh["data_parallel"].size() > 1:
            for part in (self.convolutions, self.last, self.hidden):  # the rest is gathered with the whole
                fully_shard(part, mesh=mesh["data_parallel"])
            fully_shard(self, mesh=mesh["data_parallel"])

    def on_train_end(self):
        weights = {name: getattr(p, "full_tensor", lambda p=p: p)().detach() for name, p in self.named_parameters()}
        if self.global_rank == 0:
            torch.save({name: weight.clone() for name, weight in weights.items()}, self.place / "weights.pt")
        print(f"rank {self.global_rank} ends after {self.global_step}, {self.trainer.current_epoch}", flush=True)


class HeavyNet(SharedNet):
    """Most of its memory are the weights of its layers, of equal size."""

    def __init__(self):
        Net.__init__(self)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 512))
        for _ in range(6):
            self.layers.append(nn.Linear(512, 512))
            self.layers.append(nn.ReLU())
        self.layers.append(nn.Linear(512, 3))

    def forward(self, x):
        return self.layers(x)

    def share(self, mesh):
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                fully_shard(layer, mesh=mesh["data_parallel"])
        fully_shard(self, mesh=mesh["data_parallel"])


class Peak(TorchDispatchMode):
    """The most bytes that live in tensors which come into being inside, after any of torch's operations.

    Of a model what FSDP2 gathers into memory that it has used before counts as well.
    """

    def __init__(self, model):
        super().__init__()
        parts = [one for record in fsdp_records(model) for one in getattr(record, "fsdp_params", ())]
        self._own = [tensor.untyped_storage() for part in parts for tensor in getattr(part, "all_gather_outputs", ())]
        self._before = sum(storage.nbytes() for storage in self._own)
        self.bytes, self._known, self._live = 0, {storage._cdata for storage in self._own}, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        for tensor in all_tensors((list(args), kwargs or {})):
            self._known.add(tensor.untyped_storage()._cdata)  # is older
        result = func(*args, **(kwargs or {}))
        for tensor in all_tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known:
                self._live.append(StorageWeakRef(storage))
            self._known.add(storage._cdata)
        self._count()
        return result

    def _count(self):
        alive, size = [], sum(storage.nbytes() for storage in self._own) - self._before
        for reference in self._live:
            if reference.expired():
                self._known.discard(reference.cdata)
                continue
            storage = torch.UntypedStorage._new_with_weak_ptr(reference.cdata)
            size += 0 if storage is None else storage.nbytes()
            alive.append(reference)
        self._live, self.bytes, self.left = alive, max(self.bytes, size), size


def measured(peaks):
    """The peak of each look is appended to a list."""

    def look(self, chosen, *arguments, plain=Session._look):
        with Peak(self.run.model) as peak:
            plain(self, chosen, *arguments)
        if chosen:
            peaks.append(peak.bytes)

    return patch.object(Session, "_look", look)


def memory(folder, processes, kind):
    """Peaks of a pass without views, and of looks with all of them, on each process."""
    peaks, model = [], HeavyNet()
    model.place = folder
    strategy = strategy_of(kind, processes)
    views = default_views(max_overhead=1e9)
    trainer = make_trainer(folder, views, strategy=strategy, devices=processes, max_epochs=1)
    with kept([]), measured(peaks):
        trainer.fit(model, loader(*images(24)), loader(*images(24)))
    inputs, _ = images(24)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    weights = own_weights(model, ())
    with Peak(model) as gathering:
        checksums(weights)
        all_finite(weights)
    with Peak(model) as forward, torch.no_grad():
        model(inputs)
    settle(model)
    with Peak(model) as backward:
        model(inputs).sum().backward()
    with Peak(model) as seen:
        observe(model, inputs, layers=layers, gradients=True)
    found = {
        "shard": sum(own_part(p).nbytes for p in model.parameters()),
        "model": sum(p.numel() * 4 for p in model.parameters()),
        "layer": max(p.numel() * 4 for p in model.parameters()),
        "gathering": gathering.bytes,
        "forward": forward.bytes,
        "backward": backward.bytes,
        "observe": seen.bytes,
        "looks": peaks,
    }
    (folder / f"memory {trainer.global_rank}.json").write_text(json.dumps(found))


class FailingNet(SharedNet):
    """One process fails in training."""

    def on_train_batch_start(self, batch, batch_idx):
        if self.global_rank == 1 and self.global_step == 3:
            raise RuntimeError("planted in training")


class OnTheSecond(Watch):
    """Does on the second process what it does on no other, at every look or in the midst of a pass of its own."""

    kind = "on_the_second"

    def what(self):
        raise RuntimeError("planted")

    def compute(self, model, snapshot):
        if torch.distributed.get_rank() == 1:
            self.what()
        return {}


class InAPass(OnTheSecond):
    kind = "in_a_pass"

    def compute(self, model, snapshot):
        def hook(module, inputs, output):
            if torch.distributed.get_rank() == 1:
                self.what()

        handle = model.last.register_forward_hook(hook)
        try:
            with evaluation_mode(model):
                model(snapshot.samples.inputs[:2])
        except RuntimeError:
            if torch.distributed.get_rank() == 1:
                return {}  # as a view may that can do without: the others are told all the same
            raise
        finally:
            handle.remove()
        return {}


class InBackward(OnTheSecond):
    kind = "in_backward"

    def compute(self, model, snapshot):
        def fail(gradient):
            if torch.distributed.get_rank() == 1:
                self.what()

        with evaluation_mode(model):
            inputs = snapshot.samples.inputs[:2].clone().requires_grad_()
            output = model(inputs)
            inputs.register_hook(fail)
            torch.autograd.grad(output.sum(), inputs)
        return {}


class Dies(OnTheSecond):
    kind = "dies"

    def what(self):
        if self._trainer().global_step:
            os._exit(7)


class Sleeps(OnTheSecond):
    kind = "sleeps"

    def what(self):
        if self._trainer().global_step:
            time.sleep(5)


def unaffordable(rank):
    """The budget binds on one process."""

    def affordable(self, shares):
        return set() if torch.distributed.get_rank() == rank else set(shares)

    return patch.object(schedule.OverheadBudget, "affordable", affordable)


class Hanging(Watch):
    """Its first page takes for ever to be drawn."""

    kind = "hanging"

    def draw(self, snapshot):
        yield DrawTask(draw, {"tag": "hanging/page", "step": snapshot.step, "seconds": 600.0})


def kept(sketches):
    """Tasks are kept instead of drawn."""

    class Keeps(DrawingProcess):
        def submit(self, owner, step, sketch):
            sketches.append((step, sketch))

    return patch.object(picture_log, "DrawingProcess", Keeps)


def connect():
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")


def numbers(folder, processes, kind):
    """What `observe` finds of a model that is shared, and of the same one whole, by layer; both are left as found."""
    connect()
    model, alone = SharedNet(), SharedNet()
    sizes = {"data": (processes, 1), "tensor": (1, processes)}[kind]
    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=("data_parallel", "tensor_parallel"))
    model.share(mesh)
    inputs, _ = images(5)
    layers = ["convolutions.0", "last", "hidden", "relu", "output"]
    found = {}
    for name, each in (("shared", model), ("whole", alone)):
        seen = observe(each, inputs, layers=layers, gradients=True, input_gradient=True, rules=["guided"])
        found[name] = {"outputs": seen.outputs, "input": seen.input_gradient, "guided": seen.ruled["guided"]}
        for part in ("activations", "gradients"):
            found[name] |= {f"{part} {layer}": value for layer, value in getattr(seen, part).items()}
    found["weights"] = {name: (whole(p), dict(alone.named_parameters())[name]) for name, p in model.named_parameters()}
    if int(os.environ["LOCAL_RANK"]) == 0:
        torch.save(found, folder / "numbers.pt")


def trained(model, look, inputs, labels):
    """Two accumulated batches and an update, with a look before, between and after them; gradients and weights."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    found = []
    for step in range(2):
        look()
        for last in (False, True):
            model.set_requires_gradient_sync(last)
            look()  # the gradients of the first batch wait, and are to be sent with those of this one
            F.cross_entropy(model(inputs), labels).backward()
            look()
        found += [whole(p.grad).clone() for p in model.parameters()]
        optimizer.step()
        optimizer.zero_grad()
        if step == 0:
            with torch.no_grad():
                model(inputs)  # leaves the outermost module gathered
    look()
    return found + [whole(p).detach().clone() for p in model.parameters()]


def states(folder, processes, kind):
    """Gradients and weights of a shared model that is trained while somebody looks, or fails in a look."""
    connect()
    mesh = init_device_mesh("cpu", (processes, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    inputs, labels = images(4 + int(os.environ["LOCAL_RANK"]))
    probe, _ = images(3)

    def look(model):
        with preserve_state(model):
            observe(model, probe, layers=["last", "hidden"], gradients=True)
            with evaluation_mode(model), torch.no_grad():
                model(probe)

    def fail(model, forward):
        def stop(*_):
            raise RuntimeError("planted")

        with suppress(RuntimeError), evaluation_mode(model):
            handle = model.hidden.register_forward_hook(stop) if forward else None
            try:
                inputs = probe.clone().requires_grad_()
                output = call_model(model, inputs)
                inputs.register_hook(stop)
                torch.autograd.grad(output.sum(), inputs)
            finally:
                if handle is not None:
                    handle.remove()

    looks = {
        "nobody": lambda model: None,
        "looks": look,
        "fails forward": lambda model: fail(model, True),
        "fails backward": lambda model: fail(model, False),
    }
    found = {}
    for name, does in looks.items():
        model = SharedNet()
        model.share(mesh)
        before = [vars(record).copy() for record in fsdp_records(model)]
        does(model)
        after = [vars(record).copy() for record in fsdp_records(model)]
        found[name] = trained(model, lambda model=model, does=does: does(model), inputs, labels)
        found[f"{name}, records"] = before == after
    if int(os.environ["LOCAL_RANK"]) == 0:
        torch.save(found, folder / "states.pt")


FREE = {"max_overhead": 1e9}
VIEWS = {
    "": list,
    "views": lambda: default_views(**FREE),
    "one raises": lambda: [OnTheSecond(every_n_train_steps=1), Watch(every_n_train_steps=1)],
    "one raises in a pass": lambda: [InAPass(every_n_train_steps=1), Watch(every_n_train_steps=1)],
    "one raises in backward": lambda: [InBackward(every_n_train_steps=1), Watch(every_n_train_steps=1)],
    "one dies": lambda: [Dies(every_n_train_steps=1), ActivationMaps(layers="last")],
    "one sleeps": lambda: [Sleeps(every_n_train_steps=1), ActivationMaps(layers="last")],
    "fails in training": list,
    "one fails in training": lambda: [ActivationMaps(layers="last", every_n_train_steps=1)],
    "budget of the first": lambda: [Watch(every_n_train_steps=1)],
    "budget of the second": lambda: [Watch(every_n_train_steps=1)],
    "drawing hangs": lambda: [Hanging(every_n_train_steps=1, finish_seconds=1.0)],
    "passes": lambda: [
        Saliency(method="smooth_grad", noise_samples=4, **FREE),
        Saliency(method="integrated_gradients", integration_steps=4, **FREE),
        GradCAM(method="score_cam", **FREE),
        Occlusion(patch=4, stride=2, **FREE),
        Dreams(each=2, updates=2, **FREE),
        Adversarial(attack_steps=2, **FREE),
    ],
    "weights": lambda: [Health(every_n_train_steps=1), UpdateRatio(every_n_train_steps=1)],
}
PATCHED = {
    "budget of the first": lambda: unaffordable(0),
    "budget of the second": lambda: unaffordable(1),
    "one sleeps": lambda: patch.object(agreement, "AGREE_SECONDS", 2.0),
}


def strategy_of(kind, processes):
    options = {"process_group_backend": "gloo", "timeout": timedelta(seconds=60)}
    if kind in ("ddp", "static"):
        return DDPStrategy(**options, static_graph=kind == "static")
    data = {"data": processes, "tensor": 1, "both": processes // 2}[kind]
    return ModelParallelStrategy(data, processes // data, **options)


def run(folder, processes, name):
    kind, _, views = name.partition(" ")
    model = FailingNet() if views.endswith("fails in training") else SharedNet()
    model.place = folder
    options = {"strategy": strategy_of(kind, processes), "devices": processes, "max_epochs": 2}
    trainer = make_trainer(folder, VIEWS[views](), **options)
    tensors = images(24 if kind != "tensor" else 12)
    sketches = []
    drawing = nullcontext() if views == "drawing hangs" else kept(sketches)
    with drawing, PATCHED.get(views, nullcontext)():
        trainer.fit(model, loader(*tensors), loader(*images(24)))
    if not views and kind in ("data", "both"):
        trainer.save_checkpoint(folder / "shards.ckpt")
    if trainer.is_global_zero:
        (folder / "sketches").write_bytes(pickle.dumps(sketches))


def process(folder, processes, names):
    """A process of several: run after run."""
    rank = int(os.environ["LOCAL_RANK"])
    for name in names:
        own = folder / name
        own.mkdir(exist_ok=True, parents=True)
        write_into(own)
        started, error = time.monotonic(), ""
        try:
            kind, _, what = name.partition(" ")
            other = {"numbers": numbers, "states": states, "memory": memory}.get(what)
            if other is None:
                run(own, processes, name)
            else:
                other(own, processes, kind)
        except Exception as caught:
            traceback.print_exc()
            error = f"{type(caught).__name__}: {caught}"
        taken = {"seconds": time.monotonic() - started, "error": error}
        (own / f"process {rank}.json").write_text(json.dumps(taken))


def together(folder, processes, names):
    """Fork the processes, which takes less time than to start them anew, and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_PORT": str(port)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(processes), "RANK": str(rank)}
            code = 1
            try:
                process(folder, processes, names)
                code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("always")
    for argument in sys.argv[2:]:
        count, _, listed = argument.partition(":")
        together(Path(sys.argv[1]), int(count), listed.split(","))
