"""The view of dreams: each look goes on from the one before, also in a resumed run, and draws what `maximize` makes."""

import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F

from lightning_viz import Dreams, PixelSpace, Probe, ViewError
from lightning_viz.callbacks import unit_crops
from lightning_viz.dream import blur, decay, maximize, pixels
from lightning_viz.errors import DreamWarning
from lightning_viz.hooks import logit, receptive_fields, unit

from .conftest import ConvNet, Net, Perceptron, fit, images, loader, said

X, Y = images(6, channels=3)
WATCHED = Probe(inputs=X, labels=Y, samples=6)
SPACE = PixelSpace((0.5,), (0.25,))
SMALL = {"each": 2, "updates": 4, "probe": WATCHED, "pixel_space": SPACE}


def train_with(view, tmp_path, model=None, **options):
    model = model or ConvNet(channels=3)
    fit(tmp_path, model, [view], loader(X, Y, batch_size=3), **options)
    return model


class Frozen(ConvNet):
    """A network that learns nothing, so that every look is at the same one."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def dreamt(model, steps, start=None):
    objectives = [unit("conv2", 0), unit("conv2", 1), logit(0), logit(1)]
    options = {"pixel_space": SPACE, "update_steps": [decay(0.02), blur(1.0, 4)], "progress": False}
    return maximize(model.eval(), objectives, image=pixels((3, 8, 8), start=start), steps=steps, **options)


def test_each_look_goes_on_from_the_images_of_the_look_before(drawn_at_once, tmp_path):
    model = train_with(Dreams(**SMALL), tmp_path, Frozen(channels=3))
    first = dreamt(model, 4)
    second = dreamt(model, 4, first.images)
    for step, dream in ((0, first), (2, second)):
        shown = [drawn_at_once.arguments(f"dreams/{layer}")[step] for layer in ("conv2", "logits")]
        assert (shown[1]["images"] == (dream.pixels[2:] * 255).round().byte().permute(0, 2, 3, 1).numpy()).all()
        ((top, bottom, left, right),) = receptive_fields(model, X, "conv2", [(2, 2)])
        for image, drawn in zip(dream.pixels[:2, :, top:bottom, left:right].double(), shown[0]["images"], strict=True):
            low, high = np.percentile(image, [1, 99])
            stretched = ((image - low) / (high - low)).clamp(0, 1) * 255
            assert np.array_equal(drawn, stretched.round().byte().permute(1, 2, 0).numpy())
        scalars = {tag: value for one in drawn_at_once if one.step == step for tag, value in one.drawn.scalars.items()}
        tags = ["dreams/conv2/0", "dreams/conv2/1", "dreams/logits/0", "dreams/logits/1"]
        assert scalars == dict(zip(tags, dream.values.tolist(), strict=True))
    shares = model(second.inputs).softmax(1)[[2, 3], [0, 1]].tolist()
    assert [word.split(", ")[1] for word in shown[1]["words"]] == [f"{share * 100:.0f} %" for share in shares]


def test_going_on_climbs_higher_than_starting_anew_and_changes_the_picture_less(drawn_at_once, tmp_path):
    model = train_with(Dreams(**{**SMALL, "updates": 10}), tmp_path, max_epochs=4)
    looks = [drawn_at_once.arguments("dreams/logits")[step]["images"].astype(float) for step in (0, 2, 4, 6, 8)]
    warm = [one.drawn.scalars for one in drawn_at_once if one.step == 8]
    cold = dreamt(model, 10).values.tolist()
    assert all(value > other for value, other in zip([v for one in warm for v in one.values()], cold, strict=True))
    anew = (dreamt(model, 10).pixels * 255).permute(0, 2, 3, 1)[2:].numpy()
    assert np.abs(looks[-1] - looks[-2]).mean() < 0.5 * np.abs(looks[-1] - anew).mean()


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_dreams_on_from_the_checkpoint(drawn_at_once, tmp_path):
    saving = {"dirpath": tmp_path, "every_n_epochs": 1, "save_top_k": -1, "filename": "{step}"}
    keep = pl.callbacks.ModelCheckpoint(**saving, save_on_train_epoch_end=True)
    fit(
        tmp_path,
        ConvNet(channels=3),
        [Dreams(**SMALL), keep],
        loader(X, Y, batch_size=3),
        max_epochs=3,
        enable_checkpointing=True,
    )
    whole = drawn_at_once.pictures("dreams/conv2")
    drawn_at_once.clear()
    train_with(Dreams(**SMALL), tmp_path / "again", ckpt_path=tmp_path / "step=2.ckpt", max_epochs=3)
    resumed = drawn_at_once.pictures("dreams/conv2")
    assert sorted(whole) == [0, 2, 4, 6] and sorted(resumed) == [4, 6]
    assert all(resumed[step].image == whole[step].image for step in resumed)


@pytest.mark.parametrize(
    ("units", "names"),
    [
        (["conv2[5]", "2"], {"conv2": ["channel 5"], "logits": ["2"]}),
        (["conv1", "conv1[0]", "conv1[3]"], {"conv1": ["channel 0", "channel 1", "channel 3"]}),
        (["conv*[1]"], {"conv1": ["channel 1"], "conv2": ["channel 1"]}),
        (["fc[2]", "logits"], {"fc": ["channel 2"], "logits": ["0", "1"]}),
        (["last_maps"], {"conv2": ["channel 0", "channel 1"]}),
    ],
)
def test_units_are_what_the_words_say(units, names, drawn_at_once, tmp_path):
    train_with(Dreams(**SMALL, units=units), tmp_path)
    assert set(drawn_at_once.tags()) == {f"dreams/{layer}" for layer in names}
    for layer, expected in names.items():
        assert all(one["names"] == expected for one in drawn_at_once.arguments(f"dreams/{layer}").values())


@pytest.mark.parametrize(
    ("units", "model", "message"),
    [
        (
            ["conv3[1]"],
            ConvNet,
            "no unit is called 'conv3[1]': no layer matches 'conv3'; did you mean 'conv2', 'conv1'",
        ),
        (["conv2[6]"], ConvNet, "unit 'conv2[6]': layer 'conv2' has 6 channels, numbered from 0"),
        (["logit"], ConvNet, "units are 'conv2[7]', 'conv2', '3' or 'class:ox', or 'logits'"),
        (["last_maps"], Perceptron, "no unit is called 'last_maps': the model has no convolution or attention"),
    ],
)
def test_units_that_do_not_exist_are_an_error_before_training(units, model, message, drawn_at_once, tmp_path):
    with pytest.raises(ViewError) as caught:
        fit(tmp_path, model(), [Dreams(units=units)])
    assert message in str(caught.value) and not drawn_at_once


@pytest.mark.parametrize("wrong", [{"units": "conv2"}, {"units": []}, {"updates": 0}, {"decay": 2.0}, {"blur": -1.0}])
def test_arguments_that_make_no_sense_are_an_error(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Dreams(**wrong)


def faults(view, tmp_path, model, data=None, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, model, [view], data or loader(X, Y, batch_size=3), **options)
    assert not any(issubclass(one.category, DreamWarning) for one in caught)
    return " ".join(said(caught))


def test_what_is_only_found_out_at_a_look_is_said_and_training_goes_on(drawn_at_once, tmp_path):
    assert "target class 7 is out of range: the model has 3 outputs" in faults(
        Dreams(**{**SMALL, "units": ["7"]}), tmp_path, ConvNet(channels=3)
    )
    flat = loader(torch.rand(6, 2), torch.arange(6) % 2, batch_size=3)
    view = Dreams(units=["hidden", "logits"], updates=2)
    assert "takes no image [N, C, H, W]" in faults(view, tmp_path, Perceptron(), flat)
    assert not drawn_at_once


class Odd(Net):
    """Takes an image and a mask, returns a dict; a channel of its ReLU is on for a gray image, another off for any."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Linear(4, 3)
        self.conv1.bias.data[:2] = torch.tensor([1.0, -1e6])

    def forward(self, image, mask):
        maps = self.relu(self.conv1(image * mask))
        return {"logits": self.fc(maps[:, [0, 2, 3, 0]].mean((2, 3)))}

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0], batch[1])["logits"], batch[2])

    def validation_step(self, batch, batch_idx):
        pass


def test_several_inputs_dicts_and_channels_that_are_off(drawn_at_once, tmp_path):
    mask = torch.ones(6, 1, 8, 8)
    mask[..., 4:] = 0
    given = Probe(inputs={"image": X, "mask": mask}, labels=Y, samples=6)
    view = Dreams(**{**SMALL, "probe": given, "units": ["relu[0]", "relu[1]", "logits"]})
    assert faults(view, tmp_path, Odd(), loader(X, mask, Y, batch_size=3)) == ""
    picture = drawn_at_once.pictures("dreams/relu")[2]
    lost = Dreams(**{**SMALL, "probe": given, "units": ["relu[9]"]})
    assert "channels [9] do not exist" in faults(lost, tmp_path, Odd(), loader(X, mask, Y, batch_size=3))
    assert "nothing leads up for channel 1" in picture.description and "flat in 1 of 2" in picture.description
    images = view.state["images"]
    assert np.abs(images[2, ..., :3]).mean() > 10 * np.abs(images[2, ..., 6:]).mean(), "the mask was not the probe's"


def test_a_channels_dream_is_cut_to_what_it_sees_and_stands_beside_its_strongest_samples(drawn_at_once, tmp_path):
    model = train_with(Dreams(**SMALL, units=["conv2", "conv1[2]", "fc[1]"]), tmp_path, Frozen(channels=3)).eval()
    seen = {}
    handle = model.conv2.register_forward_hook(lambda *args: seen.update(maps=args[2].detach()))
    model(X)
    handle.remove()
    page = drawn_at_once.arguments("dreams/conv2")[0]
    assert page["images"].shape[1:3] == (7, 7) and len(page["samples"]) == 2
    for index, samples in enumerate(page["samples"]):
        peaks = seen["maps"][:, index].flatten(1).max(1)
        order = [number for number in peaks.values.argsort(descending=True).tolist()[:2] if peaks.values[number] > 0]
        assert [crop.sample for crop in samples] == order
        for crop, number in zip(samples, order, strict=True):
            assert crop.value == pytest.approx(float(peaks.values[number]), rel=1e-5)
            place = divmod(int(peaks.indices[number]), 4)
            ((top, bottom, left, right),) = receptive_fields(model, X, "conv2", [place])
            pixels = SPACE.to_pixels(X[number])[:, top:bottom, left:right]
            assert np.array_equal(crop.image, (pixels * 255).clamp(0, 255).round().byte().permute(1, 2, 0).numpy())
    for words in (
        "cut to what the middle sees, 7 × 7 of 8 × 8 pixels",
        "contrast stretched",
        "under it: its activation",
    ):
        assert words in page["details"]
    assert "beside each: its 2 strongest samples" in page["details"] and page["sample_count"] == 6
    assert drawn_at_once.arguments("dreams/conv1")[0]["images"].shape[1:3] == (3, 3)
    whole = drawn_at_once.arguments("dreams/fc")[0]
    assert whole["images"].shape[1:3] == (8, 8) and not any("cut to" in words for words in whole["details"])
    assert all(crop.image.shape[:2] == (8, 8) for row in whole["samples"] for crop in row)


def test_no_sample_stands_beside_a_dream_of_a_private_run(drawn_at_once, tmp_path):
    train_with(Dreams(**SMALL, units=["conv2"], private=True), tmp_path)
    page = drawn_at_once.arguments("dreams/conv2")[2]
    assert not page["samples"] and page["images"].shape[1:3] == (7, 7)
    assert not any("strongest" in words for words in page["details"])


def test_a_network_that_was_nan_dreams_again(drawn_at_once, tmp_path):
    class Ill(ConvNet):
        def forward(self, x):
            return super().forward(x) * (torch.nan if not self.training and self.trainer.global_step == 2 else 1.0)

    view = Dreams(**{**SMALL, "units": ["0"]})
    assert faults(view, tmp_path, Ill(channels=3), max_epochs=2) == ""
    looks = drawn_at_once.pictures("dreams/logits")
    assert ["flat" in looks[step].description for step in (0, 2, 4)] == [False, True, False]
    assert np.isfinite(view.state["images"]).all()


def test_the_view_tells_the_passes_that_it_runs(drawn_at_once, tmp_path, monkeypatch):
    view, model, counted = Dreams(**SMALL), ConvNet(channels=3), []
    forward = ConvNet.forward

    def counting(self, x):
        counted.append(len(x) * (not self.training))
        return forward(self, x)

    def noted(model, inputs, call, places):
        asked.extend(places)
        return receptive_fields(model, inputs, call, places)

    asked = []
    monkeypatch.setattr(ConvNet, "forward", counting)
    monkeypatch.setattr(unit_crops, "receptive_fields", noted)
    fit(tmp_path, model, [view], loader(X, Y, batch_size=3), val=None)
    look = 6 + 4 * (4 + 2)  # the shared pass; four images each update, their end, confidences
    assert len(asked) == len(set(asked)) <= 1 + 2 * 2 + 2 * 2  # the middle, and where samples excite two channels most
    assert sum(counted) == 2 * look + 2 * len(asked)


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_the_view_comes_from_a_configuration():
    parser = pytest.importorskip("jsonargparse").ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(pl.Callback, "view")
    options = {"units": ["conv2[7]", "logits"], "updates": 5, "every_n_epochs": 2}
    given = parser.parse_object({"view": {"class_path": "lightning_viz.Dreams", "init_args": options}})
    view = parser.instantiate_classes(given).view
    assert (view.units, view.updates, view.schedule.every_n_epochs) == (["conv2[7]", "logits"], 5, 2)
