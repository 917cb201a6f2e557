"""Dreams of a layer's channels as pages: cut to what one position sees, beside the samples that excite them most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.callbacks.dream_units import LOGITS, Unit
from lightning_viz.callbacks.unit_crops import Fields, SeenByUnits, UnitCrops
from lightning_viz.dream.maximize import Dream
from lightning_viz.hooks.observation import layer_of_call
from lightning_viz.hooks.observe import observe
from lightning_viz.render.tiles import to_rgb


def seen_by_units(study: ModelUnderStudy, units: Sequence[Unit]) -> dict[str, SeenByUnits]:
    """By layer with channels what they see; nothing of classes.

    Args:
        study: the model and its samples, all of which are ranked.
        units: channels and classes.
    """
    images, batch, known = study.require_images(), study.batch_size(), Fields()
    calls = dict.fromkeys(unit.layer for unit in units if unit.layer != LOGITS)
    size, seen = (images.shape[2], images.shape[3]), {}
    crops = {call: UnitCrops(call, [unit.index for unit in units if unit.layer == call], size) for call in calls}
    for start in range(0, len(images) if crops else 0, batch):
        observed = observe(study.model, images[start : start + batch], layers=[layer_of_call(call) for call in crops])
        for call, of_call in crops.items():
            of_call.add(observed.activations[call].float(), observed.maps(call))
    for call, of_call in crops.items():
        seen[call] = of_call.seen(study.model, images, None if study.private else study.rgb(images), known)
    return seen


def unit_pages(
    dream: Dream, units: Sequence[Unit], seen: Mapping[str, SeenByUnits], words: Sequence[str], details: Sequence[str]
) -> list[dict[str, Any]]:
    """Arguments of `dream_tiles` for a page of each layer, and under `places` which of the dreams it holds.

    Args:
        dream: of the units, as many copies of each.
        units: that it is of.
        seen: by their layers.
        words: under each dream.
        details: for the caption.
    """
    copies, pages = len(dream.values) // len(units), []
    layers, every = list(dict.fromkeys(unit.layer for unit in units)), [unit for unit in units for _ in range(copies)]
    for layer in layers:
        places = [place for place, unit in enumerate(every) if unit.layer == layer]
        page: dict[str, Any] = {
            "tag": "dreams" if len(layers) == 1 else f"dreams/{layer}",
            "title": "Images that maximize units",
            "places": places,
            "words": [words[place] for place in places],
            "details": details,
        }
        if layer in seen:
            pixels = seen[layer].shown(dream.pixels[places].float().cpu().numpy())
            page |= {"images": to_rgb(pixels), "details": [*details, *seen[layer].words]}
            page["samples"] = [row for row in seen[layer].samples for _ in range(copies)]
            page["sample_count"] = seen[layer].count
        pages.append(page)
    return pages
