"""The view of what a transformer's tokens attend to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_viz.attribution.attention_maps import attention_calls, attention_map, heads_of, rollout_map
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.shown_samples import check_shown, shown_samples
from lightning_viz.callbacks.snapshot import Requirements, Snapshot, TargetChoice, resolved, target_choice
from lightning_viz.callbacks.target_columns import target_columns
from lightning_viz.callbacks.view import View
from lightning_viz.catalogue import methods
from lightning_viz.catalogue_types import AttentionMethod, Method
from lightning_viz.errors import InvalidArgumentError, TargetError, ViewError
from lightning_viz.hooks.attention import check_attention
from lightning_viz.hooks.layers import Layers, attends, select_layers
from lightning_viz.hooks.observe import resolve_target
from lightning_viz.hooks.pytree import on_device
from lightning_viz.hooks.shards import is_tensor_parallel
from lightning_viz.render.attribution_maps import attribution_maps, head_columns
from lightning_viz.render.text import some_of

__all__ = ["Attention"]

_HEADS = 5  # beside their mean on a page


class Attention(View):
    """What in the image a transformer's tokens attend to (tag ``attention/<method>``).

    The class token's attention, or, where the model has none, the mean over tokens, on the grid of the patches. Raw
    attention and rollout are shown in times uniform attention, which gives each of T tokens 1 / T, on a logarithmic
    scale that is the same at every step; what is uniform or less is clear. Neither is evidence for a class: of five
    small transformers that find a glyph among distractors (``examples/glyphs.py``) the highest place lay on it in 0.41
    to 0.98 of the images for raw attention, 0.75 to 1.0 for rollout, and 0.91 to 1.0 for gradient-weighted attention.

    Args:
        method: ``"raw"``, head by head (tag ``attention/raw/<layer>``), and ``"rollout"``, through all layers (Abnar
            and Zuidema, 2020), from the pass that all views share; ``"gradient"``, what of it raises the target (Chefer
            et al., 2021), by a pass of its own. The latter two only where all layers have the same tokens.
        layers: of raw attention, those that call it or hold layers that do; all with ``"*"``; the last if omitted.
        heads: of raw attention, which to show beside the mean over all; the first 5 if omitted.
        target: of the method ``"gradient"``, the class explained: ``"label"`` (each sample's own; predicted where it is
            not known), ``"predicted"``, one class for all, ``3`` or ``"class:ox"``, or several side by side, a list of
            them or ``"top:3"`` (see `lightning_viz.parse_target`).
        samples: how many of the probe's to show, the same at every step: its first ones; of a network that has most of
            them right at the first look, its mistakes first.
    """

    method: AttentionMethod = "raw"
    layers: Layers | None = None
    heads: Sequence[int] | None = None
    target: TargetChoice = "label"
    samples: int = 8

    kind: ClassVar[str] = "attention"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in _rows():
            raise InvalidArgumentError(f"method is {self.method!r}: give one of {list(_rows())}")
        if self.method != "raw" and (self.layers is not None or self.heads is not None):
            raise InvalidArgumentError(f"method {self.method!r} goes through all layers and heads: leave them out")
        if self.heads is not None and not (self.heads and all(head >= 0 for head in self.heads)):
            raise InvalidArgumentError(f"heads is {self.heads!r}: give numbers of heads, 0 or more")
        check_shown(self.samples)
        self.target = target_choice(self.target)

    def check(self, model: nn.Module) -> None:
        """Layers must be there; of a model whose classes name no attention, a view that nobody named is left out."""
        if self.layers is not None:
            select_layers(model, self.layers)
        if self.optional and not attends(model):
            raise ViewError("the model has no attention")
        if is_tensor_parallel(model):
            raise ViewError("each process attends with some of the heads (tensor parallel), which are not gathered")

    def requirements(self, model: nn.Module) -> Requirements:
        """Rows of the weights, or their rollout."""
        if self.method == "gradient":
            return Requirements(target=self.target)
        return Requirements(attention=("rows",) if self.method == "raw" else ("rollout",))

    def compute(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        """The maps: of raw attention by call, with all its heads.

        Raises:
            ViewError: the model has no attention, or none that can be shown so.
        """
        try:
            return self._maps(model, snapshot)
        except TargetError:
            raise
        except InvalidArgumentError as error:
            raise ViewError(str(error)) from error

    def _maps(self, model: nn.Module, snapshot: Snapshot) -> Mapping[str, Any]:
        if self.method == "gradient":
            inputs = on_device(model, snapshot.observation.inputs)
            target = resolve_target(model, inputs, resolved(self.target, snapshot.samples))
            return {"targets": target, "maps": self._row.load()(model, inputs, target).float().cpu()}
        attended = snapshot.observation.attention
        assert attended is not None
        if self.method == "rollout":
            heat = rollout_map(attended).float()
            assert attended.rollout is not None
            return {"targets": None, "maps": heat, "tokens": attended.rollout.keys}
        check_attention(attended.calls, attended.missed)
        calls = attention_calls(model, attended, self.layers)
        maps = {call: attention_map(rows, call).float() for call, rows in calls.items()}
        queries = {call: "the class token" if rows.class_token else "all tokens" for call, rows in calls.items()}
        tokens = {call: rows.keys for call, rows in calls.items()}
        return {"targets": None, "maps": maps, "queries": queries, "tokens": tokens}

    def draw(self, snapshot: Snapshot) -> Iterable[DrawTask]:
        """One page; of raw attention one per call."""
        maps, about = snapshot.extra["maps"], self._about(snapshot)
        if self.method == "raw":
            for call, heat in maps.items():
                yield self._of_heads(call, heat, snapshot, about)
            return
        shown, tag = about.pop("shown"), f"{self.kind}/{self.method}"
        about |= {"tag": tag, "display": self._row.display}
        if self.method == "gradient" and snapshot.several:
            yield from target_columns(snapshot, maps, shown, about, {})
            return
        target = snapshot.target_name(self.target) if "target" in self._row.needs else ""
        details = [some_of(len(shown), len(maps), "samples"), *about["details"]]
        single = {"maps": maps[shown].numpy(), "target": target, "details": details}
        single["tokens"] = snapshot.extra.get("tokens")
        yield DrawTask(attribution_maps, {**about, **single})

    def _of_heads(self, call: str, heat: Tensor, snapshot: Snapshot, about: Mapping[str, Any]) -> DrawTask:
        count = heat.shape[1]
        heads = list(range(count))[:_HEADS] if self.heads is None else list(self.heads)
        columns = torch.cat([heat.mean(1, keepdim=True), heads_of(heat, heads, call)], 1)
        arguments = {**about, "tag": f"{self.kind}/{self.method}/{call}", "layer": call}
        shown = arguments.pop("shown")
        columns = columns[shown].movedim(1, 0)[:, :, None]  # [1 + heads, N, 1, h, w]
        arguments |= {"maps": columns.numpy(), "heads": heads, "count": count, "samples": len(heat)}
        arguments["tokens"] = snapshot.extra["tokens"][call]
        return DrawTask(head_columns, {**arguments, "query": snapshot.extra["queries"][call]})

    def _about(self, snapshot: Snapshot) -> dict[str, Any]:
        """What all pages have."""
        if snapshot.input_form == "vector":
            raise ViewError("the model's input is a vector without places, over which no attention can lie")
        images, verdicts = snapshot.images(self.pixel_space), snapshot.verdicts()
        shown = shown_samples(self.state, snapshot, self.samples, len(images))
        return {
            "shown": shown,
            "images": images[shown],
            "step": snapshot.step,
            "method": self._row.title,
            "unit": snapshot.unit(self._row.unit),
            "details": [self._row.worth],
            "verdicts": [verdicts[index] for index in shown] if verdicts else [],
            "notes": snapshot.notes(self.pixel_space),
        }

    @property
    def _row(self) -> Method:
        return _rows()[self.method]


def _rows() -> dict[str, Method]:
    """The catalogue's rows by the last part of their tags."""
    return {row.tags[0].rpartition("/")[2]: row for row in methods(view=Attention.kind).values()}
