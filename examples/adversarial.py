"""Adversarial attacks and robustness of two networks on digits: pictures, as PNG and in TensorBoard.

Trains two networks on scikit-learn's digits, one plainly and one with adversarial training, with the view `Adversarial`
in both runs; then attacks both.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

from lightning_viz import Adversarial, AdversarialTraining, Probe
from lightning_viz.adversarial import (
    L2,
    LINF,
    AttackResult,
    auto_attack,
    deepfool,
    fab,
    fgsm,
    gradient_ascent,
    one_pixel,
    pgd,
)
from lightning_viz.callbacks.writers import FolderWriter, TensorBoardWriter
from lightning_viz.render.attacks import pixel_gallery, record_table, twins
from lightning_viz.render.page import Page, lay_out
from lightning_viz.render.robustness import (
    accuracy_bars,
    corruption_sheet,
    corruption_table,
    defense_bars,
    epsilon_curves,
    sphere_plot,
)
from lightning_viz.render.text import percent
from lightning_viz.render.tiles import Verdict, to_rgb
from lightning_viz.robustness import (
    all_corruptions,
    compare_corruption_error,
    defenses,
    epsilon_curve,
    random_directions,
)

EPSILON = 0.1  # in pixels: 26 gray levels of 255
SIDE = 16  # pixels of the digits, enlarged from 8: most studies; few pixels are changed of 8 x 8


class Net(pl.LightningModule):
    """Three convolutions."""

    def __init__(self, side):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(side**2 * 4, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-3)


@dataclass
class Subject:
    """A network trained plainly, one hardened, and samples that neither was trained on."""

    plain: nn.Module
    hardened: nn.Module
    images: Tensor
    labels: Tensor

    def some(self, count: int) -> tuple[Tensor, Tensor]:
        """A few of each class that the plain network has right."""
        right = self.plain(self.images).argmax(1) == self.labels
        rows = [((self.labels == one) & right).nonzero().flatten() for one in range(10)]
        chosen = torch.stack([row[: -(-count // 10)] for row in rows]).T.flatten()[:count]
        return self.images[chosen], self.labels[chosen]


def digits(side: int) -> tuple[TensorDataset, TensorDataset]:
    """Those to train on, and those not."""
    data = load_digits()
    ink = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    images, labels = F.interpolate(ink, (side, side), mode="bilinear"), torch.tensor(data.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = (TensorDataset(images[part], labels[part]) for part in (order[:1200], order[1200:]))
    return train, test


def trained(out: Path, name: str, epochs: int, *, side: int = SIDE, defense: Sequence[pl.Callback] = ()) -> nn.Module:
    """A network, trained on the same samples in the same order whatever its name."""
    pl.seed_everything(0)
    train, test = digits(side)
    view = Adversarial(every_n_epochs=2, probe=Probe(inputs=test[:8][0], labels=test[:8][1]))
    logger = TensorBoardLogger(out, name=name, version="")
    trainer = pl.Trainer(max_epochs=epochs, logger=logger, callbacks=[*defense, view], enable_model_summary=False)
    net = Net(side)
    trainer.fit(net, DataLoader(train, batch_size=32, shuffle=True), DataLoader(test, batch_size=200))
    return net.eval()


def verdicts(labels: Tensor, classes: Tensor, confidences: Tensor) -> list[Verdict]:
    said = zip(labels.tolist(), classes.tolist(), confidences.tolist(), strict=True)
    return [Verdict(str(label), str(one), confidence) for label, one, confidence in said]


def shown(attacked: AttackResult) -> dict[str, object]:
    """What a page of twins is made of."""
    record = attacked.record
    return {
        "images": to_rgb(attacked.original.numpy()),
        "twins": to_rgb(attacked.pixels.numpy()),
        "differences": attacked.perturbations.numpy(),
        "before": verdicts(attacked.labels, record.classes[0], record.confidences[0]),
        "after": verdicts(attacked.labels, record.classes[-1], record.confidences[-1]),
        "norms": [f"{percent(one, 1)} %" for one in record.relative[-1].tolist()],
        "norm": "its L2 norm, of the image's",
    }


def ascended(subject: Subject) -> tuple[AttackResult, AttackResult]:
    """Plain gradient ascent, and its continuation in steps of length 0.1 until every sample is fooled."""
    images, labels = subject.some(100)
    first = gradient_ascent(subject.plain, images, labels)
    on = gradient_ascent(subject.plain, images, labels, start=first.inputs, normalize=L2, steps=500)
    return first, on


def record(subject: Subject) -> Iterator[Page]:
    """Gradient ascent, step by step."""
    first, on = ascended(subject)
    print(f"  15 plain steps fool {first.success:.0%}; {len(on.record.classes) - 2} more steps fool {on.success:.0%},")
    print(f"  by {on.record.relative[-1].median():.1%} of the image's norm in the median")
    yield twins("attacks/ascent", **shown(first), attack="15 steps of gradient ascent")
    yield twins("attacks/ascent_normalized", **shown(on), attack="ascent in steps of length 0.1")
    yield record_table(
        "attacks/record",
        to_rgb(on.original.numpy()),
        *(part.numpy() for part in (on.record.classes[1:], on.record.confidences[1:], on.labels)),
        relative=on.record.relative[1:].numpy(),
        attack="gradient ascent, step 0 after 15 plain steps, then of length 0.1",
    )


def directions(subject: Subject) -> Iterator[Page]:
    """Random directions, twice as long as the attack's perturbation."""
    _, on = ascended(subject)
    radii = 2 * on.record.l2[-1]
    around = random_directions(subject.plain, on.pixel_space.to_inputs(on.original), radii)
    print(f"  of 1,000 random directions twice as long {around.changed.mean():.2%} change the class")
    yield sphere_plot("attacks/sphere", around.changed.numpy(), radii=radii.numpy(), samples=1000)


def attacks(subject: Subject) -> Iterator[Page]:
    """The same samples under each attack."""
    images, labels = subject.some(8)
    found = {
        f"FGSM, ε {EPSILON}": fgsm(subject.plain, images, labels, epsilon=EPSILON),
        f"PGD, ε {EPSILON}": pgd(subject.plain, images, labels, epsilon=EPSILON, steps=20),
        "DeepFool, L2": deepfool(subject.plain, images, labels),
        "DeepFool, L-inf": deepfool(subject.plain, images, labels, norm=LINF),
        "FAB, L2": fab(subject.plain, images, labels, norm=L2, steps=20),
        "FAB, L-inf": fab(subject.plain, images, labels, steps=20),
    }
    for norm in ("L2", "L-inf"):
        lengths = {
            name: (attacked.record.l2 if norm == "L2" else attacked.record.linf)[-1].median()
            for name, attacked in found.items()
            if name.endswith(f", {norm}")
        }
        print("  median " + ", ".join(f"{name} {length:.3f}" for name, length in lengths.items()))
    for name, attacked in found.items():
        tag = name.partition(",")[0].lower() + name.rpartition(" ")[2].lower().replace("-", "")
        yield twins(f"attacks/{tag}", **shown(attacked), attack=name)


def curves(subject: Subject) -> Iterator[Page]:
    """Accuracy against epsilon, of both networks."""
    epsilons = np.linspace(0, 0.3, 13).round(3).tolist()
    attack = partial(pgd, steps=20, progress=False)
    found = {
        name: epsilon_curve(net, subject.images, subject.labels, epsilons, attack=attack)
        for name, net in (("plain", subject.plain), ("hardened", subject.hardened))
    }
    for name, curve in found.items():
        at = epsilons.index(EPSILON)
        print(f"  {name}: {curve.accuracy[0]:.1%} right, {curve.accuracy[at]:.1%} under PGD at {EPSILON}")
    lines = {name: (curve.epsilons.numpy(), curve.accuracy.numpy()) for name, curve in found.items()}
    details = [f"PGD, 20 steps, on {len(subject.labels)} samples", "hardened: trained against it"]
    yield epsilon_curves("robustness/epsilon", lines, norm="L-inf", trained=EPSILON, details=details)


def ensemble(subject: Subject) -> Iterator[Page]:
    """Robust accuracy: what AutoAttack leaves of both networks' accuracy, on a few samples and with fewer steps."""
    images, labels, nets = (
        subject.images[:24],
        subject.labels[:24],
        {"plain": subject.plain, "hardened": subject.hardened},
    )
    found = {
        name: auto_attack(net, images, labels, epsilon=EPSILON, steps=20, queries=500, progress=False)
        for name, net in nets.items()
    }
    for name, attacked in found.items():
        fell = ", ".join(f"{int(count)} to {part}" for part, count in attacked.fooled_by.items())
        print(f"  {name}: robust accuracy {attacked.accuracy:.1%} on {len(labels)} samples; of them fell {fell}")
    yield accuracy_bars(
        "robustness/robust_accuracy",
        list(found),
        [1 - float(attacked.initially_misclassified.float().mean()) for attacked in found.values()],
        [float(attacked.accuracy) for attacked in found.values()],
        attack=f"AutoAttack, ε {EPSILON}",
        details=[f"{len(labels)} samples", "20 steps and 500 queries, a fifth and a tenth of the standard's"],
    )


def helped(subject: Subject) -> Iterator[Page]:
    """Accuracy if the input is filtered first, and the attack does not know of it."""
    attacked = pgd(subject.plain, subject.images, subject.labels, epsilon=EPSILON, steps=20)
    found = defenses(subject.plain, attacked)
    clean, twin = found.clean.numpy(), found.attacked.numpy()
    yield defense_bars("robustness/defenses", found.names, clean, twin, attack=f"PGD, ε {EPSILON}")


def pixels(subject: Subject) -> Iterator[Page]:
    """One, three and five pixels changed, at the paper's settings; of the digits as they are."""
    images, labels = subject.some(30)
    found = {count: one_pixel(subject.plain, images, labels, pixels=count) for count in (1, 3, 5)}
    shares = {f"{count} pixel" + "s" * (count > 1): attacked.success for count, attacked in found.items()}
    print("  fooled by " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()))
    turned = found[5].fooled.float() + found[3].fooled.float() + found[1].fooled.float()
    best = turned.argsort(descending=True, stable=True)[:8]  # those that most of them turn
    pages = [shown(attacked) for attacked in found.values()]
    yield pixel_gallery(
        "attacks/pixels",
        pages[0]["images"][best],
        np.stack([page["twins"][best] for page in pages]),
        rows=list(shares),
        before=[pages[0]["before"][one] for one in best],
        after=[[page["after"][one] for one in best] for page in pages],
        details=[f"of {len(labels)} samples " + ", ".join(f"{share:.0%}" for share in shares.values()) + " turned"],
    )


def corrupted(subject: Subject) -> Iterator[Page]:
    """Errors under noise, blur, weather and digital corruptions, of both networks."""
    nets = {"plain": subject.plain, "hardened": subject.hardened}
    errors = compare_corruption_error(nets, (subject.images, subject.labels), reference="plain")
    plain, ratios = errors["plain"], {name: error.ce.tolist() for name, error in errors.items()}
    print(f"  mCE of the hardened network, the plain one's being 1: {errors['hardened'].mce:.2f}")
    yield corruption_table(
        "robustness/corruptions",
        plain.errors.numpy(),
        kinds=plain.kinds,
        severities=plain.severities,
        clean=plain.clean,
        name="plain",
        ratios=ratios,
        reference="plain",
    )
    image = subject.images[:1]
    hurt = torch.stack([one.inputs[0] for one in all_corruptions(image)]).numpy()
    rows = to_rgb(hurt).reshape(len(plain.kinds), len(plain.severities), SIDE, SIDE, 3)
    clean = to_rgb(image.numpy())[0]
    yield corruption_sheet("robustness/corrupted", clean, rows, kinds=plain.kinds, severities=plain.severities)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/adversarial", help="folder for the pictures and TensorBoard's files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=list(STUDIES), choices=list(STUDIES), help="which studies")
    options = parser.parse_args()
    out = Path(options.out)
    test = digits(SIDE)[1].tensors
    plain = trained(out, "plain", options.epochs)
    hardened = trained(out, "hardened", options.epochs, defense=[AdversarialTraining(epsilon=EPSILON, share=1.0)])
    subject = Subject(plain, hardened, *test)
    small = trained(out, "small", options.epochs, side=8)
    native = Subject(small, small, *digits(8)[1].tensors)
    with SummaryWriter(str(out / "study")) as writer:
        writers = [FolderWriter(out / "study"), TensorBoardWriter(writer)]
        for name in options.only:
            print(f"{name}:")
            for picture in STUDIES[name](native if name == "pixels" else subject):
                for writer in writers:
                    writer.picture(lay_out(picture), 0)
    print(f"The pictures are in {out}. Look at them with:\n\n    tensorboard --logdir {out}\n")


STUDIES = {
    "record": record,
    "directions": directions,
    "attacks": attacks,
    "curves": curves,
    "ensemble": ensemble,
    "helped": helped,
    "pixels": pixels,
    "corrupted": corrupted,
}

if __name__ == "__main__":
    main()
