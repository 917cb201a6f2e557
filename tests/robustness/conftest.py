"""The same fixtures."""

from tests.adversarial.conftest import digits, given, pixel_space  # noqa: F401
