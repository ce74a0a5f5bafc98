"""Planning stays cheap for corpora of 100,000 recordings."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.planning import Cost, make_corpus, measure, snakemake
from mess_core.files import write_json
from mess_core.workflow.config import Settings
from mess_core.workflow.plan import Plan
from tests.workflow.conftest import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: Modules that no parse may import. (Snakemake itself imports boto3.)
HEAVY = ("torch", "transformers", "librosa", "sklearn", "scipy", "faiss", "matplotlib")

_HOOK = """
import os, sys
def note(event, args):
    if event in ("import", "os.listdir", "os.scandir", "glob.glob"):
        with open(os.environ["AUDIT"], "a") as file:
            file.write(f"{event} {args[0]}\\n")
sys.addaudithook(note)
"""


def planned(folder: Path) -> Cost:
    cost = measure(snakemake("--dry-run"), folder)
    assert cost.status == 0, cost.output[-3000:]
    return cost


def finish(folder: Path, config: dict[str, Any]) -> None:
    """Make every file that the workflow plans with, with little in it."""
    plan = Plan.read(Settings.from_config(config | {"data": str(folder / "data")}))
    summary = measure(snakemake("--summary"), folder)
    assert summary.status == 0, summary.output[-3000:]
    names = [line.split("\t")[0] for line in summary.output.splitlines() if "\t" in line]
    for name in names:
        if name.startswith("data/"):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for source in plan.settings.sources:
        manifest = {"shards": plan.features_inputs[source], "failed": {}}
        write_json(plan.settings.layout.of(source).features_manifest, manifest)
    given, layout = plan.gather_targets_params(), plan.settings.layout
    for name, shards in given["targets"].items():
        content = {"shards": shards, "alignments": given["alignments"]}
        write_json(layout.target_manifest(name), content)
    write_json(layout.alignments_manifest, {**plan.gather_alignments_params(), "works": {}})
    # What was made here in any order gets times in the order of the rules.
    done = measure(snakemake("--touch"), folder)
    assert done.status == 0, done.output[-3000:]


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cost]:
    """A finished corpus, and what it cost to plan it when it was new."""
    folder = tmp_path_factory.mktemp("planned") / "corpus"
    config = make_corpus(folder, 1000)
    new = planned(folder)
    finish(folder, config)
    return folder, new


def test_a_thousand_recordings(thousand: tuple[Path, Cost]) -> None:
    folder, new = thousand
    assert "probing" in new.output
    finished = planned(folder)
    assert "Nothing to be done" in finished.output
    assert max(new.cpu_s, finished.cpu_s) < 6


def test_nothing_heavy_is_imported_and_no_folder_is_scanned(
    thousand: tuple[Path, Cost], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_HOOK)
    audit = tmp_path / "audit.txt"
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT / 'src'}")
    monkeypatch.setenv("AUDIT", str(audit))
    planned(thousand[0])
    events = audit.read_text().splitlines()
    imported = {line.split()[1] for line in events if line.startswith("import ")}
    assert "mess_core.workflow.plan" in imported
    assert not imported & set(HEAVY)
    # Snakemake itself looks into the folders of what it plans with; none has files of recordings.
    scanned = {Path(line.split(maxsplit=1)[1]) for line in events if "import " not in line}
    recordings = {"segments", "aggregated", "cache", "audio", "provenance"}
    assert not [path for path in scanned if recordings.intersection(path.parts)]


@pytest.mark.exhaustive
def test_a_hundred_thousand_recordings(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    config = make_corpus(folder, 100_000)
    costs = [planned(folder)]
    finish(folder, config)
    costs.append(planned(folder))
    assert "Nothing to be done" in costs[1].output
    # Of processors, because tests run beside each other.
    assert max(cost.cpu_s for cost in costs) < 60
    assert max(cost.peak_mb for cost in costs) < 2000
