"""What notebooks show: every result, view and report has short HTML, in which nothing of a name or value is markup."""

import base64
import inspect
import io
import re
from dataclasses import is_dataclass
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightning_viz import GradCAM, Probe, Saliency, View, default_views, observe, watch
from lightning_viz.activations import TopK
from lightning_viz.adversarial import fgsm_terms, pgd
from lightning_viz.analysis.publication import publish
from lightning_viz.analysis.report.report_path import ReportPath
from lightning_viz.analysis.results import FOUND, ModelReport, Result
from lightning_viz.attribution import occlusion
from lightning_viz.attribution.evaluation import PointingGame
from lightning_viz.dream import maximize
from lightning_viz.embedding import pca
from lightning_viz.pixels import PixelSpace
from lightning_viz.render import Page, Text, attribution_maps, lay_out
from lightning_viz.rich_display import LONGEST, html_table, image_row, text_of
from tests.callbacks.conftest import ConvNet, images

HOSTILE = "<script>alert('x')</script>\u202e"
PACKAGES = ("attribution", "attribution.evaluation", "adversarial", "dream", "embedding", "robustness", "dense")
NO_RESULTS = {  # options, and the record within a result
    "AttackTrace", "Preset", "FullyConvolutional", "Image", "Norm", "StylizedDataset", "Corrupted",
}  # fmt: skip


class Read(HTMLParser):
    """Tags, texts and pictures of a piece of HTML; an error if a tag is not closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.pictures, self.open = [], [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            kind, _, data = dict(attributes)["src"].partition(";base64,")
            assert kind in ("data:image/png", "data:image/gif") and dict(attributes)["alt"]
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


@pytest.fixture(scope="module")
def model():
    return ConvNet().eval()


def results():
    """One of each kind, by its name."""
    torch.manual_seed(0)
    net, (x, labels) = ConvNet().eval(), images(4, height=16, width=16)
    space = PixelSpace()
    yield pgd(net, x, labels, pixel_space=space, steps=2, epsilon=8 / 255)
    yield pgd(net, x, labels, pixel_space=space, steps=2, epsilon=[0.0, 0.1])
    yield fgsm_terms(net, x, labels, pixel_space=space)
    yield maximize(net, [0, 1], image=(1, 16, 16), steps=2)
    yield pca(np.random.default_rng(0).normal(size=(20, 5)))
    yield occlusion(net, x, patch=8, stride=8)
    yield observe(net, x, 1, layers="conv2", gradients=True)
    yield TopK.empty(3, 2)
    yield PointingGame(torch.tensor([True, False]), torch.zeros(2, 2))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_result_has_html(package):
    module = import_module(f"lightning_viz.{package}")
    public = {name: getattr(module, name) for name in module.__all__ if inspect.isclass(getattr(module, name))}
    kinds = {name: kind for name, kind in public.items() if is_dataclass(kind) and name not in NO_RESULTS}
    assert kinds and not [name for name, kind in kinds.items() if not hasattr(kind, "_repr_html_")]


def test_html_of_results_is_short_and_names_what_they_hold():
    for result in results():
        html = result._repr_html_()
        read = Read(html)
        assert len(re.sub('"data:.*?"', "", html)) < 5000
        assert read.texts[0] == type(result).__name__ and read.tags.count("th") >= 2


def test_an_attack_shows_samples_over_adversarial_examples_and_how_many_were_fooled(model):
    x, labels = images(4, height=16, width=16)
    result = pgd(model, x, labels, pixel_space=PixelSpace(), steps=2, epsilon=0.1)
    read = Read(result._repr_html_())
    assert f"{int(result.fooled.sum())} of 4" in read.texts and "0.1" in read.texts
    shown, changed = (np.asarray(picture)[..., 0] for picture in read.pictures)
    assert shown.shape == (16, 4 * 17 - 1)
    assert np.array_equal(shown[:, :16], (x[0, 0].numpy() * 255).round()) and not np.array_equal(shown, changed)


def test_nothing_of_a_name_or_a_value_is_markup():
    for html in (
        html_table(HOSTILE, {HOSTILE: HOSTILE, "list": [HOSTILE], "map": {HOSTILE: HOSTILE}, "path": Path(HOSTILE)}),
        image_row(HOSTILE, torch.rand(2, 3, 4, 4)),
        Page(HOSTILE, HOSTILE, Text([HOSTILE], 100), (HOSTILE,), HOSTILE)._repr_html_(),
        GradCAM(layers=HOSTILE, target=f"class:{HOSTILE}")._repr_html_(),
        ReportPath.of(Path(f"{HOSTILE}.html"), [(HOSTILE, HOSTILE)])._repr_html_(),
    ):
        read = Read(html)
        assert "script" not in read.tags and "\u202e" not in html
        assert any("<script>" in text for text in read.texts) or "&lt;script&gt;" in html


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        ((), "none"),
        (0.123456, "0.1235"),
        (tuple(range(9)), "0, 1, 2, 3, 4, 5, 6, 7, and 1 more"),
        (torch.tensor([True, False]), "1 of 2"),
        (torch.tensor(True), "True"),
        (torch.tensor(0.5, dtype=torch.bfloat16), "0.5"),
        (torch.tensor([1, 2]), "1, 2"),
        (torch.arange(12.0).view(3, 4).requires_grad_(), "[3, 4] of 0 to 11"),
        (torch.tensor([[1.0, torch.nan], [torch.inf, 3.0]]), "[2, 2] of 1 to 3, 2 not finite"),
        (torch.zeros(0, 3), "[0, 3]"),
        (np.array([[1, 2]]), "[1, 2] of 1 to 2"),
        ({"conv": torch.zeros(2, 2)}, "conv: [2, 2] of 0 to 0"),
        (nn.ReLU(), "ReLU()"),
        (object(), "object"),
        ("x" * 1000, "x" * (LONGEST - 1) + "…"),
    ],
)
def test_a_value_is_a_few_words(value, text):
    assert text_of(value) == text


@pytest.mark.parametrize("shape", [(4,), (2, 5, 4, 4), (0, 3, 4, 4), (2, 3, 4)])
def test_what_is_no_batch_of_images_gives_no_row(shape):
    assert image_row("x", torch.zeros(shape)) == ""


def test_a_row_has_eight_images_at_most_and_gray_where_a_pixel_is_nan():
    batch = torch.rand(20, 3, 4, 4)
    batch[0, :, 0, 0] = torch.nan
    read = Read(image_row("samples", batch))
    assert read.texts == ["samples: 8 of 20"] and read.pictures[0].size == (8 * 5 - 1, 4)
    assert read.pictures[0].getpixel((0, 0)) == (128, 128, 128)


def test_a_view_says_what_it_shows_what_is_not_default_and_where_it_looked_last():
    view = Saliency(method="smooth_grad", probe=8)
    read = Read(view._repr_html_())
    assert read.texts[0] == "Saliency" and "'smooth_grad'" in read.texts and "not yet" in read.texts
    view.last_step = 40
    assert "at step 40" in Read(view._repr_html_()).texts

    class Own(View):
        """Mean of a layer."""

        kind = "own"

    assert "Mean of a layer." in Read(Own()._repr_html_()).texts
    several = Read(default_views()._repr_html_())
    assert several.tags.count("tr") == len(default_views()) and "GradCAM" in several.texts


def test_a_watched_loop_says_how_far_it_is_and_where_pictures_go(model, tmp_path):
    watched = watch(model, data=images(8), views=[GradCAM(probe=Probe(samples=2))], logdir=tmp_path / "run")
    with watched as loop:
        loop.step()
        read = Read(loop._repr_html_())
    assert {"ConvNet", "1", str(tmp_path / "run")} <= set(read.texts)


def test_a_page_is_shown_as_its_picture():
    page = attribution_maps("a/b", np.zeros((1, 8, 8, 3), np.uint8), np.ones((1, 1, 8, 8)), method="M", target="t")
    read = Read(page._repr_html_())
    assert np.array_equal(np.asarray(read.pictures[0]), np.asarray(Image.open(io.BytesIO(lay_out(page).image))))


def test_a_report_is_a_path_that_shows_what_was_found_with_a_link(tmp_path):
    report = ModelReport("net", techniques={"attacks": Result(numbers={FOUND: {"pgd": "3 of 4 fooled"}})})
    path = publish(tmp_path, [report])
    assert path == tmp_path / "report.html" and path.read_text() and str(path) == str(tmp_path / "report.html")
    read = Read(path._repr_html_())
    assert "3 of 4 fooled" in read.texts and f'href="{path.as_uri()}"' in path._repr_html_()
    assert not (path.parent / "other").found
