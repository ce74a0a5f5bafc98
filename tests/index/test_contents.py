"""Forged content: all hashes agree, and what the files hold is impossible."""

import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numpy.lib import format as npy_format

from mess_core.errors import ArtifactError
from mess_core.index import contents as module
from mess_core.index.artifact import load_artifact, save_artifact, verify_artifact
from mess_core.index.contents import read_projection, write_projection
from mess_core.index.factory import Choice, flat_index, hold
from mess_core.index.index import Index
from mess_core.index.projection import Projection
from mess_core.index.rows import FIELDS, ROW_TYPE
from tests.index.forging import check_refused, no_faiss, put_json, reseal, setting
from tests.planted import Corpus, recording_rows

pytestmark = pytest.mark.unit

NAMES = [entry.name for entry in fields(Projection)]


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let FAISS read nothing."""
    monkeypatch.setattr("faiss.read_index", no_faiss)


@pytest.fixture(params=["rows.npy", "predicted.npy"])
def array_file(request: pytest.FixtureRequest, artifact: Path) -> Path:
    return artifact / str(request.param)


def _forge(path: Path, content: bytes | bytearray, match: str) -> None:
    path.write_bytes(content)
    reseal(path.parent)
    check_refused(path.parent, match)


# --- vectors


def _put_vector_value(folder: Path, row: int, column: int, value: float) -> None:
    path = folder / "index.faiss"
    content = bytearray(path.read_bytes())
    width = (len(content) - 45) // 6 // 4
    struct.pack_into("<f", content, 45 + 4 * (row * width + column % width), value)
    path.write_bytes(content)
    reseal(folder)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.0, 1e38, -1.7e38])
@pytest.mark.parametrize("column", [0, -1, -2, -5])
@pytest.mark.parametrize("row", [0, 5])
def test_impossible_vectors_are_refused_by_row(
    value: float, column: int, row: int, artifact: Path
) -> None:
    # The first column is of the general block, the last four are squared lengths of blocks, and
    # before these lies the last block itself.
    _put_vector_value(artifact, row, column, value)
    check_refused(artifact, rf"index\.faiss: the vector of row {row} is not finite, or its general")


@pytest.mark.usefixtures("unread")
def test_a_block_whose_square_overflows_like_its_norm_is_refused(artifact: Path) -> None:
    _put_vector_value(artifact, 2, -5, 1e38)
    _put_vector_value(artifact, 2, -1, np.inf)
    check_refused(artifact, "the vector of row 2 is")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("at_once", [1, 4, 5, 6, 7])
@pytest.mark.parametrize("row", range(6))
def test_the_row_is_named_whatever_is_checked_at_once(
    at_once: int, row: int, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHECKED_AT_ONCE", at_once)
    verify_artifact(artifact)
    _put_vector_value(artifact, row, 0, np.nan)
    check_refused(artifact, f"the vector of row {row} is")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("offset", "form", "number", "message"),
    [
        (4, "<i", 14, "FAISS header"),
        (4, "<i", -1, "FAISS header"),
        (8, "<q", 7, "FAISS header"),
        (8, "<q", 10**12, "FAISS header"),
        (8, "<q", -6, "FAISS header"),
        (32, "<B", 0, "FAISS header"),
        (33, "<i", 1, "FAISS header"),
        (33, "<i", 23, "FAISS header"),
        (37, "<Q", 10**12, "number of floats"),
        (37, "<Q", 2**64 - 1, "number of floats"),
        (0, "<4s", b"IxF2", "FAISS header"),
        (0, "<4s", b"IxFl", "FAISS header"),
        (0, "<4s", b"IwFl", "FAISS header"),
        (0, "<4s", b"IxMp", "FAISS header"),
        (0, "<4s", b"\0\0\0\0", "FAISS header"),
    ],
)
def test_a_faiss_header_that_lies_is_refused(
    offset: int, form: str, number: Any, message: str, artifact: Path
) -> None:
    content = bytearray((artifact / "index.faiss").read_bytes())
    struct.pack_into(form, content, offset, number)
    _forge(artifact / "index.faiss", content, rf"index\.faiss: {message}")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("length", [1, 4, 36, 44, 45, -4, -1])
def test_a_faiss_file_of_another_length_is_refused(length: int, artifact: Path) -> None:
    content = (artifact / "index.faiss").read_bytes()
    _forge(artifact / "index.faiss", content[:length], r"index\.faiss")
    _forge(artifact / "index.faiss", content + bytes(abs(length)), r"index\.faiss: size in bytes")


@pytest.mark.usefixtures("unread")
def test_a_width_that_fits_the_file_but_not_the_blocks_is_refused(artifact: Path) -> None:
    # Half as wide and twice as many rows: all sizes agree.
    content = bytearray((artifact / "index.faiss").read_bytes())
    (width,) = struct.unpack_from("<i", content, 4)
    struct.pack_into("<iq", content, 4, width // 2, 12)
    (artifact / "index.faiss").write_bytes(content)
    reseal(artifact, setting(width=width // 2, n_rows=12))
    check_refused(artifact, r"projection\.npz: its description")


# --- compressed vectors


def _compressed(tmp_path: Path, change: Callable[[Any], None] = lambda _: None) -> Path:
    """Save an index of 80 rows in 4 lists."""
    index = Corpus(80).index(recording_rows(80), "recordings")
    factory = f"IVF4,PQ{index.projection.width}x4fsr,RFlat"
    exact = flat_index(index.projection.width)
    exact.add(index.stored(range(80)))
    vectors = hold(exact, Choice(factory, 80, 0, 0, ""))
    change(vectors)
    return save_artifact(replace(index, vectors=vectors, factory=factory), tmp_path / "ivf")


def test_a_compressed_index_is_loaded(tmp_path: Path) -> None:
    folder = _compressed(tmp_path)
    loaded = load_artifact(folder)
    assert loaded.factory.startswith("IVF4,PQ")
    stored = Corpus(80).index(recording_rows(80), "recordings").stored(range(80))
    scores, found = loaded.vectors.search(stored[:3], 80)
    np.testing.assert_allclose(np.sort(scores), np.sort(stored[:3] @ stored.T), atol=1e-5)
    assert sorted(found[0].tolist()) == list(range(80))


def test_lists_that_do_not_hold_each_row_once_are_refused(tmp_path: Path) -> None:
    folder = _compressed(tmp_path)
    path = folder / "index.faiss"
    content = path.read_bytes()
    for number, wrong in [(41, 80), (41, -1), (41, 40), (41, 2**62)]:
        old = struct.pack("<q", number)
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, struct.pack("<q", wrong)))
        reseal(folder)
        with pytest.raises(ArtifactError, match=r"index\.faiss: number of rows .* in its lists"):
            load_artifact(folder)


def test_what_faiss_cannot_read_is_an_artifact_error(tmp_path: Path) -> None:
    folder = _compressed(tmp_path)
    path = folder / "index.faiss"
    content = path.read_bytes()
    # Behind the headers that are checked: the number of lists, and what follows.
    path.write_bytes(content[:82] + b"\xff" * 100 + content[182:])
    reseal(folder)
    with pytest.raises(ArtifactError, match=r"index\.faiss: FAISS cannot read it"):
        load_artifact(folder)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:60], "has 60 bytes, too few for 80 rows"),
        (lambda content: content[:-100], "FAISS header"),
        (lambda content: content[:37] + b"IHNf" + content[41:], "kind of what finds candidates"),
        (lambda content: content[:-4] + struct.pack("<f", np.nan), "k_factor is nan"),
        (lambda content: content[:-4] + struct.pack("<f", 0.5), "k_factor is 0.5"),
        (lambda content: content[:-8] + struct.pack("<f", np.nan) + content[-4:], "row 79"),
    ],
)
def test_what_lies_around_codes_is_checked_unread(
    change: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    path = _compressed(tmp_path) / "index.faiss"
    _forge(path, bytearray(change(path.read_bytes())), rf"index\.faiss:? .*{message}")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("factory", ["Flat", "PQ8"])
def test_exact_is_what_the_manifest_calls_so(factory: str, tmp_path: Path, artifact: Path) -> None:
    folder = artifact if factory != "Flat" else _compressed(tmp_path)
    reseal(folder, setting(factory=factory))
    check_refused(folder, "FAISS header|size in bytes|too few")


@pytest.mark.usefixtures("unread")
def test_a_compressed_index_of_another_shape_is_refused_unread(tmp_path: Path) -> None:
    folder = _compressed(tmp_path)
    content = bytearray((folder / "index.faiss").read_bytes())
    struct.pack_into("<q", content, 8, 79)
    _forge(folder / "index.faiss", content, r"index\.faiss: FAISS header")


# --- arrays


def _header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    encoded = text.encode()
    return (
        npy_format.magic(*version)
        + struct.pack("<H" if version < (2, 0) else "<I", len(encoded))
        + encoded
    )


def _described(descr: object, shape: object, order: object = False) -> bytes:
    return _header(f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    "shape",
    [
        "(1000000000000,)",
        "(1000000000000, 1000000000000)",
        "(4611686018427387904, 4)",
        f"({2**70},)",
        "(-6,)",
        "(-2, -3)",
        "(True,)",
        "6",
        "(6.0,)",
        "()",
        "(" + "1," * 70 + ")",
        "(0,)",
        "(" * 300,
        "(" + "1+" * 3000 + "1j,)",
        "(10**9,)",
        "__import__('os').system('touch evil')",
    ],
)
def test_a_header_of_another_shape_is_refused(
    shape: str, array_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(array_file.parent.parent)
    descr = ROW_TYPE.descr if array_file.name == "rows.npy" else "<f4"
    tracemalloc.start()
    try:
        _forge(array_file, _described(descr, shape) + bytes(96), array_file.name)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
    assert not Path("evil").exists()


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    "descr",
    ["|O", "<f8", ">f4", "<i4", "|V4", "<U1", "<M8[s]", "", "f4, f4", "<f999", "|V99999999999", 7,
     [("recording", "<i8")], [("recording", "|O"), ("start_s", "<f8"), ("end_s", "<f8")],
     [("recording", "<i8"), ("start_s", ">f8"), ("end_s", "<f8")],
     [("number", "<i8"), ("start_s", "<f8"), ("end_s", "<f8")], {"a": 1}, None],
)  # fmt: skip
def test_a_header_of_another_type_is_refused(descr: object, array_file: Path) -> None:
    shape = "(6,)" if array_file.name == "rows.npy" else "(4, 6)"
    _forge(array_file, _described(descr, shape) + bytes(144), array_file.name)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x93NUMPY\x07\x00" + bytes(200),
        b"PK\x03\x04" + bytes(200),
        _header("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 6)}", (2, 0)),
        _header("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 6)}", (3, 0)),
        npy_format.magic(2, 0) + struct.pack("<I", 2**32 - 1) + bytes(1000),
        _header("{'descr': '<f4', 'fortran_order': False}"),
        _header("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 6), 'more': 1}"),
        _header("[]"),
        _header("{"),
        _header("\xff\x00" * 20),
        _header("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 6)" + " " * 60_000 + "}"),
        _header("#" * 65_000),
        _described("<f4", "(4, 6)", order=True),
        _described("<f4", "(4, 6)", order=1),
    ],
    ids=range(18),
)  # fmt: skip
def test_a_header_that_is_none_is_refused(head: bytes, array_file: Path) -> None:
    _forge(array_file, head + bytes(96), array_file.name)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("more", [-1, 1, 4, 100])
def test_an_array_of_another_length_than_its_header_says_is_refused(
    more: int, array_file: Path
) -> None:
    content = array_file.read_bytes()
    changed = content[:more] if more < 0 else content + bytes(more)
    _forge(array_file, changed, rf"{array_file.name}: size in bytes for the shape")


def _array_bytes(array: npt.NDArray[Any], *, pickled: bool = False) -> bytes:
    file = BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_predictions_that_are_not_finite_are_refused(
    value: float, artifact: Path, index: Index
) -> None:
    names = index.projection.names.tolist()
    predicted = index.predicted.copy()
    predicted[names.index("legato"), 4] = value
    message = rf"predicted\.npy: row 4 has the value -?{abs(value)} of 'legato'"
    _forge(artifact / "predicted.npy", _array_bytes(predicted), message)


@pytest.mark.usefixtures("unread")
def test_predictions_of_an_aspect_without_a_direction_are_refused(
    artifact: Path, index: Index
) -> None:
    predicted = index.predicted.copy()
    predicted[index.projection.names.tolist().index("contour"), 2] = 1.0
    message = r"predicted\.npy: row 2 has the value 1\.0 of 'contour'"
    _forge(artifact / "predicted.npy", _array_bytes(predicted), message)


@pytest.mark.usefixtures("unread")
def test_predictions_of_another_number_of_aspects_or_rows_are_refused(
    artifact: Path, index: Index
) -> None:
    for wrong in (index.predicted[:3], index.predicted[:, :5], index.predicted.T):
        content = _array_bytes(np.ascontiguousarray(wrong))
        _forge(artifact / "predicted.npy", content, r"predicted\.npy: shape is")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("recording", 6, "rows are of recordings 0 to 6, but there are 6"),
        ("recording", -1, "rows are of recordings -1 to 5"),
        ("recording", 2**62, "rows are of recordings 0 to 4611686018427387904"),
        ("recording", 0, "recording r3 has no row"),
        ("start_s", np.nan, "recording r3: nan to 13.0 s is no passage"),
        ("start_s", -1.0, "recording r3: -1.0 to 13.0 s is no passage"),
        ("start_s", 14.0, "recording r3: 14.0 to 13.0 s is no passage"),
        ("end_s", np.inf, "recording r3: 0.0 to inf s is no passage"),
    ],
)
def test_rows_that_make_no_sense_are_refused(
    field: str, value: float, message: str, artifact: Path, index: Index
) -> None:
    table = np.array(index.rows.table)
    table[field][3] = value
    _forge(artifact / "rows.npy", _array_bytes(table), rf"rows\.npy: {message}")


# --- recordings


def _recordings(folder: Path, **changes: Any) -> None:
    columns = json.loads((folder / "recordings.json").read_text())
    put_json(folder / "recordings.json", {**columns, **changes})
    reseal(folder)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": ["t"] * 5}, "number of title is 5, expected 6"),
        ({"title": ["t"] * 7}, "number of title is 7, expected 6"),
        ({"title": "tttttt"}, "title is no list of texts"),
        ({"title": ["t"] * 5 + [None]}, "title is no list of texts"),
        ({"title": ["t"] * 5 + [["t"]]}, "title is no list of texts"),
        ({"title": {"0": "t"}}, "title is no list of texts"),
        ({"recording_id": [1, 2, 3, 4, 5, 6]}, "recording_id is no list of texts"),
        ({"title": ["t"] * 5 + ["\ud800"]}, "title is no list of texts"),
        ({"spilt": ["s"] * 6}, "columns is"),
    ],
)
def test_recordings_that_are_no_columns_of_texts_are_refused(
    changes: dict[str, Any], message: str, artifact: Path
) -> None:
    _recordings(artifact, **changes)
    check_refused(artifact, rf"recordings\.json: {message}")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("ids", [["r0"] * 6, ["", "r1", "r2", "r3", "r4", "r5"]])
def test_recordings_without_an_id_of_their_own_are_refused(ids: list[str], artifact: Path) -> None:
    _recordings(artifact, recording_id=ids)
    check_refused(artifact, "recording ids are empty or repeated")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{}",
        b'{"recording_id": []}',
        b'{"recording_id": [], "recording_id": []}',
        b"{" + b'"a":{' * 100_000,
        b'{"recording_id": [' + b"[" * 100_000,
        b'{"recording_id": NaN}',
        b'{"recording_id": ' + b"1" * 10_000 + b"}",
        "{}".encode("utf-16"),
        b"\x80\x04",
        pickle.dumps({name: ["x"] * 6 for name in FIELDS}),
    ],
    ids=range(11),
)
def test_recordings_that_are_no_strict_json_are_refused(content: bytes, artifact: Path) -> None:
    _forge(artifact / "recordings.json", content, r"recordings\.json")


@pytest.mark.usefixtures("unread")
def test_columns_in_another_order_are_refused(artifact: Path) -> None:
    columns = json.loads((artifact / "recordings.json").read_text())
    put_json(artifact / "recordings.json", dict(reversed(columns.items())))
    reseal(artifact)
    check_refused(artifact, r"recordings\.json: columns is")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("name", "limit"),
    [("recordings.json", "_LARGEST_RECORDINGS"), ("projection.npz", "_LARGEST_PROJECTION")],
)
def test_what_is_too_large_for_memory_is_refused(
    name: str, limit: str, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (artifact / name).stat().st_size
    monkeypatch.setattr(module, limit, size)
    verify_artifact(artifact)
    monkeypatch.setattr(module, limit, size - 1)
    check_refused(artifact, rf"{name} has {size:,} bytes, at most {size - 1:,} are read")


def test_an_index_that_is_too_large_is_not_saved(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST_RECORDINGS", 10)
    with pytest.raises(ArtifactError, match=r"recordings\.json has .* at most 10 are read"):
        save_artifact(index, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- the projection


def _arrays(index: Index) -> dict[str, npt.NDArray[Any]]:
    return {name: np.ascontiguousarray(getattr(index.projection, name)) for name in NAMES}


def _put_projection(folder: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    np.savez(folder / "projection.npz", **dict[str, Any](arrays))
    reseal(folder)


def test_what_is_written_of_a_projection_is_read(index: Index, tmp_path: Path) -> None:
    write_projection(index.projection, tmp_path / "p.npz")
    read = read_projection(tmp_path / "p.npz")
    for name in NAMES:
        np.testing.assert_array_equal(getattr(read, name), getattr(index.projection, name))
    with np.load(tmp_path / "p.npz", allow_pickle=False) as archive:
        assert archive.files == NAMES


@pytest.mark.usefixtures("unread")
def test_a_projection_put_together_anew_is_accepted(artifact: Path, index: Index) -> None:
    _put_projection(artifact, _arrays(index))
    verify_artifact(artifact)


FLOATS = [name for name in NAMES if name not in ("layers", "names", "aspect_layers", "sizes")]


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", FLOATS)
def test_projection_values_that_are_not_finite_are_refused(
    name: str, value: float, artifact: Path, index: Index
) -> None:
    arrays = _arrays(index)
    arrays[name] = arrays[name].copy()
    arrays[name].flat[-1 if name != "standard_errors" else 0] = value
    _put_projection(artifact, arrays)
    # Without a standard error an aspect has no direction, but values are predicted of it.
    own = r"predicted\.npy" if name == "standard_errors" and np.isnan(value) else r"projection\.npz"
    check_refused(artifact, own)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("name", NAMES)
def test_projection_arrays_of_another_type_or_shape_are_refused(
    name: str, artifact: Path, index: Index
) -> None:
    arrays = _arrays(index)
    own = arrays[name]
    is_text = own.dtype.kind == "U"
    others = [
        own.astype("S") if is_text else own.astype(own.dtype.newbyteorder(">")),
        own.astype(np.float64) if not is_text else np.zeros(own.shape),
        own[..., :-1],
        own[:-1],
        own[..., np.newaxis],
        own.reshape(-1)[0],
        own[:0],
        np.zeros(own.shape, bool),
        np.zeros(own.shape, complex),
        np.zeros(own.shape, [("a", "<f4")]),
    ]
    for other in others:
        _put_projection(artifact, {**arrays, name: np.asarray(other)})
        check_refused(artifact, r"projection\.npz")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layers", [0, 1, 1], "distinct numbers"),
        ("layers", [0, 1, -2], "distinct numbers"),
        ("layers", [0, 1, 3], "aspects are read from layers"),
        ("layers", [2, 1, 0], "its description"),
        ("aspect_layers", [0, 2, 2, 9], "aspects are read from layers"),
        ("aspect_layers", [1, 2, 2, 1], "the aspect map has resolved"),
        ("sizes", [1, 1, 2, 2], "coordinates, expected 7 in all"),
        ("sizes", [0, 2, 2, 3], "coordinates, expected 7 in all"),
        ("sizes", [2**63 - 1, 2**63 - 1, 4, 5], "coordinates, expected 7 in all"),
        ("sizes", [1, 2, 1, 3], "its description"),
        ("names", ["tempo", "tempo", "a", "b"], "distinct names"),
        ("names", ["tempo", "", "a", "b"], "distinct names"),
        ("names", ["tempo", "legato", "contour", "dynamics"], "its description"),
    ],
)
def test_projection_numbers_that_do_not_belong_together_are_refused(
    name: str, value: list[Any], message: str, artifact: Path, index: Index
) -> None:
    arrays = _arrays(index)
    arrays[name] = np.array(value) if name == "names" else np.array(value, np.int64)
    _put_projection(artifact, arrays)
    check_refused(artifact, message)


@pytest.mark.usefixtures("unread")
def test_arrays_stored_by_columns_are_refused(artifact: Path, index: Index) -> None:
    arrays = _arrays(index)
    _put_projection(artifact, {**arrays, "basis": np.asfortranarray(arrays["basis"])})
    check_refused(artifact, r"projection\.npz: basis: shape \(72, 5\), stored by columns")


@pytest.mark.usefixtures("unread")
def test_values_out_of_their_range_are_refused(artifact: Path, index: Index) -> None:
    arrays = _arrays(index)
    _put_projection(artifact, {**arrays, "bounds": -arrays["bounds"]})
    check_refused(artifact, "bounds hold values below 0")
    _put_projection(artifact, {**arrays, "standard_errors": -arrays["standard_errors"]})
    check_refused(artifact, "standard errors are")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("code", [0x110000, 2**32 - 1, 0xD800, 0xDFFF])
def test_names_of_characters_that_do_not_exist_are_refused(
    code: int, artifact: Path, index: Index
) -> None:
    arrays = _arrays(index)
    codes = struct.pack("<4I", code, 0x41, 0x42, 0x43)
    arrays["names"] = np.frombuffer(codes, np.dtype("<U1"))
    _put_projection(artifact, arrays)
    check_refused(artifact, r"projection\.npz: names holds characters that do not exist")


@pytest.mark.usefixtures("unread")
def test_sizes_whose_sum_overflows_are_refused(artifact: Path, index: Index) -> None:
    arrays = _arrays(index)
    arrays["sizes"] = np.array([2**62, 2**62, 2**62, 2**62 + 7], np.int64)
    assert arrays["sizes"].sum() == 7
    _put_projection(artifact, arrays)
    check_refused(artifact, "coordinates, expected 7 in all")


# --- archives


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


@pytest.fixture
def members(index: Index) -> dict[str, bytes]:
    """Give the files in the archive of the projection."""
    return {f"{name}.npy": _array_bytes(array) for name, array in _arrays(index).items()}


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members_are_refused(
    compression: int, artifact: Path, members: dict[str, bytes]
) -> None:
    _forge(artifact / "projection.npz", _zip(members, compression), "its members are compressed")


@pytest.mark.usefixtures("unread")
def test_a_decompression_bomb_is_refused_in_little_memory(
    artifact: Path, members: dict[str, bytes]
) -> None:
    bomb = _zip({**members, "basis.npy": bytes(200 * 2**20)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 2**20
    tracemalloc.start()
    try:
        _forge(artifact / "projection.npz", bomb, "its members are compressed")
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("unread")
def test_members_that_share_their_bytes_are_refused(
    artifact: Path, members: dict[str, bytes]
) -> None:
    content = _zip({**members, "basis.npy": bytes(100_000)})
    # All entries of the directory at the end point to the large member.
    with zipfile.ZipFile(BytesIO(content)) as archive:
        large = archive.getinfo("basis.npy")
    directory = bytearray(content)
    at = content.index(b"PK\x01\x02")
    while content[at : at + 4] == b"PK\x01\x02":
        name, extra, comment = struct.unpack_from("<3H", content, at + 28)
        struct.pack_into("<3I", directory, at + 16, large.CRC, 100_000, 100_000)
        struct.pack_into("<I", directory, at + 42, large.header_offset)
        at += 46 + name + extra + comment
    _forge(artifact / "projection.npz", bytes(directory), "its members are larger than itself")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (8, "<H", 1),
        (8, "<H", 1 << 5),
        (8, "<H", 1 << 6),
        (6, "<H", 99),
        (10, "<H", 97),
        (16, "<I", 7),
        (20, "<I", 2**32 - 2),
        (24, "<I", 2**32 - 2),
        (42, "<I", 2**31),
    ],
    ids=["encrypted", "patched", "strong", "version", "method", "crc", "packed", "size", "offset"],
)
def test_a_directory_that_lies_is_refused(
    offset: int, form: str, value: int, artifact: Path
) -> None:
    content = bytearray((artifact / "projection.npz").read_bytes())
    struct.pack_into(form, content, content.index(b"PK\x01\x02") + offset, value)
    _forge(artifact / "projection.npz", bytes(content), r"projection\.npz is no archive of plain")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    "name", ["../escape.npy", "/etc/passwd", "extra.npy", "..\\escape.npy", "basis.npy/", "basis"]
)
def test_members_of_other_names_are_refused(
    name: str, artifact: Path, members: dict[str, bytes]
) -> None:
    _forge(artifact / "projection.npz", _zip({**members, name: b"x"}), "members is")
    renamed = {name if key == "basis.npy" else key: value for key, value in members.items()}
    _forge(artifact / "projection.npz", _zip(renamed), "members is")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_member_is_refused(name: str, artifact: Path, members: dict[str, bytes]) -> None:
    del members[f"{name}.npy"]
    _forge(artifact / "projection.npz", _zip(members), "members is")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("descr", "shape"),
    [
        ("<f4", "(1000000000000,)"),
        ("<f4", "(4611686018427387904, 4)"),
        ("<f4", "(-2, -12)"),
        ("<f4", "(-24,)"),
        ("<f4", "(" + "1," * 40 + "24)"),
        ("|O", "(12,)"),
        ("|V0", "(24,)"),
        ("<U0", "(24,)"),
        ("|S4", "(24,)"),
        ("<f4", "(23,)"),
        ("<f4", "(25,)"),
    ],
)
def test_members_whose_headers_lie_are_refused(
    descr: str, shape: str, artifact: Path, members: dict[str, bytes]
) -> None:
    members["centre.npy"] = _described(descr, shape) + bytes(96)
    _forge(artifact / "projection.npz", _zip(members), r"projection\.npz: centre")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("descr", ["<U0", "|V0", "|S0"])
def test_members_of_no_size_are_refused(
    descr: str, artifact: Path, members: dict[str, bytes]
) -> None:
    members["names.npy"] = _described(descr, "(4,)")
    _forge(artifact / "projection.npz", _zip(members), r"projection\.npz: names has the type")


# --- nothing is unpickled


class _Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch evil",)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("name", ["rows.npy", "predicted.npy", "projection.npz", "recordings.json"])
def test_nothing_is_unpickled(
    name: str,
    artifact: Path,
    members: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    evil = np.empty(6, dtype=object)
    evil[:] = _Evil()
    array = _array_bytes(evil, pickled=True)
    _forge(artifact / name, pickle.dumps(_Evil()), name)
    _forge(artifact / name, array, name)
    _forge(artifact / name, _zip({**members, "basis.npy": array}), name)
    _forge(artifact / name, _zip({**members, "basis.npy": pickle.dumps(_Evil())}), name)
    assert not (tmp_path / "evil").exists()


_SEARCH = """
import sys
import faiss, numpy as np
from pathlib import Path
from mess_core.index import load_artifact
from mess_core.search import find_similar
index = load_artifact(Path(sys.argv[1]))
assert len(find_similar(index, "r0", k=3)) == 3
"""


def test_an_exact_index_that_is_forged_within_its_limits_is_searched(artifact: Path) -> None:
    # What cannot be told from true vectors harms nobody's process.
    content = bytearray((artifact / "index.faiss").read_bytes())
    content[16:32] = b"\xff" * 16  # Two numbers that FAISS does not use.
    (artifact / "index.faiss").write_bytes(content)
    reseal(artifact)
    command = [sys.executable, "-W", "error", "-c", _SEARCH, str(artifact)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
