"""Copies to and from a GPU, with stand-ins for its streams: who is waited for, and when values are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_viz import GradCAM, Probe, Saliency, watch
from lightning_viz.callbacks.probe import Samples
from lightning_viz.host_copies import HostCopies, pinned, to_device
from tests.test_devices import pictures
from tests.test_synchronizations import CLASSES, images, network

CURRENT = "the current stream"


class Stream:
    """Does at `synchronize`, and not before, what was asked of it."""

    log: list[str]

    def __init__(self, device: Any = None) -> None:
        self.asked: list[Callable[[], object]] = []

    def wait_stream(self, other: Any) -> None:
        self.log.append(f"wait for {other}")

    def synchronize(self) -> None:
        self.log.append(f"synchronize after {len(self.asked)}")
        while self.asked:
            self.asked.pop(0)()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tensors of the CPU pass for those of a GPU; what its streams are asked for, in order."""
    lines: list[str] = []
    active: list[Stream] = []
    copied = Tensor.copy_

    @contextmanager
    def stream(given: Stream) -> Iterator[None]:
        active.append(given)
        yield
        active.pop()

    def copy(self: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if not active:
            return copied(self, source)
        lines.append(f"copy{', and go on' * non_blocking}")
        active[-1].asked.append(lambda: copied(self, source))
        return self

    monkeypatch.setattr(Stream, "log", lines, raising=False)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: CURRENT)
    monkeypatch.setattr(Tensor, "copy_", copy)
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: lines.append("keep the memory"))
    monkeypatch.setattr("lightning_viz.host_copies._has_stream", lambda tensor: True)
    monkeypatch.setattr("lightning_viz.host_copies._empty_pinned", lambda tensor: torch.full_like(tensor, -1))
    monkeypatch.setattr("lightning_viz.host_copies._is_pinned", lambda tensor: True)
    return lines


def test_a_copy_follows_what_computes_it_and_holds_the_values_when_it_was_waited_for(log):
    copies, tensors = HostCopies(), [torch.arange(3), torch.rand(2, 2)]
    found = [copies.copy(tensor) for tensor in tensors]
    each = [f"wait for {CURRENT}", "copy, and go on", "keep the memory"]
    assert log == 2 * each
    assert found[0].tolist() == [-1, -1, -1]
    copies.wait()
    assert log == [*2 * each, "synchronize after 2"]
    assert all(map(torch.equal, found, tensors))


def test_on_the_cpu_it_is_the_tensor_itself():
    copies, tensor = HostCopies(), torch.rand(2)
    assert copies.copy(tensor) is tensor
    copies.wait()


def test_looks_wait_once_for_all_their_passes_and_draw_the_same(tmp_path, request):
    def look(name: str) -> dict[Any, Any]:
        probe = Probe(inputs=images(), labels=torch.arange(6) % CLASSES)
        views = [GradCAM(layers="0"), Saliency(target=1), Saliency(target=2, method="guided_backprop")]
        with watch(network(sure=False), data=probe, views=views, logdir=tmp_path / name):
            pass
        return pictures(tmp_path / name)

    expected = look("plain")
    log = request.getfixturevalue("log")
    assert look("streams") == expected and len(expected) >= 3
    waits = [line for line in log if line.startswith("synchronize")]
    assert len(waits) == 1 and log[-1] == waits[0] and log.count("copy, and go on") > 10


def test_a_copy_to_a_gpu_goes_by_pinned_memory_of_its_own(monkeypatch):
    sent: list[tuple[Tensor, Any]] = []
    monkeypatch.setattr("lightning_viz.host_copies._empty_pinned", torch.empty_like)
    monkeypatch.setattr("lightning_viz.host_copies._is_pinned", lambda tensor: True)
    tensor, to = torch.arange(4), Tensor.to
    assert to_device(tensor, torch.device("cpu")) is tensor

    def send(self: Tensor, *args: Any, **options: Any) -> Tensor:
        if torch.device("cuda") not in args:
            return to(self, *args, **options)
        sent.append((self, options))
        return self

    monkeypatch.setattr(Tensor, "to", send)
    found = to_device(tensor, torch.device("cuda"), torch.float64)
    assert sent[0][1] == {"non_blocking": True} and found.dtype == torch.float64
    tensor.zero_()  # which the copy must not notice
    assert sent[0][0].tolist() == [0.0, 1.0, 2.0, 3.0]
    same = to_device(tensor, torch.device("cuda"))
    assert same.data_ptr() != tensor.data_ptr()


class Named(Tensor):
    """A tensor of a class of its own."""


@pytest.mark.parametrize(
    "tensor",
    [torch.eye(3).to_sparse(), torch.ones(3).as_subclass(Named), torch.ones(3, requires_grad=True)],
    ids=["sparse", "a class of its own", "part of a graph"],
)
def test_what_cannot_be_pinned_goes_as_it_is(tensor, monkeypatch):
    monkeypatch.setattr("lightning_viz.host_copies._PINNING", ("cpu",))
    monkeypatch.setattr("lightning_viz.host_copies._empty_pinned", lambda _: pytest.fail("was to be pinned"))
    assert pinned(tensor) is tensor
    found = to_device(tensor, torch.device("cpu"), torch.float64)
    assert (type(found), found.layout, found.requires_grad) == (type(tensor), tensor.layout, tensor.requires_grad)
    assert found.dtype == torch.float64


def test_without_memory_to_pin_the_cpu_waits_for_each_copy(monkeypatch):
    sent: list[Any] = []
    empty = torch.empty_like

    def refuse(*args: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return empty(*args, **options)

    def send(self: Tensor, *args: Any, non_blocking: bool = False, **options: Any) -> Tensor:
        sent.append(non_blocking)
        return self

    monkeypatch.setattr("lightning_viz.host_copies._PINNING", ("cpu",))
    monkeypatch.setattr(torch, "empty_like", refuse)
    monkeypatch.setattr(Tensor, "to", send)
    assert to_device(torch.arange(3), torch.device("cpu")).tolist() == [0, 1, 2]
    assert sent == [False, False]  # to its precision, and to the device


def test_the_head_of_a_probe_is_pinned_once(monkeypatch):
    made: list[Tensor] = []
    sent: list[Any] = []
    monkeypatch.setattr("lightning_viz.host_copies._is_pinned", lambda tensor: True)
    monkeypatch.setattr("lightning_viz.callbacks.probe.pinned", lambda x: made.append(x) or x.clone())
    samples = Samples((torch.rand(5, 2), torch.rand(5, 3)), None, head=3)
    expected = samples.part(0, 3)
    assert all(map(torch.equal, samples.head_on(torch.device("cpu")), expected)) and not made
    monkeypatch.setattr(Tensor, "to", lambda self, device, non_blocking=False: sent.append(non_blocking) or self)
    for _ in range(2):
        assert all(map(torch.equal, samples.head_on(torch.device("cuda")), expected))
    assert len(made) == 2 and sent == 4 * [True]
