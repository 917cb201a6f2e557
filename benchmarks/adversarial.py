"""What an attack costs, in units of one forward and one backward towards the input of the same model and batch.

Side by side in one run with torchattacks and foolbox, on the same torchvision model with the same random weights: the
arms take turns, and each figure is the median over the rounds of an arm's time over its unit's in the same round.

    pip install -e .[dev] && python benchmarks/adversarial.py [--rounds 5] [--steps 10] [--size 128] [--batch 8]

With --ensemble alone: AutoAttack against torchattacks' components in the same order, at as many steps of each (its own
ensemble takes 10): robust accuracy, and forwards and backwards of samples, which hooks on the model count.

    python benchmarks/adversarial.py --ensemble [--samples 32] [--steps 100] [--queries 5000]
"""

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from turns import Arms, in_turns, network

from lightning_viz.adversarial import auto_attack, fgsm, one_pixel, pgd

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # foolbox imports what SciPy has deprecated
    import foolbox
    import torchattacks

EPSILON, STRIDE = 8 / 255, 2 / 255


@dataclass
class Setting:
    """A model, a batch of pixels with labels, and how far to go."""

    model: nn.Module
    pixels: Tensor
    labels: Tensor
    steps: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="10, of the ensemble 100")
    parser.add_argument("--ensemble", action="store_true")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    if options.ensemble:
        ensemble(trained_digits(options.steps or 100), options.samples, options.queries)
        return
    options.steps = options.steps or 10
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {options.rounds} rounds;")
    print(f"{options.batch} images of {options.size} x {options.size} pixels, {options.steps} steps;", end=" ")
    print("fb: one forward + one backward, no weight's gradient\n")
    settings = {
        name: Setting(
            network(name),
            torch.rand(options.batch, 3, options.size, options.size),
            torch.randint(1000, (options.batch,)),
            options.steps,
        )
        for name in ("resnet18", "densenet121")
    }
    for name, setting in settings.items():
        print(name)
        time_per_step(setting, options.rounds)
        one_step(setting, options.rounds)
        gradients_left(setting)
    print("\nresnet18, ten epsilons against one")
    many_epsilons(settings["resnet18"], options.rounds)
    print("\na net trained on digits: samples leave as they fall")
    leaving(trained_digits(), options.rounds)


def passes(setting: Setting, count: int) -> None:
    """The unit, so many times: what every step must do, and nothing else."""
    model = setting.model
    flags = [one.requires_grad for one in model.parameters()]
    model.requires_grad_(False)
    for _ in range(count):
        leaf = setting.pixels.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(model(leaf), setting.labels, reduction="sum"), leaf)
    for parameter, flag in zip(model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)


def ours(
    setting: Setting, *, random_start: bool = False, stop_on_success: bool = False, epsilon: float = EPSILON
) -> object:
    return pgd(
        setting.model, setting.pixels, setting.labels, epsilon=epsilon, step_size=STRIDE, steps=setting.steps,
        random_start=random_start, stop_on_success=stop_on_success, progress=False,
    )  # fmt: skip


def of_torchattacks(setting: Setting) -> object:
    attack = torchattacks.PGD(setting.model, eps=EPSILON, alpha=STRIDE, steps=setting.steps, random_start=False)
    return attack(setting.pixels, setting.labels)


def of_foolbox(setting: Setting, epsilons: float | Sequence[float] = EPSILON, *, one: bool = False) -> object:
    model = foolbox.PyTorchModel(setting.model, bounds=(0, 1), device=setting.pixels.device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=STRIDE, steps=setting.steps, random_start=False)
    attack = foolbox.attacks.FGSM(random_start=False) if one else attack
    return attack(model, setting.pixels, setting.labels, epsilons=epsilons)


def time_per_step(setting: Setting, rounds: int) -> None:
    """A whole attack over as many plain passes as it has steps."""
    found = in_turns(
        {
            "fb": partial(passes, setting, setting.steps),
            "lightning_viz": partial(ours, setting),
            "with a random start": partial(ours, setting, random_start=True),
            "torchattacks": partial(of_torchattacks, setting),
            "foolbox": partial(of_foolbox, setting),
        },
        "fb",
        rounds,
    )
    _say("a step of PGD, in fb", found)


def one_step(setting: Setting, rounds: int) -> None:
    found = in_turns(
        {
            "fb": partial(passes, setting, 1),
            "lightning_viz": lambda: fgsm(setting.model, setting.pixels, setting.labels, stop_on_success=False),
            "torchattacks": lambda: torchattacks.FGSM(setting.model, eps=EPSILON)(setting.pixels, setting.labels),
            "foolbox": partial(of_foolbox, setting, one=True),
        },
        "fb",
        rounds,
    )
    _say("FGSM, in fb (ours and foolbox's say whether it fooled: a forward more)", found)


def gradients_left(setting: Setting) -> None:
    """Weights with a gradient after an attack; ours and torchattacks' leave what was there."""
    arms: dict[str, Callable[[], object]] = {
        "lightning_viz": partial(ours, setting),
        "torchattacks": partial(of_torchattacks, setting),
        "foolbox": partial(of_foolbox, setting),
    }
    weights = list(setting.model.parameters())
    said = []
    for name, arm in arms.items():
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        arm()
        changed = sum(weight.grad is None or bool(weight.grad.any()) for weight in weights)
        said.append(f"{name} {changed} of {len(weights)}")
    setting.model.zero_grad(set_to_none=True)
    print("  weights whose .grad is another afterwards: " + ", ".join(said))


def many_epsilons(setting: Setting, rounds: int) -> None:
    some = [EPSILON * (one + 1) / 10 for one in range(10)]
    model, pixels, labels = setting.model, setting.pixels, setting.labels
    arms: Arms = {
        "fb": partial(passes, setting, 1),
        "lightning_viz, one": lambda: fgsm(model, pixels, labels, epsilon=some[-1], stop_on_success=False),
        "lightning_viz, ten": lambda: fgsm(model, pixels, labels, epsilon=some, stop_on_success=False),
        "torchattacks, ten": lambda: [torchattacks.FGSM(model, eps=one)(pixels, labels) for one in some],
        "foolbox, ten": partial(of_foolbox, setting, some, one=True),
    }
    _say("FGSM, in fb", in_turns(arms, "fb", rounds))


def trained_digits(steps: int = 40) -> Setting:
    """A small net, trained here; its label is lost after few steps for most samples, after many for some."""
    torch.manual_seed(0)
    data = load_digits()
    pixels, labels = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(8):
        for batch in torch.randperm(len(pixels)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(pixels[batch]), labels[batch]).backward()
            optimizer.step()
    return Setting(model.eval(), pixels[:256], labels[:256], steps)


def leaving(setting: Setting, rounds: int) -> None:
    for epsilon in (0.1, 0.2):
        found = in_turns(
            {
                "fb": partial(passes, setting, setting.steps),
                "all steps": partial(ours, setting, epsilon=epsilon),
                "until fooled": partial(ours, setting, epsilon=epsilon, stop_on_success=True),
            },
            "fb",
            rounds,
        )
        attacked = pgd(
            setting.model, setting.pixels, setting.labels, epsilon=epsilon, step_size=STRIDE, steps=setting.steps,
            random_start=False, progress=False,
        )  # fmt: skip
        share = float(attacked.backwards.sum()) / (setting.steps * len(setting.labels))
        _say(f"a step of PGD at {epsilon}, in fb; {100 * share:.0f} % of the backwards are made", found)
    one = Setting(setting.model, setting.pixels[:4], setting.labels[:4], 1)
    evaluations(one)


def evaluations(setting: Setting) -> None:
    """One pixel: candidates evaluated in a second, in one batch, and one by one."""
    started = time.perf_counter()
    found = one_pixel(setting.model, setting.pixels, setting.labels, generations=10, progress=False)
    batched = int(found.queries.sum()) / (time.perf_counter() - started)
    started = time.perf_counter()
    alone = one_pixel(setting.model, setting.pixels, setting.labels, generations=10, batch_size=1, progress=False)
    single = int(alone.queries.sum()) / (time.perf_counter() - started)
    print(f"  one pixel: {batched:,.0f} evaluations a second, {single:,.0f} one by one: {batched / single:.0f} times")


def ensemble(setting: Setting, samples: int, queries: int) -> None:
    """Robust accuracy and passes of AutoAttack, and of torchattacks' components at the same number of steps."""
    model, pixels, labels = setting.model, setting.pixels[:samples], setting.labels[:samples]
    steps = setting.steps
    for norm, named, epsilon in (("linf", "Linf", 0.1), ("l2", "L2", 0.5)):
        with passes_of(model) as ours:
            found = auto_attack(
                model, pixels, labels, epsilon=epsilon, norm=norm, steps=steps, queries=queries, progress=False
            )
        how = {"norm": named, "eps": epsilon}
        attacks = [
            torchattacks.APGD(model, steps=steps, **how),
            torchattacks.APGDT(model, steps=steps, **how),
            torchattacks.FAB(model, steps=steps, multi_targeted=True, **how),
            torchattacks.Square(model, n_queries=queries, **how),
        ]
        left = torch.arange(samples)
        with passes_of(model) as theirs:
            for attack in attacks:
                if len(left):
                    twins = attack(pixels[left], labels[left])
                    left = left[model(twins).argmax(1) == labels[left]]
        fallen = {name: int(count) for name, count in found.fooled_by.items()}
        print(f"  AutoAttack, {norm} {epsilon}, {steps} steps, {queries} queries, {samples} samples")
        print(f"    lightning_viz: {int((~found.fooled).sum())} left, {dict(ours)}, {fallen}")
        print(f"    torchattacks: {len(left)} left, {dict(theirs)}", flush=True)


@contextmanager
def passes_of(model: nn.Module) -> Iterator[Counter[str]]:
    """Samples that a model is shown, and gradients that it is asked for."""
    passes: Counter[str] = Counter()

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        passes["forwards"] += len(inputs[0])
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda gradient: passes.update({"backwards": len(gradient)}))

    handle = model.register_forward_pre_hook(look)
    yield passes
    handle.remove()


def _say(what: str, found: dict[str, float]) -> None:
    print(f"  {what}: " + ", ".join(f"{arm} {ratio:.2f}" for arm, ratio in found.items() if arm != "fb"))


if __name__ == "__main__":
    main()
