"""Attacks on a page: samples above their adversarial twins and what changed, or above few pixels changed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import Colors, class_colors, name_of
from lightning_viz.render.layout import BODY_HEIGHT, COLUMNS, GUTTER, INNER_WIDTH, fit, in_columns, in_rows
from lightning_viz.render.page import Page, PageInfo, check_count, check_rgb, check_shape, compose
from lightning_viz.render.parts import (
    At,
    Cell,
    ClassKey,
    ColorBar,
    CurveTile,
    HStack,
    Label,
    MapTile,
    Part,
    Sheet,
    Text,
    Tile,
    TileSize,
    VStack,
)
from lightning_viz.render.text import (
    DARK,
    GRAY,
    LINE,
    WHITE,
    first_of,
    number,
    percent,
    shorten,
    some_of,
    text_width,
    wrap,
)
from lightning_viz.render.tiles import CROSS, Flaw, Verdict, count_flaws, describe_channels, find_flaw, verdict_texts

__all__ = ["pixel_gallery", "record_table", "sign_sums", "twins"]

_UNCHANGED: dict[str, str] = {Flaw.ZERO: "no change"}
_NARROWEST = (INNER_WIDTH + GUTTER) // COLUMNS - GUTTER  # pixels: a column, whose tile may be narrower
_MOST_RINGS = 50  # beyond it rings would cover the image
_CLOSE, _APART = 2, 12  # pixels within and between the three tiles of a sample
_MOST_SUMS, _OPERATOR = 3, 118  # samples, and pixels for "+ 0.007 ×" between two images
_OF, _NORM = 66, 76  # pixels for "image" or "twin" before a verdict, and for a norm behind it


def twins(
    tag: str,
    images: NDArray[np.uint8],
    twins: NDArray[np.uint8],
    differences: NDArray[Any],
    *,
    before: Sequence[Verdict],
    after: Sequence[Verdict],
    norms: Sequence[str],
    attack: str,
    norm: str = "its norm",
    magnify: float | None = None,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of adversarial twins: samples, below each its twin, and below that the difference, all magnified alike.

    Args:
        tag: of the page.
        images: the samples ``[N, H, W, 3]``; the first 8 are shown.
        twins: what the attack made of them ``[N, H, W, 3]``.
        differences: twins minus images ``[N, C, H, W]``, signed, in pixels of 0 to 1.
        before: what the network says of the images; a truth that is not known counts as what it says.
        after: what it says of the twins.
        norms: of each difference, as it is to be written ("1.02 %"; 7 characters fit under each of eight samples).
        attack: its name and how far it went ("PGD, ε 0.05").
        norm: what `norms` are ("its L2 norm over its image's").
        magnify: by how much differences are multiplied; so that the largest just fills the range if omitted.
        info: see `PageInfo`.
    """
    check_rgb(images, twins)
    check_shape("twins", twins, *images.shape)
    check_shape("differences", differences, len(images), "C", *images.shape[1:3], filled=True)
    for name, given in (("before", before), ("after", after), ("norms", norms)):
        check_count(name, given, len(images))
    if magnify is not None and not 0 < magnify < np.inf:
        raise InvalidArgumentError(f"magnify={magnify}: give a number above 0 that multiplies differences, or None")
    count = min(len(images), COLUMNS)
    shown = np.asarray(differences[:count], dtype=np.float64)
    largest = float(np.abs(shown[np.isfinite(shown)]).max(initial=0))
    factor = magnify or (0.5 / largest if largest else 1.0)
    flaws = [find_flaw(values, single=False) for values in shown]
    columns = 1 if _triple_size(images, count, 1)[0] > _triple_size(images, count, 2)[0] else 2
    size, width = _triple_size(images, count, columns), _triple_width(columns)
    tops = [_tiles(pictures[:count], size) for pictures in (images, twins)]
    changes = [_difference(index, values, factor, size) for index, values in enumerate(shown)]
    triples = [HStack(triple, gap=_CLOSE) for triple in zip(*tops, changes, strict=True)]
    texts = _triple_texts(before[:count], after[:count], norms, width)
    head = shorten(f"image, its twin, the change × {number(factor)}", width)
    above = HStack([Text([head], width, color=GRAY)] * min(columns, count), gap=_APART)
    changed = {1: "a pixel's change", 3: "each color's change"}.get(
        shown.shape[1], "the largest change of a pixel's channels"
    )
    end = number(0.5 / factor)
    bar = ColorBar(
        "gray" if shown.shape[1] == 3 else "diverging", f"≤ −{end}", f"≥ {end}", "0", f"{changed}, of 0 to 1"
    )
    rows = in_rows(in_columns(triples, texts, gap=1), columns, _APART)
    channels = describe_channels(shown.shape[1])
    facts = (
        f"network {_tally(before, after)}",
        first_of(count, len(images), "samples"),
        f"images: {channels}" if channels else "",
        f"number below a change: {norm}",
    )
    # A sample that was wrong already is mostly left as it is: no news.
    news = [None if flaw is Flaw.ZERO and old.mistaken else flaw for flaw, old in zip(flaws, before, strict=False)]
    reading = (
        "Three side by side are one sample: as it is, as the attack left it, and what changed, many times enlarged. "
        "Below is what the network says of both: where the two look alike and its answers differ, it was fooled by "
        "what one can hardly see."
    )
    warnings, title = count_flaws(news, "samples", _UNCHANGED), f"Adversarial twins: {attack}"
    body = VStack([above, *rows, bar], gap=GUTTER)
    return compose(tag, title, body, facts, reading, warnings=warnings, **info)


def pixel_gallery(
    tag: str,
    images: NDArray[np.uint8],
    twins: NDArray[np.uint8],
    *,
    rows: Sequence[str],
    before: Sequence[Verdict],
    after: Sequence[Sequence[Verdict]],
    **info: Unpack[PageInfo],
) -> Page:
    """Page of few-pixel attacks: samples, and below them their twins with the changed pixels circled.

    Args:
        tag: of the page.
        images: the samples ``[N, H, W, 3]``; the first 8 are shown.
        twins: what R attacks made of them ``[R, N, H, W, 3]``.
        rows: R names ("1 pixel").
        before: what the network says of the images.
        after: what it says of the twins, R times N.
        info: see `PageInfo`.
    """
    check_rgb(images)
    check_shape("twins", twins, len(rows), *images.shape, filled=True)
    check_rgb(twins[0])
    check_count("after", after, len(twins))
    check_count("before", before, len(images))
    for name, verdicts in zip(rows, after, strict=True):
        check_count(f"after in the row {name!r}", verdicts, len(images))
    count, crowded = min(len(images), COLUMNS), 0
    size, wide = _tile_size(images, rows=1 + len(twins), lines=3 + 3 * len(twins))
    bands = [_band("the image", _tiles(images[:count], size), verdict_texts(before[:count], wide))]
    for name, row, verdicts in zip(rows, twins, after, strict=True):
        changed = (row != images).any(axis=-1)[:count]
        crowded += int((changed.sum(axis=(1, 2)) > _MOST_RINGS).sum())
        tiles = [
            Tile(size, image, sample=index, rings=places if 0 < places.sum() <= _MOST_RINGS else None)
            for index, (image, places) in enumerate(zip(row, changed, strict=False))
        ]
        outcomes = verdict_texts(_outcomes(before, verdicts)[:count], wide)
        bands.append(_band(f"{name}: network {_tally(before, verdicts)}", tiles, outcomes))
    warnings = (f"{crowded} twins without rings: more than {_MOST_RINGS} pixels changed",) if crowded else ()
    facts = ("the rings show which pixels changed", first_of(count, len(images), "samples"))
    reading = "Each column is one sample: as it is, and below with only the circled pixels changed."
    title = "Few pixels changed, and what the network then says"
    return compose(tag, title, VStack(bands, gap=GUTTER), facts, reading, warnings=warnings, **info)


def sign_sums(
    tag: str,
    images: NDArray[np.uint8],
    signs: NDArray[np.uint8],
    sums: NDArray[np.uint8],
    *,
    before: Sequence[Verdict],
    alone: Sequence[Verdict],
    after: Sequence[Verdict],
    epsilon: str,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of FGSM as a sum: the sample, epsilon times the sign of its gradient, and both together, with their classes.

    Args:
        tag: of the page.
        images: the samples ``[N, H, W, 3]``; the first 3 are shown.
        signs: the signs of their gradients as images, likewise.
        sums: what both make together, likewise.
        before: what the network says of the samples.
        alone: what it says of the signs as images.
        after: what it says of the sums.
        epsilon: as it is to be written ("8/255"; 6 characters fit).
        info: see `PageInfo`.
    """
    for name, pictures, verdicts in (("images", images, before), ("signs", signs, alone), ("sums", sums, after)):
        check_rgb(pictures)
        check_shape(name, pictures, *images.shape)
        check_count(f"what is said of {name}", verdicts, len(images))
    count = min(len(images), _MOST_SUMS)
    width = (INNER_WIDTH - 2 * _OPERATOR) // 3
    aspect = images.shape[1] / images.shape[2]
    size = fit(1, max(count, 1), aspect, under=3 * LINE, room=BODY_HEIGHT - 2 * LINE, across=width)
    said = (before, alone, _outcomes(before, after))
    columns = [
        in_columns(_tiles(pictures[:count], size), verdict_texts(verdicts[:count], width), gap=1)
        for pictures, verdicts in zip((images, signs, sums), said, strict=True)
    ]
    plus, equals = (
        Sheet(_OPERATOR, size[1], [Label(_OPERATOR / 2 - (width - size[0]) / 2, size[1] / 2, text, DARK, "mm")])
        for text in (f"+ {epsilon} ×", "=")
    )
    rows = [HStack([left, plus, middle, equals, right], gap=0) for left, middle, right in zip(*columns, strict=True)]
    titles = [
        Label(place * (width + _OPERATOR), LINE / 2, text, anchor="lm")
        for place, text in enumerate(("the image", "gradient's sign", "their sum"))
    ]
    above = Sheet(INNER_WIDTH, LINE, titles)
    facts = (f"network {_tally(before, after)}", first_of(count, len(images), "samples"))
    reading = (
        "The sign of the loss gradient is an image, too: dark where a pixel is lowered, light where it is raised. "
        "Below each of the three is what the network says of it. Where the sum looks like the image, and yet has "
        "another class, too little was added to be seen."
    )
    body = VStack([above, *rows], gap=GUTTER)
    return compose(tag, f"FGSM as a sum, ε {epsilon}", body, facts, reading, **info)


def _difference(sample: int, values: NDArray[np.float64], factor: float, size: tuple[int, int]) -> MapTile:
    """Of red, green and blue around middle gray; of anything else blue where it fell and red where it rose.

    Of several channels the one that changed most is shown: in their mean opposite changes would cancel.
    """
    flaw = find_flaw(values, single=False)
    words = _UNCHANGED.get(flaw, flaw) if flaw else None
    if len(values) == 3:
        return MapTile(size, flaw=words, sample=sample, values=factor * values, display="image")
    strongest = np.abs(values).argmax(axis=0, keepdims=True)
    signed = 2 * factor * np.take_along_axis(values, strongest, axis=0)[0]
    return MapTile(size, flaw=words, sample=sample, values=signed, display="signed")


def _triple_width(columns: int) -> int:
    """Pixels of a sample's three tiles, so many samples side by side."""
    return (INNER_WIDTH - _APART * (columns - 1)) // columns


def _triple_size(images: NDArray[Any], count: int, columns: int) -> TileSize:
    """Width and height of a tile, with two lines of text below each three."""
    rows, aspect, across = max(1, -(-count // columns)), images.shape[1] / images.shape[2], _triple_width(columns)
    return fit(3, rows, aspect, under=2 * LINE + 1, gap=_CLOSE, room=BODY_HEIGHT - 3 * LINE, across=across)


def _triple_texts(before: Sequence[Verdict], after: Sequence[Verdict], norms: Sequence[str], width: int) -> list[Part]:
    """Below a sample, its twin and their difference: what the network says of both, and the difference's norm."""
    room = width - _OF - _NORM
    texts = [verdict_texts(verdicts, room) for verdicts in (before, _outcomes(before, after))]
    return [
        VStack(
            [
                HStack([Text(["image"], _OF, color=GRAY), first], gap=0),
                HStack([Text(["twin"], _OF, color=GRAY), last, Text([norm], _NORM, color=GRAY)], gap=0),
            ],
            gap=0,
        )
        for first, last, norm in zip(*texts, norms, strict=False)
    ]


def _outcomes(before: Sequence[Verdict], after: Sequence[Verdict]) -> list[Verdict]:
    """What the network says of twins; a truth that is not known is what it said of their samples."""
    return [replace(last, truth=_truth(first)) for first, last in zip(before, after, strict=True)]


def _truth(before: Verdict) -> str | None:
    return before.prediction if before.truth is None else before.truth


def _tally(before: Sequence[Verdict], after: Sequence[Verdict]) -> str:
    """``fooled on 5 of the 7 samples it had right``."""
    right = [last for first, last in zip(before, _outcomes(before, after), strict=True) if not first.mistaken]
    fooled = sum(last.mistaken for last in right)
    return f"fooled on {fooled} of the {len(right)} samples it had right" if right else "had none right"


def _tiles(images: NDArray[np.uint8], size: tuple[int, int]) -> list[Tile]:
    return [Tile(size, image, sample=index) for index, image in enumerate(images)]


def _tile_size(images: NDArray[Any], *, rows: int, lines: int) -> tuple[tuple[int, int], int]:
    """Of tiles in so many rows, which leave room for lines of text between them; and the width of that text."""
    room = BODY_HEIGHT - LINE * lines - 2 * GUTTER * (rows + 1)
    size = fit(max(1, min(len(images), COLUMNS)), rows, images.shape[1] / images.shape[2], room=room)
    return size, max(size[0], _NARROWEST)


def _band(heading: str, tiles: Sequence[Tile], texts: Sequence[Text]) -> Part:
    """A row of tiles under what they are, and a text under each, which may be wider."""
    head = Text(wrap(heading, INNER_WIDTH), INNER_WIDTH, color=GRAY)
    return VStack([head, HStack(in_columns(tiles, texts, gap=1), gap=GUTTER)], gap=1)


_MOST_ROWS = 12
_CELL, _NAME, _GAP = 50, 96, 4  # pixels: height of rows, width of cells with a class's name, between parts of a row
_MOVED = 86  # pixels for the last column
_HEADS = 2 * LINE
_MOST_HEADS = 5  # numbers of steps over the lines
_MOST_KEYS = 20  # names of classes below


def record_table(
    tag: str,
    images: NDArray[np.uint8],
    classes: NDArray[Any],
    confidences: NDArray[Any],
    labels: NDArray[Any],
    *,
    names: Sequence[str] | None = None,
    relative: NDArray[Any] | None = None,
    step_numbers: Sequence[int] | None = None,
    attack: str,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of an attack's record: for each sample its confidence over all steps, on the colors of the classes.

    Args:
        tag: of the page.
        images: the samples ``[N, H, W, 3]``; the first 12 are shown.
        classes: after each step ``[S, N]``, of the samples as they are first.
        confidences: of those, 0 to 1, ``[S, N]``.
        labels: the right classes ``[N]``.
        names: of all classes; their numbers if omitted.
        relative: length of the change by that of the sample ``[S, N]``; after the last step it is shown.
        step_numbers: of the S steps, ascending; 0, 1, ... if omitted.
        attack: its name, for the caption.
        info: see `PageInfo`.
    """
    check_rgb(images)
    classes, confidences, labels = np.asarray(classes), np.asarray(confidences), np.asarray(labels)
    lengths = None if relative is None else np.asarray(relative)
    steps = list(range(len(classes))) if step_numbers is None else list(step_numbers)
    tables = {"classes": classes, "confidences": confidences} | ({} if lengths is None else {"relative": lengths})
    for name, table in tables.items():
        check_shape(name, table, len(steps), len(images), filled=True, remedy="of several epsilons give one")
    check_shape("labels", labels, len(images))
    if (np.diff(steps) <= 0).any():
        raise InvalidArgumentError(f"step_numbers={steps}: give them ascending")
    rows = min(len(images), _MOST_ROWS)
    count = max(int(classes.max(initial=0)), int(labels.max()), len(names or ()) - 1) + 1
    class_names = [name_of(label, tuple(names) if names else None) for label in range(count)]
    colors = class_colors(count)
    thumb = (min(2 * _CELL, max(_CELL // 2, round(_CELL / (images.shape[1] / images.shape[2])))), _CELL)
    label_left = thumb[0] + GUTTER
    left = label_left + _NAME + _GAP
    width = INNER_WIDTH - left - _GAP - _NAME - (_MOVED + GUTTER) * (lengths is not None)
    end, tops = left + width + _GAP, [_HEADS + (_CELL + _GAP) * row for row in range(rows + 1)]
    parts: list[Part] = [Label(left, 0, "class (color), confidence (line, 0 to 100 %) after step")]
    for x, head in ((label_left, "label"), (end, f"{steps[-1]:,}")):
        parts.append(Label(x + _NAME / 2, 1.5 * LINE, head, GRAY if x == label_left else DARK, "mm"))
    parts += _step_heads(steps, left, width)
    if lengths is not None:
        parts.append(Label(end + _NAME + GUTTER, 1.5 * LINE, "moved", anchor="lm"))
    for row, label in enumerate(labels[:rows]):
        parts.append(At(0, tops[row], Tile(thumb, images[row], sample=row)))
        last, confidence = classes[-1, row], float(confidences[-1, row])
        lines = [class_names[last], (CROSS if last != label else "") + percent(confidence)]
        cells: list[tuple[int, int, list[str], float | None]] = [
            (label_left, label, [class_names[label]], None),
            (end, last, lines, confidence),
        ]
        for column, (x, index, words, value) in enumerate(cells):
            place, color = (x, tops[row], _NAME, _CELL), tuple(colors[index].tolist())
            parts.append(Cell(*place, color, words, _ink(colors[index]), value, row, column))
        curve, bands = np.asarray(confidences[:, row], dtype=np.float64), colors[classes[:, row]]
        parts.append(At(left, tops[row], CurveTile(curve, width, _CELL, (0.0, 1.0), bands)))
        if lengths is not None:
            length = 100 * float(lengths[-1, row])
            moved = f"{number(length)} %" if np.isfinite(length) else "–"
            parts.append(Label(end + _NAME + GUTTER, tops[row] + _CELL / 2, moved, DARK, "lm"))
    began, ended = ((predictions != labels).sum() for predictions in (classes[0], classes[-1]))
    met = np.unique(classes[:, :rows])
    facts = (
        f"{ended} of {len(labels)} end on another class than their label",
        f"{began} began so" if began else "",
        f"{CROSS.strip()} no longer the label",
        first_of(rows, len(images), "samples"),
        f"{len(steps):,} recorded steps, none left out",
        some_of(min(len(met), _MOST_KEYS), len(met), "classes below"),
        "moved: the change's length, of the image's" if lengths is not None else "",
    )
    reading = (
        "Each row is one sample, from left to right all steps of the attack: the ground has the color of the class "
        "that the network then sees, and the line is its confidence in it, 0 at the bottom and 100 % at the top. "
        "Where the color changes, the network changed its mind."
    )
    key = ClassKey([class_names[index] for index in met[:_MOST_KEYS]], colors[met[:_MOST_KEYS]])
    body = VStack([Sheet(INNER_WIDTH, tops[-1], parts), key], gap=_GAP)
    return compose(tag, f"The class after each step: {attack}", body, facts, reading, **info)


def _step_heads(steps: Sequence[int], left: int, width: int) -> list[Label]:
    """Numbers over the lines, each where its step is; the last stands over the last cell."""
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _MOST_HEADS)).round().astype(int))[:-1].tolist()
    middles = [left + width * (place + 0.5) / len(steps) for place in chosen]
    return [
        Label(max(x, left + text_width(f"{steps[place]:,}") / 2), 1.5 * LINE, f"{steps[place]:,}", DARK, "mm")
        for place, x in zip(chosen, middles, strict=True)
    ]


def _ink(color: Colors) -> tuple[int, ...]:
    """White on dark colors, dark on the others: at this luminance the contrasts of both are alike."""
    return WHITE if float((color / 255) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722])) < 0.2 else DARK
