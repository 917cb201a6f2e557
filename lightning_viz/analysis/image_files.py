"""Images from files: the one place where files are opened as images, whoever made them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lightning_viz.errors import AnalysisError, MalformedFileError, inform
from lightning_viz.plain_text import plain_text

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # by content; EPS would be given to Ghostscript
_MOST_BYTES = 256 * 2**20  # of a file
_MOST_PIXELS = 40_000_000
_LONGEST_SIDE = 30_000
_MOST_ELONGATED = 64  # sides of 1 : 64; scaled to a model's size, longer ones take any memory
_MOST_OF_WEBP = 24_000_000  # pixels, whose decoder keeps several copies
_MOST_IN_PYTHON = 500_000  # pixels where Pillow's decoder is written in Python: BMP of runs, PPM in words
_MOST_SCANS = 64  # of a progressive JPEG; encoders write about ten
_reported: set[str] = set()  # files of several images of which it was said


def read_image(path: Path) -> Image.Image:
    """An image in color, the way up that it was taken; its size is checked before it is decoded.

    Args:
        path: of the file, in a format that its content tells, whatever its name. Of several images in it (an animation,
            pages) the first, which is reported once; of gray of 16 bits the upper 8; colors of
            transparent pixels as they are.

    Raises:
        AnalysisError: there is no such file; a folder, a pipe or a device is none.
        MalformedFileError: it is no image, too large, too long, cut short, or of values that are no gray of 8 or 16
            bits.
    """
    name = plain_text(path)
    if not path.is_file():
        raise AnalysisError(f"there is no file {name}: give an image")
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise MalformedFileError(f"{name} is not read: it has {size:,} bytes, more than {_MOST_BYTES:,}; scale it down")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of large images and of broken metadata
            with Image.open(path, formats=_FORMATS) as image:
                if refusal := _refusal(image, path):
                    raise MalformedFileError(f"{name} is not read: {refusal}")
                several = getattr(image, "is_animated", False) and image.format != "MPO"  # a camera's with a preview
                ImageOps.exif_transpose(image, in_place=True)
                converted = _in_color(image)
    except MalformedFileError:
        raise
    except Image.DecompressionBombError as error:
        raise MalformedFileError(
            f"{name} is not read: it has more than {_MOST_PIXELS:,} pixels; scale it down"
        ) from error
    except Exception as error:  # decoders raise anything
        said = "no image of " + ", ".join(_FORMATS) if isinstance(error, UnidentifiedImageError) else str(error)
        said = plain_text(said or type(error).__name__)
        raise MalformedFileError(f"{name} cannot be read as an image: {said}; repair it or take it away") from error
    if several:
        _report_several(name)
    return converted


def _refusal(image: Image.Image, path: Path) -> str:
    """Why an image is not to be decoded, from its header; empty if it may."""
    width, height = image.size
    pixels, size_text = width * height, f"{width:,} x {height:,} pixels"
    if pixels > _MOST_PIXELS:
        return f"it has {size_text}, more than {_MOST_PIXELS:,}; scale it down"
    if max(width, height) > _LONGEST_SIDE:
        return f"it has {size_text}, a side longer than {_LONGEST_SIDE:,}; crop it or scale it down"
    if max(width, height) > _MOST_ELONGATED * min(width, height):
        return f"it has {size_text}, a side more than {_MOST_ELONGATED} times as long as the other; crop it"
    if image.format == "WEBP" and pixels > _MOST_OF_WEBP:
        return f"it has {size_text}, for WebP more than {_MOST_OF_WEBP:,}; save it as PNG"
    if pixels > _MOST_IN_PYTHON and any(tile[0] in Image.DECODERS for tile in getattr(image, "tile", ())):
        return f"it has {size_text} in a kind of {image.format} that takes long to decode; save it as PNG"
    if image.info.get("progressive") and (scans := path.read_bytes().count(b"\xff\xda")) > _MOST_SCANS:
        return f"it is a JPEG of {scans:,} scans, more than {_MOST_SCANS}; save it anew"
    return ""


def _in_color(image: Image.Image) -> Image.Image:
    """RGB of 8 bits. Pillow cuts 16 bits off at 255, which turns all but the darkest white."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() >= 2**16:
        raise ValueError(f"its values, {levels.min():g} to {levels.max():g}, are no gray of 8 or 16 bits")
    return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")


def _report_several(name: str) -> None:
    if not _reported:
        inform(f"{name} holds several images: of it, and of other such files, the first image is taken")
        _reported.add(name)
