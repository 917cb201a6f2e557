"""The commands of one method each: ``lightning-viz attack pgd``, as the catalogue lists them."""

from __future__ import annotations

import importlib
import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_viz.catalogue import methods
from lightning_viz.catalogue_types import Family, Method
from lightning_viz.cli.function_options import Option, options_of
from lightning_viz.cli.layer_options import check_layers
from lightning_viz.cli.progress import print_line, working
from lightning_viz.errors import AnalysisError, InvalidArgumentError
from lightning_viz.hints import hint

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from lightning_viz.analysis.run_config import RunConfig

FAMILIES: Mapping[str, tuple[Family, str]] = {
    "attribute": ("attribution", "Show what in the input matters: a map for each sample, as pictures and in maps.npz."),
    "embed": ("embedding", "Place samples in the plane by a layer's outputs: pictures, and the points."),
    "dream": ("dream", "Make images by optimization: dreams of units and classes, inversion, DeepDream, style."),
    "attack": ("attack", "Change samples as little as possible until the model errs: pictures, and every step."),
    "robustness": ("robustness", "Measure how the model withstands attacks, corruptions and conflicting cues."),
    "filters": ("filters", "Show the weights of convolutions and fully connected layers as images."),
}
"""By command, the family of its methods and what it does."""

FILTER_OPTIONS = (
    Option(
        "layers",
        (str,),
        None,
        "one or more, by name or pattern; the first convolution, else fully connected layer, if omitted",
        several=True,
        single=True,
    ),
    Option(
        "per_filter", (bool,), False, "scale the colors of each filter by itself rather than of the layer as a whole"
    ),
    Option("as_rgb", (bool,), True, "show kernels over three channels as color images rather than channel by channel"),
)
"""Of the only command without methods, so that its help needs no torch; a test compares them with the function."""

_NOT_ASKED = ("out", "overwrite", "trust", "config")  # of what the result does not depend on


def command_methods(command: str) -> dict[str, Method]:
    """The methods of a command, by name."""
    return {name: entry for name, entry in methods(FAMILIES[command][0]).items() if entry.study}


def run_command(command: str, arguments: Sequence[str]) -> bool:
    """Run a method of a command, or show what there is.

    Returns:
        Whether a method was named, or help was asked for.

    Raises:
        InvalidArgumentError: there is no such method.
    """
    entries = command_methods(command)
    name = arguments[0] if arguments else ""
    if command not in entries and name in ("", "-h", "--help"):
        print_line(overview(command))
        return bool(arguments)
    from lightning_viz.cli.source_options import parse  # which takes a while to import

    if command in entries:  # its only method
        whole, entry, given = command, entries[command], arguments
    elif name in entries:
        whole, entry, given = f"{command} {name}", entries[name], arguments[1:]
    else:
        words = f"{command} has no method {name!r}: {hint(name, entries)} (the method comes first)"
        raise InvalidArgumentError(words)
    run_method(whole, entry, parse(method_parser(whole, entry), given))
    return True


def overview(command: str) -> str:
    """The help of a command: its methods."""
    entries = command_methods(command)
    width = max(map(len, entries)) + 4
    rows = [
        textwrap.fill(entry.summary, 79, initial_indent=f"  {name:<{width - 2}}", subsequent_indent=" " * width)
        for name, entry in entries.items()
    ]
    first = next(iter(entries))
    paragraphs = (
        f"usage: lightning-viz {command} METHOD [options] [checkpoints ...]",
        textwrap.fill(FAMILIES[command][1], 79),
        "\n".join(["methods:", *rows]),
        f"lightning-viz {command} METHOD --help lists the options of a method.",
        f"example:\n  {_example(f'{command} {first}', entries[first])}",
    )
    return "\n\n".join(paragraphs)


def method_parser(whole: str, entry: Method) -> ArgumentParser:
    """The parser of a method, by its name with the command's before it, and its row of the catalogue."""
    from lightning_viz.cli.source_options import add_source, command_parser

    parser = command_parser(whole, f"{entry.summary}.", _example(whole, entry))
    options: Sequence[Option] = (
        FILTER_OPTIONS if whole == "filters" else [*options_of(_function(entry)), *_passed_on(entry)]
    )
    group = parser.add_argument_group(f"options of {entry.name}")
    for option in options:
        option.add_to(group)
    add_source(parser, out="/".join(["analysis", *whole.split()]), samples=entry.samples)
    return parser


def run_method(whole: str, entry: Method, options: Namespace) -> None:
    """Run a method, as for `method_parser`, unless its result is there already, and write its output.

    Raises:
        AnalysisError: the model does not suit it, or an option cannot be used.
    """
    from lightning_viz.analysis.report.report import report
    from lightning_viz.analysis.results import ModelReport, Result, is_kept, keep
    from lightning_viz.cli.source_options import model_under_study_of, run_config_of

    needs_data = whole != "filters"
    folder, config = Path(options.out), run_config_of(options, needs_data=needs_data)
    asked = {name: value for name, value in options.as_dict().items() if value is not None and name not in _NOT_ASKED}
    key = _key(whole, config, asked)
    if not options.overwrite and is_kept(folder, key):
        print_line(f"{folder} holds this result already: --overwrite computes it again")
        return
    function = _function(entry)
    arguments = {option.name: option.value(options) for option in options_of(function)}
    parameters = inspect.signature(function).parameters
    if "method" in parameters:
        arguments["method"] = entry.name
    if "options" in parameters:
        arguments["options"] = {option.name: option.value(options) for option in _passed_on(entry)}
    named = {**arguments, **arguments.get("options", {})}
    check = partial(check_layers, method=entry.name, arguments=named)
    study = model_under_study_of(options, config, needs_data=needs_data, check=check)
    study = replace(study.first(options.samples) if len(study.samples) else study, progress=True)
    with working(whole) as progress:
        progress(study.name, 0, 1)
        output = function(study, **arguments)
        about = {"command": whole, "key": key, "model": study.name, "step": study.step, "options": asked}
        result = Result()
        result.add(output, study.step)
        page = report([ModelReport(study.name, techniques={output.name: result})])
        pictures = keep(output, result, page, folder, about)
    print_line(f"{output.found} → {next(iter(pictures), folder)}")
    print_line(f"all of it: {folder / 'index.html'}; lightning-viz board {folder}")


def _function(entry: Method) -> Any:
    """The function that computes and draws it."""
    module, _, name = entry.study.rpartition(".")
    return getattr(importlib.import_module(f"lightning_viz.analysis.studies.{module}"), name)


def _passed_on(entry: Method) -> list[Option]:
    """Options of the function that the study's function calls, but those that the study has itself."""
    own = _function(entry)
    if "options" not in inspect.signature(own).parameters:
        return []
    return options_of(entry.load(), but=[*inspect.signature(own).parameters, *_SOURCE])


_SOURCE = ("weights", "samples", "data", "model", "name", "size")  # options of every command, which mean something else


def _example(whole: str, entry: Method) -> str:
    return f"lightning-viz {whole} lightning_logs/version_0 --model net.Net {entry.example}".rstrip()


def _key(whole: str, config: RunConfig, asked: Mapping[str, object]) -> str:
    """Of all that the result depends on."""
    from lightning_viz.analysis.files import digest_of

    path = list(config.series().values())[-1]
    if path is not None and not path.is_file():
        raise AnalysisError(f"there is no checkpoint {path}")
    what = whole + json.dumps(asked, sort_keys=True, default=str)
    return config.key(None if path is None else digest_of(path), what)
