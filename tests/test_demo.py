"""The demo shows what it says: a shortcut that accuracy does not tell and the maps do, while it runs and at its end."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional as F

from examples.glyphs import MARK, MARKED, SIZE, Glyphs, MarkedGlyphData, images
from lightning_viz.attribution import grad_cam
from lightning_viz.cli.analyze import board_parser
from tests.callbacks.test_writers import events

ROOT = Path(__file__).resolve().parents[1]


def share_around(heat, boxes, margin=8):
    """The share of each map that lies in its box or near it: a place of the map sees further than its four pixels."""
    whole = F.interpolate(heat, (SIZE, SIZE), mode="bilinear")[:, 0]
    place = torch.arange(SIZE)
    left, top, right, bottom = (side[:, None] for side in boxes.T)
    columns = (place >= left - margin) & (place < right + margin)
    rows = (place >= top - margin) & (place < bottom + margin)
    return (whole * rows[:, :, None] * columns[:, None]).sum((1, 2)) / whole.sum((1, 2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.isinstance.treespec")
def test_the_planted_mistake_is_in_the_maps_and_not_in_the_accuracy():
    pl.seed_everything(0, verbose=False)
    model, data = Glyphs(updates=128), MarkedGlyphData()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    pl.Trainer(max_epochs=4, logger=False, accelerator="cpu", **quiet).fit(model, data)
    inputs, labels = data.val.tensors
    plain, tees = images(len(labels), seed=2), labels == MARKED
    with torch.no_grad():
        assert (model.eval()(inputs).argmax(1) == labels).float().mean() > 0.97
        assert (model(plain.inputs[tees]).argmax(1) == MARKED).float().mean() < 0.3
    (heat,) = grad_cam(model, inputs, labels, layers="last_maps").values()
    corner = torch.tensor([0, 0, MARK, MARK]).expand(len(labels), 4)
    on_mark, on_glyph = share_around(heat, corner), share_around(heat, plain.boxes[:, 0])
    assert on_mark[tees].mean() > 0.6 and on_glyph[tees].mean() < 0.4
    assert on_glyph[~tees].mean() > 0.75 and on_mark[~tees].mean() < 0.25


@pytest.mark.slow
def test_the_demo_can_be_looked_at_from_its_first_line_and_ends_in_the_boards_address(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--epochs", "1", "--steps", "20"]
    process = subprocess.Popen(
        [*command, "--out", "pictures"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    try:
        first = process.stdout.readline()
        begun = list(tmp_path.glob("pictures/glyphs/*/events.out.tfevents.*"))
        said = [first, *process.stdout]
        assert process.wait(timeout=300) == 0
    finally:
        process.kill()
        process.communicate()
    assert "about a minute" in first and begun, "there is nothing to open yet"
    boards = [shlex.split(line)[1:] for line in said if "lightning-viz board" in line]
    assert boards == [["board", "pictures"]] * 2 and board_parser().parse_args(boards[0][1:])
    assert said[-1].strip() == "http://localhost:6006/#images"
    glyphs, spirals = (set(events(tmp_path / "pictures" / name, "version_0")) for name in ("glyphs", "spirals"))
    assert "hyperplanes/hidden" in {tag.removeprefix("1_overview/") for tag in spirals}
    for words in ("3_grad_cam/net.13", "embedding/every_layer", "/animation"):
        assert any(words in tag for tag in glyphs), (words, sorted(glyphs))
