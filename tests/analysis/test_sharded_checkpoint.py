"""A folder of shards is read whole, and nothing in it is run."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader, save
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

from lightning_viz.analysis.models import find_checkpoints, read_checkpoint
from lightning_viz.errors import AnalysisError, MalformedFileError

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # a single process saves

WEIGHTS = {"a.weight": torch.arange(12.0).view(3, 4), "a.count": torch.tensor(7), "b": torch.zeros(0, 2).bfloat16()}


@pytest.fixture
def folder(tmp_path):
    """As Lightning saves it, of one process."""
    place = tmp_path / "run" / "step=3.ckpt"
    optimizer = {"state": {"a.weight": {"exp_avg": torch.ones(3, 4)}}, "param_groups": [{"lr": 0.1}]}
    save({"state_dict": WEIGHTS, "optimizer_0": optimizer}, checkpoint_id=place, no_dist=True)
    torch.save({"global_step": 3, "hyper_parameters": {"depth": 2}}, place / "meta.pt")
    return place


def test_weights_and_what_lies_beside_them_are_one_checkpoint(folder):
    assert find_checkpoints([folder.parent]) == find_checkpoints([folder]) == [folder]
    found = read_checkpoint(folder)
    assert found.step == 3
    assert found.hyper_parameters == {"depth": 2}
    assert found.state_dict.keys() == WEIGHTS.keys()
    for name, weight in WEIGHTS.items():
        assert torch.equal(found.state_dict[name], weight)
        assert found.state_dict[name].dtype == weight.dtype


def test_the_weights_of_another_program_are_read_without_what_lightning_puts_beside_them(tmp_path):
    save({"model": WEIGHTS, "extra": [1, 2]}, checkpoint_id=tmp_path / "other", no_dist=True)
    assert read_checkpoint(tmp_path / "other").state_dict.keys() == WEIGHTS.keys()


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.system, (f"touch {self.place}",)


class Named:
    """Names something when it is unpickled, and calls it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = {
    "a command": lambda place, whole: Runs(place),
    "a command within": lambda place, whole: Metadata({}, planner_data=Runs(place)),
    "a command as a key": lambda place, whole: {1: [Runs(place)]},
    "eval": lambda place, whole: Named(eval, f"open({str(place)!r}, 'w')"),
    "a way around": lambda place, whole: Named(getattr, Path, "touch"),
    "another class of torch's": lambda place, whole: torch.nn.Linear(1, 1),
    "a function of torch's": lambda place, whole: Named(torch.load, str(place)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_pickle_that_names_anything_else_is_refused_and_not_run(kind, folder, tmp_path):
    place = tmp_path / "has_run"
    (folder / ".metadata").write_bytes(pickle.dumps(HOSTILE[kind](place, None)))
    with pytest.raises(AnalysisError, match=r"step=3.ckpt is not loaded: it names .*, and loading that would run code"):
        read_checkpoint(folder)
    assert not place.exists()


def test_what_torch_itself_runs_when_it_loads_such_a_folder_would_be_run(folder, tmp_path):
    """The pickles of this test are what they seem."""
    (folder / ".metadata").write_bytes(pickle.dumps(Metadata({}, planner_data=Runs(tmp_path / "has_run"))))
    FileSystemReader(folder).read_metadata()
    assert (tmp_path / "has_run").exists()


def test_a_pickle_cannot_change_torchs_own_classes(folder):
    change = pickle.dumps(Metadata)[:-1] + b"N}\x8c\x07__str__K\x01s\x86b."  # a class, and a state with an attribute
    (folder / ".metadata").write_bytes(change)
    with pytest.raises(MalformedFileError):
        read_checkpoint(folder)
    assert Metadata.__str__ is object.__str__
    assert "__str__" not in vars(StorageMeta)


def changed(folder, change):
    with (folder / ".metadata").open("rb") as file:
        metadata = pickle.load(file)
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def elsewhere(metadata):
    for info in metadata.storage_data.values():
        info.relative_path = "../../secret"


def beyond(metadata):
    for info in metadata.storage_data.values():
        info.length += 10**9


def huge(metadata):
    metadata.state_dict_metadata["state_dict.a.weight"].size = torch.Size([10**7, 10**7])


def incomplete(metadata):
    metadata.state_dict_metadata["state_dict.a.weight"].chunks.clear()


def outside(metadata):
    metadata.state_dict_metadata["state_dict.a.weight"].chunks[0].offsets = torch.Size([1, 0])


def of_another_type(metadata):
    metadata.state_dict_metadata["state_dict.a.weight"].properties.dtype = torch.float64


BROKEN = {
    elsewhere: "is no file of the folder",
    beyond: "is missing, or cut short",
    huge: "its weights are larger than its files",
    incomplete: "0 of the 12 numbers",
    outside: "a part of state_dict.a.weight lies outside of it|KeyError",
    of_another_type: "a part of state_dict.a.weight",
}


@pytest.mark.parametrize("change", BROKEN)
def test_metadata_that_do_not_fit_the_files_are_refused(change, folder):
    (folder.parent / "secret").write_text("secret")
    changed(folder, change)
    with pytest.raises(MalformedFileError, match=BROKEN[change]):
        read_checkpoint(folder)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("file", [".metadata", "__0_0.distcp"])
def test_a_file_that_is_cut_short_is_refused(share, file, folder):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: int(share * len(content))])
    with pytest.raises(MalformedFileError, match="is not loaded"):
        read_checkpoint(folder)


def test_shards_whose_content_is_code_are_refused(folder, tmp_path):
    place = tmp_path / "has_run"
    changed(folder, lambda metadata: None)
    with (folder / ".metadata").open("rb") as file:
        infos = pickle.load(file).storage_data
    torch.save(Runs(place), tmp_path / "code")
    code = (tmp_path / "code").read_bytes()
    (folder / "__0_0.distcp").write_bytes(code)

    def lead_to_it(metadata):
        for index in infos:
            metadata.storage_data[index].offset, metadata.storage_data[index].length = 0, len(code)

    changed(folder, lead_to_it)
    with pytest.raises(MalformedFileError, match="is not loaded"):
        read_checkpoint(folder)
    assert not place.exists()
