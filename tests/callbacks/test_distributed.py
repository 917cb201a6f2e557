"""Several processes watch their shares of the validation data, and together they see what one sees alone."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from lightning_viz.callbacks.distributed import numbering

from . import judged_run, watched_run
from .conftest import images

ROOT = Path(__file__).parents[2]


def drawn(folder):
    """What the first process drew at the last step, by tag."""
    sketches = pickle.loads((folder / "sketches").read_bytes())
    assert len({step for step, _ in sketches}) == (2 if sketches else 0)
    return {arguments["tag"]: arguments for _, arguments in sketches}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    assert watched_run.run(folder, 1).global_step == 12
    return drawn(folder)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """What two processes drew and what they said, by scenario."""
    folder = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.callbacks.watched_run", str(folder), "2", *watched_run.SCENARIOS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    written = {name: folder / str(place) for place, name in enumerate(watched_run.SCENARIOS)}
    said = {name: (place / "stderr").read_text() for name, place in written.items() if place.exists()}
    assert done.returncode == 0, f"{done.stderr} {said}"[-3000:]
    for place in written.values():
        for rank in range(2):
            assert f"rank {rank} ends after 6" in (place / "stdout").read_text()
    return {name: (drawn(place), said[name]) for name, place in written.items()}


@pytest.mark.slow
def test_two_processes_together_draw_what_one_draws_alone(alone, of_two):
    together, said = of_two["nothing fails"]
    assert together.keys() == alone.keys() == {"top_samples/conv1", "top_samples/conv2", "statistics/conv2"}
    for tag in ("top_samples/conv1", "top_samples/conv2"):
        one, other = alone[tag], together[tag]
        assert one["population"] == other["population"] == "41 validation samples"  # 42 passed, one of them twice
        assert any(one["crops"])
        for row, same in zip(one["crops"], other["crops"], strict=True):
            assert len(row) == len(same) and len(row) in (0, 9)  # none of a channel that is never above 0
            for crop, twin in zip(row, same, strict=True):
                assert (crop.value, crop.name, crop.top, crop.left) == (twin.value, twin.name, twin.top, twin.left)
                np.testing.assert_array_equal(crop.image, twin.image)
                np.testing.assert_array_equal(crop.evidence, twin.evidence)
    one, other = alone["statistics/conv2"], together["statistics/conv2"]
    np.testing.assert_array_equal(one["counts"], other["counts"])
    assert one["numbers"] == other["numbers"]
    assert "failed" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "words", "lost"),
    [
        (
            "a view fails on the second",
            "RuntimeError: planted on the second",
            {"top_samples/conv1", "top_samples/conv2"},
        ),
        ("the second has nothing to give", "nothing came of it", None),
        ("the second cannot pickle its share", "nothing came of it", None),
    ],
)
def test_a_process_that_fails_is_told_of_and_holds_up_no_one(alone, of_two, scenario, words, lost):
    together, said = of_two[scenario]
    assert f"the validation pass could not be watched on process 1: {words}" in said
    assert together.keys() == alone.keys()
    for tag, arguments in together.items():
        missing = lost is None or tag in lost
        assert arguments["population"] == f"{21 if missing else 41} validation samples"
        note = "process 1 could not watch its share" in arguments["notes"]
        assert note == missing
    counts = {len(row) for tag in ("top_samples/conv1", "top_samples/conv2") for row in together[tag]["crops"]}
    assert counts in ({9}, {0, 9})  # none of a channel that is never above 0


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Where a run of two processes with `Health` and `Mistakes`, and one without, left what came of them."""
    folder = tmp_path_factory.mktemp("judged")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.callbacks.judged_run", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_two_processes_count_each_validation_sample_once(judged):
    sketches = pickle.loads((judged / "with" / "drawn").read_bytes())
    last = max(step for step, _ in sketches)
    drawn = {arguments["tag"]: arguments for step, arguments in sketches if step == last}
    model, (x, y) = judged_run.Judged(), images(judged_run.VALIDATION)
    kept = torch.load(judged / "with" / "0.pt")
    model.load_state_dict({name: kept[name] for name in model.state_dict()})
    outputs, model = {}, model.eval()
    for name, module in model.named_children():
        module.register_forward_hook(lambda module, _, output, name=name: outputs.update({name: output}))
    with torch.no_grad():
        logits = model(x)
    counts = np.zeros((3, 3), dtype=int)
    np.add.at(counts, (y.numpy(), logits.argmax(1).numpy()), 1)
    np.testing.assert_array_equal(drawn["mistakes/confusion"]["counts"], counts)
    worst = torch.nn.functional.cross_entropy(logits, y, reduction="none").argsort(descending=True)[:8]
    np.testing.assert_array_equal(drawn["mistakes/worst"]["images"][..., 0], (x[worst, 0] * 255).round().byte().numpy())
    health = drawn["health"]
    assert "41 validation samples" in health["details"] and health["layers"] == ["conv", "fc", "head"]
    for name, scale in zip(health["layers"], health["scale"][-1], strict=True):
        assert scale == pytest.approx(float(outputs[name].square().mean().sqrt()), rel=1e-5)
    dead = [(outputs["norm"].amax((0, 2, 3)) <= 0), (outputs["fc"].amax(0) <= 0)]
    np.testing.assert_allclose(health["dead"][-1][:2], [float(units.float().mean()) for units in dead])


@pytest.mark.slow
def test_two_processes_train_as_they_do_without_views(judged):
    for rank in range(2):
        watched, plain = (torch.load(judged / name / f"{rank}.pt") for name in ("with", "without"))
        assert all(torch.equal(watched[name], plain[name]) for name in plain)


class Process:
    """What `numbering` asks of a trainer."""

    def __init__(self, rank, world_size=2):
        self.global_rank, self.world_size, self.is_global_zero = rank, world_size, rank == 0


def numbers(rank, loader, count, world_size=2):
    """The numbers of the samples that a process with so many counts."""
    found = numbering(Process(rank, world_size), loader)
    every = found.first + found.stride * np.arange(count)
    return every[every < found.end].tolist()


def test_no_two_processes_give_one_number_to_two_samples():
    data = TensorDataset(torch.arange(7.0))
    shared = [DataLoader(data, sampler=DistributedSampler(data, 2, rank, shuffle=False)) for rank in (0, 1)]
    assert [numbers(rank, shared[rank], 4) for rank in (0, 1)] == [[0, 2, 4, 6], [1, 3, 5]]  # the eighth doubles one
    for rank in (0, 1):
        listed = [int(batch[0]) for batch in shared[rank]]
        assert listed[: len(numbers(rank, shared[rank], 4))] == numbers(rank, shared[rank], 4)
    whole = DataLoader(data)  # each process goes through all of it
    assert [numbers(rank, whole, 7) for rank in (0, 1)] == [list(range(7)), []]
    shuffled = DataLoader(data, shuffle=True)  # nobody knows which
    assert [numbers(rank, shuffled, 2) for rank in (0, 1)] == [[0, 2], [1, 3]]
    assert numbers(0, shared[0], 3, world_size=1) == [0, 1, 2]
