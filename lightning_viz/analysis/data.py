"""Images of a folder, as a model takes them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_viz.analysis.config import ClassSpec, instantiate
from lightning_viz.analysis.files import files_in, listing
from lightning_viz.analysis.image_files import SUFFIXES, read_image
from lightning_viz.callbacks.run import Trainer, give_training_data, package_of
from lightning_viz.errors import AnalysisError, inform
from lightning_viz.pixels import PixelSpace
from lightning_viz.plain_text import plain_text

Data = Any
"""A LightningDataModule, a DataLoader, a data set of samples and labels, a list of batches; or one of them named."""

_BATCH = 64
_LISTED = 2  # images of a detector, which are large


class _Batches(list[Any]):
    """A list of batches: a plain one Lightning takes for one of loaders."""


def data_of(data: Data) -> Any:
    """Data that are named, made; others as they are.

    Raises:
        AnalysisError: they cannot be made.
    """
    return instantiate(data, object, "data") if isinstance(data, ClassSpec) else data


@contextmanager
def loaded(data: Data, pl: Any) -> Iterator[dict[str, Any]]:
    """What ``Trainer.validate`` takes the data from.

    A data module is set up as for training, as it was when views looked live. One without validation data (no
    ``val_dataloader``, or one that gives nothing) gives its training data instead, as views do.

    Args:
        data: not named any more.
        pl: the package of the model.

    Raises:
        AnalysisError: the data module is of the other package.
    """
    if not hasattr(data, "val_dataloader"):
        listed = isinstance(data, Images) and data.listed
        options: dict[str, Any] = {"batch_size": _LISTED, "collate_fn": _as_list} if listed else {"batch_size": _BATCH}
        loader = DataLoader(data, **options) if isinstance(data, Dataset) else data
        batches = isinstance(loader, (list, tuple)) and not any(isinstance(one, DataLoader) for one in loader)
        yield {"dataloaders": _Batches(loader) if batches else loader}
        return
    if not isinstance(data, pl.LightningDataModule):
        raise AnalysisError(f"the data module is of another Lightning than the model: take both from {pl.__name__}")
    set_up, validation = data.setup, data.val_dataloader
    none = getattr(validation, "__func__", None) is pl.LightningDataModule.val_dataloader

    def val_dataloader() -> Any:
        found = None if none else validation()
        if found is None or (isinstance(found, (list, tuple, dict)) and not found):
            inform(f"{type(data).__name__} has no validation data: the samples are training data")
            return data.train_dataloader()
        return found

    before = dict(vars(data))
    data.setup, data.val_dataloader = lambda stage=None: set_up("fit"), val_dataloader
    try:
        yield {"datamodule": data}
    finally:
        for name in ("setup", "val_dataloader"):
            delattr(data, name)
            if name in before:  # of ``LightningDataModule.from_datasets``
                setattr(data, name, before[name])


def bring_training_data(trainer: Trainer, pl_module: Any) -> None:
    """Let a Trainer that validates know the training data too, for views that look at them.

    Args:
        trainer: in validation; it then has a `train_dataloader`, the validation data where there are no others.
        pl_module: its module.
    """
    pl = package_of(pl_module)
    owners = ((trainer.datamodule, pl.LightningDataModule), (pl_module, pl.LightningModule))
    given = (
        owner.train_dataloader()
        for owner, base in owners
        if owner is not None and type(owner).train_dataloader is not base.train_dataloader
    )
    loader = next(given, trainer.val_dataloaders)
    give_training_data(trainer, loader)


class Images(Dataset[Any]):
    """The images of a folder, and of the folders in it: a folder in it is a class.

    Args:
        folder: with images, however deep.
        transform: from a PIL image to what the model takes, ``[C, H, W]``.
        classes: of the model, in order. Folders are matched with them: by name, or in order where there are as many.
            Where they do not match, the images' classes are not known. The folders' names, sorted, if omitted.
        listed: whether the model takes a list of images of their own sizes, as a detector; folders are no classes.

    Attributes:
        classes: names, in order.
        targets: class of each image; None where they are not known.

    Raises:
        AnalysisError: there is no such folder, or no image in it.
    """

    def __init__(
        self,
        folder: Path | str,
        transform: Callable[[Image.Image], Tensor],
        *,
        classes: Sequence[str] = (),
        listed: bool = False,
    ) -> None:
        self._folder, self.transform, self.listed = Path(folder), transform, listed
        if not self._folder.is_dir():
            raise AnalysisError(f"there is no folder {self._folder}: give one with images, --images FOLDER")
        files, links = files_in(self._folder)
        if visible := [link for link in links if not _is_hidden(link, self._folder)]:
            inform(f"{plain_text(visible[0])} is a link to a folder, and such are not followed: give a folder itself")
        self._paths = [path for path in files if path.suffix.lower() in SUFFIXES and not _is_hidden(path, self._folder)]
        if not self._paths:
            raise AnalysisError(f"the folder {self._folder} holds no image ({', '.join(SUFFIXES)})")
        parts = [path.relative_to(self._folder).parts for path in self._paths]
        folders = sorted({part[0] for part in parts if len(part) > 1}) if all(len(part) > 1 for part in parts) else []
        self.classes = list(classes) or folders
        numbers = None if listed else _matched(folders, classes)
        self.targets = None if numbers is None else [numbers[part[0]] for part in parts]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        image = self.transform(read_image(self._paths[index]))
        return image if self.targets is None else (image, self.targets[index])

    def identity(self) -> list[Any]:
        """What tells these images from others: files, sizes, times, classes, and how they are prepared."""
        return [listing(self._folder, self._paths), self.classes, self.targets, repr(self.transform)]


def _as_list(images: list[Tensor]) -> tuple[list[Tensor]]:
    """A batch of a detector's images, each of its own size."""
    return (images,)


def fitting(size: int, pixel_space: PixelSpace, *, gray: bool = False) -> Callable[[Image.Image], Tensor]:
    """A transform to square images that a model takes.

    Args:
        size: of a side, in pixels: the shorter side is scaled to it, the longer one cropped.
        pixel_space: by whose mean and deviation the images are normalized.
        gray: whether the model takes one channel.
    """
    from torchvision import transforms  # which takes a while to import

    sized = [*([transforms.Grayscale()] if gray else []), transforms.Resize(size), transforms.CenterCrop(size)]
    scaled = [transforms.ToTensor(), transforms.Normalize(list(pixel_space.mean), list(pixel_space.std))]
    found: Callable[[Image.Image], Tensor] = transforms.Compose(sized + scaled)
    return found


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)  # .ipynb_checkpoints is no class


def _matched(folders: Sequence[str], classes: Sequence[str]) -> dict[str, int] | None:
    """Each folder's class, by name or else in order; None where they cannot be told."""
    names = [_plain(name) for name in classes]
    strange = [folder for folder in folders if names.count(_plain(folder)) != 1]  # in none of the classes, or in two
    if folders and not strange:
        return {folder: names.index(_plain(folder)) for folder in folders}
    if len(folders) > 1 and len(classes) in (0, len(folders)):
        return {folder: number for number, folder in enumerate(folders)}
    if strange and classes:
        near = difflib.get_close_matches(_plain(strange[0]), sorted(set(names)), n=3)
        hint = f"; near: {', '.join(near)}" if near else ""
        inform(f"no single class of the model is called {strange[0]!r}: the images' classes are not known{hint}")
    return None


def _plain(name: str) -> str:
    """As people and folders write a name: ``Tiger_Shark`` is ``tiger shark``."""
    return " ".join(name.replace("_", " ").replace("-", " ").lower().split())
