"""How one piano, its room and its recording differ from another's: all constants are here.

`Character` is drawn anew for every rendering and changes the instrument note by note: velocity law,
timbre of touch, tuning (with stretch), voicing of keys, decay and release. `record` changes the
mixed audio: equaliser, room, low-pass, noise, saturation, gain. What a strange piano does is what
six sampled ones do not show, so ranges are wide (spreads are about twice the pilot's).
"""

__all__ = ["KEYS", "LOWEST_KEY", "Character", "draw_character", "record"]

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import irfft, next_fast_len, rfft

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

LOWEST_KEY, KEYS = 21, 88

_RATE = 24_000
_LOUDEST = 120.0  # velocity whose sample has its own level
_SAMPLE_S = 8.0  # longer than any sample
_LEVEL = 0.2  # the loudest notes of samples are near full scale
_GAIN_SPREAD = 0.25  # of its natural logarithm; more would hide what velocity is
_BEND = 0.4  # how far a law may be bent from a power of velocity


@dataclass(frozen=True)
class Character:
    """An instrument as it is adjusted for one rendering.

    A velocity's level is ``exponent`` times that of a power law of amplitude, bent by ``bend``;
    ``layer_shift`` is added to the velocity where a sample is chosen. ``cents`` and ``key_db``
    [shape=(88,)] are deviations of each key, ``envelope`` [shape=(n,)] what samples are multiplied
    by from their onset on, and a damped string loses 1/e in ``release_s``.
    """

    exponent: float
    bend: float
    layer_shift: float
    cents: Array
    key_db: Array
    release_s: float
    envelope: Floats

    def level_db(self, velocity: float) -> float:
        """Return how much louder a velocity is than a sample of velocity 120, dB."""
        share = velocity / _LOUDEST
        bent = np.log10(share) - self.bend * share * (1 - share)
        return float(20 * self.exponent * bent)


def draw_character(rng: np.random.Generator) -> Character:
    """Draw an instrument."""
    keys = (np.arange(KEYS) - 48) / 40  # A4 is 0, the ends about -1 and 1
    stretch = rng.uniform(0, 12) * keys**3
    cents = rng.normal(0, 8) + stretch + rng.normal(0, rng.uniform(0, 4), KEYS)
    key_db = rng.normal(0, 3) * keys + rng.normal(0, rng.uniform(0, 1.5), KEYS)
    # Faster or slower decay than the sample's, dB/s to nepers; a hump at the onset is the hammer.
    faster = rng.uniform(-2.0, 10.0) * np.log(10) / 20
    seconds = np.arange(int(_SAMPLE_S * _RATE)) / _RATE
    attack = rng.normal(0, 0.25) * np.exp(-seconds / rng.uniform(0.03, 0.2))
    return Character(
        exponent=float(rng.uniform(1.2, 2.4)),
        bend=float(rng.uniform(-_BEND, _BEND)),
        layer_shift=float(rng.normal(0, 12)),
        cents=cents,
        key_db=key_db,
        release_s=float(np.exp(rng.uniform(np.log(0.03), np.log(0.25)))),
        envelope=np.exp(attack - faster * seconds).astype(np.float32),
    )


def record(audio: Floats, rng: np.random.Generator) -> Floats:
    """Put audio [shape=(n,)] into a room, before a microphone, and into a recording."""
    size = next_fast_len(len(audio) + int(1.5 * _RATE), real=True)
    response = _equaliser(np.asarray(np.fft.rfftfreq(size, 1 / _RATE), np.float64), rng)
    if rng.random() < 0.7:
        response = response * (1 + rfft(_room(rng), size))
    recorded = irfft(rfft(audio, size) * response, size)[: len(audio)]
    recorded *= _LEVEL * np.exp(rng.normal(0, _GAIN_SPREAD))
    if rng.random() < 0.15:
        drive = rng.uniform(1, 6)
        recorded = np.tanh(recorded * drive) / drive
    if rng.random() < 0.8:
        recorded += _noise(len(audio), rng)
    return np.asarray(recorded, np.float32)


def _equaliser(hertz: Array, rng: np.random.Generator) -> Array:
    """Return a smooth random response: cosines over log frequency, and the ends of the band."""
    place = np.linspace(0, 1, 64)  # along ten octaves from 20 Hz on
    decibels = sum(
        rng.normal(0, 2.0) * np.cos(np.pi * (order * place + rng.random())) for order in range(6)
    )
    octaves = np.log2(np.maximum(hertz, 20) / 20)
    response = 10 ** (np.interp(octaves, 10 * place, np.asarray(decibels)) / 20)
    if rng.random() < 0.25:
        response = response / np.sqrt(1 + (hertz / rng.uniform(2000, 9000)) ** 6)
    if rng.random() < 0.25:
        response = response / np.sqrt(1 + (rng.uniform(30, 150) / np.maximum(hertz, 1)) ** 4)
    return np.asarray(response)


def _room(rng: np.random.Generator) -> Array:
    """Return a reverberation [shape=(n,)] without the direct sound: noise, ever softer, darker."""
    seconds = np.arange(int(1.4 * _RATE)) / _RATE
    time = np.exp(rng.uniform(np.log(0.2), np.log(2.0)))  # to -60 dB
    noise = rng.normal(size=len(seconds)) * np.exp(-6.9 * seconds / time)
    soft = np.convolve(noise, np.ones(8) / 8, mode="same")
    darkening = np.minimum(seconds / rng.uniform(0.05, 0.5), 1)
    tail = noise * (1 - darkening) + 2.8 * soft * darkening
    tail[: int(rng.uniform(0.001, 0.03) * _RATE)] = 0
    wet = 10 ** (rng.uniform(-28, -4) / 20)
    return np.asarray(tail * (wet / np.sqrt(np.square(tail).sum())))


def _noise(count: int, rng: np.random.Generator) -> Array:
    """Return noise whose power falls with some power of frequency, at -85 to -42 dB."""
    hertz = np.fft.rfftfreq(count, 1 / _RATE)
    colour = np.maximum(hertz, 30) ** -rng.uniform(0, 1)
    noise = irfft(rfft(rng.normal(size=count)) * colour, count)
    level = 10 ** (rng.uniform(-85, -42) / 20)
    return np.asarray(noise * (level / np.sqrt(np.square(noise).mean())))
