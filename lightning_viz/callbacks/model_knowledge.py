"""What is known of a model that tells what its output means."""

from __future__ import annotations

from torch import nn

from lightning_viz.callbacks.batch_parts import reading_of
from lightning_viz.callbacks.probe import Samples
from lightning_viz.hooks.outputs import OutputKnowledge, knowledge_of


def output_knowledge(model: nn.Module, samples: Samples) -> OutputKnowledge:
    """What is known of a model that tells what its output means: its step, the labels and the classes' names.

    Args:
        model: the LightningModule.
        samples: of its data.
    """
    reading, labels, truths = reading_of(model), samples.true_classes, samples.truths
    if reading is not None and reading.paired:
        kind = "pairs"
    elif labels is not None and len(labels):
        kind = "binary" if bool(((labels == 0) | (labels == 1)).all()) else "classes"
    elif truths is not None:
        zeros_and_ones = truths.dim() == 4 and truths.shape[1] == 1 and bool(((truths == 0) | (truths == 1)).all())
        kind = "several" if truths.dim() == 2 else "masks" if truths.dim() == 3 or zeros_and_ones else "images"
    elif samples.compared in ("inputs", "nothing"):
        kind = samples.compared
    else:
        kind = "numbers" if reading is not None and reading.labels is not None and reading.loss else ""
    earlier = knowledge_of(model)
    if not kind and earlier is not None:
        kind = earlier.labels
    named = bool(samples.class_names)
    if reading is None:
        return OutputKnowledge(labels=kind, named=named)
    step = {name: getattr(reading, name) for name in ("loss", "squashed", "logarithm", "direct")}
    return OutputKnowledge(**step, field=reading.scores, labels=kind, named=named)
