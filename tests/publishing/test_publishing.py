"""Publishing, versions and fetching, on a folder."""

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mess_core.errors import ArtifactError, StorageError
from mess_core.files import read_json
from mess_core.index.artifact import CONTENT, FILES, load_artifact, save_artifact, verify_artifact
from mess_core.index.index import Index
from mess_core.publishing import publish as publishing
from mess_core.publishing.fetch import fetch, load_latest, load_published
from mess_core.publishing.publish import (
    MANIFEST,
    POINTER,
    prune_versions,
    publish,
    publish_to_folder,
    published_datasets,
    published_version,
    published_versions,
    rollback,
    verify_published,
)
from mess_core.publishing.stores import FolderStore

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("hurry")]

Save = Callable[[int], list[Path]]
Tell = Callable[[str, str], None]
Watch = Callable[[Tell | None], None]

KIND = ("planted", "recordings")
OPERATIONS = ("read", "holds", "upload", "swap", "delete", "entries", "download")


@pytest.fixture
def location(tmp_path: Path) -> str:
    return str(tmp_path / "published")


@pytest.fixture
def folder(location: str) -> Path:
    return Path(location, *KIND)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Give a function that sets what is told each operation on a folder, and its object, before."""
    told: list[Tell | None] = [None]

    def watched(name: str) -> Callable[..., Any]:
        method = getattr(FolderStore, name)

        def call(self: FolderStore, *args: Any) -> Any:
            if told[0]:
                told[0](name, str(args[0] if args else ""))
            return method(self, *args)

        return call

    for name in OPERATIONS:
        monkeypatch.setattr(FolderStore, name, watched(name))

    def tell(what: Tell | None) -> None:
        told[0] = what

    return tell


def _latest(location: str) -> str:
    """Return what the pointer names, having verified it."""
    version_id = published_version(location, *KIND)
    verify_artifact(Path(location, *KIND, version_id), version_id=version_id)
    return version_id


def _age(folder: Path, days: float) -> None:
    then = time.time() - days * 86400
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then))


def _publish_aged(location: str, artifacts: list[Path], *days: float) -> None:
    for artifact, age in zip(artifacts, days, strict=True):
        publish(artifact, location)
        _age(Path(location, *KIND, artifact.name), age)


def _damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


# --- publishing


def test_a_published_artifact_is_the_latest_and_old_versions_stay(
    location: str, folder: Path, artifact: Path, other_artifact: Path
) -> None:
    for path in (artifact, other_artifact, artifact):
        receipt = publish(path, location)
        assert receipt == {
            "location": str(folder),
            "artifact_version_id": path.name,
            "pointer_moved": True,
        }
        assert _latest(location) == path.name
    shown = {path.name for path in folder.iterdir() if path.name[0] != "."}
    assert shown == {artifact.name, other_artifact.name, POINTER}
    assert set(read_json(folder / POINTER)) == {"artifact_version_id", "published"}


def test_publishing_again_changes_nothing(
    location: str, folder: Path, artifact: Path, index: Index, tmp_path: Path
) -> None:
    publish(artifact, location)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    assert not publish(artifact, location)["pointer_moved"]
    # The manifest that was published first stays.
    elsewhere = save_artifact(index, tmp_path / "elsewhere", build={"by": "another"})
    assert not publish(elsewhere, location)["pointer_moved"]
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    assert after == before


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_artifact_is_not_published(
    name: str, location: str, artifact: Path, other_artifact: Path
) -> None:
    publish(artifact, location)
    _damage(other_artifact / name)
    with pytest.raises(ArtifactError, match=name):
        publish(other_artifact, location)
    assert _latest(location) == artifact.name


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_published_version_is_not_loaded_and_mended_by_publishing_again(
    name: str, location: str, folder: Path, artifact: Path
) -> None:
    publish(artifact, location)
    _damage(folder / artifact.name / name)
    with pytest.raises(ArtifactError, match=name):
        load_latest(folder)
    publish(artifact, location)
    assert load_latest(folder).version_id == artifact.name


def test_a_file_that_is_damaged_on_its_way_keeps_the_pointer_where_it_is(
    location: str, artifact: Path, other_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(artifact, location)

    def damage(_: Path, target: Path) -> Path:
        target.write_bytes(b"")
        return target

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfile", damage)
        with pytest.raises(ArtifactError, match=f"{CONTENT[0]} does not hold what was uploaded"):
            publish(other_artifact, location)
    assert _latest(location) == artifact.name
    publish(other_artifact, location)
    assert _latest(location) == other_artifact.name


@pytest.mark.parametrize(
    "pointer", ["", "[]", "{}", '{"artifact_version_id": 1}', '{"artifact_version_id": "../../x"}']
)
def test_a_damaged_pointer_is_refused_and_replaced_by_publishing_again(
    pointer: str, tmp_path: Path, artifact: Path
) -> None:
    (tmp_path / POINTER).write_text(pointer)
    with pytest.raises(ArtifactError, match=r"latest\.json .*publish again"):
        load_latest(tmp_path)
    publish_to_folder(artifact, tmp_path)
    assert load_latest(tmp_path).version_id == artifact.name


def test_a_pointer_to_nothing_is_refused(location: str, folder: Path, artifact: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing was published there"):
        load_latest(folder)
    publish(artifact, location)
    shutil.rmtree(folder / artifact.name)
    with pytest.raises(ArtifactError, match="is not a folder"):
        load_latest(folder)


def test_a_location_holds_datasets_and_kinds(location: str, artifact: Path, cache: Path) -> None:
    assert published_datasets(location) == []
    publish(artifact, location)
    assert published_datasets(location) == ["planted"]
    for verify in (True, False):
        index = load_published(location, *KIND, cache_dir=cache, verify=verify)
        assert index.facts["dataset"] == "planted"
    with pytest.raises(ArtifactError, match="nothing was published there"):
        load_published(location, "planted", "clips", cache_dir=cache)
    assert not cache.exists()


@pytest.mark.parametrize("dataset", [None, "", "../up", "a/b", ".hidden", 3])
def test_a_dataset_without_a_safe_name_is_refused(
    dataset: Any, index: Index, location: str, tmp_path: Path
) -> None:
    path = save_artifact(replace(index, facts={"dataset": dataset}), tmp_path / "unnamed")
    with pytest.raises(ArtifactError, match="its dataset or kind is"):
        publish(path, location)
    with pytest.raises(ArtifactError, match="its dataset or kind is"):
        fetch(location, dataset, "clips", tmp_path / "cache")


@pytest.mark.parametrize("location", ["https://host/bucket", "s3:///prefix", "s3://"])
def test_other_kinds_of_location_are_refused(location: str, artifact: Path) -> None:
    with pytest.raises(ArtifactError, match="neither a folder nor of the form s3://"):
        publish(artifact, location)


def test_a_failure_at_any_operation_of_publishing_leaves_a_complete_version(
    tmp_path: Path, versions_of: Save, watch: Watch
) -> None:
    old, new = versions_of(2)
    fails = 0
    while True:
        fails += 1
        fresh = str(tmp_path / f"run-{fails}")
        publish(old, fresh)
        left = iter(range(1, fails))

        def interrupt(*_: str, left: Any = left) -> None:
            if next(left, None) is None:
                raise OSError("the machine is gone")

        watch(interrupt)
        try:
            publish(new, fresh)
        except OSError:
            watch(None)
        else:
            break
        assert _latest(fresh) in (old.name, new.name)
        assert not list(Path(fresh).rglob(".tmp-*"))
        publish(new, fresh)
        assert _latest(fresh) == new.name
        verify_published(fresh, *KIND, old.name)
    assert fails > 20


def test_of_many_that_swap_at_once_one_wins(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert store.swap(POINTER, b"0", None)
    assert not store.swap(POINTER, b"1", None)
    for _ in range(5):
        _, tag = store.read(POINTER) or (b"", "")
        start = threading.Barrier(8)

        def swap(n: int, tag: str = tag, start: threading.Barrier = start) -> bool:
            start.wait()
            return store.swap(POINTER, f"{tag} {n}".encode(), tag)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(swap, range(8)))
        assert sum(won) == 1
        content, _ = store.read(POINTER) or (b"", "")
        assert content == f"{tag} {won.index(True)}".encode()
        assert store.swap(POINTER, content, "wrong tag")  # What is there already.


def test_a_dry_run_of_publishing_writes_nothing(
    location: str, artifact: Path, other_artifact: Path
) -> None:
    assert publish(artifact, location, dry_run=True)["pointer_moved"]
    assert not Path(location).exists()
    publish(artifact, location)
    assert not publish(artifact, location, dry_run=True)["pointer_moved"]
    assert publish(other_artifact, location, dry_run=True)["pointer_moved"]
    assert len(published_versions(location, *KIND)) == 1


def test_progress_counts_megabytes_up_to_the_total(
    location: str, artifact: Path, cache: Path
) -> None:
    reports: list[tuple[int, int, str]] = []

    def report(*what: Any) -> None:
        reports.append(what)

    publish(artifact, location, progress=report)
    fetch(location, *KIND, cache, progress=report)
    assert reports == [(1, 1, CONTENT[0])] * 2


# --- versions


def test_versions_are_listed_newest_first_with_what_is_known_of_them(
    location: str, folder: Path, versions_of: Save
) -> None:
    saved = versions_of(3)
    _publish_aged(location, saved, 3, 2, 1)
    (folder / saved[2].name / MANIFEST).unlink()
    rollback(location, *KIND, saved[0].name)
    (folder / "something else").mkdir()
    found = published_versions(location, *KIND)
    assert [v.version_id for v in found] == [a.name for a in (saved[1], saved[0], saved[2])]
    assert [v.latest for v in found] == [False, True, False]
    assert [v.complete for v in found] == [True, True, False]
    assert found[0].size == sum(path.stat().st_size for path in saved[1].iterdir())
    assert found[0].modified == pytest.approx(time.time() - 2 * 86400, abs=60)


def test_rolling_back_moves_the_pointer_to_a_verified_version(
    location: str, versions_of: Save
) -> None:
    old, new = versions_of(2)
    publish(old, location)
    publish(new, location)
    assert rollback(location, *KIND, old.name, dry_run=True)["pointer_moved"]
    assert _latest(location) == new.name
    assert rollback(location, *KIND, old.name)["pointer_moved"]
    assert _latest(location) == old.name
    assert not rollback(location, *KIND, old.name)["pointer_moved"]


@pytest.mark.parametrize("name", FILES)
def test_rolling_back_to_what_is_missing_or_damaged_is_refused(
    name: str, location: str, folder: Path, versions_of: Save
) -> None:
    old, new = versions_of(2)
    publish(old, location)
    publish(new, location)
    _damage(folder / old.name / name)
    with pytest.raises(ArtifactError, match=name):
        rollback(location, *KIND, old.name)
    (folder / old.name / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} (does not exist|is missing)"):
        rollback(location, *KIND, old.name)
    with pytest.raises(ArtifactError, match="there is no version"):
        rollback(location, *KIND, "0" * 64)
    assert _latest(location) == new.name


def test_pruning_keeps_the_newest_the_latest_and_the_young(
    location: str, folder: Path, versions_of: Save
) -> None:
    saved = versions_of(6)
    _publish_aged(location, saved, 5, 4, 3, 2, 1.1, 0.9)
    (folder / saved[1].name / MANIFEST).unlink()  # Abandoned half-published.
    (folder / saved[5].name / MANIFEST).unlink()  # Perhaps on its way.
    rollback(location, *KIND, saved[0].name)
    would_go = [v.version_id for v in prune_versions(location, *KIND, keep=2, dry_run=True)]
    assert sorted(would_go) == sorted([saved[2].name, saved[1].name])
    assert all((folder / artifact.name).exists() for artifact in saved)
    assert [v.version_id for v in prune_versions(location, *KIND, keep=2)] == would_go
    left = {path.name for path in folder.iterdir() if path.is_dir()}
    assert left == {saved[n].name for n in (0, 3, 4, 5)}
    assert _latest(location) == saved[0].name
    assert prune_versions(location, *KIND, keep=2) == []


def test_a_version_of_another_schema_is_listed_and_pruned_like_others(
    location: str, folder: Path, versions_of: Save
) -> None:
    old, latest = versions_of(2)
    publish(old, location)
    publish(latest, location)
    (folder / old.name / MANIFEST).write_text('{"schema_version": 2}')
    _age(folder / old.name, 2)
    assert [v.complete for v in published_versions(location, *KIND)] == [True, True]
    with pytest.raises(ArtifactError, match="has schema version 2, this package reads 5; build"):
        rollback(location, *KIND, old.name)
    assert [v.version_id for v in prune_versions(location, *KIND, keep=1)] == [old.name]


def test_nothing_is_pruned_where_no_pointer_says_what_is_used(
    location: str, folder: Path, versions_of: Save
) -> None:
    _publish_aged(location, versions_of(2), 2, 2)
    with pytest.raises(ArtifactError, match="expected at least 1"):
        prune_versions(location, *KIND, keep=0)
    (folder / POINTER).write_text("{")
    with pytest.raises(ArtifactError, match="names no version"):
        prune_versions(location, *KIND, keep=1)
    (folder / POINTER).unlink()
    with pytest.raises(ArtifactError, match="nothing was published"):
        prune_versions(location, *KIND, keep=1)
    assert len(published_versions(location, *KIND)) == 2


def test_a_version_that_becomes_the_latest_while_others_are_pruned_stays(
    location: str, versions_of: Save, watch: Watch
) -> None:
    saved = versions_of(3)
    _publish_aged(location, saved, 4, 3, 2)

    def meanwhile(operation: str, _: str) -> None:
        if operation == "delete":
            watch(None)
            rollback(location, *KIND, saved[0].name)

    watch(meanwhile)
    prune_versions(location, *KIND, keep=1)
    assert _latest(location) == saved[0].name


def test_a_version_that_is_pruned_while_it_becomes_the_latest_is_told(
    location: str, versions_of: Save, watch: Watch
) -> None:
    old, new = versions_of(2)
    _publish_aged(location, [old, new], 2, 0)

    def meanwhile(operation: str, _: str) -> None:
        if operation == "swap":
            watch(None)
            prune_versions(location, *KIND, keep=1)

    watch(meanwhile)
    with pytest.raises(ArtifactError, match="was pruned meanwhile; publish it again"):
        rollback(location, *KIND, old.name)
    publish(old, location)
    assert _latest(location) == old.name


# --- fetching


def _whole(cache: Path) -> list[str]:
    """Return the versions in a cache, having verified each."""
    names = sorted(path.name for path in cache.iterdir())
    for name in names:
        verify_artifact(cache / name, version_id=name)
    return names


def test_a_fetched_version_is_whole_and_loads(
    location: str, cache: Path, artifact: Path, other_artifact: Path
) -> None:
    publish(artifact, location)
    path = fetch(location, *KIND, cache)
    assert path == cache / artifact.name
    assert load_artifact(path).facts["dataset"] == "planted"
    publish(other_artifact, location)
    assert fetch(location, *KIND, cache) == cache / other_artifact.name
    assert fetch(location, *KIND, cache, version_id=artifact.name) == path
    assert _whole(cache) == sorted([artifact.name, other_artifact.name])


@pytest.mark.parametrize("name", FILES)
def test_what_is_whole_in_the_cache_is_not_fetched_again_and_what_is_damaged_is(
    name: str, location: str, cache: Path, artifact: Path, watch: Watch
) -> None:
    publish(artifact, location)
    count: Counter[str] = Counter()
    watch(lambda operation, _: count.update([operation]))
    path = fetch(location, *KIND, cache)
    fetch(location, *KIND, cache)
    assert count["download"] == len(FILES)
    _damage(path / name)
    fetch(location, *KIND, cache)
    assert _whole(cache) == [artifact.name]
    assert count["download"] == 2 * len(FILES)


@pytest.mark.parametrize("name", FILES)
def test_what_is_damaged_in_the_store_is_not_fetched_and_leaves_nothing(
    name: str, location: str, folder: Path, cache: Path, artifact: Path, other_artifact: Path
) -> None:
    publish(artifact, location)
    path = folder / artifact.name / name
    content = path.read_bytes()
    others = (other_artifact / name).read_bytes()
    for damaged in (content[:-9], content + b"x", b"!" + content[1:], b"", others):
        if damaged != content:
            path.write_bytes(damaged)
            with pytest.raises(ArtifactError, match=name):
                fetch(location, *KIND, cache)
            assert not cache.exists() or list(cache.iterdir()) == []
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{name} does not exist"):
        fetch(location, *KIND, cache)
    path.write_bytes(content)
    fetch(location, *KIND, cache)
    assert _whole(cache) == [artifact.name]


@pytest.mark.parametrize(
    "version_id", ["", "../../etc", "0" * 63, "A" * 64, "0" * 64 + "\n", "../" + "0" * 61]
)
def test_a_version_id_that_is_none_never_becomes_a_path(
    version_id: str, location: str, cache: Path
) -> None:
    cache.mkdir()
    with pytest.raises(ArtifactError, match="64 hexadecimal digits"):
        fetch(location, *KIND, cache, version_id=version_id)
    with pytest.raises(ArtifactError, match="64 hexadecimal digits"):
        rollback(location, *KIND, version_id)


def test_what_cannot_be_written_or_read_is_told(
    location: str, folder: Path, cache: Path, artifact: Path
) -> None:
    publish(artifact, location)
    cache.write_text("a file")
    with pytest.raises(StorageError, match="a file is where a folder is needed"):
        fetch(location, *KIND, cache)
    (folder / POINTER).unlink()
    (folder / POINTER).mkdir()
    with pytest.raises(ArtifactError, match=r"cannot read .*latest\.json: Is a directory"):
        fetch(location, *KIND, cache)


def test_what_killed_processes_left_is_removed_after_a_day(
    location: str, cache: Path, artifact: Path
) -> None:
    publish(artifact, location)
    for name, days in ((".tmp-old", 2), (".tmp-new", 0.5)):
        (cache / name).mkdir(parents=True)
        (cache / name / "rows.npy").touch()
        _age(cache / name, days)
    fetch(location, *KIND, cache)
    assert {path.name for path in cache.iterdir()} == {artifact.name, ".tmp-new"}


def test_several_that_fetch_the_same_version_at_once_all_have_it(
    location: str, cache: Path, artifact: Path
) -> None:
    publish(artifact, location)
    with ThreadPoolExecutor(6) as pool:
        paths = set(pool.map(lambda _: fetch(location, *KIND, cache), range(6)))
    assert paths == {cache / artifact.name}
    assert _whole(cache) == [artifact.name]


def test_a_version_that_is_pruned_while_it_is_fetched_gives_way_to_the_latest(
    location: str, folder: Path, cache: Path, artifact: Path, other_artifact: Path, watch: Watch
) -> None:
    publish(artifact, location)
    _age(folder / artifact.name, 2)

    def meanwhile(operation: str, name: str) -> None:
        if operation == "download" and name == f"{artifact.name}/{CONTENT[1]}":
            watch(None)
            publish(other_artifact, location)
            prune_versions(location, *KIND, keep=1)

    watch(meanwhile)
    assert fetch(location, *KIND, cache).name == other_artifact.name
    assert _whole(cache) == [other_artifact.name]
    assert publishing.read_pointer(FolderStore(folder)) == other_artifact.name
