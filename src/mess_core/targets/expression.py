"""Expression: how a score is played, read from the performance's MIDI.

* `rubato`: the extent of the shaping of tempo: standard deviation over time of the log local tempo,
  smoothed over half a second. 0.1 means that the tempo is mostly within 10 % of its mean. Note
  values are removed by tracking the pulse (`mess_core.targets.pulse`); chord spread and melody lead
  hardly count, and neither does the tempo itself.
* `tempo_variability`: unsteadiness at every time scale, from single beats to the whole: standard
  deviation over mean of the local tempo, smoothed over 0.1 s. Contains rubato.
* `onset_timing_std`: how far single notes lie from the flexible pulse: inaccuracy, chord spread,
  melody lead. Half the central 68 % of the deviations, which is the standard deviation of normal
  ones, so that a misread fermata does not count.
* `articulation_ratio`: *legato*: time that a key is held over the time to the next note in its
  register, median over notes. Below 1 is detached, above 1 is overlapping.
* `velocity_mean`, `velocity_std`, `velocity_range` (5th to 95th percentile): loudness of touch.
"""

__all__ = [
    "articulation_ratio",
    "onset_timing_std",
    "rubato",
    "tempo_variability",
    "velocity_mean",
    "velocity_range",
    "velocity_std",
]

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

#: Fewer notes define no statistics of a performance.
MIN_NOTES = 5

#: Notes at most this far apart in pitch are taken to be of one voice, semitones (a fifth).
VOICE_SEMITONES = 7

#: What is further away in time is a new beginning, s.
MAX_INTERVAL_S = 3.0

#: Quantiles of the central 68 %, which lie one standard deviation either side in a normal one.
CENTRAL = (15.87, 84.13)


def rubato(shaped_tempo: Float) -> float:
    """Return the standard deviation of log tempo over time.

    Parameters
    ----------
    shaped_tempo : ndarray [shape=(n,)]
        Log local tempo, equally spaced in time.

    Returns
    -------
    float
        At least 0, in natural log units (about relative change); NaN without a pulse (fewer than 8
        onsets).
    """
    return float(shaped_tempo.std()) if len(shaped_tempo) else np.nan


def tempo_variability(beat_tempo: Float) -> float:
    """Return the coefficient of variation of tempo over time.

    Parameters
    ----------
    beat_tempo : ndarray [shape=(n,)]
        Log local tempo, equally spaced in time.

    Returns
    -------
    float
        At least 0; NaN without a pulse (fewer than 8 onsets).
    """
    speed = np.exp(beat_tempo)
    return float(speed.std() / speed.mean()) if len(speed) else np.nan


def onset_timing_std(deviations: Float) -> float:
    """Return the robust standard deviation of notes around the flexible pulse.

    Parameters
    ----------
    deviations : ndarray [shape=(n,)]
        Seconds by which each note is late.

    Returns
    -------
    float
        Seconds; NaN without a pulse (fewer than 8 onsets).
    """
    if not len(deviations):
        return np.nan
    low, high = np.percentile(deviations, CENTRAL)
    return float(high - low) / 2


def articulation_ratio(
    onsets: Float, releases: Float, pitches: Float, chords: npt.NDArray[np.int64]
) -> float:
    """Return the median key-overlap ratio.

    Parameters
    ----------
    onsets, releases : ndarray [shape=(n,)]
        Seconds; onsets increase.
    pitches : ndarray [shape=(n,)]
        MIDI pitch.
    chords : ndarray of int [shape=(n,)]
        For each note the number of its chord, not decreasing.

    Returns
    -------
    float
        Above 0; NaN with fewer than 5 notes that have a successor.

    Notes
    -----
    A note's successor is the first note of a later chord within a fifth of its pitch. A repetition
    of the same pitch is none: its key has to be released first, whatever the articulation.
    """
    ratios = []
    for i in range(len(onsets)):
        later = np.searchsorted(chords, chords[i], side="right")
        until = np.searchsorted(onsets, onsets[i] + MAX_INTERVAL_S, side="right")
        distance = np.abs(pitches[later:until] - pitches[i])
        near = np.flatnonzero(distance <= VOICE_SEMITONES)
        if len(near) and distance[near[0]] > 0:
            interval = onsets[later + near[0]] - onsets[i]
            ratios.append((releases[i] - onsets[i]) / interval)
    return float(np.median(ratios)) if len(ratios) >= MIN_NOTES else np.nan


def velocity_mean(velocities: Float) -> float:
    """Return the mean MIDI velocity (1 to 127), NaN with fewer than 5 notes."""
    return float(velocities.mean()) if len(velocities) >= MIN_NOTES else np.nan


def velocity_std(velocities: Float) -> float:
    """Return the standard deviation of MIDI velocity, NaN with fewer than 5 notes."""
    return float(velocities.std()) if len(velocities) >= MIN_NOTES else np.nan


def velocity_range(velocities: Float) -> float:
    """Return the 5th to 95th percentile range of MIDI velocity, NaN with fewer than 5 notes."""
    if len(velocities) < MIN_NOTES:
        return np.nan
    soft, loud = np.percentile(velocities, (5, 95))
    return float(loud - soft)
