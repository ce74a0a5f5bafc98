"""Conda environments, extras and rules agree; one environment without conda stays the default."""

import ast
import importlib.util
import inspect
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mess_core.workflow import jobs, record
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


def function_of(text: str) -> str:
    """Return the function of `mess_core.workflow.jobs` that a rule's script calls."""
    script = re.search(r'"\.\./scripts/(\w+\.py)"', text)
    assert script
    called = re.search(r"jobs\.(\w+)\(", (ROOT / "workflow/scripts" / script[1]).read_text())
    assert called
    return called[1]


def imports_of(name: str) -> set[str]:
    """Return the modules that a job imports itself, and those that its helpers in `jobs` do."""
    tree = ast.parse(inspect.getsource(getattr(jobs, name)))
    found, helpers = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            # With the names, because packages load theirs when they are asked for.
            found |= {f"from {node.module} import {alias.name}" for alias in node.names}
        if isinstance(node, ast.Name) and inspect.isfunction(getattr(jobs, node.id, None)):
            helpers.add(node.id)
    own = {helper for helper in helpers if getattr(jobs, helper).__module__ == jobs.__name__}
    return found.union(*(imports_of(helper) for helper in own - {name}))


def third_parties(statements: set[str]) -> dict[str, str]:
    """Return the foreign modules that are imported anywhere on the way, and by which of ours."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    ahead = [(statement, "the job") for statement in statements]
    while ahead:
        statement, by = ahead.pop()
        _, module, *names = statement.replace(" import ", " ").split()
        if module.split(".")[0] != "mess_core":
            found.setdefault(module.split(".")[0], by)
            continue
        module = _module_of(module, *names)
        if module in seen or module == jobs.__name__:
            continue  # a job imports itself what it needs
        seen.add(module)
        path = importlib.util.find_spec(module)
        assert path
        assert path.origin
        ahead += [(s, module) for s in _statements(ast.parse(Path(path.origin).read_text()))]
    return {name: by for name, by in found.items() if name not in sys.stdlib_module_names}


def _module_of(module: str, name: str = "") -> str:
    """Return where a name is really from, since packages load theirs when they are asked for."""
    if not name or not hasattr(importlib.import_module(module), "__path__"):
        return module
    if importlib.util.find_spec(f"{module}.{name}"):
        return f"{module}.{name}"
    return str(getattr(getattr(importlib.import_module(module), name), "__module__", module))


def _statements(tree: ast.AST) -> Iterator[str]:
    """Give all imports, but for those that only types need."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"from {node.module} import {alias.name}" for alias in node.names)


#: Imported by functions that these jobs do not call.
NOT_CALLED = {"search": {"anyascii", "filelock"}}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "text"), [pytest.param(*rule, id=rule[0]) for rule in rules()])
def test_an_environment_has_what_its_rules_import_sooner_or_later(name: str, text: str) -> None:
    environment = environment_of(text)
    statements = imports_of(function_of(text)) | {"from mess_core.workflow.script import job"}
    needed = third_parties(statements)
    assert "numpy" in needed, name
    given = installed_by(frozenset(pip_requirement(ROOT / f"envs/{environment}.yaml").extras))
    provided = distributions()
    lacking = {
        module: by
        for module, by in needed.items()
        if not {canonicalize_name(d) for d in provided.get(module, [module])} & given
    }
    assert lacking.keys() <= NOT_CALLED.get(environment, set()), lacking


@cache
def distributions() -> Mapping[str, list[str]]:
    """Return which distributions of this machine have a module."""
    return packages_distributions()


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
    # What locks files, checks settings and submits jobs changes no result.
    harmless = {"filelock", "jinja2", "lazy-loader", "pillow", "pydantic"}
    harmless |= {"snakemake-executor-plugin-slurm"}
    wanted = {canonicalize_name(Requirement(text).name) for text in named} - harmless
    assert {canonicalize_name(name) for name in record.LIBRARIES.values()} == wanted
