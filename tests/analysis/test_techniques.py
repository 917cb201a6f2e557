"""What goes deeper into a model: every technique on a small network that was trained, run as for a large one."""

import inspect
import json
import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from lightning_viz import attribution
from lightning_viz.adversarial import auto_attack, deepfool, fgsm, pgd
from lightning_viz.analysis.model_under_study import ModelUnderStudy, of_one_tensor
from lightning_viz.analysis.parts import run_technique
from lightning_viz.analysis.studies.attacked_accuracy import accuracy_curve, robust_accuracy
from lightning_viz.analysis.studies.attacks import attack
from lightning_viz.analysis.studies.dreams import dream_classes, dream_units
from lightning_viz.attribution.evaluation import deletion, insertion, model_randomization
from lightning_viz.callbacks.probe import Samples
from lightning_viz.catalogue import entry_of, techniques
from lightning_viz.costs import Facts, cost_of
from lightning_viz.errors import InvalidArgumentError, UnsuitableModelError
from lightning_viz.hooks.calls import Call, CallStep, Slot
from lightning_viz.pixels import PixelSpace
from lightning_viz.render.parts import CurveTile, Text, Tile
from lightning_viz.robustness import corrupt, epsilon_curve, perturbation_stability

ROWS = techniques()
SEVERAL = {  # of techniques that draw more than one page, or others than their own tag
    "attributions": ["attributions/sheet", "attributions/layer"],
    "dreams": ["dreams/classes"],
    "inversions": ["inversion"],
    "attacks": ["attacks/fgsm", "attacks/fgsm/sum", "attacks/pgd", "attacks/deepfool", "attacks/record"],
    "epsilons": ["robustness/epsilon", "robustness/robust_accuracy", "robustness/sphere", "robustness/defenses"],
    "corruptions": ["corruptions/table", "corruptions/sheet"],
    "perturbations": ["perturbations/flips", "perturbations/sheet"],
}
TAGS = {name: SEVERAL.get(name, list(entry_of(name).tags[:1])) for name in ROWS if name != "biases"}
SETTINGS = {  # as a plan for a large model would have them
    "attributions": {"samples": 4, "copies": 20, "every_channel": False},
    "dreams": {"classes": 10, "steps": 80},
    "inversions": {"samples": 2, "layers": 5, "steps": 80},
    "epsilons": {"samples": 8, "ensemble": 4, "around": 4, "directions": 100, "steps": 10},
    "landscape": {"samples": 8, "points": 9},
    "perturbations": {"samples": 4},
}
SPACE = PixelSpace((0.3,), (0.4,))


def run(name, subject):
    return run_technique(ROWS[name], subject, SETTINGS.get(name))


def make_net(channels=1, side=16, classes=10):
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(side**2, classes),
    )  # fmt: skip


def model_under_study_of(model, inputs, labels=None, pixel_space=None, **options):
    return ModelUnderStudy("net", model.eval(), Samples(inputs, labels, 4), pixel_space or PixelSpace(), **options)


@pytest.fixture(scope="module", autouse=True)
def as_for_a_large_model():
    with pytest.MonkeyPatch.context() as patch:
        ensemble = partial(robust_accuracy, steps=4, queries=6)  # not the thousands of passes of the standard
        patch.setattr("lightning_viz.analysis.studies.robustness.robust_accuracy", ensemble)
        yield


@pytest.fixture(scope="module")
def subject():
    """Digits of 16 x 16, normalized, and a network that tells them apart; the last samples it has not seen."""
    flat, labels = load_digits(return_X_y=True)
    pixels = F.interpolate(torch.tensor(flat, dtype=torch.float32).view(-1, 1, 8, 8) / 16, (16, 16), mode="bilinear")
    images, labels = SPACE.to_inputs(pixels), torch.tensor(labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make_net()
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(4):
            for batch in torch.randperm(1500).split(50):
                optimizer.zero_grad()
                F.cross_entropy(net(images[batch]), labels[batch]).backward()
                optimizer.step()
        optimizer.zero_grad()
    return model_under_study_of(net, images[1500:1540], labels[1500:1540], SPACE, step=7)


@pytest.fixture(scope="module")
def found(subject):
    """What every technique finds; and how the model and the generators were before."""
    before = {name: one.clone() for name, one in subject.model.state_dict().items()}, torch.get_rng_state()
    return {"before": before, **{name: run(name, subject) for name in ROWS}}


def test_the_table_is_in_the_order_of_the_report():
    assert [name for name in ROWS if name in SEVERAL] == list(SEVERAL) and list(ROWS)[-1] == "biases"
    assert all(technique.summary for technique in ROWS.values())


@pytest.mark.parametrize("name", TAGS)
def test_each_draws_what_it_says_and_counts_in_plain_numbers(found, name):
    assert found[name].faults == []
    assert [shown.picture.tag for shown in found[name].pictures] == TAGS[name]
    assert {shown.step for shown in found[name].pictures} == {7}
    assert json.loads(json.dumps(found[name].numbers, allow_nan=False)) == found[name].numbers


@pytest.mark.parametrize("name", TAGS)
def test_the_same_seed_finds_the_same(subject, found, name):
    again = run(name, subject)
    assert again.numbers == found[name].numbers
    assert [one.picture.image for one in again.pictures] == [one.picture.image for one in found[name].pictures]


def test_the_model_and_the_generators_are_left_as_found(subject, found):
    (weights, state), model = found["before"], subject.model
    assert all(torch.equal(one, weights[name]) for name, one in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters()) and not model.training


def test_believability_is_what_the_checks_say(subject, found):
    images = subject.images[:4]
    said = subject.model(images).argmax(1)
    measured = found["attributions"].numbers["attributions"]
    for name, method in (("Gradient", attribution.gradient), ("Grad-CAM", attribution.grad_cam)):
        same = model_randomization(method, subject.model, images, said, layers=()).score
        assert measured[name]["model_randomization"] == pytest.approx(same, abs=1e-5)
        for check in (deletion, insertion):
            area = check(method, subject.model, images, said, steps=16, progress=False).areas.mean().item()
            assert measured[name][check.__name__] == pytest.approx(area, abs=1e-5)
    assert measured["Occlusion"]["deletion"] < measured["a random order"]["deletion"]


def test_the_table_of_an_attack_holds_every_step_of_every_sample(subject):
    few = subject.first(3)
    output = attack(few, "gradient_ascent", {"steps": 12, "normalize": "l2", "lr": 0.3})
    rows, record = output.tables["steps"], output.arrays["record"]
    classes, confidences = record["classes"], record["confidences"]
    assert len(rows) == classes.numel() and [row["step"] for row in rows] == [*range(len(classes))] * 3
    assert [row["class"] for row in rows] == classes.T.flatten().tolist()
    assert [row["confidence"] for row in rows] == pytest.approx(confidences.T.flatten().tolist())
    page = list(output.pictures)[1]
    assert [strip.values.tolist() for strip in page.parts(CurveTile)] == [
        pytest.approx(line) for line in confidences.T.tolist()
    ]


def test_dreams_of_channels_are_cut_and_stand_beside_their_strongest_samples():
    torch.manual_seed(0)
    model, inputs = make_net(), torch.rand(20, 1, 16, 16)
    subject = model_under_study_of(model, inputs)
    options = {"steps": 3, "frames": 0, "copies": 2}
    pages = list(dream_units(subject, options, objectives=["3[1]", "3[0]", "0[2]", "7"]).pictures)
    assert [page.tag for page in pages] == ["dreams/3", "dreams/0", "dreams/logits"]
    names = [text.lines[0] for text in pages[0].parts(Text) if text.lines[0].startswith("3 channel")]
    assert names == ["3 channel 1"] * 2 + ["3 channel 0"] * 2
    peaks = model[:4](inputs)[:, [1, 0]].flatten(2).max(2)
    for page, side in zip(pages, (8, 3), strict=False):
        assert f"cut to what the middle sees, {side} × {side} of 16 × 16 pixels" in page.details
        assert {"contrast stretched", "beside each: its 2 strongest samples"} <= set(page.details)
        assert "hatched: 0 on all of these 20 samples, others may excite it" in page.details
        dreams = [tile.image for tile in page.parts(Tile) if tile.sample is not None]
        assert {dream.shape for dream in dreams} == {(side, side, 3)} and all(np.ptp(dream) == 255 for dream in dreams)
    values = [tile.value for tile in pages[0].parts(Tile) if tile.sample is None]
    for row, channel in enumerate((0, 0, 1, 1)):  # two copies of each
        expected = peaks.values[:, channel].sort(descending=True).values[:2].tolist()
        assert values[2 * row : 2 * row + 2] == pytest.approx([max(each, 0) or None for each in expected], rel=1e-5)
    assert not any("cut to" in words for words in pages[2].details)
    hidden = list(dream_units(replace(subject, private=True), options, objectives=["3[1]"]).pictures)
    assert [page.tag for page in hidden] == ["dreams"]
    assert all(tile.sample is not None for tile in hidden[0].parts(Tile))


def test_dreams_are_seen_as_their_classes(subject, found):
    numbers = found["dreams"].numbers["dreams"]
    inputs = dream_classes(subject.first(8), {"steps": 80, "frames": 0}).arrays["images"]["inputs"]
    scores = subject.model(inputs)
    assert numbers["logits"] == pytest.approx(scores.diagonal().tolist(), abs=1e-3)
    assert numbers["confidences"] == pytest.approx(scores.softmax(1).diagonal().tolist(), abs=1e-4)
    assert scores.argmax(1).tolist() == list(range(10))
    low, high = (SPACE.to_inputs(torch.tensor([[[[end]]]])).item() for end in (0.0, 1.0))
    assert low - 1e-4 <= inputs.min() <= inputs.max() <= high + 1e-4


def test_deeper_layers_know_less(subject, found):
    errors = found["inversions"].numbers["inversions"]
    assert list(errors) == ["0", "3", "7"]  # two convolutions, one fully connected layer
    assert errors["0"]["error"] < 0.5 < errors["7"]["error"]
    assert errors["0"]["error"] == pytest.approx(sum(errors["0"]["errors"]) / 2)


def test_attacks_tell_how_far_they_went(subject, found):
    few = subject.first(8)
    images, predicted = few.bounded_images(), few.predictions()[0]
    numbers = found["attacks"].numbers["attacks"]
    shortest = deepfool(subject.model, images, predicted, pixel_space=SPACE, progress=False)
    assert numbers["deepfool"]["success"] == 1 == shortest.success
    assert numbers["deepfool"]["relative"] == pytest.approx(shortest.record.relative[-1].median().item(), rel=1e-4)
    epsilon = numbers["fgsm"]["epsilon"]
    assert epsilon == numbers["pgd"]["epsilon"]
    assert numbers["fgsm"]["success"] == pytest.approx(
        fgsm(subject.model, images, predicted, epsilon=epsilon, pixel_space=SPACE).success.item()
    )
    half = pgd(subject.model, images, predicted, epsilon=epsilon / 2, steps=20, pixel_space=SPACE, progress=False)
    assert numbers["pgd"]["success"] >= 0.5 > half.success or epsilon == pytest.approx(8 / 255)


def test_accuracy_falls_with_epsilon_until_little_is_left(subject, found):
    curve = found["epsilons"].numbers["epsilon"]
    epsilons, accuracy = curve["epsilons"], curve["accuracy"]
    many = subject.first(8)

    def attack(*given, epsilon):
        return pgd(*given, epsilon=epsilon, steps=10, pixel_space=SPACE, progress=False)

    direct = epsilon_curve(
        subject.model, many.bounded_images(), many.true_or_predicted_classes(), epsilons, attack=attack, progress=False
    )
    assert accuracy == pytest.approx(direct.accuracy.tolist())
    assert epsilons[0] == 0
    assert all(after == 2 * before for before, after in pairwise(epsilons[1:]))
    assert accuracy == sorted(accuracy, reverse=True)
    assert all(one >= 0.1 for one in accuracy[1:-1])
    assert accuracy[-1] < 0.1 or epsilons[-1] == 0.5


def test_robust_accuracy_is_what_auto_attack_leaves(subject, found):
    numbers, few = found["epsilons"].numbers["robust_accuracy"], subject.first(4)
    images, labels, how = few.bounded_images(), few.true_or_predicted_classes(), {"steps": 4, "queries": 6}
    direct = auto_attack(few.model, images, labels, pixel_space=SPACE, progress=False, **how)
    assert numbers["robust"] == pytest.approx(float(direct.accuracy)) and numbers["samples"] == 4
    assert numbers["clean"] >= numbers["robust"]
    assert numbers["fooled_by"] == {name: int(count) for name, count in direct.fooled_by.items()}
    assert numbers["attack"] == "AutoAttack, L-inf, ε 8/255"


def test_the_command_of_auto_attack_tells_what_fell_to_which_attack(subject):
    numbers = attack(subject.first(4), "auto_attack", {"epsilon": 0.5, "steps": 4, "queries": 6}).numbers
    assert list(numbers["fooled_by"]) == ["APGD-CE", "APGD-DLR", "FAB", "Square"]
    assert sum(map(int, numbers["fooled_by"].values())) == 4


def test_a_curve_may_be_of_another_attack(subject):
    """At this epsilon every sample falls to the first of the attacks, so that Square's queries are not made."""
    curve = accuracy_curve(subject.first(4), epsilons=[0, 0.5], attack="auto_attack", steps=4)
    assert curve.numbers["accuracy"].tolist() == [1.0, 0.0]
    (page,) = curve.pictures
    assert "AutoAttack, 4 steps, on 4 samples" in page.details


def test_an_option_that_the_attack_of_a_curve_does_not_have_is_said(subject):
    for options, words in (
        ({"attack": "fgsm", "steps": 3}, "steps=3: FGSM has no such option"),
        ({"attack": "fgsm", "norm": "l2"}, "norm='l2': FGSM has no"),
        ({"attack": "auto_attack", "restarts": 2}, "restarts=2: AutoAttack has no"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            accuracy_curve(subject.first(4), **options)


def test_corruption_errors_are_counted_right(subject, found):
    numbers, images, labels = found["corruptions"].numbers["corruptions"], subject.images, subject.labels
    assert numbers["clean"] == pytest.approx((subject.model(images).argmax(1) != labels).float().mean().item())
    for kind, severity in (("fog", 3), ("gaussian_noise", 5)):
        hurt = subject.model(corrupt(images, kind, severity, pixel_space=SPACE)).argmax(1)
        assert numbers["errors"][kind][severity - 1] == pytest.approx((hurt != labels).float().mean().item())
    assert numbers["mean"] == pytest.approx(sum(numbers["kinds"].values()) / 15)


def test_flip_probabilities_are_those_of_the_function(subject, found):
    numbers = found["perturbations"].numbers["perturbation_stability"]
    images = subject.bounded_images()[: numbers["count"]]
    direct = perturbation_stability(subject.model, images, pixel_space=SPACE, progress=False)
    assert torch.equal(torch.tensor(numbers["flips"], dtype=torch.float64), direct.flips)
    assert torch.equal(torch.tensor(numbers["distances"], dtype=torch.float64), direct.distances)


IMAGES, LABELS = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
CLASSIFIER = make_net(3, classes=3)
LABELED = [name for name, row in ROWS.items() if "labels" in row.needs]


@pytest.mark.parametrize(
    ("names", "subject", "words"),
    [
        (TAGS, model_under_study_of(nn.Conv2d(3, 4, 3), IMAGES), "not a classifier of images"),
        (TAGS, model_under_study_of(nn.Linear(5, 3), torch.rand(6, 5), LABELS), "not a classifier of images"),
        (TAGS, model_under_study_of(make_net(3, classes=1), IMAGES, LABELS), "not a classifier of images"),
        (LABELED, model_under_study_of(CLASSIFIER, IMAGES), "not known"),
        (
            ["attacks", "epsilons", "corruptions", "perturbations"],
            model_under_study_of(CLASSIFIER, 9 * IMAGES, LABELS),
            "pixels from",
        ),
    ],
    ids=["dense", "vectors", "one class", "without labels", "beyond the pixels"],
)
def test_what_does_not_suit_says_why(names, subject, words):
    unsuited = {}
    for name, technique in ROWS.items():
        try:
            next(technique.load()(subject))
        except UnsuitableModelError as error:
            unsuited[name] = str(error)
    assert "conflicts" in unsuited.pop("biases")  # tested with comparisons
    assert list(unsuited) == list(names) and all(words in reason for reason in unsuited.values())
    first = next(iter(names))
    result = run_technique(ROWS[first], subject)
    assert not result.pictures and not result.faults and result.numbers == {"left out": {first: unsuited[first]}}


class Keywords(nn.Module):
    """Takes its images by name, as Hugging Face's models do, and flat."""

    def __init__(self):
        super().__init__()
        self.net = CLASSIFIER

    def forward(self, **inputs):
        return {"logits": self.net(inputs["pixel_values"])}


FLATTENED = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))


@pytest.mark.parametrize(
    ("model", "inputs", "plain"),
    [
        (Keywords(), {"pixel_values": IMAGES}, CLASSIFIER),
        (
            nn.ModuleDict({"net": FLATTENED[1]}),
            Call((IMAGES,), (CallStep("net", (Slot(0, (768,)),)),)),
            FLATTENED,
        ),
    ],
    ids=["by name", "flattened by the step"],
)
def test_a_model_that_takes_its_images_in_another_way_is_studied_like_one_that_takes_them_alone(model, inputs, plain):
    own, samples = of_one_tensor(model.eval(), Samples(inputs, LABELS, 4))
    found, known = (
        run_technique(ROWS["attacks"], ModelUnderStudy("net", of, given, PixelSpace()))
        for of, given in ((own, samples), (plain.eval(), Samples(IMAGES, LABELS, 4)))
    )
    assert found.faults == [] and found.numbers == known.numbers
    assert [shown.picture.image for shown in found.pictures] == [shown.picture.image for shown in known.pictures]


def test_samples_a_little_beyond_the_pixels_are_clamped():
    subject = model_under_study_of(CLASSIFIER, 1.03 * IMAGES - 0.015, LABELS)
    images = subject.bounded_images()
    assert images.min() == 0 and images.max() == 1
    assert not run_technique(ROWS["attacks"], subject).faults


def test_color_images_without_labels_of_a_model_that_was_never_trained():
    subject = model_under_study_of(CLASSIFIER, IMAGES)
    for name in ("attributions", "epsilons"):
        found = run(name, subject)
        assert found.faults == []
        assert [shown.picture.tag for shown in found.pictures] == TAGS[name]


def test_a_model_that_is_always_wrong_is_still_attacked():
    wrong = (CLASSIFIER(IMAGES).argmax(1) + 1) % 3
    found = run("epsilons", model_under_study_of(CLASSIFIER, IMAGES, wrong))
    assert found.faults == [] and set(found.numbers["epsilon"]["accuracy"]) == {0.0}
    turned = run_technique(ROWS["attacks"], model_under_study_of(CLASSIFIER, IMAGES, wrong)).numbers["attacks"]
    assert turned["deepfool"]["success"] == 1


@pytest.mark.parametrize("name", TAGS)
def test_nan_in_the_weights_is_a_fault_that_says_so(name):
    broken = make_net(3, classes=3)
    broken[0].weight.data[0] = math.nan
    found = run_technique(ROWS[name], model_under_study_of(broken, IMAGES, LABELS))
    assert len(found.faults) == 1 and "NaN or infinity" in found.faults[0].message
    assert not found.pictures


def test_methods_that_the_model_has_no_layers_for_are_named():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    found = run("attributions", model_under_study_of(flat, IMAGES, LABELS))
    left_out = found.numbers["attributions left out"]
    assert "no convolution" in left_out["Grad-CAM"] and "no ReLU" in left_out["Guided backpropagation"]
    assert set(left_out).isdisjoint(found.numbers["attributions"])
    assert [shown.picture.tag for shown in found.pictures] == ["attributions/sheet"]


@pytest.mark.parametrize("name", list(ROWS))
def test_the_whole_is_what_a_technique_does_by_itself_and_each_rung_takes_no_more_than_the_one_before(name):
    technique, facts = ROWS[name], Facts(256, 16, 10, 512, (224, 224), labeled=True, conflicts=30)
    parameters = inspect.signature(technique.load()).parameters
    defaults = {key: each.default for key, each in parameters.items() if key != "study"}
    assert dict(technique.rungs[0]) == defaults
    costs = [cost_of(technique.load(), facts, **rung) for rung in technique.rungs]
    assert all(more >= less for before, after in pairwise(costs) for more, less in zip(before, after, strict=True))
    assert costs[0].passes > 2 * costs[-1].passes or len(costs) == 1


def test_passes_are_counted_as_they_are_run(subject):
    """An estimate is an upper bound, and not a wild one."""
    counted = 0

    def count(module, inputs, output):
        nonlocal counted
        counted += len(inputs[0]) * (3 if output.requires_grad else 1)

    facts = Facts(len(subject.samples), 4, 10, 16, (16, 16), labeled=True)
    for name in ("dreams", "inversions", "landscape", "corruptions", "perturbations"):
        settings = {"dreams": {"classes": 2, "steps": 10}, "inversions": {"samples": 2, "layers": 3, "steps": 10}}.get(
            name, ROWS[name].rungs[-1]
        )
        counted = 0
        handle = subject.model[0].register_forward_hook(count)
        try:
            run_technique(ROWS[name], subject, settings)
        finally:
            handle.remove()
        estimated = cost_of(ROWS[name].load(), facts, **settings).passes
        assert 0.4 * counted <= estimated <= 2.5 * counted, (name, counted, estimated)
