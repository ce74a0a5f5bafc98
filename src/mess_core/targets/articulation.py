"""Articulation, as far as the beginnings of notes tell it in the audio.

* `attack_slopes`: how steeply notes begin: dB from 10 % to 90 % of the rise of the amplitude over
  its time. Falls when a note enters into the sound of others (legato, pedal) as well as when it is
  struck slowly.
* `attack_sharpness`: how short it is: the negative log10 of its time in seconds (10 ms gives 2,
  100 ms gives 1), whatever its height. Peeters' (2011, *The Timbre Toolbox*) log attack time with
  the sign changed.

Both are medians over the onsets. Key-overlap is `expression.articulation_ratio`.
"""

__all__ = ["ENVELOPE_RATE", "ENVELOPE_WINDOW_S", "attack_sharpness", "attack_slopes", "attacks"]

import numpy as np

from mess_core.targets.curves import Float

#: Values per second of the amplitude envelope, and the length of its window, s: short enough for
#: attacks, long enough to smooth the wave of all but the lowest notes.
ENVELOPE_RATE = 400
ENVELOPE_WINDOW_S = 0.01

#: Where an attack is looked for around its onset, s.
BEFORE_S = 0.08
AFTER_S = 0.15

#: The part of the rise that counts (Peeters 2011 and the log attack time of MPEG-7).
RISE_FROM, RISE_TO = 0.1, 0.9

#: A rise of the amplitude of less than 1 dB is no attack.
MIN_RISE = 10 ** (1 / 20)


def attack_slopes(attacks: Float) -> float:
    """Return the median slope of the attacks, dB/s, NaN where nothing begins."""
    return _median(attacks[:, 0] / attacks[:, 1])


def attack_sharpness(attacks: Float) -> float:
    """Return the negative log10 of the median attack time: 0.9 to 2.1, NaN where nothing begins."""
    return -float(np.log10(_median(attacks[:, 1])))


def _median(values: Float) -> float:
    defined = values[np.isfinite(values)]
    return float(np.median(defined)) if len(defined) else np.nan


def attacks(envelope: Float, onsets: Float) -> Float:
    """Return the rise and the time of each onset's attack.

    In dB and s [shape=(m, 2)], from 10 % to 90 % of the way from the lowest value of ``envelope``
    (RMS of 10 ms, 400 values per second) before the onset to the highest after it; NaN where the
    amplitude rises by less than 1 dB.
    """
    found = []
    for onset in onsets:
        first = max(0, round((onset - BEFORE_S) * ENVELOPE_RATE))
        found.append(_attack(envelope[first : round((onset + AFTER_S) * ENVELOPE_RATE)]))
    return np.array(found, np.float64).reshape(-1, 2)


def _attack(segment: Float) -> tuple[float, float]:
    if len(segment) < 2:
        return np.nan, np.nan
    peak = int(np.argmax(segment))
    foot = int(np.argmin(segment[: peak + 1]))
    low, high = segment[foot], segment[peak]
    if high < MIN_RISE * low or high <= 0:
        return np.nan, np.nan
    begin, end = low + RISE_FROM * (high - low), low + RISE_TO * (high - low)
    rise = segment[foot : peak + 1]
    top = int(np.argmax(rise >= end))
    below = int(np.flatnonzero(rise[: top + 1] < begin)[-1])
    samples = _crossing(rise, top, end) - _crossing(rise, below + 1, begin)
    shortest = ENVELOPE_WINDOW_S * (RISE_TO - RISE_FROM)
    return 20 * float(np.log10(end / begin)), max(samples / ENVELOPE_RATE, shortest)


def _crossing(rise: Float, after: int, level: float) -> float:
    """Return where the rise crosses a level between a sample and the one before it."""
    before = after - 1
    return before + float((level - rise[before]) / (rise[after] - rise[before]))
