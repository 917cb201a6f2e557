"""Files that others read: the citation, the forms of issues, the workflows."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PYPROJECT = (ROOT / "pyproject.toml").read_text()
named = pytest.mark.parametrize


def test_the_citation_has_what_the_format_requires_and_the_packages_license():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0" and citation["type"] in ("software", "dataset")
    assert citation["authors"] and all(
        author.get("name") or author.get("family-names") for author in citation["authors"]
    )
    assert f'license = "{citation["license"]}"' in PYPROJECT
    assert "version" not in citation and "repository-code" not in citation  # each stands in one other place


@named("form", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_in_a_way_that_github_can_show(form):
    content = yaml.safe_load(form.read_text())
    assert content["name"] and content["description"]
    ids = [part["id"] for part in content["body"] if part["type"] != "markdown"]
    assert ids and len(set(ids)) == len(ids)
    for part in content["body"]:
        assert part["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert part["attributes"]["value" if part["type"] == "markdown" else "label"]
        if part["type"] in ("dropdown", "checkboxes"):
            assert len(part["attributes"]["options"]) >= (2 if part["type"] == "dropdown" else 1)


@named("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_of_a_workflow_is_pinned_to_a_whole_commit_with_its_version_beside_it(workflow):
    uses = re.findall(r"uses: (.*)", workflow.read_text())
    assert uses and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in uses)


@named("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_write_nothing_and_only_publication_gets_an_identity(workflow):
    content = yaml.safe_load(workflow.read_text())
    assert content["permissions"] == {"contents": "read"}
    allowed = {name: job["permissions"] for name, job in content["jobs"].items() if "permissions" in job}
    assert allowed == ({"publish": {"id-token": "write"}} if workflow.stem == "release" else {})
    assert "secrets." not in workflow.read_text()


def test_the_matrix_of_ci_has_every_python_and_both_ends_of_the_versions_that_make_matrix_has():
    job = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())["jobs"]["matrix"]
    table = (ROOT / "tools" / "matrix.py").read_text()
    assert job["strategy"]["matrix"]["python"] == re.findall(r'"([\d.]+)"', re.search("PYTHONS = (.*)", table)[1])
    assert job["strategy"]["matrix"]["versions"] == re.findall(r'"(\w+)":', re.search("RESOLUTIONS = (.*)", table)[1])
    assert f'requires-python = ">={job["strategy"]["matrix"]["python"][0]}"' in PYPROJECT


@named("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_commands_and_files_that_there_are(workflow):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    steps = [step for job in yaml.safe_load(workflow.read_text())["jobs"].values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    assert set(re.findall(r"\bmake (\w+)", commands)) <= set(targets)
    assert all((ROOT / path).exists() for path in re.findall(r"(?:tools/|\.ci/)[\w.]+", commands))
