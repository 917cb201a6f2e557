"""Detections, whatever their form, and the target that fixes one of them."""

import pytest
import torch
from torch import nn

from lightning_viz.attribution import grad_cam, gradient, occlusion, smooth_grad
from lightning_viz.errors import AttributionWarning, InvalidArgumentError
from lightning_viz.hooks import Activations, box, detections_of, observe, parse_target, select_layers
from lightning_viz.hooks.observe import resolve_target

from ..detectors import SquareDetector, faster_rcnn, squares

images, truths = squares()


@pytest.fixture(scope="module")
def torchvision_detector():
    return faster_rcnn()


@pytest.fixture
def detector():
    return SquareDetector().eval()


def test_box_gradient_equals_autograd_on_torchvisions_own_forward(torchvision_detector):
    generator = torch.Generator().manual_seed(1)
    pictures = [torch.rand(3, 64, 96, generator=generator), torch.rand(3, 80, 64, generator=generator)]
    leaves = [picture.clone().requires_grad_() for picture in pictures]
    scores = [image["scores"] for image in torchvision_detector(leaves)]
    for index in (0, 2):
        expected = torch.autograd.grad(sum(part[index] for part in scores), leaves, retain_graph=True)
        for ours, reference in zip(gradient(torchvision_detector, pictures, box(index)), expected, strict=True):
            assert reference.abs().max() > 1e-5
            torch.testing.assert_close(ours, reference, atol=1e-6, rtol=1e-6)


def test_moved_box_gradient_equals_autograd_of_score_times_overlap(detector):
    """After the image has changed, the overlap with the fixed box counts in the value and in the gradient."""
    fixed = resolve_target(detector, images, "box[0]")
    moved = [(image * 0.8).requires_grad_() for image in images]
    found = [detector([image])[0] for image in moved]
    values = []
    for image, corners in zip(found, fixed.boxes, strict=True):
        low = torch.maximum(image["boxes"][0, :2], corners[:2])
        shared = (torch.minimum(image["boxes"][0, 2:], corners[2:]) - low).prod()
        values.append(image["scores"][0] * shared / (128 - shared))
    expected = torch.autograd.grad(sum(values), moved)
    observation = observe(detector, [image.detach() for image in moved], fixed)
    torch.testing.assert_close(observation.scores, torch.stack(values).detach())
    assert (observation.scores < torch.stack([image["scores"][0] for image in found])).all()
    for ours, reference in zip(gradient(detector, [image.detach() for image in moved], fixed), expected, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-6, rtol=1e-6)


def test_target_keeps_class_and_box_when_another_becomes_the_most_confident(detector):
    fixed = resolve_target(detector, images, "box[0]")
    assert fixed.labels.tolist() == [1, 1] and fixed.boxes[:, :2].round().tolist() == [[4, 2], [4, 4]]
    faded = [image.clone() for image in images]
    for image in faded:
        image[0] = 0.1  # only the blue square is left
    assert [detections.labels.tolist() for detections in observe(detector, faded).detections] == [[2], [2]]
    assert observe(detector, faded, fixed).scores.tolist() == [0, 0]
    assert (observe(detector, faded).scores > 0.25).all()


def test_a_detector_s_default_target_is_its_most_confident_detection(detector):
    default, first, predicted = (gradient(detector, images, target) for target in (None, "box[0]", "predicted"))
    second = gradient(detector, images, "box[1]")
    for index in range(2):
        assert torch.equal(default[index], first[index]) and torch.equal(predicted[index], first[index])
        assert default[index].shape == images[index].shape
        assert first[index][0].abs().sum() > 0 and second[index][2, -10:-2, -10:-2].abs().sum() > 0
        assert second[index][:, :12, :12].abs().sum() == 0


def test_lists_tensors_and_a_plain_function_give_the_same(detector):
    same = [images[0], images[0].flip(2)]
    by_list = gradient(detector, same)
    by_tensor = gradient(detector, torch.stack(same))
    by_function = gradient(detector, same, forward=lambda model, given: model([image * 1.0 for image in given]))
    for index in range(2):
        torch.testing.assert_close(by_list[index], by_tensor[index])
        torch.testing.assert_close(by_list[index], by_function[index])
    assert observe(detector, same).inputs.tensors[1].tolist() == [[24, 32], [24, 32]]


def test_occlusion_and_noise_find_the_object(detector):
    maps = occlusion(detector, images, patch=8, stride=4, progress=False)
    noisy = smooth_grad(detector, images, noise_samples=4, fraction=0.05, progress=False)
    for index, (image, truth) in enumerate(zip(images, truths, strict=True)):
        left, top, right, bottom = truth["boxes"][0].int().tolist()
        inside = torch.zeros(maps.heat.shape[2:], dtype=torch.bool)
        inside[top:bottom, left:right] = True
        heat = maps.heat[index, 0]
        assert heat[inside].mean() > 5 * heat[~inside].mean().abs()
        assert heat[image.shape[1] + 8 :].abs().sum() == 0, "the padding is no part of the image"
        assert noisy[index].shape == image.shape and noisy[index][0, top:bottom, left:right].sum() > 0


def test_merged_maps_are_the_mean_of_the_normalized_ones_on_the_image_alone(torchvision_detector):
    generator = torch.Generator().manual_seed(2)
    pictures = [torch.rand(3, 64, 96, generator=generator), torch.rand(3, 60, 64, generator=generator)]
    layers = ["backbone.body.13", "backbone.body.16"]
    by_layer = grad_cam(torchvision_detector, pictures, layers=layers)
    merged = grad_cam(torchvision_detector, pictures, layers=layers, merge=True)["merged"]
    assert merged.shape == (2, 1, 64, 96)
    sizes, resized, batch = [(64, 96), (60, 64)], [(64, 96), (64, 68)], (64, 96)
    for index, ((height, width), (tall, wide)) in enumerate(zip(sizes, resized, strict=True)):
        parts = []
        for heat in by_layer.values():
            enlarged = nn.functional.interpolate(heat[index : index + 1], batch, mode="bilinear")[..., :tall, :wide]
            part = nn.functional.interpolate(enlarged, (height, width), mode="bilinear")[0, 0]
            parts.append(part / part.max())
        expected = torch.stack(parts).mean(0)
        torch.testing.assert_close(merged[index, 0, :height, :width], expected, atol=0.05, rtol=0)
    assert merged[1, 0, 60:].sum() == merged[1, 0, :, 64:].sum() == 0


def test_default_layer_of_a_torchvision_detector_is_its_backbone_s(torchvision_detector):
    assert list(select_layers(torchvision_detector, "last_maps")) == ["backbone.body.16"]
    assert list(select_layers(nn.ModuleDict({"net": torchvision_detector}), "last_conv")) == ["net.backbone.body.16.0"]


def test_an_image_without_detections_is_said_and_explains_nothing(detector):
    given = [images[0], torch.zeros(3, 24, 32)]
    with pytest.warns(AttributionWarning, match=r"box\[0\]: no detection above 0.05 in images \[1\]"):
        observation = observe(detector, given, input_gradient=True)
    assert observation.targets.tolist() == [1, -1]
    assert observation.scores[1] == 0 and observation.input_gradient.tensors[0][1].abs().sum() == 0


def test_training_mode_is_left_and_the_losses_are_not_taken_for_detections(detector):
    detector.train()
    expected = gradient(SquareDetector().eval(), images)
    for ours, reference in zip(gradient(detector, images), expected, strict=True):
        assert torch.equal(ours, reference)
    assert detector.training
    assert detections_of(detector(images)) is None
    assert [len(part) for part in detections_of(({"loss": torch.ones(())}, detector.eval()(images)))] == [2, 2]


@pytest.mark.parametrize("form", ["dict", "object"])
def test_queries_with_logits_and_boxes(form):
    """Softmax without the last class; boxes are centers and sizes in shares of the image."""
    logits = torch.tensor([[[0.0, 2.0, 0.0], [0.0, 0.0, 9.0]]], requires_grad=True)
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.1, 0.1]]])
    outputs = {"logits": logits, "pred_boxes": boxes}
    (image,) = detections_of(outputs if form == "dict" else type("Outputs", (), outputs)())
    assert image.labels.tolist()[0] == 1 and image.scores[0] > 0.7 > 0.1 > image.scores[1]
    torch.testing.assert_close(image.in_pixels(10, 20)[0], torch.tensor([8.0, 3.0, 12.0, 7.0]))
    scores = box().scores(Activations({}, outputs))
    (ours,) = torch.autograd.grad(scores.values.sum(), logits)
    (expected,) = torch.autograd.grad(logits.softmax(-1)[0, 0, 1], logits)
    torch.testing.assert_close(ours, expected)


def test_grammar_and_what_a_detector_has_not(detector):
    assert parse_target("box[2]").index == 2 and parse_target("box[0]") is not None
    for target in (3, "top:2", torch.tensor([1, 2])):
        with pytest.raises(InvalidArgumentError, match=r"the model is a detector.*'box\[0\]'"):
            gradient(detector, images, target)
    with pytest.raises(InvalidArgumentError, match=r"box\[0\]: the model returns Tensor without boxes and scores"):
        gradient(nn.Flatten(), torch.rand(2, 3, 4, 4), "box[0]")
    with pytest.raises(InvalidArgumentError, match="was fixed on 2 images, not 1"):
        gradient(detector, images[:1], resolve_target(detector, images, "box[0]"))
