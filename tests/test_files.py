"""Files are written whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest

from mess_core.errors import StorageError
from mess_core.files import (
    atomic_path,
    file_sha256,
    fingerprint,
    read_json,
    save_array,
    write_bytes,
    write_json,
    write_text,
)

pytestmark = pytest.mark.unit


def test_a_failing_writer_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_writing_makes_folders_and_respects_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "x" / "y" / "a.bin"
    write_bytes(path, b"abc")
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.read_bytes() == b"abc"
    assert path.stat().st_mode == plain.stat().st_mode


def test_json_refuses_nan_and_survives_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, 2.5, None]})
    assert read_json(path) == {"b": [1, 2.5, None]}
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"b": float("nan")})
    assert read_json(path) == {"b": [1, 2.5, None]}


def test_reading_a_missing_or_broken_json_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="run the rule"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(StorageError, match=r"bad\.json is not JSON"):
        read_json(tmp_path / "bad.json")


def test_arrays_are_saved_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    save_array(path, np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(ValueError, match="Object arrays"):
        save_array(path, np.array([{}], dtype=object))
    np.testing.assert_array_equal(np.load(path), [[0, 1, 2], [3, 4, 5]])


def test_hashes_are_those_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(path) == expected


def test_fingerprints_depend_on_content_and_not_on_order() -> None:
    facts = {"a": 1, "b": [0.5, "x"], "c": None}
    assert fingerprint(facts) == fingerprint(json.loads(json.dumps(dict(reversed(facts.items())))))
    assert fingerprint(facts) != fingerprint({**facts, "b": ["x", 0.5]})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})
