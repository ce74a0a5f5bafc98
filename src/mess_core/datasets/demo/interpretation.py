"""Interpretations: the few numbers that turn a score into one way of playing it.

Six named ways of playing. In every work `rhapsodic` bends the tempo most, `singing` is the most
legato and `dramatic` has the widest dynamics; the other numbers cross over, so that no two of them
rise and fall together over the corpus. Every work shifts them a little (`interpret`), as a pianist
would: by a hash of the names, never by chance.
"""

__all__ = ["INTERPRETATIONS", "Interpretation", "interpret"]

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Interpretation:
    """One way of playing.

    Attributes
    ----------
    tempo : float
        Mean tempo as a ratio to the score's nominal tempo.
    rubato : float
        Rubato depth: how much longer the beat is at a phrase's end than on average; 0.3 is 30 %.
    level : float
        Mean MIDI velocity of the melody in a phrase of medium loudness.
    dynamic_range : float
        MIDI velocity from the softest to the loudest moment that the melody can have.
    articulation : float
        Key-overlap ratio: how long a key is held over the time to the voice's next note.
        Below 1 is detached, above 1 is overlapping.
    pedal : float
        Fraction of each pedal span after which the sustain pedal is up again; 0 is no pedal.
    melody_lead_ms : float
        How long the melody sounds before the notes written under it, in milliseconds.
    chord_spread_ms : float
        From the lowest to the highest note of an accompanying chord, in milliseconds.
    """

    tempo: float
    rubato: float
    level: float
    dynamic_range: float
    articulation: float
    pedal: float
    melody_lead_ms: float
    chord_spread_ms: float


#: By name, before the shifts that `interpret` makes.
INTERPRETATIONS: dict[str, Interpretation] = {
    "crisp": Interpretation(1.16, 0.08, 70, 24, 0.55, 0.0, 8, 6),
    "dramatic": Interpretation(1.06, 0.22, 66, 64, 0.84, 0.85, 40, 14),
    "intimate": Interpretation(0.92, 0.27, 46, 14, 0.95, 0.95, 24, 40),
    "measured": Interpretation(0.85, 0.03, 60, 30, 0.75, 0.4, 2, 24),
    "rhapsodic": Interpretation(0.97, 0.5, 60, 36, 0.98, 0.6, 16, 30),
    "singing": Interpretation(1.03, 0.14, 54, 20, 1.2, 0.3, 32, 10),
}

#: The largest shift of each number, as a fraction of it. Small enough that the interpretation with
#: the largest rubato, articulation or dynamic range has it in every work.
_SHIFTS = {
    "tempo": 0.04,
    "rubato": 0.15,
    "level": 0.06,
    "dynamic_range": 0.1,
    "articulation": 0.04,
    "pedal": 0.05,
    "melody_lead_ms": 0.2,
    "chord_spread_ms": 0.2,
}


def interpret(name: str, work_id: str) -> Interpretation:
    """Return how a work is played in a named interpretation.

    Parameters
    ----------
    name : str
        A key of `INTERPRETATIONS`.
    work_id : str
        The work; it decides the shifts.

    Returns
    -------
    Interpretation
        Rounded to four decimals, so that a table shows the numbers that were used.
    """
    base = INTERPRETATIONS[name]
    return Interpretation(
        **{
            field: round(getattr(base, field) * (1 + most * _unit(f"{work_id}/{name}/{field}")), 4)
            for field, most in _SHIFTS.items()
        }
    )


def _unit(key: str) -> float:
    """Map ``key`` evenly onto -1 to 1, the same on every machine."""
    digits = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    return digits / 0x7FFFFFFF - 1
