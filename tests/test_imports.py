"""Who imports whom: no circle, imports for type checkers alone counted."""

import re
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
