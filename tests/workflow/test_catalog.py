"""What the Snakemake workflow catalog asks for is there, and versions agree."""

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml

from mess_core.recordings import write_recordings
from tests.workflow.conftest import ROOT, Workspace
from tests.workflow.test_plan import RECORDINGS

pytestmark = pytest.mark.unit

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_entry_says_how_it_is_deployed() -> None:
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    deployment = usage["software-stack-deployment"]
    assert all(isinstance(value, bool) for value in deployment.values())
    assert deployment["conda"] == bool(list((ROOT / "envs").glob("*.yaml")))
    text = "".join(path.read_text() for path in (ROOT / "workflow").rglob("*.smk"))
    assert deployment["apptainer"] == ("container:" in text)
    assert usage["report"] == ("report(" in text)


def test_what_the_catalog_looks_for_is_there() -> None:
    assert re.search("snakemake.*workflow", (ROOT / "README.md").read_text(), re.I | re.S)
    assert (ROOT / "config" / "README.md").read_text().startswith("# Configuration")
    assert list((ROOT / "workflow" / "rules").glob("*.smk"))


@pytest.mark.slow
def test_the_catalogs_snakefile_plans_the_same_workflow(tmp_path: Path) -> None:
    write_recordings(tmp_path / "data/metadata/demo.tsv", RECORDINGS)
    (tmp_path / "data/metadata/demo.interpretations.tsv").touch()
    workspace = Workspace(tmp_path, root=ROOT / "workflow")
    outcome = workspace.snakemake("--dry-run", profile=str(ROOT / "profiles" / "ci"))
    assert outcome.status == 0, outcome.output[-3000:]
    planned = dict(re.findall(r"^(\w+) +(\d+)$", outcome.output, re.MULTILINE))
    assert set(planned) >= {"all", "features", "publish"}


def test_the_newest_version_of_the_changelog_is_this_one() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    entries = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", text, re.MULTILINE)
    released = [(version, day) for version, day in entries if version != "Unreleased"]
    assert released[0][0] == VERSION
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version, _ in released)
    days = [date.fromisoformat(day) for _, day in released]
    assert days == sorted(days, reverse=True)
