"""A run with `default_views()` says what watches it and how it is opened, has a guide, and its cards in order."""

import shlex

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_viz import FirstLayerFilters, default_views
from lightning_viz.callbacks.guide import reading_guide
from lightning_viz.catalogue import OVERVIEW, board_tag, views

from .conftest import ConvNet, fit, images, loader


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """Tags of a run by kind, and its folder."""
    folder = tmp_path_factory.mktemp("run")
    chosen = [view for view in default_views() if view.kind != "embedding"]  # which take long
    logger = TensorBoardLogger(folder, name="", version="")
    fit(folder, ConvNet(), chosen, loader(*images(32)), logger=logger)
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return folder, events


def test_it_says_what_watches_and_how_to_open_it(tmp_path, drawn_at_once, capfd):
    chosen = [view for view in default_views() if view.kind in ("filters", "health")]
    logger = TensorBoardLogger(tmp_path / "my runs", name="", version="")
    fit(tmp_path, ConvNet(), chosen, logger=logger)
    fit(tmp_path, ConvNet(), [FirstLayerFilters()])  # whoever names views knows them
    lines = [line for line in capfd.readouterr().err.splitlines() if "watched by" in line]
    command = f"lightning-viz board {shlex.quote(str(tmp_path / 'my runs'))}"
    assert lines == [f"lightning_viz: watched by Health, FirstLayerFilters; to see the pictures: {command}"]


def test_the_overview_comes_first_and_the_guide_is_there(default_run):
    _, events = default_run
    tags = sorted(events.Tags()["tensors"])
    plugins = events.summary_metadata
    pictures = [tag for tag in tags if plugins[tag].plugin_data.plugin_name == "images"]
    assert pictures[0] == "1_overview/1_health"
    places = [pictures.index(next(tag for tag in pictures if f"_{kind}" in tag)) for kind in ("health", "grad_cam")]
    assert places == sorted(places)
    assert all(tag.startswith("1_overview/") for tag in pictures)
    (guide,) = [tag for tag in tags if plugins[tag].plugin_data.plugin_name == "text"]
    (event,) = events.Tensors(guide)
    text = event.tensor_proto.string_val[0].decode()
    assert "**Health of the layers** (`health`): Each row is a layer" in text and "Grad-CAM: Weights each" in text


def test_it_is_few_cards_and_no_curves(default_run):
    _, events = default_run
    pictures = [tag for tag in events.Tags()["tensors"] if tag.startswith("1_overview/")]
    assert 4 <= len(pictures) <= 10  # one more is that of the embeddings
    assert set(events.Tags()["scalars"]) <= {"loss", "val_loss", "epoch", "hp_metric", "z_mistakes/share"}


def test_every_view_of_the_overview_sorts_in_its_order():
    assert [board_tag(kind).split("/")[1][0] for kind in OVERVIEW] == [str(place + 1) for place in range(len(OVERVIEW))]
    assert board_tag("layer_cam/conv2") == "1_overview/3_layer_cam/conv2"
    assert board_tag("mine/own") == "mine/own"
    others = [kind for kind in views() if kind not in OVERVIEW]
    assert all(board_tag(f"{kind}/x") == f"{kind}/x" for kind in others if kind != "occlusion")


def test_the_guide_has_each_view_once_in_the_order_of_the_cards():
    lines = reading_guide([*default_views(), FirstLayerFilters(layer="conv2")]).splitlines()
    kinds = [line.split("(`")[1].split("`)")[0] for line in lines[2:]]
    assert kinds[0] == "health" and len(set(kinds)) == len(kinds)
    assert kinds.index("grad_cam") < kinds.index("embedding")
