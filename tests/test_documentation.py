"""The documentation is complete, and its code runs: each page's blocks from top to bottom, in one namespace."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import sys
import warnings
from pathlib import Path

import pytest

from lightning_viz.catalogue import views
from lightning_viz.cli import analyze
from lightning_viz.cli.commands import FAMILIES, command_methods, method_parser
from lightning_viz.cli.source_options import parse
from tests.documentation_samples import namespace

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
API = importlib.import_module("api_pages")
DOCUMENTATION = importlib.import_module("documentation")
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
_BLOCK = re.compile(
    r"^(?P<mark><!-- not run: [^>]+ -->\n)?```(?P<language>python|bash|yaml)\n(?P<code>.*?)^```$", re.M | re.S
)


CHECKED = ["README.md"]  # pages that speak of files of the reader's: imports and arguments of calls are checked


def blocks(page: Path, language: str) -> list[tuple[str, bool]]:
    """The code of a page in a language, and whether it is run."""
    found = _BLOCK.finditer(page.read_text())
    return [(block["code"], not block["mark"]) for block in found if block["language"] == language]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


with_python = [page for page in PAGES if blocks(page, "python")]
with_commands = [page for page in PAGES if blocks(page, "bash")]


@pytest.mark.parametrize("page", with_python, ids=name_of)
def test_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    names = namespace()
    for code, runs in blocks(page, "python"):
        compiled = compile(code, name_of(page), "exec")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Lightning, of workers
            if runs and name_of(page) not in CHECKED:
                exec(compiled, names)
            else:
                check_calls(code, names)


def check_calls(code: str, names: dict) -> None:
    """Of a block that is not run: its imports from this package, and the arguments of calls of what they give."""
    tree = ast.parse(code)
    own = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module.startswith("lightning_viz")]
    exec(compile(ast.Module(own, []), "imports", "exec"), names)
    imported = {alias.name for node in own for alias in node.names}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if getattr(call.func, "id", "") in imported:
            given = {keyword.arg: None for keyword in call.keywords}
            inspect.signature(names[call.func.id]).bind(*[None] * len(call.args), **given)


def command_lines(page: Path) -> list[list[str]]:
    """The words of each line in a page's shell blocks."""
    lines = [line for code, _ in blocks(page, "bash") for line in code.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("page", with_commands, ids=name_of)
def test_commands_of_a_page_are_understood(page):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    for words in command_lines(page):
        if words[0].startswith("LIGHTNING_VIZ="):
            words = words[1:]
        if words[0] == "lightning-viz":
            understand(words[1:])
        elif words[0] == "make":
            assert words[1] in targets, words
        elif words[0].startswith("examples/"):
            assert (ROOT / words[0]).exists(), words
        else:
            assert words[:2] in (["pip", "install"], ["python", "digits.py"]), words


def understand(words: list[str]) -> None:
    """Parse a command as it would be."""
    command, *rest = words
    if command not in FAMILIES:
        parse(getattr(analyze, f"{command}_parser")(), rest)
        return
    entries = command_methods(command)
    method = command if command in entries else rest.pop(0)
    whole = command if method == command else f"{command} {method}"
    parse(method_parser(whole, entries[method]), rest)


def test_every_public_name_has_a_page_and_stands_on_its_packages_page():
    pages = API.pages()
    for package in API.packages():
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", []):
            value = getattr(module, name)
            if inspect.ismodule(value):
                assert f"package.{package}.{name}" in pages
            else:
                home = [
                    path for path, entry in API.public_names().items() if f"{package}.{name}" in (path, *entry.others)
                ]
                assert len(home) == 1, (package, name, home)
                assert API.public_names()[home[0]].load() is value
                page = API.page_of(API.public_names()[home[0]])
                assert f":: {name}" in pages[page] and f"<{page}>" in pages[f"package.{package}"]
    lower = [name.lower() for name in pages]
    assert len(set(lower)) == len(lower)  # file systems that know no case


def test_every_package_has_a_title_and_every_public_name_a_sentence():
    assert set(API.ORDER) <= set(API.packages()) and all(map(API.title_of, API.packages()))
    mute = [path for path, entry in API.public_names().items() if not API._first_sentence(entry)]
    assert not mute


@pytest.mark.parametrize("kind", views())
def test_every_view_has_a_page_with_a_healthy_and_an_ill_example(kind):
    page = ROOT / "docs" / "views" / f"{kind}.md"
    text = page.read_text()
    whole = DOCUMENTATION.completed(text)
    assert f"\n{kind}\n" in (ROOT / "docs/views/index.md").read_text()
    titles = re.findall(r"^## (.*)", whole, re.M)
    assert titles[:5] == ["What it shows", "Healthy", "Ill", "Call", "Arguments"]
    for state in ("healthy", "ill"):
        assert f"(../pictures/{kind}_{state}.png)" in text
        assert (ROOT / "docs" / "pictures" / f"{kind}_{state}.png").stat().st_size < 150_000
    loaded = views()[kind].load()
    own = [name for name in vars(loaded).get("__annotations__", {}) if name in inspect.signature(loaded).parameters]
    assert not [name for name in own if name not in ("steps", "animation") and f"`{name}` = " not in whole]


def test_questions_of_other_trackers_are_answered_by_a_page_and_a_heading():
    rows = [line.split("\t") for line in (ROOT / "docs" / "peer_questions.tsv").read_text().splitlines()[1:]]
    assert len({issue for _, issue, _ in rows}) == len(rows) >= 20
    for question, issue, answer in rows:
        assert re.fullmatch(r"[\w-]+/[\w.-]+#\d+", issue), question
        page, _, anchor = answer.partition("#")
        titles = re.findall(r"^#+ (.*)", (ROOT / "docs" / page).read_text(), re.M)
        slugs = {re.sub(r"-+", "-", re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")) for title in titles}
        assert not anchor or anchor in slugs, (question, anchor, sorted(slugs))


def test_the_site_stays_small():
    pictures = sum(path.stat().st_size for path in (ROOT / "docs" / "pictures").glob("*"))
    assert pictures < 3_000_000
