"""``manifest.json`` and ``checksums.json``: what they say, and what is refused of them."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from mess_core.errors import ArtifactError
from mess_core.files import file_sha256, fingerprint, read_json, write_json
from mess_core.index.artifact import CONTENT, FILES, parse_checksums, parse_manifest
from mess_core.index.manifest import LARGEST_JSON, is_version_id
from tests.index.forging import Change, check_refused, no_faiss, put_json, reseal, setting
from tests.planted import ASPECT_MAP, ASPECTS, DIMS, FACTS

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faiss.read_index", no_faiss)


def _parse(content: str | bytes) -> dict[str, Any]:
    return parse_manifest(content if isinstance(content, bytes) else content.encode(), "here.json")


# --- what it says


def test_a_manifest_says_what_the_index_is_and_where_it_comes_from(artifact: Path) -> None:
    before = datetime.now(UTC)
    manifest = read_json(artifact / "manifest.json")
    general = manifest["general"]
    expected = {
        "schema_version": 2,
        "kind": "recordings",
        "metric": "inner_product",
        "factory": "Flat",
        "n_rows": 6,
        "n_recordings": 6,
        "layers": [0, 1, 2],
        "general_layers": [0, 1, 2],
        "dims": DIMS,
        "general": general,
        "blocks": {name: dims for name, (_, dims) in ASPECTS.items()},
        "width": general + sum(dims for _, dims in ASPECTS.values()) + len(ASPECTS),
        "facts": FACTS,
        "aspects": ASPECT_MAP,
        "aspects_sha256": fingerprint(ASPECT_MAP),
        "artifact_version_id": artifact.name,
    }
    assert {name: manifest[name] for name in expected} == expected
    assert set(manifest) == {*expected, "build", "sha256"}
    assert {"dataset", "encoder", "licence"} <= set(manifest["facts"])
    assert manifest["facts"]["encoder"]["weights_sha256"] == "0" * 64
    libraries = manifest["build"]["libraries"]
    assert set(libraries) == {"faiss", "mess-core", "numpy"}
    assert (libraries["faiss"], libraries["numpy"]) == (faiss.__version__, np.__version__)
    created = datetime.fromisoformat(manifest["build"]["created"])
    assert created.tzinfo == UTC
    assert created <= before


def test_the_id_and_the_seal_are_hashes_of_what_is_said(artifact: Path) -> None:
    manifest = read_json(artifact / "manifest.json")
    checksums = read_json(artifact / "checksums.json")
    outside = ("build", "artifact_version_id", "sha256")
    described = {key: value for key, value in manifest.items() if key not in outside}
    assert artifact.name == fingerprint({"manifest": described, "checksums": checksums})
    seal = manifest.pop("sha256")
    assert seal == fingerprint(manifest)


def test_checksums_list_every_file_of_content(artifact: Path) -> None:
    checksums = parse_checksums((artifact / "checksums.json").read_bytes(), "there")
    assert list(checksums) == list(CONTENT) == list(FILES[:-2])
    for name, entry in checksums.items():
        path = artifact / name
        assert entry == {"sha256": file_sha256(path), "size": path.stat().st_size}


@pytest.mark.parametrize(
    "text",
    ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", "../" + "0" * 61, "\u0660" * 64],
)
def test_other_names_are_no_version_ids(text: str) -> None:
    assert not is_version_id(text)
    assert is_version_id("0123456789abcdef" * 4)


# --- schema


@pytest.mark.parametrize("schema", [3, 1, 0, -2, None, "2", 2.0, True, [2], 10**30])
def test_another_schema_is_refused_before_all_else(schema: object, artifact: Path) -> None:
    put_json(artifact / "manifest.json", {"schema_version": schema, "of": "another kind"})
    (artifact / "rows.npy").rename(artifact / "rows.json")
    check_refused(artifact, r"manifest\.json has schema version .* this package reads 2; use")
    (artifact / "manifest.json").write_text(json.dumps({"schema_version": schema}))
    check_refused(artifact, "has schema version")


def test_a_manifest_without_a_schema_is_refused(artifact: Path) -> None:
    reseal(artifact, setting(schema_version=...))
    check_refused(artifact, "schema version None")


# --- entries that contradict each other or the files, though all hashes agree


@pytest.mark.parametrize("name", ["n_rows", "n_recordings", "dims", "width", "general"])
@pytest.mark.parametrize("value", [0, -1, 6.0, "6", None, True, [], 2**48, 10**4000])
def test_numbers_that_are_none_are_refused(name: str, value: object, artifact: Path) -> None:
    reseal(artifact, setting(**{name: value}))
    check_refused(artifact, rf"manifest\.json: {name} is .*expected a positive integer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting(kind="songs"), "kind is 'songs', expected recordings or clips"),
        (setting(kind=["clips"]), r"kind is \['clips'\]"),
        (setting(kind="../clips"), "kind is '../clips'"),
        (setting(metric="l2"), "metric is 'l2', expected inner_product"),
        (setting(factory=""), "factory is ''"),
        (setting(factory=None), "factory is None"),
        (setting(factory="F" * 10_000), "factory is 'F+[.]{3} .10,002 characters"),
        (setting(layers=[]), "layers is"),
        (setting(layers=[0, 0, 1]), "layers is .*distinct"),
        (setting(layers=[0, 1, -1]), "layers is"),
        (setting(layers=[0, 1, True]), "layers is"),
        (setting(layers=[0, 1, [2]]), "layers is"),
        (setting(layers="012"), "layers is"),
        (setting(blocks={"tempo": 0}), "blocks is"),
        (setting(blocks={"tempo": "1"}), "blocks is"),
        (setting(blocks=["tempo"]), "blocks is"),
        (setting(facts=[]), "facts is"),
        (setting(aspects=None), "aspects is None"),
        (setting(build="today"), "build is"),
        (setting(aspects_sha256="0" * 64), r"manifest\.json: aspects_sha256 is 0{64}, expected"),
        (setting(aspects_sha256=None), "aspects_sha256 is None"),
        (setting(licence="extra"), "the list of entries is"),
        (setting(factory=...), "the list of entries is"),
        (setting(build=...), "the list of entries is"),
        (setting(aspects_sha256=...), "the list of entries is"),
        (setting(artifact_version_id=...), "the list of entries is"),
    ],
)
def test_entries_of_another_form_are_refused(change: Change, message: str, artifact: Path) -> None:
    reseal(artifact, change)
    check_refused(artifact, message)


def _other_aspects(manifest: dict[str, Any]) -> None:
    manifest["aspects"] = {**ASPECT_MAP, "min_r2": 0.9}


def _without_tempo(manifest: dict[str, Any]) -> None:
    known = {name: entry for name, entry in ASPECT_MAP["aspects"].items() if name != "tempo"}
    manifest["aspects"] = {**ASPECT_MAP, "aspects": known}
    manifest["aspects_sha256"] = fingerprint(manifest["aspects"])


def _no_r2(manifest: dict[str, Any]) -> None:
    manifest["aspects"] = {"aspects": {"pedal": {"resolved": False, "layer": None}}}
    manifest["aspects_sha256"] = fingerprint(manifest["aspects"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_aspects, "aspects_sha256 is"),
        (_without_tempo, "the aspect map has resolved"),
        (_no_r2, "the aspect map is malformed"),
        (setting(n_rows=7), r"rows\.npy: shape is \(6,\), expected \(7,\)"),
        (setting(n_recordings=5), r"recordings\.json: number of recording_id is 6, expected 5"),
        (setting(factory="IVF4,Flat"), r"index\.faiss has .* bytes, too few for 6 rows"),
        (setting(kind="clips", n_rows=5), r"rows\.npy: shape"),
        (setting(dims=4), r"projection\.npz: its description is .*'dims': 24"),
        (setting(width=13), r"projection\.npz: its description"),
        (setting(general=4), r"projection\.npz: its description"),
        (setting(layers=[0, 1]), r"projection\.npz: its description"),
        (setting(layers=[2, 1, 0]), r"projection\.npz: its description"),
        (setting(blocks={"tempo": 1}), r"projection\.npz: its description"),
    ],
)
def test_a_manifest_that_contradicts_the_files_is_refused(
    change: Change, message: str, artifact: Path
) -> None:
    reseal(artifact, change)
    check_refused(artifact, message)


def test_an_id_of_another_content_is_refused(artifact: Path) -> None:
    manifest = read_json(artifact / "manifest.json")
    manifest["artifact_version_id"] = "0" * 64
    del manifest["sha256"]
    put_json(artifact / "manifest.json", {**manifest, "sha256": fingerprint(manifest)})
    check_refused(artifact, r"checksums\.json: what it lists together with what manifest\.json")


# --- JSON


def _edited(folder: Path, old: str, new: str) -> None:
    path = folder / "manifest.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("name", ["manifest.json", "checksums.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null\n",
        b"[]\n",
        b'"text"\n',
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b"{}\n{}\n",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"schema_version": 2, "a": ' + b"[" * 600 + b"]" * 600 + b"}",
        b'{"schema_version": 2, "a": ' + b"[" * 950 + b"]" * 950 + b"}",
        b'{"a": "\x01"}',
        b"\0" * 1000,
    ],
    ids=lambda content: content[:12],
)
def test_what_is_no_strict_json_object_is_refused(
    content: bytes, name: str, artifact: Path
) -> None:
    (artifact / name).write_bytes(content)
    check_refused(artifact, name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"n_rows": 6,', '"n_rows": 6,\n  "n_rows": 6,', "a key occurs twice"),
        ('"min_r2": 0.3', '"min_r2": NaN', "NaN is no number"),
        ('"min_r2": 0.3', '"min_r2": -Infinity', "-Infinity is no number"),
        ('"min_r2": 0.3', '"min_r2": 1e999', "not in the form"),
        ('"min_r2": 0.3', '"min_r2": 0.30', "not in the form"),
        ('"min_r2": 0.3', '"min_r2":  0.3', "not in the form"),
        ('"planted"', '"pl\\u0061nted"', "not in the form"),
        ('"planted"', '"plänted"', "not in the form"),
        ('"planted"', '"pl\\ud800nted"', "not in the form .*whole characters"),
    ],
)
def test_there_is_one_form_of_a_manifest(old: str, new: str, message: str, artifact: Path) -> None:
    _edited(artifact, old, new)
    check_refused(artifact, rf"manifest\.json is damaged: .*{message}")


@pytest.mark.parametrize(("depth", "fine"), [(58, True), (70, False), (300, False), (960, False)])
def test_facts_nested_beyond_reason_are_refused(depth: int, fine: bool, artifact: Path) -> None:
    nested: Any = 0
    for _ in range(depth):
        nested = [nested]
    text = read_json(artifact / "manifest.json")
    if fine:
        reseal(artifact, setting(facts={"x": nested}))
        _parse((artifact / "manifest.json").read_bytes())
        return
    text["facts"] = {"x": "HERE"}
    lines = [*("[" for _ in range(depth)), "0", *("]" for _ in range(depth))]
    indent = [*range(depth), depth, *reversed(range(depth))]
    body = "\n".join("  " * (2 + n) + line for n, line in zip(indent, lines, strict=True)).strip()
    content = (json.dumps(text, indent=2) + "\n").replace('"HERE"', body)
    with pytest.raises(ArtifactError, match=r"here\.json is damaged: it is not"):
        _parse(content)


@pytest.mark.parametrize("brackets", [b"[]", b"{}"])
def test_json_that_is_nested_too_deeply_to_be_read_or_to_be_written_is_refused(
    brackets: bytes,
) -> None:
    # Whichever of the two meets the limit on recursion first.
    opening = b"[" if brackets == b"[]" else b'{"a":'
    for depth in range(700, 1000, 3):
        nested = opening * depth + b"0" + brackets[1:] * depth
        with pytest.raises(ArtifactError, match=r"here\.json is damaged: it is not"):
            _parse(b'{"schema_version": 2, "a": ' + nested + b"}")


@pytest.mark.parametrize("name", ["manifest.json", "checksums.json"])
def test_a_file_that_is_too_large_is_refused(name: str, artifact: Path) -> None:
    path = artifact / name
    path.write_bytes(path.read_bytes().ljust(LARGEST_JSON))
    check_refused(artifact, rf"{name} is damaged: it is not in the form")
    path.write_bytes(path.read_bytes() + b" ")
    check_refused(artifact, rf"{name} has 16,777,217 bytes, at most 16,777,216 are read")


def test_messages_are_short_whatever_is_in_the_file(artifact: Path) -> None:
    shutil.copy(artifact / "manifest.json", artifact.parent / "kept")
    for change in (
        setting(n_rows="6" * 10**6),
        setting(kind={str(n): n for n in range(10**5)}),
        setting(**{f"extra{n}": n for n in range(10**4)}),
        setting(schema_version="x" * 10**6),
    ):
        reseal(artifact, change)
        with pytest.raises(ArtifactError) as caught:
            _parse((artifact / "manifest.json").read_bytes())
        assert len(str(caught.value)) < 1000
        shutil.copy(artifact.parent / "kept", artifact / "manifest.json")


# --- checksums


@pytest.mark.parametrize(
    "name",
    [
        "../rows.npy",
        "/etc/passwd",
        "extra.bin",
        "a/rows.npy",
        "rows.npy\0",
        "",
        ".",
        "a\\b",
        "ROWS.NPY",
    ],
)
def test_checksums_that_name_other_paths_are_refused(name: str, artifact: Path) -> None:
    checksums = read_json(artifact / "checksums.json")
    write_json(artifact / "checksums.json", {**checksums, name: checksums["rows.npy"]})
    check_refused(artifact, r"checksums\.json lists")
    renamed = {name if key == "rows.npy" else key: entry for key, entry in checksums.items()}
    write_json(artifact / "checksums.json", renamed)
    check_refused(artifact, r"checksums\.json lists")


@pytest.mark.parametrize("name", CONTENT)
def test_checksums_that_leave_out_a_file_are_refused(name: str, artifact: Path) -> None:
    checksums = read_json(artifact / "checksums.json")
    del checksums[name]
    write_json(artifact / "checksums.json", checksums)
    check_refused(artifact, r"checksums\.json lists")


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        "0" * 64,
        {},
        {"size": 1},
        {"sha256": "0" * 64},
        {"sha256": "0" * 64, "size": -1},
        {"sha256": "0" * 64, "size": 0},
        {"sha256": "0" * 64, "size": 1.0},
        {"sha256": "0" * 64, "size": True},
        {"sha256": "0" * 64, "size": "1"},
        {"sha256": "0" * 64, "size": 2**60},
        {"sha256": "0" * 63, "size": 1},
        {"sha256": "../" + "0" * 61, "size": 1},
        {"sha256": 0, "size": 1},
        {"sha256": "0" * 64, "size": 1, "path": "/etc/passwd"},
    ],
)
def test_entries_that_are_no_checksum_are_refused(entry: object, artifact: Path) -> None:
    checksums = read_json(artifact / "checksums.json")
    write_json(artifact / "checksums.json", {**checksums, "rows.npy": entry})
    check_refused(artifact, r"checksums\.json: the entry of rows\.npy is")


@pytest.mark.parametrize("name", CONTENT)
def test_checksums_of_another_content_are_refused(name: str, artifact: Path) -> None:
    checksums = read_json(artifact / "checksums.json")
    for wrong in ({"sha256": "0" * 64}, {"size": 7}):
        write_json(artifact / "checksums.json", {**checksums, name: {**checksums[name], **wrong}})
        check_refused(artifact, r"checksums\.json: what it lists")
