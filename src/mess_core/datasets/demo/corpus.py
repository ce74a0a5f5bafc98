"""Making the demo corpus: MIDI, audio, beats and the table of what is true about them."""

__all__ = ["make_demo_corpus"]

from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import soundfile

from mess_core import stages
from mess_core.datasets.demo.catalogue import DemoRecording, demo_recordings
from mess_core.datasets.demo.interpretation import Interpretation
from mess_core.datasets.demo.performance import beats_to_tsv, perform, to_midi
from mess_core.datasets.render import render_midi_file
from mess_core.errors import StorageError
from mess_core.files import file_sha256, read_json, write_bytes, write_json, write_text

_SUFFIXES = (".wav", ".mid", ".beats.tsv")
_PARAMETERS = tuple(field.name for field in fields(Interpretation))


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
    for done, recording in enumerate(recordings, start=1):
        rows.append(_truth(recording, _make(recording, audio_dir)))
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
