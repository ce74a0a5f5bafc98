"""The beginnings of notes: how much begins, when, and how it rises.

* Onset strength: the mean rise in dB over mel bands from frame to frame.
* Onsets: peaks of the strength of at least `ONSET_RISE_DB` above the ordinary of their 0.4 s, and
  50 ms away from a stronger one.
* Attack of an onset: the rise of the amplitude around it from 10 % to 90 % of the way from the
  lowest value before to the highest after (Peeters 2011, *The Timbre Toolbox*, has the same with
  adaptive thresholds).
"""

__all__ = ["ENVELOPE_RATE", "ENVELOPE_WINDOW_S", "attacks", "onset_strength", "onset_times"]

import numpy as np
import numpy.typing as npt
from scipy.signal import find_peaks

Float = npt.NDArray[np.float64]

#: An onset is a rise of at least this many dB, mean over bands, above the ordinary of the 0.4 s
#: around it, and at least 50 ms away from a stronger one. Measured: see docs/targets.md.
ONSET_RISE_DB = 0.5
ONSET_DISTANCE_S = 0.05
ONSET_CONTEXT_S = 0.4

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


def onset_strength(mel_level: npt.NDArray[np.float32]) -> Float:
    """Return the mean rise over bands.

    Parameters
    ----------
    mel_level : ndarray of float32 [shape=(frames, bands)]
        Level of each band, dB.

    Returns
    -------
    ndarray [shape=(frames,)]
        dB, 0 where nothing rises, and in the first frame.
    """
    rise = np.maximum(np.diff(mel_level, axis=0, prepend=mel_level[:1]), 0)
    return np.asarray(rise.mean(axis=1, dtype=np.float64))


def onset_times(strength: Float, *, frame_rate: float, frame_s: float) -> Float:
    """Return when notes or chords begin.

    Parameters
    ----------
    strength : ndarray [shape=(frames,)]
        As `onset_strength` returns it.
    frame_rate : float
        Frames per second.
    frame_s : float
        Length of a frame, s.

    Returns
    -------
    ndarray [shape=(n,)]
        Seconds, increasing.
    """
    if not len(strength):
        return np.empty(0)
    context = round(ONSET_CONTEXT_S * frame_rate) | 1
    ordinary = np.convolve(strength, np.full(context, 1 / context))
    excess = strength - ordinary[context // 2 : context // 2 + len(strength)]
    distance = max(1, round(ONSET_DISTANCE_S * frame_rate))
    peaks, _ = find_peaks(excess, height=ONSET_RISE_DB, distance=distance)
    # A rise is seen when the new sound reaches the middle of the frame.
    return np.asarray(peaks / frame_rate + frame_s / 2, np.float64)


def attacks(envelope: Float, onsets: Float) -> Float:
    """Return the rise and the time of each onset's attack.

    Parameters
    ----------
    envelope : ndarray [shape=(n,)]
        RMS amplitude of 10 ms, 400 values per second.
    onsets : ndarray [shape=(m,)]
        Times of onsets, s.

    Returns
    -------
    ndarray [shape=(m, 2)]
        dB and s; NaN where the amplitude rises by less than 1 dB.
    """
    found = [_attack(_around(envelope, onset)) for onset in onsets]
    return np.array(found, np.float64).reshape(-1, 2)


def _around(envelope: Float, onset: float) -> Float:
    first = max(0, round((onset - BEFORE_S) * ENVELOPE_RATE))
    return envelope[first : round((onset + AFTER_S) * ENVELOPE_RATE)]


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
