"""A corpus that the whole workflow runs through in seconds, and what one run of it has done."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mess_core.publishing import load_latest
from tests.extraction.checkpoints import write_checkpoint
from tests.workflow.conftest import Workspace

RATE = 24_000
CONFIG: dict[str, Any] = {
    "dataset": "mine",
    "encoder": "model",
    "shards": 2,
    "targets": ["spectral_centroid", "onset_density"],
}
#: What follows from probing, and all that follows from features or targets.
ANSWERS = {
    *("aspects", "question", "geometry", "projection", "index", "publish", "evaluation", "report"),
}
DOWNSTREAM = {"decomposition", "probing"} | ANSWERS
FEATURES = {"features", "descriptors", "gather_features"}
TARGETS = {"targets", "gather_targets", "validity"}
ALIGNMENTS = {"alignments", "gather_alignments", "performances"}
#: What follows from an index.
INDEXED = {"index", "publish", "evaluation", "report"}


def write(path: Path, frequency: float) -> None:
    times = np.arange(6 * RATE) / RATE
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * times) * (times % 0.5), RATE)


def finished(folder: Path) -> Workspace:
    """Run the workflow on twelve recordings of three works, to its end."""
    workspace = Workspace(folder, CONFIG)
    write_checkpoint(folder / "model")
    for work in range(3):
        for take in range(4):
            write(folder / "corpus" / f"work{work}/take{take}.wav", 200.0 + 90 * work + 11 * take)
    scan(workspace)
    outcome = workspace.snakemake()
    assert outcome.status == 0, outcome.output[-3000:]
    return workspace


def scan(workspace: Workspace) -> None:
    outcome = workspace.mess("recordings", "--folder", "corpus", "--name", "mine")
    assert outcome.status == 0, outcome.output


def run(workspace: Workspace, **changes: Any) -> tuple[set[str], list[str]]:
    """Run once and return the rules that ran, and what was computed of recordings."""
    jobs, computed = run_jobs(workspace, **changes)
    return set(jobs), computed


def run_jobs(workspace: Workspace, **changes: Any) -> tuple[Counter[str], list[str]]:
    """Run once and return how many jobs of every rule ran, and what was computed of recordings."""
    before = stored(workspace)
    workspace = replace(workspace, config={**CONFIG, **changes})
    outcome = workspace.snakemake()
    assert outcome.status == 0, outcome.output[-3000:]
    if "Nothing to be done" not in outcome.output:
        assert planned(workspace, **changes) == set()
    jobs = rules_that_ran(outcome.output)
    del jobs["all"]
    return jobs, sorted(stored(workspace) - before)


def planned(workspace: Workspace, **changes: Any) -> set[str]:
    """Return the rules that would run."""
    outcome = replace(workspace, config={**CONFIG, **changes}).snakemake("--dry-run")
    assert outcome.status == 0, outcome.output[-3000:]
    rules = set(re.findall(r"^(\w+) +\d+$", outcome.output, re.MULTILINE)) - {"all", "total"}
    assert bool(rules) == ("Nothing to be done" not in outcome.output)
    return rules


def rules_that_ran(output: str) -> Counter[str]:
    return Counter(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", output))


def stored(workspace: Workspace, kinds: Collection[str] = ("features", "targets")) -> set[str]:
    """Return what is cached of some kinds."""
    folder = workspace.data / "cache"
    return {f"{kind} {p.name}" for kind in kinds for p in (folder / kind).rglob("*.np[yz]")}


def recordings_in_index(workspace: Workspace) -> set[str]:
    index = load_latest(workspace.data / "published" / "mine" / "recordings")
    return {row.recording_id for row in index.rows}
