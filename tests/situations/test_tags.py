"""Kind 9: pictures that do not overwrite one another, and looks that are left out and said."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F

from lightning_viz import ActivationMaps, FirstLayerFilters, GradCAM, Saliency

from .brought import Classifier, Quarters, pictures, rows
from .situation import Training, situation, situations

images, labels = pictures()


def tags_of_their_own(*views):
    """Each view draws under tags of its own, and each picture is a file."""

    def check(seen):
        by_view: dict[str, set[str]] = {}
        for drawing in seen.drawings:
            by_view.setdefault(drawing.view, set()).add(drawing.tag)
        assert len(by_view) == len(views)
        every = [tag for tags in by_view.values() for tag in tags]
        assert len(every) == len(set(every)), sorted(every)
        files = {path.parent for path in seen.folder.rglob("*.png")}
        assert len(files) == len(every), sorted(map(str, files))

    return Training(Classifier(), rows(images, labels), views=list(views), draws=()), check


@situation(
    9,
    "three Grad-CAMs on one layer: of the label, the prediction, class 1",
)
def three_targets():
    return tags_of_their_own(GradCAM(target="label"), GradCAM(target="predicted"), GradCAM(target=1))


@situation(
    9,
    "two saliency maps: of the label and of class 2",
)
def two_saliency_maps():
    return tags_of_their_own(Saliency(), Saliency(target=2))


@situation(
    9,
    "activation maps of one layer: of channels at random and of channel 2",
)
def two_choices_of_channels():
    return tags_of_their_own(ActivationMaps(layers=["net.conv"]), ActivationMaps(layers=["net.conv"], channels=[2]))


@situation(
    9,
    "two Grad-CAMs, of several classes each",
)
def lists_of_classes():
    return tags_of_their_own(GradCAM(target=[0, 1]), GradCAM(target=[2, 3]))


@situation(
    9,
    "layers whose names differ in a character that files do not have: no file overwrites another",
)
def names_alike_as_files():
    class Net(nn.Module):
        """A ReLU that is called twice, `act:0` and `act:1`, beside modules called `act_0` and `act_1`."""

        def __init__(self):
            super().__init__()
            self.quarters, self.act = Quarters(), nn.ReLU()
            self.act_0, self.act_1 = nn.ReLU(), nn.ReLU()

        def forward(self, images):
            return self.quarters(self.act_1(self.act_0(self.act(self.act(images)))))

    def check(seen):
        tags = {drawing.tag for drawing in seen.drawings}
        assert len(tags) == 4
        assert len({path.parent for path in seen.folder.rglob("*.png")}) == 4

    views = [ActivationMaps(layers=["net.act", "net.act_0", "net.act_1"], steps=[0])]
    return Training(Classifier(Net()), rows(images, labels), views=views, draws=("activations",)), check


@situation(9, "two runs in one folder: the second does not overwrite the first")
def two_runs():
    def start(trainer):
        options = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
        again = pl.Trainer(
            callbacks=[FirstLayerFilters()],
            default_root_dir=trainer.default_root_dir,
            enable_checkpointing=False,
            enable_model_summary=False,
            **options,
        )
        for one in (trainer, again):
            one.fit(Classifier(), rows(images, labels), rows(images, labels))

    def check(seen):
        assert len({path.parents[2] for path in seen.folder.rglob("*.png")}) == 2

    return Training(None, None, views=[FirstLayerFilters()], start=start, draws=("filters",), draws_all=True), check


@situation(9, "an animation after a resume holds the steps of both runs")
def animation_after_resume():
    def start(trainer):
        folder = Path(trainer.default_root_dir)
        for view, epochs, path in ((trainer, 1, None), (None, 2, folder / "saved.ckpt")):
            run = view or pl.Trainer(
                callbacks=[FirstLayerFilters(animation=True, every_n_train_steps=1)],
                default_root_dir=folder,
                max_epochs=epochs,
                accelerator="cpu",
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                enable_checkpointing=False,
            )
            run.fit(
                Classifier(),
                *(rows(images, labels) for _ in range(2)),
                ckpt_path=path,
                weights_only=False if path else None,
            )
            if path is None:
                run.save_checkpoint(folder / "saved.ckpt")

    def check(seen):
        (*_, last) = [drawing for drawing in seen.drawings if drawing.tag.endswith("/animation")]
        steps = [step for step, _ in last.arguments["frames"]]
        assert steps == [0, 1, 2, 3, 4], steps

    views = [FirstLayerFilters(animation=True, every_n_train_steps=1)]
    return Training(None, None, views=views, start=start, draws=("filters",), draws_all=True), check


@situation(
    9,
    "looks that were asked for and are left out because drawing is behind: said once, and the count at the end",
    says=r"\b3 looks\b",
)
def looks_left_out():
    def check(seen):
        assert {drawing.step for drawing in seen.of("filters")} == {0, 4}
        lines = [
            line for line in seen.said("looks|left out|behind") if "FirstLayerFilters" in line
        ]  # not the harness's
        assert len(lines) == 2, lines

    views = [FirstLayerFilters(steps=[0, 1, 2, 3, 4])]
    loader = rows(images, labels, batch_size=4)
    return Training(Classifier(), loader, views=views, draws=("filters",), slow=True), check


@situation(9, "a channel's picture at two steps is of the same channel and samples")
def same_from_step_to_step():
    class Model(Classifier):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def check(seen):
        first, last = (drawing.arguments for drawing in seen.of("activations/net.conv"))
        assert first["channels"] == last["channels"]
        assert (first["images"] == last["images"]).all()
        assert not torch.equal(torch.as_tensor(first["maps"]), torch.as_tensor(last["maps"]))

    net = nn.Sequential()
    net.conv = nn.Conv2d(3, 12, 3)
    net.forward = lambda images: F.relu(net.conv(images)).mean((2, 3))[:, :4]
    return Training(Model(net), rows(images, labels), views=[ActivationMaps()], draws=("activations",)), check


@pytest.mark.parametrize("row", situations(__name__))
def test_tags(row, tmp_path: Path):
    row.verify(tmp_path)
