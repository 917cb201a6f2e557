"""What Lightning itself warns of in runs as small as these is no error here."""

import pytest

from tests.callbacks.conftest import LIGHTNING_SAYS, own_seeds  # noqa: F401


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/analysis" in str(item.path):
            for line in LIGHTNING_SAYS:
                item.add_marker(pytest.mark.filterwarnings(line))
