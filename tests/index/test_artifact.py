"""Saving, loading, and damage of every kind to an artifact that was whole."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from mess_core.errors import ArtifactError, StorageError
from mess_core.files import read_json
from mess_core.index.artifact import (
    CONTENT,
    FILES,
    load_artifact,
    save_artifact,
    verify_artifact,
    verify_kept,
)
from mess_core.index.index import Index, Rows
from mess_core.index.projection import Projection
from tests.conftest import as_nobody
from tests.index.forging import check_refused, no_faiss, reseal
from tests.planted import Corpus, clip_rows, recording_rows

pytestmark = pytest.mark.unit


@pytest.fixture(scope="session")
def large_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = Corpus(6000).index(clip_rows(60, 100), "clips")
    return save_artifact(index, tmp_path_factory.mktemp("large"))


def check_equal(loaded: Index, index: Index) -> None:
    assert (loaded.kind, loaded.factory) == (index.kind, index.factory)
    assert list(loaded.rows) == list(index.rows)
    assert loaded.rows.recordings == index.rows.recordings
    for entry in fields(Projection):
        found, expected = (getattr(i.projection, entry.name) for i in (loaded, index))
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype
    np.testing.assert_array_equal(loaded.predicted, index.predicted)
    everything = np.arange(len(index.rows))
    np.testing.assert_array_equal(loaded.stored(everything), index.stored(everything))
    assert (loaded.aspects, loaded.facts) == (index.aspects, index.facts)


# --- saving and loading


@pytest.mark.parametrize("kind", ["recordings", "clips"])
def test_what_is_loaded_equals_what_was_saved(kind: str, tmp_path: Path) -> None:
    rows = recording_rows(30) if kind == "recordings" else clip_rows(5, 6)
    index = Corpus(30).index(rows, kind)
    folder = save_artifact(index, tmp_path / "new" / "root")
    loaded = load_artifact(folder, version_id=folder.name)
    check_equal(loaded, index)
    assert loaded.version_id == folder.name
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)


def test_an_index_without_aspects_is_saved_and_loaded(index: Index, tmp_path: Path) -> None:
    from mess_core.index.fitting import fit_projection
    from mess_core.index.index import build_index

    features = Corpus(6).features
    bare = build_index(
        features,
        index.rows,
        kind="recordings",
        projection=fit_projection(lambda layer: features[:, layer], [0, 2]),
        aspects={},
        facts={},
    )
    loaded = load_artifact(save_artifact(bare, tmp_path))
    check_equal(loaded, bare)
    assert loaded.predicted.shape == (0, 6)


def test_a_loaded_index_is_saved_to_the_same_version(artifact: Path, tmp_path: Path) -> None:
    assert save_artifact(load_artifact(artifact), tmp_path).name == artifact.name


def test_the_order_of_arrays_in_memory_is_no_content(
    artifact: Path, index: Index, tmp_path: Path
) -> None:
    turned = replace(
        index,
        predicted=np.asfortranarray(index.predicted),
        projection=replace(index.projection, basis=np.asfortranarray(index.projection.basis)),
    )
    assert not turned.projection.basis.flags.c_contiguous
    assert save_artifact(turned, tmp_path).name == artifact.name


def test_a_resealed_artifact_is_accepted_so_that_refusals_of_forged_ones_mean_something(
    artifact: Path,
) -> None:
    before = {p.name: p.read_bytes() for p in artifact.iterdir()}
    reseal(artifact)
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


def _one_time(index: Index) -> Index:
    return replace(index, rows=Rows.of([*index.rows[:5], replace(index.rows[5], end_s=15.001)]))


CHANGES: dict[str, Callable[[Index], Index]] = {
    "fact": lambda i: replace(i, facts={**i.facts, "licence": "other"}),
    "aspect": lambda i: replace(i, aspects={**i.aspects, "min_r2": 0.31}),
    "title": lambda i: replace(i, rows=Rows.of([replace(i.rows[0], title="other"), *i.rows[1:]])),
    "time": _one_time,
    "vector": _one_vector,
    "prediction": _one_prediction,
    "projection": lambda i: replace(
        i, projection=replace(i.projection, centre=i.projection.centre + np.float32(1e-6))
    ),
    "kind": lambda i: replace(i, kind="clips"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_of_content_changes_the_id(what: str, artifact: Path, index: Index) -> None:
    assert save_artifact(index, artifact.parent).name == artifact.name
    assert save_artifact(CHANGES[what](index), artifact.parent).name != artifact.name


def test_an_index_that_could_not_be_loaded_again_is_not_saved(index: Index, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"predicted\.npy: row 0 has the value nan"):
        save_artifact(replace(index, predicted=index.predicted * np.float32(np.nan)), tmp_path)
    with pytest.raises(ArtifactError, match="nested less than 64 deep"):
        save_artifact(replace(index, facts=json.loads('{"x":' * 70 + "0" + "}" * 70)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_saving_over_a_damaged_version_is_refused(artifact: Path, index: Index) -> None:
    (artifact / "rows.npy").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"delete .* then run this again"):
        save_artifact(index, artifact.parent)


def test_a_version_under_the_name_of_another_is_no_kept_one(artifact: Path) -> None:
    wrong = artifact.rename(artifact.with_name("0" * 64))
    with pytest.raises(ArtifactError, match="version is"):
        verify_kept(wrong)


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


def test_where_one_may_not_write_the_error_says_so(index: Index) -> None:
    with tempfile.TemporaryDirectory() as name, as_nobody(Path(name)):
        Path(name).chmod(0o555)
        with pytest.raises(StorageError, match="no permission"):
            save_artifact(index, Path(name) / "root")
        Path(name).chmod(0o755)


# --- damage


def _refuses(folder: Path, *names: str) -> None:
    """Make sure that loading is refused, and that the message names one of the damaged files."""
    with pytest.raises(ArtifactError) as caught:
        load_artifact(folder)
    assert any(name in str(caught.value) for name in names), (names, str(caught.value))


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let FAISS read nothing."""
    monkeypatch.setattr("faiss.read_index", no_faiss)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_found(name: str, artifact: Path) -> None:
    content = (artifact / name).read_bytes()
    # Every byte of the small files, one of its bits each.
    step = 1 if len(content) < 1000 else 11
    for position in range(0, len(content), step):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position // step) % 8
        (artifact / name).write_bytes(damaged)
        _refuses(artifact, name)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_found(name: str, artifact: Path) -> None:
    content = (artifact / name).read_bytes()
    lengths = {*range(min(len(content), 1000)), *range(0, len(content), 17), len(content) - 1}
    for length in sorted(lengths, reverse=True):
        os.truncate(artifact / name, length)
        _refuses(artifact, name)
    for longer in (content + b"\0", content + b"\n", content + content, b"\0" + content):
        (artifact / name).write_bytes(longer)
        _refuses(artifact, name)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("name", FILES)
def test_flips_cuts_and_holes_in_large_files_are_found(
    name: str, large_artifact: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(large_artifact, tmp_path / large_artifact.name)
    path, size = folder / name, (folder / name).stat().st_size
    content = path.read_bytes()
    for position in np.linspace(0, size - 1, 24).astype(int).tolist():
        length = 1 + position % min(4096, size)
        flipped = bytes([content[position] ^ 1 << position % 8])
        hole = bytes(len(content[position : position + length]))
        for damage in (flipped, hole):
            if content[position : position + len(damage)] == damage:
                continue
            with path.open("r+b") as file:
                file.seek(position)
                file.write(damage)
            _refuses(folder, name)
            with path.open("r+b") as file:
                file.seek(position)
                file.write(content[position : position + len(damage)])
        os.truncate(path, position)
        _refuses(folder, name)
        path.write_bytes(content)
    verify_artifact(folder)


def _flip(content: bytes, rng: random.Random) -> bytes:
    position = rng.randrange(len(content))
    flipped = content[position] ^ 1 << rng.randrange(8)
    return content[:position] + bytes([flipped]) + content[position + 1 :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _insert(content: bytes, rng: random.Random) -> bytes:
    position = rng.randrange(len(content) + 1)
    return content[:position] + rng.randbytes(rng.randrange(1, 9)) + content[position:]


def _hole(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.randrange(1, 512))
    return content[:start] + bytes(end - start) + content[end:]


def _overwrite(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.randrange(1, 16))
    return content[:start] + rng.randbytes(end - start) + content[end:]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[max(0, start - rng.randrange(1, 64)) :]


DAMAGES = (_flip, _cut, _insert, _hole, _overwrite, _repeat)


def _damaged(
    files: dict[str, bytes], others: dict[str, bytes], rng: random.Random
) -> dict[str, bytes]:
    """Return the files that change, and to what."""
    first, second = rng.sample(FILES, 2)
    kind = rng.randrange(8)
    if kind == 6:
        return {first: files[second], second: files[first]}
    if kind == 7:
        return {first: others[first]} if rng.random() < 0.5 else {first: files[second]}
    changed = DAMAGES[kind](files[first], rng)
    if rng.random() < 0.3:
        return {first: changed, second: rng.choice(DAMAGES)(files[second], rng)}
    return {first: changed}


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_to_the_files_is_found(
    seed: int, artifact: Path, other_artifact: Path
) -> None:
    files = {name: (artifact / name).read_bytes() for name in FILES}
    others = {name: (other_artifact / name).read_bytes() for name in FILES}
    rng = random.Random(seed)
    for _ in range(300):
        damaged = _damaged(files, others, rng)
        damaged = {name: content for name, content in damaged.items() if content != files[name]}
        for name, content in damaged.items():
            (artifact / name).write_bytes(content)
        if damaged:
            _refuses(artifact, *damaged)
        for name in damaged:
            (artifact / name).write_bytes(files[name])
    verify_artifact(artifact)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_a_forger_seals_is_refused_or_can_be_searched(seed: int, artifact: Path) -> None:
    files = {name: (artifact / name).read_bytes() for name in FILES}
    rng = random.Random(seed)
    refusals = []
    for _ in range(80):
        name = rng.choice(CONTENT)
        content = rng.choice(DAMAGES)(files[name], rng)
        (artifact / name).write_bytes(content or b"\0")
        reseal(artifact)
        try:
            loaded = load_artifact(artifact)
        except ArtifactError as error:
            refusals.append(str(error))
        else:
            query = np.ones((1, loaded.projection.width), np.float32)
            _, found = loaded.vectors.search(query, 3)
            assert len([loaded.rows[number] for number in found[0].tolist()]) == 3
        for name in FILES:
            (artifact / name).write_bytes(files[name])
    assert len(refusals) > 40
    assert all(str(artifact) in refusal for refusal in refusals)


# --- files that are not as they should be


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, artifact: Path) -> None:
    (artifact / name).unlink()
    check_refused(artifact, f"{name} is missing")


def _link(path: Path) -> None:
    path.symlink_to(path.rename(path.parent.parent / path.name))


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _socket(path: Path) -> None:
    path.unlink()
    before = Path.cwd()
    os.chdir(path.parent)  # A socket's path may not be long.
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("make", [_link, _dangling, _folder, _pipe, _socket])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_regular_file_is_refused(
    make: Callable[[Path], None], name: str, artifact: Path
) -> None:
    make(artifact / name)
    check_refused(artifact, rf"{name} is a link or no regular file")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("name", ["extra.bin", ".hidden", "rows.json", "MANIFEST.json"])
def test_unknown_files_are_refused(name: str, artifact: Path) -> None:
    (artifact / name).write_bytes(b"x")
    check_refused(artifact, f"unknown file '{name}'")


@pytest.mark.usefixtures("unread")
def test_what_is_no_folder_is_refused(artifact: Path, tmp_path: Path) -> None:
    check_refused(tmp_path / "nowhere", "is not a folder")
    check_refused(artifact / "manifest.json", "is not a folder")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    check_refused(tmp_path / "loop", "is not a folder")
    (tmp_path / "empty").mkdir()
    check_refused(tmp_path / "empty", r"manifest\.json is missing")


@pytest.mark.parametrize("name", [".", *FILES])
def test_what_may_not_be_read_is_an_error_that_says_so(name: str, artifact: Path) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = shutil.copytree(artifact, Path(root) / artifact.name)
        for path in (folder, *folder.iterdir()):
            os.chown(path, 65534, -1)
        with as_nobody(Path(root)):
            mode = (folder / name).stat().st_mode
            (folder / name).chmod(0)
            check_refused(folder, "cannot be read: .*Permission denied")
            (folder / name).chmod(mode)
            verify_artifact(folder)


def test_a_link_to_a_version_is_followed_once(
    artifact: Path, other_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, read_index = tmp_path / "current", faiss.read_index
    current.symlink_to(artifact)

    def moved_meanwhile(*arguments: Any) -> Any:
        current.unlink()
        current.symlink_to(other_artifact)
        return read_index(*arguments)

    expected = load_artifact(artifact).stored([0, 1])
    monkeypatch.setattr("faiss.read_index", moved_meanwhile)
    loaded = load_artifact(current)
    assert loaded.version_id == artifact.name
    np.testing.assert_array_equal(loaded.stored([0, 1]), expected)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("name", CONTENT)
def test_files_of_another_artifact_are_refused(
    name: str, artifact: Path, other_artifact: Path
) -> None:
    if name in ("rows.npy", "recordings.json"):
        other = other_artifact / name
        changed = bytearray(other.read_bytes())
        changed[-4] ^= 1
        other.write_bytes(changed)
        reseal(other_artifact)
    shutil.copy(other_artifact / name, artifact / name)
    _refuses(artifact, name)
    shutil.copy(other_artifact / "checksums.json", artifact / "checksums.json")
    _refuses(artifact, "checksums.json")


@pytest.mark.usefixtures("unread")
def test_all_files_but_the_manifest_of_another_artifact_are_refused(
    artifact: Path, other_artifact: Path
) -> None:
    for name in FILES[:-1]:
        shutil.copy(other_artifact / name, artifact / name)
    _refuses(artifact, "checksums.json")
    shutil.copy(other_artifact / "manifest.json", artifact / "manifest.json")
    verify_artifact(artifact)
    with pytest.raises(ArtifactError, match=f"version is {other_artifact.name}, expected"):
        load_artifact(artifact, version_id=artifact.name)


def test_another_version_or_manifest_than_asked_for_is_refused(
    artifact: Path, other_artifact: Path
) -> None:
    with pytest.raises(ArtifactError, match=f"version is {artifact.name}, expected"):
        load_artifact(artifact, version_id=other_artifact.name)
    with pytest.raises(ArtifactError, match=r"manifest\.json: sha256 is"):
        load_artifact(artifact, manifest_sha256="0" * 64)


# --- memory


@pytest.fixture
def traced() -> Iterator[Callable[[], int]]:
    """Give a function that says how many bytes were held at most since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_ten_gigabytes_is_refused_and_not_read(
    name: str, artifact: Path, traced: Callable[[], int]
) -> None:
    with (artifact / name).open("r+b") as file:
        file.truncate(10 * 2**30)
    _refuses(artifact, name)
    assert traced() < 2**20


def test_checking_holds_a_part_of_the_vectors_only(
    large_artifact: Path, monkeypatch: pytest.MonkeyPatch, traced: Callable[[], int]
) -> None:
    monkeypatch.setattr("mess_core.index.contents._CHECKED_AT_ONCE", 64)
    verify_artifact(large_artifact)
    held, size = traced(), (large_artifact / "index.faiss").stat().st_size
    assert size > 1.5e6
    assert held < size / 2


# --- a service

_SERVICE = """
import json, sys
import mess_core
from mess_core import index, search
assert not {"numpy", "faiss", "boto3"} & set(sys.modules), "importing is not light"
from pathlib import Path
index = index.load_artifact(Path(sys.argv[1]))
hits = search.search_by_aspect(index, "r0", "tempo", k=2)
assert len(hits) == 2
from mess_core.publishing.publish import publish
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_a_service_loads_and_searches_without_anything_heavy(artifact: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", _SERVICE, str(artifact)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    imported = set(json.loads(answer.stdout))
    heavy = {"torch", "transformers", "librosa", "sklearn", "pandas", "scipy", "snakemake"}
    heavy |= {"boto3"}  # nothing of this comes from S3
    assert {"numpy", "faiss"} <= imported
    assert not (heavy | {"soundfile", "threadpoolctl", "matplotlib"}) & imported
