"""A run whose validation two views watch, on one process or several, with a fault planted on the second or without.

As a program, ``python -m tests.callbacks.watched_run FOLDER PROCESSES SCENARIO ...`` runs one scenario after the other,
so that the processes start once; what the run of scenario ``n`` says and draws is in ``FOLDER/n``.
"""

import os
import pickle
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch

from lightning_viz import ActivationStatistics, TopSamples
from lightning_viz.callbacks import picture_log, population, top_samples
from lightning_viz.callbacks.drawing import DrawingProcess

from .conftest import ConvNet, images, loader, make_trainer


class Still(ConvNet):
    """Keeps the same weights, however many processes train them."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def on_train_end(self):
        print(f"rank {self.trainer.global_rank} ends after {self.trainer.global_step}", flush=True)


def keeps(sketches):
    """An artist that keeps each sketch's step and arguments in a list."""

    class Keeps(DrawingProcess):
        def submit(self, owner, step, sketch):
            sketches.append((step, dict(sketch.arguments)))

    return Keeps


def fails_on_the_second(self, *args, read=top_samples.TopSamples.read):
    trainer = getattr(self, "trainer", None) or self._trainer()
    if trainer.global_rank == 1:
        raise RuntimeError("planted on the second")
    return read(self, *args)


def nothing_from_the_second(*args, share=population.share_of):
    return 1 / 0 if torch.distributed.get_rank() == 1 else share(*args)


def unpicklable_from_the_second(*args, share=population.share_of):
    return (lambda: 0) if torch.distributed.get_rank() == 1 else share(*args)


SCENARIOS = {
    "nothing fails": nullcontext,
    "a view fails on the second": lambda: patch.object(top_samples.TopSamples, "read", fails_on_the_second),
    "the second has nothing to give": lambda: patch.object(population, "share_of", nothing_from_the_second),
    "the second cannot pickle its share": lambda: patch.object(population, "share_of", unpicklable_from_the_second),
}


def run(folder, processes, scenario="nothing fails"):
    """The trainer when the run has ended; the first process leaves what was drawn in the folder's ``sketches``."""
    sketches = []
    views = [TopSamples(layers=["conv1", "conv2"], channels="first"), ActivationStatistics(layers="conv2")]
    options = {"strategy": "ddp"} if processes > 1 else {}
    trainer = make_trainer(folder, views, devices=processes, max_epochs=2, **options)
    with patch.object(picture_log, "DrawingProcess", keeps(sketches)), SCENARIOS[scenario]():
        trainer.fit(Still(), loader(*images(24)), loader(*images(41), batch_size=8))
    if trainer.is_global_zero:
        (folder / "sketches").write_bytes(pickle.dumps(sketches))
    return trainer


def write_into(folder):
    """From now on this process, as the others, says what it says into the folder's ``stdout`` and ``stderr``."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        file = os.open(folder / ("stdout", "stderr")[number - 1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("always")  # in every scenario again
    for place, name in enumerate(sys.argv[3:]):
        own = Path(sys.argv[1]) / str(place)
        own.mkdir(exist_ok=True)
        write_into(own)
        run(own, int(sys.argv[2]), name)
