"""Models are compared on the same samples, with the same pictures, and measured against the first."""

import importlib
import json
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import PixelSpace
from lightning_viz.analysis.compare import compare, together
from lightning_viz.analysis.results import ModelReport, Output, Result
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.analysis.studies.shape_bias import biases, read_conflicts
from lightning_viz.errors import AnalysisError, MalformedFileError
from lightning_viz.robustness import shape_bias
from tests.analysis.fakes import fakes
from tests.callbacks.conftest import images

analyzing = importlib.import_module("lightning_viz.analysis.parts")


class ClassSpec(TensorDataset):
    classes = ("cat", "dog", "elephant")


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def study(subject):
    corruption = {"noise": [0.1 + 0.1 * subject.seed, 0.5], "fog": [0.2, 0.2]}
    numbers = {"severities": [1, 5], "clean": 0.05, "errors": corruption, "count": 9}
    yield Output("corruptions", numbers=numbers)
    yield Output("epsilon", numbers={"epsilons": [0.0, 0.1], "accuracy": [0.9, 0.1 * subject.seed]})
    flips = [[0.1 * subject.seed, 0.2], [0.0, 0.4]] if subject.seed == 1 else [[0.4, 0.2, 0.9], [0.0, 0.2, 0.9]]
    stability = {"kinds": ["tilt", "snow"], "flips": flips, "distances": None}
    yield Output("perturbation_stability", numbers=stability)
    robust = {"clean": 0.9, "robust": 0.1 * subject.seed, "samples": 4, "attack": "AutoAttack, ε 8/255"}
    yield Output("robust_accuracy", numbers=robust)
    yield Output("samples", numbers={"sums": subject.images.flatten(1).sum(1)})


CHEAP = fakes(measures=study, biases=biases)


@pytest.fixture
def conflicts(tmp_path):
    """Six images, each named for its shape and its texture."""
    generator = np.random.default_rng(0)
    for number, (shape, texture) in enumerate(
        [("cat", "dog"), ("dog", "cat"), ("elephant", "dog"), ("cat", "elephant"), ("dog", "elephant"), ("cat", "cat")]
    ):
        folder = tmp_path / "conflicts" / shape
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (20, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{shape}{number}-{texture}{number + 1}.png")
    return tmp_path / "conflicts"


def cases(conflicts=None):
    data = DataLoader(ClassSpec(*images(40)), batch_size=8)
    options = {"views": ["filters", "grad_cam"], "trainer": {"accelerator": "cpu"}, "conflicts": conflicts}
    return [
        RunConfig(net(seed), data, name=name, seed=seed, **options) for seed, name in ((1, "plain"), (2, "hard <b>"))
    ]


def test_two_models_are_seen_on_the_same_samples_and_measured_against_the_first(conflicts, monkeypatch, tmp_path):
    monkeypatch.setattr(analyzing, "techniques", lambda: CHEAP)
    studies = []
    monkeypatch.setattr(
        sys.modules["lightning_viz.analysis.compare"],
        "publish",
        lambda folder, found, together=None: studies.append((found, together)),
    )
    compare(cases(conflicts), out=tmp_path / "out")
    ((plain, hard), both) = studies[0]
    assert plain.numbers["samples"] == hard.numbers["samples"]
    tags = [{shown.picture.tag for shown in study.pictures()} for study in (plain, hard)]
    assert tags[0] == tags[1] == {"filters/0", "grad_cam/0", "robustness/shape_bias"}
    assert both.numbers["mce"] == {"plain": 1.0, "hard <b>": pytest.approx((0.8 / 0.7 + 1) / 2)}
    shown = [one.picture.tag for one in both.pictures]
    assert both.numbers["mfr"] == {"plain": 1.0, "hard <b>": pytest.approx((2 + 0.5) / 2)}  # on the two that both have
    compared = ("epsilon", "robust_accuracy", "corruptions", "perturbation_stability", "shape_bias")
    assert shown == [f"compared/{name}" for name in compared]
    assert both.numbers["robust_accuracy"] == {"plain": 0.1, "hard <b>": 0.2}
    assert not [fault for study in (plain, hard) for finding in study.findings for fault in finding.faults]


def test_the_whole_comparison_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(analyzing, "techniques", lambda: {"measures": CHEAP["measures"]})
    report = compare(cases(), out=tmp_path)
    text = report.read_text()
    assert "hard &lt;b&gt;" in text and "hard <b>" not in text
    assert text.index("section-compared") < text.index("section-parameters")
    assert text.count('class="row joint"') == 4  # epsilon, robust accuracy, corruptions and stability
    folders = {path.name for path in (tmp_path / "tensorboard").iterdir()}
    assert folders == {"plain", "hard__b_", "compared"}


def test_a_comparison_needs_two_models_of_different_names(tmp_path):
    with pytest.raises(AnalysisError, match="nothing to compare plain with"):
        compare(cases()[:1], out=tmp_path)
    with pytest.raises(AnalysisError, match="two models are called 'plain'"):
        compare([cases()[0], cases()[0]], out=tmp_path)


def test_what_only_one_model_has_is_not_drawn_together():
    one = ModelReport("a", {0: Result(numbers={"epsilon": {"epsilons": [0, 1], "accuracy": [1, 0]}})})
    assert not together([one, ModelReport("b", {0: Result()})]).pictures


def test_conflicts_are_read_as_their_names_say(conflicts):
    pixel_space = PixelSpace((0.5,), (0.25,))
    found = read_conflicts(conflicts, ClassSpec.classes, (1, 8, 8), pixel_space)
    said = sorted(zip(found.shapes.tolist(), found.textures.tolist(), strict=True))
    assert said == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 1)]  # cat, dog, elephant; that with one class is left out
    assert found.images.shape == (5, 1, 8, 8)
    assert found.images.min() >= -2 and found.images.max() <= 2 and found.images.std() > 0.1
    model = net(1).eval()
    bias = shape_bias(model, found.images, found.shapes, found.textures)
    assert 0 <= bias.bias <= 1 or math.isnan(bias.bias)


def test_categories_of_several_classes_are_named_in_a_file(conflicts):
    classes = ("tabby", "dog", "tusker", "Egyptian cat")
    with pytest.raises(
        AnalysisError,
        match=r"'cat', none of the model's 4 classes: list .*classes.json",
    ):
        read_conflicts(conflicts, classes, (3, 8, 8), PixelSpace())
    (conflicts / "classes.json").write_text(json.dumps({"cat": ["tabby", "Egyptian cat"], "elephant": ["tusker"]}))
    found = read_conflicts(conflicts, classes, (3, 8, 8), PixelSpace())
    assert found.mapping == {"cat": [0, 3], "dog": [1], "elephant": [2]}


def test_what_the_folder_of_conflicts_holds_is_in_the_key(conflicts):
    case = cases(conflicts)[0]
    before = case.key(None, "biases")
    assert case.key(None, "biases") == before
    (conflicts / "classes.json").write_text("{}")
    assert case.key(None, "biases") != before


def test_a_folder_without_conflicts_is_refused(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "holiday.png")
    with pytest.raises(AnalysisError, match="holds no cue conflicts"):
        read_conflicts(tmp_path, ("a", "b"), (1, 4, 4), PixelSpace())
    (tmp_path / "a1-b2.png").write_bytes(b"no image")
    with pytest.raises(AnalysisError, match=r"a1-b2\.png cannot be read as an image"):
        read_conflicts(tmp_path, ("a", "b"), (1, 4, 4), PixelSpace())


@pytest.mark.parametrize("content", ['{"a": "b"}', "[1]", '{"a": [1]}', "{", "[" * 10_000, "NaN"])
def test_a_list_of_categories_of_another_form_is_refused(content, tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a1-b2.png")
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(MalformedFileError, match=r"classes\.json (cannot be read as JSON|is no list of classes)"):
        read_conflicts(tmp_path, ("a", "b"), (1, 4, 4), PixelSpace())
