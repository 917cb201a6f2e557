"""A drawing process that hangs is known by its own signs, and killed; the run goes on without it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from lightning_viz import ViewWarning
from lightning_viz.callbacks import task_watch
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.session import session
from lightning_viz.callbacks.task_watch import TaskWatch, process_activity

from . import drawings
from .conftest import ConvNet, Watch, fit, said
from .test_drawing import results, sketch


def ticks(monkeypatch, activity, count, usual=0.0):
    """The first that a watch says of a process, and after how many ticks."""
    monkeypatch.setattr(task_watch, "process_activity", lambda process: activity(tick))
    watch = TaskWatch(1, usual)
    for tick in range(count):
        if said := watch.tick():
            return tick + 1, said
    return None


@pytest.mark.parametrize(
    ("activity", "usual", "found"),
    [
        (lambda tick: ("T", 1.0), 0, (5, "was stopped for 5 s")),
        (lambda tick: ("t", 1.0), 0, (5, "was stopped for 5 s")),
        (lambda tick: ("T" if tick % 4 else "S", float(tick)), 0, (600, "was not done after 600 s")),
        (lambda tick: ("S", 1.0), 0, (31, "did nothing for 30 s")),  # at the first tick nothing is known
        (lambda tick: ("R", float(tick // 20)), 0, (600, "was not done after 600 s")),  # a task that never ends
        (lambda tick: ("D", 1.0), 0, (600, "was not done after 600 s")),
        (lambda tick: ("", None), 0, (600, "was not done after 600 s")),  # another system, which tells nothing
        (lambda tick: ("R", float(tick)), 100, None),  # such tasks take that long
    ],
)
def test_a_hang_is_known_by_its_signs(monkeypatch, activity, usual, found):
    assert ticks(monkeypatch, activity, 1999, usual) == found


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_the_system_tells_of_a_process():
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert process_activity(process.pid)[0] == "T"
    finally:
        process.kill()
        process.communicate()
    assert process_activity(process.pid) == ("", None)
    assert process_activity(os.getpid())[1] > 0


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(task_watch, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(task_watch, "STOPPED_SECONDS", 0.5)


@pytest.fixture
def artist():
    one = DrawingProcess()
    yield one
    one.close()


def stop(artist):
    os.kill(artist.process.pid, signal.SIGSTOP)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
@pytest.mark.parametrize("size", [1, 10**6])  # which fits into a pipe, and does not
def test_a_stopped_process_is_killed_and_another_draws_on(artist, quick, size):
    artist.submit("a", 0, sketch())
    assert results(artist, 1)[0].error == ""
    first = artist.process
    stop(artist)  # while it has nothing to do, which costs a task later
    for step in (1, 2):
        artist.submit("a", step, sketch(drawings.draw_large, step, values=bytes(size)))
    finished = results(artist, 2)
    assert [drawn.step for drawn in finished] == [1, 2]
    assert finished[0].error.startswith("the drawing process hung and was killed: it was stopped for")
    assert first.poll() is not None
    assert artist.process.pid != first.pid


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_a_process_that_waits_for_what_never_comes_is_killed(artist, monkeypatch):
    monkeypatch.setattr(task_watch, "TICK_SECONDS", 0.5)
    monkeypatch.setattr(task_watch, "IDLE_SECONDS", 4.0)
    artist.submit("a", 0, sketch(seconds=3600))
    assert artist.drain(120) == 0
    assert "the drawing process hung and was killed: it did nothing for 4 s" in results(artist, 1)[0].error


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
@pytest.mark.parametrize("low", [True, False])
def test_drawing_beside_a_training_alone_is_of_low_priority(artist, low):
    artist.low = low
    artist.submit("a", 0, sketch())
    results(artist, 1)
    assert (os.getpriority(os.PRIO_PROCESS, artist.process.pid) > os.getpriority(os.PRIO_PROCESS, 0)) == low


class Killing(ConvNet):
    """Kills the drawing process at every step, by a signal."""

    signal = signal.SIGKILL

    def training_step(self, batch, batch_idx):
        process = session(self.trainer).pictures.process.process
        if process is not None:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(process.pid, self.signal)
            time.sleep(0.1)
        return super().training_step(batch, batch_idx)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_stopped_over_and_over_does_not_hold_the_run(tmp_path, quick, number):
    model = Killing()
    model.signal = number
    started = time.monotonic()
    with pytest.warns(ViewWarning) as caught:
        trainer = fit(tmp_path, model, [Watch(every_n_train_steps=1)], max_epochs=4)
    assert trainer.global_step == 24
    assert time.monotonic() - started < 60  # the end would wait for so long
    assert 1 <= len(said(caught)) <= 3
    assert "the drawing process" in said(caught)[0]
