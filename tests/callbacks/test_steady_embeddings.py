"""Sliding through the steps, nothing on the card of embeddings moves but the points."""

from io import BytesIO

import pytest
import torch
from PIL import Image, ImageSequence
from sklearn.datasets import load_digits, load_wine
from torch import nn

from lightning_viz import LayerEmbeddings
from lightning_viz.callbacks import draw_task
from lightning_viz.callbacks.frames import animations
from lightning_viz.render.layout import draw
from lightning_viz.render.page import lay_out
from lightning_viz.render.parts import HStack, ScatterPlot, Text, VStack

from .conftest import Net, fit, loader

STEPS = 6


class Layers(Net):
    """A few layers."""

    def __init__(self, *layers):
        super().__init__()
        self.first, self.second, self.third = layers

    def forward(self, x):
        return self.third(torch.tanh(self.second(torch.tanh(self.first(x)))))


def digits():
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels[:60], dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    convolutions = (nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3))
    return Layers(*convolutions, nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), images, torch.tensor(labels[:60])


def wine():
    measures, labels = load_wine(return_X_y=True)
    vectors = torch.tensor(measures[::3] / measures.max(0), dtype=torch.float32)
    return Layers(nn.Linear(13, 8), nn.Linear(8, 4), nn.Linear(4, 3)), vectors, torch.tensor(labels[::3])


def words():
    generator = torch.Generator().manual_seed(0)
    tokens, labels = torch.randint(0, 9, (60, 5), generator=generator), torch.arange(60) % 2
    pooled = nn.Sequential(nn.Flatten(), nn.Linear(20, 8))
    return Layers(nn.Embedding(10, 4), pooled, nn.Linear(8, 2)), tokens + labels[:, None], labels


def places(part, left=0, top=0):
    """Kind, corner and size of every part that stands by itself."""
    if not isinstance(part, VStack):
        yield type(part), left, top, draw(part).size
        return
    for child in part.parts:
        yield from places(child, left, top)
        width, height = draw(child).size
        left, top = (left + width + part.gap, top) if isinstance(part, HStack) else (left, top + height + part.gap)


@pytest.mark.parametrize("data", [digits, wine, words])
@pytest.mark.filterwarnings("ignore:lightning_viz")
def test_nothing_on_the_card_moves_but_the_points(data, tmp_path, drawn_at_once, monkeypatch):
    pages = []
    monkeypatch.setattr(draw_task, "lay_out", lambda page: (pages.append(page), lay_out(page))[1])
    model, inputs, labels = data()
    view = LayerEmbeddings(every_n_train_steps=2)
    torch.nn.init.normal_(model.third.weight if hasattr(model.third, "weight") else model.third[1].weight)
    fit(tmp_path, model, [view], loader(inputs, labels, batch_size=-(-len(labels) // STEPS)))
    cards = [page for page in pages if getattr(page, "tag", "") == "embedding/every_layer"]
    assert [page.step for page in cards] == [0, 2, 4, 6]
    first = list(places(cards[0].body))
    for page in cards[1:]:
        assert list(places(page.body)) == first
        assert len(page.details) == len(cards[0].details)
    panels = [list(page.parts(ScatterPlot)) for page in cards]
    assert any((before.points != now.points).any() for before, now in zip(panels[0], panels[-1], strict=True))
    names = [[text.lines[0] for text in page.parts(Text)][:-1:2] for page in cards]
    assert all(row == names[0] for row in names)
    pictures = drawn_at_once.pictures("embedding/every_layer")
    assert len({(picture.width, picture.height) for picture in pictures.values()}) == 1
    ((_, task),) = animations(view.frames)
    frames = list(ImageSequence.Iterator(Image.open(BytesIO(task.draw().pictures[0].image))))
    assert {frame.size for frame in frames} == {(pictures[0].width, pictures[0].height)} and len(frames) == 4
