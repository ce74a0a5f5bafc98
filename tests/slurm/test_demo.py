"""The whole demo on a Slurm cluster: what Slurm says that jobs asked for, and what came out."""

import shutil
from dataclasses import dataclass

import numpy as np
import pytest

from mess_core.layout import INDEX_KINDS, Layout
from mess_core.publishing import load_latest
from mess_core.recordings import read_recordings
from tests.slurm.cluster import Cluster
from tests.workflow.conftest import Workspace
from tests.workflow.rules import Request, requests

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@dataclass(frozen=True)
class Job:
    """What Slurm remembers of a job."""

    rule: str
    state: str
    partition: str
    request: Request


def _job(record: dict[str, str]) -> Job:
    hours, minutes, seconds = map(int, record["TimeLimit"].split(":"))
    assert seconds == 0
    gpus = record.get("TresPerJob", "gres:gpu:0").removeprefix("gres:gpu:")
    assert record["MinMemoryNode"].endswith("M")
    request = Request(
        int(record["CPUs/Task"]),
        int(record["MinMemoryNode"].removesuffix("M")),
        60 * hours + minutes,
        int(gpus),
    )
    name = record["Comment"].removeprefix("rule_").split("_wildcards_")[0]
    return Job(name, record["JobState"], record["Partition"], request)


@pytest.fixture(scope="module")
def demo(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The demo, run in a folder of its own by the profile for Slurm."""
    workspace = Workspace(tmp_path_factory.mktemp("demo"), environment=slurm.environment)
    # The profile's is right for clusters that many people ask; this one has one user.
    often = ("--slurm-init-seconds-before-status-checks", "1")
    scan = workspace.mess("recordings", "demo")
    assert scan.status == 0, scan.output
    outcome = workspace.snakemake(*often, profile="slurm")
    assert outcome.status == 0, outcome.output[-5000:]
    return workspace


@pytest.fixture(scope="module")
def layout(demo: Workspace) -> Layout:
    return Layout(demo.data, "demo")


def test_slurm_ran_every_rule_once_as_it_asked_and_extraction_alone_on_a_gpu(
    slurm: Cluster, demo: Workspace
) -> None:
    assert demo.data.exists()
    jobs = [_job(record) for record in slurm.jobs()]
    expected = requests()
    # Tracking is off by default.
    assert {job.rule for job in jobs} == set(expected) - {"track"}
    for job in jobs:
        assert job.state == "COMPLETED", job
        assert job.request == expected[job.rule], job
        assert job.partition == ("gpu" if job.rule == "features" else "cpu"), job
        assert job.request.gpus == int(job.rule == "features"), job
    records = (slurm.folder / "completed.txt").read_text().splitlines()
    assert len(records) == len(jobs)
    assert all("JobState=COMPLETED " in record for record in records)


def test_a_gpu_that_torch_cannot_use_is_passed_over_and_the_log_says_so(demo: Workspace) -> None:
    logs = sorted((demo.folder / "logs" / "demo" / "features").glob("*/*.log"))
    assert len(logs) == 4
    for log in logs:
        assert log.read_text().startswith("not taken: cuda: ")
        assert " on cpu, float32" in log.read_text()


@pytest.mark.parametrize("profile", ["slurm", "ci"])
def test_nothing_is_left_to_do_on_the_cluster_or_a_workstation(
    demo: Workspace, profile: str
) -> None:
    outcome = demo.snakemake("--dry-run", profile=profile)
    assert outcome.status == 0, outcome.output[-3000:]
    assert "Nothing to be done" in outcome.output


def test_a_workstation_makes_the_same_files(demo: Workspace, layout: Layout) -> None:
    recordings = len(read_recordings(layout.table))
    published = {kind: _latest(layout, kind) for kind in INDEX_KINDS}
    assert len(load_latest(layout.data / "published" / "demo" / "recordings").rows) == recordings
    first, *_ = sorted((layout.embeddings / "segments").glob("*.npy"))
    features = np.load(first)
    first.unlink()
    targets = layout.targets(first.stem)
    content = targets.read_bytes()
    targets.unlink()
    shutil.rmtree(layout.cache)
    repaired = demo.snakemake("-R", "features", "targets", "--", "all", profile="ci")
    assert repaired.status == 0, repaired.output[-3000:]
    for kind in INDEX_KINDS:
        shutil.rmtree(layout.index(kind))
    rebuilt = demo.snakemake(profile="ci")
    assert rebuilt.status == 0, rebuilt.output[-3000:]
    np.testing.assert_allclose(np.load(first), features, atol=1e-4)
    assert targets.read_bytes() == content
    assert {kind: _latest(layout, kind) for kind in INDEX_KINDS} == published


def _latest(layout: Layout, kind: str) -> str:
    return (layout.data / "published" / "demo" / kind / "latest.json").read_text()
