"""A job that Slurm kills is tried again with more, or named with its log; the next run finishes."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mess_core.layout import Layout
from mess_core.recordings import shard_of
from tests.extraction.checkpoints import write_checkpoint
from tests.slurm.cluster import Cluster
from tests.workflow.conftest import ROOT, Outcome, Workspace, finish
from tests.workflow.rules import requests

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RATE = 24_000
SHARDS = 3
TAKES = sorted(f"take{take}" for take in range(12))
#: In a copy of the package, measuring a recording that `faults/` names takes so much memory, or
#: hangs the first time.
_FAULTS = """


_undisturbed = _compute


def _compute(recording, path, **settings):
    import time

    fault = Path("faults", recording.recording_id)
    if fault.exists():
        memory = bytearray(int(fault.read_text()) * 2**20)
        if not memory:
            fault.unlink()
        time.sleep(5 if memory else 1000)
        del memory
    _undisturbed(recording, path, **settings)
"""


@pytest.fixture(scope="module")
def workspace(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Twelve short recordings, a small encoder, and a package in which measuring can go wrong."""
    folder = tmp_path_factory.mktemp("kills")
    package = folder / "package"
    shutil.copytree(ROOT / "src" / "mess_core", package / "mess_core")
    with (package / "mess_core" / "targets" / "create.py").open("a") as file:
        file.write(_FAULTS)
    environment = {**slurm.environment, "PYTHONPATH": str(package)}
    config = {"dataset": "mine", "encoder": "model", "shards": SHARDS, "probing": {"baselines": []}}
    workspace = Workspace(folder, config, environment)
    write_checkpoint(folder / "model")
    (folder / "faults").mkdir()
    (folder / "corpus").mkdir()
    for number, take in enumerate(TAKES):
        tone = 0.3 * np.sin(2 * np.pi * (200.0 + 50 * number) * np.arange(6 * RATE) / RATE)
        soundfile.write(folder / "corpus" / f"{take}.wav", tone, RATE)
    scanned = workspace.mess("recordings", "--folder", "corpus", "--name", "mine")
    assert scanned.status == 0, scanned.output
    yield workspace
    slurm.command("scancel", "--user=root")


def members(shard: int) -> list[str]:
    """Return a shard's recordings in the order in which they are measured."""
    return [take for take in TAKES if shard_of(take, SHARDS) == str(shard)]


def disturb(workspace: Workspace, shard: int, megabytes: int = 0) -> Path:
    """Have the second recording of a shard take so much memory, or hang the first time."""
    fault = workspace.folder / "faults" / members(shard)[1]
    fault.write_text(str(megabytes))
    return fault


def copy_of(workspace: Workspace, name: str) -> Workspace:
    """Return a workspace like this one in which nothing is measured yet."""
    folder = workspace.folder / name
    for part in ("corpus", "faults", "model", "data/metadata"):
        shutil.copytree(workspace.folder / part, folder / part)
    return replace(workspace, folder=folder)


def arguments(*shards: int) -> list[str]:
    receipts = [f"data/proxy_targets/mine/shards/{shard}.json" for shard in shards]
    return [*receipts, "--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5"]


@contextmanager
def started(workspace: Workspace, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Start Snakemake on the cluster, and leave nothing of it when the test fails."""
    process = workspace.start(*arguments, profile="slurm")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < end, f"300 s have passed without {what}"
        time.sleep(0.1)


def wait_until_hanging(*faults: Path) -> None:
    wait_until(lambda: not any(fault.exists() for fault in faults), "the jobs on the node")


def attempts(slurm: Cluster, shard: int) -> list[dict[str, str]]:
    """Return what Slurm remembers of a shard's jobs, the first one first."""
    comment = f"rule_targets_wildcards_{shard}"
    jobs = [job for job in slurm.jobs() if job.get("Comment") == comment]
    return sorted(jobs, key=lambda job: int(job["JobId"]))


def measured(workspace: Workspace) -> set[str]:
    return {path.name for path in (workspace.data / "cache" / "targets").rglob("*.npz")}


def assert_finished(workspace: Workspace, outcome: Outcome, *shards: int) -> None:
    assert outcome.status == 0, outcome.output[-4000:]
    layout = Layout(workspace.data, "mine")
    assert all(layout.targets(name).exists() for shard in shards for name in members(shard))
    again = workspace.snakemake(*arguments(*shards), "--dry-run", profile="slurm")
    assert "Nothing to be done" in again.output, again.output[-3000:]


def assert_log_is_named(outcome: Outcome, shard: int) -> None:
    assert f"log: logs/mine/targets/{shard}.log" in outcome.output, outcome.output[-4000:]


def test_jobs_that_are_killed_are_tried_again_with_more(
    slurm: Cluster, workspace: Workspace
) -> None:
    asked = requests()["targets"]
    disturb(workspace, 0)
    # More than the first attempt has, less than the second.
    disturb(workspace, 1, megabytes=asked.memory_mb + 100)
    cancelled = disturb(workspace, 2)
    minutes = ("--set-resources", "targets:runtime=attempt")
    with started(workspace, *arguments(0, 1, 2), *minutes) as running:
        wait_until_hanging(cancelled)
        slurm.command("scancel", attempts(slurm, 2)[0]["JobId"])
        outcome = finish(running)
    assert_finished(workspace, outcome, 0, 1, 2)
    for shard, states in enumerate(
        ({"TIMEOUT"}, {"OUT_OF_MEMORY", "FAILED", "CANCELLED"}, {"CANCELLED"})
    ):
        first, second = attempts(slurm, shard)
        assert first["JobState"] in states
        assert second["JobState"] == "COMPLETED"
        for number, job in enumerate((first, second), 1):
            assert job["MinMemoryNode"] == f"{asked.again(number).memory_mb}M"
            assert job["TimeLimit"] == f"00:0{number}:00"
        assert_log_is_named(outcome, shard)


def test_a_node_that_goes_down_and_comes_back(slurm: Cluster, workspace: Workspace) -> None:
    """Slurm runs the job again; where it may not, the log is named and the next run goes on."""
    patient, other = copy_of(workspace, "patient"), copy_of(workspace, "other")
    forbid = ("--slurm-no-requeue", "--retries", "0")
    faults = [disturb(patient, 0), disturb(other, 1)]
    with (
        started(patient, *arguments(0)) as waiting,
        started(other, *arguments(1), *forbid) as failing,
    ):
        wait_until_hanging(*faults)
        # Half way: one recording is measured, one is in flight.
        assert [len(measured(w)) for w in (patient, other)] == [1, 1]
        slurm.stop_node()
        slurm.start_node()
        refused = finish(failing)
        assert refused.status != 0
        assert_log_is_named(refused, 1)
        assert attempts(slurm, 1)[-1]["JobState"] == "NODE_FAIL"
        assert_finished(other, other.snakemake(*arguments(1), profile="slurm"), 1)
        assert_finished(patient, finish(waiting), 0)
    job = attempts(slurm, 0)[-1]
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")
    assert len(measured(patient)) == len(members(0))
    assert len(measured(other)) == len(members(1))


def test_a_run_that_ctrl_c_stopped_goes_on_with_the_same_command(
    slurm: Cluster, workspace: Workspace
) -> None:
    stopped = copy_of(workspace, "stopped")
    fault = disturb(stopped, 2)
    with started(stopped, *arguments(2)) as running:
        wait_until_hanging(fault)
        running.send_signal(signal.SIGINT)
        assert finish(running).status != 0
    wait_until(lambda: not slurm.command("squeue", "--noheader"), "an empty queue")
    assert attempts(slurm, 2)[-1]["JobState"] == "CANCELLED"
    kept = measured(stopped)
    assert len(kept) == 1
    assert_finished(stopped, stopped.snakemake(*arguments(2), profile="slurm"), 2)
    assert kept < measured(stopped)
