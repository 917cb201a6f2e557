"""Several processes share a model and look at it together: training stays as it is, and none waits for another."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_viz.analysis.models import find_checkpoints, read_checkpoint

ROOT = Path(__file__).parents[2]

RUNS = [
    "2:ddp,ddp views,static views,data,data views,tensor,tensor views,data weights,ddp weights,data one raises,"
    "ddp passes,data passes,tensor passes,"
    "data one raises in a pass,data one raises in backward,data budget of the first,data budget of the second,"
    "data drawing hangs,data states,data numbers,tensor numbers,data memory,data one sleeps",
    "4:both,both views",
    "2:data one dies",
    "2:data one fails in training",
    "2:data fails in training",
]
"""Processes are forked anew where the ones before have ended."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.callbacks.sharded_run", str(folder), *RUNS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def ends(runs, name):
    """How each process ended."""
    return {int(path.stem[-1]): json.loads(path.read_text()) for path in sorted((runs / name).glob("process *.json"))}


def lines(runs, name):
    """What the views said."""
    said = (runs / name / "stderr").read_text().splitlines()
    return [line.partition("lightning_viz: ")[2] for line in said if "lightning_viz: " in line]


def tasks(runs, name, steps=None):
    """What was to be drawn, by tag and step."""
    found = pickle.loads((runs / name / "sketches").read_bytes())
    return {(task.arguments["tag"], step): task for step, task in found if "tag" in task.arguments}


def weights(runs, name):
    return torch.load(runs / name / "weights.pt")


def same(one, other):
    """Whether two values are the same to the bit, however they are nested."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
    if isinstance(one, dict):
        return isinstance(other, dict) and [*one] == [*other] and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one) and not isinstance(one, type):
        return all(same(getattr(one, part.name), getattr(other, part.name)) for part in fields(one))
    return type(one) is type(other) and (one == other or (one != one and other != other))


def ended_well(runs, name, processes=2):
    found = ends(runs, name)
    assert [found[rank]["error"] for rank in range(processes)] == [""] * processes, (runs / name / "stderr").read_text()
    said = (runs / name / "stdout").read_text()
    assert all(f"rank {rank} ends after 6, 2" in said for rank in range(processes))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, plain",
    [
        ("ddp views", "ddp"),
        ("static views", "ddp"),
        ("data views", "data"),
        ("tensor views", "tensor"),
        ("both views", "both"),
        ("data weights", "data"),
        ("data passes", "data"),
        ("tensor passes", "tensor"),
        ("data one raises", "data"),
        ("data one raises in a pass", "data"),
        ("data one raises in backward", "data"),
        ("data budget of the first", "data"),
        ("data budget of the second", "data"),
        ("data drawing hangs", "data"),
        ("data one sleeps", "data"),
    ],
)
def test_training_does_not_notice_whoever_looks_or_fails(runs, name, plain):
    found = ended_well(runs, name, 4 if plain == "both" else 2)
    assert max(end["seconds"] for end in found.values()) < 120.0
    before, after = weights(runs, plain), weights(runs, name)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.slow
@pytest.mark.parametrize("views", ["views", "weights", "passes"])
def test_what_is_drawn_of_a_sharded_model_is_that_of_a_whole_one(runs, views):
    whole, sharded = tasks(runs, f"ddp {views}"), tasks(runs, f"data {views}")
    assert all(torch.equal(*pair) for pair in zip(weights(runs, "ddp").values(), weights(runs, "data").values()))
    assert whole.keys() == sharded.keys()
    for kind in _DRAWN[views]:
        assert any(kind in tag for tag, _ in whole)
    for key, task in whole.items():
        one, other = dict(task.arguments), dict(sharded[key].arguments)
        if key[0] == "occlusion":  # a sharded model runs whole passes, a whole one windows of them
            np.testing.assert_allclose(one.pop("drop"), other.pop("drop"), rtol=0, atol=1e-7)
        assert same(one, other), key
        assert task.function is sharded[key].function


@pytest.mark.slow
def test_pictures_of_a_sharded_model_are_those_of_a_whole_one_to_the_byte(runs):
    whole, sharded = tasks(runs, "ddp views"), tasks(runs, "data views")
    chosen = [key for key in whole if key[1] == 6 and any(part in key[0] for part in _DRAWN["views"])]
    assert len(chosen) >= len(_DRAWN["views"])
    for key in chosen:
        (one,), (other,) = whole[key].draw().pictures, sharded[key].draw().pictures
        assert one == other


_DRAWN = {
    "views": ("filters", "activations", "grad_cam", "saliency"),
    "weights": ("health", "update"),
    "passes": (
        "smooth_grad",
        "integrated_gradients",
        "score_cam",
        "occlusion",
        "dreams/last",
        "dreams/logits",
        "deepfool",
    ),
}


@pytest.mark.slow
def test_a_tensor_parallel_run_draws_the_same_pages(runs):
    whole, split = tasks(runs, "ddp views"), tasks(runs, "tensor views")
    assert {tag for tag, _ in whole} == {tag for tag, _ in split}
    assert {tag for tag, _ in whole} == {tag for tag, _ in tasks(runs, "both views")}


@pytest.mark.slow
@pytest.mark.parametrize("kind, tolerance", [("data", 0.0), ("tensor", 1e-5)])
def test_an_observation_of_a_shared_model_is_that_of_a_whole_one(runs, kind, tolerance):
    found = torch.load(runs / f"{kind} numbers" / "numbers.pt", weights_only=False)
    shared, whole = found["shared"], found["whole"]
    assert shared.keys() == whole.keys()
    for name in whole:
        torch.testing.assert_close(shared[name], whole[name], rtol=tolerance, atol=tolerance * float(whole[name].max()))
    assert all(torch.equal(one, other) for one, other in found["weights"].values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "both"])
def test_the_shards_that_processes_saved_are_read_as_one_checkpoint(runs, name):
    (path,) = find_checkpoints([runs / name / "shards.ckpt"])
    assert path in find_checkpoints([runs / name])
    found, expected = read_checkpoint(path), weights(runs, name)
    assert found.step == 6
    assert found.state_dict.keys() == expected.keys()
    assert all(torch.equal(weight, expected[key]) for key, weight in found.state_dict.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["looks", "fails forward", "fails backward"])
def test_fsdp_goes_on_where_it_was_also_with_gradients_that_wait_for_another_batch(runs, name):
    found = torch.load(runs / "data states" / "states.pt", weights_only=False)
    assert found[f"{name}, records"]
    assert len(found[name]) == len(found["nobody"])
    assert all(torch.equal(one, other) for one, other in zip(found["nobody"], found[name], strict=True))


@pytest.mark.slow
def test_a_view_that_fails_on_one_process_is_told_of_once_and_switched_off(runs):
    for name, words in (
        ("data one raises", "ProcessError: on process 1 of 2: RuntimeError: planted"),
        ("data one raises in backward", "ProcessError: on process 1 of 2: RuntimeError: planted"),
        ("data one raises in a pass", "ProcessError: the processes of the run do not look in the same order"),
    ):
        view = {"data one raises": "OnTheSecond", "data one raises in a pass": "InAPass"}.get(name, "InBackward")
        assert lines(runs, name) == [
            f"{view} failed at step 0: {words} (training continues)",
            f"{view} failed at step 2: {words} (the view is switched off after 3 faults in a row)",
        ]
        assert [step for tag, step in tasks(runs, name) if tag == "watch/page"] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_the_first_processs_budget_holds_for_all(runs):
    assert [step for _, step in tasks(runs, "data budget of the first")] == [0, 6]
    assert [step for _, step in tasks(runs, "data budget of the second")] == [0, 1, 2, 3, 4, 5, 6]
    assert lines(runs, "data budget of the second") == []


@pytest.mark.slow
def test_a_process_that_does_not_come_to_a_look_ends_looking_and_not_the_run(runs):
    (line,) = lines(runs, "data one sleeps")
    assert line.startswith("nothing more is drawn: another process has left the run, or did not come to a look in time")
    assert max(end["seconds"] for end in ends(runs, "data one sleeps").values()) < 60.0


@pytest.mark.slow
def test_what_hangs_in_drawing_is_waited_for_as_long_as_was_said(runs):
    said = lines(runs, "data drawing hangs")
    assert any("for at most 1 s" in line for line in said)
    assert any("drawings were not finished" in line for line in said)
    assert max(end["seconds"] for end in ends(runs, "data drawing hangs").values()) < 60.0


@pytest.mark.slow
def test_a_run_with_a_process_that_fails_or_dies_ends_as_without_views(runs):
    plain = ends(runs, "data fails in training")
    for name in ("data one fails in training", "data one dies"):
        found = ends(runs, name)
        assert found.keys() == ({0} if name == "data one dies" else {0, 1})
        assert found[0]["seconds"] < plain[0]["seconds"] + 60.0
        assert found[0]["error"].partition(":")[0] == plain[0]["error"].partition(":")[0]
    assert (
        ends(runs, "data one fails in training")[1]["error"] == plain[1]["error"] == "RuntimeError: planted in training"
    )


@pytest.mark.slow
def test_a_look_takes_the_memory_of_one_layer_that_is_gathered_and_of_the_activations(runs):
    for rank in range(2):
        found = json.loads((runs / "data memory" / f"memory {rank}.json").read_text())
        held = found["layer"]  # by a thread of gloo's, for a moment longer
        assert found["gathering"] < 1.1 * found["layer"] + held
        activations = 24 * 22 * 512 * 4  # 8 layers and their gradients, and what 6 ReLUs keep
        most = 2 * found["layer"] + activations  # FSDP2 gathers into a buffer, and copies from it
        assert found["observe"] <= most
        assert len(found["looks"]) == 2
        assert max(found["looks"]) <= most + 2 * held
        assert max(found["looks"]) < found["backward"]  # of a training step
