"""Articulation and pedal, as far as the level of what sounds tells them.

* `note_connection`: how well notes hold until the next one begins. The mel bands that an onset
  raises lose so many dB a second until the next onset; the mean over onsets, with the sign changed.
  A staccato note is gone (-60 dB/s and less), a legato one still sounds (0 to -20 dB/s). It hears
  keys and pedal alike: `expression.articulation_ratio` is the keys'.
* `resonance`: how much rings on. A damper takes more than `DAMPED_DB` in 43 ms from a band, a
  string that is left alone does not; the share of what sounds that is not being damped. It grows
  with the pedal, and with hands that let keys lie.

What counts stands above the recording's noise, and within `PROMINENT_DB` (of an onset) or
`SOUNDING_DB` (at any time) of the loudest band. Constants were chosen on the even half of ASAP's
works, see docs/targets.md.
"""

__all__ = ["fades", "note_connection", "resonance", "ringing"]

import numpy as np
import numpy.typing as npt

from mess_core.targets.curves import Float, mean_of

#: An onset raises a band by this much, to at most so far below the band that it raises most, dB.
RISE_DB = 6.0
PROMINENT_DB = 15.0

#: Where the level before an onset and at its peak is found, and that before the next onset, frames.
BEFORE, PEAK, UNTIL = -1, (2, 3, 4), -1

#: The times from onset to onset that count, s.
INTERVALS_S = (0.12, 3.0)

#: A band sounds within this distance of the loudest one, and is damped when it falls by so much in
#: so many frames, dB.
SOUNDING_DB = 20.0
DAMPED_DB = 3.0
DAMPED_FRAMES = 2

Levels = npt.NDArray[np.float32]


def note_connection(fades: Float) -> float:
    """Return minus the mean loss of level between onsets, dB/s, NaN where nothing is followed."""
    return -mean_of(fades)


def resonance(ringing: Float) -> float:
    """Return the share of what sounds that is not being damped (0 to 1), NaN where nothing does."""
    sounding, damped = ringing.sum(axis=0)
    return float(1 - damped / sounding) if sounding else np.nan


def fades(
    level: Levels, gate: Levels, onsets: Float, *, frame_rate: float, frame_s: float
) -> Float:
    """Return how fast each onset's bands lose level until the next onset, dB/s [shape=(n,)].

    ``level`` [shape=(frames, bands)] and ``gate`` [shape=(bands,)], above which sound stands out of
    the noise, are in dB. NaN for the last onset, where nothing rises, and where the next onset is
    too near or too far.
    """
    rates = np.full(len(onsets), np.nan)
    frames = np.round((onsets - frame_s / 2) * frame_rate).astype(np.int64)
    least, most = (round(s * frame_rate) for s in INTERVALS_S)
    first, following = frames[:-1], frames[1:]
    near = (following - first >= least) & (following - first <= most)
    used = np.flatnonzero(near & (first + BEFORE >= 0) & (following < len(level)))
    if not len(used):
        return rates
    first, last = frames[used], frames[used + 1] + UNTIL
    peak = np.max([level[first + step] for step in PEAK], axis=0)
    risen = np.where((peak - level[first + BEFORE] > RISE_DB) & (peak > gate), peak, -np.inf)
    counts = (risen > -np.inf) & (risen >= risen.max(axis=1, keepdims=True) - PROMINENT_DB)
    lost = np.where(counts, peak - level[last], 0).sum(axis=1, dtype=np.float64)
    number = counts.sum(axis=1)
    seconds = (last - first - PEAK[1]) / frame_rate
    rates[used] = lost / np.where(number, number * seconds, np.nan)
    return rates


def ringing(level: Levels, gate: Levels) -> Float:
    """Return how many bands sound in each frame and how many of them are being damped.

    ``level`` [shape=(frames, bands)] and ``gate`` [shape=(bands,)] are in dB. Two columns
    [shape=(frames, 2)]; the last two frames have none.
    """
    counts = np.zeros((len(level), 2))
    now, later = level[:-DAMPED_FRAMES], level[DAMPED_FRAMES:]
    sounding = (now > now.max(axis=1, keepdims=True, initial=-np.inf) - SOUNDING_DB) & (now > gate)
    counts[: len(now), 0] = sounding.sum(axis=1)
    counts[: len(now), 1] = (sounding & (now - later > DAMPED_DB)).sum(axis=1)
    return counts
