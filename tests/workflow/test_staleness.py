"""Only what is stale runs again, in one call, whatever has changed; then nothing is left to do.

What changes is recordings, settings, files, and code: a stage's number, a script, a registry.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.files import read_json, write_text
from mess_core.layout import Layout
from mess_core.publishing import load_latest
from mess_core.recordings import read_recordings
from tests.extraction.checkpoints import write_checkpoint
from tests.workflow.conftest import ROOT, Workspace
from tests.workflow.small import (
    ALIGNMENTS,
    ANSWERS,
    CONFIG,
    DOWNSTREAM,
    FEATURES,
    INDEXED,
    TARGETS,
    finished,
    planned,
    recordings_in_index,
    rules_that_ran,
    run,
    run_jobs,
    scan,
    write,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return finished(tmp_path_factory.mktemp("stale"))  # which each test leaves finished again


def test_touching_or_copying_everything_runs_nothing(workspace: Workspace, tmp_path: Path) -> None:
    for path in (workspace.folder / "corpus").rglob("*.wav"):
        path.touch()
    scan(workspace)
    (workspace.data / "metadata" / "mine.tsv").touch()
    assert run(workspace) == (set(), [])
    # Like `cp -r`, in whatever order, with the times of now.
    copy = tmp_path / "copy"
    shutil.copytree(workspace.folder, copy, copy_function=shutil.copyfile)
    assert run(replace(workspace, folder=copy)) == (set(), [])


def test_a_recording_is_computed_alone_and_copied_when_it_is_known(workspace: Workspace) -> None:
    everything = FEATURES | TARGETS | ALIGNMENTS | DOWNSTREAM
    new = workspace.folder / "corpus" / "work2" / "new.wav"
    write(new, 500.0)
    scan(workspace)
    jobs, computed = run_jobs(workspace)
    assert set(jobs) == everything
    # One shard of two, of the encoder and of both baselines.
    assert (jobs["features"], jobs["descriptors"], jobs["targets"]) == (2, 1, 1)
    assert jobs["alignments"] == 1
    # One recording: its segments and their mean, three times, and its targets.
    of_one = ["features"] * 6 + ["targets"]
    assert [name.split()[0] for name in computed] == of_one
    assert "work2__new" in recordings_in_index(workspace)

    # Other audio under the same name ...
    write(new, 777.0)
    scan(workspace)
    ran, computed = run(workspace)
    assert (ran, [name.split()[0] for name in computed]) == (everything, of_one)
    # ... and the first again, under another name.
    new.unlink()
    new = new.with_name("other.wav")
    write(new, 500.0)
    scan(workspace)
    assert run(workspace) == (everything, [])
    names = recordings_in_index(workspace)
    assert ("work2__other" in names, "work2__new" in names) == (True, False)

    new.unlink()
    scan(workspace)
    assert run(workspace) == (everything, [])
    assert "work2__other" not in recordings_in_index(workspace)


#: What a change of the encoder alone reaches.
ENCODED = FEATURES - {"descriptors"}
#: Settings, and what each of them reaches.
SETTINGS: list[tuple[dict[str, Any], set[str]]] = [
    ({"precision": "float32"}, ENCODED | DOWNSTREAM),
    ({"window_s": 4.0}, FEATURES | TARGETS | ALIGNMENTS | DOWNSTREAM),
    ({"overlap": 0.25}, FEATURES | TARGETS | ALIGNMENTS | DOWNSTREAM),
    ({"encoder": "descriptors"}, (FEATURES - {"features"}) | DOWNSTREAM),
    ({"probing": {"n_folds": 3}}, DOWNSTREAM),
    ({"probing": {"rows": "recordings"}}, DOWNSTREAM | {"validity"}),
    ({"probing": {"alphas": [1.0, 100.0]}}, DOWNSTREAM - {"decomposition"}),
    ({"aspects": {"min_r2": 0.2}}, ANSWERS),
    ({"index": {"exact_up_to": 2000}}, INDEXED),
    ({"publish": {"destination": "elsewhere"}}, {"publish"}),
    ({"device": "cpu", "batch_size": 2, "tracking": {"experiment": "other"}}, set()),
]
#: Those that are run, one after the other.
CHANGES: list[tuple[dict[str, Any], set[str]]] = [
    SETTINGS[1],
    ({"probing": {"rows": "recordings", "n_folds": 3}}, DOWNSTREAM | {"validity"}),
    # Values that change places: Snakemake compares params as a set, in which a swap is no change.
    ({"index": {"exact_up_to": 2000, "memory_gb": 3000.0}}, INDEXED),
    ({"index": {"exact_up_to": 3000, "memory_gb": 2000.0}}, INDEXED),
    SETTINGS[-2],
]


def test_a_setting_reaches_what_it_matters_to_in_one_call(workspace: Workspace) -> None:
    for changes, expected in SETTINGS:
        assert planned(workspace, **changes) == expected, changes
    last: set[str] = set()
    for changes, expected in CHANGES:
        ran, computed = run(workspace, **changes)
        # The last change is taken back in the same call.
        assert ran == last | expected, changes
        assert bool(computed) == (expected >= FEATURES), changes
        last = expected
    assert run(workspace) == (last, [])


def test_deleted_files_cost_copies_and_nothing_that_follows(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "mine")
    name = "work1__take1"
    paths = [layout.features("segments", name), layout.targets(name)]
    content = [path.read_bytes() for path in paths]
    # Without a receipt, a shard is made again ...
    for path, kind in zip(paths, ("features", "targets"), strict=True):
        path.unlink()
        for shard in "01":
            layout.receipt(kind, shard).unlink()
    jobs, computed = run_jobs(workspace)
    assert (jobs, computed) == ({"features": 2, "targets": 2}, [])
    assert [path.read_bytes() for path in paths] == content
    # ... and so it is by name.
    for path in paths:
        path.unlink()
    outcome = workspace.snakemake("-R", "features", "targets")
    assert outcome.status == 0, outcome.output[-3000:]
    assert set(rules_that_ran(outcome.output)) == {"features", "targets", "all"}
    assert [path.read_bytes() for path in paths] == content
    assert planned(workspace) == set()


def test_a_run_for_another_setting_that_stops_half_way_leaves_no_mixture(
    workspace: Workspace,
) -> None:
    other = replace(workspace, config={**CONFIG, "overlap": 0.9})
    half = other.snakemake("data/embeddings/mine-emb/shards/0.json")
    assert half.status == 0, half.output[-3000:]
    layout = Layout(workspace.data, "mine")
    layout.index_receipt("clips").unlink()
    outcome = workspace.snakemake(str(Path("data/indices/mine/clips/receipt.json")))
    assert outcome.status == 0, outcome.output[-3000:]
    run(workspace)
    for path in (layout.embeddings / "segments").glob("*.npy"):
        assert len(np.load(path)) == 2, "6 s have two windows at an overlap of 0.5, three at 0.9"
    starts = {row.start_s for row in load_latest(workspace.data / "published/mine/clips").rows}
    assert starts == {0.0, 1.0}


def test_deleted_results_come_back(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "mine")
    layout.page("facts").unlink()
    assert planned(workspace) == {"report"}
    shutil.rmtree(layout.index("clips"))
    assert planned(workspace) == INDEXED
    layout.probe("onset_density").unlink()
    assert run(workspace) == (DOWNSTREAM - {"decomposition"}, [])
    # Only probing needs decompositions: to delete them frees space and costs nothing until then.
    shutil.rmtree(layout.decomposition_receipt("encoder").parent)
    assert planned(workspace) == set()
    layout.probe("onset_density").unlink()
    assert run(workspace) == (DOWNSTREAM, [])


def test_a_deleted_table_is_asked_for_and_made_again_it_changes_nothing(
    workspace: Workspace,
) -> None:
    table = Layout(workspace.data, "mine").table
    table.unlink()
    outcome = workspace.snakemake()
    assert outcome.status != 0
    told = "data/metadata/mine.tsv does not exist; make it with: mess recordings --folder PATH"
    assert told in outcome.output
    assert "Traceback" not in outcome.output
    scan(workspace)
    assert run(workspace) == (set(), [])


def test_damaged_features_are_named_by_their_reader_and_come_back(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "mine")
    path = layout.features("segments", "work2__take0")
    content = path.read_bytes()
    path.unlink()  # not through a link into the cache
    path.write_bytes(content[: len(content) // 2])
    shutil.rmtree(layout.index("clips"))
    outcome = workspace.snakemake()
    assert outcome.status != 0
    assert str(path.relative_to(workspace.folder)) in outcome.output
    path.unlink()
    for receipt in (layout.embeddings / "shards").glob("*.json"):
        receipt.unlink()
    repaired = workspace.snakemake("all_features")
    assert repaired.status == 0, repaired.output[-3000:]
    assert set(rules_that_ran(repaired.output)) == {"features", "all_features"}
    assert path.read_bytes() == content
    assert run(workspace) == (INDEXED, [])


def test_another_encoder_extracts_everything_and_measures_nothing(workspace: Workspace) -> None:
    write_checkpoint(workspace.folder / "other", scale=0.2)
    ran, computed = run(workspace, encoder="other")
    assert ran == ENCODED | DOWNSTREAM | {"untrained"}
    # The baseline's shape and so its weights are those of the other's baseline.
    assert [name.split()[0] for name in computed] == ["features"] * 24
    ran, computed = run(workspace)
    assert (ran - {"untrained"}, computed) == (ENCODED | DOWNSTREAM, [])
    # Descriptors were computed as a baseline.
    ran, computed = run(workspace, encoder="descriptors")
    assert (ran, computed) == ((FEATURES - {"features"}) | DOWNSTREAM, [])
    run(workspace)


def test_one_result_can_be_asked_for_by_its_name(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "mine")
    path = layout.probe("onset_density")
    content = path.read_bytes()
    path.unlink()
    outcome = workspace.snakemake(str(path.relative_to(workspace.folder)))
    assert outcome.status == 0, outcome.output[-3000:]
    assert path.read_bytes() == content
    assert set(rules_that_ran(outcome.output)) == {"probing"}
    names = ("all_features", "all_targets", "probes", "answers", "indices", "pages")
    outcome = workspace.snakemake(*names)
    assert outcome.status == 0, outcome.output[-3000:]
    run(workspace)


#: What follows from the spaces that are learned.
LEARNED = {"geometry", "projection"} | INDEXED
#: What runs when a stage's number goes up.
STAGES = {
    "FEATURES": FEATURES | DOWNSTREAM,
    "TARGETS": (TARGETS | ALIGNMENTS | DOWNSTREAM) - {"decomposition"},
    "ALIGNMENTS": ALIGNMENTS | LEARNED,
    "PERFORMANCES": {"performances", "report"},
    "DECOMPOSITION": DOWNSTREAM,
    "PROBING": DOWNSTREAM - {"decomposition"},
    "ASPECTS": ANSWERS,
    "QUESTIONS": {"question", "report"},
    "GEOMETRY": LEARNED,
    "PROJECTION": LEARNED - {"geometry"},
    "INDEX": INDEXED,
    "PUBLISH": {"publish"},
    "VALIDITY": {"validity", "report"},
    "EVALUATION": {"evaluation", "report"},
    "REPORT": {"report"},
}


def test_judgments_of_its_recordings_run_what_reads_them(workspace: Workspace) -> None:
    folder = workspace.data / "judgments"
    names = [r.recording_id for r in read_recordings(Layout(workspace.data, "mine").table)]

    def heard(study: str, aspect: str, recording_ids: list[str]) -> None:
        passages = [{"recording_id": name, "start": 0, "end": 5} for name in recording_ids]
        facts: dict[str, Any] = {"study": study, "triplet_id": "1", "aspect": aspect}
        facts |= {"choice": "b", "confidence": None, "rater": "ann", "order": "bc"}
        facts |= {"repeat_of": "", "catch": False, **dict(zip("abc", passages, strict=True))}
        line = json.dumps(facts)
        write_text(folder / f"{study}.jsonl", line.replace('"a":', '"anchor":', 1) + "\n")

    heard("elsewhere", "overall", ["x", "y", "z"])
    assert planned(workspace) == set()
    heard("here", "overall", names[:3])
    assert run(workspace) == (LEARNED, [])
    heard("tempo", "tempo", names[:3])
    assert planned(workspace) == {"evaluation", "report"}
    shutil.rmtree(folder)
    assert run(workspace) == (LEARNED, [])


def with_line(workspace: Workspace, folder: Path, module: str, line: str) -> Workspace:
    """Return the workspace with a line more at the end of a module, in a copy of the package."""
    if not (folder / "mess_core").exists():
        shutil.copytree(ROOT / "src" / "mess_core", folder / "mess_core")
    with (folder / "mess_core" / module).open("a") as file:
        file.write(f"\n{line}\n")
    return replace(workspace, environment={"PYTHONPATH": str(folder)})


def test_a_stages_number_reaches_what_follows_from_it(workspace: Workspace, tmp_path: Path) -> None:
    for stage, expected in STAGES.items():
        line = f"{stage} += 1000"
        changed = with_line(workspace, tmp_path / stage, "stages.py", line)
        assert planned(changed) == expected, stage
        together = with_line(workspace, tmp_path / "all", "stages.py", line)
    everything = set().union(*STAGES.values())
    ran, computed = run(together)
    # Segments and means of the encoder, its twin and descriptors; targets.
    assert (ran, len(computed)) == (everything, 7 * 12)
    assert run(workspace) == (everything, [])


def test_a_script_that_changes_runs_its_own_rule_and_what_follows(
    workspace: Workspace, tmp_path: Path
) -> None:
    for name in ("workflow", "profiles", "config", "envs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    copied = replace(workspace, root=tmp_path)
    run(copied)
    assert planned(copied) == set()
    script = tmp_path / "workflow" / "scripts" / "index.py"
    script.write_text(script.read_text() + "\n# another word\n")
    assert planned(copied) == INDEXED
    run(workspace)


def test_a_new_target_runs_its_own_jobs_only(workspace: Workspace, tmp_path: Path) -> None:
    """With a registry line and a function more, in a copy of the package."""
    spec = '"loudest", "timbre", "scalar", "dBFS", "the loudest moment"'
    line = f'TARGETS["loudest"] = TargetSpec({spec})'
    function = "def loudest(loudness):\n    return float(np.nanmax(loudness))"
    changed = with_line(workspace, tmp_path, "targets/registry.py", line)
    changed = with_line(changed, tmp_path, "targets/timbre.py", f"\n{function}")
    changed = replace(changed, config={**CONFIG, "targets": [*CONFIG["targets"], "loudest"]})
    outcome = changed.snakemake()
    assert outcome.status == 0, outcome.output[-3000:]
    ran = rules_that_ran(outcome.output)
    told = {"question", "validity", "evaluation", "report"}
    assert set(ran) == TARGETS | told | {"probing", "all"}
    # Which layer, and how stable: nothing that was known of aspects and rows has changed.
    assert (ran["probing"], ran["question"]) == (1, 2)
    assert Layout(workspace.data, "mine").probe("loudest").exists()
    assert planned(changed, **changed.config) == set()
    ran_again, computed = run(workspace)
    assert (ran_again, computed) == ({"targets"} | told, [])


def test_a_new_aspect_measures_and_probes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    line = (
        'ASPECT_REGISTRY["glitter"] = '
        'Aspect("glitter", "How much of the sound lies very high", ("spectral_centroid",))'
    )
    newer = with_line(workspace, tmp_path, "probing/aspects.py", line)
    assert run(newer) == (ANSWERS, [])
    assert "glitter" in read_json(Layout(workspace.data, "mine").aspects)["aspects"]
    assert run(workspace) == (ANSWERS, [])
