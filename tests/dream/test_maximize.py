"""What dreams of a trained network show, and that `maximize` does what each of its options says."""

import copy
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from lightning_viz.dream import (
    YOSINSKI,
    blur,
    clip_small_norm,
    cppn,
    decay,
    edge_energy,
    fourier,
    jitter,
    l2,
    maximize,
    pixels,
    standard,
)
from lightning_viz.hooks import channel, logit
from lightning_viz.pixels import PixelSpace

EDGE_WEIGHT = 0.3  # one for all classes
CLASSES = [logit(number) for number in range(10)]
dream = partial(maximize, progress=False)


def high_frequencies(images):
    """Of each image the spectral energy above half of Nyquist's frequency: 0.25 cycles per pixel, in any direction."""
    energy = torch.fft.fft2(images.double()).abs().square()
    rows, columns = (torch.fft.fftfreq(side) for side in images.shape[2:])
    return energy[..., torch.hypot(rows[:, None], columns[None]) > 0.25].flatten(1).sum(1)


def scores(model, inputs):
    with torch.no_grad():
        return model(inputs)


@pytest.fixture(scope="module")
def plain(digits):
    return dream(digits.model, CLASSES, image=(1, 28, 28), pixel_space=digits.pixel_space)


@pytest.fixture(scope="module")
def smooth(digits):
    return dream(
        digits.model, CLASSES, image=(1, 28, 28), pixel_space=digits.pixel_space, priors={edge_energy: EDGE_WEIGHT}
    )


def small(seed=0, channels=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(channels, 5, 3), nn.Tanh(), nn.Conv2d(5, 4, 3)).eval()


SMALL = (3, 9, 12)


# --- Of a trained network.


def test_the_dream_of_every_class_is_classified_as_it(digits, plain, smooth):
    for found in (plain, smooth):
        confidence = scores(digits.model, found.inputs).softmax(1)
        assert confidence.diag().min() > 0.99


def test_edge_energy_takes_the_high_frequencies_and_leaves_the_class(digits, plain, smooth):
    lower = high_frequencies(plain.images) / high_frequencies(smooth.images)
    assert lower.min() > 5
    share = [high_frequencies(one.images) / one.images.square().sum((1, 2, 3)) for one in (plain, smooth)]
    assert (share[0] / share[1]).min() > 5  # not only because the image is fainter
    real = scores(digits.model, digits.images)
    best = torch.stack([real[digits.labels == number, number].quantile(0.9) for number in range(10)])
    assert (scores(digits.model, smooth.inputs).diag() > best).all()


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_the_dream_of_a_channel_excites_it_more_than_any_digit(digits, layer):
    asked = [channel(layer, number) for number in range(4)]
    found = dream(digits.model, asked, image=(1, 28, 28), pixel_space=digits.pixel_space, bounded=True, steps=60)
    seen = {}
    with torch.no_grad(), getattr(digits.model, layer).register_forward_hook(lambda m, i, o: seen.update(out=o)):
        digits.model(digits.images)
        real = seen["out"][:, :4].sum((2, 3)).max(0).values
        digits.model(found.inputs)
        ours = seen["out"][:, :4].sum((2, 3)).diag()
    assert (ours > real).all()
    torch.testing.assert_close(found.values, ours, rtol=1e-4, atol=1e-3)


def test_the_climb_rises(plain):
    assert plain.curve.shape == (10, 250)
    assert (plain.curve[:, 50] > plain.curve[:, 0] + 10).all()
    assert (plain.values > plain.curve[:, 50]).all()
    smoothed = torch.nn.functional.avg_pool1d(plain.curve[:, None], 25, 25)[:, 0]
    assert (smoothed.diff(dim=1) > 0).all()


# --- What comes back.


@pytest.mark.parametrize("kind", [pixels, fourier, cppn])
def test_the_same_seed_gives_the_same_image_to_the_bit_and_another_another(kind):
    run = partial(dream, small(), channel("2", 1), image=kind(SMALL), transforms=standard(2), steps=10)
    torch.manual_seed(0)
    first = run(seed=3)
    torch.manual_seed(1)
    again = run(seed=3)
    other = run(seed=4)
    for name in ("images", "inputs", "curve", "values", "frames"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert (first.images - other.images).abs().max() > 1e-3


def test_the_seed_serves_a_model_that_draws_random_numbers_too():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small()

        def forward(self, x):
            return self.net(x + torch.randn_like(x))

    images = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        images.append(dream(Noisy().eval(), channel("net.2", 1), image=SMALL, steps=5).images)
    assert torch.equal(*images)


def test_every_step_has_transformations_of_its_own():
    found = dream(small(), channel("2", 1), image=SMALL, transforms=[jitter(2)], steps=12, lr=0.0)
    assert 3 < len(found.curve.unique()) <= 9  # places of a crop


def test_names_seeds_and_copies():
    found = dream(small(), [channel("0", 1), channel("2", 3)], image=SMALL, steps=3, copies=2, seed=7)
    assert found.names == ("0 channel 1", "0 channel 1", "2 channel 3", "2 channel 3")
    assert found.seeds == (7, 8, 7, 8)
    assert found.images.shape == (4, *SMALL)
    single = dream(small(), channel("2", 3), image=SMALL, steps=3, seed=8)
    torch.testing.assert_close(found.images[3:], single.images, rtol=1e-3, atol=1e-5)


def test_frames_lead_from_the_start_to_the_result_evenly_in_log_steps():
    found = dream(small(), channel("2", 1), image=SMALL, steps=100, frames=8)
    start = dream(small(), channel("2", 1), image=SMALL, steps=0)
    assert found.frame_steps[0] == 0
    assert found.frame_steps[-1] == 100
    assert len(found.frames) == len(found.frame_steps) == 8
    ratios = np.diff(np.log(found.frame_steps[1:]))
    assert np.ptp(ratios) < 0.5
    assert found.frames.dtype == torch.uint8
    assert torch.equal(found.frames[-1], (found.pixels * 255).round().to(torch.uint8))
    assert torch.equal(found.frames[0], (start.pixels * 255).round().to(torch.uint8))
    assert dream(small(), channel("2", 1), image=SMALL, steps=5, frames=0).frame_steps == (5,)
    assert dream(small(), channel("2", 1), image=SMALL, steps=5, frames=2).frame_steps == (0, 5)


def test_no_step_shows_the_start():
    found = dream(small(), channel("2", 1), image=SMALL, steps=0)
    assert found.curve.shape == (1, 0)
    assert found.images.std().item() == pytest.approx(0.01, rel=0.2)


def test_a_bar_appears_only_where_it_is_wanted(capsys, monkeypatch):
    monkeypatch.setattr("lightning_viz.hooks.batching._DELAY", 0.0)
    dream(small(), channel("2", 1), image=SMALL, steps=3)
    assert capsys.readouterr().err == ""
    maximize(small(), channel("2", 1), image=SMALL, steps=3)
    assert "dream" in capsys.readouterr().err


# --- The options.


def by_hand(model, steps, priors=(), lr=0.1, after=lambda x: x):
    """Channel 1 of the model's output, climbed by a loop as anyone would write it."""
    x = (torch.randn(SMALL, generator=torch.Generator().manual_seed(0)) * 0.01)[None].requires_grad_()
    ascent, curve = torch.optim.Adam([x], lr), []
    for _ in range(steps):
        ascent.zero_grad()
        value = model(x)[:, 1].sum()
        (sum(weight * prior(x).sum() for prior, weight in priors) - value).backward()
        curve.append(value.item())
        ascent.step()
        with torch.no_grad():
            x.copy_(after(x))
    return x.detach(), curve


NORMALIZED = PixelSpace((0.4,), (0.2,))  # its inputs are centered: what `by_hand` climbs


@pytest.mark.parametrize("priors", [{}, {edge_energy: 0.1, l2: 0.02}], ids=["plain", "priors"])
def test_it_is_adam_on_the_objective_less_the_priors(priors):
    found = dream(small(), channel("2", 1), image=SMALL, pixel_space=NORMALIZED, priors=priors, steps=40)
    expected, curve = by_hand(small(), 40, priors.items())
    torch.testing.assert_close(found.images, expected, rtol=1e-3, atol=1e-4)
    assert found.curve[0].tolist() == pytest.approx(curve, rel=1e-3, abs=1e-4)
    assert torch.equal(found.inputs, found.images)


def test_steps_between_updates_run_in_their_order_after_the_gradients():
    found = dream(
        small(),
        channel("2", 1),
        image=SMALL,
        pixel_space=NORMALIZED,
        steps=9,
        update_steps=[decay(0.1), clip_small_norm(30)],
    )

    def after(x):
        x, size = 0.9 * x, x.norm(dim=1, keepdim=True)
        return x * (size >= np.quantile(size, 0.3))

    expected, _ = by_hand(small(), 9, after=after)
    torch.testing.assert_close(found.images, expected, rtol=1e-3, atol=1e-4)
    assert (found.images == 0).all(1).sum() == pytest.approx(0.3 * 108, abs=1)


def test_a_step_between_knows_how_many_updates_were_made():
    numbers = []

    def counting(images, gradient, number):
        numbers.append(number)
        return images

    dream(small(), channel("2", 1), image=SMALL, steps=4, update_steps=[counting])
    assert numbers == [1, 2, 3, 4]


def test_a_preset_goes_by_its_name_and_brings_its_steps():
    run = partial(dream, small(), channel("2", 1), image=SMALL)
    named, given = (
        run(update_steps="small norm", steps=6),
        run(update_steps=replace(YOSINSKI["small norm"], iterations=6)),
    )
    assert torch.equal(named.images, given.images)
    assert given.curve.shape == (1, 6)
    assert not torch.equal(named.images, run(update_steps="decay", steps=6).images)


def test_small_gradients_do_not_move_the_image():
    options = {"optimizer": partial(torch.optim.SGD, lr=1.0), "steps": 1, "image": SMALL, "pixel_space": NORMALIZED}
    start = dream(small(), channel("2", 1), image=SMALL, steps=0).images
    whole = dream(small(), channel("2", 1), **options).images - start
    clipped = dream(small(), channel("2", 1), small_gradients=30, **options).images - start
    still = clipped == 0
    assert still.float().mean().item() == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(clipped[~still], whole[~still])
    assert whole[still].abs().max() <= whole[~still].abs().min()


def test_priors_may_weigh_each_objective_differently():
    asked = [channel("2", 1), channel("2", 1), channel("0", 2)]
    run = partial(dream, small(), image=SMALL, steps=10, copies=2)
    found = run(asked, priors={l2: [0.0, 3.0, 0.5]})
    alone = [run(one, priors={l2: weight}) for one, weight in zip(asked, (0.0, 3.0, 0.5), strict=True)]
    torch.testing.assert_close(found.images, torch.cat([one.images for one in alone]), rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="2 weights of l2 for 3 objectives: give one, or one each"):
        run(asked, priors={l2: [1.0, 2.0]})


def test_the_rate_is_the_images_own_or_given():
    for image, rate in [(pixels(SMALL), 0.1), (fourier(SMALL), 0.1), (cppn(SMALL), 0.005)]:
        run = partial(dream, small(), channel("2", 1), image=image, steps=4)
        assert torch.equal(run().images, run(lr=rate).images)
        assert not torch.equal(run().images, run(lr=rate / 3).images)
        assert torch.equal(run(lr=0.0).images, run(steps=0).images)


def test_lbfgs_climbs_further_in_as_many_steps():
    run = partial(dream, small(), channel("2", 1), image=SMALL, priors={l2: 1.0}, steps=5)
    one, other = run(), run(optimizer=partial(torch.optim.LBFGS, max_iter=10))
    assert other.values - l2(other.images) > one.values - l2(one.images)
    assert other.curve.shape == (1, 5)


@pytest.mark.parametrize("kind", [pixels, fourier, cppn])
@pytest.mark.parametrize(
    "pixel_space", [PixelSpace(), NORMALIZED, PixelSpace((0.0,), (1 / 255,))], ids=["0-1", "std", "255"]
)
def test_a_bounded_image_stays_within_the_pixels(kind, pixel_space):
    found = dream(small(), channel("2", 1), image=kind(SMALL), pixel_space=pixel_space, bounded=True, steps=30)
    raw = pixel_space.into(found.inputs, PixelSpace())
    assert raw.min() >= -1e-5
    assert raw.max() <= 1 + 1e-5
    torch.testing.assert_close(found.pixels, raw.clamp(0, 1), rtol=0, atol=1e-4)
    assert found.values > found.curve[:, 0]


def test_a_bounded_dream_starts_from_the_photograph_that_it_is_given():
    photograph = torch.rand(SMALL, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    pixel_space = PixelSpace()
    image = pixels(SMALL, start=pixel_space.centered().to_inputs(photograph[None])[0])
    for bounded in (True, False):
        found = dream(small(), channel("2", 1), image=image, pixel_space=pixel_space, bounded=bounded, steps=0)
        torch.testing.assert_close(found.inputs[0], photograph, rtol=0, atol=1e-5)


def test_a_normalized_model_and_one_that_takes_pixels_dream_the_same():
    class OfPixels(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small()

        def forward(self, x):
            return self.net((x - 0.5) / 0.25)

    options = {"image": SMALL, "steps": 20, "priors": {edge_energy: 0.01}}
    one = dream(OfPixels().eval(), channel("net.2", 1), **options)
    other = dream(small(), channel("2", 1), pixel_space=PixelSpace((0.5,), (0.25,)), **options)
    torch.testing.assert_close(one.images, other.images, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one.inputs, one.images * 0.25 + 0.5)


def test_a_forward_of_ones_own_opens_a_dict():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small()

        def forward(self, x):
            return {"loss": None, "logits": self.net(x)}

    known = dream(Packed().eval(), logit(1), image=SMALL, steps=5)  # the field's name says which
    found = dream(Packed().eval(), logit(1), image=SMALL, steps=5, forward=lambda model, x: model(x)["logits"])
    assert torch.equal(found.images, dream(small(), logit(1), image=SMALL, steps=5).images)
    assert torch.equal(known.images, found.images)
    dream(Packed().eval(), channel("net.0", 1), image=SMALL, steps=2)  # needs no output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": []}, "objectives is empty: give one or more"),
        ({"steps": -1}, "steps=-1, copies=1: give 0 or more steps"),
        ({"copies": 0}, "copies=0: give 0 or more steps, and 1 copy or more"),
        (
            {"update_steps": "smal norm"},
            "update_steps='smal norm' is unknown; pass one of 'small norm', 'decay', 'blur'",
        ),
        ({"update_steps": "decay", "image": fourier(SMALL)}, "not those of Fourier; use image=pixels(...)"),
        ({"update_steps": [blur(1)], "bounded": True}, "not those of bounded images"),
        ({"image": (9, 12)}, "the shape is (9, 12): give channels, rows and columns"),
        ({"pixel_space": PixelSpace((0.1, 0.2), (0.3, 0.4))}, "the pixel space has 2 channels, the images have 3"),
        ({"priors": {edge_energy: 1.0}, "image": (3, 5, 9)}, "edge energy needs more than 5 pixels a side"),
    ],
    ids=lambda value: str(value).split(" at 0x")[0],
)
def test_options_that_make_no_sense_are_errors(options, message):
    chosen = {"objectives": channel("2", 1), "image": SMALL, "steps": 2} | options
    with pytest.raises(ValueError, match=re.escape(message)):
        dream(small(), **chosen)


def test_the_result_can_be_copied_and_holds_no_graph():
    found = copy.deepcopy(dream(small(), channel("2", 1), image=SMALL, steps=2))
    tensors = [found.images, found.inputs, found.curve, found.values, found.frames, found.pixels]
    assert not any(one.requires_grad or one.is_inference() for one in tensors)


@pytest.mark.parametrize("options", [{"update_steps": decay(0.1)}, {"transforms": jitter(1)}])
def test_one_function_where_a_list_belongs_is_an_error_that_says_so(digits, options):
    (name,) = options
    with pytest.raises(TypeError, match=rf"{name} is one function: give a list of them, {name}=\[\.\.\.\]"):
        maximize(digits.model, logit(3), image=(1, 28, 28), **options)
