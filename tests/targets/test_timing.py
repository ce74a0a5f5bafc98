"""Annotated beats, windows of a performance, and distributions: equal to what they come from."""

from pathlib import Path

import numpy as np
import pytest

from mess_core.errors import MidiError
from mess_core.targets import expression
from mess_core.targets.notes import Performance, read_performance
from tests.targets.test_expression import Playing, midi_of, play

pytestmark = pytest.mark.unit


def write_beats(path: Path, times: np.ndarray) -> Path:
    path.write_text("".join(f"{time:.6f}\t{time:.6f}\tb\n" for time in times))
    return path


def test_with_annotated_beats_tempo_is_theirs(tmp_path: Path) -> None:
    midi = play(tmp_path / "a.mid", Playing(depth=0.3))
    periods = 0.6 * np.exp(0.1 * np.sin(np.arange(40)))
    times = 0.5 + np.cumsum([0.0, *periods])
    performance = read_performance(midi, beats=write_beats(tmp_path / "a.tsv", times))
    np.testing.assert_allclose(performance.beat_periods, periods, atol=1e-5)
    curve = expression.performed_tempo_curve(performance.shaped_tempo, performance.beat_periods)
    assert curve.shape == (64,)
    assert np.median(curve) == pytest.approx(100, rel=0.03)


def test_tracked_beats_have_the_tempo_of_the_true_ones(tmp_path: Path) -> None:
    performance = read_performance(play(tmp_path / "a.mid", Playing(depth=0.2, bpm=96)))
    level = 60 / np.median(performance.beat_periods)
    # Over phrases the log tempo is a half sine of depth 0.2, whose median is 0.14.
    assert level == pytest.approx(96 * np.exp(0.2 * np.sqrt(0.5)), rel=0.05)


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
    for name in ("onsets", "velocities", "chord_onsets", "beat_times", "deviations"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    for name in ("beat_periods", "shaped_tempo", "overlap_ratios"):
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


def overlaps(path: Path, held: list[float]) -> Performance:
    notes = [(0.5 * i, 0.5 * i + 0.5 * ratio, 60 + i % 3, 64) for i, ratio in enumerate(held)]
    return read_performance(midi_of(path, notes))


def test_the_histogram_counts_half_octaves(tmp_path: Path) -> None:
    performance = overlaps(tmp_path / "a.mid", [0.2] * 8 + [0.9] * 4 + [1.2] * 4 + [0.5])
    shares = expression.articulation_histogram(performance.overlap_ratios)
    assert shares.sum() == pytest.approx(1)
    # 2 ** (-3 + bin / 2): 0.2 in bin 1, 0.9 in bin 5, 1.2 in bin 6; the last note has no successor.
    np.testing.assert_allclose(shares[[1, 5, 6]], [0.5, 0.25, 0.25])
