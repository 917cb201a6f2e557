"""How often the CPU waits for the device in a step, of every climb, attack and method of many passes.

A step that nobody waits for is queued while the device is at the one before. The table says what is waited for, and
why; it is counted on a device of its own (see `tests.separate_device`). What is found there `test_devices` compares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_viz import adversarial, attribution, dream
from lightning_viz.attribution.evaluation import deletion
from lightning_viz.catalogue import methods
from lightning_viz.hooks import channel, logit, observe, top, unit
from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness import random_directions
from tests.attribution.methods import METHODS, explain
from tests.attribution.nets import inputs
from tests.attribution.nets import network as attributed
from tests.separate_device import moved, separate_device, values_of, waits_of_each

SIDE, CLASSES = 8, 5
QUIET: dict[str, Any] = {"progress": False}
SPACE = PixelSpace((0.4,), (0.3,))


@dataclass(frozen=True)
class Row:
    """What is done so often, from a model and images, and what the CPU may wait for each time, with the reason.

    Attributes:
        sure: whether the model is so sure of class 0 that no attack ends early.
    """

    work: Callable[[nn.Module, Tensor, int], Any]
    waits: float = 0
    why: str = ""
    few: int = 2
    many: int = 5
    sure: bool = True


def labels(images: Tensor) -> Tensor:
    return images.new_zeros(len(images), dtype=torch.long)


def attack(name: str, waits: float = 0, why: str = "", counter: str = "steps", **options: Any) -> Row:
    function = getattr(adversarial, name)

    def work(model: nn.Module, images: Tensor, steps: int) -> Tensor:
        return function(model, images, labels(images), **{counter: steps}, **QUIET, **options).pixels

    few, many = (20, 40) if name == "carlini_wagner" else (2, 4)  # which looks at its progress after a tenth each
    return Row(work, waits, why, few, many)


def climb(objective: Any, **options: Any) -> Row:
    def work(model: nn.Module, images: Tensor, steps: int) -> Tensor:
        return dream.maximize(
            model, objective, **{"image": (1, SIDE, SIDE), "frames": 3} | options, steps=steps, **QUIET
        ).images

    return Row(work)


def batches(name: str, **options: Any) -> Row:
    """So many batches of a method."""

    def work(model: nn.Module, images: Tensor, count: int) -> Any:
        return getattr(attribution, name)(model, images, 3, **QUIET, **{k: v(count) for k, v in options.items()})

    return Row(work)


STOPS = "which samples are done, so that they leave the batch"
FEW = {"epsilon": 1e-3}
ATTACKS = {
    "fgsm": Row(
        lambda model, images, n: [
            adversarial.fgsm(model, images, labels(images), stop_on_success=False).pixels for _ in range(n)
        ],
        6,
        "a whole attack: inputs, epsilons, labels and first scores are checked, and the result is asked for warnings",
        few=1,
        many=2,
    ),
    "gradient_ascent": attack("gradient_ascent", 1, STOPS),
    "gradient_ascent to the end": attack("gradient_ascent", stop_on_success=False),
    "pgd": attack("pgd", 1, STOPS, **FEW),
    "pgd to the end": attack("pgd", stop_on_success=False, **FEW),
    "pgd in batches": attack("pgd", 2, f"{STOPS}, in each of two batches", batch_size=3, **FEW),
    "apgd": attack("apgd", 1, STOPS, **FEW),
    "apgd to the end": attack("apgd", stop_on_success=False, **FEW),
    "deepfool": attack("deepfool", 1, STOPS),
    "carlini_wagner": attack("carlini_wagner", binary_search_steps=1, initial_const=1.0),
    "fab": attack("fab", targets=2),
    "square": attack("square", 1, STOPS, counter="queries", **FEW),
    "one_pixel": attack(
        "one_pixel", 6, "SciPy's evolution is on the CPU: a copy for each sample", "generations", population=20
    ),
    "auto_attack": Row(
        lambda model, images, n: (
            adversarial.auto_attack(model, images, labels(images), targets=2, steps=n, queries=n, **FEW, **QUIET).pixels
        ),
        6,
        f"{STOPS}: APGD-CE, APGD-DLR for two targets, FAB for two, Square",
        many=4,
    ),
    "minimum_epsilon": Row(
        lambda model, images, n: (
            adversarial.minimum_epsilon(
                model,
                images,
                attack=partial(adversarial.pgd, stop_on_success=False, **QUIET),
                high=1.0,
                binary_search_steps=n,
                **QUIET,
            ).pixels
        ),
        8,
        "a step is an attack of its own, with its checks, on those samples that are left",
        sure=False,
    ),
}
CLIMBS = {
    "maximize": climb(channel("0", 1)),
    "classes": climb([logit(1), logit(2), channel("0", 1)]),
    "a unit": climb(unit("0", (1, 2, 2))),
    "Fourier": climb(logit(1), image=dream.fourier((1, SIDE, SIDE)), bounded=True, pixel_space=SPACE),
    "a network of coordinates": climb(logit(1), image=dream.cppn((1, SIDE, SIDE)), bounded=True),
    "phases": climb(logit(1), image=dream.maco((1, SIDE, SIDE)), bounded=True),
    "priors": climb(logit(1), priors={"edge_energy": 1.0, "total_variation": 0.1}, pixel_space=SPACE),
    "update steps": climb(logit(1), update_steps="contribution", small_gradients=20),
    "transforms": climb(logit(1), transforms=[dream.jitter(1), dream.rotate(-5, 5), dream.scale(0.9, 1.1)]),
    "diverse": climb([logit(1), logit(2)], copies=2, diverse="0"),
    "deep_dream": Row(
        lambda model, images, n: dream.deep_dream(model, images[0], "0", octaves=1, steps=n, frames=3, **QUIET).images
    ),
    "invert": Row(
        lambda model, images, n: (
            dream.invert(model, images[:2], "0", weights=(1.0, 1.0), steps=n, frames=3, **QUIET).dream.images
        )
    ),
    "style_transfer": Row(
        lambda model, images, n: (
            dream.style_transfer(
                model, *images[:2], content_layers=["0"], style_layers=["0"], optimizer="adam", steps=n, frames=3,
                **QUIET,
            ).images
        )
    ),
    "style_transfer by L-BFGS": Row(
        lambda model, images, n: (
            dream.style_transfer(
                model, *images[:2], content_layers=["0"], style_layers=["0"], steps=n, frames=3, **QUIET
            ).images
        ),
        20,
        "torch's L-BFGS decides on the CPU how far to go, and when to stop; 14 times where one pass is enough",
    ),
    "fool": Row(
        lambda model, images, n: (
            dream.fool(model, (1, SIDE, SIDE), population=6, generations=n, batch_size=3, frames=3, **QUIET).pixels
        ),
        1,
        "the evolution is on the CPU: a copy of all scores",
    ),
}  # fmt: skip
PASSES = {
    "smooth_grad": batches("smooth_grad", noise_samples=lambda n: 2 * n, batch_size=lambda n: 12),
    "integrated_gradients": batches("integrated_gradients", steps=lambda n: 2 * n, batch_size=lambda n: 12),
    "rise": batches("rise", masks=lambda n: 2 * n, batch_size=lambda n: 12, cells=lambda n: 4),
    "occlusion": batches(
        "occlusion", patch=lambda n: (SIDE, SIDE // n), stride=lambda n: (SIDE, SIDE // n), batch_size=lambda n: 6
    ),
    "score_cam": batches("score_cam", layers=lambda n: "0", batch_size=lambda n: 24 // n),
    "ablation_cam": batches("ablation_cam", layers=lambda n: "0", batch_size=lambda n: 24 // n),
    "gradient_irregularity": Row(
        lambda model, images, n: (
            attribution.gradient_irregularity(model, images, 1, steps=2 * n, batch_size=12, **QUIET).curves
        )
    ),
    "deletion": Row(
        lambda model, images, n: deletion(
            attribution.gradient, model, images, 3, steps=2 * n - 1, batch_size=12, **QUIET
        ).scores.to(images.device)
    ),
    "random_directions": Row(
        lambda model, images, n: random_directions(model, images, 0.5, samples=4 * n, batch_size=24, **QUIET).counts
    ),
    "observe": Row(lambda model, images, n: [observe(model, images, 1, gradients="0").scores for _ in range(n)]),
    "observe the most probable": Row(
        lambda model, images, n: [observe(model, images, top(2), gradients="0").scores for _ in range(n)],
        1,
        "the classes, which have names on the CPU",
    ),
    "gradient": Row(
        lambda model, images, n: [attribution.gradient(model, images, 1) for _ in range(n)],
        1,
        "whether a gradient is zero, of which it warns",
    ),
}
ROWS = ATTACKS | CLIMBS | PASSES


WARNINGS = {
    "grad_cam": 1, "grad_cam_plus_plus": 1, "hires_cam": 1, "layer_cam": 1, "xgrad_cam": 2, "guided_grad_cam": 2,
    "gradient": 1, "smooth_grad": 1, "input_times_gradient": 1, "integrated_gradients": 1, "guided_backprop": 1,
    "deconvolution": 1, "ablation_cam": 2,
    "eigen_cam": 1,  # the name of the predicted class
    "attention": 2, "attention_rollout": 2,  # the same, and whether the output is probabilities
    "lrp": 3,  # in each convolution whether inputs are negative, which takes another rule
    "occlusion": 1,  # the drops, of which a map is made on the CPU
    "gradient_attention": 0, "score_cam": 0, "rise": 0,
}  # fmt: skip
"""How often the CPU may wait in one call of an attribution: for what it warns of, unless said otherwise."""


ASKED = {
    "a value": lambda x: x.sum().item(),
    "values": lambda x: x.tolist(),
    "a truth": lambda x: bool((x > 0).all()),
    "how many": lambda x: x[x > 0],
    "where": lambda x: (x > 0).nonzero(),
    "equality": lambda x: torch.equal(x, x),
    "a copy to the CPU": lambda x: x.cpu(),
    "a copy from the CPU": lambda x: torch.zeros(3).to(x.device),
    "numbers": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "an index from the CPU": lambda x: x[torch.tensor([0, 1])],
}
NOT_ASKED = {
    "a choice": lambda x: torch.where(x > 0, x, 0),
    "a filled mask": lambda x: x.__setitem__(x > 0, 0.0),
    "an index": lambda x: x[x.argsort()],
    "a number of the CPU": lambda x: x + torch.tensor(1.0),
    "a copy that goes on": lambda x: torch.zeros(3).to(x.device, non_blocking=True),
    "noise": lambda x: torch.rand(3, device=x.device, generator=torch.Generator(x.device).manual_seed(0)),
}


@pytest.mark.parametrize("name", ASKED | NOT_ASKED)
def test_the_device_knows_who_waits_for_it(name):
    with separate_device() as waits:
        x = moved(torch.randn(3))
        (ASKED | NOT_ASKED)[name](x)
        assert waits.total() == (name in ASKED), waits


def test_the_device_keeps_to_itself():
    with separate_device():
        x = moved(torch.ones(3))
        with pytest.raises(RuntimeError, match="on the same device"):
            x + torch.ones(3)
        assert values_of(x + x).tolist() == [2.0, 2.0, 2.0]


def network(*, sure: bool) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norm, head = nn.BatchNorm2d(4), nn.Linear(64, CLASSES)
        with torch.no_grad():
            head.bias[0] += 30 * sure
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), norm, nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), head
        ).eval()


def images() -> Tensor:
    return torch.rand(6, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore::lightning_viz.errors.LightningVizWarning")
@pytest.mark.parametrize("name", ROWS)
def test_nobody_waits_for_the_device_without_a_reason(name):
    row = ROWS[name]
    with separate_device() as waits:
        model, given = moved(network(sure=row.sure)), moved(images())
        each = waits_of_each(lambda steps: row.work(model, given, steps), waits, row.few, row.many)
    assert sum(each.values()) <= row.waits, each
    assert bool(row.why) == bool(row.waits)


@pytest.mark.parametrize("name", METHODS)
def test_an_attribution_waits_for_little_more_than_what_it_warns_of(name):
    kind = METHODS[name].usual
    with separate_device() as waits:
        model, given = moved(attributed(kind)), moved(inputs(kind))
        explain(name, kind, model, given, 1)  # the first pass finds out what the output means
        waits.clear()
        explain(name, kind, model, given, 1)
        assert waits.total() <= WARNINGS[name], waits


def test_every_method_of_many_passes_is_counted():
    once = {name for name, method in methods("attribution").items() if not isinstance(method.cost, str)}
    assert set(methods("attack")) - set(ATTACKS) == {"transfer"}  # which runs another attack once
    assert set(methods("dream")) <= set(CLIMBS)
    assert set(methods("attribution")) - once <= set(PASSES)
