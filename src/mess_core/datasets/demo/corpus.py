"""The demo corpus: what it holds, making its audio, MIDI and beats, and the corpus as a dataset."""

__all__ = ["DemoDataset", "DemoRecording", "demo_recordings", "make_demo_corpus"]

import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mess_core import stages
from mess_core.datasets.base import BaseDataset, Source
from mess_core.datasets.demo.performance import (
    INTERPRETATIONS,
    Interpretation,
    beats_to_tsv,
    interpret,
    perform,
    to_midi,
)
from mess_core.datasets.demo.pieces import SCORES, Score
from mess_core.errors import DatasetError, StorageError
from mess_core.files import file_sha256, read_json, write_bytes, write_json, write_text

_SUFFIXES = (".wav", ".mid", ".beats.tsv")
_PARAMETERS = tuple(field.name for field in fields(Interpretation))


@dataclass(frozen=True)
class DemoRecording:
    """One work in one interpretation.

    Attributes
    ----------
    score : Score
        What is played.
    performer : str
        The name of the interpretation.
    interpretation : Interpretation
        How it is played, in numbers.
    """

    score: Score
    performer: str
    interpretation: Interpretation

    @property
    def recording_id(self) -> str:
        """``{work_id}_{performer}``, safe as a file name."""
        return f"{self.score.work_id}_{self.performer}"

    @property
    def work_id(self) -> str:
        """The work's id."""
        return self.score.work_id


def demo_recordings() -> list[DemoRecording]:
    """Return all recordings of the demo corpus, in the order of ``recording_id``."""
    recordings = [
        DemoRecording(score, name, interpret(name, score.work_id))
        for score in SCORES
        for name in INTERPRETATIONS
    ]
    return sorted(recordings, key=lambda recording: recording.recording_id)


def make_demo_corpus(
    audio_dir: Path,
    truth_table: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[DemoRecording]:
    """Perform and render every work in every interpretation, unless it was done before.

    Beside the audio, ``made.json`` holds the stage (`stages.DEMO`) and the hash of every file. The
    corpus is made again when the stage is another one, or a file is missing or damaged.

    Parameters
    ----------
    audio_dir : Path
        Gets, per recording, ``{recording_id}.wav`` (44.1 kHz, stereo, 16 bit), ``.mid`` and
        ``.beats.tsv`` (the beat times, in the form of the ASAP dataset).
    truth_table : Path
        Tab-separated: ``recording_id``, ``work_id``, ``interpretation``, the numbers of the
        `Interpretation` and ``duration_s`` of the audio.
    progress : callable, optional
        Called with the number of recordings done and of all, after each.

    Returns
    -------
    list of DemoRecording
        What there is, in the order of ``recording_id``.
    """
    recordings, made = demo_recordings(), audio_dir / "made.json"
    files = [audio_dir / f"{r.recording_id}{suffix}" for r in recordings for suffix in _SUFFIXES]
    if _recorded(made) == _facts([*files, truth_table]):
        return recordings
    rows = ["\t".join(("recording_id", "work_id", "interpretation", *_PARAMETERS, "duration_s"))]
    # In processes, for the renderer holds Python's lock; on Ctrl-C they finish what they are at.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(None, get_context("spawn"), signal.signal, ignore) as pool:
        durations = pool.map(_make, recordings, repeat(audio_dir))
        for done, made_one in enumerate(zip(recordings, durations, strict=True), start=1):
            rows.append(_truth(*made_one))
            if progress:
                progress(done, len(recordings))
    write_text(truth_table, "\n".join(rows) + "\n")
    write_json(made, _facts([*files, truth_table]))
    return recordings


def _recorded(made: Path) -> Any:
    try:
        return read_json(made)
    except StorageError:
        return None


def _facts(files: Iterable[Path]) -> dict[str, Any]:
    """Return what changes when a file of the corpus is missing, damaged or of another stage."""
    hashes = {path.name: file_sha256(path) if path.is_file() else "" for path in files}
    return {"stage": stages.DEMO, "sha256": hashes}


def _make(recording: DemoRecording, audio_dir: Path) -> float:
    """Write a recording's files and return its duration in seconds."""
    import soundfile

    from mess_core.datasets.render import render_midi_file

    performance = perform(recording.score, recording.interpretation)
    midi = audio_dir / f"{recording.recording_id}.mid"
    wav = midi.with_suffix(".wav")
    write_bytes(midi, to_midi(performance))
    write_text(midi.with_suffix(".beats.tsv"), beats_to_tsv(performance.beats))
    render_midi_file(midi, wav)
    return float(soundfile.info(wav).duration)


def _truth(recording: DemoRecording, duration_s: float) -> str:
    names = (recording.recording_id, recording.work_id, recording.performer)
    numbers = (f"{value:g}" for value in asdict(recording.interpretation).values())
    return "\t".join((*names, *numbers, f"{duration_s:.3f}"))


class DemoDataset(BaseDataset):
    """Public-domain keyboard music, performed from scores by rules and rendered."""

    name = "demo"
    licence = (
        "MIT (scores and performances written for this project; the music is in the public domain)"
    )
    citation = "The demo corpus of MESS"
    layout = "{recording_id}.wav, .mid and .beats.tsv, made by `mess recordings demo`"

    def sources(self) -> Sequence[Source]:
        """Return one source per work and interpretation."""
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} does not exist; it is made as {self.layout}")
        return [
            Source(
                recording_id=recording.recording_id,
                work_id=recording.work_id,
                audio=self.root / f"{recording.recording_id}.wav",
                midi=self.root / f"{recording.recording_id}.mid",
                beats=self.root / f"{recording.recording_id}.beats.tsv",
                performer=recording.performer,
                composer=recording.score.composer,
                title=recording.score.title,
            )
            for recording in demo_recordings()
        ]
