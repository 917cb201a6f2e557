"""Images as they are written down: where they start, what their parameters mean, how they keep to the pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_viz.dream import cppn, displayed, fourier, maco, pixels
from lightning_viz.dream.parametrization import squashed, unsquashed
from lightning_viz.pixels import PixelSpace

SHAPES = [(1, 28, 28), (3, 17, 23), (6, 64, 64), (2, 8, 31), (1, 33, 9), (4, 1, 7)]
SPACES = [
    PixelSpace(),
    PixelSpace((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    PixelSpace((0.02,), (0.3,)),
    PixelSpace((0.5,), (0.5,)),
    PixelSpace((120.0,), (60.0,), (0.0, 255.0)),
]


def generators(count, first=0):
    return [torch.Generator().manual_seed(first + number) for number in range(count)]


def random_inside(pixel_space):
    low, high = pixel_space.bounds
    inside = torch.from_numpy(np.random.default_rng(0).uniform(0.01, 0.99, (2, 3, 9, 8)))
    return pixel_space.to_inputs(low + (high - low) * inside)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", [pixels, fourier, maco, cppn])
def test_an_image_is_its_generators_own_whatever_the_batch(kind, shape):
    image = kind(shape)
    together = image.draw(image.parameters(generators(3)))
    assert together.shape == (3, *shape)
    for number in range(3):
        alone = image.draw(image.parameters(generators(1, number)))
        torch.testing.assert_close(together[number], alone[0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", [pixels, fourier, maco, cppn])
def test_every_parameter_but_a_networks_hidden_ones_moves_the_image_from_the_start(kind, shape):
    image = kind(shape)
    parameters = [one.double().requires_grad_() for one in image.parameters(generators(1))]
    drawn = image.draw(parameters)
    assert drawn.dtype == torch.float64
    weights = torch.randn(drawn.shape, generator=torch.Generator().manual_seed(0), dtype=drawn.dtype)
    *hidden, last = torch.autograd.grad((drawn * weights).sum(), parameters)
    if kind is fourier:
        last = last[..., 0]  # where a coefficient is its own mirror image, its imaginary part is not seen
    assert last.ne(0).all()
    assert all(one.isfinite().all() for one in hidden)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 23), (6, 64, 64), (2, 8, 31), (3, 33, 8)], ids=str)
@pytest.mark.parametrize("decay", [0.0, 1.0, 2.0])
def test_a_fourier_start_has_the_deviation_that_it_is_said_to_have(shape, decay):
    deviation = 0.5
    image = fourier(shape, decay=decay, deviation=deviation)
    start = image.draw(image.parameters(generators(400 if decay else 50)))
    assert start.square().mean().sqrt().item() == pytest.approx(deviation, rel=0.06)
    assert fourier(shape).deviation == 0.01


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 17, 23), (6, 16, 9)], ids=str)
def test_fourier_images_are_numpys_inverse_transform(shape):
    image = fourier(shape, decay=1.0)
    (parameters,) = (one.double() for one in image.parameters(generators(2)))
    drawn = image.draw([parameters]).numpy()
    rows, columns = np.fft.fftfreq(shape[1])[:, None], np.fft.rfftfreq(shape[2])[None]
    falling = 1 / np.maximum(np.hypot(rows, columns), 1 / max(shape[1:]))
    expected = np.fft.irfft2((parameters[..., 0] + 1j * parameters[..., 1]).numpy() * falling, s=shape[1:])
    torch.testing.assert_close(drawn / np.linalg.norm(drawn), expected / np.linalg.norm(expected), rtol=0, atol=1e-7)


def test_only_rgb_images_have_the_colors_of_nature():
    def correlation(channels):
        image = fourier((channels, 24, 24), decay=0.0)
        drawn = image.draw(image.parameters(generators(200)))
        return torch.corrcoef(drawn.transpose(0, 1).flatten(1))

    assert correlation(3)[0, 1] > 0.8
    assert correlation(3)[0, 2] > 0.6
    assert correlation(3).argsort(1)[0].tolist() == [2, 1, 0]  # red is nearer to green than to blue
    for other in (2, 4, 6):
        torch.testing.assert_close(correlation(other), torch.eye(other), atol=0.02, rtol=0)


def test_rgb_colors_have_the_covariance_of_imagenets():
    image = fourier((3, 16, 16), decay=0.0, deviation=1.0)
    drawn = image.draw(image.parameters(generators(2000))).transpose(0, 1).flatten(1)
    root = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    expected = root @ root.T / root.square().mean() / 3
    torch.testing.assert_close(drawn.cov(), expected, atol=0.02, rtol=0)


def test_fourier_images_change_slowly_from_pixel_to_pixel():
    def roughness(decay):
        image = fourier((1, 64, 64), decay=decay, deviation=1.0)
        return image.draw(image.parameters(generators(20))).diff(dim=3).square().mean().item()

    assert roughness(0.0) == pytest.approx(2, rel=0.05)  # white noise
    assert roughness(2.0) < roughness(1.0) / 2 < roughness(0.0) / 4


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_whatever_the_phases_the_spectrum_stays(shape):
    image = maco(shape)
    drawn = image.draw([phases.double() for phases in image.parameters(generators(2))])
    plain = torch.linalg.solve(image.colors, drawn.movedim(1, -1)[..., None])[..., 0].movedim(-1, 1)
    found = torch.fft.rfft2(plain, norm="ortho").abs()
    columns = torch.arange(found.shape[-1])
    paired = (columns > 0) & (2 * columns != shape[2])  # others are their own mirror images, and real
    expected = image.magnitude.expand_as(found)[..., paired]
    torch.testing.assert_close(found[..., paired], expected)
    assert (found <= image.magnitude + 1e-9).all()
    assert drawn.std() == pytest.approx(1, rel=0.5)


def test_the_spectrum_and_the_colors_are_those_of_the_images():
    rng = np.random.default_rng(0)
    mixing = torch.tensor([[1.0, 0.5, 0.2], [0.9, -0.1, 0.3], [0.8, 0.2, -0.6]], dtype=torch.float64)
    noise = torch.from_numpy(rng.standard_normal((40, 3, 12, 16)))
    smooth = (noise + noise.roll(1, -1) + noise.roll(2, -1)) / 3
    images = torch.einsum("rc,nchw->nrhw", mixing, smooth)
    image = maco((3, 12, 16), images=images)
    drawn = image.draw([phases.double() for phases in image.parameters(generators(200))])
    found, given = (torch.cov(one.transpose(0, 1).flatten(1)) for one in (drawn, images))
    assert torch.allclose(found, np.pi / 4 * given, atol=0.1 * float(given.max()))  # (E r)² of normal coefficients
    spectra = [torch.fft.rfft2(given, norm="ortho").abs().mean((0, 1, 2)) for given in (drawn, images)]
    assert torch.corrcoef(torch.stack(spectra))[0, 1] > 0.9
    gray = images[:, :1].expand(-1, 3, -1, -1)
    colored = maco((3, 12, 16), images=gray)
    drawn = colored.draw([phases.double() for phases in colored.parameters(generators(2))])
    assert (drawn - drawn[:, :1]).abs().max() < 1e-3 * drawn.abs().max()  # gray stays gray
    for wrong in (images[0], images[:0], images[..., 1:]):
        with pytest.raises(ValueError, match="give one or more"):
            maco((3, 12, 16), images=wrong)


def test_the_same_network_draws_the_same_picture_finer():
    square, wide = cppn((3, 9, 9), width=8, layers=3), cppn((3, 9, 17), width=8, layers=3)
    parameters = square.parameters(generators(2))
    parameters[-1] = torch.randn(parameters[-1].shape, generator=torch.Generator().manual_seed(0))
    finer = replace(square, shape=(3, 17, 17)).draw(parameters)
    assert finer.std() > 0.3
    torch.testing.assert_close(finer[..., ::2, ::2], square.draw(parameters), rtol=1e-4, atol=1e-5)
    finer = replace(wide, shape=(3, 18, 34)).draw(parameters)
    torch.testing.assert_close(finer[..., ::17, ::33], wide.draw(parameters)[..., ::8, ::16], rtol=1e-4, atol=1e-5)


def test_a_network_starts_gray_and_draws_smoothly():
    image = cppn((1, 64, 64))
    parameters = image.parameters(generators(3))
    assert not image.draw(parameters).any()
    parameters[-1] = torch.randn(parameters[-1].shape, generator=torch.Generator().manual_seed(0))
    drawn = image.draw(parameters)
    assert drawn.diff(dim=3).square().mean() < 0.1 * drawn.var()


def test_pixels_start_as_gray_noise_or_from_an_image():
    assert pixels((3, 40, 40)).parameters(generators(5))[0].std().item() == pytest.approx(0.01, rel=0.05)
    start = torch.randn(3, 8, 9)
    (one,) = pixels((3, 8, 9), start=start).parameters(generators(2))
    assert torch.equal(one, start.expand(2, -1, -1, -1))
    each = torch.randn(2, 3, 8, 9)
    (noisy,) = pixels((3, 8, 9), start=each, deviation=0.1).parameters(generators(2))
    assert (noisy - each).std().item() == pytest.approx(0.1, rel=0.1)
    noisy.zero_()
    assert each.any()  # the image to start from stays


def test_what_cannot_be_started_is_said():
    with pytest.raises(ValueError, match=r"the image to start from is \(3, 8, 8\): the dream is \(3, 8, 9\)"):
        pixels((3, 8, 9), start=torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="3 images to start 2 dreams from: give one, or one each"):
        pixels((3, 8, 9), start=torch.zeros(3, 3, 8, 9)).parameters(generators(2))


@pytest.mark.parametrize("kind", [pixels, fourier, maco, cppn])
@pytest.mark.parametrize("shape", [(28, 28), (0, 28, 28), (1, 3, 28, 28)])
def test_a_shape_that_is_none_is_said(kind, shape):
    with pytest.raises(ValueError, match="give channels, rows and columns"):
        kind(shape)


@pytest.mark.parametrize("pixel_space", SPACES, ids=range(len(SPACES)))
def test_squashed_images_stay_within_the_pixels_and_small_ones_as_they_are(pixel_space):
    centered, (low, high) = pixel_space.centered(), pixel_space.bounds
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 3, 9, 8)))
    for size in (1, 10, 1000):
        shown = squashed(images * size, centered)
        shown = centered.into(shown, PixelSpace())  # without the clamp of `to_pixels`
        assert low - 1e-9 <= shown.min()
        assert shown.max() <= high + 1e-9
    torch.testing.assert_close(squashed(images * 1e-4, centered), images * 1e-4, rtol=0.01, atol=1e-9)
    assert squashed(torch.zeros(1, 3, 2, 2, dtype=torch.float64), centered).abs().max() < 1e-12


@pytest.mark.parametrize("pixel_space", SPACES, ids=range(len(SPACES)))
def test_squashing_is_undone(pixel_space):
    centered = pixel_space.centered()
    images = random_inside(centered)
    torch.testing.assert_close(squashed(unsquashed(images, centered), centered), images, rtol=1e-9, atol=1e-9)


def test_pixels_at_the_bounds_come_a_thousandth_nearer():
    pixel_space = PixelSpace().centered()
    ends = pixel_space.to_inputs(torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2))
    free = unsquashed(ends, pixel_space).requires_grad_()
    shown = squashed(free, pixel_space)
    assert (pixel_space.to_pixels(shown).flatten() - torch.tensor([0.001, 0.999]).double()).abs().max() < 1e-7
    (gradient,) = torch.autograd.grad(shown.sum(), free)
    assert gradient.min() > 1e-3


def test_squashing_is_the_sigmoid_of_its_docstring():
    pixel_space, x = PixelSpace((0.3,), (0.2,)), torch.linspace(-9, 9, 40, dtype=torch.float64).view(1, 1, 5, 8)
    expected = 1 / (1 + np.exp(-(np.log(0.3 / 0.7) + x.numpy() * 0.2 / (0.3 * 0.7))))
    torch.testing.assert_close(pixel_space.to_pixels(squashed(x, pixel_space)), torch.from_numpy(expected))


def test_displayed_images_have_the_same_middle_and_contrast():
    images = torch.from_numpy(np.random.default_rng(0).normal(3, 50, (3, 3, 20, 20))) * torch.tensor(
        [1, 1e-3, 1e3]
    ).view(3, 1, 1, 1)
    shown = displayed(images)
    flat = images.numpy().reshape(3, -1)
    expected = 0.5 + 0.1 * (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)
    torch.testing.assert_close(shown.flatten(1), torch.from_numpy(expected.clip(0, 1)))


def test_a_flat_image_shows_gray():
    assert displayed(torch.full((2, 3, 4, 4), 7.0)).eq(0.5).all()
    assert displayed(torch.zeros(2, 3, 4, 4)).eq(0.5).all()
