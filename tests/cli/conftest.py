"""The same fixtures."""

from tests.analysis.conftest import LIGHTNING_SAYS, cli_run, drawing_process, drawn_here, own_seeds  # noqa: F401
