"""What covering a patch does: each sample with its three maps (Zeiler and Fergus, 2014)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .colours import class_colours
from .displays import DISPLAYS
from .legends import class_key, colour_bar
from .picture import Caption, Picture, beside, page, stack
from .text import LINE, draw_lines, number, step_text
from .tiles import VERDICTS, Verdict, check_images, count_flaws, draw_verdicts, enlarge, fit, flaw, hatched

MOST_SAMPLES = 6
_NOTHING = np.zeros((1, 1, 3), np.uint8)  # the image plays no part


def occlusion_maps(
    tag: str,
    images: NDArray[np.uint8],
    drop: NDArray[Any],
    predicted: NDArray[Any],
    *,
    activity: NDArray[Any] | None,
    feature: str,
    class_names: Sequence[str],
    classes: int,
    step: int,
    target: str,
    patch: tuple[int, int],
    positions: tuple[int, int],
    details: Sequence[str] = (),
    verdicts: Sequence[Verdict] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """A sample a row: the input; how much the target drops; the most probable class; a feature's activity.

    Args:
        tag: where the picture stands in TensorBoard.
        images: the inputs ``[N, H, W, 3]``; the first 6 are shown.
        drop: of the target where the patch lies ``[N, h, w]``, in logits.
        predicted: the most probable class with the patch there ``[N, h, w]``.
        activity: of a feature with the patch there ``[N, h, w]``, or None.
        feature: its name.
        class_names: by class index; empty for the indices.
        classes: how many the network tells apart, so that each keeps its colour.
        step: number of completed updates.
        target: what is explained, such as "the label's logit".
        patch: its height and width in pixels.
        positions: how many, downwards and across.
        details: further facts for the caption.
        verdicts: one a sample, or none.
        notes: further warnings for the caption.
    """
    check_images(images)
    shown = drop[:MOST_SAMPLES].astype(np.float64)
    columns = 3 if activity is None else 4
    size = fit(columns, len(shown), images.shape[1] / images.shape[2], under=LINE if verdicts else 0)
    seen = [int(one) for one in np.unique(predicted[:MOST_SAMPLES])]
    palette = class_colours(classes)
    flaws = [flaw(each) for each in shown]
    signed = DISPLAYS["signed"]
    heads = ["input", "drop", "prediction", "activity"][:columns]
    rows = [beside([draw_lines([word], size[0], centred=True) for word in heads], gap=6)]
    for index, (image, each) in enumerate(zip(images, shown, strict=False)):
        tiles = [enlarge(image, size), _drop(each, size), enlarge(palette[predicted[index]], size)]
        if activity is not None:
            tiles.append(_activity(activity[index].astype(np.float64), size))
        rows.append(beside(tiles, gap=6))
        if verdicts:
            rows.extend(draw_verdicts([verdicts[index]], 660)[:1])
    names = [class_names[one] if one < len(class_names) else str(one) for one in seen]
    bars = [
        colour_bar("diverging", "rises", "drops", middle="0", label="the target, with the patch there"),
        class_key(names, palette[seen]),
    ]
    reaches = [signed.reach(each) for each, words in zip(shown, flaws, strict=True) if not words]
    facts = (
        step_text(step),
        f"the first {len(shown)} samples" if len(shown) < len(images) else "",
        f"a patch of {patch[0]} × {patch[1]} px at {positions[0]} × {positions[1]} positions",
        f"each drop divided by its 99th percentile ({number(min(reaches))} to {number(max(reaches))} logits)"
        if reaches
        else "",
        f"activity of {feature} with the patch there, dark: least" if activity is not None else "",
        *details,
        VERDICTS if verdicts else "",
    )
    reading = (
        f"Each row is one sample; each place of a map tells what happens when the patch covers it: how much {target} "
        "drops (red: what lay there spoke for it), what the network then takes the sample for, and how active a "
        "feature map remains."
    )
    caption = Caption(f"Occlusion for {target}", facts, reading, (*count_flaws(flaws, "maps"), *notes))
    return page(tag, caption, stack([stack(rows, gap=4), *bars], gap=6))


def _drop(values: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    """A drop with its sign, divided by its 99th percentile."""
    words, signed = flaw(values), DISPLAYS["signed"]
    return hatched(size, words) if words else signed.tile(_NOTHING, values / signed.reach(values), size)


def _activity(values: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    """An activity from its least to its most, which need not be positive."""
    words = flaw(values)
    span = float(np.ptp(values)) if not words else 0.0
    if not span:
        return hatched(size, words or "constant")
    return DISPLAYS["sum"].tile(_NOTHING, (values - values.min()) / span, size)
