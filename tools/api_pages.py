"""The pages of the API: one for each public name, and one for each package and module that lists them.

The stubs (``tools/public_face.py``) say what is public; Sphinx reads the docstrings. Nothing here needs Sphinx.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lightning_viz"
_IMPORT = re.compile(r"^from \.([\w.]+) import (\w+) as \2$", re.MULTILINE)

ORDER = (  # of the API's page; packages and modules that are not named come last
    "lightning_viz",
    "lightning_viz.callbacks",
    "lightning_viz.analysis",
    "lightning_viz.attribution",
    "lightning_viz.attribution.evaluation",
    "lightning_viz.dream",
    "lightning_viz.adversarial",
    "lightning_viz.robustness",
    "lightning_viz.activations",
    "lightning_viz.embedding",
    "lightning_viz.parameters",
    "lightning_viz.dense",
    "lightning_viz.hooks",
    "lightning_viz.pixels",
    "lightning_viz.render",
    "lightning_viz.catalogue",
    "lightning_viz.catalogue_types",
    "lightning_viz.errors",
)


@dataclass(frozen=True)
class PublicName:
    """A public name.

    Attributes:
        path: by which it is documented, ``lightning_viz.GradCAM``.
        module: where it is defined, ``lightning_viz.callbacks.grad_cam``.
        others: further paths by which it can be imported.
    """

    path: str
    module: str
    others: tuple[str, ...] = ()

    @property
    def package(self) -> str:
        """Where its page is listed."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """Without the package."""
        return self.path.rpartition(".")[2]

    def load(self) -> Any:
        """The object."""
        return getattr(importlib.import_module(self.package), self.name)


def packages() -> list[str]:
    """The public packages and modules by name, in the order of `ORDER`."""
    stubs = [".".join(path.parent.relative_to(ROOT).parts) for path in sorted(PACKAGE.rglob("__init__.pyi"))]
    modules = [f"lightning_viz.{path.stem}" for path in sorted(PACKAGE.glob("*.py")) if not path.stem.startswith("_")]
    return sorted([*stubs, *modules], key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def title_of(package: str) -> str:
    """What a package or module holds: the first sentence of its docstring.

    Args:
        package: its name.
    """
    words = inspect.getdoc(importlib.import_module(package)) or ""
    return words.partition("\n")[0].replace("``", "`").removesuffix(".")


def _rst(markdown: str) -> str:
    """Words with code in them, as reStructuredText has it."""
    return markdown.replace("`", "``")


def listed(package: str) -> dict[str, str]:
    """The public names of a package or module, but modules, with the module where each is defined."""
    folder = ROOT.joinpath(*package.split("."))
    if folder.is_dir():
        stub = (folder / "__init__.pyi").read_text()
        return {name: f"{package}.{home}" for home, name in _IMPORT.findall(stub)}
    module = importlib.import_module(package)
    return dict.fromkeys(getattr(module, "__all__", []), package)


@cache
def public_names() -> dict[str, PublicName]:
    """Every public name by its path; one that several packages have by the path that is listed first."""
    by_object: dict[tuple[str, str], list[str]] = {}
    for package in packages():
        for name, module in listed(package).items():
            by_object.setdefault((module, name), []).append(f"{package}.{name}")
    return {paths[0]: PublicName(paths[0], module, tuple(paths[1:])) for (module, _), paths in by_object.items()}


def pages() -> dict[str, str]:
    """The text of every page by its name below ``docs/api``, without the suffix ``.rst``."""
    names = public_names()
    found = {page_of(name): _object_page(name) for name in names.values()}
    found |= {f"package.{package}": _package_page(package, names) for package in packages()}
    return found


def page_of(entry: PublicName) -> str:
    """The name of a public name's page: its path; with its kind where a function's path differs by case alone."""
    alike = [path for path in public_names() if path.lower() == entry.path.lower()]
    kind = _kind(entry)
    return entry.path if len(alike) == 1 or kind == "function" else f"{entry.path}.{kind}"


def _object_page(entry: PublicName) -> str:
    also = f" Also `{'`, `'.join(entry.others)}`." if entry.others else ""
    lines = [
        ":orphan:", "", entry.name, "=" * len(entry.name), "",
        f"In :doc:`{entry.package} <package.{entry.package}>`.{also}", "",
        f".. currentmodule:: {entry.package}", "",
    ]  # fmt: skip
    return "\n".join([*lines, *_directive(entry)]) + "\n"


def _directive(entry: PublicName) -> list[str]:
    """What Sphinx documents the object by."""
    from lightning_viz.callbacks.view import View

    value = entry.load()
    if inspect.isclass(value):
        if not issubclass(value, View):
            return [f".. autoclass:: {entry.name}", "   :members:"]
        if value.__module__ == View.__module__:
            return [f".. autoclass:: {entry.name}{view_signature(value)}", "   :members:"]
        more = "Besides these it takes the arguments of every view, see :py:obj:`View <lightning_viz.View>`."
        return [f".. autoclass:: {entry.name}{view_signature(value)}", "", f"   {more}"]
    if inspect.isfunction(value):
        return [f".. autofunction:: {entry.name}"]
    words = data_docstring(entry.module, entry.name) or (inspect.getdoc(type(value)) or "")
    shown = [f"   :value: {value!r}"] if isinstance(value, int | float | str | tuple) and len(repr(value)) < 200 else []
    keys = [f"Keys: {', '.join(f'``{key}``' for key in value)}."] if hasattr(value, "keys") else []
    form = [f"``{annotation(value)}``"] if not shown and not keys and annotation(value) else []
    paragraphs = [line for text in (words, *keys, *form) if text for line in ("", *_indented(text))]
    return [f".. py:data:: {entry.name}", *shown, *paragraphs]


def view_signature(view: Any) -> str:
    """The keyword arguments that a view adds to those of every view, as they are written.

    Args:
        view: its class.
    """
    from lightning_viz import View

    own, every = inspect.signature(view).parameters, inspect.signature(View).parameters
    given = [name for name in own if view is View or name not in every]
    defaults = (own[name].default for name in given)
    return f"({', '.join(['*', *(f'{name}={default!r}' for name, default in zip(given, defaults, strict=True))])})"


def annotation(value: Any) -> str:
    """A type alias as it is written, without the modules of its parts; empty if it is none."""
    if not str(value).startswith(("typing.", "collections.abc.")):
        return ""
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(value))


def _indented(text: str) -> list[str]:
    return [f"   {line}".rstrip() for line in text.splitlines()]


def data_docstring(module: str, name: str) -> str:
    """The string that stands below the assignment of a constant; empty if there is none.

    Args:
        module: where it is assigned.
        name: of the constant.
    """
    body = ast.parse(Path(inspect.getfile(importlib.import_module(module))).read_text()).body
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(getattr(target, "id", "") == name for target in targets) and isinstance(after, ast.Expr):
            return inspect.cleandoc(str(ast.literal_eval(after.value)))
    return ""


def _package_page(package: str, names: dict[str, PublicName]) -> str:
    module = importlib.import_module(package)
    paths = {path: entry for entry in names.values() for path in (entry.path, *entry.others)}
    own = [paths[f"{package}.{name}"] for name in listed(package)]
    lines = [package, "=" * len(package), "", f".. py:module:: {package}", "", inspect.getdoc(module) or ""]
    if not own:
        lines = [package, "=" * len(package), "", f".. automodule:: {package}", "   :members:"]
    for title, kind in (("Classes", "class"), ("Functions", "function"), ("Constants and types", "data")):
        entries = sorted((entry for entry in own if _kind(entry) == kind), key=lambda entry: entry.name.lower())
        if entries:
            lines += ["", title, "-" * len(title), "", ".. list-table::", "   :widths: auto", ""]
            for entry in entries:
                lines += [f"   * - :doc:`{entry.name} <{page_of(entry)}>`", f"     - {_first_sentence(entry)}"]
    inner = [name for name in packages() if name.rpartition(".")[0] == package and package != "lightning_viz"]
    if inner:
        lines += [
            "",
            "Packages",
            "--------",
            "",
            *(f"* :doc:`package.{name}`: {_rst(title_of(name))}" for name in inner),
        ]
    return "\n".join(lines) + "\n"


def _kind(entry: PublicName) -> str:
    value = entry.load()
    return "class" if inspect.isclass(value) else "function" if inspect.isfunction(value) else "data"


def _first_sentence(entry: PublicName) -> str:
    value = entry.load()
    words = inspect.getdoc(value) if _kind(entry) != "data" else data_docstring(entry.module, entry.name)
    return " ".join((words or "").partition("\n\n")[0].split())


def index() -> str:
    """The rows of the API's page, in Markdown: what each package holds."""
    rows = [
        f"| {{doc}}`{name} <package.{name}>` | {title_of(name)} | {len(listed(name)) or ''} |" for name in packages()
    ]
    table = ["| package or module | what it holds | names |", "| --- | --- | --- |", *rows]
    return "\n".join([*table, "", "```{toctree}", ":hidden:", "", *(f"package.{name}" for name in packages()), "```"])
