"""Views of a population see the validation pass that runs anyway, and leave it as it is."""

import pickle
import re
from collections import defaultdict
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_viz import ActivationStatistics, Health, Mistakes, TopSamples
from lightning_viz.callbacks import picture_log, population, top_samples
from lightning_viz.callbacks import unit_crops as crops
from lightning_viz.callbacks.draw_task import DrawResult
from lightning_viz.callbacks.drawing import DrawingProcess
from lightning_viz.callbacks.drawing_queue import FinishedDrawing
from lightning_viz.callbacks.run import TrainerRun
from lightning_viz.hooks import receptive_fields
from lightning_viz.render.parts import Tile

from .cells import CELLS
from .conftest import ConvNet, Net, Perceptron, fit, images, loader, plane, said
from .test_unchanged import LIGHTNINGS, PLAIN, pytestmark, train, undisturbed  # noqa: F401
from .trace import Trace, differences

_WHILE_A_BATCH_PASSES = ("validation batch start, behind the views", "validation batch end, before the views")
_HOOKS = re.compile(r"/_forward_hooks(_\w+)?/")


def counting(passes):
    """A model that notes its forward passes, outside of itself: what is inside is put back after a look."""

    class Counting(ConvNet):
        def forward(self, x):
            passes.append((self.training, len(x), torch.is_grad_enabled()))
            return super().forward(x)

    return Counting()


def both(**options):
    return [TopSamples(**options), ActivationStatistics(**options)]


def validation(count=30, batch_size=8):
    return loader(*images(count, classes=3), batch_size=batch_size)


def strongest(model, inputs, layer, channels):
    """By hand: each channel's maxima over all samples, strongest first, and where they are."""
    kept = []
    handle = dict(model.named_modules())[layer].register_forward_hook(lambda *args: kept.append(args[2]))
    with torch.no_grad():
        for part in inputs.split(8):
            model(part)
    handle.remove()
    maps = torch.cat(kept)[:, channels]
    values, places = maps.flatten(2).max(2)
    order = values.argsort(dim=0, descending=True, stable=True)
    return values.gather(0, order).T, order.T, places.gather(0, order).T, maps


# What is watched.


@pytest.mark.parametrize("view", [TopSamples, ActivationStatistics])
def test_a_view_runs_no_sample_forward_that_validation_does_not(view, tmp_path, drawn_at_once, monkeypatch):
    nothing = defaultdict(list), {"field": "", "method": ""}
    monkeypatch.setattr(top_samples, "crops_of", lambda *args, **options: nothing)
    counted = {"with": [], "without": []}
    for name, views in {"with": [view()], "without": []}.items():
        model = counting(counted[name])
        fit(tmp_path / name, model, views, val=validation(), max_epochs=2, num_sanity_val_steps=2)
    assert counted["with"] == counted["without"]
    assert len(counted["with"]) == 2 + 2 * (6 + 4)
    assert len(drawn_at_once) >= 2


def test_what_is_run_for_the_crops_are_the_crops(tmp_path, drawn_at_once, monkeypatch):
    passes = []
    fields = crops.receptive_fields
    monkeypatch.setattr(crops, "receptive_fields", lambda *args: [passes.append("fields"), fields(*args)][1])
    fit(tmp_path, counting(passes), [TopSamples()], val=validation(), max_epochs=1)
    after = passes[10:]
    deconvolved = [
        one for place, one in enumerate(after) if one != "fields" and (not place or after[place - 1] != "fields")
    ]
    (page,) = drawn_at_once.arguments("top_samples/conv2").values()
    shown = sum(map(len, page["crops"]))  # of channels that are above 0
    assert sum(count for _, count, _ in deconvolved) == shown and shown in range(9, 6 * 9 + 1)
    assert passes[:10] == [(True, 4, True)] * 6 + [(False, 8, False)] * 3 + [(False, 6, False)]


def test_the_strongest_of_all_validation_samples_are_found_where_they_are(tmp_path, drawn_at_once):
    model, (inputs, labels) = ConvNet(), images(30, classes=3)
    view = TopSamples(layers=["conv2", "conv1"])
    fit(tmp_path, model, [view], val=validation())
    model.eval()
    for layer in ("conv1", "conv2"):
        (page,) = drawn_at_once.arguments(f"top_samples/{layer}").values()
        channels = page["channels"]
        values, order, places, maps = strongest(model, inputs, layer, channels)
        for row, found in enumerate(page["crops"]):
            assert [crop.value for crop in found] == pytest.approx(
                [value for value in values[row, :9].tolist() if value > 0], rel=1e-5
            )
            for crop, number, flat in zip(found, order[row], places[row], strict=False):
                place = divmod(int(flat), maps.shape[3])
                ((top, bottom, left, right),) = receptive_fields(model, inputs, layer, [place])
                expected = (inputs[number, 0, top:bottom, left:right] * 255).round().byte()
                assert np.array_equal(crop.image[..., 0], expected.numpy())
                assert crop.evidence.shape == (1, bottom - top, right - left)
                assert crop.name == str(int(labels[number]))
                assert np.abs(crop.evidence).max() > 0
    assert page["population"] == "30 validation samples"


def test_whole_samples_have_what_the_channel_sees_framed(tmp_path, drawn_at_once):
    model, (inputs, _) = ConvNet(), images(30, classes=3)
    fit(tmp_path, model, [TopSamples(layers="conv2", whole=True)], val=validation())
    (page,) = drawn_at_once.arguments("top_samples/conv2").values()
    _, order, places, maps = strongest(model.eval(), inputs, "conv2", page["channels"])
    seen = 0
    for row, found in enumerate(page["crops"]):
        for crop, number, flat in zip(found, order[row], places[row], strict=False):
            (field,) = receptive_fields(model, inputs, "conv2", [divmod(int(flat), maps.shape[3])])
            assert np.array_equal(crop.image[..., 0], (inputs[number, 0] * 255).round().byte().numpy())
            assert crop.window == tuple(field) != (0, inputs.shape[2], 0, inputs.shape[3])
            top, bottom, left, right = field
            outside = crop.evidence.copy()
            outside[:, top:bottom, left:right] = 0
            assert not outside.any() and crop.evidence.any()
            seen += 1
    assert seen >= 9


def test_the_frame_of_a_large_sample_is_as_small_as_its_image():
    image = np.zeros((256, 128, 3), dtype=np.uint8)
    small = top_samples._smaller(top_samples.Crop(image, None, 1.0, window=(64, 128, 0, 96)), 2)
    assert small.image.shape == (128, 64, 3) and small.window == (32, 64, 0, 48)


def test_samples_that_are_new_among_a_channels_strongest_are_marked(tmp_path, drawn_at_once):
    class Changing(ConvNet):
        def on_validation_start(self):
            generator = torch.Generator().manual_seed(self.current_epoch)
            self.fc.weight.data.normal_(generator=generator)
            self.fc.bias.data.fill_(9.0)

    fit(tmp_path, Changing(), [TopSamples(layers="fc", best=4)], val=validation(), max_epochs=4)
    looks = drawn_at_once.arguments("top_samples/fc")  # units that see whole samples
    pages, marks = [looks[step]["crops"] for step in sorted(looks)], []
    assert not any(crop.new for row in pages[0] for crop in row)
    for earlier, now in pairwise(pages):
        for before, row in zip(earlier, now, strict=True):
            known = [crop.image.tobytes() for crop in before]
            assert [crop.new for crop in row] == [crop.image.tobytes() not in known for crop in row]
            marks += [crop.new for crop in row]
    assert len(pages) == 4 and set(marks) == {True, False}


def test_the_map_beside_a_crop_is_the_deconvolution_of_that_one_activation(tmp_path, drawn_at_once):
    from lightning_viz.attribution import deconvolution
    from lightning_viz.hooks.targets import unit

    model, (inputs, _) = ConvNet(), images(30, classes=3)
    fit(tmp_path, model, [TopSamples(channels=[4], best=2)], val=validation())
    model.eval()
    _, order, places, maps = strongest(model, inputs, "conv2", [4])
    ((found,),) = [page["crops"] for page in drawn_at_once.arguments("top_samples/conv2").values()]
    for crop, number, flat in zip(found, order[0], places[0], strict=False):
        place = divmod(int(flat), maps.shape[3])
        ((top, bottom, left, right),) = receptive_fields(model, inputs, "conv2", [place])
        towards = deconvolution(model, inputs[number : number + 1], unit("conv2", (4, *place)))[0]
        assert float(towards[:, top:bottom, left:right].abs().sum()) == pytest.approx(float(towards.abs().sum()))
        np.testing.assert_allclose(crop.evidence, towards[:, top:bottom, left:right], rtol=1e-4, atol=1e-7)


def test_statistics_are_those_of_all_validation_samples(tmp_path, drawn_at_once):
    model, (inputs, _) = ConvNet(), images(30, classes=3)
    fit(tmp_path, model, [ActivationStatistics(layers="conv1")], val=validation())
    with torch.no_grad():
        output = model.conv1(inputs).double()
    scalars = drawn_at_once[-1].drawn.scalars
    assert scalars["statistics/conv1/mean"] == pytest.approx(float(output.mean()), rel=1e-5)
    assert scalars["statistics/conv1/std"] == pytest.approx(float(output.std(correction=0)), rel=1e-5)
    assert scalars["statistics/conv1/dead"] == 0
    assert "statistics/conv1/saturated" not in scalars


class Activations(Net):
    """Every kind of layer whose outputs can be dead or saturated, called in its own way."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.tanh, self.fc = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Tanh(), nn.Linear(4, 3)
        with torch.no_grad():
            self.conv.bias[1] = -100

    def forward(self, x):
        x = self.relu(self.conv(x))
        return self.fc(self.relu(self.tanh(5000 * x.amax((2, 3)))))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_dead_and_saturated_are_told(tmp_path, drawn_at_once):
    fit(tmp_path, Activations(), [ActivationStatistics(layers=["conv", "relu", "tanh"])], val=validation())
    scalars = {tag: value for one in drawn_at_once for tag, value in one.drawn.scalars.items()}
    assert scalars["statistics/relu:0/dead"] == scalars["statistics/relu:1/dead"] == 1 / 4
    assert scalars["statistics/conv/dead"] == 0
    assert 0.4 < scalars["statistics/tanh/saturated"] <= 0.75
    captions = {tag: pictures for one in drawn_at_once for tag, pictures in [(one.sketch.name, one.drawn.pictures)]}
    assert "1 of 4 channels dead" in captions["statistics/relu:0"][0].description
    assert "1 of 4 units dead" in captions["statistics/relu:1"][0].description
    assert "1 never above 0" in captions["statistics/conv"][0].description


def test_a_channel_below_0_on_all_samples_is_excited_by_none(tmp_path, drawn_at_once):
    class Below(ConvNet):
        def __init__(self):
            super().__init__()
            with torch.no_grad():
                self.conv2.bias[[0, 2]] = torch.tensor([100.0, -100.0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    fit(tmp_path, Below(), [TopSamples(channels=[0, 2])], val=validation())
    (page,) = drawn_at_once.pages("top_samples/conv2").values()
    assert [len(row) for row in drawn_at_once.arguments("top_samples/conv2")[6]["crops"]] == [9, 0]
    flaws = [tile.flaw for tile in page.parts(Tile) if tile.channel == 2]
    (said,) = flaws
    assert said.startswith("at most 0 in these ") and f"1 of 2 channels {said}" in page.description


def test_a_channel_that_is_never_active_is_said(tmp_path, drawn_at_once):
    fit(tmp_path, Activations(), [TopSamples(layers="relu")], val=validation())
    picture = drawn_at_once.pictures("top_samples/relu:0")[6]
    assert "1 of 4 channels at most 0 in these" in picture.description
    assert [len(row) for row in drawn_at_once.arguments("top_samples/relu:0")[6]["crops"]] == [9, 0, 9, 2]
    assert set(drawn_at_once.tags()) == {"top_samples/relu:0", "top_samples/relu:1"}


# Whatever people train.


class Dicts(Net):
    """Takes two inputs by name, puts out a tuple, and its block a tuple."""

    def __init__(self):
        super().__init__()

        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(1, 4, 3)

            def forward(self, x):
                return self.conv(x), "more"

        self.block, self.fc = Block(), nn.Linear(6, 3)

    def forward(self, image, context):
        return self.fc(torch.cat([F.relu(self.block(image)[0]).mean((2, 3)), context], 1)), context

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["image"], batch["context"])[0], batch["label"])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.training_step(batch, batch_idx)


def dicts(count=20):
    inputs, labels = images(count)
    return DataLoader(
        [{"image": x, "context": torch.ones(2), "label": y} for x, y in zip(inputs, labels, strict=True)], batch_size=6
    )


def test_batches_of_dicts_tuple_outputs_and_several_loaders(tmp_path, drawn_at_once, recwarn):
    train, checks = dicts(), [dicts(17), dicts(9)]
    fit(tmp_path, Dicts(), both(layers="block"), train, checks)
    assert set(drawn_at_once.tags()) == {"top_samples/block", "statistics/block"}
    page = drawn_at_once.arguments("top_samples/block")[4]
    assert page["population"] == "17 validation samples"
    assert "the first of the validation loaders" in page["notes"]
    assert page["field"] == "3 × 3 of 8 × 8 pixels"
    assert not [line for line in said(recwarn) if "fail" in line]


def test_a_perceptrons_units_are_shown_by_whole_samples(tmp_path, drawn_at_once):
    data = loader(*plane())
    fit(tmp_path, Perceptron(), [TopSamples(layers="deeper"), ActivationStatistics()], data, data)
    page = drawn_at_once.arguments("top_samples/deeper")[10]
    assert page["field"] == "nothing less than the whole image"
    assert all(crop.image.shape == (1, 2, 3) for crops in page["crops"] for crop in crops)
    assert set(drawn_at_once.tags()) == {"top_samples/deeper"} | {
        f"statistics/{name}" for name in ("hidden", "deeper", "output")
    }


@pytest.mark.parametrize(
    "options", [{"precision": "bf16-mixed"}, {"precision": "bf16-true"}, {"inference_mode": False}]
)
def test_any_precision(tmp_path, drawn_at_once, recwarn, options):
    fit(tmp_path, ConvNet(), both(), val=validation(), **options)
    assert drawn_at_once.arguments("top_samples/conv2")[6]["population"] == "30 validation samples"
    assert all(one.drawn for one in drawn_at_once)
    assert not [line for line in said(recwarn) if "fail" in line]


def test_without_a_relu_the_gradient_stands_in_and_is_named(tmp_path, drawn_at_once):
    class Smooth(ConvNet):
        def forward(self, x):
            return self.fc(F.gelu(self.conv2(F.gelu(self.conv1(x)))).mean((2, 3)))

    fit(tmp_path, Smooth(), [TopSamples()], val=validation())
    (picture,) = drawn_at_once.pictures("top_samples/conv2").values()
    assert "gradient, as no ReLU can be intercepted" in picture.description
    assert "deconvolution" not in picture.description


def test_a_layer_that_puts_out_one_number_per_sample_has_one_unit(tmp_path, drawn_at_once, recwarn):
    class Regression(Perceptron):
        def __init__(self):
            super().__init__(classes=1)
            self.flat = nn.Flatten(0)

        def forward(self, x):
            return self.flat(super().forward(x))

        def training_step(self, batch, batch_idx):
            return F.mse_loss(self(batch[0]), batch[1].float())

        def validation_step(self, batch, batch_idx):
            self(batch[0])

    data = loader(*plane())
    fit(tmp_path, Regression(), both(layers="flat"), data, data)
    assert set(drawn_at_once.tags()) == {"top_samples/flat", "statistics/flat"}
    assert drawn_at_once.arguments("statistics/flat")[10]["units"] == (1, "units")
    assert not [line for line in said(recwarn) if "fail" in line]


def test_a_view_that_steps_aside_is_not_said_to_have_failed(tmp_path, drawn_at_once, recwarn):
    views = [TopSamples(), ActivationStatistics()]
    views[0].optional = True  # a perceptron has no convolution to watch
    data = loader(*plane())
    fit(tmp_path, Perceptron(), views, data, data)
    assert "statistics/hidden" in drawn_at_once.tags()
    assert not [line for line in said(recwarn) if "fail" in line]


def test_a_copy_of_a_view_holds_no_part_of_the_model(tmp_path, drawn_at_once):
    views = both()
    fit(tmp_path, ConvNet(), views, val=validation())
    assert all(b"torch.nn.modules" not in pickle.dumps(view) for view in views)


# When.


@pytest.mark.parametrize(
    ("view", "run", "steps"),
    [
        ({}, {"max_epochs": 3}, [6, 12, 18]),
        ({"every_n_epochs": 2}, {"max_epochs": 5}, [6, 12, 24, 30]),  # the first and the last pass in any case
        ({}, {"max_epochs": 2, "val_check_interval": 3}, [3, 6, 12]),
        ({"every_n_train_steps": 1}, {"max_epochs": 2, "val_check_interval": 2}, [2, 4, 6, 8, 10, 12]),
        ({"every_n_train_steps": 5}, {"max_epochs": 3, "val_check_interval": 3}, [3, 6, 12, 15, 18]),  # 5, 10, 15
        ({"steps": [1, 7]}, {"max_epochs": 4}, [6, 12, 24]),
        ({}, {"max_epochs": 4, "check_val_every_n_epoch": 2}, [12, 24]),
        ({}, {"max_steps": 9, "max_epochs": None, "val_check_interval": 3}, [3, 6, 9]),
        ({}, {"max_epochs": 2, "accumulate_grad_batches": 4}, [2, 4]),
    ],
)
def test_it_draws_after_validation_when_the_schedule_asks_for_it(tmp_path, drawn_at_once, view, run, steps):
    fit(tmp_path, ConvNet(), [ActivationStatistics(layers="conv2", **view)], val=validation(), **run)
    assert drawn_at_once.tags() == {"statistics/conv2": steps}


def test_the_sanity_check_is_not_watched(tmp_path, drawn_at_once):
    view = ActivationStatistics(layers="conv2")
    fit(tmp_path, ConvNet(), [view], val=validation(), num_sanity_val_steps=-1, check_val_every_n_epoch=2, max_epochs=3)
    assert drawn_at_once.tags() == {"statistics/conv2": [12]}


def test_a_run_in_which_validation_never_comes_is_told_so(tmp_path, drawn_at_once, recwarn):
    fit(tmp_path, ConvNet(), both(), val=validation(), check_val_every_n_epoch=5)
    assert not drawn_at_once
    assert [
        line
        for line in said(recwarn)
        if "no validation pass ran, so TopSamples, ActivationStatistics had nothing" in line
    ]


@pytest.mark.parametrize("how", ["no validation", "whole", "submodule", "in place"])
def test_what_cannot_be_watched_is_run_by_the_view_within_the_schedule(tmp_path, drawn_at_once, how):
    model, data = ConvNet(), loader(*images(30))
    val = None if how == "no validation" else validation()
    if how == "whole":
        model = torch.compile(model, backend="eager")
    elif how == "submodule":
        model.conv2 = torch.compile(model.conv2, backend="eager")
    elif how == "in place":
        model.conv2.compile(backend="eager")
    torch._dynamo.reset()
    fit(tmp_path, model, both(layers="conv2", samples=20), data, val, max_epochs=2)
    assert drawn_at_once.tags() == {"top_samples/conv2": [0, 8, 16], "statistics/conv2": [0, 8, 16]}
    page = drawn_at_once.arguments("top_samples/conv2")[8]
    assert page["population"] == "20 samples"
    reason = (
        "no validation to watch" if val is None else "layer 'conv2' is compiled and cannot be watched in validation"
    )
    assert f"{reason}: the view runs 20 samples by itself" in page["notes"]


class NothingInValidation(ConvNet):
    def validation_step(self, batch, batch_idx):
        pass


class AverageInValidation(ConvNet):
    """Validates a copy of itself, of averaged weights say."""

    def __init__(self):
        super().__init__()
        self.average = [ConvNet()]

    def validation_step(self, batch, batch_idx):
        return self.average[0](batch[0])


@pytest.mark.parametrize("model", [NothingInValidation, AverageInValidation])
def test_a_validation_pass_without_the_model_is_made_up_for(tmp_path, drawn_at_once, model):
    views = [*both(layers="conv2", samples=20), Health(), Mistakes(samples=20)]
    fit(tmp_path, model(), views, loader(*images(30)), validation(), max_epochs=2)
    drawn = drawn_at_once.tags()
    for tag in ("top_samples/conv2", "statistics/conv2", "health", "mistakes/worst"):
        assert drawn[tag] == [8, 16]
    notes = drawn_at_once.arguments("top_samples/conv2")[8]["notes"]
    assert "the validation pass does not call its layers: the view runs 20 samples by itself" in notes


def test_a_layer_beside_a_compiled_one_is_watched(tmp_path, drawn_at_once):
    model = ConvNet()
    model.conv1.compile(backend="eager")
    fit(tmp_path, model, [TopSamples(layers="conv2")], val=validation())
    assert drawn_at_once.arguments("top_samples/conv2")[6]["population"] == "30 validation samples"


def test_channels_and_axis_stay_over_a_resumed_run(tmp_path, drawn_at_once):
    def views():
        return [TopSamples(layers="conv1", channels=[2, 0]), ActivationStatistics(layers="conv1")]

    trainer = fit(tmp_path / "whole", ConvNet(), views(), val=validation(), max_epochs=2)
    whole = [(one.step, one.drawn.pictures[0].image) for one in drawn_at_once if one.step == 12]
    drawn_at_once.clear()
    trainer = fit(tmp_path / "first", ConvNet(), views(), val=validation(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    drawn_at_once.clear()
    fit(tmp_path / "second", ConvNet(), views(), val=validation(), max_epochs=2, ckpt_path=tmp_path / "half.ckpt")
    assert [(one.step, one.drawn.pictures[0].image) for one in drawn_at_once] == whole


# Faults.


def test_a_fault_while_watching_is_said_once_and_ends_nothing(tmp_path, drawn_at_once, recwarn, monkeypatch):
    def broken(*args):
        raise RuntimeError("planted in the hook")

    monkeypatch.setattr(top_samples, "channel_peaks", broken)
    model = ConvNet()
    trainer = fit(tmp_path, model, both(layers="conv2"), val=validation(), max_epochs=5)
    assert trainer.global_step == 30
    lines = [line for line in said(recwarn) if "planted" in line]
    assert len(lines) == 2 and "switched off" in lines[-1]  # once, and that it is switched off after three passes
    assert "TopSamples" in lines[0] and "failed at step 6" in lines[0]
    assert drawn_at_once.tags() == {"statistics/conv2": [6, 12, 18, 24, 30]}
    assert not model.conv2._forward_hooks


def test_outputs_that_are_not_one_per_sample_are_a_fault_with_a_reason(tmp_path, drawn_at_once, recwarn):
    class Folded(ConvNet):
        def forward(self, x):
            return super().forward(torch.cat([x, x]))[: len(x)]

    fit(tmp_path, Folded(), [TopSamples()], val=validation())
    assert any("layer 'conv2' puts out [16, 6, 4, 4] for a batch of 8 samples" in line for line in said(recwarn))


def test_a_fault_of_our_own_works_ends_no_run(tmp_path, drawn_at_once, recwarn, monkeypatch):
    monkeypatch.setattr(TrainerRun, "validation_place", lambda run: 1 / 0)
    assert fit(tmp_path, ConvNet(), both(), val=validation()).global_step == 6
    assert any("watching validation failed: ZeroDivisionError" in line for line in said(recwarn))
    assert not drawn_at_once


def test_an_error_of_the_users_own_leaves_no_hook_behind(tmp_path, drawn_at_once):
    class Fails(ConvNet):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            raise RuntimeError("the user's own")

    model = Fails()
    with pytest.raises(RuntimeError, match="the user's own"):
        fit(tmp_path, model, both(), val=validation())
    assert not model.conv2._forward_hooks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": "strongest"}, "channels is 'strongest': give 'random', 'first' or a list"),
        ({"best": 10}, "best is 10: give 1 to 9"),
        ({"samples": 0}, "samples is 0: give 1 or more"),
    ],
)
def test_bad_options_are_errors_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        TopSamples(**options)


# Training does not notice.


def without_our_hooks(trace):
    """While a batch passes there are hooks of ours on the layers, which is how it is watched."""
    events = []
    for event, found in trace.events:
        passing = event in _WHILE_A_BATCH_PASSES
        events.append((event, {path: one for path, one in found.items() if not (passing and _HOOKS.search(path))}))
    return Trace(events)


def population_views(is_image, dense=False, attends=False):
    layers = "blocks" if is_image else ["hidden", "deeper"]
    often = {"every_n_train_steps": 1, "every_n_epochs": 1, "layers": layers, "samples": 12}
    return [TopSamples(**often), ActivationStatistics(**often)]


@pytest.fixture
def sketches(monkeypatch):
    handed_in = []

    class Counts(DrawingProcess):
        def __init__(self):
            super().__init__()

        def submit(self, owner, step, sketch):
            pickle.dumps(sketch)
            handed_in.append((owner, step))
            self._results.put((None, FinishedDrawing(owner, step, DrawResult(), name=sketch.name)))

    monkeypatch.setattr(picture_log, "DrawingProcess", Counts)
    return handed_in


@pytest.mark.parametrize("name", CELLS)
def test_training_is_the_same_while_validation_is_watched(name, sketches, tmp_path):
    with_views, _ = train(name, pytorch_lightning, views=population_views, folder=tmp_path)
    expected = without_our_hooks(undisturbed(name, "pytorch_lightning"))
    assert differences(expected, without_our_hooks(with_views)) == []
    assert {owner.partition("(")[0] for owner, _ in sketches} == {"TopSamples", "ActivationStatistics"}


def test_validation_is_watched_under_lightnings_other_name(sketches, tmp_path):
    with_views, _ = train(PLAIN, LIGHTNINGS["lightning.pytorch"], views=population_views, folder=tmp_path)
    expected = without_our_hooks(undisturbed(PLAIN, "lightning.pytorch"))
    assert differences(expected, without_our_hooks(with_views)) == []
    assert {step for _, step in sketches} == {4, 8}


def test_hooks_that_stay_would_be_noticed(sketches, tmp_path, monkeypatch):
    close = population.Accumulator.close

    def forgetful(self):
        self._watch = ExitStack()
        close(self)

    monkeypatch.setattr(population.Accumulator, "close", forgetful)
    found, _ = train(PLAIN, pytorch_lightning, views=population_views, folder=tmp_path)
    assert differences(without_our_hooks(undisturbed(PLAIN, "pytorch_lightning")), without_our_hooks(found))
