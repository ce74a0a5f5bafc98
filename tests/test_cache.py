"""The store computes once and loses nothing; outputs are copies of it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest

from mess_core import cache as store
from mess_core.cache import Claim, cached, claim, find, materialise, note_of
from mess_core.errors import StorageError
from mess_core.files import file_sha256
from mess_core.workflow import software
from tests.conftest import SmallDisk, as_nobody, make_read_only

pytestmark = pytest.mark.unit

NAME = "ab" * 32
#: Another of the same sub-folder, and one of another.
NEAR, FAR = "ab" + "cd" * 31, "ef" * 32


def saves(text: str) -> Callable[[Path], None]:
    """Return a computation that makes ``text``."""

    def write(path: Path) -> None:
        path.write_text(text)

    return write


def forbidden(path: Path) -> None:
    raise AssertionError(f"{path} was computed again")


def put(mine: Claim, name: str, text: str) -> Path:
    content = mine.folder / "x"
    content.write_text(text)
    return mine.store(name, content, ".txt")


def files(cache: Path) -> list[Path]:
    """Return every file and folder of the shelves but the notes; locks are elsewhere."""
    return sorted(path for path in cache.glob("k/*/*") if path.suffix != ".json")


def test_a_stored_file_has_a_note_of_the_code_that_computed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert note_of(tmp_path, "k", NAME) is None
    cached(tmp_path, "k", NAME, ".txt", saves("value"))
    note = note_of(tmp_path, "k", NAME)
    assert note
    assert note["code"] == software.code()
    # Who finds it later has not computed it, whatever code it is.
    monkeypatch.setattr(software, "code", lambda: {"version": "later"})
    cached(tmp_path, "k", NAME, ".txt", forbidden)
    assert note_of(tmp_path, "k", NAME) == note
    path = cached(tmp_path, "k", NAME, ".txt", forbidden)
    path.write_text("damaged")
    cached(tmp_path, "k", NAME, ".txt", saves("value"))
    again = note_of(tmp_path, "k", NAME)
    assert again
    assert again["code"] == {"version": "later"}
    (note_path,) = tmp_path.glob("k/*/*.json")
    note_path.write_text("")
    assert note_of(tmp_path, "k", NAME) is None


def test_a_value_is_computed_once_also_by_many_at_the_same_time(tmp_path: Path) -> None:
    calls: list[int] = []

    def write(path: Path) -> None:
        calls.append(1)
        path.write_text("value")

    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: cached(tmp_path, "k", NAME, ".txt", write), range(16)))
    assert [path.read_text() for path in paths] == ["value"]
    assert len(calls) == 1


def test_a_failing_computation_stores_nothing_and_may_be_tried_again(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        cached(tmp_path, "k", NAME, ".txt", fail)
    assert not files(tmp_path)
    assert cached(tmp_path, "k", NAME, ".txt", saves("ok")).read_text() == "ok"


def test_what_is_found_depends_on_kind_fingerprint_suffix_and_content(tmp_path: Path) -> None:
    assert find(tmp_path, "k", NAME, ".txt") is None
    path = cached(tmp_path, "k", NAME, ".txt", saves("value"))
    assert find(tmp_path, "k", NAME, ".txt") == path
    assert find(tmp_path, "other", NAME, ".txt") is None
    assert find(tmp_path, "k", NEAR, ".txt") is None
    assert find(tmp_path, "k", NAME, ".npy") is None


def test_a_claim_stores_several_files_and_leaves_only_them(tmp_path: Path) -> None:
    with claim(tmp_path, "k", NAME) as mine:
        assert not list(mine.folder.iterdir())
        (mine.folder / "left over").write_text("x")
        stored = {name: put(mine, name, name) for name in (NAME, NEAR, FAR)}
        assert not (mine.folder / "x").exists()
    assert files(tmp_path) == sorted(stored.values())
    for name, path in stored.items():
        assert find(tmp_path, "k", name, ".txt") == path
        assert path.read_text() == name


def test_stored_files_have_the_mode_of_any_other_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    path = cached(tmp_path, "k", NAME, ".txt", saves("value"))
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_claim_is_exclusive_per_fingerprint_and_kind(tmp_path: Path) -> None:
    with claim(tmp_path, "k", NAME) as mine, ThreadPoolExecutor(1) as pool:
        assert claim(tmp_path, "k", NAME, wait=False) is None
        assert pool.submit(claim, tmp_path, "k", NAME, wait=False).result() is None
        for kind, name in (("k", NEAR), ("other", NAME)):
            other = claim(tmp_path, kind, name, wait=False)
            assert other
            assert mine.folder.is_dir()
            assert other.folder.is_dir()
            other.release()


def test_any_thread_may_release_a_claim_and_releasing_twice_does_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            mine = claim(tmp_path, "k", NAME)
            pool.submit(mine.release).result()
            theirs = pool.submit(claim, tmp_path, "k", NAME, wait=False).result()
            assert theirs
            (theirs.folder / "x").write_text("kept")
            mine.release()
            assert claim(tmp_path, "k", NAME, wait=False) is None
            assert (theirs.folder / "x").read_text() == "kept"
            theirs.release()
    assert not files(tmp_path)


def test_a_claim_that_fails_frees_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "mkdtemp", lambda **_: os.open("/does/not/exist", os.O_RDONLY))
        with pytest.raises(FileNotFoundError) as caught:
            claim(tmp_path, "k", NAME)
    # The traceback keeps the lock alive, so that only a release frees it.
    assert caught.tb
    mine = claim(tmp_path, "k", NAME, wait=False)
    assert mine
    mine.release()


def test_who_waits_for_a_claim_gets_it_after_the_holder(tmp_path: Path) -> None:
    events: list[str] = []

    def wait() -> None:
        with claim(tmp_path, "k", NAME):
            events.append("claimed")

    mine = claim(tmp_path, "k", NAME)
    waiting = Thread(target=wait)
    waiting.start()
    events.append("released")
    mine.release()
    waiting.join(timeout=60)
    assert events == ["released", "claimed"]


def test_an_output_is_restored_when_deleted_or_damaged_and_else_untouched(tmp_path: Path) -> None:
    stored, output = tmp_path / "stored", tmp_path / "out" / "x"
    stored.write_bytes(b"12345")
    assert materialise(stored, output)
    inode = output.stat().st_ino
    assert not materialise(stored, output)
    assert output.stat().st_ino == inode
    output.write_bytes(b"12x45")
    assert materialise(stored, output)
    assert output.read_bytes() == stored.read_bytes() == b"12345"
    output.unlink()
    assert materialise(stored, output)


def test_a_damaged_stored_file_is_noticed_and_computed_again(tmp_path: Path) -> None:
    path = cached(tmp_path, "k", NAME, ".txt", saves("value"))
    path.write_text("vAlue")
    assert find(tmp_path, "k", NAME, ".txt") is None
    assert path.exists(), "find must not delete: the file may just have been replaced"
    assert cached(tmp_path, "k", NAME, ".txt", saves("value")) == path
    assert path.read_text() == "value"
    assert files(tmp_path) == [path]


def test_a_damaged_file_goes_also_when_the_new_content_is_another(tmp_path: Path) -> None:
    path = cached(tmp_path, "k", NAME, ".txt", saves("value"))
    near = cached(tmp_path, "k", NEAR, ".txt", saves("value"))
    path.write_text("")
    again = cached(tmp_path, "k", NAME, ".txt", saves("value on another machine"))
    assert files(tmp_path) == sorted([again, near])
    assert find(tmp_path, "k", NAME, ".txt") == again != path


def test_what_cannot_be_read_counts_as_damaged(tmp_path: Path) -> None:
    path = cached(tmp_path, "k", NAME, ".txt", saves("value"))
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert find(tmp_path, "k", NAME, ".txt") is None
    assert cached(tmp_path, "k", NAME, ".txt", saves("value")).read_text() == "value"


def test_a_repair_during_a_search_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cached(tmp_path, "k", NAME, ".txt", saves("value"))
    path.write_text("vAlue")
    real = file_sha256

    def repaired_meanwhile(damaged: Path) -> str:
        digest = real(damaged)
        monkeypatch.setattr(store, "file_sha256", real)
        cached(tmp_path, "k", NAME, ".txt", saves("value"))
        return digest

    monkeypatch.setattr(store, "file_sha256", repaired_meanwhile)
    assert find(tmp_path, "k", NAME, ".txt") is None
    assert cached(tmp_path, "k", NAME, ".txt", forbidden) == path


# Several processes. Each speaks through its pipes; nobody sleeps.

#: What a process starts with: it says a line, and goes on when it hears one.
PROLOGUE = """
import os, sys
from pathlib import Path
from mess_core.workflow import software
from mess_core import cache as store
from mess_core.cache import cached, claim, find

CACHE, LOG = Path(sys.argv[1]), Path(sys.argv[2])

def say(word):
    print(word, flush=True)

def say_and_wait(word):
    say(word)
    sys.stdin.readline()

def compute(name):
    with LOG.open("a") as log:
        log.write(f"{os.getpid()} {name}\\n")
    return f"value of {name}"
"""


class Partner:
    """A Python process that one can talk to."""

    def __init__(self, script: str, *arguments: Path) -> None:
        command = [sys.executable, "-c", PROLOGUE + script, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> None:
        assert self.process.wait(timeout=60) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def partners(script: str, count: int, *arguments: Path) -> Iterator[list[Partner]]:
    """Give processes, and end them whatever happens."""
    started = [Partner(script, *arguments) for _ in range(count)]
    try:
        yield started
    finally:
        for partner in started:
            partner.kill()
            assert partner.process.stdin
            assert partner.process.stdout
            partner.process.stdin.close()
            partner.process.stdout.close()


RACE = """
say_and_wait("ready")
for item in range(30):
    name = f"{item:02x}" * 32
    write = lambda path: path.write_text(compute(name))
    assert cached(CACHE, "k", name, ".txt", write).read_text() == f"value of {name}"
"""


def test_processes_that_race_compute_everything_once(tmp_path: Path) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    with partners(RACE, 3, cache, log) as racing:
        assert [partner.hear() for partner in racing] == ["ready"] * 3
        for partner in racing:
            partner.go_on()
        for partner in racing:
            partner.finish()
    computed = [line.split()[1] for line in log.read_text().splitlines()]
    assert sorted(computed) == [f"{item:02x}" * 32 for item in range(30)]
    assert len(files(cache)) == 30


#: The first process keeps the first item until it hears more; the others take what is free.
SHARE = """
keep = say_and_wait if sys.argv[3] == "slow" else lambda word: None
names = [f"{item:02x}" * 32 for item in range(6)]

def do(name, wait):
    if find(CACHE, "k", name, ".txt"):
        return True
    mine = claim(CACHE, "k", name, wait=wait)
    if mine is None:
        return False
    with mine:
        if find(CACHE, "k", name, ".txt") is None:
            content = mine.folder / "x"
            content.write_text(compute(name))
            keep("computing")
            mine.store(name, content, ".txt")
    return True

taken = [name for name in names if not do(name, wait=False)]
say(f"{len(taken)} taken")
for name in taken:
    do(name, wait=True)
say("done")
"""


def test_two_processes_share_the_work_of_a_shard(tmp_path: Path) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    with ExitStack() as stack:
        (slow,) = stack.enter_context(partners(SHARE, 1, cache, log, Path("slow")))
        assert slow.hear() == "computing"
        (fast,) = stack.enter_context(partners(SHARE, 1, cache, log, Path("fast")))
        assert fast.hear() == "1 taken"
        slow.go_on()
        assert [slow.hear(), slow.hear(), fast.hear()] == ["0 taken", "done", "done"]
        by = [line.split() for line in log.read_text().splitlines()]
        assert sorted(name for _, name in by) == [f"{item:02x}" * 32 for item in range(6)]
        assert [int(pid) for pid, _ in by].count(slow.process.pid) == 1
    assert len(files(cache)) == 6


#: Stops in the middle of storing: before the function named by the third argument does its work.
DIE = """
def stop_before(owner, attribute, count=1):
    real, left = getattr(owner, attribute), [count]
    def stopping(*arguments, **options):
        left[0] -= 1
        if not left[0]:
            say_and_wait("now")
        return real(*arguments, **options)
    setattr(owner, attribute, stopping)

name, point = "ab" * 32, sys.argv[3]
mine = claim(CACHE, "k", name)
content = mine.folder / "x"
with content.open("w") as file:
    file.write("val")
    file.flush()
    if point == "write":
        say_and_wait("now")
    file.write("ue")
if point == "flush":
    stop_before(store, "flush")
if point == "hash":
    stop_before(store, "file_sha256")
if point == "rename":
    stop_before(Path, "replace")
if point == "flush folder":
    stop_before(store, "flush", count=2)
if point == "release":
    stop_before(store.shutil, "rmtree")
if point == "unlock":
    stop_before(type(mine._lock), "release")
mine.store(name, content, ".txt")
mine.release()
"""


@pytest.mark.parametrize(
    ("point", "stored"),
    [
        ("write", False),
        ("flush", False),
        ("hash", False),
        ("rename", False),
        ("flush folder", True),
        ("release", True),
        ("unlock", True),
    ],
)
def test_a_killed_holder_blocks_nobody_and_leaves_nothing(
    tmp_path: Path, point: str, stored: bool
) -> None:
    with partners(DIE, 1, tmp_path, tmp_path / "log", Path(point)) as (partner,):
        assert partner.hear() == "now"
        assert claim(tmp_path, "k", NAME, wait=False) is None
        partner.kill()
    assert (find(tmp_path, "k", NAME, ".txt") is not None) == stored
    mine = claim(tmp_path, "k", NAME, wait=False)
    assert mine
    assert [path for path in files(tmp_path) if path.is_dir()] == [mine.folder]
    assert not list(mine.folder.iterdir())
    mine.release()
    path = cached(tmp_path, "k", NAME, ".txt", forbidden if stored else saves("value"))
    assert path.read_text() == "value"
    assert files(tmp_path) == [path]


def test_who_waits_for_a_holder_that_is_killed_gets_the_claim(tmp_path: Path) -> None:
    with (
        partners(DIE, 1, tmp_path, tmp_path / "log", Path("write")) as (holder,),
        ThreadPoolExecutor(1) as pool,
    ):
        assert holder.hear() == "now"
        waiting = pool.submit(cached, tmp_path, "k", NAME, ".txt", saves("mine"))
        holder.kill()
        assert waiting.result(timeout=60).read_text() == "mine"


# Disks that are full or closed.


def test_a_full_disk_stores_nothing_and_goes_on_when_there_is_room(small_disk: SmallDisk) -> None:
    disk = small_disk(64)
    kept = cached(disk, "k", NEAR, ".txt", saves("kept"))
    with pytest.raises(StorageError, match=r"too little space left .* free some space and run ag"):
        cached(disk, "k", NAME, ".txt", saves("x" * 100_000))
    assert files(disk) == [kept]
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(56 * 1024))
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


@pytest.mark.parametrize("inodes", [0, 1, 2, 3, 4, 5])
def test_a_disk_without_inodes_fails_clearly_and_frees_the_claim(
    small_disk: SmallDisk, inodes: int
) -> None:
    # locks, the lock, k, ab, and the temporary folder: five; the content is a sixth.
    disk = small_disk(64, files=1 + inodes)
    (disk / "ballast").write_text("")
    with pytest.raises(StorageError, match="no inodes free"):
        cached(disk, "k", NAME, ".txt", saves("value"))
    assert not files(disk)
    subprocess.run(["mount", "-o", "remount,nr_inodes=20", str(disk)], check=True)
    assert cached(disk, "k", NAME, ".txt", saves("value")).read_text() == "value"


def test_a_store_that_cannot_be_written_can_be_read(small_disk: SmallDisk) -> None:
    disk = small_disk(64)
    path = cached(disk, "k", NAME, ".txt", saves("value"))
    make_read_only(disk)
    assert cached(disk, "k", NAME, ".txt", forbidden) == path
    with pytest.raises(StorageError, match="the file system is read-only; make it writable"):
        cached(disk, "k", NEAR, ".txt", forbidden)
    with pytest.raises(StorageError, match=r"cannot write .*/out: the file system is read-only"):
        materialise(path, disk / "out")


def test_a_store_that_is_closed_under_a_claim_fails_clearly_and_frees_it() -> None:
    with TemporaryDirectory() as name, as_nobody(Path(name)):
        cache = Path(name) / "cache"
        mine = claim(cache, "k", NAME)
        content = mine.folder / "x"
        content.write_text("value")
        content.parent.parent.chmod(0o555)
        with pytest.raises(StorageError, match=r"no permission .*; make the folder writable"):
            mine.store(NAME, content, ".txt")
        mine.release()
        content.parent.parent.chmod(0o755)
        assert cached(cache, "k", NAME, ".txt", saves("value")).read_text() == "value"
        assert len(files(cache)) == 1
