"""The recording table: what exists, and what can be used.

``data/metadata/{dataset}.tsv`` is tab-separated UTF-8 with one row per recording and the columns of
`Recording`, in that order. One command writes it (`mess recordings`); everything else reads it, and
nothing else scans folders. Rows whose ``status`` is not ``ok`` stay in the table with a ``reason``
and are left out of all later stages.
"""

__all__ = [
    "MIN_WORKS",
    "STATUSES",
    "Recording",
    "by_work",
    "cell",
    "check_enough",
    "check_unchanged",
    "failures",
    "judge",
    "problem_lines",
    "read_problems",
    "read_recordings",
    "read_shard",
    "read_with_features",
    "shard_of",
    "try_failed_again",
    "usable",
    "write_recordings",
]

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

from mess_core.errors import DatasetError
from mess_core.files import file_sha256, read_json, write_text
from mess_core.layout import SOURCES, Layout

#: What a recording's audio can be: ``ok`` is used, everything else is reported and left out.
STATUSES = (
    "ok",
    "missing",
    "empty",
    "unreadable",
    "truncated",
    "too_short",
    "silent",
    "not_finite",
    "too_large",
)

#: What probing needs: a work to test, one to choose penalty and layer by, one to learn from.
MIN_WORKS = 3

#: What would break a row into several.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, slots=True)
class Recording:
    """One row of the recording table.

    Attributes
    ----------
    recording_id : str
        Unique in the dataset and safe as a file name.
    work_id : str
        The work that is played; folds and "exclude" in search go by it.
    performer, composer, title, split : str
        May be empty.
    audio, midi, beats : str
        Paths, relative to the working folder or absolute; ``midi`` and ``beats`` may be empty.
        Beats are a table whose first column is when the performance reaches each beat, in seconds.
    audio_sha256, midi_sha256, beats_sha256 : str
        Of the files' content; empty where there is no file.
    duration_s : float
        Length of the audio in seconds, 0 where it cannot be read.
    status : str
        One of `STATUSES`.
    reason : str
        Why the recording, its MIDI or its beats cannot be used; else empty.
    """

    recording_id: str
    work_id: str
    performer: str
    composer: str
    title: str
    split: str
    audio: str
    midi: str
    beats: str
    audio_sha256: str
    midi_sha256: str
    beats_sha256: str
    duration_s: float
    status: str
    reason: str


COLUMNS = tuple(field.name for field in fields(Recording))
_DURATION = COLUMNS.index("duration_s")


def read_recordings(path: Path) -> list[Recording]:
    """Read a recording table as `write_recordings` writes it, in the order of ``recording_id``.

    Raises `DatasetError` if the file is missing, lacks a column, or has an unsafe or repeated
    ``recording_id``.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DatasetError(
            f"{path} does not exist; write it with `mess recordings {path.stem}`, or for a folder "
            f"of audio `mess recordings --folder PATH --name {path.stem}`"
        ) from None
    header, *rows = [line.split("\t") for line in text.split("\n")]
    if tuple(header) != COLUMNS:
        raise DatasetError(
            f"{path} has the columns {header}, expected {list(COLUMNS)}; "
            "write it again with `mess recordings`"
        )
    recordings = [_parse(path, row) for row in rows if row != [""]]
    _check_ids(path, recordings)
    return recordings


def _parse(path: Path, row: list[str]) -> Recording:
    try:
        facts: list[Any] = [*row]
        facts[_DURATION] = float(row[_DURATION])
        return Recording(*facts)
    except (IndexError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: row {row[0]!r} is malformed: {error}") from None


def _check_ids(path: Path, recordings: list[Recording]) -> None:
    seen: set[str] = set()
    for recording in recordings:
        if not _SAFE_ID.fullmatch(recording.recording_id):
            raise DatasetError(
                f"{path}: recording_id {recording.recording_id!r} is not safe as a file name; "
                "use letters, digits, '.', '_', '+' and '-', beginning with a letter or digit"
            )
        if recording.recording_id in seen:
            raise DatasetError(f"{path}: recording_id {recording.recording_id!r} occurs twice")
        if recording.status not in STATUSES:
            raise DatasetError(
                f"{path}: status {recording.status!r} of {recording.recording_id} "
                f"is none of {', '.join(STATUSES)}"
            )
        seen.add(recording.recording_id)


def write_recordings(path: Path, recordings: Iterable[Recording]) -> None:
    """Write a recording table, sorted by ``recording_id``; leave an equal file untouched.

    Raises `DatasetError` if a ``recording_id`` is unsafe or occurs twice.
    """
    ordered = sorted(recordings, key=lambda r: r.recording_id)
    _check_ids(path, ordered)
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(cell(value) for value in astuple(r)) for r in ordered]
    text = "\n".join(lines) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def cell(value: str | float) -> str:
    """Return a value as a cell of a tab-separated UTF-8 table."""
    if isinstance(value, float):
        # Down to the millisecond, never up: a recording must not seem as long as a window.
        return f"{math.floor(round(value * 1000, 3)) / 1000:.3f}"
    # File names may hold bytes that are no UTF-8; they are shown escaped.
    return _CONTROL.sub(" ", value.encode("utf-8", "backslashreplace").decode())


def judge(recordings: Iterable[Recording], window_s: float) -> list[Recording]:
    """Return the recordings with ``too_short`` decided anew for a length of window, s."""
    return [_judge(r, window_s) if r.status in ("ok", "too_short") else r for r in recordings]


def _judge(recording: Recording, window_s: float) -> Recording:
    short = recording.duration_s < window_s
    if short == (recording.status == "too_short"):
        return recording
    if not short:
        return replace(recording, status="ok", reason="")
    reason = (
        f"{recording.audio}: lasts {recording.duration_s:.2f} s, shorter than one window of "
        f"{window_s:g} s; use a longer excerpt or a shorter window"
    )
    return replace(recording, status="too_short", reason=reason)


def usable(recordings: Iterable[Recording]) -> list[Recording]:
    """Return the recordings whose status is ``ok``."""
    return [r for r in recordings if r.status == "ok"]


def check_enough(recordings: Iterable[Recording]) -> str:
    """Return what cannot be done because the usable recordings are of too few works, or nothing."""
    good = usable(recordings)
    works = {r.work_id for r in good}
    if len(works) >= MIN_WORKS:
        return ""
    named = f" ({', '.join(sorted(works))})" if works else ""
    return (
        f"only {len(works)} work{'s' * (len(works) != 1)}{named}: aspects need at least "
        f"{MIN_WORKS}, with fewer you can only search in general. Give each work a folder of its "
        "own, or name it in the column work_id of a table"
    )


def shard_of(recording_id: str, shards: int) -> str:
    """Return the number of a recording's shard, whatever other recordings there are.

    It has leading zeros, so that names sort.
    """
    digest = hashlib.sha256(recording_id.encode()).digest()
    number = int.from_bytes(digest[:8], "big") % shards
    return str(number).zfill(len(str(shards - 1)))


def read_shard(layout: Layout, window_s: float, shard: str, shards: int) -> list[Recording]:
    """Return the usable recordings of one of so many shards."""
    rows = usable(judge(read_recordings(layout.table), window_s))
    return [r for r in rows if shard_of(r.recording_id, shards) == shard]


def by_work(recordings: Iterable[Recording]) -> dict[str, list[Recording]]:
    """Return the recordings of every work that has at least two, by ``work_id``."""
    works: dict[str, list[Recording]] = {}
    for recording in recordings:
        if recording.work_id:
            works.setdefault(recording.work_id, []).append(recording)
    return {name: members for name, members in works.items() if len(members) > 1}


def read_with_features(layout: Layout, window_s: float) -> list[Recording]:
    """Return the usable recordings but those whose features could not be computed."""
    failed = failures(layout)
    rows = usable(judge(read_recordings(layout.table), window_s))
    return [r for r in rows if r.recording_id not in failed]


def failures(layout: Layout, target: str = "") -> dict[str, str]:
    """Return the recordings that failed although the scan had found no fault, with the reasons.

    They are those whose features failed (the baselines' too) or, given a target, that one.
    """
    manifests = [layout.of(source).features_manifest for source in SOURCES]
    if target:
        manifests = [layout.target_manifest(target)]
    failed: dict[str, str] = {}
    for path in manifests:
        if path.exists():
            failed |= read_json(path).get("failed", {})
    return failed


def read_problems(layout: Layout, window_s: float, target: str) -> list[Recording]:
    """Return the recordings that failed (see `failures`), or that are not aligned with their work.

    Then those that the scan refused.
    """
    failed, not_aligned = failures(layout) | failures(layout, target), {}
    if layout.alignments_manifest.exists():
        manifest = read_json(layout.alignments_manifest)
        not_aligned = dict(manifest.get("failed", {}))
        for work in manifest.get("works", {}).values():
            not_aligned |= work["left_out"]
    rows = judge(read_recordings(layout.table), window_s)
    without = [
        replace(row, status=status, reason=reasons[row.recording_id])
        for status, reasons in (("failed", failed), ("not aligned", not_aligned))
        for row in usable(rows)
        if row.recording_id in reasons
    ]
    return without + [row for row in rows if row.reason]


def try_failed_again(layout: Layout) -> None:
    """Delete the receipts of shards in which a recording failed, so that these run again."""
    places = [(layout.of(source), "features") for source in SOURCES]
    for place, kind in (*places, (layout, "targets"), (layout, "alignments")):
        for receipt in place.receipt(kind, "0").parent.glob("*.json"):
            if read_json(receipt).get("failed"):
                receipt.unlink()


def problem_lines(recordings: Iterable[Recording]) -> list[str]:
    """Return one line per recording with a problem: its id, the status and the reason."""
    return [f"  {r.recording_id}: {r.status}: {r.reason}" for r in recordings if r.reason]


def check_unchanged(recording: Recording) -> None:
    """Make sure that a recording's files are those that the table describes.

    Raises `DatasetError` if the audio, the MIDI or the beats are missing or have changed since the
    scan.
    """
    files = {
        recording.audio: recording.audio_sha256,
        recording.midi: recording.midi_sha256,
        recording.beats: recording.beats_sha256,
    }
    for name, sha256 in files.items():
        try:
            changed = bool(name) and file_sha256(Path(name)) != sha256
        except OSError:
            changed = True
        if changed:
            raise DatasetError(
                f"{name} is missing, not readable, or not the file that the recording table "
                "describes; run `mess recordings` again"
            )
