"""Landmarks of a recording: climaxes, boundaries, and ends of phrases, found in its sound.

* `CLIMAX`: a prominent peak of loudness, density of onsets, register (spectral centroid) and
  dissonance together: the smoothed weighted mean of what is standardised within the recording. Its
  *build-up* starts, and its *release* ends, a tenth of the way from the valley there to the peak.
* `BOUNDARY`: a peak of Foote's novelty (`mess_core.targets.phrasing`) of timbre, harmony, density
  and loudness: one texture ends and another begins.
* `PHRASE_END`: an onset, with which the next phrase begins, before which it is softer *and* slower:
  by beats where they are given, else by the spacing of onsets, which a long note changes, too.

What varies little is not blown up to a full standard deviation: a flat performance has no climax.
Nothing here knows the score.
"""

__all__ = ["CONTOURS", "Landmark", "contour_distance", "curves", "find_landmarks", "landmarks"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from scipy.signal import find_peaks

from mess_core import stages
from mess_core.cache import cached
from mess_core.extraction.audio import load_audio
from mess_core.files import fingerprint, read_json, write_json
from mess_core.recordings import Recording, check_unchanged
from mess_core.targets.curves import Float
from mess_core.targets.harmony import tension_series
from mess_core.targets.notes import BEAT_TOLERANCE_S, read_beats, read_performance
from mess_core.targets.phrasing import novelty
from mess_core.targets.sound import FLOOR_DBFS, LOUDNESS_RATE, LOUDNESS_WINDOW_S, Sound, analyse

CLIMAX, BOUNDARY, PHRASE_END = "climax", "boundary", "phrase_end"

#: The two contours of a climax, of how many values they are, and values per second of curves.
CONTOURS = BUILD_UP, RELEASE = ("build_up", "release")
CONTOUR_VALUES, RATE = 32, 10.0

#: Spread that is added (in squares) to a series' own: dB, onsets per second, octaves, tension;
#: log density, MFCC, share of the chroma; the dip (dB) and the slowing (log) at phrases' ends.
LEAST = {"loudness": 2.0, "density": 1.0, "register": 0.25, "tension": 0.08}
LEAST |= {"log_density": 0.3, "mfcc": 8.0, "chroma": 0.05, "dip": 2.0, "slowing": 0.05}
#: What is softer than the loudest moment by more counts as so much softer, dB.
RANGE_DB = 40.0

#: Of climaxes: what each series weighs, the curve's smoothing (Gaussian, s), the least prominence
#: of a climax and of a peak that ends its release, and the share of the height that is no slope.
WEIGHTS = {"loudness": 2.0, "density": 1.0, "register": 1.0, "tension": 1.0}
CLIMAX_SMOOTHING_S, MIN_PROMINENCE, MIN_HILL, FOOT = 1.5, 0.4, 0.2, 0.1
#: What an octave of length counts beside contours that differ by their full height.
OCTAVE = 0.1

#: Of boundaries: how far novelty looks to either side, how what it compares is smoothed (Gaussian),
#: s; the least prominence (no flat performance of the tests had a novelty above 0.4).
BOUNDARY_REACH_S, TEXTURE_SMOOTHING_S, MIN_NOVELTY = 8.0, 0.5, 0.75

#: Of phrases' ends: the time before the onset and what it is compared with, s; how many beats the
#: last beat, or spacings the last spacing of onsets, is compared with; the least strength; the
#: least time between two, and from the recording's ends, s.
BEFORE_S, AROUND_S = 0.5, 12.0
BEATS_BEFORE, SPACINGS, MIN_STRENGTH = 4, 25, 0.8
APART_S, EDGE_S = 3.0, 2.0


@dataclass(frozen=True)
class Landmark:
    """A place in a recording."""

    #: `CLIMAX`, `BOUNDARY` or `PHRASE_END`.
    kind: str
    #: A climax's peak; of the others the onset with which the new begins, s.
    time_s: float
    #: Prominence of a climax, and strength of a phrase's end, in standard deviations within the
    #: recording; novelty of a boundary (squared distance of what is before and after).
    strength: float
    #: Start of a climax's build-up and end of its release, s; of the others ``time_s``.
    start_s: float
    end_s: float
    #: A climax's curve from start to peak and from peak to end in `CONTOUR_VALUES` equal steps,
    #: 0 where it is lowest and 1 at the peak; empty for the others.
    build_up: Sequence[float] = ()
    release: Sequence[float] = ()


def find_landmarks(recording: Recording, cache: Path) -> list[Landmark]:
    """Return the landmarks of a recording of the table, computed once for the same files.

    Beats are those of the table, else those tracked in the MIDI, else none. Raises what loading
    audio, MIDI and beats raises, and `DatasetError` if a file is not the one of the table.
    """

    def write(path: Path) -> None:
        check_unchanged(recording)
        sound = analyse(load_audio(Path(recording.audio)), 24_000)
        beats = read_beats(Path(recording.beats)) if recording.beats else None
        if beats is None and recording.midi:
            beats = read_performance(Path(recording.midi)).beat_times
        write_json(path, [asdict(landmark) for landmark in landmarks(sound, beats=beats)])

    hashes = [recording.audio_sha256, recording.midi_sha256, recording.beats_sha256]
    key = fingerprint({"stage": stages.LANDMARKS, "files": hashes})
    stored = cached(cache, "landmarks", key, ".json", write)
    return [Landmark(**facts) for facts in read_json(stored)]


def landmarks(sound: Sound, *, beats: Float | None = None) -> list[Landmark]:
    """Return the landmarks of a recording in the order of time; none where hardly anything sounds.

    With ``beats`` (s, increasing), ends of phrases are found by their tempo.
    """
    if len(sound.onsets) < 4:
        return []
    times, series = curves(sound)
    found = _climaxes(times, series["climax"]) + _boundaries(sound, times, series)
    found += _phrase_ends(sound.onsets, times, series["loudness"], beats)
    return sorted(found, key=lambda landmark: (landmark.time_s, landmark.kind))


def contour_distance(one: Landmark, other: Landmark, contour: str) -> float:
    """Return how differently two climaxes rise or fall, by one of `CONTOURS`.

    The root mean square difference, and `OCTAVE` for each octave by which one lasts longer.
    """
    edge = "start_s" if contour == BUILD_UP else "end_s"
    lengths = [abs(landmark.time_s - getattr(landmark, edge)) for landmark in (one, other)]
    shapes = np.subtract(getattr(one, contour), getattr(other, contour))
    return float(np.sqrt(np.mean(shapes**2)) + OCTAVE * abs(np.log2(lengths[0] / lengths[1])))


def curves(sound: Sound) -> tuple[Float, dict[str, Float]]:
    """Return times from the first onset to the last, s, and what is heard at each [shape=(n,)].

    Loudness in dBFS, density in onsets per second and its logarithm, register in octaves, tension,
    and ``climax``: the curve whose peaks are climaxes, in standard deviations.
    """
    first, last = sound.onsets[[0, -1]] if len(sound.onsets) else (0.0, sound.duration)
    times = np.arange(first, last + 0.5 / RATE, 1 / RATE)
    middles = np.arange(len(sound.loudness)) / LOUDNESS_RATE + LOUDNESS_WINDOW_S / 2
    level = np.interp(times, middles, np.nan_to_num(sound.loudness, nan=FLOOR_DBFS))
    counts = np.histogram(sound.onsets, np.append(times, times[-1] + 1 / RATE) - 0.5 / RATE)[0]
    density = gaussian_filter1d(counts * RATE, RATE, mode="constant")
    density /= gaussian_filter1d(np.ones(len(times)), RATE, mode="constant")
    series = {
        "loudness": np.maximum(level, level.max() - RANGE_DB),
        "density": density,
        "log_density": np.log(density + LEAST["log_density"]),
        "register": _at(
            times, np.log2(np.where(sound.centroid > 0, sound.centroid, np.nan)), sound.frame_rate
        ),
        "tension": _at(times, tension_series(sound.chroma, sound.frame_rate), sound.frame_rate),
    }
    parts = [weight * _standardised(series[name], name) for name, weight in WEIGHTS.items()]
    climax = np.sum(parts, axis=0) / sum(WEIGHTS.values())
    series["climax"] = gaussian_filter1d(climax, CLIMAX_SMOOTHING_S * RATE, mode="nearest")
    return times, series


def _at(times: Float, series: Float, frame_rate: float) -> Float:
    """Return a series of frames at some times; gaps are bridged."""
    centres = (np.arange(len(series)) + 2) / frame_rate
    defined = np.isfinite(series)
    return np.interp(times, centres[defined], series[defined]) if defined.any() else 0 * times


def _standardised(series: Float, name: str) -> Float:
    return np.asarray((series - series.mean()) / np.hypot(series.std(), LEAST[name]))


def _climaxes(times: Float, curve: Float) -> list[Landmark]:
    peaks, facts = find_peaks(curve, prominence=MIN_HILL)
    bounds = [0, *peaks, len(curve) - 1]
    found = []
    for i, peak in enumerate(peaks):
        prominence = facts["prominences"][i].item()
        if prominence >= MIN_PROMINENCE:
            before, build_up = _slope(curve[bounds[i] : peak + 1][::-1])
            after, release = _slope(curve[peak : bounds[i + 2] + 1])
            time_s, start_s, end_s = times[[peak, peak - before, peak + after]].tolist()
            contours = build_up[::-1], release
            found.append(Landmark(CLIMAX, time_s, prominence, start_s, end_s, *contours))
    return found


def _slope(curve: Float) -> tuple[int, list[float]]:
    """Return how far from its start a curve, which falls from a peak, has its foot; and how."""
    valley = curve.min()
    foot = int(np.argmax(curve <= valley + FOOT * (curve[0] - valley)))
    part = np.interp(np.linspace(0, foot, CONTOUR_VALUES), np.arange(foot + 1), curve[: foot + 1])
    return foot, ((part - part.min()) / np.ptp(part)).tolist()


def _boundaries(sound: Sound, times: Float, series: Mapping[str, Float]) -> list[Landmark]:
    chroma = sound.chroma / np.maximum(sound.chroma.sum(axis=1, keepdims=True), 1e-9)
    columns = [(name, 1, series[name]) for name in ("log_density", "loudness")]
    for name, frames in (("mfcc", sound.mfcc.T), ("chroma", chroma.T)):
        columns += [(name, len(frames), _at(times, its, sound.frame_rate)) for its in frames]
    # Timbre, harmony, density and loudness count alike, however many numbers each has.
    texture = [
        _standardised(gaussian_filter1d(column, TEXTURE_SMOOTHING_S * RATE), name) / np.sqrt(number)
        for name, number, column in columns
    ]
    curve = np.nan_to_num(novelty(np.stack(texture, axis=1), RATE, BOUNDARY_REACH_S))
    edge, apart = round(BOUNDARY_REACH_S / 2 * RATE), BOUNDARY_REACH_S * RATE
    curve[:edge] = curve[-edge:] = 0.0
    peaks, _ = find_peaks(curve, prominence=MIN_NOVELTY, distance=apart)
    nearest = np.abs(sound.onsets - times[peaks, None]).argmin(axis=1)
    places = zip(sound.onsets[nearest].tolist(), curve[peaks].tolist(), strict=True)
    return [Landmark(BOUNDARY, time_s, strength, time_s, time_s) for time_s, strength in places]


def _phrase_ends(
    onsets: Float, times: Float, loudness: Float, beats: Float | None
) -> list[Landmark]:
    around = uniform_filter1d(loudness, round(AROUND_S * RATE), mode="nearest")
    before = uniform_filter1d(loudness, round(BEFORE_S * RATE), mode="nearest")
    dip = np.interp(onsets, times, around) - np.interp(onsets - BEFORE_S / 2, times, before)
    slowing = _slowing(onsets, beats)
    evidence = (_standardised(dip, "dip") + _standardised(slowing, "slowing")) / np.sqrt(2)
    inside = (onsets >= onsets[0] + EDGE_S) & (onsets <= onsets[-1] - EDGE_S)
    good = inside & (dip > 0) & (slowing > 0) & (evidence >= MIN_STRENGTH)
    found: list[Landmark] = []
    for i in np.flatnonzero(good)[np.argsort(-evidence[good])]:
        time_s = onsets[i].item()
        if all(abs(time_s - other.time_s) >= APART_S for other in found):
            found.append(Landmark(PHRASE_END, time_s, evidence[i].item(), time_s, time_s))
    return found


def _slowing(onsets: Float, beats: Float | None) -> Float:
    """Return how much longer than others the last beat (or spacing) before each onset is, log."""
    if beats is None:
        spacing = np.log(np.diff(onsets))
        return np.append(0.0, spacing - uniform_filter1d(spacing, SPACINGS, mode="nearest"))
    periods = np.log(np.diff(beats))
    before = uniform_filter1d(periods, BEATS_BEFORE, mode="nearest", origin=BEATS_BEFORE // 2 - 1)
    slowing = np.concatenate([[0.0], periods[1:] - before[:-1], [0.0]])
    # An onset hardly before a beat comes after the beat that ends there; outside there is none.
    last = np.searchsorted(beats, onsets + BEAT_TOLERANCE_S, side="right") - 2
    return slowing[np.where((last >= 0) & (last < len(periods)), last, -1)]
