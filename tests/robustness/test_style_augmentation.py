"""A stylized data set keeps each image's content in one of the styles, is made once, and is the same however it is
made: at once, resumed, or read by workers."""

import json
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_viz.dream import style_transfer
from lightning_viz.errors import CueConflictWarning, MalformedFileError
from lightning_viz.pixels import PixelSpace
from lightning_viz.robustness import StylizedDataset, stylized

SPACE = PixelSpace((0.4, 0.5, 0.5), (0.25, 0.25, 0.3))
LAYERS = {"content_layers": ["0"], "style_layers": ["0", "2"]}
COUNT = 12


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)).eval()


def photographs(seed: int, count: int, side: int) -> Tensor:
    """Pixels ``[count, 3, side, side]``, away from the bounds."""
    return 0.1 + 0.8 * torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


IMAGES, LABELS = SPACE.to_inputs(photographs(0, COUNT, 12)), torch.arange(COUNT)
STYLES = [SPACE.to_inputs(photographs(1, 1, 10))[0], SPACE.to_inputs(photographs(2, 1, 14).round())[0]]


class Counted:
    """Calls a model and counts the passes; stops a run after so many."""

    def __init__(self, most: float = float("inf")) -> None:
        self.passes, self.most = 0, most

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        self.passes += 1
        if self.passes > self.most:
            raise KeyboardInterrupt
        return model(images)


def made(folder, **changed) -> StylizedDataset:
    arguments = {"model": network(), "steps": 4, "pixel_space": SPACE, "batch_size": 4, "progress": False, "share": 1.0}
    given = (
        arguments | LAYERS | {"dataset": TensorDataset(IMAGES, LABELS), "styles": STYLES, "folder": folder} | changed
    )
    return stylized(given.pop("dataset"), given.pop("styles"), **given)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> StylizedDataset:
    return made(tmp_path_factory.mktemp("stylized") / "copy")


def photos(data: StylizedDataset) -> np.ndarray:
    return np.stack([data.photo(index) for index in range(len(data))])


def test_each_copy_is_the_style_transfer_of_its_image_and_style(whole):
    assert {whole.style(index) for index in range(COUNT)} == {0, 1}
    for index in range(COUNT):
        one = style_transfer(
            network(), IMAGES[index], STYLES[whole.style(index)], optimizer="adam", steps=4, pixel_space=SPACE,
            progress=False, **LAYERS,
        )  # fmt: skip
        copy, label = whole[index]
        assert label == index
        assert (SPACE.to_pixels(copy[None]) - one.pixels).abs().max() < 1.6 / 255
        assert one.style_loss[-1] < one.style_loss[0]


def test_images_of_one_style_share_passes_and_a_second_call_needs_none(tmp_path):
    first, again = Counted(), Counted()
    data = made(tmp_path / "copy", forward=first)
    batches = sum(-(-[data.style(index) for index in range(COUNT)].count(style) // 4) for style in (0, 1))
    assert first.passes == batches * (1 + 1 + 4 + 1)
    assert np.array_equal(photos(data), photos(made(tmp_path / "copy", forward=again, share=0.2)))
    assert again.passes == 0


def test_an_interrupted_call_is_resumed_to_the_same_bits(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "copy", forward=Counted(most=10))
    kept = list((tmp_path / "copy").rglob("*.npy"))
    assert 0 < len(kept) < COUNT
    kept[0].unlink()
    assert np.array_equal(photos(made(tmp_path / "copy")), photos(whole))


def test_a_write_that_fails_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError("no space left")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space"):
        patched.setattr("pathlib.Path.replace", full)
        made(tmp_path / "copy")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made(tmp_path / "copy")) == COUNT


def test_the_share_is_kept_and_a_larger_one_replaces_the_same_and_more(tmp_path):
    dataset = TensorDataset(torch.rand(400, 1, 1, 1), torch.arange(400))
    drawn = {
        share: [
            StylizedDataset(dataset, tmp_path, pixel_space=SPACE, share=share, seed=3, styles=2).is_stylized(index)
            for index in range(400)
        ]
        for share in (0.0, 0.3, 0.7, 1.0)
    }
    assert sum(drawn[0.0]) == 0 and sum(drawn[1.0]) == 400
    assert abs(sum(drawn[0.3]) - 120) < 40 and abs(sum(drawn[0.7]) - 280) < 40
    assert all(more for less, more in zip(drawn[0.3], drawn[0.7], strict=True) if less)


def test_what_is_not_replaced_is_the_original_and_workers_see_the_same(whole):
    mixed = StylizedDataset(whole.dataset, whole.folder, pixel_space=SPACE, share=0.5, seed=0, styles=2)
    replaced = [mixed.is_stylized(index) for index in range(COUNT)]
    assert 0 < sum(replaced) < COUNT
    alone = torch.stack([mixed[index][0] for index in range(COUNT)])
    for index, is_replaced in enumerate(replaced):
        assert torch.equal(alone[index], whole[index][0] if is_replaced else IMAGES[index])
    images, labels = next(iter(DataLoader(mixed, batch_size=COUNT, num_workers=1)))
    assert torch.equal(images, alone) and torch.equal(labels, LABELS)
    assert torch.equal(mixed[-1][0], alone[-1])
    with pytest.raises(IndexError):
        mixed[COUNT]


def test_items_keep_their_kind(whole):
    class Item(NamedTuple):
        image: Tensor
        name: str

    class Items(Dataset):
        def __init__(self, kind):
            self.kind = kind

        def __len__(self):
            return COUNT

        def __getitem__(self, index):
            return self.kind(IMAGES[index])

    for kind in (lambda image: Item(image, "a"), lambda image: [image, "a"], lambda image: (image, "a")):
        item = StylizedDataset(Items(kind), whole.folder, pixel_space=SPACE, share=1, seed=0, styles=2)[2]
        assert type(item) is type(kind(IMAGES[0])) and item[1] == "a" and torch.equal(item[0], whole[2][0])
    bare = StylizedDataset(Items(lambda image: image), whole.folder, pixel_space=SPACE, share=1, seed=0, styles=2)
    assert torch.equal(bare[2], whole[2][0])


def test_the_manifest_says_what_made_the_copies(whole):
    settings = json.loads((whole.folder / "manifest.json").read_text())["settings"]
    assert settings["steps"] == 4 and settings["seed"] == 0 and len(settings["styles"]) == 2
    assert settings["style_layers"] == ["0", "2"] and settings["images"]["count"] == COUNT


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"steps": 5}, "steps was 4, is 5; pass another folder"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"styles": STYLES[:1]}, "styles was"),
        ({"style_layers": ["0"]}, "style_layers was"),
        ({"style_strength": 2.0}, "style_strength was 1.0, is 2.0"),
        ({"model": network().requires_grad_(False).apply(lambda part: hasattr(part, "bias") and part.bias.zero_())},
         "model was"),
        ({"dataset": TensorDataset(IMAGES.flip(0), LABELS)}, "images was"),
        ({"share": 1.5}, "share=1.5"),
        ({"steps": 0}, "steps=0"),
        ({"style_strength": 0.0}, "style_strength=0.0"),
        ({"styles": []}, "12 images and 0 styles"),
        ({"styles": [STYLES[0][None]]}, r"style 0 is \[1, 3"),
        ({"styles": [9 * STYLES[0]]}, "style 0 has pixels from"),
        ({"dataset": [image[:, : 12 - index] for index, image in enumerate(IMAGES)]}, "the images are of 12 sizes"),
    ],
)  # fmt: skip
def test_other_settings_and_what_makes_no_sense_are_refused_before_any_pass(whole, changed, words):
    with pytest.raises(ValueError, match=words):
        made(whole.folder, **changed, forward=Counted(most=0))


def test_data_that_change_or_are_no_images_are_refused(tmp_path):
    class Augmented(TensorDataset):
        def __getitem__(self, index):
            return torch.rand(3, 12, 12), 0

    with pytest.raises(ValueError, match="changes between two reads"):
        made(tmp_path / "copy", dataset=Augmented(IMAGES))
    for dataset, words in ((iter([]), "without length"), ([{"image": IMAGES[0]}], "item 0 begins with a dict")):
        with pytest.raises(TypeError, match=words):
            made(tmp_path / "copy", dataset=dataset)


def test_foreign_folders_and_damaged_files_are_named(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files and no manifest\.json"):
        made(tmp_path)
    data = made(tmp_path / "copy")
    data.path(3).write_bytes(b"damaged")
    with pytest.raises(MalformedFileError, match=r"0000003\.npy cannot be read"):
        data[3]
    for text in ("{", "[]", '{"format": 9, "settings": {}}'):
        (tmp_path / "copy" / "manifest.json").write_text(text)
        with pytest.raises(MalformedFileError, match="manifest"):
            made(tmp_path / "copy")


def test_the_model_and_chance_are_left_as_found(tmp_path):
    model, chance = network().train(), torch.get_rng_state()
    with pytest.warns(CueConflictWarning, match="train mode"):
        made(tmp_path / "copy", model=model)
    assert model.training and torch.equal(torch.get_rng_state(), chance)
    assert all(one.requires_grad and one.grad is None for one in model.parameters())
