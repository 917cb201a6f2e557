"""Grad-CAM of a class over its region lies on the region, for a U-Net and an encoder-decoder with max-unpooling."""

import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_jaccard_index

from lightning_viz import attribution
from lightning_viz.hooks.targets import region
from tests.dense_nets import shapes

LAYERS = {"UNet": ("bottom2", "merge1"), "Unpooling": ("bottom", "decode2")}


def on_the_region(model, layer):
    """The share of the maps' mass that lies on the shapes, and the share of the area that they are."""
    images, masks = shapes(48, seed=9)
    labels = masks.flatten(1).amax(1)
    inside = masks > 0
    heat = attribution.grad_cam(model, images, region(inside, labels), layers=[layer])[layer]
    heat = F.interpolate(heat, masks.shape[1:], mode="bilinear")[:, 0]
    mass = (heat * inside).flatten(1).sum(1) / heat.flatten(1).sum(1)
    return float(mass.nanmean()), float(inside.float().mean())


def test_the_nets_know_the_shapes(segmentation):
    images, masks = shapes(120, seed=9)
    with torch.no_grad():
        predicted = segmentation(images).argmax(1)
    assert multiclass_jaccard_index(predicted, masks, 4) > 0.9


def test_the_mass_of_a_regions_grad_cam_lies_on_the_region(segmentation):
    for layer in LAYERS[type(segmentation).__name__]:
        mass, area = on_the_region(segmentation, layer)
        assert mass > 0.5 and mass > 3 * area, (layer, mass, area)
