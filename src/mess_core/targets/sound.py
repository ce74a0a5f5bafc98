"""Audio as the series that the audio targets are made of.

`analyse` turns samples into a `Sound`, once: one spectrogram serves all series. `Sound.cut` takes
the part of them that lies in a window, so that one function gives a target of the recording and of
each of its windows.

Times are seconds. An offset from zero, steady or drifting, is removed first. Levels are dBFS:
``10 log10`` of the mean square of samples in [-1, 1], so a full-scale sine has -3.01 dBFS. They
are absolute: nothing is ever relative to the recording's own peak. What is softer than
`FLOOR_DBFS` is inaudible: NaN in every series that describes a sound.

Analysis frames are 85 ms long every 21 ms (2048 and 512 samples at 24 kHz) and lie wholly inside
the recording. What a series has in a window is what it has there in the recording: the frames that
lie wholly inside the window, by the recording's grid; onsets, fades and the local tempo as they
were heard in their surroundings. Measured on the window's samples alone they differ near its edges
(up to 0.4 s for onsets, 3 s for the local tempo), and so does a frame's place, by up to 21 ms.
"""

__all__ = [
    *("FLOOR_DBFS", "LOUDNESS_RATE", "MEL_BANDS", "MFCCS"),
    *("Sound", "analyse", "momentary_loudness"),
]

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.signal
from scipy.ndimage import uniform_filter1d

from mess_core.errors import AudioError
from mess_core.targets.articulation import fades, ringing
from mess_core.targets.curves import Float
from mess_core.targets.harmony import chroma_of_peaks
from mess_core.targets.rhythm import TEMPO_RATE, follow_pulse, onset_strength, onset_times
from mess_core.targets.timbre import mean_frequency, noise_gate, rolloff_frequency

Float32 = npt.NDArray[np.float32]

#: What is softer is inaudible: 12 dB above the noise of 16-bit dither (-93 dBFS) and more.
FLOOR_DBFS = -80.0

#: Frames per second of the spectral series.
FRAME_RATE = 24_000 / 512

#: A frame is this many hops long.
HOPS_PER_FRAME = 4

#: Momentary loudness: 400 ms (EBU Tech 3341), 10 values per second.
LOUDNESS_RATE = 10
LOUDNESS_WINDOW_S = 0.4

#: Values per second of the power that levels are made of.
FINE_RATE = 400

#: An onset's level is the highest mean of so much within so much after it, and so much before the
#: next, s.
PEAK_WINDOW_S = 0.02
PEAK_WITHIN_S = 0.15
PEAK_BEFORE_NEXT_S = 0.05

#: The noise is looked for in about so many frames.
NOISE_FRAMES = 400

#: The offset from zero is the mean of this time, taken twice, s: what is slower than about 0.5 Hz.
OFFSET_S = 1.0

#: Mel bands (SuperFlux and librosa use 128 or more for onsets; 40 do for piano).
MEL_BANDS = 40

#: Cosine coefficients of the mel levels (13 is the custom since Davis & Mermelstein 1980).
MFCCS = 13

_BLOCK_FRAMES = 256
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Sound:
    """The series of a mono recording, or of a window of it.

    Attributes
    ----------
    duration : float
        Seconds.
    frame_rate : float
        Frames per second of the spectral series.
    loudness : ndarray [shape=(n,)]
        Momentary loudness (400 ms) in dBFS, `LOUDNESS_RATE` per second, NaN where inaudible.
    centroid, rolloff : ndarray [shape=(frames,)]
        Spectral centroid and 85 % rolloff, Hz, NaN where nothing stands above the noise.
    chroma : ndarray [shape=(frames, 12)]
        Power by pitch class, from C to B, 0 where inaudible.
    mel_level : ndarray of float32 [shape=(frames, 40)]
        Level of each mel band, dB, at least `FLOOR_DBFS`.
    mfcc : ndarray of float32 [shape=(frames, 13)]
        Cosine transform (orthonormal DCT-II) of ``mel_level``.
    onset_strength : ndarray [shape=(frames,)]
        Mean rise in dB over mel bands, 0 where nothing rises.
    onsets : ndarray [shape=(n,)]
        Times of onsets, s, increasing.
    onset_levels : ndarray [shape=(n,)]
        Level that each onset reaches, dBFS, NaN where inaudible.
    fades : ndarray [shape=(n,)]
        How fast each onset's bands lose level until the next, dB/s, NaN where that is not known.
    ringing : ndarray [shape=(frames, 2)]
        How many mel bands sound, and how many of them are being damped.
    local_tempo : ndarray [shape=(n,)]
        Rate of the pulse in BPM, `TEMPO_RATE` per second, NaN where there is none.
    metrical_levels : ndarray [shape=(n, 5)]
        How strongly a third, a half, once, twice and three times that rate are heard.
    """

    duration: float
    frame_rate: float
    loudness: Float
    centroid: Float
    rolloff: Float
    chroma: Float
    mel_level: Float32
    mfcc: Float32
    onset_strength: Float
    onsets: Float
    onset_levels: Float
    fades: Float
    ringing: Float
    local_tempo: Float
    metrical_levels: Float

    def cut(self, start_s: float, stop_s: float) -> "Sound":
        """Return the series from one time to another, s; times count from ``start_s``."""
        frames = _within(start_s, stop_s, self.frame_rate, HOPS_PER_FRAME / self.frame_rate)
        onsets = slice(*np.searchsorted(self.onsets, (start_s, stop_s)))
        tempo = _within(start_s, stop_s, TEMPO_RATE, 0.0)
        parts = {name: getattr(self, name)[frames] for name in _FRAME_SERIES}
        return replace(
            self,
            duration=stop_s - start_s,
            loudness=self.loudness[_within(start_s, stop_s, LOUDNESS_RATE, LOUDNESS_WINDOW_S)],
            onsets=self.onsets[onsets] - start_s,
            onset_levels=self.onset_levels[onsets],
            fades=self.fades[onsets],
            local_tempo=self.local_tempo[tempo],
            metrical_levels=self.metrical_levels[tempo],
            **parts,
        )


_FRAME_SERIES = (
    *("centroid", "rolloff", "chroma", "mel_level", "mfcc", "onset_strength", "ringing"),
)


def _within(start_s: float, stop_s: float, rate: float, length_s: float) -> slice:
    """Return which values of a series, each about ``length_s`` from its time on, lie in a span."""
    # Times are sums of decimal fractions: what is at the edge up to rounding is inside.
    first = int(np.ceil(round(start_s * rate, 6)))
    last = int(np.floor(round((stop_s - length_s) * rate, 6)))
    return slice(first, max(first, last + 1))


def analyse(samples: npt.NDArray[np.float32], sample_rate: int) -> Sound:
    """Compute the series of a recording, empty where it is shorter than what they describe.

    Raises `AudioError` if the samples are not one-dimensional or not finite, or the rate is not
    positive.

    Parameters
    ----------
    samples : ndarray of float32 [shape=(n,)]
        Mono, in [-1, 1].
    sample_rate : int
        Samples per second. Spectral targets depend on it; the project uses 24,000.
    """
    if samples.ndim != 1:
        raise AudioError(f"samples have the shape {samples.shape}, expected mono [n]")
    if sample_rate <= 0:
        raise AudioError(f"the sample rate is {sample_rate}, expected a positive number")
    if not np.isfinite(samples).all():
        raise AudioError("samples hold values that are not finite; decode the file again")
    duration = len(samples) / sample_rate
    samples = _without_offset(np.asarray(samples, np.float32), sample_rate)
    hop = max(1, round(sample_rate / FRAME_RATE))
    frame_rate = sample_rate / hop
    power = _fine_power(samples, sample_rate)
    spectral, gate = _spectral(samples, sample_rate, hop)
    mel_level = spectral["mel_level"]
    strength = onset_strength(mel_level)
    frames: Any = {"frame_rate": frame_rate, "frame_s": HOPS_PER_FRAME / frame_rate}
    onsets = onset_times(strength, **frames)
    local_tempo, metrical_levels = follow_pulse(strength, onsets, duration, frame_rate)
    return Sound(
        duration=duration,
        frame_rate=frame_rate,
        loudness=_loudness(power),
        onset_strength=strength,
        onsets=onsets,
        onset_levels=_onset_levels(power, onsets),
        fades=fades(mel_level, gate, onsets, **frames),
        ringing=ringing(mel_level, gate),
        local_tempo=local_tempo,
        metrical_levels=metrical_levels,
        **spectral,
    )


def momentary_loudness(samples: npt.NDArray[np.float32], sample_rate: int) -> Float:
    """Return the ``loudness`` of `analyse` alone, for a small part of the time."""
    return _loudness(_fine_power(_without_offset(samples, sample_rate), sample_rate))


def _without_offset(samples: Float32, sample_rate: int) -> Float32:
    """Return the samples less their offset from zero, which may drift.

    The offset is the linear trend and a moving mean of the rest, taken twice, so that no phase
    changes (Yates & Lyons 2008, *DC blocker algorithms*). Of the lowest key of a piano (27.5 Hz)
    it takes less than 0.01 %.
    """
    length = max(1, round(sample_rate / FINE_RATE))
    whole = len(samples) // length * length
    if not whole:
        return samples
    bins = samples[:whole].reshape(-1, length)
    means = bins.mean(axis=1, dtype=np.float64)
    offset = scipy.signal.detrend(means)
    trend = means - offset
    for _ in range(2):
        offset = uniform_filter1d(offset, round(OFFSET_S * FINE_RATE) | 1)
    offset = (trend + offset).astype(np.float32)
    centred = np.empty_like(samples)
    np.subtract(
        samples[:whole].reshape(-1, length), offset[:, None], centred[:whole].reshape(-1, length)
    )
    centred[whole:] = samples[whole:] - offset[-1]
    return centred


def _fine_power(samples: Float32, sample_rate: int) -> Float:
    """Return the mean square of consecutive bins of samples, `FINE_RATE` per second."""
    edges = np.arange(int(len(samples) * FINE_RATE / sample_rate) + 1) / FINE_RATE
    starts = np.round(edges * sample_rate).astype(np.int64)
    if len(starts) < 2:
        return np.empty(0)
    sums = np.add.reduceat(np.square(samples[: starts[-1]]), starts[:-1])
    return sums.astype(np.float64) / np.diff(starts)


def _loudness(power: Float) -> Float:
    """Return the level of 400 ms, NaN where inaudible."""
    momentary = _moving_mean(power, round(LOUDNESS_WINDOW_S * FINE_RATE))
    return _audible(momentary[:: FINE_RATE // LOUDNESS_RATE])


def _onset_levels(power: Float, onsets: Float) -> Float:
    """Return the highest level soon after each onset, NaN where inaudible."""
    short = _moving_mean(power, round(PEAK_WINDOW_S * FINE_RATE))
    if not len(short):
        return np.full(len(onsets), np.nan)
    starts = np.minimum(np.round(onsets * FINE_RATE).astype(np.int64), len(short) - 1)
    following = np.append(starts[1:], len(short)) - round(PEAK_BEFORE_NEXT_S * FINE_RATE)
    stops = np.clip(following, starts + 1, starts + round(PEAK_WITHIN_S * FINE_RATE))
    # The last value stands for what is beyond it.
    bounds = np.stack([starts, np.minimum(stops, len(short))], axis=1).ravel()
    return _audible(np.maximum.reduceat(np.append(short, 0.0), bounds)[::2])


def _audible(power: npt.NDArray[np.floating]) -> Float:
    """Return dBFS of a power, NaN below the floor."""
    level = 10 * np.log10(np.maximum(power, _TINY))
    return np.asarray(np.where(level >= FLOOR_DBFS, level, np.nan), np.float64)


def _moving_mean(series: Float, length: int) -> Float:
    """Return the mean of every ``length`` neighbours, ``len(series) - length + 1`` values."""
    if len(series) < length:
        return np.empty(0)
    cumulative = np.concatenate([[0.0], np.cumsum(series)])
    return np.asarray(np.maximum(cumulative[length:] - cumulative[:-length], 0.0) / length)


def _spectral(samples: Float32, sample_rate: int, hop: int) -> tuple[dict[str, Any], Float32]:
    """Return the series by frame, and the level of each mel band above which sound stands out."""
    length = HOPS_PER_FRAME * hop
    frames = np.empty((0, length), np.float32)
    if len(samples) >= length:
        frames = np.lib.stride_tricks.sliding_window_view(samples, length)[::hop]
    frequencies = np.arange(length // 2 + 1) * np.float64(sample_rate / length)
    filters = _mel_filters(frequencies)
    some = frames[:: max(1, len(frames) // NOISE_FRAMES)]
    gate = noise_gate(np.square(_magnitude(some[np.isfinite(_audible(_mean_square(some)))])))
    # At least one block, so that series of no frames have their shapes.
    starts = range(0, max(len(frames), 1), _BLOCK_FRAMES)
    blocks = [_block(frames[i : i + _BLOCK_FRAMES], frequencies, filters, gate) for i in starts]
    series = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    audible = np.isfinite(_audible(series.pop("power")))
    for name in ("centroid", "rolloff"):
        series[name] = np.where(audible, series[name], np.nan)
    series["chroma"] = np.where(audible[:, None], series["chroma"], 0.0)
    series["mfcc"] = scipy.fft.dct(series["mel_level"], axis=1, norm="ortho")[:, :MFCCS]
    return series, _level(gate @ filters)


def _block(frames: Float32, frequencies: Float, filters: Float32, gate: Float32) -> dict[str, Any]:
    magnitude = _magnitude(frames)
    power = np.square(magnitude)
    above = np.where(power > gate, magnitude, 0)
    centroid = mean_frequency(above, frequencies)
    rolloff = rolloff_frequency(above, frequencies)
    return {
        "centroid": centroid,
        "rolloff": np.where(np.isfinite(centroid), rolloff, np.nan),
        "mel_level": _level(power @ filters),
        "chroma": chroma_of_peaks(magnitude, frequencies),
        "power": _mean_square(frames),
    }


def _magnitude(frames: Float32) -> Float32:
    return np.asarray(np.abs(scipy.fft.rfft(frames * _window(frames.shape[1]), axis=1)))


def _mean_square(frames: Float32) -> Float32:
    return np.asarray(np.einsum("ij,ij->i", frames, frames) / frames.shape[1])


def _level(power: Float32) -> Float32:
    """Return a power's level in dB, at least `FLOOR_DBFS`."""
    return np.asarray(10 * np.log10(np.maximum(power, np.float32(10 ** (FLOOR_DBFS / 10)))))


@lru_cache(maxsize=8)
def _window(length: int) -> Float32:
    """Return the Hann window that gives a sine of amplitude 1 on a bin the magnitude 1."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return np.asarray(hann * 2 / hann.sum(), np.float32)


def _mel_filters(frequencies: Float) -> Float32:
    """Return triangles, equally wide on O'Shaughnessy's mel scale [shape=(bins, MEL_BANDS)]."""
    mel = 2595 * np.log10(1 + frequencies / 700)
    edges = np.linspace(0, mel[-1], MEL_BANDS + 2)
    rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    return np.asarray(np.maximum(np.minimum(rising, falling), 0), np.float32)
