"""What a model's output means: which tensor is the scores, of what, and whether they are probabilities."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_viz.errors import OutputError, TargetError
from lightning_viz.hooks import Activations, as_target, observe
from lightning_viz.hooks.outputs import (
    OutputKnowledge,
    OutputMeaning,
    class_logits,
    class_probabilities,
    interpret,
    keep_knowledge,
    known_labels,
    scores_path,
)

ROWS, OTHER, MAPS, LOSS = torch.rand(4, 3), torch.rand(4, 7), torch.rand(4, 3, 5, 5), torch.tensor(0.5)


class Named(NamedTuple):
    """With the logits behind."""

    aux_logits: Tensor
    logits: Tensor


@pytest.mark.parametrize(
    ("outputs", "path"),
    [
        (ROWS, ()),
        ({"features": OTHER, "logits": ROWS}, ("logits",)),
        ({"aux": -MAPS, "out": MAPS}, ("out",)),
        ({"out": MAPS, "logits": ROWS}, ("logits",)),
        (Named(OTHER, ROWS), (1,)),
        ((LOSS, ROWS), (1,)),
        ({"loss": LOSS, "ids": torch.arange(4), "scores": ROWS}, ("scores",)),
        ([{"boxes": torch.rand(4, 2, 4), "nested": (None, MAPS)}], (0, "nested", 1)),
    ],
)
def test_the_scores_are_found_by_name_or_are_the_only_candidate(outputs, path):
    assert scores_path(outputs) == path


@pytest.mark.parametrize("outputs", [(OTHER, ROWS), {"image": MAPS, "mean": ROWS}])
def test_several_candidates_are_an_error_that_lists_them(outputs):
    with pytest.raises(OutputError, match=r"\[4, 3\].*forward="):
        scores_path(outputs)


def test_the_tensor_that_the_loss_was_given_is_meant_unless_it_is_a_regression():
    assert scores_path((OTHER, ROWS), OutputKnowledge(loss="cross_entropy", field=(1,))) == (1,)
    with pytest.raises(OutputError):
        scores_path((OTHER, ROWS), OutputKnowledge(loss="mse_loss", field=(1,)))


@pytest.mark.parametrize(
    ("outputs", "knowledge", "kind"),
    [
        (ROWS, {"loss": "cross_entropy"}, "classifier"),
        (ROWS, {"labels": "classes"}, "classifier"),
        (ROWS, {"named": True}, "classifier"),
        (ROWS, {}, "scores"),
        (ROWS, {"loss": "binary_cross_entropy_with_logits"}, "multi-label"),
        (ROWS, {"labels": "several"}, "multi-label"),
        (ROWS, {"loss": "mse_loss", "labels": "numbers"}, "features"),
        (ROWS, {"loss": "mse_loss", "labels": "classes"}, "classifier"),
        (ROWS, {"labels": "pairs"}, "features"),
        (ROWS, {"loss": "cross_entropy", "direct": False}, "features"),
        (ROWS, {"loss": "triplet_margin_loss", "labels": "classes"}, "features"),
        (ROWS[:, :1], {"loss": "binary_cross_entropy_with_logits"}, "binary"),
        (ROWS[:, 0], {"labels": "binary"}, "binary"),
        (ROWS[:, 0], {"labels": "binary", "loss": "mse_loss"}, "regression"),
        (ROWS[:, :1], {"labels": "numbers"}, "regression"),
        (ROWS[:, :1], {"labels": "classes"}, "regression"),
        (ROWS[:, None], {"loss": "cross_entropy"}, "tokens"),
        (MAPS, {"loss": "cross_entropy"}, "dense"),
        (MAPS, {"labels": "masks"}, "dense"),
        (MAPS, {"loss": "mse_loss", "labels": "classes"}, "images"),
    ],
)
def test_the_kind_is_told_by_what_is_known(outputs, knowledge, kind):
    model = nn.Identity()
    keep_knowledge(model, OutputKnowledge(**knowledge))
    assert interpret(model, outputs).kind == kind


class Squashed(nn.Module):
    """Ends in a function of logits."""

    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(5, 3), function

    def forward(self, x):
        return self.function(self.fc(x))


@pytest.mark.parametrize(
    ("function", "squashed"),
    [
        (lambda z: z.softmax(1), "softmax"),
        (lambda z: nn.Softmax(1)(z), "softmax"),
        (lambda z: torch.sigmoid(z)[:, 0], "sigmoid"),
        (lambda z: F.sigmoid(z).squeeze().unsqueeze(-1)[..., 0], "sigmoid"),
        (lambda z: z, ""),
        (lambda z: z * z.softmax(1), ""),
        (lambda z: z.log_softmax(1), ""),
        (lambda z: z - z.mean(1, keepdim=True) + 1 / 3, ""),  # sums to 1 as well
    ],
)
@pytest.mark.parametrize("gradients", [True, False])
def test_probabilities_are_seen_by_where_they_come_from(function, squashed, gradients):
    seen = observe(
        Squashed(function), torch.rand(4, 5), lambda outputs: outputs.reshape(4, -1).sum(1), input_gradient=gradients
    )
    assert seen.meaning.squashed == squashed


def test_probabilities_are_seen_behind_a_clamp_by_the_graph():
    clamped = Squashed(lambda z: z.softmax(1).clamp(1e-6, 1))
    assert observe(clamped, torch.rand(4, 5), 0, input_gradient=True).meaning.squashed == "softmax"


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*")
def test_a_traced_model_is_told_by_its_rows():
    model = torch.jit.trace(Squashed(lambda z: z.softmax(1)).eval(), torch.rand(4, 5))
    assert observe(model, torch.rand(4, 5)).meaning.squashed == "softmax"


Z = torch.tensor([[-3.0], [0.5], [2.0]])


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize(("kind", "named"), [("binary", True), ("scores", False)])
def test_one_logit_is_signed_by_the_class(shape, kind, named):
    activations = Activations({}, Z.view(shape), meaning=OutputMeaning(kind))
    scores = as_target([0, 1, 0]).scores(activations)
    assert scores.values.tolist() == [3.0, 0.5, -2.0]
    predicted = as_target(None).scores(activations)
    if named:
        assert (predicted.values.tolist(), predicted.classes.tolist()) == ([3.0, 0.5, 2.0], [0, 1, 1])
    else:
        assert (predicted.values.tolist(), predicted.classes) == (Z[:, 0].tolist(), None)
    with pytest.raises(TargetError, match="class 2"):
        as_target(2).scores(activations)


def test_one_probability_is_p_and_1_minus_p():
    share = Z.sigmoid()
    activations = Activations({}, share, meaning=OutputMeaning("binary", squashed="sigmoid"))
    torch.testing.assert_close(as_target(0).scores(activations).values, 1 - share[:, 0])
    assert as_target(None).scores(activations).classes.tolist() == [0, 1, 1]


def test_the_softmax_of_the_logits_is_the_probability_whatever_the_scores_are():
    two = torch.cat([-Z, Z], 1).div(2).softmax(1)
    for scores, meaning in [
        (Z, OutputMeaning("binary")),
        (Z.sigmoid(), OutputMeaning("binary", squashed="sigmoid")),
        (two, OutputMeaning("classifier", squashed="softmax")),
    ]:
        torch.testing.assert_close(class_probabilities(scores, meaning), two)
        torch.testing.assert_close(class_logits(scores, meaning).softmax(1), two)
    each = class_probabilities(ROWS, OutputMeaning("multi-label"))
    assert torch.equal(each, ROWS.sigmoid())


@pytest.mark.parametrize("kind", ["features", "images"])
def test_what_is_no_classifier_needs_a_name(kind):
    activations = Activations({}, ROWS if kind == "features" else MAPS, meaning=OutputMeaning(kind))
    with pytest.raises(TargetError, match="target="):
        as_target(None).scores(activations)
    assert as_target(2).scores(activations).values.shape == (4,)


def test_labels_that_name_no_class_give_way_to_the_prediction():
    activations = Activations({}, ROWS, meaning=OutputMeaning("classifier"))
    labels = torch.tensor([0, -1, 255, 1])
    chosen = as_target("label").bind(labels).scores(activations).classes
    assert chosen.tolist() == [0, int(ROWS[1].argmax()), int(ROWS[2].argmax()), 1]
    assert known_labels(torch.tensor([1, 2, 3]), 3).tolist() == [-1, -1, -1]
    assert known_labels(torch.tensor([0, 2, 3]), 3).tolist() == [0, 2, -1]


def test_a_token_is_named():
    sequence = torch.rand(2, 4, 3)
    activations = Activations({}, sequence)
    assert torch.equal(as_target("token[2,1]").scores(activations).values, sequence[:, 2, 1])
    assert torch.equal(as_target("token[2]").scores(activations).values, sequence[:, 2].amax(1))
    for target in (None, 1, "token[4]"):
        with pytest.raises(TargetError, match=r"token\["):
            as_target(target).scores(activations)
