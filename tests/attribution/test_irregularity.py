"""The gradient along a short walk: by loops, and what of it must not depend on how it is computed."""

import pytest
import torch

from lightning_viz.attribution import gradient_irregularity
from tests.attribution.nets import inputs, network


@pytest.mark.parametrize("pixel", [None, (3, 7)])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_curves_are_partial_derivatives_by_loops(pixel, batch_size):
    net, x = network("convolutional").eval(), inputs("convolutional")
    found = gradient_irregularity(
        net, x, [1, 0, 2], pixel=pixel, fraction=0.3, steps=5, seed=4, batch_size=batch_size
    )  # fmt: skip
    direction = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(4)).double()
    for n, label in enumerate([1, 0, 2]):
        slopes = []
        for t in (0, 0.25, 0.5, 0.75, 1):
            at = (x[n] + t * 0.3 * (x[n].max() - x[n].min()) * direction).requires_grad_()
            slopes.append(torch.autograd.grad(net(at[None])[0, label], at)[0])
        size = slopes[0].abs().sum(0)
        row, column = pixel or divmod(int(size.argmax()), x.shape[3])
        assert found.pixels[n].tolist() == [row, column]
        expected = torch.stack([slope[:, row, column] / slope.abs().max() for slope in slopes])
        assert torch.allclose(found.curves[n], expected, atol=1e-6) and expected.any()
    assert found.curves.shape == (3, 5, 3) and found.curves.abs().max() <= 1


@pytest.mark.parametrize("options", [{"steps": 1}, {"pixel": (12, 0)}, {"pixel": (0, -1)}])
def test_what_is_no_walk_is_an_error(options):
    with pytest.raises(ValueError, match=r"steps is 1|the images are 12 x 12"):
        gradient_irregularity(network("convolutional"), inputs("convolutional"), 1, **options)
    with pytest.raises(TypeError, match="needs images"):
        gradient_irregularity(network("perceptron"), torch.randn(3, 4), 1)
