"""Publishing, rolling back and pruning, step by step, on a folder.

`Watched` stops at every operation on the store, so that each test can fail there, or let somebody
else do something there.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mess_core.errors import ArtifactError
from mess_core.files import read_json, write_json
from mess_core.index.artifact import CONTENT, FILES, verify_artifact
from mess_core.publishing.pointer import POINTER, Pointer, parse_pointer
from mess_core.publishing.stores import FolderStore
from mess_core.publishing.transfer import Content, Transfer
from mess_core.publishing.versions import (
    MANIFEST,
    list_versions,
    prune,
    publish_version,
    read_pointer,
    roll_back,
    verify_version,
)
from tests.publishing.fixtures import IMPATIENT

pytestmark = pytest.mark.unit

Save = Callable[[int], list[Path]]
OPERATIONS = ("read", "check", "create", "swap", "delete", "entries", "tidy")


class Watched:
    """A store that tells before each operation which one it is, by name and number from 1."""

    def __init__(self, store: FolderStore, tell: Callable[[str, int], None]) -> None:
        self._store, self._tell = store, tell
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in OPERATIONS:
            return method

        def call(*args: Any) -> Any:
            self.count += 1
            self._tell(name, self.count)
            return method(*args)

        return call


def _publish(store: Any, artifact: Path, **options: bool) -> dict[str, Any]:
    return publish_version(store, artifact, verify_artifact(artifact), IMPATIENT, **options)


def _latest(store: FolderStore) -> str:
    """Return what the pointer names, having loaded all of it."""
    pointer = read_pointer(store)
    verify_artifact(
        store.root / pointer.artifact_version_id,
        version_id=pointer.artifact_version_id,
        manifest_sha256=pointer.manifest_sha256,
    )
    return pointer.artifact_version_id


def _names(store: FolderStore) -> set[str]:
    return {path.name for path in store.root.iterdir() if path.is_dir()}


def _count(operation: Callable[[Watched], object], store: FolderStore) -> int:
    watched = Watched(store, lambda *_: None)
    operation(watched)
    return watched.count


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    # No test pulls the plug, and thousands of files are written.
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "published")


def _interrupt_at(turn: int) -> Callable[[str, int], None]:
    def tell(_: str, count: int) -> None:
        if count == turn:
            raise OSError("the machine is gone")

    return tell


def test_a_failure_at_any_operation_of_publishing_leaves_a_complete_version(
    tmp_path: Path, versions_of: Save
) -> None:
    old, new = versions_of(2)
    turns = _count(lambda s: _publish(s, new), FolderStore(tmp_path / "rehearsal"))
    assert turns == 1 + 3 * len(FILES) + 2 + 1
    for turn in range(1, turns + 1):
        fresh = FolderStore(tmp_path / f"run-{turn}")
        _publish(fresh, old)
        with pytest.raises(OSError, match="the machine is gone"):
            _publish(Watched(fresh, _interrupt_at(turn)), new)
        assert _latest(fresh) == old.name
        assert not list(fresh.root.glob(".tmp-*"))
        assert _publish(fresh, new)["pointer_moved"]
        assert _latest(fresh) == new.name
        verify_version(fresh, old.name)


def test_a_failure_at_any_operation_of_pruning_loses_nothing_and_pruning_again_completes(
    tmp_path: Path, versions_of: Save
) -> None:
    saved = versions_of(4)
    turn = 0
    while True:
        turn += 1
        store = FolderStore(tmp_path / f"run-{turn}")
        for artifact in saved:
            _publish(store, artifact)
        kept = {v.version_id for v in list_versions(store)[:2]} | {saved[-1].name}
        try:
            prune(Watched(store, _interrupt_at(turn)), 2)
        except OSError:
            assert _latest(store) == saved[-1].name
            # None of those that are left is half there and taken for complete.
            whole = {v.version_id for v in list_versions(store) if v.complete}
            assert whole >= kept
            for name in whole:
                verify_version(store, name)
            prune(store, 2)
        else:
            break
        assert _names(store) == kept
        assert read_pointer(store).removing == ()
    assert turn > 10


def test_versions_are_listed_newest_first_with_what_is_known_of_them(
    store: FolderStore, versions_of: Save
) -> None:
    saved = versions_of(3)
    for n, artifact in enumerate(saved):
        _publish(store, artifact)
        for path in (store.root / artifact.name).iterdir():
            os.utime(path, (1e9 + n, 1e9 + n))
    (store.root / saved[0].name / MANIFEST).unlink()
    roll_back(store, saved[1].name)
    (store.root / "something else").mkdir()
    found = list_versions(store)
    assert [v.version_id for v in found] == [a.name for a in (saved[2], saved[1], saved[0])]
    assert [v.latest for v in found] == [False, True, False]
    assert [v.complete for v in found] == [True, True, False]
    assert found[0].size == sum(path.stat().st_size for path in saved[2].iterdir())
    assert found[0].created == read_json(saved[2] / MANIFEST)["build"]["created"]
    assert found[2].created == "2001-09-09T01:46:40+00:00"


def test_rolling_back_moves_the_pointer_to_a_verified_version(
    store: FolderStore, versions_of: Save
) -> None:
    old, new = versions_of(2)
    _publish(store, old)
    _publish(store, new)
    assert roll_back(store, old.name, dry_run=True)["pointer_moved"]
    assert _latest(store) == new.name
    assert roll_back(store, old.name)["pointer_moved"]
    assert _latest(store) == old.name
    assert not roll_back(store, old.name)["pointer_moved"]


@pytest.mark.parametrize("name", FILES)
def test_rolling_back_to_what_is_missing_or_damaged_is_refused(
    name: str, store: FolderStore, versions_of: Save
) -> None:
    old, new = versions_of(2)
    _publish(store, old)
    _publish(store, new)
    path = store.root / old.name / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtifactError, match=name):
        roll_back(store, old.name)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{name} does not exist"):
        roll_back(store, old.name)
    with pytest.raises(ArtifactError, match="there is no version"):
        roll_back(store, "0" * 64)
    assert _latest(store) == new.name


def test_pruning_keeps_the_newest_and_the_latest(store: FolderStore, versions_of: Save) -> None:
    saved = versions_of(5)
    for n, artifact in enumerate(saved):
        _publish(store, artifact)
        for path in (store.root / artifact.name).iterdir():
            os.utime(path, (1e9 + n, 1e9 + n))
    roll_back(store, saved[0].name)
    before = (store.root / POINTER).read_bytes()
    would_go = [v.version_id for v in prune(store, 2, dry_run=True)]
    assert (store.root / POINTER).read_bytes() == before
    assert _names(store) == {artifact.name for artifact in saved}
    assert would_go == [saved[2].name, saved[1].name]
    assert [v.version_id for v in prune(store, 2)] == would_go
    assert _names(store) == {saved[0].name, saved[3].name, saved[4].name}
    assert _latest(store) == saved[0].name
    published = [parse_pointer(c, "") for c in (before, (store.root / POINTER).read_bytes())]
    assert published[0].published == published[1].published
    assert prune(store, 2) == []


def test_pruning_takes_what_was_abandoned_but_not_what_is_being_published(
    store: FolderStore, versions_of: Save
) -> None:
    latest, abandoned, running = versions_of(3)
    for artifact in (abandoned, running, latest):
        _publish(store, artifact)
    (store.root / abandoned.name / MANIFEST).unlink()
    (store.root / running.name / MANIFEST).unlink()
    (store.root / ".tmp-old").mkdir()
    (store.root / ".tmp-new").mkdir()
    two_days_ago = time.time() - 2 * 86400
    for path in (*(store.root / abandoned.name).iterdir(), store.root / ".tmp-old"):
        os.utime(path, (two_days_ago, two_days_ago))
    prune(store, 9)
    assert _names(store) == {latest.name, running.name, ".tmp-new"}


def test_a_version_of_another_schema_is_neither_damaged_nor_abandoned(
    store: FolderStore, versions_of: Save
) -> None:
    future, latest = versions_of(2)
    _publish(store, future)
    _publish(store, latest)
    folder = store.root / future.name
    for path in folder.iterdir():
        if path.name != MANIFEST:
            path.unlink()
    created = {"created": "2999-01-01T00:00:00+00:00"}
    write_json(folder / MANIFEST, {"schema_version": 99, "build": created})
    os.utime(folder / MANIFEST, (1e9, 1e9))
    assert list_versions(store)[0].version_id == future.name
    assert [v.version_id for v in prune(store, 1)] == []
    assert _names(store) == {future.name, latest.name}


@pytest.mark.parametrize("keep", [0, -1])
def test_keeping_nothing_is_refused(keep: int, store: FolderStore) -> None:
    with pytest.raises(ArtifactError, match="expected at least 1"):
        prune(store, keep)


def test_nothing_is_pruned_where_no_pointer_says_what_is_used(
    store: FolderStore, versions_of: Save
) -> None:
    for artifact in versions_of(2):
        _publish(store, artifact)
    (store.root / POINTER).write_text("{")
    with pytest.raises(ArtifactError, match="no pointer"):
        prune(store, 1)
    (store.root / POINTER).unlink()
    with pytest.raises(ArtifactError, match="nothing was published"):
        prune(store, 1)
    assert len(_names(store)) == 2


def _interfere_everywhere(
    tmp_path: Path,
    saved: list[Path],
    operation: Callable[[Any, Path], object],
    rival: Callable[[Any, Path], object],
) -> Iterator[tuple[FolderStore, Path, str, str]]:
    """Run an operation once per step of it, and a rival's just before that step.

    Both get the store and a version that pruning would remove. Yields the store afterwards, that
    version, and what the two said, nothing if they succeeded. At every step the pointer must name a
    complete version.
    """
    turn, turns = 0, 1
    while turn < turns:
        turn += 1
        store = FolderStore(tmp_path / f"run-{turn}")
        for artifact in saved:
            _publish(store, artifact)
        victim = saved[0].parent / prune(store, 1, dry_run=True)[0].version_id
        said = [""]

        def step(_: str, count: int, run: Any = (store, victim, turn, said)) -> None:
            store, victim, turn, said = run
            _latest(store)
            if count == turn:
                said[0] = _try(rival, store, victim)

        watched = Watched(store, step)
        problem = _try(operation, watched, victim)
        turns = watched.count
        yield store, victim, problem, said[0]
    assert turns > 5


def _try(operation: Callable[[Any, Path], object], store: Any, victim: Path) -> str:
    try:
        operation(store, victim)
    except ArtifactError as error:
        return str(error)
    return ""


def _roll_back(store: Any, victim: Path) -> None:
    roll_back(store, victim.name)


def _prune(store: Any, _: Path) -> None:
    prune(store, 1)


@pytest.mark.parametrize("rival", [_roll_back, _publish])
def test_whoever_moves_the_pointer_at_any_moment_of_pruning_finds_a_complete_version(
    rival: Callable[[Any, Path], object], tmp_path: Path, versions_of: Save
) -> None:
    saved = versions_of(2)
    outcomes = set()
    for store, victim, problem, said in _interfere_everywhere(tmp_path, saved, _prune, rival):
        assert problem == ""
        assert said == "" or "is being pruned" in said or "there is no version" in said
        assert _latest(store) == (saved[-1].name if said else victim.name)
        assert read_pointer(store).removing == ()
        outcomes.add(said != "")
    assert outcomes == {True, False}


def test_what_is_pruned_at_any_moment_of_its_publication_is_published_whole(
    tmp_path: Path, versions_of: Save
) -> None:
    saved = versions_of(2)
    for store, victim, *said in _interfere_everywhere(tmp_path, saved, _publish, _prune):
        assert said == ["", ""]
        assert _latest(store) == victim.name


def test_what_is_pruned_at_any_moment_of_a_rollback_does_not_become_the_latest(
    tmp_path: Path, versions_of: Save
) -> None:
    saved = versions_of(2)
    for store, victim, problem, said in _interfere_everywhere(tmp_path, saved, _roll_back, _prune):
        assert said == ""
        assert problem == "" or "does not exist" in problem
        assert _latest(store) == (saved[-1].name if problem else victim.name)


def test_two_that_prune_at_once_leave_the_latest_whole(tmp_path: Path, versions_of: Save) -> None:
    saved = versions_of(3)
    for store, _, problem, said in _interfere_everywhere(tmp_path, saved, _prune, _prune):
        assert said == ""
        assert problem == "" or "another process prunes" in problem
        assert _latest(store) == saved[-1].name
        assert len(list_versions(store)) == 1


def test_a_version_that_an_interrupted_pruning_left_is_told_and_pruned_next_time(
    store: FolderStore, versions_of: Save
) -> None:
    old, new, newer = versions_of(3)
    _publish(store, old)
    _publish(store, new)
    pointer = read_pointer(store)
    marked = Pointer(pointer.artifact_version_id, pointer.manifest_sha256, (old.name,))
    (store.root / POINTER).write_bytes(marked.to_bytes())
    with pytest.raises(ArtifactError, match=r"is being pruned; .* once more"):
        _publish(store, old)
    with pytest.raises(ArtifactError, match=r"is being pruned; .* once more"):
        roll_back(store, old.name)
    # Others are published meanwhile, and the mark stays.
    assert _publish(store, newer)["pointer_moved"]
    assert read_pointer(store).removing == (old.name,)
    prune(store, 5)
    assert _names(store) == {new.name, newer.name}
    assert _publish(store, old)["pointer_moved"]


def test_a_pointer_that_moved_away_and_back_is_not_taken_for_one_that_never_moved(
    store: FolderStore, artifact: Path
) -> None:
    _publish(store, artifact)
    _, tag = store.read(POINTER) or (b"", "")
    pointer = read_pointer(store)
    assert store.swap(POINTER, pointer.to_bytes(), tag)
    assert not store.swap(POINTER, pointer.to_bytes(), tag)
    assert store.swap(POINTER, (store.read(POINTER) or (b"", ""))[0], "wrong tag")


def test_of_many_that_swap_at_once_one_wins(store: FolderStore) -> None:
    store.swap(POINTER, b"0", None)
    for _ in range(10):
        _, tag = store.read(POINTER) or (b"", "")
        start = threading.Barrier(8)

        def swap(n: int, tag: str = tag, start: threading.Barrier = start) -> bool:
            start.wait()
            return store.swap(POINTER, f"{tag} {n}".encode(), tag)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(swap, range(8)))
        assert sum(won) == 1
        assert store.read(POINTER) == (
            content := f"{tag} {won.index(True)}".encode(),
            _tag(content),
        )


def _tag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_dry_run_of_publishing_writes_nothing_and_says_what_would_be(
    store: FolderStore, versions_of: Save
) -> None:
    old, new = versions_of(2)
    assert _publish(store, old, dry_run=True)["pointer_moved"]
    assert not store.root.exists()
    _publish(store, old)
    assert not _publish(store, old, dry_run=True)["pointer_moved"]
    assert _publish(store, new, dry_run=True)["pointer_moved"]
    assert _names(store) == {old.name}


def test_content_of_a_large_file_is_that_of_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    whole = Content.of(path, Transfer(multipart_bytes=100, part_bytes=40))
    parts = Content.of(path, Transfer(multipart_bytes=99, part_bytes=40))
    assert whole.parts == ()
    assert (whole.size, whole.sha256) == (parts.size, parts.sha256)
    assert len(parts.parts) == 3
    last = tmp_path / "last"
    last.write_bytes(bytes(range(80, 100)))
    assert parts.parts[2] == Content.of(last, Transfer()).sha256


def test_pauses_grow_up_to_a_limit_and_differ() -> None:
    pauses: list[float] = []
    transfer = Transfer(first_pause_s=1.0, longest_pause_s=8.0, sleep=pauses.append)
    for failed in (1, 2, 3, 4, 9):
        for _ in range(50):
            transfer.pause(failed)
    by_failure = [pauses[start : start + 50] for start in range(0, 250, 50)]
    for longest, drawn in zip((1, 2, 4, 8, 8), by_failure, strict=True):
        assert longest * 0.5 < max(drawn) <= longest
        assert min(drawn) < longest * 0.5


def test_progress_counts_megabytes_up_to_the_total(store: FolderStore, artifact: Path) -> None:
    reports: list[tuple[int, int, str]] = []
    transfer = Transfer(progress=lambda *report: reports.append(report))
    for _ in range(2):
        publish_version(store, artifact, verify_artifact(artifact), transfer)
    assert [report[:2] for report in reports] == [(1, 1), (1, 1)]
    assert reports[0][2] == CONTENT[0]
