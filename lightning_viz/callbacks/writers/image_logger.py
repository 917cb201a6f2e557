"""Any logger that has ``log_image``."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from typing import Any

from PIL import Image

from lightning_viz.callbacks.writers.base import BaseWriter
from lightning_viz.callbacks.writers.log_files import local_path, picture_file
from lightning_viz.plain_text import plain_text
from lightning_viz.render.page import Picture


class ImageLoggerWriter(BaseWriter):
    """A Lightning logger with ``log_image(key, images, step=None, caption=None)``, as `WandbLogger` has it.

    The step and the caption are left out where the logger does not take them; ``log_image(name, image)``, of one image,
    will do as well. An animation is handed to ``log_video``, the path of a GIF in place of the image, if there is one.

    Attributes:
        queued: bytes that wait to be written.
        folder: of what it keeps on this machine, if anything.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self.queued = 0
        self.folder = local_path(getattr(logger, "save_dir", None))

    def picture(self, picture: Picture, step: int) -> None:
        """Log an image, or an animation, with its caption."""
        log_video = getattr(self._logger, "log_video", None)
        if picture.kind == "gif" and callable(log_video):
            with picture_file(picture) as path:
                _call(log_video, picture, str(path), step)
        else:
            _call(self._logger.log_image, picture, Image.open(io.BytesIO(picture.image)), step)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Log a number."""
        self._logger.log_metrics({plain_text(tag): value}, step=step)


def _call(log: Callable[..., Any], picture: Picture, content: Any, step: int) -> None:
    """Hand one image or video to a logger's function, with what else it takes."""
    try:
        parameters = inspect.signature(log).parameters
    except (TypeError, ValueError):  # not written in Python
        parameters = inspect.signature(_as_wandb_logger).parameters
    more = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    named = [name for name, each in parameters.items() if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    tag, caption = plain_text(picture.tag), picture.description
    if not named:  # takes anything, by the names that Lightning's loggers have
        log(key=tag, images=[content], step=step, caption=[caption])
        return
    several = named[1:2] in (["images"], ["videos"])
    options: dict[str, Any] = {"step": step} if "step" in named else {}
    if more or "caption" in named:
        options["caption"] = [caption] if several else caption
    log(tag, [content] if several else content, **options)


def _as_wandb_logger(key: str, images: list[Any], step: int | None = None, **options: Any) -> None:
    """What a logger's ``log_image`` looks like."""
