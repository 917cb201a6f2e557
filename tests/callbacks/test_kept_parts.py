"""What ``keep_parts=True`` leaves beside a run: files of which any picture can be made again, and which run no code."""

import json
import zipfile

import numpy as np
import pytest

from lightning_viz import ActivationMaps, GradCAM, LayerEmbeddings, Saliency, default_views
from lightning_viz.callbacks.log_limits import LimitedWriter
from lightning_viz.callbacks.writers import PARTS, FolderWriter
from lightning_viz.errors import LightningVizWarning, MalformedFileError
from lightning_viz.render import Page, Text, lay_out, read_page
from lightning_viz.render.kept_page import page_bytes

from .conftest import ConvNet, fit, images, loader


def kept_files(folder):
    return sorted(folder.rglob("*.npz"))


def test_every_page_of_the_default_views_can_be_drawn_again_to_the_same_bytes(tmp_path, drawn_at_once):
    data = loader(*images(12))
    fit(tmp_path, ConvNet(), list(default_views(keep_parts=True)), data, logger=False)
    (folder,) = tmp_path.glob("lightning_viz_logs/*")
    files = kept_files(folder)
    stills = {path.relative_to(folder).with_suffix("") for path in folder.rglob("*.png")}
    assert len(files) > 8
    assert {path.relative_to(folder / PARTS).with_suffix("") for path in files} == stills
    for path in files:
        picture = (folder / path.relative_to(folder / PARTS)).with_suffix(".png")
        assert lay_out(read_page(path)).image == picture.read_bytes(), path
        without = lay_out(read_page(path), header=False)  # as a report has it
        assert without.height < lay_out(read_page(path)).height


def test_nothing_is_kept_unless_asked(tmp_path, drawn_at_once):
    views = [Saliency(), GradCAM(keep_parts=True), ActivationMaps(), LayerEmbeddings()]
    fit(tmp_path, ConvNet(), views)
    kinds = {path.relative_to(tmp_path / "run" / PARTS).parts[0] for path in kept_files(tmp_path)}
    assert kinds == {"grad_cam"}


def test_what_is_kept_counts_in_the_limit_of_the_log(tmp_path):
    content = page_bytes(Page("a/b", "a page", Text(["line"], 60)))
    writer = LimitedWriter(FolderWriter(tmp_path), 0.0, 1.5 * len(content) / 1e6, set())
    writer.parts("a/b", content, 1)
    with pytest.warns(LightningVizWarning, match="log_megabytes"):
        writer.parts("a/b", content, 2)
    assert [path.relative_to(tmp_path).as_posix() for path in kept_files(tmp_path)] == [f"{PARTS}/a/b/00000001.npz"]


def rewritten(path, change):
    """The file with other values."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    values = json.loads(content["values.json"])
    change(values)
    content["values.json"] = json.dumps(values).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in content.items():
            archive.writestr(name, member)


HOSTILE = {
    "a function of the system": lambda values: values.update(body={"function": "os:system"}),
    "a class of another package": lambda values: values.update(body={"object": "subprocess:Popen", "fields": {}}),
    "a function of ours": lambda values: values.update(body={"function": "lightning_viz.render.page:lay_out"}),
    "no part": lambda values: values.update(body={"object": "lightning_viz.render.page:Picture", "fields": {}}),
    "no body": lambda values: values.update(body="text"),
    "another field": lambda values: values.update(more=1),
    "an array that is not there": lambda values: values.update(body={"array": 7}),
    "a title that is no text": lambda values: values.update(title=[1]),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_holds_anything_else_is_refused(what, tmp_path):
    path = tmp_path / "page.npz"
    path.write_bytes(page_bytes(Page("a/b", "a page", Text(["line"], 60))))
    assert read_page(path).title == "a page"
    rewritten(path, HOSTILE[what])
    with pytest.raises(MalformedFileError):
        read_page(path)


def test_a_file_that_expands_beyond_all_measure_is_refused(tmp_path):
    path = tmp_path / "page.npz"
    path.write_bytes(page_bytes(Page("a/b", "a page", Text(["line"], 60))))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("0.npy", "w") as member:
        for _ in range(300):
            member.write(np.zeros(2**20, np.uint8).tobytes())
    assert path.stat().st_size < 2**20
    with pytest.raises(MalformedFileError, match="expands to more than"):
        read_page(path)
