"""A Slurm cluster of one node on this machine, for tests: its own folder, its own processes.

Needs Debian's ``slurm-wlm`` and ``munge`` and root (slurmd starts jobs for users). munged,
slurmctld and slurmd are children of this process and end with it, however it ends. Everything
stays in the folder and on loopback; clients find the cluster through `Cluster.environment`.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "setpriv")
CPUS, MEMORY_MB = 16, 16_000

#: What slurmd takes for its node's name.
HOST = socket.gethostname().split(".")[0]

_CONFIGURATION = """\
ClusterName=mess
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CryptoType=crypto/munge
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed.txt
MinJobAge=100000
KillWait=1
OverTimeLimit=0
ReturnToService=2
SlurmdTimeout=300
InactiveLimit=0
SchedulerParameters=sched_interval=1,batch_sched_delay=0,default_queue_depth=1000
SlurmdParameters=config_overrides
MpiDefault=none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} Default=NO MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return why there can be no cluster here; empty when there can be one."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "slurmd must be started by root"


@dataclass
class Cluster:
    """A running cluster, with its files in a folder of a short name, for a socket lies in it."""

    folder: Path
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What clients need besides their own environment."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def start(self) -> None:
        """Bring the cluster up and wait until its node can be used."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir(exist_ok=True)
        text = _CONFIGURATION.format(
            host=HOST,
            folder=self.folder,
            controller_port=_free_port(),
            node_port=_free_port(),
            cpus=CPUS,
            memory=MEMORY_MB,
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(f"NodeName={HOST} Name=gpu File=/dev/null\n")
        # An srun that finds the cluster: the plugin's job step drops SLURM_CONF.
        srun, real = self.folder / "bin" / "srun", shutil.which("srun")
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {real} "$@"\n')
        srun.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.folder.chmod(0o755)
        self._run(
            *("munged", "--foreground", "--force", "--num-threads=2"),
            f"--key-file={key}",
            f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munged.pid",
            f"--log-file={self.folder}/munged.log",
            f"--seed-file={self.folder}/munged.seed",
        )
        _until(lambda: (self.folder / "munge.socket").exists(), "munged's socket")
        configuration = str(self.folder / "slurm.conf")
        self._run("slurmctld", "-D", "-f", configuration)
        self.start_node()

    def start_node(self) -> None:
        """Start the node's daemon, and wait until the node is idle."""
        self._run("slurmd", "-D", "-f", str(self.folder / "slurm.conf"))
        _until(lambda: self.node_state().startswith("idle"), "the node to be idle")

    def stop_node(self) -> None:
        """Take the node down at once, with the jobs on it, as a power cut does."""
        self._stop("slurmd", signal.SIGKILL)
        inside = [process for process in psutil.process_iter() if self._is_inside_job(process)]
        # Slurm's own helpers first, so that none of them can say how its job ended.
        for process in sorted(inside, key=lambda process: process.name() != "slurmstepd"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        # What the controller does by itself, but only when the node was silent for SlurmdTimeout.
        self.command("scontrol", "update", f"NodeName={HOST}", "State=DOWN", "Reason=silent")

    def _is_inside_job(self, process: psutil.Process) -> bool:
        """Say whether a process is Slurm's helper of a job here, or what the job has started."""
        with contextlib.suppress(psutil.Error):
            # A helper's title may lie over its environment; what it has started still has it.
            family = [process, *process.children()] if process.name() == "slurmstepd" else [process]
            found = [one.environ() for one in family]
            return any(
                each.get("SLURM_CONF") == self.environment["SLURM_CONF"]
                and (process.name() == "slurmstepd" or "SLURM_JOB_ID" in each)
                for each in found
            )
        return False

    def stop(self) -> None:
        """End all jobs and daemons."""
        with contextlib.suppress(subprocess.CalledProcessError, TimeoutError):
            self.command("scancel", "--user=root")
            _until(lambda: not self.command("squeue", "--noheader"), "all jobs to end", 20)
        for name in reversed(list(self._daemons)):
            self._stop(name, signal.SIGTERM)

    def node_state(self) -> str:
        """Return the node's state in one word, empty while the controller does not answer."""
        done = self._client("sinfo", "-h", "-N", "-o", "%T", "-p", "cpu")
        return done.stdout.strip() if done.returncode == 0 else ""

    def command(self, *command: str) -> str:
        """Run a client and return what it prints."""
        done = self._client(*command)
        done.check_returncode()
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Return what Slurm remembers of all jobs, by scontrol's names."""
        lines = self.command("scontrol", "--oneliner", "show", "job").splitlines()
        return [
            dict(entry.split("=", 1) for entry in line.split() if "=" in entry)
            for line in lines
            if line.startswith("JobId=")
        ]

    def _client(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def _run(self, name: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.out").open("ab")
        self._daemons[name] = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", name, *arguments],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def _stop(self, name: str, number: signal.Signals) -> None:
        daemon = self._daemons.pop(name)
        daemon.send_signal(number)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _until(holds: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.1)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Bring a cluster up in a folder, and down after the block."""
    running = Cluster(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()
