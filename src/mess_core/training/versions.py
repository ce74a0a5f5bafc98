"""Versions of an excerpt that differ in known ways: what a group of training examples is.

Each way of playing is changed in some versions and left alone in others, by itself: tempo, tempo
curve, touch (level, spread, slope, evenness, top voice), articulation, pedal, chord spread, melody
lead, transposition. Times are seconds from the window's start.
"""

__all__ = ["CONTEXT_S", "WINDOW_S", "excerpt", "until_struck_again", "vary"]

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mess_core.targets.notes import Performance

Array = npt.NDArray[np.float64]

WINDOW_S = 5.0
#: What sounds at the window's start was struck at most so long before.
CONTEXT_S = 5.0

_CHANGED = 0.5  # of the versions differ from the excerpt in a way of playing
_SOURCE_S = (-9.0, 10.0)  # what can come into the window by changes of tempo
_GRID_S = 0.05
_SHORTEST_S, _BRIEFEST_S = 0.03, 0.005  # of notes, and of keys that are struck again at once
_VELOCITIES = (6.0, 125.0)


def excerpt(performance: Performance, start_s: float, rng: np.random.Generator) -> Performance:
    """Cut out an excerpt with its context; its velocities are spread anew.

    Piano rolls share one velocity between the notes of a hand and use half the range.
    """
    first, last = np.searchsorted(performance.onsets, start_s + np.array(_SOURCE_S))
    notes = slice(int(first), int(last))
    velocities = performance.velocities[notes]
    middle = velocities.mean() if len(velocities) else 0.0
    spread = (velocities - middle) * rng.uniform(0.5, 1.7) + rng.normal(0, 3, len(velocities))
    pedal = performance.pedal - start_s
    return Performance(
        performance.onsets[notes] - start_s,
        performance.releases[notes] - start_s,
        performance.pitches[notes],
        np.clip(np.clip(middle + rng.normal(0, 12), 30, 100) + spread, *_VELOCITIES),
        pedal=pedal[(pedal[:, 1] > _SOURCE_S[0]) & (pedal[:, 0] < _SOURCE_S[1])],
    )


def vary(source: Performance, rng: np.random.Generator) -> Performance:
    """Return a version of an excerpt, from `CONTEXT_S` before the window to its end."""
    version = source
    for change in (_touch, _articulate, _pedal, _spread_chords, _warp):
        version = change(version, rng)
    if rng.random() < _CHANGED:
        shifted = version.pitches + rng.integers(-5, 6)
        version = replace(version, pitches=np.clip(shifted, 21, 108))
    return _finished(version)


def _spread_chords(notes: Performance, rng: np.random.Generator) -> Performance:
    """Spread chords from below, and let the highest note come first."""
    later = np.zeros(len(notes.onsets))
    sizes = np.bincount(notes.chords)
    order = np.lexsort((notes.pitches, notes.chords))
    rank = np.empty(len(later))
    rank[order] = np.arange(len(later)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    if rng.random() < _CHANGED:
        later += rank * rng.uniform(0, 0.03)
    if rng.random() < _CHANGED and len(later):
        top = (rank == sizes[notes.chords] - 1) & (sizes[notes.chords] > 1)
        later -= top * rng.uniform(0, 0.045)
    if rng.random() < 0.3:  # struck more nearly together than they were
        later += (notes.chord_onsets[notes.chords] - notes.onsets) * rng.uniform(0.3, 1.0)
    return replace(notes, onsets=notes.onsets + later, releases=notes.releases + later)


def _articulate(notes: Performance, rng: np.random.Generator) -> Performance:
    if rng.random() > _CHANGED:
        return notes
    held = (notes.releases - notes.onsets) * np.exp(rng.uniform(np.log(0.25), np.log(3)))
    if rng.random() < 0.3:
        held = np.minimum(held, rng.uniform(0.06, 0.25))  # staccato, whatever the note value
    return replace(notes, releases=notes.onsets + np.maximum(held, _SHORTEST_S))


def _touch(notes: Performance, rng: np.random.Generator) -> Performance:
    velocities = notes.velocities
    count = len(velocities)
    middle = velocities.mean() if count else 0.0
    if rng.random() < _CHANGED:
        velocities = middle + (velocities - middle) * np.exp(rng.uniform(np.log(0.15), np.log(2)))
    if rng.random() < _CHANGED:
        velocities = velocities + rng.normal(0, 12)
    if rng.random() < 0.3:
        velocities = velocities + rng.normal(0, 5) * (notes.onsets - WINDOW_S / 2)
    if rng.random() < _CHANGED:
        velocities = velocities + rng.normal(0, rng.uniform(0, 14), count)
    if rng.random() < 0.3 and count:
        first = np.flatnonzero(np.diff(notes.chords, prepend=-1))
        highest = np.maximum.reduceat(notes.pitches, first)
        velocities = velocities + rng.uniform(0, 16) * (notes.pitches == highest[notes.chords])
    return replace(notes, velocities=np.clip(velocities, *_VELOCITIES))


def _pedal(notes: Performance, rng: np.random.Generator) -> Performance:
    """Leave the pedal as it is, take it away, shorten it, or change it at chords."""
    kind, pedal = rng.random(), notes.pedal
    if kind < 0.2:
        pedal = np.empty((0, 2))
    elif kind < 0.4 and len(pedal):
        down, up = pedal.T
        pedal = np.stack([up - (up - down) * rng.uniform(0.1, 0.8), up], 1)
    elif kind < 0.7 and len(notes.onsets) > 1:
        # Legato pedalling: up with a chord, down again a little later.
        times = notes.chord_onsets
        seconds = np.floor(times / rng.uniform(0.4, 3.0))
        at = times[np.flatnonzero(np.diff(seconds, prepend=-np.inf))]
        late, end = rng.uniform(0.04, 0.2), max(notes.releases.max(), at[-1]) + 1
        pedal = np.stack([at + late, np.append(at[1:], end)], 1)
        pedal = pedal[pedal[:, 1] - pedal[:, 0] > _SHORTEST_S]
    return replace(notes, pedal=pedal)


def _warp(notes: Performance, rng: np.random.Generator) -> Performance:
    """Change the tempo, and bend it, around the window's start."""
    grid = np.arange(_SOURCE_S[0], _SOURCE_S[1] + 5, _GRID_S)
    slower = np.zeros(len(grid))
    if rng.random() < _CHANGED:
        slower += rng.uniform(-0.4, 0.4)
    if rng.random() < _CHANGED:
        for period in rng.uniform(1.5, 8, 2):
            slower += rng.normal(0, 0.13) * np.cos(2 * np.pi * (grid / period + rng.random()))
    if rng.random() < 0.2:
        slower += rng.normal(0, 0.08) * grid.clip(-5, 5)  # accelerando, ritardando
    times = np.cumsum(np.exp(slower)) * _GRID_S
    times -= np.interp(0.0, grid, times)
    onsets, releases, pedal = (
        np.interp(seconds, grid, times) for seconds in (notes.onsets, notes.releases, notes.pedal)
    )
    releases = np.maximum(releases, onsets + _SHORTEST_S)
    return replace(notes, onsets=onsets, releases=releases, pedal=pedal)


def _finished(notes: Performance) -> Performance:
    """Put notes in order, keep those that matter, and release keys before they are struck again."""
    order = np.lexsort((notes.pitches, notes.onsets))
    order = order[(notes.onsets[order] >= -CONTEXT_S) & (notes.onsets[order] < WINDOW_S)]
    onsets, pitches = notes.onsets[order], notes.pitches[order]
    releases = until_struck_again(onsets, pitches, notes.releases[order])
    releases = np.maximum(releases, onsets + _BRIEFEST_S)
    return Performance(onsets, releases, pitches, notes.velocities[order], pedal=notes.pedal)


def until_struck_again(onsets: Array, pitches: Array, ends: Array) -> Array:
    """Return ends of notes, s [shape=(n,)], at the latest where their keys are struck again."""
    by_key = np.lexsort((onsets, pitches))
    again = np.diff(pitches[by_key]) == 0
    first, second = by_key[:-1][again], by_key[1:][again]
    ends = ends.copy()
    ends[first] = np.minimum(ends[first], onsets[second])
    return ends
