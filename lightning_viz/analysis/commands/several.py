"""What is compared: the models that the arguments name, each with a name of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from lightning_viz.analysis.commands.sourcing import case_of

if TYPE_CHECKING:
    from lightning_viz.analysis.case import Case


def cases_of(options: Namespace) -> list[Case]:
    """One for each checkpoint or run's folder, and one for each model of torchvision.

    Args:
        options: parsed; ``torchvision`` and ``name`` may hold several, separated by commas.

    Raises:
        AnalysisError: not as many names as models; else as `case_of`.
    """
    from lightning_viz.analysis.checkpoints import AnalysisError

    zoo = [name for name in (options.torchvision or "").split(",") if name]
    names = [name for name in options.name.split(",") if name] or [*apart(options.checkpoints), *zoo]
    count = len(options.checkpoints) + len(zoo)
    if len(names) != count:
        raise AnalysisError(f"--name has {len(names)} names, {', '.join(names)}, for {count} models: give one each")
    chosen: list[tuple[list[str], str | None]] = [([place], None) for place in options.checkpoints]
    chosen += [([], model) for model in zoo]
    return [
        case_of(_changed(options, checkpoints=places, torchvision=model, name=name))
        for (places, model), name in zip(chosen, names, strict=True)
    ]


def apart(places: list[str]) -> list[str]:
    """Names of places: what of their paths is not the same for all.

    Args:
        places: files or folders.

    >>> apart(["runs/plain/version_0", "runs/hard/version_0"])
    ['plain', 'hard']
    >>> apart(["a/last.ckpt", "a/b/last.ckpt"])
    ['a', 'a/b']
    """
    parts = [list(Path(place).parts) for place in places]
    for end in (-1, 0):
        while all(len(one) > 1 for one in parts) and len({one[end] for one in parts}) == 1:
            for one in parts:
                del one[end]
    return ["/".join(one) for one in parts]


def _changed(options: Namespace, *, checkpoints: list[str], torchvision: str | None, name: str) -> Namespace:
    changed = options.clone()
    changed.checkpoints, changed.torchvision, changed.name = checkpoints, torchvision, name
    if torchvision is not None:
        changed.model = None
    return changed
