"""Tiny performances and pianos whose every property is known."""

from pathlib import Path

import numpy as np
import soundfile

from mess_core.extraction.small import SAMPLE_RATE
from mess_core.targets.notes import Performance
from mess_core.training.render import KEYS, PITCHES, VELOCITIES, Character

NOTE_S = 3.0


def plain_character() -> Character:
    """An instrument as it was sampled, whose amplitude is the square of velocity."""
    zeros = np.zeros(KEYS)
    return Character(2.0, 0.0, 0.0, zeros, zeros, 0.05, np.ones(4 * SAMPLE_RATE, np.float32))


def write_piano(folder: Path, name: str, *, partials: int = 3) -> None:
    """Decaying tones of equal loudness, whatever their velocity."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds = np.arange(round(NOTE_S * SAMPLE_RATE)) / SAMPLE_RATE
    notes = []
    for pitch in PITCHES:
        hertz = 440.0 * 2 ** ((pitch - 69) / 12)
        tone = sum(
            np.sin(2 * np.pi * n * hertz * seconds) / n
            for n in range(1, partials + 1)
            if n * hertz < 11_000
        )
        notes += [0.2 * tone * np.exp(-0.5 * seconds)] * len(VELOCITIES)
    soundfile.write(folder / f"{name}.wav", np.concatenate(notes), SAMPLE_RATE, subtype="PCM_16")


def scale(
    *,
    velocities: tuple[float, ...] = (64.0,),
    interval_s: float = 0.25,
    held: float = 0.5,
    pedal: tuple[tuple[float, float], ...] = (),
    count: int = 20,
) -> Performance:
    """Notes at equal distances, up and down, with velocities in turn."""
    onsets = np.array([0.05 + i * interval_s for i in range(count)])
    pitches = np.array([60.0 + i % 7 for i in range(count)])
    touch = np.resize(np.array(velocities), count)
    releases = onsets + held * interval_s
    return Performance(onsets, releases, pitches, touch, pedal=np.array(pedal).reshape(-1, 2))


def write_performances(folder: Path, *, seed: int, count: int = 4) -> None:
    """Random notes, in the packed form."""
    rng = np.random.default_rng(seed)
    notes = np.full(count, 120)
    changes = np.full(count, 21)
    packed = {
        "dt": rng.integers(500, 4000, notes.sum()),
        "du": rng.integers(500, 9000, notes.sum()),
        "pi": rng.integers(40, 90, notes.sum()),
        "ve": rng.integers(20, 110, notes.sum()),
        "pt": np.concatenate([np.sort(rng.integers(0, 250_000, 21)) for _ in range(count)]),
        "pv": np.concatenate([np.resize([127, 0], 21) for _ in range(count)]),
    }
    names = np.array([f"planted/{i}.mid" for i in range(count)])
    np.savez(folder / "performances.npz", meta=names, nn=notes, npd=changes, **packed)
