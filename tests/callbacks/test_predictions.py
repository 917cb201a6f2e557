"""Predictions beside the truth, of segmentations and image-to-image models; dense models take every view."""

import warnings

import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_jaccard_index

from lightning_viz import (
    ActivationMaps,
    ActivationStatistics,
    Dreams,
    GradCAM,
    LayerEmbeddings,
    Occlusion,
    Predictions,
    Probe,
    Saliency,
    TopSamples,
    ViewWarning,
    default_views,
)
from lightning_viz.callbacks.predictions import mask_of
from lightning_viz.callbacks.probe import Samples
from lightning_viz.callbacks.snapshot import Snapshot, resolved
from lightning_viz.errors import ViewError
from lightning_viz.hooks.observation import Observation
from lightning_viz.hooks.target_types import ClassTarget
from tests.dense_nets import CLASSES, Denoiser, Dense, UNet, Unpooling, loader, noisy_shapes, shapes

from .conftest import fit, said

MAPS = {UNet: "bottom2", Unpooling: "bottom", Denoiser: "inner2"}


def run(folder, build, data, views, epochs=2):
    torch.manual_seed(0)
    model = build()
    fit(folder, model, views, loader(data), loader(data), max_epochs=epochs)
    return model


@pytest.mark.parametrize("build", MAPS)
def test_dense_models_take_every_view(build, drawn_at_once, tmp_path):
    data = noisy_shapes(24) if build is Denoiser else shapes(40)
    target = "0" if build is Denoiser else "region"  # an image has no class that goes without saying
    views = [
        *(one for one in default_views(probe=Probe(samples=4)) if not isinstance(one, LayerEmbeddings)),
        Predictions(probe=Probe(samples=4)),
        GradCAM(target=target, layers=MAPS[build], probe=Probe(samples=4)),
        ActivationMaps(layers="head", probe=Probe(samples=4)),
        Saliency(method="guided_backprop", target=target, probe=Probe(samples=4)),
        Occlusion(target=target, samples=2, patch=8, stride=8, probe=Probe(samples=4)),
        LayerEmbeddings(samples=24, perplexity=5.0, probe=Probe(samples=4)),
        TopSamples(layers=MAPS[build], best=2, probe=Probe(samples=4)),
        ActivationStatistics(probe=Probe(samples=4)),
        Dreams(each=2, updates=2, probe=Probe(samples=4)),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ViewWarning)
        run(tmp_path, build, data, views, epochs=1)
    assert not said(caught)
    assert not [one for one in drawn_at_once if one.drawn is None]
    tags = drawn_at_once.tags()
    kinds = ("activations", "grad_cam", "saliency", "occlusion", "embedding", "top_samples", "statistics", "dreams")
    for kind in (*kinds, "filters", "predictions"):
        assert any(tag.startswith(kind) for tag in tags), kind


def test_the_figures_are_of_the_probe_and_become_curves(drawn_at_once, tmp_path):
    data = shapes(24)
    probe = Probe(samples=8, inputs=data.images[:8], labels=data.masks[:8])
    model = run(tmp_path, UNet, data, [Predictions(probe=probe)])
    last = drawn_at_once[-1]
    model.eval()
    with torch.no_grad():
        predicted = model(data.images[:8]).argmax(1)
    overlap = multiclass_jaccard_index(predicted, data.masks[:8], 4)
    assert last.drawn.scalars["predictions/mean_iou"] == pytest.approx(float(overlap), abs=1e-5)
    accuracy = float((predicted == data.masks[:8]).float().mean())
    assert last.drawn.scalars["predictions/pixel_accuracy"] == pytest.approx(accuracy)


def test_classes_have_the_data_sets_names_and_the_same_samples_at_every_step(drawn_at_once, tmp_path):
    run(tmp_path, UNet, shapes(24), [Predictions(every_n_train_steps=1)])
    arguments = drawn_at_once.arguments("predictions")
    assert sorted(arguments) == [0, 1, 2]
    assert arguments[0]["names"] == list(CLASSES)
    assert all((one["truth"] == arguments[0]["truth"]).all() for one in arguments.values())
    assert arguments[0]["truth"].any() and (arguments[0]["images"] == arguments[2]["images"]).all()


class Returning(UNet):
    """As torchvision's segmentation models: a dict, the scores first."""

    def forward(self, x):
        return {"out": super().forward(x), "aux": x}

    def training_step(self, batch, batch_idx):
        return super().forward(batch[0]).mean()


class Coarse(UNet):
    """Scores of half the size."""

    def forward(self, x):
        return super().forward(x)[..., ::2, ::2]

    def training_step(self, batch, batch_idx):
        return self(batch[0]).mean()


def test_a_dict_of_outputs_and_scores_smaller_than_the_masks_are_shown(drawn_at_once, tmp_path):
    for build in (Returning, Coarse):
        run(tmp_path, build, shapes(24), [Predictions()])
    notes = [one.sketch.arguments["notes"] for one in drawn_at_once]
    assert all(one.drawn is not None for one in drawn_at_once)
    assert not notes[0] and "16 × 16 places enlarged to the masks' 32 × 32" in notes[-1][0]


def test_pixels_that_do_not_count_are_left_out(drawn_at_once, tmp_path):
    images, masks = shapes(24)
    masks = masks.masked_fill(masks == 0, 255)

    class Ignoring(UNet):
        def training_step(self, batch, batch_idx):
            return self(batch[0]).mean()

    run(tmp_path, Ignoring, (images, masks), [Predictions()])
    assert not (drawn_at_once[0].sketch.arguments["truth"] == 0).any()
    assert "of the pixels do not count" in drawn_at_once[0].sketch.arguments["notes"][0]


def scalars(scores, masks, **options):
    """What the view measures of scores ``[n, K, h, w]`` beside masks."""
    images = torch.zeros(len(masks), 1, *masks.shape[1:])
    look = Snapshot(Observation(images, outputs=scores), Samples(images, None, head=len(masks), truths=masks), step=0)
    (sketch,) = Predictions(**options).draw(look)
    return {tag.removeprefix("predictions/"): value for tag, value in sketch.scalars.items()}


@pytest.mark.parametrize("uncounted", [255, -100])
def test_pixels_that_do_not_count_change_no_score(uncounted):
    masks, scores = shapes(8).masks, torch.randn(8, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    wrong = scores.argmax(1) != masks
    assert scalars(scores, masks)["pixel_accuracy"] == pytest.approx(1 - float(wrong.float().mean()))
    assert set(scalars(scores, masks.masked_fill(wrong, uncounted)).values()) == {1.0}
    assert scalars(scores, masks.masked_fill(wrong, 2), ignore_index=2)["pixel_accuracy"] == 1


def test_a_class_that_does_not_occur_has_no_overlap_and_a_class_too_many_is_an_error():
    masks = torch.arange(2)[:, None, None].expand(2, 4, 4)
    scores = nn.functional.one_hot(masks, 3).permute(0, 3, 1, 2).float()
    assert scalars(scores, masks) == {"mean_iou": 1, "pixel_accuracy": 1, "iou/0": 1, "iou/1": 1}
    with pytest.raises(ViewError, match=r"hold class 3, but the model predicts 3 classes: .* as ignore_index"):
        scalars(scores, masks * 3)


def test_the_noise_ratio_is_the_mean_of_the_samples():
    images = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs = images * torch.tensor([0.9, 0.5, 0.1])[:, None, None, None]
    expected = -10 * (outputs - images).square().mean((1, 2, 3)).log10()
    assert scalars(outputs, images) == {"psnr": pytest.approx(float(expected.mean()))}


def test_an_autoencoder_is_compared_with_its_input(drawn_at_once, tmp_path):
    class Autoencoder(Dense):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 1)

        def forward(self, x):
            return self.layer(x)

        def training_step(self, batch, batch_idx):
            return (self(batch[0]) - batch[0]).square().mean()

    run(tmp_path, Autoencoder, (shapes(24).images, torch.arange(24) % 3), [Predictions()])
    arguments = drawn_at_once[0].sketch.arguments
    assert arguments["truth_name"] == "input itself" and (arguments["truth"] == arguments["images"]).all()


def test_a_classifier_has_no_predictions_of_places(drawn_at_once, tmp_path):
    class Classifier(UNet):
        def forward(self, x):
            return super().forward(x).mean((2, 3))

        def training_step(self, batch, batch_idx):
            return self(batch[0]).mean()

    with pytest.warns(ViewWarning, match=r"predictions are shown of maps"):
        run(tmp_path, Classifier, shapes(24), [Predictions()])


def test_which_truth_is_a_mask():
    mask = torch.zeros(2, 4, 4)
    assert mask_of(mask.long(), 5) is not None and mask_of(mask[:, None].long(), 5) is not None
    assert mask_of(mask[:, None], 1) is not None  # zeros and ones beside one score
    assert mask_of(mask[:, None] + 0.5, 1) is None and mask_of(mask[:, None], 3) is None
    assert mask_of(torch.zeros(2, 3, 4, 4), 3) is None


def test_the_region_of_a_sample_is_its_largest_class_beside_the_background():
    masks = torch.zeros(2, 4, 4, dtype=torch.long)
    masks[0, :2, :2], masks[0, 3] = 2, 3
    masks[0, 3, 3], masks[1, 0] = 255, 1
    samples = Samples(torch.zeros(2, 1, 4, 4), None, 2, truths=masks)
    target = resolved("region", samples)
    assert isinstance(target, ClassTarget) and target.index.tolist() == [2, 1]
    assert torch.equal(target.mask, torch.stack([masks[0] == 2, masks[1] == 1]))
    assert torch.equal(resolved("region:3", samples).mask, masks == 3)
    with pytest.raises(ValueError, match="hold no masks"):
        resolved("region", Samples(torch.zeros(2, 1, 4, 4), None, 2))
