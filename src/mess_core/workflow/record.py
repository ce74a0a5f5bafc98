"""How every result was made: one record per job, and how to find the record of a file.

The record of ``data/X`` is ``data/provenance/X.json``; a job with several outputs leaves the same
record at each of them. Files that shards hold by the thousand (features, targets) have theirs at
the shard's receipt. Records are no outputs of the workflow: whether they are there, and what they
say, never decides what runs.

A record is written when its job has succeeded and replaces the one before. Until then the old one
stays: it says the hash of what it speaks of, so that it cannot pass for another file's. Outputs
that are copies from the store (`mess_core.cache`) say when and by which code they were computed,
which may be another than that of the job that copied them.

Paths are relative to the data folder for what lies below it. Hashes are SHA-256; those of copies
from the store are the first 16 digits, which the store's names hold, so that no job reads
gigabytes again. The hash of a folder is that of its files' names and hashes.
"""

__all__ = [
    "SCHEMA",
    "Found",
    "content_of",
    "find",
    "hash_of_input",
    "hashes_of_folder",
    "is_content",
    "read_record",
    "record_path",
    "stage_numbers",
    "write_record",
]

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mess_core import stages
from mess_core.errors import StorageError, nearest
from mess_core.files import file_sha256, fingerprint, read_json, write_json
from mess_core.layout import PROVENANCE, UNTRAINED, VIEWS, Layout
from mess_core.recordings import Recording, read_recordings
from mess_core.workflow import software

SCHEMA = 1

#: Inputs up to this size are hashed; of larger ones their own records are quoted.
_SMALL_BYTES = 10_000_000
#: What Snakemake, the artifacts' notes and unfinished writing leave in folders.
_HIDDEN = "."
_PASSWORD = re.compile(r"//[^/@\s\"]+@")


def stage_numbers() -> dict[str, int]:
    """Return the version numbers of all stages."""
    return {name.lower(): getattr(stages, name) for name in stages.__all__}


def record_path(data: Path, output: Path) -> Path:
    """Return where the record of an output lies.

    Parameters
    ----------
    data : Path
        The data folder.
    output : Path
        A file or folder below it.
    """
    # What lies elsewhere has its record here too, never beside it.
    return data / PROVENANCE / f"{_named(data, output).lstrip('/')}.json"


def _named(data: Path, path: Path) -> str:
    """Return how records spell a path."""
    with suppress(ValueError):
        return path.absolute().relative_to(data.absolute()).as_posix()
    return str(path)


def content_of(path: Path) -> dict[str, Any]:
    """Return ``sha256`` of a file; for a folder also ``files``, the hash of each."""
    if not path.is_dir():
        return {"sha256": file_sha256(path)}
    files = hashes_of_folder(path)
    return {"sha256": fingerprint(files), "files": files}


def hashes_of_folder(folder: Path, *, believe: bool = False) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, but for hidden ones.

    Parameters
    ----------
    folder : Path
        The folder.
    believe : bool
        Take the hashes of an artifact's files from its ``checksums.json``, as the job that has just
        written and checked them may.
    """
    hashes: dict[str, str] = {}
    listed: dict[Path, str] = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or any(part.startswith(_HIDDEN) for part in parts):
            continue
        if believe and path.name == "checksums.json":
            listed |= {path.with_name(k): v["sha256"] for k, v in read_json(path).items()}
        hashes["/".join(parts)] = listed.get(path) or file_sha256(path)
    return hashes


def is_content(found: str, recorded: str) -> bool:
    """Say whether a hash is the recorded one, of which the first digits may be all there is."""
    return bool(recorded) and found.startswith(recorded)


def write_record(
    layout: Layout,
    outputs: Iterable[Path],
    *,
    inputs: Iterable[Path] = (),
    started: str,
    **said: Any,
) -> None:
    """Write the record of a job that has succeeded.

    Parameters
    ----------
    layout : Layout
        Paths of the job's dataset, and of the features' variant that it works on.
    outputs, inputs : iterable of Path
        Of the job.
    started : str
        When it began (`mess_core.workflow.software.now`).
    **said
        What else is known, of builtins: ``rule``, ``wildcards``, ``params``, ``config``,
        ``threads``, ``again``.

    Raises
    ------
    StorageError
        If an output is missing, or a record cannot be written.
    """
    data = layout.data
    variants = [Layout(data, layout.dataset, variant) for variant in ("", UNTRAINED)]
    single = {path.parent for variant in variants for path in _files_of("x", variant)}
    own = [path for path in outputs if path.parent not in single]
    used = {_named(data, path): path for path in inputs if path.parent not in single}
    known = {name: read_record(data, path) for name, path in used.items()}
    record = {
        "schema": SCHEMA,
        **said,
        "started": started,
        "ended": software.now(),
        "outputs": {_named(data, path): _output(path) for path in own},
        "inputs": {
            name: {"sha256": hash_of_input(path, name, known[name])} for name, path in used.items()
        },
        "encoder": _encoder(own, known.values()),
        "table": _table(layout) if used and layout.table not in own else None,
        "stages": stage_numbers(),
        "code": software.code(),
        "libraries": software.libraries(),
        "machine": software.machine(),
        **_of_receipts(own, variants),
    }
    for path in own:
        write_json(record_path(data, path), _without_passwords(record))


def _without_passwords(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without what stands before the @ of addresses."""
    cleaned: dict[str, Any] = json.loads(_PASSWORD.sub("//***@", json.dumps(record)))
    return cleaned


def _output(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise StorageError(f"{path} does not exist, although its job has ended well; run it again")
    if path.is_dir():
        files = hashes_of_folder(path, believe=True)
        return {"sha256": fingerprint(files), "files": files}
    return content_of(path)


def hash_of_input(path: Path, name: str, record: Mapping[str, Any] | None) -> str | None:
    """Return the hash of an input: its own where that is quick, else the one that was recorded.

    Parameters
    ----------
    path : Path
        A file or folder.
    name : str
        How records spell it.
    record : dict or None
        Its own record.
    """
    if path.is_file() and path.stat().st_size <= _SMALL_BYTES:
        return file_sha256(path)
    return record["outputs"].get(name, {}).get("sha256") if record else None


def _encoder(
    outputs: Iterable[Path], records: Iterable[Mapping[str, Any] | None]
) -> dict[str, Any] | None:
    """Return the facts about the encoder that inputs go back to, or that the job wrote itself."""
    if of_inputs := next((r["encoder"] for r in records if r and r.get("encoder")), None):
        return dict(of_inputs)
    written = [read_json(path) for path in outputs if path.suffix == ".json"]
    return next((w["encoder"] for w in written if isinstance(w, dict) and w.get("encoder")), None)


def _table(layout: Layout) -> dict[str, str] | None:
    if not layout.table.is_file():
        return None
    return {"path": _named(layout.data, layout.table), "sha256": file_sha256(layout.table)}


# Shards: what their receipts list.


def _files_of(recording_id: str, layout: Layout) -> list[Path]:
    """Return the paths of all files that a recording can have."""
    views = [layout.features(view, recording_id) for view in VIEWS]
    return [*views, layout.targets(recording_id)]


def _of_receipts(outputs: Iterable[Path], variants: Iterable[Layout]) -> dict[str, Any]:
    """Return the entries of a record that only shards have, nothing for other jobs."""
    return next(
        (
            _of_shard(variant, kind, read_json(path))
            for path in outputs
            for variant in variants
            for kind in ("features", "targets")
            if path == variant.receipt(kind, path.stem)
        ),
        {},
    )


def _of_shard(layout: Layout, kind: str, receipt: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a receipt lists, by whom it was computed, and from what."""
    files: dict[str, Any] = {}
    computed_by: dict[str, Any] = {}
    for path, stored in _listed(layout, kind, receipt):
        key, digest = stored.split(".")
        files[_named(layout.data, path)] = {"sha256": digest, "fingerprint": key}
    return {
        "engine": receipt.get("engine"),
        "files": files,
        "computed_by": computed_by,
        "recordings": {
            row.recording_id: _sources(row)
            for row in read_recordings(layout.table)
            if row.recording_id in receipt["recordings"]
        },
    }


def _listed(layout: Layout, kind: str, receipt: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Give the files that a receipt lists, and what each is called in the store."""
    for name, stored in receipt["recordings"].items():
        if kind == "targets":
            yield layout.targets(name), stored
        else:
            yield from ((layout.features(view, name), stored[view]) for view in stored)


def _sources(row: Recording) -> dict[str, Any]:
    return {
        part: {"path": getattr(row, part), "sha256": getattr(row, f"{part}_sha256")}
        for part in ("audio", "midi", "beats")
        if getattr(row, part)
    }


# Finding.


def read_record(data: Path, output: Path) -> dict[str, Any] | None:
    """Return the record of an output, None where there is none that can be read."""
    try:
        record = read_json(record_path(data, output))
    except (StorageError, OSError):
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA else None


@dataclass(frozen=True, slots=True)
class Found:
    """A file's record.

    Attributes
    ----------
    data : Path
        The data folder.
    name : str
        How records spell the file's path.
    record : dict
        Of the job that made it.
    recorded : dict
        What the record says of the file itself; its ``sha256`` at least.
    """

    data: Path
    name: str
    record: dict[str, Any]
    recorded: dict[str, Any]


def find(path: Path) -> Found:
    """Return the record of a result, which need not be there any more.

    Parameters
    ----------
    path : Path
        An output of the workflow, or a file or folder in one.

    Raises
    ------
    StorageError
        If it lies in no data folder with records, or has none; names the nearest that has one.
    """
    path = Path(os.path.normpath(path.absolute()))
    data = next((p for p in (path, *path.parents) if (p / PROVENANCE).is_dir()), None)
    if data is None:
        there = "" if path.exists() else "does not exist, and "
        raise StorageError(
            f"{path} {there}lies in no data folder that has records of provenance; they are "
            "written when snakemake runs"
        )
    name = _named(data, path)
    found = _of_output(data, path, name) or _of_recording(data, path, name)
    if found:
        return found
    known = sorted(set(_recorded_names(data)))
    # Never of a folder that holds what no rule makes, such as what was published.
    advice = " (delete it and let snakemake make it again)" if _beside(name, known) else ""
    raise StorageError(
        f"no record says how {path} was made: it is no result, or older than the records{advice}; "
        f"below {data}: {nearest(name, known)}"
    )


def _beside(name: str, known: Iterable[str]) -> bool:
    return any(Path(other).parent == Path(name).parent for other in known)


def _of_output(data: Path, path: Path, name: str) -> Found | None:
    """Find an output by its own record, a file in one by that of the folder."""
    for output in (path, *path.parents):
        if output == data:
            return None
        record = read_record(data, output)
        entry = record["outputs"].get(_named(data, output)) if record else None
        if not record or not entry:
            continue
        if output == path:
            return Found(data, name, record, entry)
        inside = path.relative_to(output).as_posix()
        files = entry.get("files", {})
        if inside in files:
            return Found(data, name, record, {"sha256": files[inside]})
        start = f"{inside}/"
        if within := {k[len(start) :]: v for k, v in files.items() if k.startswith(start)}:
            return Found(data, name, record, {"sha256": fingerprint(within), "files": within})
        return None
    return None


def _of_recording(data: Path, path: Path, name: str) -> Found | None:
    """Find a file that a shard's receipt lists."""
    quoted = json.dumps(name)
    for folder in (path.parent, path.parent.parent):
        for record_file in sorted(record_path(data, folder / "shards" / "x").parent.glob("*.json")):
            # Reading is quicker than parsing, and one of many holds the name.
            if quoted in record_file.read_text():
                record = read_json(record_file)
                if entry := record.get("files", {}).get(name):
                    return Found(data, name, record, entry)
    return None


def _recorded_names(data: Path) -> Iterator[str]:
    for path in (data / PROVENANCE).rglob("*.json"):
        with suppress(StorageError, OSError):
            record = read_json(path)
            if isinstance(record, dict) and record.get("schema") == SCHEMA:
                yield from (*record["outputs"], *record.get("files", ()))
