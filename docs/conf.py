"""The documentation's settings for Sphinx: ``make docs`` builds it, without network, warnings being errors."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tools")]

import api_pages  # noqa: E402
import documentation  # noqa: E402

import lightning_viz  # noqa: E402

warnings.filterwarnings("ignore", message=r"The number of training batches|.*isinstance\(treespec, LeafSpec\)")

project = "lightning_viz"
author = "the lightning_viz authors"
copyright = author
version = release = lightning_viz.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
templates_path: list[str] = []
default_role = "py:obj"

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
toc_object_entries = False
suppress_warnings = ["ref.python"]  # an attribute in a docstring's list that several classes have

sphinx_gallery_conf = {
    "examples_dirs": "../examples/notebooks",
    "gallery_dirs": "notebooks",
    "filename_pattern": r"\.py$",  # all of them are run
    "abort_on_example_error": True,
    "capture_repr": ("_repr_html_", "__repr__"),
    "image_scrapers": (),
    "reset_modules": (),
    "within_subsection_order": "FileNameSortKey",
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1e9,  # how long a cell took on this machine is of no use to others
    "write_computation_times": False,
}

html_theme = "furo"
html_title = "lightning_viz"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True


def _complete(app: Any, name: str, source: list[str]) -> None:
    """Replace the marks of what is generated."""
    source[0] = documentation.completed(source[0])


def _outdated(app: Any, environment: Any, *_: Any) -> list[str]:
    """Pages that hold something generated, which may be another now though the file is the same."""
    return [
        name
        for name in environment.found_docs
        if documentation.MARK.search(Path(environment.doc2path(name)).read_text())
    ]


def _link(app: Any, environment: Any, node: Any, content: Any) -> Any:
    """Where a name that a docstring mentions is documented, if only one public object has it."""
    from sphinx.util.nodes import make_refnode

    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].rpartition(".")[2]
    paths = [path for path in api_pages.public_names() if path.rpartition(".")[2] == name]
    if len(paths) != 1 or environment.domains["py"].objects.get(paths[0]) is None:
        return None
    found = environment.domains["py"].objects[paths[0]]
    return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, content, paths[0])


def setup(app: Any) -> dict[str, bool]:
    """Write the pages of the API, which Sphinx then reads like any others."""
    pages = {HERE / "api" / f"{name}.rst": text for name, text in api_pages.pages().items()}
    for path in set((HERE / "api").glob("*.rst")) - set(pages):
        path.unlink()  # of a name that there is no more
    for path, text in pages.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    app.connect("env-get-outdated", _outdated)
    app.connect("source-read", _complete)
    app.connect("missing-reference", _link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
