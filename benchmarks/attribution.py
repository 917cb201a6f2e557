"""What an attribution costs, in units of one forward and one backward towards the input of the same model and batch.

Side by side in one run with captum, pytorch-grad-cam and torchcam: the arms take turns, and each figure is the median
over the rounds of an arm's time over its unit's in the same round.

    python benchmarks/attribution.py [--rounds 7] [--whole]

`--whole` adds the occlusion of a photograph, 32 / 2 on 224 x 224 with AlexNet: 9,409 positions.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import captum.attr
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torchcam.methods import GradCAM as TorchCAM
from turns import Arms, in_turns, network

from lightning_viz.attribution import grad_cam, occlusion, smooth_grad
from lightning_viz.hooks import top

CLASS = 3
BATCHES = (8, 16, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {options.rounds} rounds\n")
    grad_cams(options.rounds)
    smooth_grads(3)
    occlusions(3)
    if options.whole:
        whole()


def forward_backward(model: nn.Module, x: Tensor) -> None:
    """The unit: no gradient for any weight."""
    flags = [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    leaf = x.clone().requires_grad_()
    torch.autograd.grad(model(leaf)[:, CLASS].sum(), leaf)
    for parameter, flag in zip(model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)


def show(title: str, found: dict[str, float], unit: str) -> None:
    print(f"{title}, in {unit}")
    for name, ratio in found.items():
        print(f"    {name:<44}{ratio:8.2f}")
    print(flush=True)


def counted(work: Callable[[], object], model: nn.Module) -> str:
    """How many forwards and backwards some work takes."""
    counts = {"forward": 0, "backward": 0}
    grad = torch.autograd.grad
    handle = model.register_forward_hook(lambda *_: counts.update(forward=counts["forward"] + 1))

    def counting(*args: object, **options: object) -> object:
        counts["backward"] += 1
        return grad(*args, **options)

    torch.autograd.grad = counting
    try:
        work()
    finally:
        torch.autograd.grad = grad
        handle.remove()
    return f"{counts['forward']} forward, {counts['backward']} backward"


def grad_cams(rounds: int) -> None:
    model, x = network("resnet18"), torch.randn(8, 3, 224, 224)
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    modules = [model.get_submodule(name) for name in convolutions]
    targets = [ClassifierOutputTarget(CLASS)] * len(x)

    def torch_cam(layers: list[nn.Module]) -> None:
        with TorchCAM(model, layers) as extractor:
            extractor([CLASS] * len(x), model(x.clone().requires_grad_()))

    def pytorch_grad_cam(layers: list[nn.Module]) -> None:
        with GradCAM(model, layers) as extractor:
            extractor(x, targets)

    arms: Arms = {
        "forward + backward (the unit)": lambda: forward_backward(model, x),
        "last layer: lightning_viz": lambda: grad_cam(model, x, CLASS, layers=convolutions[-1]),
        "last layer: captum": lambda: captum.attr.LayerGradCam(model, modules[-1]).attribute(x, CLASS),
        "last layer: pytorch-grad-cam": lambda: pytorch_grad_cam(modules[-1:]),
        "last layer: torchcam": lambda: torch_cam(modules[-1:]),
        "20 convolutions: lightning_viz": lambda: grad_cam(model, x, CLASS, layers="Conv2d"),
        "20 convolutions: captum": lambda: [captum.attr.LayerGradCam(model, m).attribute(x, CLASS) for m in modules],
        "20 convolutions: pytorch-grad-cam": lambda: pytorch_grad_cam(modules),
        "20 convolutions: torchcam": lambda: torch_cam(modules),
        "5 most probable classes: lightning_viz": lambda: grad_cam(model, x, top(5), layers=convolutions[-1]),
    }
    show("Grad-CAM of ResNet-18, 8 images", in_turns(arms, "forward + backward (the unit)", rounds), "fb")
    print(f"    5 most probable classes: {counted(lambda: grad_cam(model, x, top(5)), model)}\n")


def smooth_grads(rounds: int, copies: int = 48) -> None:
    """The unit is n plain forwards and backwards in batches of the size that is best for them."""
    for name in ("resnet18", "alexnet"):
        model, x = network(name), torch.randn(1, 3, 224, 224)
        noisy = x + 0.1 * torch.randn(copies, *x.shape[1:])
        arms: Arms = {
            f"n forwards + backwards, {size} at once": lambda size=size: [
                forward_backward(model, part) for part in noisy.split(size)
            ]
            for size in BATCHES
        }
        units = tuple(arms)
        tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(model))
        arms["lightning_viz, batches chosen"] = lambda: smooth_grad(
            model, x, CLASS, noise_samples=copies, progress=False
        )
        for size in BATCHES:
            arms[f"captum, {size} at once"] = lambda size=size: tunnel.attribute(
                x, nt_samples=copies, nt_samples_batch_size=size, stdevs=0.1, target=CLASS, abs=False
            )
        show(f"SmoothGrad of {name}, {copies} copies of one image", in_turns(arms, units, rounds), "n fb")


def occlusions(rounds: int) -> None:
    """The unit is a forward for each position, in batches of the size that is best for them."""
    for name in ("resnet18", "alexnet"):
        model, x = network(name), torch.randn(1, 3, 224, 224)
        count = 13 * 13
        many = x.repeat(count, 1, 1, 1)

        def forwards(size: int) -> None:
            with torch.no_grad():
                for part in many.split(size):
                    model(part)

        def by_captum(size: int) -> None:
            with torch.no_grad():
                captum.attr.Occlusion(model).attribute(
                    x, (3, 32, 32), strides=(3, 16, 16), target=CLASS, perturbations_per_eval=size
                )

        arms: Arms = {f"a forward each, {size} at once": lambda size=size: forwards(size) for size in BATCHES}
        units = tuple(arms)
        arms["lightning_viz, batches chosen"] = lambda: occlusion(model, x, CLASS, patch=32, stride=16, progress=False)
        for size in (1, *BATCHES):
            arms[f"captum, {size} at once"] = lambda size=size: by_captum(size)
        show(f"Occlusion of {name}, {count} positions", in_turns(arms, units, rounds), "forwards x positions")


def whole() -> None:
    """Occlusion 32 / 2 of a photograph, all 9,409 positions, against the time of as many single forwards."""
    model = network("alexnet")
    photo = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[None] / 255
    x = nn.functional.interpolate(photo[:, :, 13:413, 120:520], (224, 224), mode="bilinear", antialias=True)
    started = time.perf_counter()
    found = occlusion(model, x, patch=32, stride=2, progress=False)
    took = time.perf_counter() - started
    positions = found.drop[0].numel()
    with torch.no_grad():
        model(x)
        started = time.perf_counter()
        for _ in range(50):
            model(x)
    each = (time.perf_counter() - started) / 50
    print(
        f"Occlusion 32 / 2 of a photograph, 224 x 224, AlexNet: {positions:,} positions in {took:.0f} s; as many "
        f"single forwards of {1000 * each:.1f} ms would take {each * positions:.0f} s ({took / each / positions:.2f})"
    )


if __name__ == "__main__":
    main()
