"""Lightning's own loggers with their real clients, offline: what is stored is read back by the client itself."""

import functools
import importlib
import io
import json
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from tensorboard.util import tensor_util

import lightning_viz
from lightning_viz import ActivationStatistics, ViewWarning, default_views
from lightning_viz.callbacks.draw_task import DrawResult, Histogram, Projection
from lightning_viz.callbacks.picture_log import write_result
from lightning_viz.callbacks.writers import FolderWriter, ImageLoggerWriter, find_writers
from lightning_viz.plain_text import harmless_markdown, plain_text
from lightning_viz.render.page import Picture

from .conftest import ConvNet, Watch, fit, said
from .test_hostile_names import NAMES
from .test_writers import events

PACKAGES = ["pytorch_lightning.loggers", "lightning.pytorch.loggers"]


def encoded(kind, *shades):
    """An image, or the frames of an animation."""
    file = io.BytesIO()
    first, *rest = [Image.new("RGB", (12, 8), (shade, 0, 90)) for shade in shades]
    first.save(file, kind, **({"save_all": True, "append_images": rest, "duration": 100} if rest else {}))
    return file.getvalue()


PAGES = {step: encoded("PNG", step) for step in (0, 7)}
FILM = encoded("GIF", 0, 120, 240)
TAG, WORDS = "grad_cam/conv:0", "**Grad-CAM of conv**  \nstep {}\n\nRed raises the class."
EDGES, COUNTS = np.linspace(-1, 1, 5), np.array([3.0, 0.0, 5.0, 2.0])
BLOCK = 2**15
VECTORS = Projection("embedding/fc", b"0.5\t-1\n2\t3", b"true\tpredicted\nape\tbee\nbee\tbee", PAGES[0], 8)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Clients write into the working folder and ask nobody."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_CACHE_DIR": str(tmp_path / "cache"),
        "WANDB_DATA_DIR": str(tmp_path / "data"),
        "COMET_DISABLE_AUTO_LOGGING": "1",
        "COMET_LOGGING_CONSOLE": "ERROR",
        "COMET_OFFLINE_DIRECTORY": str(tmp_path / "comet"),
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }.items():
        monkeypatch.setenv(name, value)


def write(*loggers):
    """Write some of everything through the writers that are found for loggers."""
    writers, line = find_writers(loggers, "pictures")
    assert not line
    for writer in writers:
        writer.text("how_to_read", "How to read **them** <b>")
    for step, page in PAGES.items():
        picture = Picture(TAG, page, 12, 8, WORDS.format(step), "Red raises the class.")
        write_result(
            writers,
            DrawResult(
                (picture,),
                {"health/dead": 0.25 * (step + 1)},
                projections=(VECTORS,),
                histograms={"statistics/conv": Histogram(EDGES, COUNTS)},
                kept={TAG: b"parts"},
            ),
            step,
        )
    write_result(writers, DrawResult((Picture(f"{TAG}/animation", FILM, 12, 8, "step by step"),)), 7)
    for writer in writers:
        writer.flush()
    return writers


def pixels(image):
    return np.asarray(Image.open(image).convert("RGB")).tolist()


@pytest.mark.parametrize("package", PACKAGES)
def test_weights_and_biases(package, tmp_path):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    logger = importlib.import_module(package).WandbLogger(project="ours", save_dir=tmp_path, prefix="net")
    try:
        (writer,) = write(logger)
        files = tmp_path / logger.experiment.dir
        store = logger.experiment.settings.sync_file
    finally:
        wandb.finish()
        wandb.teardown()  # the file is whole when its process has ended
    rows = wandb_rows(store)

    def stored(tag):
        return {row["trainer/global_step"]: row[f"net-{tag}"] for row in rows if f"net-{tag}" in row}

    images = stored(TAG.replace(":", "_"))
    assert {step: (files / one["path"]).read_bytes() for step, one in images.items()} == PAGES
    assert {step: one["caption"] for step, one in images.items()} == {step: WORDS.format(step) for step in PAGES}
    assert {one["_type"] for one in images.values()} == {"image-file"}
    film = stored(f"{TAG.replace(':', '_')}/animation")[7]
    assert (film["_type"], film["caption"], (files / film["path"]).read_bytes()) == ("video-file", "step by step", FILM)
    assert stored("health/dead") == {0: 0.25, 7: 2.0}
    histograms = stored("statistics/conv/histogram")
    assert {step: (one["values"], one["bins"]) for step, one in histograms.items()} == dict.fromkeys(
        PAGES, (COUNTS.tolist(), EDGES.tolist())
    )
    page = (files / stored("how_to_read")[0]["path"]).read_text()
    assert "How to read **them** &lt;b&gt;" in page
    tables = [row["net-embedding/fc/vectors"] for row in rows if "net-embedding/fc/vectors" in row]
    table = json.loads((files / tables[-1]["path"]).read_text())
    assert table["columns"] == ["true", "predicted", "x0", "x1"]
    assert table["data"] == [["ape", "bee", 0.5, -1], ["bee", "bee", 2, 3]]
    assert (writer.folder / "lightning_viz_parts").is_dir() and writer.folder == files.parent


def wandb_rows(path):
    """The history of a run, in W&B's own messages, from its file of records: LevelDB's log behind a head of 7 bytes."""
    records = importlib.import_module("wandb.proto.wandb_internal_pb2")
    content, place, rows, message = Path(path).read_bytes(), 7, [], b""
    assert content.startswith(b":W&B")
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:  # no record's head fits into what is left of a block
            place += BLOCK - place % BLOCK
        size, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        message += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record, message = records.Record.FromString(message), b""
            if record.WhichOneof("record_type") == "history":
                rows.append(row := {})
                for item in record.history.item:
                    *names, last = item.nested_key or [item.key]
                    functools.reduce(lambda inner, name: inner.setdefault(name, {}), names, row)[last] = json.loads(
                        item.value_json
                    )
    return rows


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, in MLflow
@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("store", ["file", "sqlite"])
def test_mlflow(package, store, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    if store == "sqlite":
        pytest.importorskip("sqlalchemy", reason="mlflow-skinny has no SQL store")
    place = f"file:{tmp_path}/runs" if store == "file" else f"sqlite:///{tmp_path}/runs.db"
    logger = importlib.import_module(package).MLFlowLogger(
        "ours", tracking_uri=place, artifact_location=None if store == "file" else str(tmp_path / "kept")
    )
    (writer,) = write(logger)
    client, run = mlflow.MlflowClient(place), logger.run_id

    def listed(folder):
        return sorted(one.path for one in client.list_artifacts(run, folder))

    def artifact(path):
        return Path(client.download_artifacts(run, path, str(tmp_path)))

    images = [path for path in listed("images") if path.endswith(".png")]
    steps = {int(path.split("+step+")[1].split("+")[0]): path for path in images}
    assert all(path.startswith("images/grad_cam~conv_0+step+") for path in images) and len(images) == 2
    assert {step: pixels(artifact(path)) for step, path in steps.items()} == {
        step: pixels(io.BytesIO(page)) for step, page in PAGES.items()
    }
    (film,) = listed("animations/grad_cam/conv_0/animation")
    assert film.endswith("00000007.gif")
    assert artifact(film).read_bytes() == FILM
    metrics = {one.step: one.value for one in client.get_metric_history(run, "health/dead")}
    assert metrics == {0: 0.25, 7: 2.0}
    assert artifact("how_to_read.md").read_text() == "How to read **them** <b>"
    assert artifact("how_to_read/grad_cam/conv_0.md").read_text() == "Red raises the class."
    assert [path.rpartition("/")[2] for path in listed("projector/embedding/fc")] == [
        "labels.tsv",
        "sprite.png",
        "vectors.tsv",
    ]
    assert artifact("projector/embedding/fc/vectors.tsv").read_bytes() == VECTORS.vectors
    assert writer.folder.name == run and (writer.folder / "lightning_viz_parts").is_dir()


@pytest.mark.parametrize("package", PACKAGES)
def test_comet(package, tmp_path):
    comet = pytest.importorskip("comet_ml", reason="comet_ml is not installed")
    logger = importlib.import_module(package).CometLogger(online=False, offline_directory=str(tmp_path / "comet"))
    logger._experiment = comet.OfflineExperiment(  # Lightning's own is disabled, and keeps nothing
        offline_directory=str(tmp_path / "comet"), log_code=False, log_env_details=False, display_summary_level=0
    )
    (writer,) = write(logger)
    assert writer.folder == tmp_path / "comet" / logger.version
    assert writer.queued >= len(FILM) + sum(map(len, PAGES.values()))
    logger.experiment.end()
    (archive,) = (tmp_path / "comet").glob("*.zip")
    with zipfile.ZipFile(archive) as stored:
        contents = {name: stored.read(name) for name in stored.namelist()}
    messages = [json.loads(line) for line in contents["messages.json"].splitlines()]
    uploads = [one["payload"] for one in messages if one["type"] == "file_upload"]
    stored = {}
    for one in uploads:
        about = one["additional_params"]
        name = about.get("fileName") or about.get("figName")
        kept = contents[Path(one["file_path"]).name]
        stored.setdefault((one["upload_type"], name), {})[about["step"]] = (kept, one["metadata"])
    images = stored["visualization", TAG]
    assert images == {step: (page, {"caption": WORDS.format(step)}) for step, page in PAGES.items()}
    assert stored["video", f"{TAG}/animation.gif"] == {7: (FILM, {"caption": "step by step"})}
    histograms = stored["histogram3d", "statistics/conv"]
    counts = {
        step: [count for _, count in json.loads(content)["index_values"]] for step, (content, _) in histograms.items()
    }
    assert counts == {step: [3, 5, 2] for step in PAGES}
    assert list(stored["asset", "embedding/fc/vectors.tsv"].values())[-1][0] == VECTORS.vectors
    metrics = [one["payload"]["metric"] for one in messages if one["type"] == "metric_msg"]
    assert {one["step"]: one["metricValue"] for one in metrics if one["metricName"] == "health/dead"} == {
        0: 0.25,
        7: 2.0,
    }
    assert "How to read **them** <b>" in [
        row[0].decode() for (kind, _), rows in stored.items() if kind == "text-sample" for row in rows.values()
    ]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("client", ["wandb", "comet_ml"])
def test_a_client_that_is_disabled_keeps_nothing_so_pictures_go_to_a_folder(client, package, tmp_path):
    module = pytest.importorskip(client, reason=f"{client} is not installed")
    loggers = importlib.import_module(package)
    if client == "wandb":
        logger = loggers.WandbLogger(mode="disabled", save_dir=tmp_path)
    else:
        logger = loggers.CometLogger(online=False, offline_directory=str(tmp_path / "comet"))
    (writer,), line = find_writers([logger], tmp_path / "pictures")
    if client == "wandb":
        module.finish()
    assert isinstance(writer, FolderWriter)
    assert line.startswith(f"{type(logger).__name__} is disabled: pictures go to")


def documented(name):
    """The class of the documentation's example."""
    code = (Path(lightning_viz.__file__).parents[1] / "docs/how/log.md").read_text()
    names = {}
    (block,) = (text for text in re.findall(r"```python\n(.*?)```", code, re.S) if f"class {name}" in text)
    exec(block, names)
    return names[name]


def test_trackio_by_the_documented_lines(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    logger = documented("TrackioLogger")("ours")
    (writer,) = write(logger)
    assert type(writer) is ImageLoggerWriter
    run = logger.experiment.name
    logger.finalize("success")
    storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    media = importlib.import_module("trackio.utils").MEDIA_DIR
    rows = storage.get_logs("ours", run)
    images = {row["step"]: row[TAG] for row in rows if TAG in row}
    assert {step: one["caption"] for step, one in images.items()} == {step: WORDS.format(step) for step in PAGES}
    assert {step: pixels(media / one["file_path"]) for step, one in images.items()} == {
        step: pixels(io.BytesIO(page)) for step, page in PAGES.items()
    }
    (film,) = [row[f"{TAG}/animation"] for row in rows if f"{TAG}/animation" in row]
    assert film["caption"] == "step by step" and (media / film["file_path"]).read_bytes() == FILM
    assert {row["step"]: row["health/dead"] for row in rows if "health/dead" in row} == {0: 0.25, 7: 2.0}


@pytest.mark.parametrize("client", ["wandb", "mlflow", "comet_ml"])
def test_layers_of_any_name_are_kept_in_the_runs_own_folder(client, tmp_path):
    module = pytest.importorskip(client, reason=f"{client} is not installed")
    loggers = importlib.import_module(PACKAGES[0])
    if client == "wandb":
        logger = loggers.WandbLogger(project="ours", save_dir=tmp_path)
    elif client == "mlflow":
        logger = loggers.MLFlowLogger("ours", tracking_uri=f"file:{tmp_path}/runs")
    else:
        logger = loggers.CometLogger(online=False)
        logger._experiment = module.OfflineExperiment(
            offline_directory=str(tmp_path / "comet"), log_code=False, log_env_details=False, display_summary_level=0
        )
    (writer,), _ = find_writers([logger], tmp_path / "pictures")
    before = {path.name for path in tmp_path.parent.iterdir()}
    for name in NAMES:
        for image in (PAGES[7], FILM):
            writer.picture(Picture(f"maps/{name}/x", image, 12, 8, harmless_markdown(plain_text(name))), 3)
            writer.picture(Picture(name, image, 12, 8, harmless_markdown(plain_text(name))), 3)
        writer.scalar(f"{name}/dead", 0.5, 3)
        writer.histogram(name, Histogram(EDGES, COUNTS), 3)
        writer.projection(Projection(f"embedding/{name}", VECTORS.vectors, VECTORS.metadata, PAGES[0], 8))
    if client == "wandb":
        module.finish()
    elif client == "comet_ml":
        logger.experiment.end()
    assert {path.name for path in tmp_path.parent.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} <= {"wandb", "cache", "data", "runs", "comet", "mlruns"}
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".png", ".gif")]
    assert client == "comet_ml" or len(kept) > 2 * len(NAMES)  # Comet's are packed


class Plain(Logger):
    """Takes metrics and, by a signature of its own, images."""

    name, version = "plain", 0

    def __init__(self):
        super().__init__()
        self.calls = []

    def log_metrics(self, metrics, step=None):
        self.calls.append((metrics, step))

    def log_hyperparams(self, *_, **__):
        pass


def takes_step_and_caption(self, key, images, step=None, caption=None):
    self.calls.append((key, images[0].size, step, caption[0]))


def takes_a_step(self, key, images, step):
    self.calls.append((key, images[0].size, step))


def takes_no_step(self, key, images):
    self.calls.append((key, images[0].size))


def takes_more(self, key, images, step=None, **more):
    self.calls.append((key, images[0].size, step, more["caption"][0]))


def takes_anything(self, **given):
    self.calls.append((given["key"], given["images"][0].size, given["step"], given["caption"][0]))


def takes_one_image(self, name, image, *, step):
    self.calls.append((name, image.size, step))


def takes_one_image_alone(self, name, image):
    self.calls.append((name, image.size))


@pytest.mark.parametrize(
    ("log_image", "given"),
    [
        (takes_step_and_caption, (3, "words")), (takes_a_step, (3,)), (takes_no_step, ()), (takes_more, (3, "words")),
        (takes_anything, (3, "words")), (takes_one_image, (3,)), (takes_one_image_alone, ()),
    ],
)  # fmt: skip
def test_any_logger_with_log_image_gets_what_it_takes(log_image, given):
    logger = type("Own", (Plain,), {"log_image": log_image})()
    (writer,), line = find_writers([logger], "pictures")
    writer.picture(Picture("a/b", PAGES[7], 12, 8, "words"), 3)
    writer.picture(Picture("a/film", FILM, 12, 8, "words"), 3)
    assert logger.calls == [("a/b", (12, 8), *given), ("a/film", (12, 8), *given)] and not line


def test_a_logger_with_log_video_gets_the_path_of_an_animation():
    def log_video(self, key, videos, step=None, caption=None):
        self.calls.append((key, Path(videos[0]).suffix, Path(videos[0]).read_bytes(), step, caption))

    logger = type("Own", (Plain,), {"log_image": takes_a_step, "log_video": log_video})()
    find_writers([logger], "pictures")[0][0].picture(Picture("a/film", FILM, 12, 8, "words"), 3)
    assert logger.calls == [("a/film", ".gif", FILM, 3, ["words"])]


def test_one_log_that_fails_costs_the_others_nothing_and_is_given_up(tmp_path, drawn_at_once):
    def log_image(self, key, images, step=None):
        self.calls.append(step)
        raise ConnectionError("no server")

    broken = type("Broken", (Plain,), {"log_image": log_image})()
    with pytest.warns(ViewWarning) as caught:
        fit(
            tmp_path, ConvNet(), [Watch(every_n_train_steps=1)], logger=[broken, TensorBoardLogger(tmp_path, "", "run")]
        )
    assert [call for call in broken.calls if not isinstance(call, tuple)] == [0, 1, 2]
    assert list(events(tmp_path)["watch/page"]) == [0, 1, 2, 3, 4, 5, 6]
    assert said(caught) == [
        "lightning_viz: Broken could not take a picture: ConnectionError: no server (the run's other logs go on)",
        "lightning_viz: Broken gets no more pictures after 3 failures in a row",
    ]


def test_distributions_are_histograms_of_tensorboard_too(tmp_path, drawn_at_once):
    fit(tmp_path, ConvNet(), [ActivationStatistics(layers="conv1")])
    written = events(tmp_path)["z_statistics/conv1"]
    assert list(written) == [6]  # after the validation pass
    for value in written.values():
        bins = tensor_util.make_ndarray(value.tensor)  # [bins, left, right, count]
        assert value.metadata.plugin_data.plugin_name == "histograms"
        assert (bins[1:, 0] == bins[:-1, 1]).all() and (bins[:, 2] >= 0).all()
        activations = 24 * 4 * 8 * 8
        assert 0.5 * activations < bins[:, 2].sum() <= activations * (1 + 1e-9)


@pytest.mark.parametrize("board", [True, False])
def test_a_run_names_the_command_of_tensorboard_where_there_is_one(board, tmp_path, drawn_at_once, capfd):
    logger = TensorBoardLogger(tmp_path, "", "run") if board else type("Own", (Plain,), {"log_image": takes_a_step})()
    fit(tmp_path, ConvNet(), default_views(), logger=logger)
    assert ("lightning-viz board" in capfd.readouterr().err) == board
