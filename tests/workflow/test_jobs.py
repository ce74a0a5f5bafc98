"""Jobs refuse what would mix results that do not belong together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.alignment import store
from mess_core.alignment.maps import Alignment
from mess_core.alignment.store import StoredWork
from mess_core.errors import AlignmentError, StorageError
from mess_core.files import read_json, write_json
from mess_core.layout import Layout
from mess_core.recordings import Recording, read_problems, try_failed_again, write_recordings
from mess_core.workflow import jobs
from mess_core.workflow.jobs import (
    _withdraw_other,
    _work_times,
    align_shard,
    gather_alignments,
    gather_features,
    gather_targets,
)
from tests.workflow.test_plan import recording

pytestmark = pytest.mark.unit

#: Works with their recordings.
WORKS = {"good": "abc", "bad": "de"}
FACTS = {"name": "m", "precision": "bfloat16"}


def test_a_manifest_of_other_inputs_is_withdrawn_before_its_files_are_replaced(
    tmp_path: Path,
) -> None:
    manifest = tmp_path / "manifest.json"
    assert _withdraw_other(manifest, "0", "these") == {}
    content = {"shards": {"0": "these"}, "encoder": FACTS}
    write_json(manifest, content)
    assert _withdraw_other(manifest, "0", "these") == content
    assert _withdraw_other(manifest, "0", "others") == {}
    assert not manifest.exists()


@pytest.mark.parametrize("when", ["before it is read", "before it is deleted"])
def test_jobs_of_two_shards_may_withdraw_a_manifest_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    manifest = tmp_path / "manifest.json"
    write_json(manifest, {"shards": {"0": "these"}})

    def read(path: Path) -> Any:
        if when == "before it is read":
            path.unlink()
            return read_json(path)
        content = read_json(path)
        path.unlink()
        return content

    monkeypatch.setattr(jobs, "read_json", read)
    assert _withdraw_other(manifest, "0", "others") == {}


def test_what_comes_together_is_of_the_same_inputs_and_encoder(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "x")

    def receipt(shard: str, inputs: str, **encoder: str) -> None:
        content = {"inputs": inputs, "encoder": FACTS | encoder, "recordings": {}, "failed": {}}
        write_json(layout.receipt("features", shard), content)

    def gather() -> None:
        gather_features(layout, source="encoder", shards={"0": "a", "1": "b"})

    receipt("0", "a")
    receipt("1", "older")
    with pytest.raises(StorageError, match=r"shards/1.json is of other recordings or settings"):
        gather()
    receipt("1", "b", precision="float32")
    with pytest.raises(StorageError, match="different encoders or in different precisions"):
        gather()
    receipt("1", "b")
    gather()
    assert layout.features_manifest.is_file()


def test_an_index_takes_work_times_of_recordings_that_are_aligned(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "x")
    blank = Recording("a", "w", "", "", "", "", "", "", "", "", "", "", 12.0, "ok", "")
    windows = np.array([[0.0, 5.0], [2.5, 7.5], [5.0, 10.0]])
    assert np.isnan(_work_times(layout)(blank, windows)).all()
    knots, none = np.array([0.0, 6.0, 12.0]), np.zeros(0)
    planted = Alignment(knots, np.array([1.0, 4.0, 16.0]), none, np.array([[1.0, 12.0]]), none)
    layout.alignment("a").parent.mkdir(parents=True)
    np.savez(layout.alignment("a"), allow_pickle=False, **planted.arrays())
    work = {"reference": "b", "beats_from": "", "sources": {"a": "audio", "b": "audio"}}
    work["left_out"] = {"c": "another work"}
    write_json(layout.alignments_manifest, {"works": {"w": work}})
    found = _work_times(layout)(blank, windows)
    np.testing.assert_allclose(found, [[0.5, 3.5], [2.25, 7.0], [3.5, 12.0]])
    assert np.isnan(_work_times(layout)(replace(blank, recording_id="c"), windows)).all()
    with pytest.raises(AlignmentError, match=r"b\.npz cannot be read"):
        _work_times(layout)(replace(blank, recording_id="b"), windows)


def test_a_bad_work_does_not_end_a_shard_and_what_is_left_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path, "x")
    rows = [recording(n, work_id=w) for w, names in WORKS.items() for n in names]
    write_recordings(layout.table, [*rows, recording("alone")])

    def made(_: Layout, work_id: str, recordings: Any, **windows: float) -> StoredWork:
        assert windows == {"window_s": 5.0, "overlap": 0.5}
        names = [r.recording_id for r in recordings]
        if work_id == "bad":
            return StoredWork(failed=dict.fromkeys(names, "its file is gone"))
        entry = {"sources": {names[0]: "midi", names[1]: "midi"}, "beats": {}}
        entry["left_out"] = {names[2]: "another work"}
        return StoredWork(entry, {names[0]: Path("f.1.npz")})

    monkeypatch.setattr(store, "store_work", made)
    given = {"shard": "0", "shards": 1, "window_s": 5.0, "overlap": 0.5}
    for name, shards in {"rubato": "before", "relative_tempo": "now", "tempo": ""}.items():
        manifest = {"shards": {}, "alignments": {"0": shards}}
        write_json(layout.target_manifest(name), manifest)
    align_shard(layout, inputs="now", **given)  # type: ignore[arg-type]
    # Only what was of another alignment is withdrawn.
    assert {p.stem for p in layout.target_manifests.iterdir()} == {"relative_tempo", "tempo"}
    receipt = read_json(layout.receipt("alignments", "0"))
    assert receipt["recordings"] == {"a": "f.1"}
    gather_alignments(layout, shards={"0": "now"})
    manifest = read_json(layout.alignments_manifest)
    assert list(manifest["works"]) == ["good"]
    told = {r.recording_id: (r.status, r.reason) for r in read_problems(layout, 5.0, "tempo")}
    assert told == {
        "c": ("not aligned", "another work"),
        **dict.fromkeys(("d", "e"), ("not aligned", "its file is gone")),
    }
    with pytest.raises(StorageError, match="run snakemake again"):
        gather_alignments(layout, shards={"0": "later"})
    # What failed is tried again, with all that depends on it.
    gather_targets(layout, targets={"rubato": {}}, alignments={"0": "now"})
    gathered = read_json(layout.target_manifest("rubato"))
    assert gathered == {"shards": {}, "failed": {}, "alignments": {}}
    try_failed_again(layout)
    assert not layout.receipt("alignments", "0").exists()
