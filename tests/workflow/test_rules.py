"""Every rule has what a cluster and a reader need."""

import re
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT
from tests.workflow.rules import RULE_FILES, rules

pytestmark = pytest.mark.unit

SECTIONS = ("log", "benchmark", "conda", "threads", "resources", "params", "message", "script")


def test_all_rules_are_seen() -> None:
    names = {name for name, _ in rules()}
    assert names == {
        *("untrained", "features", "gather_features", "counterfactuals"),
        *("alignments", "gather_alignments", "performances"),
        *("targets", "gather_targets", "decomposition", "probing", "question", "track"),
        *(
            "aspects",
            "geometry",
            "projection",
            "index",
            "publish",
            "validity",
            "evaluation",
            "report",
        ),
        "train",
    }


@pytest.mark.parametrize(("name", "text"), rules())
def test_a_rule_is_complete(name: str, text: str) -> None:
    for section in SECTIONS:
        assert re.search(rf"^ +{section}:$|^ +{section}: \S", text, re.MULTILINE), section
    assert "mem_mb=" in text
    assert "runtime=" in text
    assert ("gpu=" in text) == (name in ("features", "counterfactuals", "train"))
    parameters = re.search(r"params:\n((?: +\S.*\n)+?)(?= +\w+:\n)", text)
    assert parameters
    # One dict, because Snakemake compares params as an unnamed set.
    assert parameters[1].count("cfg=") == 1
    assert len(re.findall(r"^ +\w+=", parameters[1], re.MULTILINE)) == 1
    assert "lambda" not in text


def test_every_caption_of_the_report_is_there_and_used() -> None:
    """Snakemake looks for them when a report is made, and takes no wildcards in their names."""
    text = "".join(path.read_text() for path in (*RULE_FILES, ROOT / "Snakefile"))
    captions = re.findall(r'"(?:\.\./|workflow/)report/(.+?\.rst)"', text)
    there = {path.name for path in (ROOT / "workflow" / "report").iterdir()}
    assert set(captions) == there
    assert text.count("=report(") == text.count("labels=") == len(captions) - 1


@pytest.mark.parametrize("path", sorted((ROOT / "workflow" / "scripts").glob("*.py")), ids=str)
def test_scripts_are_thin(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 20
    assert sum("run.cfg" in line for line in lines) == 1
