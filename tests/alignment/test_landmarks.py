"""Landmarks: found where swells, changes and slowing are known to be, and nowhere else."""

from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
from scipy.stats import spearmanr

from mess_core.alignment.landmarks import (
    BOUNDARY,
    BUILD_UP,
    CLIMAX,
    PHRASE_END,
    Landmark,
    contour_distance,
    curves,
    landmarks,
)
from mess_core.datasets import demo
from mess_core.datasets.demo import PerformedNote
from mess_core.datasets.demo_scores import SCORES, Score
from mess_core.targets.curves import Float
from mess_core.targets.sound import Sound, analyse
from tests.alignment.swells import CHORDS, RATE, SCALE, Pattern, chords, render, steady, swell

pytestmark = pytest.mark.unit


def found(notes: list[PerformedNote], kind: str, beats: Float | None = None) -> list[Landmark]:
    sound = analyse(render(notes), RATE)
    return [landmark for landmark in landmarks(sound, beats=beats) if landmark.kind == kind]


@pytest.mark.parametrize(("pattern", "step_s"), [(SCALE, 0.2), (CHORDS, 0.6)])
def test_a_swell_is_a_climax_that_grows_with_its_depth(pattern: Pattern, step_s: float) -> None:
    depths = [16, 24, 32, 48]
    prominences = []
    for depth in depths:
        (climax,) = found(steady(pattern, step_s, 0.2, 32, swell(14, depth)), CLIMAX)
        assert abs(climax.time_s - 14) < 1
        # It rises and falls by nine tenths within 3 to 13 s of the peak.
        assert 0.2 < climax.start_s < 11
        assert 17 < climax.end_s < 27
        prominences.append(climax.strength)
    assert spearmanr(depths, prominences).statistic == 1


@pytest.mark.parametrize(("pattern", "step_s"), [(SCALE, 0.2), (CHORDS, 0.6)])
def test_a_flat_performance_has_neither_climax_nor_boundary(
    pattern: Pattern, step_s: float
) -> None:
    notes = steady(pattern, step_s, 0.2, 32, swell(14, 0))
    assert found(notes, CLIMAX) == []
    assert found(notes, BOUNDARY) == []


def test_another_texture_begins_at_a_boundary() -> None:
    first = steady(SCALE, 0.2, 0.2, 19.9, swell(10, 0))
    (boundary,) = found(first + steady(CHORDS, 0.6, 20, 40, swell(30, 0)), BOUNDARY)
    assert abs(boundary.time_s - 20) < 0.5


def phrases(*, slow: bool, soft: bool) -> tuple[list[PerformedNote], Float]:
    """Play four phrases of 8 s, the last three of 16 beats slower and softer if so; and beats."""
    periods = [6.2 / 13] * 13 + [0.52, 0.58, 0.7] if slow else [0.5] * 16
    velocities = [60] * 13 + [50, 42, 34] if soft else [60] * 16
    beats = 0.3 + np.concatenate([[0], np.cumsum(periods * 4)])
    return chords(CHORDS, beats.tolist(), velocities * 4), beats


@pytest.mark.parametrize("annotated", [True, False])
def test_a_phrase_ends_where_it_is_slower_and_softer(annotated: bool) -> None:
    notes, beats = phrases(slow=True, soft=True)
    ends = found(notes, PHRASE_END, beats if annotated else None)
    assert [end.time_s for end in ends] == pytest.approx([8.3, 16.3, 24.3], abs=0.1)


@pytest.mark.parametrize(("slow", "soft"), [(True, False), (False, True), (False, False)])
def test_a_phrase_does_not_end_where_it_is_only_one_of_both(slow: bool, soft: bool) -> None:
    notes, beats = phrases(slow=slow, soft=soft)
    strengths = [end.strength for end in found(notes, PHRASE_END, beats)]
    both, beats = phrases(slow=True, soft=True)
    weakest = min(end.strength for end in found(both, PHRASE_END, beats))
    assert all(strength < weakest for strength in strengths)


def hit_rate(truth: Float, estimates: Float) -> float:
    """F-measure of places within 0.5 s; both are further than 1 s apart among themselves."""
    apart = np.abs(np.subtract.outer(truth, estimates))
    return float(2 * (apart <= 0.5).sum() / (len(truth) + len(estimates)))


def play(score: Score, name: str) -> tuple[Sound, Float, Float]:
    """Return what an interpretation sounds like, its beats and where its inner phrases end."""
    how = demo.interpret(name, score.work_id)
    played = demo.perform(score, how)
    ends = list(accumulate(phrase.beats for phrase in score.phrases))[:-1]
    times = np.array([demo._clock(score, how)(Fraction(end)) for end in ends])
    beats = np.array([beat.time_s for beat in played.beats])
    return analyse(render(played.notes), RATE), beats, times


def test_ends_of_the_demos_phrases_are_found_better_than_by_equal_spaces() -> None:
    scores = [score for score in SCORES if score.work_id.startswith(("bach", "petzold", "satie"))]
    rates, baselines = [], []
    for score in scores:
        for name in ("rhapsodic", "dramatic"):
            sound, beats, truth = play(score, name)
            ends = landmarks(sound, beats=beats)
            times = np.array([end.time_s for end in ends if end.kind == PHRASE_END])
            equal = np.linspace(beats[0], beats[-1], len(times) + 2)[1:-1]
            rates.append(hit_rate(truth, times))
            baselines.append(hit_rate(truth, equal))
    assert np.mean(rates) > 0.8
    assert np.mean(rates) > np.mean(baselines) + 0.15


def climax(build_up: Float, start_s: float) -> Landmark:
    return Landmark(CLIMAX, 20, 1, start_s, 25, build_up.tolist())


def test_contours_are_alike_in_shape_and_length() -> None:
    line = np.linspace(0, 1, 32)
    gradual = climax(line, 10)
    assert contour_distance(gradual, climax(line, 0), BUILD_UP) == pytest.approx(0.1)
    expected = np.sqrt(np.mean((line - line**4) ** 2))
    assert contour_distance(gradual, climax(line**4, 10), BUILD_UP) == pytest.approx(expected)


def test_what_hardly_sounds_has_no_landmarks() -> None:
    silent = analyse(np.zeros(10 * RATE, np.float32), RATE)
    assert landmarks(silent) == []
    assert not curves(silent)[1]["climax"].any()
    assert landmarks(analyse(render(chords(CHORDS, [0.2, 3, 4], [60, 60])), RATE)) == []
