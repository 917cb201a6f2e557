"""The documentation is complete, and its code runs: each page's blocks from top to bottom, in one namespace."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from lightning_viz.catalogue import methods, views
from lightning_viz.cli import analyze
from lightning_viz.cli.commands import FAMILIES, command_methods, method_parser
from lightning_viz.cli.source_options import parse
from tests.callbacks.test_unchanged import CELLS
from tests.callbacks.test_writers import events
from tests.documentation_samples import namespace

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
sys.path.insert(0, str(ROOT / "tools"))
API = importlib.import_module("api_pages")
DOCUMENTATION = importlib.import_module("documentation")
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), README])
_BLOCK = re.compile(
    r"^(?P<mark><!-- not run: [^>]+ -->\n)?```(?P<language>python|bash|yaml)\n(?P<code>.*?)^```$", re.M | re.S
)


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
            if runs:
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


@pytest.mark.slow
def test_the_readmes_script_stands_alone_and_leaves_the_pictures_that_it_promises(tmp_path):
    ((script, _),) = blocks(README, "python")
    assert len([line for line in script.splitlines() if line]) <= 20
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-2000:]
    tags = set(events(tmp_path / "lightning_logs", "version_0"))
    for words in ("1_overview/1_health", "2_mistakes/worst", "3_grad_cam", "embedding/every_layer"):
        assert any(words in tag for tag in tags), (words, sorted(tags))


def test_the_readme_is_read_in_minutes_and_leads_to_files_that_exist():
    text = README.read_text()
    assert len(text.split()) <= 900
    assert text.count("<!-- install -->") == text.count("<!-- /install -->") == 1  # what the index replaces
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) == 3 and (ROOT / pictures[0]).suffix == ".gif"
    assert all((ROOT / picture).stat().st_size < 1_500_000 for picture in pictures)
    links = re.findall(r"(?<!!)\[[^\]]+\]\(([^)#]+)[^)]*\)", text)
    assert len(links) > 15 and not [link for link in links if not (ROOT / link).exists()]


def test_the_readmes_numbers_are_those_of_the_catalogue_and_of_what_was_measured():
    text, measured = README.read_text(), (ROOT / "docs" / "compared.md").read_text()
    defaults = sum(entry.default for entry in views().values())
    in_words = {9: "nine", 16: "sixteen"}
    assert f"{in_words[defaults]} of {in_words[len(views())]} [views]" in text
    assert f"{len(methods())} methods" in text and f"in {len(CELLS)} kinds of training" in text
    for said, there in {
        "1,020 runs": "1,020 runs with a fault planted",
        "costs 1.00 forward and backward": "all 20 convolutions | **1.00** fb",
        "captum's, where captum is right, to 1.1e-6": "captum's, where captum is right, to 1.1e-6",
        "captum 16, pytorch-grad-cam 0": "| 16/16 | 16/16 | **0/16, 0.9** |",
        "| 0 | torch-lucent 67 |": "| **0 / 0 / 0** | 23 / 67 / 432 |",
        "| captum, pytorch-grad-cam, zennit: the plain": "| `F.relu(x)` | right | **plain** | **plain** | **plain** |",
    }.items():
        assert said in text and there in measured, (said, there)


def test_every_example_is_in_the_table_with_a_sentence():
    rows = DOCUMENTATION.completed((ROOT / "docs" / "examples.md").read_text())
    for script in (ROOT / "examples").glob("*.py"):
        assert re.search(rf"^\| `{script.name}` \| \w.+[.:?] ?\|$", rows, re.M), script


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
