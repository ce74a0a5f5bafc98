"""MIDI targets on performances of which the truth is known."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pretty_midi
import pytest

from mess_core.errors import MidiError
from mess_core.targets import MidiExpressionTargets, expression
from mess_core.targets.notes import read_performance

pytestmark = pytest.mark.unit

#: Bars of four beats in mixed note values: (beats, ...).
BARS = [
    (1, 1, 1, 1),
    (1.5, 0.5, 1, 1),
    (0.5, 0.5, 0.5, 0.5, 2),
    (0.75, 0.25, 1, 0.5, 0.5, 1),
    (2, 1, 1),
    (1, 0.25, 0.25, 0.25, 0.25, 2),
    (3, 1),
]
TRIPLETS = (1 / 3, 1 / 3, 1 / 3, 1, 2)
PHRASE_BEATS = 16


@dataclass(frozen=True)
class Playing:
    """How the score is played; times in seconds."""

    depth: float = 0.0
    bpm: float = 100.0
    overlap: float = 0.9
    spread: float = 0.0
    lead: float = 0.0
    jitter: float = 0.0
    velocities: float = 10.0
    triplets: bool = False


def score(seed: int, *, triplets: bool = False) -> list[tuple[float, float, int, int]]:
    """Sixteen bars of melody (place -1) over chords: (onset, beats, pitch, place in chord)."""
    rng = np.random.default_rng(seed)
    bars = [*BARS, TRIPLETS] if triplets else BARS
    notes = []
    for bar in range(16):
        onset = 4.0 * bar
        for beats in bars[rng.integers(len(bars))]:
            notes.append((onset, float(beats), 72 + int(onset * 12) % 7, -1))
            onset += beats
        for half in (0, 2):
            shift = (bar + half // 2) % 3
            chord = enumerate((48, 51, 55))
            notes += [(4.0 * bar + half, 2.0, pitch + shift, i) for i, pitch in chord]
    return notes


def true_rubato(depth: float) -> float:
    return depth * float(np.std(np.sin(np.pi * np.linspace(0, 1, 1000))))


def play(path: Path, how: Playing, seed: int = 0) -> Path:
    """Write the performance: log tempo is a half sine of ``depth`` over every phrase."""
    rng = np.random.default_rng(seed + 1)
    beats = np.arange(0, 66, 0.01)
    log_tempo = how.depth * np.sin(np.pi * (beats % PHRASE_BEATS) / PHRASE_BEATS)
    times = np.concatenate([[0], np.cumsum(0.01 * 60 / how.bpm / np.exp(log_tempo))[:-1]])
    notes = []
    for onset, length, pitch, place in score(seed, triplets=how.triplets):
        start, stop = np.interp([onset, onset + length], beats, times) + 0.5
        held = how.overlap * (stop - start)
        start += -how.lead if place < 0 else how.spread * place / 2
        start += how.jitter * rng.normal()
        velocity = int(np.clip(64 + how.velocities * rng.normal(), 1, 127))
        notes.append((start, start + held, pitch, velocity))
    return midi_of(path, notes)


def scalars(path: Path) -> dict[str, float]:
    computed = MidiExpressionTargets().compute(path)
    assert set(computed) == {"expression"}
    values = computed["expression"].items()
    return {name: float(value) for name, value in values if not value.ndim}


def measured(folder: Path, how: Playing, seed: int = 0) -> dict[str, float]:
    return scalars(play(folder / "playing.mid", how, seed))


def midi_of(path: Path, notes: list[tuple[float, float, int, int]]) -> Path:
    instrument = pretty_midi.Instrument(0)
    instrument.notes = [pretty_midi.Note(v, p, a, b) for a, b, p, v in notes]
    midi = pretty_midi.PrettyMIDI(resolution=960)
    midi.instruments.append(instrument)
    midi.write(str(path))
    return path


SEEDS = [0, 1, 2]


@pytest.mark.parametrize("seed", SEEDS)
def test_mixed_note_values_are_no_rubato(tmp_path: Path, seed: int) -> None:
    strict = measured(tmp_path, Playing(), seed)
    assert strict["rubato"] < 0.005
    assert strict["tempo_variability"] < 0.01
    assert strict["onset_timing_std"] < 0.001


@pytest.mark.parametrize("seed", SEEDS)
def test_triplets_among_semiquavers_cost_little(tmp_path: Path, seed: int) -> None:
    """A lone triplet may be read as semiquavers at another tempo: a known limit, kept small."""
    assert measured(tmp_path, Playing(triplets=True), seed)["rubato"] < 0.045


@pytest.mark.parametrize("seed", SEEDS)
def test_rubato_grows_with_depth_and_is_near_the_truth(tmp_path: Path, seed: int) -> None:
    depths = (0.05, 0.1, 0.2, 0.4)
    found = [measured(tmp_path, Playing(depth=depth), seed)["rubato"] for depth in depths]
    assert found == sorted(found)
    np.testing.assert_allclose(found, [true_rubato(depth) for depth in depths], rtol=0.25)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "other",
    [
        {"spread": 0.06},
        {"lead": 0.03},
        {"jitter": 0.01},
        {"spread": 0.06, "lead": 0.025, "jitter": 0.005},
    ],
    ids=str,
)
def test_chord_spread_melody_lead_and_inaccuracy_are_no_rubato(
    tmp_path: Path, seed: int, other: dict[str, Any]
) -> None:
    shaped = measured(tmp_path, Playing(depth=0.1), seed)["rubato"]
    result = measured(tmp_path, Playing(**other), seed)
    assert result["rubato"] < shaped / 2
    assert result["onset_timing_std"] > 0.003


def test_note_values_would_have_been_rubato_by_ratios_of_raw_intervals(tmp_path: Path) -> None:
    """Two voices' notes, in strict time: equal quavers, or long and short in turn."""
    dotted = np.cumsum([0.0, *[0.45, 0.15] * 32])
    equal = np.arange(65) * 0.3
    even, uneven = (
        scalars(midi_of(tmp_path / "a.mid", [(t, t + 0.1, 60, 64) for t in onsets]))
        for onsets in (equal, dotted)
    )
    assert even["rubato_ioi_ratio"] < 0.02
    assert uneven["rubato_ioi_ratio"] > 1
    assert uneven["rubato"] < 0.01


@pytest.mark.parametrize("bpm", [72, 132])
def test_tempo_itself_is_no_rubato(tmp_path: Path, bpm: float) -> None:
    usual = measured(tmp_path, Playing(depth=0.3), seed=1)["rubato"]
    assert measured(tmp_path, Playing(depth=0.3, bpm=bpm), seed=1)["rubato"] == pytest.approx(
        usual, rel=0.25
    )


def test_timing_deviation_is_measured_in_seconds(tmp_path: Path) -> None:
    found = [
        measured(tmp_path, Playing(jitter=jitter, depth=0.1), seed=1)["onset_timing_std"]
        for jitter in (0.005, 0.01)
    ]
    np.testing.assert_allclose(found, [0.005, 0.01], rtol=0.3)


@pytest.mark.parametrize("seed", SEEDS)
def test_articulation_is_the_key_overlap(tmp_path: Path, seed: int) -> None:
    overlaps = (0.4, 0.6, 0.8, 1.0, 1.2)
    found = [
        measured(tmp_path, Playing(overlap=overlap), seed)["articulation_ratio"]
        for overlap in overlaps
    ]
    np.testing.assert_allclose(found, overlaps, rtol=0.1)


def test_articulation_does_not_follow_tempo_rubato_or_spread(tmp_path: Path) -> None:
    others = [Playing(), Playing(bpm=150), Playing(depth=0.3), Playing(spread=0.04)]
    found = [measured(tmp_path, how)["articulation_ratio"] for how in others]
    np.testing.assert_allclose(found, 0.9, atol=0.06)


def test_chord_and_note_rates_are_the_tempo_of_a_texture(tmp_path: Path) -> None:
    """Four crotchets of one, two, three, four notes, and again: at 90 BPM 1.5 chords per second."""
    rates = []
    for bpm in (90, 120):
        beat = 60 / bpm
        chords = [(beat * i, j) for i in range(33) for j in range(1 + i % 4)]
        notes = [(t + 0.01 * j, t + beat, 60 + 4 * j, 64) for t, j in chords]
        result = scalars(midi_of(tmp_path / "a.mid", notes))
        rates.append((result["chord_rate"], result["note_rate"]))
    np.testing.assert_allclose(rates, [(1.5, 3.75), (2, 5)], rtol=1e-3)


def test_chords_are_spread_and_led_as_planted(tmp_path: Path) -> None:
    """Broken upwards over 40 ms, the top voice 30 ms before the chord; single notes say nothing."""
    chords = [
        (t + shift, t + 0.7, pitch, velocity)
        for t in 0.5 + np.arange(20)
        for shift, pitch, velocity in (
            (-0.03, 76, 90),
            (0.0, 48, 60),
            (0.02, 52, 65),
            (0.04, 55, 70),
            (0.5, 77, 120),
        )
    ]
    result = scalars(midi_of(tmp_path / "a.mid", chords))
    assert result["chord_spread"] == pytest.approx(0.07, abs=1e-3)
    assert result["melody_lead"] == pytest.approx(0.05, abs=1e-3)
    assert result["hand_balance"] == pytest.approx(25)
    alone = scalars(midi_of(tmp_path / "b.mid", chords[4::5]))
    assert all(np.isnan(alone[name]) for name in ("chord_spread", "melody_lead", "hand_balance"))


def test_velocities(tmp_path: Path) -> None:
    notes = [(0.5 * i, 0.5 * i + 0.4, 60 + i % 12, 20 + i) for i in range(101)]
    result = scalars(midi_of(tmp_path / "a.mid", notes))
    assert result["velocity_mean"] == pytest.approx(70)
    assert result["velocity_std"] == pytest.approx(np.std(np.arange(101)))
    assert result["velocity_range"] == pytest.approx(90)


def test_one_chord_has_velocity_but_no_tempo(tmp_path: Path) -> None:
    result = scalars(midi_of(tmp_path / "a.mid", [(0.0, 1.0, 60 + i, 64) for i in range(8)]))
    assert result["velocity_mean"] == 64
    undefined = ("rubato", "tempo_variability", "onset_timing_std", "articulation_ratio")
    assert all(np.isnan(result[name]) for name in undefined)


def test_chords_are_merged_and_scales_are_not(tmp_path: Path) -> None:
    chord = [(0.02 * i, 1.0, 60 + 4 * i, 64) for i in range(4)]
    scale = [(1 + 0.07 * i, 1.1 + 0.07 * i, 60 + i, 64) for i in range(5)]
    onsets: npt.NDArray[np.float64] = read_performance(
        midi_of(tmp_path / "a.mid", chord + scale)
    ).chord_onsets
    np.testing.assert_allclose(onsets, [0, *(1 + 0.07 * np.arange(5))], atol=2e-3)


def test_with_annotated_beats_tempo_is_theirs(tmp_path: Path) -> None:
    midi = play(tmp_path / "a.mid", Playing(depth=0.3))
    periods = 0.6 * np.exp(0.1 * np.sin(np.arange(40)))
    times = 0.5 + np.cumsum([0.0, *periods])
    beats = tmp_path / "a.tsv"
    beats.write_text("".join(f"{time:.6f}\t{time:.6f}\tb\n" for time in times))
    performance = read_performance(midi, beats=beats)
    np.testing.assert_allclose(performance.beat_periods, periods, atol=1e-5)
    curve = expression.performed_tempo_curve(performance.shaped_tempo, performance.beat_periods)
    assert curve.shape == (64,)
    assert np.median(curve) == pytest.approx(100, rel=0.03)


@pytest.mark.parametrize("bpm", [60, 72, 96, 132, 160])
def test_tracked_beats_are_at_one_level_however_fast_it_is_played(tmp_path: Path, bpm: int) -> None:
    """The score has 3 notes a beat: a tracked beat is two of them, and has 6."""
    performance = read_performance(play(tmp_path / "a.mid", Playing(depth=0.2, bpm=bpm)))
    level = 60 / np.median(performance.beat_periods)
    # Over phrases the log tempo is a half sine of depth 0.2, whose median is 0.14.
    assert level == pytest.approx(bpm / 2 * np.exp(0.2 * np.sqrt(0.5)), rel=0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5\n", "has 1 beats"),
        ("1.0\n0.5\n2.0\n", "increasing"),
        ("0.5\nnan\n1.0\n", "finite"),
        ("time\n0.5\n1.0\n", "no readable file of beats"),
        ("500\n501\n", "of the same performance"),
    ],
)
def test_beats_that_cannot_be_used_are_named(tmp_path: Path, text: str, message: str) -> None:
    beats = tmp_path / "bad.tsv"
    beats.write_text(text)
    with pytest.raises(MidiError, match=message) as caught:
        read_performance(play(tmp_path / "a.mid", Playing()), beats=beats)
    assert str(beats) in str(caught.value)


def test_windows_are_slices_of_the_whole(tmp_path: Path) -> None:
    whole = read_performance(play(tmp_path / "a.mid", Playing(depth=0.3, spread=0.03)))
    parts = [whole.cut(start, start + 4.0) for start in np.arange(0.0, 60.0, 4.0)]
    notes = ("onsets", "velocities", "deviations", "overlap_ratios")
    chords = ("chord_onsets", "chord_widths", "melody_leads", "top_balance")
    for name in (*notes, *chords, "beat_times", "beat_periods", "shaped_tempo"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    assert all(np.ptp(part.onsets) < 4.0 for part in parts if len(part.onsets))


def test_what_a_window_cannot_carry_is_undefined(tmp_path: Path) -> None:
    whole = read_performance(play(tmp_path / "a.mid", Playing()))
    short = whole.cut(1.0, 1.3)
    assert np.isnan(expression.tempo_variability(short.beat_periods))
    assert np.isnan(expression.rubato(short.shaped_tempo, short.beat_periods))
    assert np.isnan(expression.performed_tempo_curve(short.shaped_tempo, short.beat_periods)).all()
    beyond = whole.cut(900.0, 905.0)
    assert not len(beyond.onsets)
    assert np.isnan(expression.articulation_histogram(beyond.overlap_ratios)).all()


def test_the_histogram_counts_half_octaves(tmp_path: Path) -> None:
    held = [0.2] * 8 + [0.9] * 4 + [1.2] * 4 + [0.5]
    notes = [(0.5 * i, 0.5 * i + 0.5 * ratio, 60 + i % 3, 64) for i, ratio in enumerate(held)]
    performance = read_performance(midi_of(tmp_path / "a.mid", notes))
    shares = expression.articulation_histogram(performance.overlap_ratios)
    assert shares.sum() == pytest.approx(1)
    # 2 ** (-3 + bin / 2): 0.2 in bin 1, 0.9 in bin 5, 1.2 in bin 6; the last note has no successor.
    np.testing.assert_allclose(shares[[1, 5, 6]], [0.5, 0.25, 0.25])
