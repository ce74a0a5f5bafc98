"""The note that a version was found whole: when it is believed, and what it cannot hide."""

import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mess_core.errors import ArtifactError
from mess_core.files import file_sha256
from mess_core.index import artifact as module
from mess_core.index.artifact import CONTENT, FILES, load_artifact, verify_artifact
from tests.conftest import as_nobody
from tests.index.forging import check_refused

pytestmark = pytest.mark.unit

Hashed = Callable[[], list[str]]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Hashed:
    """Give a function that returns which files were hashed since it was last called."""
    names: list[str] = []

    def counting(path: Path) -> str:
        names.append(path.name)
        return file_sha256(path)

    def since() -> list[str]:
        found = names.copy()
        names.clear()
        return found

    monkeypatch.setattr(module, "file_sha256", counting)
    return since


@pytest.fixture
def grow_old(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give a function after which a minute seems to have passed since files were written."""
    now = time.time_ns
    return lambda: monkeypatch.setattr(time, "time_ns", lambda: now() + 60 * 10**9)


def _note(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.verified"


def _tick(folder: Path) -> None:
    """Wait for the clock of the file system, which is coarse, to show another time."""
    probe = folder.parent / "probe"
    probe.touch()
    first = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == first:
        probe.touch()
    probe.unlink()


@pytest.fixture
def noted(artifact: Path, grow_old: Callable[[], None]) -> Path:
    """Give a version that was found whole a moment of the file system's clock ago."""
    grow_old()
    load_artifact(artifact)
    _tick(artifact)
    return artifact


def _flip_last(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def test_a_second_opening_hashes_nothing(noted: Path, hashed: Hashed) -> None:
    assert _note(noted).exists()
    assert load_artifact(noted, version_id=noted.name).version_id == noted.name
    assert hashed() == []


def test_verifying_always_hashes_everything(noted: Path, hashed: Hashed) -> None:
    for _ in range(2):
        verify_artifact(noted)
        assert hashed() == list(CONTENT)
    load_artifact(noted)
    assert hashed() == []


def test_files_that_are_young_are_hashed_again(artifact: Path, hashed: Hashed) -> None:
    # Whatever else was written within the same tick of the clock would not show.
    for _ in range(2):
        load_artifact(artifact)
        assert hashed() == list(CONTENT)
    assert not _note(artifact).exists()


def test_a_folder_that_is_no_version_gets_no_note_and_believes_none(
    noted: Path, hashed: Hashed
) -> None:
    moved = noted.rename(noted.with_name("copy"))
    _note(noted).rename(_note(moved))
    hashed()
    load_artifact(moved)
    assert hashed() == list(CONTENT)
    assert _note(moved).exists()
    _note(moved).unlink()
    load_artifact(moved)
    assert not _note(moved).exists()


def test_the_note_goes_where_the_version_lies_and_not_beside_a_link(
    artifact: Path, tmp_path: Path, grow_old: Callable[[], None]
) -> None:
    grow_old()
    (tmp_path / ("f" * 64)).symlink_to(artifact)
    load_artifact(tmp_path / ("f" * 64))
    assert _note(artifact).exists()
    assert not _note(tmp_path / ("f" * 64)).exists()


# --- whatever is written is noticed


def _write(path: Path) -> None:
    _flip_last(path)


def _write_mapped(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[-1] ^= 1


def _replace(path: Path) -> None:
    other = path.parent.parent / "other"
    shutil.copy2(path, other)
    _flip_last(other)
    shutil.copystat(path, other)
    other.rename(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [_write, _write_mapped, _replace])
def test_whatever_is_written_is_noticed_with_the_time_set_back(
    change: Callable[[Path], None], name: str, noted: Path
) -> None:
    before = (noted / name).stat()
    change(noted / name)
    os.utime(noted / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (noted / name).stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    check_load_refused(noted, name)
    assert name in ("manifest.json", "checksums.json") or not _note(noted).exists()


def check_load_refused(folder: Path, match: str) -> None:
    with pytest.raises(ArtifactError, match=match):
        load_artifact(folder)


@pytest.mark.parametrize("name", CONTENT)
def test_a_file_that_is_written_while_it_is_checked_is_hashed_again(
    name: str, artifact: Path, grow_old: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    grow_old()

    def written_meanwhile(path: Path) -> str:
        digest = file_sha256(path)
        if path.name == name:
            _tick(artifact)
            _flip_last(path)
        return digest

    monkeypatch.setattr(module, "file_sha256", written_meanwhile)
    monkeypatch.setattr(module, "check_contents", lambda *_, **__: None)
    verify_artifact(artifact)
    assert _note(artifact).exists()
    monkeypatch.undo()
    check_load_refused(artifact, name)


def test_a_touched_file_is_hashed_again_and_noted_again(noted: Path, hashed: Hashed) -> None:
    (noted / "rows.npy").touch()
    load_artifact(noted)
    assert hashed() == list(CONTENT)
    load_artifact(noted)
    assert hashed() == []


def test_a_copy_of_folder_and_note_is_hashed(noted: Path, tmp_path: Path, hashed: Hashed) -> None:
    copy = shutil.copytree(noted.parent, tmp_path / "backup") / noted.name
    assert _note(copy).exists()
    load_artifact(copy)
    assert hashed() == list(CONTENT)


# --- notes that are not ours


def _empty(note: Path) -> None:
    note.write_bytes(b"")


def _garbage(note: Path) -> None:
    note.write_bytes(b"\xff" * 300)


def _nested(note: Path) -> None:
    note.write_bytes(b"[" * 100_000)


def _other_version(note: Path) -> None:
    note.write_bytes(note.read_bytes().replace(b"1", b"2"))


def _longer(note: Path) -> None:
    note.write_bytes(note.read_bytes() + b" ")


def _huge(note: Path) -> None:
    os.truncate(note, 10 * 2**30)


def _folder(note: Path) -> None:
    note.unlink()
    note.mkdir()


def _pipe(note: Path) -> None:
    note.unlink()
    os.mkfifo(note)


def _loop(note: Path) -> None:
    note.unlink()
    note.symlink_to(note)


@pytest.mark.parametrize(
    "spoil",
    [_empty, _garbage, _nested, _other_version, _longer, _huge, _folder, _pipe, _loop],
)
def test_a_broken_note_makes_for_a_full_check_and_no_error(
    spoil: Callable[[Path], None], noted: Path, hashed: Hashed
) -> None:
    spoil(_note(noted))
    load_artifact(noted)
    assert hashed() == list(CONTENT)
    _flip_last(noted / "index.faiss")
    check_load_refused(noted, r"index\.faiss: sha256")


def test_verifying_finds_what_a_forged_note_hides_and_forgets_it(noted: Path) -> None:
    note = _note(noted)
    _flip_last(noted / "predicted.npy")
    note.write_bytes(module._seen(noted))
    load_artifact(noted)  # As the module says: who writes beside the folder may forge the note.
    check_refused(noted, r"predicted\.npy: sha256")
    assert not note.exists()
    check_load_refused(noted, r"predicted\.npy: sha256")


@pytest.mark.parametrize(
    ("name", "position"),
    [("index.faiss", 4), ("index.faiss", 9), ("index.faiss", 38), ("rows.npy", 70)],
)
def test_a_forged_note_hides_no_header(name: str, position: int, noted: Path) -> None:
    content = bytearray((noted / name).read_bytes())
    content[position] ^= 4
    (noted / name).write_bytes(content)
    _note(noted).write_bytes(module._seen(noted))
    check_load_refused(noted, name)


@pytest.mark.parametrize("name", CONTENT)
def test_a_forged_note_hides_no_size(name: str, noted: Path) -> None:
    os.truncate(noted / name, (noted / name).stat().st_size - 1)
    _note(noted).write_bytes(module._seen(noted))
    check_load_refused(noted, name)


# --- rights


@pytest.fixture
def of_nobody(artifact: Path, grow_old: Callable[[], None]) -> Iterator[Path]:
    """Give a version that belongs to the user who runs the test, who has no rights but its own."""
    grow_old()
    with tempfile.TemporaryDirectory() as root:
        folder = shutil.copytree(artifact, Path(root) / artifact.name)
        for path in (folder, *folder.iterdir()):
            os.chown(path, 65534 if os.geteuid() == 0 else -1, -1)
        with as_nobody(Path(root)):
            yield folder
            folder.parent.chmod(0o755)
            folder.chmod(0o755)


def test_where_no_note_can_be_written_everything_is_checked_each_time(
    of_nobody: Path, hashed: Hashed
) -> None:
    for path in (*of_nobody.iterdir(), of_nobody, of_nobody.parent):
        path.chmod(0o555)
    for _ in range(2):
        load_artifact(of_nobody)
        assert hashed() == list(CONTENT)
    assert [path.name for path in of_nobody.parent.iterdir()] == [of_nobody.name]


def test_a_note_that_can_neither_be_read_nor_removed_is_no_error(
    of_nobody: Path, hashed: Hashed
) -> None:
    load_artifact(of_nobody)
    _note(of_nobody).chmod(0)
    of_nobody.parent.chmod(0o555)
    hashed()
    load_artifact(of_nobody)
    assert hashed() == list(CONTENT)
