"""Labels that a step gives to its model, which makes a loss of them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from torch import nn

from lightning_viz.callbacks.batch_parts import LABEL_NAMES, Source
from lightning_viz.hooks.calls import CallStep, Returned, Slot
from lightning_viz.hooks.pytree import Path


def named_labels(sources: Sequence[Source | None]) -> Path | None:
    """Where labels are that the model is given as well."""
    paths = [source.path for source in sources if source is not None and source.path]
    return next((path for path in paths if path[-1] in LABEL_NAMES), None)


def without_labels(model: nn.Module, step: CallStep, sources: Sequence[Source | None]) -> tuple[CallStep, Path | None]:
    """A call without the labels that its module can do without, which it only makes a loss of, and where they are."""
    if step.replay is not None:
        return step, None
    try:
        parameters = inspect.signature(model.get_submodule(step.module).forward).parameters
    except (TypeError, ValueError):
        return step, None
    positions = [name for name in parameters if name != "self"]
    given = {**dict(zip(positions, step.arguments, strict=False)), **step.keywords}
    for name, slot in given.items():
        optional = name in LABEL_NAMES and (name not in parameters or parameters[name].default is None)
        if not optional or isinstance(slot, Returned):
            continue
        source = sources[slot.index] if isinstance(slot, Slot) else None
        arguments = step.arguments if name in step.keywords else step.arguments[: positions.index(name)]
        keywords = {key: value for key, value in step.keywords.items() if key != name}
        return CallStep(step.module, arguments, keywords), None if source is None else source.path
    return step, None
