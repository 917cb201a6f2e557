"""Options of all commands: which model, which of its checkpoints, which data, and how it is run."""

from __future__ import annotations

import difflib
import json
import re
import textwrap
from argparse import SUPPRESS, Action
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from jsonargparse.typing import PositiveInt

from lightning_viz.cli.function_options import default_words
from lightning_viz.errors import AnalysisError, InvalidArgumentError

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

    Raises:
        InvalidArgumentError: an option without a value.

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
    """The parser of a command, without its arguments, by its name as it is typed (``"attack pgd"``)."""
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
    """The options of a command that were typed.

    Raises:
        InvalidArgumentError: an option without a value.
        ArgumentError: an option that does not exist, or a value of another type.
    """
    _check_options(parser, arguments)
    return parser.parse_args(folded(arguments))


def _check_options(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """An option that does not exist may be another one misspelt."""
    known = [option for action in parser._actions for option in action.option_strings]
    for argument in arguments:
        name = argument.partition("=")[0]
        taken = name in known or name.removeprefix("--").partition(".")[0] in _NAMED
        if not argument.startswith("--") or argument == "--" or taken:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        raise InvalidArgumentError(f"there is no option {name}: {f'did you mean {near[0]}?' if near else 'see --help'}")


def add_source(parser: ArgumentParser, *, out: str, samples: int = 256) -> None:
    """Add the options that name the model and the data, with defaults of the output folder and number of samples."""
    groups = {title: parser.add_argument_group(title) for title in _OPTIONS}
    groups["the model"].add_argument(
        "checkpoints",
        nargs="*",
        help="checkpoint files, or folders of a run; a LightningCLI run's folder gives the arguments of model and data",
    )
    for title, rows in _OPTIONS.items():
        add_options(groups[title], rows)
    parser.set_defaults(out=out, samples=samples)


OptionRow = tuple[str, Any, Any, str, str]
"""An option: name, type (with its number of values if there are several; `FLAG` if none), default, metavar, help."""
FLAG = None


def add_options(group: Any, rows: Iterable[OptionRow]) -> None:
    """Add options to a group of a parser's arguments."""
    for name, kind, default, metavar, words in rows:
        if kind is FLAG:
            group.add_argument(name, action="store_true", help=words)
            continue
        several = {"type": kind[0], "nargs": kind[1]} if isinstance(kind, tuple) else {"type": kind}
        group.add_argument(name, **several, default=default, metavar=metavar, help=words)


# fmt: off
_OPTIONS: Mapping[str, Sequence[OptionRow]] = {  # by group
    "the model": (
        ("--model", dict | None, None, "CLASS", "class path, package.module.Class, or JSON with class_path and "
         "init_args; its arguments: --model.NAME VALUE (default: those in config.yaml or the checkpoint)"),
        ("--config", str | None, None, "FILE", "a config.yaml of LightningCLI (default: the one in the run's folder)"),
        ("--torchvision", str | None, None, "NAME", "a model of torchvision, e.g. resnet50"),
        ("--weights", str, "DEFAULT", "NAME", "weights of the --torchvision model; none for random ones"),
        ("--name", str, "", "NAME", "name of the model in reports (default: its class's name)"),
        ("--trust", FLAG, False, "", "load checkpoints that hold more than weights, and import and call whatever "
         "config.yaml names; this runs the code that they name"),
    ),
    "the data": (
        ("--data", dict | None, None, "CLASS", "data module or data set, given like --model"),
        ("--images", str | None, None, "FOLDER", "use images of a folder instead; its subfolders are the classes"),
        ("--size", PositiveInt, 224, "N", "side in pixels to which --images are scaled and cropped"),
        ("--gray", FLAG, False, "", "convert --images to one channel"),
        ("--pixel_space.mean", (float, "+"), None, "X",
         "per-channel mean of Normalize, or one for all (default: found in the data's transform)"),
        ("--pixel_space.std", (float, "+"), None, "X", "per-channel standard deviation of Normalize"),
        ("--samples", PositiveInt, 256, "N", "how many samples of the data are used"),
    ),
    "how it is run": (
        ("--out", str, "", "DIR", "output folder"),
        ("--overwrite", FLAG, False, "", "recompute existing results"),
        ("--seed", int | None, None, "N", "of everything random (default: the run's, or 0)"),
        ("--accelerator", str, "auto", "NAME", "cpu, gpu, ..."),
        ("--devices", int | str, 1, "N", "how many devices, or which: 0,2"),
        ("--strategy", str | None, None, "NAME", "Trainer strategy (default: the run's, with several devices)"),
        ("--precision", str | None, None, "NAME", "Trainer precision (default: the run's)"),
    ),
}
# fmt: on


def run_config_of(options: Namespace, *, needs_data: bool = True) -> RunConfig:
    """The configuration of an analysis, from the options of a parser with `add_source`.

    Without data, which are taken only if the options name them, it is of the model alone.

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
    named = options.data is not None or options.images is not None
    data = _data(options, configuration, known, pixel_space) if needs_data or named else None
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


def model_under_study_of(
    options: Namespace,
    config: RunConfig | None = None,
    *,
    needs_data: bool = True,
    check: Callable[[Any], None] | None = None,
) -> ModelUnderStudy:
    """The model of the last checkpoint, and samples of its data, on the device that was chosen.

    The configuration is that of the options (see `run_config_of`), if it is not given; without data there are no
    samples. The check raises if the model does not suit, before data are read and the model is run.

    Raises:
        AnalysisError: see its message.
    """
    from lightning_viz.analysis.checkpoint_pass import model_alone, run_checkpoint
    from lightning_viz.callbacks.probe import Probe

    config = config or run_config_of(options)
    if config.data is None and not needs_data:
        return model_alone(config, *list(config.series().items())[-1])
    head = min(Probe.samples, config.samples)  # no more samples than were asked for
    config = replace(config, probe=config.probe or Probe(samples=head))
    step, path = list(config.series().items())[-1]
    study = run_checkpoint(config, step, path, check=check).study
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
    for name, value in options.items():
        place = value[-1] if isinstance(value, list) and value and name != "checkpoints" else None
        if isinstance(place, str) and not options.checkpoints and Path(place).exists():
            return f"--{name} takes several values, and took {place} for one of them: give checkpoints first"
    return ""


def _required(found: Any, remedy: str) -> Any:
    if found is None:
        raise AnalysisError(remedy)
    return found


def _configuration(options: Namespace) -> Configuration:
    from lightning_viz.analysis.config import find_configuration, read_configuration

    lost = next((place for place in options.checkpoints if not Path(place).exists()), None)
    if lost is not None:
        raise AnalysisError(f"there is no file and no folder {lost}: give a run's folder, or a checkpoint")
    return read_configuration(Path(options.config)) if options.config else find_configuration(options.checkpoints)


def _named(options: Namespace, configuration: Configuration, what: str, given: Any) -> Any:
    """The class of model or data; the file may name others of the packages that the user typed."""
    from lightning_viz.analysis.config_values import packages_of
    from lightning_viz.analysis.models import recorded_class

    packages = packages_of(options.model, options.data)
    recorded = None
    if configuration.content and configuration.lacks_class(what) and not (given or {}).get("class_path"):
        recorded = recorded_class(options.checkpoints, what, trusted=options.trust)
    return configuration.named(what, given, packages=packages, trusted=options.trust, recorded=recorded)


def _pretrained(options: Namespace) -> Pretrained | None:
    from lightning_viz.analysis.models import pretrained

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
    from lightning_viz.pixels import PixelSpace

    if options.images is None:
        named = _named(options, configuration, "data", options.data)
        return named if named is not None or configuration.content else _required(named, _WHICH_DATA)
    if options.data is not None:
        raise AnalysisError("--data and --images are two sources of data: give one of them")
    if known is not None:
        return Images(options.images, known.transform, classes=known.classes, listed=known.detects)
    return Images(options.images, fitting(options.size, pixel_space or PixelSpace(), gray=options.gray))


def _trainer(options: Namespace, configuration: Configuration) -> dict[str, Any]:
    """The Trainer's options. What a run needed to train on many devices, one does not need to look at it on one."""
    precision = options.precision or configuration.trainer("precision")
    strategy = options.strategy or (configuration.trainer("strategy") if options.devices != 1 else None)
    found = {"precision": precision, "strategy": strategy if isinstance(strategy, str) else None}
    chosen = {name: value for name, value in found.items() if value is not None}
    return {"accelerator": options.accelerator, "devices": options.devices, **chosen}


def run_configs_of(options: Namespace) -> list[RunConfig]:
    """One for each checkpoint or run's folder, and one for each model of torchvision; names are separated by commas.

    Raises:
        AnalysisError: not as many names as models; else as `run_config_of`.
    """
    zoo = [name for name in (options.torchvision or "").split(",") if name]
    names = [name for name in options.name.split(",") if name] or [*apart(options.checkpoints), *zoo]
    count = len(options.checkpoints) + len(zoo)
    if len(names) != count:
        raise AnalysisError(f"--name has {len(names)} names, {', '.join(names)}, for {count} models: give one each")
    chosen: list[tuple[list[str], str | None]] = [([place], None) for place in options.checkpoints]
    chosen += [([], model) for model in zoo]
    configs = []
    for (places, model), name in zip(chosen, names, strict=True):
        changed = options.clone()
        changed.checkpoints, changed.torchvision, changed.name = places, model, name
        changed.model = options.model if model is None else None
        configs.append(run_config_of(changed))
    return configs


def apart(places: list[str]) -> list[str]:
    """Names of files or folders: what of their paths is not the same for all.

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
