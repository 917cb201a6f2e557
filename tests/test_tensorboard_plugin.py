"""Plain TensorBoard keeps 100 images a tag where we are installed, and starts also where we are broken."""

import argparse
import io
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

import lightning_viz
from lightning_viz_tensorboard import IMAGES, SWITCH, KeepImages

ROOT = Path(lightning_viz.__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LINE = f"lightning_viz: TensorBoard keeps {IMAGES} images a tag, not 10"


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A folder that knows nothing of us: two tags of 100 images, and a curve."""
    folder = tmp_path_factory.mktemp("logs")
    writer = SummaryWriter(folder / "run")
    for step in range(100):
        writer.add_scalar("loss", 1 / (1 + step), step)
        for tag in ("a", "b"):
            writer.add_image(tag, np.full((3, 4, 4), step, np.uint8), step)
    writer.close()
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What `pip install` puts beside the package: the module, and pyproject.toml's entry point."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copy(ROOT / "lightning_viz_tensorboard.py", folder)
    table = (ROOT / "pyproject.toml").read_text().partition("[project.entry-points.tensorboard_plugins]\n")[2]
    name, target = re.findall(r'^(\w+) = "(.+)"$', table.partition("\n[")[0], re.MULTILINE)[0]
    information = folder / "lightning_viz-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: lightning-viz\nVersion: 0.1.0\n")
    (information / "entry_points.txt").write_text(f"[tensorboard_plugins]\n{name} = {target}\n")
    return folder


@pytest.fixture(scope="module")
def broken(installed, tmp_path_factory):
    """The same where lightning_viz and torch raise when they are imported."""
    folder = tmp_path_factory.mktemp("broken") / "site"
    shutil.copytree(installed, folder)
    for package in ("lightning_viz", "torch"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(f"raise RuntimeError('{package} is broken')")
    return folder


@contextmanager
def running(logs, site, *options, off=False, **streams):
    """TensorBoard as a user starts it; its address, and what it has said so far."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port=0", *options]
    said = io.StringIO()
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site), **({SWITCH: "0"} if off else {})}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=site, **streams)
    try:
        for line in process.stderr:
            said.write(line)
            address = re.search(r"at (http://\S+?)/? ", line)
            if address:
                yield address[1], said
                return
        pytest.fail(f"TensorBoard did not start: {said.getvalue()}")
    finally:
        process.terminate()
        process.wait(20)
        process.stderr.close()


def kept_steps(address, tag, seconds=60):
    """The steps of a tag that TensorBoard keeps, when it has read all of the curve."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(URLError):
            curve = ask(f"{address}/data/plugin/scalars/scalars?tag=loss&run=run")
            if len(curve) == 100:
                return [row["step"] for row in ask(f"{address}/data/plugin/images/images?tag={tag}&run=run&sample=0")]
        time.sleep(0.2)
    return pytest.fail("TensorBoard did not read the folder")


def ask(address):
    with urllib.request.urlopen(address, timeout=30) as reply:
        return json.load(reply)


@pytest.mark.parametrize("server", ["true", "false"])
def test_plain_tensorboard_keeps_a_hundred_images_and_step_0_also_where_our_package_is_broken(server, broken, logs):
    with running(logs, broken, f"--load_fast={server}") as (address, said):
        for tag in ("a", "b"):
            assert kept_steps(address, tag) == list(range(100))
        assert said.getvalue().count(LINE) == 1


def test_a_variable_turns_it_off(installed, logs):
    with running(logs, installed, "--load_fast=false", off=True) as (address, said):
        assert len(kept_steps(address, "a")) == 10
        assert "lightning_viz" not in said.getvalue()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_person_sees_all_steps_in_the_browser(installed, logs):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with running(logs, installed) as (address, _), sync_api.sync_playwright() as playwright:
        kept_steps(address, "a")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"{address}/#images")
            loaders = page.locator("tf-image-loader")
            loaders.first.locator("img").wait_for(timeout=60_000)
            assert loaders.count() == 2
            for loader in loaders.all():
                slider = loader.locator("paper-slider")
                assert slider.evaluate("slider => slider.max") == 99
                slider.focus()
                slider.press("Home")
                sync_api.expect(loader).to_contain_text("step 0")
        finally:
            browser.close()


@pytest.mark.parametrize("given", [{}, {"scalars": 5}])
def test_other_samples_stay_as_they_are(given, monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    parsed = argparse.Namespace(samples_per_plugin=given)
    KeepImages().fix_flags(parsed)
    assert parsed.samples_per_plugin == {**given, "images": IMAGES}


@pytest.mark.parametrize("given", [None, "images=3", 5, {"images": 0}])
def test_flags_that_are_not_understood_stay_as_they_are(given, monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    parsed = argparse.Namespace(samples_per_plugin=given)
    KeepImages().fix_flags(parsed)
    assert parsed.samples_per_plugin == given


@pytest.mark.parametrize("lacking", ["flag", "stderr"])
def test_nothing_is_raised(lacking, monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    if lacking == "stderr":
        monkeypatch.setattr(sys, "stderr", None)
    given = {"samples_per_plugin": {}} if lacking == "stderr" else {}
    KeepImages().fix_flags(argparse.Namespace(**given))


def test_importing_it_imports_nothing_else():
    code = (
        "import sys, tensorboard.plugins.base_plugin\n"
        "before = set(sys.modules)\n"
        "import lightning_viz_tensorboard\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == ["lightning_viz_tensorboard"]
