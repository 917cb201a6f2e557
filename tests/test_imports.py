"""Who imports whom: no circle, imports for type checkers alone counted."""

import json
import re
import subprocess
import sys
from pathlib import Path

import grimp

import lightning_viz


def circles(imports):
    """Groups of modules that import one another, directly or by others (Tarjan's strongly connected components)."""
    order, lowest, stack, groups = {}, {}, [], []

    def visit(module):
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for imported in sorted(imports[module]):
            if imported not in order:
                visit(imported)
            if imported in stack:
                lowest[module] = min(lowest[module], lowest[imported])
        if lowest[module] == order[module]:
            place = stack.index(module)
            group, stack[place:] = stack[place:], []
            if len(group) > 1:
                groups.append(sorted(group))

    for module in sorted(imports):
        if module not in order:
            visit(module)
    return groups


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a"}}) == [["a", "b", "c"]]


def test_no_module_imports_itself_through_others():
    graph = grimp.build_graph("lightning_viz", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert "lightning_viz.callbacks.session" in imports["lightning_viz.callbacks.view"]
    assert circles(imports) == []


def test_the_session_knows_no_view_and_no_checkpoint():
    graph = grimp.build_graph("lightning_viz", cache_dir=None)
    imported = graph.find_upstream_modules("lightning_viz.callbacks.session")
    assert "lightning_viz.callbacks.run" in imported
    assert not [name for name in imported if name.startswith("lightning_viz.analysis") or name.endswith(".view")]


def test_what_is_private_of_lightnings_stands_in_one_file():
    private = re.compile(
        r"fit_loop|epoch_loop|_batches_that_stepped|_combined_loader|total_batch_idx|_should_accumulate"
    )
    package = Path(lightning_viz.__file__).parent
    holders = {
        path.relative_to(package).as_posix() for path in package.rglob("*.py") if private.search(path.read_text())
    }
    assert holders == {"callbacks/run.py"}


SLOW = {  # each takes a quarter of a second or more to import, some of them seconds, and only some work needs them
    *("lightning", "pytorch_lightning", "torchmetrics", "torchvision", "transformers", "torch._dynamo", "torch.onnx"),
    *("torch.utils.tensorboard", "scipy.signal", "scipy.stats", "sklearn", "matplotlib.pyplot", "pandas", "onnx"),
}
HELP = """
import contextlib, io, json, sys
from lightning_viz.cli.commands import FAMILIES, command_methods
from lightning_viz.cli.main import COMMANDS, run_command_line

def imported(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        run_command_line(arguments)
    assert "usage: lightning-viz" in shown.getvalue()
    return sorted(SLOW & {*sys.modules})

methods = [(family, method) for family in FAMILIES for method in command_methods(family)]
of_commands = {name: imported(name, "--help") for name in COMMANDS if (name, name) not in methods}
asks_for_torch = "torch" in sys.modules
of_methods = {" ".join(words): imported(*dict.fromkeys(words), "--help") for words in methods}
print(json.dumps([of_commands, asks_for_torch, of_methods, "torch" in sys.modules]))
"""


def test_help_waits_for_no_module_that_only_the_work_needs():
    """Of commands it waits not even for torch; of methods, whose options are those of functions, for torch alone."""
    code = f"SLOW = {SLOW}\n{HELP}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    of_commands, asks_for_torch, of_methods, at_last = json.loads(run.stdout)
    assert not asks_for_torch and at_last
    assert {name: slow for name, slow in {**of_commands, **of_methods}.items() if slow} == {}
    assert {"analyze", "attribute"} <= of_commands.keys() and {"dream classes", "attack pgd"} <= of_methods.keys()
