"""Rendered performances whose swells, textures and slowing are known."""

from collections.abc import Callable, Sequence

import numpy as np

from mess_core.datasets.demo import Performance, PerformedNote, to_midi
from mess_core.datasets.demo_scores import SCORES
from mess_core.datasets.render import render_midi
from mess_core.extraction.audio import Floats

RATE = 24_000
Pattern = Sequence[tuple[int, ...]]
SCALE: Pattern = [(48 + p,) for p in (0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 14, 12, 11, 9, 7, 5, 4, 2)]
CHORDS: Pattern = [(48, 64, 67, 72), (48, 65, 69, 72), (47, 62, 67, 74), (48, 64, 67, 72)]


def swell(peak_s: float, depth: float) -> Callable[[float], float]:
    """Return a velocity over time that rises from 45 by ``depth`` and falls again."""
    return lambda t: 45 + depth * np.exp(-0.5 * ((t - peak_s) / 4) ** 2)


def steady(
    pattern: Pattern, step_s: float, start_s: float, stop_s: float, velocity: Callable[..., float]
) -> list[PerformedNote]:
    """Play a pattern again and again, evenly; velocities stray by 2, the same each time."""
    times = np.arange(start_s, stop_s, step_s)
    stray = np.random.default_rng(0).normal(0, 2, len(times))
    return chords(
        pattern, [*times, stop_s], [velocity(t) + s for t, s in zip(times, stray, strict=True)]
    )


def chords(
    pattern: Pattern, times: Sequence[float], velocities: Sequence[float]
) -> list[PerformedNote]:
    """Play a pattern at some times, the last of which is the end."""
    written = SCORES[0].notes[0]  # what nobody asks for
    return [
        PerformedNote(t, t + 0.9 * (times[i + 1] - t), pitch, round(velocities[i]), written)
        for i, t in enumerate(times[:-1])
        for pitch in pattern[i % len(pattern)]
    ]


def render(notes: Sequence[PerformedNote]) -> Floats:
    """Render to mono samples at `RATE`."""
    midi = to_midi(Performance(tuple(notes), (), ()))
    return np.asarray(render_midi(midi, sample_rate=RATE).mean(axis=1), np.float32)
