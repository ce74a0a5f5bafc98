"""All targets of a recording, of its windows, and of many recordings."""

__all__ = [
    "MidiExpressionTargets",
    "MusicalAspectTargets",
    "create_target_dataset",
    "measure",
    "measure_passage",
    "measure_windows",
    "targets_fingerprint",
]

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from mess_core import stages
from mess_core.cache import cached, materialise
from mess_core.errors import TargetError, noting
from mess_core.extraction.audio import find_passage, load_audio, segment_starts
from mess_core.files import fingerprint
from mess_core.layout import Layout
from mess_core.recordings import Recording, check_unchanged
from mess_core.targets.curves import PARTS
from mess_core.targets.notes import Performance, read_performance
from mess_core.targets.npz import Targets, flatten, save_targets
from mess_core.targets.registry import ALIGNED, AUDIO, MIDI, TARGETS, TargetSpec
from mess_core.targets.relative import Relative
from mess_core.targets.sound import Sound, analyse


class MusicalAspectTargets:
    """The targets that are heard in the audio: all categories but ``expression``."""

    def compute(self, samples: npt.NDArray[np.float32], sample_rate: int) -> Targets:
        """Return `measure` of what `mess_core.targets.sound.analyse` makes of a recording."""
        return measure(analyse(samples, sample_rate))


class MidiExpressionTargets:
    """The targets that are read from the performance's MIDI: ``expression``."""

    def compute(self, midi: Path, *, beats: Path | None = None) -> Targets:
        """Return `measure` of what `mess_core.targets.notes.read_performance` reads."""
        return measure(read_performance(midi, beats=beats))


Series = Sound | Performance | Relative

#: What the targets of each kind of series are computed from.
_SOURCES: dict[type[Series], str] = {Sound: AUDIO, Performance: MIDI, Relative: ALIGNED}


def measure(series: Series) -> Targets:
    """Compute every target that a recording, or a window of one, has.

    Returns ``{category: {field: array}}``: scalars 0-d, curves and shapes 1-D, float64, NaN where
    undefined.
    """
    targets: Targets = {}
    source = _SOURCES[type(series)]
    for spec in TARGETS.values():
        if spec.source == source:
            fields = targets.setdefault(spec.category, {})
            function, parameters = _function(spec)
            if spec.curve:
                value = function(fields[spec.curve])
            else:
                value = function(**{name: getattr(series, name) for name in parameters})
            fields[spec.name] = np.asarray(value, np.float64)
    return targets


def measure_windows(series: Series, starts: Iterable[float], *, window_s: float) -> Targets:
    """Compute every target of the windows of a recording that begin at ``starts``, at least one.

    Returns `measure`'s arrays with one more axis in front, that of the windows.
    """
    windows = [measure(series.cut(t, t + window_s)) for t in starts]
    return {
        category: {name: np.stack([w[category][name] for w in windows]) for name in fields}
        for category, fields in windows[0].items()
    }


def measure_passage(
    path: Path,
    start_s: float | None = None,
    end_s: float | None = None,
    *,
    sample_rate: int = 24_000,
    window_s: float = 5.0,
    overlap: float = 0.5,
) -> dict[str, npt.NDArray[np.float64]]:
    """Measure an audio file, and the windows of a passage of it.

    Returns audio targets by the keys of targets files. The windows are those of
    `mess_core.extraction.extract_passage`, which says what is raised; what their surroundings tell
    of them (onsets, local tempo) comes from the whole file.
    """
    samples = load_audio(path, sample_rate=sample_rate)
    first, last = find_passage(
        len(samples), start_s, end_s, sample_rate=sample_rate, window_s=window_s
    )
    starts = segment_starts(
        last - first, sample_rate=sample_rate, window_s=window_s, overlap=overlap
    )
    with threadpool_limits(limits=1, user_api="blas"):
        sound = analyse(samples, sample_rate)
        windows = measure_windows(sound, (first + starts) / sample_rate, window_s=window_s)
        return flatten(measure(sound), windows)


@cache
def _function(spec: TargetSpec) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """Return a target's function and the names of the series that it takes."""
    if spec.curve:
        return PARTS[spec.name.rpartition("_")[2]], ()
    module = import_module(f"mess_core.targets.{spec.category}")
    function = getattr(module, spec.name)
    return function, tuple(signature(function).parameters)


def create_target_dataset(
    recordings: Sequence[Recording],
    *,
    layout: Layout,
    sample_rate: int = 24_000,
    window_s: float = 5.0,
    overlap: float = 0.5,
    failed: dict[str, str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, str]:
    """Compute and store the targets of recordings and of their windows.

    Raises `TargetError` if recordings failed, for whatever reason; names all of them. The others
    are stored. Raises `StorageError` if files cannot be written; what is finished is kept.

    Parameters
    ----------
    recordings : sequence of Recording
        Rows of the recording table.
    layout : Layout
        Where outputs and the cache lie.
    sample_rate : int
        Samples per second at which audio is measured.
    window_s, overlap : float
        The features' windows (`mess_core.extraction.audio.segment_starts`).
    failed : dict, optional
        Gets the reasons by ``recording_id``, instead of an error that names them.
    progress : callable, optional
        Called with ``(done, total, recording_id)`` after every recording.

    Returns
    -------
    dict of str to str
        By ``recording_id``, the name in the cache of what its file is a copy of: its fingerprint,
        and the first 16 digits of its SHA-256.
    """
    settings: Any = {"sample_rate": sample_rate, "window_s": window_s, "overlap": overlap}
    done: dict[str, str] = {}
    failures: dict[str, str] = {} if failed is None else failed
    for count, recording in enumerate(recordings, start=1):
        name = recording.recording_id
        with noting(failures, [name]):
            key = targets_fingerprint(recording, **settings)
            write = partial(_compute, recording, **settings)
            stored = cached(layout.cache, "targets", key, ".npz", write)
            materialise(stored, layout.targets(name))
            done[name] = stored.stem
        if progress:
            progress(count, len(recordings), name)
    if failures and failed is None:
        raise TargetError(
            f"{len(failures)} of {len(recordings)} recordings have no targets:\n  "
            + "\n  ".join(f"{name}: {cause}" for name, cause in failures.items())
        )
    return done


def targets_fingerprint(
    recording: Recording, *, sample_rate: int, window_s: float, overlap: float
) -> str:
    """Return the fingerprint of everything that a recording's targets depend on."""
    return fingerprint(
        {
            "stage": stages.TARGETS,
            "targets": [[s.name, s.version] for s in TARGETS.values() if not s.aligned],
            "audio": recording.audio_sha256,
            "midi": recording.midi_sha256,
            "beats": recording.beats_sha256,
            "sample_rate": sample_rate,
            "window_s": window_s,
            "overlap": overlap,
        }
    )


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
        sound = analyse(samples, sample_rate)
        targets = measure(sound)
        windows = measure_windows(sound, times, window_s=window_s)
        if recording.midi:
            beats = Path(recording.beats) if recording.beats else None
            performance = read_performance(Path(recording.midi), beats=beats)
            targets |= measure(performance)
            windows |= measure_windows(performance, times, window_s=window_s)
    save_targets(path, targets, windows=windows)
