"""The view of the lines that a network's first units draw in the plane."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.schedule import Steps
from lightning_viz.callbacks.snapshot import INPUT, Requirements, Snapshot
from lightning_viz.callbacks.view import View
from lightning_viz.errors import InvalidArgumentError, ViewError
from lightning_viz.hooks.observe import observe
from lightning_viz.hooks.outputs import class_probabilities
from lightning_viz.parameters import count_units, importance, plane_layers
from lightning_viz.render.decision_regions import DecisionRegions
from lightning_viz.render.hyperplanes import hyperplanes, zero_sets

__all__ = ["Hyperplanes"]

_MARGIN = 0.15  # of the samples' range, on each side


class Hyperplanes(View):
    """For a perceptron on the plane, where each hidden unit changes sign (tag ``hyperplanes/<layer>``).

    The first layer's units are lines, with small triangles on the side where the unit is on, drawn over the samples and
    the network's decision regions, which are paler where their class is less probable; fainter where a unit weighs
    little in what follows. By default at logarithmic steps, and as an animation at the end.

    Args:
        deeper: also the zero sets of deeper hidden units, which are piecewise linear.
        samples: how many of the data set's to draw.
        grid: points along each side at which the decision regions are found, 2 or more; between them the logarithms of
            the probabilities are interpolated.
    """

    steps: Steps = "log"
    animation: bool = True
    deeper: bool = False
    samples: int = 500
    grid: int = 160

    kind: ClassVar[str] = "hyperplanes"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid < 2:
            raise InvalidArgumentError(f"grid is {self.grid}: give 2 or more")

    def check(self, model: nn.Module) -> None:
        """The model must take the plane."""
        if not plane_layers(model):
            raise ViewError(
                "the model's input is not the plane: Hyperplanes is for perceptrons whose first layer is "
                "nn.Linear(2, units)"
            )

    def requirements(self, model: nn.Module) -> Requirements:
        """Two layers' weights and the samples; no forward beyond the view's own."""
        first, *following = plane_layers(model)[:2]
        weights = (f"{first}.weight", f"{first}.bias", *(f"{name}.weight" for name in following))
        return Requirements(vectors=(INPUT,), population=self.samples, weights=weights)

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """The network's answers over the plane, and for the samples."""
        points = snapshot.observation.reduced[INPUT][: self.samples]  # others may have asked for more
        if points.shape[1] != 2:
            raise ViewError(f"the samples have {points.shape[1]} values each, the plane has two")
        extent = self.state.setdefault("extent", _extent(points))
        like = next(model.parameters())
        plane = torch.cat([_grid(extent, self.grid), points]).to(like.device, like.dtype)
        seen = observe(model, plane, layers=plane_layers(model)[1:-1] if self.deeper else ())
        if seen.outputs is None or seen.meaning is None or not seen.meaning.classifies:
            raise ViewError("the model's output is not of classes, so there are no regions of theirs to draw")
        shares = class_probabilities(seen.outputs, seen.meaning).cpu()
        answers, cells = shares.argmax(1), self.grid**2
        deeper = {name: values[:cells].float().cpu() for name, values in seen.activations.items()}
        return {"regions": self._regions(shares[:cells]), "answers": answers[cells:], "deeper": deeper}

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """The lines, and a page for each deeper layer."""
        weights = snapshot.requirements.weights
        first = weights[0].removesuffix(".weight")
        weight = snapshot.observation.weights[f"{first}.weight"]
        bias = snapshot.observation.weights.get(f"{first}.bias", torch.zeros(len(weight)))
        following = [snapshot.observation.weights[name] for name in weights[2:]]
        matters = (
            importance(following[0]) if following and following[0].shape[1] == len(weight) else torch.ones(len(weight))
        )
        points, extent = snapshot.observation.reduced[INPUT][: self.samples], self.state["extent"]
        labels = None if snapshot.observation.labels is None else snapshot.observation.labels[: len(points)]
        shown = None if self.private else labels
        shared = {
            "step": snapshot.step,
            "samples": points[: 0 if self.private else None].numpy(),
            "labels": None if shown is None else shown.numpy(),
            "extent": extent,
            "regions": snapshot.extra["regions"],
            "class_names": snapshot.samples.class_names or None,
        }
        accuracy = None if labels is None else (snapshot.extra["answers"] == labels).float().mean().item()
        yield DrawTask(
            hyperplanes,
            {
                **shared,
                "tag": f"{self.kind}/{first}",
                "layer": first,
                "weights": weight.numpy(),
                "biases": bias.numpy(),
                "importance": matters.numpy(),
                "counts": count_units(weight, bias, points, extent),
                "accuracy": accuracy,
            },
        )
        for name, values in snapshot.extra["deeper"].items():
            maps = values.T.reshape(-1, self.grid, self.grid).numpy()
            yield DrawTask(zero_sets, {**shared, "tag": f"{self.kind}/{name}", "layer": name, "values": maps})

    def _regions(self, probabilities: Tensor) -> DecisionRegions:
        """Of the classes' probabilities ``[grid * grid, K]`` those of classes that are predicted anywhere."""
        classes = np.unique(probabilities.argmax(1).numpy())
        logarithms = probabilities.T[classes].clamp_min(torch.finfo(probabilities.dtype).tiny).log()
        return DecisionRegions(classes, logarithms.view(-1, self.grid, self.grid).numpy(), probabilities.shape[1])


def _extent(points: Tensor) -> tuple[float, float, float, float]:
    """A square around the samples: equal axes."""
    finite = points[torch.isfinite(points).all(1)]
    low, high = finite.amin(0), finite.amax(0)
    center, half = (low + high) / 2, ((high - low).max() / 2 * (1 + 2 * _MARGIN)).clamp_min(1e-6)
    (x0, y0), (x1, y1) = (center - half).tolist(), (center + half).tolist()
    return x0, x1, y0, y1


def _grid(extent: tuple[float, float, float, float], count: int) -> Tensor:
    """Points ``[count * count, 2]``, row by row from the lowest y."""
    x0, x1, y0, y1 = extent
    y, x = torch.meshgrid(torch.linspace(y0, y1, count), torch.linspace(x0, x1, count), indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)
