"""Comparing performances finds what was planted, and says how sure it is."""

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from mess_core.alignment.compare import compare, describe, stretch
from mess_core.alignment.curves import RATE, relative, work_curves
from mess_core.alignment.maps import Alignment, WorkAlignment
from mess_core.datasets.demo import INTERPRETATIONS, SCORES, interpret, perform
from mess_core.errors import AlignmentError
from mess_core.targets.curves import Float, mean_of
from mess_core.targets.expression import timing_deviation
from mess_core.targets.notes import Performance
from tests.alignment.works import END_S, played, steady, stretched, work_of

pytestmark = pytest.mark.unit


def steady_work(**planted: Alignment) -> WorkAlignment:
    """Return a work of which five performances are steady; knots are better than they say."""
    others = {f"s{seed}": noisy(steady(0.1 * seed), seed) for seed in range(5)}
    return work_of({"r": played(steady())} | others | planted, "r")


def noisy(tempo: Float, seed: int) -> Alignment:
    """Return a performance whose knots are 2 ms off and are said to be 4 ms off."""
    made = played(tempo, noise_s=0.002, seed=seed)
    return replace(made, errors=2 * made.errors)


def test_the_planted_stretch_is_first_and_the_others_are_tied() -> None:
    a = noisy(stretched(1.25, 20, 24) - 0.3, 9)
    ranking = stretch(steady_work(a=a), "r", 20, 24)
    first, *others = ranking.rows
    assert (first.recording_id, first.rank, first.tied) == ("a", 1, False)
    assert abs(first.stretch - np.log(1.25)) < 2 * first.error < 0.02
    assert {(row.rank, row.tied) for row in others} == {(2, True)}
    assert first.start_s == pytest.approx(a.to_recording(np.array(20.0)), abs=1e-6)
    assert ranking.surroundings == pytest.approx((10, 34))


def test_a_slow_player_does_not_stretch() -> None:
    slow = noisy(steady(-0.4), 9)
    ranking = stretch(steady_work(slow=slow), "slow", 20 * np.exp(0.4), 24 * np.exp(0.4))
    assert {row.rank for row in ranking.rows} == {1}
    assert all(abs(row.stretch) < 3 * row.error for row in ranking.rows)


def test_errors_cover_the_truth() -> None:
    inside = []
    for seed in range(40):
        a = played(stretched(1.1, 28, 32), noise_s=0.02, seed=seed, every=20)
        b = played(steady(0.2), noise_s=0.03, seed=seed + 100, every=20)
        maps = {"r": played(steady()), "a": a, "b": b}
        for row in stretch(work_of(maps, "r"), "r", 28, 32).rows:
            truth = {"a": np.log(1.1), "b": -np.log(1.1) / 2, "r": -np.log(1.1) / 2}
            inside.append((row.stretch - truth[row.recording_id]) / row.error)
    assert np.mean(np.abs(inside) < 2) > 0.9
    assert np.std(inside) == pytest.approx(1, abs=0.2)


def test_ties_are_neighbours_but_no_chain() -> None:
    """Each is tied with the next, the first is clearly above the last."""
    maps = {"r": played(steady())}
    for number, name in enumerate("abc"):
        played_so = played(stretched(1 + 0.02 * number, 20, 24))
        maps[name] = replace(played_so, errors=np.full(len(played_so.times), 0.025))
    rows = {row.recording_id: row for row in stretch(work_of(maps, "r"), "r", 20, 24).rows}
    assert [rows[name].rank for name in "cba"] == [1, 1, 2]
    assert [rows[name].tied for name in "cba"] == [True, True, True]
    assert rows["r"].rank == 2


def test_cuts_leave_out_or_are_made_up_for() -> None:
    time = np.arange(END_S * 50) / 50
    slower = np.where(time > 10, 0.3, 0.0)  # the music before is slower for everybody
    through, before = (
        played(slower + stretched(1.25, 20, 24), gap=gap) for gap in ((22, 23), (10, 14))
    )
    maps = {name: played(slower) for name in "stuv"}
    work = work_of({"r": played(steady())} | maps | {"through": through, "before": before}, "r")
    ranking = stretch(work, "r", 20, 24)
    assert ranking.left_out == {"through": "does not play all of the passage"}
    assert ranking.rows[0].recording_id == "before"
    assert ranking.rows[0].stretch == pytest.approx(np.log(1.25), abs=0.008)


def test_a_passage_at_the_start_is_cut_to_what_all_play() -> None:
    late = played(steady())
    kept = late.work_times >= 0.3
    late = replace(late, times=late.times[kept], work_times=late.work_times[kept])
    late = replace(late, errors=late.errors[kept], regions=late.times[None, [0, -1]])
    work = work_of({"r": played(steady()), "late": late, "long": played(stretched(1.5, 1, 4))}, "r")
    ranking = stretch(work, "late", 0, 4)
    assert ranking.passage == pytest.approx((0.3, 4.0))
    assert ranking.rows[0].recording_id == "long"
    assert not ranking.left_out


def test_what_cannot_be_compared_is_said() -> None:
    work = steady_work(cut=played(steady(), gap=(20, 30)))
    work = replace(work, left_out={"other": "plays something else"})
    for recording, start, end, message in (
        ("other", 20, 24, "other is left out of w: plays something else"),
        ("cutt", 20, 24, "did you mean 'cut'"),
        ("cut", 20.2, 20.4, r"cut is aligned from 0:00.0 to 0:20.0, 0:20.5 to"),
        ("r", 50, 70, "r has no aligned passage from 0:50.0 to 1:10.0"),
        ("r", 24, 20, "from 0:24.0 to 0:20.0 is not a passage: the start must come before"),
    ):
        with pytest.raises(AlignmentError, match=message):
            stretch(work, recording, start, end)
    with pytest.raises(AlignmentError, match="nothing to compare there: they are the same"):
        compare(work, "r", "r")
    with pytest.raises(AlignmentError, match="nothing to compare there: r is aligned from"):
        compare(work, "r", "cut", 21, 29)


def test_places_are_those_planted_with_times_in_both() -> None:
    loud = np.full(620, -20.0)
    loud[405:445] = -14
    a = played(stretched(1.23, 20, 24), loudness=loud)
    b = played(stretched(0.96, 20, 24) + 0.1)
    compared = compare(steady_work(a=a, b=b), "a", "b", 5.0)
    tempo, loudness = compared.places
    assert (tempo.aspect, loudness.aspect) == ("tempo", "loudness")
    assert tempo.spans[0] == pytest.approx((20, 20 + 4 * 1.23), abs=0.2)
    assert tempo.spans[1][0] == pytest.approx(20 * np.exp(-0.1), abs=0.2)
    # Beside its own mean, which holds the passage, too.
    own = np.log(1.23) * (1 - 4 / 60)
    assert tempo.values[0] == pytest.approx(own, abs=0.02)
    said = r"from 0:20.* \(B: 0:18.*\), A takes 2. % more time than the others, B . % less time"
    assert re.fullmatch(said, tempo.sentence)
    assert loudness.spans[0] == pytest.approx((40.7, 44.7), abs=0.6)
    assert "A is 5." in loudness.sentence
    assert compared.spans[0] == pytest.approx((5.0, a.times[-1]), abs=0.11)


def test_deviations_are_over_the_performances() -> None:
    tempos = {"r": 0.0, "a": 0.1, "b": -0.1, "c": 0.2, "d": -0.2}
    maps = {name: played(steady(tempo)) for name, tempo in tempos.items()}
    compared = compare(work_of(maps, "r"), "a", "d")
    spread = np.std(list(tempos.values()), ddof=1)
    expected = [[0.1 / spread], [-0.2 / spread]]
    assert np.allclose(compared.tempo_deviation[:, 10:-10], expected, rtol=1e-3)
    two = compare(work_of({name: maps[name] for name in "ra"}, "r"), "r", "a")
    assert np.isnan(two.tempo_deviation).all()
    assert np.allclose(two.log_tempo[:, 10:-10], [[0.0], [0.1], [0.05]], atol=1e-3)


def test_articulation_and_pedal_are_compared_bar_by_bar() -> None:
    onsets = np.arange(0, END_S, 0.25)
    notes = {
        name: Performance(
            onsets,
            onsets + 0.25 * overlap,
            np.resize([60.0, 62.0], len(onsets)),
            np.full(len(onsets), 64.0),
            pedal=np.array([[0.0, pedal]]),
        )
        for name, overlap, pedal in (("r", 0.5, 20.0), ("a", 0.9, 40.0))
    }
    maps = {"r": played(steady()), "a": played(steady())}
    compared = compare(work_of(maps, "r"), "r", "a", performances=notes)
    assert np.allclose(compared.articulation[:, :-RATE].T[: 55 * RATE], [0.5, 0.9])
    seconds = [16 * RATE, 24 * RATE, 44 * RATE]
    assert np.allclose(compared.pedal[:, seconds], [[1, 0, 0], [1, 1, 0]])


def demo_work(score_number: int) -> WorkAlignment:
    """Return a work of the demo, aligned by its beats."""
    score = SCORES[score_number]
    beats = {
        name: np.array([b.time_s for b in perform(score, interpret(name, score.work_id)).beats])
        for name in INTERPRETATIONS
    }
    maps = {
        name: Alignment(
            times=times,
            work_times=beats["measured"],
            errors=np.full(len(times), 0.005),
            regions=times[None, [0, -1]],
            confidence=np.ones(1),
            beats=times,
        )
        for name, times in beats.items()
    }
    return work_of(maps, "measured")


def against_the_others(work: WorkAlignment) -> dict[str, tuple[float, float]]:
    """Return log of relative tempo and timing deviation of each performance."""
    curves = work_curves(work)
    ends = np.nanmax(curves.times, axis=1).tolist()
    names = curves.recordings
    found = {name: relative(curves, name, end) for name, end in zip(names, ends, strict=True)}
    return {
        name: (float(np.log(mean_of(each.tempo_ratio))), timing_deviation(each.smooth_ratio))
        for name, each in found.items()
    }


@pytest.mark.parametrize("number", range(len(SCORES)))
def test_who_plays_the_demo_most_freely_is_found(number: int) -> None:
    work = demo_work(number)
    deviation = {name: values[1] for name, values in against_the_others(work).items()}
    assert max(deviation, key=deviation.__getitem__) == "rhapsodic"
    # The end of a phrase is where rubato slows down most.
    score = SCORES[number]
    phrase = score.phrases[0].beats
    beats, period = work.alignments["rhapsodic"].beats, Fraction(phrase, 4)
    start, end = beats[[round(phrase - period), phrase]]
    if start - beats[0] > 4:
        assert stretch(work, "rhapsodic", start, end).rows[0].recording_id == "rhapsodic"


def test_the_reference_does_not_matter() -> None:
    work = demo_work(8)
    for reference, alignment in work.alignments.items():
        maps = {
            name: replace(each, work_times=alignment.times)
            for name, each in work.alignments.items()
        }
        moved = against_the_others(replace(work, reference=reference, alignments=maps))
        for name, values in against_the_others(work).items():
            assert moved[name] == pytest.approx(values, abs=0.006)


def test_the_others_are_those_who_play_the_place() -> None:
    loud = np.full(600, -20.0)
    loud[270:310] = -14
    a = played(stretched(1.5, 50, 54), gap=(20, 30), loudness=loud)
    told = describe(steady_work(a=a))
    _, loudness, tempo = told["a"]
    assert (loudness.aspect, tempo.aspect) == ("loudness", "tempo")
    assert loudness.spans[0] == pytest.approx((27, 31), abs=0.7)
    assert tempo.spans[0] == pytest.approx((40.5, 46.5), abs=0.3)
    assert "it takes 4" in tempo.sentence
    alone = describe(work_of({"r": played(steady()), "a": a}, "r"))
    assert alone["a"][-1].sentence.endswith("more time than the other")
