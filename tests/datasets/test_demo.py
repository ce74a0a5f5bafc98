"""The demo corpus: each number of an interpretation is measured back from its performance."""

import csv
import hashlib
from collections import defaultdict
from dataclasses import asdict, astuple, fields, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import mido
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from mess_core import stages
from mess_core.datasets import demo
from mess_core.datasets.demo import (
    INTERPRETATIONS,
    LEAD_IN_S,
    SCORES,
    DemoRecording,
    Interpretation,
    Performance,
    PerformedNote,
    Score,
    beats_to_tsv,
    demo_recordings,
    interpret,
    make_demo_corpus,
    perform,
    to_midi,
)
from mess_core.files import file_sha256
from mess_core.targets.notes import read_performance

pytestmark = pytest.mark.unit

works = pytest.mark.parametrize("score", SCORES, ids=[score.work_id for score in SCORES])
recordings = pytest.mark.parametrize(
    "recording", demo_recordings(), ids=[r.recording_id for r in demo_recordings()]
)

PLAIN = Interpretation(1.0, 0.0, 60.0, 0.0, 1.0, 0.0, 0.0, 0.0)
WORKS = {score.work_id: score for score in SCORES}


def melody(performance: Performance) -> list[PerformedNote]:
    return [note for note in performance.notes if note.written.voice == 0]


def by_onset(performance: Performance) -> list[list[PerformedNote]]:
    """Notes that are written at the same time."""
    groups: dict[Fraction, list[PerformedNote]] = defaultdict(list)
    for note in performance.notes:
        groups[note.written.onset].append(note)
    return list(groups.values())


def beat_periods(performance: Performance) -> npt.NDArray[Any]:
    return np.diff([beat.time_s for beat in performance.beats])


@works
def test_plain_playing_is_the_score_in_strict_time(score: Score) -> None:
    performance = perform(score, PLAIN)
    beat_s = 60 / score.tempo
    for note in performance.notes:
        assert note.onset_s == pytest.approx(LEAD_IN_S + beat_s * float(note.written.onset))
    assert beat_periods(performance) == pytest.approx(beat_s)
    assert {note.velocity for note in melody(performance)} == {60}
    assert {n.velocity for n in performance.notes if n.written.voice} == {50}
    assert performance.pedal == ()


@works
def test_beats_are_where_the_notes_on_them_are(score: Score) -> None:
    performance = perform(
        score, replace(INTERPRETATIONS["rhapsodic"], chord_spread_ms=0.0, melody_lead_ms=0.0)
    )
    onsets = np.array([note.onset_s for note in performance.notes])
    on_downbeats = [beat.time_s for beat in performance.beats if beat.downbeat]
    distance = [np.abs(onsets - time).min() for time in on_downbeats]
    assert np.median(distance) == pytest.approx(0, abs=1e-9)
    assert len(on_downbeats) == -(-(score.length - score.upbeat) // score.bar)
    # Between two downbeats there is one bar of beats.
    places = [i for i, beat in enumerate(performance.beats) if beat.downbeat]
    assert set(np.diff(places)) == {score.bar}


@pytest.mark.parametrize("work_id", ["beethoven_woo59", "chopin_op28_20", "satie_gymnopedie_1"])
@pytest.mark.parametrize("tempo", [0.8, 1.25])
@pytest.mark.parametrize("rubato", [0.0, 0.5])
def test_mean_tempo_does_not_depend_on_rubato(work_id: str, tempo: float, rubato: float) -> None:
    score = WORKS[work_id]
    performance = perform(score, replace(PLAIN, tempo=tempo, rubato=rubato))
    end = max(note.offset_s for note in performance.notes)
    beats_s = float(score.length) * 60 / (score.tempo * tempo)
    assert end - LEAD_IN_S == pytest.approx(beats_s)


@works
def test_spread_of_beat_periods_is_proportional_to_rubato(score: Score) -> None:
    periods = [beat_periods(perform(score, replace(PLAIN, rubato=r))) for r in (0.1, 0.3, 0.5)]
    spreads = [period.std() / period.mean() for period in periods]
    assert spreads[0] > 0.01
    assert spreads[1] / spreads[0] == pytest.approx(3, rel=0.1)
    assert spreads[2] / spreads[0] == pytest.approx(5, rel=0.1)


@works
def test_beats_are_longest_at_the_end_and_shortest_within_phrases(score: Score) -> None:
    periods = beat_periods(perform(score, replace(PLAIN, rubato=0.3)))
    mean = 60 / score.tempo
    assert periods.argmax() == len(periods) - 1
    assert periods[-1] > 1.15 * mean
    # All but the first phrase begin where a beat before is long and beats after are short.
    ends = np.cumsum([phrase.beats for phrase in score.phrases[:-1]])
    for end in ends:
        assert periods[end - 2 : end].mean() > periods[end + 1 : end + 4].mean()


@works
def test_dynamics_widen_with_the_range_around_the_level(score: Score) -> None:
    def velocities(dynamic_range: float, level: float = 64.0) -> npt.NDArray[Any]:
        playing = replace(PLAIN, dynamic_range=dynamic_range, level=level)
        return np.array([note.velocity for note in melody(perform(score, playing))])

    ranges = [np.ptp(velocities(r)) for r in (15, 30, 60)]
    assert 0.4 * 60 < ranges[2] <= 60
    assert ranges[1] == pytest.approx(ranges[2] / 2, abs=1.5)
    assert ranges[0] == pytest.approx(ranges[2] / 4, abs=1.5)
    assert velocities(30, level=70) == pytest.approx(velocities(30, level=50) + 20)


@works
def test_melody_is_above_the_accompaniment(score: Score) -> None:
    performance = perform(score, replace(PLAIN, dynamic_range=40.0))
    differences = {
        top.velocity - other.velocity
        for group in by_onset(performance)
        for top in group
        for other in group
        if top.written.voice == 0 and other.written.voice
    }
    assert differences <= {10}


@works
def test_downbeats_are_accented(score: Score) -> None:
    performance = perform(score, replace(PLAIN, dynamic_range=60.0))
    velocity = {
        float(note.written.onset - score.upbeat): note.velocity + (10 if note.written.voice else 0)
        for note in performance.notes
    }
    # Against the straight line between its neighbours, so that the phrase's arch cancels.
    accents: dict[bool, list[float]] = {True: [], False: []}
    for (a, va), (b, vb), (c, vc) in zip(
        velocity.items(), list(velocity.items())[1:], list(velocity.items())[2:], strict=False
    ):
        accents[b % score.bar == 0].append(vb - va - (vc - va) * (b - a) / (c - a))
    assert np.median(accents[True]) > np.median(accents[False]) + 2


@works
@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.0, 1.2])
def test_key_overlap_ratio_is_measured_back(score: Score, ratio: float) -> None:
    performance = perform(score, replace(PLAIN, rubato=0.2, articulation=ratio))
    voices: dict[int, list[PerformedNote]] = defaultdict(list)
    for note in performance.notes:
        voices[note.written.voice].append(note)
    ratios = [
        (note.offset_s - note.onset_s) / (following.onset_s - note.onset_s)
        for notes in voices.values()
        for note, following in pairwise(notes)
        if following.written.onset == note.written.onset + note.written.duration
        and following.pitch != note.pitch
    ]
    assert len(ratios) > 5
    assert np.median(ratios) == pytest.approx(ratio, abs=0.001)


@works
def test_melody_lead_and_chord_spread_are_measured_back(score: Score) -> None:
    playing = replace(PLAIN, rubato=0.2, melody_lead_ms=30.0, chord_spread_ms=24.0)
    leads, spreads = [], []
    for group in by_onset(perform(score, playing)):
        tops = [note.onset_s for note in group if note.written.voice == 0]
        chord = [note for note in group if note.written.voice]
        if tops and chord:
            leads.append(min(note.onset_s for note in chord) - tops[0])
        if len(chord) > 1:
            spreads.append(max(n.onset_s for n in chord) - min(n.onset_s for n in chord))
            assert min(chord, key=lambda n: n.onset_s).pitch == min(n.pitch for n in chord)
    assert leads == pytest.approx([0.03] * len(leads))
    assert spreads == pytest.approx([0.024] * len(spreads))
    assert leads or score.work_id == "bach_bwv846"  # its three voices never meet
    assert spreads or score.work_id in {"bach_bwv846", "beethoven_woo59"}


@works
@pytest.mark.parametrize("fraction", [0.4, 1.0])
def test_pedal_is_down_for_its_fraction_of_every_span(score: Score, fraction: float) -> None:
    performance = perform(score, replace(PLAIN, pedal=fraction))
    ups = [event.time_s for event in performance.pedal if not event.down]
    span_s = score.pedal_beats * 60 / score.tempo
    start_s = LEAD_IN_S + float(score.upbeat) * 60 / score.tempo
    expected = start_s + span_s * (np.arange(len(ups)) + fraction)
    assert ups[:-1] == pytest.approx(expected[:-1])
    assert [event.down for event in performance.pedal] == [True, False] * len(ups)
    assert all(a.time_s < b.time_s for a, b in pairwise(performance.pedal) if a.down)


@recordings
def test_every_performance_is_playable(recording: DemoRecording) -> None:
    performance = perform(recording.score, recording.interpretation)
    assert len(performance.notes) > 50
    last: dict[int, float] = {}
    for note in performance.notes:
        assert note.onset_s >= 0.1
        assert note.offset_s - note.onset_s > 0.02
        assert 16 <= note.velocity <= 124
        assert note.onset_s - last.get(note.pitch, 0.0) > 0.005
        last[note.pitch] = note.offset_s
    assert 12 - 1.5 < max(last.values()) < 40 - 1.5


@recordings
def test_midi_holds_the_performance(tmp_path: Path, recording: DemoRecording) -> None:
    performance = perform(recording.score, recording.interpretation)
    path = tmp_path / "a.mid"
    path.write_bytes(to_midi(performance))
    midi = mido.MidiFile(path)
    assert (midi.type, len(midi.tracks)) == (0, 1)
    read = read_performance(path)
    found = zip(read.onsets, read.releases, read.pitches, read.velocities, strict=True)
    # Sort by what is exact; a tick of 0.5 ms rounds the times by half of it.
    in_order, expected = (
        np.array(sorted(notes, key=lambda n: (n[2], n[0])))
        for notes in (found, [note[:4] for note in performance.notes])
    )
    np.testing.assert_allclose(in_order, expected, rtol=0, atol=0.00025 + 1e-9)
    pedal = [message.value for message in midi.tracks[0] if message.type == "control_change"]
    assert pedal == [127 * event.down for event in performance.pedal]
    assert path.read_bytes() == to_midi(perform(recording.score, recording.interpretation))


def test_beats_file_has_the_form_of_asap() -> None:
    performance = perform(WORKS["beethoven_woo59"], PLAIN)
    lines = [line.split("\t") for line in beats_to_tsv(performance.beats).splitlines()]
    assert [label for _, _, label in lines[:5]] == ["b", "db", "b", "b", "db"]
    assert all(first == second for first, second, _ in lines)
    assert float(lines[0][0]) == LEAD_IN_S
    assert len(lines) == 48


@pytest.mark.parametrize("work_id", WORKS)
@pytest.mark.parametrize(
    ("field", "most"),
    [("rubato", "rhapsodic"), ("articulation", "singing"), ("dynamic_range", "dramatic")],
)
def test_extremes_stand_out_in_every_work(work_id: str, field: str, most: str) -> None:
    values = {name: asdict(interpret(name, work_id))[field] for name in INTERPRETATIONS}
    others = [value for name, value in values.items() if name != most]
    assert values[most] > 1.1 * max(others)


def test_numbers_are_not_collinear_over_the_corpus() -> None:
    table = np.array([astuple(recording.interpretation) for recording in demo_recordings()])
    correlation = np.corrcoef(table.T) - np.eye(len(fields(Interpretation)))
    assert np.abs(correlation).max() < 0.8
    assert np.linalg.matrix_rank(table - table.mean(axis=0)) == len(fields(Interpretation))


def test_shifts_are_small_fixed_and_differ_between_works() -> None:
    for name, base in INTERPRETATIONS.items():
        for field, value in asdict(base).items():
            shifted = [asdict(interpret(name, work_id))[field] for work_id in WORKS]
            assert shifted == pytest.approx([value] * len(WORKS), rel=0.2)
            assert len(set(shifted)) == (len(WORKS) if value else 1)


def test_recordings_are_works_times_interpretations() -> None:
    recordings = demo_recordings()
    ids = [recording.recording_id for recording in recordings]
    assert ids == sorted(set(ids))
    assert len(ids) == len(SCORES) * len(INTERPRETATIONS) >= 40
    assert {(r.work_id, r.performer) for r in recordings} == {
        (work_id, name) for work_id in WORKS for name in INTERPRETATIONS
    }
    assert all(r.recording_id == f"{r.work_id}_{r.performer}" for r in recordings)
    assert all(r.score.composer and r.score.title for r in recordings)


#: SHA-256 over all MIDI and beats files, per version of the stage. When the test that uses it
#: fails and the change was meant, count `stages.DEMO` up and add the new hash.
GOLDEN = {1: "85085f0dadd43789a384f2369a76e3acb890ec7b7f137581817028622f63fec0"}


def hashes(folder: Path, pattern: str = "*") -> dict[str, str]:
    return {path.name: file_sha256(path) for path in folder.glob(pattern)}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the corpus be two short recordings."""
    short = [r for r in demo_recordings() if r.work_id == "schumann_op68_8"][:2]
    monkeypatch.setattr(demo, "demo_recordings", lambda: short)
    return [recording.recording_id for recording in short]


def test_midi_is_the_golden_one() -> None:
    digest = hashlib.sha256()
    for recording in demo_recordings():
        performance = perform(recording.score, recording.interpretation)
        digest.update(to_midi(performance) + beats_to_tsv(performance.beats).encode())
    assert digest.hexdigest() == GOLDEN[stages.DEMO]


def test_it_is_made_when_missing_damaged_or_of_another_stage_and_is_always_the_same(
    few: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, seen = tmp_path / "truth.tsv", list[tuple[int, int]]()
    audio = tmp_path / "audio"

    def made_again() -> bool:
        seen.clear()
        recordings = make_demo_corpus(audio, truth, progress=lambda *step: seen.append(step))
        assert [recording.recording_id for recording in recordings] == few
        return seen == [(done, len(few)) for done in range(1, len(few) + 1)]

    assert made_again()
    first = hashes(audio) | hashes(tmp_path, "truth.tsv")
    names = {f"{name}{suffix}" for name in few for suffix in (".mid", ".wav", ".beats.tsv")}
    assert first.keys() == {*names, "made.json", "truth.tsv"}
    assert not made_again()
    wav = audio / f"{few[0]}.wav"
    content = bytearray(wav.read_bytes())
    content[5000] ^= 1
    wav.write_bytes(content)
    assert made_again()
    truth.unlink()
    assert made_again()
    assert hashes(audio) | hashes(tmp_path, "truth.tsv") == first
    monkeypatch.setattr("mess_core.stages.DEMO", stages.DEMO + 1)
    assert made_again()
    assert not made_again()


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


@pytest.mark.integration
@pytest.mark.slow
def test_the_whole_corpus(tmp_path: Path) -> None:
    recordings = make_demo_corpus(tmp_path, tmp_path / "truth.tsv")
    with (tmp_path / "truth.tsv").open(encoding="utf-8") as file:
        truth = {row["recording_id"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert len(recordings) >= 40
    assert list(truth) == [recording.recording_id for recording in recordings]
    for recording in recordings:
        row = truth[recording.recording_id]
        assert (row["work_id"], row["interpretation"]) == (recording.work_id, recording.performer)
        for name, value in asdict(recording.interpretation).items():
            assert float(row[name]) == pytest.approx(value, abs=1e-4)
        info = soundfile.info(tmp_path / f"{recording.recording_id}.wav")
        assert (info.samplerate, info.channels, info.subtype) == (44100, 2, "PCM_16")
        assert float(row["duration_s"]) == pytest.approx(info.duration, abs=0.001)
        assert 12 <= info.duration <= 40
    samples = [soundfile.read(path)[0] for path in sorted(tmp_path.glob("*.wav"))]
    peaks = [np.abs(sample).max() for sample in samples]
    assert min(peaks) > 0.02
    assert max(peaks) < 0.9
    loudness = {r.recording_id: np.std(s) for r, s in zip(recordings, samples, strict=True)}
    for work_id in {recording.work_id for recording in recordings}:
        assert loudness[f"{work_id}_intimate"] < 0.7 * loudness[f"{work_id}_dramatic"]
