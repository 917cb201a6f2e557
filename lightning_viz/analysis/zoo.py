"""Torchvision's models by name, with how their images are prepared and what their classes are called."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from lightning_viz.analysis.checkpoints import AnalysisError


@dataclass(frozen=True)
class Pretrained:
    """A model of torchvision.

    Attributes:
        model: with its weights.
        transform: from a PIL image to what it takes.
        classes: their names, in order; empty where they are not known.
    """

    model: nn.Module
    transform: Callable[..., Any]
    classes: tuple[str, ...]


def pretrained(name: str, *, weights: str = "DEFAULT", seed: int = 0) -> Pretrained:
    """A model of torchvision; its weights are downloaded where they are not there yet.

    Args:
        name: as ``torchvision.models.list_models()`` has it.
        weights: name of one of its weights; ``"none"``: random ones, the images as for its default.
        seed: of random ones.

    Raises:
        AnalysisError: there is no such model, no such weights, or no network.
    """
    from torchvision import models

    known = models.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or ["resnet18", "resnet50", "vit_b_16"]
        raise AnalysisError(f"torchvision has no model {name!r}; did you mean {', '.join(near)}?")
    kinds = models.get_model_weights(name)
    random = weights.lower() == "none"
    if not random and weights not in kinds.__members__:
        raise AnalysisError(f"{name} has no weights {weights!r}: it has {', '.join(kinds.__members__)}, none")
    chosen = kinds["DEFAULT" if random else weights]
    torch.manual_seed(seed)
    try:
        model = models.get_model(name, weights=None if random else chosen)
    except (URLError, ConnectionError, TimeoutError) as error:
        raise AnalysisError(
            f"the weights of {name} cannot be downloaded ({error}): go online once, or put {chosen.url} into "
            f"{torch.hub.get_dir()}/checkpoints"
        ) from error
    return Pretrained(model, chosen.transforms(), tuple(chosen.meta.get("categories", ())))
