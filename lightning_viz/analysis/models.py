"""Networks to be analyzed: a LightningModule as it was trained, or any other module, for Lightning to run."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torchvision import models
from torchvision.transforms import _presets

from lightning_viz.analysis.checkpoints import Checkpoint
from lightning_viz.analysis.config import ClassSpec, accepted_arguments, instantiate
from lightning_viz.callbacks.probe import Samples
from lightning_viz.callbacks.run import package_of
from lightning_viz.errors import AnalysisError
from lightning_viz.hooks.layers import named_layers
from lightning_viz.hooks.pytree import all_tensors

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
        found.configure_model()  # as Lightning does before it loads weights
    if checkpoint is not None:
        _load(found, checkpoint)
    return found.eval()


class _Wrapper:
    """Marks a LightningModule that `for_trainer` made of another module."""

    net: nn.Module


def for_trainer(net: nn.Module) -> Any:
    """A network that a Trainer can validate: itself, or wrapped if it is no LightningModule.

    Args:
        net: of any kind.
    """
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
    """What `for_trainer` was given.

    Args:
        pl_module: what it made of it.
    """
    net: nn.Module = pl_module.net if isinstance(pl_module, _Wrapper) else pl_module
    return net


def _of_class(model: type[nn.Module], kept: Mapping[str, Any]) -> nn.Module:
    try:
        return model(**accepted_arguments(model, kept))
    except TypeError as error:
        raise AnalysisError(
            f"{model.__name__} cannot be made: {error}; give an instance, or call save_hyperparameters() in its "
            "__init__ so that checkpoints know its arguments"
        ) from error


def _load(net: nn.Module, checkpoint: Checkpoint) -> None:
    weights = checkpoint.state_dict
    if isinstance(net, package_of(net).LightningModule):
        net.on_load_checkpoint(dict(checkpoint.content))
    own = net.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    other = [name for name in own if name in weights and not _fits(own[name], weights[name])]
    strict = getattr(net, "strict_loading", True)
    if other or (strict and (missing or unexpected)):
        said = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for names, what in ((missing, "weights missing"), (unexpected, "unexpected"), (other, "of another shape"))
            if names
        ]
        raise AnalysisError(
            f"{checkpoint.path} is not of {type(net).__name__}: {'; '.join(said)}; give the model that was trained, "
            "with its arguments"
        )
    net.load_state_dict(dict(weights), strict=strict)


def _fits(own: Any, saved: Any) -> bool:
    """Whether a saved weight may take the place of a model's own; a lazy one takes any, an extra state is no weight."""
    if not isinstance(own, Tensor) or not isinstance(saved, Tensor) or is_lazy(own):
        return True
    return own.shape == saved.shape


_OF_IMAGES = (_presets.ImageClassification, _presets.ObjectDetection, _presets.SemanticSegmentation)


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

    def load(self, seed: int = 0) -> nn.Module:
        """The model with its weights, downloaded where they are not there yet.

        Args:
            seed: of random ones.

        Raises:
            AnalysisError: there is no network.
        """
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
    if not isinstance(transform, _OF_IMAGES):
        raise AnalysisError(f"{name} takes no single images: name a model of torchvision that does, say resnet50")
    classes = tuple(chosen.meta.get("categories", ()))
    return Pretrained(name, None if random else chosen, transform, classes)


def describe(model: nn.Module, samples: Samples) -> dict[str, Any]:
    """Class, size, layers, input and classes of a model.

    Args:
        model: any module.
        samples: of its data.
    """
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
