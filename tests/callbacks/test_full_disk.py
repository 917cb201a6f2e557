"""Pictures leave the last of a disk to others, and take no more than a run gives; a full disk costs no curve."""

import errno
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem

from lightning_viz import Saliency, ViewWarning
from lightning_viz.archive import write_whole
from lightning_viz.callbacks.draw_task import Projection
from lightning_viz.callbacks.free_space import free_space
from lightning_viz.callbacks.log_limits import LimitedWriter, limited
from lightning_viz.callbacks.writers import (
    FolderWriter,
    ImageLoggerWriter,
    TensorBoardWriter,
    find_writers,
)
from lightning_viz.render.page import Picture

from .conftest import ConvNet, Watch, fit, said
from .test_writers import Images, events, number_of

PAGE = Picture("watch/page", b"\x89PNG" + bytes(20_000), 1, 1, "words")


def board(folder):
    return TensorBoardWriter(TensorBoardLogger(folder, name="run", version="").experiment)


def other(folder):
    logger = Images()
    logger.__class__ = type("Kept", (Images,), {"save_dir": str(folder)})
    return ImageLoggerWriter(logger)


@pytest.fixture
def free(monkeypatch):
    """Bytes that are free, as a test sets them."""
    disk = SimpleNamespace(bytes=10e9, asked=[])

    def usage(place):
        disk.asked.append(place)
        return SimpleNamespace(free=disk.bytes)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return disk


def full(monkeypatch, fits, most=1000):
    """From now on a file takes so many bytes of a record, and then no more; records up to `most` bytes fit."""
    append = LocalFileSystem.append

    def broken(self, filename, content, binary_mode=False):
        if len(content) <= most:
            return append(self, filename, content, binary_mode)
        append(self, filename, content[:fits], binary_mode)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalFileSystem, "append", broken)


@pytest.mark.parametrize("make", [board, other, lambda folder: FolderWriter(folder / "pictures")])
def test_pictures_stop_below_the_reserve_with_one_line_and_go_on_when_there_is_room(make, tmp_path, free):
    inner, passed = make(tmp_path), []
    inner.picture = lambda picture, step: passed.append(step)
    inner.scalar = lambda tag, value, step: passed.append((tag, step))
    inner.projection = lambda projection: passed.append(projection.tag)
    (writer,) = limited([inner], [Watch(), Saliency(free_megabytes=300)])
    with pytest.warns(ViewWarning) as caught:
        for step, left in enumerate([10e9, 300.01e6, 0, 10e9]):
            free.bytes = left
            writer.picture(PAGE, step)
            writer.scalar("a", 0.5, step)
            writer.projection(Projection("b", bytes(20_000)))
    assert passed == [0, ("a", 0), "b", ("a", 1), 3, ("a", 3), "b"]
    assert len(said(caught)) == 1
    assert "less than 300 MB of the disk would be left" in said(caught)[0]
    assert len(free.asked) == 12


def test_what_is_queued_takes_room(tmp_path, free):
    inner = board(tmp_path)
    inner._events()._worker._next_flush_time = 0
    queue = inner._events()._byte_queue
    assert inner.queued == 0
    with queue.mutex:  # its thread stands still
        queue.queue.append(bytes(5_000_000))
        assert inner.queued == 5_000_000
        free.bytes = 203e6
        with pytest.warns(ViewWarning, match="less than 200 MB"):
            LimitedWriter(inner, 200, 1000, set()).picture(PAGE, 0)
        queue.queue.clear()


def test_a_run_adds_no_more_than_it_may(tmp_path, drawn_at_once):
    fit(tmp_path / "free", ConvNet(), [Watch(every_n_train_steps=1)])
    sizes = [len(page.image) + len(page.description) for page in drawn_at_once.pictures("watch/page").values()]
    most = sum(sizes[:3]) / 1e6
    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, ConvNet(), [Watch(every_n_train_steps=1, log_megabytes=most)])
    written = events(tmp_path)
    assert list(written["watch/page"]) == [0, 1, 2]
    assert list(written["loss"]) == [0, 1, 2, 3, 4, 5]
    assert said(caught) == [f"lightning_viz: pictures have added {most:g} MB to the log and stop (log_megabytes)"]


@pytest.mark.parametrize(
    ("limits", "name"), [({"free_megabytes": 300}, "free_megabytes"), ({"log_megabytes": 0}, "log_megabytes")]
)
def test_a_limit_is_spoken_of_once_for_all_logs_of_a_run(limits, name, tmp_path, free):
    logs = limited([board(tmp_path), FolderWriter(tmp_path / "pictures")], [Watch(**limits)])
    free.bytes = 250e6
    with pytest.warns(ViewWarning) as caught:
        for step in range(3):
            for log in logs:
                log.picture(PAGE, step)
    assert len(said(caught)) == 1 and said(caught)[0].endswith(f"({name})")


@pytest.mark.parametrize("place", ["missing/a/b", ".", "file"])
def test_free_space_is_that_of_the_nearest_folder_and_unknown_space_is_no_limit(place, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert free_space(tmp_path / place) > 0

    def refuse(place):
        raise PermissionError

    monkeypatch.setattr(shutil, "disk_usage", refuse)
    assert free_space(tmp_path / place) == float("inf")


@pytest.mark.parametrize("fits", [0, 1, 11, 12, 500])
def test_a_picture_that_meets_a_full_disk_is_dropped_whole(fits, tmp_path, monkeypatch):
    logger = TensorBoardLogger(tmp_path, name="run", version="")
    writer = TensorBoardWriter(logger.experiment)
    writer.picture(PAGE, 0)
    logger.experiment.add_scalar("loss", 0.5, 1)
    writer.flush()
    with monkeypatch.context() as patched, pytest.warns(ViewWarning) as caught:
        full(patched, fits)
        writer.picture(PAGE, 2)
        logger.experiment.add_scalar("loss", 0.25, 3)
        writer.flush()
    writer.picture(PAGE, 4)
    logger.finalize("success")
    found = events(tmp_path)
    assert list(found["watch/page"]) == [0, 4]
    assert {step: number_of(value) for step, value in found["loss"].items()} == {1: 0.5, 3: 0.25}
    assert said(caught) == ["lightning_viz: a picture could not be written: [Errno 28] No space left on device"]


def test_the_users_own_error_stays_the_users(tmp_path, monkeypatch):
    logger = TensorBoardLogger(tmp_path, name="run", version="")
    writer = TensorBoardWriter(logger.experiment)
    writer.picture(PAGE, 0)
    writer.flush()
    full(monkeypatch, 3, most=0)
    monkeypatch.setattr("threading.excepthook", lambda _: None)  # TensorBoard's thread ends with it
    with pytest.raises(OSError, match="No space left"):
        logger.experiment.add_scalar("loss", 0.5, 1)
        logger.experiment.flush()


@pytest.mark.parametrize("fits", [0, 1, 500])
def test_a_run_whose_disk_fills_keeps_weights_and_curves(fits, tmp_path, monkeypatch, drawn_at_once):
    plain, watched = ConvNet(), ConvNet()
    fit(tmp_path / "plain", plain, [])
    full(monkeypatch, fits)
    with pytest.warns(ViewWarning, match="could not be written"):
        fit(tmp_path / "watched", watched, [Saliency(every_n_train_steps=1, free_megabytes=0)])
    before, after = events(tmp_path / "plain"), events(tmp_path / "watched")
    for tag in ("loss", "val_loss"):
        assert [(step, number_of(value)) for step, value in before[tag].items()] == [
            (step, number_of(value)) for step, value in after[tag].items()
        ]
    assert all(map(torch.equal, plain.parameters(), watched.parameters()))


def test_a_log_that_is_on_no_local_disk_has_no_reserve(tmp_path, monkeypatch, drawn_at_once, free):
    monkeypatch.chdir(tmp_path)
    free.bytes = 0
    fit(tmp_path, ConvNet(), [Watch()], logger=TensorBoardLogger("memory://logs", name="run", version=""))
    assert drawn_at_once and not free.asked
    assert not list(tmp_path.iterdir())


def test_a_folder_stands_in_for_a_root_that_is_not_local(tmp_path, monkeypatch, drawn_at_once):
    monkeypatch.chdir(tmp_path)
    with pytest.warns(ViewWarning, match="pictures go to"):
        fit("memory://root", ConvNet(), [Watch()], logger=CSVLogger(tmp_path / "csv"))
    assert len(list((tmp_path / "lightning_viz_logs" / "version_0").rglob("*.png"))) == 2
    assert not (tmp_path / "memory:").exists()


def test_a_logger_that_cannot_be_opened_ends_no_run(tmp_path):
    class Refusing(Images):
        @property
        def experiment(self):
            raise PermissionError("read-only")

    writers, line = find_writers([Refusing()], tmp_path / "pictures")
    assert isinstance(writers[0], FolderWriter)
    assert line.startswith("Refusing cannot be opened (read-only): pictures go to")


def test_two_runs_choose_folders_of_their_own(tmp_path):
    folders = [find_writers([], tmp_path)[0][0].folder for _ in range(3)]
    assert [folder.name for folder in folders] == ["version_0", "version_1", "version_2"]


def test_a_log_folder_that_is_deleted_ends_no_run_because_of_a_picture(tmp_path):
    writer = board(tmp_path)
    writer.flush()
    shutil.rmtree(tmp_path / "run")
    with pytest.warns(ViewWarning, match="could not be written"):
        writer.picture(PAGE, 1)
        writer.flush()
    assert not (tmp_path / "run").exists()


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def broken(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    monkeypatch.setattr("pathlib.Path.replace", broken)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a.png", b"abc")
    assert not list(tmp_path.iterdir())
