"""Signals and MIDI of which the truth is known."""

import io
from collections.abc import Iterable

import mido
import numpy as np
import numpy.typing as npt

RATE = 24_000
Samples = npt.NDArray[np.float32]
Event = tuple[int, mido.Message | mido.MetaMessage]


def seconds(duration: float) -> npt.NDArray[np.float64]:
    return np.arange(round(duration * RATE)) / RATE


def hertz(pitch: float) -> float:
    return 440 * 2 ** ((pitch - 69) / 12)


def tone(frequency: float, duration: float = 4.0, amplitude: float = 0.3) -> Samples:
    return (amplitude * np.sin(2 * np.pi * frequency * seconds(duration))).astype(np.float32)


def noise(duration: float = 4.0, amplitude: float = 0.1) -> Samples:
    values = np.random.default_rng(0).normal(size=round(duration * RATE))
    return (amplitude * values).astype(np.float32)


def bursts(times: list[float], duration: float, levels: list[float] | None = None) -> Samples:
    """Bursts of 20 ms of noise."""
    samples = np.zeros(round(duration * RATE), np.float32)
    burst = noise(0.02, 0.2) * np.linspace(1, 0, round(0.02 * RATE), dtype=np.float32)
    for i, time in enumerate(times):
        start = round(time * RATE)
        samples[start : start + len(burst)] += burst * (levels[i] if levels else 1)
    return samples


def clicks(bpm: float, duration: float = 12.0) -> Samples:
    """Bursts of 20 ms of noise, the first after half a period."""
    return bursts(list(np.arange(30 / bpm, duration - 0.05, 60 / bpm)), duration)


def slowing_clicks(
    first_bpm: float, last_bpm: float, count: int
) -> tuple[Samples, npt.NDArray[np.float64]]:
    """Clicks at intervals that grow by the same ratio, until 0.3 s before the end; their times."""
    intervals = 60 / np.geomspace(first_bpm, last_bpm, count)
    times = 0.3 + np.cumsum([0.0, *intervals])
    return bursts(list(times), times[-1] + 0.3), times


def piano_chord(
    pitches: tuple[int, ...], duration: float = 3.0, *, partials: int = 6, level: float = 0.1
) -> Samples:
    """Pitches with partials whose amplitudes fall with their squares, decaying."""
    time = seconds(duration)
    samples = np.zeros(len(time))
    for pitch in pitches:
        for k in range(1, partials + 1):
            samples += np.sin(2 * np.pi * k * hertz(pitch) * time + k * pitch) / k**2
    return (level * samples * np.exp(-0.5 * time) * np.minimum(time / 0.005, 1)).astype(np.float32)


def melody(duration: float, *, interval: float = 0.35, growth: float = 1.0) -> Samples:
    """Music of which everything changes: decaying notes of two pitches.

    They come at intervals that grow by a ratio each, every fifth to eighth interval divided, ever
    higher and brighter within 12 s, and swell twice as often.
    """
    samples = np.zeros(round(duration * RATE) + RATE, np.float32)
    start, number = 0.1, 0
    while start < duration - 0.3:
        loudness = 0.15 * (0.55 + 0.45 * np.sin(2 * np.pi * start / 6))
        phase = start % 12 / 12
        pitches = (55 + 5 * number % 12 + round(12 * phase), 48 + 7 * number % 12)
        for place in (0.0, interval / 2) if number % 8 > 3 else (0.0,):
            note = piano_chord(pitches, 1.0, partials=2 + round(10 * phase), level=loudness)
            first = round((start + place) * RATE)
            decay = np.exp(-3 * seconds(1.0)).astype(np.float32)
            samples[first : first + len(note)] += (note * decay)[: len(samples) - first]
        start, number = start + interval * growth**number, number + 1
    return samples[: round(duration * RATE)]


def tempo(tick: int, bpm: float) -> Event:
    return tick, mido.MetaMessage("set_tempo", tempo=round(6e7 / bpm))


def midi_bytes(*tracks: Iterable[Event], kind: int = 1, division: int = 480) -> bytes:
    """Tracks of events at ticks; a beat has 480, half a second where no tempo is set."""
    midi = mido.MidiFile(type=kind, ticks_per_beat=division)
    for events in tracks:
        track, now = mido.MidiTrack(), 0
        for tick, message in sorted(events, key=lambda event: event[0]):
            track.append(message.copy(time=tick - now))
            now = tick
        midi.tracks.append(track)
    buffer = io.BytesIO()
    midi.save(file=buffer)
    return buffer.getvalue()
