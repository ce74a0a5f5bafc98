"""Performances and note samples to audio, mixed in numpy.

A note is the sample of the nearest pitch and velocity, resampled linearly to its key's frequency,
brought to the level that its velocity asks for, and damped after its release, or after the pedal's
where that is down. Levels follow a law of the `Character` and not the samples': some instruments
have layers of equal loudness, and pianos differ by nothing more than by how touch becomes level.
"""

__all__ = ["SAMPLE_RATE", "Piano", "mix", "read_performances", "read_pianos", "sounding_ends"]

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from mess_core.errors import AudioError, MidiError
from mess_core.targets.notes import Performance, read_performance
from mess_core.training.augment import LOWEST_KEY, Character

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

SAMPLE_RATE = 24_000
#: What a file of a piano holds, one after the other: every third pitch, each with six velocities.
PITCHES = np.arange(21, 109, 3)
VELOCITIES = np.arange(20, 121, 20)

_PERFORMANCES = "performances.npz"
_TICK_S = 1e-4  # of the times in it
# A sample's level is measured after its attack noise, for half a second.
_LEVEL = slice(1000, 13_000)
_SILENT_DB = -120.0
# A damped string is followed for so many time constants (to -52 dB).
_TAIL = 6.0
# The highest strings of a piano have no dampers.
_UNDAMPED = 90


@dataclass(frozen=True)
class Piano:
    """Note samples of an instrument.

    ``samples`` [shape=(pitches, velocities, n)] at 24 kHz, ``levels`` [shape=(pitches,
    velocities)] in dB.
    """

    name: str
    samples: Floats
    levels: Array


def read_pianos(folder: Path) -> dict[str, Piano]:
    """Read all pianos of a folder: a mono sound file each, at 24 kHz, of equally long notes.

    A file holds `PITCHES` x `VELOCITIES` notes one after the other, whose keys stay down. Another
    form is an AudioError.
    """
    paths = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in (".ogg", ".flac", ".wav")]
    if not paths:
        raise AudioError(f"{folder} holds no note samples (.ogg, .flac or .wav, one file a piano)")
    return {path.stem: _read_piano(path) for path in paths}


def _read_piano(path: Path) -> Piano:
    samples, rate = soundfile.read(path, dtype="float32")
    notes = len(PITCHES) * len(VELOCITIES)
    if rate != SAMPLE_RATE or samples.ndim != 1 or not len(samples) or len(samples) % notes:
        raise AudioError(
            f"{path} has {len(samples)} frames at {rate} Hz; expected mono at {SAMPLE_RATE} Hz, "
            f"{notes} equally long notes ({len(PITCHES)} pitches from 21 on, each third, with "
            f"{len(VELOCITIES)} velocities from 20 to 120)"
        )
    samples = samples.reshape(len(PITCHES), len(VELOCITIES), -1)
    power = np.square(samples[..., _LEVEL], dtype=np.float64).mean(-1)
    return Piano(path.stem, samples, 10 * np.log10(power + 10 ** (_SILENT_DB / 10)))


def read_performances(folder: Path) -> dict[str, Performance]:
    """Read all performances of a folder by name: MIDI files, and those in ``performances.npz``.

    That file has ``meta``, ``nn``, ``npd`` (names, numbers of notes and of pedal changes), and the
    concatenations ``dt``, ``du`` (time since the onset before, duration, in 0.1 ms), ``pi``,
    ``ve`` (pitch, velocity), ``pt``, ``pv`` (time, 127 down or 0 up). Nothing to read is a
    MidiError.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".mid", ".midi"))
    found = {str(path.relative_to(folder)): read_performance(path) for path in paths}
    if (folder / _PERFORMANCES).is_file():
        found |= _read_packed(folder / _PERFORMANCES)
    if not found:
        raise MidiError(f"{folder} holds no MIDI files and no {_PERFORMANCES}")
    return found


def _read_packed(path: Path) -> dict[str, Performance]:
    with np.load(path) as stored:
        names = stored["meta"].tolist()
        at_notes, at_pedal = (np.cumsum(stored[key])[:-1] for key in ("nn", "npd"))
        notes = [np.split(stored[key].astype(float), at_notes) for key in ("dt", "du", "pi", "ve")]
        changes = [np.split(stored[key].astype(float), at_pedal) for key in ("pt", "pv")]
    return {name: _unpacked(*arrays) for name, *arrays in zip(names, *notes, *changes, strict=True)}


def _unpacked(
    since: Array, held: Array, pitches: Array, velocities: Array, times: Array, values: Array
) -> Performance:
    onsets = np.cumsum(since) * _TICK_S
    is_down = values >= 64
    # Only changes count, from the first time that it goes down.
    changed = np.flatnonzero(np.diff(is_down, prepend=False))
    pedal = times[changed] * _TICK_S
    if len(pedal) % 2:
        pedal = np.append(pedal, max(pedal[-1], onsets[-1] + held[-1] * _TICK_S))
    return Performance(
        onsets, onsets + held * _TICK_S, pitches, velocities, pedal=pedal.reshape(-1, 2)
    )


def sounding_ends(performance: Performance) -> Array:
    """Return when each note begins to be damped, s [shape=(n,)].

    That is when its key is released, or the pedal where that is down then; or its next onset.
    """
    ends = performance.releases.copy()
    down, up = performance.pedal.T
    if len(down):
        last = np.searchsorted(down, ends, side="right") - 1
        caught = (last >= 0) & (up[last] > ends)
        ends[caught] = up[last[caught]]
    order = np.lexsort((performance.onsets, performance.pitches))
    again = np.diff(performance.pitches[order]) == 0
    first, second = order[:-1][again], order[1:][again]
    ends[first] = np.minimum(ends[first], performance.onsets[second])
    return ends


def mix(
    performance: Performance, piano: Piano, character: Character, *, start_s: float, stop_s: float
) -> Floats:
    """Mix a performance from ``start_s`` to ``stop_s`` [shape=(samples,)], without a room."""
    begin, end = round(start_s * SAMPLE_RATE), round(stop_s * SAMPLE_RATE)
    audio = np.zeros(end - begin, np.float32)
    notes = zip(
        np.round(performance.onsets * SAMPLE_RATE).astype(int).tolist(),
        np.round(sounding_ends(performance) * SAMPLE_RATE).astype(int).tolist(),
        performance.pitches.astype(int).tolist(),
        performance.velocities.tolist(),
        strict=True,
    )
    for onset, damped, pitch, velocity in notes:
        note = _note(piano, character, pitch, velocity, damped - onset, begin - onset, end - onset)
        first = max(onset, begin) - begin
        audio[first : first + len(note)] += note
    return audio


def _note(
    piano: Piano,
    character: Character,
    pitch: int,
    velocity: float,
    held: int,
    begin: int,
    end: int,
) -> Floats:
    """Return a note from sample ``begin`` (or its onset) to before ``end``, counted from its onset.

    It is damped from sample ``held`` on.
    """
    row = round((pitch - PITCHES[0]) / 3)
    layer = int(np.abs(VELOCITIES - velocity - character.layer_shift).argmin())
    sample = piano.samples[row, layer]
    cents = 100.0 * (pitch - PITCHES[row]) + character.cents[pitch - LOWEST_KEY]
    ratio = 2 ** (cents / 1200)
    release = character.release_s * (20 if pitch >= _UNDAMPED else 1) * SAMPLE_RATE
    begin = max(begin, 0)
    end = min(end, int((len(sample) - 2) / ratio), held + int(_TAIL * release))
    if end <= begin:
        return np.zeros(0, np.float32)
    positions = np.arange(begin, end) * ratio
    whole = positions.astype(np.int32)
    share = (positions - whole).astype(np.float32)
    left, right = sample[whole], sample[whole + 1]
    gain_db = (
        piano.levels[row, -1]
        - piano.levels[row, layer]
        + character.level_db(velocity)
        + character.key_db[pitch - LOWEST_KEY]
    )
    note = (left + share * (right - left)) * np.float32(10 ** (gain_db / 20))
    note *= character.envelope[begin:end]
    if end > held:
        tail = np.arange(max(held, begin), end)
        note[tail[0] - begin :] *= np.exp(-(tail - held) / release).astype(np.float32)
    return np.asarray(note, np.float32)
