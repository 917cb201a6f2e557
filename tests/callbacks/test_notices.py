"""What a run's log says: a cause once, the views by short names; tags that never collide; animations after a resume."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from lightning_viz import ActivationMaps, GradCAM, LayerEmbeddings, Probe, Saliency, TopSamples
from lightning_viz.callbacks.draw_task import DrawTask
from lightning_viz.callbacks.notices import Faults, LeftOut
from lightning_viz.callbacks.run import view_list
from lightning_viz.callbacks.tags import tag_endings, with_ending
from lightning_viz.callbacks.writers import FolderWriter, find_writers
from lightning_viz.render.page import Picture
from tests.callbacks.conftest import ConvNet, Watch, images, loader, make_trainer


class Run:
    """Keeps what is reported."""

    most_faults = 3

    def __init__(self):
        self.reports = []

    def report_fault(self, views, step, error, *, switched_off):
        self.reports.append((view_list(views), step, str(error), switched_off))


def test_a_cause_that_views_share_is_one_line_and_is_not_repeated_at_the_next_look():
    run = Run()
    faults, views = Faults(run), [GradCAM(), Saliency(), ActivationMaps()]
    for step in range(4):
        with faults.gathered():
            off = [faults.add(view, step, ValueError("broken" if view is not views[2] else "other")) for view in views]
        if step == 1:
            faults.succeeded(views[0])
        assert off == [step == 4, step >= 2, step >= 2]
    assert run.reports[:2] == [
        ("GradCAM and Saliency", 0, "broken", False),
        ("ActivationMaps", 0, "other", False),
    ]
    assert [report[3] for report in run.reports[2:]] == [True] * len(run.reports[2:])


def test_a_fault_outside_of_a_look_is_reported_at_once():
    run = Run()
    Faults(run).add(GradCAM(), 3, "cannot be drawn")
    assert run.reports == [("GradCAM", 3, "cannot be drawn", False)]


def test_looks_that_are_left_out_are_said_once_and_counted_at_the_end(capsys):
    left = LeftOut()
    for step in range(2, 30, 2):
        left.add(GradCAM(), step, "as drawing is behind")
        left.add(GradCAM(), step, "as drawing is behind")  # due once more at a later hook of the same step
    left.add(Saliency(), 4, "to stay within max_overhead=0.05")
    left.add(Saliency(), 8, "to stay within max_overhead=0.05")
    left.take(Saliency(), 8)  # at the end of the run, which is at the same step
    left.add(TopSamples(), 8, "as drawing is behind")
    left.take(TopSamples(), 8)
    left.report()
    left.report()
    assert [line.removeprefix("lightning_viz: ") for line in capsys.readouterr().err.splitlines()] == [
        "GradCAM is logged less often from step 2 as drawing is behind",
        "Saliency is logged less often from step 4 to stay within max_overhead=0.05",
        "TopSamples is logged less often from step 8 as drawing is behind",
        "14 looks were left out of GradCAM, at steps 2, 4, 6, 8, 10, 12, 14, 16, ..., as drawing is behind",
        "1 look was left out of Saliency, at step 4, to stay within max_overhead=0.05",
    ]


def test_a_view_in_a_line_is_not_its_whole_representation():
    view = Saliency(method="smooth_grad", probe=Probe(inputs=torch.rand(4, 1, 8, 8)))
    assert view.label == "Saliency(method='smooth_grad')" and len(GradCAM(layers=["x" * 50] * 9).label) < 10
    views = [GradCAM(), Saliency(), ActivationMaps(), LayerEmbeddings(), Watch()]
    assert view_list(views) == "GradCAM, Saliency, ActivationMaps and 2 more"


VIEWS = {
    "targets": [GradCAM(), GradCAM(target="predicted"), GradCAM(target=1), GradCAM(target=[0, 2])],
    "channels": [ActivationMaps(channels="random"), ActivationMaps(channels=[5])],
    "probes": [GradCAM(probe=4), GradCAM(probe=8), GradCAM(probe="train")],
    "both": [GradCAM(target=1, probe=4), GradCAM(target=1, probe=8)],
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_that_draw_different_pictures_have_different_tags(name):
    views = VIEWS[name]
    endings = [tag_endings(views)[view.name] for view in views]
    assert len(set(endings)) == len(views)
    assert all(set(ending) <= set("abcdefghijklmnopqrstuvwxyz_0123456789") for ending in endings)
    assert [tag_endings([view])[view.name] for view in views] == [""] * len(views)


def test_an_ending_is_written_to_all_tags():
    task = DrawTask(print, {"tag": "a/b", "step": 3}, scalars={"a/n": 1.0})
    named = with_ending(task, "target_1")
    assert (named.arguments, named.scalars) == ({"tag": "a/b/target_1", "step": 3}, {"a/n/target_1": 1.0})
    assert with_ending(task, "") is task


def test_views_on_one_layer_are_told_apart_in_a_run(tmp_path):
    views = [GradCAM(steps=[2]), GradCAM(steps=[2], target="predicted"), GradCAM(steps=[2], target=1)]
    trainer = make_trainer(tmp_path, views, logger=False)
    trainer.fit(ConvNet(), loader(*images()))
    folder = tmp_path / "lightning_viz_logs" / "version_0" / "grad_cam" / "conv2"
    for place in (folder, folder / "target_predicted", folder / "target_1"):
        assert [path.name for path in sorted(place.glob("*.png"))] == ["00000000.png", "00000002.png", "00000006.png"]


def test_an_animation_after_a_resume_holds_all_steps(tmp_path, drawn_at_once):
    options = {"enable_checkpointing": False, "max_epochs": 2}
    trainer = make_trainer(tmp_path, [Watch(every_n_train_steps=2, animation=True)], **options)

    class Save(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    trainer.callbacks.append(Save())
    trainer.fit(ConvNet(), loader(*images()))
    whole = [drawing.sketch.arguments["frames"] for drawing in drawn_at_once if "frames" in drawing.sketch.arguments]
    drawn_at_once.clear()
    resumed = make_trainer(tmp_path, [Watch(every_n_train_steps=2, animation=True)], **options)
    resumed.fit(ConvNet(), loader(*images()), ckpt_path=tmp_path / "half.ckpt")
    again = [drawing.sketch.arguments["frames"] for drawing in drawn_at_once if "frames" in drawing.sketch.arguments]
    assert [step for step, _ in whole[0]] == [0, 2, 4, 6, 8, 10, 12]
    assert again == whole


def test_files_of_unlike_tags_never_overwrite_one_another(tmp_path):
    tags = ["relu:1", "relu_1", "relu 1", "a/../b", "a/_/b", "a/./b", "é", "e%"]
    writer = FolderWriter(tmp_path)
    for number, tag in enumerate(tags):
        writer.picture(Picture(tag, b"\x89PNG" + bytes([number]), 1, 1, ""), 0)
    files = [path.read_bytes()[-1] for path in tmp_path.rglob("*.png")]
    assert sorted(files) == list(range(len(tags)))
    assert all(tmp_path in path.resolve().parents for path in tmp_path.rglob("*"))


def test_runs_that_begin_together_write_to_folders_of_their_own(tmp_path):
    folders = [find_writers([], tmp_path)[1].rpartition(" ")[2] for _ in range(3)]
    assert len(set(folders)) == 3
