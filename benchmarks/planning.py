"""What planning costs: ``snakemake -n`` on tables of growing length, new and finished.

Beside it the same plan as workflows are usually written, a job per recording and stage. Nothing is
decoded or computed: the recordings exist in the table only. About five minutes::

    python -m benchmarks.planning [--recordings 1000 10000 100000]
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mess_core.files import write_json
from mess_core.layout import ANSWERS, INDEX_KINDS, PAGES
from mess_core.recordings import Recording, write_recordings
from mess_core.workflow.config import Settings
from mess_core.workflow.plan import Plan

ROOT = Path(__file__).parents[1]
DATASET = "planned"
_SHARD = 100
#: The usual workflow takes minutes and gigabytes for more.
_USUAL_UP_TO = 10_000

_USUAL = """
IDS = [line.split("\\t")[0] for line in open("data/metadata/planned.tsv")][1:]
rule all:
    input:
        expand("usual/{source}/{id}.npy", id=IDS, source=["encoder", "untrained"]),
        expand("usual/targets/{id}.npz", id=IDS)
rule features:
    output: "usual/{source}/{id}.npy"
    shell: "touch {output}"
rule targets:
    output: "usual/targets/{id}.npz"
    shell: "touch {output}"
"""

_MEASURE = """
import json, os, sys, time
begin = time.monotonic()
child = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
costs = [time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6]
json.dump(costs, open(sys.argv[1], "w"))
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock and on processors, peak MB, exit status and output of a process."""

    wall_s: float
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
    wall_s, cpu_s, peak_mb = json.loads(costs.read_text())
    return Cost(wall_s, cpu_s, peak_mb, done.returncode, done.stdout)


def snakemake(*arguments: str, snakefile: Path = ROOT / "Snakefile") -> list[str]:
    """Return the command that calls Snakemake in a folder with a corpus."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    profile = ["--workflow-profile", str(ROOT / "profiles" / "ci")]
    return [*command, "--configfile", "config.yaml", *profile, *arguments]


def make_corpus(folder: Path, recordings: int) -> Plan:
    """Write the table and configuration of a corpus whose audio does not exist, and plan it."""
    shards = max(2, recordings // _SHARD)
    config = {"dataset": DATASET, "encoder": "mess-demo-untrained", "shards": shards}
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(config))
    table = folder / "data/metadata" / f"{DATASET}.tsv"
    write_recordings(table, map(_recording, range(recordings)))
    return Plan.read(Settings.from_config(config | {"data": str(folder / "data")}))


def _recording(number: int) -> Recording:
    name = f"r{number:06d}"
    hashes = [hashlib.sha256(f"{name}.{end}".encode()).hexdigest() for end in ("wav", "mid")]
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
        audio_sha256=hashes[0],
        midi_sha256=hashes[1],
        beats_sha256="",
        duration_s=300.0,
        status="ok",
        reason="",
    )


def finish(folder: Path, plan: Plan) -> None:
    """Make every file that Snakemake plans with, empty but for the manifests."""
    layout, settings = plan.settings.layout, plan.settings
    for variant in plan.variants:
        part = plan.layout(variant)
        shards = plan.features_inputs(variant)
        write_json(part.features_manifest, {"shards": shards, "encoder": {}, "failed": {}})
        for shard in plan.shards:
            write_json(part.receipt("features", shard), {})
    for shard in plan.shards:
        write_json(layout.receipt("targets", shard), {})
    for name, shards in plan.target_inputs.items():
        write_json(layout.target_manifest(name), {"shards": shards})
    untrained = Path(settings.untrained.encoder)
    paths = [
        *(untrained / f"{n}.json" for n in ("config", "preprocessor_config")),
        untrained / "model.safetensors",
        *map(layout.decomposition_receipt, settings.sources),
        *map(layout.probe, settings.targets),
        layout.aspects,
        *map(layout.projection, INDEX_KINDS),
        *map(layout.index_receipt, INDEX_KINDS),
        *(layout.answer(name, end) for name in ANSWERS for end in (".tsv", ".png")),
        *map(layout.page, PAGES),
        layout.publish_receipt,
    ]
    for path in paths:
        write_json(path, {})
    # What was made here in any order gets times in the order of the rules.
    done = measure(snakemake("--touch"), folder)
    if done.status:
        raise RuntimeError(done.output[-2000:])


def main() -> None:
    """Print a table row per number of recordings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recordings", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    for count in parser.parse_args().recordings:
        with TemporaryDirectory() as root:
            folder = Path(root, "corpus")
            plan = make_corpus(folder, count)
            costs = {"new": measure(snakemake("--dry-run"), folder)}
            finish(folder, plan)
            costs["finished"] = measure(snakemake("--dry-run"), folder)
            if count <= _USUAL_UP_TO:
                usual = folder / "usual.smk"
                usual.write_text(_USUAL)
                costs["a job per recording"] = measure(
                    snakemake("--dry-run", snakefile=usual), folder
                )
        told = (f"{k} {c.wall_s:.1f} s, {c.peak_mb:,.0f} MB" for k, c in costs.items())
        print(f"{count:,} recordings:", "; ".join(told), flush=True)


if __name__ == "__main__":
    main()
