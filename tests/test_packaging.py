"""The files that only other programs read: they parse, and what they name is there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
HOOKS = ROOT / ".pre-commit-config.yaml"
CITATION = ROOT / "CITATION.cff"
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def test_every_yaml_file_parses():
    parts = (ROOT / "python" / "refinerl" / "recipes").rglob("*.yaml")
    files = [*FORMS, *WORKFLOWS, HOOKS, CITATION, *parts]
    assert {"fault.yml", "ci.yml", "release.yml", "demo.yaml", "smollm.yaml", "gpus-4.yaml"} <= {
        path.name for path in files
    }
    assert all(isinstance(read(path), dict) for path in files)


def test_the_citation_is_the_papers_and_of_this_version():
    citation = read(CITATION)
    assert citation.keys() >= {"cff-version", "message", "title", "authors", "version", "license"}
    assert citation["version"] == re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Ma", "Pu", "Liu", "Ai"]
    assert paper["identifiers"][0]["value"] == "arXiv:2603.18088"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_what_there_is(path: Path):
    workflow = read(path)
    assert workflow.keys() >= {"name", True, "permissions", "jobs"}  # YAML 1.1 reads `on` as true
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    for step in steps(path):
        assert ("run" in step) != ("uses" in step)
        script = re.sub(r"\$\{\{.*?\}\}", "x", step.get("run", ""))
        subprocess.run(["bash", "-n", "-c", script], check=True)
        assert set(re.findall(r"^make (\S+)", script, re.MULTILINE)) <= TARGETS


def test_ci_runs_what_the_readme_says():
    run = [step.get("run") for step in steps(ROOT / ".github" / "workflows" / "ci.yml")]
    assert {"make lint", "make test"} <= set(run)
    assert "make test" in (ROOT / "README.md").read_text()


def test_hooks_run_the_tools_of_the_environment():
    makefile = (ROOT / "Makefile").read_text()
    (local,) = read(HOOKS)["repos"]
    for hook in local["hooks"]:
        tool, action, *_ = shlex.split(hook["entry"])
        assert re.search(rf"^\t(\$\(BIN\)/)?{Path(tool).name} {action} ", makefile, re.MULTILINE)
    assert {hook["language"] for hook in local["hooks"]} == {"system"}


def test_forms_ask_for_something():
    for path in FORMS:
        if path.name != "config.yml":
            form = read(path)
            assert form.keys() >= {"name", "description", "body"}
            identifiers = [field["id"] for field in form["body"]]
            assert len(set(identifiers)) == len(identifiers) > 0
            assert all(field["attributes"]["label"] for field in form["body"])


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/releasing.md", ".github/PULL_REQUEST_TEMPLATE.md"]
)
def test_pages_name_targets_and_files_that_exist(name: str):
    text = (ROOT / name).read_text()
    assert set(re.findall(r"`make ([a-z-]+)`", text)) <= TARGETS
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / name).parent / link).exists(), link
