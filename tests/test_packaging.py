"""The files that package the project agree with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "pymbar": "pymbar-core"}


def recipe() -> dict:
    text = (ROOT / "recipe" / "meta.yaml").read_text(encoding="utf-8")
    values = dict(re.findall(r'{% set (\w+) = "(.*)" %}', text)) | {"PYTHON": "python"}
    text = re.sub(r"{%.*%}", "", text)
    return yaml.safe_load(re.sub(r"{{ (\w+) }}", lambda found: values[found[1]], text))


def test_the_recipe_has_the_version_and_the_packages_of_the_project():
    found = recipe()
    assert found["package"] == {"name": PROJECT["name"], "version": PROJECT["version"]}
    split = [re.fullmatch(r"([\w-]+)(.*)", text).groups() for text in PROJECT["dependencies"]]
    needed = {f"{CONDA_NAMES.get(name, name)} {version}" for name, version in split}
    assert set(found["requirements"]["run"]) == needed | {f"python {PROJECT['requires-python']}", "__linux"}


def test_the_citation_has_the_version_of_the_project():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == PROJECT["version"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_files_of_the_forge_are_valid_and_run_the_same_script_as_anywhere(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent.name == "workflows":
        commands = [step.get("run", "") for job in content["jobs"].values() for step in job["steps"]]
        assert ".ci/run" in commands
    elif path.name != "config.yml":
        assert {"name", "description", "body"} <= set(content)
