"""The target: one scalar per sample."""

import numpy as np
import pytest
import torch

from lightning_viz.hooks.target import class_scores, classes, target_scores, top

LOGITS = torch.tensor([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]])


@pytest.mark.parametrize(
    ("target", "scores", "classes"),
    [
        (None, [5, 7], [1, 0]),
        (2, [2, 3], [2, 2]),
        ([0, 2], [1, 3], [0, 2]),
        ((1, 1), [5, 0], [1, 1]),
        (torch.tensor([2, 1]), [2, 0], [2, 1]),
        (torch.tensor([[2], [1]]), [[2, 3], [5, 0]], [[2, 2], [1, 1]]),
        (torch.tensor([[2, 0], [1, 2]]), [[2, 7], [5, 3]], [[2, 0], [1, 2]]),
        (classes(2, 1), [[2, 3], [5, 0]], [[2, 2], [1, 1]]),
        (top(2), [[5, 7], [2, 3]], [[1, 0], [2, 2]]),
        (torch.tensor(1), [5, 0], [1, 1]),
        (torch.tensor([1, 0], dtype=torch.int32), [5, 7], [1, 0]),
        (np.array([1, 0]), [5, 7], [1, 0]),
        (np.int64(2), [2, 3], [2, 2]),
    ],
)
def test_a_class_for_all_or_one_each_or_the_predicted(target, scores, classes):
    found, chosen = target_scores(LOGITS, target)
    assert found.tolist() == scores
    assert chosen.tolist() == classes


def test_a_function_of_the_output_explains_what_it_returns():
    scores, chosen = target_scores({"logits": LOGITS}, lambda output: output["logits"][:, 0] - output["logits"][:, 1])
    assert scores.tolist() == [-4, 7]
    assert chosen is None
    summed, _ = target_scores(LOGITS, lambda output: output[:, :2])  # more than one scalar per sample: their sum
    assert summed.tolist() == [6, 7]


def test_scores_are_summed_over_positions():
    dense = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2)
    assert torch.equal(class_scores((None, dense)), dense.sum((2, 3)))
    assert torch.equal(class_scores({"out": dense[..., 0]}), dense[..., 0].sum(2))


def test_one_output_takes_any_label():
    regression = torch.tensor([0.5, -2.0])
    scores, chosen = target_scores(regression, torch.tensor([1, 0]))
    assert (scores.tolist(), chosen.tolist()) == ([0.5, -2.0], [0, 0])
    scores, chosen = target_scores(regression[:, None], [1, 0])
    assert (scores.tolist(), chosen.tolist()) == ([0.5, -2.0], [0, 0])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, r"target class \[3, 3\] is out of range: the model has 3 outputs"),
        ([0, -1], r"target class \[0, -1\] is out of range: the model has 3 outputs"),
        ([0, 1, 2], "3 targets for 2 samples: give one target class, one per sample"),
        ([0], "1 targets for 2 samples: give one target class, one per sample"),
    ],
)
def test_a_target_that_cannot_be_meant_is_an_error(target, message):
    with pytest.raises(ValueError, match=message):
        target_scores(LOGITS, target)


@pytest.mark.parametrize("outputs", [torch.tensor(1.0), torch.tensor([1, 2]), {"loss": None}, "text", None])
def test_an_output_without_scores_is_an_error_that_says_what_to_give(outputs):
    with pytest.raises(
        TypeError, match=f"the model returned {type(outputs).__name__} without .* as target, or forward="
    ):
        target_scores(outputs, 0)
