"""The one-technique commands: every method runs, draws, and writes down what the function behind it gives when it is
called with the same options."""

import csv
import json
import re
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from markupsafe import escape
from PIL import Image
from torch import nn
from torch.nn import functional as F

from lightning_viz import attribution
from lightning_viz.adversarial import (
    L2,
    LINF,
    apgd,
    auto_attack,
    carlini_wagner,
    deepfool,
    fab,
    fgsm,
    gradient_ascent,
    margin,
    one_pixel,
    pgd,
    square,
)
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.studies.filters import layer_filters
from lightning_viz.callbacks.probe import Samples
from lightning_viz.cli.commands import FAMILIES, FILTER_OPTIONS, command_methods, method_parser, run_command
from lightning_viz.cli.function_options import options_of
from lightning_viz.cli.layer_options import check_layers
from lightning_viz.dream import (
    Preset,
    deep_dream,
    edge_energy,
    fool,
    fourier,
    invert,
    l2,
    maco,
    maximize,
    pixels,
    standard,
    style_transfer,
)
from lightning_viz.dream.parametrization import centered
from lightning_viz.embedding import pca, tsne
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks import channel as inner
from lightning_viz.hooks import logit
from lightning_viz.hooks.layer_target import LayerTarget
from lightning_viz.hooks.targets import target_list
from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness import defenses, epsilon_curve, random_directions, shape_bias
from lightning_viz.robustness.corruption_error import compare_corruption_error
from lightning_viz.robustness.defenses import DEFENSES
from lightning_viz.robustness.stability import perturbation_stability
from tests.callbacks.conftest import ConvNet, images

pytestmark = pytest.mark.filterwarnings("ignore::lightning_viz.errors.LightningVizWarning")

SPACE = PixelSpace((0.4,), (0.5,))
SOURCE = ["--model", "tests.callbacks.conftest.ConvNet", "--data", "tests.analysis.nets.Squares"]
QUIET = {"pixel_space": SPACE, "progress": False}


@pytest.fixture(scope="module")
def subject():
    """A small random network, four images that it sees normalized, and their classes by name."""
    shown, labels = images(4, height=16, width=16)
    model = ConvNet().eval()
    with torch.no_grad():
        model.fc.weight.mul_(30)  # else it says the same of all
    samples = Samples(SPACE.to_inputs(shown), labels, 4, ("ant", "bee", "cat"), SPACE, indices=(9, 4, 2, 7))
    return ModelUnderStudy("net", model, samples, SPACE, step=7)


class Attending(nn.Module):
    """Patches that attend to each other, for methods that need a transformer."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.patches, self.encoder = nn.Conv2d(1, 8, 4, stride=4), nn.TransformerEncoder(layer, 2)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.encoder(self.patches(x).flatten(2).mT).mean(1))


def suited(subject, typed):
    """The subject, with a transformer where what is typed needs one."""
    if "attention" not in typed:
        return subject
    torch.manual_seed(0)
    return replace(subject, model=Attending().eval())


@pytest.fixture
def command(monkeypatch, subject, tmp_path):
    """Run a command as it is typed; what it wrote."""
    chosen = [subject]

    def study_of(options, config, *, needs_data, check):
        check(chosen[0].model)
        return replace(chosen[0], seed=options.seed or 0)

    monkeypatch.setattr("lightning_viz.cli.source_options.model_under_study_of", study_of)

    def run(typed, *options):
        name, *method = typed.split()
        chosen[0] = suited(subject, typed)
        run_command(name, [*method, *SOURCE, "--out", str(tmp_path), *options])
        return json.loads((tmp_path / "numbers.json").read_text())

    return run


def attacked(function, options, columns=("label", "after", "l2", "fooled", "queries")):
    """What an attack's table is to hold."""

    def expected(subject):
        found = function(subject.model, subject.images, pixel_space=SPACE, **options)
        last = {name: getattr(found.record, name)[-1] for name in ("l2", "linf", "relative")}
        every = {"label": found.labels, "after": found.record.classes[-1], "fooled": found.fooled}
        every |= {"queries": found.queries, "first_success_step": found.first_success_step, **last}
        return {"numbers.success": found.success} | {f"samples.{name}": every[name] for name in columns}

    return expected


def covered(subject):
    """What occlusion's table is to hold."""
    target = torch.tensor([1] * 4)
    found = attribution.occlusion(subject.model, subject.images, target, patch=(4, 3), stride=2, progress=False)
    return {"samples.input: sum": found.heat.flatten(1).sum(1), "maps.drop": found.drop, "maps.input": found.heat}


def walked(subject):
    """What the curves of a walk are to be."""
    found = attribution.gradient_irregularity(
        subject.model, subject.images, 1, steps=5, pixel=(3, 4), progress=False
    )  # fmt: skip
    return {"maps.curves": found.curves, "samples.row": found.pixels[:, 0]}


def maps(function, key="input", target=None, **options):
    """What the maps of an attribution are to be."""

    def expected(subject):
        found = function(subject.model, subject.images, target, **options)
        found = found if isinstance(found, torch.Tensor) else found[key]
        of_samples = found if found.dim() == 4 else found.transpose(0, 1)  # [T, N, C, H, W]
        return {f"maps.{key}": found, f"samples.{key}: most": of_samples.flatten(1).amax(1)}

    return expected


def dreamt(subject, objectives, **options):
    found = maximize(subject.model, objectives, **QUIET, **options)
    return {"dreams.value": found.values, "curve.curve": found.curve, "images.pixels": found.pixels}


def wanted(subject):
    targets, how = [logit(2), logit(0)], {"image": fourier((1, 16, 16), decay=1.5), "bounded": True, "frames": 0}
    free = maximize(subject.model, targets, **how, transforms=standard(1), steps=50, **QUIET)
    energies = edge_energy(free.pixels - free.pixels.mean((1, 2, 3), keepdim=True))
    shares = 0.03 * (free.curve[:, -1] - free.curve[:, 0]) / energies
    weight = min(40 / 256, float(shares.median()))
    return dreamt(subject, targets, **how, priors={edge_energy: weight}, transforms=standard(1), steps=4)


def climbed(subject):
    how = {"image": pixels((1, 16, 16), deviation=0.1), "priors": {l2: 0.01}, "small_gradients": 5, "frames": 3}
    return dreamt(
        subject,
        [LayerTarget("conv2", 1, "unit"), logit(2)],
        **how,
        update_steps=Preset(decay=0.1, blur_width=0.5),
        steps=4,
    )


def varied(subject):
    image = maco((1, 16, 16), images=centered(subject.images, SPACE, "the images"))
    how = {"image": image, "copies": 2, "diverse": "conv1", "steps": 4, "frames": 0}
    return dreamt(subject, [LayerTarget("conv2", 1, "unit")], **how)


def inverted(subject):
    options = {**QUIET, "weights": (0.01, 0.02), "seeds": 2, "steps": 3, "frames": 0}
    found = {layer: invert(subject.model, subject.images, layer, **options) for layer in ("conv1", "conv2")}
    errors = {f"samples.pixel_error/{layer}": one.pixel_errors.mean(1) for layer, one in found.items()}
    diversities = [one.diversity.mean() for one in found.values()]
    error = found["conv2"].pixel_errors.mean()
    return {
        **errors,
        "layers.diversity": diversities,
        "numbers.conv2.error": error,
        "images.conv1": found["conv1"].pixels,
    }


def deepened(subject):
    found = deep_dream(subject.model, subject.images[:2], "conv1", octaves=1, steps=2, frames=0, **QUIET)
    return {"numbers.octaves.after": torch.stack([one.after for one in found.octaves]), "images.pixels": found.pixels}


def styled(subject):
    content, style = subject.images[:2]
    layers = {"content_layers": ["conv1"], "style_layers": ["conv1", "conv2"]}
    found = style_transfer(subject.model, content, style, **layers, steps=2, optimizer="adam", frames=0, **QUIET)
    return {
        "numbers.style_loss": found.style_loss,
        "numbers.style_weight": found.style_weight,
        "images.pixels": found.pixels,
    }


def fooled(subject):
    found = fool(subject.model, (1, 16, 16), classes=[2, 0], population=6, generations=2, frames=0, **QUIET)
    return {
        "numbers.curve": found.curve,
        "classes.confidence": found.curve[-1],
        "numbers.evaluations": found.evaluations,
    }


def corrupted(subject):
    data, how = (subject.images, subject.labels), {"kinds": ["gaussian_noise", "contrast"], "severities": [1, 3]}
    found = compare_corruption_error({"net": subject.model}, data, reference="net", **how, **QUIET)["net"]
    return {
        "numbers.errors.contrast": found.errors[1],
        "numbers.clean": found.clean,
        "corruptions.error": found.errors.flatten(),
    }


def flipped(subject):
    found = perturbation_stability(subject.model, subject.images, kinds=["tilt", "snow"], **QUIET)
    return {"numbers.flips": found.flips, "perturbations.flip_probability": found.flip_probability}


def curved(subject):
    attack = partial(pgd, norm=L2, steps=2, **QUIET)
    found = epsilon_curve(subject.model, subject.images, subject.labels, [0, 0.1, 1], attack=attack, progress=False)
    return {"curve.accuracy": found.accuracy, "samples.fooled_at": found.fooled_at}


def curved_by_apgd(subject):
    attack = partial(apgd, steps=2, **QUIET)
    found = epsilon_curve(subject.model, subject.images, subject.labels, [0, 0.1], attack=attack, progress=False)
    return {"curve.accuracy": found.accuracy, "samples.fooled_at": found.fooled_at}


def withstood(subject):
    found = auto_attack(subject.model, subject.images, subject.labels, epsilon=0.1, steps=2, queries=3, **QUIET)
    return {
        "numbers.robust": found.accuracy,
        "numbers.clean": 1 - found.initially_misclassified.double().mean(),
        "samples.fooled": found.fooled,
        "samples.queries": found.queries,
    }


def around(subject):
    radius = 2 * deepfool(subject.model, subject.images, steps=7, **QUIET).record.l2[-1]
    found = random_directions(subject.model, subject.images, radius, 20, **QUIET)
    return {"samples.changed": found.changed, "samples.radius": radius, "directions.counts": found.counts}


def defended(subject):
    found = pgd(subject.model, subject.images, subject.labels, epsilon=0.2, steps=2, **QUIET)
    ways = {name: DEFENSES[name] for name in ("none", "3 bits")}
    each = defenses(subject.model, found, ways=ways)
    return {"ways.clean": each.clean, "ways.attacked": each.attacked}


SHADES = {"ant1-bee1": 60, "bee2-cat1": 200, "cat1-ant2": 120}


def landscape(subject):
    """The losses at the corners and in the middle, by moving the weights of a copy."""
    directions = []
    for seed in (0, 1):
        generator, steps = torch.Generator().manual_seed(seed), {}
        for name, weight in subject.model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64).float()
            steps[name] = torch.zeros_like(weight)
            if weight.dim() > 1:
                for filter, (drawn, own) in enumerate(zip(noise, weight.detach(), strict=True)):
                    steps[name][filter] = drawn / drawn.norm() * own.norm()
        directions.append(steps)
    losses = torch.zeros(3, 3, dtype=torch.float64)
    for row, column in np.ndindex(3, 3):
        model = deepcopy(subject.model)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight += (column - 1) / 2 * directions[0][name] + (row - 1) / 2 * directions[1][name]
            losses[row, column] = F.cross_entropy(model(subject.images).double(), subject.labels)
    around = torch.cat([losses.flatten()[:4], losses.flatten()[5:]])
    found = {"numbers.loss": losses[1, 1], "numbers.rise": around.mean() - losses[1, 1]}
    return {**found, "landscape.loss": losses.flatten(), "grid.losses": losses}


def biased(subject):
    shades = torch.tensor([SHADES[name] / 255 for name in sorted(SHADES)])
    images = SPACE.to_inputs(shades[:, None, None, None].expand(-1, 1, 16, 16).contiguous())
    found = shape_bias(subject.model, images, [0, 1, 2], [1, 2, 0], mapping=[[0], [1], [2]])
    return {"numbers.bias": found.bias, "numbers.decided": found.decided, "shape_bias.shape_bias": found.class_bias}


@pytest.fixture
def conflicts(tmp_path):
    """A folder of plain gray images with the names of cue conflicts."""
    folder = tmp_path / "cue_conflicts"
    folder.mkdir()
    for name, shade in SHADES.items():
        Image.new("L", (16, 16), shade).save(folder / f"{name}.png")
    return folder


def placed(method, layer, **options):
    def expected(subject):
        seen = []
        hook = getattr(subject.model, layer).register_forward_hook(lambda *given: seen.append(given[2].flatten(1)))
        with torch.no_grad():
            subject.model(subject.images)
        hook.remove()
        found = method(seen[0].numpy(), **options)
        axes = "xyz"[: found.points.shape[1]]
        return {f"points:{layer}.{axis}": found.points[:, place] for place, axis in enumerate(axes)}

    return expected


def weights(subject):
    found = subject.model.conv2.weight.detach()
    return {"filters.norm": found.flatten(1).norm(dim=1), "filters.most": found.flatten(1).amax(1)}


LOUD = {"progress": False}
ROWS = {
    "attack pgd --epsilon 0.3 --norm l2 --steps 3 --loss margin --stop_on_success false": attacked(
        pgd, {"epsilon": 0.3, "norm": L2, "steps": 3, "loss": margin, "stop_on_success": False, **LOUD}
    ),
    "attack apgd --epsilon 0.3 --steps 5": attacked(apgd, {"epsilon": 0.3, "steps": 5, **LOUD}),
    "attack fgsm --epsilon 0.1 --target class:cat": attacked(fgsm, {"epsilon": 0.1, "target": 2}),
    "attack deepfool --norm linf --steps 4": attacked(deepfool, {"norm": LINF, "steps": 4, **LOUD}),
    "attack carlini_wagner --binary_search_steps 2 --steps 5": attacked(
        carlini_wagner, {"binary_search_steps": 2, "steps": 5, **LOUD}
    ),
    "attack gradient_ascent --normalize l2 --lr 0.2": attacked(gradient_ascent, {"normalize": L2, "lr": 0.2, **LOUD}),
    "attack one_pixel --pixels 2 --generations 2 --population 8": attacked(
        one_pixel, {"pixels": 2, "generations": 2, "population": 8, **LOUD}
    ),
    "attack square --epsilon 0.2 --queries 9": attacked(square, {"epsilon": 0.2, "queries": 9, **LOUD}),
    "attack fab --norm l2 --steps 4 --targets 2": attacked(fab, {"norm": L2, "steps": 4, "targets": 2, **LOUD}),
    "attack auto_attack --epsilon 0.2 --steps 4 --queries 5": attacked(
        auto_attack, {"epsilon": 0.2, "steps": 4, "queries": 5, **LOUD}
    ),
    "dream classes --classes class:cat 0 --steps 4 --frames 0": wanted,
    "dream maximize --objectives|conv2[1]|2| --image pixels deviation=0.1 --priors l2=0.01 --update_steps decay=0.1"
    " blur_width=0.5 --steps 4 --small_gradients 5 --frames 3": climbed,
    "dream maximize --objectives|conv2[1]| --image maco --copies 2 --diverse conv1 --steps 4 --frames 0": varied,
    "dream invert --layer conv1 conv2 --penalties 0.01 0.02 --seeds 2 --steps 3 --frames 0": inverted,
    "dream deep_dream --layer conv1 --octaves 1 --steps 2 --frames 0": deepened,
    "dream style_transfer --content 0 --style 1 --content_layers conv1 --style_layers conv1 conv2 --steps 2"
    " --optimizer adam --frames 0": styled,
    "dream fool --classes 2 class:ant --population 6 --generations 2 --frames 0": fooled,
    "attribute smooth_grad --noise_samples 3 --target 1": maps(
        attribution.smooth_grad, target=1, noise_samples=3, progress=False
    ),
    "attribute smooth_grad --noise_samples 3 --of guided_backprop --statistic variance": maps(
        attribution.smooth_grad, noise_samples=3, of="guided_backprop", statistic="variance", progress=False
    ),
    "attribute gradient_irregularity --steps 5 --pixel 3 4 --target 1": walked,
    "attribute rise --masks 20 --cells 4": maps(attribution.rise, masks=20, cells=4, progress=False),
    "attribute lrp": maps(attribution.lrp),
    "attribute gradient": maps(attribution.gradient),
    "attribute input_times_gradient --target label": maps(attribution.input_times_gradient, target=torch.arange(4) % 3),
    "attribute integrated_gradients --steps 4 --baseline 0.5": maps(
        attribution.integrated_gradients, steps=4, baseline=0.5, progress=False
    ),
    "attribute guided_backprop --target|conv2[1]": maps(attribution.guided_backprop, target=inner("conv2", 1)),
    "attribute deconvolution": maps(attribution.deconvolution),
    "attribute guided_grad_cam --layers conv1": maps(attribution.guided_grad_cam, "conv1", layers="conv1"),
    "attribute grad_cam --layers conv1 conv2": maps(attribution.grad_cam, "conv2", layers="conv2"),
    "attribute grad_cam_plus_plus": maps(attribution.grad_cam_plus_plus, "conv2"),
    "attribute xgrad_cam": maps(attribution.xgrad_cam, "conv2"),
    "attribute grad_cam --layers conv1 --target|conv2[1]|max(conv2)|class:cat": maps(
        attribution.grad_cam, "conv1", layers="conv1", target=target_list(["conv2[1]", "max(conv2)", "2"])
    ),
    "attribute hires_cam": maps(attribution.hires_cam, "conv2"),
    "attribute layer_cam": maps(attribution.layer_cam, "conv2"),
    "attribute ablation_cam": maps(attribution.ablation_cam, "conv2", progress=False),
    "attribute score_cam": maps(attribution.score_cam, "conv2", progress=False),
    "attribute eigen_cam": maps(attribution.eigen_cam, "conv2"),
    "attribute attention --layers encoder.layers.0 --heads all": maps(
        attribution.attention, "encoder.layers.0", layers="*", heads="all"
    ),
    "attribute attention_rollout": maps(attribution.attention_rollout),
    "attribute gradient_attention --target 1": maps(attribution.gradient_attention, target=1),
    "attribute occlusion --patch 4 3 --stride 2 --target class:bee": covered,
    "robustness corruptions --kinds gaussian_noise contrast --severities 1 3": corrupted,
    "robustness perturbation_stability --kinds tilt snow": flipped,
    "robustness epsilons --epsilons 0 0.1 1 --norm l2 --steps 2": curved,
    "robustness epsilons --epsilons 0 0.1 --attack apgd --steps 2": curved_by_apgd,
    "robustness robust_accuracy --epsilon 0.1 --steps 2 --queries 3": withstood,
    "robustness random_directions --directions 20 --steps 7": around,
    "robustness shape_bias --conflicts CONFLICTS": biased,
    "robustness loss_landscape --points 3 --radius 0.5": landscape,
    "robustness defenses --ways none|3 bits| --epsilon 1/5 --steps 2": defended,
    "embed tsne --layers fc --perplexity 1 --engine sklearn": placed(tsne, "fc", perplexity=1, engine="sklearn"),
    "embed pca --layers conv1 --dimensions 3": placed(pca, "conv1", dimensions=3),
    "filters --layers conv2": weights,
}


def typed(row):
    """A row as arguments; those between bars have spaces in them."""
    parts = row.split("|")
    return [word for place, part in enumerate(parts) for word in ([part] if place and part[0] != " " else part.split())]


def picked(numbers, folder, path):
    """A value of what was written: of the JSON, column by column of its tables, or of the arrays."""
    name, _, rest = path.partition(".")
    if (folder / f"{name}.npz").exists():
        with np.load(folder / f"{name}.npz") as arrays:
            return arrays[rest]
    found = numbers[name.replace(":", ".")]
    for part in filter(None, [rest] if isinstance(found, list) else rest.split(".")):
        found = [one[part] for one in found] if isinstance(found, list) else found[part]
    return found


def close(found, expected):
    if isinstance(expected, (tuple, list)):
        return list(found) == list(expected)
    wanted = torch.as_tensor(expected).double().numpy()
    known = np.array(found, dtype=float)  # None becomes NaN
    return np.allclose(known, np.where(np.isfinite(wanted), wanted, np.nan), rtol=1e-5, atol=1e-6, equal_nan=True)


def test_one_layer_is_embedded_as_points_as_images_at_their_places_and_on_a_grid(command, tmp_path):
    command("embed pca --layers fc")
    pages = sorted(path.relative_to(tmp_path).parts[:-1] for path in tmp_path.rglob("*.png"))
    assert [page[-1] for page in pages] == ["fc", "grid", "thumbnails"]
    words = [path.read_text() for path in tmp_path.rglob("*.md")]
    assert len(words) == 3 and all("PCA" in said and "t-SNE" not in said for said in words)


def test_the_table_of_tests_is_whole():
    every = {f"{command} {method}" for command in FAMILIES for method in command_methods(command)}
    assert {" ".join(row.split()[:2]) for row in ROWS} - {"filters --layers"} == every - {"filters filters"}


def test_the_options_of_filters_are_those_of_its_function():
    assert list(FILTER_OPTIONS) == options_of(layer_filters)


@pytest.mark.parametrize("command", FAMILIES)
def test_every_option_is_described(command):
    for name, entry in command_methods(command).items():
        whole = command if command == name else f"{command} {name}"
        actions = [action for action in method_parser(whole, entry)._actions if action.option_strings]
        assert all(action.help for action in actions), [action.dest for action in actions if not action.help]


def test_defaults_are_shown_once_and_as_a_person_writes_them(capsys):
    pages = {}
    for words in ("attack pgd", "robustness epsilons", "embed tsne", "dream invert"):
        command, *method = words.split()
        with pytest.raises(SystemExit, match="0"):
            run_command(command, [*method, "--help"])
        pages[words] = " ".join(capsys.readouterr().out.split())
    assert "(8/255" in pages["attack pgd"] and "0.0313" not in pages["attack pgd"]
    assert "(default: 0 1/255 2/255 4/255 8/255 16/255 32/255)" in pages["robustness epsilons"]
    assert "--norm {linf,l2}" in pages["attack pgd"] and "--engine {auto,sklearn,opentsne}" in pages["embed tsne"]
    assert "(default: 30)" not in pages["embed tsne"].partition("--dimensions")[0]
    assert "--alpha X 6 by default (the paper's) --beta" in pages["dream invert"]


def test_a_method_that_does_not_exist_is_named_with_the_nearest(capsys):
    with pytest.raises(InvalidArgumentError, match="attack has no method 'pdg': did you mean pgd"):
        run_command("attack", ["pdg", "a.ckpt"])
    assert not run_command("attack", [])
    assert "square" in capsys.readouterr().out


@pytest.mark.parametrize("row", ROWS)
def test_a_command_writes_what_the_function_behind_it_gives(row, command, subject, conflicts, tmp_path):
    words = [str(conflicts) if word == "CONFLICTS" else word for word in typed(row)]
    name = words[0] if words[0] == "filters" else " ".join(words[:2])
    numbers = command(name, *words[len(name.split()) :])
    for path, expected in ROWS[row](suited(subject, row)).items():
        assert close(picked(numbers, tmp_path, path), expected), path
    pictures = list((tmp_path / "pictures").rglob("*.png"))
    assert pictures and all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert not list(tmp_path.rglob("*.part"))
    assert numbers["found"] and str(escape(numbers["found"])) in (tmp_path / "index.html").read_text()
    assert list(tmp_path.rglob("events.out.tfevents.*"))  # which the board shows
    assert numbers["command"] == name and numbers["step"] == 7
    for table in tmp_path.glob("*.csv"):
        with table.open() as file:
            assert len(list(csv.DictReader(file))) == len(numbers[table.stem])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("attack pgd --epsilon -1", "epsilon"),
        ("attack pgd --target class:dog", "class:dog.*'ant', 'bee', 'cat'"),
        ("attack pgd --steps 0", "steps"),
        ("dream maximize --objectives|conv2[99]", "conv2\\[99\\].*6 channels"),
        ("dream maximize --objectives conv9", "conv9.*conv"),
        ("dream classes --priors smooth=1", "prior='smooth'.*edge_energy"),
        ("dream classes --priors l2", "'l2' is not NAME=NUMBER"),
        ("dream classes --update_steps fog", "preset 'fog'.*small norm"),
        ("dream invert --layer conv9", "conv9"),
        ("dream style_transfer --content nowhere.png --style 1 --content_layers fc --style_layers fc", "nowhere.png"),
        ("attribute gradient --target|conv9[1]", "conv9"),
        ("attribute occlusion --baseline fog", "(?s)baseline.*blurred.*fog"),
        ("attribute smooth_grad --noise_samples 0", "0"),
        ("robustness corruptions --kinds sand", "sand"),
        ("robustness corruptions --reference nowhere", "reference=nowhere"),
        ("robustness defenses --ways prayer", "'prayer'.*JPEG"),
        ("embed tsne --perplexity -3", "perplexity"),
        ("filters --layers conv9", "conv9"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_and_named(row, words, command, tmp_path):
    arguments = typed(row)
    name = arguments[0] if arguments[0] == "filters" else " ".join(arguments[:2])
    with pytest.raises(Exception, match=words):
        command(name, *arguments[len(name.split()) :])
    assert not (tmp_path / "numbers.json").exists()


def test_another_models_corruptions_are_the_reference(command, tmp_path):
    row = ["--kinds", "contrast", "--severities", "5"]
    first = command("robustness corruptions", *row)
    kept = tmp_path / "other.json"
    numbers = {**first["numbers"], "errors": {"contrast": [0.25]}}
    kept.write_text(json.dumps({**first, "model": "other", "numbers": numbers}))
    second = command("robustness corruptions", *row, "--reference", str(kept))
    assert second["numbers"]["reference"]["name"] == "other"
    assert second["numbers"]["reference"]["mce"] == pytest.approx(first["numbers"]["mean"] / 0.25)


def test_another_models_flips_are_the_reference(command, tmp_path):
    row = ["--kinds", "scale"]
    first = command("robustness perturbation_stability", *row)
    kept = tmp_path / "other.json"
    flips = [[0.5] * first["numbers"]["count"]]
    kept.write_text(json.dumps({**first, "model": "other", "numbers": {**first["numbers"], "flips": flips}}))
    second = command("robustness perturbation_stability", *row, "--reference", str(kept))
    assert second["numbers"]["reference"]["name"] == "other"
    assert second["numbers"]["reference"]["mfr"] == pytest.approx(first["numbers"]["flip_probability"] / 0.5)
    with pytest.raises(Exception, match="not a numbers"):
        command("robustness perturbation_stability", *row, "--reference", "nowhere")


def test_what_is_there_is_not_done_again_unless_asked(command, tmp_path, capsys):
    command("filters")
    picture = next(tmp_path.rglob("*.png"))
    picture.write_bytes(b"")
    command("filters")
    assert picture.read_bytes() == b"" and "--overwrite" in capsys.readouterr().out
    command("filters", "--overwrite")
    assert picture.read_bytes()


def test_pictures_that_are_not_ours_stay(command, tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ValueError, match="another --out"):
        command("filters")


def test_fewer_samples_than_the_probe_holds(command):
    assert [row["sample"] for row in command("attack fgsm", "--samples", "2")["samples"]] == [9, 4]


def test_what_is_random_goes_by_the_seed_that_was_asked_for(command, subject):
    found = command("attack pgd", "--epsilon", "0.3", "--steps", "1", "--stop_on_success", "false", "--seed", "3")
    options = {"epsilon": 0.3, "steps": 1, "stop_on_success": False, **QUIET}
    losses = [pgd(subject.model, subject.images, seed=seed, **options).record.losses[-1] for seed in (3, 0)]
    written = [row["loss"] for row in found["samples"]]
    assert close(written, losses[0]) and not close(written, losses[1])


def test_what_was_found_is_said_in_one_line_with_its_picture(command, tmp_path, capsys):
    numbers = command("attack fgsm", "--epsilon", "0.1")
    found, where = capsys.readouterr().out.splitlines()[0].split(" → ")
    assert found == numbers["found"]
    fooled = sum(row["fooled"] and not row["initially_misclassified"] for row in numbers["samples"])
    assert re.search(rf": {fooled} of \d fooled", found)
    assert Path(where).is_relative_to(tmp_path) and Path(where).read_bytes().startswith(b"\x89PNG")


def test_a_dream_that_is_not_taken_for_its_class_is_said(command, tmp_path):
    numbers = command(
        "dream classes", "--classes", "0", "1", "2", "--steps", "1", "--frames", "0", "--priors", "l2=1000000"
    )
    reached = numbers["numbers"]["reached"]
    assert not all(reached)  # the model says the same of all, which are gray
    missed = [row["of"] for row, each in zip(numbers["dreams"], reached, strict=True) if not each]
    assert numbers["found"] == f"{sum(reached)} of 3 images are taken for their class; not {', '.join(missed)}"
    assert f"{len(missed)} of 3 are not taken for what they were made for" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["attack", "pgd", "--epsilonn", "0.1"], "there is no option --epsilonn: did you mean --epsilon?"),
        (["filters", "--layer=conv1"], "there is no option --layer: did you mean --layers?"),
        (["embed", "tsne", "--quite_another", "1"], "there is no option --quite_another: see --help"),
    ],
)
def test_a_misspelt_option_is_named_with_the_nearest(typed, words):
    with pytest.raises(InvalidArgumentError, match=re.escape(words)):
        run_command(typed[0], typed[1:])


@pytest.mark.parametrize(
    "typed",
    [
        "attribute grad_cam --layers conv9",
        "attribute guided_grad_cam --layers conv1 conv9",
        "attribute gradient --target conv9[1]",
        "attribute gradient --target max(conv9)",
        "embed pca --layers conv9",
        "dream invert --layer conv9",
        "dream deep_dream --layer conv9",
        "dream deep_dream --layer conv9[2]",
        "dream maximize --objectives conv9",
        "dream maximize --objectives fc conv9[1]",
        "dream style_transfer --content 0 --style 1 --content_layers conv9 --style_layers conv1",
        "filters --layers conv9",
    ],
)
def test_a_layer_that_does_not_exist_is_refused_before_the_model_is_run(typed, tmp_path, monkeypatch):
    passes = []
    monkeypatch.setattr(ConvNet, "forward", lambda self, x: passes.append(len(x)))
    reading = import_module("lightning_viz.analysis.checkpoint_pass")
    monkeypatch.setattr(reading, "data_of", lambda *_: passes.append("data"))
    name, *arguments = typed.split()
    with pytest.raises(InvalidArgumentError, match=r"'conv9'.*'conv1'"):
        run_command(name, [*arguments, *SOURCE, "--out", str(tmp_path)])
    assert not passes


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("grad_cam", {"layers": "last_maps", "target": ["predicted", "class:ox"]}),
        ("grad_cam", {"layers": ["conv*", "Conv2d"], "target": "conv2[3] "}),
        ("deep_dream", {"layer": "3"}),
        ("deep_dream", {"layer": "conv2[1]"}),
        ("maximize", {"objectives": ["logits", "2", "class:ox", "conv1"]}),
        ("invert", {"layer": None}),
        ("invert", {"layer": ["conv1:0"]}),
        ("pgd", {"target": 2, "steps": "conv9"}),
    ],
)
def test_what_names_no_layer_that_is_missing_is_not_refused(method, arguments):
    check_layers(ConvNet(), method, arguments)


def test_filters_need_no_data(tmp_path, capsys):
    run_command("filters", [*SOURCE[:2], "--layers", "conv1", "fc", "--out", str(tmp_path)])
    assert capsys.readouterr().out.startswith("conv1: 4 filters of 1 x 3 x 3, fc: 3 filters of 1 x 1 x 6 → ")
    assert list((tmp_path / "pictures/filters/conv1").glob("*.png"))
