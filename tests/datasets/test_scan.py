"""Scanning: every file is read once, bad ones are reported, unchanged ones not read again."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile

from mess_core.datasets.lookup import FolderDataset, TableDataset
from mess_core.datasets.scan import scan_dataset
from mess_core.errors import AudioError
from mess_core.extraction.audio import load_audio, stream_audio, validate_audio_file
from mess_core.files import file_sha256
from mess_core.layout import Layout
from mess_core.recordings import read_recordings, usable
from tests.conftest import WriteTone, as_nobody

pytestmark = pytest.mark.unit


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data", "mine")


def write_midi(path: Path) -> None:
    midi, piano = pretty_midi.PrettyMIDI(), pretty_midi.Instrument(0)
    piano.notes += [pretty_midi.Note(64, 60, start, start + 1) for start in (0.0, 1.0)]
    midi.instruments.append(piano)
    midi.write(str(path))


@pytest.fixture
def folder(tmp_path: Path, write_tone: WriteTone) -> Path:
    for name, frequency in (("one/a", 220.0), ("one/b", 330.0), ("two/a", 440.0)):
        write_tone(f"corpus/{name}.wav", frequency=frequency)
    return tmp_path / "corpus"


def test_the_table_holds_identity_hash_and_length(layout: Layout, folder: Path) -> None:
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
    layout: Layout, folder: Path, write_tone: WriteTone
) -> None:
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
    assert "since the last scan: 1 added (new); 1 changed (one__b)\n" in report.summary() + "\n"

    (folder / "new.wav").unlink()
    report = scan_dataset(dataset, layout)
    assert "new" not in {r.recording_id for r in report.recordings}
    assert "since the last scan: 1 gone (new)" in report.summary()
    assert "since" not in scan_dataset(dataset, layout).summary()


def test_another_window_length_is_judged_anew(layout: Layout, folder: Path) -> None:
    dataset = FolderDataset("mine", folder)
    assert len(usable(scan_dataset(dataset, layout, min_duration_s=5).recordings)) == 3
    report = scan_dataset(dataset, layout, min_duration_s=10)
    assert (len(usable(report.recordings)), report.read) == (0, 0)
    assert {r.duration_s for r in report.recordings} == {6.0}
    assert "lasts 6.00 s, shorter than one window of 10 s" in report.problems[0].reason
    assert len(usable(scan_dataset(dataset, layout, min_duration_s=5).recordings)) == 3


def test_bad_files_are_reported_once_by_name_and_cause_and_stop_nothing(
    tmp_path: Path, layout: Layout, folder: Path, write_tone: WriteTone
) -> None:
    (folder / "text.mp3").write_bytes(b"no audio at all " * 50)
    write_tone("corpus/hush.wav", level=0.0)
    write_tone("corpus/tiny.wav", seconds=0.3)
    expected = {"text": "unreadable", "hush": "silent", "tiny": "too_short"}
    seen: list[str] = []
    report = scan_dataset(
        FolderDataset("mine", folder), layout, progress=lambda *facts: seen.append(facts[2])
    )
    assert {r.recording_id: r.status for r in report.problems} == expected
    assert len(usable(report.recordings)) == 3
    assert len(seen) == 6
    lines = layout.problems.read_text().splitlines()
    assert len(lines) == 1 + len(expected)
    for name, status in expected.items():
        (line,) = [line for line in lines if line.startswith(f"{name}\t")]
        assert f"\t{status}\t" in line
        assert report.summary().count(f"  {name}: {status}: ") == 1
    assert not list(tmp_path.rglob(".tmp-*"))


RATE = 24_000


def tone(*, seconds: float = 6.0, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return np.asarray(level * np.sin(2 * np.pi * 440 * times), np.float32)


def spoilt(value: float) -> np.ndarray:
    samples = tone()
    samples[3 * RATE] = value
    return samples


def cut(path: Path) -> None:
    soundfile.write(path, tone(), RATE)
    os.truncate(path, path.stat().st_size // 2)


def sound(samples: np.ndarray, rate: int = RATE, **options: str) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, samples, rate, **options)


# A file's name, how it is made, its status in the table, and what its reason says.
BAD: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("cut.wav", cut, "truncated", r"bytes that its header promises; copy it again"),
    ("cut.flac", cut, "truncated", r"cannot be decoded after .*cut off or damaged"),
    ("cut.mp3", cut, "truncated", r"ends after .* of the 6\.00 s that its header promises; copy"),
    ("void.wav", Path.touch, "empty", r"is empty \(0 bytes\); copy it again"),
    ("bare.wav", sound(np.zeros(0)), "empty", r"holds no samples; .*export it again"),
    ("nan.wav", sound(spoilt(np.nan), subtype="FLOAT"), "not_finite", r"at 3\.000 s; export"),
    ("inf.wav", sound(spoilt(-np.inf), subtype="DOUBLE"), "not_finite", r"at 3\.000 s; export"),
    ("huge.wav", sound(spoilt(-1e30), subtype="FLOAT"), "too_large", r"1e\+30 at 3\.000 s, where"),
    ("zero.wav", sound(np.zeros(6 * RATE)), "silent", r"digital zero.*check the export"),
    ("hush.wav", sound(tone(level=5e-4)), "silent", r"peak is -66 dBFS, the limit is -60 dBFS"),
    ("tiny.wav", sound(tone(seconds=4.9)), "too_short", r"lasts 4\.90 s, .*window of 5 s; use"),
    ("text.wav", lambda p: p.write_text("words " * 99), "unreadable", r"is not audio that libsnd"),
    ("rate.wav", sound(tone(), 10), "unreadable", r"has 10 samples per second .*1000 to 1000000"),
    ("folder.wav", Path.mkdir, "unreadable", r"is a folder, audio was expected; rename it"),
    ("pipe.wav", os.mkfifo, "unreadable", r"is no regular file, audio was expected; rename it"),
    ("link.wav", lambda p: p.symlink_to("gone"), "missing", r"is a link to a file that does not"),
]


@pytest.mark.parametrize(("name", "make", "status", "reason"), BAD, ids=[row[0] for row in BAD])
def test_every_kind_of_bad_file_has_its_own_message_and_the_corpus_goes_on(
    tmp_path: Path,
    layout: Layout,
    write_tone: WriteTone,
    name: str,
    make: Callable[[Path], object],
    status: str,
    reason: str,
) -> None:
    write_tone("corpus/good.wav")
    path = tmp_path / "corpus" / name
    make(path)
    report = scan_dataset(FolderDataset("mine", tmp_path / "corpus"), layout)
    assert [r.recording_id for r in usable(report.recordings)] == ["good"]
    (problem,) = report.problems
    assert (problem.recording_id, problem.status) == (path.stem, status)
    if status == "too_short":
        assert re.match(rf"{path}: .*{reason}", problem.reason)
        assert validate_audio_file(path).duration_s < 5
        return
    with pytest.raises(AudioError, match=rf"^{path}: .*{reason}") as judged:
        validate_audio_file(path)
    assert (str(judged.value), judged.value.status) == (problem.reason, status)
    if status == "silent":  # sound all the same
        assert len(load_audio(path)) > 4 * RATE
        return
    with pytest.raises(AudioError) as streamed:
        list(stream_audio(path))
    assert str(streamed.value) == str(judged.value)


# What is odd but good: a file's name, its rate, channels, and how it is written.
ODD = [
    ("six.wav", RATE, 6, {}),
    ("coarse.wav", RATE, 1, {"subtype": "PCM_U8"}),
    ("low.wav", 8_000, 1, {}),
    ("high.wav", 192_000, 2, {}),
    ("flac.wav", RATE, 1, {"format": "FLAC"}),
    ("wave.flac", RATE, 1, {"format": "WAV"}),
    ("mit Leerzeichen, Ünïcødé und 音楽.wav", RATE, 1, {}),
]


@pytest.mark.parametrize(("name", "rate", "channels", "options"), ODD, ids=[o[0] for o in ODD])
def test_odd_files_are_used_and_hold_their_tone(
    tmp_path: Path, layout: Layout, name: str, rate: int, channels: int, options: dict[str, str]
) -> None:
    path = tmp_path / "corpus" / name
    path.parent.mkdir()
    samples = np.repeat(tone(rate=rate)[:, None], channels, axis=1)
    soundfile.write(path, samples, rate, **options)
    report = scan_dataset(FolderDataset("mine", tmp_path / "corpus"), layout)
    (recording,) = usable(report.recordings)
    assert recording.duration_s == 6.0
    loaded = load_audio(Path(recording.audio))
    # The ends differ: the resampler takes the signal for zero outside. 8 bits have steps of 1/128.
    np.testing.assert_allclose(loaded[100:-100], tone()[100:-100], atol=0.01)
    assert len(loaded) == 6 * RATE


def test_a_folder_named_like_audio_hides_nothing_in_it(
    tmp_path: Path, layout: Layout, write_tone: WriteTone
) -> None:
    write_tone("corpus/x.wav/take.wav")
    write_tone("corpus/y/take.wav")
    report = scan_dataset(FolderDataset("mine", tmp_path / "corpus"), layout)
    assert len(usable(report.recordings)) == 2
    (problem,) = report.problems
    assert (problem.recording_id, problem.audio_sha256) == ("x", "")


@pytest.fixture
def shared() -> Iterator[Path]:
    """Give a folder that another user may own; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="mess-shared-"))
    yield folder
    for path in folder.iterdir():
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_files_without_read_permission_are_named_until_they_can_be_read(shared: Path) -> None:
    for name in ("good", "locked"):
        soundfile.write(shared / f"{name}.wav", tone(), RATE)
    for folder in ("closed", "notes"):
        (shared / folder).mkdir()
    soundfile.write(shared / "closed" / "a.wav", tone(), RATE)
    write_midi(shared / "notes" / "good.mid")
    (shared / "table.tsv").write_text(
        "audio\tmidi\ngood.wav\tnotes/good.mid\nlocked.wav\t\nclosed/a.wav\t\n"
    )
    dataset, layout = TableDataset("mine", shared / "table.tsv"), Layout(shared / "data", "mine")
    # Also imports what is needed: another user may not reach Python's own files.
    before = scan_dataset(dataset, Layout(shared / "before", "mine"))
    assert (len(usable(before.recordings)), before.problems) == (3, [])
    for name in ("locked.wav", "closed", "notes"):
        (shared / name).chmod(0)
    advice = "this user has no permission to read it; give it (`chmod a+r` on the file"
    with as_nobody(shared):
        report = scan_dataset(dataset, layout)
        for name in ("locked.wav", "closed/a.wav"):
            for read in (validate_audio_file, load_audio):
                with pytest.raises(AudioError) as caught:
                    read(shared / name)
                assert str(caught.value).startswith(f"{shared / name}: {advice}")
    assert report.read == 1
    assert {r.recording_id: r.status for r in report.recordings} == {
        "good": "ok",
        "locked": "unreadable",
        "closed__a": "unreadable",
    }
    reasons = {r.recording_id: r.reason for r in report.problems}
    assert advice in reasons["locked"]
    assert advice in reasons["closed__a"]
    assert "MIDI left out: " in reasons["good"]
    assert "Permission denied" in reasons["good"]

    # Neither a file's size nor its time changes when it becomes readable.
    for name in ("locked.wav", "closed"):
        (shared / name).chmod(0o755)
    with as_nobody(shared):
        report = scan_dataset(dataset, layout)
    assert report.read == 2
    assert len(usable(report.recordings)) == 3


def test_midi_that_cannot_be_read_is_left_out_and_reported(layout: Layout, folder: Path) -> None:
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


def test_beats_belong_to_their_midi_and_bad_ones_are_left_out(layout: Layout, folder: Path) -> None:
    for name in ("a", "b"):
        write_midi(folder / "one" / f"{name}.mid")
    (folder / "one" / "a.beats.tsv").write_text("0.5\t0.5\tdb\n1.0\t1.0\tb\n1.6\t1.6\tb\n")
    (folder / "one" / "b.beats.tsv").write_text("1.0\n0.5\n")
    (folder / "two" / "a.beats.tsv").write_text("0.5\n1.0\n")
    report = scan_dataset(FolderDataset("mine", folder), layout)
    good, bad, without_midi = report.recordings
    assert good.beats_sha256 == file_sha256(folder / "one" / "a.beats.tsv")
    assert good.reason == ""
    assert (bad.beats, bad.beats_sha256) == ("", "")
    assert bad.midi_sha256 == file_sha256(folder / "one" / "b.mid")
    assert bad.reason.startswith("beats left out: ")
    assert (without_midi.beats, without_midi.reason) == ("", "")
    # Other beats, the same audio: read again.
    (folder / "one" / "b.beats.tsv").write_text("0.5\n1.0\n")
    assert scan_dataset(FolderDataset("mine", folder), layout).recordings[1].beats_sha256


def test_odd_names_stay_apart_and_lead_to_their_files(
    tmp_path: Path, layout: Layout, write_tone: WriteTone
) -> None:
    names = ["a  b.wav", "日本/1.wav", "中国/1.wav", "-x'\"$.wav", f"{'long' * 55}.wav", " .wav"]
    for name in names:
        write_tone(f"corpus/{name}")
    scan_dataset(FolderDataset("mine", tmp_path / "corpus"), layout)
    rows = read_recordings(layout.table)
    assert {r.status for r in rows} == {"ok"}
    assert len({r.work_id for r in rows}) == len(rows) == len(names)
    assert max(len(r.recording_id) for r in rows) <= 130
    for row in rows:
        assert file_sha256(Path(row.audio)) == row.audio_sha256


def test_a_name_that_no_table_can_hold_is_reported(
    tmp_path: Path, layout: Layout, write_tone: WriteTone
) -> None:
    write_tone("corpus/good.wav")
    write_tone("corpus/tab\there.wav")
    (tmp_path / "corpus" / "good.wav").rename(tmp_path / "corpus" / os.fsdecode(b"\xff.wav"))
    scan_dataset(FolderDataset("mine", tmp_path / "corpus"), layout)
    assert [r.status for r in read_recordings(layout.table)] == ["unreadable"] * 2
