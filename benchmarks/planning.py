"""What planning costs: ``snakemake -n`` for recording tables of growing length.

Nothing is decoded: recordings exist in the table only. Beside it, the same steps as workflows are
usually written, with a job per recording. About two minutes::

    python -m benchmarks.planning
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from mess_core.recordings import Recording, write_recordings

ROOT = Path(__file__).parents[1]
DATASET = "planned"
RECORDINGS_PER_SHARD = 100
#: A job per recording is not planned beyond: it takes minutes and gigabytes.
USUAL_UP_TO = 10_000

_USUAL = """
IDS = [line.split("\\t")[0] for line in open("data/metadata/planned.tsv")][1:]
rule all:
    input: expand("usual/{stage}.json", stage=["encoder", "untrained", "targets"])
rule compute:
    output: "usual/{stage}/{id}.npy"
    shell: "touch {output}"
rule gather:
    input: expand("usual/{{stage}}/{id}.npy", id=IDS)
    output: "usual/{stage}.json"
    shell: "touch {output}"
"""

_MEASURE = """
import json, os, sys
child = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as file:
    json.dump([usage.ru_utime + usage.ru_stime, usage.ru_maxrss], file)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Cost(NamedTuple):
    """Processor seconds and largest memory in MB of a command, its status and what it printed."""

    cpu_s: float
    peak_mb: float
    status: int
    output: str


def measure(command: Sequence[str], folder: Path) -> Cost:
    """Run a command in a folder and return what it cost."""
    costs = folder / "costs.json"
    # From a small process: Linux counts what a parent had in memory as the child's peak.
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(costs), *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    cpu_s, peak_kib = json.loads(costs.read_text())
    return Cost(cpu_s, peak_kib * 1024 / 1e6, done.returncode, done.stdout)


def snakemake(*arguments: str, snakefile: Path = ROOT / "Snakefile") -> list[str]:
    """Return the command that calls Snakemake in a folder with a corpus."""
    profile = str(ROOT / "profiles" / "ci")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    return [*command, "--configfile", "config.yaml", "--workflow-profile", profile, *arguments]


def make_corpus(folder: Path, recordings: int) -> dict[str, object]:
    """Write the table and configuration of a corpus whose audio does not exist."""
    config: dict[str, object] = {
        "dataset": DATASET,
        "encoder": "mess-small",
        "shards": max(2, recordings // RECORDINGS_PER_SHARD),
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(config))
    table = folder / "data" / "metadata" / f"{DATASET}.tsv"
    write_recordings(table, map(_recording, range(recordings)))
    return config


def _recording(number: int) -> Recording:
    name = f"r{number:06d}"
    return Recording(
        recording_id=name,
        work_id=f"w{number // 20}",
        performer=f"performer {number % 300}",
        composer=f"composer {number % 70}",
        title=f"title {number // 20}",
        split="train",
        audio=f"audio/{name}.wav",
        midi=f"audio/{name}.mid",
        beats="",
        audio_sha256=hashlib.sha256(f"{name}.wav".encode()).hexdigest(),
        midi_sha256=hashlib.sha256(f"{name}.mid".encode()).hexdigest(),
        beats_sha256="",
        duration_s=300.0,
        status="ok",
        reason="",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for every length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, nargs="+", default=[1000, 10_000, 100_000])
    print("recordings  this workflow         a job per recording")
    for recordings in parser.parse_args(arguments).recordings:
        with TemporaryDirectory() as temporary:
            folder = Path(temporary, "corpus")
            make_corpus(folder, recordings)
            usual = folder / "Usual"
            usual.write_text(_USUAL)
            commands = [snakemake("--dry-run", "--quiet", "all")]
            if recordings <= USUAL_UP_TO:
                commands.append(snakemake("--dry-run", "--quiet", "all", snakefile=usual))
            cells = []
            for command in commands:
                cost = measure(command, folder)
                if cost.status:
                    raise RuntimeError(cost.output[-2000:])
                cells.append(f"{cost.cpu_s:.1f} s, {cost.peak_mb:,.0f} MB")
        print(f"{recordings:10,}  " + "".join(f"{cell:22}" for cell in cells), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
