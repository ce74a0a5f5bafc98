from fractions import Fraction
from itertools import pairwise

import pytest

from mess_core.datasets.demo_scores import SCORES, Phrase, Score, ScoreNote

pytestmark = pytest.mark.unit

works = pytest.mark.parametrize("score", SCORES, ids=[score.work_id for score in SCORES])


def tiny(*voices: str, beats: int = 4, upbeat: Fraction = Fraction(0)) -> Score:
    phrases = (Phrase(beats, 0.0),)
    return Score("tiny", "Nobody", "Nothing", 60, 4, upbeat, phrases, 4, voices)


def test_notation() -> None:
    score = tiny("C4:1 r:1/2 F#4:1/2 Bb3~+D4:1 Bb3", "B#3:4")
    one, half = Fraction(1), Fraction(1, 2)
    assert score.notes == (
        ScoreNote(Fraction(0), one, 60, 0),
        ScoreNote(Fraction(0), 4 * one, 60, 1),
        ScoreNote(3 * half, half, 66, 0),
        ScoreNote(2 * one, 2 * one, 58, 0),
        ScoreNote(2 * one, one, 62, 0),
    )


def test_upbeat_and_last_bar_complete_each_other() -> None:
    assert len(tiny("C4:1 | D4:4 | E4:3", beats=8, upbeat=Fraction(1)).notes) == 3


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        ("C4:1 D4 E4", "ends at 3"),
        ("C4:3 | D4:1", "bar 0 ends at 3"),
        ("C4:4 | C4:4", "ends at 8, not 4"),
        ("C4~:2 D4:2", "lost tie"),
        ("C4~:4", "ends at 4"),
        ("H4:4", "not a pitch"),
        ("E4+C4:4", "from the bottom up"),
    ],
)
def test_faulty_notation_is_refused(voice: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = tiny(voice).notes


def test_at_least_eight_works_in_order() -> None:
    ids = [score.work_id for score in SCORES]
    assert len(ids) >= 8
    assert ids == sorted(set(ids))


@works
def test_scores_are_whole_and_playable(score: Score) -> None:
    # Reading the notes checks that voices and bars are full; nothing sticks out either.
    assert min(note.onset for note in score.notes) == 0
    assert max(note.onset + note.duration for note in score.notes) <= score.length
    assert (score.length - score.upbeat) % score.bar in (0, score.bar - score.upbeat)
    melody = [note for note in score.notes if note.voice == 0]
    assert all(a.onset + a.duration <= b.onset for a, b in pairwise(melody))
    assert all(21 <= note.pitch <= 108 for note in score.notes)
    assert score.composer
    assert any(mark in score.title for mark in ("BWV", "op.", "WoO", "no."))
    assert all(-0.5 <= phrase.level <= 0.5 for phrase in score.phrases)


# The beginnings of the melodies, as every music lover knows them, in semitones from the first note.
INCIPITS = {
    "bach_bwv846": [0, 5, 9, 0, 5, 9],
    "beethoven_op27_2": [0, 0, 0, 0, 0, 0, 1],
    "beethoven_woo59": [0, -1, 0, -1, 0, -5, -2, -4, -7],
    "burgmueller_op100_2": [0, 2, 3, 2, 0, 0, 2, 3, 5, 7],
    "chopin_op28_20": [0, 1, 0, -2, -4],
    "chopin_op28_7": [0, 9, 10, 7, 7, 7],
    "petzold_anh114": [0, -7, -5, -3, -2, 0, -7, -7],
    "satie_gymnopedie_1": [0, 3, 1, 0, -5, -7, -5, -4, -9],
    "schumann_op68_8": [0, 5, 0, 5, 8, 5, 8, 12],
}


@works
def test_melodies_begin_as_they_should(score: Score) -> None:
    pitches = [note.pitch for note in score.notes if note.voice == 0]
    expected = INCIPITS[score.work_id]
    assert [pitch - pitches[0] for pitch in pitches[: len(expected)]] == expected
