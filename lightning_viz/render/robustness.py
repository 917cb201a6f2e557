"""Robustness: what corruptions cost, accuracy against epsilon, defenses, and random directions around samples."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import apply, class_colors
from lightning_viz.render.layout import BODY_HEIGHT, COLUMNS, GUTTER, INNER_WIDTH, fit, heads
from lightning_viz.render.page import Page, PageInfo, check_rgb, check_shape, compose
from lightning_viz.render.parts import (
    Cell,
    ClassKey,
    ColorBar,
    EpsilonPlot,
    HStack,
    Label,
    Part,
    Sheet,
    SpherePlot,
    Text,
    Tile,
    VStack,
)
from lightning_viz.render.share_bar import bar_of
from lightning_viz.render.text import (
    DARK,
    GRAY,
    LINE,
    WHITE,
    first_of,
    fixed_point,
    number,
    percent,
    shorten,
    text_width,
)

__all__ = [
    "FEW",
    "accuracy_bars",
    "corruption_sheet",
    "corruption_table",
    "defense_bars",
    "epsilon_curves",
    "sphere_plot",
]

_MOST_ROWS = 16
_LABEL = 170  # pixels for the names of rows
_MOST_RATIOS = 3
_ROW = 40  # pixels high, of the table
_APART = 6  # pixels between kinds and their mean
_RATIOS = 210  # pixels for all columns of ratios
_COLORS = "magma"
_HEIGHT = 460
_MOST_CURVES = 12
_MOST_DEFENSES = 13
FEW = 0.02
"""Of random directions: a smaller share than this hardly ever changes the label."""

_BAR, _BETWEEN, _LONGEST, _FIGURE = 24, 10, 180, 70  # pixels: of a bar, between defenses, for names, for numbers


def corruption_sheet(
    tag: str,
    clean: NDArray[np.uint8],
    corrupted: NDArray[np.uint8],
    *,
    kinds: Sequence[str],
    severities: Sequence[object],
    title: str = "One image under corruptions",
    columns: str = "severity",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of one image in all its corruptions: a row for each kind, the clean image at the left, then its severities.

    Args:
        tag: of the page.
        clean: the image ``[H, W, 3]``.
        corrupted: the same corrupted, ``[K, S, H, W, 3]``; the first 16 kinds and the first 7 severities are shown.
        kinds: K names; underscores are shown as spaces.
        severities: S of them, as the heads of the columns.
        title: what it is.
        columns: what their heads are.
        info: see `PageInfo`.
    """
    check_rgb(clean[None])
    remedy = "for these kinds and severities, uint8; use tiles.to_rgb"
    check_shape("corrupted", corrupted, len(kinds), len(severities), *clean.shape, remedy=remedy)
    check_rgb(corrupted.reshape(-1, *clean.shape))
    shown = corrupted[:_MOST_ROWS, : COLUMNS - 1]
    names = _names(kinds[: len(shown)])
    label = min(_LABEL, max(map(text_width, names)) + GUTTER)
    count = shown.shape[1] + 1
    aspect, across = clean.shape[0] / clean.shape[1], INNER_WIDTH - label - GUTTER
    size = fit(count, len(shown), aspect, room=BODY_HEIGHT - LINE, across=across)
    # A head may be as wide as a tile with what is around it.
    words = heads(["clean", *map(str, severities[: count - 1])], size[0] + GUTTER)
    sheet: list[Part] = [HStack([Text([columns], label + GUTTER // 2, color=GRAY), *words], gap=0)]
    for name, row in zip(names, shown, strict=True):
        middle = Sheet(label, size[1], [Label(0, size[1] / 2, name, DARK, "lm")])
        sheet.append(HStack([middle, *(Tile(size, image, sample=0) for image in (clean, *row))], gap=GUTTER))
    facts = (first_of(len(shown), len(kinds), "kinds"), first_of(count - 1, len(severities), "severities"))
    reading = "Each row is one kind of corruption, from the image as it is to the highest severity."
    return compose(tag, title, VStack(sheet, gap=GUTTER), facts, reading, **info)


def corruption_table(
    tag: str,
    errors: NDArray[Any],
    *,
    kinds: Sequence[str],
    severities: Sequence[int],
    clean: float,
    name: str,
    ratios: Mapping[str, Sequence[float]] = MappingProxyType({}),
    reference: str = "",
    **info: Unpack[PageInfo],
) -> Page:
    """Page of corruption errors: of one network for each kind and severity, and relative to a reference for several.

    Args:
        tag: of the page.
        errors: share of mistakes ``[K, S]``, 0 to 1.
        kinds: K names; underscores are shown as spaces.
        severities: S of them.
        clean: share of mistakes on the images as they are.
        name: of the network that errs.
        ratios: corruption errors ``[K]`` by the network's name, NaN where there are none; the first three are shown.
            None of a network that is measured against no other.
        reference: name of the network that they are measured against.
        info: see `PageInfo`.
    """
    errors = np.asarray(errors, dtype=np.float64)
    columns = {model: np.asarray(values, dtype=np.float64) for model, values in ratios.items()}
    check_shape("errors", errors, len(kinds), len(severities), remedy="kinds by severities")
    for model, values in columns.items():
        check_shape(f"ratios[{model!r}]", values, len(kinds), remedy="one for each kind")
    names = _names(kinds)
    means = {
        model: float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else np.nan
        for model, values in columns.items()
    }
    wide = _RATIOS // min(_MOST_RATIOS, max(2, len(columns)))
    shown = [
        _column(["CE of", shorten(model, wide), *map(fixed_point, [*columns[model], means[model]])], wide)
        for model in list(columns)[:_MOST_RATIOS]
    ]
    cells = _heat(errors, severities, INNER_WIDTH - _LABEL - (wide + GUTTER) * len(shown) - GUTTER)
    table = HStack([_column(["", "", *names, "mean"], _LABEL), cells, *shown], gap=GUTTER)
    bar = ColorBar(_COLORS, "0 %", "100 %", label=f"error of {name}")
    facts = (
        f"clean error {percent(clean)} %",
        f"CE: error over that of {reference}" if columns else "",
        *(f"mCE of {model} {fixed_point(mean)}" for model, mean in means.items()),
        f"columns of the first {_MOST_RATIOS} of {len(columns)}" if len(columns) > _MOST_RATIOS else "",
    )
    reading = f"How often {name} is mistaken under each kind of corruption"
    reading += (
        f", and CE, that error summed over the severities, divided by the same of {reference}: 1 is as bad, less is "
        "better. mCE is the mean over the kinds."
        if columns
        else ", and in the mean over the kinds, from the least severity to the highest."
    )
    lost = [kind for place, kind in enumerate(names) if any(np.isnan(values[place]) for values in columns.values())]
    undefined = (f"CE undefined for {', '.join(lost)}: {reference} makes no mistake",) if lost else ()
    body = VStack([table, bar], gap=GUTTER)
    return compose(tag, f"What corruptions cost {name}", body, facts, reading, warnings=undefined, **info)


def _heat(errors: NDArray[np.float64], severities: Sequence[int], width: int) -> Sheet:
    """The errors in per cent as colored cells, their mean over the kinds last; the severities on top."""
    rows = np.vstack([errors, errors.mean(axis=0)])
    colors = apply(_COLORS, rows, 0, 1)
    cell = width // len(severities)
    parts: list[Part] = [Label(0, _top(0.5), "error in %, at severity", anchor="lm")]
    for (row, column), error in np.ndenumerate(rows):
        place = (cell * column, _top(row + 2, last=row == len(errors)), cell - 2, _ROW - 2)
        ink = WHITE if colors[row, column].mean() < 140 else DARK
        color = tuple(colors[row, column].tolist())
        parts.append(Cell(*place, color, [percent(error)], ink, float(error), row, column))
    for column, severity in enumerate(severities):
        parts.append(Label(cell * (column + 0.5), _top(1.5), f"{severity}", anchor="mm"))
    return Sheet(width, _top(len(rows) + 2, last=True), parts)


def _column(texts: Sequence[str], width: int) -> Sheet:
    """Texts one below the other, a row of the table each; the first two are heads, the last is the mean."""
    parts = []
    for row, text in enumerate(texts):
        middle = _top(row + 0.5, last=row == len(texts) - 1) - 1
        parts.append(Label(0, middle, text, GRAY if row < 2 else DARK, "lm"))
    return Sheet(width, _top(len(texts), last=True), parts)


def _top(row: float, *, last: bool = False) -> int:
    """Where a row of the table begins; the last is set apart."""
    return round(_ROW * row + _APART * last)


def _names(kinds: Sequence[str]) -> list[str]:
    return [shorten(kind.replace("_", " "), _LABEL) for kind in kinds]


def epsilon_curves(
    tag: str,
    curves: Mapping[str, tuple[Sequence[float] | NDArray[Any], Sequence[float] | NDArray[Any]]],
    *,
    norm: str,
    gray_levels: bool = False,
    trained: float | None = None,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of accuracy against how far inputs may move, a line for each network or attack.

    Args:
        tag: of the page.
        curves: by name, epsilons in pixels of 0 to 1, and the accuracies under attack, 0 to 1; the first 12 are shown.
        norm: that epsilon bounds, for the axis ("L∞").
        gray_levels: write epsilons in levels of 255.
        trained: the epsilon that a network was trained at, marked.
        info: see `PageInfo`.
    """
    if not curves:
        raise InvalidArgumentError("no curve: give at least one, {name: (epsilons, accuracy)}")
    unit, words = (255, "gray levels of 255") if gray_levels else (1, "pixels of 0 to 1")
    lines = {name: _line(name, *pair) * [[unit], [100]] for name, pair in list(curves.items())[:_MOST_CURVES]}
    label, mark = f"epsilon: {norm}, in {words}", None if trained is None else trained * unit
    plot = EpsilonPlot(width=INNER_WIDTH, height=_HEIGHT, curves=lines, label=label, trained=mark)
    lost = sum(bool(np.isnan(line).any()) for line in lines.values())
    facts = (first_of(len(lines), len(curves), "curves"),)
    reading = "How often each network is still right when an attack may move every input by epsilon."
    warnings = (f"NaN in {lost} of {len(lines)} curves",) if lost else ()
    title = "Accuracy when inputs may move by epsilon"
    return compose(tag, title, plot, facts, reading, warnings=warnings, **info)


def defense_bars(
    tag: str,
    names: Sequence[str],
    clean: Sequence[float] | NDArray[Any],
    attacked: Sequence[float] | NDArray[Any],
    *,
    attack: str,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of defenses against an attack: accuracy on samples and on their attacked twins, for each defense.

    Args:
        tag: of the page.
        names: of the D defenses; the first 13 are shown.
        clean: accuracy on the samples ``[D]``, 0 to 1.
        attacked: the same on their twins.
        attack: its name and how far it went.
        info: see `PageInfo`.
    """
    body, count = _pairs_of_bars(names, clean, attacked, ["clean samples", "attacked samples"])
    facts = ("accuracy when the input is changed before the network sees it", first_of(count, len(names), "defenses"))
    reading = (
        "For each defense, a change of the input before the network sees it: accuracy on samples as they are, and on "
        "their attacked twins. One that helps lifts the lower bar without shortening the upper."
    )
    return compose(tag, f"What helps against {attack}", body, facts, reading, **info)


def accuracy_bars(
    tag: str,
    names: Sequence[str],
    clean: Sequence[float] | NDArray[Any],
    robust: Sequence[float] | NDArray[Any],
    *,
    attack: str,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of robust accuracy: for each network its accuracy on samples as they are, and under an attack.

    Args:
        tag: of the page.
        names: of the D networks; the first 13 are shown.
        clean: accuracy ``[D]``, 0 to 1.
        robust: accuracy under the attack, likewise.
        attack: its name and how far it goes.
        info: see `PageInfo`.
    """
    body, count = _pairs_of_bars(names, clean, robust, ["clean accuracy", "robust accuracy"])
    reading = (
        "Of each network the upper bar is its accuracy on the samples as they are, the lower one what is left of it "
        "when each may be changed by as much as epsilon allows: a sample counts as lost if any part of the attack "
        "changes its class."
    )
    facts = (first_of(count, len(names), "networks"),)
    return compose(tag, f"Accuracy under {attack}", body, facts, reading, **info)


def _pairs_of_bars(names: Sequence[str], clean: Any, attacked: Any, key: Sequence[str]) -> tuple[Part, int]:
    """For each name two bars of accuracies below their key, and how many names are shown."""
    pairs = [np.asarray(shares, dtype=np.float64) for shares in (clean, attacked)]
    for name, shares in zip(("clean", "attacked"), pairs, strict=True):
        check_shape(name, shares, len(names), filled=True, remedy="of several epsilons give one")
    count = min(len(names), _MOST_DEFENSES)
    colors = class_colors(2)
    label = min(_LONGEST, max(map(text_width, names[:count])) + 12)
    full = INNER_WIDTH - label - _FIGURE
    parts: list[Part] = []
    for row, name in enumerate(names[:count]):
        top = row * (2 * _BAR + _BETWEEN)
        parts.append(Label(0, top + _BAR, shorten(name, label - 12), DARK, "lm"))
        for bar, (shares, color) in enumerate(zip(pairs, colors.tolist(), strict=True)):
            share, high = float(shares[row]), top + bar * _BAR
            parts += bar_of(share, (label, high, full, _BAR - 2), tuple(color), row=row, column=bar)
            text = f"{percent(share, decimals=1)} %" if np.isfinite(share) else "–"
            parts.append(Label(label + full + 8, high + _BAR / 2 - 1, text, DARK, "lm"))
    bars = Sheet(INNER_WIDTH, count * (2 * _BAR + _BETWEEN), parts)
    return VStack([ClassKey(list(key), colors), bars], gap=8), count


def sphere_plot(
    tag: str,
    changed: Sequence[float] | NDArray[Any],
    *,
    samples: int,
    radii: Sequence[float] | NDArray[Any] | None = None,
    times: float | None = 2,
    **info: Unpack[PageInfo],
) -> Page:
    """Page of how many random directions change the class, a dot for each sample, beside the adversarial one that did.

    Args:
        tag: of the page.
        changed: of each sample, the share of random directions that change its class, ``[N]``, 0 to 1.
        samples: random directions tried around each.
        radii: their lengths ``[N]``, in pixels of 0 to 1.
        times: by how much they are longer than the adversarial perturbations; None if these play no part.
        info: see `PageInfo`.
    """
    shares = np.asarray(changed, dtype=np.float64)
    check_shape("changed", shares, "N", filled=True)
    lengths = np.ones_like(shares) if radii is None else np.asarray(radii, dtype=np.float64)
    check_shape("radii", lengths, len(shares))
    counted = np.isfinite(shares) & (lengths > 0)  # where the attack went no way at all, twice as far says nothing
    known, far = np.sort(shares[counted]), lengths[counted] if radii is not None else lengths[:0]
    mean = float(known.mean()) if len(known) else np.nan
    plot = SpherePlot(width=INNER_WIDTH, height=_HEIGHT, shares=known, mean=mean, few=FEW)
    by = "twice" if times == 2 else "" if times is None else f"{number(times)} times"
    long = f"{by} as long as the adversarial one" if by else "of the given length"
    facts = (
        f"{samples:,} random directions around each of {len(known)} samples",
        f"around {(known < FEW).sum()} of them fewer than 2 % change it",
        f"lengths {number(far.min())} to {number(far.max())} (L2, pixels of 0 to 1)" if len(far) else "",
    )
    reading = (
        f"Around each sample, random directions {long}: which share of them changes the "
        "class. Near zero they hardly ever do: directions that fool the network are rare, and were not hit by chance."
    )
    going = f"Going {by} as far as the attack, but at random" if by else "Going a given way at random"
    title = f"{going}: {percent(mean, decimals=1)} % change the class"
    lost = len(shares) - len(known)
    warnings = (f"{lost} of {len(shares)} samples left out: NaN, or a length of 0",) if lost else ()
    return compose(tag, title, plot, facts, reading, warnings=warnings, **info)


def _line(name: str, epsilons: Any, accuracy: Any) -> NDArray[np.float64]:
    """Epsilons, ascending, and accuracies ``[2, E]``."""
    x, y = np.asarray(epsilons, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    check_shape(f"epsilons of the curve {name!r}", x, "E", filled=True)
    check_shape(f"accuracies of the curve {name!r}", y, len(x))
    if not ((x >= 0) & np.isfinite(x)).all():
        raise InvalidArgumentError(f"the curve {name!r} has epsilons {x.tolist()}: give numbers of 0 or more")
    order = np.argsort(x)
    return np.stack([x[order], y[order]])
