"""Training is held for a bounded share of its time, and drawing that falls behind is waited for by nobody."""

import re
import time
from itertools import pairwise

import pytest

from lightning_viz import GradCAM, Saliency
from lightning_viz.callbacks import DrawTask, View
from lightning_viz.callbacks import schedule as budget
from lightning_viz.callbacks.schedule import OverheadBudget
from lightning_viz.callbacks.session import session
from lightning_viz.callbacks.undrawn import PATTERN, read_undrawn
from lightning_viz.callbacks.writers import TensorBoardWriter

from . import drawings
from .conftest import ConvNet, Watch, fit, images, loader
from .test_writers import events


class Slow(Watch):
    """Holds training at every look."""

    kind = "slow"

    def compute(self, model, snapshot):
        time.sleep(0.05)
        return {}

    def draw(self, snapshot):
        yield DrawTask(drawings.draw, {"tag": "slow/page", "step": snapshot.step})


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    one = Clock()
    monkeypatch.setattr(budget, "time", one)
    return one


def test_short_runs_get_every_picture(clock):
    book = OverheadBudget()
    for step in range(10):
        assert book.affordable({"a": 0.0, "b": 0.0}) == {"a", "b"}
        for view in ("a", "b"):
            clock.now += 1
            book.charge(view, step, 1.0)


def test_looks_keep_to_the_share(clock, monkeypatch):
    monkeypatch.setattr(budget, "FREE_SECONDS", 0.0)
    book, held = OverheadBudget(), 0.0
    book.charge("a", 0, 1.0)  # the first look, which is always taken
    clock.now += 1
    for step in range(1, 1001):
        clock.now += 1  # of training
        if book.affordable({"a": 0.05}):
            clock.now += 1
            held += 1
            book.charge("a", step, 1.0)
    assert book.trained == pytest.approx(1000)
    assert book.held == held + 1
    assert 45 <= held <= 50


def test_the_free_seconds_come_first(clock, monkeypatch):
    monkeypatch.setattr(budget, "FREE_SECONDS", 10.0)
    book = OverheadBudget()
    taken = 0
    while book.affordable({"a": 0.0}):
        clock.now += 1
        book.charge("a", taken, 1.0)
        taken += 1
    assert 8 <= taken <= 10
    clock.now += 1000
    assert book.affordable({"a": 0.0}) == set()
    assert book.affordable({"a": 0.05}) == {"a"}


def test_who_has_held_least_comes_first(clock, monkeypatch):
    monkeypatch.setattr(budget, "FREE_SECONDS", 0.0)
    book = OverheadBudget()
    book.charge("dear", 0, 10.0)
    book.charge("cheap", 0, 0.1)
    clock.now += 10.1 + 420
    assert book.affordable({"dear": 0.05, "cheap": 0.05}) == {"cheap"}


def test_what_holds_training_has_an_owner(clock):
    book, apart = OverheadBudget(), [0.0]
    with book.measured(lambda: ["a", "b"], lambda: apart[0]):
        clock.now += 1  # of nobody
        with book.measured(lambda: ["c"]):  # a part of the same event
            clock.now += 2
            book.charge("a", 1, 2.0)
        clock.now += 4
        book.wrote("b", 1, 4.0)
        clock.now += 8
        apart[0] += 8.0
    assert book.held_by == {"a": 2.5, "b": 4.5}
    book.book("a", apart.pop())
    with book.measured(list):
        clock.now += 16
    assert book.held_by == {"a": 10.5, "b": 4.5, "": 16.0}
    assert book.held == 31
    assert book.trained == 0


def test_a_look_takes_what_its_pictures_take_to_be_written(clock, monkeypatch):
    monkeypatch.setattr(budget, "FREE_SECONDS", 0.0)
    book = OverheadBudget()
    for step in (0, 1, 2):
        book.charge("a", step, 0.0)
    clock.now += 1000
    assert book.affordable({"a": 0.05})
    for _ in range(2):  # two pictures of a look
        book.wrote("a", 0, 5.0)
        clock.now += 5
    # 10 s are held, the last look and this one take 10 s each, and two looks are not yet written
    assert not book.affordable({"a": 0.049})
    assert book.affordable({"a": 0.051})
    assert book.may_write(0.016)  # 5 s more
    assert not book.may_write(0.014)


def test_a_slow_logger_is_written_to_less_often_and_all_is_written_at_the_end(tmp_path, drawn_at_once, monkeypatch):
    monkeypatch.setattr(budget, "FREE_SECONDS", 0.0)
    written, held = [], {}
    picture = TensorBoardWriter.picture

    def slow(writer, drawn, step):
        time.sleep(0.05)
        picture(writer, drawn, step)
        written.append(step)

    class Reading(ConvNet):
        def on_train_end(self):
            written.append("end")

        def on_train_batch_end(self, *_):
            book = session(self.trainer).budget
            assert sum(book.held_by.values()) == pytest.approx(book.held)
            held.update(book.held_by)

    monkeypatch.setattr(TensorBoardWriter, "picture", slow)
    view = Watch(every_n_train_steps=1)
    fit(tmp_path, Reading(), [view], loader(*images(48), batch_size=2), max_epochs=2)
    during = [step for step in written if step != "end"]
    assert during == drawn_at_once.tags()["watch/page"]  # what was drawn is written, in order
    assert len(during) < 12
    early = [step for step in during[:-1] if step < 48]
    assert held[view.name] >= 0.05 * (len(early) - 2)


def test_the_ledger_holds_every_look(tmp_path, drawn_at_once):
    ledgers = []

    class Reading(ConvNet):
        def on_train_epoch_end(self):
            ledgers.append(list(session(self.trainer).budget.ledger))

    views = [Slow(every_n_train_steps=3), Saliency()]
    fit(tmp_path, Reading(), views, max_epochs=2)
    booked = [(view, step) for view, step, _ in ledgers[-1]]
    assert sorted(set(booked)) == sorted(
        [(views[0].name, step) for step in (0, 3, 6, 9)] + [(views[1].name, step) for step in (0, 6, 12)]
    )
    assert all(seconds >= 0.05 for view, _, seconds in ledgers[-1] if view == views[0].name)


def test_a_slow_view_is_looked_at_less_often_which_is_said_once(tmp_path, drawn_at_once, monkeypatch, capsys):
    monkeypatch.setattr(budget, "FREE_SECONDS", 0.0)
    view = Slow(every_n_train_steps=1)
    trainer = fit(tmp_path, ConvNet(), [view], loader(*images(48), batch_size=2), max_epochs=2)
    steps = drawn_at_once.tags()["slow/page"]
    assert trainer.global_step == 48
    assert steps[0] == 0
    assert steps[-1] == 48
    assert len(steps) < 12
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning_viz")]
    assert lines[0] == "lightning_viz: Slow is logged less often from step 1 to stay within max_overhead=0.05"
    (count,) = lines[1:]
    assert re.match(
        rf"lightning_viz: {49 - len(steps)} looks were left out of Slow, at steps 1, .*, to stay within", count
    )


@pytest.mark.parametrize("error", [RuntimeError("the user's"), KeyboardInterrupt()])
def test_what_was_left_out_is_said_once_where_the_run_fails_too(tmp_path, drawn_at_once, monkeypatch, capsys, error):
    monkeypatch.setattr(budget, "FREE_SECONDS", 0.0)

    class Failing(ConvNet):
        def training_step(self, batch, batch_idx):
            if self.global_step == 4:
                raise error
            return super().training_step(batch, batch_idx)

    with pytest.raises((RuntimeError, SystemExit, KeyboardInterrupt)):
        fit(tmp_path, Failing(), [Slow(every_n_train_steps=1, max_overhead=0)])
    assert capsys.readouterr().err.count("4 looks were left out of Slow, at steps 1, 2, 3, 4, to stay within") == 1


def test_a_large_share_gets_every_look(tmp_path, drawn_at_once, monkeypatch, capsys):
    monkeypatch.setattr(budget, "FREE_SECONDS", 0.0)
    fit(tmp_path, ConvNet(), [Slow(every_n_train_steps=1, max_overhead=1e6)])
    assert drawn_at_once.tags()["slow/page"] == [0, 1, 2, 3, 4, 5, 6]
    assert "less often" not in capsys.readouterr().err


def test_without_a_share_only_the_first_and_the_last_look(tmp_path, drawn_at_once, monkeypatch):
    monkeypatch.setattr(budget, "FREE_SECONDS", 0.0)
    fit(tmp_path, ConvNet(), [Slow(every_n_train_steps=1, max_overhead=0)], max_epochs=2)
    assert drawn_at_once.tags()["slow/page"] == [0, 12]


def test_a_cheap_view_does_not_pay_for_a_dear_one_with_a_larger_share(tmp_path, drawn_at_once, monkeypatch):
    monkeypatch.setattr(budget, "FREE_SECONDS", 0.0)
    fit(
        tmp_path,
        ConvNet(),
        [Slow(every_n_train_steps=1, max_overhead=0), Watch(every_n_train_steps=1, max_overhead=1e6)],
    )
    assert drawn_at_once.tags() == {"slow/page": [0, 6], "watch/page": [0, 1, 2, 3, 4, 5, 6]}


class SlowDrawing(Watch):
    """Does not hold training, but takes long to draw."""

    kind = "slow"

    def draw(self, snapshot):
        yield DrawTask(drawings.draw, {"tag": "slow/page", "step": snapshot.step, "seconds": 0.25})


class Steady(ConvNet):
    """Trains at 20 updates a second."""

    def training_step(self, batch, batch_idx):
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)


@pytest.mark.slow
def test_where_drawing_is_behind_events_wait_and_all_that_was_observed_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_viz.callbacks.drawing.BEHIND_SECONDS", 1.2)
    observed, seconds = [], []

    class Counting(SlowDrawing):
        def draw(self, snapshot):
            observed.append(snapshot.step)
            return super().draw(snapshot)

    class Timed(Steady):
        def on_train_batch_start(self, *_):
            seconds.append(time.monotonic())

    fit(tmp_path, Timed(), [Counting(every_n_train_steps=1)], max_epochs=6)
    assert observed[0] == 0
    assert observed[-1] == 36
    assert 4 <= len(observed) < 30
    assert list(events(tmp_path)["slow/page"]) == observed
    gaps = sorted(after - before for before, after in pairwise(seconds))
    assert gaps[len(gaps) // 2] < 0.2  # training waits for no drawing: a page takes 0.25 s


@pytest.mark.slow
def test_drawing_that_does_not_end_is_kept_and_said(tmp_path, capsys):
    class Endless(Watch):
        def draw(self, snapshot):
            yield DrawTask(
                drawings.draw, {"tag": "slow/page", "step": snapshot.step, "seconds": 600.0 * (snapshot.step > 0)}
            )

    class Patient(ConvNet):
        def training_step(self, batch, batch_idx):
            while batch_idx == 0 and session(self.trainer).pictures.process.waiting:  # until the first page is drawn
                time.sleep(0.01)
            return super().training_step(batch, batch_idx)

    started, view = time.monotonic(), Endless(every_n_train_steps=3, finish_seconds=1.0)
    fit(tmp_path, Patient(), [view])
    assert time.monotonic() - started < 300
    words = capsys.readouterr().err
    assert "finishing 2 drawings, for at most 1 s" in words
    assert "2 drawings were not finished: they are kept beside the run" in words
    assert [step for _, step, _ in read_undrawn(next(tmp_path.rglob(PATTERN)), trusted=True).tasks] == [3, 6]
    assert list(events(tmp_path)["slow/page"]) == [0]


def test_a_views_name_is_written_once_and_anew_for_another_argument(tmp_path, drawn_at_once, monkeypatch):
    written, changed = [], View.changed

    def count(view):
        written.append(view)
        return changed(view)

    monkeypatch.setattr(View, "changed", count)
    numbers = []
    for epochs in (1, 4):
        written.clear()
        fit(tmp_path, ConvNet(), [Saliency(steps=[0]), GradCAM(steps=[0])], max_epochs=epochs)
        numbers.append(len(written))
    assert numbers[0] == numbers[1]  # however many batches there are
    view = Saliency()
    assert view.name == "Saliency"
    view.method = "smooth_grad"
    assert view.name == "Saliency(method='smooth_grad')"
