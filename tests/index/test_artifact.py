"""Saving, loading, damage of every kind, and content that cannot be though all hashes agree."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from mess_core.errors import ArtifactError
from mess_core.files import file_sha256, fingerprint, read_json, write_json
from mess_core.index import artifact as module
from mess_core.index.artifact import (
    CONTENT,
    FILES,
    load_artifact,
    read_projection,
    save_artifact,
    verify_artifact,
)
from mess_core.index.index import ROW_TYPE, Index, Rows
from mess_core.index.projection import Projection
from tests.conftest import as_nobody
from tests.planted import ASPECT_MAP, ASPECTS, DIMS, FACTS, Corpus, clip_rows, recording_rows

pytestmark = pytest.mark.unit

NAMES = [entry.name for entry in fields(Projection)]


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let FAISS read nothing."""

    def no_faiss(*_: object) -> None:
        raise AssertionError("FAISS read a file that had not been verified")

    monkeypatch.setattr("faiss.read_index", no_faiss)


def check_equal(loaded: Index, index: Index) -> None:
    assert (loaded.kind, loaded.factory) == (index.kind, index.factory)
    assert list(loaded.rows) == list(index.rows)
    for name in NAMES:
        found, expected = (getattr(i.projection, name) for i in (loaded, index))
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    np.testing.assert_array_equal(loaded.predicted, index.predicted)
    everything = np.arange(len(index.rows))
    np.testing.assert_array_equal(loaded.stored(everything), index.stored(everything))
    assert (loaded.aspects, loaded.facts) == (index.aspects, index.facts)


def _forge(folder: Path, **entries: object) -> None:
    """Set entries of the manifest and make every hash agree, as who forges an artifact would."""
    manifest = read_json(folder / "manifest.json") | entries
    checksums = {
        name: {"sha256": file_sha256(folder / name), "size": (folder / name).stat().st_size}
        for name in CONTENT
    }
    manifest["artifact_version_id"] = module._version_id(manifest, checksums)
    del manifest["sha256"]
    write_json(folder / "checksums.json", checksums)
    write_json(folder / "manifest.json", manifest | {"sha256": fingerprint(manifest)})


def _refuses(folder: Path, match: str) -> None:
    with pytest.raises(ArtifactError, match=match):
        load_artifact(folder)


# --- saving and loading


@pytest.mark.parametrize("kind", ["recordings", "clips"])
@pytest.mark.parametrize("verify", [True, False])
def test_what_is_loaded_equals_what_was_saved(kind: str, verify: bool, tmp_path: Path) -> None:
    rows = recording_rows(30) if kind == "recordings" else clip_rows(5, 6)
    rows[1] = replace(rows[1], work_start_s=1.5, work_end_s=6.25)
    index = Corpus(30).index(rows, kind)
    folder = save_artifact(index, tmp_path / "new" / "root")
    loaded = load_artifact(folder, version_id=folder.name, verify=verify)
    check_equal(loaded, index)
    assert loaded.version_id == folder.name
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    assert save_artifact(loaded, tmp_path / "again").name == folder.name


def test_an_index_without_aspects_is_saved_and_loaded(index: Index, tmp_path: Path) -> None:
    bare = Corpus(6).bare(list(index.rows), "recordings", [0, 2])
    loaded = load_artifact(save_artifact(bare, tmp_path))
    check_equal(loaded, bare)
    assert loaded.predicted.shape == (0, 6)


def test_the_order_of_arrays_in_memory_is_no_content(
    artifact: Path, index: Index, tmp_path: Path
) -> None:
    turned = replace(
        index,
        predicted=np.asfortranarray(index.predicted),
        projection=replace(index.projection, basis=np.asfortranarray(index.projection.basis)),
    )
    assert save_artifact(turned, tmp_path).name == artifact.name


def test_a_manifest_says_what_the_index_is_and_how_it_was_made(
    index: Index, tmp_path: Path
) -> None:
    folder = save_artifact(index, tmp_path, build={"by": "me"})
    manifest = read_json(folder / "manifest.json")
    general = manifest["general"]
    assert manifest == {
        "schema_version": 5,
        "kind": "recordings",
        "factory": "Flat",
        "n_rows": 6,
        "n_recordings": 6,
        "layers": [0, 1, 2],
        "general_layers": [0, 1, 2],
        "dims": DIMS,
        "general": general,
        "blocks": {name: dims for name, (_, dims) in ASPECTS.items()},
        "sources": dict.fromkeys(ASPECTS, "probed"),
        "columns": [],
        "width": general + sum(dims for _, dims in ASPECTS.values()) + len(ASPECTS),
        "facts": FACTS,
        "aspects": ASPECT_MAP,
        "build": {"by": "me"},
        "artifact_version_id": folder.name,
        "sha256": manifest["sha256"],
    }
    outside = ("build", "artifact_version_id", "sha256")
    described = {key: value for key, value in manifest.items() if key not in outside}
    checksums = read_json(folder / "checksums.json")
    assert folder.name == fingerprint({"manifest": described, "checksums": checksums})
    for name, entry in checksums.items():
        path = folder / name
        assert entry == {"sha256": file_sha256(path), "size": path.stat().st_size}


def test_an_index_that_is_saved_again_has_the_same_version_and_stays_as_it_is(
    artifact: Path, index: Index
) -> None:
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in artifact.iterdir()}
    assert save_artifact(index, artifact.parent, build={"on": "another day"}) == artifact
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in artifact.iterdir()} == before
    assert [p.name for p in artifact.parent.iterdir()] == [artifact.name]


def test_a_damaged_version_is_replaced_by_saving_again(artifact: Path, index: Index) -> None:
    (artifact / "rows.npy").write_bytes(b"")
    assert save_artifact(index, artifact.parent) == artifact
    verify_artifact(artifact, version_id=artifact.name)


def _one_vector(index: Index) -> Index:
    vectors = index.stored(np.arange(6))
    vectors[3, : index.projection.general] *= -1
    changed = faiss.IndexFlatIP(index.projection.width)
    changed.add(vectors)
    return replace(index, vectors=changed)


def _one_prediction(index: Index) -> Index:
    predicted = index.predicted.copy()
    predicted[0, 2] = np.nextafter(predicted[0, 2], np.float32(np.inf))
    return replace(index, predicted=predicted)


CHANGES: dict[str, Callable[[Index], Index]] = {
    "fact": lambda i: replace(i, facts={**i.facts, "licence": "other"}),
    "aspect": lambda i: replace(i, aspects={**i.aspects, "min_r2": 0.31}),
    "title": lambda i: replace(
        i, rows=Rows.of([replace(i.rows[0], title="other"), *[*i.rows][1:]])
    ),
    "time": lambda i: replace(i, rows=Rows.of([*[*i.rows][:5], replace(i.rows[5], end_s=15.001)])),
    "work time": lambda i: replace(
        i, rows=Rows.of([replace(i.rows[0], work_start_s=0.0, work_end_s=9.0), *[*i.rows][1:]])
    ),
    "vector": _one_vector,
    "prediction": _one_prediction,
    "projection": lambda i: replace(
        i, projection=replace(i.projection, centre=i.projection.centre + np.float32(1e-6))
    ),
    "kind": lambda i: replace(i, kind="clips"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_of_content_changes_the_version(what: str, artifact: Path, index: Index) -> None:
    assert save_artifact(CHANGES[what](index), artifact.parent).name != artifact.name


def test_an_index_that_could_not_be_loaded_again_is_not_saved(index: Index, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"predicted\.npy: row 0 has the value nan"):
        save_artifact(replace(index, predicted=index.predicted * np.float32(np.nan)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_at_any_step_of_saving_leaves_nothing(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mess_core import files

    flush, calls = files.flush, [0, 0]

    def failing(path: Path) -> None:
        calls[0] += 1
        if calls[0] == calls[1]:
            raise OSError("the power went")
        flush(path)

    monkeypatch.setattr("mess_core.files.flush", failing)
    root = tmp_path / "root"
    for crash in range(1, 2 * len(FILES) + 1):
        calls[:] = [0, crash]
        with pytest.raises(OSError, match="the power went"):
            save_artifact(index, root)
        assert list(root.iterdir()) == []
    calls[:] = [0, 0]
    save_artifact(index, root)
    assert calls[0] == 2 * len(FILES)


# --- damage


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("name", FILES)
def test_damage_to_any_file_is_refused_by_name(
    name: str, artifact: Path, other_artifact: Path
) -> None:
    path = artifact / name
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
    swapped = (artifact / FILES[FILES.index(name) - 1]).read_bytes()
    damaged = [b"", content[:middle], content[:-9], content + b"!", flipped, swapped]
    for wrong in [*damaged, (other_artifact / name).read_bytes()]:
        if wrong != content:
            path.write_bytes(wrong)
            with pytest.raises(ArtifactError, match=name):
                load_artifact(artifact, version_id=artifact.name)
    path.unlink()
    _refuses(artifact, f"{name} is missing")
    path.mkdir()
    _refuses(artifact, f"{name} is missing")
    path.rmdir()
    path.write_bytes(content)
    verify_artifact(artifact)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("name", ["extra.bin", ".hidden", "rows.json"])
def test_unknown_files_are_refused(name: str, artifact: Path) -> None:
    (artifact / name).write_bytes(b"x")
    _refuses(artifact, f"{name} is unknown")


@pytest.mark.usefixtures("unread")
def test_the_files_of_another_version_are_refused(artifact: Path, other_artifact: Path) -> None:
    for name in FILES[:-1]:
        shutil.copy(other_artifact / name, artifact / name)
    _refuses(artifact, r"checksums\.json")
    shutil.copy(other_artifact / "manifest.json", artifact / "manifest.json")
    verify_artifact(artifact)
    with pytest.raises(ArtifactError, match=f"version is {other_artifact.name}, expected"):
        load_artifact(artifact, version_id=artifact.name)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("schema", [4, 6, None, "5"])
def test_another_schema_is_refused_before_all_else(schema: object, artifact: Path) -> None:
    (artifact / "manifest.json").write_text(json.dumps({"schema_version": schema, "n": 1}))
    (artifact / "rows.npy").rename(artifact / "rows.json")
    _refuses(artifact, rf"has schema version {schema}, this package reads 5; build the index again")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("name", ["manifest.json", "checksums.json"])
@pytest.mark.parametrize("content", [b"[]", b"\xff\xfe", b"{" + b'"a":{' * 100_000, b"1" * 10**5])
def test_what_is_no_json_object_is_refused(content: bytes, name: str, artifact: Path) -> None:
    (artifact / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} is damaged: expected a JSON obj") as caught:
        load_artifact(artifact)
    assert len(str(caught.value)) < 1000


def test_what_is_no_folder_is_refused(artifact: Path, tmp_path: Path) -> None:
    _refuses(tmp_path / "nowhere", "is not a folder")
    _refuses(artifact / "manifest.json", "is not a folder")
    (tmp_path / "empty").mkdir()
    _refuses(tmp_path / "empty", "is missing")


@pytest.mark.parametrize("name", [".", "manifest.json", "index.faiss"])
def test_what_may_not_be_read_is_an_error_that_says_so(name: str, artifact: Path) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = shutil.copytree(artifact, Path(root) / artifact.name)
        for path in (folder, *folder.iterdir()):
            os.chown(path, 65534, -1)
        with as_nobody(Path(root)):
            mode = (folder / name).stat().st_mode
            (folder / name).chmod(0)
            _refuses(folder, "cannot be read: .*Permission denied")
            (folder / name).chmod(mode)
            verify_artifact(folder)


def test_without_verifying_names_and_sizes_are_checked_and_nothing_is_hashed(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "file_sha256", None)
    load_artifact(artifact, verify=False)
    os.truncate(artifact / "index.faiss", 50)
    with pytest.raises(ArtifactError, match=r"index\.faiss: size is 50, expected"):
        load_artifact(artifact, verify=False)


# --- content that cannot be, though all hashes agree


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"n_rows": 7}, r"rows\.npy: type and shape"),
        ({"n_recordings": 5}, r"recordings\.json: number of recording_id is 6, expected 5"),
        ({"kind": "songs"}, "'songs' is none of"),
        ({"dims": 4}, r"projection\.npz: dims is 24, expected 4"),
        ({"layers": [0, 1]}, r"projection\.npz: layers"),
        ({"blocks": {"tempo": 1}}, r"projection\.npz: blocks"),
        ({"aspects": {**ASPECT_MAP, "aspects": {}}}, "the aspect map has resolved"),
        ({"aspects": {"aspects": {"pedal": {}}}}, "the aspect map is malformed"),
    ],
)
def test_a_manifest_that_contradicts_the_files_is_refused(
    entries: dict[str, Any], message: str, artifact: Path
) -> None:
    _forge(artifact, **entries)
    _refuses(artifact, message)


@pytest.mark.parametrize("name", CONTENT)
def test_content_that_is_none_is_refused(name: str, artifact: Path) -> None:
    content = (artifact / name).read_bytes()
    for wrong in (b"x", content[: len(content) // 2], pickle.dumps({"a": 1}), bytes(200)):
        (artifact / name).write_bytes(wrong)
        _forge(artifact)
        _refuses(artifact, name)


class _Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch evil",)


@pytest.mark.parametrize("name", ["rows.npy", "predicted.npy", "projection.npz"])
def test_nothing_is_unpickled(
    name: str, artifact: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = np.empty(6, dtype=object)
    evil[:] = _Evil()
    with (artifact / name).open("wb") as file:
        if name == "projection.npz":
            np.savez(file, **dict[str, Any](dict.fromkeys(NAMES, evil)))
        else:
            np.save(file, evil, allow_pickle=True)
    _forge(artifact)
    _refuses(artifact, name)
    assert not Path("evil").exists()


def _put(path: Path, array: Any) -> None:
    np.save(path, array)
    _forge(path.parent)


def test_arrays_of_another_type_shape_or_with_impossible_numbers_are_refused(
    artifact: Path, index: Index
) -> None:
    path, predicted = artifact / "predicted.npy", index.predicted.copy()
    _put(path, predicted.astype(np.float64))
    _refuses(artifact, r"predicted\.npy: type and shape")
    _put(path, predicted[:, :5])
    _refuses(artifact, r"predicted\.npy: type and shape")
    names = index.projection.names.tolist()
    for name, value in (("legato", np.inf), ("legato", np.nan), ("contour", 1.0)):
        wrong = predicted.copy()
        wrong[names.index(name), 4] = value
        _put(path, wrong)
        _refuses(artifact, rf"predicted\.npy: row 4 has the value {value} of '{name}'")
    _put(path, predicted)
    table = np.array(index.rows.table)
    table["end_s"][3] = np.inf
    _put(artifact / "rows.npy", table)
    _refuses(artifact, "recording r3: 0.0 to inf s is no passage")
    table = np.array(index.rows.table)
    table["work_end_s"][3] = 7.0
    _put(artifact / "rows.npy", table)
    _refuses(artifact, "recording r3: .* or None to 7.0 s of its work is none")
    _put(artifact / "rows.npy", np.zeros(6, ROW_TYPE.descr[:3]))
    _refuses(artifact, r"rows\.npy: type and shape")


def test_vectors_that_do_not_fit_or_are_not_finite_are_refused(
    artifact: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, width = artifact / "index.faiss", index.projection.width

    def put(vectors: Any, metric: int = faiss.METRIC_INNER_PRODUCT) -> None:
        changed = faiss.IndexFlat(vectors.shape[1], metric)
        changed.add(vectors)
        faiss.write_index(changed, str(path))
        _forge(artifact)

    stored = index.stored(range(6))
    for wrong in (stored[:5], np.ascontiguousarray(stored[:, :-1])):
        put(wrong)
        _refuses(artifact, rf"index\.faiss: width, rows and metric .*expected \({width}, 6, 0\)")
    put(stored, faiss.METRIC_L2)
    _refuses(artifact, "width, rows and metric")
    monkeypatch.setattr(module, "_AT_ONCE", 4)
    for row in (3, 4, 5):
        wrong = stored.copy()
        wrong[row, -1] = np.nan
        put(wrong)
        _refuses(artifact, rf"index\.faiss: the vector of row {row} is not finite")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": ["t"] * 5}, "number of title is 5"),
        ({"title": "tttttt"}, "title is no list of texts"),
        ({"recording_id": [1, 2, 3, 4, 5, 6]}, "recording_id is no list of texts"),
        ({"spilt": ["s"] * 6}, "columns is"),
        ({"recording_id": ["r0"] * 6}, "recording ids are empty or repeated"),
    ],
)
def test_recordings_that_are_no_columns_of_texts_are_refused(
    changes: dict[str, Any], message: str, artifact: Path
) -> None:
    path = artifact / "recordings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    _forge(artifact)
    _refuses(artifact, message)


@pytest.mark.parametrize("name", NAMES)
def test_a_projection_with_an_array_missing_or_of_another_shape_is_refused(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.npz"
    spaces = {"content": np.eye(3 * DIMS, 2, dtype=np.float32)}
    projection = Corpus(6).projection(spaces=spaces)
    arrays: dict[str, Any] = {key: getattr(projection, key) for key in NAMES}
    for others in ({name: arrays[name][..., np.newaxis]}, {name: np.zeros(3, complex)}):
        np.savez(path, **(arrays | others))
        with pytest.raises(ArtifactError, match=r"p\.npz is no projection"):
            read_projection(path)
    del arrays[name]
    np.savez(path, **arrays)
    with pytest.raises(ArtifactError, match=rf"p\.npz is no projection .*{name}"):
        read_projection(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("centre", np.nan, "centre holds values that are not finite"),
        ("standard_errors", -1, "standard errors are"),
        ("bounds", -1, "bounds hold values below 0"),
        ("names", "", "distinct names"),
        ("layers", 1, "distinct numbers from 0"),
        ("aspect_layers", 9, "aspects are read from layers"),
        ("sizes", 9, "blocks have"),
    ],
)
def test_a_projection_with_impossible_values_is_refused(
    name: str, value: Any, message: str, index: Index
) -> None:
    wrong = np.full_like(getattr(index.projection, name), value)
    with pytest.raises(ArtifactError, match=message):
        replace(index.projection, **{name: wrong}).check()


# --- memory, and a service


def test_checking_holds_a_part_of_the_vectors_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_artifact(Corpus(6000).index(clip_rows(60, 100), "clips"), tmp_path)
    monkeypatch.setattr(module, "_AT_ONCE", 64)
    tracemalloc.start()
    try:
        load_artifact(folder)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = (folder / "index.faiss").stat().st_size
    assert size > 1.5e6
    assert held < size / 2


_SERVICE = """
import json, sys
import mess_core
from mess_core import index, search
assert not {"numpy", "faiss", "boto3"} & set(sys.modules), "importing is not light"
from pathlib import Path
index = index.load_artifact(Path(sys.argv[1]))
hits = search.search_by_aspect(index, "r0", "tempo", k=2, exclude="work")
assert len(hits) == 2
from mess_core.publishing.publish import publish
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_a_service_loads_and_searches_without_anything_heavy(artifact: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", _SERVICE, str(artifact)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    imported = set(json.loads(answer.stdout))
    assert {"numpy", "faiss"} <= imported
    heavy = {"torch", "transformers", "librosa", "sklearn", "pandas", "scipy", "snakemake"}
    heavy |= {"soundfile", "threadpoolctl", "matplotlib", "mlflow"}
    # Nothing of this comes from S3.
    assert not (heavy | {"boto3", "botocore"}) & imported
