import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.artifacts.artifact import (
    CONTENT,
    FILES,
    load_artifact,
    save_artifact,
    verify_artifact,
)
from mess_core.artifacts.index import Index
from mess_core.errors import ArtifactError
from mess_core.files import file_sha256, fingerprint, read_json, write_json

pytestmark = pytest.mark.unit


def _reseal(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Change the manifest and make every hash agree again, as a forger would."""
    manifest = read_json(folder / "manifest.json")
    change(manifest)
    checksums = {
        name: {"sha256": file_sha256(folder / name), "size": (folder / name).stat().st_size}
        for name in CONTENT
    }
    write_json(folder / "checksums.json", checksums)
    outside = ("build", "artifact_version_id", "sha256")
    described = {k: v for k, v in manifest.items() if k not in outside}
    manifest["artifact_version_id"] = fingerprint({"manifest": described, "checksums": checksums})
    del manifest["sha256"]
    write_json(folder / "manifest.json", {**manifest, "sha256": fingerprint(manifest)})


def _no_faiss(*_: object) -> None:
    raise AssertionError("FAISS read a file that had not been proved")


def _refused(folder: Path, monkeypatch: pytest.MonkeyPatch, match: str) -> None:
    monkeypatch.setattr("faiss.read_index", _no_faiss)
    with pytest.raises(ArtifactError, match=match):
        load_artifact(folder)


def test_what_is_loaded_equals_what_was_saved(artifact: Path, index: Index) -> None:
    loaded = load_artifact(artifact, version_id=artifact.name)
    assert (loaded.kind, loaded.layers, loaded.rows) == (index.kind, index.layers, index.rows)
    assert (loaded.aspects, loaded.facts) == (index.aspects, index.facts)
    np.testing.assert_array_equal(loaded.mean, index.mean)
    np.testing.assert_array_equal(loaded.blocks(range(6)), index.blocks(range(6)))
    assert sorted(p.name for p in artifact.iterdir()) == sorted(FILES)


def test_a_resealed_artifact_is_accepted_so_that_the_refusals_below_mean_something(
    artifact: Path,
) -> None:
    before = {p.name: p.read_bytes() for p in artifact.iterdir()}
    _reseal(artifact)
    assert {p.name: p.read_bytes() for p in artifact.iterdir()} == before
    verify_artifact(artifact, version_id=artifact.name)


def test_saving_again_on_another_day_gives_the_same_id_and_leaves_the_folder_untouched(
    artifact: Path, index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in artifact.iterdir()}
    monkeypatch.setattr("faiss.__version__", "99")
    assert save_artifact(index, artifact.parent) == artifact
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in artifact.iterdir()} == before
    elsewhere = save_artifact(index, tmp_path / "elsewhere")
    assert elsewhere.name == artifact.name
    assert read_json(elsewhere / "manifest.json")["build"]["libraries"]["faiss"] == "99"
    assert [p.name for p in artifact.parent.iterdir()] == [artifact.name]


def _one_fact(index: Index) -> Index:
    return replace(index, facts={**index.facts, "licence": "other"})


def _one_row(index: Index) -> Index:
    return replace(index, rows=(replace(index.rows[0], title="other"), *index.rows[1:]))


def _one_number(index: Index) -> Index:
    return replace(index, mean=index.mean + np.float32(1))


@pytest.mark.parametrize("change", [_one_fact, _one_row, _one_number])
def test_any_change_of_content_changes_the_id(
    artifact: Path, index: Index, change: Callable[[Index], Index]
) -> None:
    assert save_artifact(change(index), artifact.parent).name != artifact.name


def test_saving_over_a_damaged_version_is_refused(artifact: Path, index: Index) -> None:
    (artifact / "rows.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"delete .* then run this again"):
        save_artifact(index, artifact.parent)


def test_a_crash_while_saving_leaves_nothing(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("numpy.savez", full)
    with pytest.raises(OSError, match="no space"):
        save_artifact(index, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_byte_is_found(
    name: str, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (artifact / name).read_bytes()
    monkeypatch.setattr("faiss.read_index", _no_faiss)
    for position in range(0, len(content), max(1, len(content) // 50)):
        for bit in (0x01, 0x20):
            damaged = bytearray(content)
            damaged[position] ^= bit
            (artifact / name).write_bytes(damaged)
            with pytest.raises(ArtifactError, match=name.split(".")[0]):
                load_artifact(artifact)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_an_empty_and_a_longer_file_are_found(
    name: str, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (artifact / name).read_bytes()
    for damaged in (b"", content[:1], content[: len(content) // 2], content[:-1], content + b"\n"):
        (artifact / name).write_bytes(damaged)
        _refused(artifact, monkeypatch, name)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(
    name: str, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (artifact / name).unlink()
    _refused(artifact, monkeypatch, f"{name} is missing")


def test_unknown_files_links_and_folders_are_refused(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (artifact / "extra.bin").write_bytes(b"x")
    _refused(artifact, monkeypatch, "unknown file 'extra.bin'")
    (artifact / "extra.bin").unlink()
    outside = tmp_path / "outside.json"
    (artifact / "rows.json").rename(outside)
    (artifact / "rows.json").symlink_to(outside)
    _refused(artifact, monkeypatch, r"rows\.json is a link")
    (artifact / "rows.json").unlink()
    (artifact / "rows.json").mkdir()
    _refused(artifact, monkeypatch, r"rows\.json is a link or no regular file")
    with pytest.raises(ArtifactError, match="is not a folder"):
        load_artifact(tmp_path / "nowhere")


@pytest.mark.parametrize("name", CONTENT)
def test_files_of_another_artifact_are_refused(
    name: str, artifact: Path, other_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "rows.json":
        (other_artifact / name).write_text((other_artifact / name).read_text().replace("r1", "q1"))
        _reseal(other_artifact)
    shutil.copy(other_artifact / name, artifact / name)
    _refused(artifact, monkeypatch, name)
    shutil.copy(other_artifact / "checksums.json", artifact / "checksums.json")
    # Then the file listed beside it, or the id, tells.
    _refused(artifact, monkeypatch, "sha256|size|artifact_version_id")


def test_another_version_or_manifest_than_asked_for_is_refused(
    artifact: Path, other_artifact: Path
) -> None:
    with pytest.raises(ArtifactError, match=f"version is {artifact.name}, expected"):
        load_artifact(artifact, version_id=other_artifact.name)
    with pytest.raises(ArtifactError, match=r"manifest\.json: sha256 is"):
        load_artifact(artifact, manifest_sha256="0" * 64)


def _set(**entries: object) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest.update(entries)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(dims=4), r"projection\.npz: shape is \(3, 5\), expected \(3, 4\)"),
        (_set(layers=[0, 1]), r"projection\.npz: shape"),
        (_set(n_rows=7), r"rows\.json: rows"),
        (_set(n_recordings=5), r"rows\.json: recordings is 6, expected 5"),
        (_set(kind="songs"), "'songs'"),
        (_set(metric="l2"), "metric is 'l2'"),
        (_set(schema_version=2), "schema version 2, this package reads 1"),
        (_set(schema_version=None), "schema version None"),
        (_set(layers=[0, 0, 1]), "distinct"),
        (_set(layers=[0, 1, -1]), "distinct"),
        (_set(layers=[0, 1, True]), "layers is"),
        (_set(layers=[]), "layers is"),
        (_set(layers="012"), "layers is"),
        (_set(dims=0), "dims is 0"),
        (_set(n_rows=6.0), r"n_rows is 6\.0"),
        (_set(facts=[]), "facts is"),
        (_set(aspects=None), "aspects is"),
        (_set(aspects={"aspects": {"tempo": {"resolved": True, "layer": 9}}}), "needs layer 9"),
        (_set(aspects={"aspects": {"tempo": {}}}), "aspect map is malformed"),
        (_set(aspects={"aspects": [1]}), "aspect map is malformed"),
    ],
)
def test_a_manifest_that_contradicts_the_files_is_refused_though_all_hashes_agree(
    change: Callable[[dict[str, Any]], None],
    message: str,
    artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _reseal(artifact, change)
    _refused(artifact, monkeypatch, message)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
def test_vectors_that_are_not_finite_or_not_of_length_one_are_refused(
    value: float, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray((artifact / "index.faiss").read_bytes())
    content[-4:] = struct.pack("<f", value)
    (artifact / "index.faiss").write_bytes(content)
    _reseal(artifact)
    _refused(artifact, monkeypatch, "the vector of row 5 has length")


@pytest.mark.parametrize(
    ("offset", "number"), [(4, 14), (8, 7), (33, 1), (37, 10**12)], ids=["d", "n", "metric", "size"]
)
def test_a_faiss_header_that_lies_is_refused(
    offset: int, number: int, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = artifact / "index.faiss"
    content = bytearray(path.read_bytes())
    content[offset : offset + 4] = struct.pack("<I", number % 2**32)
    path.write_bytes(content)
    _reseal(artifact)
    _refused(artifact, monkeypatch, "FAISS header")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"r1"', '"r0"', "r0 occurs twice"),
        ('"r1"', "1", "recording_id holds a value"),
        ("[0.0, ", "[NaN, ", "no passage"),
        ("[0.0, ", "[null, ", "start_s holds a value"),
        ('"split"', '"spilt"', "has the columns"),
        ("[0.0, ", "[", "rows is"),
    ],
)
def test_rows_that_make_no_sense_are_refused(
    old: str, new: str, message: str, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = artifact / "rows.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    _reseal(artifact)
    _refused(artifact, monkeypatch, message)


class _Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch evil",)


def _object_array() -> Mapping[str, Any]:
    array = np.empty(1, dtype=object)
    array[0] = _Evil()
    return {"mean": array}


def test_nothing_is_unpickled(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(artifact / "projection.npz", **_object_array())
    _reseal(artifact)
    _refused(artifact, monkeypatch, "no archive of plain arrays")
    (artifact / "projection.npz").write_bytes(pickle.dumps(_Evil()))
    _reseal(artifact)
    _refused(artifact, monkeypatch, "no archive of plain arrays")
    assert not (tmp_path / "evil").exists()


def test_compressed_and_extra_members_are_refused(
    artifact: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = artifact / "projection.npz"
    np.savez_compressed(path, mean=index.mean)
    _reseal(artifact)
    _refused(artifact, monkeypatch, "members")
    np.savez(path, mean=index.mean)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../escape", "x")
    _reseal(artifact)
    _refused(artifact, monkeypatch, "members")


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        (np.full((3, 5), np.nan, dtype=np.float32), "not finite"),
        (np.zeros((3, 5)), "dtype is float64"),
        (np.zeros((3, 4), dtype=np.float32), "shape is"),
    ],
)
def test_a_projection_that_does_not_fit_is_refused(
    mean: Any, message: str, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(artifact / "projection.npz", mean=mean)
    _reseal(artifact)
    _refused(artifact, monkeypatch, message)


def test_checksums_that_name_other_paths_are_refused(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checksums = read_json(artifact / "checksums.json")
    for name in ("../rows.json", "/etc/passwd", "extra.bin"):
        write_json(artifact / "checksums.json", {**checksums, name: checksums["rows.json"]})
        _refused(artifact, monkeypatch, r"checksums\.json lists")
    write_json(artifact / "checksums.json", {**checksums, "rows.json": {"size": 1}})
    _refused(artifact, monkeypatch, r"the entry of rows\.json")


def test_json_nested_beyond_reason_is_refused(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (artifact / "manifest.json").write_text("[" * 200_000)
    _refused(artifact, monkeypatch, r"manifest\.json is damaged")


_SERVICE = """
import json, sys
import mess_core
from mess_core import artifacts, search
assert not {"numpy", "faiss", "boto3"} & set(sys.modules), "importing is not light"
from pathlib import Path
index = artifacts.load_artifact(Path(sys.argv[1]))
hits = search.search_by_aspect(index, "r0", "tempo", k=2)
assert len(hits) == 2
artifacts.upload_artifact_to_s3, artifacts.publish
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_a_service_loads_and_searches_without_anything_heavy(artifact: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", _SERVICE, str(artifact)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    imported = set(json.loads(answer.stdout))
    heavy = {
        "torch",
        "transformers",
        "librosa",
        "sklearn",
        "pandas",
        "scipy",
        "soundfile",
        "snakemake",
    }
    assert {"numpy", "faiss", "boto3"} <= imported
    assert not heavy & imported
