"""Reading object arrays in ``.npy`` files without letting them run anything.

A pickle is a program: it may import and call whatever it names. The unpickler here resolves only
the few names that numpy's arrays, dtypes and scalars are made of, and refuses everything else
before it is imported.
"""

__all__ = ["is_object_array", "read_object_array"]

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.lib.format as npy

from mess_core.errors import TargetError

#: What pickles of numpy arrays, dtypes and scalars name, before and since numpy 2.
_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays, dtypes and scalars, and the builtin containers, numbers and strings."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        # numpy 2 still answers to the older name, with a warning.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def is_object_array(archive: zipfile.ZipFile, entry: str) -> bool:
    """Say whether an entry of an ``.npz`` file is an array of Python objects."""
    with archive.open(entry) as file:
        return bool(_header(file)[1].hasobject)


def read_object_array(path: Path, archive: zipfile.ZipFile, entry: str) -> Any:
    """Read the single object in an object array, or an ordinary array.

    Parameters
    ----------
    path : Path
        For messages.
    archive : ZipFile
        The open ``.npz`` file.
    entry : str
        The name of the ``.npy`` in it.

    Returns
    -------
    object
        Made of arrays, scalars, containers, numbers and strings only.

    Raises
    ------
    TargetError
        If it names anything else, or is damaged.
    """
    content = archive.read(entry)
    file = io.BytesIO(content)
    shape, dtype = _header(file)
    if not dtype.hasobject:
        return np.load(io.BytesIO(content), allow_pickle=False)
    if shape != ():
        raise TargetError(f"{path}: {entry} is an array of {shape} objects, expected one dict")
    try:
        unpickled = _ArrayUnpickler(file).load()
        return unpickled.item() if isinstance(unpickled, np.ndarray) else unpickled
    # A damaged pickle raises whatever its broken instructions run into.
    except Exception as error:
        raise TargetError(
            f"{path}: {entry} is refused ({error}); only arrays and dicts are read. "
            "Delete the file and run the targets rule"
        ) from None


_HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the magic and header of an ``.npy`` stream: shape and dtype."""
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"npy format {version} is not supported")
    shape, _, dtype = _HEADERS[version](file)
    return shape, dtype
