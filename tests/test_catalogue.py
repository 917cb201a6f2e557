"""Every method, technique and view is described once."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import lightning_viz
from lightning_viz import adversarial, attribution, catalogue, catalogue_types
from lightning_viz.callbacks.keyword_arguments import arguments_of
from lightning_viz.callbacks.view import PopulationView, View
from lightning_viz.catalogue import CATALOGUE, SECTIONS, entry_of, method, methods, view_kind, views
from lightning_viz.catalogue_types import Method, Technique, ViewEntry
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.render.tiles import DISPLAYS

NOT_METHODS = {"blurred", "class_activation_map", "cross_entropy", "dlr", "fgsm_terms", "margin", "mean_color"}
every_entry = pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: f"{type(entry).__name__}-{entry.name}")


@pytest.mark.parametrize("kind", [Method, Technique, ViewEntry])
def test_names_are_unique(kind):
    names = [entry.name for entry in CATALOGUE if type(entry) is kind]
    assert len(set(names)) == len(names)


def test_a_tag_is_of_one_entry():
    tags = [tag for entry in CATALOGUE for tag in entry.tags]
    assert len(set(tags)) == len(tags)
    for entry in CATALOGUE:
        for tag in entry.tags:
            assert entry_of(tag) is entry and entry_of(f"{tag}/conv1") is entry


@every_entry
def test_an_entry_names_what_exists_and_says_what_it_is(entry):
    assert entry.title and entry.section in SECTIONS
    assert not entry.caption or (entry.caption[0].isupper() and entry.caption.endswith("."))
    assert not entry.caption.startswith(entry.title)
    if entry.module:
        assert inspect.getdoc(entry.load())
    own = entry_of(entry.name)  # of a technique whose pages are a method's, the method
    assert own.caption and own.section == entry.section


@pytest.mark.parametrize("name", methods())
def test_a_method_is_drawn_in_a_way_that_there_is(name):
    found = method(name)
    assert not found.display or found.display in DISPLAYS
    assert not found.view or found.view in views()
    assert found.summary.startswith(f"{found.title}: ") and found.summary.endswith(
        f"({found.source})" * bool(found.source)
    )


@pytest.mark.parametrize(("package", "family"), [(attribution, "attribution"), (adversarial, "attack")])
def test_every_public_function_is_a_method(package, family):
    public = {name for name in package.__all__ if inspect.isfunction(getattr(package, name))}
    described = methods(family)
    assert public - NOT_METHODS == set(described)
    for name, row in described.items():
        assert row.load() is getattr(package, name)
        assert inspect.getdoc(row.load()).startswith(f"{row.title}: ")


def test_every_public_view_is_described():
    public = [getattr(lightning_viz, name) for name in lightning_viz.__all__]
    views_and_bases = {each for each in public if inspect.isclass(each) and issubclass(each, View)}
    classes = views_and_bases - {View, PopulationView}
    assert {entry.load() for entry in views().values()} == classes
    assert all(entry.load().kind == kind for kind, entry in views().items())


@pytest.mark.parametrize("kind", views())
def test_a_view_takes_what_the_analysis_gives_it(kind):
    names = set(arguments_of(views()[kind].load()))
    assert all(set(options) <= names for rung in views()[kind].rungs for options in rung)
    assert len({len(rung) for rung in views()[kind].rungs}) == 1


def test_words_of_the_attention_view_are_the_last_parts_of_the_rows_tags():
    words = [row.tags[0].rpartition("/")[2] for row in methods(view="attention").values()]
    assert list(get_args(catalogue_types.AttentionMethod)) == words


LITERALS = {
    "grad_cam": catalogue_types.CamMethod,
    "saliency": catalogue_types.SaliencyMethod,
    "adversarial": catalogue_types.AttackMethod,
}


@pytest.mark.parametrize(("view", "choices"), LITERALS.items())
def test_types_of_method_names_equal_the_rows(view, choices):
    assert set(get_args(choices)) == set(methods(view=view))


def test_those_averaged_over_noise_are_the_methods_toward_the_pixels_by_gradients():
    rows = methods(view="saliency").items()
    toward = {name for name, row in rows if "gradient" in row.needs and "maps" not in row.needs}
    assert set(get_args(catalogue_types.SmoothedMethod)) == toward - {"smooth_grad"}


def test_an_unknown_name_is_an_error_that_lists_the_known():
    with pytest.raises(InvalidArgumentError, match=r"no method 'grad_cma': did you mean grad_cam"):
        method("grad_cma")
    assert entry_of("mine/own").section == "others" and entry_of("mine/own").title == "mine"


def test_reading_the_catalogue_imports_no_torch():
    code = "import sys, lightning_viz.catalogue; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", ["layer_cam", "smooth_grad", "pgd"])
def test_without_its_row_a_method_is_missed_by_its_home_and_its_type_alone(name, monkeypatch):
    row = method(name)
    package = attribution if row.family == "attribution" else adversarial
    monkeypatch.setattr(catalogue, "CATALOGUE", tuple(entry for entry in CATALOGUE if entry is not row))
    catalogue._by_tag.cache_clear()
    try:
        for noticed in (
            lambda: test_every_public_function_is_a_method(package, row.family),
            lambda: test_types_of_method_names_equal_the_rows(row.view, LITERALS[row.view]),
        ):
            with pytest.raises(AssertionError):
                noticed()
        for tag in row.tags:
            assert entry_of(f"{tag}/conv") is not row
        with pytest.raises(InvalidArgumentError, match=f"method is {name!r}: give one of"):
            views()[row.view].load()(method=name)
        test_every_public_view_is_described()
        for kind in views():
            test_a_view_takes_what_the_analysis_gives_it(kind)
    finally:
        monkeypatch.undo()
        catalogue._by_tag.cache_clear()


OTHER_MEANINGS = {"attention", "gradient", "deconvolution", "occlusion", "grad_cam", "rise"}
"""Words that are also names of other things, or a default."""


@pytest.mark.parametrize("name", sorted(methods("attribution").keys() - OTHER_MEANINGS))
def test_no_other_list_names_a_method(name):
    """Beside its row and the types of words: its home, and the view that draws it."""
    row, package = method(name), Path(lightning_viz.__file__).parent
    modules = [row.module, *([views()[row.view].module] if row.view else [])]
    homes = {"catalogue.py", "catalogue_types.py", *(f"{module.replace('.', '/')}.py" for module in modules)}
    naming = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value == name
    }
    assert naming <= homes


def test_what_a_view_draws_and_what_it_fails_by_is_told_to_be_of_its_kind():
    assert [view_kind(kind) for kind in views()] == list(views())
    assert all(view_kind(tag) == entry.view for entry in methods().values() if entry.view for tag in entry.tags)
    assert all(view_kind(f"{tag}/layer") == kind for kind, entry in views().items() for tag in entry.tags)
