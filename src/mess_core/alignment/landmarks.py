"""Landmarks of a recording: climaxes, boundaries, and ends of phrases, found in its sound.

* `CLIMAX`: a prominent peak of loudness, density of onsets, register (spectral centroid) and
  dissonance together. Each is standardised within the recording, smoothed, and their weighted mean
  is the curve of `climax_curve`. Its *build-up* starts, and its *release* ends, where the curve
  leaves the lowest tenth of the way between the valley on that side and the peak.
* `BOUNDARY`: a peak of Foote's novelty (`mess_core.targets.phrasing`) of timbre, harmony, density
  and loudness, each standardised: one texture ends and another begins.
* `PHRASE_END`: an onset before which the music has got softer than around it *and* the tempo has
  slowed down: the border at which the next phrase begins. The tempo is that of beats where they are
  given, else that of the spacing of onsets, which a long note changes, too.

What varies less than `LEAST` in a recording is not blown up to a full standard deviation, so a flat
performance has no climax. Nothing here knows the score: these are places to listen to, not an
analysis of form.
"""

__all__ = [
    *("BOUNDARY", "CLIMAX", "CONTOUR_PARTS", "KINDS", "PHRASE_END"),
    *("Landmark", "climax_curve", "contour_distance", "landmarks"),
]

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from mess_core.targets.curves import Float
from mess_core.targets.harmony import tension_series
from mess_core.targets.phrasing import novelty
from mess_core.targets.sound import FLOOR_DBFS, LOUDNESS_RATE, LOUDNESS_WINDOW_S, Sound

KINDS = CLIMAX, BOUNDARY, PHRASE_END = ("climax", "boundary", "phrase_end")

#: The two contours of a climax.
CONTOUR_PARTS = ("build_up", "release")

#: Values per second of all curves here.
RATE = 10.0

#: Spread added (in squares) to a series' own: dB, onsets per second, octaves, tension.
LEAST = {"loudness": 2.0, "density": 1.0, "register": 0.25, "tension": 0.08}

#: What each series weighs in the curve of climaxes.
WEIGHTS = {"loudness": 2.0, "density": 1.0, "register": 1.0, "tension": 1.0}

#: What is softer than the loudest moment by more counts as that much softer, dB.
RANGE_DB = 40.0

#: Smoothing (standard deviation) of the curve of climaxes, and of what novelty compares, s.
CLIMAX_SMOOTHING_S = 1.5
TEXTURE_SMOOTHING_S = 0.5

#: Least prominence of a climax, in standard deviations of the series.
MIN_PROMINENCE = 0.5

#: A build-up begins where this share of the way from the valley to the peak is covered.
FOOT = 0.1

#: Values of a contour, and what an octave of length counts against a full height of difference.
CONTOUR = 32
OCTAVE = 0.1

#: How far novelty looks to either side, s; least prominence of a boundary in standard deviations.
BOUNDARY_REACH_S = 8.0
BOUNDARY_PROMINENCE = 0.7

#: An onset ends a phrase when the half second before it is softer than six seconds either side.
BEFORE_S, AROUND_S = 0.5, 6.0

#: The last beat is compared with so many before it; an onset's spacing with so many either side.
BEATS_BEFORE, SPACINGS = 4, 12

#: Spread added to that of the dip (dB) and of the slowing (log of tempo).
LEAST_DIP, LEAST_SLOWING = 1.0, 0.05

#: Least strength of a phrase's end, and least time between two and from the ends, s.
MIN_STRENGTH = 1.0
APART_S, EDGE_S = 3.0, 2.0


@dataclass(frozen=True, eq=False)
class Landmark:
    """A place in a recording.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    time_s : float
        Its peak, or the onset nearest to where the new begins, s.
    start_s, end_s : float
        Of a climax the start of its build-up and the end of its release; else ``time_s``.
    strength : float
        Prominence of a climax and strength of a phrase's end in standard deviations within the
        recording, novelty of a boundary over that of the recording's mean.
    build_up, release : ndarray [shape=(32,)]
        Of a climax the curve from start to peak and from peak to end, in equal steps, 0 at the
        valley and 1 at the peak. Else empty.
    """

    kind: str
    time_s: float
    start_s: float
    end_s: float
    strength: float
    build_up: Float = field(default_factory=lambda: np.empty(0))
    release: Float = field(default_factory=lambda: np.empty(0))


def landmarks(sound: Sound, *, beats: Float | None = None) -> list[Landmark]:
    """Return the landmarks of a recording in the order of time; none where hardly anything sounds.

    Parameters
    ----------
    sound : Sound
        The series of the recording.
    beats : ndarray [shape=(n,)], optional
        When it reaches each beat, s, increasing. Ends of phrases are then found by them.
    """
    if len(sound.onsets) < 4:
        return []
    found = [*_climaxes(sound), *_boundaries(sound), *_phrase_ends(sound, beats)]
    return sorted(found, key=lambda landmark: (landmark.time_s, landmark.kind))


def contour_distance(one: Landmark, other: Landmark, part: str) -> float:
    """Return how differently two climaxes rise or fall, by one of `CONTOUR_PARTS`.

    The root mean square difference of the contours, 0 to 1, and `OCTAVE` for each octave by which
    one lasts longer.
    """
    shapes = np.subtract(getattr(one, part), getattr(other, part))
    octaves = abs(np.log2(_length(one, part) / _length(other, part)))
    return float(np.sqrt(np.mean(np.square(shapes))) + OCTAVE * octaves)


def _length(climax: Landmark, part: str) -> float:
    ends = (climax.start_s, climax.time_s) if part == "build_up" else (climax.time_s, climax.end_s)
    return max(ends[1] - ends[0], 1 / RATE)


def climax_curve(sound: Sound) -> tuple[Float, Float]:
    """Return times from the first onset to the last, s, and the curve whose peaks are climaxes.

    In standard deviations within the recording [shape=(n,)]; what rings before and after is left
    out, because its fading is no release.
    """
    times, series = _series(sound)
    total = sum(WEIGHTS[name] * _standardised(series[name], LEAST[name]) for name in WEIGHTS)
    curve = np.asarray(total) / sum(WEIGHTS.values())
    return times, gaussian_filter1d(curve, CLIMAX_SMOOTHING_S * RATE, mode="nearest")


def _series(sound: Sound) -> tuple[Float, dict[str, Float]]:
    """Return times and what is heard at each: level, onsets per second, octaves, tension."""
    times = np.arange(sound.onsets[0], sound.onsets[-1] + 0.5 / RATE, 1 / RATE)
    loudness = np.nan_to_num(sound.loudness, nan=FLOOR_DBFS)
    windows = np.arange(len(loudness)) / LOUDNESS_RATE + LOUDNESS_WINDOW_S / 2
    level = np.interp(times, windows, loudness)
    tension = tension_series(sound.chroma, sound.frame_rate)
    return times, {
        "loudness": np.maximum(level, level.max() - RANGE_DB),
        "density": _density(sound.onsets, times),
        "register": _at(times, np.log2(sound.centroid), sound.frame_rate),
        "tension": _at(times, tension, sound.frame_rate),
    }


def _density(onsets: Float, times: Float) -> Float:
    """Return the onsets per second, smoothed by a Gaussian of 1 s, corrected at the ends."""
    counts = np.histogram(onsets, np.append(times, times[-1] + 1 / RATE) - 0.5 / RATE)[0]
    inside = gaussian_filter1d(np.ones(len(times)), RATE, mode="constant")
    return np.asarray(gaussian_filter1d(counts * RATE, RATE, mode="constant") / inside)


def _at(times: Float, series: Float, frame_rate: float) -> Float:
    """Return a series of frames at some times; gaps are bridged."""
    centres = (np.arange(len(series)) + 2) / frame_rate
    defined = np.isfinite(series)
    if not defined.any():
        return np.zeros(len(times))
    return np.interp(times, centres[defined], series[defined])


def _standardised(series: Float, least: float) -> Float:
    return np.asarray((series - series.mean()) / np.hypot(series.std(), least))


def _climaxes(sound: Sound) -> list[Landmark]:
    times, curve = climax_curve(sound)
    peaks, facts = find_peaks(curve, prominence=MIN_PROMINENCE)
    bounds = [0, *peaks, len(curve) - 1]
    return [
        _climax(times, curve, *bounds[i : i + 3], prominence)
        for i, prominence in enumerate(facts["prominences"])
    ]


def _climax(
    times: Float, curve: Float, before: int, peak: int, after: int, prominence: float
) -> Landmark:
    """Return the climax at a peak that lies between two others."""
    rising, falling = curve[before : peak + 1], curve[peak : after + 1]
    start = peak - _foot(rising[::-1])
    stop = peak + _foot(falling)
    return Landmark(
        CLIMAX,
        float(times[peak]),
        float(times[start]),
        float(times[stop]),
        float(prominence),
        _contour(curve[start : peak + 1]),
        _contour(curve[peak : stop + 1]),
    )


def _foot(falling: Float) -> int:
    """Return how far from its start a curve, which falls from a peak, reaches its foot."""
    valley = falling.min()
    return int(np.argmax(falling <= valley + FOOT * (falling[0] - valley)))


def _contour(curve: Float) -> Float:
    part = np.interp(np.linspace(0, len(curve) - 1, CONTOUR), np.arange(len(curve)), curve)
    return np.asarray((part - part.min()) / max(np.ptp(part), 1e-9))


def _boundaries(sound: Sound) -> list[Landmark]:
    times, series = _series(sound)
    shares = sound.chroma / np.maximum(sound.chroma.sum(axis=1, keepdims=True), 1e-12)
    columns = [_at(times, column, sound.frame_rate) for column in (*sound.mfcc.T, *shares.T)]
    columns += [np.log(series["density"] + 0.3), series["loudness"]]
    smooth = gaussian_filter1d(np.stack(columns, axis=1), TEXTURE_SMOOTHING_S * RATE, axis=0)
    sizes = np.repeat([sound.mfcc.shape[1], 12, 1, 1], [sound.mfcc.shape[1], 12, 1, 1])
    texture = (smooth - smooth.mean(axis=0)) / np.maximum(smooth.std(axis=0), 1e-9)
    curve = np.nan_to_num(novelty(texture / np.sqrt(sizes), RATE, BOUNDARY_REACH_S))
    peaks, _ = find_peaks(
        curve, prominence=BOUNDARY_PROMINENCE * curve.std(), distance=BOUNDARY_REACH_S * RATE
    )
    onsets = sound.onsets[[int(np.abs(sound.onsets - times[peak]).argmin()) for peak in peaks]]
    strengths = curve[peaks] / max(curve.mean(), 1e-9)
    return [
        Landmark(BOUNDARY, t, t, t, float(strength))
        for t, strength in zip(onsets.tolist(), strengths, strict=True)
    ]


def _phrase_ends(sound: Sound, beats: Float | None) -> list[Landmark]:
    dips = _dips(sound)
    slowing = _slowing_of_onsets(sound.onsets) if beats is None else _slowing(sound.onsets, beats)
    evidence = _standardised(dips, LEAST_DIP) + _standardised(slowing, LEAST_SLOWING)
    strengths = np.where((dips > 0) & (slowing > 0), evidence / np.sqrt(2), -np.inf)
    onsets = sound.onsets
    first, last = onsets[0] + EDGE_S, onsets[-1] - EDGE_S
    found: list[Landmark] = []
    for i in np.argsort(-strengths):
        t = float(onsets[i])
        apart = all(abs(t - other.time_s) >= APART_S for other in found)
        if strengths[i] >= MIN_STRENGTH and first <= t <= last and apart:
            found.append(Landmark(PHRASE_END, t, t, t, float(strengths[i])))
    return found


def _dips(sound: Sound) -> Float:
    """Return how much softer it is just before each onset than around it, dB."""
    times, series = _series(sound)
    sums = np.concatenate([[0.0], np.cumsum(series["loudness"])])

    def mean(start: Float, stop: Float) -> Float:
        i, j = (np.round((np.clip(t, *times[[0, -1]]) - times[0]) * RATE) for t in (start, stop))
        i = np.minimum(i, len(times) - 1)
        j = np.maximum(j, i + 1)
        return np.asarray((sums[j.astype(int)] - sums[i.astype(int)]) / (j - i))

    onsets = sound.onsets
    around = mean(onsets - AROUND_S, onsets + AROUND_S)
    return np.asarray(around - mean(onsets - BEFORE_S, onsets))


def _slowing_of_onsets(onsets: Float) -> Float:
    """Return how much longer than around it the time before each onset is, log."""
    spacing = np.log(np.diff(onsets))
    spacing = np.concatenate([spacing[:1], spacing])
    sums = np.concatenate([[0.0], np.cumsum(spacing)])
    places = np.arange(len(onsets))
    first = np.maximum(places - SPACINGS, 0)
    stop = np.minimum(places + SPACINGS + 1, len(onsets))
    return np.asarray(spacing - (sums[stop] - sums[first]) / (stop - first))


def _slowing(onsets: Float, beats: Float) -> Float:
    """Return how much longer the last beat before each onset is than those before it, log."""
    periods = np.log(np.diff(beats))
    # An onset on a beat, or hardly before it, comes after the beat that ends there.
    last = np.searchsorted(beats, onsets + 0.05, side="right") - 2
    slowing = np.zeros(len(onsets))
    for i, n in enumerate(last):
        if 0 < n < len(periods):
            slowing[i] = periods[n] - periods[max(0, n - BEATS_BEFORE) : n].mean()
    return slowing
