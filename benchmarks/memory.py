"""What watching keeps in memory: a large model's layers as embeddings, and a long run of a small one.

The looks that a `LayerEmbeddings` of every block takes of a ResNet-152 at 224 x 224 in `Trainer.fit`, the first and the
last, at random images and untrained weights. What is measured is the most resident memory that the process has held
since training was about to start (``VmHWM``, set back by ``/proc/self/clear_refs``) beyond what it held then:
interpreter, libraries and model. The probe (602 MB for 1,000 images) is counted. The training step is left out, as it
is no part of looking.

    python benchmarks/memory.py [--samples 1000] [--draw]
    python benchmarks/memory.py --leak [--events 200]
    python benchmarks/memory.py --attributions 2000
"""

import argparse
import gc
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_viz import (
    ActivationStatistics,
    GradCAM,
    LayerEmbeddings,
    Occlusion,
    Saliency,
    TopSamples,
    attribution,
    default_views,
)
from lightning_viz.callbacks import probe_loading as sampling
from lightning_viz.callbacks import session as session_module
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.session import Session, session
from lightning_viz.callbacks.shared_pass import SharedPass

BOUND = 2048  # MiB
EVERY_BLOCK = ("first_conv", "Bottleneck", "last_linear")


class Images(Dataset[tuple[Tensor, int]]):
    """Random images, made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.targets = [index % 10 for index in range(count)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(index)), self.targets[index]


class Module(pl.LightningModule):
    """Looked at and, where `learns`, trained."""

    def __init__(self, net: nn.Module, *, learns: bool) -> None:
        super().__init__()
        self.net, self.learns = net, learns

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor | None:
        return nn.functional.cross_entropy(self(batch[0]), batch[1]) if self.learns else None

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


class Meter(pl.Callback):
    """First among the callbacks: sets the peak back before any view looks."""

    base = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        gc.collect()
        self.base = resident()
        reset_peak()


class Stages:
    """The peak after each part of a look, and that of the drawing process."""

    def __init__(self, meter: Meter) -> None:
        self.rows: list[tuple[str, float, float, float]] = []
        self.drawing = 0.0
        self._meter = meter
        self._time(sampling, "_prepare", "probe fetched")
        self._time(sampling, "load_samples", "probe described")
        self._time(SharedPass, "run", "forward over all samples")
        self._time(Session, "_compute_and_draw", "tasks handed over")
        close = DrawingProcess.close

        def closing(artist: DrawingProcess) -> None:
            if artist.process is not None:
                self.drawing = status("VmHWM", artist.process.pid)
            close(artist)

        DrawingProcess.close = closing  # type: ignore[method-assign]

    def _time(self, owner: Any, name: str, label: str) -> None:
        function = getattr(owner, name)

        def measured(*args: Any, **options: Any) -> Any:
            reset_peak()
            started = time.perf_counter()
            result = function(*args, **options)
            base = self._meter.base
            seconds = time.perf_counter() - started
            self.rows.append((label, status("VmHWM") - base, resident() - base, seconds))
            print("  {:28} {:6.0f} {:6.0f} {:8.1f}".format(*self.rows[-1]), flush=True)
            return result

        setattr(owner, name, measured)


def status(field: str, pid: int | str = "self") -> float:
    """A line of ``/proc/<pid>/status``, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def resident() -> float:
    return status("VmRSS")


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def trainer(callbacks: Sequence[pl.Callback], **options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def look(samples: int, layers: Sequence[str], draw: bool) -> None:
    """Two looks at a ResNet-152: the second finds the heap as the first left it."""
    module = Module(torchvision.models.resnet152(num_classes=10), learns=False)
    parameters = sum(parameter.numel() * 4 for parameter in module.parameters()) / 2**20
    finish = 60.0 if draw else 0.0
    embeddings = LayerEmbeddings(layers=layers, samples=samples, animation=False, finish_seconds=finish)
    meter = Meter()
    stages = Stages(meter)
    started = time.perf_counter()
    loader = DataLoader(Images(samples), batch_size=1)
    print(f"ResNet-152 ({parameters:.0f} MiB of weights), {samples} images of 3 x 224 x 224: {samples * 0.574:.0f} MiB")
    print(f"two looks at {len(embeddings.requirements(module).vectors)} layers, the input among them\n")
    print(f"  {'MiB beyond the model':28} {'peak':>6} {'kept':>6} {'seconds':>8}")
    trainer([meter, embeddings], limit_train_batches=1, max_epochs=1).fit(module, loader)
    peak = max(*(row[1] for row in stages.rows), status("VmHWM") - meter.base)
    print(f"\npeak {peak:.0f} MiB beyond the model, bound {BOUND} MiB: {'within' if peak <= BOUND else 'EXCEEDED'}")
    known = "" if draw else " (not waited for: --draw)"
    print(f"drawing process: peak {stages.drawing:.0f} MiB{known}; {time.perf_counter() - started:.0f} s in all")


class Leak(pl.Callback):
    """Last among the callbacks: notes what is resident as the looks go by."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.rows: list[tuple[int, float, float, int]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx % self.every:
            return
        running = session(trainer)
        assert running is not None
        running.pictures.process.drain(60.0)  # all events are to be looked at, and none waits
        running.collect()
        gc.collect()
        process = running.pictures.process.process
        self.rows.append((batch_idx, resident(), status("VmRSS", process.pid), len(running.budget.ledger)))


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10)
    )


METHODS = {
    "saliency": ["gradient", "smooth_grad", "input_times_gradient", "integrated_gradients", "lrp"],
    "rules": ["guided_backprop", "deconvolution", "guided_grad_cam"],
    "cam": ["grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam", "score_cam", "ablation_cam", "eigen_cam"],
    "occlusion": ["occlusion"],
}


def attributions(count: int) -> None:
    """One attribution after the other, every method in its turn."""
    net, x = small_net(), torch.randn(4, 1, 14, 14)
    alone = {"smooth_grad", "integrated_gradients", "score_cam", "ablation_cam", "occlusion"}
    names = [name for some in METHODS.values() for name in some]
    methods = [(getattr(attribution, name), {"progress": False} if name in alone else {}) for name in names]
    rows = []
    for index in range(count + 1):
        if index % max(1, count // 10) == 0:
            gc.collect()
            rows.append((index, resident()))
            print(f"  {index:6} attributions {rows[-1][1]:10.2f} MiB resident", flush=True)
        method, options = methods[index % len(methods)]
        method(net, x, index % 10, **options)
    half = rows[len(rows) // 2 :]
    growth = (half[-1][1] - half[0][1]) / (half[-1][0] - half[0][0]) * 1024
    print(f"\n{len(methods)} methods in turn; growth over the second half: {growth:.2f} KiB an attribution")


def leak(events: int) -> None:
    """Looks at every step of a small net, with all views."""
    net = small_net()
    data = TensorDataset(torch.randn(640, 1, 14, 14), torch.arange(640) % 10)
    often: dict[str, Any] = {"every_n_train_steps": 1, "max_overhead": float("inf")}
    views = [
        *default_views(**often),
        *(
            Saliency(method=one, noise_samples=4, integration_steps=4, sanity_check=True, **often)
            for one in METHODS["saliency"][1:] + METHODS["rules"]
        ),
        *(GradCAM(method=one, target="top:2", sanity_check=True, **often) for one in METHODS["cam"]),
        Occlusion(patch=4, stride=4, sanity_check=True, **often),
        TopSamples(**often),
        ActivationStatistics(**often),
    ]
    for view in views:
        view.animation = False  # keeps its frames, on purpose
        if isinstance(view, LayerEmbeddings):
            view.samples = 64
    notes = Leak(max(1, events // 10))
    loader = DataLoader(Repeated(data, events * 16), batch_size=16)
    validation = DataLoader(Repeated(data, 32), batch_size=16)
    run = trainer([*views, notes], max_epochs=1, val_check_interval=1, num_sanity_val_steps=0)
    run.fit(Module(net, learns=True), loader, validation)
    print(f"  {'event':>6} {'looks':>6} {'training MiB':>13} {'drawing MiB':>12}")
    for event, ours, drawing, looks in notes.rows:
        print(f"  {event:6} {looks:6} {ours:13.1f} {drawing:12.1f}")
    half = notes.rows[len(notes.rows) // 2 :]
    span = max(1, half[-1][0] - half[0][0])
    rates = [(half[-1][column] - half[0][column]) / span * 1024 for column in (1, 2)]
    print(f"\ngrowth over the second half: {rates[0]:.1f} KiB an event in training, {rates[1]:.1f} in drawing")


class Repeated(Dataset[Any]):
    """A data set as long as is asked for."""

    def __init__(self, data: TensorDataset, length: int) -> None:
        self.data, self.length = data, length
        self.targets = [index % 10 for index in range(length)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.data[index % len(self.data)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000, help="images (1000: minutes)")
    parser.add_argument("--layers", nargs="+", default=list(EVERY_BLOCK), help="names, patterns or types")
    parser.add_argument("--draw", action="store_true", help="wait for the drawings, at most two minutes")
    parser.add_argument("--leak", action="store_true", help="a long run of a small net instead")
    parser.add_argument("--events", type=int, default=200, help="of that run (200)")
    parser.add_argument("--attributions", type=int, default=0, help="so many attributions in a loop instead")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    session_module.inform = lambda message: None
    if options.attributions:
        attributions(options.attributions)
    elif options.leak:
        leak(options.events)
    else:
        look(options.samples, options.layers, options.draw)


if __name__ == "__main__":
    main()
