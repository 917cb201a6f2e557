"""A training on two processes, judged by two views or watched by none.

As a program, ``python -m tests.callbacks.judged_run FOLDER`` trains with `Health` and `Mistakes` and then without; what
the views drew, and the weights that each process ends with, are in the folder.
"""

import pickle
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.nn import functional as F

from lightning_viz import Health, Mistakes
from lightning_viz.callbacks import picture_log

from .conftest import Net, images, loader, make_trainer
from .watched_run import keeps

VALIDATION = 41  # samples: 42 pass on two processes, one of them twice


class Judged(Net):
    """A classifier that a look could disturb: dropout, running statistics."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.3)
        self.fc, self.head = nn.Linear(54, 12), nn.Linear(12, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return self.head(self.drop(F.relu(self.fc(x.flatten(1)))))


def run(folder, views):
    """Train; each process leaves its weights, and the first what was drawn."""
    drawn = []
    strategy = DDPStrategy(process_group_backend="gloo")
    trainer = make_trainer(folder, views, devices=2, max_epochs=2, strategy=strategy)
    with patch.object(picture_log, "DrawingProcess", keeps(drawn)):
        model = Judged()
        trainer.fit(model, loader(*images(24), shuffle=True), loader(*images(VALIDATION), batch_size=8))
    torch.save({**model.state_dict(), "random": torch.get_rng_state()}, folder / f"{trainer.global_rank}.pt")
    if trainer.is_global_zero:
        (folder / "drawn").write_bytes(pickle.dumps(drawn))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, views in (("with", [Health(), Mistakes()]), ("without", [])):
        own = Path(sys.argv[1]) / name
        own.mkdir(exist_ok=True)
        run(own, views)
