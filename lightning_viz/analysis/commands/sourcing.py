"""What all commands are told: which model, which of its checkpoints, which data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

if TYPE_CHECKING:
    from lightning_viz.analysis.case import Case
    from lightning_viz.analysis.subject import Subject

_NAMED = ("model", "data")


def add_source(parser: ArgumentParser, *, out: str, samples: int = 256) -> None:
    """Add the arguments that say what model and which data.

    Args:
        parser: of a command, or of one of its methods.
        out: folder of what the command finds, unless another is given.
        samples: how many of the data the command looks at, unless told otherwise.
    """
    parser.add_argument("checkpoints", nargs="*", help="files, or folders of a run's checkpoints")
    parser.add_argument("--model", type=dict | None, metavar="CLASS", help="class path of the model")
    parser.add_argument("--data", type=dict | None, metavar="CLASS", help="class path of the data")
    parser.add_argument("--samples", type=int, default=samples, metavar="N", help="of the data, that are looked at")
    parser.add_argument("--seed", type=int | None, metavar="N", help="of all that is random")
    parser.add_argument("--accelerator", type=str, default="auto", help="cpu, gpu, ...")
    parser.add_argument("--out", type=str, default=out, metavar="DIR", help="folder of what is found")
    parser.add_argument("--trust", action="store_true", help="load checkpoints that hold more than weights")
    parser.add_argument("--overwrite", action="store_true", help="do again what is done")


def case_of(options: Namespace) -> Case:
    """What is to be analysed.

    Args:
        options: parsed, of a parser with `add_source`.

    Raises:
        AnalysisError: model or data are not said, or cannot be.
    """
    from lightning_viz.analysis.case import Case
    from lightning_viz.analysis.naming import Named

    return Case(
        Named(**options.model),
        Named(**options.data),
        options.checkpoints,
        samples=options.samples,
        seed=options.seed or 0,
        trusted=options.trust,
        trainer={"accelerator": options.accelerator},
    )


def subject_of(options: Namespace) -> Subject:
    """The model of the last checkpoint, and samples of its data, on the device that was chosen.

    Args:
        options: parsed, of a parser with `add_source`.

    Raises:
        AnalysisError: see its message.
    """
    from lightning_viz.analysis.analyzing import look

    case = case_of(options)
    step, path = list(case.series().items())[-1]
    subject, _ = look(case, step, path, {}, with_views=False)
    if subject is None:
        raise SystemExit(0)  # not the first process: its share is done
    return subject


def folded(arguments: Sequence[str]) -> list[str]:
    """Arguments in which what is said of the model, and of the data, is one each.

    ``--model CLASS --model.hidden 8`` becomes ``--model {"class_path": CLASS, "init_args": {"hidden": "8"}}``: no
    parser is to know the class, whose other arguments may stand in the checkpoint.

    Args:
        arguments: as they were typed.
    """
    rest: list[str] = []
    found: dict[str, dict[str, Any]] = {}
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
        _set(found.setdefault(name, {}), path, value)
    return rest + [part for name, said in found.items() for part in (f"--{name}", json.dumps(said))]


def _set(said: dict[str, Any], path: str, value: str) -> None:
    """Note one option of a class: its path, a mapping of all, or one of its init args."""
    import yaml

    if not path:
        whole = yaml.safe_load(value)
        said.update(whole if isinstance(whole, Mapping) else {"class_path": value})
        return
    *parents, last = path.removeprefix("init_args.").split(".")
    place = said.setdefault("init_args", {})
    for parent in parents:
        inner = place.setdefault(parent, {})
        if isinstance(inner, str):  # a class by its path, whose arguments follow
            inner = place[parent] = {"class_path": inner}
        place = inner
    place[last] = value
