"""The cache computes once and loses nothing; outputs are hard links to it, or copies."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mess_core.cache import cached, find, materialise, scratch, store
from mess_core.errors import StorageError
from mess_core.files import write_text
from tests.conftest import SmallDisk, as_nobody, make_read_only

pytestmark = pytest.mark.unit

NAME = "ab" * 32
#: Another of the same sub-folder.
NEAR = "ab" + "cd" * 31


def saves(text: str) -> Callable[[Path], None]:
    """Return a computation that makes ``text``."""

    def write(path: Path) -> None:
        path.write_text(text)

    return write


def forbidden(path: Path) -> None:
    raise AssertionError(f"{path} was computed again")


def damage(path: Path, text: str) -> None:
    path.chmod(0o644)
    path.write_text(text)


def files(cache: Path) -> list[Path]:
    """Return everything in the cache, and everything that is not finished."""
    return sorted([*cache.glob("k/*/*"), *cache.glob("tmp/*")])


def test_many_that_compute_the_same_at_the_same_time_do_no_harm(tmp_path: Path) -> None:
    def compute(i: int) -> Path:
        # As on different machines: every second one rounds differently.
        stored = cached(tmp_path, "k", NAME, ".txt", saves(f"value {i % 2}"))
        materialise(stored, tmp_path / "out" / str(i))
        return stored

    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(compute, range(32)))
    assert {path.read_text() for path in paths} <= {"value 0", "value 1"}
    assert files(tmp_path) == sorted(paths)
    assert len(list((tmp_path / "out").iterdir())) == 32


def test_a_failing_computation_stores_nothing_and_may_be_tried_again(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        cached(tmp_path, "k", NAME, ".txt", fail)
    assert not files(tmp_path)
    assert cached(tmp_path, "k", NAME, ".txt", saves("ok")).read_text() == "ok"


def test_a_value_is_computed_once_and_found_by_kind_fingerprint_and_suffix(tmp_path: Path) -> None:
    assert find(tmp_path, "k", NAME, ".txt") is None
    path = cached(tmp_path, "k", NAME, ".txt", saves("value"))
    assert path.read_text() == "value"
    assert cached(tmp_path, "k", NAME, ".txt", forbidden) == path
    assert files(tmp_path) == [path]
    assert find(tmp_path, "k", NAME, ".txt") == path
    assert find(tmp_path, "other", NAME, ".txt") is None
    assert find(tmp_path, "k", NEAR, ".txt") is None
    assert find(tmp_path, "k", NAME, ".npy") is None


def test_stored_files_are_read_only_for_those_who_may_read_any_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    path = cached(tmp_path, "k", NAME, ".txt", saves("value"))
    assert path.stat().st_mode == plain.stat().st_mode & ~0o222


def test_a_scratch_folder_goes_and_so_does_what_was_left_a_day_ago(tmp_path: Path) -> None:
    old, young = tmp_path / "tmp" / "old", tmp_path / "tmp" / "young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "x").write_text("left by a killed process")
    day = time.time() - 25 * 3600
    os.utime(old, (day, day))
    with scratch(tmp_path) as folder:
        assert not list(folder.iterdir())
        (folder / "x").write_text("")
    assert list((tmp_path / "tmp").iterdir()) == [young]


# Outputs.


@pytest.mark.parametrize("links", [True, False])
def test_an_output_is_restored_when_deleted_or_replaced_and_else_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(*_: object) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    stored, output = tmp_path / "stored", tmp_path / "out" / "x"
    stored.write_bytes(b"12345")
    assert materialise(stored, output)
    assert output.samefile(stored) == links
    inode = output.stat().st_ino
    assert not materialise(stored, output)
    assert output.stat().st_ino == inode
    write_text(output, "12x45")
    assert materialise(stored, output)
    assert output.read_bytes() == stored.read_bytes() == b"12345"
    output.unlink()
    assert materialise(stored, output)
    assert list(output.parent.iterdir()) == [output]


def test_another_output_never_writes_through_a_link_into_the_cache(tmp_path: Path) -> None:
    one = cached(tmp_path, "k", NAME, ".txt", saves("one"))
    two = cached(tmp_path, "k", NEAR, ".txt", saves("two"))
    output = tmp_path / "out"
    for stored in (one, two, one):
        materialise(stored, output)
        assert output.read_text() == stored.read_text()
    write_text(output, "three")
    assert (one.read_text(), two.read_text()) == ("one", "two")
    assert find(tmp_path, "k", NAME, ".txt") == one


# Damage.


def test_a_damaged_file_is_noticed_and_computed_again(tmp_path: Path) -> None:
    path = cached(tmp_path, "k", NAME, ".txt", saves("value"))
    output = tmp_path / "out"
    materialise(path, output)
    damage(output, "vAlue")  # through the link
    assert find(tmp_path, "k", NAME, ".txt") is None
    assert path.exists(), "find must not delete: the file may just have been replaced"
    assert cached(tmp_path, "k", NAME, ".txt", saves("value")) == path
    assert path.read_text() == "value"
    assert materialise(path, output)
    assert output.read_text() == "value"
    assert files(tmp_path) == [path]


def test_a_damaged_file_goes_also_when_the_new_content_is_another(tmp_path: Path) -> None:
    path = cached(tmp_path, "k", NAME, ".txt", saves("value"))
    near = cached(tmp_path, "k", NEAR, ".txt", saves("value"))
    damage(path, "")
    again = cached(tmp_path, "k", NAME, ".txt", saves("value on another machine"))
    assert files(tmp_path) == sorted([again, near])
    assert find(tmp_path, "k", NAME, ".txt") == again != path


def test_what_cannot_be_read_counts_as_damaged(tmp_path: Path) -> None:
    path = cached(tmp_path, "k", NAME, ".txt", saves("value"))
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert find(tmp_path, "k", NAME, ".txt") is None
    assert cached(tmp_path, "k", NAME, ".txt", saves("value")).read_text() == "value"


#: Dies just before the function named by the third argument does its work for the n-th time.
DIE = """
import os, signal, sys
from pathlib import Path
from mess_core import cache

owner, name, nth = {
    "flush": (cache, "flush", 1),
    "hash": (cache, "file_sha256", 1),
    "rename": (Path, "replace", 1),
    "flush folder": (cache, "flush", 2),
    "link": (os, "link", 1),
    "rename output": (Path, "replace", 2),
}[sys.argv[2]]
real, left = getattr(owner, name), [nth]

def dying(*arguments, **options):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)

setattr(owner, name, dying)
root = Path(sys.argv[1])
path = cache.cached(root, "k", "ab" * 32, ".txt", lambda path: path.write_text("value"))
cache.materialise(path, root / "out")
"""


@pytest.mark.parametrize(
    ("point", "stored"),
    [
        ("flush", False),
        ("hash", False),
        ("rename", False),
        ("flush folder", True),
        ("link", True),
        ("rename output", True),
    ],
)
def test_a_kill_leaves_a_whole_file_or_none(tmp_path: Path, point: str, stored: bool) -> None:
    done = subprocess.run([sys.executable, "-c", DIE, str(tmp_path), point])
    assert done.returncode < 0
    assert not (tmp_path / "out").exists()
    assert (find(tmp_path, "k", NAME, ".txt") is not None) == stored
    path = cached(tmp_path, "k", NAME, ".txt", forbidden if stored else saves("value"))
    assert path.read_text() == "value"
    assert materialise(path, tmp_path / "out")


# Disks that are full or closed.


def test_a_full_disk_stores_nothing_and_goes_on_when_there_is_room(small_disk: SmallDisk) -> None:
    disk = small_disk(64)
    kept = cached(disk, "k", NEAR, ".txt", saves("kept"))
    with pytest.raises(StorageError, match=r"too little space left .* free some space and run ag"):
        cached(disk, "k", NAME, ".txt", saves("x" * 100_000))
    assert files(disk) == [kept]
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(60 * 1024))
    assert cached(disk, "k", NEAR, ".txt", forbidden) == kept
    with pytest.raises(StorageError, match="too little space left"):
        cached(disk, "k", NAME, ".txt", saves("value"))
    ballast.unlink()
    assert cached(disk, "k", NAME, ".txt", saves("value")).read_text() == "value"


def test_an_output_on_a_full_disk_keeps_its_old_content(
    tmp_path: Path, small_disk: SmallDisk
) -> None:
    stored, output = tmp_path / "stored", small_disk(64) / "out"
    output.write_bytes(b"old")
    stored.write_bytes(bytes(100_000))
    with pytest.raises(StorageError, match=rf"cannot write {output}: .* too little space left"):
        materialise(stored, output)
    assert output.read_bytes() == b"old"
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("inodes", [0, 1, 2, 3, 4])
def test_a_disk_without_inodes_fails_clearly(small_disk: SmallDisk, inodes: int) -> None:
    # tmp, the folder in it, the content, k, ab: five.
    disk = small_disk(64, files=1 + inodes)
    (disk / "ballast").write_text("")
    with pytest.raises(StorageError, match="no inodes free"):
        cached(disk, "k", NAME, ".txt", saves("value"))
    assert not files(disk)
    subprocess.run(["mount", "-o", "remount,nr_inodes=20", str(disk)], check=True)
    assert cached(disk, "k", NAME, ".txt", saves("value")).read_text() == "value"


def test_a_cache_that_cannot_be_written_can_be_read(small_disk: SmallDisk) -> None:
    disk = small_disk(64)
    path = cached(disk, "k", NAME, ".txt", saves("value"))
    make_read_only(disk)
    assert cached(disk, "k", NAME, ".txt", forbidden) == path
    with pytest.raises(StorageError, match="the file system is read-only; make it writable"):
        cached(disk, "k", NEAR, ".txt", forbidden)
    with pytest.raises(StorageError, match=r"cannot write .*/out: the file system is read-only"):
        materialise(path, disk / "out")


def test_a_cache_that_is_closed_meanwhile_fails_clearly() -> None:
    with TemporaryDirectory() as name, as_nobody(Path(name)):
        cache = Path(name) / "cache"
        near = cached(cache, "k", NEAR, ".txt", saves("near"))
        with scratch(cache) as folder:
            content = folder / "x"
            content.write_text("value")
            near.parent.chmod(0o555)
            with pytest.raises(StorageError, match=r"no permission .*; make the folder writable"):
                store(cache, "k", NAME, content, ".txt")
        near.parent.chmod(0o755)
        assert cached(cache, "k", NAME, ".txt", saves("value")).read_text() == "value"
        assert len(files(cache)) == 2
