"""What is built for the package index holds the whole package and nothing else, and says there what it says here."""

import configparser
import email.parser
import importlib.util
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import lightning_viz

ROOT = Path(__file__).parents[1]
MEGABYTES = 2
PYPROJECT = (ROOT / "pyproject.toml").read_text()
REPOSITORY = re.search(r'^repository = "(.+?)"', PYPROJECT, re.MULTILINE)[1]
PACKAGE = {
    path.relative_to(ROOT).as_posix()
    for path in [*(ROOT / "lightning_viz").rglob("*"), *ROOT.glob("lightning_viz_*.py")]
    if path.is_file() and path.suffix != ".pyc"
}


def build(source, target, folder):
    """Build with the back end itself: no network, and no environment of its own."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(folder.glob("*.tar.gz" if target == "sdist" else "*.whl"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel as an index's user may have to make it: from the source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build(next(folder.iterdir()), "wheel", folder)


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def index_metadata():
    spec = importlib.util.spec_from_file_location("index_metadata", ROOT / "tools" / "index_metadata.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert files == PACKAGE
    assert {
        "lightning_viz/py.typed",
        "lightning_viz_callbacks.py",
        "lightning_viz_tensorboard.py",
        "lightning_viz/__init__.pyi",
    } <= files
    assert {f"lightning_viz/analysis/report/report.{end}" for end in ("css", "js", "html.jinja")} <= files


def test_the_source_distribution_holds_what_the_wheel_is_built_from_and_neither_tests_nor_documentation(sdist):
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    beside = {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "pyproject.toml", "tools/index_metadata.py"}
    assert files - {"PKG-INFO", ".gitignore"} == PACKAGE | beside


def test_each_is_at_most_two_megabytes(sdist, wheel):
    assert max(sdist.stat().st_size, wheel.stat().st_size) <= MEGABYTES * 2**20


def test_the_wheel_installs_the_command_and_all_entry_points_of_pyproject(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        points = configparser.ConfigParser(delimiters="=")
        points.read_string(archive.read(name).decode())
    declared = {"console_scripts": "project.scripts"}
    declared |= {group: f'project.entry-points."{group}"' for group in points.sections() if "." in group}
    declared |= {"tensorboard_plugins": "project.entry-points.tensorboard_plugins"}
    assert set(points.sections()) == set(declared) and len(declared) == 6
    for group, section in declared.items():
        table = PYPROJECT.partition(f"[{section}]\n")[2].partition("\n[")[0]
        assert dict(points[group]) == dict(re.findall(r'^([\w-]+) = "(.+)"$', table, re.MULTILINE))


def test_the_version_is_the_packages_own(metadata, sdist, wheel):
    assert metadata["Version"] == lightning_viz.__version__
    assert sdist.name == f"lightning_viz-{lightning_viz.__version__}.tar.gz"
    assert wheel.name == f"lightning_viz-{lightning_viz.__version__}-py3-none-any.whl"
    assert not re.search(r"^version = ", PYPROJECT, re.MULTILINE)


def test_all_addresses_of_the_index_are_made_from_the_one_in_pyproject(metadata):
    addresses = dict(line.split(", ") for line in metadata.get_all("Project-URL"))
    assert set(addresses) == {"Repository", "Documentation", "Changelog", "Issues"}
    assert all(address.startswith(REPOSITORY) for address in addresses.values())
    assert PYPROJECT.count("github.com") == 1


def test_the_readme_on_the_index_points_at_files_of_this_release_that_exist(metadata):
    readme = re.sub(r"^```.*?^```$", "", metadata.get_payload(), flags=re.DOTALL | re.MULTILINE)
    addresses = re.findall(r"\]\(([^)\s]+)", readme) + re.findall(r'(?:src|href)="([^"]+)', readme)
    assert addresses
    ours = re.compile(rf"{re.escape(REPOSITORY)}/(raw|blob)/v{re.escape(lightning_viz.__version__)}/([^#]+)")
    for address in addresses:
        assert re.match(r"https://|#", address), address
        if ours.match(address):
            kind, path = ours.match(address).groups()
            assert (ROOT / path).exists(), path
            assert (kind == "raw") == (Path(path).suffix in (".png", ".gif", ".svg")), address


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("![a net](docs/a.png)", "![a net](https://e.org/raw/v1.2/docs/a.png)"),
        ('<img width="9" src="docs/a.gif">', '<img width="9" src="https://e.org/raw/v1.2/docs/a.gif">'),
        ("[Start](docs/start/index.md#yaml)", "[Start](https://e.org/blob/v1.2/docs/start/index.md#yaml)"),
        ('<a href="LICENSE">', '<a href="https://e.org/blob/v1.2/LICENSE">'),
        (
            "[![CI](../../actions/ci.svg)](docs/a.md)",
            "[![CI](https://e.org/actions/ci.svg)](https://e.org/blob/v1.2/docs/a.md)",
        ),
        ("[torch](https://pytorch.org)", "[torch](https://pytorch.org)"),
        ("[below](#license)", "[below](#license)"),
        ("```python\nlayers[0](x)\n```", "```python\nlayers[0](x)\n```"),
        (
            "<!-- install -->\n```bash\ngit clone ...\n```\n<!-- /install -->",
            '<!-- install -->\n```bash\npip install "lightning-viz[cli]"\n```\n<!-- /install -->',
        ),
    ],
)
def test_the_readme_is_made_absolute_for_the_index(here, there, index_metadata):
    assert index_metadata.index_readme(here, "https://e.org", "1.2") == there
