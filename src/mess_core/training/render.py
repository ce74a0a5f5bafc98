"""Performances and note samples to audio: an instrument, in a room, in a recording.

A note is the sample of the nearest pitch and velocity, resampled linearly to its key's frequency,
brought to the level that its velocity asks for, and damped after its release, or after the pedal's
where that is down. Levels follow a law of the `Character` and not the samples', whose layers may be
equally loud. Ranges are wide: a strange piano or recording is unlike the few that were sampled.
"""

__all__ = ["Piano", "draw_character", "mix", "read_performances", "read_pianos", "record"]

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import soundfile
from scipy.fft import irfft, next_fast_len, rfft

from mess_core.errors import AudioError, MidiError
from mess_core.extraction.small import SAMPLE_RATE
from mess_core.targets.notes import Performance, read_performance, until_struck_again

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

LOWEST_KEY, KEYS = 21, 88
#: What a file of a piano holds, one after the other: every third pitch, each with six velocities.
PITCHES = np.arange(21, 109, 3)
VELOCITIES = np.arange(20, 121, 20)

_PERFORMANCES, _TICK_S = "performances.npz", 1e-4  # what times in it are counted in
_STEADY = slice(1000, 13_000)  # of a sample, after its attack noise: there its level is measured
_TAIL = 6.0  # time constants for which a damped string is followed (to -52 dB)
_UNDAMPED = 90  # the highest strings of a piano have no dampers
_LEVEL = 0.2  # the loudest notes of samples are near full scale
_GAIN_SPREAD = 0.25  # of its natural logarithm; more would hide what velocity is


@dataclass(frozen=True)
class Character:
    """An instrument as it is adjusted for one rendering."""

    exponent: float  # amplitude is velocity to this power,
    bend: float  # and bent
    layer_shift: float  # added to the velocity where a sample is chosen
    cents: Array  # deviations of each key [shape=(88,)]
    key_db: Array
    release_s: float  # in which a damped string loses 1/e
    envelope: Floats  # what samples are multiplied by, from their onset on

    def level_db(self, velocity: float) -> float:
        """Return how much louder a velocity is than a sample of velocity 120, dB."""
        share = velocity / VELOCITIES[-1]
        return float(20 * self.exponent * (np.log10(share) - self.bend * share * (1 - share)))


def draw_character(rng: np.random.Generator) -> Character:
    """Draw an instrument."""
    keys = (np.arange(KEYS) - 48) / 40  # A4 is 0, the ends about -1 and 1
    stretch = rng.uniform(0, 12) * keys**3
    cents = rng.normal(0, 8) + stretch + rng.normal(0, rng.uniform(0, 4), KEYS)
    key_db = rng.normal(0, 3) * keys + rng.normal(0, rng.uniform(0, 1.5), KEYS)
    # Faster or slower decay than the sample's, dB/s to nepers; a hump at the onset is the hammer.
    faster = rng.uniform(-2.0, 10.0) * np.log(10) / 20
    seconds = np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE  # longer than any sample
    attack = rng.normal(0, 0.25) * np.exp(-seconds / rng.uniform(0.03, 0.2))
    return Character(
        exponent=float(rng.uniform(1.2, 2.4)),
        bend=float(rng.uniform(-0.4, 0.4)),
        layer_shift=float(rng.normal(0, 12)),
        cents=cents,
        key_db=key_db,
        release_s=float(np.exp(rng.uniform(np.log(0.03), np.log(0.25)))),
        envelope=np.exp(attack - faster * seconds).astype(np.float32),
    )


class Piano(NamedTuple):
    """Note samples of an instrument, and their levels, dB [shape=(pitches, velocities)]."""

    samples: Floats  # [shape=(pitches, velocities, n)]
    levels: Array


def read_pianos(folder: Path) -> dict[str, Piano]:
    """Read all pianos of a folder: a mono sound file each, at 24 kHz.

    It holds `PITCHES` x `VELOCITIES` equally long notes, whose keys stay down, one after the other;
    another form is an AudioError.
    """
    paths = [p for p in sorted(folder.glob("*")) if p.suffix.lower() in (".ogg", ".flac", ".wav")]
    if not paths:
        raise AudioError(
            f"{folder} is no folder with note samples (.ogg, .flac or .wav, one file a piano)"
        )
    pianos, notes = {}, len(PITCHES) * len(VELOCITIES)
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        if rate != SAMPLE_RATE or samples.ndim != 1 or not len(samples) or len(samples) % notes:
            raise AudioError(
                f"{path} has {len(samples)} frames at {rate} Hz; expected mono at {SAMPLE_RATE} "
                f"Hz, {notes} equally long notes ({len(PITCHES)} pitches from 21 on, each third, "
                f"with {len(VELOCITIES)} velocities from 20 to 120)"
            )
        samples = samples.reshape(len(PITCHES), len(VELOCITIES), -1)
        power = np.square(samples[..., _STEADY], dtype=np.float64).mean(-1)
        pianos[path.stem] = Piano(samples, 10 * np.log10(power + 1e-12))
    return pianos


def read_performances(folder: Path) -> dict[str, Performance]:
    """Read all performances of a folder by name: MIDI files, and those in ``performances.npz``.

    That file has names ``meta``, numbers of notes ``nn`` and of pedal changes ``npd``, and, one
    performance after the other, ``dt``, ``du`` (time since the onset before, duration, 0.1 ms),
    ``pi``, ``ve`` (pitch, velocity), ``pt``, ``pv`` (time, 127 down or 0 up). None is a MidiError.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".mid", ".midi"))
    found = {str(path.relative_to(folder)): read_performance(path) for path in paths}
    if (folder / _PERFORMANCES).is_file():
        try:
            with np.load(folder / _PERFORMANCES) as stored:
                parts = [stored["meta"].tolist()]
                for count, keys in (("nn", ("dt", "du", "pi", "ve")), ("npd", ("pt", "pv"))):
                    ends = np.cumsum(stored[count])[:-1]
                    parts += [np.split(stored[key].astype(float), ends) for key in keys]
            rows = list(zip(*parts, strict=True))
        except (BadZipFile, ValueError, OSError, EOFError, KeyError, AttributeError) as error:
            raise MidiError(f"{folder / _PERFORMANCES} cannot be read: {error}") from None
        for name, since, held, pitches, velocities, times, values in rows:
            onsets = np.cumsum(since) * _TICK_S
            releases = onsets + held * _TICK_S
            # Only changes count, from the first time that it goes down.
            pedal = times[np.diff(values >= 64, prepend=False)] * _TICK_S
            if len(pedal) % 2:
                pedal = np.append(pedal, max(pedal[-1], releases[-1]))
            arrays = onsets, releases, pitches, velocities
            found[name] = Performance(*arrays, pedal=pedal.reshape(-1, 2))
    if not found:
        raise MidiError(f"{folder} is no folder with MIDI files or {_PERFORMANCES}")
    return found


def sounding_ends(performance: Performance) -> Array:
    """Return when notes are damped, s [shape=(n,)]: key and pedal are up, or it is struck again."""
    # With a pedal long ago there is a last one for every note.
    down, up = np.vstack([np.full((1, 2), -np.inf), performance.pedal]).T
    lifted = up[np.searchsorted(down, performance.releases, side="right") - 1]
    ends = np.maximum(performance.releases, lifted)
    return until_struck_again(performance.onsets, performance.pitches, ends)


def mix(
    performance: Performance, piano: Piano, character: Character, start_s: float, stop_s: float
) -> Floats:
    """Mix a performance from ``start_s`` to ``stop_s`` [shape=(samples,)], without a room."""
    begin, end = round(start_s * SAMPLE_RATE), round(stop_s * SAMPLE_RATE)
    audio = np.zeros(end - begin, np.float32)
    seconds = np.stack([performance.onsets, sounding_ends(performance)])
    onsets, ends = np.round(seconds * SAMPLE_RATE).astype(int)
    notes = onsets, ends - onsets, performance.pitches.astype(int), performance.velocities
    for onset, held, pitch, velocity in zip(*notes, strict=True):
        row = round((pitch - PITCHES[0]) / 3)
        layer = int(np.abs(VELOCITIES - velocity - character.layer_shift).argmin())
        sample = piano.samples[row, layer]
        cents = 100.0 * (pitch - PITCHES[row]) + character.cents[pitch - LOWEST_KEY]
        ratio = 2 ** (cents / 1200)
        release = character.release_s * (20 if pitch >= _UNDAMPED else 1) * SAMPLE_RATE
        last = min(end - onset, int((len(sample) - 2) / ratio), held + int(_TAIL * release))
        first = max(begin - onset, 0)
        times = np.arange(first, last)  # samples from the onset on
        positions = times * ratio
        whole = positions.astype(np.int32)
        share = (positions - whole).astype(np.float32)
        left, right = sample[whole], sample[whole + 1]
        decibels = piano.levels[row, -1] - piano.levels[row, layer] + character.level_db(velocity)
        decibels += character.key_db[pitch - LOWEST_KEY]
        note = (left + share * (right - left)) * np.float32(10 ** (decibels / 20))
        note *= character.envelope[times]
        after = times >= held
        note[after] *= np.exp(-(times[after] - held) / release).astype(np.float32)
        audio[onset + first - begin :][: len(note)] += note
    return audio


def record(audio: Floats, rng: np.random.Generator) -> Floats:
    """Put audio [shape=(n,)] into a room, before a microphone, and into a recording."""
    size = next_fast_len(len(audio) + int(1.5 * SAMPLE_RATE), real=True)
    response = _equaliser(size, rng)
    if rng.random() < 0.7:
        response = response * (1 + rfft(_room(rng), size))
    recorded = irfft(rfft(audio, size) * response, size)[: len(audio)]
    recorded *= _LEVEL * np.exp(rng.normal(0, _GAIN_SPREAD))
    if rng.random() < 0.15:
        drive = rng.uniform(1, 6)
        recorded = np.tanh(recorded * drive) / drive
    if rng.random() < 0.8:  # noise whose power falls with some power of frequency
        colour = np.maximum(np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE), 30) ** -rng.uniform(0, 1)
        noise = irfft(rfft(rng.normal(size=len(audio))) * colour, len(audio))
        level = 10 ** (rng.uniform(-85, -42) / 20)
        recorded += noise * (level / np.sqrt(np.square(noise).mean()))
    return np.asarray(recorded, np.float32)


def _equaliser(size: int, rng: np.random.Generator) -> Array:
    """Return a smooth random response: cosines over log frequency, and the ends of the band."""
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    place = np.linspace(0, 1, 64)  # along ten octaves from 20 Hz on
    decibels = np.zeros(64)
    for order in range(6):
        decibels += rng.normal(0, 2.0) * np.cos(np.pi * (order * place + rng.random()))
    octaves = np.log2(np.maximum(hertz, 20) / 20)
    response = 10 ** (np.interp(octaves, 10 * place, decibels) / 20)
    if rng.random() < 0.25:
        response = response / np.sqrt(1 + (hertz / rng.uniform(2000, 9000)) ** 6)
    if rng.random() < 0.25:
        response = response / np.sqrt(1 + (rng.uniform(30, 150) / np.maximum(hertz, 1)) ** 4)
    return np.asarray(response)


def _room(rng: np.random.Generator) -> Array:
    """Return a reverberation [shape=(n,)] without the direct sound: noise, ever softer, darker."""
    seconds = np.arange(int(1.4 * SAMPLE_RATE)) / SAMPLE_RATE
    time = np.exp(rng.uniform(np.log(0.2), np.log(2.0)))  # to -60 dB
    noise = rng.normal(size=len(seconds)) * np.exp(-6.9 * seconds / time)
    soft = np.convolve(noise, np.ones(8) / 8, mode="same")
    darkening = np.minimum(seconds / rng.uniform(0.05, 0.5), 1)
    tail = noise * (1 - darkening) + 2.8 * soft * darkening
    tail[: int(rng.uniform(0.001, 0.03) * SAMPLE_RATE)] = 0
    wet = 10 ** (rng.uniform(-28, -4) / 20)
    return np.asarray(tail * (wet / np.sqrt(np.square(tail).sum())))
