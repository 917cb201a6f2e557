"""The view of how separable the samples become, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, Union

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from lightning_viz.callbacks.display import shown_inputs
from lightning_viz.callbacks.draw_embeddings import draw_layer, draw_layers, flaw_of
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.layer_pages import PAGES
from lightning_viz.callbacks.snapshot import INPUT, Requirements, Snapshot
from lightning_viz.callbacks.view import View
from lightning_viz.costs import Facts
from lightning_viz.errors import InvalidArgumentError, ViewError
from lightning_viz.hooks.layers import Layers, select_layers
from lightning_viz.hooks.observation import layer_of_call
from lightning_viz.hooks.outputs import class_probabilities
from lightning_viz.render.layer_panels import evenly_chosen
from lightning_viz.render.planes import as_images

__all__ = ["LayerEmbeddings"]

_THUMBNAIL = 32  # pixels
_SAME = 1e-3  # difference up to which probabilities are taken for the same


class LayerEmbeddings(View):
    """How the classes come apart: every layer's samples in the plane, in one card (tag ``embedding/every_layer``).

    Small multiples from the input to the output: the same samples in each panel, colored by class, with the layer's
    dimension and k-NN accuracy, which also stands below as a curve over the layers. t-SNE (van der Maaten and Hinton,
    2008) is started from and aligned to the step before, and at first to the layer before: points move, the picture
    does not jump. Below 30 samples PCA takes its place. At the end an animation of the card, and the last layer's
    vectors for TensorBoard's projector. The numbers are plotted as ``embedding/<layer>/…``.

    Args:
        layers: to embed, beside the input; every top-level block if omitted. Of more than 12 in all, the input among
            them, 12 evenly chosen ones are embedded, the first and the last among them.
        input: whether to embed the input as well; not if it is private.
        samples: of the probe's data set.
        perplexity: of t-SNE (30: scikit-learn's and openTSNE's; the lecture's is 50).
        engine: ``"opentsne"``, ``"sklearn"``, or ``"auto"``: openTSNE where it is installed.
        projector: layers whose vectors TensorBoard's projector gets, of the latest look, with true and predicted class,
            right or wrong and confidence of each sample, as far as they are known: True for the last layer, False for
            none, or names and patterns of layers, ``"input"`` among them.
        pages: pages of each layer beside the card (tags ``embedding/<layer>``), any of ``"scatter"``, the points
            large; ``"thumbnails"``, images at their places; ``"grid"``, images on a grid, neighbors side by side;
            ``"comparison"``, PCA and k-means beside t-SNE; ``"turning"``, an animation in three dimensions,
            which the projector gets, too. Every one of many layers is embedded then, and trustworthiness plotted.
    """

    animation: bool = True
    layers: Layers = "blocks"
    input: bool = True
    samples: int = 1000
    perplexity: float = 30.0
    engine: Literal["auto", "sklearn", "opentsne"] = "auto"
    projector: Union[bool, Layers] = True
    pages: Sequence[str] = ()

    kind: ClassVar[str] = "embedding"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine not in ("auto", "sklearn", "opentsne"):
            raise InvalidArgumentError(f"engine is {self.engine!r}: give 'auto', 'sklearn' or 'opentsne'")
        if self.samples < 1 or not self.perplexity > 0:
            raise InvalidArgumentError(
                f"samples is {self.samples}, perplexity {self.perplexity}: give positive numbers"
            )
        self.pages = (self.pages,) if isinstance(self.pages, str) else tuple(self.pages)
        if unknown := [page for page in self.pages if page not in PAGES]:
            raise InvalidArgumentError(f"pages has {unknown[0]!r}: give any of {', '.join(map(repr, PAGES))}")
        self._thumbnails: tuple[int, NDArray[np.uint8] | None] | None = None
        self._shown: list[str] = []
        self._left_out: list[str] = []
        self._to_projector: list[str] = []

    def check(self, model: nn.Module) -> None:
        """There must be something to embed, and what the projector gets must be embedded."""
        names = self._names(model)
        if not names:
            raise ViewError("no layers to embed: name layers=, or leave input=True")
        if other := [name for name in self._projected(model, names) if name not in names]:
            raise ViewError(f"projector names {other[0]!r}, which is not embedded: give one of {', '.join(names)}")

    def _names(self, model: nn.Module) -> list[str]:
        """All layers that could be embedded."""
        return [*([INPUT] if self.input and not self.private else []), *select_layers(model, self.layers)]

    def _projected(self, model: nn.Module, names: Sequence[str]) -> list[str]:
        """Layers whose vectors the projector gets."""
        if isinstance(self.projector, bool):
            return list(names[-1:]) if self.projector else []
        given = [self.projector] if isinstance(self.projector, (str, type)) else list(self.projector)
        others = [name for name in given if name != INPUT]
        return [*([INPUT] if INPUT in given else []), *(select_layers(model, others) if others else {})]

    def requirements(self, model: nn.Module) -> Requirements:
        """One vector per sample and layer, over the population; of no more layers than are drawn."""
        names = self._names(model)
        shown = [names[place] for place in evenly_chosen(len(names))]
        projected = self._projected(model, names)
        wanted = names if self.pages else [name for name in names if name in shown or name in projected]
        self._shown, self._left_out = shown, [name for name in names if name not in shown]
        self._to_projector = projected
        return Requirements(vectors=tuple(wanted), population=self.samples)

    def passes(self, facts: Facts) -> float:
        """A forward of each sample."""
        return float(min(self.samples, facts.samples))

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """A task for each call of each layer, which embeds it, and one that draws the card of all."""
        calls = [call for name in snapshot.requirements.vectors for call in snapshot.observation.calls(name)]
        every = [call for call in calls if layer_of_call(call) in self._shown]
        chosen = [every[place] for place in evenly_chosen(len(every))] if every else []
        projected = [call for call in calls if layer_of_call(call) in self._to_projector]
        embedded = calls if self.pages else [call for call in calls if call in chosen or call in projected]
        count = min(self.samples, len(snapshot.samples))
        known = snapshot.observation.labels if snapshot.samples.true_classes is not None else snapshot.samples.labels
        about = {
            "step": snapshot.step,
            "labels": None if known is None else known[:count].numpy(),  # also of a model that predicts no class
            "class_names": snapshot.samples.class_names or None,
            "perplexity": self.perplexity,
        }
        predictions = _predictions(snapshot, calls[-1:], count)
        panels, earlier = [], None
        for call in embedded:
            shows = not self.private and (call in projected or {"thumbnails", "grid"}.intersection(self.pages))
            vectors = snapshot.observation.reduced[call][:count].numpy()
            dimension = snapshot.observation.dimensions[call]
            if call in chosen:
                panels.append((call, dimension, flaw_of(vectors)))
            yield DrawTask(
                draw_layer,
                {
                    **about,
                    "tag": f"{self.kind}/{call}",
                    "vectors": vectors,
                    "layer": call,
                    "dimension": dimension,
                    "images": self._images(snapshot, count) if shows else None,
                    "pages": tuple(self.pages),
                    "projector": call in projected,
                    "predictions": predictions,
                    "engine": self.engine,
                    "seed": self.probe.seed,
                },
                name=self._task(call),
                memory=self.memories.get(self._task(call)),
                after=None if earlier is None else self._task(earlier),
            )
            earlier = call
        if chosen:
            left_out = (*self._left_out, *(call for call in every if call not in chosen))
            yield DrawTask(
                draw_layers,
                {**about, "tag": f"{self.kind}/every_layer", "layers": tuple(panels), "left_out": left_out},
                name=f"{self.name}, every layer",
                memory=self.memories.get(f"{self.name}, every layer"),
                collects=tuple(map(self._task, chosen)),
            )

    def _task(self, call: str) -> str:
        """Name of the task that embeds a layer."""
        return f"{self.name} {call}"

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


def _predictions(snapshot: Snapshot, last: Sequence[str], count: int) -> dict[str, NDArray[Any]] | None:
    """Of each sample the class that the model predicts and its probability; None if the last layer does not tell.

    It does where, for the head of the probe, its outputs or their softmax are the model's probabilities.
    """
    probabilities, meaning = snapshot.probabilities, snapshot.observation.meaning
    if probabilities is None or meaning is None or meaning.kind == "multi-label" or not last:
        return None
    vectors = snapshot.observation.reduced[last[0]][:count].float()
    if vectors.shape[1] != probabilities.shape[1]:
        return None
    for guess in (class_probabilities(vectors, meaning), vectors.softmax(1)):
        if torch.allclose(guess[: len(probabilities)], probabilities[: len(guess)], atol=_SAME):
            confidence, classes = guess.max(1)
            return {"classes": classes.numpy(), "confidence": confidence.numpy()}
    return None


def shrink(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Images as thumbnails; those that are small enough stay as they are.

    Args:
        images: ``[N, H, W, 3]``.
        side: the longest that a side may be, in pixels.
    """
    height, width = images.shape[1:3]
    scale = side / max(height, width)
    if scale >= 1:
        return images
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) for image in images])
