"""Rendered performances whose swells, textures and slowing are known."""

import io
from collections.abc import Callable, Iterable
from typing import NamedTuple

import mido
import numpy as np
import numpy.typing as npt

from mess_core.datasets.render import render_midi

RATE = 24_000
SCALE = [(48 + p,) for p in (0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 14, 12, 11, 9, 7, 5, 4, 2)]
CHORDS = [(48, 64, 67, 72), (48, 65, 69, 72), (47, 62, 67, 74), (48, 64, 67, 72)]


class Chord(NamedTuple):
    """Keys that go down together at a time, s, for so long."""

    time_s: float
    length_s: float
    pitches: tuple[int, ...]
    velocity: float


def swell(peak_s: float, depth: float, width_s: float = 4.0) -> Callable[[float], float]:
    """Return a velocity over time that rises from 45 by ``depth`` and falls again."""
    return lambda t: 45 + depth * np.exp(-0.5 * ((t - peak_s) / width_s) ** 2)


def steady(
    pattern: list[tuple[int, ...]],
    step_s: float,
    start_s: float,
    stop_s: float,
    velocity: Callable[[float], float],
) -> list[Chord]:
    """Play a pattern again and again, evenly; velocities stray by 2, the same each time."""
    stray = np.random.default_rng(0).normal(0, 2, 10_000)
    times = np.arange(start_s, stop_s, step_s)
    return [
        Chord(t, 0.9 * step_s, pattern[i % len(pattern)], velocity(t) + stray[i])
        for i, t in enumerate(times)
    ]


def render(chords: Iterable[Chord]) -> npt.NDArray[np.float32]:
    """Render to mono samples at `RATE`."""
    events = []
    for time_s, length_s, pitches, velocity in chords:
        for pitch in pitches:
            hard = int(np.clip(round(velocity), 12, 127))
            on = mido.Message("note_on", note=pitch, velocity=hard)
            off = mido.Message("note_off", note=pitch)
            events += [(round(time_s * 2000), 1, on), (round((time_s + length_s) * 2000), 0, off)]
    track, now = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=500_000)]), 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    buffer = io.BytesIO()
    mido.MidiFile(type=0, ticks_per_beat=1000, tracks=[track]).save(file=buffer)
    return render_midi(buffer.getvalue(), sample_rate=RATE).mean(axis=1, dtype=np.float32)
