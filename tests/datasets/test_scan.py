"""Scanning: every file is read once, bad ones are reported, unchanged ones not read again."""

import os
from pathlib import Path

import pretty_midi
import pytest

from mess_core.datasets.folder import FolderDataset, TableDataset
from mess_core.datasets.scan import scan_dataset
from mess_core.extraction.audio import AudioInfo, validate_audio_file
from mess_core.files import file_sha256
from mess_core.layout import Layout
from mess_core.recordings import read_recordings, usable
from tests.conftest import WriteTone

pytestmark = pytest.mark.unit


def write_midi(path: Path) -> None:
    midi, piano = pretty_midi.PrettyMIDI(), pretty_midi.Instrument(0)
    piano.notes.append(pretty_midi.Note(64, 60, 0.0, 1.0))
    midi.instruments.append(piano)
    midi.write(str(path))


@pytest.fixture
def folder(tmp_path: Path, write_tone: WriteTone) -> Path:
    for name, frequency in (("one/a", 220.0), ("one/b", 330.0), ("two/a", 440.0)):
        write_tone(f"corpus/{name}.wav", frequency=frequency)
    return tmp_path / "corpus"


def test_the_table_holds_identity_hash_and_length(tmp_path: Path, folder: Path) -> None:
    layout = Layout(tmp_path / "data", "mine")
    write_midi(folder / "one" / "a.mid")
    report = scan_dataset(FolderDataset("mine", folder), layout)
    rows = read_recordings(layout.table)
    assert rows == list(report.recordings)
    assert [r.recording_id for r in usable(rows)] == ["one__a", "one__b", "two__a"]
    assert [r.work_id for r in rows] == ["one", "one", "two"]
    assert rows[0].audio_sha256 == file_sha256(folder / "one" / "a.wav")
    assert rows[0].midi_sha256 == file_sha256(folder / "one" / "a.mid")
    assert rows[1].midi == rows[1].midi_sha256 == ""
    assert {r.duration_s for r in rows} == {6.0}
    assert report.read == 3
    assert "3 of 3 recordings usable: 2 works" in report.summary()


def test_only_files_that_changed_are_read_again(
    tmp_path: Path, folder: Path, write_tone: WriteTone
) -> None:
    layout = Layout(tmp_path / "data", "mine")
    dataset = FolderDataset("mine", folder)
    before = scan_dataset(dataset, layout).recordings
    assert scan_dataset(dataset, layout).read == 0

    os.utime(folder / "one" / "a.wav", (1, 1))
    report = scan_dataset(dataset, layout)
    assert (report.read, report.recordings) == (1, before)

    write_tone("corpus/one/b.wav", frequency=335.0)
    write_tone("corpus/new.wav")
    report = scan_dataset(dataset, layout)
    assert report.read == 2
    changed = {r.recording_id for r in report.recordings} - {
        r.recording_id for r in before if r in report.recordings
    }
    assert changed == {"one__b", "new"}

    (folder / "new.wav").unlink()
    assert "new" not in {r.recording_id for r in scan_dataset(dataset, layout).recordings}


def test_another_window_length_is_judged_anew(tmp_path: Path, folder: Path) -> None:
    layout = Layout(tmp_path / "data", "mine")
    dataset = FolderDataset("mine", folder)
    assert len(usable(scan_dataset(dataset, layout, min_duration_s=5).recordings)) == 3
    report = scan_dataset(dataset, layout, min_duration_s=10)
    assert (len(usable(report.recordings)), report.read) == (0, 0)
    assert {r.duration_s for r in report.recordings} == {6.0}
    assert "lasts 6.00 s, shorter than one window of 10 s" in report.problems[0].reason
    assert len(usable(scan_dataset(dataset, layout, min_duration_s=5).recordings)) == 3


def spoil(folder: Path, write_tone: WriteTone) -> dict[str, str]:
    """Add one bad file of every kind and return their ids with the status each must get."""
    whole = write_tone("whole.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[:20_000])
    (folder / "void.wav").write_bytes(b"")
    (folder / "text.mp3").write_bytes(b"no audio at all " * 50)
    write_tone("corpus/hush.wav", level=0.0)
    write_tone("corpus/tiny.wav", seconds=0.3)
    return {
        "cut": "truncated",
        "void": "empty",
        "text": "unreadable",
        "hush": "silent",
        "tiny": "too_short",
    }


def test_bad_files_are_reported_once_by_name_and_cause_and_stop_nothing(
    tmp_path: Path, folder: Path, write_tone: WriteTone
) -> None:
    expected = spoil(folder, write_tone)
    layout = Layout(tmp_path / "data", "mine")
    seen: list[str] = []
    report = scan_dataset(
        FolderDataset("mine", folder), layout, progress=lambda *facts: seen.append(facts[2])
    )
    assert {r.recording_id: r.status for r in report.problems} == expected
    assert len(usable(report.recordings)) == 3
    assert len(seen) == 8
    lines = layout.problems.read_text().splitlines()
    assert len(lines) == 1 + len(expected)
    for name, status in expected.items():
        (line,) = [line for line in lines if line.startswith(f"{name}\t")]
        assert f"\t{status}\t" in line
        assert report.summary().count(f"  {name}: {status}: ") == 1
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_repaired_file_is_usable_at_the_next_scan(
    tmp_path: Path, folder: Path, write_tone: WriteTone
) -> None:
    spoil(folder, write_tone)
    layout = Layout(tmp_path / "data", "mine")
    dataset = FolderDataset("mine", folder)
    scan_dataset(dataset, layout)
    write_tone("corpus/cut.wav")
    report = scan_dataset(dataset, layout)
    assert report.read == 1
    assert "cut" in {r.recording_id for r in usable(report.recordings)}
    assert "cut" not in layout.problems.read_text()


def test_a_file_that_cannot_be_opened_stops_nothing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> AudioInfo:
        if path.stem == "b":
            raise PermissionError(13, "Permission denied")
        return validate_audio_file(path)

    monkeypatch.setattr("mess_core.datasets.scan.validate_audio_file", refuse)
    report = scan_dataset(FolderDataset("mine", folder), Layout(tmp_path / "data", "mine"))
    (problem,) = report.problems
    assert (problem.status, "Permission denied" in problem.reason) == ("unreadable", True)


def test_midi_that_cannot_be_read_is_left_out_and_reported(tmp_path: Path, folder: Path) -> None:
    layout = Layout(tmp_path / "data", "mine")
    (folder / "one" / "a.mid").write_bytes(b"no MIDI")
    (folder / "table.tsv").write_text("audio\tmidi\none/a.wav\tone/a.mid\none/b.wav\tgone.mid\n")
    report = scan_dataset(TableDataset("mine", folder / "table.tsv"), layout)
    assert len(usable(report.recordings)) == 2
    assert {(r.midi, r.midi_sha256) for r in report.recordings} == {("", "")}
    lines = layout.problems.read_text().splitlines()[1:]
    assert len(lines) == 2
    assert "\tok\tMIDI left out: " in lines[0]
    assert "a.mid" in lines[0]
    assert "gone.mid is no file" in lines[1]
    write_midi(folder / "one" / "a.mid")
    assert scan_dataset(TableDataset("mine", folder / "table.tsv"), layout).read == 1
    assert layout.problems.read_text().count("MIDI left out") == 1


def test_odd_names_stay_apart_and_lead_to_their_files(
    tmp_path: Path, write_tone: WriteTone
) -> None:
    names = ["a  b.wav", "日本/1.wav", "中国/1.wav", "-x'\"$.wav", f"{'long' * 55}.wav", " .wav"]
    for name in names:
        write_tone(f"corpus/{name}")
    layout = Layout(tmp_path / "data", "mine")
    scan_dataset(FolderDataset("mine", tmp_path / "corpus"), layout)
    rows = read_recordings(layout.table)
    assert {r.status for r in rows} == {"ok"}
    assert len({r.work_id for r in rows}) == len(rows) == len(names)
    assert max(len(r.recording_id) for r in rows) <= 130
    for row in rows:
        assert file_sha256(Path(row.audio)) == row.audio_sha256


def test_a_name_that_no_table_can_hold_is_reported(tmp_path: Path, write_tone: WriteTone) -> None:
    write_tone("corpus/good.wav")
    write_tone("corpus/tab\there.wav")
    (tmp_path / "corpus" / "good.wav").rename(tmp_path / "corpus" / os.fsdecode(b"\xff.wav"))
    layout = Layout(tmp_path / "data", "mine")
    scan_dataset(FolderDataset("mine", tmp_path / "corpus"), layout)
    assert [r.status for r in read_recordings(layout.table)] == ["unreadable"] * 2
