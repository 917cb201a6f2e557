"""Names of layers and classes that hold markup, templates, ways out of a folder, and marks that turn text around."""

import csv
import warnings
from html.parser import HTMLParser

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import ActivationMaps, GradCAM, LayerEmbeddings
from lightning_viz.analysis.report.report import report
from lightning_viz.analysis.results import Fault, ModelReport, Result
from lightning_viz.callbacks.draw_task import Projection
from lightning_viz.callbacks.writers import FolderWriter, TensorBoardWriter, write_projection
from lightning_viz.plain_text import harmless_markdown, plain_text
from lightning_viz.render.page import Picture, compose, lay_out
from lightning_viz.render.parts import Text

from .test_writers import events

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of html5lib
    from tensorboard.plugin_util import markdown_to_safe_html

NAMES = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{7*7}}{% raw %}", "${7*7} $\\frac{$ $x$",
    "![x](http://a.b/c.png)", "[a](javascript:alert(1))", "<http://a.b>", "`code` **bold** _it_ \\", "# head", "a | b",
    "../../../etc/passwd", "..", "/etc/passwd", "C:\\x", "a\x00b", "a\nb\r\nc\td", "\n\n# head", "\u202egnp.exe",
    "\u2066a\u200fb", "\x1b[2J\x07", "a,b;\"c\"", "=HYPERLINK(1)", "\udcff\udc80", "x" * 300, "Füße חתול 🐈", " ",
]  # fmt: skip


class Tags(HTMLParser):
    """What a page consists of: its elements and their attributes."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, tuple(sorted(name for name, _ in attributes))))

    def handle_data(self, data):
        self.text += data


def picture(name):
    page = compose(f"maps/{name}", name, Text([name], 100), (name, "2 of 3"), name, warnings=[name])
    return lay_out(page)


def is_harmless(text):
    return all(plain_text(line) == line for line in text.split("\n"))


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_pictures_holds_its_files_and_no_other_is_written(name, tmp_path):
    folder = tmp_path / "a" / "b" / "pictures"
    writer = FolderWriter(folder)
    for tag in (f"maps/{name}", name, f"{name}/.."):
        writer.picture(Picture(tag, picture(name).image, 1, 1, picture(name).description), 3)
        writer.scalar(tag, 0.5, 3)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 3 and all(folder in path.resolve().parents for path in files)
    assert all(plain_text(path) == str(path) for path in files)
    with (folder / "scalars.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1:] == [[plain_text(tag), "3", "0.5"] for tag in (f"maps/{name}", name, f"{name}/..")]
    assert (folder / "scalars.csv").read_text().count("\n") == 4


def test_names_that_differ_have_files_of_their_own(tmp_path):
    for name in [*NAMES, "x" * 301]:
        FolderWriter(tmp_path).picture(Picture(f"maps/a{name}", b"\x89PNG", 1, 1, ""), 0)
    assert len(list(tmp_path.rglob("*.png"))) == len(NAMES) + 1


@pytest.mark.parametrize("name", NAMES)
def test_tensorboard_shows_a_name_as_text(name, tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    writer = TensorBoardWriter(logger.experiment)
    writer.picture(picture(name), 1)
    writer.scalar(name, 1.0, 1)
    for tag in (f"embedding/{name}", name):
        write_projection(tmp_path / "run", Projection(tag, b"0\t1", name.encode("utf-8", "replace"), None, 0))
    logger.finalize("success")
    written = events(tmp_path)
    assert set(written) == {plain_text(f"maps/{name}"), plain_text(name)}
    description = written[plain_text(f"maps/{name}")][1].metadata.summary_description
    shown = Tags(markdown_to_safe_html(description))
    assert {element for element, _ in shown.elements} <= {"strong", "p", "br"}
    assert shown.text.count(plain_text(name).strip()) >= 2
    assert all((tmp_path / "run") in path.resolve().parents for path in (tmp_path / "run").rglob("*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("name", [name for name in NAMES if name.strip()])
def test_the_report_shows_a_name_as_text(name):
    def page(name):
        numbers = {"model": {"class": name, "classes": [name, name], "layers": [{"name": name, "kind": name}]}}
        numbers |= {"fares": {name: 0.5, "recall": {name: 0.5, "b": 1.0}}, "notes": [name]}
        look = Result([], [(f"grad_cam/{name}", 0.5, 3)], numbers, [Fault("grad_cam", name, 3)])
        look.picture(picture(name), 3)
        return report([ModelReport(name, {3: look}, waiting=[name])])

    written, plain = page(name), page("plain")
    written.encode()
    assert Tags(written).elements == Tags(plain).elements
    assert is_harmless(written.replace("\t", ""))
    assert plain_text(name).strip()[:40] in Tags(written).text


def test_markdown_of_a_description_is_kept():
    description = "**Maps of layer_1.conv**  \nstep 3 · -1.5 to 2\n\nLeft the input."
    shown = markdown_to_safe_html(harmless_markdown(description))
    assert "<strong>Maps of layer_1.conv</strong><br" in shown and "<p>Left the input.</p>" in shown
    assert "step 3 · -1.5 to 2" in shown


class Hostile(pl.LightningModule):
    """A classifier whose layers are called as nobody would."""

    def __init__(self, names):
        super().__init__()
        self.keys = [name.replace(".", "·") for name in names if name.strip()]
        for name in self.keys:
            self.add_module(name, nn.Conv2d(1, 1, 3, padding=1))
        self.head = nn.Linear(1, len(NAMES))

    def forward(self, x):
        for name in self.keys:
            x = torch.relu(self.get_submodule(name)(x)) + x
        return self.head(x.mean((2, 3)))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Named(TensorDataset):
    classes = NAMES


def test_a_run_draws_layers_and_classes_of_such_names(tmp_path):
    torch.manual_seed(0)
    layers = [NAMES[index] for index in (3, 15, 22)]
    module = Hostile(layers)
    data = Named(torch.rand(len(NAMES), 1, 8, 8), torch.arange(len(NAMES)))
    views = [
        ActivationMaps(layers=module.keys), GradCAM(layers=module.keys[:1]),
        LayerEmbeddings(layers=[module.keys[-1], "head"], projector=module.keys[-1:], input=False, animation=False),
    ]  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=TensorBoardLogger(tmp_path, name="", version="run"), callbacks=views,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, batch_size=13))
    written = events(tmp_path)
    for name in module.keys:
        assert any(tag.endswith(plain_text(f"activations/{name}")) for tag in written)
    assert all(plain_text(tag) == tag for tag in written)
    labels = list((tmp_path / "run").rglob("labels.tsv"))
    assert len(labels) == 1
    for path in labels:
        head, *rows = path.read_text().split("\n")
        assert [row.split("\t")[0] for row in rows] == [plain_text(name) for name in NAMES]
        assert {len(row.split("\t")) for row in rows} == {len(head.split("\t"))} == {4}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
