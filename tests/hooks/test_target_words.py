"""The one grammar of targets: every form, and what is refused."""

import pytest
import torch
from torch import nn

import lightning_viz as lv
from lightning_viz.errors import InvalidArgumentError
from lightning_viz.hooks import as_target, channel, classes, logit, maximum, observe, parse_target, region, top, unit
from lightning_viz.hooks.targets import target_list, target_unit

NAMES = ["bee", "ox", "great white shark", "7"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv2, self.relu, self.fc = nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.Linear(5, 4)

    def forward(self, x):
        x = self.relu(self.conv2(x))
        return self.fc(self.relu(1 - x).mean((2, 3)))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


X = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))

FORMS = {
    "predicted": None,
    "label": [2, 0, 1],
    "3": 3,
    "0": logit(0),
    " 3 ": 3,
    "class:ox": 1,
    "class:great white shark": 2,
    "class:7": 3,  # the name comes first
    "class:2": 2,  # no name, then a number
    "top:1": top(1),
    "top:3": top(3),
    "conv2[4]": channel("conv2", 4),
    "conv2 [4]": channel("conv2", 4),
    "fc[3]": channel("fc", 3),
    "conv2[4,1,2]": unit("conv2", (4, 1, 2)),
    "conv2[4, 1, 2]": unit("conv2", (4, 1, 2)),
    "relu:1[2]": channel("relu:1", 2),
    "relu:0[2,0,5]": unit("relu:0", (2, 0, 5)),
    "max(conv2)": maximum("conv2"),
    "max(relu:1)": maximum("relu:1"),
    "max(conv2[4])": maximum("conv2", 4),
    "max( conv2 )": maximum("conv2"),
}


@pytest.mark.parametrize("text", FORMS)
def test_words_mean_what_objects_mean(text, net):
    target = parse_target(text).bind(torch.tensor([2, 0, 1]), NAMES)
    seen, expected = observe(net, X, target, input_gradient=True), observe(net, X, FORMS[text], input_gradient=True)
    assert torch.equal(seen.scores, expected.scores)
    assert torch.equal(seen.input_gradient, expected.input_gradient)
    if "class" not in text and text != "label":
        assert torch.equal(observe(net, X, text).scores, expected.scores)  # functions take the words


@pytest.mark.parametrize(("word", "index"), [("region:2", 2), ("region:ox", 1), ("region", None)])
def test_a_region_is_where_the_class_truly_is(word, index):
    labels = torch.tensor([[[0, 1], [2, 2]], [[1, 1], [2, 0]]])
    target = parse_target(word).bind(labels, NAMES)
    index = [2, 1] if index is None else index  # the largest beside class 0
    mask = labels == torch.as_tensor(index).view(-1, 1, 1)
    dense = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    model = nn.Identity()
    assert torch.equal(observe(model, dense, target).scores, observe(model, dense, region(mask, index)).scores)


MALFORMED = [
    "", " ", "best", "Predicted", "LABEL", "-1", "+3", "3.0", "1e3", "1_000", "٣", "3,7", "3 7", "[3]", "()",
    "class:", "class", "class: ox", "class ox", "top", "top:", "top:0", "top:-1", "top:x", "top 3", "top3", "top(3)",
    "conv2", "conv2 7", "conv2:7", "conv2[]", "conv2[x]", "conv2[-1]", "conv2[1,2,3,4,5]", "conv2[1,,2]",
    "conv2[1.5]", "conv2[7", "conv2 7]", "conv2[[7]]", "conv2[7]]", "conv2(7)", "conv2[7][3]", "[7]conv2",
    "max", "max()", "max(conv2", "max(conv2[])", "max(conv2[1,2,3])", "max(conv2[x])", "max conv2", "max(max(conv2))",
    "region:", "region 2", "logit 3", "logits", "conv2[7] - 3", "2 * conv2[7]", "None", "predicted label", "box",
    "token", "max(conv2 conv2)", "max(3)x",
]  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_no_target_is_an_error_that_lists_the_grammar(text, net):
    with pytest.raises(InvalidArgumentError) as error:
        lv.parse_target(text)
    assert str(error.value).startswith(f"no target is written {text!r}")
    for form in ("'predicted'", "'label'", "'class:ox'", "'top:3'", "'conv2[7]'", "'relu:1[7]'", "'max(conv2)'"):
        assert form in str(error.value)
    with pytest.raises(InvalidArgumentError):
        lv.attribution.grad_cam(net, X, text, layers="conv2")
    with pytest.raises(InvalidArgumentError):
        lv.GradCAM(target=text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("top 3", "top:3"), ("top3", "top:3"), ("top=3", "top:3"), ("conv2 7", "conv2[7]"), ("logit 3", "3"),
        ("region 2", "region:2"), ("Predicted", "predicted"), ("LABEL", "label"), ("ox", "class:ox"),
        ("oxx", "class:ox"),
        ("great white sharks", "class:great white shark"), ("conv2", "conv2[0]"), ("cnov2", "conv2[0]"),
        ("conv2[x]", "conv2[0]"), ("max(cnov2", "conv2[0]"),
    ],
)  # fmt: skip
def test_the_error_says_what_may_have_been_meant(text, meant, net):
    with pytest.raises(InvalidArgumentError, match="did you mean") as error:
        parse_target(text, model=net, class_names=NAMES)
    hint = str(error.value).partition("did you mean ")[2].partition("?")[0]
    assert repr(meant) in hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label", "target 'label' needs the samples' labels"),
        ("class:ox", "target 'class:ox' needs .* the classes' names"),
        ("region", "target 'region' needs the samples' labels"),
        ("4", r"target class 4 is out of range: the model has 4 outputs"),
        ("top:5", r"top\(5\): the model has 4 outputs"),
        ("cnov2[1]", "no layer matches 'cnov2'; did you mean 'conv2'"),
        ("conv2[5]", r"channel 5 is out of range: the model has 5 channels in layer 'conv2'"),
        ("relu[1]", r"'relu' is called 2 times: name the call, one of \['relu:0', 'relu:1'\]"),
    ],
)
def test_words_that_this_model_cannot_mean_are_an_error(text, message, net):
    with pytest.raises(InvalidArgumentError, match=message):
        observe(net, X, text, input_gradient=True)


def test_a_class_that_has_no_such_name_is_an_error_with_the_nearest():
    with pytest.raises(InvalidArgumentError, match="'great shark': did you mean 'great white shark'"):
        parse_target("class:great shark").bind(None, NAMES)
    with pytest.raises(InvalidArgumentError, match="no class is called 'cat': known are 'bee', 'ox', "):
        parse_target("class:cat").bind(None, NAMES)
    with pytest.raises(InvalidArgumentError, match="no class is called 'cat': known are none; give its number"):
        parse_target("class:cat").bind(None, [])


def test_several_targets_by_number_name_or_words(net):
    found, expected = target_list([3, "class:ox", "0"], NAMES), classes(3, 1, 0)
    assert torch.equal(observe(net, X, found).scores, observe(net, X, expected).scores)
    mixed = ["conv2[1]", 3, "class:ox", "max(conv2[4])", "conv2[4,1,2]"]
    seen = observe(net, X, target_list(mixed, NAMES), input_gradient=True)
    for place, word in enumerate(["conv2[1]", 3, 1, "max(conv2[4])", "conv2[4,1,2]"]):
        alone = observe(net, X, word, input_gradient=True)
        torch.testing.assert_close(seen.scores[place], alone.scores)
        torch.testing.assert_close(seen.input_gradient[place], alone.input_gradient)
    for wrong in ([3, "top:2"], ["predicted", "conv2[1]"], ["label"], ["box[0]"], ["region"], []):
        with pytest.raises(InvalidArgumentError):
            target_list(wrong, NAMES)


@pytest.mark.parametrize(
    ("target", "unit"),
    [
        (logit(3), "logits per unit of input"),
        (channel("conv2", 1), "units of activation per unit of input"),
        (maximum("conv2") - 2 * channel("conv2", 1), "units of activation per unit of input"),
        (channel("conv2", 1) - 0.1 * logit(3), "units of the target per unit of input"),
        (target_list(["conv2[1]", "conv2[2]"]), "units of activation per unit of input"),
    ],
    ids=str,
)
def test_the_unit_is_what_the_target_is_counted_in(target, unit):
    assert target_unit(target, "logits per unit of input") == unit
    assert target_unit(target, "of activation") == "of activation"


def test_words_and_objects_combine(net):
    mixed = parse_target("conv2[1]") - 0.1 * as_target(3)
    seen = [observe(net, X, target).scores for target in (mixed, "conv2[1]", 3)]
    torch.testing.assert_close(seen[0], seen[1] - 0.1 * seen[2])


def test_one_target_is_explained_and_climbed(net):
    """The same object, or the same words, in both."""
    for target in (channel("conv2", 2), channel("conv2", 2) - 0.1 * logit(3) + 1, "conv2[2]", "conv2[2,1,1]", 3):
        dream = lv.dream.maximize(net, target, image=(1, 6, 6), steps=0, progress=False)
        torch.testing.assert_close(dream.values, observe(net, dream.inputs, target).scores)
        maps = lv.attribution.grad_cam(net, X, target, layers="conv2")
        assert maps["conv2"].shape == (3, 1, 6, 6)


def test_open_classes_in_a_sum_stay_those_of_the_clean_input(net):
    target = as_target("predicted") - 2 * channel("conv2", 1)
    slope = lv.attribution.gradient(net, X, target)
    smooth = lv.attribution.smooth_grad(net, X, target, fraction=0.0, noise_samples=2, progress=False)
    torch.testing.assert_close(slope, smooth)
    by_hand = [lv.attribution.gradient(net, X, part) for part in (None, "conv2[1]")]
    torch.testing.assert_close(slope, by_hand[0] - 2 * by_hand[1])
