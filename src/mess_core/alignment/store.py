"""The alignment of a work's recordings and the targets that follow from it, on disk.

A recording's file is a hard link to a cached one, which is named by all recordings of its work: one
that comes or goes changes the consensus, and so what is measured of the others.

Beats that are annotated for one recording of a work, else those that are tracked in the reference's
MIDI, are carried over to the others. Where a recording has no annotated beats, the targets of
`mess_core.targets.registry.FROM_BEATS` are measured again with them.
"""

__all__ = ["StoredWork", "carry_beats", "store_work"]

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mess_core import stages
from mess_core.alignment.align import align_work
from mess_core.alignment.curves import WorkCurves, relative, work_curves
from mess_core.alignment.maps import Alignment, WorkAlignment
from mess_core.cache import cached, find, materialise
from mess_core.errors import AlignmentError, MessError, MidiError, StorageError
from mess_core.extraction.audio import load_audio, segment_starts
from mess_core.files import fingerprint, read_json, write_json
from mess_core.layout import Layout
from mess_core.recordings import Recording, check_unchanged
from mess_core.targets.create import measure, measure_windows
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

#: What the manifest says of a recording's beats where they are not carried over.
ANNOTATED, TRACKED, NO_BEATS = "annotated", "tracked", "none"

_TRACKED_IN = "tracked: "


@dataclass
class StoredWork:
    """What was made of a work.

    Attributes
    ----------
    entry : dict
        What the manifest says: `WorkAlignment.facts`, where the ``beats`` of each recording are
        from, and the ``share`` of it that is aligned. Empty if less than two go together.
    left_out, failed : dict of str to str
        Recordings without a file, with the reason: what they play, or what went wrong.
    files : dict of str to Path
        By recording, the cached file that its own is a copy of.
    """

    entry: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


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
    job = _Job(layout.cache, work_id, recordings, {"window_s": window_s, "overlap": overlap})
    failed: dict[str, str] = {}
    made = job.find()
    if made is None:
        good = [r for r in recordings if not _attempt(r, layout.cache, failed)]
        job = replace(job, recordings=good)
        made = (job.find() if failed else None) or job.make()
    made.failed |= failed
    for name, stored in made.files.items():
        materialise(stored, layout.alignment(name))
    return made


def _attempt(recording: Recording, cache: Path, failed: dict[str, str]) -> bool:
    """Read a recording, and say whether that failed."""
    try:
        check_unchanged(recording)
        _listen(recording, cache)
    except StorageError:
        raise
    except MessError as error:
        failed[recording.recording_id] = str(error)
    return recording.recording_id in failed


@dataclass(frozen=True)
class _Job:
    """A work with its recordings, and the windows that it is measured in."""

    cache: Path
    work_id: str
    recordings: Sequence[Recording]
    windows: Mapping[str, float]

    @property
    def key(self) -> str:
        """The fingerprint of everything that the files of the work depend on."""
        parts = ("work_id", "audio_sha256", "midi_sha256", "beats_sha256")
        return fingerprint(
            {
                "stages": [stages.ALIGNMENTS, stages.TARGETS],
                "targets": [[name, TARGETS[name].version] for name in FROM_ALIGNMENT],
                "recordings": {
                    r.recording_id: [getattr(r, part) for part in parts] for r in self.recordings
                },
                **self.windows,
            }
        )

    def _key_of(self, name: str) -> str:
        return fingerprint({"work": self.key, "recording": name})

    def find(self) -> StoredWork | None:
        """Return what is cached, None where anything of it is not."""
        path = find(self.cache, "alignments", self.key, ".json")
        if path is None:
            return None
        made = StoredWork(**read_json(path))
        for name in made.entry.get("sources", ()):
            stored = find(self.cache, "alignments", self._key_of(name), ".npz")
            if stored is None:
                return None
            made.files[name] = stored
        return made

    def make(self) -> StoredWork:
        """Align and measure the work, and cache it unless something failed."""
        names = [recording.recording_id for recording in self.recordings]
        try:
            made = self._align()
        except StorageError:
            raise
        except AlignmentError as error:
            made = StoredWork(left_out=dict.fromkeys(names, str(error)))
        except MessError as error:
            return StoredWork(failed=dict.fromkeys(names, str(error)))
        except Exception as error:
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}; this is a bug, report it"
            return StoredWork(failed=dict.fromkeys(names, reason))
        facts = {"entry": made.entry, "left_out": made.left_out}
        cached(self.cache, "alignments", self.key, ".json", lambda path: write_json(path, facts))
        return made

    def _align(self) -> StoredWork:
        if len(self.recordings) < 2:
            raise AlignmentError("no other recording of its work can be used")
        work = align_work(self.work_id, self.recordings, cache=self.cache)
        if len(work.alignments) < 2:
            alone = dict.fromkeys(work.alignments, "no other recording plays what it plays")
            return StoredWork(left_out={**work.left_out, **alone})
        work = carry_beats(work, self.recordings)
        heard = {r.recording_id: _listen(r, self.cache) for r in self.recordings}
        alignments = {
            name: replace(alignment, loudness=heard[name][0])
            for name, alignment in work.alignments.items()
        }
        curves = work_curves(replace(work, alignments=alignments))
        beats, share, files = {}, {}, {}
        for recording in self.recordings:
            if (name := recording.recording_id) in alignments:
                alignment, samples = alignments[name], heard[name][1]
                beats[name] = _beats_of(recording, alignment, work.beats_from)
                performance = None
                if beats[name].startswith(ALIGNED_BEATS):
                    performance = _performance(recording, alignment)
                content = self._measure(curves, name, samples, performance)
                content |= alignment.arrays()
                files[name] = cached(
                    self.cache,
                    "alignments",
                    self._key_of(name),
                    ".npz",
                    lambda path: _save(path, content),  # noqa: B023
                )
                covered = np.diff(alignment.regions).sum() * SAMPLE_RATE / samples
                share[name] = round(float(covered), 4)
        entry = work.facts() | {"beats": beats, "share": share}
        return StoredWork(entry, dict(work.left_out), files=files)

    def _measure(
        self, curves: WorkCurves, name: str, samples: int, performance: Performance | None
    ) -> dict[str, Float]:
        """Return the targets of a recording and its windows by the keys that files have."""
        starts = segment_starts(samples, sample_rate=SAMPLE_RATE, **self.windows) / SAMPLE_RATE
        found: dict[str, Float] = {}
        for series in (relative(curves, name, samples / SAMPLE_RATE), performance):
            if series is not None:
                windows = measure_windows(series, starts, window_s=self.windows["window_s"])
                found |= flatten(measure(series), windows)
        return {k: array for k, array in found.items() if k.rpartition("/")[2] in FROM_ALIGNMENT}


def _save(path: Path, content: Mapping[str, Float]) -> None:
    with path.open("wb") as file:
        np.savez(file, **content)  # type: ignore[arg-type]


def _listen(recording: Recording, cache: Path) -> tuple[Float, int]:
    """Return the momentary loudness of a recording, and its length in samples."""

    def write(path: Path) -> None:
        samples = load_audio(Path(recording.audio), sample_rate=SAMPLE_RATE)
        loudness = momentary_loudness(samples, SAMPLE_RATE)
        _save(path, {"loudness": loudness, "samples": np.array(len(samples))})

    key = fingerprint(
        {"stage": stages.TARGETS, "audio": recording.audio_sha256, "sample_rate": SAMPLE_RATE}
    )
    with np.load(cached(cache, "loudness", key, ".npz", write)) as stored:
        return stored["loudness"], int(stored["samples"])


def carry_beats(work: WorkAlignment, recordings: Sequence[Recording]) -> WorkAlignment:
    """Give every recording of a work the beats of one of them.

    They are annotated ones, of the reference if it has such, else of the recording of which most is
    aligned; where no recording has any, those that are tracked in the MIDI of the reference.
    """
    rows = {r.recording_id: r for r in recordings if r.recording_id in work.alignments}
    annotated = [name for name, row in rows.items() if row.beats]
    covered = {name: float(np.diff(each.regions).sum()) for name, each in work.alignments.items()}
    annotated.sort(key=lambda name: (name != work.reference, -covered[name]))
    for name in annotated:
        try:
            return _with_beats(work, name, read_beats(Path(rows[name].beats)))
        except MidiError:  # which the scan has told
            continue
    reference = rows[work.reference]
    if not reference.midi:
        return work
    times, positions = read_performance(Path(reference.midi)).pulse
    if not len(times):
        return work
    beats = np.interp(np.arange(np.floor(positions[-1]) + 1), positions, times)
    return replace(
        _with_beats(work, work.reference, beats), beats_from=_TRACKED_IN + work.reference
    )


def _with_beats(work: WorkAlignment, source: str, beats: Float) -> WorkAlignment:
    places = work.alignments[source].to_work(beats)
    alignments = {
        name: replace(each, beats=each.to_recording(places))
        for name, each in work.alignments.items()
    }
    return replace(work, alignments=alignments, beats_from=source)


def _beats_of(recording: Recording, alignment: Alignment, beats_from: str) -> str:
    """Say where the beats of a recording are from."""
    source = beats_from.removeprefix(_TRACKED_IN)
    if recording.beats:
        return ANNOTATED
    carried = int(np.isfinite(alignment.beats).sum()) >= LEAST_BEATS
    if carried and source != recording.recording_id:
        return f"{ALIGNED_BEATS} from {source}" + (f" ({TRACKED})" if source != beats_from else "")
    return TRACKED if recording.midi else NO_BEATS


def _performance(recording: Recording, alignment: Alignment) -> Performance:
    """Return a performance with the beats that are carried over; without MIDI it has no notes.

    Over a gap between two regions beats are counted as at the tempo before it.
    """
    nothing = np.empty(0)
    performance = Performance(nothing, nothing, nothing, nothing)
    if recording.midi:
        performance = read_performance(Path(recording.midi))
    numbers = np.flatnonzero(np.isfinite(alignment.beats))
    times = alignment.beats[numbers]
    steps, periods = np.diff(numbers).astype(np.float64), np.diff(times)
    region = np.searchsorted(alignment.regions[:, 0], times, side="right")
    for gap in np.flatnonzero(np.diff(region)):
        usual = periods[gap - 1] / steps[gap - 1] if gap else float(np.median(periods / steps))
        steps[gap] = periods[gap] / usual
    # A cached property that has its value is not computed.
    vars(performance)["pulse"] = Pulse(times, np.concatenate([[0.0], np.cumsum(steps)]))
    return performance
