"""Pages of several targets side by side, as every view of attributions draws them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.snapshot import Snapshot
from lightning_viz.hooks.target_types import ClassTarget
from lightning_viz.render.attribution_maps import MOST_TARGETS, class_columns


def target_columns(
    snapshot: Snapshot,
    maps: Tensor,
    shown: Sequence[int],
    arguments: Mapping[str, Any],
    scalars: Mapping[str, float],
) -> Iterator[DrawTask]:
    """A page of the first targets (tag ``<tag>/classes``), and one for every further nine (``<tag>/classes/10``).

    Args:
        snapshot: of the pass that explained them.
        maps: ``[T, N, C, *S]``.
        shown: numbers of the samples on the page.
        arguments: of `class_columns`, those of the samples shown, under the tag of a page of one target.
        scalars: to plot.
    """
    names = [[row[index] for index in shown] for row in snapshot.column_names(maps.shape[:2])]
    of = "classes" if isinstance(snapshot.extra["targets"], ClassTarget) else "targets"
    for first in range(0, len(maps), MOST_TARGETS):
        some = slice(first, first + MOST_TARGETS)
        own = {"maps": maps[some][:, list(shown)].float().numpy(), "names": names[some], "of": of}
        own |= {"first": first, "count": len(maps), "samples": maps.shape[1]}
        tag = f"{arguments['tag']}/classes" + (f"/{first + 1}" if first else "")
        yield DrawTask(class_columns, {**arguments, **own, "tag": tag}, scalars={} if first else dict(scalars))
