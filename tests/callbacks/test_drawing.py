"""Faults stay within a view, and drawing within its own process; what was observed is drawn."""

import os
import pickle
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch

from lightning_viz import Saliency, ViewWarning
from lightning_viz.callbacks import DrawResult, DrawTask, drawing
from lightning_viz.callbacks.artist import Artist
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.drawing_queue import DrawingQueue, FinishedDrawing
from lightning_viz.callbacks.session import session

from . import drawings
from .conftest import ConvNet, Watch, fit, images, loader, make_trainer, said
from .test_writers import events


def results(artist, count, seconds=60):
    """The next results, in the order of drawing."""
    found, deadline = [], time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        found += artist.results()
        time.sleep(0.01)
    return found


@pytest.fixture
def artist():
    one = DrawingProcess()
    yield one
    one.close()


def sketch(function=drawings.draw, step=0, **arguments):
    return DrawTask(function, {"tag": "page", "step": step, **arguments})


class Faulty(Watch):
    """A view that fails somewhere."""

    kind = "faulty"
    where = "draw"
    error = RuntimeError("broken")
    failing = None  # steps; all if None

    def fails(self, where, step):
        if where == self.where and (self.failing is None or step in self.failing):
            raise self.error

    def requirements(self, model):
        if model.trainer.sanity_checking or model.trainer.fit_loop.epoch_loop._batches_that_stepped >= 1:
            self.fails("requirements", model.trainer.fit_loop.epoch_loop._batches_that_stepped)
        return super().requirements(model)

    def compute(self, model, snapshot):
        self.fails("compute", snapshot.step)
        return {}

    def draw(self, snapshot):
        self.fails("draw", snapshot.step)
        yield from super().draw(snapshot)


class FaultyDrawing(Watch):
    """A view whose drawing fails in the drawing process."""

    kind = "faulty"
    function = staticmethod(drawings.draw_or_fail)

    def draw(self, snapshot):
        yield DrawTask(self.function, {"tag": "faulty/page", "step": snapshot.step})


# The process itself.


def test_results_come_in_order_and_remember_within_a_name(artist):
    for step in range(3):
        for name in ("one", "other"):
            drawing = DrawTask(
                drawings.count, {"tag": name, "step": step}, name=name, memory=10 if name == "one" else None
            )
            artist.submit(f"view of {name}", step, drawing)
    found = results(artist, 6)
    assert [(one.owner, one.step) for one in found] == [
        (f"view of {name}", step) for step in range(3) for name in ("one", "other")
    ]
    assert [one.drawn.memory for one in found] == [11, 1, 12, 2, 13, 3]
    assert artist.waiting == 0


@pytest.mark.parametrize("raised", [False, True])
def test_at_the_end_several_draw_in_order_and_remember_within_a_name(artist, monkeypatch, raised):
    monkeypatch.setattr(drawing, "_cores", lambda: 3)
    monkeypatch.setattr(Artist, "raise_priority", lambda one: setattr(one, "low", one.low and not raised))
    for step in range(8):
        artist.submit("a", step, sketch(step=step, seconds=0.05 * (step % 3)))
        task = DrawTask(drawings.count, {"tag": "page", "step": step}, name="count", memory=10)
        artist.submit("b", step, task)
    artist.hurry()
    artist.hurry()
    assert 3 <= len(artist._artists) <= 4
    finished = results(artist, 16)
    assert [(drawn.owner, drawn.step) for drawn in finished] == [(who, step) for step in range(8) for who in "ab"]
    assert [drawn.drawn.memory for drawn in finished if drawn.owner == "b"] == list(range(11, 19))
    assert len([other for other in artist._artists if not other.retired]) == 3


def test_no_process_is_started_for_what_is_soon_drawn(artist, monkeypatch):
    monkeypatch.setattr(drawing, "_cores", lambda: 3)
    for step in range(3):
        artist.submit("a", step, sketch(step=step, seconds=0.05))
    results(artist, 1)
    artist._queue.took("a", 0.0)  # so that two more take about 0.1 s
    artist.hurry(worth=60.0)
    assert len(artist._artists) == 1
    results(artist, 2)
    for step in range(3, 9):
        artist.submit("b", step, sketch(step=step, seconds=0.05))  # never drawn before: it may take long
    artist.hurry(worth=2.0)
    assert len([other for other in artist._artists if not other.retired]) == 3


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root may raise a priority again")
def test_what_draws_has_low_priority_beside_training_and_the_trainings_own_after_it(artist, monkeypatch):
    monkeypatch.setattr(drawing, "_cores", lambda: 1)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    artist.submit("a", 0, sketch(drawings.priority))
    (first,) = results(artist, 1)
    for step in range(1, 4):
        artist.submit("a", step, sketch(drawings.priority, step))
    artist.hurry()
    last = results(artist, 3)[-1]
    assert (first.drawn.scalars["priority"], last.drawn.scalars["priority"]) == (19, own)


def test_an_error_in_drawing_comes_back_and_the_process_goes_on(artist):
    artist.submit("a", 1, sketch(drawings.draw_or_fail))
    artist.submit("b", 1, sketch())
    first, second = results(artist, 2)
    assert (first.owner, first.drawn, first.error) == ("a", None, "RuntimeError: no pencil")
    assert second.drawn is not None


def test_what_drawing_prints_does_not_disturb(artist):
    artist.submit("a", 1, sketch(drawings.draw_and_print))
    artist.submit("a", 2, sketch())
    assert [one.error for one in results(artist, 2)] == ["", ""]


def test_a_result_that_cannot_be_handed_back_is_an_error(artist):
    artist.submit("a", 1, sketch(drawings.draw_unpicklable))
    artist.submit("a", 2, sketch())
    first, second = results(artist, 2)
    assert first.drawn is None
    assert "pickle" in first.error or "lambda" in first.error
    assert second.drawn is not None


def test_a_killed_process_is_started_again_without_what_killed_it(artist):
    for step in range(4):
        artist.submit("a", step, sketch(drawings.draw_and_die, step, deadly=(1,)))
    found = results(artist, 4)
    assert [one.step for one in found] == [0, 1, 2, 3]
    assert [one.drawn is None for one in found] == [False, True, False, False]
    assert "the drawing process died (exit code -9)" in found[1].error


def test_a_process_that_keeps_dying_is_given_up(artist):
    for step in range(8):
        artist.submit("a", step, sketch(drawings.draw_and_die, step))
    found = results(artist, 8)
    assert [one.step for one in found] == list(range(8))
    assert all(one.drawn is None for one in found)
    assert "died too often and is not started again" in found[-1].error
    artist.submit("a", 8, sketch())
    assert "died too often" in results(artist, 1)[0].error
    assert artist.process is None


@pytest.mark.parametrize("what", ["process", "thread", "memory", "pipe"])
def test_where_no_process_can_be_started_that_is_the_error_and_nothing_waits(artist, monkeypatch, what):
    errors = {
        "process": BlockingIOError(11, "Resource temporarily unavailable"),
        "memory": MemoryError(),
        "pipe": OSError(24, "Too many open files"),
    }

    def no_process(*args, **options):
        raise errors[what]

    def no_thread(thread):
        raise RuntimeError("can't start new thread")

    if what in errors:
        monkeypatch.setattr(subprocess, "Popen", no_process)
    else:
        monkeypatch.setattr(drawing.threading.Thread, "start", no_thread)
    for step in range(2):
        artist.submit("a", step, sketch(step=step))
    artist.hurry()
    assert artist.drain(60) == 0
    finished = results(artist, 2, seconds=1)
    assert len(finished) == 2 and {drawn.drawn for drawn in finished} == {None}
    words = str(errors.get(what, "can't start new thread")) or "MemoryError"
    assert all(f"the drawing process cannot be started: {words}" in drawn.error for drawn in finished)


def test_at_the_end_the_process_goes_on_where_no_other_can_be_started(artist, monkeypatch):
    def no_process(*args, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(Artist, "raise_priority", lambda one: None)
    for step in range(3):
        artist.submit("a", step, sketch(step=step, seconds=0.1))
    monkeypatch.setattr(subprocess, "Popen", no_process)
    artist.hurry()
    assert artist.drain(60) == 0
    assert [drawn.error for drawn in results(artist, 3, seconds=1)] == [""] * 3


def test_closing_leaves_no_process(artist):
    artist.submit("a", 1, sketch(seconds=60))
    process = artist.process
    assert process.poll() is None
    started = time.monotonic()
    artist.close()
    assert process.poll() is not None
    assert time.monotonic() - started < 10


def test_draining_waits_no_longer_than_it_may(artist):
    artist.submit("a", 1, sketch(seconds=60))
    started = time.monotonic()
    assert artist.drain(0.5) == 1
    assert time.monotonic() - started < 5


def test_what_waits_counts_as_behind_by_time_and_by_size(artist, monkeypatch):
    assert not artist.behind()
    monkeypatch.setattr("lightning_viz.callbacks.drawing.BEHIND_SECONDS", 0.7)
    artist.submit("a", 1, sketch(seconds=3))
    assert not artist.behind()
    artist.submit("a", 2, sketch())
    assert artist.behind()
    assert artist.drain(60) == 0
    assert not artist.behind()
    monkeypatch.setattr("lightning_viz.callbacks.drawing.BEHIND_SECONDS", 1e6)
    monkeypatch.setattr("lightning_viz.callbacks.drawing.BEHIND_BYTES", 100_000)
    artist.submit("a", 3, sketch(seconds=1))
    assert not artist.behind()
    artist.submit("a", 4, sketch(drawings.draw_large, values=torch.zeros(50_000).numpy()))
    assert artist.behind()


def test_the_drawing_process_imports_no_torch_and_no_lightning():
    code = (
        "import sys; import lightning_viz.callbacks.drawing, lightning_viz.callbacks.continuity\n"
        "import lightning_viz.render.weights, lightning_viz.render.attribution_maps, lightning_viz.render.hyperplanes\n"
        "print([name for name in ('torch', 'pytorch_lightning', 'lightning') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# Faults in a run.


@pytest.mark.parametrize("where", ["requirements", "compute", "draw"])
@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), torch.OutOfMemoryError("no memory left"), KeyError("lost"), AssertionError("so")]
)
def test_a_fault_is_one_warning_and_the_others_draw_on(where, error, tmp_path, drawn_at_once):
    view = Faulty(every_n_train_steps=1)
    view.where, view.error, view.failing = where, error, (2, 4)
    with pytest.warns(ViewWarning) as caught:
        trainer = fit(tmp_path, ConvNet(), [view, Watch(every_n_train_steps=1)])
    (line,) = said(caught)  # at step 4 it is the same
    assert line.startswith(f"lightning_viz: Faulty failed at step 2: {type(error).__name__}: {error}")
    assert "training continues" in line
    assert trainer.global_step == 6
    steps = drawn_at_once.tags()["watch/page"]
    assert sorted(steps) == sorted([0, 1, 2, 3, 4, 5, 6, 0, 1, 3, 5, 6])


def test_a_fault_that_is_no_exception_of_ours_to_catch_ends_the_run(tmp_path, drawn_at_once):
    """Ctrl-C during a look is for the user."""
    view = Faulty()
    view.error, view.failing = KeyboardInterrupt(), (0,)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, ConvNet(), [view])


def test_after_three_faults_in_a_row_a_view_is_switched_off(tmp_path, drawn_at_once):
    view = Faulty(every_n_train_steps=1)
    view.failing = (1, 2, 4, 5, 6, 7, 8)  # two, then one that works, then three
    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, ConvNet(), [view, Watch(every_n_train_steps=1)], max_epochs=2)
    endings = [one[one.rindex("(") :] for one in said(caught)]
    assert endings == ["(training continues)", "(the view is switched off after 3 faults in a row)"]
    assert [one.step for one in drawn_at_once if one.owner == view.name] == [0, 3]
    assert [one.step for one in drawn_at_once if one.owner != view.name] == list(range(13))


def test_a_model_that_cannot_be_run_is_one_warning_for_all_views(tmp_path, drawn_at_once):
    class Fussy(ConvNet):
        def forward(self, x):
            if not self.training:
                raise RuntimeError("in training only")
            return super().forward(x)

        def validation_step(self, batch, batch_idx):
            pass

    with pytest.warns(ViewWarning) as caught:
        trainer = fit(tmp_path, Fussy(), [Saliency(), Watch()])
    (line,) = said(caught)
    assert line.startswith("lightning_viz: Saliency and Watch failed at step 1: RuntimeError: in training only")
    assert trainer.global_step == 6


def test_warnings_turned_into_errors_do_not_end_the_run(tmp_path, drawn_at_once, caplog):
    view = Faulty(every_n_train_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ViewWarning)
        trainer = fit(tmp_path, ConvNet(), [view, Watch()])
    assert trainer.global_step == 6
    lines = [record.getMessage() for record in caplog.records if record.name == "lightning_viz"]
    assert len(lines) == 2
    assert "failed at step 0: RuntimeError: broken" in lines[0]
    assert "switched off" in lines[1]
    assert drawn_at_once.tags() == {"watch/page": [0, 6]}


class Broken:
    """A sink on a full disk."""

    folder = None

    def __init__(self, failing=lambda picture, step: True):
        self.failing, self.written = failing, []

    def picture(self, picture, step):
        if self.failing(picture, step):
            raise OSError(28, "No space left on device")
        self.written.append((picture.tag, step))

    def scalar(self, tag, value, step):
        pass

    def projection(self, projection):
        pass

    def flush(self):
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_a_warning(tmp_path, drawn_at_once, monkeypatch):
    writer = Broken(lambda picture, step: picture.tag.startswith("saliency"))
    monkeypatch.setattr("lightning_viz.callbacks.run.find_writers", lambda *_: ([writer], ""))
    with pytest.warns(ViewWarning) as caught:
        trainer = fit(tmp_path, ConvNet(), [Saliency(every_n_train_steps=1), Watch(every_n_train_steps=3)])
    assert trainer.global_step == 6
    faults = [one for one in said(caught) if "failed at step" in one]
    assert len(faults) == 2
    assert all("Saliency failed" in one and "No space left on device" in one for one in faults)
    assert "switched off" in faults[1]
    assert len([one for one in said(caught) if "failed at step" not in one]) == 1  # the flush
    assert writer.written == [("watch/page", 0), ("watch/page", 3), ("watch/page", 6)]


def test_an_unwritable_folder_is_a_warning(tmp_path, drawn_at_once):
    (tmp_path / "lightning_viz_logs").write_text("a file where the folder should be")  # root may write anywhere else
    with pytest.warns(ViewWarning) as caught:
        trainer = fit(tmp_path, ConvNet(), [Watch(every_n_train_steps=1)], logger=False)
    faults = [one for one in said(caught) if "failed at step" in one]
    assert trainer.global_step == 6
    assert len(faults) == 2
    assert "switched off" in faults[1]
    assert str(tmp_path / "lightning_viz_logs") in faults[0]


@pytest.mark.slow
def test_faults_in_the_drawing_process_are_told_and_other_views_drawn(tmp_path):
    view = FaultyDrawing(every_n_train_steps=1)
    with pytest.warns(ViewWarning) as caught:
        trainer = fit(tmp_path, ConvNet(), [view, Watch(every_n_train_steps=1)])
    faults = said(caught)
    assert "FaultyDrawing failed at step 0: RuntimeError: no pencil" in faults[0]
    assert sum("switched off" in one for one in faults) == 1
    assert trainer.global_step == 6
    assert events(tmp_path)["watch/page"].keys() == set(range(7))


@pytest.mark.slow
def test_a_killed_drawing_process_costs_one_picture(tmp_path):
    class Deadly(FaultyDrawing):
        def draw(self, snapshot):
            yield DrawTask(drawings.draw_and_die, {"tag": "faulty/page", "step": snapshot.step, "deadly": (3,)})

    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, ConvNet(), [Deadly(every_n_train_steps=1), Watch(every_n_train_steps=1)])
    assert len(said(caught)) == 1
    assert "failed at step 3: the drawing process died (exit code -9)" in said(caught)[0]
    found = events(tmp_path)
    assert found["watch/page"].keys() == set(range(7))
    assert found["faulty/page"].keys() == set(range(7)) - {3}


@pytest.mark.slow
def test_a_drawing_process_killed_from_outside_is_started_again(tmp_path):
    class Killing(ConvNet):
        def training_step(self, batch, batch_idx):
            if batch_idx == 3:
                os.kill(session(self.trainer).pictures.process.process.pid, signal.SIGKILL)
            return super().training_step(batch, batch_idx)

    view = FaultyDrawing(every_n_train_steps=1)
    view.function = drawings.draw
    with pytest.warns(ViewWarning) as caught:
        fit(tmp_path, Killing(), [view])
    assert len(said(caught)) == 1
    assert "the drawing process died (exit code -9)" in said(caught)[0]
    assert len(events(tmp_path)["faulty/page"]) == 6


# What a callback is beside a run.


def test_a_view_that_is_at_work_can_be_pickled(tmp_path, drawn_at_once):
    copies = []

    class Copying(ConvNet):
        def on_train_batch_end(self, *_):
            copies.append(pickle.loads(pickle.dumps(view)))

    view = Saliency(every_n_train_steps=2)
    make_trainer(tmp_path, [view]).fit(Copying(), loader(*images()), loader(*images()))
    assert len(copies) == 6
    assert copies[0].name == view.name
    assert copies[2].last_step == 2
    assert copies[2].indices == view.indices


def test_a_task_waits_for_what_it_depends_on_and_for_nothing_else():
    def task(name, after=None):
        return DrawTask(drawings.count, {"tag": name, "step": 0}, name=name, after=after)

    def drawn(memory):
        return FinishedDrawing("view", 0, DrawResult(memory=memory))

    tasks = DrawingQueue({})
    first, second = (
        [tasks.add("view", step, task(name, after)) for name, after in (("a", None), ("b", "a"), ("c", "b"))]
        for step in range(2)
    )
    first[0].begun = True
    assert tasks.next() is None  # all others need the first
    assert tasks.finish(first[0], drawn("a1")) == [first[0]]
    assert tasks.next() is first[1]
    first[1].begun = True
    assert tasks.next() is second[0]  # beside the first of "b", which it needs not
    second[0].begun = True
    assert tasks.finish(second[0], drawn("a2")) == []  # handed on in order
    assert first[1].memories == {"b": None, "a": "a1"}  # that of its own look
    assert tasks.finish(first[1], FinishedDrawing("view", 0, None, "failed")) == [first[1]]
    first[2].begun = True
    assert second[1].memories == {"b": None, "a": "a2"}  # there is still no "b" to go on from
    assert tasks.next() is second[1]
    assert tasks.finish(first[2], drawn("c1")) == [first[2], second[0]]
    assert second[2].ready  # without the second "b"


def test_a_task_that_collects_what_others_leave_gets_that_of_its_own_look():
    def task(name, collects=()):
        return DrawTask(drawings.count, {"tag": name, "step": 0}, name=name, collects=collects)

    def drawn(memory):
        return FinishedDrawing("view", 0, DrawResult(memory=memory))

    tasks = DrawingQueue({})
    parts = (("a", ()), ("b", ()), ("all", ("a", "b")))
    first, second = ([tasks.add("view", step, task(*part)) for part in parts] for step in range(2))
    for job in (*first[:2], second[0]):
        job.begun = True
    tasks.finish(first[0], drawn("a1"))
    tasks.finish(second[0], drawn("a2"))  # sooner than the first card, which waits for "b"
    assert not first[2].ready and not second[2].ready
    tasks.finish(first[1], drawn("b1"))
    assert first[2].memories == {"all": None, "a": "a1", "b": "b1"} and tasks.next() is first[2]
    seen = {}
    DrawTask(lambda **given: DrawResult(memory=seen.update(given)), {}, name="all", collects=("a", "b")).draw(
        first[2].memories
    )
    assert seen == {"collected": ("a1", "b1"), "memory": None}
