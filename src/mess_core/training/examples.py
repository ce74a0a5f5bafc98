"""Training examples: versions of excerpts with labels, the same for a seed and a number.

Versions differ in tempo, tempo curve, touch (level, spread, slope, evenness, top voice),
articulation, pedal, chord spread, melody lead and transposition, each changed in some of them, by
itself. Times are seconds from the window's start.
"""

__all__ = ["SCALARS", "Batches", "Example", "Labels", "excerpt", "label", "split", "vary"]

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from mess_core.errors import MidiError
from mess_core.extraction.small import HOP, LATER, SAMPLE_RATE
from mess_core.targets.notes import Performance, until_struck_again
from mess_core.training import render
from mess_core.training.render import KEYS, LOWEST_KEY, Array, Floats, Piano

#: Excerpts in a batch, and versions of each.
GROUPS, VERSIONS = 4, 4
_KEPT = 20  # one performance in so many is never trained on
_FEWEST_NOTES, _FEWEST_CHORDS = 5, 3  # of a window, and for what is asked of its notes
_BEFORE_S = 0.5  # what is rendered before a window, for its reverberation
# Of pop, transcribed note by note with even touch, at most about 15 % are wanted.
_SHARES = {"POP909-Dataset": 0.7}
WINDOW_S = 5.0
FRAMES = round(WINDOW_S * SAMPLE_RATE) // HOP
#: What sounds at the window's start was struck at most so long before.
CONTEXT_S = 5.0
_CHANGED = 0.5  # of the versions differ from the excerpt in a way of playing
_SOURCE_S = (-9.0, 10.0)  # what can come into the window by changes of tempo
_GRID_S = 0.05
_SHORTEST_S, _BRIEFEST_S = 0.03, 0.005  # of notes, and of keys that are struck again at once
_VELOCITIES = (6.0, 125.0)
#: What a window is asked for as a whole.
_SCALARS = """
velocity_mean velocity_spread velocity_slope top_balance log_density log_chord_rate onset_centre
ioi_spread log_chord_size chord_spread melody_lead pitch_mean pitch_spread chroma_entropy log_held
log_sounding articulation pedal_share pedal_changes loudness_mean loudness_spread loudness_slope
"""
SCALARS = tuple(_SCALARS.split())


class Labels(NamedTuple):
    """What is known of a window, or of n of them, where all shapes begin with n.

    The first three have the shape (frames, 88), the others (frames,) and (len(SCALARS),).
    """

    velocities: Tensor  # not 0 where a key is struck
    held: Tensor  # which keys are down
    sounding: Tensor  # which strings ring
    pedal: Tensor  # whether it is down
    scalars: Tensor  # standardised, NaN where undefined


class Example(NamedTuple):
    """A rendering [shape=(samples,)] with its labels, or n of them."""

    audio: Tensor
    labels: Labels


def split(played: Mapping[str, Performance]) -> tuple[dict[str, Performance], ...]:
    """Return the performances to train on, and those to validate on, chosen by their names."""
    names = sorted(played, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if len(names) < 2:
        raise MidiError("there is one performance; at least two are needed, one for validation")
    kept = names[: -(-len(names) // _KEPT)]
    return {n: played[n] for n in names if n not in kept}, {n: played[n] for n in kept}


class Batches(Dataset[Example]):
    """Batch ``i`` has `VERSIONS` windows of each of `GROUPS` excerpts, one after the other.

    Of the share ``alike`` of excerpts all versions are on one instrument in one recording, as
    players of a work are compared; of the others each is on another piano.
    """

    def __init__(
        self, notes: dict[str, Performance], pianos: dict[str, Piano], seed: int, alike: float = 0.5
    ) -> None:
        self.performances, self.pianos = list(notes.values()), list(pianos.values())
        self.seed, self.alike = seed, alike
        seconds = [p.onsets[-1] * _SHARES.get(n.split("/")[0], 1.0) for n, p in notes.items()]
        self._chances = np.array(seconds) / np.sum(seconds)

    def __getitem__(self, i: int) -> Example:
        rng = np.random.default_rng([self.seed, i])
        batch: Example = default_collate([e for _ in range(GROUPS) for e in self._group(rng)])
        return batch

    def _group(self, rng: np.random.Generator) -> list[Example]:
        for _ in range(100):
            performance = self.performances[rng.choice(len(self.performances), p=self._chances)]
            start = rng.uniform(0, max(performance.onsets[-1] - WINDOW_S, 0))
            source = excerpt(performance, start, rng)
            if ((source.onsets >= 0) & (source.onsets < WINDOW_S)).sum() >= _FEWEST_NOTES:
                break
        # Each version on another piano, as far as there are so many.
        order = np.resize(rng.permutation(len(self.pianos)), VERSIONS)
        seeds = rng.integers(2**32, size=VERSIONS)
        if rng.random() < self.alike:
            order[:], seeds[:] = order[0], seeds[0]
        group = []
        for number, seed in zip(order, seeds, strict=True):
            version, fixed = vary(source, rng), np.random.default_rng(seed)
            character, span = render.draw_character(fixed), (-_BEFORE_S, WINDOW_S)
            dry = render.mix(version, self.pianos[number], character, *span)
            audio = render.record(dry, fixed)[round(_BEFORE_S * SAMPLE_RATE) :]
            group.append(Example(torch.from_numpy(audio), label(version, audio)))
        return group


def excerpt(performance: Performance, start_s: float, rng: np.random.Generator) -> Performance:
    """Cut out an excerpt with its context; its velocities are spread anew.

    Piano rolls share one velocity between the notes of a hand and use half the range.
    """
    notes = slice(*np.searchsorted(performance.onsets, start_s + np.array(_SOURCE_S)))
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
    notes = source
    for change in (_touch, _articulate, _pedal, _spread_chords, _warp):
        notes = change(notes, rng)
    shift = rng.integers(-5, 6) if rng.random() < _CHANGED else 0
    pitches = np.clip(notes.pitches + shift, LOWEST_KEY, LOWEST_KEY + KEYS - 1)
    order = np.lexsort((pitches, notes.onsets))
    order = order[(notes.onsets[order] >= -CONTEXT_S) & (notes.onsets[order] < WINDOW_S)]
    onsets, pitches = notes.onsets[order], pitches[order]
    releases = until_struck_again(onsets, pitches, notes.releases[order])
    releases = np.maximum(releases, onsets + _BRIEFEST_S)
    return Performance(onsets, releases, pitches, notes.velocities[order], pedal=notes.pedal)


def _spread_chords(notes: Performance, rng: np.random.Generator) -> Performance:
    """Spread chords from below, and let the highest note come first."""
    chords = notes.chords
    later, rank = np.zeros((2, len(chords)))
    rank[np.lexsort((notes.pitches, chords))] = np.arange(len(chords)) - chords.searchsorted(chords)
    sizes = np.bincount(chords)[chords]
    if rng.random() < _CHANGED:
        later += rank * rng.uniform(0, 0.03)
    if rng.random() < _CHANGED and len(later):
        later -= ((rank == sizes - 1) & (sizes > 1)) * rng.uniform(0, 0.045)
    if rng.random() < 0.3:  # struck more nearly together than they were
        later += (notes.chord_onsets[chords] - notes.onsets) * rng.uniform(0.3, 1.0)
    return replace(notes, onsets=notes.onsets + later, releases=notes.releases + later)


def _articulate(notes: Performance, rng: np.random.Generator) -> Performance:
    if rng.random() > _CHANGED:
        return notes
    held = (notes.releases - notes.onsets) * np.exp(rng.uniform(np.log(0.25), np.log(3)))
    if rng.random() < 0.3:
        held = np.minimum(held, rng.uniform(0.06, 0.25))  # staccato, whatever the note value
    return replace(notes, releases=notes.onsets + np.maximum(held, _SHORTEST_S))


def _touch(notes: Performance, rng: np.random.Generator) -> Performance:
    velocities, count = notes.velocities, len(notes.velocities)
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


def label(performance: Performance, audio: Floats) -> Labels:
    """Return the labels of one window, whose rendering is ``audio`` [shape=(samples,)]."""
    onsets, keys = performance.onsets, performance.pitches.astype(int) - LOWEST_KEY
    ends = render.sounding_ends(performance)
    velocities = np.zeros((FRAMES + 1, KEYS), np.float32)
    inside = onsets >= 0
    velocities[_frames(onsets[inside]), keys[inside]] = performance.velocities[inside]
    pedal = np.zeros(FRAMES + 1, bool)
    for first, last in _frames(performance.pedal):
        pedal[first:last] = True
    return Labels(
        torch.from_numpy(velocities[:-1]),
        _roll(onsets, performance.releases, keys),
        _roll(onsets, ends, keys),
        torch.from_numpy(pedal[:-1]),
        torch.tensor([*_scalars(performance, ends, audio).values()]).float().clamp(-4, 4),
    )


def _frames(seconds: Array) -> npt.NDArray[np.int64]:
    """Return the frames whose centres are nearest, 0 to `FRAMES`."""
    return np.round(seconds * SAMPLE_RATE / HOP - LATER).clip(0, FRAMES).astype(np.int64)


def _roll(onsets: Array, ends: Array, keys: npt.NDArray[np.int64]) -> Tensor:
    roll = np.zeros((FRAMES + 1, KEYS), bool)
    heard = ends > 0
    first_last = _frames(np.stack([onsets, ends], 1)[heard])
    for key, (first, last) in zip(keys[heard], first_last, strict=True):
        roll[first : max(last, first + 1), key] = True
    return torch.from_numpy(roll[:-1])


def _scalars(performance: Performance, ends: Array, audio: Floats) -> dict[str, float]:
    """Return `SCALARS`, in order, less a usual value, over a usual spread; NaN where undefined.

    Logarithms are natural, times in s, velocities MIDI's, levels in dB.
    """
    inside = performance.onsets >= 0
    pitches, velocities = performance.pitches[inside], performance.velocities[inside]
    onsets, releases = performance.onsets[inside], performance.releases[inside]
    notes = Performance(onsets, releases, pitches, velocities)
    count, chords = len(onsets), len(notes.chord_onsets)
    down, up = performance.pedal.clip(0, WINDOW_S).T
    went_down = ((performance.pedal[:, 0] > 0) & (performance.pedal[:, 0] < WINDOW_S)).sum()
    levels = 10 * np.log10(np.square(audio.reshape(50, -1), dtype=np.float64).mean(1) + 1e-9)
    found = dict.fromkeys(SCALARS, np.nan) | {
        "pedal_share": ((up - down).sum() / WINDOW_S - 0.5) / 0.4,
        "pedal_changes": (went_down / WINDOW_S - 0.6) / 0.6,
        "loudness_mean": (levels.mean() + 32) / 8,
        "loudness_spread": (levels.std() - 5) / 3,
        "loudness_slope": np.polyfit(np.arange(50) * (WINDOW_S / 50), levels, 1)[0] / 1.5,
    }
    if chords < _FEWEST_CHORDS:
        return found
    pitch_classes = np.bincount(pitches.astype(int) % 12, minlength=12) / count
    entropy = -(pitch_classes * np.log(pitch_classes + 1e-9)).sum()
    overlap = _mean(performance.overlap_ratios[inside], np.nanmedian)
    return found | {
        "velocity_mean": (velocities.mean() - 62) / 18,
        "velocity_spread": (velocities.std() - 13) / 7,
        "velocity_slope": np.polyfit(onsets, velocities, 1)[0] / 4,
        "top_balance": (_mean(notes.top_balance) - 3) / 10,
        "log_density": (np.log(count / WINDOW_S) - 2.0) / 0.7,
        "log_chord_rate": (np.log(chords / WINDOW_S) - 1.3) / 0.6,
        "onset_centre": (onsets.mean() - WINDOW_S / 2) / 0.5,  # notes crowd early or late
        "ioi_spread": (np.log(np.diff(notes.chord_onsets)).std() - 0.6) / 0.3,
        "log_chord_size": (np.log(count / chords) - 0.5) / 0.35,
        "chord_spread": (_mean(notes.chord_widths) - 0.02) / 0.02,
        "melody_lead": _mean(notes.melody_leads) / 0.02,
        "pitch_mean": (pitches.mean() - 62) / 7,
        "pitch_spread": (pitches.std() - 12) / 4,
        "chroma_entropy": (entropy - 1.8) / 0.3,
        "log_held": (np.log(releases - onsets).mean() + 1.3) / 0.7,
        "log_sounding": (np.log(np.maximum(ends[inside] - onsets, 0.005)).mean() + 0.5) / 0.8,
        "articulation": (np.log(overlap) + 0.1) / 0.6,
    }


def _mean(values: Array, of: Callable[[Array], float] = np.nanmean) -> float:
    return float(of(values)) if np.isfinite(values).sum() >= 2 else np.nan
