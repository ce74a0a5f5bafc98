"""Datasets: registered by name, or of one's own, a folder of audio or a table."""

__all__ = ["DatasetFactory", "FolderDataset", "TableDataset", "licence_of"]

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import ClassVar

from mess_core.datasets.base import (
    AUDIO_SUFFIXES,
    UNREAD_SUFFIXES,
    BaseDataset,
    Source,
    distinct_ids,
    folder_ids,
    read_rows,
    resolve_beats_path,
    resolve_midi_path,
    unique_ids,
)
from mess_core.errors import DatasetError, nearest
from mess_core.layout import DESCRIPTORS, UNTRAINED

_COLUMNS = tuple(field.name for field in fields(Source))


class FolderDataset(BaseDataset):
    """All audio below a folder.

    Recordings in one sub-folder count as recordings of one work, whose id is the sub-folder's path;
    a recording directly in the folder is a work of its own. Where that is not so, give a table
    (`TableDataset`): folds and "exclude work" go by it. `resolve_midi_path` finds
    MIDI; a file that several recordings would claim is used by none. Links to folders are not
    followed.
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
        suffixes = AUDIO_SUFFIXES + UNREAD_SUFFIXES
        inner = sorted(
            path.relative_to(self.root)
            for path in self.root.rglob("*")
            if path.suffix.lower() in suffixes
            and not any(part.startswith(".") for part in path.relative_to(self.root).parts)
        )
        if not inner:
            raise DatasetError(
                f"{self.root} holds no audio; looked for {', '.join(suffixes)} at any depth"
            )
        read = [path for path in inner if path.suffix.lower() in AUDIO_SUFFIXES]
        midis = {path: resolve_midi_path(self.root / path) for path in read}
        claims = Counter(midis.values())
        midis = {path: midi if claims[midi] == 1 else None for path, midi in midis.items()}
        # What is not read keeps its suffix, and so takes no id from what is.
        ids = unique_ids(
            path if path in midis else path.with_name(f"{path.name}{path.suffix}") for path in inner
        )
        works = folder_ids(path.parent for path in inner)
        return [
            Source(
                recording_id=name,
                work_id=work if path.parent.parts else name,
                audio=self.root / path,
                midi=midis.get(path),
                beats=resolve_beats_path(self.root / path, midis.get(path)),
                title=path.parent.name or path.stem,
            )
            for name, work, path in zip(ids, works, inner, strict=True)
        ]


class TableDataset(BaseDataset):
    """Recordings listed in a table, comma-separated if it is a ``.csv``, else tab-separated.

    The column ``audio`` is needed; ``recording_id``, ``work_id``, ``performer``, ``composer``,
    ``title``, ``split``, ``midi`` and ``beats`` are optional. Relative paths start at the table's
    folder. A missing ``work_id`` makes the recording a work of its own.
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
        rows = [
            {name: row.get(name, "") for name in _COLUMNS}
            for row in read_rows(self.table, ["audio"])
        ]
        fallbacks = unique_ids(Path(row["audio"].lstrip("/.")) for row in rows)
        names = [row["recording_id"] or name for row, name in zip(rows, fallbacks, strict=True)]
        works = [row["work_id"] or name for row, name in zip(rows, names, strict=True)]
        ids = zip(distinct_ids(names), distinct_ids(works), rows, strict=True)
        return [self._source(name, work, row) for name, work, row in ids]

    def _source(self, recording_id: str, work_id: str, row: Mapping[str, str]) -> Source:
        audio = self.root / row["audio"]
        midi = self.root / row["midi"] if row["midi"] else resolve_midi_path(audio)
        return Source(
            recording_id=recording_id,
            work_id=work_id,
            audio=audio,
            midi=midi,
            beats=self.root / row["beats"] if row["beats"] else resolve_beats_path(audio, midi),
            **{name: row[name] for name in ("performer", "composer", "title", "split")},
        )


_BUILT_IN = {
    "demo": ("mess_core.datasets.demo", "DemoDataset"),
    "maestro": ("mess_core.datasets.corpora", "MAESTRODataset"),
    "smd": ("mess_core.datasets.corpora", "SMDDataset"),
}


class DatasetFactory:
    """The register of datasets: look one up, make one of one's own, or add a class."""

    _registered: ClassVar[dict[str, type[BaseDataset]]] = {}

    @classmethod
    def get_available_datasets(cls) -> list[str]:
        """Return the names of all registered datasets, sorted."""
        return sorted({*_BUILT_IN, *cls._registered})

    @classmethod
    def get_dataset(cls, name: str, *, data: Path = Path("data")) -> BaseDataset:
        """Return a registered dataset, whose files lie in the folder ``data``.

        Raises `DatasetError` if no such dataset is registered.
        """
        if name in cls._registered:
            return cls._registered[name](data)
        if name not in _BUILT_IN:
            raise DatasetError(
                f"there is no dataset {name!r}; {nearest(name, cls.get_available_datasets())}. For "
                "recordings of your own: `mess recordings --folder PATH --name NAME`"
            )
        module, attribute = _BUILT_IN[name]
        dataset: type[BaseDataset] = getattr(import_module(module), attribute)
        return dataset(data)

    @classmethod
    def create_dataset(cls, name: str, source: Path) -> BaseDataset:
        """Return a dataset of one's own, from a folder of audio or a ``.tsv`` or ``.csv`` file.

        Raises `DatasetError` if the name is taken or unsafe, or the source does not exist.
        """
        _check_name(name)
        if name in cls.get_available_datasets():
            raise DatasetError(f"{name!r} is the name of a registered dataset; choose another")
        if source.is_dir():
            return FolderDataset(name, source)
        if source.is_file():
            return TableDataset(name, source)
        raise DatasetError(f"{source} is neither a folder nor a table file")

    @classmethod
    def register_dataset(cls, dataset: type[BaseDataset]) -> type[BaseDataset]:
        """Register a dataset class under its ``name``; usable as a decorator.

        Raises
        ------
        DatasetError
            If it is no `BaseDataset`, its name is unsafe, or another class has the name.
        """
        if not issubclass(dataset, BaseDataset):
            raise DatasetError(f"{dataset!r} is no subclass of BaseDataset")
        _check_name(dataset.name)
        known = cls._registered.get(dataset.name)
        if dataset.name in _BUILT_IN or known not in (None, dataset):
            raise DatasetError(f"the dataset name {dataset.name!r} is taken")
        cls._registered[dataset.name] = dataset
        return dataset


def licence_of(name: str) -> str:
    """Return the licence of a dataset's audio and MIDI, by its name.

    Names that are not registered are those of recordings of one's own.
    """
    if name not in DatasetFactory.get_available_datasets():
        return FolderDataset.licence
    return DatasetFactory.get_dataset(name).licence


def _check_name(name: str) -> None:
    if not name or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise DatasetError(
            f"{name!r} cannot name a dataset; use ASCII letters, digits, '-' and '_' only"
        )
    if name.endswith((f"-{UNTRAINED}", f"-{DESCRIPTORS}")):
        raise DatasetError(
            f"{name!r} cannot name a dataset: a baseline has such a name; choose another"
        )
