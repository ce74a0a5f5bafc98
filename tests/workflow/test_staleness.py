"""Only what is stale runs again, in one call, whatever has changed; then nothing is left to do."""

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mess_core.artifacts import load_latest
from mess_core.layout import Layout
from tests.extraction.checkpoints import write_checkpoint
from tests.workflow.conftest import ROOT, Workspace

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RATE = 24_000
CONFIG: dict[str, Any] = {
    "dataset": "mine",
    "encoder": "model",
    "shards": 2,
    "targets": ["spectral_centroid", "onset_density"],
}
#: What follows from probing, and all that follows from features or targets.
ANSWERS = {"aspects", "question", "projection", "index", "publish", "report"}
DOWNSTREAM = {"decomposition", "probing"} | ANSWERS
FEATURES = {f"features_{twin}{shard}" for twin in ("", "untrained_") for shard in (0, 1)}
TARGETS = {"targets_0", "targets_1"}
GATHER_FEATURES = {"gather_features", "gather_features_untrained"}
#: What comes together, and the validity of what was measured.
GATHER = {*GATHER_FEATURES, "gather_targets", "validity"}


def write(path: Path, frequency: float) -> None:
    times = np.arange(6 * RATE) / RATE
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * times) * (times % 0.5), RATE)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("stale"), CONFIG)
    write_checkpoint(workspace.folder / "model")
    for work in range(3):
        for take in range(4):
            name = f"work{work}/take{take}.wav"
            write(workspace.folder / "corpus" / name, 200.0 + 90 * work + 11 * take)
    scan(workspace)
    outcome = workspace.snakemake()
    assert outcome.status == 0, outcome.output[-3000:]
    return workspace  # which each test leaves finished again


def scan(workspace: Workspace) -> None:
    outcome = workspace.mess("recordings", "--folder", "corpus", "--name", "mine")
    assert outcome.status == 0, outcome.output


def run(workspace: Workspace, **changes: Any) -> tuple[set[str], list[str]]:
    """Run once and return the rules that ran, and the recordings that were computed."""
    before = stored(workspace)
    workspace = replace(workspace, config={**CONFIG, **changes})
    outcome = workspace.snakemake()
    assert outcome.status == 0, outcome.output[-3000:]
    clean = workspace.snakemake("--dry-run")
    assert "Nothing to be done" in clean.output, clean.output[-3000:]
    ran = set(rules_that_ran(outcome.output)) - {"all"}
    return ran, sorted(stored(workspace) - before)


def rules_that_ran(output: str) -> Counter[str]:
    return Counter(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", output))


def stored(workspace: Workspace) -> set[str]:
    folder = workspace.data / "cache"
    return {f"{p.parts[-3]} {p.name}" for p in folder.rglob("*.np[yz]")}


def recordings_in_index(workspace: Workspace) -> set[str]:
    index = load_latest(workspace.data / "published" / "mine" / "recordings")
    return {row.recording_id for row in index.rows}


def test_touching_everything_runs_nothing(workspace: Workspace) -> None:
    for path in (workspace.folder / "corpus").rglob("*.wav"):
        path.touch()
    scan(workspace)
    (workspace.data / "metadata" / "mine.tsv").touch()
    assert run(workspace) == (set(), [])


def test_one_recording_more_is_computed_alone_and_then_one_less(workspace: Workspace) -> None:
    new = workspace.folder / "corpus" / "work2" / "new.wav"
    write(new, 500.0)
    scan(workspace)
    ran, computed = run(workspace)
    assert ran == GATHER | DOWNSTREAM | (ran & (FEATURES | TARGETS))
    assert (len(ran & FEATURES), len(ran & TARGETS)) == (2, 1)
    # One recording: its segments and their mean, twice, and its targets.
    assert [name.split()[0] for name in computed] == ["features"] * 4 + ["targets"]
    assert "work2__new" in recordings_in_index(workspace)

    new.unlink()
    scan(workspace)
    ran, computed = run(workspace)
    assert ran >= DOWNSTREAM
    assert computed == []
    assert "work2__new" not in recordings_in_index(workspace)


def test_other_audio_under_the_same_name_is_computed_alone(workspace: Workspace) -> None:
    path = workspace.folder / "corpus" / "work0" / "take0.wav"
    old = path.read_bytes()
    write(path, 777.0)
    scan(workspace)
    ran, computed = run(workspace)
    assert ran >= DOWNSTREAM
    assert len(computed) == 5
    path.write_bytes(old)
    scan(workspace)
    ran, computed = run(workspace)
    assert (ran >= DOWNSTREAM, computed) == (True, [])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"overlap": 0.25}, FEATURES | TARGETS | GATHER | DOWNSTREAM),
        ({"precision": "float32"}, FEATURES | GATHER_FEATURES | DOWNSTREAM),
        ({"window_s": 4.0}, FEATURES | TARGETS | GATHER | DOWNSTREAM),
        ({"probing": {"n_folds": 3}}, DOWNSTREAM),
        ({"probing": {"rows": "recordings"}}, DOWNSTREAM | {"validity"}),
        ({"probing": {"alphas": [1.0, 100.0]}}, DOWNSTREAM - {"decomposition"}),
        ({"aspects": {"min_r2": 0.2}}, ANSWERS),
        ({"publish": {"destination": "elsewhere"}}, {"publish"}),
        ({"device": "cpu", "batch_size": 2}, set()),
    ],
)
def test_a_setting_reaches_what_it_matters_to_in_one_call(
    workspace: Workspace, changes: dict[str, Any], expected: set[str]
) -> None:
    ran, _ = run(workspace, **changes)
    assert ran == expected
    ran, computed = run(workspace)
    assert (ran, computed) == (expected, []), "going back costs copies only"


@pytest.mark.parametrize("kind", ["features", "targets"])
def test_a_deleted_file_costs_a_copy_and_nothing_that_follows(
    workspace: Workspace, kind: str
) -> None:
    layout = Layout(workspace.data, "mine")
    name = "work1__take1"
    path = layout.features("segments", name) if kind == "features" else layout.targets(name)
    content = path.read_bytes()
    path.unlink()
    ran, computed = run(workspace)
    assert path.read_bytes() == content
    assert computed == []
    assert len(ran) == 1
    assert ran < (FEATURES if kind == "features" else TARGETS)


def test_a_repair_and_a_setting_together_are_both_done_in_one_call(workspace: Workspace) -> None:
    Layout(workspace.data, "mine").features("aggregated", "work0__take1").unlink()
    ran, _ = run(workspace, probing={"n_folds": 3})
    assert ran > DOWNSTREAM
    assert run(workspace)[0] == DOWNSTREAM


def test_a_run_for_another_setting_that_stops_half_way_leaves_no_mixture(
    workspace: Workspace,
) -> None:
    half = replace(workspace, config={**CONFIG, "overlap": 0.9}).snakemake("features_0")
    assert half.status == 0, half.output[-3000:]
    outcome = workspace.snakemake("data/indices/mine/clips")
    assert outcome.status == 0, outcome.output[-3000:]
    run(workspace)
    layout = Layout(workspace.data, "mine")
    for path in (layout.embeddings / "segments").glob("*.npy"):
        assert len(np.load(path)) == 2, "6 s have two windows at an overlap of 0.5, three at 0.9"
    starts = {row.start_s for row in load_latest(workspace.data / "published/mine/clips").rows}
    assert starts == {0.0, 1.0}


def test_deleted_results_come_back(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "mine")
    shutil.rmtree(layout.index("clips"))
    assert run(workspace) == ({"index", "publish", "report"}, [])
    layout.probe("onset_density").unlink()
    ran, computed = run(workspace)
    assert (ran, computed) == (DOWNSTREAM - {"decomposition"}, [])
    layout.page("facts").unlink()
    assert run(workspace) == ({"report"}, [])
    # Only probing needs decompositions: to delete them frees space and costs nothing until then.
    shutil.rmtree(layout.decomposition("encoder", 1))
    assert run(workspace) == (set(), [])
    layout.probe("onset_density").unlink()
    assert run(workspace) == (DOWNSTREAM, [])


def test_a_new_target_runs_its_own_jobs_only(workspace: Workspace, tmp_path: Path) -> None:
    """With a registry line and a function more, in a copy of the package."""
    shutil.copytree(ROOT / "src" / "mess_core", tmp_path / "mess_core")
    package = tmp_path / "mess_core" / "targets"
    with (package / "registry.py").open("a") as file:
        file.write(
            '\nTARGETS["loudest"] = TargetSpec('
            '"loudest", "timbre", "scalar", "audio", "dBFS", "the loudest moment")\n'
        )
    with (package / "timbre.py").open("a") as file:
        file.write("\n\ndef loudest(loudness):\n    return float(np.nanmax(loudness))\n")
    config = {**CONFIG, "targets": [*CONFIG["targets"], "loudest"]}
    changed = replace(workspace, config=config, environment={"PYTHONPATH": str(tmp_path)})
    outcome = changed.snakemake()
    assert outcome.status == 0, outcome.output[-3000:]
    ran = rules_that_ran(outcome.output)
    told = {"question", "validity", "report"}
    assert set(ran) == TARGETS | told | {"gather_targets", "probing", "all"}
    # Which layer, and how stable: nothing that was known of aspects and rows has changed.
    assert (ran["probing"], ran["question"]) == (1, 2)
    assert Layout(workspace.data, "mine").probe("loudest").exists()
    assert "Nothing to be done" in changed.snakemake("--dry-run").output
    ran_again, computed = run(workspace)
    assert (ran_again, computed) == (TARGETS | told, [])


def test_a_deleted_table_comes_back(workspace: Workspace) -> None:
    Layout(workspace.data, "mine").table.unlink()
    scan(workspace)
    assert run(workspace) == (set(), [])
