"""The demo corpus's scores: nine public-domain keyboard passages in a small text notation.

Notation
--------
A voice is a line of tokens, bars separated by ``|``. A token is a rest ``r``, a pitch (``C4`` is
middle C, ``#`` and ``b`` alter it) or a chord (``C4+E4+G4``); ``:3/4`` behind a token is its
duration in beats and holds until another is given; ``~`` behind a pitch ties it to the same pitch
of the next token. The first voice carries the melody and is monophonic. Grace notes are left out.

The beat is the one that a listener taps: a dotted quarter note in 6/8, an eighth note in the slow
3/8. Positions are fractions of beats from the first note of the score, the upbeat included.
"""

__all__ = ["SCORES", "Phrase", "Score", "ScoreNote"]

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple


class ScoreNote(NamedTuple):
    """A note as it is written, ties joined: in beats, as a MIDI pitch; voice 0 is the melody."""

    onset: Fraction
    duration: Fraction
    pitch: int
    voice: int


class Phrase(NamedTuple):
    """What one arch of tempo and dynamics spans; ``level`` is its loudness in the score.

    From -0.5 (softest) to 0.5 (loudest).
    """

    beats: int
    level: float


@dataclass(frozen=True)
class Score:
    """A piece or a passage of one.

    Attributes
    ----------
    work_id : str
        Safe as a file name.
    composer, title : str
        ``title`` ends with the catalogue number and the bars.
    tempo : float
        Nominal tempo in beats per minute.
    bar : int
        Beats per bar.
    upbeat : Fraction
        Beats before the first bar line, 0 where the passage starts on a downbeat.
    phrases : tuple of Phrase
        They fill the score.
    pedal_beats : int
        Beats from one change of pedal to the next, counted from the first downbeat.
    voices : tuple of str
        In the notation above; the first is the melody.
    """

    work_id: str
    composer: str
    title: str
    tempo: float
    bar: int
    upbeat: Fraction
    phrases: tuple[Phrase, ...]
    pedal_beats: int
    voices: tuple[str, ...]

    @property
    def length(self) -> Fraction:
        """Length in beats."""
        return Fraction(sum(phrase.beats for phrase in self.phrases))

    @cached_property
    def notes(self) -> tuple[ScoreNote, ...]:
        """All notes, by onset, then from the lowest pitch to the highest.

        Raises `ValueError` if a bar is not full, a tie leads nowhere, or a voice does not fill the
        score.
        """
        notes = [note for voice in range(len(self.voices)) for note in self._parse(voice)]
        return tuple(sorted(notes, key=lambda n: (n.onset, n.pitch, n.voice)))

    def _parse(self, voice: int) -> Iterator[ScoreNote]:
        position, duration = Fraction(0), Fraction(1)
        tied: dict[int, Fraction] = {}
        for number, bar in enumerate(self.voices[voice].split("|")):
            for token in bar.split():
                name, _, length = token.partition(":")
                duration = Fraction(length) if length else duration
                pitches = _pitches(name)
                if not tied.keys() <= pitches.keys():
                    raise ValueError(f"{self.work_id}: voice {voice}, bar {number}: lost tie")
                for pitch, is_tied in pitches.items():
                    onset = tied.pop(pitch, position)
                    if is_tied:
                        tied[pitch] = onset
                    else:
                        yield ScoreNote(onset, position + duration - onset, pitch, voice)
                position += duration
            if (position - self.upbeat) % self.bar and position != self.length:
                raise ValueError(f"{self.work_id}: voice {voice}, bar {number} ends at {position}")
        if position != self.length or tied:
            raise ValueError(f"{self.work_id}: voice {voice} ends at {position}, not {self.length}")


_PITCH = re.compile(r"([A-G])([#b]?)(\d)(~?)")
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ALTERATION = {"": 0, "#": 1, "b": -1}


def _pitches(name: str) -> dict[int, bool]:
    """MIDI note numbers of a token, each with whether it is tied to the next token."""
    if name == "r":
        return {}
    pitches: dict[int, bool] = {}
    for text in name.split("+"):
        match = _PITCH.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} in {name!r} is not a pitch such as 'C4', 'F#3~' or 'Bb5'")
        letter, alteration, octave, tie = match.groups()
        midi = 12 * (int(octave) + 1) + _SEMITONES[letter] + _ALTERATION[alteration]
        pitches[midi] = bool(tie)
    if any(lower >= upper for lower, upper in pairwise(pitches)):
        raise ValueError(f"chord {name!r} is not written from the bottom up")
    return pitches


# Bass, tenor and the three notes of the right hand, a bar each: every bar plays them twice.
_PRELUDE = """
    C4 E4 G4 C5 E5 | C4 D4 A4 D5 F5 | B3 D4 G4 D5 F5 | C4 E4 G4 C5 E5 | C4 E4 A4 E5 A5
    | C4 D4 F#4 A4 D5 | B3 D4 G4 D5 G5 | B3 C4 E4 G4 C5 | A3 C4 E4 G4 C5
    | D3 A3 D4 F#4 C5 | G3 B3 D4 G4 B4
"""


def _prelude_voice(half_bar: str) -> str:
    bars = (bar.split() for bar in _PRELUDE.split("|"))
    return " | ".join(f"{half_bar} {half_bar}".format(*bar) for bar in bars)


_BWV_846 = Score(
    work_id="bach_bwv846",
    composer="Johann Sebastian Bach",
    title="Prelude in C major, BWV 846, bars 1-11",
    tempo=92,
    bar=4,
    upbeat=Fraction(0),
    phrases=(Phrase(16, -0.1), Phrase(12, 0.4), Phrase(16, -0.3)),
    pedal_beats=4,
    voices=(
        _prelude_voice("r:1/2 {2}:1/4 {3} {4} {2} {3} {4}"),
        _prelude_voice("r:1/4 {1}:7/4"),
        _prelude_voice("{0}:2"),
    ),
)

_ANH_114 = Score(
    work_id="petzold_anh114",
    composer="Christian Petzold",
    title="Minuet in G major, BWV Anh. 114, bars 1-16",
    tempo=126,
    bar=3,
    upbeat=Fraction(0),
    phrases=(Phrase(12, 0.1), Phrase(12, -0.2), Phrase(12, 0.4), Phrase(12, 0.0)),
    pedal_beats=3,
    voices=(
        """D5:1 G4:1/2 A4 B4 C5 | D5:1 G4 G4 | E5 C5:1/2 D5 E5 F#5 | G5:1 G4 G4
        | C5 D5:1/2 C5 B4 A4 | B4:1 C5:1/2 B4 A4 G4 | F#4:1 G4:1/2 A4 B4 G4 | A4:3
        | D5:1 G4:1/2 A4 B4 C5 | D5:1 G4 G4 | E5 C5:1/2 D5 E5 F#5 | G5:1 G4 G4
        | C5 D5:1/2 C5 B4 A4 | B4:1 C5:1/2 B4 A4 G4 | A4:1 B4:1/2 A4 G4 F#4 | G4:3""",
        """G3+B3+D4:2 A3:1 | B3:3 | C4 | B3 | A3 | G3 | D4:1 B3 G3 | D4 D3:1/2 C4 B3 A3
        | B3:2 A3:1 | G3 B3 G3 | C4:3 | B3:1 C4:1/2 B3 A3 G3
        | A3:2 F#3:1 | G3:2 B3:1 | C4 D4 D3 | G3:2 G2:1""",
    ),
)

_ELISE_RIGHT = """E5:1/2 D#5 E5 B4 D5 C5 | A4:1 r:1/2 C4 E4 A4 | B4:1 r:1/2 E4 G#4 B4
    | C5:1 r:1/2 E4 E5 D#5 | E5 D#5 E5 B4 D5 C5 | A4:1 r:1/2 C4 E4 A4 | B4:1 r:1/2 E4 C5 B4"""
_ELISE_LEFT = """r:3 | A2:1/2 E3 A3 r:3/2 | E2:1/2 E3 G#3 r:3/2 | A2:1/2 E3 A3 r:3/2
    | r:3 | A2:1/2 E3 A3 r:3/2 | E2:1/2 E3 G#3 r:3/2"""

_WOO_59 = Score(
    work_id="beethoven_woo59",
    composer="Ludwig van Beethoven",
    title="Für Elise, WoO 59, bars 1-8 with the repeat",
    tempo=132,
    bar=3,
    upbeat=Fraction(1),
    phrases=(Phrase(12, -0.1), Phrase(12, -0.3), Phrase(12, 0.4), Phrase(12, 0.0)),
    pedal_beats=3,
    voices=(
        f"E5:1/2 D#5 | {_ELISE_RIGHT} | A4:2 E5:1/2 D#5 | {_ELISE_RIGHT} | A4:2",
        f"r:1 | {_ELISE_LEFT} | A2:1/2 E3 A3 r:3/2 | {_ELISE_LEFT} | A2:1/2 E3 A3 r",
    ),
)

_OP_27_2 = Score(
    work_id="beethoven_op27_2",
    composer="Ludwig van Beethoven",
    title="Sonata in C sharp minor, op. 27 no. 2, first movement, bars 5-9",
    tempo=52,
    bar=4,
    upbeat=Fraction(0),
    phrases=(Phrase(8, -0.3), Phrase(12, 0.2)),
    pedal_beats=2,
    voices=(
        """r:3 G#4:3/4 G#4:1/4 | G#4:3 G#4:3/4 G#4:1/4 | G#4:2 A4 | G#4 F#4:1 B4
        | E4:1 r:3""",
        """E3:1/3 G#3 C#4 G#3 C#4 E4 G#3 C#4 E4 G#3 C#4 E4
        | G#3 D#4 F#4 G#3 D#4 F#4 G#3 D#4 F#4 G#3 D#4 F#4
        | G#3 C#4 E4 G#3 C#4 E4 A3 C#4 F#4 A3 C#4 F#4
        | G#3 B3 E4 G#3 B3 E4 A3 B3 D#4 A3 B3 D#4
        | G#3 B3 E4 G#3 B3 E4 G#3 B3 E4 G#3 B3 E4""",
        """C#2+G#2+C#3:4 | B#1+G#2+B#2 | C#2+C#3:2 F#1+F#2 | B1+B2 B1+B2 | E2+E3:4""",
    ),
)

_ARABESQUE_RIGHT = """A4:1/4 B4 C5 B4 A4:1/2 r | A4:1/4 B4 C5 D5 E5:1/2 r
    | D5:1/4 E5 F5 G5 A5:1/2 r | A5:1/4 B5 C6 D6 E6:1/2 r
    | r:1/2 E5 E5 F5 | D5 r D5~:1 | D5:1/2 G5 D5 E5"""
_ARABESQUE_LEFT = """A3+C4+E4:1 A3+C4+E4 | A3+C4+E4 A3+C4+E4
    | A3+D4+F4 A3+D4+F4 | A3+C4+E4 A3+C4+E4
    | G3+C4+E4 G3+C4+E4 | G3+B3+F4 G3+B3+F4 | G3+B3+F4 G3+B3+F4"""

_OP_100_2 = Score(
    work_id="burgmueller_op100_2",
    composer="Friedrich Burgmüller",
    title="Arabesque, op. 100 no. 2, bars 1-10 with the repeat",
    tempo=126,
    bar=2,
    upbeat=Fraction(0),
    phrases=(Phrase(4, -0.5), Phrase(16, 0.1), Phrase(16, 0.4)),
    pedal_beats=2,
    voices=(
        f"r:2 | r:2 | {_ARABESQUE_RIGHT} | C5 r E5:1 | {_ARABESQUE_RIGHT} | C5:1 C6:1/2 r",
        f"""A3+C4+E4:1 A3+C4+E4 | A3+C4+E4 A3+C4+E4 | {_ARABESQUE_LEFT}
        | C4+E4:1/2 r E4:1 | {_ARABESQUE_LEFT} | C4+E4:3/2 r:1/2""",
    ),
)

_HORSEMAN_A = """A4:1/3 E4 A4 C5 A4 C5 | E5 C5 F5 E5 C5 A4 | B4 G#4 C5 B4 G#4 E4"""
_HORSEMAN_B = """F3:1/3 C3 F3 A3 F3 A3 | C4 A3 D4 C4 A3 F3 | G3 E3 A3 G3 E3 C3"""
_HORSEMAN_A_CHORDS = """A3+C4:1/3 r:2/3 A3+C4+E4:1/3 r:2/3
    | A3+C4+E4:2/3 A3+D4+F4:1/3 A3+C4+E4 r:2/3 | E3+G#3+B3:2/3 E3+A3+C4:1/3 E3+G#3+B3 r:2/3"""
_HORSEMAN_B_CHORDS = """C4+F4+A4:1/3 r:2/3 C4+F4+A4:1/3 r:2/3
    | F4+A4:2/3 F4+A4:1/3 F4+A4 r:2/3 | E4+G4+C5:2/3 E4+G4+C5:1/3 E4+G4+C5 r:2/3"""

_OP_68_8 = Score(
    work_id="schumann_op68_8",
    composer="Robert Schumann",
    title="The Wild Horseman, op. 68 no. 8, bars 1-16 without the repeat",
    tempo=108,
    bar=2,
    upbeat=Fraction(1, 3),
    phrases=(Phrase(8, 0.2), Phrase(8, 0.4), Phrase(8, -0.1), Phrase(8, 0.2)),
    pedal_beats=1,
    voices=(
        f"""E4:1/3 | {_HORSEMAN_A} | A4 E4 C5 B4 r E4 | {_HORSEMAN_A} | A4 E4 G#4 A4 r C3
        | {_HORSEMAN_B} | F3 C3 A3 G3 r C3 | {_HORSEMAN_B} | F3 C3 E3 F3 r""",
        f"""r:1/3 | {_HORSEMAN_A_CHORDS} | A3+C4:1/3 r A3+C4 E3+G#3+B3 r:2/3
        | {_HORSEMAN_A_CHORDS} | A3+C4:1/3 r E3+B3 A3+C4 r:2/3
        | {_HORSEMAN_B_CHORDS} | F4+A4+C5:1/3 A4 F4 C3+E4+G4 r:2/3
        | {_HORSEMAN_B_CHORDS} | C4+F4+A4:1/3 r C4+G4 F4 r""",
    ),
)

_OP_28_20 = Score(
    work_id="chopin_op28_20",
    composer="Frédéric Chopin",
    title="Prelude in C minor, op. 28 no. 20, bars 1-8",
    tempo=66,
    bar=4,
    upbeat=Fraction(0),
    phrases=(Phrase(8, 0.4), Phrase(8, 0.5), Phrase(16, -0.4)),
    pedal_beats=1,
    voices=(
        """G4:1 Ab4 G4:3/4 F4:1/4 Eb4:1 | Eb4 F4 Eb4:3/4 Db4:1/4 C4:1
        | D4 E4 G4:3/4 F4:1/4 Eb4:1 | D4 G4 B4:3/4 A4:1/4 G4:1
        | Eb5 Eb5 D5 D5 | C5 D5 B4:3/4 A4:1/4 G4:1
        | C5 Ab4 G4:3/4 F4:1/4 Eb4:1 | Eb4 F4 Eb4:3/4 D4:1/4 C4:1""",
        """G3+C4+Eb4:1 Ab3+C4+Eb4 G3~+B3~+Eb4:3/4 G3+B3+D4:1/4 Eb3+G3+C4:1
        | Eb3+Ab3+C4 F3+Ab3+Db4 Db3~+Eb3~+G3~+C4:3/4 Db3+Eb3+G3+Bb3:1/4 C3+Eb3+Ab3:1
        | D3+F3+B3 E3+G3+Bb3+C4 Ab3+C4 G3+C4 | F#3+C4 G3+B3+D4 C4+D4+F#4 B3+D4
        | Eb4+G4 Eb4+Ab4 D4~+Ab4:3/4 D4+F#4:1/4 D4+G4:1
        | C4+G4 C4+D4+F#4 D4+G4:3/4 C4:1/4 B3+D4:1
        | C4+G4 Ab3+C4 G3+D4 G3+C4 | Eb3+Ab3+C4 F3+Ab3+Db4 F3+G3+B3 Eb3+G3""",
        """C2+C3:1 F1+F2 G1+G2 C2+G2+C3 | Ab1+Ab2 Db1+Db2 Eb1+Eb2 Ab1+Ab2
        | G1+G2 C1+C2 F1+F2 C2+C3 | D2+A2+D3 G1+G2 D1+D2 G1+G2
        | C2+C3 C3+C4 B2+B3 Bb2+Bb3 | A2+A3 Ab2+Ab3 G2+G3 F2+F3
        | Eb2+Eb3 F2+F3 B1+B2 C2+C3 | Ab1+Ab2 Db1+Db2 G1+G2 C1+C2""",
    ),
)

_OP_28_7 = Score(
    work_id="chopin_op28_7",
    composer="Frédéric Chopin",
    title="Prelude in A major, op. 28 no. 7",
    tempo=104,
    bar=3,
    upbeat=Fraction(1),
    phrases=(Phrase(12, -0.1), Phrase(12, -0.2), Phrase(12, 0.5), Phrase(12, -0.2)),
    pedal_beats=3,
    voices=(
        """E4:1 | C#5:3/4 D5:1/4 B4:1 B4 | B4:2 F#5:1 | D#5:3/4 E5:1/4 A5:1 A5 | A5:2 C#5:1
        | A#4:3/4 B4:1/4 D5:1 D5 | D5:2 G#4:1 | G#4:3/4 A4:1/4 C#5:1 C#5 | C#5:2 E4:1
        | C#5:3/4 D5:1/4 B4:1 B4 | B4:2 F#5:1 | D#5:3/4 E5:1/4 C#6:1 C#6 | C#6:2 C#5:1
        | C#5:3/4 D5:1/4 F#5:1 F#5 | F#5:2 G#4:1 | B4:3/4 A4:1/4 A5:1 A5 | A5:2""",
        """r:1 | r:1 D4+G#4 D4+G#4 | D4+G#4:2 D5:1 | B#4:3/4 C#5:1/4 C#5:1 C#5 | C#5:2 E4:1
        | C#4:3/4 D4~:1/4 D4~+F#4:1 D4~+F#4 | D4+F#4:2 D4:1
        | D4:3/4 C#4:1/4 C#4:1 C#4 | C#4:2 E4~:1
        | E4+G#4 D4+G#4 D4+G#4 | D4+G#4:2 D5:1
        | B#4:3/4 C#5~+E5~:1/4 C#5~+E5~+A5:1 C#5+E5+A5 | A#4+C#5+E5+A#5:2 A#4:1
        | A#4:3/4 B4:1/4 B4:1 A4 | G#4:2 D4:1 | D4:3/4 C#4:1/4 A4~+C#5:1 A4~+C#5 | A4+C#5:2""",
        """r:1 | E2 E3+E4 E3+E4 | E3+E4:2 r:1 | A2 A3+E4 A3+E4 | A3+E4:2 r:1
        | E2 E3+B3 E3+B3 | E3+B3:2 r:1 | A1 E3+A3+E4 E3+A3+E4 | E3+A3+E4:2 r:1
        | E2 E3+E4 E3+E4 | E3+E4:2 r:1 | A2 A3+E4+A4 A3+E4+A4 | F#3+C#4+E4+F#4:2 r:1
        | B1 F#3+D4 F#3+B3+D4 | E3+B3+D4:2 r:1 | A1 E3+A3+E4 A3+E4 | A3+E4:2""",
    ),
)

_GYMNOPEDIE = Score(
    work_id="satie_gymnopedie_1",
    composer="Erik Satie",
    title="Gymnopédie no. 1, bars 1-12",
    tempo=76,
    bar=3,
    upbeat=Fraction(0),
    phrases=(Phrase(12, -0.5), Phrase(12, 0.3), Phrase(12, -0.1)),
    pedal_beats=3,
    voices=(
        """r:3 | r | r | r | r:1 F#5 A5 | G5 F#5 C#5 | B4 C#5 D5 | A4:3
        | F#4~ | F#4~ | F#4~ | F#4""",
        " | ".join(["r:1 B3+D4+F#4:2 | r:1 A3+C#4+F#4:2"] * 6),
        " | ".join(["G2:3 | D2:3"] * 6),
    ),
)

#: The corpus, in the order of work_id.
SCORES: tuple[Score, ...] = (
    _BWV_846,
    _OP_27_2,
    _WOO_59,
    _OP_100_2,
    _OP_28_20,
    _OP_28_7,
    _ANH_114,
    _GYMNOPEDIE,
    _OP_68_8,
)
