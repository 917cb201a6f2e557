"""The views of an analysis: those that the run had, and every other that suits the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_viz.callbacks.activation_maps import ActivationMaps
from lightning_viz.callbacks.activation_statistics import ActivationStatistics
from lightning_viz.callbacks.adversarial import Adversarial
from lightning_viz.callbacks.dreams import Dreams
from lightning_viz.callbacks.first_layer_filters import FirstLayerFilters
from lightning_viz.callbacks.grad_cam import GradCAM
from lightning_viz.callbacks.hyperplanes import Hyperplanes
from lightning_viz.callbacks.layer_embeddings import LayerEmbeddings
from lightning_viz.callbacks.occlusion import Occlusion
from lightning_viz.callbacks.predictions import Predictions
from lightning_viz.callbacks.probe import Probe
from lightning_viz.callbacks.saliency import Saliency
from lightning_viz.callbacks.serialization import recorded_views
from lightning_viz.callbacks.top_samples import TopSamples
from lightning_viz.callbacks.view import View
from lightning_viz.errors import AnalysisError
from lightning_viz.pixels import PixelSpace


def views_for(
    checkpoint: Mapping[str, Any],
    earlier: Mapping[str, Any],
    *,
    probe: Probe | None,
    pixel_space: PixelSpace | None,
    kinds: Sequence[str] | None,
) -> list[View]:
    """The views that a run had, in the state that its checkpoint holds, and every other.

    Args:
        checkpoint: as Lightning saved it.
        earlier: state of the views after the checkpoint before, from which those go on that this one does not hold.
        probe: of the others; that of the run's first view, or the default, if omitted.
        pixel_space: of the others.
        kinds: of views, which alone are wanted; None: all.

    Raises:
        AnalysisError: there is no such kind of view.
    """
    known = dict.fromkeys(view.kind for view in _every(Probe(), None))
    unknown = [kind for kind in kinds or () if kind not in known]
    if unknown:
        raise AnalysisError(f"there is no kind of view {unknown[0]!r}: {', '.join(known)}")
    recorded = recorded_views(checkpoint)
    probe = probe or (recorded[0].probe if recorded else Probe())
    others = [view for view in _every(probe, pixel_space) if not any(_alike(view, one) for one in recorded)]
    for view in others:
        view.restore({"lightning_viz": earlier})
    return [view for view in recorded + others if kinds is None or view.kind in kinds]


def _every(probe: Probe, pixel_space: PixelSpace | None) -> list[View]:
    given: dict[str, Any] = {"probe": probe, "pixel_space": pixel_space}
    return [
        FirstLayerFilters(**given),
        Hyperplanes(**given),
        ActivationMaps(**given),
        ActivationStatistics(**given),
        TopSamples(**given),
        LayerEmbeddings(**given),
        GradCAM(sanity_check=True, **given),
        Saliency(method="smooth_grad", sanity_check=True, **given),
        Saliency(method="guided_backprop", sanity_check=True, **given),
        Occlusion(sanity_check=True, **given),
        Dreams(**given),
        Adversarial(**given),
        Predictions(**given),
    ]


def _alike(view: View, other: View) -> bool:
    """Whether both draw under the same tags."""
    return type(view) is type(other) and getattr(view, "method", None) == getattr(other, "method", None)
