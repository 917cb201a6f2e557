"""The same fixtures."""

from tests.analysis.conftest import LIGHTNING_SAYS, cli_run, own_seeds  # noqa: F401
