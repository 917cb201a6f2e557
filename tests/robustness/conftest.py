"""The same fixtures."""

from tests.adversarial.conftest import digits, given, space  # noqa: F401
