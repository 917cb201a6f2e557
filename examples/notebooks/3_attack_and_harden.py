"""
Attack and harden
=================

How little must change for a network to be wrong, how this is measured, and what adversarial training does about it. All
epsilons are in pixels of 0 to 1, whatever the model's normalization.
"""

# %%
# Two networks learn scikit-learn's digits: one as usual, the other with a half of every batch moved against it.
import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import AdversarialTraining, PixelSpace

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

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 3e-3)


def trained(*callbacks):
    """A network after twelve epochs."""
    torch.manual_seed(0)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    model = Net()
    pl.Trainer(max_epochs=12, callbacks=[*callbacks], **quiet).fit(model, DataLoader(train, 64, shuffle=True))
    return model.eval()


space = PixelSpace()  # these inputs are pixels already
usual = trained()
hardened = trained(AdversarialTraining(epsilon=0.15, steps=3, pixel_space=space))

# %%
# The usual attack: PGD within an epsilon. Above the samples, below their adversarial examples.
from lightning_viz.adversarial import fgsm_terms, pgd

samples, truth = (part[:64] for part in held_out.tensors)
pgd(usual, samples, truth, epsilon=0.15, pixel_space=space)

# %%
# The same attack on the hardened network.
pgd(hardened, samples, truth, epsilon=0.15, pixel_space=space)

# %%
# What FGSM adds is the sign of the gradient: this is what the network sees, and what it says of the signs alone.
fgsm_terms(usual, samples[:8], truth[:8], epsilon=0.15, pixel_space=space)

# %%
# How far does it hold? Accuracy for each epsilon; the dashed line is the epsilon of the training. Both curves end near
# zero, as they must: an attack that never succeeds is one that does not work.
from functools import partial

from lightning_viz.render import epsilon_curves
from lightning_viz.robustness import epsilon_curve

epsilons = [0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5]
curves = {
    name: epsilon_curve(model, samples, truth, epsilons, attack=partial(pgd, steps=10, pixel_space=space))
    for name, model in {"usual": usual, "hardened": hardened}.items()
}
lines = {name: (curve.epsilons.numpy(), curve.accuracy.numpy()) for name, curve in curves.items()}
epsilon_curves("robustness", lines, norm="L-inf", trained=0.15)

# %%
# Is the hardened network hard, or does it only hide its gradient? Square asks for no gradient. It should fool fewer
# samples than PGD; if it fooled more, PGD's figure would be worth nothing.
from lightning_viz.adversarial import square

square(hardened, samples, truth, epsilon=0.15, queries=300, pixel_space=space)

# %%
# Random directions of the same length do next to nothing, for either of them: robustness against noise says little.
from lightning_viz.robustness import random_directions

length = pgd(usual, samples, truth, epsilon=0.15, pixel_space=space, stop_on_success=False).record.l2[-1]
random_directions(usual, samples, length, labels=truth, samples=50, pixel_space=space)

# sphinx_gallery_thumbnail_path = "pictures/adversarial_ill.png"
