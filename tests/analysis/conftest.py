"""What Lightning itself warns of in runs as small as these is no error here, and pictures are drawn in this process."""

import pickle
import warnings

import pytest

from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.drawing_queue import FinishedDrawing
from tests.callbacks.conftest import LIGHTNING_SAYS, own_seeds  # noqa: F401


def pytest_collection_modifyitems(items):
    for item in items:
        if any(room in str(item.path) for room in ("tests/analysis", "tests/cli")):
            for line in LIGHTNING_SAYS:
                item.add_marker(pytest.mark.filterwarnings(line))


@pytest.fixture(scope="session")
def cli_run(tmp_path_factory):
    """The folder of a run of LightningCLI, whose config.yaml names model and data."""
    from pytorch_lightning.cli import LightningCLI

    folder = tmp_path_factory.mktemp("cli")
    given = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "enable_progress_bar": "false",
        "enable_model_summary": "false",
        "default_root_dir": folder,
        "precision": "32-true",
    }
    trainer = [f"--trainer.{name}={value}" for name, value in given.items()]
    named = ["--model=tests.analysis.nets.Net", "--model.width=5", "--data=tests.analysis.nets.Squares"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        LightningCLI(
            args=["fit", *trainer, *named, "--data.count=8", "--seed_everything=7"],
            subclass_mode_model=True,
            subclass_mode_data=True,
        )
    return next(folder.rglob("config.yaml")).parent


class DrawsHere(DrawingProcess):
    """Draws from the pickled sketch, as the drawing process does, without the seconds that starting a process takes."""

    def __init__(self):
        super().__init__()
        self.memories = {}

    def submit(self, owner, step, sketch):
        drawn, error = None, ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                drawn = pickle.loads(pickle.dumps(sketch)).draw(self.memories)
            except Exception as fault:
                error = f"{type(fault).__name__}: {fault}"
        self._results.put((None, FinishedDrawing(owner, step, drawn, error, sketch.name)))


@pytest.fixture
def drawing_process():
    """For a test in which drawing in a process of its own is part of what is tested."""


@pytest.fixture(autouse=True)
def drawn_here(request, monkeypatch):
    """A test draws in its own process, unless it asks for the `drawing_process`, in which shared fixtures draw."""
    if "drawing_process" not in request.fixturenames:
        monkeypatch.setattr("lightning_viz.callbacks.picture_log.DrawingProcess", DrawsHere)
