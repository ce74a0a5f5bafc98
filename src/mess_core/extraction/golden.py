"""A fixed signal on which models and engines are compared, and what they make of it.

On the same four windows everywhere an engine is compared with transformers' model in float32, half
precision is admitted or not, and a model shows whether it is the one that somebody else has.
"""

__all__ = ["Agreement", "check_windows", "compare", "golden_hash"]

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: Largest difference of a float32 engine from transformers' model, by a layer's largest value.
MAX_ERROR = 1e-4
#: Smallest cosine, in every layer and window, between half precision and float32.
MIN_COSINE = 0.999

_PROJECTIONS = 4


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well two engines' outputs agree, layer by layer, in the worst window.

    ``error`` is the largest absolute difference divided by the layer's largest absolute value,
    ``cosine`` the smallest cosine of the pooled vectors.
    """

    error: tuple[float, ...]
    cosine: tuple[float, ...]


def check_windows(samples: int, *, sample_rate: int) -> Floats:
    """Return chords, a soft melody, a loud noisy cluster, and near silence [shape=(4, samples)]."""
    times = np.arange(samples) / sample_rate
    rng = np.random.default_rng(1924)
    noise = rng.normal(size=samples)
    chords = _notes(times, (48, 55, 60, 64), every_s=0.5, level=0.15)
    melody = _notes(times, (72,), every_s=0.25, level=0.02)
    cluster = _notes(times, (36, 37, 61, 62, 85), every_s=0.2, level=0.15) + 0.05 * noise
    return np.stack([chords, melody, cluster, 1e-3 * noise]).astype(np.float32)


def _notes(
    times: npt.NDArray[np.float64], pitches: tuple[int, ...], *, every_s: float, level: float
) -> npt.NDArray[np.float64]:
    """Strike the pitches together again and again, each time a whole tone higher, of 8 partials."""
    since, strike = times % every_s, times // every_s
    signal = np.zeros_like(times)
    for pitch in pitches:
        frequency = 440.0 * 2 ** ((pitch - 69 + 2 * (strike % 6)) / 12)
        for partial in range(1, 9):
            decay = np.exp(-3.0 * partial * since)
            signal += decay / partial * np.sin(2 * np.pi * partial * frequency * since)
    return np.asarray(level * signal)


def compare(found: Floats, expected: Floats) -> Agreement:
    """Compare two engines' outputs [shape=(n, layers, ..., dims)] of the same windows."""
    a = np.moveaxis(found, 1, 0).reshape(found.shape[1], -1, found.shape[-1]).astype(np.float64)
    b = np.moveaxis(expected, 1, 0).reshape(a.shape).astype(np.float64)
    error = np.abs(a - b).max(axis=(1, 2)) / np.abs(b).max(axis=(1, 2))
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosine = (np.einsum("lnd,lnd->ln", a, b) / norms).min(axis=1)
    return Agreement(tuple(error.tolist()), tuple(cosine.tolist()))


def golden_hash(pooled: Floats) -> str:
    """Return 16 digits that name what a float32 engine makes of `check_windows` [shape=(n, L, D)].

    Each layer's mean vector is reduced to four random projections relative to its length, rounded
    to hundredths: rounding errors of other machines and engines (about 1e-6) move it in less than
    one case of a hundred, another tensor anywhere in the model does.
    """
    layers = pooled.mean(axis=0, dtype=np.float64)
    signs = np.random.default_rng(1924).choice([-1.0, 1.0], size=(layers.shape[1], _PROJECTIONS))
    lengths = np.linalg.norm(layers, axis=1, keepdims=True)
    rounded = np.round(layers @ signs / lengths, 2) + 0.0
    return hashlib.sha256(rounded.astype("<f8").tobytes()).hexdigest()[:16]
