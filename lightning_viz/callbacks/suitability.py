"""Which of a run's views suit its model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from lightning_viz.callbacks.probe import Probe, Samples
from lightning_viz.callbacks.run import error_text, view_list
from lightning_viz.callbacks.run_protocol import Named
from lightning_viz.callbacks.snapshot import Requirements, ViewLike
from lightning_viz.errors import LayerNotFoundError, ViewError, inform, warn_safely
from lightning_viz.hooks.model_state import preserve_state
from lightning_viz.hooks.pytree import all_tensors


def suitable(views: Iterable[ViewLike], model: nn.Module, *, say: Callable[[str], None] = inform) -> list[Any]:
    """The views that suit a model.

    Args:
        views: to check against it.
        model: the run's.
        say: takes a line for each that is skipped.

    Raises:
        ViewError: a view that a person named does not suit; one made by `default_views` is skipped.
    """
    suited = []
    for view in views:
        try:
            with preserve_state(model):  # a weight that is computed (spectral norm) moves on when it is asked for
                view.check(model)
                view.requirements(model)
            suited.append(view)
        except (ViewError, LayerNotFoundError) as error:
            if not view.optional:
                raise
            say(f"skipped {type(view).__name__}: {error}")
        except Exception as error:  # no misuse, but a fault of the view's own
            warn_safely(f"{view.name} is left out of this run: {error_text(error)}")
    return suited


def refuse_twins(views: Iterable[Named]) -> None:
    """See that no two views would draw the same pictures.

    Args:
        views: of a run.

    Raises:
        ViewError: two have one name.
    """
    names = Counter(view.name for view in views)
    for name in (name for name, number in names.items() if number > 1):
        raise ViewError(
            f"two equal views: {name} is among the callbacks twice, to draw the same pictures; remove one or change an "
            "argument"
        )


def leave_out(views: Sequence[ViewLike], needs: Mapping[str, Requirements], samples: Samples) -> list[ViewLike]:
    """The views that can do nothing with samples, with a line that says why: no gradient towards whole numbers.

    Args:
        views: that would look.
        needs: what they ask for, by view.
        samples: of their probe.
    """
    tensors = all_tensors(samples.inputs)
    if not tensors or any(x.is_floating_point() for x in tensors):
        return []
    wanting = {name: need.input_gradient or need.rules or need.continuous for name, need in needs.items()}
    unsuited = [view for view in views if wanting[view.name]]
    if unsuited:
        inform(f"{view_list(unsuited)} left out: the inputs are whole numbers, towards which there is no gradient")
    return unsuited


def named_count(views: Iterable[ViewLike], probe: Probe) -> int:
    """How many samples of a probe a person has named, in the probe or for a view; 0 if none.

    Args:
        views: of the run.
        probe: of some of them.
    """
    same = [view for view in views if view.probe.key() == probe.key() and "samples" in view.changed()]
    given = [getattr(view, "samples", 0) for view in same]
    return max([*given, probe.samples if probe.samples != Probe.samples else 0])
