import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "activation_maps",
        "embedding",
        "hyperplanes",
        "filters",
        "animation",
        "dreams",
        "attacks",
        "robustness_curves",
    ],
)
def test_drawing_pays_neither_for_torch_nor_for_pyplot(module):
    heavy = ("torch", "matplotlib.pyplot")
    code = f"import sys, lightning_viz.render.{module}; print([each for each in {heavy} if each in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
