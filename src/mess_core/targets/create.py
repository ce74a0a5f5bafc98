"""Targets of many recordings, each computed once and stored by content."""

__all__ = ["create_target_dataset", "targets_fingerprint"]

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from mess_core import stages
from mess_core.cache import cached, materialise
from mess_core.errors import MessError, TargetError
from mess_core.extraction.audio import load_audio, segment_starts
from mess_core.files import fingerprint
from mess_core.layout import Layout
from mess_core.recordings import Recording, check_unchanged
from mess_core.targets.descriptors import descriptors
from mess_core.targets.families import MusicalAspectTargets, measure, measure_windows
from mess_core.targets.notes import read_performance
from mess_core.targets.npz import write_npz
from mess_core.targets.registry import TARGETS


def create_target_dataset(
    recordings: Sequence[Recording],
    *,
    layout: Layout,
    sample_rate: int = 24_000,
    window_s: float = 5.0,
    overlap: float = 0.5,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, str]:
    """Compute and store the targets of recordings and of their windows.

    Parameters
    ----------
    recordings : sequence of Recording
        Rows of the recording table.
    layout : Layout
        Where outputs and the store of computed files lie.
    sample_rate : int
        Samples per second at which audio is measured.
    window_s, overlap : float
        The features' windows (`mess_core.extraction.audio.segment_starts`).
    progress : callable, optional
        Called with ``(done, total, recording_id)`` after every recording.

    Returns
    -------
    dict of str to str
        By ``recording_id``, the name in the store of what its file is a copy of: its fingerprint,
        and the first 16 digits of its SHA-256.

    Raises
    ------
    TargetError
        If recordings failed; names all of them, with causes. The others are stored.
    """
    create = partial(
        _create, layout=layout, sample_rate=sample_rate, window_s=window_s, overlap=overlap
    )
    done: dict[str, str] = {}
    failures: list[str] = []
    for count, recording in enumerate(recordings, start=1):
        name = recording.recording_id
        try:
            done[name] = create(recording)
        except MessError as error:
            failures.append(f"{name}: {error}")
        except Exception as error:
            traceback.print_exc()
            failures.append(f"{name}: {type(error).__name__}: {error}; this is a bug, report it")
        if progress:
            progress(count, len(recordings), name)
    if failures:
        raise TargetError(
            f"{len(failures)} of {len(recordings)} recordings have no targets:\n  "
            + "\n  ".join(failures)
        )
    return done


def targets_fingerprint(
    recording: Recording, *, sample_rate: int, window_s: float, overlap: float
) -> str:
    """Return the fingerprint of everything that a recording's targets depend on."""
    return fingerprint(
        {
            "stage": stages.TARGETS,
            "targets": [[spec.name, spec.version] for spec in TARGETS.values()],
            "audio": recording.audio_sha256,
            "midi": recording.midi_sha256,
            "beats": recording.beats_sha256,
            "sample_rate": sample_rate,
            "window_s": window_s,
            "overlap": overlap,
        }
    )


def _create(
    recording: Recording, *, layout: Layout, sample_rate: int, window_s: float, overlap: float
) -> str:
    key = targets_fingerprint(
        recording, sample_rate=sample_rate, window_s=window_s, overlap=overlap
    )
    write = partial(
        _compute, recording, sample_rate=sample_rate, window_s=window_s, overlap=overlap
    )
    stored = cached(layout.cache, "targets", key, ".npz", write)
    materialise(stored, layout.targets(recording.recording_id))
    return stored.stem


def _compute(
    recording: Recording, path: Path, *, sample_rate: int, window_s: float, overlap: float
) -> None:
    check_unchanged(recording)
    samples = load_audio(Path(recording.audio), sample_rate=sample_rate)
    starts = segment_starts(
        len(samples), sample_rate=sample_rate, window_s=window_s, overlap=overlap
    )
    times = starts / sample_rate
    # The matrices are small: more threads than one wait for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        sound = MusicalAspectTargets().analyse(samples, sample_rate)
        targets = measure(sound)
        windows = measure_windows(sound, times, window_s=window_s)
        plain = np.stack([descriptors(sound.cut(t, t + window_s)) for t in times])
        if recording.midi:
            beats = Path(recording.beats) if recording.beats else None
            performance = read_performance(Path(recording.midi), beats=beats)
            targets |= measure(performance)
            windows |= measure_windows(performance, times, window_s=window_s)
    write_npz(path, targets, windows=windows, descriptors=plain)
