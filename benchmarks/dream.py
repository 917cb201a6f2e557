"""What a dream costs, in units of one forward and one backward towards the input of the same model and batch.

Side by side in one run with torch-lucent, on the same torchvision model with the same random weights, steps and size:
the arms take turns, and each figure is the median over the rounds of an arm's time over its unit's in the same round.

    pip install -e .[benchmark] && python benchmarks/dream.py [--rounds 5] [--steps 60] [--size 128]
"""

import argparse
import statistics
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from turns import Arms, in_turns, network

from lightning_viz import PixelSpace
from lightning_viz.dream import fourier, maximize, pixels
from lightning_viz.hooks import Target, channel, logit, observe
from lightning_viz.hooks.pytree import device_of

warnings.simplefilter("ignore")  # lucent's own imports warn
from lucent.optvis import param, render  # noqa: E402

IMAGENET = PixelSpace((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLASS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {options.rounds} rounds,")
    print(f"{options.steps} steps on {options.size} x {options.size} pixels;", end=" ")
    print("fb: one forward + one backward, no weight's gradient\n")
    time_per_step(options.rounds, options.steps, options.size)
    shallow_layers(options.rounds, options.steps, options.size)
    one_batch(options.steps, options.size)
    reached(options.steps, options.size)


def plain_steps(model: nn.Module, steps: int, size: int) -> None:
    """The unit: what every step must do, and nothing else, on an image that is not flat (pooling is faster there)."""
    flags = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    image = torch.randn(1, 3, size, size, device=device_of(model)).requires_grad_()
    for _ in range(steps):
        torch.autograd.grad(model(image)[:, CLASS].sum(), image)
    for parameter, flag in zip(model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)


def ours(model: nn.Module, objective: Target, steps: int, size: int) -> Tensor:
    dream = maximize(model, objective, image=(3, size, size), pixel_space=IMAGENET, steps=steps, progress=False)
    return dream.inputs


def lucents(model: nn.Module, objective: str, steps: int, size: int, *, natural: bool = False) -> Tensor:
    """torch-lucent with its transformations left out, as ours are; pixels without bounds, or as it is by default."""
    parameters, image = param.image(size) if natural else param.images.pixel_image([1, 3, size, size])
    render.render_vis(
        model,
        objective,
        lambda: (parameters, image),
        optimizer=lambda given: torch.optim.Adam(given, lr=0.05 if natural else 0.1),
        transforms=[],
        thresholds=(steps,),
        preprocess=natural,
        progress=False,
        show_image=False,
        fixed_image_size=size if size < 224 else None,
    )
    return IMAGENET.to_inputs(image().detach()) if natural else image().detach()


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def time_per_step(rounds: int, steps: int, size: int) -> None:
    print("a step of a logit's dream, in fb; hooks that a call leaves behind; weights with a gradient afterwards")
    for name, last in (("alexnet", "classifier_6"), ("resnet18", "fc"), ("densenet121", "classifier")):
        model, frozen = network(name), network(name).requires_grad_(False)
        found = in_turns(
            {
                "fb": lambda model=model: plain_steps(model, steps, size),
                "lightning_viz": lambda model=model: ours(model, logit(CLASS), steps, size),
                "torch-lucent": lambda model=model, last=last: lucents(model, f"{last}:{CLASS}", steps, size),
                "torch-lucent, frozen weights": lambda model=frozen, last=last: lucents(
                    model, f"{last}:{CLASS}", steps, size
                ),
            },
            "fb",
            rounds,
        )
        print(f"  {name:12s}" + "".join(f"{arm} {ratio:.2f}   " for arm, ratio in found.items() if arm != "fb"))
        for tool, call in arms_of_one_step(last).items():
            fresh = network(name)
            call(fresh, size)
            gradients = sum(one.grad is not None for one in fresh.parameters())
            print(f"  {'':12s}{tool} leaves {hooks_of(fresh)} hooks and {gradients} gradients")


def arms_of_one_step(last: str) -> dict[str, Callable[[nn.Module, int], object]]:
    return {
        "lightning_viz": lambda model, size: ours(model, logit(CLASS), 1, size),
        "torch-lucent": lambda model, size: lucents(model, f"{last}:{CLASS}", 1, size),
    }


def shallow_layers(rounds: int, steps: int, size: int) -> None:
    print("\nresnet18, a channel's dream: a step in fb of the whole model; convolutions run at each step, of 20")
    model = network("resnet18")
    layers = ("conv1", "layer1", "layer2", "layer3", "layer4")
    arms: Arms = {"fb": lambda: plain_steps(model, steps, size)}
    for layer in layers:
        arms[f"ours {layer}"] = lambda layer=layer: ours(model, channel(layer, CLASS), steps, size)
        arms[f"lucent {layer}"] = lambda layer=layer: lucents(model, f"{layer}:{CLASS}", steps, size)
    found = in_turns(arms, "fb", rounds)
    for layer in layers:
        ran = convolutions(lambda n, layer=layer: ours(model, channel(layer, CLASS), n, size), model)
        theirs = convolutions(lambda n, layer=layer: lucents(model, f"{layer}:{CLASS}", n, size), model)
        mine, other = found[f"ours {layer}"], found[f"lucent {layer}"]
        print(f"  {layer:8s}ours {mine:.2f} ({ran} convolutions)   lucent {other:.2f} ({theirs})")


def convolutions(run: Callable[[int], object], model: nn.Module) -> int:
    """How many of them one more step runs."""
    count = 0

    def hook(*_: object) -> None:
        nonlocal count
        count += 1

    handles = [one.register_forward_pre_hook(hook) for one in model.modules() if isinstance(one, nn.Conv2d)]
    run(3)
    three, count = count, 0
    run(2)
    for handle in handles:
        handle.remove()
    return three - count


def one_batch(steps: int, size: int) -> None:
    print("\n16 channels as one batch against 16 runs, seconds of a dream of all")
    for name, layer, side in (("resnet18", "layer2", size), ("resnet18", "layer2", 32), ("alexnet", "features.6", 64)):
        model = network(name)
        objectives = [channel(layer, index) for index in range(16)]

        def together() -> Tensor:
            return maximize(model, objectives, image=(3, side, side), steps=steps, progress=False).values

        def apart() -> Tensor:
            found = [
                maximize(model, one, image=(3, side, side), steps=steps, progress=False).values for one in objectives
            ]
            return torch.cat(found)

        took = in_turns({"16 runs": apart, "one batch": together}, "16 runs", 2)
        one, other = together(), apart()
        print(f"  {name} {layer} at {side}: {1 / took['one batch']:.1f} times as fast;", end=" ")
        print(f"values differ by at most {(one - other).abs().max() / other.abs().max():.1e} of the largest")


def reached(steps: int, size: int) -> None:
    print("\nthe objective reached (mean of the channel; resnet18, random weights, mean of 6 channels and starts)")
    model = network("resnet18")
    for layer in ("layer1", "layer3"):
        for kind in ("pixels, Adam 0.1", "Fourier, bounded, defaults"):
            natural = kind.startswith("Fourier")
            mine, theirs = [], []
            for index in range(6):
                torch.manual_seed(index)
                image = fourier((3, size, size)) if natural else pixels((3, size, size))
                options = {
                    "pixel_space": IMAGENET,
                    "bounded": natural,
                    "steps": steps,
                    "seed": index,
                    "progress": False,
                }
                dream = maximize(model, channel(layer, index), image=image, **options)
                mine.append(mean_of(model, layer, index, dream.inputs))
                theirs.append(
                    mean_of(model, layer, index, lucents(model, f"{layer}:{index}", steps, size, natural=natural))
                )
            print(f"  {layer} {kind:28s}ours {statistics.mean(mine):.4f}   lucent {statistics.mean(theirs):.4f}")


def mean_of(model: nn.Module, layer: str, index: int, inputs: Tensor) -> float:
    return observe(model, inputs, layers=[layer]).activations[layer][:, index].mean().item()


if __name__ == "__main__":
    main()
