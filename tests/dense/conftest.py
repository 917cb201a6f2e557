"""Dense predictors trained once for all tests that look into them."""

import pytest
import torch

from tests.dense_nets import UNet, Unpooling, shapes, trained, trained_finder


@pytest.fixture(scope="session")
def finder():
    return trained_finder()


@pytest.fixture(scope="session", params=[UNet, Unpooling], ids=lambda build: build.__name__)
def segmentation(request):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield trained(request.param, shapes(960), 220)
    torch.set_num_threads(threads)
