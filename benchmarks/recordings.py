"""Music to measure with: the demo corpus, and files of any length made of it."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from mess_core.files import file_sha256
from mess_core.recordings import Recording

_RATE = 44_100


def demo_audio(work: Path) -> list[Path]:
    """Return the demo corpus's files (44.1 kHz, stereo), rendered first where they are missing."""
    found = sorted(Path("data/audio/demo").glob("*.wav"))
    if not found:
        from mess_core.datasets.demo import make_demo_corpus

        folder = work / "demo"
        if not (folder / "truth.tsv").exists():
            make_demo_corpus(folder, folder / "truth.tsv")
        found = sorted(folder.glob("*.wav"))
    return found


def describe(path: Path) -> Recording:
    """Return the recording table's row of a file."""
    return Recording(
        recording_id=path.stem,
        work_id=path.stem,
        performer="",
        composer="",
        title="",
        split="",
        audio=str(path),
        midi="",
        beats="",
        audio_sha256=file_sha256(path),
        midi_sha256="",
        beats_sha256="",
        duration_s=soundfile.info(path).duration,
        status="ok",
        reason="",
    )


def write_long(path: Path, music: list[Path], *, minutes: float) -> Path:
    """Write a WAV file of a length, one demo recording after another."""
    left = round(minutes * 60 * _RATE)
    with soundfile.SoundFile(path, "w", _RATE, 2, "PCM_16") as file:
        for block in _blocks(music):
            file.write(block[:left])
            left -= min(left, len(block))
            if not left:
                return path
    raise ValueError("no music")


def _blocks(music: list[Path]) -> Iterator[npt.NDArray[np.float32]]:
    for path in cycle(music):
        yield soundfile.read(path, dtype="float32", always_2d=True)[0]


def write_clips(folder: Path, music: list[Path], *, count: int) -> list[Path]:
    """Write clips of 5 to 12 s, WAV and FLAC in turn, each from another recording."""
    rng = np.random.default_rng(5)
    clips = []
    for i in range(count):
        samples, _ = soundfile.read(music[i % len(music)], dtype="float32", always_2d=True)
        frames = round(float(rng.uniform(5, 12)) * _RATE)
        first = int(rng.integers(0, max(len(samples) - frames, 1)))
        clips.append(folder / f"clip{i:02d}.{('wav', 'flac')[i % 2]}")
        soundfile.write(clips[-1], samples[first : first + frames], _RATE, "PCM_16")
    return clips
