"""Targets of many recordings, each computed once and stored by content."""

__all__ = ["create_target_dataset", "targets_fingerprint"]

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mess_core import stages
from mess_core.errors import MessError, TargetError
from mess_core.extraction.audio import load_audio
from mess_core.files import fingerprint
from mess_core.layout import Layout
from mess_core.recordings import Recording, check_unchanged
from mess_core.store import cached, materialise
from mess_core.targets.aspects import MidiExpressionTargets, MusicalAspectTargets
from mess_core.targets.storage import write_npz


def create_target_dataset(
    recordings: Sequence[Recording],
    *,
    layout: Layout,
    sample_rate: int = 24_000,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, str]:
    """Compute and store the targets of recordings.

    Parameters
    ----------
    recordings : sequence of Recording
        Rows of the recording table.
    layout : Layout
        Where outputs and the store of computed files lie.
    sample_rate : int
        Samples per second at which audio is measured.
    progress : callable, optional
        Called with ``(done, total, recording_id)`` after every recording.

    Returns
    -------
    dict of str to str
        The fingerprint of each recording's targets, by ``recording_id``.

    Raises
    ------
    TargetError
        If recordings failed; names all of them, with causes. The others are stored.
    """
    done: dict[str, str] = {}
    failures: list[str] = []
    for count, recording in enumerate(recordings, start=1):
        name = recording.recording_id
        try:
            done[name] = _create(recording, layout, sample_rate)
        except MessError as error:
            failures.append(f"{name}: {error}")
        if progress:
            progress(count, len(recordings), name)
    if failures:
        raise TargetError(
            f"{len(failures)} of {len(recordings)} recordings have no targets:\n  "
            + "\n  ".join(failures)
        )
    return done


def targets_fingerprint(recording: Recording, *, sample_rate: int) -> str:
    """Return the fingerprint of everything that a recording's targets depend on."""
    return fingerprint(
        {
            "stage": stages.TARGETS,
            "audio": recording.audio_sha256,
            "midi": recording.midi_sha256,
            "sample_rate": sample_rate,
        }
    )


def _create(recording: Recording, layout: Layout, sample_rate: int) -> str:
    key = targets_fingerprint(recording, sample_rate=sample_rate)
    write = partial(_compute, recording, sample_rate)
    stored = cached(layout.cache, "targets", key, ".npz", write)
    materialise(stored, layout.targets(recording.recording_id))
    return key


def _compute(recording: Recording, sample_rate: int, path: Path) -> None:
    check_unchanged(recording)
    samples = load_audio(Path(recording.audio), sample_rate=sample_rate)
    targets = MusicalAspectTargets().compute(samples, sample_rate)
    if recording.midi:
        targets |= MidiExpressionTargets().compute(Path(recording.midi))
    write_npz(path, targets)
