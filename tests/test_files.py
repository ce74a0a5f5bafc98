"""Files are written whole or not at all."""

import errno
import io
import json
import os
import stat
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mess_core.errors import StorageError
from mess_core.files import (
    ArrayWriter,
    atomic_path,
    file_sha256,
    fingerprint,
    read_json,
    save_array,
    storage_errors,
    write_bytes,
    write_json,
    write_text,
)
from tests.conftest import SmallDisk, make_read_only

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


def test_content_is_on_the_disk_before_its_name_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    events: list[tuple[str, bool]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        events.append((kind, path.exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(path, "x")
    assert events == [("file", False), ("folder", True)]


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


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("row_shape", [(), (13, 7), (4, 0)])
def test_rows_make_the_very_file_that_numpy_saves(
    tmp_path: Path, dtype: str, row_shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(3)
    path = tmp_path / "rows.npy"
    for counts in ([1], [9, 1], [3, 0, 4, 993, 17], [0, 12_345]):
        whole = rng.standard_normal((sum(counts), *row_shape)).astype(dtype)
        with ArrayWriter(path, np.dtype(dtype)) as writer:
            for rows in np.split(whole, np.cumsum(counts)[:-1]):
                writer.append(rows)
        expected = io.BytesIO()
        np.save(expected, whole)
        assert path.read_bytes() == expected.getvalue()
        if whole.size:
            np.testing.assert_array_equal(np.load(path, mmap_mode="r"), whole)
    assert [p.name for p in tmp_path.iterdir()] == ["rows.npy"]


def test_rows_are_converted_whatever_their_type_and_order_in_memory(tmp_path: Path) -> None:
    rows = np.arange(24.0).reshape(2, 3, 4)
    with ArrayWriter(tmp_path / "a.npy", np.float16) as writer:
        writer.append(rows.astype(np.int64))
        writer.append(np.asfortranarray(rows))
        writer.append(rows[::-1])
        writer.append(rows.tolist())
    loaded = np.load(tmp_path / "a.npy")
    assert loaded.dtype == np.float16
    np.testing.assert_array_equal(loaded, np.concatenate([rows, rows, rows[::-1], rows]))


def append(path: Path, *parts: object, dtype: str = "float32") -> None:
    with ArrayWriter(path, dtype) as writer:
        for part in parts:
            writer.append(np.asarray(part))


@pytest.mark.parametrize(
    ("parts", "dtype", "message"),
    [
        ([], "float32", "no rows were appended"),
        ([np.empty((0, 3))], "float32", "no rows were appended"),
        ([1.5], "float32", r"shape \(\); it must be \[k, \.\.\.\]"),
        ([np.ones((2, 3)), np.ones((2, 4))], "float32", r"shape \(2, 4\); it must be \[k, 3\]"),
        ([np.ones(2), np.ones((2, 1))], "float32", r"shape \(2, 1\); it must be \[k\]"),
        ([[1.0], [np.nan]], "float32", r"float32 values that are not finite"),
        ([[1.0, -np.inf]], "float16", r"float16 values that are not finite"),
        ([[1.0], [0.0, -7e4]], "float16", r"up to 70000 are too large for float16 .*use float32"),
        ([[1e39]], "float32", "too large for float32"),
        ([[1]], "int32", "cannot write rows of int32"),
        ([[1]], "object", "cannot write rows of object"),
    ],
)
def test_wrong_rows_are_refused_and_leave_no_file(
    tmp_path: Path, parts: list[object], dtype: str, message: str
) -> None:
    path = tmp_path / "sub" / "a.npy"
    with pytest.raises(StorageError, match=message) as caught:
        append(path, *parts, dtype=dtype)
    assert str(path) in str(caught.value)
    assert not list(tmp_path.rglob("*.npy"))


def test_an_interrupted_array_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    append(path, np.ones((2, 3)))

    def fail() -> None:
        with ArrayWriter(path) as writer:
            writer.append(np.zeros((5, 3)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    np.testing.assert_array_equal(np.load(path), np.ones((2, 3)))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("source", "dtype", "copies"),
    # Share of the rows' own size: of the converted copy, and a byte per value for the finite check.
    [("float32", "float32", 0.25), ("float32", "float16", 0.75), ("float64", "float32", 0.625)],
)
def test_memory_does_not_grow_with_the_number_of_rows(
    tmp_path: Path, source: str, dtype: str, copies: float
) -> None:
    rows = np.ones((16, 64, 1024), source)
    tracemalloc.start()
    try:
        with ArrayWriter(tmp_path / "a.npy", dtype) as writer:
            for _ in range(8):
                writer.append(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (copies + 0.1) * rows.nbytes


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            errno.ENOSPC,
            r"too little space left \([\d,]+ bytes free\); free some space",
        ),
        (errno.EDQUOT, "quota .* used up; free some space and run again: what is finished is kept"),
        (errno.EFBIG, "may not be that large"),
        (errno.EROFS, "the file system is read-only; make it writable"),
        (errno.EACCES, "no permission; make the folder writable for you"),
        (errno.EPERM, "no permission; make the folder writable for you"),
        (errno.ENOTDIR, "a file is where a folder is needed; rename that file"),
        (errno.EISDIR, "it is a folder; rename"),
        (errno.ENOENT, "vanished meanwhile; run again"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.EIO, "input/output error; check the disk"),
        (errno.ENOLCK, "no locks; put the data folder on one that does"),
    ],
)
def test_an_error_of_the_disk_says_where_why_and_what_to_do(
    tmp_path: Path, code: int, message: str
) -> None:
    path = tmp_path / "not" / "made" / "a.npy"
    for named in (None, str(path), os.fsencode(path.with_name(".tmp-x"))):
        error = OSError(code, os.strerror(code), named) if named else OSError(code, "write")
        with pytest.raises(StorageError, match=message) as caught, storage_errors(path):
            raise error
        assert str(caught.value).startswith(f"cannot write {path}: ")
        assert ".tmp-" not in str(caught.value)
        assert caught.value.__cause__ is error


def test_errors_of_other_files_and_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "out" / "a.npy"
    others = [
        FileNotFoundError(
            errno.ENOENT, "No such file or directory", str(tmp_path / "in" / "a.wav")
        ),
        PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "out2")),
        OSError(errno.EPIPE, "Broken pipe"),
        OSError("neither a number nor a known text"),
        ValueError("no OSError"),
    ]
    for error in others:
        with pytest.raises(type(error)) as caught, atomic_path(path):
            raise error
        assert caught.value is error
    with pytest.raises(FileNotFoundError, match=r"a\.wav"), atomic_path(path):
        (tmp_path / "in" / "a.wav").read_bytes()
    assert not list(path.parent.iterdir())


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "data"
    blocker.write_text("")
    for path in (blocker / "a.txt", blocker / "deep" / "a.txt"):
        with pytest.raises(StorageError, match=rf"needed \({path.parent}\); rename that file"):
            write_text(path, "x")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StorageError, match=rf"cannot write {folder}: it is a folder"):
        write_text(folder, "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "folder"]


def test_a_full_disk_is_a_clear_error_and_keeps_the_old_content(small_disk: SmallDisk) -> None:
    disk = small_disk(64)
    path = disk / "a.npy"
    old = np.arange(1000.0)
    save_array(path, old)
    large = np.zeros(100_000)

    def by_numpy() -> None:
        # Through C's streams, whose errors have no number.
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            large.tofile(file)

    attempts = {
        "save_array": lambda: save_array(path, large),
        "ArrayWriter": lambda: append(path, *([large[:1000]] * 100), dtype="float64"),
        "write_bytes": lambda: write_bytes(path, large.tobytes()),
        "tofile": by_numpy,
    }
    for name, write in attempts.items():
        with pytest.raises(
            StorageError, match=r"too little space left \(57,344 bytes free"
        ) as caught:
            write()
        assert str(path) in str(caught.value), name
        assert list(disk.iterdir()) == [path], name
        np.testing.assert_array_equal(np.load(path), old)
    save_array(path, large[:2000])
    assert np.load(path).size == 2000


def test_a_read_only_disk_is_a_clear_error(small_disk: SmallDisk) -> None:
    disk = small_disk(64)
    write_text(disk / "a", "x")
    make_read_only(disk)
    for path in (disk / "a", disk / "new" / "b", disk / "new" / "deep" / "b"):
        with pytest.raises(StorageError, match=rf"cannot write {path}: the file system is read-on"):
            write_text(path, "y")
    assert (disk / "a").read_text() == "x"
