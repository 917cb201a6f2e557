"""While the first process looks, the others wait for it on the store; for one that is gone they do not wait."""

import os
import re
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed

from lightning_viz.callbacks import heartbeat
from lightning_viz.callbacks.heartbeat import Heartbeat

from .conftest import Watch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.02)
    return torch.distributed.HashStore()


@pytest.fixture
def two(store):
    """The first process's heartbeat, and the second's."""
    views = [Watch(every_n_train_steps=5)]
    both = [Heartbeat(store, first=first, views=views, timeout=600.0) for first in (True, False)]
    yield both
    for one in both:
        one.close()


def in_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def pass_turn(one, done, word="second"):
    with one.turn():
        done.append(word)


def test_the_second_waits_until_the_first_has_looked(two):
    first, second = two
    done = []
    with first.turn():
        thread = in_thread(lambda: pass_turn(second, done))
        thread.join(0.5)
        done.append("first")
    thread.join(60)
    assert done == ["first", "second"]


def test_the_second_waits_for_the_first_to_come(two):
    first, second = two
    done = []
    thread = in_thread(lambda: pass_turn(second, done))
    thread.join(0.3)
    pass_turn(first, done, "first")
    thread.join(60)
    assert done == ["first", "second"]


def test_an_exception_in_a_look_lets_the_second_go_on(two):
    first, second = two
    done = []
    thread = in_thread(lambda: pass_turn(second, done))
    with pytest.raises(KeyboardInterrupt), first.turn():
        raise KeyboardInterrupt
    thread.join(60)
    assert done == ["second"]


def test_a_first_process_that_leaves_is_not_waited_for(two):
    first, second = two
    done = []
    thread = in_thread(lambda: pass_turn(second, done))
    thread.join(0.2)
    assert not done
    first.close()
    thread.join(60)
    pass_turn(second, done)
    assert done == ["second", "second"]


@pytest.mark.parametrize("what", ["no beat", "never comes", "looks for ever", "no store"])
def test_what_is_not_to_be_waited_for(store, monkeypatch, what):
    monkeypatch.setattr(heartbeat, "STALE_SECONDS", 0.3 if what == "no beat" else 600.0)
    timeout = {"never comes": 1.2, "looks for ever": 0.05}.get(what, 600.0)
    second = Heartbeat(store, first=False, timeout=timeout)
    first = Heartbeat(store, timeout=timeout) if what in ("never comes", "looks for ever") else None
    if what == "looks for ever":
        store.add("begun", 1)
    if what == "no store":
        second._store = type("Gone", (), {"add": lambda *_: 1 / 0})()
    done, started = [], time.monotonic()
    thread = in_thread(lambda: pass_turn(second, done))
    thread.join(60)
    assert done == ["second"]
    assert what == "no store" or time.monotonic() - started > 0.25
    if first is not None:
        first.close()


class Counting(torch.distributed.HashStore):
    """Counts what is asked of it."""

    asked = 0

    def add(self, name, amount):
        self.asked += 1
        return super().add(name, amount)


def test_nothing_is_asked_where_no_schedule_has_an_occasion(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 600.0)
    store, view = Counting(), Watch(every_n_train_steps=5)
    first = Heartbeat(store, views=[view], timeout=600.0)
    turns = []
    for step in range(20):
        before = store.asked
        with first.turn(lambda view: view.schedule.at_step(step)):
            pass
        turns += [step] * (store.asked > before)
        if step == 12:
            first.validated()
    assert turns == [0, 1, 2, 5, 10, 13, 15]  # a first look may wait for a step; a pass that ended may be drawn
    first.close()


def test_the_first_knows_that_another_has_left(two):
    first, second = two
    assert not first.alone
    second.close()
    assert first.alone
    assert not Heartbeat().alone


def test_without_other_processes_it_does_nothing():
    done = []
    pass_turn(Heartbeat(), done)
    assert done == ["second"]
    assert Heartbeat().longest_look == float("inf")


def run(folder, *arguments, seconds=240):
    """What a run of two processes says, and its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.callbacks.two_processes", str(folder), "views", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=seconds)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_look_that_outlasts_the_time_out_does_not_end_the_run(tmp_path):
    code, said = run(tmp_path, 18, -1, 15)
    assert code == 0, said[-3000:]
    ends = dict(re.findall(r"rank (\d) ends after 6: (\S+)", said))
    assert ends.keys() == {"0", "1"}
    assert ends["0"] == ends["1"]
    assert said.count("Slow is logged less often") == 1
    assert "3 looks were left out of Slow, at steps 2, 4, 6, as its look took more than 3.75 s" in said


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_an_exception_on_either_process_ends_the_run(tmp_path, rank):
    code, said = run(tmp_path, 0, rank, timedelta(hours=1).total_seconds())
    assert code != 0
    assert f"rank {rank} is over" in said
