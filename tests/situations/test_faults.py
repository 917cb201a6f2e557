"""Kind 8: one cause, one line; what can be known at the start is said at the start."""

from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from lightning_viz import ActivationMaps, FirstLayerFilters, GradCAM, Probe, Saliency, View

from .brought import Classifier, pictures, rows
from .situation import REFUSED, Call, Training, situation, situations, usual_views
from .truth import all_right

images, labels = pictures()


def short(seen) -> None:
    """A fault's line names the view by its class, not by all its arguments."""
    for line in seen.faults:
        view = line.partition(" failed")[0]
        assert len(view) <= 60 and "probe" not in view and len(line) < 250, line


@dataclass(kw_only=True, eq=False)
class Broken(View):
    """A view of the user's own that fails at every look."""

    threshold: float = 0.5
    names: tuple[str, ...] = ("a", "b")

    kind = "broken"

    def draw(self, snapshot):
        raise RuntimeError("no such color")


@situation(
    8,
    "a view fails at every look: one line names view, step and cause",
    REFUSED,
    says="Broken.* step 0.*no such color",
)
def view_that_fails():
    views = [Broken(threshold=0.1, names=("c",)), FirstLayerFilters()]
    return Training(Classifier(), rows(images, labels), views=views, draws=("filters",)), short


@situation(
    8,
    "a fault of one layer: the line names the layer",
    REFUSED,
    says=r"GradCAM\b.*'?net\.unused'?",
)
def layer_that_is_not_called():
    net = Classifier()
    net.net.unused = type(net.net.conv)(3, 3, 1)
    views = [GradCAM(layers=["net.unused"]), FirstLayerFilters()]
    return Training(net, rows(images, labels), views=views, draws=("filters",)), short


@situation(
    8,
    "the model fails on what it is given: one line for all views and looks",
    REFUSED,
    says="eight samples",
)
def model_that_fails():
    class Model(Classifier):
        def forward(self, images):
            if len(images) != 8:
                raise RuntimeError("give eight samples")
            return self.net(images)

    def check(seen):
        assert len(seen.faults) == 1, seen.faults

    return Training(Model(), rows(images, labels), draws=()), check


@situation(
    8,
    "the disk is full: one line for all pictures, and training goes on",
    REFUSED,
    says="No space left",
)
def full_disk():
    full = mock.patch(
        "lightning_viz.callbacks.writers.folder.write_whole", side_effect=OSError(28, "No space left on device")
    )

    def start(trainer):
        with full:
            trainer.fit(Classifier(), rows(images, labels), rows(images, labels))

    def check(seen):
        assert len(seen.faults) == 1, seen.faults
        assert seen.trainer.global_step == 2

    return Training(None, None, start=start, draws=()), check


@situation(8, "a number is given as `probe`: so many samples")
def probe_as_number():
    def check(seen):
        assert seen.value.probe == Probe(samples=8)

    return Call(lambda: GradCAM(probe=8)), check


@situation(8, "a string is given as `probe`: the source")
def probe_as_string():
    def check(seen):
        assert seen.value.probe == Probe(source="train")

    return Call(lambda: GradCAM(probe="train")), check


@situation(
    8, "a string that is no source is given as `probe`", REFUSED, says="source is 'valid': give 'val' or 'train'"
)
def probe_as_another_string():
    return Call(lambda: GradCAM(probe="valid")), lambda seen: None


@situation(8, "a layer's name with a typing error: the nearest names, at the start", REFUSED, says="'net.conv'")
def misspelled_layer():
    def check(seen):
        assert seen.error is not None and not seen.drawings

    return Training(Classifier(), rows(images, labels), views=[GradCAM(layers="net.comv")], draws=()), check


@situation(8, "a view given twice: at the start", REFUSED, says="two equal views")
def view_twice():
    return Training(Classifier(), rows(images, labels), views=[Saliency(), Saliency()], draws=()), lambda seen: None


@situation(8, "a target of no grammar: at the start, with the grammar", REFUSED, says="no target is written 'labels'")
def misspelled_target():
    return Call(lambda: GradCAM(target="labels")), lambda seen: None


@situation(
    8, "a view named twice in `default_views()` and by hand: nothing is drawn twice", REFUSED, says="two equal views"
)
def default_view_by_hand():
    views = [*usual_views(), ActivationMaps()]
    return Training(Classifier(), rows(images, labels), views=views, draws=()), lambda seen: None


@situation(8, "a run without a fault: nothing is said but what was found")
def no_fault():
    def check(seen):
        all_right(seen)
        assert all(line.startswith(("skipped", "inputs:")) for line in seen.lines), seen.lines

    return Training(Classifier(), rows(images, labels)), check


@pytest.mark.parametrize("row", situations(__name__))
def test_faults(row, tmp_path: Path):
    row.verify(tmp_path)
