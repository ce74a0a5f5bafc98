"""Performances aligned by their notes: of planted tempo, scatter, cuts, repeats and mistakes."""

import csv
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.alignment.maps import Alignment
from mess_core.alignment.notes import MOST_PAIRS, align_notes, shared_music
from mess_core.errors import AlignmentError
from mess_core.targets.curves import Float
from mess_core.targets.notes import Performance, read_performance

pytestmark = pytest.mark.unit

ASAP = Path(__file__).parents[3] / "shared" / "data" / "asap"

#: Standard deviation of a note around its chord, s.
SCATTER_S = 0.01


def performance(onsets: Any, pitches: Any) -> Performance:
    order = np.lexsort((pitches, onsets))
    onsets, pitches = onsets[order], pitches[order]
    return Performance(onsets, onsets + 0.2, pitches, np.full(len(onsets), 64.0))


def composed(seed: int, chords: int = 400) -> tuple[Float, Float]:
    """A work in C major: when its notes come, in seconds of a strict performance, and pitches."""
    rng = np.random.default_rng(seed)
    scale = np.array([p for p in range(36, 85) if p % 12 in (0, 2, 4, 5, 7, 9, 11)])
    starts = np.cumsum(rng.choice([0.15, 0.3, 0.6], chords))
    sizes = rng.integers(1, 5, chords)
    pitches = [rng.choice(scale, size, replace=False) for size in sizes]
    return np.repeat(starts, sizes), np.concatenate(pitches).astype(float)


def rubato(seed: int) -> Callable[[Float], Float]:
    """A map from strict time to a performance's, whose tempo wanders by about 20 %."""
    rng = np.random.default_rng(seed)
    strict = np.arange(0.0, 400.0, 2.0)
    pace = np.exp(np.convolve(rng.normal(0, 0.2, len(strict)), np.ones(3) / 3, mode="same"))
    played = np.append(0, np.cumsum(2.0 * pace[:-1]))
    return lambda times: np.asarray(np.interp(times, strict, played))


def play(work: tuple[Float, Float], seed: int) -> Performance:
    rng = np.random.default_rng(seed)
    times = rubato(seed)(work[0])
    return performance(times + rng.normal(0, SCATTER_S, len(times)) + 1.0, work[1])


def errors(found: Alignment, strict: Float, seeds: tuple[int, int]) -> Float:
    """How far a map has the performances of a work's places, s, NaN outside of its regions."""
    reference, other = (rubato(seed)(strict) + 1.0 for seed in seeds)
    return np.asarray(found.to_recording(reference) - other)


def test_a_performance_is_followed_and_the_errors_say_how_well() -> None:
    scores = []
    for seed in range(4):
        work = composed(seed)
        places = np.unique(work[0])
        found = align_notes(play(work, 10 + seed), play(work, 20 + seed))
        missed = errors(found, places, (10 + seed, 20 + seed))[5:-5]
        assert np.isfinite(missed).all()
        assert np.median(np.abs(missed)) < SCATTER_S
        assert len(found.regions) == 1
        assert found.confidence[0] == pytest.approx(1.0)
        stated = np.interp(rubato(20 + seed)(places) + 1.0, found.times, found.errors)[5:-5]
        scores.append(np.abs(missed / stated))
    # Intervals cover the truth as often as a normal distribution has it.
    assert np.mean(np.concatenate(scores) < 1.0) == pytest.approx(0.683, abs=0.06)
    assert np.mean(np.concatenate(scores) < 1.96) == pytest.approx(0.95, abs=0.03)


def test_knots_increase_in_both() -> None:
    work = composed(0)
    found = align_notes(play(work, 1), play(work, 2))
    assert (np.diff(found.times) > 0).all()
    assert (np.diff(found.work_times) > 0).all()
    assert found.times.shape == found.work_times.shape == found.errors.shape


def test_a_cut_is_outside_and_moves_nothing_else() -> None:
    work = composed(1)
    reference, other = play(work, 1), play(work, 2)
    whole = align_notes(reference, other)
    start, stop = 40.0, 60.0
    kept = (other.onsets < start) | (other.onsets >= stop)
    onsets = other.onsets - np.where(other.onsets >= stop, stop - start, 0.0)
    found = align_notes(reference, performance(onsets[kept], other.pitches[kept]))
    assert len(found.regions) == 2
    early, late = np.arange(5.0, start - 0.5, 0.5), np.arange(stop + 0.5, 100.0, 0.5)
    np.testing.assert_allclose(found.to_work(early), whole.to_work(early), atol=1e-9)
    np.testing.assert_allclose(found.to_work(late - 20.0), whole.to_work(late), atol=1e-9)
    lacking = whole.to_work(np.arange(start + 1, stop - 1, 0.5))
    assert np.isnan(found.to_recording(lacking)).all()
    assert shared_music(found, reference, other) > 0.8


@pytest.mark.parametrize("repeats", ["other", "reference"])
def test_of_a_repeat_that_one_takes_one_pass_is_inside(repeats: str) -> None:
    work = composed(2)
    start, stop = work[0][300], work[0][600]
    again = (work[0] >= start) & (work[0] < stop)
    after = work[0] >= stop
    longer = (
        np.concatenate(
            [work[0][~after], work[0][again] + stop - start, work[0][after] + stop - start]
        ),
        np.concatenate([work[1][~after], work[1][again], work[1][after]]),
    )
    once, twice = play(work, 1), play(longer, 2)
    found = align_notes(*((once, twice) if repeats == "other" else (twice, once)))
    assert (np.diff(found.times) > 0).all()
    inside = np.ptp(found.regions, axis=1).sum()
    first, last = once.onsets[[0, -1]]
    if repeats == "other":
        passed = np.ptp(rubato(2)(np.array([start, stop])))
        assert inside == pytest.approx(np.ptp(twice.onsets) - passed, rel=0.1)
    else:
        assert inside == pytest.approx(last - first, rel=0.05)
    assert shared_music(found, once, twice) > 0.9


def test_other_music_in_between_is_outside() -> None:
    (times, pitches), (others, between) = composed(3), composed(4, 100)
    before = times <= times[500]
    stop = times[before][-1]
    longer = (
        np.concatenate([times[before], others + stop, times[~before] + others[-1]]),
        np.concatenate([pitches[before], between, pitches[~before]]),
    )
    found = align_notes(play((times, pitches), 1), play(longer, 2))
    assert len(found.regions) == 2
    foreign = rubato(2)(np.linspace(stop + 2, stop + others[-1] - 2, 20)) + 1.0
    assert np.isnan(found.to_work(foreign)).all()
    missed = errors(found, np.unique(times[times < stop - 1])[5:], (1, 2))
    assert np.median(np.abs(missed)) < SCATTER_S


def test_other_works_are_told_apart_though_the_key_is_the_same() -> None:
    for seed in range(5):
        reference, other = play(composed(seed), 1), play(composed(seed + 50), 2)
        assert shared_music(align_notes(reference, other), reference, other) < 0.1


def test_wrong_notes_and_trills_move_nothing_far() -> None:
    work, rng = composed(5), np.random.default_rng(0)
    times, pitches = work[0].copy(), work[1].copy()
    wrong = rng.random(len(pitches)) < 0.1
    pitches[wrong] += rng.choice([-2, -1, 1, 2], wrong.sum())
    trills = np.concatenate([start + np.arange(30) * 0.08 for start in times[[200, 500, 800]]])
    keys = np.tile([71.0, 72.0], 45)
    lost = rng.random(len(times)) < 0.1
    other = play(
        (np.concatenate([times[~lost], trills]), np.concatenate([pitches[~lost], keys])), 2
    )
    reference = play(work, 1)
    found = align_notes(reference, other)
    missed = np.abs(errors(found, np.unique(work[0]), (1, 2))[5:-5])
    assert np.isfinite(missed).mean() > 0.99
    assert np.nanmedian(missed) < SCATTER_S
    assert np.nanpercentile(missed, 95) < 0.1
    assert shared_music(found, reference, other) > 0.9


def test_nothing_in_common_is_a_map_without_regions() -> None:
    low, high = (performance(np.arange(n) * 0.5, np.full(n, key)) for n, key in ((30, 40), (1, 80)))
    for reference, other in ((low, high), (high, low), (high, high)):
        found = align_notes(reference, other)
        assert found.regions.shape == (0, 2)
        assert np.isnan(found.to_work(np.array([0.0, 3.0]))).all()
        assert np.isnan(found.to_recording(np.array([0.0, 3.0]))).all()
        assert shared_music(found, reference, other) == 0.0


def test_what_is_too_long_is_refused() -> None:
    count = int(MOST_PAIRS**0.5) + 1
    long = performance(np.arange(count) * 0.5, np.full(count, 60.0))
    with pytest.raises(AlignmentError, match="too long to be compared"):
        align_notes(long, long)


@pytest.mark.skipif(not ASAP.is_dir(), reason="needs the ASAP test data in ../shared/data")
def test_beats_that_people_annotated_are_found() -> None:
    with (ASAP / "recordings.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    works = ("Schumann_Kreisleriana_7", "Mozart_Piano_Sonatas_8_1", "Chopin_Etudes_op_25_1")
    missed, played = [], []
    for work_id in works:
        chosen = [row for row in rows if row["work_id"] == work_id][:2]
        first, second = (
            read_performance(ASAP / row["midi"], beats=ASAP / row["beats"]) for row in chosen
        )
        assert first.annotated_beats is not None
        assert second.annotated_beats is not None
        found = align_notes(first, second)
        assert shared_music(found, first, second) > 0.9
        missed.append(found.to_recording(first.annotated_beats) - second.annotated_beats)
        played.append(first)
    errors = np.abs(np.concatenate(missed))
    assert np.isnan(errors).mean() < 0.01
    assert np.nanmedian(errors) < 0.005
    assert np.nanpercentile(errors, 95) < 0.06
    for first, second in pairwise(played):
        assert shared_music(align_notes(first, second), first, second) < 0.1
