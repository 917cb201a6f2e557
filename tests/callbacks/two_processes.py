"""A run of two processes whose looks take long, or one of which fails: ``two_processes.py FOLDER VIEWS LOOK FAILS AT``.

It trains with a time-out of the collectives of ``TIMEOUT`` seconds, and says when each process begins and ends.
"""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from pytorch_lightning.strategies import DDPStrategy

from .conftest import ConvNet, Watch, images, loader, make_trainer


class Slow(Watch):
    """Its look takes so many seconds."""

    kind = "slow"
    seconds = 0.0

    def compute(self, model, snapshot):
        time.sleep(self.seconds)
        return {}


class Failing(ConvNet):
    """One process fails at a step."""

    rank, at = -1, 0

    def on_train_batch_start(self, batch, batch_idx):
        if self.global_rank == self.rank and self.global_step == self.at:
            print(f"rank {self.rank} fails at {time.time():.2f}", flush=True)
            raise RuntimeError("planted")

    def on_train_end(self):
        weights = self.conv1.weight.sum().item()
        print(f"rank {self.global_rank} ends after {self.global_step}: {weights:.9f}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, views, seconds, rank, timeout = Path(sys.argv[1]), sys.argv[2] == "views", *map(float, sys.argv[3:6])
    model = Failing()
    model.rank, model.at = int(rank), 3
    Slow.seconds = seconds
    strategy = DDPStrategy(timeout=timedelta(seconds=timeout), process_group_backend="gloo")
    trainer = make_trainer(
        folder, [Slow(every_n_train_steps=2)] if views else [], strategy=strategy, devices=2, max_epochs=2
    )
    try:
        trainer.fit(model, loader(*images()), loader(*images()))
    finally:
        print(f"rank {os.environ.get('LOCAL_RANK', 0)} is over at {time.time():.2f}", flush=True)
