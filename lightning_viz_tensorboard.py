"""What TensorBoard loads where lightning_viz is installed: 100 images a tag are kept instead of 10 random ones.

TensorBoard imports this module at every start, unguarded: what it raises would end TensorBoard for everybody on the
machine. So it stands beside the package, which costs 0.1 s to import, and imports nothing of it; it works where
lightning_viz or torch is broken.
"""

import os
import sys

from tensorboard.plugins.base_plugin import TBLoader

IMAGES = 100
"""Kept per tag, all in TensorBoard's memory; TensorBoard's own number is 10."""
SWITCH = "LIGHTNING_VIZ_TENSORBOARD"
"""Environment variable: 0 leaves TensorBoard as it is."""


class KeepImages(TBLoader):  # type: ignore[misc]
    """Raises ``samples_per_plugin`` for images, unless the user has set it; adds no plugin."""

    def fix_flags(self, flags):  # type: ignore[no-untyped-def]  # as TensorBoard's own
        """Change a parsed command line; whatever goes wrong, it stays as it is."""
        try:
            if os.environ.get(SWITCH, "").strip() == "0" or "images" in flags.samples_per_plugin:
                return
            flags.samples_per_plugin = {**flags.samples_per_plugin, "images": IMAGES}
            sys.stderr.write(
                f"lightning_viz: TensorBoard keeps {IMAGES} images a tag, not 10 "
                f"(--samples_per_plugin=images=N for another number, {SWITCH}=0 for none of this)\n"
            )
        except Exception:  # another TensorBoard than those known, or no stderr
            return
