"""Insertion and deletion curves on models whose curves are known on paper."""

import torch
from torch import nn

from lightning_viz.attribution import blurred, gradient, input_times_gradient
from lightning_viz.attribution.evaluation import deletion, insertion
from lightning_viz.hooks.targets import region
from tests.attribution.evaluation.test_evaluation import given, images, net, state


def linear(size=8, channels=3, classes=2, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))


def test_the_curves_of_a_linear_model_are_its_sums():
    """With zero as baseline the logit falls, place by place, by that place's weights times values."""
    model, x, size = linear(), images(3), 8
    weights = model[1].weight[1].detach().view(3, size, size)
    parts = (weights * x).sum(1).flatten(1)  # each place's share of the logit, [N, 64]
    heat = torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(3))
    sums = parts.gather(1, heat.flatten(1).argsort(1, descending=True)).cumsum(1)
    bias, options = model[1].bias[1].detach(), {"steps": 64, "probabilities": False, "baseline": 0.0}
    deleted = deletion(given(heat), model, x, 1, **options)
    inserted = insertion(given(heat), model, x, 1, **options)
    assert torch.allclose(deleted.scores[:, 1:], parts.sum(1, keepdim=True) + bias - sums, atol=1e-5)
    assert torch.allclose(inserted.scores[:, 1:], bias + sums, atol=1e-5)
    assert torch.allclose(deleted.fractions, torch.linspace(0, 1, 65))
    rows = deleted.scores
    trapezia = ((rows[:, 1:] + rows[:, :-1]) / 2).mean(1)
    assert torch.allclose(deleted.areas, trapezia, atol=1e-5)


def test_no_order_beats_that_of_the_true_shares():
    model, x = linear(), images(8)
    true = given(input_times_gradient(model, x, 0).sum(1, keepdim=True) + 100)  # positive: the sign is kept
    options = {"steps": 64, "probabilities": False}
    best = deletion(true, model, x, 0, **options).areas
    chance = [deletion(given(torch.zeros(8, 1, 8, 8)), model, x, 0, seed=seed, **options).areas for seed in range(5)]
    other = deletion(gradient, model, x, 0, **options).areas
    assert all((best < areas).all() for areas in [*chance, other])
    worst = insertion(true, model, x, 0, baseline=0.0, **options).areas
    assert (worst > insertion(gradient, model, x, 0, baseline=0.0, **options).areas).all()


def test_a_constant_map_is_a_random_order_by_seed():
    model, x = linear(), images(2)
    constant, options = torch.ones(2, 1, 8, 8), {"steps": 64, "probabilities": False}
    shuffled = torch.randperm(64, generator=torch.Generator().manual_seed(4)).argsort()  # each place's turn
    ordered = (64.0 - shuffled).view(1, 1, 8, 8).expand(2, 1, 8, 8)
    mine = deletion(given(constant), model, x, 0, seed=4, **options)
    same, other = (
        deletion(given(maps), model, x, 0, seed=seed, **options) for maps, seed in ((ordered, 0), (constant, 5))
    )
    assert torch.allclose(mine.scores, same.scores, atol=1e-6)  # batches of another size round otherwise
    assert not torch.allclose(mine.scores, other.scores, atol=1e-3)


def test_scores_are_probabilities_by_default():
    model, x = linear(classes=3), images(4)
    labels = torch.tensor([0, 2, 1, 2])
    curve = insertion(gradient, model, x, labels, steps=3)
    ends = [model(image).softmax(1).gather(1, labels[:, None])[:, 0].detach() for image in (blurred(x), x)]
    assert torch.allclose(curve.scores[:, 0], ends[0], atol=1e-6)
    assert torch.allclose(curve.scores[:, -1], ends[1], atol=1e-6)
    one = linear(classes=1)
    assert torch.allclose(deletion(gradient, one, x, steps=2).scores[:, 0], one(x)[:, 0].sigmoid(), atol=1e-6)
    of_output = deletion(gradient, model, x, lambda out: out[:, 2] - out[:, 0], steps=2)
    assert torch.allclose(of_output.scores[:, 0], (model(x)[:, 2] - model(x)[:, 0]).detach(), atol=1e-6)


def test_the_class_followed_is_the_one_predicted_for_the_whole_image():
    model, x = linear(classes=5), images(6)
    curve = deletion(gradient, model, x, steps=8)
    named = deletion(gradient, model, x, model(x).argmax(1), steps=8)
    assert torch.allclose(curve.scores, named.scores, atol=1e-6)
    assert (curve.scores[:, -1] < 0.9).all()  # at the end another class may lead; its probability is not what is shown


def test_the_numbers_do_not_depend_on_the_batch():
    model, x = net(), images(5)
    whole = deletion(gradient, model, x, steps=9)
    for size in (1, 7, 1000):
        assert torch.allclose(deletion(gradient, model, x, steps=9, batch_size=size).scores, whole.scores, atol=1e-6)
    alone = deletion(gradient, model, x[2:3], steps=9)
    assert torch.allclose(alone.scores[0], whole.scores[2], atol=1e-6)


def test_a_dense_output_is_followed_over_a_region():
    torch.manual_seed(0)
    model, x = nn.Conv2d(3, 4, 1), images(2)
    mask = torch.zeros(2, 8, 8)
    mask[0, :4], mask[1, 4:] = 1, 1
    curve = deletion(gradient, model, x, region(mask, 2), steps=4)
    assert torch.allclose(curve.scores[:, 0], (model(x)[:, 2] * mask).sum((1, 2)).detach(), atol=1e-4)


def test_curves_leave_the_model_as_found_and_ask_for_no_gradient():
    model, x = net(), images()
    before, traced = state(model), []
    model.register_forward_hook(lambda module, inputs, output: traced.append(output.requires_grad))
    deletion(given(x), model, x, steps=5), insertion(given(x), model, x, steps=5)
    assert not any(traced) and state(model) == before


def test_blurred_keeps_what_is_smooth_and_takes_what_is_fine():
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    assert torch.allclose(blurred(ramp)[..., 5:-5], ramp[..., 5:-5], atol=1e-4)
    checks = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).float().expand(1, 1, 32, 32)
    assert (blurred(checks)[..., 5:-5, 5:-5] - 0.5).abs().max() < 0.02
    noise = images(3, 32)
    assert torch.allclose(blurred(noise)[1, 2], blurred(noise[1:2, 2:3])[0, 0], atol=1e-6)  # each channel by itself
    assert blurred(images(1, 4)).shape == (1, 3, 4, 4)
