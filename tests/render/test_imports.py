import subprocess
import sys

MODULES = (
    "activations",
    "embedding",
    "hyperplanes",
    "weights",
    "animation",
    "dreams",
    "attacks",
    "robustness",
)


def test_drawing_pays_neither_for_torch_nor_for_pyplot():
    heavy = ("torch", "matplotlib.pyplot")
    code = f"""
import importlib, sys
for module in {MODULES}:
    importlib.import_module(f"lightning_viz.render.{{module}}")
    print(module, [each for each in {heavy} if each in sys.modules])
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"{module} []" for module in MODULES]
