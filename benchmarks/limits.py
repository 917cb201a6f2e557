"""How close each method is to its limit: passes that mathematics needs, passes that we run, and our time over theirs.

A pass is a forward of one sample, or a backward of one sample towards the input. Hooks on the model count them, of ours
and, where there is one, of a peer. Times are medians over the rounds of a run in which all take turns, over the time of
as many bare passes as mathematics needs: where each pass waits for the one before (the steps of an attack or a dream),
or there is one alone, in batches of the inputs as they are given, else in batches of the size that the method chooses.

    pip install -e .[dev] && python benchmarks/limits.py [--rounds 5] [--only lenet resnet18_96] [--counts]

`--counts` runs each method once and leaves times out.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import captum.attr
import torch
import torchvision
from torch import Tensor, nn
from turns import Arms, in_turns

from lightning_viz import attribution, dream
from lightning_viz.adversarial import fgsm, pgd
from lightning_viz.hooks import logit
from lightning_viz.hooks.batching import choose_batch_size
from lightning_viz.hooks.pytree import device_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torchattacks

CLASS, COPIES, STEPS, SAMPLES = 3, 48, 10, 4
EPSILON = 8 / 255


@dataclass(frozen=True)
class Row:
    """A method on a model.

    Args:
        name: of the method.
        ours: runs it.
        forwards: of samples that mathematics needs.
        backwards: of samples that mathematics needs.
        peer: runs that of another tool.
        why: it may take more.
        batch: samples of a pass, if passes follow from each other; as many as are best if None.
    """

    name: str
    ours: Callable[[], object]
    forwards: int
    backwards: int
    peer: Callable[[], object] | None = None
    why: str = ""
    batch: int | None = None


class LeNet(nn.Sequential):
    """Of digits, 28 x 28, with ReLUs."""

    def __init__(self) -> None:
        first = nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)
        second = nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        super().__init__(
            *first, *second, nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
        )


def vit_tiny() -> nn.Module:
    return torchvision.models.VisionTransformer(224, 16, 12, 3, 192, 768)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "lenet": (LeNet, (1, 28, 28)),
    "resnet18_96": (torchvision.models.resnet18, (3, 96, 96)),
    "resnet18_224": (torchvision.models.resnet18, (3, 224, 224)),
    "vit_tiny_224": (vit_tiny, (3, 224, 224)),
}


def rows(model: nn.Module, shape: tuple[int, int, int]) -> list[Row]:
    """Methods that suit a model."""
    device = device_of(model)
    x, labels = torch.rand(SAMPLES, *shape, device=device), torch.full((SAMPLES,), CLASS, device=device)
    one, quiet, n = x[:1], {"progress": False}, SAMPLES
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    last = model.get_submodule(convolutions[-1])
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(model))
    size = choose_batch_size(one.numel(), model)
    patch = shape[1] // 4
    found = [
        Row("gradient", lambda: attribution.gradient(model, x, CLASS), n, n,
            lambda: captum.attr.Saliency(model).attribute(x, CLASS, abs=False), batch=n),
        Row("input x gradient", lambda: attribution.input_times_gradient(model, x, CLASS), n, n,
            lambda: captum.attr.InputXGradient(model).attribute(x, CLASS), batch=n),
        Row("SmoothGrad", lambda: attribution.smooth_grad(model, one, CLASS, noise_samples=COPIES, **quiet),
            COPIES, COPIES,
            lambda: tunnel.attribute(one, nt_samples=COPIES, nt_samples_batch_size=min(size, COPIES), target=CLASS)),
        Row("integrated gradients", lambda: attribution.integrated_gradients(model, one, CLASS, steps=COPIES, **quiet),
            COPIES, COPIES,
            lambda: captum.attr.IntegratedGradients(model).attribute(
                one, target=CLASS, n_steps=COPIES, internal_batch_size=min(size, COPIES))),
        Row("RISE", lambda: attribution.rise(model, one, CLASS, masks=COPIES, **quiet), COPIES, 0),
        Row("FGSM", lambda: fgsm(model, x, labels, epsilon=EPSILON, stop_on_success=False), 2 * n, n,
            lambda: torchattacks.FGSM(model, eps=EPSILON)(x, labels), "the second forward says who is fooled", batch=n),
        Row("PGD", lambda: pgd(model, x, labels, steps=STEPS, epsilon=EPSILON, stop_on_success=False, **quiet),
            (STEPS + 2) * n, STEPS * n,
            lambda: torchattacks.PGD(model, eps=EPSILON, alpha=EPSILON / 4, steps=STEPS)(x, labels),
            "the first forward says who is right, the last who is fooled", batch=n),
        Row("dream of a class", lambda: dream.maximize(model, logit(CLASS), image=shape, steps=STEPS, **quiet),
            STEPS + 1, STEPS, None, "the last forward says the probability; transforms and frames", batch=1),
    ]  # fmt: skip
    if not isinstance(model, torchvision.models.VisionTransformer):
        maps = _channels(model, one, last)
        positions = len(range(0, shape[1] - patch + 1, patch // 2)) ** 2
        found += [
            Row("Grad-CAM", lambda: attribution.grad_cam(model, x, CLASS, layers=convolutions[-1]), n, n,
                lambda: captum.attr.LayerGradCam(model, last).attribute(x, CLASS), "its backward ends at the layer",
                batch=n),
            Row("Grad-CAM, every convolution", lambda: attribution.grad_cam(model, x, CLASS, layers="Conv2d"), n, n,
                lambda: [captum.attr.LayerGradCam(model, model.get_submodule(name)).attribute(x, CLASS)
                         for name in convolutions], batch=n),
            Row("guided backpropagation", lambda: attribution.guided_backprop(model, x, CLASS), n, n,
                lambda: captum.attr.GuidedBackprop(model).attribute(x, CLASS), batch=n),
            Row("Score-CAM", lambda: attribution.score_cam(model, one, CLASS, layers=convolutions[-1], **quiet),
                maps + 1, 0),
            Row("Ablation-CAM", lambda: attribution.ablation_cam(model, one, CLASS, layers=convolutions[-1], **quiet),
                maps + 1, 0),
            Row("occlusion",
                lambda: attribution.occlusion(model, one, CLASS, patch=patch, stride=patch // 2, **quiet),
                positions + 1, 0,
                lambda: captum.attr.Occlusion(model).attribute(
                    one, (shape[0], patch, patch), strides=(shape[0], patch // 2, patch // 2), target=CLASS,
                    perturbations_per_eval=size), "windows of what a patch reaches"),
        ]  # fmt: skip
    else:
        found += [
            Row("attention rollout", lambda: attribution.attention_rollout(model, x), n, 0, batch=n),
            Row("gradient-weighted attention", lambda: attribution.gradient_attention(model, x, CLASS), n, n, batch=n),
        ]
    return found


def _channels(model: nn.Module, x: Tensor, layer: nn.Module) -> int:
    seen: list[int] = []
    handle = layer.register_forward_hook(lambda module, args, result: seen.append(result.shape[1]))
    with torch.no_grad():
        model(x)
    handle.remove()
    return seen[0]


@contextmanager
def counted(model: nn.Module) -> Iterator[Counter[str]]:
    """Forwards and backwards of samples through the model."""
    counts: Counter[str] = Counter()

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        counts["forward"] += len(args[0])

    def after(module: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
        if result.requires_grad:
            result.register_hook(lambda gradient: counts.update(backward=len(gradient)))

    handles = [model.register_forward_pre_hook(before), model.register_forward_hook(after)]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def bare(model: nn.Module, shape: tuple[int, int, int], row: Row) -> None:
    """As many passes as mathematics needs, and nothing else; no gradient for any weight."""
    size = row.batch or choose_batch_size(shape[0] * shape[1] * shape[2], model)
    layout = torch.channels_last if row.batch is None else torch.contiguous_format
    both, device = min(row.forwards, row.backwards), device_of(model)
    for start in range(0, both, size):
        x = torch.rand(min(size, both - start), *shape, device=device).contiguous(memory_format=layout)
        torch.autograd.grad(model(x.requires_grad_())[:, CLASS].sum(), x)
    with torch.no_grad():
        for start in range(both, row.forwards, size):
            part = torch.rand(min(size, row.forwards - start), *shape, device=device)
            model(part.contiguous(memory_format=layout))


def passes(work: Callable[[], object] | None, model: nn.Module) -> str:
    """Counted forwards and backwards of samples."""
    if work is None:
        return ""
    with counted(model) as counts:
        work()
    return f"{counts['forward']} / {counts['backward']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--counts", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; forwards / backwards of samples\n")
    for name in options.only:
        torch.manual_seed(0)
        build, shape = MODELS[name]
        model = build().eval().requires_grad_(False)
        print(f"## {name}\n\n| method | needed | ours | peer | time / needed | peer's time / needed | |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
        for row in rows(model, shape):
            took = {} if options.counts else timed(model, shape, row, options.rounds)
            cells = [row.name, f"{row.forwards} / {row.backwards}", passes(row.ours, model), passes(row.peer, model)]
            cells += [f"{took[arm]:.2f}" if arm in took else "" for arm in ("ours", "peer")]
            print(f"| {' | '.join([*cells, row.why])} |", flush=True)
        print()


def timed(model: nn.Module, shape: tuple[int, int, int], row: Row, rounds: int) -> dict[str, float]:
    """Ours and the peer's time over that of the bare passes."""
    arms: Arms = {"needed": partial(bare, model, shape, row), "ours": row.ours}
    if row.peer is not None:
        arms["peer"] = row.peer
    return in_turns(arms, "needed", rounds)


if __name__ == "__main__":
    main()
