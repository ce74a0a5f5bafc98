"""Alignment from audio alone: what is compared, and how two recordings are aligned by it.

Features, 50 a second, are *chroma*, levels of semitones folded to pitch classes (window 170 ms),
and *onsets* by semitone (E2 to G7, window 85 ms): the rise of each semitone's level over 40 ms,
over the strength of onsets in the second around, decaying over 120 ms. So notes are found where
they begin (DLNCO: Ewert, Müller & Grosche 2009, here with semitones in place of pitch classes).

Where two recordings play the same is found first, at two vectors a second (`profile`), by a chain
of stretches between which either may leave out what it likes (`mess_core.alignment.warping`). Each
stretch is then warped at 10 and at 50 vectors a second.
"""

__all__ = ["FRAME_RATE", "Features", "align_audio", "extract", "profile"]

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, uniform_filter1d
from scipy.signal import find_peaks
from scipy.special import expit

from mess_core.alignment.maps import Alignment
from mess_core.alignment.warping import band_around, chain, warp
from mess_core.targets.curves import Float

Float32 = npt.NDArray[np.float32]

#: Vectors a second: of the features, and of what is warped before, and of the profile.
FRAME_RATE = 50
MIDDLE_RATE = 10
PROFILE_RATE = 2

#: Windows, samples at 24 kHz.
_RATE = 24_000
_HOP = _RATE // FRAME_RATE
_LONG, _SHORT = 4096, 2048
#: Semitones (MIDI pitch) of chroma, and of onsets.
_CHROMA = (28, 100)
_ONSETS = (40, 103)
#: Compression of levels, and frames that an onset rises over.
_COMPRESSION = {_LONG: 1e4, _SHORT: 1e3}
_RISE = 2
#: How an onset decays, per frame.
_DECAY = (1.0, 0.8, 0.6, 0.4, 0.25, 0.1)
#: Weight of chroma beside onsets, at 50 and at 10 vectors a second.
_HARMONY = {1: 0.5, FRAME_RATE // MIDDLE_RATE: 1.0}

#: Similarity of profiles above which they speak for the same music, and what it costs to leave out
#: a stretch.
LEAST, PRICE = 0.38, 4.0
#: Between stretches of one region neither recording leaves out more, nor so much more than the
#: other, s.
_LONGEST_BRIDGE_S, _UNEQUAL_S = 15.0, 5.0
#: Where it is as likely as not the same music: what all regions together gain in similarity above
#: `LEAST`, over the log of the number of pairs (best chains of unrelated sequences grow with it:
#: Karlin & Altschul 1990), and over the vectors of the shorter recording; and how fast that grows
#: sure. Of other works chains gained 0.04 a vector at most, of the same 0.11 or more (ASAP).
_GAIN, _GAIN_SPREAD, _AGREEMENT, _AGREEMENT_SPREAD = 0.45, 0.1, 0.07, 0.01
#: The same of a single region, over the log of the number of pairs.
_REGION_GAIN, _REGION_SPREAD = 0.3, 0.08
#: A region that begins or ends so near to the ends of both files reaches them, s.
_NEAR_END_S = 3.0
#: How far warping looks from the path that is known, s.
_MIDDLE_RADIUS_S, _RADIUS_S = 4.0, 1.0
#: Standard deviation of the smoothing of a path's steps, s.
_SMOOTHING_S = 0.03
#: Standard error of a knot: this, and that over the sharpness of its cost, s. Of notes on the beat,
#: 68 % were nearer in 28 works of ASAP.
_SHARP_ERROR_S, _BLUNT_ERROR_S = 0.0085, 0.0078
#: Frames that knots are shifted by to tell the sharpness, over how much around, s, and the least.
_SHIFT, _AROUND_S, _LEAST_SHARPNESS = 3, 0.3, 0.1
#: How far a region reaches beyond its first and last onset, s.
_EDGE_S = 0.05
#: An onset is at least so strong beside the strongest tenth.
_LEAST_ONSET = 0.2
#: What keeps times increasing where one recording waits, s.
_LEAST_STEP_S = 1e-6


@dataclass(frozen=True, eq=False)
class Features:
    """What recordings are compared by, `FRAME_RATE` vectors a second.

    ``chroma`` has the shape [n, 12], ``onsets`` [n, 64].
    """

    chroma: Float32
    onsets: Float32


def extract(samples: Float32) -> Features:
    """Return the features of a recording, mono at 24 kHz."""
    chroma = np.zeros((1 + len(samples) // _HOP, 12), np.float32)
    for pitch, levels in enumerate(_levels(samples, _LONG, _CHROMA).T, _CHROMA[0]):
        chroma[:, pitch % 12] += levels
    levels = _levels(samples, _SHORT, _ONSETS)
    onsets = np.zeros_like(levels)
    onsets[_RISE:] = np.maximum(levels[_RISE:] - levels[:-_RISE], 0)
    return Features(chroma, onsets)


def _levels(samples: Float32, length: int, pitches: tuple[int, int]) -> Float32:
    """Return compressed levels of semitones [frames, pitches], frames centred on their times."""
    padded = np.pad(samples, (length // 2, length // 2 + _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::_HOP]
    frames = frames[: 1 + len(samples) // _HOP]
    bank, taper = _filters(length, pitches)
    blocks = []
    for start in range(0, len(frames), 512):
        spectra = scipy.fft.rfft(frames[start : start + 512] * taper, axis=1)
        blocks.append(np.square(np.abs(spectra)) @ bank)
    return np.asarray(np.log1p(_COMPRESSION[length] * np.sqrt(np.concatenate(blocks))))


@lru_cache(maxsize=2)
def _filters(length: int, pitches: tuple[int, int]) -> tuple[Float32, Float32]:
    """Return triangles a semitone either side [bins, pitches], and the Hann window."""
    hertz = np.arange(length // 2 + 1) * _RATE / length
    pitch = 69 + 12 * np.log2(np.maximum(hertz, 1) / 440)
    wanted = np.arange(pitches[0], pitches[1] + 1)
    bank = np.maximum(1 - np.abs(pitch[:, None] - wanted), 0)
    # Low semitones lie between two bins.
    missed = np.flatnonzero(bank.sum(0) == 0)
    bank[np.abs(pitch[:, None] - wanted[missed]).argmin(0), missed] = 1
    bank /= np.sqrt(bank.sum(0))
    taper = np.hanning(length + 1)[:-1]
    return bank.astype(np.float32), (taper * 2 / taper.sum()).astype(np.float32)


def profile(features: Features) -> Float32:
    """Return what two recordings are first compared by [shape=(n, 76)], `PROFILE_RATE` a second.

    Onsets and chroma of half a second, each number standardised over the recording, so that vectors
    of unrelated moments are orthogonal on average; each half and the whole have the length 1.
    """
    frames = FRAME_RATE // PROFILE_RATE
    chroma = _pooled(features.chroma, frames)
    halves = (np.sqrt(_pooled(features.onsets, frames)), chroma - chroma.mean(1, keepdims=True))
    standardised = [_unit((x - x.mean(0)) / (x.std(0) + 0.1 * x.std() + 1e-6)) for x in halves]
    return np.concatenate(standardised, axis=1) / np.float32(np.sqrt(2))


def _regions(a: Float32, b: Float32) -> list[tuple[Float, float]]:
    """Return what two recordings both play, in order, by their profiles.

    Each region has a path, times of one and of the other [shape=(p, 2)], s, and how sure it is that
    it is the same music, 0.5 to 1.
    """
    similar = a @ b.T
    path = chain(similar, LEAST, PRICE)
    if not len(path):
        return []
    skipped = np.diff(path, axis=0) / PROFILE_RATE
    unequal = np.abs(skipped[:, 0] - skipped[:, 1]) > _UNEQUAL_S
    apart = unequal | (skipped.max(1, initial=0) > _LONGEST_BRIDGE_S)
    gains = similar[path[:, 0], path[:, 1]] - LEAST
    total = float(gains.sum())
    agreement = (total / min(len(a), len(b)) - _AGREEMENT) / _AGREEMENT_SPREAD
    chance = np.log(similar.size)
    of_work = expit(min((total / chance - _GAIN) / _GAIN_SPREAD, agreement))
    borders = np.flatnonzero(apart) + 1
    regions = []
    for part, gain in zip(np.split(path, borders), np.split(gains, borders), strict=True):
        of_region = expit((gain.sum() / chance - _REGION_GAIN) / _REGION_SPREAD)
        regions.append(((part + 0.5) / PROFILE_RATE, float(of_work * of_region)))
    return [(path, confidence) for path, confidence in regions if confidence >= 0.5]


def _pooled(features: Float32, frames: int) -> Float32:
    whole = len(features) // frames * frames
    return np.asarray(features[:whole].reshape(-1, frames, features.shape[1]).mean(1))


def _unit(vectors: Float32) -> Float32:
    return np.asarray(vectors / np.sqrt(np.square(vectors).sum(1, keepdims=True) + 1e-6))


def _evened(onsets: Float32) -> Float32:
    """Return onsets over their strength in the second around."""
    strength = uniform_filter1d(np.square(onsets).sum(1), FRAME_RATE, mode="constant")
    strength = np.sqrt(np.maximum(strength, 0))[:, None]
    return np.asarray(onsets / (strength + 0.3 * np.median(strength) + 1e-6))


def _vectors(features: Features, frames: int) -> Float32:
    """Return what is warped, one vector for so many frames."""
    onsets = _evened(features.onsets)
    if frames == 1:
        decaying = np.zeros_like(onsets)
        for delay, share in enumerate(_DECAY):
            np.maximum(
                decaying[delay:], share * onsets[: len(onsets) - delay], out=decaying[delay:]
            )
        onsets, chroma = decaying, features.chroma
    else:
        onsets, chroma = _unit(_pooled(onsets, frames)), _pooled(features.chroma, frames)
        chroma = chroma - 0.5 * chroma.mean(1, keepdims=True)
    return np.concatenate([_HARMONY[frames] * _unit(chroma), onsets], axis=1).astype(np.float32)


def align_audio(reference: Features, other: Features) -> Alignment:
    """Return the map from a recording to the time of another.

    It has no loudness and no beats, and no regions where the two have no music in common.
    """
    vectors = [
        (rate, [_vectors(features, FRAME_RATE // rate) for features in (reference, other)], radius)
        for rate, radius in ((MIDDLE_RATE, _MIDDLE_RADIUS_S), (FRAME_RATE, _RADIUS_S))
    ]
    lengths = np.array([len(reference.chroma), len(other.chroma)]) / FRAME_RATE
    found = _regions(profile(reference), profile(other))
    if not found:
        nowhere = np.zeros(1)
        return Alignment(nowhere, nowhere, nowhere + np.inf, np.empty((0, 2)), np.empty(0))
    parts = []
    strengths = [_evened(each).sum(1) for each in (reference.onsets, other.onsets)]
    for rough, _ in found:
        path = _with_ends(rough, lengths)
        for rate, (a, b), radius in vectors:
            path = _warped(path, a, b, rate, radius)
        parts.append(_knots(path, *strengths))
    finest = vectors[-1][1]
    return Alignment(
        times=np.concatenate([part[:, 1] for part in parts]),
        work_times=np.concatenate([part[:, 0] for part in parts]),
        errors=np.concatenate([_standard_errors(part, *finest) for part in parts]),
        regions=np.array([part[[0, -1], 1] for part in parts]),
        confidence=np.array([confidence for _, confidence in found]),
    )


def _with_ends(path: Float, lengths: Float) -> Float:
    """Return a region's path, from start to end of both recordings where it nearly reaches them."""
    start = [np.zeros(2)] if (path[0] < _NEAR_END_S).all() else []
    end = [lengths] if (lengths - path[-1] < _NEAR_END_S).all() else []
    return np.array([*start, *path, *end])


def _warped(path: Float, a: Float32, b: Float32, rate: int, radius_s: float) -> Float:
    """Return a path [shape=(p, 2)], s, warped anew within a radius of what it is."""
    first, last = (path[[0, -1]] * rate).astype(np.int64)
    stops = np.minimum(last + 1, [len(a), len(b)])
    n, m = stops - first
    rows, columns = (path * rate - first).T
    band = band_around(rows, columns, int(n), int(m), radius_s * rate)
    steps = warp(a[first[0] : stops[0]], b[first[1] : stops[1]], *band)
    return np.asarray((steps + first + 0.5 * (rate < FRAME_RATE)) / rate)


def _knots(path: Float, a: Float, b: Float) -> Float:
    """Return the places of a path [shape=(k, 2)], s, where both recordings have an onset.

    ``a`` and ``b`` are how strong their onsets are. The path's steps are smoothed. Between onsets
    it wanders, and straight lines are nearer to how somebody plays.
    """
    rows = np.round((path[:, 0] - path[0, 0]) * FRAME_RATE).astype(np.int64)
    counts = np.bincount(rows)
    times = np.bincount(rows, path[:, 1]) / counts
    line = np.linspace(times[0], times[-1], len(times))
    smooth = line + gaussian_filter1d(times - line, _SMOOTHING_S * FRAME_RATE, mode="nearest")
    increasing = np.maximum.accumulate(smooth) + _LEAST_STEP_S * np.arange(len(smooth))
    first = round(path[0, 0] * FRAME_RATE)
    there = np.clip(np.round(increasing * FRAME_RATE).astype(np.int64), 0, len(b) - 1)
    both = np.sqrt(a[first : first + len(there)] * maximum_filter1d(b, 3)[there])
    peaks, found = find_peaks(both, height=0.0, distance=2)
    peaks = peaks[found["peak_heights"] >= _LEAST_ONSET * np.percentile(found["peak_heights"], 90)]
    knots = np.column_stack([(first + peaks) / FRAME_RATE, increasing[peaks]])
    # What begins with the first onset may be found a little before it.
    return np.concatenate([knots[:1] - _EDGE_S, knots, knots[-1:] + _EDGE_S])


def _standard_errors(knots: Float, a: Float32, b: Float32) -> Float:
    """Return how far the times of knots are off, s: the less, the more it would cost to shift them.

    The second difference of the cost of shifts, over 0.3 s around a knot, relative to that cost.
    """
    frames = np.arange(int(knots[0, 0] * FRAME_RATE), int(knots[-1, 0] * FRAME_RATE) + 1)
    frames = np.minimum(frames, len(a) - 1)
    there = np.interp(frames / FRAME_RATE, *knots.T) * FRAME_RATE
    costs = []
    for shift in (-_SHIFT, 0, _SHIFT):
        shifted = np.clip(np.round(there + shift).astype(np.int64), 0, len(b) - 1)
        cost = np.square(a[frames] - b[shifted]).sum(1, dtype=np.float64)
        costs.append(gaussian_filter1d(cost, _AROUND_S * FRAME_RATE, mode="nearest"))
    before, here, after = costs
    sharpness = np.maximum(before + after - 2 * here, 0) / np.maximum(here, 1e-6)
    errors = _SHARP_ERROR_S + _BLUNT_ERROR_S / np.maximum(sharpness, _LEAST_SHARPNESS)
    return np.asarray(np.interp(knots[:, 0], frames / FRAME_RATE, errors))
