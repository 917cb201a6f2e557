"""In which form inputs are shown, and how they get there."""

import pytest
import torch
from torch import nn

from lightning_viz.callbacks.display import arrange, input_form, shown_inputs

FORMS = [
    (nn.Conv1d(3, 4, 3), (3, 20), "series"),
    (nn.Conv1d(3, 4, 3), (20, 3), "sequence"),
    (nn.LSTM(6, 8), (24, 6), "sequence"),
    (nn.Linear(6, 8), (24, 6), "sequence"),
    (nn.Conv2d(1, 4, 3), (28, 28), "matrix"),
    (nn.Linear(784, 8), (28, 28), "matrix"),
    (nn.Conv1d(1, 4, 3), (400,), "wave"),
    (nn.Linear(16, 4), (16,), "vector"),
    (nn.Conv2d(3, 4, 3), (3, 8, 8), "image"),
    (nn.Conv3d(1, 4, 3), (1, 4, 8, 8), "volume"),
]


@pytest.mark.parametrize(("model", "shape", "form"), FORMS)
def test_the_form_of_inputs_is_told_by_the_first_layer(model, shape, form):
    inputs = torch.rand(2, *shape)
    assert input_form(model, inputs) == form
    shown = shown_inputs(inputs, form, None)
    dimensions = {"series": 3, "sequence": 3, "wave": 3, "volume": 5}.get(form, 4)
    assert shown.ndim == dimensions


def test_sequences_are_turned_to_channels_over_time():
    inputs = torch.rand(2, 24, 6)
    assert torch.equal(arrange(inputs, "sequence")[1, 2], inputs[1, :, 2])
    assert arrange(torch.rand(5, 2, 16), "vector", lead=2).shape == (5, 2, 1, 1, 16)
