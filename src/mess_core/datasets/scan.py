"""Scanning a dataset into its recording table: the one place that looks into audio files.

Every file is hashed and decoded once; the facts are kept beside the table in
``{dataset}.scan.json``, and a file whose size and modification time have not changed since it was
read is not read again. A file that cannot be used stays in the table with a status and a reason,
and is listed in ``{dataset}.problems.tsv``; it never stops the scan.
"""

__all__ = ["ScanReport", "scan_dataset"]

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mess_core import stages
from mess_core.datasets.base import BaseDataset, Source
from mess_core.errors import AudioError, DatasetError, MidiError, StorageError
from mess_core.extraction.audio import validate_audio_file
from mess_core.files import file_sha256, read_json, write_json, write_text
from mess_core.layout import Layout
from mess_core.recordings import (
    Recording,
    cell,
    judge,
    problem_lines,
    try_failed_again,
    usable,
    write_recordings,
)

Progress = Callable[[int, int, str], None]

#: How many recordings are named of those that differ from the last scan.
_NAMED = 5


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan found.

    ``recordings`` are all rows of the table. So many audio files were ``read``; the others were
    unchanged or could not be read. ``changes`` are the ids that were ``added``, ``changed`` and
    ``gone`` since the last scan; empty when there was none.
    """

    recordings: tuple[Recording, ...]
    read: int
    changes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def problems(self) -> list[Recording]:
        """The recordings that, or whose MIDI or beats, cannot be used."""
        return [r for r in self.recordings if r.reason]

    def summary(self) -> str:
        """Return a line on what is usable, one on what is new, and one per unusable recording."""
        good = usable(self.recordings)
        hours = sum(r.duration_s for r in good) / 3600
        lines = [
            f"{len(good)} of {len(self.recordings)} recordings usable: "
            f"{len({r.work_id for r in good})} works, {hours:.2f} h"
        ]
        changes = [_some(word, ids) for word, ids in self.changes.items() if ids]
        if changes:
            lines.append(f"since the last scan: {'; '.join(changes)}")
        return "\n".join(lines + problem_lines(self.recordings))


def _some(word: str, ids: Sequence[str]) -> str:
    more = [f"and {len(ids) - _NAMED} more"] if len(ids) > _NAMED else []
    return f"{len(ids)} {word} ({', '.join([*ids[:_NAMED], *more])})"


def scan_dataset(
    dataset: BaseDataset,
    layout: Layout,
    *,
    min_duration_s: float = 5.0,
    progress: Progress | None = None,
) -> ScanReport:
    """Write a dataset's recording table.

    Raises `DatasetError` if the dataset is not where it should be, or two recordings have one id.

    Parameters
    ----------
    dataset : BaseDataset
        What to scan.
    layout : Layout
        Where the table goes; its dataset name is used in paths.
    min_duration_s : float
        Shortest usable recording in seconds: the length of a window.
    progress : callable, optional
        Called after each recording with the number done, the number in all, and its id.
    """
    sources = dataset.sources()
    repeated = [name for name, n in Counter(s.recording_id for s in sources).items() if n > 1]
    if repeated:
        raise DatasetError(f"{dataset.name}: recording ids occur more than once: {repeated[:5]}")
    known: dict[str, dict[str, Any]] = {}
    with suppress(StorageError):
        known = read_json(layout.scan)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        facts: list[dict[str, Any]] = []
        looked = pool.map(lambda s: _look(s, known.get(s.recording_id)), sources)
        for source, fact in zip(sources, looked, strict=True):
            facts.append(fact)
            if progress:
                progress(len(facts), len(sources), source.recording_id)
    rows = [_row(s, f) for s, f in zip(sources, facts, strict=True)]
    found = {s.recording_id: f for s, f in zip(sources, facts, strict=True)}
    report = ScanReport(
        tuple(sorted(judge(rows, min_duration_s), key=lambda r: r.recording_id)),
        read=sum(
            fact is not known.get(name) and fact["audio_sha256"] != ""
            for name, fact in found.items()
        ),
        changes=_changes(known, found) if known else {},
    )
    _write(layout, report, found)
    return report


def _changes(
    known: Mapping[str, dict[str, Any]], found: Mapping[str, dict[str, Any]]
) -> dict[str, list[str]]:
    hashes = ("audio_sha256", "midi_sha256", "beats_sha256")
    both = sorted(set(known) & set(found))
    return {
        "added": sorted(set(found) - set(known)),
        "changed": [i for i in both if any(known[i].get(k) != found[i][k] for k in hashes)],
        "gone": sorted(set(known) - set(found)),
    }


def _look(source: Source, known: dict[str, Any] | None) -> dict[str, Any]:
    seen = {
        "stage": stages.RECORDINGS,
        "audio": _stamp(source.audio),
        "midi": _stamp(source.midi) if source.midi else None,
        "beats": _stamp(source.beats) if source.beats else None,
    }
    # What could not be read may be readable now: permissions leave no trace in size and time.
    if known and known["audio_sha256"] and all(known.get(k) == v for k, v in seen.items()):
        return known
    midi_sha256, beats_sha256, notes_reason = _look_at_notes(source.midi, source.beats)
    sha256 = _sha256(source.audio)
    status, reason, duration_s = "ok", "", 0.0
    try:
        duration_s = validate_audio_file(source.audio).duration_s
    except AudioError as error:
        status, reason = error.status, str(error)
    if not str(source.audio).isprintable():
        status, reason = (
            "unreadable",
            f"{str(source.audio)!r}: has a character in its name that no table can hold; rename it",
        )
    return {
        **seen,
        "audio_sha256": sha256,
        "midi_sha256": midi_sha256,
        "beats_sha256": beats_sha256,
        "duration_s": duration_s,
        "status": status,
        "reason": "; ".join(part for part in (reason, notes_reason) if part),
    }


def _sha256(path: Path) -> str:
    """Return the hash of a file's content, or nothing where it cannot be read."""
    try:
        return file_sha256(path) if path.is_file() else ""
    except OSError:
        return ""


def _look_at_notes(midi: Path | None, beats: Path | None) -> tuple[str, str, str]:
    """Return the hashes of the MIDI and of its beats, and why one of them is left out."""
    if midi is None:
        return "", "", ""
    from mess_core.targets.notes import read_performance

    try:
        read_performance(midi, beats=beats)
        return file_sha256(midi), file_sha256(beats) if beats else "", ""
    except (MidiError, OSError) as error:
        if beats is None:
            return "", "", f"MIDI left out: {error}"
        midi_sha256, _, reason = _look_at_notes(midi, None)
        return midi_sha256, "", reason or f"beats left out: {error}"


def _stamp(path: Path) -> list[str | int] | None:
    """Return what tells that a file may have changed: its path, size and modification time."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [str(path), stat.st_size, stat.st_mtime_ns]


def _row(source: Source, facts: Mapping[str, Any]) -> Recording:
    found = {name: value for name, value in facts.items() if name != "stage"}
    found["audio"] = str(source.audio)
    found["midi"] = str(source.midi) if source.midi and facts["midi_sha256"] else ""
    found["beats"] = str(source.beats) if source.beats and facts["beats_sha256"] else ""
    return Recording(**(asdict(source) | found))


def _write(layout: Layout, report: ScanReport, facts: Mapping[str, Any]) -> None:
    write_json(layout.scan, facts)
    lines = ["recording_id\taudio\tstatus\treason"]
    lines += [
        "\t".join(map(cell, (r.recording_id, r.audio, r.status, r.reason))) for r in report.problems
    ]
    write_text(layout.problems, "\n".join(lines) + "\n")
    # Last, because everything else goes by it.
    write_recordings(layout.table, report.recordings)
    try_failed_again(layout)
