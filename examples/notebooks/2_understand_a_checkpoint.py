"""
Understand a checkpoint
=======================

A trained network is asked where it looks, whether that depends on what it has learned, and what it wants to see.
Each question is one function; a report asks them all.
"""

# %%
# A checkpoint to understand: a network that was trained on scikit-learn's digits for some seconds.
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


quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = pl.Trainer(max_epochs=12, enable_checkpointing=False, **quiet)
trainer.fit(Net(), DataLoader(train, 64, shuffle=True), DataLoader(held_out, 256))
folder = Path(tempfile.mkdtemp())
trainer.save_checkpoint(folder / "last.ckpt")
model = Net.load_from_checkpoint(folder / "last.ckpt").eval()
samples, truth = (part[:8] for part in held_out.tensors)
print(f"accuracy: {trainer.callback_metrics['accuracy']:.1%}")

# %%
# One guarded pass gives activations and gradients, and leaves the model exactly as it was.
from lightning_viz import observe

observe(model, samples, truth, layers=["conv1", "conv2"], gradients=True)

# %%
# Where is the evidence for the class? Seen from the last convolution, by Grad-CAM ...
from lightning_viz.attribution import grad_cam, lrp, occlusion
from lightning_viz.render import attribution_maps, to_rgb

shown = {"images": to_rgb(samples.numpy()), "target": "the label"}
heat = grad_cam(model, samples, truth, layers="conv2")["conv2"]
attribution_maps(
    "grad_cam", maps=heat.numpy(), method="Grad-CAM", layer="conv2", display="heat", unit="logits", **shown
)

# %%
# ... and pixel by pixel, by relevance propagation: red speaks for the class, blue against it.
relevance = lrp(model, samples, truth)
attribution_maps("lrp", maps=relevance.numpy(), method="LRP", display="signed", unit="logits", **shown)

# %%
# What happens if a patch is covered?
occlusion(model, samples, truth, patch=3, stride=1)

# %%
# Do these maps show what the network has learned? With random weights they must become others: a rank correlation near
# 1 would say that they show the image alone.
from lightning_viz.attribution.evaluation import model_randomization

model_randomization(grad_cam, model, samples, truth)

# %%
# What does it want to see? Images that maximize each class's logit, with a prior that keeps them smooth.
from lightning_viz.dream import edge_energy, maximize

maximize(model, list(range(10)), image=(1, 8, 8), bounded=True, priors={edge_energy: 0.3}, steps=100)

# %%
# Everything that suits the model, in one report, is ``lightning-viz analyze last.ckpt --model net.Net``, or the call
# below; here only two views and a technique of all that there are.
from lightning_viz.analysis import analyze


class Digits(pl.LightningDataModule):
    """The held-out digits."""

    def val_dataloader(self):
        return DataLoader(held_out, 256)


analyze(
    folder / "last.ckpt",
    model=Net,
    data=Digits(),
    out=folder / "analysis",
    views=["filters", "mistakes"],
    techniques=["attacks"],
    samples=32,
    trainer={"accelerator": "cpu"},
)

# sphinx_gallery_thumbnail_path = "pictures/grad_cam_healthy.png"
