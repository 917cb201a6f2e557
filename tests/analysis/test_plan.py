"""How far an analysis goes within a time: chosen from estimates alone, kept, said, and repeated on any machine."""

import importlib
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_viz import Occlusion, Saliency
from lightning_viz.analysis.analyze import analyze
from lightning_viz.analysis.compare import compare
from lightning_viz.analysis.estimates import Speeds, estimates_of, measured_speeds, summed
from lightning_viz.analysis.model_under_study import ModelUnderStudy
from lightning_viz.analysis.parts import run_technique
from lightning_viz.analysis.plan import (
    LOOKS,
    VIEWS,
    Estimate,
    Extent,
    Plan,
    choose_plan,
    looked_at,
    read_plan,
    with_fewer_looks,
)
from lightning_viz.analysis.publication import Publisher
from lightning_viz.analysis.report.report import report
from lightning_viz.analysis.results import ModelReport, Output, Result
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.callbacks.probe import Probe, Samples
from lightning_viz.catalogue import techniques, views
from lightning_viz.costs import Cost, Facts, costing
from lightning_viz.errors import AnalysisError, MalformedFileError
from lightning_viz.pixels import PixelSpace
from lightning_viz.render.page import Picture
from tests.analysis.fakes import fakes
from tests.callbacks.conftest import images, loader

PARTS = importlib.import_module("lightning_viz.analysis.parts")
ESTIMATES = importlib.import_module("lightning_viz.analysis.estimates")


def steps(name, *seconds, **options):
    """What takes so many seconds at each rung, of which the settings say the seconds."""
    return Estimate(name, [{"steps": each} for each in seconds], seconds, **options)


def chosen(plan):
    return {name: None if each.settings is None else each.settings["steps"] for name, each in plan.choices.items()}


CASES = {
    "all is whole if there is time": ([steps("a", 20, 10), steps("b", 40, 5)], 60, {"a": 20, "b": 40}),
    "exactly as much": ([steps("a", 20, 10), steps("b", 40, 5)], 60.0, {"a": 20, "b": 40}),
    "the cheapest step up first": ([steps("a", 90, 40, 10), steps("b", 30, 10)], 70, {"a": 40, "b": 30}),
    "each at its least": ([steps("a", 90, 30), steps("b", 90, 30)], 60, {"a": 30, "b": 30}),
    "what does not fit is left out": ([steps("a", 90, 50), steps("b", 20, 10)], 45, {"a": None, "b": 20}),
    "the cheaper is kept, whichever is first": ([steps("a", 50), steps("b", 20)], 60, {"a": None, "b": 20}),
    "what is free is done": ([steps("a", 0, 0), steps("b", 900, 800)], 1, {"a": 0, "b": None}),
    "what is named is done at its least": (
        [steps("a", 900, 800, required=True), steps("b", 5)], 60, {"a": 800, "b": None},
    ),
    "of equals the first is taken further": ([steps("a", 20, 10), steps("b", 20, 10)], 35, {"a": 20, "b": 10}),
    "a rung that is no cheaper costs nothing to climb": ([steps("a", 10, 10, 10)], 10, {"a": 10}),
    "without limit": ([steps("a", 1e9, 1), steps("b", 1e12, 1)], math.inf, {"a": 1e9, "b": 1e12}),
    "nothing to plan": ([], 60, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_plan_is_chosen_from_estimates_alone(case):
    estimates, seconds, expected = CASES[case]
    plan = choose_plan(estimates, seconds / 60)
    assert chosen(plan) == expected
    assert choose_plan(estimates, seconds / 60) == plan
    required = sum(each.seconds[-1] for each in estimates if each.required)
    assert plan.seconds <= max(seconds, required) + 1e-6


def test_passes_that_are_needed_are_taken_off_first_but_no_more_than_half_of_the_time():
    for passes, expected in ((5, 20), (15, 10), (25, 10), (1000, 10)):
        assert chosen(choose_plan([steps("a", 20, 10)], 0.5, passes=passes)) == {"a": expected}


def test_with_more_time_more_is_done():
    estimates = [steps("a", 300, 100, 20), steps("b", 60, 50, 10, 3), steps("c", 500, 2), steps("d", 7)]
    before = dict.fromkeys("abcd", 0)
    for seconds in (1, 3, 5, 13, 40, 90, 200, 400, 900):
        now = {name: settings or 0 for name, settings in chosen(choose_plan(estimates, seconds / 60)).items()}
        assert all(now[name] >= before[name] for name in now), seconds
        before = now
    assert before == {"a": 300, "b": 60, "c": 500, "d": 7}


@pytest.mark.parametrize("minutes", [0, -1, math.nan])
def test_a_time_in_which_nothing_can_be_done_is_refused(minutes):
    with pytest.raises(AnalysisError, match="positive number"):
        choose_plan([], minutes)


def test_several_models_have_one_plan_whose_estimates_are_summed():
    (both,) = summed([[steps("a", 20, 10)], [steps("a", 200, 30)]])
    assert both.seconds == [220, 40] and both.rungs == [{"steps": 20}, {"steps": 10}]


def test_a_view_looks_at_fewer_checkpoints_evenly_and_at_the_last():
    rungs = with_fewer_looks([{"a": 1}, {"a": 0}], 20)
    assert [rung[LOOKS] for rung in rungs] == [20, 20, 10, 5, 3, 2, 1] and rungs[2]["a"] == 0
    for count in range(1, 21):
        at = looked_at(range(100, 120), count)
        assert at[-1] == 119 and len(at) == count and (count == 1 or at[0] == 100) and at == sorted(set(at))
    assert with_fewer_looks([{}], 1) == [{LOOKS: 1}]


VIEW = {VIEWS: [{"noise_samples": 50, "sanity_check": True}], LOOKS: 20}
WORDS = [
    ({"samples": 4, "steps": 10}, {"samples": 16, "steps": 10}, "samples 4 of 16"),
    ({"samples": 4, "ensemble": 0}, {"samples": 4, "ensemble": 16}, "without ensemble"),
    ({"every_channel": False}, {"every_channel": True}, "without every channel"),
    ({VIEWS: [{"noise_samples": 25, "sanity_check": False}], LOOKS: 5}, VIEW,
     "noise samples 25 of 50, without sanity check, 5 of 20 checkpoints"),
    (VIEW, VIEW, ""),
    (None, VIEW, ""),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "whole", "words"), WORDS)
def test_what_is_shortened_is_said(settings, whole, words):
    choice = Extent(settings, whole)
    assert choice.words() == words and choice.shortened == bool(words)


def test_a_plan_is_kept_and_read_again(tmp_path):
    plan = choose_plan([steps("a", 90, 50), steps("b", 20, 10)], 0.75, passes=3, forward=0.0123, key="k")
    plan.write(tmp_path / "plan.json")
    again = read_plan(tmp_path / "plan.json")
    assert again == plan and again.key == "k" and again.to_json() == plan.to_json()
    endless = replace(plan, minutes=math.inf)
    endless.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json").minutes == math.inf
    json.loads(endless.to_json(), parse_constant=pytest.fail)


HEAD = '{"minutes": 4, "seconds": {"validation": 0, "forward": 0}, "key": "", "choices": {"a": '
NO_PLANS = [
    "", "[]", "{", "null", '{"choices": {}}', "[" * 10_000, f"{HEAD}3}}}}",
    f'{HEAD}{{"settings": {{"x": []}}, "whole": {{}}}}}}}}',
    f'{HEAD}{{"settings": 3, "whole": {{}}}}}}}}',
    f'{HEAD}{{"settings": {{"views": [3]}}, "whole": {{}}}}}}}}',
]  # fmt: skip


@pytest.mark.parametrize("content", NO_PLANS)
def test_a_file_that_is_no_plan_is_refused(content, tmp_path):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(MalformedFileError, match=r"plan\.json is no plan of an analysis"):
        read_plan(tmp_path / "plan.json")


# Estimates.

FACTS = Facts(samples=40, head=8, classes=3, channels=4, sides=(8, 8), labeled=True)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def test_seconds_are_passes_times_the_time_of_a_pass():
    config = RunConfig(net(), None)
    known = techniques()
    slow, slower = (
        {each.name: each for each in estimates_of(config, known, FACTS, Speeds(forward), (), 4)} for forward in (1, 3)
    )
    assert list(slow) == [*(f"views/{kind}" for kind in views()), *(f"techniques/{name}" for name in known)]
    for name, each in slow.items():
        assert [3 * seconds for seconds in each.seconds] == pytest.approx(list(slower[name].seconds))
        assert list(each.seconds) == sorted(each.seconds, reverse=True), name
    occlusion, looks = slow["views/occlusion"], [rung[LOOKS] for rung in slow["views/occlusion"].rungs]
    assert looks == [4, 4, 4, 4, 2, 1] and occlusion.seconds[0] == 4 * 2 * 3 * 64  # one pixel at a time, twice


def test_a_view_of_the_run_takes_the_place_of_the_one_that_would_be_added():
    def seconds(*recorded):
        estimates = estimates_of(RunConfig(net(), None), {}, FACTS, Speeds(1.0), recorded, 1)
        return {each.name: each.seconds[0] for each in estimates}

    occluded = Occlusion(samples=1, pixel_space=PixelSpace((0.5,), (0.5,)))
    assert seconds()["views/occlusion"] == 2 * 3 * 64 and seconds(occluded)["views/occlusion"] == 64
    own = Saliency(method="gradient", noise_samples=5)
    assert seconds(own)["views/saliency"] == seconds()["views/saliency"] + 8 * 5 * 3


def test_what_does_not_suit_the_model_takes_no_time_from_others():
    unlabeled = replace(FACTS, labeled=False)
    estimates = estimates_of(RunConfig(net(), None), techniques(), unlabeled, Speeds(1.0), (), 1)
    seconds = {each.name: each.seconds[0] for each in estimates}
    assert seconds["techniques/attributions"] > 0
    assert not any(seconds[f"techniques/{name}"] for name in ("landscape", "corruptions", "biases"))


def test_a_forward_is_timed_by_the_clock_that_is_given():
    """Each reading of the clock is two seconds after the one before."""
    times = iter(range(0, 1000, 2))
    inputs, labels = images(4)
    study = ModelUnderStudy("net", net().eval(), Samples(inputs, labels, 4), PixelSpace())
    speeds = measured_speeds(study, clock=lambda: float(next(times)))
    assert speeds == Speeds(forward=2 / 4, image=2 / 4, page=2)


# The plan in an analysis.


@costing(lambda facts, steps: Cost(passes=steps))
def measure(study, steps=100):
    yield Output("measure", numbers={"steps": steps})


@costing(lambda facts, steps: Cost(passes=steps))
def costly(study, steps=1000):
    yield Output("costly", numbers={"steps": steps})


RUNGS = {"measure": (100, 10), "costly": (1000,)}
FAKES = {
    name: replace(technique, rungs=tuple({"steps": each} for each in RUNGS[name]))
    for name, technique in fakes(measure=measure, costly=costly).items()
}


@pytest.fixture
def machine(monkeypatch):
    """Sets how fast the machine is."""
    monkeypatch.setattr(PARTS, "techniques", lambda: FAKES)

    real = ESTIMATES.measure

    def be(forward):
        def measured(*given):
            found, facts, _ = real(*given)
            return found, facts, Speeds(forward)

        monkeypatch.setattr(ESTIMATES, "measure", measured)

    return be


def analyzed(out, **options):
    given = {"views": ["filters", "grad_cam"], "trainer": {"accelerator": "cpu"}, "probe": Probe(samples=4), **options}
    return analyze([], model=net(), data=loader(*images(24)), out=out, name="net", **given)


def findings(out):
    paths = (path for path in (out / "findings").rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_on_a_slow_machine_less_is_done_which_is_said_and_repeated_anywhere_byte_for_byte(machine, tmp_path):
    machine(forward=1.0)
    page = analyzed(tmp_path / "slow", minutes=2).read_text()
    plan = read_plan(tmp_path / "slow" / "plan.json")
    assert plan.choices["techniques/measure"].words() == "steps 10 of 100" and list(plan.left_out) == [
        "techniques/costly"
    ]
    assert "steps 10 of 100" in page and "left out: at its least" in page
    assert f"--techniques costly --views --minutes {plan.minutes_for('techniques/costly')} --out costly" in page
    assert not (tmp_path / "slow" / "findings" / "costly").exists()
    machine(forward=1e-9)
    quick = analyzed(tmp_path / "quick", minutes=2).read_text()
    assert "section-plan" not in quick and (tmp_path / "quick" / "findings" / "costly").exists()
    analyzed(tmp_path / "again", plan=tmp_path / "slow" / "plan.json")
    assert findings(tmp_path / "again") == findings(tmp_path / "slow") != findings(tmp_path / "quick")
    for file in ("plan.json", "report.html"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "slow" / file).read_bytes()


def test_an_analysis_goes_on_by_the_plan_that_it_began_with(machine, tmp_path):
    machine(forward=1.0)
    analyzed(tmp_path, minutes=2)
    before = (tmp_path / "plan.json").read_bytes(), findings(tmp_path)
    machine(forward=1e-9)
    told = []
    analyzed(tmp_path, minutes=2, progress=lambda name, *_: told.append(name))
    assert ((tmp_path / "plan.json").read_bytes(), findings(tmp_path)) == before and not told
    analyzed(tmp_path, minutes=3, progress=lambda name, *_: told.append(name))  # another time, another plan
    assert told == ["measuring the model", "measure", "costly"]  # what is the same in both is kept


def test_progress_tells_what_is_left(machine, tmp_path):
    machine(forward=0.1)
    told = []
    analyzed(tmp_path, views=[], minutes=4, progress=lambda *line: told.append(line))
    assert [line[0] for line in told] == ["measuring the model", "model-00000000", "measure", "costly"]
    assert [round(line[3]) for line in told[2:]] == [110, 100] and [line[2] for line in told[1:]] == [3, 3, 3]


def test_a_plan_that_says_nothing_of_a_technique_or_is_of_another_version_is_refused(machine, tmp_path):
    machine(forward=1e-9)
    analyzed(tmp_path / "one", techniques=["measure"])
    file = tmp_path / "one" / "plan.json"
    with pytest.raises(AnalysisError, match="the plan says nothing of 'techniques/costly'"):
        analyzed(tmp_path / "two", plan=file)
    file.write_text(file.read_text().replace('"steps"', '"updates"'))
    with pytest.raises(AnalysisError, match="of another version of 'techniques/measure'"):
        analyzed(tmp_path / "two", techniques=["measure"], plan=file)


def test_models_that_are_compared_have_one_plan(machine, tmp_path):
    machine(forward=1.0)
    data = loader(*images(24))
    options = {"views": [], "trainer": {"accelerator": "cpu"}, "probe": Probe(samples=4)}
    configs = [RunConfig(net(seed), data, name=name, **options) for seed, name in ((0, "one"), (1, "other"))]
    text = compare(configs, out=tmp_path, minutes=2).read_text()
    plan = read_plan(tmp_path / "plan.json")
    assert plan.choices["techniques/measure"].seconds == 20 and plan.choices["techniques/measure"].whole_seconds == 200
    assert text.count("steps 10 of 100") == 1
    steps = [json.loads((tmp_path / f"findings/{name}/measure/finding.json").read_text()) for name in ("one", "other")]
    assert [each["numbers"]["measure"]["steps"] for each in steps] == [10, 10]


def test_the_report_is_rewritten_as_results_come_and_seldom_enough(tmp_path):
    now = [0.0]
    own = ModelReport("net")
    publisher = Publisher(tmp_path, [own], clock=lambda: now[0])
    publisher.changed()
    assert not (tmp_path / "report.html").exists()  # without a picture there is nothing to see
    picture = Picture(tag="filters/0", image=b"\x89PNG", width=1, height=1, description="**First**")
    own.views[0] = Result()
    own.views[0].picture(picture, 0)
    publisher.changed()
    assert (tmp_path / "report.html").read_text().count("data:image/png") == 1


def test_a_plan_is_no_part_of_a_report_in_which_nothing_is_shortened():
    assert "Shortened" not in report([ModelReport("net", plan=Plan({"a": Extent({"x": 1}, {"x": 1}, 3.0, 3.0)}))])


def test_settings_are_handed_to_the_technique():
    study = ModelUnderStudy("net", net(), Samples(*images(4), 4), PixelSpace())
    assert run_technique(FAKES["measure"], study, {"steps": 7}).numbers["measure"] == {"steps": 7}
