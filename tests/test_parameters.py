"""What the weights show."""

import pytest
import torch
from torch import nn

from lightning_viz.parameters import (
    count_units,
    filter_images,
    first_layer,
    hides_inputs,
    importance,
    is_transposed,
    plane_layers,
)

EXTENT = (-1.0, 1.0, -1.0, 1.0)
SAMPLES = torch.tensor([[-0.5, -0.5], [0.5, 0.5], [0.5, -0.5]])


def counts(*units, samples=SAMPLES, extent=EXTENT):
    """Of units given as (w1, w2, b)."""
    table = torch.tensor(units, dtype=torch.float32)
    found = count_units(table[:, :2], table[:, 2], samples, extent)
    return found["dead"], found["duplicate"], found["out of view"]


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ([(1, 0, 0), (0, 1, 0)], (0, 0, 0)),
        ([(1, 0, -0.6)], (1, 0, 0)),  # in view, but positive on no sample
        ([(1, 0, -0.5)], (1, 0, 0)),  # zero on two samples is not positive
        ([(1, 0, -0.4)], (0, 0, 0)),
        ([(1, 0, -5)], (1, 0, 0)),  # dead goes before out of view
        ([(1, 0, 5)], (0, 0, 1)),  # positive everywhere: its line is far away
        ([(1, 0, 1.01)], (0, 0, 1)),
        ([(1, 1, 1.9)], (0, 0, 0)),  # cuts a corner
        ([(1, 1, 2.1)], (0, 0, 1)),
        ([(0, 0, 1)], (0, 0, 1)),  # no line at all
        ([(0, 0, -1)], (1, 0, 0)),
        ([(1, 0, 0), (3, 0, 0)], (0, 1, 0)),  # the same line
        ([(1, 0, 0), (-3, 0, 0)], (0, 1, 0)),  # from the other side
        ([(1, 0, 0.1), (-2, 0, -0.2)], (0, 1, 0)),
        ([(1, 0, 0.1), (-2, 0, 0.2)], (0, 0, 0)),  # mirrored, not the same
        ([(1, 0, 0.1), (2, 0, 0.2), (5, 0, 0.5)], (0, 2, 0)),
        ([(1, 0, 0), (1, 0, 0.019)], (0, 1, 0)),  # within a hundredth of the extent, 0.02
        ([(1, 0, 0), (1, 0, 0.021)], (0, 0, 0)),
        ([(1, 0, 0), (1, 0.0174, 0)], (0, 1, 0)),  # within a degree
        ([(1, 0, 0), (1, 0.0176, 0)], (0, 0, 0)),
        ([(1, 0, 5), (1, 0, 5)], (0, 0, 2)),  # each counts once
    ],
)
def test_units_that_do_not_show_as_a_line_of_their_own(units, expected):
    assert counts(*units) == expected


def test_the_extents_place_and_size_do_not_matter():
    """Units, samples and extent moved by (100, -50) and blown up by 10: the same counts."""
    units = [(1, 0, 0), (2, 0, 0.01), (1, 1, 2.1), (1, 0, -0.6), (0.3, -0.8, 0.2), (-0.3, 0.8, -0.2)]
    moved = [(w1, w2, 10 * b - 100 * w1 + 50 * w2) for w1, w2, b in units]
    there = SAMPLES * 10 + torch.tensor([100.0, -50.0])
    assert counts(*units) == counts(*moved, samples=there, extent=(90.0, 110.0, -60.0, -40.0)) == (1, 2, 1)


def test_filters_as_images_hold_each_weight_once_at_its_place():
    weight = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    assert torch.equal(filter_images(weight), weight)
    in_time = torch.arange(2 * 3 * 4 * 5 * 6.0).view(2, 3, 4, 5, 6)  # a 3-D convolution: slices, which are no filters
    assert torch.equal(filter_images(in_time), in_time)
    line = torch.arange(24.0).view(2, 3, 4)  # a 1-D convolution: curves
    assert torch.equal(filter_images(line), line)
    volume = torch.arange(2 * 24.0).view(2, 24)
    assert filter_images(volume, shape=(1, 2, 3, 4)).shape == (2, 1, 2, 3, 4)


def test_a_fully_connected_layers_weights_take_the_inputs_shape():
    weight = torch.arange(2 * 12.0).view(2, 12)
    assert filter_images(weight, shape=(3, 2, 2))[1, 2].tolist() == [[20, 21], [22, 23]]
    assert filter_images(weight, shape=(3, 4))[1, 0].tolist() == weight[1].view(3, 4).tolist()
    assert filter_images(weight, shape=(12,))[1, 0, 0].tolist() == weight[1].tolist()
    assert filter_images(weight, shape=(5, 5))[1, 0, 0].tolist() == weight[1].tolist()  # not as many: one row
    assert filter_images(weight)[0, 0, 0].tolist() == weight[0].tolist()


def test_the_first_layer_is_a_convolution_if_there_is_one():
    assert first_layer(nn.Sequential(nn.Linear(4, 4), nn.Conv2d(3, 4, 3))) == "1"
    assert first_layer(nn.Sequential(nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))) == "1"
    assert first_layer(nn.Sequential(nn.ReLU())) is None
    assert is_transposed(nn.ConvTranspose2d(3, 4, 2)) and not is_transposed(nn.Conv2d(3, 4, 2))


def test_layers_of_the_plane():
    assert plane_layers(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))) == ["0", "2"]
    assert plane_layers(nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))) == []
    assert plane_layers(nn.Sequential(nn.Conv1d(1, 1, 1), nn.Linear(2, 8))) == []
    assert plane_layers(nn.ReLU()) == []


def test_importance_is_the_share_of_the_largest_outgoing_norm():
    outgoing = torch.tensor([[3.0, 0.0, 1.0], [4.0, 0.0, 0.0]])
    assert importance(outgoing).tolist() == pytest.approx([1.0, 0.0, 0.2])
    assert importance(torch.zeros(2, 3)).tolist() == [0, 0, 0]


def test_behind_a_recurrent_layer_or_an_embedding_no_layer_is_first():
    assert first_layer(nn.ModuleList([nn.LSTM(6, 8), nn.Linear(8, 4)])) is None
    assert first_layer(nn.ModuleList([nn.Embedding(6, 8), nn.Linear(8, 4)])) is None
    assert first_layer(nn.ModuleList([nn.Linear(6, 8), nn.LSTM(8, 8)])) == "0"
    assert first_layer(nn.ModuleList([nn.Embedding(6, 8), nn.Conv2d(3, 4, 3)])) == "1"


def test_a_layer_that_is_not_the_first_is_not_taken_for_it():
    class Convolution(nn.Module):  # a graph's, with a linear layer of its package's own
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 3))

    assert first_layer(nn.Sequential(Convolution(), nn.Linear(4, 2))) is None
    assert hides_inputs(nn.Sequential(nn.BatchNorm1d(3), Convolution(), nn.Linear(4, 2))) == "1"
    assert first_layer(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), Convolution())) == "1"
