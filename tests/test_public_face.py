"""What a user meets first: names that are there, once, with their true types, and that cost nothing until used."""

import ast
import collections
import importlib
import json
import pkgutil
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_viz

ROOT = Path(lightning_viz.__file__).parents[1]
FACE = runpy.run_path(str(ROOT / "tools/public_face.py"))
PACKAGES = [path.parent for path in Path(lightning_viz.__file__).parent.rglob("__init__.pyi")]

TYPES = {  # what a checker must say of ten public names
    "lv.GradCAM": r"-> lightning_viz\.callbacks\.grad_cam\.GradCAM|type\[GradCAM\]",
    "lv.PixelSpace": r"-> lightning_viz\.pixels\.PixelSpace|type\[PixelSpace\]",
    "lv.default_views": r"lightning_viz\.callbacks\.applicable_views\.Views|-> Views",
    "lv.observe": r"lightning_viz\.hooks\.observation\.Observation|-> Observation",
    "lv.attribution.grad_cam": r"-> dict\[(builtins\.)?str, (torch\._tensor\.)?Tensor\]",
    "lv.attribution.occlusion": r"OcclusionMaps",
    "lv.adversarial.pgd": r"lightning_viz\.adversarial\.result\.AttackResult|-> AttackResult",
    "lv.dream.maximize": r"lightning_viz\.dream\.maximize\.Dream|-> Dream",
    "lv.embedding.tsne": r"-> (lightning_viz\.embedding\.)?Embedding",
    "lv.__version__": r"builtins\.str|\bstr\b",
}
MISSPELT = [
    "lv.GradCAM(layer='conv2')",
    "lv.Probe(sample=4)",
    "lv.attribution.grad_cam(net, x, layer=['conv2'])",
    "lv.adversarial.pgd(net, x, eps=0.1)",
    "lv.dream.maximize(net, [], step=10)",
]


@pytest.fixture(scope="module")
def consumer(tmp_path_factory):
    """A user's file: ten types to reveal, and five misspelt arguments."""
    path = tmp_path_factory.mktemp("consumer") / "consumer.py"
    head = [
        "import lightning_viz as lv",
        "import torch",
        "from torch import nn",
        "net, x = nn.Linear(2, 2), torch.zeros(1, 2)",
    ]
    path.write_text("\n".join([*head, *(f"reveal_type({name})" for name in TYPES), *MISSPELT]) + "\n")
    return path, len(head)


def checked(rows, head):
    """Lines and texts of a checker: the revealed types are right, and each misspelt argument is an error."""
    by_line = collections.defaultdict(list)
    for line, kind, text in rows:
        by_line[line].append((kind, text))
    for place, (name, pattern) in enumerate(TYPES.items(), head + 1):
        revealed = " ".join(text for _, text in by_line[place])
        assert re.search(pattern, revealed), (name, revealed)
        assert not re.search(r"\bAny\b\"?$|Unknown", revealed), (name, revealed)
    for place, call in enumerate(MISSPELT, head + len(TYPES) + 1):
        assert any(kind == "error" for kind, _ in by_line[place]), call


def test_mypy_sees_the_true_types_and_misspelt_arguments(consumer, tmp_path):
    path, head = consumer
    settings = tmp_path / "mypy.ini"  # of a user without transformers, whose 2,500 modules no name here depends on
    settings.write_text("[mypy]\nstrict = True\n[mypy-transformers.*]\nfollow_imports = skip\n")
    options = ["--config-file", str(settings), "--cache-dir", str(tmp_path)]
    command = [sys.executable, "-m", "mypy", *options, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    rows = [
        (int(line), kind, text)
        for line, kind, text in re.findall(r"consumer\.py:(\d+): (error|note): (.*)", run.stdout)
    ]
    checked(rows, head)


def test_pyright_sees_the_true_types_and_misspelt_arguments(consumer):
    path, head = consumer
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    found = json.loads(run.stdout)["generalDiagnostics"]
    checked([(row["range"]["start"]["line"] + 1, row["severity"], row["message"]) for row in found], head)


def test_the_stubs_are_what_make_stubs_writes():
    stale = [str(path) for path, text in FACE["stubs"]().items() if path.read_text() != text]
    assert not stale, "run `make stubs`"


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_every_public_name_is_there(folder):
    package = importlib.import_module(".".join(folder.relative_to(ROOT).parts))
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_packages_and_the_version_are_at_hand_without_torch():
    code = (
        "import sys, lightning_viz as lv\n"
        "assert {'attribution', 'adversarial', 'dream', 'embedding', 'pixels', 'GradCAM'} <= set(dir(lv))\n"
        "assert lv.__version__ and 'torch' not in sys.modules\n"
        "import lightning_viz.dream.maximize, lightning_viz.hooks.observe, lightning_viz.analysis.analyze\n"
        "assert all(map(callable, (lv.dream.maximize, lv.hooks.observe, lv.analysis.analyze)))\n"
        "from lightning_viz.dream.maximize import Dream\n"
        "assert Dream is lv.dream.Dream and callable(lv.dream.maximize)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_public_name_has_one_home():
    homes = collections.defaultdict(list)
    for path in sorted(Path(lightning_viz.__file__).parent.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            names = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            for name in names:
                if not name.startswith("_"):
                    homes[name].append(path.stem if path.stem != "__init__" else path.parent.name)
    twice = {name: places for name, places in homes.items() if len(places) > 1}
    assert not twice


def test_every_module_can_be_imported():
    for module in pkgutil.walk_packages(lightning_viz.__path__, "lightning_viz."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
