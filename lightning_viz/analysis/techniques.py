"""The table of techniques, in the order in which a report shows them."""

from __future__ import annotations

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.studies.attacks import attacks
from lightning_viz.analysis.studies.attribution import every_attribution
from lightning_viz.analysis.studies.dreams import dreams, inversions
from lightning_viz.analysis.studies.robustness import corrupted, epsilons
from lightning_viz.analysis.studies.samples import beyond_pixels
from lightning_viz.analysis.studies.shape_bias import biases, without_conflicts
from lightning_viz.analysis.technique import Technique, not_a_classifier, without_labels


def _without_labels_or_pixels(subject: ModelUnderStudy) -> str:
    return without_labels(subject) or beyond_pixels(subject)


TECHNIQUES: tuple[Technique, ...] = (
    Technique(
        "attributions",
        "what in the image mattered, by every method, and which to believe",
        every_attribution,
        not_a_classifier,
    ),
    Technique("dreams", "what each class wants to see", dreams, not_a_classifier),
    Technique("inversions", "what each layer still knows of an image", inversions, not_a_classifier),
    Technique("attacks", "how little changes the model's mind", attacks, beyond_pixels),
    Technique("epsilons", "accuracy when inputs may move, and what helps", epsilons, beyond_pixels),
    Technique("corruptions", "what noise, blur, weather and encoding cost", corrupted, _without_labels_or_pixels),
    Technique("biases", "whether it goes by shape or by texture", biases, without_conflicts),
)
"""A new one is a new row."""
