"""The store computes once and loses nothing; outputs are copies of it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mess_core.store import cached, materialise

pytestmark = pytest.mark.unit

NAME = "ab" * 32


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
    assert not list(tmp_path.rglob("*.txt"))

    def succeed(path: Path) -> None:
        path.write_text("ok")

    done = cached(tmp_path, "k", NAME, ".txt", succeed)
    assert done.read_text() == "ok"


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
    calls: list[int] = []

    def write(path: Path) -> None:
        calls.append(1)
        path.write_text("value")

    path = cached(tmp_path, "k", NAME, ".txt", write)
    path.write_text("vAlue")
    assert cached(tmp_path, "k", NAME, ".txt", write).read_text() == "value"
    assert len(calls) == 2
    assert list(path.parent.iterdir()) == [path]
