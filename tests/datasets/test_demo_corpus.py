"""The corpus on disk: complete, equal to the byte when made again, and true."""

import csv
import hashlib
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mess_core import stages
from mess_core.datasets import demo
from mess_core.datasets.demo import (
    beats_to_tsv,
    demo_recordings,
    make_demo_corpus,
    perform,
    to_midi,
)
from mess_core.files import file_sha256

#: SHA-256 over all MIDI and beats files, per version of the stage. When the test that uses it
#: fails and the change was meant, count `stages.DEMO` up and add the new hash.
GOLDEN = {1: "85085f0dadd43789a384f2369a76e3acb890ec7b7f137581817028622f63fec0"}


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in folder.iterdir()}


def made(folder: Path) -> Path:
    make_demo_corpus(folder / "audio", folder / "truth.tsv")
    return folder


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the corpus be two short recordings."""
    short = [r for r in demo_recordings() if r.work_id == "schumann_op68_8"][:2]
    monkeypatch.setattr(demo, "demo_recordings", lambda: short)
    return [recording.recording_id for recording in short]


@pytest.mark.unit
def test_midi_is_the_golden_one() -> None:
    digest = hashlib.sha256()
    for recording in demo_recordings():
        performance = perform(recording.score, recording.interpretation)
        digest.update(to_midi(performance) + beats_to_tsv(performance.beats).encode())
    assert digest.hexdigest() == GOLDEN[stages.DEMO]


@pytest.mark.unit
def test_two_runs_are_equal_to_the_byte(few: list[str], tmp_path: Path) -> None:
    one, two = made(tmp_path / "one"), made(tmp_path / "two")
    names = {f"{name}{suffix}" for name in few for suffix in (".mid", ".wav", ".beats.tsv")}
    assert hashes(one / "audio").keys() == {*names, "made.json"}
    assert hashes(one / "audio") == hashes(two / "audio")
    assert (one / "truth.tsv").read_bytes() == (two / "truth.tsv").read_bytes()


@pytest.mark.unit
def test_it_is_made_when_missing_damaged_or_of_another_stage(
    few: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, seen = tmp_path / "truth.tsv", list[tuple[int, int]]()

    def made_again() -> bool:
        seen.clear()
        recordings = make_demo_corpus(tmp_path, truth, progress=lambda *step: seen.append(step))
        assert [recording.recording_id for recording in recordings] == few
        return seen == [(done, len(few)) for done in range(1, len(few) + 1)]

    assert made_again()
    assert not made_again()
    wav = tmp_path / f"{few[0]}.wav"
    content = bytearray(wav.read_bytes())
    content[5000] ^= 1
    wav.write_bytes(content)
    assert made_again()
    truth.unlink()
    assert made_again()
    monkeypatch.setattr("mess_core.stages.DEMO", stages.DEMO + 1)
    assert made_again()
    assert not made_again()


@pytest.mark.unit
def test_onsets_are_heard_where_the_midi_says(few: list[str], tmp_path: Path) -> None:
    make_demo_corpus(tmp_path, tmp_path / "truth.tsv")
    recording = next(r for r in demo_recordings() if r.recording_id == "schumann_op68_8_crisp")
    assert recording.recording_id in few
    samples, rate = soundfile.read(tmp_path / f"{recording.recording_id}.wav")
    level = np.abs(samples).max(axis=1)
    notes = perform(recording.score, recording.interpretation).notes
    onsets = np.array([note.onset_s for note in notes])
    offsets = np.array([note.offset_s for note in notes])
    heard = []
    for onset in onsets:
        # Attacks out of silence: no key was down in the 150 ms before.
        if not np.any((onsets < onset - 1e-6) & (offsets > onset - 0.15)):
            start = round((onset - 0.03) * rate)
            coming = level[start : start + round(0.08 * rate)]
            heard.append(np.argmax(coming > 0.3 * coming.max()) / rate - 0.03)
    assert len(heard) >= 4
    assert np.abs(heard).max() < 0.02


@pytest.mark.unit
def test_identity_is_light() -> None:
    code = (
        "import sys; from mess_core.datasets.demo import demo_recordings; demo_recordings();"
        "heavy = {'midirenderer', 'scipy', 'soundfile', 'pretty_midi'};"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.integration
@pytest.mark.slow
def test_the_whole_corpus_twice(tmp_path: Path) -> None:
    one, two = made(tmp_path / "one"), made(tmp_path / "two")
    assert hashes(one / "audio") == hashes(two / "audio")
    with (one / "truth.tsv").open(encoding="utf-8") as file:
        truth = {row["recording_id"]: row for row in csv.DictReader(file, delimiter="\t")}
    recordings = demo_recordings()
    assert len(recordings) >= 40
    assert list(truth) == [recording.recording_id for recording in recordings]
    for recording in recordings:
        row = truth[recording.recording_id]
        assert (row["work_id"], row["interpretation"]) == (recording.work_id, recording.performer)
        for name, value in asdict(recording.interpretation).items():
            assert float(row[name]) == pytest.approx(value, abs=1e-4)
        info = soundfile.info(one / "audio" / f"{recording.recording_id}.wav")
        assert (info.samplerate, info.channels, info.subtype) == (44100, 2, "PCM_16")
        assert float(row["duration_s"]) == pytest.approx(info.duration, abs=0.001)
        assert 12 <= info.duration <= 40
    samples = [soundfile.read(path)[0] for path in sorted((one / "audio").glob("*.wav"))]
    peaks = [np.abs(sample).max() for sample in samples]
    assert min(peaks) > 0.02
    assert max(peaks) < 0.9
    loudness = {r.recording_id: np.std(s) for r, s in zip(recordings, samples, strict=True)}
    for work_id in {recording.work_id for recording in recordings}:
        assert loudness[f"{work_id}_intimate"] < 0.7 * loudness[f"{work_id}_dramatic"]
