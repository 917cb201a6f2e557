"""Options of all commands: which model, which of its checkpoints, which data, and how it is run."""

from __future__ import annotations

import json
import re
import textwrap
from argparse import SUPPRESS, Action
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from jsonargparse.typing import PositiveInt

from lightning_viz.cli.function_options import default_words
from lightning_viz.errors import InvalidArgumentError

if TYPE_CHECKING:
    from lightning_viz.analysis.config import Configuration
    from lightning_viz.analysis.model_under_study import ModelUnderStudy
    from lightning_viz.analysis.models import Pretrained
    from lightning_viz.analysis.run_config import RunConfig
    from lightning_viz.pixels import PixelSpace

_NAMED = ("model", "data")


def folded(arguments: Sequence[str]) -> list[str]:
    """Arguments with everything about the model in one option, and everything about the data in another.

    ``--model CLASS --model.hidden 8`` becomes ``--model {"class_path": CLASS, "init_args": {"hidden": "8"}}``. A
    class's other arguments may be in the checkpoint, so no parser may ask for them; types are checked when it is
    instantiated.

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
                raise InvalidArgumentError(f"{option} needs a value")
            value = waiting.pop(0)
        from lightning_viz.analysis.config import merge_class_specs  # torch: only where a class is named

        found[name] = merge_class_specs(found.get(name, {}), _part_of_spec(path, value))
    return rest + [part for name, said in found.items() for part in (f"--{name}", json.dumps(said))]


def _part_of_spec(path: str, value: str) -> Mapping[str, Any]:
    """The part of a class spec that one option gives: its path, all of it as JSON, or one of its init args."""
    if not path:
        whole = yaml.safe_load(value) if value.lstrip().startswith("{") else None
        return whole if isinstance(whole, Mapping) else {"class_path": value}
    said: Any = value
    for part in reversed(path.removeprefix("init_args.").split(".")):
        said = {part: said}
    return {"init_args": said}


def command_parser(name: str, description: str, example: str) -> ArgumentParser:
    """The parser of a command, without its arguments.

    Args:
        name: as it is typed: ``"analyze"``, ``"attack pgd"``.
        description: two sentences.
        example: a line.
    """
    return ArgumentParser(
        prog=f"lightning-viz {name}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=_Formatter,
        exit_on_error=False,
    )


class _Formatter(DefaultHelpFormatter):
    """Help without what a person does not need: the usage of every option, types, defaults that are nothing."""

    def _format_usage(self, usage: str | None, actions: Iterable[Action], groups: Any, prefix: str | None) -> str:
        positional = [action for action in actions if not action.option_strings]
        return super()._format_usage(usage, positional, [], prefix).replace(self._prog, f"{self._prog} [options]", 1)

    def _get_help_string(self, action: Action) -> str:
        words, default = action.help or "", action.default
        if not action.option_strings:
            return words
        if action.required:
            return f"{words} (required)"
        if default in (None, "", SUPPRESS, [], ()) or (default is False and action.nargs == 0):
            return words
        value = default_words(default)
        stated = re.search(rf"(?<![\w.]){re.escape(value)}(?![\w/.]\w)", words)
        if stated and (f"({value}" in words or "default" in words):
            return words
        return f"{words} (default: {value})".replace("%%", "%").replace("%", "%%")

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = [line if line.startswith(" ") else textwrap.fill(line, width) for line in text.splitlines()]
        return "\n".join(indent + line for line in lines)


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """The options that were typed.

    Args:
        parser: of a command.
        arguments: as they were typed.

    Raises:
        InvalidArgumentError: an option without a value.
        ArgumentError: an option that does not exist, or a value of another type.
    """
    return parser.parse_args(folded(arguments))


def add_source(parser: ArgumentParser, *, out: str, samples: int = 256) -> None:
    """Add the options that name the model and the data.

    Args:
        parser: of a command, or of one of its methods.
        out: default of the output folder.
        samples: default of how many samples are used.
    """
    _add_model(parser.add_argument_group("the model"))
    _add_data(parser.add_argument_group("the data"), samples)
    _add_running(parser.add_argument_group("how it is run"), out)


def _add_model(group: Any) -> None:
    group.add_argument(
        "checkpoints",
        nargs="*",
        help="checkpoint files, or folders of a run; a LightningCLI run's folder gives the arguments of model and data",
    )
    group.add_argument(
        "--model",
        type=dict | None,
        metavar="CLASS",
        help="class path, package.module.Class, or JSON with class_path and init_args; its arguments: --model.NAME "
        "VALUE (default: those in config.yaml or the checkpoint)",
    )
    group.add_argument(
        "--config",
        type=str | None,
        metavar="FILE",
        help="a config.yaml of LightningCLI (default: the one in the run's folder)",
    )
    group.add_argument("--torchvision", type=str | None, metavar="NAME", help="a model of torchvision, e.g. resnet50")
    group.add_argument(
        "--weights",
        type=str,
        default="DEFAULT",
        metavar="NAME",
        help="weights of the --torchvision model; none for random ones",
    )
    group.add_argument("--name", type=str, default="", help="name of the model in reports (default: its class's name)")
    group.add_argument(
        "--trust",
        action="store_true",
        help="load checkpoints that hold more than weights, and import and call whatever config.yaml names; this "
        "runs the code that they name",
    )


def _add_data(group: Any, samples: int) -> None:
    group.add_argument("--data", type=dict | None, metavar="CLASS", help="data module or data set, given like --model")
    group.add_argument(
        "--images",
        type=str | None,
        metavar="FOLDER",
        help="use images of a folder instead; its subfolders are the classes",
    )
    group.add_argument(
        "--size",
        type=PositiveInt,
        default=224,
        metavar="N",
        help="side in pixels to which --images are scaled and cropped",
    )
    group.add_argument("--gray", action="store_true", help="convert --images to one channel")
    group.add_argument(
        "--pixel_space.mean",
        type=float,
        nargs="+",
        metavar="X",
        help="per-channel mean of Normalize, or one for all (default: found in the data's transform)",
    )
    group.add_argument(
        "--pixel_space.std", type=float, nargs="+", metavar="X", help="per-channel standard deviation of Normalize"
    )
    group.add_argument(
        "--samples", type=PositiveInt, default=samples, metavar="N", help="how many samples of the data are used"
    )


def _add_running(group: Any, out: str) -> None:
    group.add_argument("--out", type=str, default=out, metavar="DIR", help="output folder")
    group.add_argument("--overwrite", action="store_true", help="recompute existing results")
    group.add_argument("--seed", type=int | None, metavar="N", help="of everything random (default: the run's, or 0)")
    group.add_argument("--accelerator", type=str, default="auto", metavar="NAME", help="cpu, gpu, ...")
    group.add_argument("--devices", type=int | str, default=1, metavar="N", help="how many devices, or which: 0,2")
    group.add_argument(
        "--strategy",
        type=str | None,
        metavar="NAME",
        help="Trainer strategy (default: the run's, with several devices)",
    )
    group.add_argument("--precision", type=str | None, metavar="NAME", help="Trainer precision (default: the run's)")


def run_config_of(options: Namespace) -> RunConfig:
    """The configuration of an analysis.

    Args:
        options: parsed, of a parser with `add_source`.

    Raises:
        AnalysisError: model or data are not given, or cannot be loaded.
    """
    from lightning_viz.analysis.run_config import RunConfig

    configuration = _configuration(options)
    seed = next((one for one in (options.seed, configuration.seed) if one is not None), 0)
    known = _pretrained(options)
    model: Any = known or _required(
        _named(options, configuration, "model", options.model), _swallowed(options) or _WHICH_MODEL
    )
    pixel_space = _space(options, known)
    data = _data(options, configuration, known, pixel_space)
    return RunConfig(
        known.load(seed) if known else model,
        data,
        list(options.checkpoints),
        name=options.name or options.torchvision or "",
        pixel_space=pixel_space,
        samples=options.samples,
        seed=seed,
        trusted=options.trust,
        trainer=_trainer(options, configuration),
    )


def model_under_study_of(options: Namespace, config: RunConfig | None = None) -> ModelUnderStudy:
    """The model of the last checkpoint, and samples of its data, on the device that was chosen.

    Args:
        options: parsed, of a parser with `add_source`.
        config: of these options, if it is known.

    Raises:
        AnalysisError: see its message.
    """
    from lightning_viz.analysis.analyze import run_checkpoint
    from lightning_viz.callbacks.probe import Probe

    config = config or run_config_of(options)
    head = min(Probe.samples, config.samples)  # no more samples than were asked for
    config = replace(config, probe=config.probe or Probe(samples=head))
    step, path = list(config.series().items())[-1]
    study, _ = run_checkpoint(config, step, path, {}, with_views=False)
    if study is None:
        raise SystemExit(0)  # not the first process: its share is done
    return study


_WHICH_MODEL = (
    "which model? Checkpoints alone do not say it: give --model package.module.Class (its arguments as --model.NAME "
    "VALUE), --torchvision NAME, or the folder of a LightningCLI run, with its config.yaml, and --trust"
)
_WHICH_DATA = (
    "which data? Give --data package.module.Class (its arguments as --data.NAME VALUE), --images FOLDER, or the folder "
    "of a LightningCLI run, with its config.yaml"
)


def _swallowed(options: Namespace) -> str:
    """What is wrong where a checkpoint was taken for one of an option's several values."""
    from pathlib import Path

    for name, value in options.items():
        place = value[-1] if isinstance(value, list) and value and name != "checkpoints" else None
        if isinstance(place, str) and not options.checkpoints and Path(place).exists():
            return f"--{name} takes several values, and took {place} for one of them: give checkpoints first"
    return ""


def _required(found: Any, remedy: str) -> Any:
    from lightning_viz.errors import AnalysisError

    if found is None:
        raise AnalysisError(remedy)
    return found


def _configuration(options: Namespace) -> Configuration:
    from pathlib import Path

    from lightning_viz.analysis.config import find_configuration, read_configuration
    from lightning_viz.errors import AnalysisError

    lost = next((place for place in options.checkpoints if not Path(place).exists()), None)
    if lost is not None:
        raise AnalysisError(f"there is no file and no folder {lost}: give a run's folder, or a checkpoint")
    return read_configuration(Path(options.config)) if options.config else find_configuration(options.checkpoints)


def _named(options: Namespace, configuration: Configuration, what: str, given: Any) -> Any:
    """The class of model or data; the file may name others of the packages that the user typed."""
    from lightning_viz.analysis.config_values import packages_of

    packages = packages_of(options.model, options.data)
    return configuration.named(what, given, packages=packages, trusted=options.trust)


def _pretrained(options: Namespace) -> Pretrained | None:
    from lightning_viz.analysis.models import pretrained
    from lightning_viz.errors import AnalysisError

    if options.torchvision is None:
        return None
    if options.model is not None:
        raise AnalysisError("--model and --torchvision are two models: give one of them")
    return pretrained(options.torchvision, options.weights)


def _space(options: Namespace, known: Pretrained | None) -> PixelSpace | None:
    """How inputs map to pixels; None where the data are to say it."""
    from lightning_viz.pixels import PixelSpace

    given = {name: tuple(value) for name, value in options.pixel_space.items() if value is not None}
    if given:
        return PixelSpace(**given)
    if known is not None:
        return PixelSpace.of_transform(known.transform)
    return PixelSpace() if options.images else None


def _data(
    options: Namespace, configuration: Configuration, known: Pretrained | None, pixel_space: PixelSpace | None
) -> Any:
    """The data; None where the model of a LightningCLI run brings them itself."""
    from lightning_viz.analysis.data import Images, fitting
    from lightning_viz.errors import AnalysisError
    from lightning_viz.pixels import PixelSpace

    if options.images is None:
        named = _named(options, configuration, "data", options.data)
        return named if named is not None or configuration.content else _required(named, _WHICH_DATA)
    if options.data is not None:
        raise AnalysisError("--data and --images are two sources of data: give one of them")
    if known is not None:
        return Images(options.images, known.transform, classes=known.classes)
    return Images(options.images, fitting(options.size, pixel_space or PixelSpace(), gray=options.gray))


def _trainer(options: Namespace, configuration: Configuration) -> dict[str, Any]:
    """The Trainer's options. What a run needed to train on many devices, one does not need to look at it on one."""
    found: dict[str, Any] = {"accelerator": options.accelerator, "devices": options.devices}
    precision = options.precision or configuration.trainer("precision")
    strategy = options.strategy or (configuration.trainer("strategy") if options.devices != 1 else None)
    if precision is not None:
        found["precision"] = precision
    if isinstance(strategy, str):
        found["strategy"] = strategy
    return found


def run_configs_of(options: Namespace) -> list[RunConfig]:
    """One for each checkpoint or run's folder, and one for each model of torchvision.

    Args:
        options: parsed; ``torchvision`` and ``name`` may hold several, separated by commas.

    Raises:
        AnalysisError: not as many names as models; else as `run_config_of`.
    """
    from lightning_viz.errors import AnalysisError

    zoo = [name for name in (options.torchvision or "").split(",") if name]
    names = [name for name in options.name.split(",") if name] or [*apart(options.checkpoints), *zoo]
    count = len(options.checkpoints) + len(zoo)
    if len(names) != count:
        raise AnalysisError(f"--name has {len(names)} names, {', '.join(names)}, for {count} models: give one each")
    chosen: list[tuple[list[str], str | None]] = [([place], None) for place in options.checkpoints]
    chosen += [([], model) for model in zoo]
    return [
        run_config_of(_changed(options, checkpoints=places, torchvision=model, name=name))
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
