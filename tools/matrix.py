"""Install and test the package on other Pythons, with the oldest and the newest versions of what it needs.

``make matrix`` runs this. A row of the matrix is a Python and a choice of versions: ``oldest`` takes the lowest that
``pyproject.toml`` allows and that have a wheel for this Python, ``newest`` the highest. Each row gets an empty
environment. First the wheel alone is installed, with ``pytorch_lightning`` as its only Lightning, and its command and
``smoke.py`` run; then ``lightning`` and what the tests import come along, and a part of the tests runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
TEST_TOOLS = (
    "pytest>=8", "hypothesis>=6.100", "lightning>=2.6.6", "captum>=0.7", "zennit>=0.5.1", "timm>=1.0",
    "openTSNE>=1.0.2", "transformers>=4.50",
)  # fmt: skip
OTHERS_WARNINGS = (
    "-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning",
    "-W", "ignore:Guards may run slower on Python 3.13.0:RuntimeWarning",  # torch's own
)  # fmt: skip
"""What old and new versions of others say to each other; all other warnings are errors, as everywhere in the tests."""
SHOWN = (
    "torch", "torchvision", "pytorch-lightning", "torchmetrics", "tensorboard", "numpy", "scipy", "scikit-learn",
    "matplotlib", "pillow", "jsonargparse",
)  # fmt: skip
TESTS = (
    "tests/hooks",
    "tests/attribution/test_cam.py",
    "tests/attribution/test_gradients.py",
    "tests/attribution/test_captum.py",
    "tests/render/test_page.py",
    "tests/render/test_embedding.py",
    "tests/callbacks/test_unchanged.py",
    "tests/callbacks/test_runs.py",
    "tests/analysis/test_checkpoints.py",
    "tests/cli/test_main.py",
    "tests/test_embedding.py",
    "tests/test_tensorboard_plugin.py",
)
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "uv"


def run(*command: str | Path, log: Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command without its failing being an error here, and keep what it printed.

    Args:
        command: the program and its arguments.
        log: file that the output is added to.
        cwd: folder that it runs in.
        environment: variables to set.
    """
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env={**os.environ, **environment}, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    with log.open("a") as file:
        print("$", *command, file=file)
        file.write(done.stdout)
    return done


def demand(*command: str | Path, log: Path) -> str:
    """Run a command that has to work, and return what it printed.

    Raises:
        RuntimeError: it failed; with the last lines of its output.
    """
    done = run(*command, log=log)
    if done.returncode:
        raise RuntimeError("\n".join([*map(str, command), *done.stdout.splitlines()[-8:]]))
    return done.stdout


def build_wheel(folder: Path, log: Path) -> Path:
    """Build the wheel that every row installs.

    Args:
        folder: where it is put.
        log: of the build.
    """
    demand(UV, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", folder, log=log)
    return max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime)


def find_python(python: str, log: Path) -> str | None:
    """The interpreter of a version on this machine: uv's, or one that pyenv holds without having it switched on.

    Args:
        python: version, such as ``"3.10"``.
        log: of the row.
    """
    held = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{python}.*/bin/python"))
    if held:
        return str(held[-1])
    done = run(UV, "python", "find", "--no-python-downloads", python, log=log)
    return None if done.returncode else done.stdout.splitlines()[-1]


def install(python: str, choice: str, wheel: Path, folder: Path, log: Path) -> Path | None:
    """An environment with the wheel and the chosen versions; nothing if this machine has no such Python.

    Args:
        python: version, such as ``"3.10"``.
        choice: a key of ``RESOLUTIONS``.
        wheel: to install.
        folder: of the environment; one that is there already is replaced.
        log: of the installation.
    """
    base = find_python(python, log)
    if base is None:
        return None
    pins = pins_of(folder)
    wheels = ("--only-binary", ":all:")
    demand(
        UV, "pip", "compile", "--quiet", "pyproject.toml", "--extra", "cli", "--python", base, *wheels,
        "--resolution", RESOLUTIONS[choice], "--output-file", pins, log=log,
    )  # fmt: skip
    demand(UV, "venv", "--quiet", "--clear", "--python", base, folder, log=log)
    interpreter = folder / "bin" / "python"
    demand(UV, "pip", "install", "--quiet", "--python", interpreter, *wheels, "-r", pins, log=log)
    demand(UV, "pip", "install", "--quiet", "--python", interpreter, "--no-deps", wheel, log=log)
    return interpreter


def pins_of(folder: Path) -> Path:
    """The file of the versions that were chosen for an environment.

    Args:
        folder: of the environment.
    """
    return folder.with_name(f"{folder.name}.txt")


def versions(interpreter: Path, log: Path) -> dict[str, str]:
    """The versions of what is installed, by name.

    Args:
        interpreter: of the environment.
        log: of the row.
    """
    listed = json.loads(demand(UV, "pip", "list", "--format", "json", "--quiet", "--python", interpreter, log=log))
    return {package["name"]: package["version"] for package in listed}


def use_alone(interpreter: Path, log: Path) -> bool:
    """Whether the installed package's command and the shortest script work, from a folder with nothing in it.

    Args:
        interpreter: of the environment.
        log: of the row.
    """
    away = interpreter.parents[1] / "away"
    away.mkdir(exist_ok=True)
    commands = [[interpreter.parent / "lightning-viz", "--help"], [interpreter, ROOT / "tools" / "smoke.py", "log"]]
    return all(run(*command, log=log, cwd=away).returncode == 0 for command in commands)


def use_in_tests(interpreter: Path, tests: list[str], minutes: float, log: Path) -> str:
    """What the tests' last lines say together, such as ``300 passed, 2 skipped``.

    Args:
        interpreter: of the environment, which gets what the tests import, too; the chosen versions stay.
        tests: files and folders.
        minutes: that each of them may take.
        log: of the row.
    """
    if not tests:
        return "not run"
    pins = pins_of(interpreter.parents[1])
    demand(UV, "pip", "install", "--quiet", "--python", interpreter, "-c", pins, *TEST_TOOLS, log=log)
    counts: dict[str, int] = {}
    for test in tests:
        done = run(
            "timeout", str(round(60 * minutes)), interpreter, "-m", "pytest", "-p", "no:cacheprovider",
            *OTHERS_WARNINGS, test, log=log, OMP_NUM_THREADS="1",
        )  # fmt: skip
        last = next((line for line in reversed(done.stdout.splitlines()) if re.search(r" in [\d.]+s", line)), "")
        for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", last or "1 failed"):
            counts[word] = counts.get(word, 0) + int(number)
        if done.returncode and not re.search("failed|error", last):
            counts["failed"] = counts.get("failed", 0) + 1  # ended, by the clock say, before it could count
    return ", ".join(
        f"{number} {word}" for word, number in sorted(counts.items(), key=lambda item: item[0] != "passed")
    )


def table(rows: list[dict[str, str]]) -> str:
    """The rows as Markdown.

    Args:
        rows: of equal keys.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(keys) + " |", "| " + " | ".join("---" for _ in keys) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row.get(key, "") for key in keys) + " |" for row in rows)])


def main() -> None:
    """Run the rows that were asked for, print their table, and exit with 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", default=PYTHONS, help="versions (default: %(default)s)")
    parser.add_argument("--versions", nargs="+", default=[*RESOLUTIONS], choices=[*RESOLUTIONS])
    parser.add_argument("--tests", nargs="*", default=TESTS, help="files and folders; none: only the smoke test")
    parser.add_argument("--minutes", type=float, default=15, help="that each of them may take")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "matrix")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    wheel = build_wheel(out, out / "build.log")
    rows, failed = [], False
    for python, choice in ((python, choice) for python in arguments.python for choice in arguments.versions):
        log, folder = out / f"{python}-{choice}.log", out / f"{python}-{choice}"
        log.unlink(missing_ok=True)
        row = {"Python": python, "versions": choice}
        rows.append(row)
        try:
            interpreter = install(python, choice, wheel, folder, log)
            if interpreter is None:
                row["alone"] = "no such Python here"
                continue
            found = versions(interpreter, log)
            row |= {name: found[name] for name in SHOWN}
            row["alone"] = "works" if use_alone(interpreter, log) else "fails"
            row["tests"] = use_in_tests(interpreter, arguments.tests, arguments.minutes, log)
        except RuntimeError as error:
            row["alone"] = "fails"
            print(error, file=sys.stderr)
        failed |= row["alone"] == "fails" or bool(re.search("failed|error", row.get("tests", "")))
        print(row, flush=True)
    print(table(rows))
    (out / "table.md").write_text(table(rows) + "\n")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
