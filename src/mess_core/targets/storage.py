"""Targets on disk: one ``.npz`` per recording, without pickle, with keys ``category/field``.

Equal targets give equal bytes. Files of the older form, one pickled dict per category, are read
through `mess_core.targets.legacy`, which builds arrays and dicts and nothing else.
"""

__all__ = ["Targets", "load_targets", "save_targets", "validate_target_structure", "write_npz"]

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import TargetError, nearest
from mess_core.files import atomic_path
from mess_core.targets.legacy import is_object_array, read_object_array
from mess_core.targets.registry import CATEGORIES, TARGETS, TargetSpec

#: What zipfile and numpy run into in damaged files; RuntimeError where a flag says that an entry is
#: encrypted or compressed in a way that does not exist.
_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError, RuntimeError)

#: ``{category: {field: array}}``.
Targets = dict[str, dict[str, npt.NDArray[np.float64]]]


def save_targets(path: Path, targets: Mapping[str, Mapping[str, npt.ArrayLike]]) -> None:
    """Write targets, whole or not at all.

    Parameters
    ----------
    path : Path
        A file with the suffix ``.npz``.
    targets : mapping
        ``{category: {field: array}}`` as `validate_target_structure` wants it.

    Raises
    ------
    TargetError
        If the targets are malformed.
    """
    with atomic_path(path) as temporary:
        write_npz(temporary, targets)


def write_npz(path: Path, targets: Mapping[str, Mapping[str, npt.ArrayLike]]) -> None:
    """Write targets to a path that nobody reads yet; see `save_targets`."""
    validate_target_structure(targets)
    flat: dict[str, Any] = {
        f"{category}/{name}": np.asarray(value)
        for category, fields in sorted(targets.items())
        for name, value in sorted(fields.items())
    }
    with path.open("wb") as file:
        np.savez(file, **flat)


def load_targets(path: Path) -> Targets:
    """Read targets.

    Parameters
    ----------
    path : Path
        A file as `save_targets` writes it, or of the older form.

    Returns
    -------
    dict
        ``{category: {field: array}}``, float64. Valid by `validate_target_structure`, except that
        files of the older form may lack fields and have others.

    Raises
    ------
    TargetError
        If the file is missing or damaged, holds objects other than arrays, or is malformed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(is_object_array(archive, name) for name in archive.namelist()):
                return _load_legacy(path, archive)
        with np.load(path, allow_pickle=False) as stored:
            flat = {key: stored[key] for key in stored.files}
    except FileNotFoundError:
        raise TargetError(f"{path} does not exist; run the targets rule") from None
    except _DAMAGE as error:
        raise _damaged(path, error) from None
    targets: Targets = {}
    for key, array in flat.items():
        category, separator, name = key.partition("/")
        if not separator:
            raise TargetError(f"{path}: the key {key!r} is not of the form category/field")
        targets.setdefault(category, {})[name] = array
    _validate_file(path, targets)
    return targets


def _damaged(path: Path, error: Exception) -> TargetError:
    return TargetError(f"{path} is damaged ({error}); delete it and run the targets rule")


def _validate_file(path: Path, targets: Targets) -> None:
    try:
        validate_target_structure(targets)
    except TargetError as error:
        raise TargetError(f"{path}: {error}; delete it and run the targets rule") from None


def _load_legacy(path: Path, archive: zipfile.ZipFile) -> Targets:
    """Read the older form: per category one pickled ``{field: array}``."""
    targets: Targets = {}
    for entry in archive.namelist():
        category = entry.removesuffix(".npy")
        fields = read_object_array(path, archive, entry)
        if category not in CATEGORIES:
            raise TargetError(
                f"{path}: {category!r} is no category; {nearest(category, CATEGORIES)}"
            )
        if not isinstance(fields, dict):
            raise TargetError(
                f"{path}: {category} holds a {type(fields).__name__}, expected a dict"
            )
        try:
            targets[category] = {str(k): np.asarray(v, np.float64) for k, v in fields.items()}
        except (TypeError, ValueError) as error:
            raise TargetError(f"{path}: {category} holds what is no number ({error})") from None
    return targets


def validate_target_structure(targets: Mapping[str, Mapping[str, npt.ArrayLike]]) -> None:
    """Check that targets are complete and well-formed.

    Parameters
    ----------
    targets : mapping
        ``{category: {field: array}}``. ``expression`` may be absent; every other category, and
        every registered field of each category that is there, must be present.

    Raises
    ------
    TargetError
        If a category or field is unknown or lacking, or an array has another shape than its
        registered kind, is not float64, or has infinite values. Names all that is wrong.
    """
    problems = [
        f"{category!r} is no category; {nearest(category, CATEGORIES)}"
        for category in targets
        if category not in CATEGORIES
    ]
    for category in CATEGORIES:
        specs = {spec.name: spec for spec in TARGETS.values() if spec.category == category}
        if category not in targets:
            optional = all(spec.optional for spec in specs.values())
            problems += [] if optional else [f"the category {category!r} is missing"]
            continue
        problems += _field_problems(category, targets[category], specs)
    if problems:
        raise TargetError("; ".join(problems))


def _field_problems(
    category: str, fields: Mapping[str, npt.ArrayLike], specs: Mapping[str, TargetSpec]
) -> list[str]:
    unknown = [f"{category}/{name} is unknown" for name in fields if name not in specs]
    missing = [f"{category}/{name} is missing" for name in specs if name not in fields]
    wrong = [_array_problem(specs[name], fields[name]) for name in fields if name in specs]
    return unknown + missing + [problem for problem in wrong if problem]


def _array_problem(spec: TargetSpec, value: npt.ArrayLike) -> str:
    """Say what is wrong with the values of a target; nothing is the empty string."""
    array = np.asarray(value)
    name = f"{spec.category}/{spec.name}"
    shape = () if spec.kind == "scalar" else (spec.length,)
    if array.dtype != np.float64:
        return f"{name} is {array.dtype}, expected float64"
    if array.shape != shape:
        return f"{name} has the shape {array.shape}, a {spec.kind} has {shape}"
    if np.isinf(array).any():
        return f"{name} is infinite; undefined is NaN"
    return ""
