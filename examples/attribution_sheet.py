"""Every attribution method on the same images, with numbers that say which to believe, on one sheet.

The network is trained to find a glyph among distractors (`glyphs.py`), so that it is known where the maps should be.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from glyphs import NAMES, images, network
from one_cycle import fit
from PIL import Image
from torch.nn import functional as F

from lightning_viz import attribution
from lightning_viz.analysis.studies.attribution import maps_of
from lightning_viz.attribution.evaluation import deletion, model_randomization, pointing_game
from lightning_viz.catalogue import methods
from lightning_viz.render.attribution_maps import MethodMaps, method_row
from lightning_viz.render.layout import draw
from lightning_viz.render.parts import HStack, Text, Tile, VStack
from lightning_viz.render.text import GRAY
from lightning_viz.render.tiles import to_rgb

TILE = 104  # pixels
SHOWN = 4  # images
METHODS = {  # title: function, display
    entry.title: (
        partial(entry.load(), progress=False) if isinstance(entry.cost, str) else entry.load(),
        entry.display,
    )
    for name, entry in methods("attribution").items()
    if name != "occlusion" and "attention" not in entry.needs
}
METHODS["occlusion 6 / 2"] = (partial(attribution.occlusion, patch=6, stride=2, progress=False), "signed")


def trained(updates=160):
    torch.manual_seed(0)
    model, seen = network(), images(2000, seed=100)

    def loss_of_batch():
        batch = torch.randint(len(seen.inputs), (64,))
        return F.cross_entropy(model(seen.inputs[batch]), seen.labels[batch, 0])

    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    return fit(model, optimizer, updates, loss_of_batch, what="cross-entropy")


def numbers(method, model, test):
    """Pointing game, area under the deletion curve as a share of a random order's, and randomization score."""
    labels = test.labels[:, 0]
    found = method(model, test.inputs, labels)
    rate = pointing_game(lambda *_: found, model, test.inputs, labels, boxes=test.boxes).rate
    own, by_chance = (
        deletion(lambda *_: maps, model, test.inputs, labels, steps=48, progress=False).areas.mean()
        for maps in (found, torch.zeros(len(labels), 1, *test.inputs.shape[2:]))
    )
    score = model_randomization(method, model, test.inputs, labels, layers=(), original=found).score
    return float(rate), float(own / by_chance), score


def row(name, display, maps, pictures, found):
    """A method's maps of the images shown, its name and numbers to the left."""
    words = [f"points at it {found[0]:.2f}", f"deletion {found[1]:.2f}", f"random net {found[2]:.2f}"]
    return method_row(pictures, MethodMaps(name, maps, display, words), (TILE, TILE), label=216, gap=4)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("attribution.png"))
    options = parser.parse_args()
    model, test = trained(), images(40, seed=7)
    with torch.no_grad():
        test = test[model(test.inputs).argmax(1) == test.labels[:, 0]]
    pictures = to_rgb(test.inputs[:SHOWN].numpy())
    rows = []
    for name, (method, display) in METHODS.items():
        found = numbers(method, model, test)
        print(
            f"{name:<24} points at the glyph {found[0]:.2f}  deletion {found[1]:.2f}  random network {found[2]:.2f}",
            flush=True,
        )
        shown = maps_of(method(model, test.inputs[:SHOWN], test.labels[:SHOWN, 0])).numpy()
        rows.append(row(name, display, shown, pictures, found))
    names = [NAMES[label] for label in test.labels[:SHOWN, 0].tolist()]
    labels = HStack([Text([""], 216), *(Text([name], TILE, centered=True) for name in names)], gap=4)
    inputs = HStack([Text([""], 216), *(Tile((TILE, TILE), image) for image in pictures)], gap=4)
    half = -(-len(rows) // 2)
    columns = [VStack([labels, inputs, *part], gap=4) for part in (rows[:half], rows[half:])]
    words = [
        "points at it: share of maps whose maximum lies on the glyph  ·  deletion: area under the deletion curve, as a "
        "share of a random order's",
        "random net: rank correlation with the map of the same network with random weights",
    ]
    grids = HStack(columns, gap=24)
    sheet = draw(VStack([Text(words, draw(grids).width, color=GRAY), grids], gap=8))
    framed = Image.new("RGB", (sheet.width + 24, sheet.height + 24), "white")
    framed.paste(sheet, (12, 12))
    framed.save(options.out)
    print(f"{options.out}: {framed.width} x {framed.height}")


if __name__ == "__main__":
    main()
