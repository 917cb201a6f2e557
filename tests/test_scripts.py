"""What benchmarks, examples and tools take from the package is there; most of them are too slow to run here."""

import ast
import importlib
import inspect
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path for folder in ("benchmarks", "examples", "tools") for path in (ROOT / folder).rglob("*.py"))


def missing(tree: ast.AST) -> list[str]:
    """Names that a script imports from the package, or takes from one of its modules, which are not there."""
    found, modules = [], {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "lightning_viz":
            continue
        package = importlib.import_module(node.module)
        for alias in node.names:
            path = f"{node.module}.{alias.name}"
            is_module = hasattr(package, "__path__") and find_spec(path) is not None
            value = importlib.import_module(path) if is_module else getattr(package, alias.name, None)
            if value is None:
                found.append(path)
            elif inspect.ismodule(value):
                modules[alias.asname or alias.name] = value
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = modules[node.value.id]
            if not hasattr(module, node.attr):
                found.append(f"{module.__name__}.{node.attr}")
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_script_takes_from_the_package_is_there(script):
    assert missing(ast.parse(script.read_text())) == []


@pytest.mark.parametrize(
    "line", ["from lightning_viz.hooks import gone", "from lightning_viz import hooks\nhooks.gone()"]
)
def test_what_is_gone_is_found(line):
    assert missing(ast.parse(line)) == ["lightning_viz.hooks.gone"]
