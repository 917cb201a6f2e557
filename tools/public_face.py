"""Write every package's ``__init__.pyi`` from its modules' ``__all__``: ``make stubs``.

The stub is what type checkers and editors read, and what the package reads at run time to load a name when it is first
used; a test checks that the stubs are what this command writes.
"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lightning_viz"
TOP_LEVEL = {  # besides the views and their probe: what a first script needs
    "errors": ["LayerNotFoundError", "LightningVizError", "LightningVizWarning", "ViewError", "ViewWarning"],
    "hooks.observation": ["Observation"],
    "hooks.observe": ["observe"],
    "hooks.target_types": ["Target"],
    "hooks.targets": ["channel", "classes", "logit", "maximum", "parse_target", "region", "top", "unit"],
    "pixels": ["PixelSpace"],
}
FOR_CUSTOM_VIEWS = ("draw_task", "snapshot")
"""Modules of ``callbacks`` whose names are left to that package."""


def public_names(module: Path) -> list[str]:
    """The names in a module's ``__all__``: constants, classes, functions; none if it has no such list.

    Args:
        module: path of the file.
    """
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            return sorted(
                ast.literal_eval(node.value), key=lambda name: (not name.isupper(), name[0].islower(), name.lower())
            )
    return []


def package_stub(folder: Path) -> str:
    """The text of a package's stub: its public subpackages, then the public names of its modules.

    A folder without a stub of its own is part of the package above it.

    Args:
        folder: of the package.
    """
    packages = [path.parent.name for path in folder.glob("*/__init__.pyi")]
    lines = [f"from . import {name} as {name}" for name in sorted(packages)]
    for module in sorted(folder.rglob("*.py")):
        if all(
            above == folder or not (above / "__init__.pyi").exists()
            for above in module.parents[: _depth(module, folder)]
        ):
            home = ".".join(module.relative_to(folder).with_suffix("").parts)
            lines += [f"from .{home} import {name} as {name}" for name in public_names(module)]
    return "\n".join(lines) + "\n"


def _depth(module: Path, folder: Path) -> int:
    return len(module.relative_to(folder).parts)


def top_level_stub() -> str:
    """The text of the top-level stub: subpackages, public modules, views, and `TOP_LEVEL`."""
    packages = [path.parent.name for path in PACKAGE.glob("*/__init__.pyi")]
    modules = [path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("_")]
    lines = [f"from . import {name} as {name}" for name in sorted(packages + modules)]
    homes = dict(TOP_LEVEL)
    for module in (PACKAGE / "callbacks").glob("*.py"):
        if module.stem not in FOR_CUSTOM_VIEWS:
            homes[f"callbacks.{module.stem}"] = public_names(module)
    for home, names in sorted(homes.items()):
        lines += [f"from .{home} import {name} as {name}" for name in names]
    return "\n".join([*lines, "", "__version__: str"]) + "\n"


def stubs() -> dict[Path, str]:
    """Every package's stub, by its path."""
    folders = [path.parent for path in PACKAGE.rglob("__init__.pyi") if path.parent != PACKAGE]
    return {
        PACKAGE / "__init__.pyi": top_level_stub(),
        **{folder / "__init__.pyi": package_stub(folder) for folder in folders},
    }


if __name__ == "__main__":
    for path, text in stubs().items():
        path.write_text(text)
