"""Articulation, as far as the beginnings of notes tell it in the audio.

The attack of a note is the rise of the amplitude around its onset from 10 % to 90 % of the way from
the lowest value before to the highest after (Peeters 2011, *The Timbre Toolbox*, has the same with
adaptive thresholds).

* `attack_slopes`: how steeply notes begin: dB of that rise over its time. Falls when a note enters
  into the sound of others (legato, pedal) as well as when it is struck slowly.
* `attack_sharpness`: how short it is: the negative log10 of its time in seconds (10 ms gives 2,
  100 ms gives 1), whatever its height. Peeters' log attack time with the sign changed.

Both are medians over the recording's onsets. Key-overlap is `expression.articulation_ratio`.
"""

__all__ = ["attack_sharpness", "attack_slopes"]

import numpy as np
import numpy.typing as npt

from mess_core.targets.sound import ENVELOPE_RATE, ENVELOPE_WINDOW_S

Float = npt.NDArray[np.float64]

#: Where an attack is looked for around its onset, s.
BEFORE_S = 0.08
AFTER_S = 0.15

#: The part of the rise that counts (Peeters 2011 and the log attack time of MPEG-7).
RISE_FROM, RISE_TO = 0.1, 0.9

#: A rise of the amplitude of less than 1 dB is no attack.
MIN_RISE = 10 ** (1 / 20)


def attack_slopes(envelope: Float, onsets: Float) -> float:
    """Return the median slope of the attacks.

    Parameters
    ----------
    envelope : ndarray [shape=(n,)]
        Amplitude, 400 values per second.
    onsets : ndarray [shape=(m,)]
        Times of onsets, s.

    Returns
    -------
    float
        dB/s; NaN where nothing begins.
    """
    rises, times = _attacks(envelope, onsets)
    return float(np.median(rises / times)) if len(rises) else np.nan


def attack_sharpness(envelope: Float, onsets: Float) -> float:
    """Return the negative log10 of the median attack time.

    Parameters
    ----------
    envelope : ndarray [shape=(n,)]
        Amplitude, 400 values per second.
    onsets : ndarray [shape=(m,)]
        Times of onsets, s.

    Returns
    -------
    float
        0.9 (slow) to 2.1 (as short as the envelope's window); NaN where nothing begins.
    """
    _, times = _attacks(envelope, onsets)
    return float(-np.log10(np.median(times))) if len(times) else np.nan


def _attacks(envelope: Float, onsets: Float) -> tuple[Float, Float]:
    """Return the rises (dB) and the times (s) of the attacks."""
    found = [_attack(_around(envelope, onset)) for onset in onsets]
    pairs = np.array([pair for pair in found if pair is not None]).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _around(envelope: Float, onset: float) -> Float:
    first = max(0, round((onset - BEFORE_S) * ENVELOPE_RATE))
    return envelope[first : round((onset + AFTER_S) * ENVELOPE_RATE)]


def _attack(segment: Float) -> tuple[float, float] | None:
    if len(segment) < 2:
        return None
    peak = int(np.argmax(segment))
    foot = int(np.argmin(segment[: peak + 1]))
    low, high = segment[foot], segment[peak]
    if high < MIN_RISE * low or high <= 0:
        return None
    begin, end = low + RISE_FROM * (high - low), low + RISE_TO * (high - low)
    rise = segment[foot : peak + 1]
    samples = _first_crossing(rise, end) - _last_crossing(rise, begin)
    shortest = ENVELOPE_WINDOW_S * (RISE_TO - RISE_FROM)
    seconds = max(samples / ENVELOPE_RATE, shortest)
    return 20 * float(np.log10(end / begin)), seconds


def _first_crossing(rise: Float, level: float) -> float:
    """Return where the rise first reaches a level, between samples."""
    after = int(np.argmax(rise >= level))
    return _between(rise, after, level)


def _last_crossing(rise: Float, level: float) -> float:
    """Return where the rise last leaves a level before its first arrival at the top."""
    top = int(np.argmax(rise >= rise[0] + RISE_TO * (rise[-1] - rise[0])))
    below = np.flatnonzero(rise[: top + 1] < level)
    return _between(rise, int(below[-1]) + 1, level)


def _between(rise: Float, after: int, level: float) -> float:
    before = after - 1
    return before + float((level - rise[before]) / (rise[after] - rise[before]))
