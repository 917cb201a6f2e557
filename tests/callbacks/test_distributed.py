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

SCRIPT = """
import pickle, sys
import torch
from tests.callbacks.conftest import ConvNet, images, loader, make_trainer
from lightning_viz import ActivationStatistics, TopSamples
from lightning_viz.callbacks import observer, top_samples, watching
from lightning_viz.callbacks.artist import Result

folder, processes, scenario = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sketches = []

class Keeps:
    process, waiting, cpu_seconds = None, 0, 0.0
    def submit(self, owner, step, sketch): sketches.append((step, dict(sketch.arguments)))
    def behind(self): return False
    def results(self): return []
    def drain(self, seconds): return 0
    def close(self): pass

observer.Artist = Keeps

class Still(ConvNet):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)  # the same weights, however many processes train them
    def on_train_end(self):
        print(f"rank {self.trainer.global_rank} ends after {self.trainer.global_step}", flush=True)

def second(view_or_watcher):
    trainer = getattr(view_or_watcher, "trainer", None) or view_or_watcher._trainer()
    return trainer.global_rank == 1

if scenario == "a view fails on the second":
    read = top_samples.TopSamples.read
    def fails(self, *args):
        if second(self):
            raise RuntimeError("planted on the second")
        return read(self, *args)
    top_samples.TopSamples.read = fails
elif scenario == "the second has nothing to give":
    share = watching.share_of
    watching.share_of = lambda *args: 1 / 0 if torch.distributed.get_rank() == 1 else share(*args)
elif scenario == "the second cannot pickle its share":
    share = watching.share_of
    watching.share_of = lambda *args: (lambda: 0) if torch.distributed.get_rank() == 1 else share(*args)

if __name__ == "__main__":
    torch.set_num_threads(1)
    views = [TopSamples(layers=["conv1", "conv2"], channels="first"), ActivationStatistics(layers="conv2")]
    trainer = make_trainer(
        folder, views, devices=processes, max_epochs=2, **({"strategy": "ddp"} if processes > 1 else {})
    )
    trainer.fit(Still(), loader(*images(24)), loader(*images(41), batch_size=8))
    if trainer.is_global_zero:
        with open(f"{folder}/sketches", "wb") as file:
            pickle.dump(sketches, file)
"""


def run(folder, processes, scenario=""):
    """What the first process drew at the last step, by tag, and what was said."""
    folder.mkdir()
    script = folder / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(folder), str(processes), scenario]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(processes):
        assert f"rank {rank} ends after {24 // 4 // processes * 2}" in done.stdout
    sketches = pickle.loads((folder / "sketches").read_bytes())
    assert len({step for step, _ in sketches}) == (2 if sketches else 0)
    return {arguments["tag"]: arguments for _, arguments in sketches}, done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("one") / "run", 1)[0]


@pytest.mark.slow
def test_two_processes_together_draw_what_one_draws_alone(alone, tmp_path):
    together, said = run(tmp_path / "run", 2)
    assert together.keys() == alone.keys() == {"top_samples/conv1", "top_samples/conv2", "statistics/conv2"}
    for tag in ("top_samples/conv1", "top_samples/conv2"):
        one, other = alone[tag], together[tag]
        assert one["population"] == other["population"] == "41 validation samples"  # 42 passed, one of them twice
        for row, same in zip(one["crops"], other["crops"], strict=True):
            assert len(row) == len(same) == 9
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
def test_a_process_that_fails_is_told_of_and_holds_up_no_one(alone, tmp_path, scenario, words, lost):
    together, said = run(tmp_path / "run", 2, scenario)
    assert f"the validation pass could not be watched on process 1: {words}" in said
    assert together.keys() == alone.keys()
    for tag, arguments in together.items():
        missing = lost is None or tag in lost
        assert arguments["population"] == f"{21 if missing else 41} validation samples"
        note = "process 1 could not watch its share" in arguments["notes"]
        assert note == missing
    assert all(len(row) == 9 for tag in ("top_samples/conv1", "top_samples/conv2") for row in together[tag]["crops"])


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
