"""Conda environments, extras and rules agree; one environment without conda stays the default."""

import re
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mess_core.workflow import record
from tests.workflow.conftest import ROOT
from tests.workflow.rules import rules

pytestmark = pytest.mark.unit

ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: What development alone needs.
DEVELOPMENT = "dev"


def pip_requirement(path: Path) -> Requirement:
    """Return the one thing that an environment installs with pip."""
    dependencies = yaml.safe_load(path.read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    (requirement,) = pip
    return Requirement(requirement)


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_an_environment_installs_this_release_with_extras_that_exist(path: Path) -> None:
    requirement = pip_requirement(path)
    assert requirement.name == PROJECT["name"]
    assert str(requirement.specifier) == f"=={PROJECT['version']}"
    assert requirement.extras <= set(PROJECT["optional-dependencies"]) - {DEVELOPMENT, "workflow"}
    content = yaml.safe_load(path.read_text())
    assert content["channels"] == ["conda-forge", "nodefaults"]
    plain = [entry for entry in content["dependencies"] if isinstance(entry, str)]
    assert plain == [f"python {PROJECT['requires-python']}", "pip"]


def environment_of(text: str) -> str:
    found = re.search(r'conda:\s+"\.\./\.\./envs/(\w+)\.yaml"', text)
    assert found
    return found[1]


def test_every_rule_names_one_that_exists_and_none_is_idle() -> None:
    assert {environment_of(text) for _, text in rules()} == {path.stem for path in ENVIRONMENTS}


def test_no_profile_asks_for_conda() -> None:
    profiles = list((ROOT / "profiles").glob("*/*.yaml"))
    assert len(profiles) >= 3
    for path in profiles:
        keys = yaml.safe_load(path.read_text())
        assert not {"sdm", "software-deployment-method", "use-conda"} & set(keys), path


@cache
def installed_by(extras: frozenset[str]) -> frozenset[str]:
    """Return all distributions that the project brings with some extras."""
    wanted = list(PROJECT["dependencies"])
    for extra in extras:
        wanted += PROJECT["optional-dependencies"][extra]
    found: set[str] = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            wanted += requires(name) or []
        except PackageNotFoundError:
            found.remove(name)
    return frozenset(found)


def test_records_look_for_all_that_the_project_depends_on() -> None:
    extras = PROJECT["optional-dependencies"]
    named = [text for name in extras if name != DEVELOPMENT for text in extras[name]]
    named += PROJECT["dependencies"]
    # What locks files, checks settings, submits jobs and serves changes no result.
    harmless = {"filelock", "jinja2", "lazy-loader", "pillow", "pydantic"}
    harmless |= {"snakemake-executor-plugin-slurm", "fastapi", "fastapi-offline", "uvicorn"}
    wanted = {canonicalize_name(Requirement(text).name) for text in named} - harmless
    assert {canonicalize_name(name) for name in record.LIBRARIES.values()} == wanted
