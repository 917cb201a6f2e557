"""Style transfer as augmentation: a stylized copy of a data set, made once and mixed in (Geirhos et al., 2019)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence, Sized
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from lightning_viz.archive import write_whole
from lightning_viz.dream.parametrization import centered
from lightning_viz.dream.style_transfer import VGG19_CONTENT, VGG19_STYLE, transfer_batch
from lightning_viz.errors import (
    CueConflictWarning,
    InvalidArgumentError,
    InvalidTypeError,
    MalformedFileError,
)
from lightning_viz.hooks.batching import progress_bar
from lightning_viz.hooks.model_state import evaluation_mode, warn_if_training
from lightning_viz.hooks.observe import Forward
from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness.corruptions import from_photos, to_photos

__all__ = ["StylizedDataset", "stylized"]

_MANIFEST = "manifest.json"
_FORMAT = 1
_SAMPLED = 16  # images whose values tell a data set from another


class StylizedDataset(Dataset[Any]):
    """A data set of which a share of the images is replaced by their stylized copies; see `stylized`.

    Which images are replaced depends on the seed and the index alone, so it is the same in all epochs, processes and
    workers; a larger share replaces the same images and more. For each image and its copy in one epoch, use
    ``ConcatDataset([dataset, stylized(dataset, ..., share=1)])``.

    Attributes:
        dataset: the original one.
        folder: holds the manifest and the copies, pixels ``[C, H, W]`` in 0 to 255 in a file each.
        pixel_space: maps the images to pixels.
        share: of the images that are replaced, from 0 to 1.
        seed: of the choice of images and of their styles.
        styles: number of styles.
    """

    def __init__(
        self, dataset: Dataset[Any], folder: Path, *, pixel_space: PixelSpace, share: float, seed: int, styles: int
    ) -> None:
        self.dataset, self.folder, self.pixel_space = dataset, folder, pixel_space
        self.share, self.seed, self.styles = share, seed, styles

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, index: int) -> Any:
        index = self._in_range(index)
        item = self.dataset[index]
        if not self.is_stylized(index):
            return item
        original = _image(item, index)
        copy = from_photos(self.photo(index)[None] / 255, original[None], self.pixel_space)[0]
        if isinstance(item, Tensor):
            return copy
        if hasattr(item, "_replace"):
            return item._replace(**{item._fields[0]: copy})
        return type(item)([copy, *item[1:]])

    def is_stylized(self, index: int) -> bool:
        """Whether the image at an index is replaced."""
        return self._draws(self._in_range(index))[0] < self.share

    def style(self, index: int) -> int:
        """The style of the copy at an index, from 0."""
        return self._draws(self._in_range(index))[1]

    def photo(self, index: int) -> NDArray[np.uint8]:
        """Pixels of the copy at an index, ``[C, H, W]`` in 0 to 255, whether it is mixed in or not.

        Raises:
            MalformedFileError: the file is missing or damaged.
        """
        path = self.path(self._in_range(index))
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise MalformedFileError(f"{path} cannot be read: {error}; delete it and call stylized() again") from error
        return cast("NDArray[np.uint8]", array)

    def path(self, index: int) -> Path:
        """The file of the copy at an index."""
        return self.folder / f"{index // 1000:04d}" / f"{index:07d}.npy"

    def _draws(self, index: int) -> tuple[float, int]:
        """Random numbers of an image: whether it is replaced if below the share, and its style."""
        random = np.random.default_rng([self.seed, index])
        return random.random(), int(random.integers(self.styles))

    def _in_range(self, index: int) -> int:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"index {index} is out of range: the data set has {count} images")
        return index % count


def stylized(
    dataset: Dataset[Any],
    styles: Tensor | Sequence[Tensor],
    *,
    model: nn.Module,
    folder: str | Path,
    share: float = 0.5,
    content_layers: Sequence[str] = VGG19_CONTENT,
    style_layers: Sequence[str] = VGG19_STYLE,
    style_strength: float = 1.0,
    steps: int = 100,
    pixel_space: PixelSpace | None = None,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
    forward: Forward | None = None,
) -> StylizedDataset:
    """Stylized data set: replaces textures by those of random styles, so that shape decides (Geirhos et al., 2019).

    Each image is the content of one style transfer (`lightning_viz.dream.style_transfer`, from the content image, by
    Adam) with one of the styles, drawn at random. Geirhos et al. use AdaIN and paintings instead. Images of one style
    share passes: ``steps + 1`` forward and ``steps`` backward for each batch, and one forward each for its contents and
    its style. The copies are made once: a later call with the same arguments reads them, and a call that was
    interrupted is resumed with the same result. `share` and `progress` may change freely.

    Args:
        dataset: of images ``[C, H, W]`` of one size, or of tuples or lists that begin with one. Without random
            augmentation: augment what the stylized data set returns.
        styles: images as `model` takes them, ``[S, C, h, w]``, or S images ``[C, h, w]`` of any sizes.
        model: for the style transfer; it need not be the model that is trained.
        folder: for the copies and ``manifest.json``, which says how they were made; created if it does not exist.
        share: fraction of the images that are replaced, from 0 to 1.
        content_layers: represent the content (see `style_transfer`).
        style_layers: represent the style.
        style_strength: weight of the style relative to the balanced weight of `style_transfer` for each image.
        steps: number of updates of each image.
        pixel_space: how images and styles map to pixels; they are pixels in [0, 1] if omitted.
        seed: of the choice of images and of their styles, 0 or more.
        batch_size: maximum number of images stylized at a time.
        progress: show a progress bar after a few seconds.
        forward: calls the model, ``forward(model, images)``; ``model(images)`` if omitted.

    Raises:
        LayerNotFoundError: no such layer; the message lists the nearest names.
        InvalidArgumentError: the folder holds copies that were made otherwise; an argument out of range; images of the
            wrong shape, outside the pixel space, or that change between two reads.
        InvalidTypeError: the data set has no length, or its items do not begin with an image.
        MalformedFileError: the manifest cannot be read.
    """
    pixel_space = pixel_space or PixelSpace()
    _check(dataset, styles, share=share, strength=style_strength, steps=steps, seed=seed, batch_size=batch_size)
    for index, style in enumerate(styles):
        if style.dim() != 3:
            raise InvalidArgumentError(f"style {index} is {list(style.shape)}; pass one image each, [C, H, W]")
        centered(style, pixel_space, f"style {index}")
    result = StylizedDataset(dataset, Path(folder), pixel_space=pixel_space, share=share, seed=seed, styles=len(styles))
    settings = {
        "method": "style transfer from the content by Adam (Gatys et al., 2016)",
        "images": _fingerprint(dataset),
        "styles": [_digest(style) for style in styles],
        "model": _model_digest(model),
        "content_layers": list(content_layers),
        "style_layers": list(style_layers),
        "style_strength": style_strength,
        "steps": steps,
        "mean": list(pixel_space.mean),
        "std": list(pixel_space.std),
        "bounds": list(pixel_space.bounds),
        "seed": seed,
        "batch_size": batch_size,
    }
    _claim(result.folder, settings)
    missing = [batch for batch in _batches(result, batch_size) if not all(result.path(i).is_file() for i in batch)]
    if missing:
        warn_if_training(model, CueConflictWarning)
    transfer = partial(
        transfer_batch,
        model,
        content_layers=content_layers,
        style_layers=style_layers,
        style_strength=style_strength,
        steps=steps,
        pixel_space=pixel_space,
        forward=forward,
    )
    with evaluation_mode(model):
        for batch in progress_bar("stylized images", items=missing, shown=progress):
            contents = torch.stack([_image(dataset[index], index) for index in batch])
            inputs = transfer(contents, styles[result.style(batch[0])]).dream.inputs.float()
            for index, photo in zip(batch, to_photos(inputs, pixel_space), strict=True):
                _write(result.path(index), _npy(np.rint(255 * photo).astype(np.uint8)))
    return result


def _batches(data: StylizedDataset, size: int) -> Iterator[list[int]]:
    """Indices of one style each, the same in every call: what an image becomes may depend on its batch by rounding."""
    members: list[list[int]] = [[] for _ in range(data.styles)]
    for index in range(len(data)):
        members[data.style(index)].append(index)
    for indices in members:
        yield from (indices[first : first + size] for first in range(0, len(indices), size))


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write the manifest, or make sure that the one that is there says the same."""
    path = folder / _MANIFEST
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise InvalidArgumentError(f"{folder} holds other files and no {_MANIFEST}; pass an empty or new folder")
        made_by = {"format": _FORMAT, "torch": str(torch.__version__), "settings": settings}
        _write(path, json.dumps(made_by, indent=1).encode())
        return
    try:
        manifest = json.loads(path.read_text())
        before = manifest["settings"]
        known = manifest["format"] == _FORMAT and isinstance(before, dict)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MalformedFileError(f"{path} cannot be read: {error}; pass another folder") from error
    changed = sorted(name for name in {*settings, *before} if before.get(name) != settings.get(name)) if known else []
    if not known:
        raise MalformedFileError(f"{path} is not of format {_FORMAT}; pass another folder")
    if changed:
        differences = "; ".join(
            f"{name} was {_short(before.get(name))}, is {_short(settings.get(name))}" for name in changed
        )
        raise InvalidArgumentError(
            f"{folder} holds copies that were made otherwise: {differences}; pass another folder"
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all, also if several processes write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def _npy(photo: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    np.save(buffer, photo, allow_pickle=False)
    return buffer.getvalue()


def _image(item: Any, index: int) -> Tensor:
    """The image of an item."""
    image = item[0] if isinstance(item, (tuple, list)) and item else item
    if not isinstance(image, Tensor) or image.dim() != 3 or not image.is_floating_point():
        what = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise InvalidTypeError(
            f"item {index} begins with {what}; pass a data set of floating-point images [C, H, W], or of tuples or "
            "lists that begin with one"
        )
    return image


def _fingerprint(dataset: Dataset[Any]) -> dict[str, Any]:
    """Number, shape and a digest of some images."""
    count = len(cast(Sized, dataset))
    chosen = sorted({round(place) for place in np.linspace(0, count - 1, min(count, _SAMPLED)).tolist()})
    images = [_image(dataset[index], index) for index in chosen]
    if not torch.equal(images[0], _image(dataset[chosen[0]], chosen[0])):
        raise InvalidArgumentError(
            f"image {chosen[0]} changes between two reads; pass the data set without random augmentation, and augment "
            "what the stylized one returns"
        )
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise InvalidArgumentError(f"the images are of {len(shapes)} sizes, {sorted(shapes)}; resize them to one")
    return {"count": count, "shape": list(images[0].shape), "digest": _digest(*images)}


def _digest(*tensors: Tensor) -> str:
    """SHA-256 of the values, in their precision and shapes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _model_digest(model: nn.Module) -> str:
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    names = hashlib.sha256("\n".join([str(model), *state]).encode()).hexdigest()
    return f"{type(model).__name__} {hashlib.sha256((names + _digest(*state.values())).encode()).hexdigest()}"


def _check(
    dataset: Dataset[Any],
    styles: Tensor | Sequence[Tensor],
    *,
    share: float,
    strength: float,
    steps: int,
    seed: int,
    batch_size: int,
) -> None:
    if not isinstance(dataset, Sized):
        raise InvalidTypeError(f"the data set is a {type(dataset).__name__} without length; pass a map-style data set")
    if not len(dataset) or not len(styles):
        raise InvalidArgumentError(f"{len(dataset)} images and {len(styles)} styles; pass at least one of each")
    if not 0 <= share <= 1:
        raise InvalidArgumentError(f"share={share} must be from 0 to 1")
    if not 0 < strength < float("inf"):
        raise InvalidArgumentError(f"style_strength={strength} must be positive and finite")
    if steps < 1 or batch_size < 1 or seed < 0:
        raise InvalidArgumentError(
            f"steps={steps}, batch_size={batch_size}, seed={seed}: pass 1 or more steps and images, a seed of 0 or more"
        )
