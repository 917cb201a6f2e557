"""What is written can be read back: TensorBoard's events and projector, other loggers, folders."""

import csv
import io
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from torch.nn import functional as F

from lightning_viz import (
    ActivationMaps,
    FirstLayerFilters,
    GradCAM,
    Hyperplanes,
    LayerEmbeddings,
    Saliency,
    ViewWarning,
)
from lightning_viz.callbacks.draw_task import Projection
from lightning_viz.callbacks.writers import FolderWriter, ImageLoggerWriter, find_writers, write_projection
from lightning_viz.catalogue import board_tag
from lightning_viz.render.page import Picture

from .conftest import ConvNet, Perceptron, Watch, fit, images, loader, plane, said


def events(folder, run="run"):
    """Everything in a run's event files: by tag, by step, the value as it was written."""
    found = defaultdict(dict)
    for path in sorted((Path(folder) / run).glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                assert value.tag == "epoch" or event.step not in found[value.tag], f"{value.tag} twice at {event.step}"
                found[value.tag][event.step] = value
    return dict(found)


def image_of(value):
    """The image in an event, decoded."""
    width, height, encoded = value.tensor.string_val[:3]
    image = Image.open(io.BytesIO(encoded))
    assert image.size == (int(width), int(height))
    return image


def number_of(value):
    return value.tensor.float_val[0]


@pytest.mark.slow
def test_every_view_is_in_tensorboard_under_its_tag(tmp_path, monkeypatch):
    # On a machine with much else to do.
    monkeypatch.setattr("lightning_viz.callbacks.drawing.BEHIND_SECONDS", float("inf"))
    views = [
        FirstLayerFilters(table="conv2", finish_seconds=float("inf")),
        ActivationMaps(),
        GradCAM(),
        Saliency(),
        Saliency(method="smooth_grad", noise_samples=2),
        LayerEmbeddings(layers="fc", samples=24, pages=["scatter", "thumbnails", "grid", "comparison"]),
    ]
    fit(tmp_path, ConvNet(), views, max_epochs=2)
    found = events(tmp_path)
    pictures = {
        "filters/conv1",
        "filters/conv2",
        "activations/conv1",
        "activations/conv2",
        "grad_cam/conv2",
        "saliency/gradient",
        "saliency/smooth_grad",
        "embedding/every_layer",
        "embedding/input",
        "embedding/fc",
        "embedding/fc/thumbnails",
        "embedding/fc/grid",
        "embedding/fc/comparison",
    }
    assert set(map(board_tag, pictures)) <= found.keys()
    for tag in pictures:
        assert list(found[board_tag(tag)]) == [0, 6, 12]
        for step, value in found[board_tag(tag)].items():
            assert value.metadata.plugin_data.plugin_name == "images"
            assert f"step {step}" not in value.metadata.summary_description  # the first step's is shown for ever
            named = tag.split("/")[1] in value.metadata.summary_description
            assert named or tag.startswith(("saliency", "embedding/every_layer"))
            assert image_of(value).format == "PNG"
            assert image_of(value).width == 700
    for layer in ("input", "fc"):
        for number in ("knn_accuracy", "trustworthiness"):
            values = found[f"z_embedding/{layer}/{number}"]
            assert list(values) == [0, 6, 12]
            assert all(0 <= number_of(value) <= 1 for value in values.values())
    assert list(found["embedding/every_layer/animation"]) == [12]
    animation = image_of(found["embedding/every_layer/animation"][12])
    assert (animation.format, animation.n_frames) == ("GIF", 3)
    assert not [tag for tag in found if tag.endswith("animation") and not tag.startswith("embedding")]


@pytest.mark.slow
def test_hyperplanes_are_in_tensorboard_with_an_animation(tmp_path):
    fit(tmp_path, Perceptron(), [Hyperplanes(samples=40, grid=20)], loader(*plane(), batch_size=8))
    found = events(tmp_path)
    assert list(found["hyperplanes/hidden"]) == [0, 1, 2, 3, 5]
    assert all("w · x + b" in value.metadata.summary_description for value in found["hyperplanes/hidden"].values())
    animation = image_of(found["hyperplanes/hidden/animation"][5])
    assert (animation.format, animation.n_frames) == ("GIF", 5)
    durations = []
    for frame in range(5):
        animation.seek(frame)
        durations.append(animation.info["duration"])
    assert durations[-1] == 2000
    assert max(durations[:-1]) <= 130
    first = np.asarray(image_of(found["hyperplanes/hidden"][0]).convert("RGB")).astype(int)
    animation.seek(0)
    drawn = np.asarray(animation.convert("RGB")).astype(int)
    assert np.abs(drawn[: first.shape[0]] - first).mean() < 4  # but for the palette


def test_the_users_own_curves_stay_theirs(tmp_path, drawn_at_once):
    fit(tmp_path, ConvNet(), [Saliency(every_n_train_steps=1)])
    found = events(tmp_path)
    assert list(found["loss"]) == [0, 1, 2, 3, 4, 5]
    assert list(found["val_loss"]) == [5]
    assert list(found[board_tag("saliency/gradient")]) == [0, 1, 2, 3, 4, 5, 6]


def test_the_projector_has_the_last_layers_vectors(tmp_path, drawn_at_once):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "projector_config.pbtxt").write_text(
        'embeddings { tensor_name: "theirs" tensor_path: "theirs.tsv" }\n'
        'embeddings { tensor_name: "embedding/fc" tensor_path: "old.tsv" }\n'
    )
    data = loader(*images())
    data.dataset.classes = ["ape", "bee", "cat"]
    fit(tmp_path, ConvNet(), [LayerEmbeddings(layers=["conv1", "fc"], samples=24)], data)
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert [one.tensor_name for one in config.embeddings] == ["theirs", "embedding/fc"]
    assert config.embeddings[0].tensor_path == "theirs.tsv"
    ours = config.embeddings[1]
    vectors = np.loadtxt(folder / ours.tensor_path, delimiter="\t")
    with (folder / ours.metadata_path).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(vectors) == len(rows) == 24
    assert vectors.shape[1] <= 50
    drawn = drawn_at_once.arguments("embedding/fc")[6]
    distances = np.linalg.norm(drawn["vectors"][:, None] - drawn["vectors"][None], axis=-1)
    written = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    np.testing.assert_allclose(written, distances, atol=1e-4 * distances.max())
    names, scores = ["ape", "bee", "cat"], torch.as_tensor(drawn["vectors"]).softmax(1)
    assert [row["true"] for row in rows] == [names[label] for label in drawn["labels"]]
    assert [row["predicted"] for row in rows] == [names[label] for label in scores.argmax(1)]
    assert [row["result"] == "right" for row in rows] == [row["true"] == row["predicted"] for row in rows]
    np.testing.assert_allclose([float(row["confidence"]) for row in rows], scores.amax(1), atol=6e-4)
    side = list(ours.sprite.single_image_dim)
    with Image.open(folder / ours.sprite.image_path) as sprite:
        sprite.load()
    columns = math.ceil(math.sqrt(24))
    assert sprite.size == (columns * side[0], sprite.height)
    assert sprite.height % side[1] == 0
    assert (sprite.width // side[0]) * (sprite.height // side[1]) >= 24
    assert max(sprite.size) <= 8192
    assert not list(folder.rglob("*.part"))


def test_the_projector_takes_any_layer_and_says_what_it_knows(tmp_path, drawn_at_once):
    class Softmax(ConvNet):
        def forward(self, x):
            return super().forward(x).log_softmax(1)

        def training_step(self, batch, batch_idx):
            return F.nll_loss(self(batch[0]), batch[1])

    view = LayerEmbeddings(samples=24, projector=["input", "conv2"])
    fit(tmp_path, Softmax(), [view])
    config = text_format.Parse((tmp_path / "run" / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert [one.tensor_name for one in config.embeddings] == ["embedding/input", "embedding/conv2"]
    head = (tmp_path / "run" / config.embeddings[1].metadata_path).read_text().splitlines()[0]
    assert head == "true\tpredicted\tresult\tconfidence"
    drawn_at_once.clear()
    fit(tmp_path / "without", ConvNet(), [LayerEmbeddings(layers="conv1", samples=24)])  # no layer tells the classes
    labels = next((tmp_path / "without").rglob("labels.tsv")).read_text().splitlines()
    assert set(labels) == {"0", "1", "2"} and len(labels) == 24


def test_no_projector_where_it_is_not_wanted(tmp_path, drawn_at_once):
    fit(tmp_path, ConvNet(), [LayerEmbeddings(layers="fc", samples=24, projector=False)])
    assert not (tmp_path / "run" / "projector_config.pbtxt").exists()


def test_a_projection_of_another_layer_joins(tmp_path):
    for tag in ("embedding/a", "embedding/b", "embedding/a"):
        write_projection(tmp_path, Projection(tag, b"1\t2\n3\t4"))
    config = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert sorted(one.tensor_name for one in config.embeddings) == ["embedding/a", "embedding/b"]
    assert all((tmp_path / one.tensor_path).read_bytes() == b"1\t2\n3\t4" for one in config.embeddings)
    assert not any(one.metadata_path for one in config.embeddings)


class Images(Logger):
    """A logger that takes images, as Weights & Biases does."""

    def __init__(self):
        super().__init__()
        self.images, self.metrics = [], []

    name, version = "images", 0

    def log_metrics(self, metrics, step=None):
        self.metrics.append((metrics, step))

    def log_hyperparams(self, *_, **__):
        pass

    def log_image(self, key, images, step=None, **kwargs):
        assert {len(one) for one in kwargs.values()} == {len(images)}
        self.images.append((key, step, images[0].size, kwargs["caption"][0]))


def test_two_loggers_get_the_same(tmp_path, drawn_at_once):
    other = Images()
    loggers = [TensorBoardLogger(tmp_path, "one", version=""), TensorBoardLogger(tmp_path, "two", version=""), other]
    fit(tmp_path, ConvNet(), [Saliency(), LayerEmbeddings(layers="fc", input=False, samples=24)], logger=loggers)
    one, two = events(tmp_path, "one"), events(tmp_path, "two")
    assert one.keys() == two.keys()
    assert board_tag("saliency/gradient") in one
    for tag in (tag for tag in one if "saliency" in tag or tag.startswith("embedding")):
        assert {step: value.SerializeToString() for step, value in one[tag].items()} == {
            step: value.SerializeToString() for step, value in two[tag].items()
        }
    pictures = drawn_at_once.pictures("saliency/gradient")
    logged = {step: (size, caption) for key, step, size, caption in other.images if key == "saliency/gradient"}
    assert logged == {
        step: ((picture.width, picture.height), picture.description) for step, picture in pictures.items()
    }
    accuracies = [step for metrics, step in other.metrics if "embedding/fc/knn_accuracy" in metrics]
    assert accuracies == [0, 6]


def test_a_logger_that_takes_no_images_leaves_them_to_a_folder(tmp_path, drawn_at_once):
    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, ConvNet(), [Watch()], logger=CSVLogger(tmp_path))
    folder = tmp_path / "lightning_viz_logs" / "version_0"
    assert said(caught) == [f"lightning_viz: no logger takes images: pictures go to {folder}"]
    pictures = drawn_at_once.pictures("watch/page")
    for step, picture in pictures.items():
        file = folder / "watch" / "page" / f"{step:08d}"
        assert file.with_suffix(".png").read_bytes() == picture.image
        assert file.with_suffix(".md").read_text() == picture.description


def test_numbers_and_animations_in_a_folder(tmp_path):
    writer = FolderWriter(tmp_path / "new")
    writer.scalar("embedding/fc/knn_accuracy", 0.5, 3)
    writer.scalar("embedding/fc/knn_accuracy", math.nan, 4)
    with (tmp_path / "new" / "scalars.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"tag": "embedding/fc/knn_accuracy", "step": "3", "value": "0.5"},
        {"tag": "embedding/fc/knn_accuracy", "step": "4", "value": ""},
    ]
    writer.picture(Picture("hyperplanes/hidden:0/animation", b"GIF89a", 1, 1, "words"), 5)
    assert (tmp_path / "new" / "hyperplanes" / "hidden%3A0" / "animation" / "00000005.gif").exists()
    writer.picture(Picture("../../outside", b"\x89PNG", 1, 1, "words"), 5)
    assert not (tmp_path.parent / "outside").exists()
    assert sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file()) == [
        ".csv",
        ".gif",
        ".md",
        ".md",
        ".png",
    ]


def test_a_dummy_logger_is_no_sink(tmp_path):
    from pytorch_lightning.loggers.logger import DummyLogger

    writers, line = find_writers([DummyLogger()], tmp_path / "pictures")
    assert isinstance(writers[0], FolderWriter)
    assert str(tmp_path / "pictures") in line


def test_an_experiment_that_claims_to_be_able_to_do_anything_is_no_tensorboard(tmp_path):
    from pytorch_lightning.loggers.logger import DummyExperiment

    class TakesImages:
        save_dir = str(tmp_path)
        experiment = DummyExperiment()

        def log_image(self, **options):
            """Takes them."""

    writers, line = find_writers([TakesImages()], tmp_path / "pictures")
    assert [type(writer) for writer in writers] == [ImageLoggerWriter] and not line
