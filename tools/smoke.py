"""The shortest whole use of an installed package: train on the digits with the default views, count the pictures."""

import sys

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import default_views


class Net(pl.LightningModule):
    """One convolution and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8 * 6 * 6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``[N, 10]`` of images ``[N, 1, 8, 8]``."""
        return self.head(self.conv(x).relu().flatten(1))

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        """Log the cross-entropy."""
        self.log("loss", self.training_step(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 1e-2)


def main(folder: str) -> None:
    """Train for two epochs, and fail unless pictures of several kinds are in the log.

    Args:
        folder: for the log.
    """
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels))
    logger = pl.loggers.TensorBoardLogger(folder)
    trainer = pl.Trainer(max_epochs=2, logger=logger, callbacks=default_views(), enable_checkpointing=False)
    trainer.fit(Net(), DataLoader(data, 64), DataLoader(data, 64))

    log = EventAccumulator(logger.log_dir, size_guidance={"tensors": 0}).Reload()
    groups = sorted({tag.rpartition("/")[0] for tag in log.Tags()["tensors"]})
    print(f"{sum(len(log.Tensors(tag)) for tag in log.Tags()['tensors'])} pictures and texts in {', '.join(groups)}")
    if not {"1_overview", "1_overview/3_grad_cam", "1_overview/5_saliency", "embedding"} <= set(groups):
        raise SystemExit("pictures are missing")


if __name__ == "__main__":
    main(sys.argv[1])
