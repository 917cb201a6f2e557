"""What is judged of a layer's health: findings, since when, and which of them are beyond doubt. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from lightning_viz.render.animation import thin
from lightning_viz.render.text import number, percent

Kind = Literal["broken", "still", "dead", "saturated", "grown", "faded", "idle"]

_KEPT = 32  # steps that are kept
_FEWEST = 30  # samples from which on dead and saturated units are told
_CERTAIN = 0.95  # share of a layer's units that are dead, or of its activations that are saturated: beyond doubt
_CERTAINLY = " beyond doubt"
_TOLD, _MORE = 0.75, 0.1  # share that is told, of dead units also a growth since the first look
_GROWN = 1000.0  # times as large as at first, or as small
_LARGE = 1e4  # root mean square of activations that is told at the first look
_STILL = 10  # updates without a move


@dataclass(frozen=True)
class LayerHealth:
    """What was measured of a layer at a step; NaN where it has no meaning or is not known.

    Attributes:
        dead: share of its units that never exceed zero before a ReLU.
        saturated: share of its activations that lie at a bound of the activation function.
        ratio: norm of the last update by that of the weights.
        scale: root mean square of its outputs.
        broken: what of it is NaN or infinite: ``"weights"``, ``"activations"``, or nothing.
        unmoved: completed updates since which its weights have not moved, though they are trained; None if they have.
        note: why its weights do not move, if that is meant, in a word or two.
        called: whether it was, in the pass.
    """

    dead: float = math.nan
    saturated: float = math.nan
    ratio: float = math.nan
    scale: float = math.nan
    broken: str = ""
    unmoved: int | None = None
    note: str = ""
    called: bool = True


@dataclass(frozen=True)
class Finding:
    """Something that is told of a layer.

    Attributes:
        kind: of it.
        words: what it is.
        certain: whether it is beyond doubt that something is wrong.
        since: completed updates at the first look that found it without a break.
        size: by which it is compared with others of its kind.
    """

    kind: Kind
    words: str
    certain: bool
    since: int
    size: float = 1.0


FROZEN, NO_OPTIMIZER, NO_RATE = "frozen", "no optimizer", "rate 0"
"""Why weights do not move, if they are not meant to."""


class Placed(NamedTuple):
    """How a layer's weights are trained.

    Attributes:
        optimizer: number of the one that moves them; None if there is none.
        rate: its learning rate.
        wants_gradient: whether they do.
    """

    optimizer: int | None
    rate: float
    wants_gradient: bool

    @property
    def note(self) -> str:
        """Why they are not meant to move; empty if they are."""
        if not self.wants_gradient:
            return FROZEN
        return NO_OPTIMIZER if self.optimizer is None else "" if self.rate > 0 else NO_RATE


def moves(
    state: dict[str, Any], placed: Mapping[str, Placed], sums: Mapping[str, int], step: int
) -> dict[str, tuple[int | None, str]]:
    """Of each layer's weights the step since which they have not moved though they should, and why they should not.

    Weights should move if they had a learning rate at the look before, too, from which the update after it took its
    own, and if their optimizer moved others since then: of a GAN's two one may rest. If there is only one optimizer,
    and it moves nothing at all, they should, too.

    Args:
        state: of the view, kept from look to look.
        placed: how weights are trained, by layer.
        sums: of their bits.
        step: completed updates.
    """
    if not placed:
        return {}
    before: dict[str, Any] = state.get("moves", {})
    changed = {name for name in sums if name in before and before[name]["sum"] != sums[name]}
    stepped = {placed[name].optimizer for name in changed}
    alone = len({each.optimizer for each in placed.values()} - {None}) == 1
    found: dict[str, tuple[int | None, str]] = {}
    state["moves"] = {}
    for name, place in placed.items():
        earlier = before.get(name)
        since: int | None = None
        if earlier is not None and name in sums and name not in changed and not (place.note or earlier["note"]):
            rests = earlier["step"] >= step or not (alone or place.optimizer in stepped)
            since = None if rests else earlier["since"]
        state["moves"][name] = {
            "sum": sums.get(name),
            "since": step if since is None else since,
            "step": step,
            "note": place.note,
        }
        found[name] = (since, place.note)
    return found


def as_recorded(state: Mapping[str, Any], layers: Mapping[str, LayerHealth], step: int) -> dict[str, LayerHealth]:
    """What was measured of a checkpoint, with what only the training knew, if it looked at the same step.

    Args:
        state: of the view, which the checkpoint holds.
        layers: as measured now.
        step: completed updates.
    """
    known = state.get("history", {}).get(step, {})
    training = ("ratio", "unmoved", "note")
    return {
        name: replace(health, **{part: known[name][part] for part in training}) if name in known else health
        for name, health in layers.items()
    }


def record(state: dict[str, Any], layers: Mapping[str, LayerHealth], step: int, samples: int) -> dict[str, Any]:
    """Keep what was measured at a step, and judge it.

    Args:
        state: of the view; it keeps at most 32 steps, evenly in log steps, and since when each finding holds.
        layers: as measured at the step, by name.
        step: completed updates.
        samples: that passed.

    Returns:
        The arguments of `render.health.layer_health`.
    """
    history = {earlier: rows for earlier, rows in state.get("history", {}).items() if earlier < step}
    first_step = next(iter(history), step)
    found: dict[str, list[Finding]] = {}
    since_of: dict[str, dict[str, int]] = {}
    meant = {health.note for health in layers.values()} & {NO_OPTIMIZER, NO_RATE}
    for name, health in layers.items():
        first = LayerHealth(**_measured(history[first_step][name])) if name in history.get(first_step, {}) else health
        known = {kind: at for kind, at in state.get("since", {}).get(name, {}).items() if at <= step}
        found[name] = list(layer_findings(health, first, step, first_step, samples, known))
        if health.note in meant and any(not other.note for other in layers.values()):
            words = "in no optimizer" if health.note == NO_OPTIMIZER else "learning rate 0"
            found[name].append(Finding("idle", words, False, min(known.get("idle", step), step)))
        since_of[name] = _since(found[name], known)
    state["since"] = {name: since for name, since in since_of.items() if since}
    state["findings"] = [
        {"layer": name, **{part: getattr(each, part) for part in ("kind", "certain", "since", "words")}}
        for name, each in _ordered(found)
    ]
    history[step] = {
        name: {**asdict(health), "faults": _faults(found[name], health)} for name, health in layers.items()
    }
    steps = list(history)
    state["history"] = kept = {steps[place]: history[steps[place]] for place in thin(steps, most=_KEPT)}
    blank = {**asdict(LayerHealth()), "faults": []}
    rows = [[of_step.get(name, blank) for name in layers] for of_step in kept.values()]
    arrays = {
        part: np.array([[row[part] for row in of_step] for of_step in rows])
        for part in ("dead", "saturated", "ratio", "scale")
    }
    return {
        "layers": list(layers),
        "steps": list(kept),
        **arrays,
        "faults": np.array([[[place in row["faults"] for place in range(3)] for row in of_step] for of_step in rows]),
        "notes_of_layers": [health.note for health in layers.values()],
        "called": [health.called for health in layers.values()],
        "found": sentences(found),
        "certain": any(each.certain for own in found.values() for each in own),
    }


def _ordered(by_layer: Mapping[str, Sequence[Finding]]) -> list[tuple[str, Finding]]:
    """Findings with their layers, the worst first."""
    pairs = [(name, each) for name, found in by_layer.items() for each in found]
    return sorted(pairs, key=lambda pair: (not pair[1].certain, _ORDER.index(pair[1].kind), pair[1].since))


def _since(found: Sequence[Finding], known: Mapping[str, int]) -> dict[str, int]:
    """Since when each kind of finding holds, and since when beyond doubt.

    Args:
        found: at this look.
        known: at the look before.
    """
    since: dict[str, int] = {each.kind: min(known.get(each.kind, each.since), each.since) for each in found}
    return {**since, **{each.kind + _CERTAINLY: each.since for each in found if each.certain}}


def _measured(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "faults"}


def _faults(found: Sequence[Finding], health: LayerHealth) -> list[int]:
    """Which of a page's columns are at fault beyond doubt: units, weights, scale."""
    columns = {"dead": 0, "saturated": 0, "still": 1, "broken": 1 if health.broken == "weights" else 2}
    return sorted({columns[each.kind] for each in found if each.certain})


def layer_findings(
    health: LayerHealth, first: LayerHealth, step: int, first_step: int, samples: int, since: Mapping[str, int]
) -> Iterator[Finding]:
    """What is to be told of a layer at a step, the worst first.

    Args:
        health: of the layer.
        first: at the first look.
        step: completed updates.
        first_step: of the first look.
        samples: that passed.
        since: by kind, the step since which it was found at the looks before; and likewise found beyond doubt.
    """

    def found(kind: Kind, words: str, certain: bool, size: float = 1.0, began: int = step) -> Finding:
        return Finding(kind, words, certain, min(since.get(kind + _CERTAINLY * certain, began), began), size)

    if health.broken:
        yield found("broken", f"NaN or infinite {health.broken}", True)
    if not health.broken and health.unmoved is not None and step - health.unmoved >= _STILL:
        words = "weights do not move" if health.called else "not called in validation, weights do not move"
        yield found("still", words, health.called, began=health.unmoved)
    if samples >= _FEWEST:
        shares: tuple[tuple[Kind, float, float], ...] = (
            ("dead", health.dead, first.dead),
            ("saturated", health.saturated, math.inf),
        )
        for kind, share, before in shares:
            if share >= _TOLD or share >= before + _MORE:
                of = "units" if kind == "dead" else "activations"
                words = f"all {of} {kind}" if share == 1 else f"{percent(share)} % of {of} {kind}"
                yield found(kind, words, share >= _CERTAIN, share)
    if health.scale > 0 and first.scale > 0:
        growth = health.scale / first.scale
        if growth >= _GROWN:
            yield found(
                "grown", f"activations {number(growth, 2)} times as large as at step {first_step:,}", False, growth
            )
        elif growth <= 1 / _GROWN:
            yield found("faded", f"activations {number(1 / growth, 2)} times as small as at step {first_step:,}", False)
        elif health.scale >= _LARGE:
            yield found("grown", f"activations of {number(health.scale, 2)}", False, health.scale)


_ORDER: Sequence[Kind] = ("broken", "still", "dead", "saturated", "grown", "faded", "idle")


def sentences(by_layer: Mapping[str, Sequence[Finding]]) -> list[str]:
    """What was found, a sentence for each kind of finding and the step since which it holds, the worst first.

    Args:
        by_layer: findings of each layer, from the input on.
    """
    together: dict[tuple[bool, Kind, int], list[tuple[str, Finding]]] = {}
    for name, found in by_layer.items():
        for finding in found:
            together.setdefault((finding.certain, finding.kind, finding.since), []).append((name, finding))
    ordered = sorted(together.items(), key=lambda item: (not item[0][0], _ORDER.index(item[0][1]), item[0][2]))
    return [_sentence(found) for _, found in ordered]


def _sentence(found: Sequence[tuple[str, Finding]]) -> str:
    names = [name for name, _ in found]
    worst = max((finding for _, finding in found), key=lambda finding: finding.size)
    which = " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more"
    up_to = "up to " if len(names) > 1 and worst.kind in ("dead", "saturated") and worst.size < 1 else ""
    return f"{which}: {up_to}{worst.words} since step {worst.since:,}"
