"""Which tool's maps are true: guided backpropagation, deconvolution and Grad-CAM at every convolution.

Rows are the ways to write ReLUs and to wrap models (`tests/attribution/forms.py`), and torchvision's models with random
weights; what is true is computed without hooks or modes (`tests/truth.py`). Every tool is used as its documentation
says, on a copy of its own, in double precision, for one image. An error is the largest difference from the true map,
relative to that map's maximum (of Grad-CAM the worst of all convolutions).

    python benchmarks/correctness.py [--write]

`--write` puts the table into docs/compared.md, between its ``<!-- correctness -->`` marks.
"""

import argparse
import copy
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import captum.attr
import numpy as np
import torch
import torchvision
import zennit.attribution
import zennit.composites
from pytorch_grad_cam import GradCAM, GuidedBackpropReLUModel
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lightning_viz.attribution import deconvolution, grad_cam, guided_backprop  # noqa: E402
from lightning_viz.errors import LayerNotFoundError  # noqa: E402
from tests.attribution.forms import FORMS, WRAPPERS, build  # noqa: E402
from tests.truth import convolution_evidence, input_gradient  # noqa: E402

OURS = "lightning_viz"
CLASS = 1
RIGHT = 1e-5
FLOAT32 = 1e-4  # for tools that give float32 whatever they are given
SIZES = {"googlenet": 64, "densenet121": 64, "mobilenet_v2": 96, "inception_v3": 107, "vgg19": 64, "resnet18": 96}
HEADS = {"guided": "guided", "deconvolution": "deconv.", "grad_cam": "Grad-CAM"}
PACKAGES = ("captum", "grad-cam", "zennit", "torch", "torchvision")
CAPTION = """\
*right*: within 1e-5 of the true map's maximum (lightning_viz {worst:.0e} at the most); 1e-4 for pytorch-grad-cam's \
Grad-CAM, which comes in float32. Bold is wrong without an error: **plain** is the ordinary gradient, **wrong** comes \
with its error, and for Grad-CAM the number of convolutions that are right and the worst error are given. The number \
after *error* refers to the list below. pytorch-grad-cam has no deconvolution, zennit no Grad-CAM. One image, CPU, \
double precision, random weights (`vgg19` with a narrower classifier); each tool was given a copy of the model as it \
is. On a CPU `DataParallel` calls the model itself; several GPUs were not tried. {versions}. Printed by \
`benchmarks/correctness.py`."""
MARKS = "<!-- correctness -->", "<!-- /correctness -->"


# --- The tools. A gradient method takes (model, x); Grad-CAM gives an error for each convolution.

Maps = Callable[[nn.Module, Tensor], Tensor]
Evidence = dict[str, Tensor]
Errors = Callable[[nn.Module, Tensor, Evidence], dict[str, float | Exception]]


def ours(method: Callable[..., Tensor]) -> Maps:
    return lambda model, x: method(model, x, CLASS)


def with_captum(method: type) -> Maps:
    return lambda model, x: method(model).attribute(x.clone().requires_grad_(), target=CLASS)


def with_pytorch_grad_cam(model: nn.Module, x: Tensor) -> Tensor:
    gradient = GuidedBackpropReLUModel(model, device="cpu")(x.clone(), target_category=CLASS)
    return torch.from_numpy(gradient).permute(2, 0, 1)[None]


def with_zennit(composite: type) -> Maps:
    def of_class(output: Tensor) -> Tensor:
        return torch.eye(output.shape[1]).to(output)[[CLASS]]

    def attribute(model: nn.Module, x: Tensor) -> Tensor:
        with zennit.attribution.Gradient(model, composite()) as attributor:
            return attributor(x.clone().requires_grad_(), of_class)[1]

    return attribute


def our_grad_cam(model: nn.Module, x: Tensor, truth: Evidence) -> dict[str, float | Exception]:
    try:
        names = {name: named(model, name).removeprefix("_orig_mod.") for name in truth}
        maps = grad_cam(model, x, CLASS, layers=list(names.values()))
    except Exception as error:
        return dict.fromkeys(truth, error)
    return {name: distance(maps[called], truth[name].relu(), scale(truth[name])) for name, called in names.items()}


def captum_grad_cam(model: nn.Module, x: Tensor, truth: Evidence) -> dict[str, float | Exception]:
    def error(name: str) -> float:
        method = captum.attr.LayerGradCam(model, model.get_submodule(named(model, name)))
        found = method.attribute(x.clone(), CLASS, relu_attributions=True)
        return distance(found, truth[name].relu(), scale(truth[name]))

    return {name: attempt(error, name) for name in truth}


def pytorch_grad_cam(model: nn.Module, x: Tensor, truth: Evidence) -> dict[str, float | Exception]:
    """Its maps come scaled to [0, 1], on the image's size and in float32; so is the truth, by the functions it uses."""
    size = (x.shape[-1], x.shape[-2])

    def error(name: str) -> float:
        with GradCAM(model=model, target_layers=[model.get_submodule(named(model, name))]) as method:
            found = method(input_tensor=x.clone(), targets=[ClassifierOutputTarget(CLASS)])
        scaled = scale_cam_image(np.maximum(truth[name][:, 0].numpy(), 0), size)
        return distance(torch.from_numpy(found), torch.from_numpy(scale_cam_image(scaled)), 1.0)

    return {name: attempt(error, name) for name in truth}


TOOLS: dict[str, dict[str, Maps | Errors]] = {
    "guided": {
        OURS: ours(guided_backprop),
        "captum": with_captum(captum.attr.GuidedBackprop),
        "pytorch-grad-cam": with_pytorch_grad_cam,
        "zennit": with_zennit(zennit.composites.GuidedBackprop),
    },
    "deconvolution": {
        OURS: ours(deconvolution),
        "captum": with_captum(captum.attr.Deconvolution),
        "zennit": with_zennit(zennit.composites.DeconvNet),
    },
    "grad_cam": {
        OURS: our_grad_cam,
        "captum": captum_grad_cam,
        "pytorch-grad-cam": pytorch_grad_cam,
    },
}


def named(model: nn.Module, name: str) -> str:
    """What a layer is called in a wrapped model."""
    every = dict(model.named_modules())
    found = [prefix + name for prefix in ("", "module.", "_orig_mod.") if prefix + name in every]
    if not found:
        raise LayerNotFoundError(f"no layer {name!r}")
    return found[0]


# --- Errors.


def scale(evidence: Tensor) -> float:
    """A map's maximum; where Grad-CAM's is zero everywhere, that of what its ReLU has cut off."""
    positive = float(evidence.max())
    return positive if positive > 0 else float(evidence.abs().max())


def distance(found: Tensor, truth: Tensor, maximum: float) -> float:
    assert found.shape == truth.shape, f"{list(found.shape)} instead of {list(truth.shape)}"
    return float((found.detach() - truth).abs().max()) / maximum


def attempt(function: Callable[[str], float], name: str) -> float | Exception:
    try:
        return function(name)
    except Exception as error:
        return error


# --- Cells.


@dataclass(frozen=True)
class Cell:
    """What a tool's result is called; its error, where it is right; and what it raised."""

    text: str
    error: float | None = None
    raised: Exception | None = None


def gradient_cell(tool: Maps, model: nn.Module, x: Tensor, truth: Tensor, plain: Tensor) -> Cell:
    try:
        found = tool(model, x)
    except Exception as error:
        return Cell("error", raised=error)
    error = distance(found, truth, float(truth.abs().max()))
    if error <= RIGHT:
        return Cell("right", error)
    is_plain = distance(found, plain, float(plain.abs().max())) <= RIGHT
    return Cell("**plain**" if is_plain else f"**wrong {error:.2g}**")


def grad_cam_cell(errors: dict[str, float | Exception], right: float) -> Cell:
    raised = next((error for error in errors.values() if isinstance(error, Exception)), None)
    numbers = [error for error in errors.values() if not isinstance(error, Exception)]
    if not numbers:
        return Cell("no layer") if isinstance(raised, LayerNotFoundError) else Cell("error", raised=raised)
    worst, count = max(numbers), f"{sum(error <= right for error in numbers)}/{len(errors)}"
    if worst > right:
        return Cell(f"**{count}, {worst:.2g}**", raised=raised)
    return Cell(f"{count}, else error" if raised else count, worst, raised)


def row(plain_model: nn.Module, handed: Callable[[], nn.Module], x: Tensor) -> Iterable[Cell]:
    """One row's cells, method by method; each tool gets a model of its own."""
    plain = input_gradient(plain_model, x, CLASS)
    for method, tools in TOOLS.items():
        if method == "grad_cam":
            evidence = convolution_evidence(plain_model, x, CLASS)
            for name, tool in tools.items():
                yield grad_cam_cell(tool(handed(), x, evidence), FLOAT32 if name == "pytorch-grad-cam" else RIGHT)
        else:
            truth = input_gradient(plain_model, x, CLASS, method)
            for tool in tools.values():
                yield gradient_cell(tool, handed(), x, truth, plain)


# --- Models.


def images(size: int, count: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def torchvision_model(name: str) -> nn.Module:
    """With random weights, and normalizations that have seen images, so that activations neither die nor explode."""
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, num_classes=10, **options)
    if name == "vgg19":  # its 120 million weights there are not the question
        model.classifier[0], model.classifier[3], model.classifier[6] = (
            nn.Linear(512 * 49, 64),
            nn.Linear(64, 64),
            nn.Linear(64, 10),
        )
    model.double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images(SIZES[name], 4))
    return model.eval()


def rows() -> Iterable[tuple[str, list[Cell]]]:
    x = images(16)
    for name in (*FORMS, *WRAPPERS):
        yield name, list(row(build(name, x)[0], lambda: build(name, x)[1], x))
    for name, size in SIZES.items():
        model = torchvision_model(name)
        yield f"torchvision `{name}`", list(row(model, lambda: copy.deepcopy(model), images(size)))


# --- The table.


def table() -> str:
    heads = [(HEADS[method], tool) for method, tools in TOOLS.items() for tool in tools]
    notes: dict[str, int] = {}
    lines = [["ReLUs", *("<br>".join(head) for head in heads)], ["---"] * (len(heads) + 1)]
    worst = 0.0
    for name, cells in rows():
        lines.append([name, *(cell.text + footnote(cell.raised, notes) for cell in cells)])
        worst = max([worst, *(cell.error or 0.0 for cell, head in zip(cells, heads, strict=True) if head[1] == OURS)])
        numbers = [cell.text if cell.error is None else f"{cell.text} ({cell.error:.0e})" for cell in cells]
        print(time.strftime("%X"), name, *numbers, sep=" | ", file=sys.stderr)
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    caption = CAPTION.format(worst=worst, versions=versions)
    said = [f"{place}. {text}" for text, place in notes.items()]
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), "", caption, "", *said])


def footnote(error: Exception | None, notes: dict[str, int]) -> str:
    """The place, in the list of notes, of what was raised."""
    if error is None:
        return ""
    said = " ".join(str(error).split())
    text = f"`{type(error).__name__}: {said if len(said) <= 160 else said[:157] + '...'}`"
    return f" {notes.setdefault(text, len(notes) + 1)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/compared.md")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    text = table()
    print(text)
    if arguments.write:
        page = ROOT / "docs" / "compared.md"
        before, rest = page.read_text().split(MARKS[0])
        page.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    main()
