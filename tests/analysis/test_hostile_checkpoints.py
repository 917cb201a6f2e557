"""A checkpoint of any other form than Lightning and this package give it ends in one sentence, with status 1."""

import shutil
import sys
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_viz.__main__ import main
from lightning_viz.analysis.models import in_order, network, read_checkpoint
from lightning_viz.analysis.recipes import recorded_views
from lightning_viz.errors import AnalysisError, MalformedFileError, ViewWarning
from lightning_viz.plain_text import plain_text

from . import nets
from .hostile_checkpoints import FIELDS, FILES, FORMS, OPTIONAL, VIEW, content, placed

EXAMPLES = settings(
    derandomize=True, database=None, deadline=None, max_examples=25, suppress_health_check=list(HealthCheck)
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**64), st.floats(), st.text(max_size=8), st.complex_numbers()
)
TENSORS = st.sampled_from(
    [torch.zeros(3, 4), torch.tensor(1), torch.zeros(3, 4, dtype=torch.cfloat), torch.ones(3, 4, dtype=torch.bool),
     torch.full((3, 4), torch.nan), torch.zeros(0), torch.eye(3, 4).to_sparse(), torch.empty(3, 4, device="meta")]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS | TENSORS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def write(path, whole):
    before = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(100_000)  # a pickle may be nested as deep as its writer's stack
        torch.save(whole, path)
    finally:
        sys.setrecursionlimit(before)
    return path


def made(form):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of prototypes
        return FORMS[form]()


def assert_one_sentence(refusal, path):
    words = str(refusal.value)
    assert words == plain_text(words) and path.name in words and len(words) < 600


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_of_another_form_is_refused_when_it_is_read(form, tmp_path):
    path = write(tmp_path / "a.ckpt", made(form))
    for mapped in (False, True):
        with pytest.raises(MalformedFileError) as refusal:
            read_checkpoint(path, mapped=mapped)
        assert_one_sentence(refusal, path)


@pytest.mark.parametrize("form", FILES)
def test_a_file_that_is_no_checkpoint_is_refused_when_it_is_read(form, tmp_path):
    path = tmp_path / "a.ckpt"
    FILES[form](path)
    for mapped in (False, True):
        with pytest.raises(MalformedFileError) as refusal:
            read_checkpoint(path, mapped=mapped)
        assert_one_sentence(refusal, path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_names_code_is_refused_as_it_was_asked_for(zipped, tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save(content(hyper_parameters={"width": shutil.copy}), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(AnalysisError, match=r"names shutil\.copy, and loading that would run") as refusal:
        read_checkpoint(path)
    assert not isinstance(refusal.value, MalformedFileError)


def test_what_lightning_saves_is_read(tmp_path):
    checkpoint = read_checkpoint(write(tmp_path / "a.ckpt", content()))
    assert checkpoint.step == 6
    assert [view.name for view in recorded_views(checkpoint.content)] == ["FirstLayerFilters"]
    assert set(in_order([tmp_path / "a.ckpt"])) == {6}


def test_tied_weights_and_those_of_no_memory_are_read(tmp_path):
    shared = torch.zeros(100, 100)
    weights = {f"{index}.weight": shared[index:] for index in range(7)}
    tied = {"state_dict": {**weights, "positions": torch.arange(8).expand(1, -1), "none": torch.zeros(0, 3)}}
    assert len(read_checkpoint(write(tmp_path / "a.ckpt", tied)).state_dict) == 9


@pytest.mark.parametrize("field", FIELDS)
def test_no_value_in_any_field_gets_past_what_reads_it(field, tmp_path):
    """Whatever stands in a field, the checkpoint is refused in one sentence, or all that is read of it can be used."""
    path = tmp_path / "a.ckpt"

    @EXAMPLES
    @given(VALUES)
    def read(value):
        write(path, placed(FIELDS[field], value))
        try:
            checkpoint = read_checkpoint(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ViewWarning)
                views = recorded_views(checkpoint.content)
            assert checkpoint.step >= 0 and len(views) <= 1
            for model in (nets.Net, nets.Net()):
                network(model, checkpoint)
        except AnalysisError as error:
            assert str(error) == plain_text(error) and len(str(error)) < 600

    read()


@pytest.mark.parametrize("field", [name for name in FIELDS if name != "weight"])
def test_a_value_of_another_type_is_named_with_its_field(field, tmp_path):
    path = tmp_path / "a.ckpt"
    right = content()
    for name in FIELDS[field]:
        right = right[name]
    kinds = (dict, *([type(None)] if field in OPTIONAL else []), *([list] if field == "indices" else []))
    kinds = kinds if isinstance(right, dict) else (type(right), *kinds[1:])

    @EXAMPLES
    @given(VALUES.filter(lambda value: isinstance(value, bool) or not isinstance(value, kinds)))
    def read(value):
        write(path, placed(FIELDS[field], value))
        with pytest.raises(MalformedFileError) as refusal:
            read_checkpoint(path)
        assert_one_sentence(refusal, path)
        assert FIELDS[field][-1][:16] in str(refusal.value)

    read()


@pytest.mark.parametrize(
    "form", ["global_step is NaN", "weights are words", "views are a word", "recipe is a list", "weight is sparse"]
)
@pytest.mark.parametrize("command", ["analyze", "filters"])
def test_a_command_ends_with_one_sentence_and_status_1(command, form, tmp_path, capsys):
    write(tmp_path / "a.ckpt", made(form))
    typed = ["--model", f"{nets.__name__}.Net", "--data", f"{nets.__name__}.Squares", "--accelerator", "cpu"]
    assert main([command, str(tmp_path), *typed, "--out", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("lightning-viz: ") and "a.ckpt is no checkpoint" in lines[0]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"state_dict": {**nets.Net().state_dict(), "fc.weight": torch.zeros(3, 4, dtype=torch.cfloat)}},
            "1 of another",
        ),
        ({"state_dict": {**nets.Net().state_dict(), "fc.bias": torch.zeros(3, dtype=torch.int8)}}, "1 of another kind"),
        ({"hyper_parameters": {"width": 10**15}}, "Net cannot be made: "),
        ({"hyper_parameters": {"width": "wide"}}, "Net cannot be made: "),
        ({"hyper_parameters": {"width": -4}}, "Net cannot be made: "),
        ({"state_dict": {**nets.Net().state_dict(), "a\nb": torch.zeros(3)}}, r"1 unexpected \(a\\nb\)"),
    ],
)
def test_a_model_that_a_checkpoint_does_not_fit_is_refused_in_one_sentence(more, words, tmp_path):
    checkpoint = read_checkpoint(write(tmp_path / "a.ckpt", content(**more)))
    with pytest.raises(AnalysisError, match=words) as refusal:
        network(nets.Net, checkpoint)
    assert str(refusal.value) == plain_text(refusal.value)


class Asks(nets.Net):
    """Asks a checkpoint for what it does not hold."""

    def on_load_checkpoint(self, checkpoint):
        self.kept = checkpoint["kept"]


def test_what_a_modules_own_code_says_of_a_checkpoint_is_reported(tmp_path):
    checkpoint = read_checkpoint(write(tmp_path / "a.ckpt", content()))
    with pytest.raises(
        AnalysisError, match=r"Asks\.on_load_checkpoint fails with this checkpoint \(KeyError: 'kept'\)"
    ):
        network(Asks, checkpoint)


def test_a_recipe_of_another_version_is_left_out_and_reported(tmp_path):
    recipe = {"view": "GradCAM", "arguments": {"probe": {"samples": float("inf")}, "layers": {}, "of tomorrow": 1}}
    checkpoint = read_checkpoint(write(tmp_path / "a.ckpt", placed(("lightning_viz", VIEW, "recipe"), recipe)))
    with pytest.warns(ViewWarning, match="is not drawn as it was"):
        assert recorded_views(checkpoint.content) == []
