"""How robust a network is, as plots: accuracy against epsilon, defenses, and random directions around samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import class_colors
from lightning_viz.render.page import INNER_WIDTH, Caption, Picture, page, stack
from lightning_viz.render.plots import POINT, canvas, class_key
from lightning_viz.render.text import DARK, LINE, TEXT_SIZE, font, number, percent, shorten, step_text, text_width

PLOT_HEIGHT = 460
MOST_CURVES = 12
MOST_DEFENSES = 13
FEW = 0.02
"""Of random directions: a smaller share than this hardly ever changes the label."""

_LEFT, _RIGHT, _BOTTOM, _TOP = 96, 20, 64, 36  # pixels around the axes
_NAME = 240  # pixels for names at the ends of lines
_MARKERS = "osD^vP*X<>hd"
_DOT = 8  # pixels
_WORDS: dict[str, Any] = {"fontsize": TEXT_SIZE * POINT, "color": "0.35"}
_BAR, _APART, _LABEL, _FIGURE = 24, 10, 180, 70  # pixels: of a bar, between defenses, for names, for numbers


def epsilon_curves(
    tag: str,
    curves: Mapping[str, tuple[Sequence[float] | NDArray[Any], Sequence[float] | NDArray[Any]]],
    *,
    norm: str,
    gray_levels: bool = False,
    trained: float | None = None,
    step: int | None = None,
    details: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """Accuracy against how far inputs may move, a line for each network or attack.

    Args:
        tag: where the picture stands in TensorBoard.
        curves: by name, epsilons in pixels of 0 to 1, and the accuracies under attack, 0 to 1; the first 12 are shown.
        norm: that epsilon bounds, for the axis ("L∞").
        gray_levels: write epsilons in levels of 255.
        trained: the epsilon that a network was trained at, marked.
        step: number of completed updates of the network, if it is being trained.
        details: facts for the caption.
        notes: further warnings for the caption.
    """
    if not curves:
        raise InvalidArgumentError("no curve: give at least one, {name: (epsilons, accuracy)}")
    lines = {name: _line(name, *pair) for name, pair in list(curves.items())[:MOST_CURVES]}
    unit = 255 if gray_levels else 1
    lines = {name: line * [[unit], [100]] for name, line in lines.items()}
    colors = class_colors(len(lines)) / 255
    beside = min(_NAME, max(map(text_width, lines))) + 44
    with canvas(INNER_WIDTH, PLOT_HEIGHT) as sheet:
        width, height = INNER_WIDTH - _LEFT - beside, PLOT_HEIGHT - _BOTTOM - _TOP
        axes = sheet.axes(_LEFT, _BOTTOM, width, height)
        for (x, y), color, marker in zip(lines.values(), colors, _MARKERS, strict=False):
            (drawn,) = axes.plot(x, y, color=color, marker=marker, markersize=_DOT * POINT, linewidth=2.5 * POINT)
            drawn.set(clip_on=False, zorder=3)
        axes.set_xlim(0, max(unit * (trained or 0), *(float(x[-1]) for x, _ in lines.values())) or 1)
        _percent_axis(axes, 100, "accuracy under attack")
        in_units = "gray levels of 255" if gray_levels else "pixels of 0 to 1"
        axes.set_xlabel(f"epsilon: {norm}, in {in_units}", **_WORDS)
        if trained is not None:
            axes.axvline(trained * unit, color="0.35", linewidth=1.5 * POINT, linestyle="--", zorder=1)
            words = f"trained at {number(trained * unit)}"
            axes.text(trained * unit, 103, words, **_WORDS, ha="center", va="bottom")
        _names_at_ends(axes, lines, colors, height)
        plot = sheet.image()
    lost = sum(bool(np.isnan(line).any()) for line in lines.values())
    facts = (
        "" if step is None else step_text(step),
        f"the first {len(lines)} of {len(curves)} curves" if len(lines) < len(curves) else "",
        *details,
    )
    reading = "How often each network is still right when an attack may move every input by epsilon."
    warnings = (f"NaN in {lost} of {len(lines)} curves",) if lost else ()
    return page(tag, Caption("Accuracy when inputs may move by epsilon", facts, reading, (*warnings, *notes)), plot)


def defense_bars(
    tag: str,
    names: Sequence[str],
    clean: Sequence[float] | NDArray[Any],
    attacked: Sequence[float] | NDArray[Any],
    *,
    attack: str,
    details: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """What helps against an attack: accuracy on samples and on their attacked twins, for each defense.

    Args:
        tag: where the picture stands in TensorBoard.
        names: of the D defenses; the first 13 are shown.
        clean: accuracy on the samples ``[D]``, 0 to 1.
        attacked: the same on their twins.
        attack: its name and how far it went.
        details: facts for the caption.
        notes: further warnings for the caption.
    """
    pairs = [np.asarray(each, dtype=np.float64) for each in (clean, attacked)]
    if any(each.shape != (len(names),) for each in pairs) or not len(names):
        got = " and ".join(str(list(each.shape)) for each in pairs)
        raise InvalidArgumentError(
            f"clean and attacked are [{len(names)} defenses], got {got}; of several epsilons give one"
        )
    count = min(len(names), MOST_DEFENSES)
    colors = class_colors(2)
    label = min(_LABEL, max(map(text_width, names[:count])) + 12)
    body = Image.new("RGB", (INNER_WIDTH, count * (2 * _BAR + _APART)), "white")
    draw = ImageDraw.Draw(body)
    full = INNER_WIDTH - label - _FIGURE
    for place, name in enumerate(names[:count]):
        top = place * (2 * _BAR + _APART)
        draw.text((0, top + _BAR), shorten(name, label - 12), fill=DARK, font=font(), anchor="lm")
        for bar, (shares, color) in enumerate(zip(pairs, colors, strict=True)):
            share, high = shares[place], top + bar * _BAR
            end = label + (round(full * float(np.clip(share, 0, 1))) if np.isfinite(share) else 0)
            draw.rectangle((label, high, label + full, high + _BAR - 3), fill=(240, 240, 240))
            if end > label:
                draw.rectangle((label, high, end, high + _BAR - 3), fill=tuple(color.tolist()))
            text = f"{percent(share, decimals=1)} %" if np.isfinite(share) else "–"
            draw.text((label + full + 8, high + _BAR / 2 - 1), text, fill=DARK, font=font(), anchor="lm")
    key = class_key(["clean samples", "attacked samples"], colors)
    facts = (
        "accuracy when the input is changed before the network sees it",
        f"the first {count} of {len(names)} defenses" if count < len(names) else "",
        *details,
    )
    reading = (
        "For each defense, a change of the input before the network sees it: accuracy on samples as they are, and on "
        "their attacked twins. One that helps lifts the lower bar without shortening the upper."
    )
    return page(tag, Caption(f"What helps against {attack}", facts, reading, tuple(notes)), stack([key, body], gap=8))


def sphere_plot(
    tag: str,
    changed: Sequence[float] | NDArray[Any],
    *,
    samples: int,
    radii: Sequence[float] | NDArray[Any] | None = None,
    times: float | None = 2,
    step: int | None = None,
    details: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Picture:
    """How many random directions change the class, a dot for each sample, beside the adversarial one that did.

    Args:
        tag: where the picture stands in TensorBoard.
        changed: of each sample, the share of random directions that change its class, ``[N]``, 0 to 1.
        samples: random directions tried around each.
        radii: their lengths ``[N]``, in pixels of 0 to 1.
        times: by how much they are longer than the adversarial perturbations; None if these play no part.
        step: number of completed updates of the network, if it is being trained.
        details: facts for the caption.
        notes: further warnings for the caption.
    """
    shares = np.asarray(changed, dtype=np.float64)
    if shares.ndim != 1 or not len(shares):
        raise InvalidArgumentError(f"changed is {list(shares.shape)}: give a share for each of N samples")
    lengths = np.asarray([np.nan] if radii is None else radii, dtype=np.float64)
    if radii is not None and lengths.shape != shares.shape:
        raise InvalidArgumentError(f"radii are {list(lengths.shape)} for {len(shares)} samples: give one each")
    # Where the attack went no way at all, twice as far says nothing.
    counted = np.isfinite(shares) & ((lengths > 0) if radii is not None else True)
    known, far = np.sort(shares[counted]), lengths[counted] if radii is not None else lengths[:0]
    mean = float(known.mean()) if len(known) else np.nan
    with canvas(INNER_WIDTH, PLOT_HEIGHT) as sheet:
        axes = sheet.axes(_LEFT, 40, INNER_WIDTH - _LEFT - _RIGHT, PLOT_HEIGHT - 40 - 12)
        (line,) = axes.plot(np.arange(1, len(known) + 1), 100 * known, "o", color="#0072B2", markersize=_DOT * POINT)
        line.set(clip_on=False, zorder=3, alpha=0.7, markeredgewidth=0)
        axes.set_xlim(0, len(known) + 1)
        _percent_axis(axes, min(100, max(5, 115 * known.max(initial=0))), "directions that change the class")
        axes.set_xticks([])
        axes.set_xlabel("samples, sorted: one dot each", **_WORDS, labelpad=10)
        _level(axes, 100 * FEW, "2 %", "0.35", "--", right=True)
        if np.isfinite(mean):
            _level(axes, 100 * mean, f"mean {percent(mean, decimals=1)} %", "#D55E00", "-", right=False)
        plot = sheet.image()
    by = "twice" if times == 2 else "" if times is None else f"{number(times)} times"
    long = f"{by} as long as the adversarial one" if by else "of the given length"
    facts = (
        "" if step is None else step_text(step),
        f"{samples:,} random directions around each of {len(known)} samples",
        f"around {(known < FEW).sum()} of them fewer than 2 % change it",
        f"lengths {number(far.min())} to {number(far.max())} (L2, pixels of 0 to 1)" if len(far) else "",
        *details,
    )
    reading = (
        f"Around each sample, random directions {long}: which share of them changes the "
        "class. Near zero they hardly ever do: directions that fool the network are rare, and were not hit by chance."
    )
    going = f"Going {by} as far as the attack, but at random" if by else "Going a given way at random"
    title = f"{going}: {percent(mean, decimals=1)} % change the class"
    lost = len(shares) - len(known)
    warnings = (f"{lost} of {len(shares)} samples left out: NaN, or a length of 0",) if lost else ()
    return page(tag, Caption(title, facts, reading, (*warnings, *notes)), plot)


def _line(name: str, epsilons: Any, accuracy: Any) -> NDArray[np.float64]:
    """Epsilons, ascending, and accuracies ``[2, E]``."""
    x, y = np.asarray(epsilons, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise InvalidArgumentError(
            f"the curve {name!r} is {list(x.shape)} and {list(y.shape)}: give E epsilons and E accuracies"
        )
    if not ((x >= 0) & np.isfinite(x)).all():
        raise InvalidArgumentError(f"the curve {name!r} has epsilons {x.tolist()}: give numbers of 0 or more")
    order = np.argsort(x)
    return np.stack([x[order], y[order]])


def _percent_axis(axes: Axes, highest: float, label: str) -> None:
    """From 0 to the highest, with few numbers; no frame at the top and the right."""
    axes.set_ylim(0, highest)
    ticks = [tick for tick in axes.get_yticks() if 0 <= tick <= highest + 1e-9]
    axes.set_yticks(ticks, [f"{number(round(tick, 6))} %" for tick in ticks])
    axes.tick_params(colors="0.35", labelsize=TEXT_SIZE * POINT)
    axes.set_ylabel(label, **_WORDS)
    axes.grid(axis="y", color="0.9", linewidth=POINT)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _level(axes: Axes, at: float, words: str, color: str, dashes: str, *, right: bool) -> None:
    """A horizontal line with words over one of its ends."""
    axes.axhline(at, color=color, linewidth=2 * POINT, linestyle=dashes, zorder=2)
    x = axes.get_xlim()[1] * (0.99 if right else 0.01)
    style = {**_WORDS, "color": color, "ha": "right" if right else "left", "va": "bottom"}
    axes.annotate(words, (x, at), (0, 3), textcoords="offset pixels", zorder=4, **style)


def _names_at_ends(
    axes: Axes, lines: Mapping[str, NDArray[np.float64]], colors: NDArray[np.float64], height: int
) -> None:
    """Each line's name beside its end, a line of text apart from the next; where it had to move, a thin line leads."""
    ends = {}
    for name, (x, y) in lines.items():
        known = np.flatnonzero(np.isfinite(y))
        ends[name] = (float(x[known[-1]]), float(y[known[-1]])) if len(known) else (float(x[-1]), 0.0)
    # Of lines that end at one point the higher one is named higher.
    order = sorted(ends, key=lambda name: (ends[name][1], float(np.nanmean([0, *lines[name][1]]))))
    places = spread([ends[name][1] for name in order], 100 * LINE / height, 100)
    edge = axes.get_xlim()[1]
    for name, place in zip(order, places, strict=True):
        color = colors[list(lines).index(name)]
        shift = (edge * (1 + 30 / max(axes.bbox.width, 1)), place)
        lead = {"arrowstyle": "-", "color": color, "linewidth": POINT, "shrinkA": 2, "shrinkB": 5}
        style = {**_WORDS, "color": color, "va": "center", "annotation_clip": False}
        axes.annotate(shorten(name, _NAME), ends[name], shift, arrowprops=lead, **style)


def spread(values: Sequence[float], apart: float, highest: float) -> list[float]:
    """Ascending values moved so that neighbors are ``apart``, between 0 and the highest where there is room.

    >>> spread([0, 0, 1, 90], apart=5, highest=100)
    [0, 5, 10, 90]
    """
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + apart) if places else value)
    ceiling = highest
    for place in reversed(range(len(places))):
        places[place] = min(places[place], ceiling)
        ceiling = places[place] - apart
    return places
