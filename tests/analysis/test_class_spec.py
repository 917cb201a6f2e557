"""What is named by a class path is made, be it a class or a function, with or without arguments."""

import pytest
from torch.utils.data import Dataset, TensorDataset

from lightning_viz.analysis.config import ClassSpec, instantiate
from tests.callbacks.conftest import images


def everything():
    return TensorDataset(*images(5))


def some(count: int):
    return TensorDataset(*images(count))


@pytest.mark.parametrize(("name", "arguments", "count"), [("everything", {}, 5), ("some", {"count": "3"}, 3)])
def test_a_function_makes_data_as_a_class_does(name, arguments, count):
    assert len(instantiate(ClassSpec(f"{__name__}.{name}", arguments), Dataset, "data")) == count
