"""Room on a disk."""

from __future__ import annotations

import math
import shutil
from pathlib import Path


def free_space(folder: Path) -> float:
    """Bytes that are free where a folder is or will be; infinite where that cannot be known.

    Args:
        folder: of a local file system.
    """
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:  # not made yet, or deleted
            continue
        except OSError:
            break
    return math.inf
