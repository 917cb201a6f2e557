"""The terms of FGSM's sum add up, and each has the class that the model says of it."""

import torch
from torch.nn import functional as F

from lightning_viz.adversarial import fgsm, fgsm_terms
from tests.adversarial.watching import grays, linear, watched
from tests.dream.conftest import Digits


def test_image_sign_and_sum_are_those_of_fgsm_each_with_its_prediction(digits: Digits) -> None:
    inputs, labels, space = digits.images[:6], digits.labels[:6], digits.pixel_space
    with watched(digits.model) as seen:
        terms = fgsm_terms(digits.model, inputs, labels, epsilon=0.1, pixel_space=space, batch_size=4)
    assert sum(seen.sizes) == int(terms.result.queries.sum()) == 18 and int(terms.result.backwards.sum()) == 6
    pixels = space.to_pixels(inputs).clamp(0, 1).requires_grad_()
    F.cross_entropy(digits.model.double()(space.to_inputs(pixels.double())), labels, reduction="sum").backward()
    digits.model.float()
    signs = pixels.grad.sign()
    assert (terms.signs == signs).float().mean() > 0.99  # but for gradients of nearly zero
    torch.testing.assert_close(terms.result.pixels, (pixels.detach() + 0.1 * terms.signs).clamp(0, 1))
    plain = fgsm(digits.model, inputs, labels, epsilon=0.1, pixel_space=space, stop_on_success=False)
    torch.testing.assert_close(terms.result.pixels, plain.pixels)
    assert torch.equal(terms.images, (terms.signs + 1) / 2)
    with torch.no_grad():
        confidences, classes = digits.model(space.to_inputs(terms.images)).softmax(1).max(1)
        last = digits.model(terms.result.inputs).softmax(1).max(1)
    assert torch.equal(terms.classes, classes)
    torch.testing.assert_close(terms.confidences, confidences)
    assert torch.equal(terms.result.record.classes[-1], last.indices)
    torch.testing.assert_close(terms.result.record.confidences[-1], last.values)


def test_a_target_is_led_to() -> None:
    model, images = linear(4), grays(3)
    target = model(images).argmin(1)
    terms = fgsm_terms(model, images, target=target, epsilon=0.2)
    losses = terms.result.record.confidences
    scores = [model(pixels).softmax(1).gather(1, target[:, None]) for pixels in (images, terms.result.pixels)]
    assert bool((scores[1] > scores[0]).all()) and losses.shape == (2, 3)
