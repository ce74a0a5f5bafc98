"""The whole demo on a Slurm cluster: what Slurm says that jobs asked for, and what came out."""

import shutil

import numpy as np
import pytest

from mess_core.layout import Layout
from mess_core.publishing import load_latest
from mess_core.recordings import read_recordings
from tests.slurm.cluster import Cluster
from tests.workflow.conftest import Workspace
from tests.workflow.rules import Request, requests

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def rule(record: dict[str, str]) -> str:
    return record["Comment"].removeprefix("rule_").split("_wildcards_")[0]


def request(record: dict[str, str]) -> Request:
    hours, minutes, seconds = map(int, record["TimeLimit"].split(":"))
    assert seconds == 0
    memory, unit = record["MinMemoryNode"][:-1], record["MinMemoryNode"][-1]
    assert unit == "M"
    gpus = record.get("TresPerJob", "gres:gpu:0").removeprefix("gres:gpu:")
    return Request(int(record["CPUs/Task"]), int(memory), 60 * hours + minutes, int(gpus))


@pytest.fixture(scope="module")
def demo(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The demo, run in a folder of its own by the profile for Slurm."""
    workspace = Workspace(tmp_path_factory.mktemp("demo"), environment=slurm.environment)
    made = workspace.mess("recordings", "demo")
    assert made.status == 0, made.output
    # The profile's is right for clusters that many people ask; this one has one user.
    often = ("--slurm-init-seconds-before-status-checks", "1")
    outcome = workspace.snakemake(*often, profile="slurm")
    assert outcome.status == 0, outcome.output[-5000:]
    return workspace


@pytest.mark.usefixtures("demo")
def test_slurm_ran_every_rule_once_as_it_asked_and_extraction_alone_on_a_gpu(
    slurm: Cluster,
) -> None:
    jobs, expected = slurm.jobs(), requests()
    # Off in the demo: tracking, training, and the comparison with an untrained encoder.
    assert {rule(job) for job in jobs} == set(expected) - {"track", "train", "untrained"}
    for job in jobs:
        assert job["JobState"] == "COMPLETED", job
        assert request(job) == expected[rule(job)], job
        extracts = rule(job) in ("features", "counterfactuals")
        assert job["Partition"] == ("gpu" if extracts else "cpu"), job
        assert request(job).gpus == int(extracts), job
    records = (slurm.folder / "completed.txt").read_text().splitlines()
    assert len(records) == len(jobs)


def test_a_gpu_that_torch_cannot_use_is_passed_over_and_the_log_says_so(demo: Workspace) -> None:
    (log,) = (demo.folder / "logs" / "demo" / "features").rglob("*.log")
    assert "not taken: cuda: " in log.read_text()
    assert " on cpu, float32" in log.read_text()


@pytest.mark.parametrize("profile", ["slurm", "ci"])
def test_nothing_is_left_to_do_on_the_cluster_or_a_workstation(
    demo: Workspace, profile: str
) -> None:
    outcome = demo.snakemake("--dry-run", profile=profile)
    assert outcome.status == 0, outcome.output[-3000:]
    assert "Nothing to be done" in outcome.output


def test_a_workstation_computes_the_same(demo: Workspace) -> None:
    layout = Layout(demo.data, "demo")
    recordings = read_recordings(layout.table)
    index = load_latest(layout.data / "published" / "demo" / "recordings")
    assert len(index.rows) == len(recordings)
    name = recordings[0].recording_id
    features, targets = layout.features("segments", name), layout.targets(name)
    expected, content = np.load(features), targets.read_bytes()
    shutil.rmtree(layout.cache)
    outcome = demo.snakemake("-R", "features", "targets", profile="ci")
    assert outcome.status == 0, outcome.output[-3000:]
    assert layout.cache.exists()
    np.testing.assert_allclose(np.load(features), expected, atol=1e-4)
    assert targets.read_bytes() == content
