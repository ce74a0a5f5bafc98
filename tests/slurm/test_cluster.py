"""The tests' own Slurm cluster runs jobs, remembers what they asked for, and survives its node."""

import subprocess
import sys
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory

import psutil
import pytest

from tests.slurm.cluster import Cluster
from tests.workflow.conftest import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def _submit(slurm: Cluster, script: str, *options: str) -> str:
    log = slurm.folder / "job-%j.log"
    command = ["sbatch", "--parsable", f"--output={log}", *options, "--wrap", script]
    return slurm.command(*command).strip()


def _job(slurm: Cluster, number: str) -> dict[str, str]:
    return next(job for job in slurm.jobs() if job["JobId"] == number)


def _until(holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("60 s have passed")


def test_a_job_runs_and_slurm_remembers_what_it_asked_for(slurm: Cluster) -> None:
    options = ("--partition=gpu", "--gpus=1", "--mem=200", "--time=2", "--cpus-per-task=2")
    number = _submit(slurm, "echo on $SLURM_JOB_PARTITION", *options)
    _until(lambda: _job(slurm, number)["JobState"] == "COMPLETED")
    job = _job(slurm, number)
    asked = {name: job[name] for name in ("Partition", "TresPerJob", "MinMemoryNode", "TimeLimit")}
    assert asked == {
        "Partition": "gpu",
        "TresPerJob": "gres:gpu:1",
        "MinMemoryNode": "200M",
        "TimeLimit": "00:02:00",
    }
    assert job["CPUs/Task"] == "2"
    assert (slurm.folder / f"job-{number}.log").read_text() == "on gpu\n"


def test_a_job_that_takes_more_memory_than_it_asked_for_is_killed(slurm: Cluster) -> None:
    script = "python3 -c 'x = bytearray(600 * 2**20); import time; time.sleep(60)'"
    number = _submit(slurm, script, "--mem=100", "--time=2")
    _until(lambda: _job(slurm, number)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"))
    assert _job(slurm, number)["JobState"] in ("OUT_OF_MEMORY", "FAILED", "CANCELLED")


def test_a_node_that_goes_down_and_comes_back_takes_jobs_again(slurm: Cluster) -> None:
    slurm.stop_node()
    number = _submit(slurm, "echo again", "--time=2")
    slurm.start_node()
    _until(lambda: _job(slurm, number)["JobState"] == "COMPLETED")


@pytest.mark.usefixtures("slurm")
def test_nothing_is_left_of_a_cluster_whose_program_is_killed() -> None:
    with (
        TemporaryDirectory(prefix="slurm") as folder,
        subprocess.Popen(
            [sys.executable, "-m", "tests.slurm.cluster", folder],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as program,
    ):
        assert program.stdout
        for line in program.stdout:
            if "press Enter" in line:
                break
        daemons = psutil.Process(program.pid).children()
        names = sorted(daemon.name() for daemon in daemons)
        program.kill()
        _, left = psutil.wait_procs(daemons, timeout=60)
    assert names == ["munged", "slurmctld", "slurmd"]
    assert left == []
