"""Makes ``golden.json``: the targets of a fixed signal and a fixed performance, with the stage.

Those of the recording, and those of one window.

Run ``python tests/targets/make_golden.py`` after `stages.TARGETS` or the version of a target went
up, or a target was added, and only then.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pretty_midi

from mess_core import stages
from mess_core.targets import measure
from mess_core.targets.notes import Performance, read_performance
from mess_core.targets.sound import Sound, analyse

RATE = 24_000


def music() -> npt.NDArray[np.float32]:
    """Twelve seconds of decaying notes with three partials, swelling and fading."""
    samples = np.zeros(12 * RATE)
    for i in range(36):
        time = np.arange(RATE) / RATE
        frequency = 220 * 2 ** ((7 * i % 24) / 12)
        note = sum(np.sin(2 * np.pi * k * frequency * time) / k**2 for k in (1, 2, 3))
        start = round((i + 0.1 * np.sin(i)) * RATE / 3.2) + RATE // 4
        loudness = 0.05 + 0.15 * np.sin(np.pi * i / 12) ** 2
        samples[start : start + RATE] += (
            loudness * note * np.exp(-4 * time) * np.minimum(time / 0.01, 1)
        )[: max(0, len(samples) - start)]
    return samples.astype(np.float32)


def performance(path: Path) -> Path:
    """Sixty notes whose tempo bends twice."""
    instrument = pretty_midi.Instrument(0)
    onset = 0.5
    for i in range(60):
        beats = (1.0, 0.5, 0.5)[i % 3]
        length = 0.5 * beats * (1 + 0.2 * np.sin(i / 5))
        note = pretty_midi.Note(50 + i % 30, 60 + 5 * i % 12, onset, onset + 0.8 * length)
        instrument.notes.append(note)
        onset += length
    midi = pretty_midi.PrettyMIDI(resolution=960)
    midi.instruments.append(instrument)
    midi.write(str(path))
    return path


def golden() -> dict[str, Any]:
    """Return the stage and every target, six significant digits, None where undefined."""
    sound = analyse(music(), RATE)
    with tempfile.TemporaryDirectory() as folder:
        played = read_performance(performance(Path(folder) / "a.mid"))
    whole: tuple[Sound | Performance, ...] = (sound, played)
    window: tuple[Sound | Performance, ...] = (sound.cut(3.3, 8.3), played.cut(3.3, 8.3))
    values: dict[str, npt.NDArray[np.floating]] = {
        f"{prefix}{category}/{name}": array
        for prefix, parts in (("", whole), ("w/", window))
        for series in parts
        for category, fields in measure(series).items()
        for name, array in fields.items()
    }
    return {"stage": stages.TARGETS, "targets": {key: _rounded(a) for key, a in values.items()}}


def _rounded(array: npt.NDArray[np.floating]) -> list[float | None]:
    return [float(f"{x:.6g}") if np.isfinite(x) else None for x in np.atleast_1d(array)]


if __name__ == "__main__":
    lines = json.dumps(golden()).replace("], ", "],\n ")
    Path(__file__).with_name("golden.json").write_text(lines + "\n")
