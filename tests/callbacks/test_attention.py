"""The view of attention: training does not notice it, one pass serves it, and it draws what the functions say."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lightning_viz import ActivationMaps, Attention, GradCAM, Probe, Saliency, attribution, catalogue
from lightning_viz.callbacks import shared_pass
from lightning_viz.errors import InvalidArgumentError, LayerNotFoundError
from lightning_viz.hooks import classes

from .conftest import ConvNet, fit, images
from .test_inputs import SmallViT, loader

DATA = images(6, channels=3, height=16, width=16)
WATCHED = Probe(inputs=DATA[0], labels=DATA[1], samples=6)
LAYERS = [f"net.encoder.layers.encoder_layer_{index}.self_attention" for index in range(2)]
TOKENS = 17  # 4 x 4 patches and the class token


def vit():
    torch.manual_seed(0)
    model = SmallViT()
    nn.init.normal_(model.net.heads.head.weight, std=0.1)  # zero at first
    return model


def trained(views, tmp_path, model=None):
    model = model or vit()
    fit(tmp_path, model, views, loader(*DATA))
    return model.eval()


def drawn(gallery, tag):
    return gallery.arguments(tag)[max(gallery.arguments(tag))]


def test_raw_attention_is_drawn_head_by_head(drawn_at_once, tmp_path):
    views = [Attention(probe=WATCHED), Attention(layers="*encoder_layer_0*", heads=[1], probe=WATCHED)]
    model = trained(views, tmp_path)
    tags = [f"attention/raw/{LAYERS[0]}/heads_1", f"attention/raw/{LAYERS[1]}"]
    assert {tag for tag in drawn_at_once.tags() if "attention" in tag} == set(tags)
    every = attribution.attention(model, DATA[0], layers="*", heads="all")
    for name, tag, heads in zip(LAYERS, tags, ([1], [0, 1]), strict=True):
        page, heat = drawn(drawn_at_once, tag), every[name]
        expected = torch.stack([heat.mean(1), *(heat[:, head] for head in heads)])[:, :, None]
        np.testing.assert_allclose(page["maps"], expected, rtol=0, atol=1e-6)
        assert (page["heads"], page["count"], page["query"]) == (heads, 2, "the class token")
        assert (page["tokens"], page["samples"]) == (TOKENS, 6)


@pytest.mark.parametrize("method", ["rollout", "gradient"])
def test_attention_through_all_layers_is_what_the_function_says(method, drawn_at_once, tmp_path):
    model = trained([Attention(method=method, target="predicted", probe=WATCHED)], tmp_path)
    function = attribution.attention_rollout if method == "rollout" else attribution.gradient_attention
    page = drawn(drawn_at_once, f"attention/{method}")
    np.testing.assert_allclose(page["maps"], function(model, DATA[0]), rtol=1e-4, atol=1e-6)
    if method == "rollout":  # says of no class that it is for it
        assert (page["target"], page["tokens"], page["unit"]) == ("", TOKENS, "of attention")
    else:
        assert page["target"] and page["tokens"] is None and page["unit"] == "logits: attention × ∂score/∂attention"
    assert page["details"][-1] == catalogue.method(function.__name__).worth != ""


def test_classes_side_by_side(drawn_at_once, tmp_path):
    model = trained([Attention(method="gradient", target=[2, 0], probe=WATCHED)], tmp_path)
    page = drawn(drawn_at_once, "attention/gradient/classes")
    expected = attribution.gradient_attention(model, DATA[0], classes(2, 0))
    np.testing.assert_allclose(page["maps"], expected, rtol=1e-4, atol=1e-6)


def test_raw_and_rollout_come_from_the_pass_of_the_others_and_change_none_of_their_numbers(
    drawn_at_once, tmp_path, monkeypatch
):
    observe, passes = shared_pass.observe, []

    def counting(*args, **options):
        passes.append(options)
        return observe(*args, **options)

    monkeypatch.setattr(shared_pass, "observe", counting)
    block = "net.encoder.layers.encoder_layer_1"
    others = [GradCAM(layers=f"{block}.ln_1", probe=WATCHED), Saliency(probe=WATCHED)]
    others.append(ActivationMaps(layers=block, probe=WATCHED))
    attending = [Attention(method=method, probe=WATCHED) for method in ("raw", "rollout", "gradient")]
    plain = trained(copy.deepcopy(others), tmp_path / "plain")
    without = [dict(sketch) for sketch in pages(drawn_at_once)]
    count = len(passes)
    drawn_at_once.clear()
    watched = trained([*others, *attending], tmp_path / "watched")
    assert len(passes) == 2 * count and passes[-1]["attention"] == ("rows", "rollout")
    assert all(torch.equal(one, watched.state_dict()[name]) for name, one in plain.state_dict().items())
    with_attention = [page for page in pages(drawn_at_once) if not page["tag"].startswith("attention")]
    assert len(with_attention) == len(without) > 0
    for one, other in zip(without, with_attention, strict=True):
        assert one["tag"] == other["tag"] and np.array_equal(one["maps"], other["maps"])


def pages(gallery):
    return [drawing.sketch.arguments for drawing in gallery]


def test_what_does_not_suit_is_said(drawn_at_once, tmp_path, caplog):
    with pytest.raises(InvalidArgumentError, match="method is 'flow': give one of"):
        Attention(method="flow")
    with pytest.raises(InvalidArgumentError, match="goes through all layers and heads"):
        Attention(method="rollout", layers="*")
    with pytest.raises(InvalidArgumentError, match=r"heads is \[-1\]"):
        Attention(heads=[-1])
    with pytest.raises(LayerNotFoundError, match="no layer matches 'block'"):
        trained([Attention(layers="block", probe=WATCHED)], tmp_path)
    trained([Attention(probe=WATCHED)], tmp_path, ConvNet(channels=3))
    assert "no attention was seen in the forward pass" in caplog.text
    assert not drawn_at_once
