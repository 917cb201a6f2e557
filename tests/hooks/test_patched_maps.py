"""Copies of a map that differ in windows, against the copies computed whole."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_viz.hooks import patched_operations
from lightning_viz.hooks.patched_copies import NotFollowedError, SharedMaps, covered_copies
from lightning_viz.hooks.patched_maps import PatchedMaps, ordinary
from lightning_viz.hooks.reach import PatchWindows, Sliding, union
from lightning_viz.hooks.work_counter import WorkCounter


def grid(sides, patch, stride):
    """First row and column of patches, the last ones over the border."""
    axes = [torch.arange(0, side, step) for side, step in zip(sides, stride, strict=True)]
    return PatchWindows(torch.cartesian_prod(*axes).view(-1, len(sides)), patch)


def covered(image, cover, windows):
    copies = image.repeat(len(windows.starts), *[1] * (image.dim() - 1))
    for copy, starts in zip(copies, windows.starts.tolist(), strict=True):
        place = (..., *(slice(first, first + size) for first, size in zip(starts, windows.size, strict=True)))
        copy[place] = cover[0][place]
    return copies


def compare(model, image, windows, cover=None, kept=None, tolerance=1e-12):
    """Run copies in windows, in two passes, and whole; what was followed."""
    cover = torch.randn_like(image) if cover is None else cover
    kept = kept or SharedMaps()
    with torch.no_grad():
        whole = model(covered(image, cover, windows))
        half = len(windows.starts) // 2
        for part in (slice(0, half), slice(half, None)):
            kept.start_pass()
            some = PatchWindows(windows.starts[part], windows.size)
            result = ordinary(model(PatchedMaps(covered_copies(image, cover, some, kept))))
            assert type(result) is torch.Tensor and result.shape == whole[part].shape
            assert (result - whole[part]).abs().max() <= tolerance * whole.abs().max()
    return kept


class Slid(nn.Module):
    """A convolution or pooling at random."""

    def __init__(self, rng, channels, dims=2):
        super().__init__()
        kernel = tuple(rng.randint(1, 4) for _ in range(dims))
        padding = tuple(rng.randint(0, size // 2) for size in kernel)
        stride = tuple(rng.randint(1, 2) for _ in range(dims))
        kind = rng.choice(["convolution", "convolution", "grouped", "depthwise", "maximum", "mean"])
        if kind == "maximum":
            self.layer = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dims - 1](
                kernel, stride, padding, ceil_mode=rng.random() < 0.5
            )
        elif kind == "mean":
            pool = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[dims - 1]
            self.layer = pool(kernel, stride, padding, rng.random() < 0.3, rng.random() < 0.7)
        else:
            groups = {"convolution": 1, "grouped": 2, "depthwise": channels}[kind]
            dilation = tuple(rng.randint(1, 2) for _ in range(dims))
            self.layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](
                channels, channels, kernel, stride, padding, dilation, groups, bias=rng.random() < 0.5
            )

    def forward(self, x):
        return self.layer(x)


class Skip(nn.Module):
    """A sum with a branch of two convolutions, in place or not; its ReLUs too."""

    def __init__(self, rng, channels):
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm, self.in_place = nn.BatchNorm2d(channels), rng.random() < 0.5

    def forward(self, x):
        branch = self.second(F.relu(self.norm(self.first(x)), inplace=self.in_place))
        if self.in_place:
            branch += x
            return F.relu_(branch)
        return torch.relu(x + branch)


class Dense(nn.Module):
    """A concatenation with what another convolution of the same maps returns, and its split."""

    def __init__(self, rng, channels):
        super().__init__()
        self.conv, self.mix = nn.Conv2d(channels, 3, 3, padding=1), nn.Conv2d(channels + 3, channels, 1)
        self.splits = rng.random() < 0.5

    def forward(self, x):
        both = torch.cat([x, F.leaky_relu(self.conv(x), 0.1)], 1)
        if self.splits:
            left, right = both.split([4, both.shape[1] - 4], dim=1)
            both = torch.cat([right, left.sigmoid()], dim=1)
        return self.mix(both)


class ChannelsLast(nn.Module):
    """In the manner of ConvNeXt, with a scale of each layer and a map that is added in each place."""

    def __init__(self, rng, channels, side):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm, self.scale = nn.LayerNorm(channels), nn.Parameter(torch.randn(channels, 1, 1))
        self.up, self.down = nn.Linear(channels, 5), nn.Linear(5, channels)
        self.places = nn.Parameter(torch.randn(1, channels, *side))

    def forward(self, x):
        y = self.down(F.gelu(self.up(self.norm(self.conv(x).permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
        return x + self.scale * y + self.places


def random_network(rng, sides):
    channels = 6
    layers, x = [nn.Conv2d(3, channels, 3, padding=1)], torch.zeros(1, channels, *sides)
    for _ in range(rng.randint(3, 6)):
        block = rng.choice([Slid, Slid, Skip, Dense, ChannelsLast])
        layer = block(rng, channels, x.shape[2:]) if block is ChannelsLast else block(rng, channels)
        if min(layer.eval()(x).shape[2:]) >= 3:
            x = layer(x)
            layers += [
                layer,
                rng.choice([nn.ReLU(inplace=True), nn.Hardswish(), nn.BatchNorm2d(channels), nn.Dropout()]),
            ]
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 5)] if rng.random() < 0.5 else []
    return randomize(nn.Sequential(*layers))


def randomize(net):
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
    return net.double().eval()


@pytest.mark.parametrize("enough", [0.8, 2.0], ids=["until whole maps are cheaper", "to the end"])
@pytest.mark.parametrize("seed", range(30))
def test_random_networks_return_what_they_return_for_whole_copies(seed, enough, monkeypatch):
    monkeypatch.setattr(patched_operations, "_ENOUGH", enough)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    sides = rng.randint(19, 30), rng.randint(19, 30)
    net = random_network(rng, sides)
    patch = rng.randint(1, 6), rng.randint(1, 6)
    windows = grid(sides, patch, [rng.randint(2, 4) for _ in sides])
    image = torch.randn(1, 3, *sides).double()
    if rng.random() < 0.5:
        image = image.contiguous(memory_format=torch.channels_last)
    assert compare(net, image, windows).followed >= 1


@pytest.mark.parametrize("block", [Skip, Dense, ChannelsLast])
@pytest.mark.parametrize("seed", range(3))
def test_blocks_stay_in_windows_from_their_first_to_their_last_operation(block, seed):
    torch.manual_seed(seed)
    net = randomize(block(random.Random(seed), 6, (24, 25)) if block is ChannelsLast else block(random.Random(seed), 6))
    image, windows = torch.randn(1, 6, 24, 25).double(), PatchWindows(torch.tensor([[2, 3], [21, 22]]), (3, 3))
    with torch.no_grad():
        result = net(PatchedMaps(covered_copies(image, torch.zeros_like(image), windows, SharedMaps())))
    assert isinstance(result, PatchedMaps) and result.ordinary is None
    assert result.patched.windows.size == ((3 + 4,) * 2 if block is not Dense else (3 + 2,) * 2)
    compare(net, image, windows)


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_series_and_volumes(dims, seed, monkeypatch):
    monkeypatch.setattr(patched_operations, "_ENOUGH", 2.0)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    sides = (31,) if dims == 1 else (9, 10, 11)
    first = (nn.Conv1d, nn.Conv3d)[dims // 2](2, 6, 3, padding=1)
    net = randomize(nn.Sequential(first, nn.ReLU(inplace=True), Slid(rng, 6, dims), nn.GELU(), Slid(rng, 6, dims)))
    windows = grid(sides, (3,) * dims, (4,) * dims)
    assert compare(net, torch.randn(1, 2, *sides).double(), windows).followed >= 2


class Lines(nn.Module):
    """A function of maps, behind a convolution."""

    def __init__(self, function):
        super().__init__()
        self.function, self.conv = function, nn.Conv2d(3, 4, 3, padding=1)
        self.double()

    def forward(self, x):
        return self.function(self.conv(x))


def _set_item(x):
    x[:, 1] *= 2
    return x + 1


def _view_in_place(x):
    x.view(len(x), 4, -1)[:, :, 5].zero_()
    return x


def _twice(x):
    y = x * 2
    x += 1
    return x + y


def _out(x):
    y = torch.empty(x.shape, dtype=x.dtype)
    torch.mul(x, 2, out=y)
    return y


def _shuffled(x):
    return x.view(len(x), 2, 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape) + 1


FUNCTIONS = {
    "a gate for each copy": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid() + 1,
    "the maximum of all": lambda x: x / x.abs().amax((1, 2, 3), keepdim=True),
    "normalized over places": lambda x: F.instance_norm(x) + F.group_norm(x, 2),
    "the nearest of a larger map": lambda x: F.interpolate(x, scale_factor=2.0) * 2,
    "transposed convolution": lambda x: F.conv_transpose2d(x, torch.ones(4, 2, 2, 2).double()),
    "reflected border": lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), torch.ones(2, 4, 3, 3).double()),
    "rows and columns swapped": lambda x: F.conv2d(x.transpose(2, 3), torch.ones(2, 4, 3, 1).double()),
    "softmax of channels": lambda x: x.softmax(1),
    "cropped": lambda x: x[:, :, 2:-1, 3:] * x[:, :, :-3, :-3],
    "channels by number": lambda x: x[:, [2, 0]] + x[:, 1:2],
    "a value of each": lambda x: x[:, 0, 3, 4],
    "views": _shuffled,
    "an item set": _set_item,
    "in place through a view": _view_in_place,
    "in place, used before": _twice,
    "into another tensor": _out,
    "a map of each column": lambda x: x + torch.arange(13.0, dtype=torch.double) * torch.ones(4, 1, 1).double(),
    "a flat map to compare with": lambda x: torch.where(x > 0, x, -x) * (x > 0.1),
    "single precision and back": lambda x: (x.float() * 2).double(),
    "indices of maxima": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
}


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_what_else_a_model_may_do_with_its_maps(name):
    torch.manual_seed(0)
    compare(Lines(FUNCTIONS[name]).eval(), torch.randn(1, 3, 12, 13).double(), grid((12, 13), (2, 3), (3, 3)))


UNFOLLOWED = {
    "in place on a view": lambda x: x[:, :2].relu_() + x[:, 2:] + x[:, :2],
    "in place on what has a view": lambda x: (x[:, 1:], x.relu_())[0] + 1,
    "in place by an unusual operation": lambda x: (x[:, 1:], x.cumsum_(2))[0] + 1,
    "indices used": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
}


@pytest.mark.parametrize("name", list(UNFOLLOWED))
def test_what_would_be_wrong_in_windows_is_refused(name):
    torch.manual_seed(0)
    with pytest.raises(NotFollowedError):
        compare(Lines(UNFOLLOWED[name]).eval(), torch.randn(1, 3, 12, 12).double(), grid((12, 12), (2, 2), (3, 3)))


def test_one_copy_with_a_gate_of_its_own():
    """Its gate [1, C, 1, 1] has the shape of a parameter."""
    torch.manual_seed(0)
    net = Lines(FUNCTIONS["a gate for each copy"]).eval()
    compare(net, torch.randn(1, 3, 12, 12).double(), PatchWindows(torch.tensor([[1, 2], [5, 6]]), (2, 2)))


def test_a_weight_that_changes_between_passes_is_seen():
    net, image, kept = nn.Conv2d(3, 4, 3, padding=1).double(), torch.randn(1, 3, 12, 12).double(), SharedMaps()
    windows, cover = grid((12, 12), (2, 2), (3, 3)), torch.zeros(1, 3, 12, 12).double()
    compare(net, image, windows, cover, kept)
    with torch.no_grad():
        net.weight.mul_(2)
    compare(net, image, windows, cover, kept)


def test_a_later_pass_computes_no_shared_map_again():
    net, image, sizes = nn.Conv2d(3, 4, 3, padding=1).double(), torch.randn(1, 3, 12, 12).double(), []

    class Counted(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if PatchedMaps in types:
                return NotImplemented
            if func is torch.ops.aten.convolution.default:
                sizes.append(tuple(args[0].shape))
            return func(*args, **(kwargs or {}))

    kept = SharedMaps()
    with torch.no_grad(), Counted():
        for _ in range(2):
            kept.start_pass()
            net(
                PatchedMaps(
                    covered_copies(image, image * 0, PatchWindows(torch.tensor([[1, 2], [9, 9]]), (2, 3)), kept)
                )
            )
    assert sizes == [(1, 3, 12, 12), (2, 3, 6, 7), (2, 3, 6, 7)]


@pytest.mark.parametrize("seed", range(20))
def test_windows_are_those_that_a_gradient_reaches_and_no_larger_than_one_of_them_needs(seed):
    """Of one axis; which outputs read which inputs is counted."""
    rng = random.Random(seed)
    kernel, stride, dilation = rng.randint(1, 5), rng.randint(1, 3), rng.randint(1, 3)
    padding, side, patch = rng.randint(0, kernel // 2), rng.randint(16, 40), rng.randint(1, 5)
    output = (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    reads = [{o * stride - padding + dilation * tap for tap in range(kernel)} for o in range(output)]
    starts = torch.arange(side - patch + 1)[:, None]
    sliding = Sliding((kernel,), (stride,), (padding,), (dilation,))
    reached = sliding.reached(PatchWindows(starts, (patch,)), (output,))
    first = {s: [o for o in range(output) if reads[o] & set(range(s, s + patch))] for s in range(len(starts))}
    spans = []
    for s, outputs in first.items():
        start = int(reached.starts[s])
        assert 0 <= start and start + reached.size[0] <= output
        assert set(outputs) <= set(range(start, start + reached.size[0]))
        spans += [outputs[-1] - outputs[0] + 1] if outputs else []
    assert reached.size[0] == max(spans, default=1)


def test_windows_of_several_maps_are_joined_copy_by_copy():
    small = PatchWindows(torch.tensor([[4, 4], [0, 7]]), (2, 2))
    large = PatchWindows(torch.tensor([[3, 3], [1, 6]]), (3, 4))
    joined = union([small, large], (9, 10))
    assert joined.size == (4, 4)
    for part in (small, large):
        for axis in (0, 1):
            assert (joined.starts[:, axis] <= part.starts[:, axis]).all()
            assert (joined.starts[:, axis] + joined.size[axis] >= part.starts[:, axis] + part.size[axis]).all()
    assert (joined.starts + torch.tensor(joined.size) <= torch.tensor([9, 10])).all()


def test_multiplications_spared_are_those_outside_the_windows():
    """Two convolutions: a patch of 2 reaches 4 x 4 of 16 x 16, and with stride 2 then 3 x 3 of 8 x 8."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, 2, padding=1)).double()
    image = torch.randn(1, 3, 16, 16).double()
    kept = compare(net, image, PatchWindows(torch.tensor([[4, 5], [7, 8]]), (2, 2)))
    assert kept.spared.multiplications == (256 - 16) * 4 * 27 + (64 - 9) * 5 * 36


def test_work_is_counted_of_what_is_multiplied_and_written():
    """A linear layer on three dimensions writes its outputs once, though torch reshapes them on the way."""
    linear, x = nn.Linear(8, 16), torch.randn(2, 10, 8)
    with torch.no_grad(), WorkCounter() as counter:
        linear(x)
        torch.empty(1000)
        x.split(4, -1)
    assert (counter.work.multiplications, counter.work.written) == (2 * 10 * 8 * 16, 2 * 10 * 16)
    with torch.no_grad(), WorkCounter() as counter:
        torch.randn(3, 4, 5) @ torch.randn(3, 5, 6)
    assert (counter.work.multiplications, counter.work.written) == (3 * 4 * 5 * 6, 3 * (20 + 30 + 24))
