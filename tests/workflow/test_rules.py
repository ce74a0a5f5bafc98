"""Every rule has what a cluster and a reader need."""

import re
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT

pytestmark = pytest.mark.unit

RULE_FILES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
SECTIONS = ("log", "benchmark", "conda", "threads", "resources", "params", "message", "script")


def rules() -> list[tuple[str, str]]:
    """Return every rule's name, without its shard, and its text."""
    pattern = re.compile(r"^( *)rule *(\w*):\n((?:\1 +.*\n|\s*\n)+)", re.MULTILINE)
    return [
        (match[2] or _first_name(match[3]), match[3])
        for path in RULE_FILES
        for match in pattern.finditer(path.read_text())
    ]


def _first_name(text: str) -> str:
    """Return what a rule that is made in a loop is called by its `name:`."""
    found = re.search(r'name:\s+\w*\(?f?"(\w+?)_?["{]', text)
    assert found
    return found[1]


def test_all_rules_are_seen() -> None:
    names = {name for name, _ in rules()}
    assert names == {
        *("demo_corpus", "recordings", "untrained", "features", "gather_features"),
        *("targets", "gather_targets", "decomposition", "probing", "question", "track"),
        *("aspects", "projection", "index", "publish"),
    }


@pytest.mark.parametrize(("name", "text"), rules())
def test_a_rule_is_complete(name: str, text: str) -> None:
    for section in SECTIONS:
        assert re.search(rf"^ +{section}:$|^ +{section}: \S", text, re.MULTILINE), section
    assert "mem_mb=" in text
    assert "runtime=" in text
    assert ("gpu=" in text) == (name == "features")
    parameters = re.search(r"params:\n((?: +\S.*\n)+?)(?= +\w+:\n)", text)
    assert parameters
    # One dict, because Snakemake compares params as an unnamed set.
    assert parameters[1].count("cfg=") == 1
    assert len(re.findall(r"^ +\w+=", parameters[1], re.MULTILINE)) == 1
    assert "lambda" not in text


@pytest.mark.parametrize("path", sorted((ROOT / "workflow" / "scripts").glob("*.py")), ids=str)
def test_scripts_are_thin(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 20
    assert sum("jobs." in line for line in lines) == 1
