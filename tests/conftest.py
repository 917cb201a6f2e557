"""One thread: on two cores, small networks spend their time waiting for each other's threads."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
