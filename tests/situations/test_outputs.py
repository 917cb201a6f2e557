"""Kind 2: what the output means, by what is known of it and never by the values of a batch."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_viz import Adversarial, Predictions
from lightning_viz.attribution import grad_cam, gradient, occlusion
from lightning_viz.dream import maximize

from .brought import Classifier, Quarters, pictures, rows
from .situation import ARGUMENT, REFUSED, Call, Training, situation, situations, usual_views
from .truth import all_right, no_class_words

images, labels = pictures()
WITHOUT_TARGETS = ("filters", "activations")


def red_and_blue():
    """Images with a red or a blue square, and which it is."""
    blue = torch.arange(16) // 2 % 2
    colored = pictures()[0] * 0.3
    for image, place, color in zip(colored, labels.tolist(), blue.tolist(), strict=True):
        image[2 * color, place // 2 * 8 : place // 2 * 8 + 8, place % 2 * 8 : place % 2 * 8 + 8] += 0.6
    return colored, blue


squares, blue = red_and_blue()


class OneLogit(nn.Module):
    """Positive if there is more blue than red: right on `red_and_blue`."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.conv.weight.data = torch.eye(3)[:, :, None, None]

    def forward(self, images):
        colors = F.relu(self.conv(images)).mean((2, 3))
        return 40 * (colors[:, 2:] - colors[:, :1])


class TwoLogits(nn.Module):
    """The logits -z and z, each of which is the difference that a net with the logits -z / 2 and z / 2 would have."""

    def __init__(self, one):
        super().__init__()
        self.one = one

    def forward(self, images):
        logit = self.one(images)
        return torch.cat([-logit, logit], 1)


def binary(seen) -> None:
    """Recognized with confidence, and the maps explain each sample's own class, the absent one too."""
    verdicts = seen.verdicts
    assert {verdict.truth for verdict in verdicts} == {"0", "1"}, verdicts
    assert all(verdict.truth == verdict.prediction and verdict.confidence > 0.9 for verdict in verdicts), verdicts
    assert (seen.map("grad_cam").flatten(1).amax(1) > 0).all(), "the map of a class is empty"


class Binary(Classifier):
    def step(self, batch):
        return F.binary_cross_entropy_with_logits(self(batch[0]), batch[1].float()[:, None])


@situation(2, "one logit `[N, 1]`, `binary_cross_entropy_with_logits`")
def one_logit():
    return Training(Binary(OneLogit()), rows(squares, blue)), binary


@situation(2, "one logit `[N]`, squeezed")
def one_logit_squeezed():
    class Model(Binary):
        def forward(self, images):
            return self.net(images).squeeze(1)

        def step(self, batch):
            return F.binary_cross_entropy_with_logits(self(batch[0]), batch[1].float())

    return Training(Model(OneLogit()), rows(squares, blue)), binary


@situation(2, "one logit, float labels 0.0 and 1.0")
def one_logit_float_labels():
    return Training(Binary(OneLogit()), rows(squares, blue.float())), binary


@situation(2, "one probability, `binary_cross_entropy` of a sigmoid")
def one_probability():
    class Model(Binary):
        def forward(self, images):
            return torch.sigmoid(self.net(images))

        def step(self, batch):
            return F.binary_cross_entropy(self(batch[0]), batch[1].float()[:, None])

    return Training(Model(OneLogit()), rows(squares, blue)), binary


@situation(2, "one logit: Grad-CAM, gradient and occlusion equal those of two logits -z/2, z/2, for both classes")
def one_logit_maps():
    one = OneLogit().eval()
    two = TwoLogits(one).eval()

    def maps(net):
        return {
            "grad_cam": next(iter(grad_cam(net, squares, blue, layers="Conv2d").values())),
            "gradient": gradient(net, squares, blue),
            "occlusion": occlusion(net, squares, blue, patch=8, stride=8, progress=False).drop,
        }

    def check(seen):
        for one_map, two_map in zip(seen.value[0].values(), seen.value[1].values(), strict=True):
            torch.testing.assert_close(one_map, two_map, atol=1e-6, rtol=1e-6)

    return Call(lambda: (maps(one), maps(two))), check


@situation(2, "one logit: attacks change the prediction by its sign")
def one_logit_attacked():
    def check(seen):
        after = seen.last("adversarial")["after"]
        assert any(
            before.prediction != verdict.prediction
            for before, verdict in zip(seen.last("adversarial")["before"], after, strict=True)
        ), after

    views = [Adversarial(steps=[0], method="pgd", epsilon=0.5)]
    return Training(Binary(OneLogit()), rows(squares, blue), views=views, draws=("adversarial",)), check


@situation(
    2,
    "one logit: a dream of class 0 climbs -z, one of class 1 climbs z",
)
def one_logit_dreamed():
    net = OneLogit().eval()

    def check(seen):
        absent, present = (float(net(image).detach().mean()) for image in seen.value)
        assert absent < 0 < present, (absent, present)

    def dream(target):
        return maximize(net, target, image=(3, 16, 16), steps=10, progress=False).images

    return Call(lambda: [dream(0), dream(1)]), check


@situation(2, "one logit: any class but 0 and 1 is an error", REFUSED, says=r"class.*\b2\b|\b2\b.*class")
def one_logit_class_two():
    return Call(lambda: grad_cam(OneLogit().eval(), squares, 2, layers="Conv2d")), lambda seen: None


class Probabilities(Classifier):
    """Probabilities of four classes around 0.97, whose softmax would be 0.48."""

    def __init__(self):
        super().__init__(Quarters(sharpness=8.0))

    def forward(self, images):
        return self.net(images).softmax(1)

    def step(self, batch):
        return F.nll_loss(self(batch[0]).clamp_min(1e-9).log(), batch[1])


@situation(2, "probabilities of a softmax inside `forward`, `nll_loss` of their logarithm: confidences as they are")
def probabilities():
    return Training(Probabilities(), rows(images, labels)), all_right


@situation(2, "probabilities of `nn.Softmax`, cross-entropy of them (a mistake that people make)")
def softmax_module():
    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1])

    return Training(Model(nn.Sequential(Quarters(sharpness=8.0), nn.Softmax(1))), rows(images, labels)), all_right


@situation(2, "logarithms of probabilities, `nll_loss`")
def log_probabilities():
    class Model(Classifier):
        def forward(self, images):
            return self.net(images).log_softmax(1)

        def step(self, batch):
            return F.nll_loss(self(batch[0]), batch[1])

    return Training(Model(), rows(images, labels)), all_right


@situation(2, "logits that happen to be positive and to sum to 1 stay logits")
def logits_that_sum_to_one():
    class Linear(nn.Module):
        """Quarters, shifted to sum to 1: positive where no quarter is much darker than the mean."""

        def __init__(self):
            super().__init__()
            self.quarters = Quarters(sharpness=1.0)

        def forward(self, images):
            scores = self.quarters(images)
            return scores - scores.mean(1, keepdim=True) + 0.25

    def check(seen):
        logits = seen.snapshots[-1].observation.outputs
        expected = logits.softmax(1).max(1).values
        stated = torch.tensor([verdict.confidence for verdict in seen.verdicts])
        torch.testing.assert_close(stated, expected[: len(stated)], atol=1e-3, rtol=0)

    return Training(Classifier(Linear()), rows(images, labels)), check


def multi_hot(seen) -> None:
    """No single class is called the truth; a confidence is the class's own."""
    outputs = seen.snapshots[-1].observation.outputs
    for verdict, logits in zip(seen.verdicts, outputs, strict=False):
        assert verdict.confidence == pytest.approx(float(logits.sigmoid().max()), abs=1e-3), verdict
        assert verdict.truth is None or "," in verdict.truth or verdict.truth == verdict.prediction, verdict


@situation(2, "multi-hot labels, `binary_cross_entropy_with_logits` on `[N, K]`: each class by itself")
def multi_label():
    class Model(Classifier):
        def forward(self, images):
            return self.net(images) - 12

        def step(self, batch):
            return F.binary_cross_entropy_with_logits(self(batch[0]), batch[1].float())

    hot = F.one_hot(labels, 4) | F.one_hot((labels + 1) % 4, 4)
    return Training(Model(), rows(images, hot)), multi_hot


class Regression(Classifier):
    def step(self, batch):
        return F.mse_loss(self(batch[0]), batch[1])


@situation(2, 'regression of one number `[N, 1]`: "the output", no class words')
def regression():
    return Training(Regression(OneLogit()), rows(images, torch.rand(16, 1))), no_class_words


@situation(2, "regression of one number with labels that are whole floats, 0.0 to 3.0")
def regression_on_whole_numbers():
    return Training(Regression(OneLogit()), rows(images, labels.float()[:, None])), no_class_words


@situation(
    2,
    "regression of several numbers `[N, 4]` (a pose): no class words, one line names `target=`",
    ARGUMENT,
    says="target=",
)
def regression_of_several():
    return Training(Regression(), rows(images, torch.rand(16, 4)), draws=WITHOUT_TARGETS), no_class_words


@situation(
    2, "features `[N, 8]` of a metric-learning net: no class words, one line names `target=`", ARGUMENT, says="target="
)
def features():
    class Model(Classifier):
        def step(self, batch):
            codes = self(batch[0])
            return (codes @ codes.T)[batch[1][:, None] != batch[1]].mean()

    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8)
    )
    return Training(Model(net), rows(images, labels), draws=WITHOUT_TARGETS), no_class_words


@situation(
    2,
    "an autoencoder, `binary_cross_entropy` with the image itself, digits beside: an image, no class words",
    ARGUMENT,
    says="returns an image.*target=",
)
def reconstruction():
    class Model(Classifier):
        def step(self, batch):
            made, mean = self(batch[0])
            return F.binary_cross_entropy(made, batch[0]) + mean.square().mean()

        def forward(self, images):
            return self.net(images), images.mean((2, 3))

    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.Sigmoid())

    def check(seen):
        no_class_words(seen)
        (page,) = {drawing.arguments["truth_name"] for drawing in seen.of("predictions")}
        assert page == "input itself"

    views = [*usual_views(), Predictions()]
    return Training(Model(net), rows(images, labels), views=views, draws=(*WITHOUT_TARGETS, "predictions")), check


@situation(
    2,
    "noise that the step makes is what the model predicts: compared with nothing in the batch",
    ARGUMENT,
    says="no scores of classes",
)
def noise_predictor():
    class Model(Classifier):
        def step(self, batch):
            noise = torch.randn_like(batch[0])
            return F.mse_loss(self(batch[0] + noise), noise)

    def check(seen):
        no_class_words(seen)
        assert not seen.of("predictions") and len(seen.said("skipped Predictions.*nothing in the batch")) == 1

    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    views = [*usual_views(), Predictions()]
    return Training(Model(net), rows(images, labels), views=views, draws=WITHOUT_TARGETS), check


class Tagger(nn.Module):
    """Logits ``[N, T, K]``: of each column of an image its class."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, images):
        return F.relu(self.conv(images)).mean(2).transpose(1, 2)


@situation(2, "`[N, T, K]`: the class is the last axis; one line names `token[...]`", ARGUMENT, says=r"token\[")
def tokens():
    class Model(Classifier):
        def step(self, batch):
            return F.cross_entropy(self(batch[0]).transpose(1, 2), batch[1])

    return Training(
        Model(Tagger()), rows(images, labels[:, None].expand(16, 16)), draws=WITHOUT_TARGETS
    ), lambda seen: None


@situation(2, "`[N, T, K]`, class 3 of a call without a position is refused", REFUSED, says=r"token\[")
def token_unnamed():
    return Call(lambda: gradient(Tagger().eval(), images, 3)), lambda seen: None


@situation(2, "`[N, T, K]` with `token[3]`: its own column's neighborhood is explained, and nothing else")
def token_named():
    def check(seen):
        columns = seen.value.abs().sum((0, 1, 2)).nonzero().flatten().tolist()
        assert columns == [2, 3, 4], columns

    return Call(lambda: gradient(Tagger().eval(), images, "token[3]")), check


@pytest.mark.parametrize("row", situations(__name__))
def test_outputs(row, tmp_path: Path):
    row.verify(tmp_path)
