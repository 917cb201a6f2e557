"""The digest of a run: what Health and Mistakes found, as JSON, with the pictures that show it."""

import io
import json
from contextlib import nullcontext

import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from lightning_viz import Health, Mistakes, ViewWarning
from lightning_viz.analysis import digest
from lightning_viz.callbacks.facts import FACTS, write_facts
from lightning_viz.callbacks.writers import FolderWriter, TensorBoardWriter
from lightning_viz.cli.main import run_command_line
from lightning_viz.errors import AnalysisError, MalformedFileError
from lightning_viz.render.page import Picture

from ..callbacks.conftest import LIGHTNING_SAYS, ConvNet, drawn_at_once, fit, images, loader  # noqa: F401

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_SAYS]

FINDING = {"layer", "kind", "certain", "since", "words"}
SAMPLE = {"index", "loss", "truth", "prediction", "confidence"}


class Ill(ConvNet):
    """Its second convolution is dead from the start; its last layer's optimizer does not know it."""

    def __init__(self):
        super().__init__()
        torch.nn.init.constant_(self.conv2.bias, -100.0)

    def configure_optimizers(self):
        return torch.optim.SGD([*self.conv1.parameters(), *self.conv2.parameters()], lr=0.05)


@pytest.fixture(scope="module")
def data():
    return images(48)


def by_hand(model, x, y):
    """Each sample's loss and probabilities."""
    with torch.no_grad():
        logits = model.eval()(x)
    return F.cross_entropy(logits, y, reduction="none"), logits.softmax(1)


@pytest.mark.parametrize("logger", ["tensorboard", "folder"])
def test_it_tells_what_was_found_and_where_it_is_shown(logger, data, tmp_path, drawn_at_once):  # noqa: F811
    options = {} if logger == "tensorboard" else {"logger": False}
    model = Ill()
    with pytest.warns(ViewWarning, match="pictures go to") if options else nullcontext():
        fit(tmp_path, model, [Health(), Mistakes()], loader(*data, batch_size=8), max_epochs=2, **options)
    found = digest(tmp_path)
    assert found["version"] == 1 and found.keys() == {"version", "run", "health", "mistakes"}
    json.dumps(found, allow_nan=False)
    (health,), (mistakes,) = found["health"], found["mistakes"]
    assert health.keys() == {"step", "samples", "findings", "picture"} and health["step"] == 12
    assert all(each.keys() == FINDING for each in health["findings"])
    dead = next(each for each in health["findings"] if each["layer"] == "conv2" and each["kind"] == "dead")
    assert dead["certain"] and dead["since"] <= 6 and dead["words"] == "all units dead"
    assert {"layer": "fc", "kind": "idle"}.items() <= next(e for e in health["findings"] if e["layer"] == "fc").items()
    losses, probabilities = by_hand(model, *data)
    order = losses.sort(descending=True, stable=True).indices.tolist()
    worst = mistakes["worst"]
    assert all(sample.keys() == SAMPLE for sample in worst) and len(worst) > 3
    assert mistakes["samples"] == 48 and mistakes["wrong"] == int((probabilities.argmax(1) != data[1]).sum())
    assert sorted(losses[sample["index"]].item() for sample in worst) == pytest.approx(
        sorted(losses[order[: len(worst)]].tolist()), rel=1e-5
    )
    for sample in worst:
        place = sample["index"]
        assert sample["loss"] == pytest.approx(losses[place].item(), rel=1e-5)
        assert sample["truth"]["index"] == int(data[1][place])
        assert sample["prediction"]["index"] == int(probabilities[place].argmax())
        assert sample["confidence"] == pytest.approx(probabilities[place].max().item(), rel=1e-5)
    for entry, tag in ((health, "health"), (mistakes, "mistakes/worst")):
        assert entry["picture"]["tag"] == tag and entry["picture"]["step"] == 12
        stored = entry["picture"]["file"]
        assert stored.startswith("events.out") if logger == "tensorboard" else stored == f"{tag}/00000012.png"


def test_the_command_prints_it(tmp_path, capsys):
    write_facts(tmp_path, "health", 3, {"samples": 9, "findings": []})
    write_facts(tmp_path, "mistakes/worst", 3, {"worst": [{"index": 1, "loss": float("inf")}]})
    assert run_command_line(["digest", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == digest(tmp_path)
    assert found["health"] == [
        {
            "step": 3, "samples": 9, "findings": [],
            "picture": {"tag": "health", "board_tag": "1_overview/1_health", "step": 3, "file": None},
        }
    ]  # fmt: skip
    assert found["mistakes"][0]["worst"] == [{"index": 1, "loss": None}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "holds no JSON"),
        ("[" * 100_000, "holds no JSON"),
        ("[1]", "holds no tag and step"),
        ('{"tag": "health"}', "holds no tag and step"),
        ('{"tag": 3, "step": 3}', "holds no tag and step"),
        ('{"tag": "health", "step": true}', "holds no tag and step"),
        (" " * (17 * 2**20), "is larger than"),
    ],
)
def test_a_file_that_is_none_is_refused(content, message, tmp_path):
    (tmp_path / FACTS).mkdir()
    (tmp_path / FACTS / "health.json").write_text(content)
    with pytest.raises(MalformedFileError, match=message):
        digest(tmp_path)


def test_a_tag_leads_nowhere_else(tmp_path):
    (tmp_path / "outside.d").mkdir()
    (tmp_path / "outside.d" / "00000003.png").write_bytes(b"")
    run = tmp_path / "run"
    write_facts(run, "health", 3, {})
    path = next((run / FACTS).iterdir())
    path.write_text(json.dumps({"tag": "health/../../outside.d", "step": 3}))
    assert digest(run)["health"][0]["picture"]["file"] is None


@pytest.mark.parametrize("tag", ["health", "health/fold: 1?", "health/" + "a" * 300, "mistakes/worst/ä", "health/a\nb"])
@pytest.mark.parametrize("logger", ["tensorboard", "folder"])
def test_a_picture_is_found_wherever_a_folder_keeps_it(logger, tag, tmp_path):
    write_facts(tmp_path, tag, 3, {})
    writer = FolderWriter(tmp_path) if logger == "folder" else TensorBoardWriter(SummaryWriter(tmp_path))
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "png")
    writer.picture(Picture(tag, content.getvalue(), 4, 4, ""), 3)
    writer.flush()
    stored = digest(tmp_path)[tag.partition("/")[0]][0]["picture"]["file"]
    assert stored is not None and (tmp_path / stored).is_file()


def test_folders_that_hold_no_run_or_several_are_refused(tmp_path):
    with pytest.raises(AnalysisError, match="there is no folder"):
        digest(tmp_path / "missing")
    with pytest.raises(AnalysisError, match=f"holds no {FACTS}"):
        digest(tmp_path)
    for name in ("first", "second"):
        write_facts(tmp_path / name, "health", 3, {})
    with pytest.raises(AnalysisError, match=r"holds 2 runs \(first, second\)"):
        digest(tmp_path)
    assert digest(tmp_path / "first")["health"]
