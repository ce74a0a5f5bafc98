"""Datasets by name."""

__all__ = ["DatasetFactory", "licence_of"]

from importlib import import_module
from pathlib import Path
from typing import ClassVar

from mess_core.datasets.base import BaseDataset
from mess_core.datasets.folder import FolderDataset, TableDataset
from mess_core.errors import DatasetError, nearest

_BUILT_IN = {
    "demo": ("mess_core.datasets.demo.loader", "DemoDataset"),
    "maestro": ("mess_core.datasets.maestro", "MAESTRODataset"),
    "smd": ("mess_core.datasets.smd", "SMDDataset"),
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
        """Return a registered dataset.

        Parameters
        ----------
        name : str
            One of `get_available_datasets`.
        data : Path
            The data folder.

        Raises
        ------
        DatasetError
            If no such dataset is registered.
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
        """Return a dataset of one's own, from a folder of audio or from a table.

        Parameters
        ----------
        name : str
            What to call it; no registered name, and safe as a file name.
        source : Path
            A folder, or a ``.tsv`` or ``.csv`` file.

        Raises
        ------
        DatasetError
            If the name is taken or unsafe, or the source does not exist.
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
