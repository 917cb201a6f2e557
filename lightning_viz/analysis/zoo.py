"""Torchvision's models by name, with how their images are prepared and what their classes are called."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import torch
from torch import nn
from torchvision import models
from torchvision.transforms import _presets

from lightning_viz.analysis.checkpoints import AnalysisError

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
