"""Dynamics: what loudness does, from phrase to phrase rather than from note to note.

All levels are dBFS of 400 ms (momentary loudness, EBU Tech 3341, without its frequency weighting),
absolute, and what is below -80 dBFS does not count. Ranges and slopes in dB do not change when a
recording is made quieter, as long as it stays above that floor.

* `dynamic_range`: from the soft to the loud notes: 10th to 90th percentile of the levels that
  onsets reach (the highest 20 ms of the next 150 ms, until the next onset). Between notes a piano
  decays, which is no dynamics.
* `crescendo_strength`, `diminuendo_strength`: how fast it swells (fades) where it clearly does: the
  90th percentile of the slope over 2 s, of the loudness of the notes' beginnings (the highest value
  of the surrounding second, because a piano's notes all decay).
* `loudness_curve`: the dynamic arc.
"""

__all__ = [
    "crescendo_strength",
    "diminuendo_strength",
    "dynamic_range",
    "loudness_curve",
]

import numpy as np

from mess_core.targets.curves import Float, to_curve
from mess_core.targets.sound import LOUDNESS_RATE

#: Soft and loud notes; a tenth may be mistaken.
SOFT_PERCENTILE, LOUD_PERCENTILE = 10, 90

#: The beginnings of notes within this time stand for the loudness of the music, s.
PEAK_HOLD_S = 1.0

#: A swell is felt over this time, s.
SLOPE_S = 2.0

#: The slope that is exceeded in a tenth of the time.
STRONG_PERCENTILE = 90

#: Fewer notes or chords have no range.
MIN_ONSETS = 3


def dynamic_range(onset_levels: Float) -> float:
    """Return the 10th to 90th percentile range of the onsets' levels, dB, NaN of fewer than 3."""
    audible = onset_levels[np.isfinite(onset_levels)]
    if len(audible) < MIN_ONSETS:
        return np.nan
    soft, loud = np.percentile(audible, (SOFT_PERCENTILE, LOUD_PERCENTILE))
    return float(loud - soft)


def crescendo_strength(loudness: Float) -> float:
    """Return the strong rises of loudness, dB/s (at least 0), NaN with less than 3.5 s of sound."""
    slopes = _slopes(loudness)
    return max(0.0, float(np.percentile(slopes, STRONG_PERCENTILE))) if len(slopes) else np.nan


def diminuendo_strength(loudness: Float) -> float:
    """Return the strong falls of loudness, dB/s (at least 0), NaN with less than 3.5 s of sound."""
    slopes = _slopes(loudness)
    return max(0.0, float(np.percentile(-slopes, STRONG_PERCENTILE))) if len(slopes) else np.nan


def _slopes(loudness: Float) -> Float:
    """Return the defined least-squares slopes over `SLOPE_S` of the peak-held loudness."""
    hold = round(PEAK_HOLD_S * LOUDNESS_RATE) | 1
    length = round(SLOPE_S * LOUDNESS_RATE) | 1
    if len(loudness) < hold + length:
        return np.empty(0)
    windows = np.lib.stride_tricks.sliding_window_view
    held = np.fmax.reduce(windows(loudness, hold), axis=1)
    time = (np.arange(length) - length // 2) / LOUDNESS_RATE
    slopes = windows(held, length) @ (time / np.square(time).sum())
    return np.asarray(slopes[np.isfinite(slopes)])


def loudness_curve(loudness: Float) -> Float:
    """Return the loudness over time, dBFS [shape=(64,)], NaN where nothing is audible."""
    return to_curve(loudness)
