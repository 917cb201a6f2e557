"""The view of how separable the samples become, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lightning_viz.callbacks.continuity import draw_embedding, shrink
from lightning_viz.callbacks.display import shown_inputs
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.snapshot import INPUT, Requirements, Snapshot
from lightning_viz.callbacks.view import View
from lightning_viz.errors import InvalidArgumentError, ViewError
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.render.planes import as_images

__all__ = ["LayerEmbeddings"]

_THUMBNAIL = 32  # pixels


class LayerEmbeddings(View):
    """Each layer's samples in the plane, colored by class (tag ``embedding/<layer>``).

    t-SNE (van der Maaten and Hinton, 2008), started from and aligned to the step before: points move, the picture does
    not jump. Scalars beside it: held-out k-NN accuracy and trustworthiness. For the last layer also thumbnails at their
    places, thumbnails on a grid, PCA and k-means beside t-SNE, and the vectors for TensorBoard's projector.

    Args:
        layers: to embed, beside the input; every top-level block if omitted.
        input: whether to embed the input as well; not if it is private.
        samples: of the probe's data set.
        perplexity: of t-SNE (30: scikit-learn's and openTSNE's; the lecture's is 50).
        engine: ``"opentsne"``, ``"sklearn"``, or ``"auto"``: openTSNE where it is installed.
        projector: whether to write the projector's files, of the latest look.
    """

    animation: bool = True
    layers: Layers = "blocks"
    input: bool = True
    samples: int = 1000
    perplexity: float = 30.0
    engine: Literal["auto", "sklearn", "opentsne"] = "auto"
    projector: bool = True

    kind: ClassVar[str] = "embedding"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine not in ("auto", "sklearn", "opentsne"):
            raise InvalidArgumentError(f"engine is {self.engine!r}: give 'auto', 'sklearn' or 'opentsne'")
        if self.samples < 1 or not self.perplexity > 0:
            raise InvalidArgumentError(
                f"samples is {self.samples}, perplexity {self.perplexity}: give positive numbers"
            )
        self._thumbnails: tuple[int, NDArray[np.uint8] | None] | None = None

    def check(self, model: nn.Module) -> None:
        """There must be something to embed."""
        if not select_layers(model, self.layers) and not self.input:
            raise ViewError("no layers to embed: name layers=, or leave input=True")

    def requirements(self, model: nn.Module) -> Requirements:
        """One vector per sample and layer, over the population."""
        names = [*([INPUT] if self.input and not self.private else []), *select_layers(model, self.layers)]
        return Requirements(vectors=tuple(names), population=self.samples)

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One sketch per call of each layer; the last gets all kinds of picture."""
        calls = [call for name in snapshot.requirements.vectors for call in snapshot.observation.calls(name)]
        count = min(self.samples, len(snapshot.samples))
        known = snapshot.observation.labels if snapshot.samples.true_classes is not None else snapshot.samples.labels
        labels = None if known is None else known[:count].numpy()  # colors, also of a model that predicts no class
        for earlier, call in zip([None, *calls], calls, strict=False):
            last = call == calls[-1]
            yield DrawTask(
                draw_embedding,
                {
                    "tag": f"{self.kind}/{call}",
                    "vectors": snapshot.observation.reduced[call][:count].numpy(),
                    "layer": call,
                    "dimension": snapshot.observation.dimensions[call],
                    "step": snapshot.step,
                    "labels": labels,
                    "class_names": snapshot.samples.class_names or None,
                    "images": self._images(snapshot, count) if last and not self.private else None,
                    "full": last,
                    "projector": last and self.projector,
                    "perplexity": self.perplexity,
                    "engine": self.engine,
                    "seed": self.probe.seed,
                },
                name=f"{self.name} {call}",
                memory=self.memories.get(f"{self.name} {call}"),
                after=None if earlier is None else f"{self.name} {earlier}",
            )

    def _images(self, snapshot: Snapshot, count: int) -> NDArray[np.uint8] | None:
        """The samples as thumbnails, which stay the same over a run."""
        if self._thumbnails is None or self._thumbnails[0] != id(snapshot.samples):
            form, pixel_space = snapshot.input_form, self.pixel_space or snapshot.samples.pixel_space
            small = (
                None
                if form == "vector"
                else [
                    shrink(as_images(shown_inputs(batch, form, pixel_space), most=1), _THUMBNAIL)
                    for batch in snapshot.samples.batches(0, count)
                ]
            )
            self._thumbnails = id(snapshot.samples), None if small is None else np.concatenate(small)
        return self._thumbnails[1]
