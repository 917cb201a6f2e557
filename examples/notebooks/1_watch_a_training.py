"""
Watch a training
================

A small network learns handwritten digits while four views look at it. Three labels of the held-out digits are wrong on
purpose; one of the pages finds them. What you see here is in TensorBoard, too, step by step.
"""

# %%
# The data are those that scikit-learn ships. Of the 397 held out, three get a wrong label.
import tempfile
from pathlib import Path

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

pl.seed_everything(0)
pixels, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
order = torch.randperm(len(labels))
images, labels = pixels.float().view(-1, 1, 8, 8)[order] / 16, labels[order]
train, held_out = (TensorDataset(images[part], labels[part]) for part in (slice(1400), slice(1400, None)))
planted = [100, 200, 300]
held_out.tensors[1][planted] = (held_out.tensors[1][planted] + 1) % 10


# %%
# The model is any LightningModule; nothing in it knows of the views.
class Net(pl.LightningModule):
    """Two convolutions and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32 * 4 * 4, 10)

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x).relu(), 2)
        return self.head(self.conv2(x).relu().flatten(1))

    def training_step(self, batch):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch):
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)


# %%
# ``default_views()`` has all that suit the model. Here are four of them, each looking before the first update, after
# every fourth epoch, and at the end. ``keep_parts=True`` keeps the values of each page beside the log.
from lightning_viz import GradCAM, Health, LayerEmbeddings, Mistakes

when = {"every_n_epochs": 4, "keep_parts": True}
views = [Health(**when), Mistakes(**when), GradCAM(**when), LayerEmbeddings(probe=300, **when)]
views[1]

# %%
# Training is bit for bit what it would be without them.
folder = Path(tempfile.mkdtemp())
trainer = pl.Trainer(
    max_epochs=12,
    logger=pl.loggers.TensorBoardLogger(folder, name="digits", version=""),
    callbacks=views,
    enable_progress_bar=False,
    enable_model_summary=False,
    enable_checkpointing=False,
)
trainer.fit(Net(), DataLoader(train, 64, shuffle=True), DataLoader(held_out, 256))
print(f"accuracy: {trainer.callback_metrics['accuracy']:.1%}")

# %%
# Is it healthy? Each row is a layer, each bar a step; red would be what is beyond doubt wrong.
from lightning_viz.render import read_page


def page(tag, look=-1):
    """The page of a tag at one of the looks; the last one if none is named."""
    return read_page(sorted((folder / "digits" / "lightning_viz_parts" / tag).glob("*.npz"))[look])


page("health")

# %%
# What does it get wrong? The samples with the largest loss come first. Of the first three it is not the network that is
# wrong: they are those that were planted.
page("mistakes/worst")

# %%
# Where does it look? Before the first update ...
page("grad_cam/conv2", look=0)

# %%
# ... and at the end: the same samples, on a scale of the page's own.
page("grad_cam/conv2")

# %%
# How do the classes come apart, from layer to layer?
page("embedding/every_layer")

# %%
# The same for a program: ``lightning-viz digest`` prints it as JSON.
from lightning_viz.analysis import digest

worst = [sample["index"] for sample in digest(folder / "digits")["mistakes"][0]["worst"]]
print("largest loss:", worst)

# sphinx_gallery_thumbnail_path = "pictures/mistakes_ill.png"
