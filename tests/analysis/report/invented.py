"""Studies as an analysis leaves them, invented: pictures of one color, numbers that are known."""

import numpy as np

from lightning_viz.analysis.results import ModelReport, Result
from lightning_viz.render.page import Picture, compose, lay_out
from lightning_viz.render.parts import Tile

TAGS = ("adversarial/pgd", "dreams/fc", "grad_cam/conv", "embedding/fc", "activations/conv", "filters/conv")


def picture(tag, step, *, color=(0, 0, 0), title=None) -> Picture:
    tile = Tile((60, 40), np.full((1, 1, 3), color, dtype=np.uint8))
    page = compose(tag, title or f"Picture of {tag}", tile, reading="A sentence of its own.", step=step)
    return lay_out(page)


def finding(step, tags=TAGS, *, title=None) -> Result:
    """What views find at a step; each picture differs from all others."""
    found = Result()
    for place, tag in enumerate(tags):
        found.picture(picture(tag, step, color=(step % 256, place, 50), title=title), step)
    found.scalar("grad_cam/conv/randomization", 0.25 + step / 1000, step)
    found.scalar("embedding/fc/knn_accuracy", 0.5 + step / 1000, step)
    found.numbers = {
        "model": {
            "class": "Net",
            "parameters": 61706,
            "input": [[1, 32, 32]],
            "classes": ["cat", "dog"],
            "layers": [{"name": "conv", "kind": "Conv2d", "parameters": 156}],
        },
        "fares": {"accuracy": 0.5 + step / 1000},
    }
    return found


def study(name="Net", steps=(0, 10, 20), tags=TAGS) -> ModelReport:
    return ModelReport(name, {step: finding(step, tags) for step in steps})
