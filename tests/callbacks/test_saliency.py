"""What the saliency view does where there is nothing to see."""

from dataclasses import replace

import pytest
import torch

from lightning_viz import Saliency
from lightning_viz.attribution import smooth_grad
from lightning_viz.callbacks.probe import Samples
from lightning_viz.callbacks.snapshot import Snapshot
from lightning_viz.errors import NoGradientError
from lightning_viz.hooks import Observation


def sketch(inputs, gradient):
    look = Snapshot(Observation(inputs, input_gradient=gradient), Samples(inputs, None, head=2), step=0)
    view = Saliency()
    return next(iter(view.draw(replace(look, extra=view.compute(torch.nn.Identity(), look)))))


def test_the_gradient_drawn_is_the_images_among_several_inputs():
    image, tokens = torch.rand(2, 3, 4, 4), torch.zeros(2, 5, dtype=torch.long)
    slope = torch.randn_like(image)
    for inputs, gradient in [
        (image, slope),
        ((tokens, image), (None, slope)),
        ({"tokens": tokens, "nested": [image]}, {"tokens": None, "nested": [slope]}),
    ]:
        assert torch.equal(torch.as_tensor(sketch(inputs, gradient).arguments["maps"]), slope)


@pytest.mark.parametrize("gradient", [None, (None, torch.ones(2, 1))])
def test_a_gradient_that_was_not_seen_is_not_drawn_as_zero(gradient):
    inputs = (torch.rand(2, 3, 4, 4), torch.rand(2, 1))
    with pytest.raises(NoGradientError, match="does not depend on the input"):
        sketch(inputs, gradient)


@pytest.mark.parametrize("target", ["predicted", "label", 2])
def test_smooth_grad_explains_its_own_target_whatever_the_shared_pass_explained(target):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4), torch.nn.Tanh())
    images = torch.rand(2, 1, 4, 4)
    predicted = model(images).argmax(1)
    labels = (predicted + 1) % 4
    seen = Observation(images, labels=labels, targets=(predicted + 2) % 4)  # another view's target led the pass
    look = Snapshot(seen, Samples(images, labels, head=2), step=0)
    wanted = {"predicted": predicted, "label": labels}.get(target, target)
    found = Saliency(method="smooth_grad", target=target, noise_samples=4).compute(model, look)["maps"]
    assert torch.allclose(found, smooth_grad(model, images, wanted, noise_samples=4))


@pytest.mark.parametrize("statistic", ["mean", "variance"])
def test_any_method_toward_the_pixels_may_be_averaged_over_noise(statistic):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    torch.nn.init.uniform_(model[3].weight)  # no map is zero
    images = torch.rand(2, 1, 4, 4)
    labels = torch.tensor([1, 3])
    look = Snapshot(Observation(images, labels=labels), Samples(images, labels, head=2), step=0)
    view = Saliency(method="guided_backprop", noise_samples=4, statistic=statistic)
    wanted = smooth_grad(model, images, [1, 3], of="guided_backprop", noise_samples=4, statistic=statistic)
    assert torch.allclose(view.compute(model, look)["maps"], wanted) and wanted.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "guided_grad_cam", "noise_samples": 3}, "maps of guided_grad_cam are not averaged over noise"),
        ({"statistic": "variance"}, "noise_samples= with it"),
        ({"method": "smooth_grad", "statistic": "median"}, "one of .'mean', 'squared', 'variance'."),
    ],
)
def test_what_cannot_be_averaged_is_an_error(options, words):
    with pytest.raises(ValueError, match=words):
        Saliency(**options)
