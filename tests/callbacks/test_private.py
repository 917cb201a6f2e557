"""Private views: maps and numbers alone leave the training process, no input in pictures, files or checkpoints."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_viz import Hyperplanes, Predictions, Probe
from lightning_viz.catalogue import views

from .conftest import ConvNet, Net, Perceptron, fit, images, loader, plane

ALIKE = 0.95  # correlation from which on an array counts as an image of the data


def arrays(value):
    """All arrays in a structure, each with its path."""
    if isinstance(value, (np.ndarray, torch.Tensor)):
        yield "", np.asarray(value)
    elif isinstance(value, dict):
        yield from ((f"/{key}{path}", part) for key in value for path, part in arrays(value[key]))
    elif isinstance(value, (list, tuple)):
        yield from ((f"/{key}{path}", part) for key in range(len(value)) for path, part in arrays(value[key]))
    elif hasattr(value, "__dataclass_fields__"):
        yield from arrays(vars(value))


def shown(value, data):
    """Paths of arrays of which a part of an image's size resembles one of the data's images ``[N, C, H, W]``."""
    height, width = data.shape[2:]
    known = np.concatenate([data.reshape(-1, height * width), data.mean(1).reshape(-1, height * width)])
    known = known - known.mean(1, keepdims=True)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    places = []
    for path, part in arrays(value):
        if part.ndim > 2 and part.shape[-1] == 3 and part.dtype == np.uint8:
            part = np.moveaxis(part, -1, -3)
        if part.ndim < 2 or part.shape[-2:] != (height, width):
            continue
        rows = np.nan_to_num(part.reshape(-1, height * width).astype(np.float64))
        rows = rows - rows.mean(1, keepdims=True)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        if (np.abs(rows @ known.T) > ALIKE).any():
            places.append(path)
    return places


def every_view(private, data):
    probe = Probe(inputs=data, labels=torch.zeros(len(data), dtype=torch.long), samples=4)
    kinds = [kind for kind in views() if kind not in ("hyperplanes", "predictions", "update_ratio", "attention")]
    return [views()[kind].load()(probe=probe, private=private) for kind in kinds]


@pytest.mark.parametrize("private", [False, True])
def test_no_view_lets_an_input_out(private, tmp_path, drawn_at_once, capfd):
    data, _ = images()
    trainer = fit(tmp_path, ConvNet(), every_view(private, data), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    kept = torch.load(tmp_path / "saved.ckpt", weights_only=True)["lightning_viz"]
    drawn = {str(one.sketch.arguments.get("tag")): shown(one.sketch.arguments, data.numpy()) for one in drawn_at_once}
    kinds = {tag.partition("/")[0] for tag in drawn}
    assert kinds >= {"filters", "activations", "grad_cam", "saliency", "occlusion", "statistics", "adversarial"}
    assert ("top_samples" in kinds) != private
    out = {tag: places for tag, places in drawn.items() if places} | {"kept": shown(kept, data.numpy())}
    if private:
        assert out == {"kept": []}
        assert capfd.readouterr().err.count("skipped TopSamples: its pictures are samples") == 1
    else:  # the same search finds them where they are
        assert {tag.partition("/")[0] for tag in out} >= {"activations", "grad_cam", "saliency", "adversarial"}
        assert out["kept"]
    last = [one.sketch.arguments for one in drawn_at_once if one.sketch.arguments.get("projector")][-1]
    assert (last["images"] is None) == private and ("embedding/input" in drawn) != private


def test_of_a_plane_no_sample_is_drawn(tmp_path, drawn_at_once):
    points, labels = plane()
    fit(tmp_path, Perceptron(), [Hyperplanes(private=True)], loader(points, labels), max_epochs=1)
    drawn = [one.sketch.arguments for one in drawn_at_once if "samples" in one.sketch.arguments]
    assert drawn and not any(len(arguments["samples"]) for arguments in drawn)


class Autoencoder(Net):
    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        return nn.functional.mse_loss(self(batch[0]), batch[0])

    def validation_step(self, batch, batch_idx):
        self.log("loss", nn.functional.mse_loss(self(batch[0]), batch[0]))


def test_predicted_images_are_a_number(tmp_path, drawn_at_once, capfd):
    data = DataLoader(TensorDataset(torch.rand(8, 1, 8, 8)), batch_size=4)
    fit(tmp_path, Autoencoder(), [Predictions(private=True, probe=4)], data, data, max_epochs=1)
    assert not drawn_at_once.tags()
    assert all("predictions/psnr" in one.drawn.scalars for one in drawn_at_once)
    assert capfd.readouterr().err.count("Predictions plots numbers alone") == 1
