"""Attention, its rollout and its gradient-weighted form against formulas written as loops."""

import math

import pytest
import timm
import torch
import torchvision
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from lightning_viz.attribution import attention, attention_rollout, gradient_attention
from lightning_viz.attribution import attention_maps as home
from lightning_viz.errors import InvalidArgumentError, LayerNotFoundError, LayerNotReachedError, ObservationError
from lightning_viz.hooks import attention_weights, classes


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def torchvision_vit():
    model = torchvision.models.VisionTransformer(
        16, 4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=4
    )
    nn.init.normal_(model.heads.head.weight)  # zero at first
    return model


def timm_vit(fused=True, **options):
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=(32, 48), embed_dim=24, depth=3, num_classes=4, **options
    )
    for block in model.blocks:
        block.attn.fused_attn = fused
    return model


def hugging_face(kind="sdpa"):
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(**sizes, image_size=16, patch_size=4, num_labels=4)
    config._attn_implementation = kind
    return ViTForImageClassification(config)


class Encoder(nn.Module):
    """Patches without a class token, and torch's own layers, whose fast path calls no attention by name."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.patches, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 4)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x):
        return self.head(self.encoder(self.patches(x).flatten(2).mT).mean(1))


MODELS = {
    "torchvision": (torchvision_vit, (16, 16), (4, 4), 1),
    "timm": (timm_vit, (32, 48), (2, 3), 1),
    "timm, eager": (lambda: timm_vit(False), (32, 48), (2, 3), 1),
    "timm, registers": (lambda: timm_vit(reg_tokens=2), (32, 48), (2, 3), 3),
    "Hugging Face": (hugging_face, (16, 16), (4, 4), 1),
    "Hugging Face, eager": (lambda: hugging_face("eager"), (16, 16), (4, 4), 1),
    "patches alone": (Encoder, (16, 20), (4, 5), 0),
}


def made(name):
    build, size, grid, prefix = MODELS[name]
    return build().double(), torch.randn(3, 3, *size).double(), grid, prefix


@pytest.mark.parametrize("name", MODELS)
def test_a_layers_map_is_the_class_tokens_row_or_the_mean_over_tokens(name):
    model, x, grid, prefix = made(name)
    weights = attention_weights(model, x)
    for found in (attention(model, x, layers="*", heads="all"), attention(model, x, heads="all")):
        assert list(found) == list(weights)[-len(found) :]
        for call, heat in found.items():
            assert heat.dtype == torch.float64
            row = weights[call][:, :, 0] if prefix else weights[call].mean(2)
            row = row.double()  # Hugging Face's softmax is in single precision
            torch.testing.assert_close(heat, row[:, :, prefix:].unflatten(-1, grid), rtol=0, atol=1e-7)
    [mean], [second] = attention(model, x).values(), attention(model, x, heads=[1]).values()
    torch.testing.assert_close(mean, heat.mean(1, keepdim=True), rtol=1e-6, atol=0)
    torch.testing.assert_close(second, heat[:, 1:2])


def rolled(weights, gradients=None):
    """Both papers' formulas, number by number: with gradients Chefer's, else Abnar's and Zuidema's."""
    first = next(iter(weights))
    count, heads, tokens = first.shape[:3]
    below = [[[float(t == s) for s in range(tokens)] for t in range(tokens)] for _ in range(count)]
    for layer, a in enumerate(weights):
        a, g = a.tolist(), None if gradients is None else gradients[layer].tolist()
        for n in range(count):
            mixed = [[0.0] * tokens for _ in range(tokens)]
            for t in range(tokens):
                for s in range(tokens):
                    values = [a[n][h][t][s] * (1 if g is None else g[n][h][t][s]) for h in range(heads)]
                    values = values if g is None else [max(value, 0) for value in values]
                    mixed[t][s] = sum(values) / heads + (0 if g else t == s)
                total = sum(mixed[t])
                mixed[t] = mixed[t] if g else [value / total for value in mixed[t]]
            product = [
                [sum(mixed[t][u] * below[n][u][s] for u in range(tokens)) for s in range(tokens)] for t in range(tokens)
            ]
            kept = [[below[n][t][s] if g else 0 for s in range(tokens)] for t in range(tokens)]
            below[n] = [[kept[t][s] + product[t][s] for s in range(tokens)] for t in range(tokens)]
    return torch.tensor(below, dtype=torch.float64)


def on_grid(rolled, grid, prefix):
    row = rolled[:, 0] if prefix else rolled.mean(1)
    return row[:, prefix:].unflatten(-1, grid)[:, None]


@pytest.mark.parametrize("name", MODELS)
def test_the_rollout_is_the_formula(name):
    model, x, grid, prefix = made(name)
    expected = on_grid(rolled(attention_weights(model, x).values()), grid, prefix)
    torch.testing.assert_close(attention_rollout(model, x), expected, rtol=0, atol=1e-8)


class Written(nn.Module):
    """Attention of queries, keys and values written out, whose weights keep their gradients."""

    def __init__(self, own, split, join):
        super().__init__()
        self.own, self.split, self.join = own, split, join

    def forward(self, x, *args, **options):
        q, k, v = (part.unflatten(-1, (self.split, -1)).transpose(1, 2) for part in self.projected(x))
        self.weights = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1)
        self.weights.retain_grad()
        y = self.own.get_submodule(self.join)((self.weights @ v).transpose(1, 2).flatten(2))
        return y if self.join == "proj" else (y, None)

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("own"), name)

    def projected(self, x):
        if self.join == "proj":  # timm
            return self.own.qkv(x).chunk(3, -1)
        return torch.nn.functional.linear(x, self.own.in_proj_weight, self.own.in_proj_bias).chunk(3, -1)


def written(model):
    """The model with every attention written out, and those."""
    parts = []
    for holder in list(model.modules()):
        for name, child in list(holder.named_children()):
            if isinstance(child, nn.MultiheadAttention):
                parts.append(Written(child, child.num_heads, "out_proj"))
            elif type(child).__name__ == "Attention":
                parts.append(Written(child, child.num_heads, "proj"))
            else:
                continue
            setattr(holder, name, parts[-1])
    return model, parts


@pytest.mark.parametrize("name", ["torchvision", "timm", "timm, eager", "timm, registers"])
@pytest.mark.parametrize("target", [2, None, [0, 3, 1], classes(1, 3)], ids=["one", "predicted", "each", "several"])
def test_gradient_weighted_attention_is_the_formula(name, target):
    model, x, grid, prefix = made(name)
    found = gradient_attention(model, x, target)
    model, parts = written(model.eval())
    scores = model(x)
    several = not (target is None or isinstance(target, (int, list)))
    single = scores.argmax(1).tolist() if target is None else [2] * 3 if target == 2 else target
    for place, row in enumerate([[1] * 3, [3] * 3] if several else [single]):
        model(x)[range(3), row].sum().backward()
        expected = rolled([part.weights.detach() for part in parts], [part.weights.grad for part in parts])
        heat = found[place] if several else found
        expected = on_grid(expected, grid, prefix)
        assert expected.max() > 0
        torch.testing.assert_close(heat, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["Hugging Face", "patches alone"])
def test_gradient_weighted_attention_of_fused_calls_is_that_of_eager_ones(name):
    model, x, grid, prefix = made(name)
    found = gradient_attention(model, x, 1)
    assert found.shape == (3, 1, *grid) and found.max() > 0
    if name == "Hugging Face":
        other = hugging_face("eager").double()
        other.load_state_dict(model.state_dict())
        torch.testing.assert_close(found, gradient_attention(other, x, 1))
    else:
        model, parts = written(model.eval())
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            model(x)[:, 1].sum().backward()
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        expected = rolled([part.weights.detach() for part in parts], [part.weights.grad for part in parts])
        torch.testing.assert_close(found, on_grid(expected, grid, prefix), rtol=1e-6, atol=1e-9)


def test_few_images_at_a_time_give_the_same(monkeypatch):
    model, x, _, _ = made("timm")
    whole, several = gradient_attention(model, x, [0, 1, 2]), gradient_attention(model, x, classes(1, 2))
    monkeypatch.setattr(home, "MOST_WEIGHT_BYTES", 1)
    torch.testing.assert_close(gradient_attention(model, x, [0, 1, 2]), whole)
    torch.testing.assert_close(gradient_attention(model, x, classes(1, 2)), several)


class Inner(Encoder):
    """Attention in a block without gradients."""

    def forward(self, x):
        with torch.no_grad():
            tokens = self.encoder(self.patches(x).flatten(2).mT)
        return self.head(tokens.mean(1))


class Apart(Encoder):
    """A score that no attention plays a part in."""

    def forward(self, x):
        tokens = self.patches(x).flatten(2).mT
        self.encoder(tokens)
        return self.head(tokens.mean(1))


def reader():
    """Of words, whose tokens lie on no grid."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(nn.Embedding(7, 8), nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(40, 3))


def swin():
    return torchvision.models.SwinTransformer([4, 4], 8, [2], [2], [4, 4], num_classes=3)


def test_what_cannot_be_shown_is_refused_with_the_reason():
    x = torch.randn(2, 3, 32, 32)
    for function in (attention_rollout, gradient_attention):
        with pytest.raises(InvalidArgumentError, match=r"'features.1.0.attn' attends within 4 windows"):
            function(swin(), x)
    assert next(iter(attention(swin(), x).values())).shape == (2, 1, 8, 8)  # windows put back on the map
    with pytest.raises(InvalidArgumentError, match=r"5 tokens of '1.layers.1' lie on no grid"):
        attention(reader(), torch.randint(7, (2, 5)))
    with pytest.raises(InvalidArgumentError, match="no attention was seen"):
        gradient_attention(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), x)
    with pytest.raises(InvalidArgumentError, match="no attention was seen"):
        attention_rollout(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), x)
    with pytest.raises(ObservationError, match=r"runs under torch.no_grad"):
        gradient_attention(Inner(), x)
    with pytest.raises(InvalidArgumentError, match="does not depend on any attention"):
        gradient_attention(Apart(), x)
    model, x, _, _ = made("timm")
    with pytest.raises(LayerNotFoundError, match="no layer matches 'block'"):
        attention(model, x, layers="block")
    with pytest.raises(
        LayerNotReachedError, match=r"no attention is called in 'blocks.0.mlp'; it is in 'blocks.0.attn'"
    ):
        attention(model, x, layers="blocks.0.mlp")
    with pytest.raises(InvalidArgumentError, match=r"from 0 to 2, of 'blocks.2.attn'"):
        attention(model, x, heads=[3])
    assert list(attention(model, x, layers=["blocks.0", "blocks.1.attn"])) == ["blocks.0.attn", "blocks.1.attn"]


def test_of_a_channel_inside():
    """Targets are those of every other method."""
    model, x = timm_vit().double(), torch.randn(2, 3, 32, 48).double()
    heat = gradient_attention(model, x, "blocks.1.mlp.fc1[3]")
    assert heat.shape == (2, 1, 2, 3) and heat.max() > 0
