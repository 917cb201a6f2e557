"""What the documentation generates: pages contain marks, ``<!-- generated: views -->``, in whose place text stands.

Everything comes from the catalogue, from signatures and docstrings, and from the parsers of the commands, so that there
is no second list. Nothing here needs Sphinx; ``docs/conf.py`` calls `completed` for each page.
"""

from __future__ import annotations

import ast
import inspect
import re
from argparse import HelpFormatter
from collections.abc import Callable, Iterator
from typing import Any

import api_pages

from lightning_viz.catalogue import SECTIONS, methods, techniques, views
from lightning_viz.catalogue_types import Method, ViewEntry

PEER_QUESTIONS = api_pages.ROOT / "docs" / "peer_questions.tsv"
MARK = re.compile(r"^<!-- generated: (\w+) ?([^>]*?) -->$", re.MULTILINE)


def completed(text: str) -> str:
    """A page, with what is generated in the place of each mark.

    Args:
        text: of the page, in Markdown.
    """
    return MARK.sub(lambda mark: GENERATED[mark[1]](*mark[2].split()), text)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )


def _reference(entry: Any) -> str:
    """A link to the API's page of what an entry describes; its name if it is not public."""
    path = _path_of(entry)
    return f"{{py:obj}}`{path.rpartition('.')[2]} <{path}>`" if path else f"`{entry.symbol or entry.name}`"


def _path_of(entry: Any) -> str:
    home = (f"lightning_viz.{entry.module}", entry.symbol or entry.name)
    return next((path for path, public in api_pages.public_names().items() if (public.module, public.name) == home), "")


def view_index() -> str:
    """The table of views, by section of the report."""
    from lightning_viz.catalogue import CATALOGUE

    order = [entry.name for entry in CATALOGUE if isinstance(entry, ViewEntry)]
    rows = (
        (
            f"[`{entry.symbol}`]({name}.md)", f"{entry.title}. {entry.caption}",
            ", ".join(f"`{tag}`" for tag in _tags(entry)), "yes" if entry.default else "",
        )
        for name, entry in ((name, views()[name]) for name in order)
    )  # fmt: skip
    return _table(("view", "what it shows", "tags", "in `default_views()`"), rows)


def _tags(entry: ViewEntry) -> list[str]:
    """Beginnings of the tags of a view's pictures; those of its methods if it has none of its own."""
    own = [tag for method in methods(view=entry.name).values() for tag in method.tags]
    return list(entry.tags) or own


def view(kind: str) -> str:
    """The head of a view's page: title, caption, and the facts.

    Args:
        kind: of the view.
    """
    entry = views()[kind]
    rows = [
        ("class", _reference(entry)),
        ("pictures", ", ".join(f"`{tag}`" for tag in _tags(entry))),
        ("section of the report", SECTIONS[entry.section]),
        ("in `default_views()`", "yes, where it suits the model" if entry.default else "no: name it yourself"),
        ("drawn by `analyze`", "yes" if entry.offline else "no: a checkpoint does not hold what it needs"),
        ("cost of a look", entry.cost),
    ]
    return f"# {entry.title}\n\n{entry.caption}\n\n" + _table(("`" + entry.symbol + "`", ""), iter(rows))


def arguments(kind: str) -> str:
    """The arguments of a view with their defaults and meaning, then its methods if it has several.

    Args:
        kind: of the view.
    """
    loaded = views()[kind].load()
    parts = ["## Arguments", argument_list(loaded)]
    parts.append("Besides these it takes the [arguments of every view](index.md#arguments-of-every-view).")
    if len(methods(view=kind)) > 1 and kind != "embedding":
        parts += ["## Methods", method_table(methods(view=kind))]
    return "\n\n".join(parts)


def argument_list(loaded: Any) -> str:
    """The keyword arguments that a class describes in its docstring, as a list of definitions.

    Args:
        loaded: the class.
    """
    from lightning_viz.callbacks import PopulationView

    described = _described(inspect.getdoc(loaded) or "")
    if loaded is not PopulationView and issubclass(loaded, PopulationView):
        described = {**_described(inspect.getdoc(PopulationView) or ""), **described}
    signature = inspect.signature(loaded).parameters
    lines = []
    for name, words in described.items():
        default = signature[name].default
        lines += [f"`{name}` = `{default!r}`", f": {words}", ""]
    return "\n".join(lines).strip()


def _described(docstring: str) -> dict[str, str]:
    """The descriptions of arguments, in Markdown, by name."""
    arguments = docstring.partition("\nArgs:\n")[2]
    text = re.split(r"\n(?=\S)", arguments)[0]
    entries = re.split(r"\n(?=    \w+: )", "\n" + text)
    return {
        entry.strip().partition(":")[0]: " ".join(entry.partition(":")[2].split()).replace("``", "`")
        for entry in entries
        if entry.strip()
    }


def shared_arguments() -> str:
    """The arguments of every view."""
    from lightning_viz.callbacks import View

    return argument_list(View)


def method_table(entries: dict[str, Method]) -> str:
    """A table of methods.

    Args:
        entries: of the catalogue, by name.
    """
    rows = (
        (
            f"{entry.title}: {_reference(entry)}",
            entry.caption + (f" {entry.source}." if entry.source else ""),
            cost(entry),
        )
        for entry in entries.values()
    )
    return _table(("method", "what it does", "passes of each sample"), rows)


def cost(entry: Method) -> str:
    """How many passes of each sample a method takes, in words."""
    if isinstance(entry.cost, str):
        return f"grows with {entry.cost.replace('_', ' ')}"
    return str(entry.cost)


def family(name: str) -> str:
    """The table of a family's methods."""
    return method_table(methods(name))  # type: ignore[arg-type]


def technique_table() -> str:
    """The techniques of ``analyze``."""
    rows = (
        (f"`{name}`", entry.title, entry.summary, ", ".join(entry.needs) or "any model")
        for name, entry in techniques().items()
    )
    return _table(("`--techniques`", "title", "what it finds out", "needs"), rows)


def examples() -> str:
    """The scripts that can be run, by their first paragraphs."""
    scripts = {path.name: ast.parse(path.read_text()) for path in sorted((api_pages.ROOT / "examples").glob("*.py"))}
    rows = ((f"`{name}`", (ast.get_docstring(tree) or "").partition("\n\n")[0]) for name, tree in scripts.items())
    return _table(("`examples/`", "what it does"), rows)


def peer_questions() -> str:
    """What is asked at the issue trackers of other tools, and where it is answered."""
    rows = (line.split("\t") for line in PEER_QUESTIONS.read_text().splitlines()[1:])
    linked = (
        (question, f"[{issue}](https://github.com/{issue.replace('#', '/issues/')})", page)
        for question, issue, page in rows
    )
    return _table(
        ("question", "asked at", "answer"), ((question, issue, f"[here]({page})") for question, issue, page in linked)
    )


def commands() -> str:
    """The commands."""
    from lightning_viz.cli.main import COMMANDS

    return _table(
        ("command", "what it does"), ((f"[`lightning-viz {name}`](#{name})", words) for name, words in COMMANDS.items())
    )


def command(name: str) -> str:
    """The options of a command and of its methods, from the parsers.

    Args:
        name: of the command.
    """
    from lightning_viz.cli import analyze
    from lightning_viz.cli.commands import FAMILIES, command_methods, method_parser
    from lightning_viz.cli.main import COMMANDS

    if name not in FAMILIES:
        return _parser_text(getattr(analyze, f"{name}_parser")(), f"## {name}", _SHARED)
    entries = command_methods(name)
    parts = [f"## {name}", FAMILIES[name][1], f"`lightning-viz {name}`: {COMMANDS[name]}."]
    for method_name, entry in entries.items():
        alone = name in entries
        whole = name if alone else f"{name} {method_name}"
        title = "" if alone else f"### {whole}"
        parts.append(_parser_text(method_parser(whole, entry), title, _SHARED))
    return "\n\n".join(part for part in parts if part)


def every_command() -> str:
    """The options of all commands, one after the other."""
    from lightning_viz.cli.main import COMMANDS

    return "\n\n".join(map(command, COMMANDS))


_SHARED = ("the model", "the data", "how it is run")


def shared_options() -> str:
    """The options of every command that reads a model."""
    from lightning_viz.cli.analyze import analyze_parser

    parser = analyze_parser()
    groups = [group for group in parser._action_groups if group.title in _SHARED]
    return "\n\n".join(
        f"### {group.title.capitalize()}\n\n{_options(parser, group._group_actions)}" for group in groups
    )


def _parser_text(parser: Any, title: str, left_out: tuple[str, ...]) -> str:
    """Description, options but those of some groups, and example."""
    parts = [title, _escaped(parser.description)]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if "--help" not in action.option_strings]
        if actions and group.title not in left_out:
            parts.append(_options(parser, actions))
    example = parser.epilog.partition("example:\n")[2]
    parts.append("```bash\n" + "\n".join(line.strip() for line in example.splitlines()) + "\n```")
    return "\n\n".join(part for part in parts if part)


def _options(parser: Any, actions: list[Any]) -> str:
    formatter = parser.formatter_class(parser.prog)
    lines = []
    for action in actions:
        words = formatter._get_help_string(action).replace("%%", "%")
        lines += [f"`{HelpFormatter._format_action_invocation(formatter, action)}`", f": {_escaped(words)}", ""]
    return "\n".join(lines).strip()


def _escaped(words: str) -> str:
    """Words of a help in Markdown, where brackets and the like mean nothing."""
    return re.sub(r"([\[\]<>*_$])", r"\\\1", words)


GENERATED: dict[str, Callable[..., str]] = {
    "views": view_index,
    "view": view,
    "arguments": arguments,
    "shared_arguments": shared_arguments,
    "methods": family,
    "techniques": technique_table,
    "examples": examples,
    "peer_questions": peer_questions,
    "commands": commands,
    "every_command": every_command,
    "shared_options": shared_options,
    "packages": api_pages.index,
}
"""By the word in a mark."""
