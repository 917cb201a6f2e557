"""``--model CLASS --model.NAME VALUE`` as one argument: no parser is to know the class before it is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from lightning_viz.analysis.merging import merged

_NAMED = ("model", "data")


def folded(arguments: Sequence[str]) -> list[str]:
    """Arguments in which what is said of the model, and of the data, is one each.

    ``--model CLASS --model.hidden 8`` becomes ``--model {"class_path": CLASS, "init_args": {"hidden": "8"}}``. A
    class's other arguments may stand in the checkpoint, so no parser may ask for them; the types are seen to when it
    is made.

    Args:
        arguments: as they were typed.

    Raises:
        ValueError: an option without a value.

    >>> folded(["--model", "net.Net", "a.ckpt", "--model.depth=2"])
    ['a.ckpt', '--model', '{"class_path": "net.Net", "init_args": {"depth": "2"}}']
    """
    rest: list[str] = []
    found: dict[str, Any] = {}
    waiting = list(arguments)
    while waiting:
        one = waiting.pop(0)
        option, equals, value = one.partition("=")
        name, _, path = option.removeprefix("--").partition(".")
        if not option.startswith("--") or name not in _NAMED:
            rest.append(one)
            continue
        if not equals:
            if not waiting:
                raise ValueError(f"{option} needs a value")
            value = waiting.pop(0)
        found[name] = merged(found.get(name, {}), _said(path, value))
    return rest + [part for name, said in found.items() for part in (f"--{name}", json.dumps(said))]


def _said(path: str, value: str) -> Mapping[str, Any]:
    """What one option says of a class: its path, a mapping of all, or one of its init args."""
    if not path:
        whole = yaml.safe_load(value) if value.lstrip().startswith("{") else None
        return whole if isinstance(whole, Mapping) else {"class_path": value}
    said: Any = value
    for part in reversed(path.removeprefix("init_args.").split(".")):
        said = {part: said}
    return {"init_args": said}
