"""A folder of images is a data set that an analysis knows: classes, names, and when it is another."""

import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torchvision import models, transforms

from lightning_viz.analysis import image_files
from lightning_viz.analysis.data import Images, fitting
from lightning_viz.analysis.image_files import read_image
from lightning_viz.analysis.run_config import RunConfig
from lightning_viz.errors import AnalysisError, MalformedFileError
from lightning_viz.pixels import PixelSpace

from .hostile_images import IMAGES, READ, png, zeros

SPACE = PixelSpace((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
FIT = fitting(6, SPACE)


@pytest.fixture
def folder(tmp_path):
    """Makes images of one color each under names in a folder."""

    def make(*names):
        for number, name in enumerate(names):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 12), (40 * number, 100, 200)).save(tmp_path / name)
        return tmp_path

    return make


def test_folders_are_classes_however_deep_their_images(folder):
    images = Images(folder("dog/a.png", "cat/deep/er/b.PNG", "cat/c.jpg"), FIT)
    assert images.classes == ["cat", "dog"]
    assert sorted(images.targets) == [0, 0, 1]
    assert all(images[index][1] == images.targets[index] for index in range(3))


def test_what_comes_is_what_the_file_shows(folder):
    image = Images(folder("a.png", "b.png"), FIT)[1]
    assert image.shape == (3, 6, 6)
    shown = SPACE.to_pixels(image[None])[0, :, 3, 3] * 255
    assert torch.allclose(shown, torch.tensor([40.0, 100.0, 200.0]), atol=1e-3)
    assert PixelSpace.of_transform(Images(folder("a.png"), FIT)).mean == SPACE.mean


def test_the_transform_of_torchvisions_weights_says_how_inputs_map_to_pixels(folder):
    images = Images(folder("a.png"), models.ResNet18_Weights.DEFAULT.transforms())
    pixel_space = PixelSpace.of_transform(images)
    assert torch.allclose(
        pixel_space.to_pixels(images[0][None])[0, :, 9, 9] * 255, torch.tensor([0.0, 100.0, 200.0]), atol=1
    )


def test_gray_images_have_one_channel(folder):
    assert Images(folder("a.png"), fitting(6, PixelSpace(), gray=True))[0].shape == (1, 6, 6)


def test_images_that_a_camera_held_sideways_are_upright(folder):
    place = folder("a.jpg")
    turned = Image.new("RGB", (8, 12))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(place / "a.jpg", exif=exif)
    assert Images(place, transforms.ToTensor())[0].shape == (3, 8, 12)


def test_images_beside_folders_have_no_class(folder):
    images = Images(folder("a.png", "cat/b.png"), FIT)
    assert images.targets is None
    assert isinstance(images[0], torch.Tensor)


def test_folders_are_matched_with_the_models_classes_by_name(folder):
    images = Images(folder("Tiger_Shark/a.png", "goldfish/b.png"), FIT, classes=["tench", "goldfish", "tiger shark"])
    assert images.targets == [2, 1]
    assert images.classes == ["tench", "goldfish", "tiger shark"]


def test_as_many_folders_as_classes_are_in_their_order(folder):
    images = Images(folder("n01/a.png", "n02/b.png"), FIT, classes=["tench", "goldfish"])
    assert images.targets == [0, 1]


@pytest.mark.parametrize("classes", [["tench", "goldfish", "crane"], ["cat", "crane", "crane"]])
def test_folders_that_match_no_single_class_leave_the_classes_unknown(folder, capsys, classes):
    images = Images(folder("cat/a.png", "crane/b.png"), FIT, classes=classes)
    assert images.targets is None
    assert "no single class of the model is called" in capsys.readouterr().err


def test_another_folder_is_another_case(folder):
    place = folder("cat/a.png", "dog/b.png")

    def key(**options):
        return RunConfig(torch.nn.Identity(), Images(place, options.get("transform", FIT))).key(None, "views")

    before = key()
    assert key() == before
    assert key(transform=fitting(8, SPACE)) != before
    os.utime(place / "cat/a.png", ns=(5, 5))
    changed = key()
    assert changed != before
    folder("cat/c.png")
    assert key() != changed


def test_what_is_no_image_is_named(folder):
    place = folder("a.png", "b.png")
    (place / "b.png").write_bytes((place / "b.png").read_bytes()[:40])
    with pytest.raises(AnalysisError, match=r"b\.png cannot be read as an image"):
        Images(place, FIT)[1]


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "._a.png").write_text("a trace of another system")
    with pytest.raises(AnalysisError, match="holds no image"):
        Images(tmp_path, FIT)
    with pytest.raises(AnalysisError, match=r"there is no folder .*nowhere"):
        Images(tmp_path / "nowhere", FIT)


def test_gray_of_16_bits_is_gray(tmp_path):
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(tmp_path / "a.png")
    assert Images(tmp_path, fitting(8, PixelSpace()))[0].unique().tolist() == pytest.approx([128 / 255])


def test_values_that_are_no_gray_levels_are_named_rather_than_shown_black(tmp_path):
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(AnalysisError, match=r"a\.tiff cannot be read as an image: its values, 0\.5 to 0\.5"):
        Images(tmp_path, FIT)[0]


@pytest.mark.parametrize("name", [name for name, image in IMAGES.items() if not image.large])
def test_an_image_is_read_or_refused_in_one_sentence_that_names_it(name, tmp_path, monkeypatch):
    ghostscript = tmp_path / "bin/gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent))
    path = tmp_path / f"a{IMAGES[name].suffix}"
    path.write_bytes(IMAGES[name].content())
    if IMAGES[name].outcome == READ:
        assert FIT(read_image(path)).shape == (3, 6, 6)
    else:
        with pytest.raises(MalformedFileError, match=rf"a\{path.suffix} .*{IMAGES[name].outcome}") as refusal:
            read_image(path)
        assert str(refusal.value).isprintable()
    assert not (tmp_path / "called").exists()


def test_an_image_beyond_a_limit_is_not_decoded(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png(7000, 7000, data=zeros(2**20)))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(MalformedFileError, match="7,000 x 7,000 pixels, more than 40,000,000"):
        read_image(path)


def test_of_several_images_in_a_file_the_first_is_taken_and_it_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(image_files, "_reported", set())
    for number in range(2):
        path = tmp_path / f"{number}.gif"
        path.write_bytes(IMAGES["animated GIF"].content())
        assert read_image(path).getpixel((0, 0)) == (80, 0, 0)
    assert capsys.readouterr().err.count("holds several images: of it, and of other such files, the first") == 1


def test_colors_come_from_a_palette_with_transparency_and_from_four_inks(tmp_path):
    green = Image.new("RGB", (8, 8), (0, 255, 0))
    green.quantize(4).save(tmp_path / "a.png", transparency=0)
    green.convert("CMYK").save(tmp_path / "b.tif")
    assert [read_image(tmp_path / name).getpixel((0, 0)) for name in ("a.png", "b.tif")] == [(0, 255, 0)] * 2


@pytest.fixture
def misleading(folder):
    """A folder with an image, and with what is none but is called like one."""
    place = folder("cat/a.png", "dog/b.png", "dog/line\nbreak.png", "dog/\u202egnp.png", "dog/\x1b[2Jc.png")
    (place / "dog/folder.png").mkdir()
    os.mkfifo(place / "dog/pipe.png")
    (place / "dog/null.png").symlink_to("/dev/null")
    (place / "dog/zero.png").symlink_to("/dev/zero")
    (place / "dog/gone.png").symlink_to(place / "nowhere.png")
    (place / "dog/itself.png").symlink_to(place / "dog/itself.png")
    (place / "dog/around").symlink_to(place)
    (place / "dog/up").symlink_to("..")
    return place


def test_pipes_devices_and_folders_called_like_images_are_none(misleading, capsys):
    images = Images(misleading, FIT)
    assert len(images) == 5 and images.classes == ["cat", "dog"]
    assert capsys.readouterr().err.count("is a link to a folder, and such are not followed") == 1
    for name in ("folder", "pipe", "zero", "gone", "itself"):
        with pytest.raises(AnalysisError, match=rf"there is no file .*{name}\.png: give an image"):
            read_image(misleading / f"dog/{name}.png")


def test_names_of_files_stand_in_messages_in_one_harmless_line(misleading):
    for name in ("line\nbreak.png", "\u202egnp.png", "\x1b[2Jc.png"):
        path = misleading / "dog" / name
        path.write_bytes(b"")
        with pytest.raises(MalformedFileError) as refusal:
            read_image(path)
        assert str(refusal.value).isprintable() and repr(name)[1:-1] in str(refusal.value)


def test_hidden_folders_are_no_classes(folder):
    images = Images(folder("cat/a.png", "dog/b.png", ".ipynb_checkpoints/c.png"), FIT)
    assert images.classes == ["cat", "dog"]
    assert len(images) == 2
