"""What was seen of a model in one pass: plain data, without model or graph. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lightning_viz.rich_display import html_display

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_viz.hooks.detection import Detections
    from lightning_viz.hooks.geometry import Layout
    from lightning_viz.hooks.outputs import OutputMeaning

__all__ = ["AttentionRows", "Attentions", "Observation", "ReLUs"]


@dataclass(frozen=True)
class ReLUs:
    """What a backward rule at ReLUs came upon.

    Attributes:
        met: how many ReLU calls followed the rule.
        escaped: what ran past it, such as ``"traced or scripted module 'features'"``.
        others: activations for which there is no such rule, such as ``"12 GELU"``; they stayed plain.
    """

    met: int
    escaped: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttentionRows:
    """What is kept of a call of attention, or of several rolled into one, with one head.

    Attributes:
        first: the weights of the first query, a class token's as a rule, ``[N, heads, S]``; of windows, which have no
            such token, as below.
        mean: the mean over queries, of the same shape; of windows that are known to cut a map, the mean over each
            one's queries at its place on the map; of others ``[N * windows, heads, S]``.
        queries: their number T.
        keys: how many tokens a query shares its attention among; of windows, those of one.
        layout: of the S keys: their grid, and how many tokens stand in front of it.
        class_token: whether the first token is a class token.
    """

    first: Tensor
    mean: Tensor
    queries: int
    keys: int
    layout: Layout
    class_token: bool = False


@dataclass(frozen=True)
class Attentions:
    """The attention of a pass.

    Attributes:
        calls: by call, in order; empty if rows were not asked for.
        rollout: of all calls; None if it was not asked for or makes no sense.
        refused: why it makes no sense.
        missed: layers whose attention could not be recorded, and why.
    """

    calls: Mapping[str, AttentionRows] = field(default_factory=dict)
    rollout: AttentionRows | None = None
    refused: str = ""
    missed: Mapping[str, str] = field(default_factory=dict)


@html_display("step", "inputs", "outputs", "targets", "scores", "activations", "gradients", "unreached")
@dataclass(frozen=True)
class Observation:
    """One look at a model. It can be pickled and drawn later.

    Where several targets were explained, targets, scores and all gradients have a leading dimension T.

    Attributes:
        inputs: what the model was given, in the form in which it was given (tensor, tuple or dict of tensors).
        outputs: the scores among what the model returned, ``[N, classes, ...]`` as a rule; None if it is unclear which
            they are, and of a detector.
        meaning: of the outputs; None likewise.
        detections: of a detector, what it found in each image; None of any other model.
        boxes: of a detection that was explained, its box in each image, ``[N, 4]``; None where it was none.
        extents: the share of their maps that images take up, in height and width ``[N, 2]``, where a detector pads
            them; they begin at the top left.
        targets: the class explained for each sample, ``[N]``; None where it is no class, or none was needed.
        labels: the true classes ``[N]``, where they are known.
        activations: output of each recorded layer; a layer called several times is ``"relu:0"``, ``"relu:1"``, ...
        gradients: of the target with respect to those activations; None where the target does not depend on them.
        input_gradient: of the target with respect to `inputs`, in their form.
        ruled: the same under other backward rules at ReLUs, ``"guided"`` and ``"deconvolution"``.
        relus: what those rules came upon; None where none was asked for.
        scores: the explained scalars, ``[N]``; None where no target was needed.
        reduced: what the reductions asked for made of the layers' outputs.
        dimensions: how many values per sample a reduced layer put out.
        layouts: of the activations, by call: where their channels and places are (see `Layout`).
        weights: copies of parameters, by name.
        attention: the attention weights, as far as they were asked for.
        unreached: layers asked for which the pass did not call.
        step: completed updates of the weights, where known.
    """

    inputs: Any
    outputs: Tensor | None = None
    detections: tuple[Detections, ...] | None = None
    boxes: Tensor | None = None
    extents: Tensor | None = None
    targets: Tensor | None = None
    labels: Tensor | None = None
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: Mapping[str, Tensor | None] = field(default_factory=dict)
    input_gradient: Any = None
    ruled: Mapping[str, Any] = field(default_factory=dict)
    relus: ReLUs | None = None
    scores: Tensor | None = None
    reduced: Mapping[str, Tensor] = field(default_factory=dict)
    dimensions: Mapping[str, int] = field(default_factory=dict)
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    attention: Attentions | None = None
    unreached: tuple[str, ...] = ()
    step: int | None = None
    meaning: OutputMeaning | None = field(default=None, metadata={"tensors": False})

    def calls(self, layer: str) -> list[str]:
        """Names under which a layer's calls were recorded: itself, or ``"layer:0"``, ``"layer:1"``, ..."""
        names = [*self.activations, *self.reduced]
        return list(dict.fromkeys(name for name in names if is_call(name, layer)))

    def maps(self, call: str) -> Tensor | None:
        """A layer's output as maps ``[N, K, *S]`` in one, two or three dimensions; None where it has no places.

        Args:
            call: the layer, or one of its calls.
        """
        from lightning_viz.hooks.geometry import as_maps  # with torch, which data alone does not need

        return as_maps(self.activations[call].float(), self.layouts.get(call))

    def gradient_maps(self, call: str) -> Tensor | None:
        """The gradients of a layer as maps, like `maps`, with a leading dimension T of several targets.

        None where the layer has no places or the target does not depend on it.

        Args:
            call: the layer, or one of its calls.
        """
        from lightning_viz.hooks.geometry import as_maps

        gradients, activations = self.gradients.get(call), self.activations[call]
        if gradients is None:
            return None
        several = gradients.dim() > activations.dim()
        flat = gradients.flatten(0, 1) if several else gradients
        maps = as_maps(flat.float(), self.layouts.get(call))
        return maps.view(*gradients.shape[:2], *maps.shape[1:]) if several and maps is not None else maps


def is_call(name: str, layer: str) -> bool:
    """Whether a name is that of a layer's only call, the layer itself, or of one of several, ``"layer:0"``."""
    return name == layer or name.rpartition(":")[0] == layer


def layer_of_call(name: str) -> str:
    """The layer of a call: of ``"relu:1"`` it is ``"relu"``, of ``"relu"`` itself."""
    layer, colon, call = name.rpartition(":")
    return layer if colon and call.isdigit() else name
