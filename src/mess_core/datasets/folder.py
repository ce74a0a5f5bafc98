"""Datasets of one's own: a folder of audio, or a table."""

__all__ = ["FolderDataset", "TableDataset"]

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mess_core.datasets.base import (
    AUDIO_SUFFIXES,
    BaseDataset,
    Source,
    resolve_beats_path,
    resolve_midi_path,
    safe_id,
    unique_ids,
)
from mess_core.errors import DatasetError

_KNOWN = {
    "recording_id",
    "work_id",
    "performer",
    "composer",
    "title",
    "split",
    "audio",
    "midi",
    "beats",
}


class FolderDataset(BaseDataset):
    """All audio below a folder.

    Recordings in one sub-folder count as recordings of one work, whose id is the sub-folder's path;
    a recording directly in the folder is a work of its own. Where that is not so, give a table
    (`TableDataset`): folds and "exclude work" go by it. `resolve_midi_path` finds
    MIDI; a file that several recordings would claim is used by none. Links to folders are not
    followed.

    Parameters
    ----------
    name : str
        The dataset's name.
    folder : Path
        The folder.
    """

    licence = "the user's own"
    citation = "the user's own"
    layout = "any audio files that libsndfile reads, at any depth"

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.root = folder

    def sources(self) -> Sequence[Source]:
        """Return one source per audio file."""
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} is not a folder")
        files = sorted(
            path
            for path in self.root.rglob("*")
            if path.suffix.lower() in AUDIO_SUFFIXES and not _hidden(path.relative_to(self.root))
        )
        if not files:
            raise DatasetError(
                f"{self.root} holds no audio; looked for {', '.join(AUDIO_SUFFIXES)} at any depth"
            )
        inner = [path.relative_to(self.root) for path in files]
        midis = {path: resolve_midi_path(self.root / path) for path in inner}
        claims = Counter(midis.values())
        midis = {path: midi if claims[midi] == 1 else None for path, midi in midis.items()}
        return [
            Source(
                recording_id=name,
                work_id=safe_id("__".join(map(safe_id, path.parent.parts)))
                if path.parent.parts
                else name,
                audio=self.root / path,
                midi=midis[path],
                beats=resolve_beats_path(self.root / path, midis[path]),
                title=path.stem,
            )
            for name, path in zip(unique_ids(inner), inner, strict=True)
        ]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


class TableDataset(BaseDataset):
    """Recordings listed in a tab- or comma-separated table.

    The column ``audio`` is needed; ``recording_id``, ``work_id``, ``performer``, ``composer``,
    ``title``, ``split``, ``midi`` and ``beats`` are optional. Relative paths start at the table's
    folder. A missing ``work_id`` makes the recording a work of its own.

    Parameters
    ----------
    name : str
        The dataset's name.
    table : Path
        The table; ``.csv`` is comma-separated, everything else tab-separated.
    """

    licence = "the user's own"
    citation = "the user's own"
    layout = "a table with the column 'audio'"

    def __init__(self, name: str, table: Path) -> None:
        self.name = name
        self.root = table.parent
        self.table = table

    def sources(self) -> Sequence[Source]:
        """Return one source per row."""
        try:
            text = self.table.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{self.table} cannot be read as UTF-8 text: {error}") from None
        delimiter = "," if self.table.suffix.lower() == ".csv" else "\t"
        reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
        columns = set(reader.fieldnames or ())
        if "audio" not in columns:
            raise DatasetError(
                f"{self.table} has no column 'audio', only {sorted(columns)}; "
                f"known columns: {', '.join(sorted(_KNOWN))}"
            )
        rows = [{key: (row.get(key) or "").strip() for key in _KNOWN} for row in reader]
        empty = [number for number, row in enumerate(rows, start=2) if not row["audio"]]
        if empty:
            raise DatasetError(f"{self.table}: lines {empty[:5]} name no audio file")
        ids = unique_ids(Path(row["audio"].lstrip("/.")) for row in rows)
        return [self._source(row, fallback) for fallback, row in zip(ids, rows, strict=True)]

    def _source(self, row: Mapping[str, str], fallback: str) -> Source:
        audio = self.root / row["audio"]
        midi = self.root / row["midi"] if row["midi"] else resolve_midi_path(audio)
        return Source(
            recording_id=safe_id(row["recording_id"]) if row["recording_id"] else fallback,
            work_id=safe_id(row["work_id"] or row["recording_id"] or fallback),
            audio=audio,
            midi=midi,
            beats=self.root / row["beats"] if row["beats"] else resolve_beats_path(audio, midi),
            performer=row["performer"],
            composer=row["composer"],
            title=row["title"],
            split=row["split"],
        )
