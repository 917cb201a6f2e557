"""The attribution views: training does not notice them, one pass serves them, and they draw what the functions say."""

import warnings

import numpy as np
import pytest
import pytorch_lightning
import torch
from torch import nn

from lightning_viz import GradCAM, Occlusion, Probe, Saliency, attribution
from lightning_viz.attribution.evaluation import model_randomization
from lightning_viz.catalogue import methods
from lightning_viz.hooks import channel, classes, logit

from .conftest import ConvNet, fit, images, said
from .test_unchanged import LOGS, OWNED, PLAIN, RESUMED, pytestmark, sketches, train, undisturbed  # noqa: F401
from .trace import differences

METHODS, CAMS = list(methods(view="saliency")), list(methods(view="grad_cam"))
SHARED = [name for name, row in methods(view="saliency").items() if row.cost == 1]  # from the shared pass


def every_attribution_view(has_images, dense=False, attends=False):
    often = {"every_n_train_steps": 2, "every_n_epochs": 1}
    small = {"integration_steps": 2, "sanity_check": True, **often}
    views = [Saliency(method="gradient", **small), Saliency(method="integrated_gradients", **small)]
    views += [Saliency(method="input_times_gradient", noise_samples=2, statistic="variance", **small)]
    if has_images:
        views += [Saliency(method=method, **small) for method in [*SHARED, "lrp"] if "gradient" not in method]
        views += [GradCAM(method=method, target="top:2", sanity_check=True, **often) for method in CAMS]
        views += [Occlusion(patch=4, stride=4, samples=2, sanity_check=True, **often)]
    return views


@pytest.mark.parametrize("name", [PLAIN, LOGS, OWNED, RESUMED])
def test_training_is_the_same_with_every_attribution_view(name, sketches, tmp_path):  # noqa: F811
    with_views, run = train(name, pytorch_lightning, views=every_attribution_view, folder=tmp_path)
    assert differences(undisturbed(name, "pytorch_lightning"), with_views) == []
    drawn = sketches[0]
    expected = {view.name for view in every_attribution_view(run.images)}
    relus = {name for name in expected if any(rule in name for rule in ("guided", "deconvolution"))}
    assert expected - relus <= drawn.keys() <= expected  # rules have nothing to intercept where there is no ReLU


X, Y = images(6, channels=3)
WATCHED = Probe(inputs=X, labels=Y, samples=6)


class Smooth(ConvNet):
    """Without any ReLU, or with a GELU beside one."""

    def __init__(self, relu):
        super().__init__(channels=3)
        self.relu = relu

    def forward(self, x):
        x = nn.functional.gelu(self.conv1(x))
        x = self.conv2(x)
        return self.fc((x.relu() if self.relu else x.tanh()).mean((2, 3)))


def train_with(views, tmp_path, model=None):
    model = model or ConvNet(channels=3)
    fit(tmp_path, model, views, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=3))
    return model


def last(gallery, tag):
    return gallery.arguments(tag)[2]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", ["label", "predicted", 1, [2, 0]])
def test_saliency_draws_what_the_function_says(method, target, drawn_at_once, tmp_path):
    noise = {"noise_samples": 3} if method == "smooth_grad" else {}
    few = {"integration_steps": 3, "masks": 20, **noise}
    model = train_with([Saliency(method=method, target=target, probe=WATCHED, **few)], tmp_path)
    options = {"integrated_gradients": {"steps": 3}, "rise": {"masks": 20}}.get(method, noise)
    wanted = {"label": Y, "predicted": None}[target] if isinstance(target, str) else target
    several = isinstance(target, list)
    found = getattr(attribution, method)(model, X, classes(*target) if several else wanted, **options)
    found = next(iter(found.values())) if method == "guided_grad_cam" else found
    drawn = last(drawn_at_once, f"saliency/{method}" + ("/classes" if several else ""))
    assert found.abs().max() > 0
    assert np.abs(drawn["maps"] - found.numpy()).max() <= 1e-5 * found.abs().max()


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize("several", [False, True])
def test_class_activation_maps_are_what_the_function_says(method, several, drawn_at_once, tmp_path):
    view = GradCAM(method=method, layers=["conv1", "conv2"], target="top:2" if several else "label", probe=WATCHED)
    model = train_with([view], tmp_path)
    scores = model.eval()(X).detach()
    target = scores.topk(2).indices.T if several else Y
    for layer, heat in getattr(attribution, method)(model, X, target, layers=["conv1", "conv2"]).items():
        several_maps = several and method != "eigen_cam"  # which knows no class
        drawn = last(drawn_at_once, f"{method}/{layer}" + ("/classes" if several_maps else ""))
        assert np.abs(drawn["maps"] - heat.numpy()).max() <= 1e-5 * heat.abs().max()
        if several_maps:
            shares = scores.softmax(1).gather(1, target.T).T
            assert drawn["names"][1][3].split() == [f"{int(target[1, 3])}:", f"{float(shares[1, 3]) * 100:.0f}", "%"]


INNER = ["conv2[1]", "max(conv2)", channel("conv2", 1) - 0.5 * logit(2), "class:2", [1, "class:0"]]


@pytest.mark.parametrize("target", INNER, ids=str)
def test_any_target_is_explained_also_against_random_weights(target, drawn_at_once, tmp_path):
    options = {"target": target, "probe": WATCHED, "sanity_check": True}
    views = [
        GradCAM(layers="conv1", **options),
        Saliency(method="gradient", **options),
        Occlusion(samples=2, **options),
    ]
    model = train_with(views, tmp_path).eval()
    several = isinstance(target, list)
    plain = classes(1, 0) if several else 2 if target == "class:2" else target
    heat = attribution.grad_cam(model, X, plain, layers="conv1")["conv1"].numpy()
    drawn = last(drawn_at_once, "grad_cam/conv1" + ("/classes" if several else ""))
    assert np.abs(drawn["maps"] - heat).max() <= 1e-5 * heat.max()
    if not several:
        words = {"conv2[1]": "conv2 channel 1", "max(conv2)": "maximum of conv2", "class:2": "class 2"}
        assert drawn["target"] == words.get(target, "conv2 channel 1 - 0.5 * logit 2")
    drop = attribution.occlusion(model, X[:2], plain, progress=False).drop.numpy()
    if not several:
        assert np.abs(last(drawn_at_once, "occlusion")["drop"] - drop).max() <= 1e-5


def test_several_targets_stand_side_by_side_under_their_names(drawn_at_once, tmp_path):
    words = ["conv2[1]", 2, "max(conv2[3])"]
    options = {"target": words, "probe": WATCHED}
    views = [GradCAM(layers="conv1", **options), Saliency(**options), Occlusion(samples=2, **options)]
    model = train_with(views, tmp_path).eval()
    heat = [attribution.grad_cam(model, X, target, layers="conv1")["conv1"] for target in words]
    slope = [attribution.gradient(model, X, target) for target in words]
    for tag, expected in (("grad_cam/conv1", heat), ("saliency/gradient", slope)):
        drawn = last(drawn_at_once, f"{tag}/classes")
        assert np.abs(drawn["maps"] - torch.stack(expected).numpy()).max() <= 1e-5 * float(expected[0].abs().max())
        assert [row[0].partition(":")[0] for row in drawn["names"]] == [
            "conv2 channel 1",
            "2",
            "maximum of conv2 channel 3",
        ]
        assert drawn["of"] == "targets" and drawn["unit"].startswith("units of the target")
    assert last(drawn_at_once, "occlusion/classes")["maps"].shape[0] == 3


def test_many_classes_fill_several_pages(drawn_at_once, tmp_path):
    view = Saliency(target=[place % 3 for place in range(11)], samples=2, probe=WATCHED)
    train_with([view], tmp_path)
    pages = [last(drawn_at_once, f"saliency/gradient/classes{more}") for more in ("", "/10")]
    assert [len(page["maps"]) for page in pages] == [9, 2]
    assert [page["names"][0][0].partition(":")[0] for page in pages] == ["0", "0"]
    description = drawn_at_once.pictures("saliency/gradient/classes/10")[2].description
    assert "classes 10 to 11 of 11" in description


UNITS = {"conv2[1]": "units of activation", "max(conv2)": "units of activation", "2": "logits"}


@pytest.mark.parametrize("target", UNITS)
def test_maps_are_in_the_targets_unit(target, drawn_at_once, tmp_path):
    options = {"target": target, "probe": WATCHED}
    train_with([GradCAM(layers="conv1", **options), Saliency(**options), Occlusion(samples=2, **options)], tmp_path)
    for tag, per in (("grad_cam/conv1", ""), ("saliency/gradient", " per unit of input"), ("occlusion", "")):
        assert last(drawn_at_once, tag)["unit"] == UNITS[target] + per


@pytest.mark.parametrize("target", ["conv1[2]", "max(conv1)", "conv1[2,3,3]"])
def test_a_layer_behind_the_targets_is_refused_with_the_reason(target, drawn_at_once, tmp_path):
    views = [
        GradCAM(layers="conv2", target=target, probe=WATCHED),
        Saliency(method="guided_grad_cam", target=target, probe=WATCHED),
        GradCAM(layers="conv1", target=target, probe=WATCHED),
        Saliency(target=target, probe=WATCHED),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = train_with(views, tmp_path)
    told = [line for line in said(caught) if "does not depend on layer 'conv2', which comes after 'conv1'" in line]
    assert len(told) == 2 and any("guided_backprop needs no layer" in line for line in told)
    assert {one.drawn.pictures[0].tag for one in drawn_at_once} == {"grad_cam/conv1", "saliency/gradient"}
    with pytest.raises(ValueError, match="does not depend on layer 'conv2', which comes after 'conv1'"):
        attribution.grad_cam(model, X, target, layers="conv2")


@pytest.mark.parametrize("method", CAMS)
def test_every_weighting_explains_several_targets_and_units(method, drawn_at_once, tmp_path):
    views = [GradCAM(method=method, layers="conv1", target=target, probe=WATCHED) for target in ([2, 0], "conv2[1]")]
    model = train_with(views, tmp_path).eval()
    found = getattr(attribution, method)(model, X, "conv2[1]", layers="conv1")["conv1"]
    several, single = (one.sketch.arguments["maps"] for one in drawn_at_once if one.step == 2)
    assert several.ndim == (4 if method == "eigen_cam" else 5)
    assert np.abs(single - found.numpy()).max() <= 1e-5 * found.abs().max()


def test_occlusion_draws_what_the_function_says(drawn_at_once, tmp_path):
    model = train_with([Occlusion(patch=3, stride=2, samples=2, baseline="blur", probe=WATCHED)], tmp_path)
    drawn, first = last(drawn_at_once, "occlusion"), drawn_at_once.arguments("occlusion")[0]
    options = {"patch": 3, "stride": 2, "baseline": attribution.blurred}
    found = attribution.occlusion(model, X[:2], Y[:2], **options)
    assert np.abs(drawn["drop"] - found.drop.numpy()).max() <= 1e-6
    assert (drawn["predicted"] == found.predicted.numpy()).all()
    candidates = [
        attribution.occlusion(model, X[:2], Y[:2], feature=channel("conv2", one), **options).activity.numpy()
        for one in range(6)
    ]
    for sample in range(2):  # one of the channels, the same one at the first look
        assert min(np.abs(drawn["activity"][sample] - one[sample]).max() for one in candidates) <= 1e-5
    assert first["activity"].shape == drawn["activity"].shape and first["positions"] == (4, 4)


def test_one_forward_serves_all_rules_and_all_weightings(drawn_at_once, tmp_path, monkeypatch):
    views = [Saliency(method=method, probe=WATCHED) for method in SHARED]
    views += [GradCAM(method=method, probe=WATCHED) for method in CAMS if methods()[method].cost == 1]
    model = ConvNet(channels=3)
    counts = {"forward": 0, "backward": 0}
    grad, forward = torch.autograd.grad, ConvNet.forward

    def counting_grad(*args, **options):
        counts["backward"] += 1
        return grad(*args, **options)

    def counting_forward(self, x):
        counts["forward"] += 1
        return forward(self, x)

    monkeypatch.setattr(torch.autograd, "grad", counting_grad)
    monkeypatch.setattr(ConvNet, "forward", counting_forward)
    train_with(views, tmp_path, model)
    trained = 2 + 2  # batches, and those of the validation
    assert counts == {"forward": trained + 2, "backward": 2 * 3}  # two looks; plain, guided, deconvolution


@pytest.mark.parametrize("method", ["gradient", "guided_backprop", "smooth_grad"])
def test_believable_plots_the_randomization_score(method, drawn_at_once, tmp_path):
    options = {"noise_samples": 3} if method == "smooth_grad" else {}
    model = train_with([Saliency(method=method, sanity_check=True, probe=WATCHED, **options)], tmp_path)

    def again(model, inputs, target):
        return getattr(attribution, method)(model, inputs, target, **options)

    drawn = next(one.drawn for one in drawn_at_once if one.step == 2)
    expected = model_randomization(again, model, X, Y, layers=()).score
    assert drawn.scalars == {f"saliency/{method}/randomization": pytest.approx(expected, abs=1e-6)}
    assert f"untrained network's maps {expected:.2f}" in drawn.pictures[0].description


def test_believable_scores_every_layer(drawn_at_once, tmp_path):
    train_with([GradCAM(layers=["conv1", "conv2"], sanity_check=True, probe=WATCHED)], tmp_path)
    scores = [one.drawn.scalars for one in drawn_at_once if one.step == 2]
    assert [list(one) for one in scores] == [[f"grad_cam/{name}/randomization"] for name in ("conv1", "conv2")]
    assert all(-1 <= value <= 1 for one in scores for value in one.values())


@pytest.mark.parametrize("method", ["guided_backprop", "deconvolution", "guided_grad_cam"])
def test_a_rule_that_met_no_relu_is_said_and_not_drawn(method, drawn_at_once, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_with([Saliency(method=method, probe=WATCHED)], tmp_path, Smooth(relu=False))
    assert "rule met no ReLU (its activations are" in " ".join(said(caught))
    assert not drawn_at_once


def test_activations_that_stay_plain_are_said_in_the_picture(drawn_at_once, tmp_path):
    train_with([Saliency(method="guided_backprop", probe=WATCHED)], tmp_path, Smooth(relu=True))
    picture = drawn_at_once.pictures("saliency/guided_backprop")[2]
    assert "rule at 1 ReLUs" in picture.description and "1 GELU stay plain" in picture.description
