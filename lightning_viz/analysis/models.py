"""Models and their checkpoints: networks with the weights of a run.

Checkpoints are found, read without running anything that is in them, and put in order.
"""

from __future__ import annotations

import difflib
import inspect
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_viz.analysis.checkpoint_schema import TENSORS, check_archive, check_content
from lightning_viz.analysis.config import ClassSpec, RecordedClass, accepted_arguments, instantiate
from lightning_viz.analysis.files import files_in
from lightning_viz.analysis.sharded_checkpoint import METADATA, REST, is_sharded_checkpoint, read_sharded_weights
from lightning_viz.callbacks.probe import Samples
from lightning_viz.callbacks.run import completed_updates, package_of
from lightning_viz.callbacks.serialization import CLASSES
from lightning_viz.errors import AnalysisError, MalformedFileError
from lightning_viz.hooks.layers import named_layers
from lightning_viz.hooks.pytree import all_tensors
from lightning_viz.plain_text import plain_text

__all__ = ["read_checkpoint"]


_SUFFIXES = (".ckpt", ".pt", ".pth")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        path: of the file.
        content: as Lightning saved it; of a file of weights alone ``{"state_dict": ...}``.
    """

    path: Path
    content: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Completed updates of the weights: the x of the run's own curves."""
        return completed_updates(self.content)

    @property
    def state_dict(self) -> Mapping[str, torch.Tensor]:
        """The weights."""
        found: Mapping[str, torch.Tensor] = self.content["state_dict"]
        return found

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """What the module kept with ``save_hyperparameters()``, without Lightning's own marks.

        Of ``save_hyperparameters(config)`` each of its values, and the whole by the name of the argument.
        """
        kept = self.content.get("hyper_parameters")
        own = {name: value for name, value in kept.items() if _is_own(name)} if isinstance(kept, Mapping) else {}
        whole = self.content.get("hparams_name")
        return {whole: own, **own} if isinstance(whole, str) and _is_own(whole) and whole != "kwargs" else own


def read_checkpoint(path: Path | str, *, trusted: bool = False, mapped: bool = False) -> Checkpoint:
    """Load a checkpoint onto the CPU; nothing in it is run, and what is read of it has the form that it must have.

    Args:
        path: of the file, or of the folder in which several processes have saved their shards, which are put together.
        trusted: load it also if it holds more than tensors and plain values, which runs whatever code it names.
        mapped: leave the weights on the disk until they are asked for (to read the step, say).

    Raises:
        AnalysisError: no such file, or more in it than weights.
        MalformedFileError: it is no checkpoint, cut short, or one of wrong types (see `checkpoint_schema`).
    """
    path = Path(path)
    name = plain_text(path)
    if is_sharded_checkpoint(path):
        return Checkpoint(path, _content_of_shards(path, trusted=trusted))
    if path.is_dir():
        raise AnalysisError(
            f"{name} is a folder, and no checkpoint in shards: give the file that ModelCheckpoint saved"
        )
    if not path.is_file():
        raise AnalysisError(f"there is no checkpoint {name}: give the file that ModelCheckpoint saved")
    content = _content(path, trusted=trusted, mapped=mapped)
    checkpoint = check_content(content, path)
    if zipfile.is_zipfile(path) and not trusted and not mapped:  # the file may be written anew
        checkpoint = {**checkpoint, **{name: deepcopy(checkpoint[name]) for name in TENSORS if name in checkpoint}}
    return Checkpoint(path, checkpoint)


def _content_of_shards(folder: Path, *, trusted: bool) -> Mapping[str, Any]:
    """What several processes have saved in a folder: their weights, and what Lightning has put into a file beside."""
    rest = _content(folder / REST, trusted=trusted, mapped=False) if (folder / REST).is_file() else {}
    if not isinstance(rest, Mapping):
        name = plain_text(folder)
        raise MalformedFileError(f"{name} cannot be read as a checkpoint: its {REST} is no mapping; copy it again")
    size = sum(file.stat().st_size for file in files_in(folder)[0])
    return check_content({**deepcopy(dict(rest)), "state_dict": read_sharded_weights(folder)}, folder, size)


def _content(path: Path, *, trusted: bool, mapped: bool) -> Any:
    """What a file holds, as far as it is tensors and plain values."""
    name = plain_text(path)
    try:
        check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # another's file: it is refused in our words
            # Otherwise torch reads beyond what it has of a weight whose entry is shorter than the weight says.
            on_disk = zipfile.is_zipfile(path) and (mapped or not trusted)
            return torch.load(path, map_location="cpu", weights_only=not trusted, mmap=on_disk)
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except MalformedFileError:
        raise
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
        size = path.stat().st_size
        raise MalformedFileError(
            f"{name} ({size:,} bytes) cannot be read as a checkpoint: it is cut short or of another kind; copy it again"
        ) from error
    except Exception as error:  # a pickle's instructions in an order that nobody wrote raise anything
        said = plain_text(f"{type(error).__name__}: {error}")
        raise MalformedFileError(f"{name} cannot be read as a checkpoint: {said}") from error


def find_checkpoints(places: Iterable[Path | str]) -> list[Path]:
    """The checkpoints at some places: files as they are, of a folder all that lie in it, however deep.

    Args:
        places: files, run folders, folders of checkpoints.

    Raises:
        AnalysisError: there is none.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir() and not is_sharded_checkpoint(place):
            inside = [
                path.parent if is_sharded_checkpoint(path.parent) else path
                for path in files_in(place)[0]
                if path.suffix in _SUFFIXES or path.name == METADATA
            ]
            if not inside:
                kinds = ", ".join(_SUFFIXES)
                raise AnalysisError(f"the folder {place} holds no checkpoint ({kinds}): give a run's folder, or a file")
            found += inside
        else:
            found.append(place)
    return list(dict.fromkeys(found))


def recorded_class(places: Iterable[Path | str], what: str, *, trusted: bool = False) -> RecordedClass | None:
    """The class of model or data that a run's views left in its last checkpoint; None where they did not.

    Args:
        places: files, run folders, folders of checkpoints.
        what: ``"model"`` or ``"data"``.
        trusted: read also checkpoints that hold more than weights.
    """
    try:
        path = find_checkpoints(places)[-1]
        classes = read_checkpoint(path, trusted=trusted, mapped=True).content.get(CLASSES)
    except AnalysisError:
        return None  # which is told where the checkpoint is needed
    name = classes.get(what) if isinstance(classes, Mapping) else None
    return RecordedClass(path, name) if isinstance(name, str) else None


def in_order(paths: Iterable[Path], *, trusted: bool = False) -> dict[int, Path]:
    """By step, the checkpoints of a run; of several with the same weights (``last.ckpt`` beside another) the first.

    Args:
        paths: of the files.
        trusted: see `read_checkpoint`.

    Raises:
        AnalysisError: two of one step with different weights: they are not of one run.
    """
    steps: dict[int, Checkpoint] = {}
    for path in sorted(paths, key=lambda path: (path.stem.startswith("last"), str(path))):
        found = read_checkpoint(path, trusted=trusted, mapped=True)
        before = steps.setdefault(found.step, found)
        if before is not found and not _same_weights(before, found):
            raise AnalysisError(
                f"{plain_text(before.path)} and {plain_text(path)} are both of step {found.step:,} and hold different "
                "weights: give the checkpoints of one run, or compare them (--compare)"
            )
    return {step: found.path for step, found in sorted(steps.items())}


def _is_own(name: Any) -> bool:
    """Whether a hyper-parameter is the module's, no mark of Lightning's (``_class_path``, ``_instantiator``)."""
    return isinstance(name, str) and not name.startswith("_")


def _same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    first, second = one.state_dict, other.state_dict
    return first.keys() == second.keys() and all(
        weight.equal(second[name]) for name, weight in first.items() if isinstance(weight, torch.Tensor)
    )


def _refusal(path: Path, error: Exception) -> AnalysisError:
    """Why a file is not loaded that torch would load only by running what its pickle names, or not at all."""
    trust = "If you trust where the file comes from, add --trust (trusted=True)"
    if not _names_code(path):
        return MalformedFileError(
            f"{plain_text(path)} cannot be read as a checkpoint: its pickle is not one of tensors and plain values as "
            f"torch.save writes it. {trust}"
        )
    named = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
    what = f"it names {named[1]}" if named else "it is a pickle of more than tensors"
    return AnalysisError(f"{plain_text(path)} is not loaded: {what}, and loading that would run code. {trust}")


def _names_code(path: Path) -> bool:
    """Whether a file's pickle names more than torch's own parts of tensors, as far as that can be told."""
    if not zipfile.is_zipfile(path):
        return True
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # its instructions are none that torch.save writes
        return False
    return not all(name.startswith("torch._utils._rebuild_") for name in named)  # torch 2.15 takes no nested tensors


Model = nn.Module | type[nn.Module] | ClassSpec
"""An instance, whose weights are replaced; a class; or a class path with init args."""


def network(model: Model, checkpoint: Checkpoint | None) -> nn.Module:
    """A network with a checkpoint's weights, in eval mode.

    Of a class, what the module kept with ``save_hyperparameters()`` are the arguments, as far as none are given.

    Args:
        model: what it is.
        checkpoint: of which the weights are; None: as they are.

    Raises:
        AnalysisError: the model cannot be made, or the checkpoint is not of such a model.
    """
    kept = {} if checkpoint is None else checkpoint.hyper_parameters
    if isinstance(model, nn.Module):
        found = model
    elif isinstance(model, type):
        found = _of_class(model, kept)
    else:
        found = instantiate(model, nn.Module, "model", kept)
    if isinstance(found, package_of(found).LightningModule):
        with _in_own_code(found, "configure_model"):
            found.configure_model()  # as Lightning does before it loads weights
    if checkpoint is not None:
        _load(found, checkpoint)
    return found.eval()


class _Wrapper:
    """Marks a LightningModule that `for_trainer` made of another module."""

    net: nn.Module


def for_trainer(net: nn.Module) -> Any:
    """A network that a Trainer can validate: itself, or wrapped if it is no LightningModule."""
    pl = package_of(net)
    if isinstance(net, pl.LightningModule):
        return net

    class Wrapped(_Wrapper, pl.LightningModule):  # type: ignore[misc, name-defined]
        """Gives a network what a Trainer asks for."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.net(*args, **kwargs)

    return Wrapped()


def network_of(pl_module: Any) -> nn.Module:
    """The network that `for_trainer` was given."""
    net: nn.Module = pl_module.net if isinstance(pl_module, _Wrapper) else pl_module
    return net


def _of_class(model: type[nn.Module], kept: Mapping[str, Any]) -> nn.Module:
    try:
        return model(**accepted_arguments(model, kept))
    except Exception as error:
        said = str(error) if isinstance(error, TypeError) else f"{type(error).__name__}: {error}"
        raise AnalysisError(
            f"{model.__name__} cannot be made: {' '.join(said.split())}; give an instance, or call "
            "save_hyperparameters() in its __init__ so that checkpoints know its arguments"
        ) from error


def _load(net: nn.Module, checkpoint: Checkpoint) -> None:
    weights = checkpoint.state_dict
    if isinstance(net, package_of(net).LightningModule):
        with _in_own_code(net, "on_load_checkpoint"):
            net.on_load_checkpoint(dict(checkpoint.content))
    own = net.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    both = [(name, own[name], weights[name]) for name in own if name in weights]
    shapes = [name for name, mine, saved in both if not _fits(mine, saved)]
    kinds = [name for name, mine, saved in both if name not in shapes and not _is_of_kind(mine, saved)]
    strict = getattr(net, "strict_loading", True)
    if shapes or kinds or (strict and (missing or unexpected)):
        faults = {
            "weights missing": missing,
            "unexpected": unexpected,
            "of another shape": shapes,
            "of another kind of numbers": kinds,
        }
        listed = "; ".join(
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for what, names in faults.items()
            if names
        )
        raise AnalysisError(
            f"{plain_text(checkpoint.path)} is not of {type(net).__name__}: {plain_text(listed)}; give the model that "
            "was trained, with its arguments"
        )
    with _in_own_code(net, "load_state_dict"):
        net.load_state_dict(dict(weights), strict=strict)


@contextmanager
def _in_own_code(net: nn.Module, method: str) -> Iterator[None]:
    """Say what a module's own code says of a checkpoint."""
    try:
        yield
    except Exception as error:
        said = plain_text(" ".join(f"{type(error).__name__}: {error}".split()))
        raise AnalysisError(
            f"{type(net).__name__}.{method} fails with this checkpoint ({said}): give the model that was trained, with "
            "its arguments"
        ) from error


def _fits(own: Any, saved: Any) -> bool:
    """Whether a saved weight may take the place of a model's own; a lazy one takes any, an extra state is no weight."""
    if not isinstance(own, Tensor) or not isinstance(saved, Tensor) or is_lazy(own):
        return True
    return own.shape == saved.shape


def _is_of_kind(own: Any, saved: Any) -> bool:
    """Whether nothing is lost: real numbers come neither from complex ones nor from whole ones, which may be codes."""
    if not isinstance(own, Tensor) or not isinstance(saved, Tensor) or is_lazy(own):
        return True
    return saved.is_floating_point() if own.is_floating_point() else own.is_complex() or not saved.is_complex()


@dataclass(frozen=True)
class Pretrained:
    """A model of torchvision, before it is loaded.

    Attributes:
        name: as ``torchvision.models.list_models()`` has it.
        weights: one of the enumeration of its weights; None: random ones.
        transform: from a PIL image to what it takes.
        classes: their names, in order; empty where they are not known.
    """

    name: str
    weights: Any
    transform: Callable[..., Any]
    classes: tuple[str, ...]

    @property
    def detects(self) -> bool:
        """Whether it is a detector, which takes a list of images."""
        from torchvision.transforms._presets import ObjectDetection

        return isinstance(self.transform, ObjectDetection)

    def load(self, seed: int = 0) -> nn.Module:
        """The model with its weights, downloaded where they are not there yet.

        Args:
            seed: of random ones.

        Raises:
            AnalysisError: there is no network.
        """
        from torchvision import models  # which takes a while to import

        torch.manual_seed(seed)
        takes = inspect.signature(models.get_model_builder(self.name)).parameters
        parts: dict[str, Any] = {"weights_backbone": None} if "weights_backbone" in takes else {}  # else downloaded
        try:
            found: nn.Module = models.get_model(self.name, weights=self.weights, **parts)
        except (URLError, ConnectionError, TimeoutError) as error:
            raise AnalysisError(
                f"the weights of {self.name} cannot be downloaded ({error}): go online once, or put "
                f"{self.weights.url} into {torch.hub.get_dir()}/checkpoints"
            ) from error
        return found


def pretrained(name: str, weights: str = "DEFAULT") -> Pretrained:
    """A model of torchvision by its name.

    Args:
        name: as ``torchvision.models.list_models()`` has it.
        weights: name of one of its weights; ``"none"``: random ones, the images as for its default.

    Raises:
        AnalysisError: there is no such model, no such weights, or it is one of videos or of pairs of images.
    """
    from torchvision import models
    from torchvision.transforms._presets import ImageClassification, ObjectDetection, SemanticSegmentation

    known = models.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or ["resnet18", "resnet50", "vit_b_16"]
        raise AnalysisError(f"torchvision has no model {name!r}; did you mean {', '.join(near)}?")
    kinds = models.get_model_weights(name)
    random = weights.lower() == "none"
    if not random and weights not in kinds.__members__:
        raise AnalysisError(f"{name} has no weights {weights!r}: it has {', '.join(kinds.__members__)}, none")
    chosen = kinds["DEFAULT" if random else weights]
    transform = chosen.transforms()
    if not isinstance(transform, (ImageClassification, ObjectDetection, SemanticSegmentation)):
        raise AnalysisError(f"{name} takes no single images: name a model of torchvision that does, say resnet50")
    classes = tuple(chosen.meta.get("categories", ()))
    return Pretrained(name, None if random else chosen, transform, classes)


def describe(model: nn.Module, samples: Samples) -> dict[str, Any]:
    """Class, size and layers of a model, input and classes of samples of its data."""
    layers = [
        {"name": name, "kind": type(layer).__name__, "parameters": sum(x.numel() for x in layer.parameters())}
        for name, layer in named_layers(model).items()
        if not any(layer.children())
    ]
    return {
        "class": type(model).__name__,
        "parameters": sum(x.numel() for x in model.parameters()),
        "input": [list(x.shape[1:]) for x in all_tensors(samples.inputs)],
        "classes": list(samples.class_names),
        "layers": layers,
    }
