"""Rhythm, as heard in the audio.

* `tempo`: the rate at which a listener would tap: geometric mean of the local tempo. Metrical
  levels an octave (or a factor of three) apart are equally right to a listener, and this gives one
  of them: compare tempos modulo octaves unless the recordings play the same work.
* `tempo_octave_ambiguity`: how near the choice of that level was: the strength with which the best
  other level (a third, a half, twice, three times the rate) is heard, over that of the chosen one.
  0 where only one rate is heard, 1 where another would do as well.
* `local_tempo_curve`: the rate over time, always of the recording's level
  (`mess_core.targets.tempogram`).
* `onset_density`: notes or chords begun per second of the recording.
* `onset_rate_curve`: the same over time.
"""

__all__ = [
    "local_tempo_curve",
    "onset_density",
    "onset_rate_curve",
    "tempo",
    "tempo_octave_ambiguity",
]

import numpy as np
import numpy.typing as npt

from mess_core.targets.curves import to_curve
from mess_core.targets.registry import CURVE_FRAMES
from mess_core.targets.tempogram import LEVEL_RATIOS

Float = npt.NDArray[np.float64]

#: Standard deviation of the smoothing of the onset rate, s: a bar or so.
RATE_SMOOTHING_S = 1.0


def tempo(local_tempo: Float) -> float:
    """Return the tempo.

    Parameters
    ----------
    local_tempo : ndarray [shape=(n,)]
        BPM over time, NaN where there is no pulse.

    Returns
    -------
    float
        Geometric mean, 30 to 300 BPM; NaN where there is no pulse at all.
    """
    defined = local_tempo[np.isfinite(local_tempo)]
    return float(np.exp(np.log(defined).mean())) if len(defined) else np.nan


def tempo_octave_ambiguity(metrical_levels: Float) -> float:
    """Return the strength of the best other metrical level relative to the pulse's.

    Parameters
    ----------
    metrical_levels : ndarray [shape=(n, 5)]
        Strength over time of the levels `LEVEL_RATIOS`, NaN where there is no pulse.

    Returns
    -------
    float
        0 to 1; NaN where there is no pulse at all.
    """
    defined = metrical_levels[np.isfinite(metrical_levels).all(axis=1)]
    strengths = defined.sum(axis=0)
    pulse = strengths[LEVEL_RATIOS.index(1.0)]
    rival = max(np.delete(strengths, LEVEL_RATIOS.index(1.0)))
    return float(min(rival / pulse, 1.0)) if pulse > 0 else np.nan


def local_tempo_curve(local_tempo: Float) -> Float:
    """Return the rate of the pulse over time, BPM [shape=(64,)], NaN where there is no pulse."""
    return to_curve(local_tempo)


def onset_density(onsets: Float, duration: float, loudness: Float) -> float:
    """Return the onsets per second.

    Parameters
    ----------
    onsets : ndarray [shape=(n,)]
        Times of onsets, s.
    duration : float
        Length of the recording, s.
    loudness : ndarray [shape=(m,)]
        Momentary loudness, NaN where inaudible.

    Returns
    -------
    float
        Per second; 0 for a sustained sound; NaN where nothing is audible.
    """
    return len(onsets) / duration if np.isfinite(loudness).any() else np.nan


def onset_rate_curve(onsets: Float, duration: float, loudness: Float) -> Float:
    """Return the onsets per second over time.

    Parameters
    ----------
    onsets : ndarray [shape=(n,)]
        Times of onsets, s.
    duration : float
        Length of the recording, s.
    loudness : ndarray [shape=(m,)]
        Momentary loudness, NaN where inaudible.

    Returns
    -------
    ndarray [shape=(64,)]
        Gaussian smoothing of 1 s, corrected at the edges; NaN where nothing is ever audible.
    """
    if not np.isfinite(loudness).any():
        return np.full(CURVE_FRAMES, np.nan)
    times = (np.arange(CURVE_FRAMES) + 0.5) * duration / CURVE_FRAMES
    density = _gaussian(times[:, None] - onsets).sum(axis=1)
    grid = np.arange(0.0, duration, RATE_SMOOTHING_S / 10)
    inside = _gaussian(times[:, None] - grid).sum(axis=1) * RATE_SMOOTHING_S / 10
    return np.asarray(density / inside)


def _gaussian(distance: Float) -> Float:
    scale = RATE_SMOOTHING_S * np.sqrt(2 * np.pi)
    return np.asarray(np.exp(-0.5 * (distance / RATE_SMOOTHING_S) ** 2) / scale)
