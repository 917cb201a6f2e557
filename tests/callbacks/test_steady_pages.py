"""Pages do not move under TensorBoard's slider, and captions say when a scale is another than before."""

import re

import numpy as np
import pytest
import torch

from lightning_viz import (
    ActivationMaps,
    ActivationStatistics,
    Adversarial,
    FirstLayerFilters,
    GradCAM,
    Hyperplanes,
    Occlusion,
    Probe,
    Saliency,
)
from lightning_viz.callbacks.fixed_scale import FixedScale, fixed_scale
from lightning_viz.render.page import lay_out
from lightning_viz.render.parts import Text

from .conftest import ConvNet, Perceptron, fit, images, loader, plane

MEASURES = ("width", "height", "size", "gap", "left", "top", "sample", "layer", "channel", "row", "column")


def places(page):
    """All that says where on a page its parts lie: their kinds in order, sizes, gaps, and how many lines they have."""
    parts = []
    for part in page.body.walk():
        measures = tuple(getattr(part, name, None) for name in MEASURES)
        parts.append((type(part).__name__, *measures, len(part.lines) if isinstance(part, Text) else 0))
    picture = lay_out(page)
    return parts, (picture.width, picture.height)


class Growing(ConvNet):
    """Whose weights are multiplied after the third update: its scales no longer hold."""

    times = 9.0

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.trainer.global_step == 3:
            with torch.no_grad():
                self.conv1.weight.mul_(self.times)


class Named(torch.utils.data.TensorDataset):
    classes = ("a", "an Egyptian cat", "dog")


def gray():
    return torch.utils.data.TensorDataset(*images())


def color():
    return Named(*images(channels=3))


def wide():
    return torch.utils.data.TensorDataset(*images(height=8, width=20))


def fixed_views():
    often = {"every_n_train_steps": 1}
    return [
        FirstLayerFilters(**often),
        ActivationMaps(**often),
        GradCAM(sanity_check=True, **often),
        GradCAM(target="top:2", **often),
        Saliency(**often),
        Saliency(method="input_times_gradient", **often),
        Adversarial(attack_steps=2, **often),
    ]


@pytest.mark.parametrize("data", [gray, color, wide])
def test_a_page_of_fixed_samples_is_laid_out_alike_at_every_step(data, tmp_path, drawn_at_once):
    samples = data()
    model = Growing(channels=samples[0][0].shape[0])
    fit(tmp_path, model, fixed_views(), torch.utils.data.DataLoader(samples, 4))
    tags = {sketch.sketch.arguments["tag"] for sketch in drawn_at_once}
    assert len(tags) == 8
    for tag in tags:
        pages = drawn_at_once.pages(tag)
        assert sorted(pages) == [0, 1, 2, 3, 4, 5, 6]
        first = places(pages[0])
        for step, page in pages.items():
            assert places(page) == first, (tag, step)
            assert lay_out(page).explanation == lay_out(pages[0]).explanation, (tag, step)


def red(page):
    return [note for note in page.notes if "scale" in note]


@pytest.mark.parametrize(
    ("view", "tag"),
    [
        (FirstLayerFilters(every_n_train_steps=1), "filters/conv1"),
        (ActivationMaps(layers="conv1", every_n_train_steps=1), "activations/conv1"),
    ],
)
def test_a_scale_that_changed_is_told_in_red_once_and_the_first_looks_scale_is_not_claimed(
    view, tag, tmp_path, drawn_at_once
):
    fit(tmp_path, Growing(), [view])
    pages, looks = drawn_at_once.pages(tag), drawn_at_once.arguments(tag)
    scales = {step: np.max(looks[step].get("limits", looks[step].get("limit"))) for step in pages}
    assert scales[3] >= 8 * scales[2]
    for step, page in sorted(pages.items()):
        changed = step > 0 and scales[step] != scales[step - 1]
        (told,) = red(page) or [""]
        assert changed == told.startswith("display scale ") and changed == (f"wider than at step {step - 1}" in told)
        as_at_first = scales[step] == scales[0]
        assert ("percentile at step 0" in page.description) == as_at_first, step
        assert ("since step" in page.description) == (not as_at_first), step


def test_the_size_of_weights_stands_beside_the_scale_which_is_not_it(tmp_path, drawn_at_once):
    """A display scale four times wider was read as weights four times larger."""
    norms = []

    class Measured(Growing):
        def on_train_batch_start(self, batch, batch_idx):
            norms.append(f"{float(self.conv1.weight.detach().norm()):.3g}")

    fit(tmp_path, Measured(), [FirstLayerFilters(every_n_train_steps=1)])
    for step, page in drawn_at_once.pages("filters/conv1").items():
        if step < len(norms):
            assert f"weights' norm {norms[step]}, at step 0 it was {norms[0]}" in page.description
            assert "times that of" not in page.description


def test_each_channel_widens_its_own_scale(tmp_path, drawn_at_once):
    class OneGrows(Growing):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if self.trainer.global_step == 3:
                with torch.no_grad():
                    self.conv1.weight[2].mul_(self.times)

    fit(tmp_path, OneGrows(), [ActivationMaps(layers="conv1", channels=[0, 2], every_n_train_steps=1)])
    before, after = (np.max(drawn_at_once.arguments("activations/conv1")[step]["limits"], axis=1) for step in (2, 3))
    assert after[0] == before[0] and after[1] >= 4 * before[1]
    page = drawn_at_once.pages("activations/conv1")[3]
    assert (
        red(page) == ["display scale wider than at step 2 in ch 2"]
        and "1 of them wider since step 3" in page.description
    )


def test_statistics_tell_of_a_wider_axis_in_red_once(tmp_path, drawn_at_once):
    view = ActivationStatistics(layers=["conv1", "fc"], every_n_epochs=1)
    trainer_options = {"max_epochs": 3, "check_val_every_n_epoch": 1}

    class Later(Growing):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if self.trainer.global_step == 8:
                with torch.no_grad():
                    self.conv1.weight.mul_(self.times)

    fit(tmp_path, Later(), [view], loader(*images()), **trainer_options)
    pictures = drawn_at_once.pictures("statistics/conv1")
    assert sorted(pictures) == [6, 12, 18]
    told = [
        re.search("wider (since step 12|than at step 6)", pictures[step].description) is not None
        for step in (6, 12, 18)
    ]
    assert told == [False, True, True]
    assert ["⚠ display scale" in pictures[step].description for step in (6, 12, 18)] == [False, True, False]
    axes = {step: arguments["limits"] for step, arguments in drawn_at_once.arguments("statistics/fc").items()}
    conv = {step: arguments["limits"] for step, arguments in drawn_at_once.arguments("statistics/conv1").items()}
    ratios = [np.divide(conv[step], axes[step]).tolist() for step in axes]
    assert all(pair[0] == pytest.approx(pair[1]) and np.log10(pair[0]) % 1 == pytest.approx(0) for pair in ratios)


def test_a_scale_told_again_at_the_same_step_is_told_alike():
    """As a checkpoint's view is replayed at the step at which it was saved."""
    first = fixed_scale(np.linspace(0, 1, 101), 0, None)
    wide = fixed_scale(np.linspace(0, 10, 101), 38, first.state)
    again = fixed_scale(np.linspace(0, 10, 101), 38, wide.state)
    assert again == wide and again.warnings == ("display scale 16 times wider than at step 0",)


@pytest.mark.parametrize(
    ("before", "after", "limits", "words"),
    [
        ([0, 0, 0], [0, 1, 2], (0, 2), "1st to 99th percentile at step 5"),  # the first scale was still to come
        ([0, 1, 2], [-2, 0, 2], (-2, 2), "wider since step 5"),
        ([-1, 0, 1], [-1, 0, np.nan], (-1, 1), "1st to 99th percentile at step 0"),  # of few values none is left out
        ([1, 2, np.inf], [np.nan] * 3, (0, 2), "1st to 99th percentile at step 0"),
        ([0] * 999 + [3], [0] * 100, (0, 3), "largest value at step 0"),
        (range(101), range(101), (0, 99), "1st to 99th percentile at step 0"),
    ],
)
def test_scales_of_few_or_strange_values(before, after, limits, words):
    first = fixed_scale(np.array(before, dtype=float), 0, None)
    later = fixed_scale(np.array(after, dtype=float), 5, first.state)
    assert (later.limits, later.words) == (pytest.approx(limits), words)
    assert later.warnings == (("display scale 2 times wider than at step 0",) if words.startswith("wider") else ())
    assert FixedScale.of_state(later.state) == later


def test_a_page_of_the_plane_is_laid_out_alike_at_every_step(tmp_path, drawn_at_once):
    views = [Hyperplanes(deeper=True, steps=[0, 2, 6], animation=False)]
    fit(tmp_path, Perceptron(), views, loader(*plane(24)))
    for tag in ("hyperplanes/hidden", "hyperplanes/deeper"):
        pages = drawn_at_once.pages(tag)
        assert len(pages) == 3 and all(places(page) == places(pages[0]) for page in pages.values())


def test_a_page_of_occlusion_is_laid_out_alike_at_every_step(tmp_path, drawn_at_once):
    x, y = images(6)
    views = [Occlusion(patch=4, stride=2, every_n_train_steps=3, probe=Probe(inputs=x, labels=y, samples=6))]
    fit(tmp_path, Growing(), views)
    pages = drawn_at_once.pages("occlusion")
    assert len(pages) == 3 and all(places(page) == places(pages[0]) for page in pages.values())


class Learned(ConvNet):
    """Knows the classes, which the first pixel tells, but for those of some samples."""

    def __init__(self, wrong):
        super().__init__()
        self.wrong = wrong

    def forward(self, x):
        number = (x[:, 0, 0, 0] * 100).round().long()
        said = (number + torch.isin(number, torch.tensor(self.wrong, dtype=torch.long)).long()) % 3
        return super().forward(x) * 1e-3 + 5 * torch.nn.functional.one_hot(said, 3)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ([], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([3, 5, 7, 9, 10], [3, 5, 7, 9, 0, 1, 2, 4]),  # on half of the places
        (list(range(2, 12)), [0, 1, 2, 3, 4, 5, 6, 7]),  # it has not learned
    ],
)
def test_mistakes_of_a_network_that_learned_stand_first_and_stay(wrong, expected, tmp_path, drawn_at_once):
    x, _ = images(12)
    x[:, 0, 0, 0] = torch.arange(12) / 100
    probe = Probe(inputs=x, labels=torch.arange(12) % 3, samples=12)
    views = [view(probe=probe, every_n_train_steps=3) for view in (GradCAM, Saliency)]
    fit(tmp_path, Learned(wrong), views)
    for tag in ("grad_cam/conv2", "saliency/gradient"):
        for look in drawn_at_once.arguments(tag).values():
            assert (look["images"][:, 0, 0, 0] / 2.55).round().astype(int).tolist() == expected
            assert [verdict.mistaken for verdict in look["verdicts"]] == [index in wrong for index in expected]
    assert views[0].state["shown"] == expected
