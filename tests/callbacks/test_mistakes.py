"""What a classifier gets wrong is found in the whole of the validation data, with what it looked at."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_viz import Mistakes, default_views
from lightning_viz.callbacks.changed_samples import new_among
from lightning_viz.errors import ViewError
from lightning_viz.render.mistakes import confusion_table, worst_samples
from lightning_viz.render.parts import Bar, Cell, MapTile, Text, Tile
from lightning_viz.render.tiles import Verdict

from .conftest import ConvNet, Net, Perceptron, fit, images, loader, make_trainer


class Fixed(Net):
    """Keeps its weights."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Digits(Fixed):
    """A logistic regression that has learned the first 900 digits."""

    def __init__(self, x, y):
        super().__init__()
        known = LogisticRegression(max_iter=60).fit(x[:900].flatten(1).numpy(), y[:900].numpy())
        self.flat, self.fc = nn.Flatten(), nn.Linear(64, 10)
        self.fc.weight.data, self.fc.bias.data = (
            torch.tensor(a, dtype=torch.float32) for a in (known.coef_, known.intercept_)
        )

    def forward(self, x):
        return self.fc(self.flat(x))


@pytest.fixture(scope="module")
def digits():
    digits = load_digits()
    return torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)


@pytest.mark.filterwarnings("ignore:.*lbfgs.*", "ignore:.*max_iter.*", "ignore::sklearn.exceptions.ConvergenceWarning")
def test_mislabeled_samples_are_among_the_worst(digits, tmp_path, drawn_at_once):
    x, y = digits
    model, (x, y) = Digits(x, y), (x[900:1200], y[900:1200].clone())
    sure = model(x).softmax(1).max(1).values.argsort(descending=True)
    flipped = sure[model(x).argmax(1)[sure] == y[sure]][:5].tolist()
    y[flipped] = (y[flipped] + 5) % 10
    fit(tmp_path, model, [Mistakes()], loader(x[:8], y[:8]), loader(x, y, batch_size=64))
    (page,) = drawn_at_once.arguments("mistakes/worst").values()
    shown = [
        int(((x[:, 0] * 255).round() == torch.tensor(image[..., 0])).all((1, 2)).nonzero()[0])
        for image in page["images"]
    ]
    losses = F.cross_entropy(model(x), y, reduction="none")
    assert shown == losses.argsort(descending=True)[:8].tolist() and set(flipped) <= set(shown)
    answers = model(x).softmax(1)
    for index, verdict in zip(shown, page["verdicts"], strict=True):
        assert (verdict.truth, verdict.prediction) == (str(int(y[index])), str(int(answers[index].argmax())))
        assert verdict.confidence == pytest.approx(float(answers[index].max().detach()), abs=1e-5)
    assert (page["wrong"], page["samples"]) == (int((answers.argmax(1) != y).sum()), 300)
    (table,) = drawn_at_once.arguments("mistakes/confusion").values()
    expected = np.zeros((10, 10), dtype=int)
    np.add.at(expected, (y.numpy(), answers.argmax(1).numpy()), 1)
    assert np.array_equal(table["counts"], expected)


class Shortcut(Fixed):
    """Takes a very bright pixel, wherever it is, for class 2, and else knows the classes by brightness."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 1), nn.Linear(2, 3)
        self.conv.weight.data = torch.ones(2, 1, 1, 1)
        self.conv.bias.data = torch.tensor([-0.9, 0.0])
        self.fc.weight.data = torch.tensor([[0.0, -50.0], [0.0, 50.0], [9000.0, 0.0]])
        self.fc.bias.data = torch.tensor([20.0, -20.0, 0.0])

    def forward(self, x):
        return self.fc(F.relu(self.conv(x)).mean((2, 3)))


def test_a_shortcut_in_the_corner_is_seen(tmp_path, drawn_at_once):
    x, _ = images(40)
    y = torch.arange(40) % 2
    x = x * 0.2 + 0.3 + 0.2 * (y[:, None, None, None] - 0.5)
    marked = [5, 12, 23, 30]
    x[marked, 0, 0, 0] = 1.0
    fit(tmp_path, Shortcut(), [Mistakes()], loader(x[:8], y[:8]), loader(x, y))
    (page,) = drawn_at_once.pages("mistakes/worst").values()
    look = next(iter(drawn_at_once.arguments("mistakes/worst").values()))
    assert look["wrong"] == 4
    assert {verdict.prediction for verdict in look["verdicts"][:4]} == {"2"}
    maps = [tile.values for tile in page.parts(MapTile)][:4]
    assert all(np.unravel_index(grid.argmax(), grid.shape) == (0, 0) for grid in maps)
    assert (look["images"][:4, 0, 0, 0] == 255).all()


def test_samples_that_are_new_since_the_step_before_are_marked(tmp_path, drawn_at_once):
    fit(tmp_path, ConvNet(), [Mistakes()], loader(*images(24)), loader(*images(30)), max_epochs=4)
    looks = drawn_at_once.arguments("mistakes/worst")
    before = None
    for step in sorted(looks):
        shown = [image.tobytes() for image in looks[step]["images"]]
        assert looks[step]["new"] == (None if before is None else [image not in before for image in shown])
        before = shown
    assert len(looks) == 4
    marks = page_of(new=[True, False, True])
    assert [line for text in marks.parts(Text) for line in text.lines].count("new") == 2


def test_a_replayed_step_marks_the_same_samples():
    state = {}
    assert new_among(state, 6, [[1, 2], [3]]) is None and new_among(state, 6, [[1, 2], [3]]) is None
    assert new_among(state, 12, [[2, 9], [1]]) == new_among(state, 12, [[2, 9], [1]]) == [[False, True], [True]]


@pytest.mark.parametrize("ending", [nn.Identity, lambda: nn.LogSoftmax(1), lambda: nn.Softmax(1)])
def test_logits_and_probabilities_rank_alike(ending, tmp_path, drawn_at_once):
    class Ended(ConvNet):
        def __init__(self):
            super().__init__()
            self.fc = nn.Sequential(nn.Linear(6, 3), ending())

        def training_step(self, batch, batch_idx):
            return F.nll_loss(self(batch[0]).log_softmax(1), batch[1])

        def validation_step(self, batch, batch_idx):
            self(batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    model, (x, y) = Ended(), images(30)
    fit(tmp_path, model, [Mistakes(layers="fc")], loader(x, y), loader(x, y))
    (look,) = drawn_at_once.arguments("mistakes/worst").values()
    with torch.no_grad():
        logits = model.fc[0](F.relu(model.conv2(F.max_pool2d(F.relu(model.conv1(x)), 2))).mean((2, 3)))
    worst = F.cross_entropy(logits, y, reduction="none").argsort(descending=True, stable=True)[:8]
    assert np.array_equal(look["images"][..., 0], (x[worst, 0] * 255).round().byte().numpy())


class OneScore(Fixed):
    """Tells two classes apart by one number: a logit or a probability, of shape [N, 1] or [N]."""

    def __init__(self, probability=False, squeezed=False):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 1)
        self.probability, self.squeezed = probability, squeezed

    def logits(self, x):
        return 20 * self.fc(F.relu(self.conv(x)).mean((2, 3)))

    def forward(self, x):
        scores = self.logits(x).sigmoid() if self.probability else self.logits(x)
        return scores[:, 0] if self.squeezed else scores

    def training_step(self, batch, batch_idx):
        loss = F.binary_cross_entropy if self.probability else F.binary_cross_entropy_with_logits
        return loss(self(batch[0]).flatten(), batch[1].float())

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)


@pytest.mark.parametrize("labels", [torch.long, torch.float], ids=["whole", "float"])
@pytest.mark.parametrize("squeezed", [False, True])
@pytest.mark.parametrize("probability", [False, True], ids=["logit", "probability"])
def test_one_score_is_of_two_classes(probability, squeezed, labels, tmp_path, drawn_at_once):
    model, (x, y) = OneScore(probability, squeezed), images(50, classes=2)
    with torch.no_grad():
        model.fc.bias -= model.logits(x).median() / 20  # so that both are predicted
        logits = model.logits(x)[:, 0]
    data = loader(x, y.to(labels), batch_size=8)
    fit(tmp_path, model, [Mistakes()], data, data)
    (page,) = drawn_at_once.arguments("mistakes/worst").values()
    worst = F.binary_cross_entropy_with_logits(logits, y.float(), reduction="none").argsort(descending=True)[:8]
    assert np.array_equal(page["images"][..., 0], (x[worst, 0] * 255).round().byte().numpy())
    for index, verdict in zip(worst.tolist(), page["verdicts"], strict=True):
        said = int(logits[index] > 0)
        assert (verdict.truth, verdict.prediction) == (str(int(y[index])), str(said))
        share = logits[index].sigmoid()
        assert verdict.confidence == pytest.approx(float(share if said else 1 - share), abs=1e-5)
    (table,) = drawn_at_once.arguments("mistakes/confusion").values()
    expected = np.zeros((2, 2), dtype=int)
    np.add.at(expected, (y.numpy(), (logits > 0).long().numpy()), 1)
    assert np.array_equal(table["counts"], expected) and (expected > 0).all() and table["names"] == ["0", "1"]
    assert page["unit"] == ("probability" if probability else "logits") and page["maps"] is not None


class HeadFirst(Fixed):
    """A classifier whose head is registered first, and which ends with no layer."""

    def __init__(self):
        super().__init__()
        self.head, self.conv = nn.Linear(4, 3), nn.Conv2d(1, 4, 3)

    def features(self, x):
        return F.relu(self.conv(x)).mean((2, 3))

    def forward(self, x):
        return 5 * self.head(self.features(x)).roll(1, 1)


class InFields(HeadFirst):
    """Returns features before the logits."""

    def forward(self, x):
        return {"features": self.features(x), "logits": super().forward(x)}

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0])["logits"], batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])


class Inner(HeadFirst):
    """Has its step call a module that it holds, on images that it shifts."""

    def __init__(self):
        super().__init__()
        self.net = HeadFirst()

    def forward(self, x):
        raise NotImplementedError

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0].flatten(1).view_as(batch[0])), batch[1])

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)


@pytest.mark.parametrize("alone", [False, True], ids=["fit", "validate"])
@pytest.mark.parametrize("kind", [HeadFirst, InFields, Inner])
def test_the_scores_are_what_the_step_takes_for_them(kind, alone, tmp_path, drawn_at_once):
    model, (x, y) = kind(), images(50)
    data = loader(x, y, batch_size=8)
    if alone:  # the first batch that passes is the first that shows how the model is called
        make_trainer(tmp_path, [Mistakes()]).validate(model, data, verbose=False)
    else:
        fit(tmp_path, model, [Mistakes()], data, data)
    with torch.no_grad():
        predicted = HeadFirst.forward(getattr(model, "net", model), x).argmax(1)
    expected = np.zeros((3, 3), dtype=int)
    np.add.at(expected, (y.numpy(), predicted.numpy()), 1)
    (table,) = drawn_at_once.arguments("mistakes/confusion").values()
    assert np.array_equal(table["counts"], expected)


def test_of_a_compiled_net_samples_are_run_for_the_view_alone(tmp_path, drawn_at_once):
    model, (x, y) = Inner(), images(50)
    model.net.compile(backend="eager")
    fit(tmp_path, model, [Mistakes()], loader(x, y, batch_size=8), loader(x, y, batch_size=8))
    looks = drawn_at_once.arguments("mistakes/confusion")
    assert list(looks)[-1] == 7
    for table in looks.values():
        assert table["counts"].sum() == 50 and "compiled" in " ".join(table["notes"])


def test_samples_without_a_class_do_not_count(tmp_path, drawn_at_once):
    x, y = images(40)
    y[[3, 11, 12, 29]] = -100
    fit(tmp_path, HeadFirst(), [Mistakes()], loader(x, y), loader(x, y))
    (table,) = drawn_at_once.arguments("mistakes/confusion").values()
    assert table["counts"].sum() == 36


class Flawed(Fixed):
    """Scores of some samples are NaN."""

    def __init__(self, share):
        super().__init__()
        self.share, self.flat, self.fc = share, nn.Flatten(), nn.Linear(64, 3)

    def forward(self, x):
        scores = self.fc(self.flat(x))
        return scores.masked_fill(x[:, 0, 0, :1] <= self.share, torch.nan)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_scores_that_are_nan_are_counted_apart_and_said(share, tmp_path, drawn_at_once, recwarn):
    x, y = images(30)
    fit(tmp_path, Flawed(share), [Mistakes()], val=loader(x, y))
    assert not [line for line in map(str, recwarn) if "Mistakes" in line]
    flawed = int((x[:, 0, 0, 0] <= share).sum())
    (look,) = drawn_at_once.arguments("mistakes/worst").values()
    assert (look["flawed"], look["samples"]) == (flawed, 30 - flawed)
    (page,) = drawn_at_once.pages("mistakes/worst").values()
    assert f"NaN in the scores of {flawed} of 30 samples" in page.notes
    if share == 1.0:
        assert [tile.flaw for tile in page.parts(Tile)] == ["no sample has a score that is a number"]
    else:
        assert 0 < flawed < 30 and len(look["images"]) == 8
        assert (x[:, 0, 0, 0] > share).sum() == drawn_at_once.arguments("mistakes/confusion").popitem()[1][
            "counts"
        ].sum()


class Regression(Perceptron):
    def training_step(self, batch, batch_idx):
        return F.mse_loss(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)


@pytest.mark.parametrize("case", ["numbers", "unlabeled"])
def test_what_has_no_classes_is_skipped_with_a_reason(case, tmp_path, drawn_at_once, capsys, recwarn, caplog):
    view = next(view for view in default_views() if isinstance(view, Mistakes))
    x = torch.randn(12, 2)
    data = loader(x, torch.randn(12, 2))
    model = Regression()
    if case == "unlabeled":
        model.training_step = lambda batch, batch_idx: model(batch[0]).pow(2).mean()
        model.validation_step = lambda batch, batch_idx: model(batch[0])
        data = DataLoader(torch.utils.data.TensorDataset(x), 4)
    fit(tmp_path, model, [view], data, data)
    assert not any(tag.startswith("mistakes") for tag in drawn_at_once.tags())
    said = capsys.readouterr()
    heard = said.out + said.err + caplog.text + " ".join(str(one.message) for one in recwarn)
    assert "Mistakes" in heard and "class" in heard and "Traceback" not in heard


def test_private_inputs_are_left_out(tmp_path, drawn_at_once, capsys):
    with pytest.raises(ViewError, match="private"):
        Mistakes(private=True).check(ConvNet())
    assert Mistakes(private=True).optional
    fit(tmp_path, ConvNet(), [Mistakes(private=True)], loader(*images(24)), loader(*images(24)))
    assert capsys.readouterr().err.count("Mistakes") == 1  # and not that no validation pass ran


def page_of(count=3, maps=True, **options):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    grids = rng.uniform(size=(count, 1, 6, 6)) if maps else None
    settings = {"new": None, "wrong": 3, "samples": 300, "population": "300 validation samples", "step": 5, **options}
    return worst_samples(
        "mistakes/worst", pictures, grids, verdicts=[Verdict("cat", "dog", 0.75, "cat")] * count, **settings
    )


def test_the_page_counts_and_has_a_bar_for_each_confidence():
    page = page_of()
    assert "3 of 300 validation samples wrong (1 %)" in page.description
    assert [part.share for part in page.parts(Bar)] == [0.75] * 3
    inputs = [tile for tile in page.parts(Tile) if not isinstance(tile, MapTile)]
    assert len(inputs) == 3 and inputs[0].size[0] >= 148
    assert not list(page_of(maps=False).parts(MapTile))


def test_of_many_classes_twelve_are_shown_and_their_counts_are_whole():
    counts = np.arange(400).reshape(20, 20) * 10_000
    page = confusion_table("t", counts, names=[f"class {index}" for index in range(20)], classes=20, population="")
    cells = list(page.parts(Cell))
    assert len(cells) == 144 and "12 of 20 classes" in page.description
    assert all(line.replace(",", "") in ("", str(int(cell.value))) for cell in cells for line in cell.lines)
