"""Only what is stale runs again, in one call, whatever has changed; then nothing is left to do.

What changes here is recordings, files and settings; `test_staleness_code` has changes of code.
"""

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mess_core.layout import Layout
from mess_core.publishing import load_latest
from tests.extraction.checkpoints import write_checkpoint
from tests.workflow.conftest import Workspace
from tests.workflow.small import (
    ANSWERS,
    CONFIG,
    DOWNSTREAM,
    FEATURES,
    GATHER,
    GATHER_FEATURES,
    INDEXED,
    TARGETS,
    finished,
    recordings_in_index,
    rules_that_ran,
    run,
    scan,
    write,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return finished(tmp_path_factory.mktemp("stale"))  # which each test leaves finished again


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


#: Settings, and what each of them reaches.
SETTINGS: list[tuple[dict[str, Any], set[str]]] = [
    ({"precision": "float32"}, FEATURES | GATHER_FEATURES | DOWNSTREAM),
    ({"window_s": 4.0}, FEATURES | TARGETS | GATHER | DOWNSTREAM),
    ({"probing": {"n_folds": 3}}, DOWNSTREAM),
    ({"probing": {"rows": "recordings"}}, DOWNSTREAM | {"validity"}),
    ({"probing": {"alphas": [1.0, 100.0]}}, DOWNSTREAM - {"decomposition"}),
    ({"aspects": {"min_r2": 0.2}}, ANSWERS),
    ({"publish": {"destination": "elsewhere"}}, {"publish"}),
    ({"device": "cpu", "batch_size": 2, "tracking": {"experiment": "other"}}, set()),
    # Values that change places: Snakemake compares params as a set, in which a swap is no change.
    ({"index": {"exact_up_to": 2000, "memory_gb": 3000.0}}, INDEXED),
    ({"index": {"exact_up_to": 3000, "memory_gb": 2000.0}}, INDEXED),
    ({"overlap": 0.25}, FEATURES | TARGETS | GATHER | DOWNSTREAM),
]


def test_a_setting_reaches_what_it_matters_to_in_one_call(workspace: Workspace) -> None:
    last: set[str] = set()
    for changes, expected in SETTINGS:
        ran, computed = run(workspace, **changes)
        # The last change is taken back in the same call.
        assert ran == last | expected, changes
        assert bool(computed) == (expected >= FEATURES), changes
        last = expected
    assert run(workspace) == (last, []), "going back costs copies only"


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
    assert run(workspace) == (INDEXED, [])
    layout.probe("onset_density").unlink()
    ran, computed = run(workspace)
    assert (ran, computed) == (DOWNSTREAM - {"decomposition"}, [])
    layout.page("facts").unlink()
    assert run(workspace) == ({"report"}, [])
    # Only probing needs decompositions: to delete them frees space and costs nothing until then.
    shutil.rmtree(layout.decomposition("encoder", 1).parent)
    assert run(workspace) == (set(), [])
    layout.probe("onset_density").unlink()
    assert run(workspace) == (DOWNSTREAM, [])


def test_a_deleted_table_comes_back(workspace: Workspace) -> None:
    Layout(workspace.data, "mine").table.unlink()
    scan(workspace)
    assert run(workspace) == (set(), [])


def test_a_renamed_recording_costs_copies_only(workspace: Workspace) -> None:
    folder = workspace.folder / "corpus" / "work1"
    for old, new in (("take3", "other"), ("other", "take3")):
        (folder / f"{old}.wav").rename(folder / f"{new}.wav")
        scan(workspace)
        ran, computed = run(workspace)
        # Which shards: those that the two names belong to, by their hashes.
        assert ran - FEATURES - TARGETS == GATHER | DOWNSTREAM
        assert computed == []
        names = recordings_in_index(workspace)
        assert (f"work1__{new}" in names, f"work1__{old}" in names) == (True, False)


def test_damaged_features_are_named_by_their_reader_and_come_back_when_deleted(
    workspace: Workspace,
) -> None:
    layout = Layout(workspace.data, "mine")
    path = layout.features("segments", "work2__take0")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    shutil.rmtree(layout.index("clips"))
    outcome = workspace.snakemake()
    assert outcome.status != 0
    assert str(path.relative_to(workspace.folder)) in outcome.output
    path.unlink()
    # First the file: who reads features depends on their manifest, and would not wait for it.
    repaired = workspace.snakemake("features")
    assert repaired.status == 0, repaired.output[-3000:]
    ran = set(rules_that_ran(repaired.output))
    assert (len(ran & FEATURES), ran - FEATURES) == (1, {"features"})
    assert path.read_bytes() == content
    assert run(workspace) == (INDEXED, [])


def test_a_damaged_file_of_the_store_is_computed_again_when_it_is_needed(
    workspace: Workspace,
) -> None:
    path = Layout(workspace.data, "mine").features("segments", "work2__take0")
    content = path.read_bytes()
    for kept in (workspace.data / "cache").rglob("*.npy"):
        if kept.read_bytes() == content:
            kept.write_bytes(content[: len(content) // 2])
    assert run(workspace) == (set(), []), "nobody needs it"
    path.unlink()
    ran, _ = run(workspace)
    assert (len(ran), ran < FEATURES) == (1, True)
    assert path.read_bytes() == content


def test_another_encoder_extracts_everything_and_measures_nothing(workspace: Workspace) -> None:
    write_checkpoint(workspace.folder / "other", scale=0.2)
    ran, computed = run(workspace, encoder="other")
    assert ran == FEATURES | GATHER_FEATURES | DOWNSTREAM | {"untrained"}
    # The twin's shape and so its weights are those of the other's twin.
    assert [name.split()[0] for name in computed] == ["features"] * 24
    ran, computed = run(workspace)
    assert (ran, computed) == (FEATURES | GATHER_FEATURES | DOWNSTREAM, [])


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("data/probing/mine/spectral_centriod.json", "data/probing/mine/spectral_centroid.json'"),
        ("data/probing/mien/aspects.json", "'data/probing/mine/aspects.json'"),
        ("data/embeddings/mine-emb/segments/work0_take0.npy", "segments/work0__take0.npy'"),
        ("featurs_0", "'features_0'"),
        ("indexes", "'indices'"),
        ("index", "data/indices/mine/clips"),
    ],
)
def test_wrong_names_give_the_nearest_right_ones(
    workspace: Workspace, wrong: str, right: str
) -> None:
    outcome = workspace.snakemake("--dry-run", wrong)
    assert outcome.status != 0
    assert f"{wrong} " in outcome.output.replace(";", " ")
    assert right in outcome.output
    assert "Traceback" not in outcome.output


def test_one_result_can_be_asked_for_by_its_name(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "mine")
    features = layout.features("aggregated", "work0__take2")
    for path in (features, layout.probe("onset_density")):
        content = path.read_bytes()
        path.unlink()
        outcome = workspace.snakemake(str(path.relative_to(workspace.folder)))
        assert outcome.status == 0, outcome.output[-3000:]
        assert path.read_bytes() == content
        assert "index" not in rules_that_ran(outcome.output)
    for name in ("features", "targets", "probes", "answers", "projections", "indices", "pages"):
        clean = workspace.snakemake("--dry-run", name)
        assert clean.status == 0, clean.output[-3000:]
    run(workspace)
