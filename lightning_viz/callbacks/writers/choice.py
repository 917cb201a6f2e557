"""The writers for a run's loggers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from lightning_viz.callbacks.writers.comet_log import CometWriter, is_comet
from lightning_viz.callbacks.writers.folder import FolderWriter
from lightning_viz.callbacks.writers.image_logger import ImageLoggerWriter
from lightning_viz.callbacks.writers.mlflow_log import MLflowWriter, is_mlflow
from lightning_viz.callbacks.writers.protocol import Writer
from lightning_viz.callbacks.writers.tensorboard_log import TensorBoardWriter
from lightning_viz.callbacks.writers.wandb_log import WandbWriter, wandb_client


def find_writers(loggers: Sequence[Any], fallback: Path) -> tuple[list[Writer], str]:
    """The writers for a run's loggers, chosen by what the loggers can do, and a line to report if none takes images.

    Args:
        loggers: of the trainer, of either package.
        fallback: where a folder for the pictures is made, ``version_<n>``, if no logger takes images.
    """
    boards: list[Writer] = []
    others: list[Writer] = []
    why = "no logger takes images"
    for logger in loggers:
        if type(logger).__name__ == "DummyLogger":  # claims to be able to do anything
            continue
        try:
            experiment = getattr(logger, "experiment", None)
            if getattr(experiment, "disabled", False) is True:  # of Weights & Biases, and of Comet
                why = f"{type(logger).__name__} is disabled"
                continue
            writer = _writer_of(logger, experiment)
        except Exception as error:  # its folder cannot be made: the user's own call will tell
            why = f"{type(logger).__name__} cannot be opened ({error})"
            continue
        if writer is not None:
            (boards if isinstance(writer, TensorBoardWriter) else others).append(writer)
    if boards or others:
        return boards + others, ""
    folder = new_folder(fallback)
    return [FolderWriter(folder)], f"{why}: pictures go to {folder}"


def _writer_of(logger: Any, experiment: Any) -> Writer | None:
    """The writer for a logger, by what its experiment can do; None if it takes no images."""
    if hasattr(experiment, "_get_file_writer") and isinstance(getattr(experiment, "log_dir", None), (str, os.PathLike)):
        return TensorBoardWriter(experiment)
    if (client := wandb_client(experiment)) is not None:
        return WandbWriter(logger, client)
    if is_mlflow(logger, experiment):
        return MLflowWriter(logger)
    if is_comet(experiment):
        return CometWriter(logger)
    return ImageLoggerWriter(logger) if callable(getattr(logger, "log_image", None)) else None


def new_folder(root: Path) -> Path:
    """A folder ``version_<n>`` that no other run has, made below another.

    Args:
        root: of them.
    """
    return next(filter(_made, (root / f"version_{number}" for number in count())))


def _made(folder: Path) -> bool:
    """Make a folder that no other run has; that it cannot be made shows when it is written to."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        return not isinstance(error, FileExistsError)
    return True
