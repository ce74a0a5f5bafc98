"""The alignment of a work's recordings and the targets that follow from it, on disk.

A recording's file is a hard link to a cached one, which is named by all recordings of its work: one
that comes or goes changes the consensus, and so what is measured of the others.

Beats that are annotated for one recording of a work, else those that are tracked in the reference's
MIDI, are carried over to the others. Where a recording has no annotated beats, the targets of
`mess_core.targets.registry.FROM_BEATS` are measured again with them.
"""

__all__ = ["StoredWork", "carry_beats", "store_work"]

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mess_core import stages
from mess_core.alignment.align import align_work
from mess_core.alignment.curves import relative, work_curves
from mess_core.alignment.maps import Alignment, WorkAlignment
from mess_core.cache import cached, find, materialise
from mess_core.errors import noting
from mess_core.extraction.audio import load_audio, segment_starts
from mess_core.files import fingerprint, read_json, write_json
from mess_core.layout import Layout
from mess_core.recordings import Recording, check_unchanged
from mess_core.targets.create import Series, measure, measure_windows
from mess_core.targets.curves import Float
from mess_core.targets.notes import Performance, read_beats, read_performance
from mess_core.targets.npz import ALIGNED_BEATS, flatten
from mess_core.targets.pulse import Pulse
from mess_core.targets.registry import FROM_ALIGNMENT, TARGETS
from mess_core.targets.sound import momentary_loudness

#: Samples per second at which audio is measured, as by the targets rule.
SAMPLE_RATE = 24_000

#: Fewer beats that are carried over are not worth having.
LEAST_BEATS = 8

#: What the manifest adds where the beats of a recording that others get are tracked.
_TRACKED = " (tracked)"


@dataclass
class StoredWork:
    """What was made of a work.

    ``entry`` is what the manifest says: `WorkAlignment.facts`, where the ``beats`` of each
    recording are from, and the ``share`` of it that is aligned. ``files`` are the cached files that
    those of the aligned recordings are copies of; ``failed`` says what went wrong with which.
    """

    entry: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def store_work(
    layout: Layout,
    work_id: str,
    recordings: Sequence[Recording],
    *,
    window_s: float,
    overlap: float,
) -> StoredWork:
    """Align the recordings of a work, measure what follows, and store a file for each.

    What cannot be read or aligned is left out. Raises `StorageError` if files cannot be written.
    """
    cache, windows = layout.cache, {"window_s": window_s, "overlap": overlap}
    made = _find(cache, _key(recordings, windows))
    if made is None:
        failed: dict[str, str] = {}
        for recording in recordings:
            with noting(failed, [recording.recording_id]):
                check_unchanged(recording)
                _listen(recording, cache)
        good = [r for r in recordings if r.recording_id not in failed]
        with noting(failed, [r.recording_id for r in good]):
            made = _find(cache, _key(good, windows)) or _make(cache, work_id, good, windows)
        made = made or StoredWork()
        made.failed |= failed
    for name, stored in made.files.items():
        materialise(stored, layout.alignment(name))
    return made


def _key(recordings: Iterable[Recording], windows: Mapping[str, float]) -> str:
    """Return the fingerprint of everything that the files of a work depend on."""
    facts: dict[str, Any] = {
        r.recording_id: [r.work_id, r.audio_sha256, r.midi_sha256, r.beats_sha256]
        for r in recordings
    }
    versions = [[name, TARGETS[name].version] for name in FROM_ALIGNMENT]
    stage = [stages.ALIGNMENTS, stages.TARGETS]
    return fingerprint({"stage": stage, "targets": versions, "recordings": facts, **windows})


def _find(cache: Path, key: str) -> StoredWork | None:
    """Return what is cached of a work, None where anything of it is not."""
    path = find(cache, "alignments", key, ".json")
    if path is None:
        return None
    entry = read_json(path)
    files = {n: find(cache, "alignments", _key_of(key, n), ".npz") for n in entry["sources"]}
    intact = {name: stored for name, stored in files.items() if stored}
    return StoredWork(entry, intact) if len(intact) == len(files) else None


def _key_of(key: str, name: str) -> str:
    return fingerprint({"work": key, "recording": name})


def _make(
    cache: Path, work_id: str, recordings: Sequence[Recording], windows: Mapping[str, float]
) -> StoredWork:
    """Align and measure a work, and cache it."""
    key = _key(recordings, windows)
    work = carry_beats(align_work(work_id, recordings, cache=cache), recordings)
    made = StoredWork(work.facts() | {"beats": {}, "share": {}})
    heard = {r.recording_id: _listen(r, cache) for r in recordings}
    alignments = {n: replace(a, loudness=heard[n][0]) for n, a in work.alignments.items()}
    curves = work_curves(replace(work, alignments=alignments)) if alignments else None
    for recording in recordings:
        name = recording.recording_id
        if curves and name in alignments:
            alignment, samples = alignments[name], heard[name][1]
            beats = _beats_of(recording, alignment, work.beats_from)
            series: list[Series] = [relative(curves, name, samples / SAMPLE_RATE)]
            if beats.startswith(ALIGNED_BEATS):
                series.append(_performance(recording, alignment))
            starts = segment_starts(samples, sample_rate=SAMPLE_RATE, **windows) / SAMPLE_RATE
            found: dict[str, Float] = {}
            for each in series:
                parts = measure_windows(each, starts, window_s=windows["window_s"])
                found |= flatten(measure(each), parts)
            content: dict[str, Any] = {
                k: found[k] for k in found if k.rpartition("/")[2] in FROM_ALIGNMENT
            }
            content |= alignment.arrays()
            made.files[name] = cached(
                *(cache, "alignments", _key_of(key, name), ".npz"),
                partial(np.savez, allow_pickle=False, **content),
            )
            covered = float(np.diff(alignment.regions).sum()) * SAMPLE_RATE / samples
            made.entry["beats"][name], made.entry["share"][name] = beats, round(covered, 4)
    cached(cache, "alignments", key, ".json", lambda path: write_json(path, made.entry))
    return made


def _listen(recording: Recording, cache: Path) -> tuple[Float, int]:
    """Return the momentary loudness of a recording, and its length in samples."""

    def write(path: Path) -> None:
        samples = load_audio(Path(recording.audio), sample_rate=SAMPLE_RATE)
        np.savez(path, loudness=momentary_loudness(samples, SAMPLE_RATE), samples=len(samples))

    key = fingerprint({"stage": stages.TARGETS, "audio": recording.audio_sha256})
    with np.load(cached(cache, "loudness", key, ".npz", write)) as stored:
        return stored["loudness"], int(stored["samples"])


def carry_beats(work: WorkAlignment, recordings: Sequence[Recording]) -> WorkAlignment:
    """Give every recording of a work the beats of one of them.

    They are annotated ones, of the reference if it has such, else of the recording of which most is
    aligned; where no recording has any, those that are tracked in the MIDI of the reference.
    """
    rows = {r.recording_id: r for r in recordings if r.recording_id in work.alignments}
    if annotated := [name for name, row in rows.items() if row.beats]:
        covered = {name: np.diff(work.alignments[name].regions).sum() for name in annotated}
        source = beats_from = max(annotated, key=lambda n: (n == work.reference, covered[n]))
        beats = read_beats(Path(rows[source].beats))
    elif rows and rows[work.reference].midi:
        source, beats_from = work.reference, work.reference + _TRACKED
        times, positions = read_performance(Path(rows[source].midi)).pulse
        if not len(times):
            return work
        beats = np.interp(np.arange(np.floor(positions[-1]) + 1), positions, times)
    else:
        return work
    places = work.alignments[source].to_work(beats)
    alignments = {n: replace(a, beats=a.to_recording(places)) for n, a in work.alignments.items()}
    return replace(work, alignments=alignments, beats_from=beats_from)


def _beats_of(recording: Recording, alignment: Alignment, beats_from: str) -> str:
    """Say where the beats of a recording are from."""
    if recording.beats:
        return "annotated"
    carried = np.isfinite(alignment.beats).sum() >= LEAST_BEATS
    if carried and recording.recording_id != beats_from.removesuffix(_TRACKED):
        return f"{ALIGNED_BEATS} from {beats_from}"
    return "tracked" if recording.midi else "none"


def _performance(recording: Recording, alignment: Alignment) -> Performance:
    """Return a performance with the beats that are carried over; without MIDI it has no notes.

    Over a gap between two regions beats are counted as at the usual tempo.
    """
    notes = read_performance(Path(recording.midi)) if recording.midi else None
    performance = notes or Performance(*np.empty((4, 0)))
    times = alignment.beats[np.isfinite(alignment.beats)]
    steps, periods = np.ones(len(times) - 1), np.diff(times)
    gaps = np.diff(np.searchsorted(alignment.regions[:, 0], times, side="right")) > 0
    steps[gaps] = periods[gaps] / np.median(periods)
    # A cached property that has its value is not computed.
    vars(performance)["pulse"] = Pulse(times, np.concatenate([[0.0], np.cumsum(steps)]))
    return performance
