"""Attention weights, recorded however attention is called, against the formula or eager attention."""

import copy
import math

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks import attention_calls, attention_weights, observe, windows

CLOSE = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Attends(nn.Module):
    """Calls a function of queries, keys and values, made of the input by linear layers."""

    def __init__(self, function, heads=2, keys=2):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 4 * heads), nn.Linear(8, 4 * keys), nn.Linear(8, 4 * keys)
        self.function = function

    def parts(self, x):
        return [layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v)]

    def forward(self, x):
        return self.function(*self.parts(x)).transpose(1, 2).flatten(2)


def formula(q, k, mask=None, scale=None):
    """Written out, with a mask that is added."""
    scores = torch.einsum("nhtd,nhsd->nhts", q, k) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    scores = (scores if mask is None else scores + mask).exp()
    return scores / scores.sum(-1, keepdim=True)


OPEN = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 0, 0, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0]]).bool()
ADDED = torch.linspace(-2, 2, 100).view(2, 2, 5, 5)
CLOSED, CAUSAL = torch.zeros(5, 5).masked_fill(~OPEN, -math.inf), torch.full((5, 5), -math.inf).triu(1)
sdpa = F.scaled_dot_product_attention


def by_einsum(q, k, v):
    return torch.einsum("nhts,nhsd->nhtd", formula(q, k).log().softmax(-1), v)


CALLS = {
    "plain": (lambda q, k, v: sdpa(q, k, v), {}),
    "a boolean mask": (lambda q, k, v: sdpa(q, k, v, attn_mask=OPEN), {"mask": CLOSED}),
    "a float mask": (lambda q, k, v: sdpa(q, k, v, ADDED), {"mask": ADDED}),
    "causal": (lambda q, k, v: sdpa(q, k, v, is_causal=True), {"mask": CAUSAL}),
    "a scale": (lambda q, k, v: sdpa(q, k, v, scale=0.3), {"scale": 0.3}),
    "the math kernel": (lambda q, k, v: sdpa(q.double(), k.double(), v.double()[..., :3]).float(), {}),
    "softmax of matmul": (lambda q, k, v: (q @ k.mT / 2).softmax(-1) @ v, {}),
    "F.softmax, cast, masked by head": (
        lambda q, k, v: (F.softmax((q @ k.mT / 2), dim=-1).double().float() * torch.ones(2, 1, 1)) @ v,
        {},
    ),
    "einsum": (by_einsum, {}),
    "einsum, keys first": (lambda q, k, v: torch.einsum("nhsd,nhts->nhtd", v, (q @ k.mT / 2).softmax(-1)), {}),
    "dropout": (lambda q, k, v: F.dropout((q @ k.mT / 2).softmax(-1), 0.5, training=False) @ v, {}),
}


@pytest.mark.parametrize("graph", [True, False], ids=["with a graph", "without"])
@pytest.mark.parametrize("call", CALLS)
def test_weights_equal_the_formula_and_outputs_are_untouched(call, graph):
    function, options = CALLS[call]
    model, x = Attends(function), torch.randn(2, 5, 8)
    q, k, _ = model.parts(x)
    [(name, weights)] = attention_weights(model, x).items()
    assert name == "Attends"
    torch.testing.assert_close(weights.float(), formula(q, k, **options), **CLOSE)
    plain = observe(model, x, forward=lambda m, x: m(x).mean(1), input_gradient=graph)
    seen = observe(model, x, forward=lambda m, x: m(x).mean(1), input_gradient=graph, attention=("rows", "rollout"))
    assert torch.equal(plain.outputs, seen.outputs)
    if graph:
        assert torch.equal(plain.input_gradient, seen.input_gradient)
    rows = seen.attention.calls[name]
    torch.testing.assert_close(rows.first.float(), weights[:, :, 0].float(), **CLOSE)
    torch.testing.assert_close(rows.mean.float(), weights.mean(2).float(), **CLOSE)


def test_grouped_queries_share_keys():
    model, x = Attends(lambda q, k, v: sdpa(q, k, v, enable_gqa=True), heads=4, keys=2), torch.randn(3, 5, 8)
    q, k, _ = model.parts(x)
    [weights] = attention_weights(model, x).values()
    torch.testing.assert_close(weights, formula(q, k.repeat_interleave(2, 1)), **CLOSE)


def test_one_head_without_an_axis():
    model, x = nn.Sequential(nn.Linear(8, 8), OneHead()), torch.randn(3, 5, 8)
    weights = attention_weights(model, x)
    assert weights.keys() == {"1"}
    q = model[0](x)
    torch.testing.assert_close(weights["1"][:, 0], (q @ q.mT / math.sqrt(8)).softmax(-1), **CLOSE)


class OneHead(nn.Module):
    def forward(self, x):
        return sdpa(x, x, x)


class Holder(nn.Module):
    """Attention by torch's module, in every way of calling it."""

    def __init__(self, batch_first, need_weights, cross, masked):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first, dropout=0.2)
        self.options = {"need_weights": need_weights, "average_attn_weights": False}
        self.cross, self.batch_first = cross, batch_first
        if masked:
            self.options["key_padding_mask"] = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 1, 1, 0], [0] * 5]).bool()

    def inputs(self, x):
        x = x if self.batch_first else x.transpose(0, 1)
        other = x.roll(1, 2) if self.cross else x
        return (x[:, :3] if self.batch_first else x[:3]) if self.cross else x, other, other

    def forward(self, x):
        y = self.attention(*self.inputs(x), **self.options)[0]
        return y if self.batch_first else y.transpose(0, 1)


@pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
@pytest.mark.parametrize("need_weights", [False, True], ids=["no weights", "weights"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["", "batch first"])
def test_torchs_module_gives_its_own_weights(batch_first, need_weights, cross, masked):
    model, x = Holder(batch_first, need_weights, cross, masked).eval(), torch.randn(3, 5, 8)
    options = {**model.options, "need_weights": True}
    with torch.no_grad():
        expected = model.attention(*model.inputs(x), **options)[1]
    [(name, weights)] = attention_weights(model, x).items()
    assert name == "attention" and weights.shape == (3, 2, 3 if cross else 5, 5)
    torch.testing.assert_close(weights, expected, **CLOSE)


@pytest.mark.parametrize("mask", ["", "causal", "padding"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_the_fast_path_stays_and_gives_its_weights(norm_first, mask):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    padding = torch.zeros(3, 5).bool()
    padding[1, 3:] = True
    options = {
        "": {},
        "causal": {"mask": ~torch.ones(5, 5).bool().tril()},
        "padding": {"src_key_padding_mask": padding},
    }
    given = {"src": torch.randn(3, 5, 8), **options[mask]}
    weights = attention_weights(model, given)
    assert list(weights) == ["layers.0", "layers.1"]  # the operator of a whole layer
    model.eval().requires_grad_(False)
    x, own = given["src"], {"attn_mask": given.get("mask"), "key_padding_mask": given.get("src_key_padding_mask")}
    for layer, recorded in zip(model.layers, weights.values(), strict=True):
        inner = layer.norm1(x) if norm_first else x
        expected = layer.self_attn(inner, inner, inner, average_attn_weights=False, **own)[1]
        torch.testing.assert_close(recorded, expected, **CLOSE)
        x = layer(x, given.get("mask"), given.get("src_key_padding_mask"))
    seen = [observe(model, given, forward=lambda m, x: m(**x).mean(1), attention=a).outputs for a in ((), ("rows",))]
    assert torch.equal(*seen)


def torchvision_vit():
    return torchvision.models.VisionTransformer(16, 4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16)


def timm_vit(fused, **options):
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=(32, 48), embed_dim=24, depth=2, num_classes=4, **options
    )
    for block in model.blocks:
        block.attn.fused_attn = fused
    return model


def hugging_face(kind):
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(**sizes, image_size=16, patch_size=4)
    config._attn_implementation = kind
    return ViTForImageClassification(config)


def timm_swin(fused):
    sizes = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
    model = timm.create_model("swin_tiny_patch4_window7_224", img_size=32, num_classes=4, **sizes)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    return model


PAIRS = {
    "timm's ViT": (lambda: timm_vit(True), lambda: timm_vit(False), (32, 48)),
    "timm's Swin": (lambda: timm_swin(True), lambda: timm_swin(False), (32, 32)),
    "Hugging Face's ViT": (lambda: hugging_face("sdpa"), lambda: hugging_face("eager"), (16, 16)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_fused_weights_equal_eager_ones(pair):
    fused, eager, size = PAIRS[pair]
    fused, eager, x = fused(), eager(), torch.randn(2, 3, *size)
    eager.load_state_dict(fused.state_dict())
    weights, expected = attention_weights(fused, x), attention_weights(eager, x)
    assert weights.keys() == expected.keys() and len(weights) in (2, 4)
    for name, one in weights.items():
        torch.testing.assert_close(one, expected[name], rtol=0, atol=1e-5)


def test_torchvisions_vit_against_its_modules():
    model, x, own = torchvision_vit().eval(), torch.randn(2, 3, 16, 16), {}
    weights = attention_weights(model, x)
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):

            def hook(module, inputs, output, name=name):
                own[name] = nn.MultiheadAttention.forward(module, *inputs, average_attn_weights=False)[1]

            module.register_forward_hook(hook)
    model(x)
    assert list(weights) == list(own)
    for name, one in weights.items():
        torch.testing.assert_close(one, own[name], rtol=0, atol=1e-5)


def test_torchvisions_swin_in_windows():
    """The shifted windows' weights are those of its own softmax."""
    model = torchvision.models.SwinTransformer([4, 4], 8, [2], [2], [4, 4], num_classes=3).eval()
    own, softmax = [], F.softmax
    x = torch.randn(2, 3, 32, 32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "softmax", lambda *args, **options: own.append(softmax(*args, **options)) or own[-1])
        model(x)
    weights = attention_weights(model, x)
    assert [w.shape for w in weights.values()] == [(8, 2, 16, 16)] * 2
    for one, expected in zip(weights.values(), own, strict=True):
        torch.testing.assert_close(one, expected, **CLOSE)
    [whole, shifted] = observe(model, x, attention=("rows",)).attention.calls.values()
    assert whole.layout.grid == shifted.layout.grid == (8, 8) and whole.keys == shifted.keys == 16
    mean = own[0].mean(2).view(2, 2, 2, 2, 4, 4)  # [N, rows, columns, heads, 4, 4]
    by_hand = mean.permute(0, 3, 1, 4, 2, 5).reshape(2, 2, 64)
    torch.testing.assert_close(whole.mean, by_hand, **CLOSE)
    mean = own[1].mean(2).view(2, 2, 2, 2, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(2, 2, 8, 8)
    torch.testing.assert_close(shifted.mean, mean.roll((2, 2), (2, 3)).flatten(2), **CLOSE)


GRIDS = {
    "class token": (torchvision_vit, (16, 16), (4, 4), 1, True),
    "not square": (lambda: timm_vit(True), (32, 48), (2, 3), 1, True),
    "registers": (lambda: timm_vit(True, reg_tokens=4), (32, 48), (2, 3), 5, True),
    "registers alone": (
        lambda: timm_vit(True, reg_tokens=4, class_token=False, global_pool="avg"), (32, 48), (2, 3), 4, False,
    ),
    "one register alone": (
        lambda: timm_vit(True, reg_tokens=1, class_token=False, global_pool="avg"), (32, 48), (2, 3), 1, False,
    ),
    "patches alone": (lambda: timm_vit(True, class_token=False, global_pool="avg"), (32, 48), (2, 3), 0, False),
    "no patch embedding": (lambda: Attends(sdpa), None, (5,), 0, False),
}  # fmt: skip


@pytest.mark.parametrize("kind", GRIDS)
def test_where_the_patches_are(kind):
    build, size, grid, prefix, class_token = GRIDS[kind]
    x = torch.randn(2, 5, 8) if size is None else torch.randn(2, 3, *size)
    seen = observe(build(), x, attention=("rows", "rollout"), forward=lambda m, x: m(x).reshape(2, -1))
    for rows in (*seen.attention.calls.values(), seen.attention.rollout):
        assert (rows.layout.grid, rows.layout.prefix, rows.class_token) == (grid, prefix, class_token)


def test_a_module_called_twice():
    inner = Attends(sdpa)
    model, x = nn.Sequential(inner, inner), torch.randn(2, 5, 8)
    weights = attention_weights(model, x)
    assert list(weights) == ["0:0", "0:1"]
    torch.testing.assert_close(weights["0:1"], formula(*inner.parts(inner(x))[:2]), **CLOSE)


def test_nothing_is_changed_by_recording():
    """Outputs, activations and gradients of the same pass, to the bit."""
    model, x = timm_vit(True), torch.randn(3, 3, 32, 48)
    options = {"layers": ["blocks.0", "norm"], "gradients": True, "input_gradient": True}
    plain = observe(model, x, **options)
    seen = observe(model, x, **options, attention=("rows", "rollout"))
    assert torch.equal(plain.outputs, seen.outputs) and torch.equal(plain.input_gradient, seen.input_gradient)
    for name in plain.activations:
        assert torch.equal(plain.activations[name], seen.activations[name])
        assert torch.equal(plain.gradients[name], seen.gradients[name])
    assert not torch.nn.modules.module._global_forward_hooks and not torch.nn.modules.module._global_forward_pre_hooks
    assert len(plain.attention.calls if plain.attention else ()) == 0 and len(seen.attention.calls) == 2


def test_little_at_a_time_gives_the_same(monkeypatch):
    model, x = timm_vit(True), torch.randn(3, 3, 32, 48)
    whole = observe(model, x, attention=("rows", "rollout")).attention
    monkeypatch.setattr(attention_calls, "MOST_WEIGHT_BYTES", 2 * 4 * 7 * 7)
    sizes, chunks = [], attention_calls.AttentionCall.chunks

    def watched(self):
        for part, weights in chunks(self):
            sizes.append(4 * weights.numel())
            yield part, weights

    monkeypatch.setattr(attention_calls.AttentionCall, "chunks", watched)
    parts = observe(model, x, attention=("rows", "rollout")).attention
    assert max(sizes) <= 2 * 4 * 7 * 7
    for call, rows in whole.calls.items():
        torch.testing.assert_close(parts.calls[call].first, rows.first, **CLOSE)
        torch.testing.assert_close(parts.calls[call].mean, rows.mean, **CLOSE)
    torch.testing.assert_close(parts.rollout.first, whole.rollout.first, **CLOSE)


def rolled_by_loops(weights):
    """Abnar and Zuidema's rollout, number by number."""
    layers = [layer.double().mean(1) for layer in weights]
    count, tokens = layers[0].shape[:2]
    below = torch.eye(tokens).double().expand(count, -1, -1).clone()
    for layer in layers:
        above = torch.zeros_like(below)
        for n in range(count):
            for t in range(tokens):
                row = [(layer[n, t, s] + (t == s)) / 2 for s in range(tokens)]
                total = sum(row)
                for s in range(tokens):
                    above[n, t, s] = sum(row[u] / total * below[n, u, s] for u in range(tokens))
        below = above
    return below


def test_the_rollout_as_loops():
    model, x = timm_vit(True), torch.randn(2, 3, 32, 48)
    expected = rolled_by_loops(attention_weights(model, x).values())
    rollout = observe(model, x, attention=("rollout",)).attention.rollout
    torch.testing.assert_close(rollout.first[:, 0].double(), expected[:, 0], **CLOSE)
    torch.testing.assert_close(rollout.mean[:, 0].double(), expected.mean(1), **CLOSE)


class Mixed(nn.Module):
    """Samples and heads in one axis, by hand."""

    def forward(self, x):
        heads = x.unflatten(-1, (2, 4)).transpose(1, 2).flatten(0, 1)
        return ((heads @ heads.mT).softmax(-1) @ heads).unflatten(0, (-1, 2)).transpose(1, 2).flatten(2)


class Gates(nn.Module):
    """A softmax over experts, of classes, and over queries: none is attention."""

    def forward(self, x):
        return (x * x.softmax(-1)).mean(1).softmax(-1) + ((x @ x.mT).softmax(1) @ x).mean(1)


def test_what_cannot_be_recorded_is_said():
    x = torch.randn(3, 5, 8)
    with pytest.raises(InvalidArgumentError, match="'0' cannot be recorded: samples and heads are one axis of 6"):
        attention_weights(nn.Sequential(Mixed()), x)
    assert (
        "one axis"
        in observe(Mixed(), x, attention=("rows",), forward=lambda m, x: m(x)[:, 0]).attention.missed["Mixed"]
    )
    for model in (Gates(), nn.Linear(8, 8)):
        with pytest.raises(InvalidArgumentError, match="no attention was seen"):
            attention_weights(model, x)


def test_too_much_is_refused(monkeypatch):
    monkeypatch.setattr("lightning_viz.hooks.attention.MOST_WEIGHT_BYTES", 1 << 10)
    with pytest.raises(InvalidArgumentError, match="give fewer inputs"):
        attention_weights(timm_vit(True), torch.randn(8, 3, 32, 48))


@pytest.mark.parametrize(
    "build", [lambda: timm_swin(True), lambda: timm_vit(True, class_token=False, global_pool="map")]
)
def test_where_the_number_of_tokens_changes_there_is_no_rollout(build):
    model = build()
    size = (32, 32) if "Swin" in type(model).__name__ else (32, 48)
    attended = observe(model, torch.randn(2, 3, *size), attention=("rollout",)).attention
    assert attended.rollout is None and ("windows" in attended.refused or "1 tokens to 6 others" in attended.refused)


def test_a_compiled_and_a_traced_model():
    model, x = torchvision_vit().eval(), torch.randn(2, 3, 16, 16)
    expected = attention_weights(model, x)
    compiled = attention_weights(torch.compile(copy.deepcopy(model)), x)
    assert all(torch.equal(one, compiled[name]) for name, one in expected.items())


@pytest.mark.parametrize("size", [(32, 32), (28, 36), (20, 44)], ids=str)
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_windows_lie_where_the_block_puts_them_back(library, size):
    """Whatever the padding: values that name their places come back to these through the library's own block."""
    if library == "timm":
        sizes = {"embed_dim": 4, "depths": (2,), "num_heads": (1,), "window_size": 4}
        model = timm.create_model("swin_tiny_patch4_window7_224", img_size=size, num_classes=4, **sizes)
        shifted = model.layers[0].blocks[1]
    else:
        model = torchvision.models.SwinTransformer([4, 4], 4, [2], [1], [4, 4], num_classes=3)
        shifted = model.features[1][1].attn
    grid = (size[0] // 4, size[1] // 4)
    calls = observe(model, torch.randn(2, 3, *size), attention=("rows",)).attention.calls
    assert [rows.layout.grid for rows in calls.values()] == [grid] * 2
    places = torch.arange(1.0, grid[0] * grid[1] + 1).view(1, *grid, 1).expand(2, -1, -1, 4)
    found = windows.windows_of([(shifted, (places,))], 2 * math.ceil(grid[0] / 4) * math.ceil(grid[1] / 4), 16, 2)
    seen, linear = [], F.linear

    def keep(x, *others):
        seen.append(x)
        return linear(x, *others)

    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "linear", keep)
        shifted._attn(places) if library == "timm" else shifted(places)
    cut = seen[0][..., 0].reshape(2, -1, 16)[0] - 1  # the windows as the library cuts them
    assert torch.equal(cut.long(), found.places)
    assert torch.equal(found.spread(cut.repeat(2, 1)[:, None])[0, 0].long(), torch.arange(grid[0] * grid[1]))
