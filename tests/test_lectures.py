"""The lectures' figures with VGG19, whose weights cannot be had here: the calls fit its layers, and run."""

import json
import re
import sys

import pytest
import torch
from torch import nn
from torchvision.models import VGG19_Weights
from torchvision.models.vgg import cfgs, make_layers

from examples import lectures
from lightning_viz import View
from lightning_viz.analysis.models import Pretrained

OF_PHOTOS = {
    number: figure
    for number, figure in lectures.FIGURES.items()
    if isinstance(figure.call, View) or "PHOTOS" in figure.call
}


class Narrow(nn.Module):
    """VGG19 with a sixteenth of its channels, and the names of its layers."""

    def __init__(self):
        super().__init__()
        self.features = make_layers([width if width == "M" else width // 16 for width in cfgs["E"]])
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(nn.Linear(32 * 49, 16), nn.ReLU(), nn.Linear(16, 1000))

    def forward(self, images):
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


@pytest.mark.parametrize("number", OF_PHOTOS)
def test_every_call_names_layers_and_classes_that_vgg19_has(number):
    call = OF_PHOTOS[number].call
    source = lectures.Source(["--torchvision", "vgg19"], Narrow, list, None, lectures.VGG19)
    words = lectures.translated(call.layers, source.names) if isinstance(call, View) else None
    words = words or lectures.words(call, {"PHOTOS": source})
    layers, classes = dict(Narrow().named_modules()), VGG19_Weights.DEFAULT.meta["categories"]
    for word in words:
        for name in re.findall(r"features\.\d+", word):
            assert name in layers and [name] in lectures.VGG19.values()
        assert not word.startswith("class:") or classes.count(word.removeprefix("class:")) == 1
    assert not {"class:china", "class:flower"}.intersection(words)


@pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers", "ignore:.isinstance.treespec")
def test_figures_are_drawn_of_a_network_of_torchvision(monkeypatch, tmp_path):
    torch.manual_seed(0)
    monkeypatch.setattr(Pretrained, "load", lambda self, seed=0: Narrow().eval())
    monkeypatch.setattr(lectures, "trained", lambda *given: None)  # the other networks are not asked for
    numbers = ["3, 4", "7", "17"]
    arguments = ["--only", *numbers, "--out", str(tmp_path / "out"), "--document", str(tmp_path / "docs")]
    monkeypatch.setattr(sys, "argv", ["lectures.py", "--pretrained", *arguments])
    lectures.main()
    page = (tmp_path / "docs" / "lectures.md").read_text()
    assert page.count("\n## ") == 3 and "Trainer(callbacks=[ActivationMaps(" in page
    assert len(list((tmp_path / "docs" / "lectures").glob("*.png"))) == 3
    (numbers,) = (tmp_path / "out").rglob("*grad_cam*/numbers.json")
    assert "class:lakeside" in json.loads(numbers.read_text())["options"]["target"]
    assert list((tmp_path / "out").rglob("activations/features.34/7/*.png"))
