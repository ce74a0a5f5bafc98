"""What planning costs: ``snakemake -n`` on tables of growing length, and what a job needs to start.

Nothing is decoded or computed: the recordings exist in the table only, and the files of a finished
corpus are empty. About five minutes::

    python -m benchmarks.planning --write docs/cluster.md --json FILE

* ``new``: the table is there and nothing else; everything has to run.
* ``finished``: all files are there. Snakemake's own records of how they were made are not.
* ``wildcards``: the same plan as workflows are usually written, a job per recording and stage.
* ``job``: a job of a rule that loads no model, from the start of its process to its end, as a
  workstation starts it and as a cluster does, against ``snakemake --version`` and ``python -c ""``.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.extraction import machine
from benchmarks.markdown import table, write_section
from mess_core.files import write_json
from mess_core.layout import ANSWERS, INDEX_KINDS, PAGES
from mess_core.recordings import Recording, write_recordings
from mess_core.workflow.config import Settings
from mess_core.workflow.plan import Plan

ROOT = Path(__file__).parents[1]
_PLANS, _JOBS = ("new", "finished", "wildcards"), ("here", "cluster", "snakemake", "python")
#: How often a job is started.
_TIMES = 5
SHARD = 100
#: The usual workflow is not planned for more recordings: it takes minutes and gigabytes.
_USUAL_UP_TO = 10_000
DATASET = "planned"

_USUAL = """
IDS = [line.split("\\t")[0] for line in open("data/metadata/planned.tsv")][1:]
DATA = "data/usual"
rule all:
    input: f"{DATA}/manifest.json", f"{DATA}/targets.json"
rule features:
    output: DATA + "/{source}/segments/{id}.npy", DATA + "/{source}/aggregated/{id}.npy"
    shell: "touch {output}"
rule targets:
    output: DATA + "/targets/{id}.npz"
    shell: "touch {output}"
rule gather_features:
    input: expand(DATA + "/{source}/segments/{id}.npy", id=IDS, source=["encoder", "untrained"])
    output: DATA + "/manifest.json"
    shell: "touch {output}"
rule gather_targets:
    input: expand(DATA + "/targets/{id}.npz", id=IDS)
    output: DATA + "/targets.json"
    shell: "touch {output}"
"""


_MEASURE = """
import json, os, sys, time
begin = time.monotonic()
child = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
costs = [time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]
with open(sys.argv[1], "w") as file:
    json.dump(costs, file)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Cost:
    """What a process took, with those that it started.

    Attributes
    ----------
    wall_s, cpu_s : float
        Seconds by the clock, and on processors.
    peak_mb : float
        Largest resident size of one process, in MB of 10^6 bytes.
    status : int
        How it ended.
    output : str
        All that it printed.
    """

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
    wall, cpu, peak_kib = json.loads(costs.read_text())
    return Cost(wall, cpu, peak_kib * 1024 / 1e6, done.returncode, done.stdout)


def snakemake(*arguments: str, snakefile: Path = ROOT / "Snakefile") -> list[str]:
    """Return the command that calls Snakemake in a folder with a corpus."""
    profile = str(ROOT / "profiles" / "ci")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    return [*command, "--configfile", "config.yaml", "--workflow-profile", profile, *arguments]


def make_corpus(folder: Path, recordings: int) -> Plan:
    """Write the table and configuration of a corpus whose audio does not exist, and plan it."""
    config = {
        "dataset": DATASET,
        "encoder": "mess-demo-untrained",
        "shards": max(2, recordings // SHARD),
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(config))
    write_recordings(
        folder / "data/metadata" / f"{DATASET}.tsv", map(_recording, range(recordings))
    )
    return Plan.read(_settings(folder, config))


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
        audio_sha256=_hash(f"{name}.wav"),
        midi_sha256=_hash(f"{name}.mid"),
        beats_sha256="",
        duration_s=300.0,
        status="ok",
        reason="",
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _settings(folder: Path, config: dict[str, Any]) -> Settings:
    return Settings.from_config(config | {"data": str(folder / "data")})


def finish(folder: Path, plan: Plan) -> None:
    """Make every file that the plan speaks of, empty."""
    layout = plan.settings.layout
    for part in plan.extractions:
        _touch(name for shard in plan.shards for name in part.feature_files(shard))
        for shard in plan.shards:
            write_json(part.settings.layout.receipt("features", shard), {"encoder": {}})
        write_json(part.settings.layout.features_manifest, {"digest": part.features_digest})
    _touch(name for shard in plan.shards for name in plan.target_files(shard))
    for shard in plan.shards:
        write_json(layout.receipt("targets", shard), {})
    for name in plan.measured:
        write_json(layout.target_manifest(name), {"digest": plan.target_digest(name)})
    for path in _folders(plan):
        path.mkdir(parents=True)
    _touch(map(str, _small_files(plan)))
    # What was made here in any order gets times in the order of the rules.
    done = measure(snakemake("--touch"), folder)
    if done.status:
        raise RuntimeError(done.output[-2000:])


def _folders(plan: Plan) -> list[Path]:
    layout, sources = plan.settings.layout, plan.settings.sources
    layers = [layout.decomposition(source, k) for source in sources for k in plan.layers(source)]
    indices = [layout.index(kind) for kind in INDEX_KINDS]
    return [*layers, *indices, Path(plan.untrained.settings.encoder)]


def _small_files(plan: Plan) -> list[Path]:
    layout = plan.settings.layout
    answers = [layout.answer(name, end) for name in ANSWERS for end in (".tsv", ".png")]
    probes = [layout.probe(target) for target in plan.settings.targets]
    projections = [layout.projection(kind) for kind in INDEX_KINDS]
    pages = [layout.page(name) for name in PAGES]
    return [*answers, *probes, *projections, *pages, layout.aspects, layout.publish_receipt]


def _touch(names: Iterable[str]) -> None:
    folders = set()
    for name in names:
        parent = name.rpartition("/")[0]
        if parent not in folders:
            Path(parent).mkdir(parents=True, exist_ok=True)
            folders.add(parent)
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))


def usual(folder: Path) -> Path:
    """Write the workflow that has a job per recording and stage."""
    path = folder / "Usual"
    path.write_text(_USUAL)
    return path


def plan_costs(recordings: int) -> dict[str, Any]:
    """Measure planning of a corpus that is new, and then that is finished."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, "corpus")
        plan = make_corpus(folder, recordings)
        facts: dict[str, Any] = {"recordings": recordings, "shards": len(plan.shards)}
        facts["new"] = _facts(measure(snakemake("--dry-run", "--quiet", "all"), folder))
        if recordings <= _USUAL_UP_TO:
            command = snakemake("--dry-run", "--quiet", "all", snakefile=usual(folder))
            facts["wildcards"] = _facts(measure(command, folder))
        finish(folder, plan)
        done = measure(snakemake("--dry-run"), folder)
        if "Nothing to be done" not in done.output:
            raise RuntimeError(done.output[-2000:])
        facts["finished"] = _facts(done)
        facts["job"] = job_costs(folder, plan)
    return facts


def _facts(cost: Cost) -> dict[str, float]:
    if cost.status:
        raise RuntimeError(cost.output[-2000:])
    return {"wall_s": cost.wall_s, "cpu_s": cost.cpu_s, "peak_mb": cost.peak_mb}


def job_costs(folder: Path, plan: Plan) -> dict[str, float]:
    """Measure a job that only reads the table, as a workstation and as a cluster start it."""
    rule, figures = "gather_targets", folder / "data/benchmarks" / DATASET / "gather_targets.tsv"
    remote = ["--mode", "remote", "--cores", "1", "--force", "--nolock", "--ignore-incomplete"]
    commands = {
        "here": snakemake(rule),
        "cluster": snakemake(*remote, "--target-jobs", f"{rule}:", "--allowed-rules", rule),
        "snakemake": [sys.executable, "-m", "snakemake", "--version"],
        "python": [sys.executable, "-c", ""],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for name, command in list(commands.items()) * _TIMES:
        for path in plan.settings.layout.target_manifests.glob("*.json"):
            path.unlink()
        wall = _facts(measure(command, folder))["wall_s"]
        # Of the first, only the job's own process: Snakemake's time is that of planning.
        own = float(figures.read_text().split("\n")[1].split("\t")[0])
        seconds[name].append(own if name == "here" else wall)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(facts: dict[str, Any]) -> str:
    """Return the tables of what was measured, in Markdown."""
    rows = [
        [f"{part['recordings']:,}", str(part["shards"]), *map(_cell, (part.get(k) for k in _PLANS))]
        for part in facts["plans"]
    ]
    header = ["recordings", "shards", "new", "finished", "a job per recording"]
    jobs = [
        [f"{part['recordings']:,}", *(f"{part['job'][name]:.1f} s" for name in _JOBS)]
        for part in facts["plans"]
    ]
    titles = ["recordings", "workstation", "cluster", "`snakemake --version`", '`python -c ""`']
    return "\n".join(
        [
            f"Measured on {facts['machine']['processor']}, {facts['machine']['cores']} cores: "
            "seconds of processors and largest memory of `snakemake -n`.",
            "",
            *table(header, rows),
            "A whole job of a rule that loads no model (`gather_targets`), median of "
            f"{_TIMES}, by the clock:",
            "",
            *table(titles, jobs),
        ]
    )


def _cell(cost: dict[str, float] | None) -> str:
    return f"{cost['cpu_s']:.1f} s, {cost['peak_mb']:,.0f} MB" if cost else "not measured"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--write", type=Path, help="the Markdown file with the marked section")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    args = parser.parse_args(arguments)
    plans = [plan_costs(n) for n in args.recordings]
    facts = {"machine": machine(), "plans": plans}
    text = report(facts)
    print(text)
    if args.json:
        write_json(args.json, facts)
    if args.write:
        write_section(args.write, text, marker="planning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
