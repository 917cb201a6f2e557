"""Training does not notice a view: bit for bit, with all views at every step, and when every one of them raises."""

import functools
import pickle
import random
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch

from lightning_viz import ActivationMaps, FirstLayerFilters, GradCAM, Hyperplanes, LayerEmbeddings, Saliency
from lightning_viz.callbacks import observer, shared_pass
from lightning_viz.callbacks.artist import Result
from lightning_viz.callbacks.sketch import Drawn
from lightning_viz.callbacks.view import View
from lightning_viz.hooks import observing

from .cells import CELLS
from .trace import Recorder, Trace, differences

pytestmark = [
    pytest.mark.filterwarnings(line)
    for line in (
        "ignore:.*exists and is not empty.*",
        "ignore:.*has shuffling enabled.*",
        "ignore:The .grad attribute of a Tensor that is not a leaf.*",  # dynamo's own
        "ignore:Found . module.* in eval mode.*",
        "ignore:.*`torch.nn.utils.spectral_norm`.*",
        "ignore:.*multi-threaded, use of fork.*",
        "ignore:You're resuming from a checkpoint that ended before the epoch ended.*",
        "ignore:The `.*StochasticWeightAveraging.*",
        "ignore:.*lightning_viz.*:lightning_viz.callbacks.messages.ViewWarning",
    )
]

LIGHTNINGS = {"pytorch_lightning": pytorch_lightning, "lightning.pytorch": lightning.pytorch}


def views_for(images):
    """Every view, looking at every step and at the end of every epoch."""
    often = {"every_n_train_steps": 1, "every_n_epochs": 1}
    small = {"samples": 24, "perplexity": 5.0, **often}
    shared = [FirstLayerFilters(**often), Saliency(**often), Saliency(method="smooth_grad", copies=2, **often)]
    if images:
        return [*shared, ActivationMaps(**often), GradCAM(**often), LayerEmbeddings(**small)]
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


def train(name, lightning, *, views, folder, logger=None):
    """Train a cell from the same start, with or without views; a cell that resumes, twice."""
    folder, trace = Path(folder), Trace()
    run = _fit(CELLS[name], lightning, views, folder, trace, logger)
    if run.resumed_at is not None:
        checkpoint = folder / f"at-{run.resumed_at}.ckpt"
        saved = torch.load(checkpoint, weights_only=False)
        trace.add("checkpoint", **{key: saved[key] for key in ("state_dict", "optimizer_states", "lr_schedulers")})
        run = _fit(CELLS[name], lightning, views, folder, trace, logger, checkpoint)
    return trace, run


def _fit(build, lightning, with_views, folder, trace, logger, checkpoint=None):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    if dynamo := sys.modules.get("torch._dynamo"):
        dynamo.reset()
        dynamo.utils.counters.clear()
    run = build(lightning)
    views = views_for(run.images) if with_views else []
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
        return train(name, LIGHTNINGS[package], views=False, folder=folder)[0]


@pytest.fixture
def sketches(monkeypatch):
    """Sketches handed in, counted by view, run and step; not drawn, which another process would do."""
    handed_in = []

    class Counting:
        process, waiting, cpu_seconds = None, 0, 0.0

        def __init__(self):
            handed_in.append(defaultdict(Counter))
            self._results = []

        def submit(self, owner, step, sketch):
            pickle.dumps(sketch)
            handed_in[-1][owner][step] += 1
            self._results.append(Result(owner, step, Drawn(), name=sketch.name))

        def behind(self):
            return False

        def results(self):
            finished, self._results = self._results, []
            return finished

        def drain(self, seconds):
            return 0

        def close(self):
            pass

    monkeypatch.setattr(observer, "Artist", Counting)
    return handed_in


@pytest.fixture
def all_raise(monkeypatch):
    """Every view raises whenever it looks: at even steps in the middle of the pass, at odd ones after a rampage."""
    faults = []
    fault, observe, init = observer.Observer._fault, shared_pass.observe, observer.Observer.__init__

    def count(self, view, step, error):
        assert "planted" in str(error)
        faults[-1][view.name][step] += 1
        fault(self, view, step, error)

    def start(self, *args):
        faults.append(defaultdict(Counter))
        return init(self, *args)

    def raise_in_forward(model, inputs):
        observing.run(model, inputs)
        rampage(model)
        raise RuntimeError("planted in the pass")

    def raise_in_pass(model, *args, **options):
        if model.trainer.fit_loop.epoch_loop._batches_that_stepped % 2 == 0:
            options["forward"] = raise_in_forward
        return observe(model, *args, **options)

    def raise_in_look(self, model, look):
        rampage(model)
        raise RuntimeError("planted in the look")

    monkeypatch.setattr(observer, "FAULTS", 10**9)
    monkeypatch.setattr(observer.Observer, "__init__", start)
    monkeypatch.setattr(observer.Observer, "_fault", count)
    monkeypatch.setattr(shared_pass, "observe", raise_in_pass)
    for view in (View, Saliency, Hyperplanes):
        monkeypatch.setattr(view, "look", raise_in_look)
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
    views = {view.name for view in views_for(run.images)}
    for fit, by_view in enumerate(counted):
        first = 0 if fit == 0 else run.resumed_at
        assert by_view.keys() == views
        for view, steps in by_view.items():
            assert set(steps) == set(range(first, run.updates + 1)), view
            yield view, steps


@pytest.mark.parametrize("name", CELLS)
def test_training_is_the_same_with_all_views_and_with_none(name, sketches, tmp_path):
    with_views, run = train(name, pytorch_lightning, views=True, folder=tmp_path)
    assert differences(undisturbed(name, "pytorch_lightning"), with_views) == []
    for view, steps in assert_all_due(sketches, run):
        assert len(set(steps.values())) == 1, f"{view} drew twice, or in part: {steps}"


@pytest.mark.parametrize("name", CELLS)
def test_training_is_the_same_when_every_view_raises_at_every_look(name, sketches, all_raise, tmp_path):
    with_views, run = train(name, pytorch_lightning, views=True, folder=tmp_path)
    assert differences(undisturbed(name, "pytorch_lightning"), with_views) == []
    assert len(list(assert_all_due(all_raise, run))) >= 5
    assert not any(sketches)
