"""Descriptors: an encoder of defined numbers, without torch and without weights.

The numbers of a window come in families, which are this encoder's layers; the last layer, ``all``,
has all of them. docs/descriptors.md says what each number is, and where it comes from. Levels are
dBFS; what is softer than `FLOOR` counts as being there, so that every number is finite.
"""

__all__ = ["FAMILIES", "DescriptorEngine", "describe"]

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.fft
from numpy.polynomial.legendre import legfit
from scipy.ndimage import maximum_filter1d, uniform_filter1d
from scipy.signal import find_peaks, get_window
from scipy.sparse import csr_array

from mess_core.errors import EncoderError
from mess_core.extraction.encoder import Output
from mess_core.extraction.specs import DESCRIPTORS, MODELS

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
#: By group of numbers: its unit, and the numbers in it.
Family = dict[str, tuple[float, "npt.ArrayLike"]]

SAMPLE_RATE = MODELS[DESCRIPTORS].sample_rate
HOP, FRAME, LONG_FRAME = 256, 2048, 8192
FRAME_RATE = SAMPLE_RATE / HOP
#: The short spectrum's frequencies, and its window, with which a full-scale sine has power 1.
HERTZ = np.arange(FRAME // 2 + 1) * SAMPLE_RATE / FRAME
HANN = (get_window("hann", FRAME) * 4 / FRAME).astype(np.float32)
#: dBFS; what is less than `AUDIBLE` counts as no key that sounds.
FLOOR, AUDIBLE = -80.0, -75.0
#: The shortest window, s: the long frame has to be mirrored at its ends.
SHORTEST_S = 0.5

BANDS, MFCCS, KEYS = 40, 13, 88
#: How long a key's kernel is in periods of its tone, by what would part two keys.
KERNEL_LENGTH = 0.7 / (2 ** (1 / 12) - 1)
SHORTEST_KERNEL = 512
#: Borders of four ranges of keys: C3, C4 and C5.
RANGES = (0, 27, 39, 51, KEYS)

#: A rise in dB of a key within `RISE_FRAMES` (32 ms) that is its onset, and how far below the
#: loudest key, then and in the window, it may end.
RISE_DB, RISE_FRAMES, ONSET_RANGE_DB = 8.0, 3, 30.0
#: Times after an onset at which a level is read, s: of a key, and of the whole sound.
KEY_AFTER_S, AFTER_S = (0.12, 0.25, 0.45, 0.8), (0.15, 0.3, 0.5)
#: Lags of the autocorrelation of onset strength, s.
LAGS_S = np.geomspace(0.15, 1.6, 24)
#: Hz: borders of the bands of modulation of onset strength, and of level.
STRENGTH_HZ, LEVEL_HZ = np.geomspace(0.5, 16, 11), np.array([0.25, 0.5, 1, 2, 4, 8, 16])
#: Weights of the tonal interval vector (Bernardes et al. 2016, for audio).
TIV_WEIGHTS = np.array([2, 11, 17, 16, 19, 7.0])
#: How much the families count beside timbre and harmony in the layer ``all``. Chosen on half of
#: the works of ASAP: 1 finds the same passage by another player with an MRR of .86, 0.1 with .94.
PLAYING_WEIGHT = 0.1


@dataclass(frozen=True)
class _Heard:
    """What all families are made of; T frames.

    ``power`` [T, bins] is the short spectrum's, ``bands`` [T, BANDS] and ``keys`` [T, KEYS] are dB,
    and ``level`` [T] is that of the whole frame, dB.
    """

    power: Floats
    bands: Doubles
    keys: Doubles
    level: Doubles
    seconds: float

    @cached_property
    def strength(self) -> Doubles:
        """Onset strength: the mean rise of the bands over two frames (21 ms), dB."""
        rises = np.maximum(self.bands[2:] - self.bands[:-2], 0).mean(axis=1)
        return np.concatenate([np.zeros(2), rises])

    @cached_property
    def onsets(self) -> Ints:
        """Frames in which onset strength is at least 1 dB above its mean over half a second."""
        around = uniform_filter1d(self.strength, int(0.5 * FRAME_RATE) | 1)
        return np.asarray(find_peaks(self.strength - around, height=1.0, distance=5)[0])

    def within(self, decibels: float) -> npt.NDArray[np.bool_]:
        """Say which keys are audible and so close to the frame's loudest [T, KEYS]."""
        loudest = self.keys.max(axis=1, keepdims=True)
        return np.asarray((self.keys > loudest - decibels) & (self.keys > AUDIBLE))


def _hear(samples: Floats) -> _Heard:
    centred = samples - samples.mean(dtype=np.float64).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(centred, FRAME)[::HOP]
    power = np.square(np.abs(scipy.fft.rfft(frames * HANN, axis=1)))
    mirrored = np.pad(centred, (LONG_FRAME - FRAME) // 2, mode="reflect")
    long = np.lib.stride_tricks.sliding_window_view(mirrored, LONG_FRAME)[::HOP]
    kernels = _kernels()
    keys = np.abs(kernels @ scipy.fft.rfft(long, axis=1)[:, : kernels.shape[1]].T).T
    return _Heard(
        power,
        _decibels(power @ _mel_filters()),
        _decibels(np.square(keys)),
        _decibels(np.einsum("ij,ij->i", frames, frames, dtype=np.float64) / FRAME),
        len(samples) / SAMPLE_RATE,
    )


def _decibels(power: npt.ArrayLike) -> Doubles:
    return np.asarray(10 * np.log10(np.maximum(power, 10 ** (FLOOR / 10))), np.float64)


@lru_cache(maxsize=1)
def _mel_filters() -> Floats:
    mel = 2595 * np.log10(1 + HERTZ / 700)
    edges = np.linspace(0, mel[-1], BANDS + 2)
    rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    return np.asarray(np.maximum(np.minimum(rising, falling), 0), np.float32)


@lru_cache(maxsize=1)
def _kernels() -> csr_array:
    """Return what makes keys of a long spectrum's lower bins [KEYS, bins]; full scale is 1."""
    rows = np.zeros((KEYS, LONG_FRAME // 2 + 1), np.complex64)
    middle = LONG_FRAME // 2
    for key, hertz in enumerate(27.5 * 2 ** (np.arange(KEYS) / 12)):
        length = KERNEL_LENGTH * SAMPLE_RATE / hertz
        half = int(np.clip(length, SHORTEST_KERNEL, LONG_FRAME)) // 2
        times = np.arange(-half, half)
        window = 1 + np.cos(np.pi * times / half)
        atom = np.zeros(LONG_FRAME, np.complex128)
        atom[middle - half : middle + half] = window * np.exp(
            2j * np.pi * hertz / SAMPLE_RATE * times
        )
        row = np.conj(np.fft.fft(atom))[: middle + 1] * 2 / window.sum() / LONG_FRAME
        rows[key] = np.where(np.abs(row) < 0.01 * np.abs(row).max(), 0, row)
    return csr_array(rows[:, : np.flatnonzero(rows.any(axis=0))[-1] + 1])


def _both(values: Doubles) -> list[float]:
    return [float(values.mean()), float(values.std())]


def _quantiles(values: Doubles, *shares: float) -> list[float]:
    """Return quantiles, 0 where there are no values."""
    return np.quantile(values, shares).tolist() if values.size else [0.0] * len(shares)


def _modulation(series: Doubles, borders: Doubles) -> Doubles:
    """Return the power of a series in bands of frequency."""
    spectrum = np.abs(np.fft.rfft(series * np.hanning(len(series)), 1024)) ** 2 / len(series)
    hertz = np.arange(len(spectrum)) * FRAME_RATE / 1024
    return np.array([spectrum[(hertz >= a) & (hertz < b)].sum() for a, b in pairwise(borders)])


def _contour(series: Doubles, degree: int) -> Doubles:
    """Return a series' Legendre coefficients from 1 on: slope, curvature, ..."""
    return np.asarray(legfit(np.linspace(-1, 1, len(series)), series, degree)[1:])


def _intervals(onsets: Ints) -> list[float]:
    """Return mean, spread and mean change of the logarithms of inter-onset intervals, octaves."""
    logs = np.log2(np.diff(onsets) / FRAME_RATE)
    mean, spread = _both(logs) if logs.size else (1.0, 0.0)
    return [mean, spread, float(np.abs(np.diff(logs)).mean()) if logs.size > 1 else 0.0]


def _timbre(heard: _Heard) -> Family:
    power, hertz = heard.power, HERTZ
    total = power.sum(axis=1) + 1e-12
    centroid = power @ hertz / total
    width = np.sqrt(np.maximum(power @ hertz**2 / total - centroid**2, 0))
    below = (np.cumsum(power, axis=1) < 0.85 * total[:, None]).sum(axis=1)
    audible = power[:, 3:] + 1e-10
    flatness = np.log(audible).mean(axis=1) - np.log(audible.mean(axis=1))
    shapes = [
        *(np.log2(np.maximum(v, 20) / 440) for v in (centroid, hertz[below.clip(max=FRAME // 2)])),
        np.log2(1 + width / 440),
        flatness / np.log(10),
    ]
    cepstrum = scipy.fft.dct(heard.bands, axis=1, norm="ortho")[:, 1:MFCCS]
    return {
        "mel_mean": (10, heard.bands.mean(axis=0)),
        "mel_spread": (4, heard.bands.std(axis=0)),
        "mfcc_spread": (3, cepstrum.std(axis=0)),
        "shape": (0.4, [each for shape in shapes for each in _both(shape)]),
    }


def _harmony(heard: _Heard) -> Family:
    peaks = (heard.keys >= maximum_filter1d(heard.keys, 3, axis=1)) & (heard.keys > AUDIBLE)
    amplitude = np.where(peaks, 10 ** (heard.keys / 20), 0.0)
    # Key 0 is A.
    pitch_classes = np.eye(12)[(np.arange(KEYS) + 9) % 12]
    chroma = _shares(amplitude @ pitch_classes)
    together = _shares(amplitude.sum(axis=0) @ pitch_classes)
    tonal = _tonal(chroma)
    changes = []
    for seconds in (0.1, 0.3, 0.8):
        lag = min(round(seconds * FRAME_RATE), len(tonal) - 1)
        changes += _both(np.linalg.norm(tonal[lag:] - tonal[:-lag], axis=1))
    keys, share = np.arange(KEYS), _shares(amplitude.sum(axis=0))
    centre = share @ keys
    spread = np.sqrt(share @ (keys - centre) ** 2)
    return {
        "key_level": (5, heard.keys.mean(axis=0)),
        "chroma_mean": (0.07, together),
        "chroma_spread": (0.07, chroma.std(axis=0)),
        "tonal_of_mean": (1.5, np.abs(_tonal(together))),
        "tonal_mean": (1.5, np.abs(tonal).mean(axis=0)),
        "tonal_change": (3, changes),
        "pitch": (4, [centre, spread, (_shares(amplitude) @ keys).std()]),
    }


def _shares(values: Doubles) -> Doubles:
    return np.asarray(values / np.maximum(values.sum(axis=-1, keepdims=True), 1e-9))


def _tonal(chroma: Doubles) -> npt.NDArray[np.complex128]:
    return np.asarray(np.fft.fft(chroma, axis=-1)[..., 1:7] * TIV_WEIGHTS)


def _rhythm(heard: _Heard) -> Family:
    strength = heard.strength
    centred = strength - strength.mean()
    lags = np.round(LAGS_S * FRAME_RATE).astype(int)
    products = [float(centred[lag:] @ centred[:-lag]) if lag < len(centred) else 0 for lag in lags]
    rate = np.log2(1 + len(heard.onsets) / heard.seconds)
    return {
        "autocorrelation": (0.18, np.divide(products, centred @ centred + 1e-9)),
        "strength": (0.4, [*_both(strength), *_quantiles(strength, 0.5, 0.8, 0.95)]),
        "intervals": (0.5, [rate, *_intervals(heard.onsets)]),
        "modulation": (0.5, np.log10(_modulation(centred, STRENGTH_HZ) + 1e-3)),
    }


def _dynamics(heard: _Heard) -> Family:
    level, loudest = heard.level, heard.keys.max(axis=1)
    quantiles = _quantiles(level, 0.05, 0.25, 0.5, 0.75, 0.95)
    mean_power = float(_decibels((10 ** (level / 10)).mean()))
    steady = level - np.polyval(np.polyfit(np.arange(len(level)), level, 1), np.arange(len(level)))
    return {
        "level": (8, [level.mean(), mean_power, *quantiles]),
        "spread": (5, [level.std(), *(quantiles[-1] - q for q in quantiles[:-1])]),
        "contour": (4, _contour(level, 6)),
        "loudest_key": (5, [*_both(loudest), *_contour(loudest, 2)]),
        "modulation": (0.5, np.log10(_modulation(steady, LEVEL_HZ) + 1e-2)),
    }


def _articulation(heard: _Heard) -> Family:
    level, change = heard.level, np.diff(heard.bands, axis=0)
    up, down = (np.maximum(sign * change, 0).mean(axis=1) for sign in (1, -1))
    below_loud = np.quantile(level, 0.95) - level
    attacks, lost, dips = [], [], []
    after = np.round(np.array(AFTER_S) * FRAME_RATE).astype(int)
    for onset, following in pairwise([*heard.onsets, len(level)]):
        before, begun = level[max(0, onset - 6) : onset + 1], level[max(0, onset - 6) : onset + 8]
        attacks.append([begun.max() - before.min(), np.diff(begun).max()])
        top = level[onset : min(following, onset + 12)].max()
        at = onset + after
        lost.append(np.where(at < following, top - level[np.minimum(at, len(level) - 1)], np.nan))
        if following < len(level):
            dips.append(top - level[max(onset, following - 10) : following].min())
    rises = np.reshape(attacks, (-1, 2)) if attacks else np.zeros((1, 2))
    return {
        "flux": (0.15, [*_both(up), *_both(down), *_quantiles(down, 0.2, 0.5, 0.8, 0.95)]),
        "gaps": (0.12, [(below_loud > decibels).mean() for decibels in (10, 15, 20, 30, 40)]),
        "attack": (3, [*rises.mean(axis=0), *rises.std(axis=0), *np.quantile(rises, 0.8, axis=0)]),
        "lost": (4, _medians(np.reshape(lost, (-1, len(AFTER_S))))),
        "dips": (4, _quantiles(np.array(dips), 0.2, 0.5, 0.8)),
    }


def _medians(values: Doubles) -> list[float]:
    """Return the medians of columns of what is defined, 0 where nothing is."""
    return [_quantiles(column[~np.isnan(column)], 0.5)[0] for column in values.T]


def _space(heard: _Heard) -> Family:
    ranges, power = [], 10 ** (heard.keys / 10)
    for first, end in pairwise(RANGES):
        level = _decibels(power[:, first:end].sum(axis=1))
        change = np.diff(level)
        low, soft, middle, loud = _quantiles(level, 0.05, 0.2, 0.5, 0.95)
        ringing = change[uniform_filter1d((change < 0).astype(np.float64), 9) > 0.85]
        ranges += [level.mean() / 2, level.std(), (middle - low), (loud - soft)]
        ranges += [8 * np.maximum(sign * change, 0).mean() for sign in (-1, 1)]
        ranges.append(-ringing.mean() * FRAME_RATE / 3 if ringing.size else 0.0)
    counts = [heard.within(decibels).sum(axis=1) for decibels in (15, 25, 35)]
    return {
        "ranges": (5, ranges),
        "sounding": (4, [each for n in counts for each in (*_both(n), *_quantiles(n, 0.1))]),
    }


def _keys(heard: _Heard) -> Family:
    keys, frames = heard.keys, len(heard.keys)
    rise = np.zeros_like(keys)
    rise[RISE_FRAMES:] = keys[RISE_FRAMES:] - keys[:-RISE_FRAMES]
    struck = (rise > RISE_DB) & (rise >= maximum_filter1d(rise, 7, axis=0))
    struck &= heard.within(ONSET_RANGE_DB) & (keys > keys.max() - ONSET_RANGE_DB)
    # By key, then by time: where a key is struck next is the next row, if that is of the same key.
    key, at = np.nonzero(struck.T)
    following = np.where(np.diff(key, append=-1) == 0, np.roll(at, -1), frames)
    top = maximum_filter1d(keys, 8, axis=0, origin=-4)[at, key]
    lost = np.full((len(KEY_AFTER_S), len(at)), np.nan)
    for row, seconds in zip(lost, KEY_AFTER_S, strict=True):
        later = at + round(seconds * FRAME_RATE)
        rings = (later < frames) & (later < following)
        row[rings] = top[rings] - keys[later[rings], key[rings]]
    defined = [row[~np.isnan(row)] for row in lost]
    low = key < RANGES[2]
    change = np.diff(keys, axis=0)[heard.within(25)[:-1]]
    cells = [change < -0.5, change < -1.5, change < -3, change > 1.5]
    frame = np.unique(at)
    chords = np.split(frame, np.flatnonzero(np.diff(frame) > 4) + 1)
    first = np.array([chord[0] for chord in chords if chord.size], np.intp)
    spread = [np.log2(1 + chord[-1] - chord[0]) for chord in chords if chord.size] or [0]
    counts = [len(at) / heard.seconds, len(first) / heard.seconds, len(at) / max(len(first), 1)]
    onsets = [*np.log2(1 + np.array(counts)), *_intervals(first), np.mean(spread)]
    struck_at = _both(top if top.size else np.full(1, FLOOR))
    return {
        "lost": (4, [q for row in defined for q in _quantiles(row, 0.2, 0.5, 0.8)]),
        "lost_by_range": (5, [*_medians(lost[:, low].T), *_medians(lost[:, ~low].T)]),
        "cells": (0.05, [float(cell.mean()) if cell.size else 0.0 for cell in cells]),
        "onsets": (0.7, onsets),
        "struck": (5, [*struck_at, *_quantiles(top, 0.2, 0.5, 0.8)]),
    }


#: What makes each family; their order is that of the layers.
_MAKERS = (_timbre, _harmony, _rhythm, _dynamics, _articulation, _space, _keys)
FAMILIES = dict(zip(MODELS[DESCRIPTORS].layer_names, _MAKERS, strict=False))


def describe(samples: Floats) -> dict[str, dict[str, Doubles]]:
    """Return the numbers of a window of mono samples [shape=(n,)] at 24 kHz.

    By family and group of numbers, in units that make their spread over piano music about 1.
    Raises an EncoderError for less than half a second.
    """
    if len(samples) < SHORTEST_S * SAMPLE_RATE:
        raise EncoderError(
            f"a window has {len(samples) / SAMPLE_RATE:g} s; descriptors need at least "
            f"{SHORTEST_S:g} s: set a longer window_s"
        )
    heard = _hear(np.asarray(samples, np.float32))
    return {
        name: {
            group: np.atleast_1d(np.asarray(values, np.float64)) / unit
            for group, (unit, values) in family(heard).items()
        }
        for name, family in FAMILIES.items()
    }


class DescriptorEngine:
    """Runs `describe`, on one CPU thread; see `mess_core.extraction.encoder.Engine`."""

    name = f"numpy {np.__version__}"
    device = "cpu"
    precision = "float32"

    def run(self, windows: Floats, *, raw: bool = False) -> Output:
        """Return the layers of windows [shape=(n, samples)], filled up with 0; has no frames."""
        if raw:
            raise EncoderError("descriptors describe whole windows and have no frames")
        return Output(np.stack([_layers(window) for window in windows]), None)


def _layers(window: Floats) -> Floats:
    families = {name: np.concatenate([*of.values()]) for name, of in describe(window).items()}
    layers = np.zeros((len(families) + 1, sum(map(len, families.values()))), np.float32)
    for layer, numbers in zip(layers, families.values(), strict=False):
        layer[: len(numbers)] = numbers
    weights = {"timbre": 1.0, "harmony": 1.0}
    weighted = [weights.get(name, PLAYING_WEIGHT) * of for name, of in families.items()]
    layers[-1] = np.concatenate(weighted)
    return layers
