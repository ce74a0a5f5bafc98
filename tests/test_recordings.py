"""The recording table survives a round trip, and refuses what it cannot mean."""

from dataclasses import replace
from pathlib import Path

import pytest

from mess_core.errors import DatasetError
from mess_core.recordings import (
    Recording,
    check_enough,
    problem_lines,
    read_recordings,
    usable,
    write_recordings,
)

pytestmark = pytest.mark.unit

GOOD = Recording(
    recording_id="b-1",
    work_id="work",
    performer='Ann, the "1st"',
    composer="Frédéric Chopin",
    title="Prélude",
    split="train",
    audio="audio/b 1.wav",
    midi="audio/b 1.mid",
    beats="audio/b 1.beats.tsv",
    audio_sha256="00",
    midi_sha256="11",
    beats_sha256="22",
    duration_s=12.5,
    status="ok",
    reason="",
)
BAD = replace(GOOD, recording_id="a", status="silent", reason="too\tquiet\nreally")


def test_a_table_survives_a_round_trip_in_order_of_ids(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    write_recordings(path, [GOOD, BAD])
    first, second = read_recordings(path)
    assert second == GOOD
    assert first == replace(BAD, reason="too quiet really")
    assert usable([first, second]) == [GOOD]
    assert problem_lines([first, second]) == ["  a: silent: too quiet really"]


def test_cells_that_other_readers_break_up_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    odd = replace(GOOD, title='"open', performer="a\u2028b\x85c", reason="x" * 200_000)
    write_recordings(path, [odd])
    assert read_recordings(path) == [odd]


def test_too_few_works_are_named() -> None:
    takes = [replace(GOOD, recording_id=f"r{i}", work_id=f"w{i}") for i in range(3)]
    assert check_enough(takes) == ""
    assert check_enough(takes[:2]).startswith("only 2 works (w0, w1): aspects need at least 3,")
    spoilt = replace(takes[2], status="silent")
    assert check_enough([takes[0], spoilt]).startswith("only 1 work (w0): ")
    assert check_enough([]).startswith("only 0 works: ")


def test_an_equal_table_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    write_recordings(path, [GOOD])
    before = path.stat().st_ino
    write_recordings(path, [GOOD])
    assert path.stat().st_ino == before
    write_recordings(path, [GOOD, BAD])
    assert path.stat().st_ino != before


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "a b", "ä"])
def test_unsafe_ids_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="not safe as a file name"):
        write_recordings(tmp_path / "x.tsv", [replace(GOOD, recording_id=name)])


def test_repeated_ids_and_unknown_statuses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'b-1' occurs twice"):
        write_recordings(tmp_path / "x.tsv", [GOOD, GOOD])
    with pytest.raises(DatasetError, match="status 'fine'"):
        write_recordings(tmp_path / "x.tsv", [replace(GOOD, status="fine")])


def test_a_missing_table_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"mess recordings --folder PATH --name mine"):
        read_recordings(tmp_path / "mine.tsv")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("work_id", "work", "has the columns"),
        ("12.500", "long", "'b-1' is malformed"),
        ("\tok\t", "\t", "malformed"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "x.tsv"
    write_recordings(path, [GOOD])
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DatasetError, match=message):
        read_recordings(path)
