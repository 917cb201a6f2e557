"""How robust a network is, as plots: accuracy against epsilon, defenses, and random directions around samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.colors import class_colors
from lightning_viz.render.page import Page, PageInfo, compose
from lightning_viz.render.parts import INNER_WIDTH, Cell, ClassKey, EpsilonPlot, Label, Part, Sheet, SpherePlot, VStack
from lightning_viz.render.text import DARK, number, percent, shorten, text_width
from lightning_viz.render.tiles import first_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FEW", "defense_bars", "epsilon_curves", "sphere_plot"]

_HEIGHT = 460
_MOST_CURVES = 12
_MOST_DEFENSES = 13
FEW = 0.02
"""Of random directions: a smaller share than this hardly ever changes the label."""

_BAR, _APART, _LABEL, _FIGURE = 24, 10, 180, 70  # pixels: of a bar, between defenses, for names, for numbers


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
    lines = {name: _line(name, *pair) for name, pair in list(curves.items())[:_MOST_CURVES]}
    unit = 255 if gray_levels else 1
    lines = {name: line * [[unit], [100]] for name, line in lines.items()}
    in_units = "gray levels of 255" if gray_levels else "pixels of 0 to 1"
    plot = EpsilonPlot(
        width=INNER_WIDTH,
        height=_HEIGHT,
        curves=lines,
        label=f"epsilon: {norm}, in {in_units}",
        trained=None if trained is None else trained * unit,
    )
    lost = sum(bool(np.isnan(line).any()) for line in lines.values())
    facts = (first_of(len(lines), len(curves), "curves"),)
    reading = "How often each network is still right when an attack may move every input by epsilon."
    warnings = (f"NaN in {lost} of {len(lines)} curves",) if lost else ()
    title = "Accuracy when inputs may move by epsilon"
    return compose(tag, title, plot, facts, reading=reading, warnings=warnings, **info)


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
    pairs = [np.asarray(shares, dtype=np.float64) for shares in (clean, attacked)]
    if any(shares.shape != (len(names),) for shares in pairs) or not len(names):
        got = " and ".join(str(list(shares.shape)) for shares in pairs)
        raise InvalidArgumentError(
            f"clean and attacked are [{len(names)} defenses], got {got}; of several epsilons give one"
        )
    count = min(len(names), _MOST_DEFENSES)
    colors = class_colors(2)
    label = min(_LABEL, max(map(text_width, names[:count])) + 12)
    full = INNER_WIDTH - label - _FIGURE
    parts: list[Part] = []
    for row, name in enumerate(names[:count]):
        top = row * (2 * _BAR + _APART)
        parts.append(Label(0, top + _BAR, shorten(name, label - 12), DARK, "lm"))
        for bar, (shares, color) in enumerate(zip(pairs, colors.tolist(), strict=True)):
            share, high = float(shares[row]), top + bar * _BAR
            width = round(full * min(max(share, 0), 1)) if np.isfinite(share) else 0
            parts.append(Cell(label, high, full + 1, _BAR - 2, (240, 240, 240)))
            if width:
                parts.append(Cell(label, high, width + 1, _BAR - 2, tuple(color), value=share, row=row, column=bar))
            text = f"{percent(share, decimals=1)} %" if np.isfinite(share) else "–"
            parts.append(Label(label + full + 8, high + _BAR / 2 - 1, text, DARK, "lm"))
    bars = Sheet(INNER_WIDTH, count * (2 * _BAR + _APART), parts)
    key = ClassKey(["clean samples", "attacked samples"], colors)
    facts = (
        "accuracy when the input is changed before the network sees it",
        first_of(count, len(names), "defenses"),
    )
    reading = (
        "For each defense, a change of the input before the network sees it: accuracy on samples as they are, and on "
        "their attacked twins. One that helps lifts the lower bar without shortening the upper."
    )
    return compose(tag, f"What helps against {attack}", VStack([key, bars], gap=8), facts, reading=reading, **info)


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
    if shares.ndim != 1 or not len(shares):
        raise InvalidArgumentError(f"changed is {list(shares.shape)}: give a share for each of N samples")
    lengths = np.asarray([np.nan] if radii is None else radii, dtype=np.float64)
    if radii is not None and lengths.shape != shares.shape:
        raise InvalidArgumentError(f"radii are {list(lengths.shape)} for {len(shares)} samples: give one each")
    # Where the attack went no way at all, twice as far says nothing.
    counted = np.isfinite(shares) & ((lengths > 0) if radii is not None else True)
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
    return compose(tag, title, plot, facts, reading=reading, warnings=warnings, **info)


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
