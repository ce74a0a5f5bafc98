"""Which encoder a run takes, and what it says where weights are missing."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.workflow.conftest import Workspace
from tests.workflow.small import CONFIG, rules_that_ran, scan, write

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Three recordings that were scanned, and no weights."""
    workspace = Workspace(tmp_path_factory.mktemp("encoders"), CONFIG)
    for number in range(3):
        write(workspace.folder / f"corpus/work{number}/take.wav", 200.0 + 90 * number)
    scan(workspace)
    return workspace


def test_missing_weights_are_said_once_before_any_job(workspace: Workspace) -> None:
    asked = replace(workspace, config={**CONFIG, "encoder": "MERT-v1-95M"})
    outcome = asked.snakemake()
    assert outcome.status == 1
    assert outcome.output.count("the weights of MERT-v1-95M are not in data/models") == 1
    told = outcome.output.splitlines()[-1]
    for part in ("`mess model fetch MERT-v1-95M`", "`encoder: mess-small`", "descriptors`"):
        assert part in told
    assert "Traceback" not in outcome.output
    assert not rules_that_ran(outcome.output)
    # What needs no features needs no weights, and nothing is left locked.
    assert asked.snakemake("--dry-run", "all_targets").status == 0


def test_auto_takes_what_is_here_and_says_it(workspace: Workspace) -> None:
    for given in ({}, {"encoder": "auto"}):
        config = {name: value for name, value in CONFIG.items() if name != "encoder"} | given
        outcome = replace(workspace, config=config).snakemake("--dry-run")
        assert outcome.status == 0, outcome.output[-3000:]
        assert outcome.output.count("encoder: mess-small (auto") == 1
    named = replace(workspace, config={**CONFIG, "encoder": "descriptors"})
    assert "(auto" not in named.snakemake("--dry-run").output


def test_descriptors_need_neither_baselines_nor_a_gpu(workspace: Workspace) -> None:
    config = {**CONFIG, "encoder": "descriptors"}
    outcome = replace(workspace, config=config).snakemake("all_features")
    assert outcome.status == 0, outcome.output[-3000:]
    assert rules_that_ran(outcome.output).keys() == {
        "descriptors",
        "gather_features",
        "all_features",
    }
    assert "gpu=1" not in outcome.output
    folders = [path.name for path in Path(workspace.data / "embeddings").iterdir()]
    assert folders == ["mine-emb"]
