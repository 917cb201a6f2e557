"""Training does not notice a view: bit for bit, with all views at every step, and when every one of them raises."""

import functools
import pickle
import random
import sys
import tempfile
from collections import Counter, defaultdict
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import default_collate

from lightning_viz import (
    ActivationMaps,
    Adversarial,
    Attention,
    Dreams,
    FirstLayerFilters,
    GradCAM,
    Hyperplanes,
    LayerEmbeddings,
    Predictions,
    Saliency,
)
from lightning_viz.callbacks import picture_log, session, shared_pass, step_watch
from lightning_viz.callbacks import probe_loading as sampling
from lightning_viz.callbacks.draw_task import DrawResult
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.drawing_queue import FinishedDrawing
from lightning_viz.callbacks.run import TrainerRun
from lightning_viz.callbacks.sample_fetch import Fetched
from lightning_viz.callbacks.view import View
from lightning_viz.hooks import model_state as guard
from lightning_viz.hooks.calls import call_model

from .cells import CELLS, lazy
from .trace import Recorder, Trace, differences

pytestmark = [
    pytest.mark.filterwarnings(line)
    for line in (
        "ignore:.*exists and is not empty.*",
        "ignore:.*has shuffling enabled.*",
        "ignore:The .grad attribute of a Tensor that is not a leaf.*",  # dynamo's own
        "ignore:`training_step` returned `None`.*",
        "ignore:Lazy modules are a new feature.*",
        "ignore:.*contains uninitialized parameters.*",
        "ignore:Found . module.* in eval mode.*",
        "ignore:.*`torch.nn.utils.spectral_norm`.*",
        "ignore:.*multi-threaded, use of fork.*",
        "ignore:You're resuming from a checkpoint that ended before the epoch ended.*",
        "ignore:The `.*StochasticWeightAveraging.*",
        "ignore:.*lightning_viz.*:lightning_viz.errors.ViewWarning",
    )
]

PLAIN, LOGS = "dropout, BatchNorm, some of it frozen", "a forward that logs, counts, keeps and draws"
RESUMED, ACCUMULATES = "resumed from a checkpoint in the middle of an epoch", "accumulation and clipping"
OWNED = "a data set that owns its generators, a loader that owns one"
LIGHTNINGS = {"pytorch_lightning": pytorch_lightning, "lightning.pytorch": lightning.pytorch}


def views_for(images, dense=False, attends=False, **embedding):
    """Every view, looking at every step and at the end of every epoch."""
    often = {"every_n_train_steps": 1, "every_n_epochs": 1}
    small = {"samples": 24, "perplexity": 5.0, **often, **embedding}
    shared = [FirstLayerFilters(**often), Saliency(**often), Saliency(method="smooth_grad", noise_samples=2, **often)]
    shared.append(Predictions(**often) if dense else Adversarial(attack_steps=2, **often))
    if attends:
        shared += [Attention(method=method, **often) for method in ("raw", "rollout", "gradient")]
    if images:
        dreams = Dreams(each=2, updates=2, **often)
        return [*shared, ActivationMaps(**often), GradCAM(**often), LayerEmbeddings(**small), dreams]
    plane = Hyperplanes(deeper=True, grid=20, samples=24, **often)
    return [*shared, ActivationMaps(layers=["hidden", "deeper"], **often), LayerEmbeddings(**small), plane]


def memory_logger(lightning):
    """A logger that keeps what it is told."""

    class MemoryLogger(lightning.loggers.Logger):
        name, version = "memory", 0

        def __init__(self):
            super().__init__()
            self.curves = []

        def log_metrics(self, metrics, step=None):
            self.curves.append((step, dict(metrics)))

        def log_hyperparams(self, *args, **options):
            pass

    return MemoryLogger()


def train(name, lightning, *, views, folder, logger=None, trace=None):
    """Train a cell from the same start, with or without views; a cell that resumes, twice."""
    folder, trace = Path(folder), trace or Trace()
    run = _fit(CELLS[name], lightning, views, folder, trace, logger)
    if run.resumed_at is not None:
        checkpoint = folder / f"at-{run.resumed_at}.ckpt"
        saved = torch.load(checkpoint, weights_only=False)
        trace.add("checkpoint", **{key: saved[key] for key in ("state_dict", "optimizer_states", "lr_schedulers")})
        run = _fit(CELLS[name], lightning, views, folder, trace, logger, checkpoint)
    return trace, run


def _fit(build, lightning, make_views, folder, trace, logger, checkpoint=None):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    if dynamo := sys.modules.get("torch._dynamo"):
        dynamo.reset()
        dynamo.utils.counters.clear()
    run = build(lightning)
    views = make_views(run.images, run.dense, run.attends) if make_views else []
    saves = []
    if run.resumed_at is not None:
        keep = {"every_n_train_steps": run.resumed_at, "save_top_k": -1, "filename": "at-{step}"}
        keep["auto_insert_metric_name"] = False
        saves = [lightning.callbacks.ModelCheckpoint(folder, **keep)]
    logger = logger or memory_logger(lightning)
    first, behind = Recorder(trace, "before", run.watched), Recorder(trace, "behind", run.watched)
    options = {"max_epochs": 2, "num_sanity_val_steps": 1, "log_every_n_steps": 1, **run.options}
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[first, *views, *run.callbacks, behind, *saves],
        logger=logger,
        default_root_dir=folder,
        enable_checkpointing=bool(saves),
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(run.model, run.train, run.validation, ckpt_path=checkpoint)
    assert trainer.fit_loop.epoch_loop._batches_that_stepped == run.updates
    trace.add("the end", curves=getattr(logger, "curves", ()))
    return run


@functools.cache
def undisturbed(name, package):
    """A cell's training without views."""
    with tempfile.TemporaryDirectory() as folder:
        return train(name, LIGHTNINGS[package], views=None, folder=folder)[0]


@pytest.fixture
def sketches(monkeypatch):
    """Sketches handed in, counted by view, run and step; not drawn, which another process would do."""
    handed_in = []

    class Counting(DrawingProcess):
        def __init__(self):
            handed_in.append(defaultdict(Counter))
            super().__init__()

        def submit(self, owner, step, sketch):
            pickle.dumps(sketch)
            handed_in[-1][owner][step] += 1
            self._results.put((None, FinishedDrawing(owner, step, DrawResult(), name=sketch.name)))

    monkeypatch.setattr(picture_log, "DrawingProcess", Counting)
    return handed_in


class Unread(step_watch.StepReader):
    """Reads no step."""

    def __init__(self, *args):
        super().__init__(*args)
        self.pending = False


@pytest.fixture
def all_raise(monkeypatch):
    """Every view raises whenever it looks: at even steps in the middle of the pass, at odd ones after a rampage."""
    faults = []
    fault, observe, init = session.Session._fault, shared_pass.observe, session.Session.__init__

    def count(self, view, step, error):
        assert "planted" in str(error)
        faults[-1][view.name][step] += 1
        fault(self, view, step, error)

    def start(self, *args, **options):
        faults.append(defaultdict(Counter))
        return init(self, *args, **options)

    def raise_in_forward(model, inputs):
        call_model(model, inputs)
        rampage(model)
        raise RuntimeError("planted in the pass")

    def raise_in_pass(model, *args, **options):
        if model.trainer.fit_loop.epoch_loop._batches_that_stepped % 2 == 0:
            options["forward"] = raise_in_forward
        return observe(model, *args, **options)

    def raise_in_look(self, model, look):
        rampage(model)
        raise RuntimeError("planted in the look")

    monkeypatch.setattr(TrainerRun, "most_faults", 10**9)
    monkeypatch.setattr(session.Session, "__init__", start)
    monkeypatch.setattr(session.Session, "_fault", count)
    monkeypatch.setattr(session, "StepReader", Unread)  # else a look before the first step waits for it
    monkeypatch.setattr(shared_pass, "observe", raise_in_pass)
    for view in (View, FirstLayerFilters, GradCAM, Saliency, Attention, Hyperplanes, Dreams, Adversarial):
        monkeypatch.setattr(view, "compute", raise_in_look)
    return faults


def rampage(model):
    """All that a view should not do, except to write to weights in place."""
    random.random(), np.random.rand(), torch.rand(1)
    for module in model.modules():
        module.register_forward_hook(lambda *_: None)
        module.training = not module.training
        module.unheard_of = 1
    for buffer in model.buffers():
        buffer.add_(1)
    for parameter in model.parameters():
        parameter.requires_grad_(not parameter.requires_grad)
        parameter.grad = torch.ones_like(parameter)


def assert_all_due(counted, run):
    """Every view had its say once for every number of completed updates, from none to the last."""
    views = {view.name for view in views_for(run.images, run.dense, run.attends)}
    for fit, by_view in enumerate(counted):
        first = 0 if fit == 0 else run.resumed_at
        assert by_view.keys() == views
        for view, steps in by_view.items():
            assert set(steps) == set(range(first, run.updates + 1)), view
            yield view, steps


@pytest.mark.parametrize("name", CELLS)
def test_training_is_the_same_with_all_views_and_with_none(name, sketches, tmp_path):
    with_views, run = train(name, pytorch_lightning, views=views_for, folder=tmp_path)
    assert differences(undisturbed(name, "pytorch_lightning"), with_views) == []
    for view, steps in assert_all_due(sketches, run):
        assert len(set(steps.values())) == 1, f"{view} drew twice, or in part: {steps}"


def test_what_is_compared_is_all_of_training():
    events = undisturbed(PLAIN, "pytorch_lightning").events
    paths = {path for _, found in events for path in found}
    for kind in (
        *("model/conv1/_parameters/weight", "model/conv1/_parameters/weight.grad", "model/norm1/_buffers/running_var"),
        *("model/norm2/training", "model/norm2/_forward_hooks/length", "optimizers/0/state/0/exp_avg"),
        *("schedulers/0/last_epoch", "loss/loss", "random/0/0", "random/1/1", "random/2", "batch/2"),
        *("curves/0/1/loss_step", "metrics/0/loss_step", "torch/0"),
    ):
        assert kind in paths, kind
    weights = {
        found["model/conv1/_parameters/weight"] for _, found in events if "model/conv1/_parameters/weight" in found
    }
    orders = {found["batch/2"] for event, found in events if event.startswith("batch start")}
    assert len(weights) == 1 + 8 and len(orders) == 8


def test_a_model_without_weights_yet_is_left_alone(sketches, tmp_path, monkeypatch):
    monkeypatch.setitem(CELLS, "lazy", lazy)
    with_views, _ = train("lazy", pytorch_lightning, views=views_for, folder=tmp_path)
    assert differences(undisturbed("lazy", "pytorch_lightning"), with_views) == []
    assert not sketches


@pytest.mark.parametrize("name", [PLAIN, LOGS, RESUMED])
def test_training_is_the_same_under_lightnings_other_name(name, sketches, tmp_path):
    with_views, run = train(name, lightning.pytorch, views=views_for, folder=tmp_path)
    assert differences(undisturbed(name, "lightning.pytorch"), with_views) == []
    assert len(list(assert_all_due(sketches, run))) >= 6


def test_training_is_the_same_while_another_process_draws_and_tensorboard_takes_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_viz.callbacks.drawing.BEHIND_SECONDS", float("inf"))
    traces, curves, pictures = [], [], []
    for views in (None, functools.partial(views_for, layers="fc", input=False)):
        folder = tmp_path / f"{bool(views)}"
        board = pytorch_lightning.loggers.TensorBoardLogger(folder, name="", version="")
        traces.append(train(PLAIN, pytorch_lightning, views=views, folder=folder, logger=board)[0])
        events = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0}).Reload()
        ours = "z_"
        scalars = [tag for tag in events.Tags()["scalars"] if not tag.startswith(ours)]
        curves.append({tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in scalars})
        pictures.append({tag: [one.step for one in events.Tensors(tag)] for tag in events.Tags()["tensors"]})
    assert differences(*traces) == []
    assert curves[0] == curves[1] and {"loss_step", "val_loss"} <= curves[0].keys()
    assert not pictures[0]
    for kind in (
        "filters",
        "saliency/gradient",
        "saliency/smooth_grad",
        "activations",
        "grad_cam",
        "embedding",
        "dreams",
        "adversarial",
    ):
        steps = {tuple(steps) for tag, steps in pictures[1].items() if kind in tag and "animation" not in tag}
        assert steps == {tuple(range(9))}, kind


@pytest.mark.parametrize("name", CELLS)
def test_training_is_the_same_when_every_view_raises_at_every_look(name, sketches, all_raise, tmp_path):
    with_views, run = train(name, pytorch_lightning, views=views_for, folder=tmp_path)
    assert differences(undisturbed(name, "pytorch_lightning"), with_views) == []
    assert len(list(assert_all_due(all_raise, run))) >= 5
    assert not any(sketches)


# The matrix finds what is wrong: faults planted in our own code, and a cell whose training each of them changes.

PLANTED = {}


def planted(name, cell):
    def register(plant):
        PLANTED[name] = plant, cell
        return plant

    return register


def unguarded(monkeypatch):
    guard_by(monkeypatch, lambda model: nullcontext((list(model.modules()), [])))


def guard_by(monkeypatch, preserved):
    """Have everything guarded by another context."""
    monkeypatch.setattr(guard, "_preserved", preserved)
    for module in (session, sampling):
        monkeypatch.setattr(module, "preserve_state", preserved)


def after_each_look(monkeypatch, do):
    """Do something careless with the model and some of its inputs, outside the guard."""
    look = session.Session.look

    def careless(self, due, *args, **options):
        look(self, due, *args, **options)
        if due:
            do(self.run.model, torch.ones(4, 3, 8, 8))

    monkeypatch.setattr(session.Session, "look", careless)


@planted("a forward in train mode", PLAIN)
def train_mode(monkeypatch):
    unguarded(monkeypatch)
    monkeypatch.setattr(guard, "evaluating", lambda model: nullcontext())


@planted("eval mode that stays", PLAIN)
def eval_mode(monkeypatch):
    unguarded(monkeypatch)


@planted("a blanket train()", PLAIN)
def blanket_train(monkeypatch):
    after_each_look(monkeypatch, lambda model, x: model.train())


@planted("a blanket eval()", PLAIN)
def blanket_eval(monkeypatch):
    after_each_look(monkeypatch, lambda model, x: model.eval())


@planted("backward()", ACCUMULATES)
def backward(monkeypatch):
    after_each_look(monkeypatch, lambda model, x: model(x).sum().backward())


@planted("gradients set to zero", ACCUMULATES)
def zero_grad(monkeypatch):
    after_each_look(monkeypatch, lambda model, x: model.zero_grad())


@planted("a forward in train mode of frozen weights", PLAIN)
def frozen_forward(monkeypatch):
    after_each_look(monkeypatch, lambda model, x: model.requires_grad_(False)(x))


@planted("a draw from NumPy's generator", "augmentation with random, NumPy and torch")
def numpy_draw(monkeypatch):
    after_each_look(monkeypatch, lambda model, x: np.random.rand())


@planted("generators not restored", PLAIN)
def generators(monkeypatch):
    monkeypatch.setattr(guard, "random_states", lambda: iter(()))


@planted("a data set asked in this process", OWNED)
def asked_here(monkeypatch):
    def fetch(self, loader, order, count, seed):
        picks = order[:count]
        with guard.same_randomness():
            return Fetched([default_collate([loader.dataset[index] for index in picks])], list(picks))

    monkeypatch.setattr(sampling.Fetcher, "fetch", fetch)


@planted("a loader gone through", OWNED)
def gone_through(monkeypatch):
    monkeypatch.setattr(sampling.Fetcher, "fetch", lambda self, loader, *_: Fetched(list(loader)))


@planted("a logger that is not muted", LOGS)
def loggers(monkeypatch):
    monkeypatch.setattr(TrainerRun, "muted", lambda self: nullcontext())


@planted("a log that is not shadowed", LOGS)
def logs(monkeypatch):
    monkeypatch.setattr(guard, "_silence", lambda module: None)


@planted("attributes not restored", LOGS)
def attributes(monkeypatch):
    monkeypatch.setattr(guard, "_attributes_state", lambda attribute_dicts: lambda: None)


@planted("buffers not restored", LOGS)
def buffers(monkeypatch):
    monkeypatch.setattr(guard, "_tensor_state", lambda tensor: lambda: None)


@planted("lists not restored", LOGS)
def lists(monkeypatch):
    monkeypatch.setattr(guard, "_containers_state", lambda containers, empty: lambda: None)


@planted("hooks that stay", PLAIN)
def hooks(monkeypatch):
    after_each_look(monkeypatch, lambda model, x: model.fc.register_forward_hook(lambda *_: None))


@planted("gradients that stay switched off", RESUMED)
def switched_off(monkeypatch):
    after_each_look(monkeypatch, lambda model, x: torch.set_grad_enabled(False))


def noticed(cell, folder):
    """Where training differs from what it should be, up to its end or to where a fault ended it."""
    expected, trace = undisturbed(cell, "pytorch_lightning"), Trace()
    with suppress(Exception):
        train(cell, pytorch_lightning, views=views_for, folder=folder, trace=trace)
    torch.set_grad_enabled(True)
    return differences(Trace(expected.events[: len(trace.events)]), trace)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_noticed(name, monkeypatch, sketches, tmp_path):
    plant, cell = PLANTED[name]
    undisturbed(cell, "pytorch_lightning")
    plant(monkeypatch)
    assert noticed(cell, tmp_path)


def test_a_guard_that_trusts_views_not_to_raise_is_noticed(monkeypatch, sketches, all_raise, tmp_path):
    @contextmanager
    def trusting(model):
        modules = list(model.modules())
        contents, attributes = guard._content_states(modules), guard._attributes_state([vars(one) for one in modules])
        restores = [*guard.random_states(), *contents, attributes]
        yield modules, contents
        for restore in reversed(restores):
            restore()

    guard_by(monkeypatch, trusting)
    assert noticed(PLAIN, tmp_path)
