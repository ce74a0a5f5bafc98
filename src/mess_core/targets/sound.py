"""Audio as the series that the audio targets are made of.

`Sound` computes each series once, when it is first needed. Times are seconds. Levels are dBFS:
``10 log10`` of the mean square of samples in [-1, 1], so a full-scale sine has -3.01 dBFS. They
are absolute: nothing is ever relative to the recording's own peak.

What is softer than `FLOOR_DBFS` is inaudible: NaN in every series that describes a sound.

Analysis frames are 85 ms long every 21 ms (2048 and 512 samples at 24 kHz) and lie wholly inside
the recording.
"""

__all__ = ["FLOOR_DBFS", "LOUDNESS_RATE", "Sound"]

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.signal import find_peaks

from mess_core.targets import spectrum

Float = npt.NDArray[np.float64]

#: What is softer is inaudible: 12 dB above the noise of 16-bit dither (-93 dBFS) and more.
FLOOR_DBFS = -80.0

#: Frames per second of the spectral series.
FRAME_RATE = 24_000 / 512

#: A frame is this many hops long.
HOPS_PER_FRAME = 4

#: Values per second of the amplitude envelope, and the length of its window, s: short enough for
#: attacks, long enough to smooth the wave of all but the lowest notes.
ENVELOPE_RATE = 400
ENVELOPE_WINDOW_S = 0.01

#: Momentary loudness: 400 ms (EBU Tech 3341), 10 values per second.
LOUDNESS_RATE = 10
LOUDNESS_WINDOW_S = 0.4

#: Mel bands for onset detection (SuperFlux and librosa use 128 or more; 40 do for piano).
ONSET_BANDS = 40

#: An onset is a rise of at least this many dB, mean over bands, above the ordinary of the 0.4 s
#: around it, and at least 50 ms away from a stronger one. Measured: see docs/targets.md.
ONSET_RISE_DB = 0.5
ONSET_DISTANCE_S = 0.05
ONSET_CONTEXT_S = 0.4

_BLOCK_FRAMES = 256


@dataclass(frozen=True)
class Sound:
    """The series of a mono recording.

    Attributes
    ----------
    samples : ndarray of float32 [shape=(n,)]
        Mono samples in [-1, 1].
    sample_rate : int
        Samples per second.
    """

    samples: npt.NDArray[np.float32]
    sample_rate: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.sample_rate

    @cached_property
    def envelope(self) -> Float:
        """RMS amplitude of 10 ms, `ENVELOPE_RATE` per second."""
        window = round(ENVELOPE_WINDOW_S * ENVELOPE_RATE)
        return np.sqrt(_moving_mean(self._fine_power, window)) if len(self._fine_power) else _EMPTY

    @cached_property
    def _fine_power(self) -> Float:
        """Mean square of consecutive bins, `ENVELOPE_RATE` per second."""
        edges = np.arange(0, int(self.duration * ENVELOPE_RATE) + 1) / ENVELOPE_RATE
        starts = np.round(edges * self.sample_rate).astype(np.int64)
        if len(starts) < 2:
            return _EMPTY
        squares = np.square(self.samples[: starts[-1]])
        sums = np.add.reduceat(squares, starts[:-1])
        return sums.astype(np.float64) / np.diff(starts)

    @cached_property
    def loudness(self) -> Float:
        """Momentary loudness in dBFS, `LOUDNESS_RATE` per second, NaN where inaudible."""
        bins = round(LOUDNESS_WINDOW_S * ENVELOPE_RATE)
        if len(self._fine_power) < bins:
            return _EMPTY
        step = ENVELOPE_RATE // LOUDNESS_RATE
        cumulative = np.concatenate([[0.0], np.cumsum(self._fine_power)])
        power = (cumulative[bins:] - cumulative[:-bins])[::step] / bins
        return _audible(power)

    @cached_property
    def _hop(self) -> int:
        return max(1, round(self.sample_rate / FRAME_RATE))

    @property
    def frame_rate(self) -> float:
        """Frames per second of the spectral series."""
        return self.sample_rate / self._hop

    @cached_property
    def _frames(self) -> npt.NDArray[np.float32]:
        length = HOPS_PER_FRAME * self._hop
        if len(self.samples) < length:
            return np.empty((0, length), np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(self.samples, length)
        return windows[:: self._hop]

    @cached_property
    def _spectral(self) -> dict[str, Float]:
        length = HOPS_PER_FRAME * self._hop
        bins = np.arange(length // 2 + 1, dtype=np.float64)
        frequencies = bins * np.float64(self.sample_rate / length)
        filters = spectrum.mel_filters(frequencies, bands=ONSET_BANDS)
        blocks: list[dict[str, Float]] = []
        for start in range(0, len(self._frames), _BLOCK_FRAMES):
            frames = self._frames[start : start + _BLOCK_FRAMES]
            magnitude = spectrum.magnitudes(frames)
            centroid, bandwidth = spectrum.centroid_and_bandwidth(magnitude, frequencies)
            blocks.append(
                {
                    "centroid": centroid,
                    "bandwidth": bandwidth,
                    "rolloff": spectrum.rolloff(magnitude, frequencies),
                    "mel": (np.square(magnitude) @ filters).astype(np.float64),
                    "chroma": spectrum.chroma(magnitude, frequencies),
                    "power": np.einsum("ij,ij->i", frames, frames) / frames.shape[1],
                }
            )
        return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}

    def _series(self, name: str) -> Float:
        if not len(self._frames):
            return _EMPTY
        return np.where(self._audible_frames, self._spectral[name], np.nan)

    @cached_property
    def _audible_frames(self) -> npt.NDArray[np.bool_]:
        return np.isfinite(_audible(self._spectral["power"]))

    @cached_property
    def centroid(self) -> Float:
        """Spectral centroid per frame, Hz, NaN where inaudible."""
        return self._series("centroid")

    @cached_property
    def bandwidth(self) -> Float:
        """Spectral bandwidth per frame, Hz, NaN where inaudible."""
        return self._series("bandwidth")

    @cached_property
    def rolloff(self) -> Float:
        """Spectral rolloff per frame, Hz, NaN where inaudible."""
        return self._series("rolloff")

    @cached_property
    def zero_crossings(self) -> Float:
        """Share of sample pairs with a change of sign per frame, NaN where inaudible."""
        if not len(self._frames):
            return _EMPTY
        negative = np.signbit(self.samples)
        changed = np.concatenate([[False], negative[1:] != negative[:-1]])
        hops = len(changed) // self._hop
        per_hop = changed[: hops * self._hop].reshape(hops, self._hop).sum(axis=1)
        share = _moving_mean(per_hop / self._hop, HOPS_PER_FRAME)[: len(self._frames)]
        return np.where(self._audible_frames, share, np.nan)

    @cached_property
    def chroma(self) -> Float:
        """Power by pitch class per frame [frames, 12], 0 where inaudible."""
        if not len(self._frames):
            return np.empty((0, 12))
        return np.where(self._audible_frames[:, None], self._spectral["chroma"], 0.0)

    @cached_property
    def onset_strength(self) -> Float:
        """Mean rise in dB over mel bands, per frame, 0 where nothing rises."""
        if not len(self._frames):
            return _EMPTY
        level = 10 * np.log10(np.maximum(self._spectral["mel"], 10 ** (FLOOR_DBFS / 10)))
        rise = np.maximum(np.diff(level, axis=0), 0).mean(axis=1)
        return np.asarray(np.concatenate([[0.0], rise]))

    @cached_property
    def onsets(self) -> Float:
        """Times of onsets, s, increasing."""
        if not len(self.onset_strength):
            return _EMPTY
        context = round(ONSET_CONTEXT_S * self.frame_rate) | 1
        ordinary = _moving_mean(np.pad(self.onset_strength, context // 2), context)
        distance = max(1, round(ONSET_DISTANCE_S * self.frame_rate))
        excess = self.onset_strength - ordinary
        peaks, _ = find_peaks(excess, height=ONSET_RISE_DB, distance=distance)
        # A rise is seen when the new sound reaches the middle of the window.
        return np.asarray((peaks + 0.5 * HOPS_PER_FRAME) / self.frame_rate, np.float64)


_EMPTY: Float = np.empty(0)


def _audible(power: Float) -> Float:
    """Return dBFS of a power, NaN below the floor."""
    level = 10 * np.log10(np.maximum(power, np.finfo(np.float64).tiny))
    return np.asarray(np.where(level >= FLOOR_DBFS, level, np.nan), np.float64)


def _moving_mean(series: Float, length: int) -> Float:
    """Return the mean of every ``length`` neighbours, ``len(series) - length + 1`` values."""
    if len(series) < length:
        return _EMPTY
    cumulative = np.concatenate([[0.0], np.cumsum(series)])
    return np.asarray(np.maximum(cumulative[length:] - cumulative[:-length], 0.0) / length)
