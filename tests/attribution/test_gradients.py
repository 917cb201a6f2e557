"""The gradient, SmoothGrad and integrated gradients against plain loops and closed forms."""

import pytest
import torch
from torch import nn

from lightning_viz.attribution import gradient, input_times_gradient, integrated_gradients, smooth_grad
from lightning_viz.errors import NoGradientError


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3), nn.Tanh(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 5),
    )  # fmt: skip


def images(count=3, size=10, seed=1):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def by_autograd(model, x, target):
    model.eval()
    leaf = x.clone().requires_grad_()
    found = torch.autograd.grad(model(leaf).gather(1, target[:, None]).sum(), leaf)[0]
    model.train()
    return found


def noisy_gradients(model, x, target, samples, fraction, seed):
    """The mean over explicit copies, one sample and one copy at a time; the noise drawn copy by copy."""
    generator = torch.Generator().manual_seed(seed)
    noises = [torch.randn(x.shape[1:], generator=generator) for _ in range(samples)]
    means = []
    for sample, label in zip(x, target, strict=True):
        sigma = fraction * (sample.max() - sample.min())
        maps = [by_autograd(model, (sample + sigma * noise)[None], label[None])[0] for noise in noises]
        means.append(sum(maps) / samples)
    return torch.stack(means)


@pytest.mark.parametrize("fraction", [0.15, 0.5])
def test_smooth_grad_is_the_mean_over_noisy_copies(fraction):
    model, x, target = network(), images(3) * torch.tensor([1.0, 4.0, 0.1]).view(3, 1, 1, 1), torch.tensor([0, 3, 2])
    mine = smooth_grad(model, x, target, noise_samples=9, fraction=fraction, seed=5, batch_size=7)
    reference = noisy_gradients(model, x, target, 9, fraction, 5)
    assert (mine - reference).abs().max() <= 1e-5 * reference.abs().max()
    assert (mine - gradient(model, x, target)).abs().max() > 0.01 * reference.abs().max()  # the noise matters
    other = smooth_grad(model, x, target, noise_samples=9, fraction=fraction, seed=6)
    assert (mine - other).abs().max() > 0.01 * reference.abs().max()


def test_smooth_grad_of_no_noise_is_the_gradient():
    model, x = network(), images(2)
    plain = gradient(model, x, 1)
    assert torch.allclose(smooth_grad(model, x, 1, noise_samples=3, fraction=0.0), plain, atol=1e-6)
    flat = torch.full((1, 3, 10, 10), 0.7)  # a sample without range gets no noise
    assert torch.allclose(smooth_grad(model, flat, 1, noise_samples=3), gradient(model, flat, 1), atol=1e-6)


def test_smooth_grad_explains_the_class_predicted_for_the_clean_input():
    """Not the one predicted for each noisy copy: near a border those differ."""

    class Border(nn.Module):
        def forward(self, x):
            return torch.stack([x.flatten(1).sum(1) + 0.01, -x.flatten(1).sum(1)], 1)

    x = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    assert torch.equal(smooth_grad(Border(), x, noise_samples=8, fraction=0.5), torch.ones(2, 2))


class Captioned(nn.Module):
    """An image, a text in token numbers, and an input that is not used."""

    def __init__(self):
        super().__init__()
        self.image, self.words, self.head = nn.Linear(6, 4), nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, image, words, unused):
        return self.head(self.image(image).tanh() * self.words(words).mean(1))


@pytest.mark.parametrize("form", [tuple, dict])
@pytest.mark.parametrize("method", [gradient, smooth_grad])
def test_several_inputs_whole_numbers_and_unused_ones_among_them(form, method):
    torch.manual_seed(0)
    model, image, words = Captioned(), torch.randn(2, 6), torch.tensor([[1, 2], [8, 3]])
    values = {"image": image, "words": words, "unused": torch.randn(2, 2)}
    found = method(model, values if form is dict else tuple(values.values()), [2, 1])
    of_image, of_words, of_unused = found.values() if form is dict else found
    assert type(found) is form and of_words is None and of_unused is None
    plain = by_autograd(ImageOnly(model, words), image, torch.tensor([2, 1]))
    if method is gradient:
        assert torch.allclose(of_image, plain, atol=1e-6)
    else:
        assert torch.cosine_similarity(of_image.flatten(), plain.flatten(), 0) > 0.9
        assert not torch.allclose(of_image, plain, atol=1e-3)


class ImageOnly(nn.Module):
    def __init__(self, model, words):
        super().__init__()
        self.model, self.words = model, words

    def forward(self, image):
        return self.model(image, self.words, None)


def test_a_target_function_and_a_forward_of_ones_own():
    model, x = network(), images(2)
    difference = gradient(model, x, lambda logits: logits[:, 1] - logits[:, 0])
    assert torch.allclose(difference, gradient(model, x, 1) - gradient(model, x, 0), atol=1e-6)
    doubled = smooth_grad(model, x, 1, noise_samples=2, forward=lambda net, given: 2 * net(given))
    assert torch.allclose(doubled, 2 * smooth_grad(model, x, 1, noise_samples=2), atol=1e-6)


@pytest.mark.parametrize("cut", ["detach", "no_grad", "constant"])
@pytest.mark.parametrize("method", [gradient, smooth_grad])
def test_an_input_that_gradients_do_not_reach_is_an_error(cut, method):
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            if cut == "no_grad":
                with torch.no_grad():
                    return self.fc(x)
            return self.fc(x.detach() if cut == "detach" else torch.ones_like(x))

    with pytest.raises(NoGradientError, match="does not depend on the input: does the model detach it, or use no_grad"):
        method(Cut(), torch.randn(2, 4), 1)


@pytest.mark.parametrize("options", [{"noise_samples": 0}, {"batch_size": 0}, {"noise_samples": -1}])
def test_smooth_grad_needs_copies(options):
    with pytest.raises(ValueError, match=r"1 or more|at least 1"):
        smooth_grad(network(), images(1), 0, **options)


def test_the_noise_does_not_depend_on_torchs_default_type():
    model, x = network(), images()
    expected = smooth_grad(model, x, 1, noise_samples=3)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.allclose(smooth_grad(model, x, 1, noise_samples=3), expected, atol=1e-6)
    finally:
        torch.set_default_dtype(torch.float32)


def test_half_precision_adds_up():
    """The mean of 200 times the same number is that number, where each sum would lose bits."""
    model = nn.Linear(6, 3).bfloat16()
    x = torch.randn(4, 6).bfloat16()
    plain = gradient(model, x, 1)
    assert torch.equal(smooth_grad(model, x, 1, noise_samples=200), plain)
    assert torch.equal(integrated_gradients(model, x, 1, steps=200), plain * x)


# --- Gradients times inputs.


class Powers(nn.Module):
    """Of which integrals are known: a square and a cube."""

    def forward(self, x):
        return torch.stack([x.pow(2).sum(1), x.pow(3).sum(1)], 1)


@pytest.mark.parametrize(("label", "power"), [(0, 2), (1, 3)])
def test_integrated_gradients_are_the_integral(label, power):
    x = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]], dtype=torch.float64)
    start = torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64)
    found = integrated_gradients(Powers(), x, label, baseline=start, steps=3)  # of 3 nodes the weights differ
    assert torch.allclose(found, x**power - start**power, atol=1e-12)
    assert torch.allclose(input_times_gradient(Powers(), x, label), power * x**power, atol=1e-12)


def test_integrated_gradients_add_up_to_what_the_target_gains():
    model, x = network().double().eval(), images().double()
    start = images(seed=2).double()
    found = integrated_gradients(model, x, [1, 0, 2], baseline=start, steps=300)
    with torch.no_grad():
        gain = (model(x) - model(start))[range(3), [1, 0, 2]]
    assert torch.allclose(found.flatten(1).sum(1), gain, rtol=0.01)  # as far as ReLUs that turn on the way allow


def test_input_times_gradient_adds_up_to_the_target_where_there_are_no_biases():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 4, bias=False)
    )
    x = images()
    with torch.no_grad():
        logits = model(x)[:, 2]
    assert torch.allclose(input_times_gradient(model, x, 2).flatten(1).sum(1), logits, atol=1e-5)


@pytest.mark.parametrize("form", [tuple, dict])
def test_each_input_has_its_own_baseline(form):
    torch.manual_seed(0)
    model, image, words = Captioned(), torch.randn(2, 6), torch.tensor([[1, 2], [8, 3]])
    values = {"image": image, "words": words, "unused": torch.randn(2, 2)}
    starts = {"image": torch.randn(6), "words": words, "unused": torch.zeros(1)}
    given, start = (each if form is dict else tuple(each.values()) for each in (values, starts))
    found = integrated_gradients(model, given, 1, baseline=start, steps=40)
    of_image, of_words, of_unused = found.values() if form is dict else found
    assert of_words is None and of_unused is None
    model.eval()
    with torch.no_grad():
        gain = model(image, words, None)[:, 1] - model(starts["image"].expand(2, 6), words, None)[:, 1]
    assert torch.allclose(of_image.sum(1), gain, atol=1e-5)


@pytest.mark.parametrize("mask", [torch.tensor([[True, False]] * 2), torch.tensor([[1, 0]] * 2, dtype=torch.uint8)])
def test_a_mask_among_the_inputs_stays_as_it_is(mask):
    class Masked(nn.Module):
        def forward(self, x, mask):
            return x**2 * mask

    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    of_x, of_mask = integrated_gradients(Masked(), (x, mask), 0, steps=4)
    assert of_mask is None
    assert torch.allclose(of_x, torch.tensor([[1.0, 0.0], [9.0, 0.0]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0: give 1 or more"),
        ({"batch_size": -1}, "batch_size=-1 must be at least 1"),
        ({"baseline": torch.zeros(7)}, r"baselines are \[\[7\]\], the inputs \[\[2, 3\]\]: they must broadcast"),
    ],
)
def test_what_integrated_gradients_cannot_do_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        integrated_gradients(Powers(), torch.ones(2, 3), 0, **options)
