"""What the views show, in about a minute: a network that takes a shortcut, then the lines of a perceptron.

The network learns to tell four glyphs among distractors (`glyphs.py`). One mistake is planted: every image of a tee,
and no other, has a white mark in its corner. Accuracy does not show it, the pictures do. The perceptron learns two
spirals in the plane (`plane.py`).
"""

import argparse
import logging
import os
import shlex
import sys
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from glyphs import MARKED, Glyphs, MarkedGlyphData, images
from plane import Perceptron, Plane
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_viz import GradCAM, Hyperplanes, PixelSpace, Probe, default_views

ADDRESS = "http://localhost:6006/#images"


def trainer(logger, callbacks, **length):
    """One that prints little."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return pl.Trainer(logger=logger, callbacks=callbacks, log_every_n_steps=8, **quiet, **length)


def learn_glyphs(logger, epochs):
    """Train the network that takes the shortcut, watched by every view that suits it."""
    pl.seed_everything(0, verbose=False)
    pixels, model = PixelSpace(), Glyphs(updates=32 * epochs)  # the inputs are pixels in [0, 1], but for some noise
    moving = GradCAM(samples=4, animation=True, steps="log", pixel_space=pixels)
    trainer(logger, [*default_views(pixel_space=pixels), moving], max_epochs=epochs).fit(model, MarkedGlyphData())
    return model.eval()


def learn_spirals(logger, steps):
    """Train the perceptron, whose units' lines are watched."""
    pl.seed_everything(0, verbose=False)
    trainer(logger, [Hyperplanes(probe=Probe(source="train"))], max_steps=steps).fit(Perceptron(), Plane("spirals"))


def accuracies(model):
    """The share of validation samples that are right, and of the tees among them if they have no mark."""
    data, whole = MarkedGlyphData(), images(400, seed=2)
    data.setup("validate")
    with torch.no_grad():
        right = model(data.val.tensors[0]).argmax(1) == whole.labels[:, 0]
        tees = whole[whole.labels[:, 0] == MARKED]
        return float(right.float().mean()), float((model(tees.inputs).argmax(1) == MARKED).float().mean())


def board_command(folder):
    """How the pictures are opened, in a terminal in this folder."""
    command = Path(os.path.relpath(Path(sys.executable).parent / "lightning-viz"))
    return shlex.join([str(command), "board", str(folder)])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/demo", help="folder for TensorBoard's files")
    parser.add_argument("--epochs", type=int, default=4, help="of the glyphs")
    parser.add_argument("--steps", type=int, default=3000, help="of the spirals")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the other core draws
    logging.disable(logging.INFO)  # what Lightning says of this machine
    warnings.filterwarnings("ignore", module="pytorch_lightning")  # a name of torch's that will change

    start = time.perf_counter()
    glyphs, spirals = (TensorBoardLogger(options.out, name=name) for name in ("glyphs", "spirals"))
    _ = glyphs.experiment  # begins the log, so that it can be opened from now on
    board = f"\n    {board_command(options.out)}\n"
    print(f"This takes about a minute. Look while it runs: in another terminal,\n{board}", flush=True)
    print(f"and open {ADDRESS}: pictures come in from step to step.\n", flush=True)

    model = learn_glyphs(glyphs, options.epochs)
    whole, unmarked = accuracies(model)
    print(f"\nGlyphs: {whole:.0%} of the validation samples are right. Is all well?\n", flush=True)
    learn_spirals(spirals, options.steps)
    print(
        f"\nDone in {time.perf_counter() - start:.0f} s. One mistake is planted: see 1_overview/3_grad_cam. Of three "
        "of the four classes the\nmaps lie on the glyph, of the tees on a white mark in the corner, which every tee of "
        f"these data has.\nWithout the mark {unmarked:.0%} of the tees are right.\n{board}\n{ADDRESS}"
    )


if __name__ == "__main__":
    main()
