"""Targets on disk: one ``.npz`` per recording, without pickle.

* ``category/field``: the targets of the recording.
* ``windows/category/field``: those of its windows, in the order of the features' windows
  (`mess_core.extraction.storage.segment_times`).

What compares a recording with the others of its work has the same keys, in the file that has its
alignment; so have the targets of `FROM_BEATS` where the alignment carries the beats over.
`TargetReader` reads a target wherever it is.

A *column* is one number of a target, ``category/field``, or ``category/field:number`` for an entry
of a shape.

Equal targets give equal bytes. Files of the older form have one pickled dict per category. A pickle
is a program: it may import and call whatever it names. They are read by an unpickler that resolves
only the few names that numpy's arrays, dtypes and scalars are made of, and refuses everything else
before it is imported.
"""

__all__ = [
    "ALIGNED_BEATS",
    "WINDOWS",
    "TargetReader",
    "Targets",
    "column_reader",
    "columns_of",
    "flatten",
    "load_target",
    "load_targets",
    "save_targets",
    "source_of",
    "stack_columns",
    "validate_target_structure",
    "validate_window_targets",
]

import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt

from mess_core.errors import TargetError, nearest
from mess_core.files import atomic_path, read_json
from mess_core.layout import Layout
from mess_core.recordings import failures
from mess_core.targets.registry import (
    ALIGNED,
    AUDIO,
    CATEGORIES,
    FROM_BEATS,
    MIDI,
    TARGETS,
    Level,
    TargetSpec,
)

#: What the keys of windows' targets begin with.
WINDOWS = "windows/"

#: What the manifest of alignments says of beats that an alignment carries over begins with this.
ALIGNED_BEATS = "aligned"

#: What zipfile and numpy run into in damaged files; RuntimeError where a flag says that an entry is
#: encrypted or compressed in a way that does not exist.
_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError, RuntimeError)

_RUN = "run the rule that writes it (targets or alignments)"

#: What pickles of numpy arrays, dtypes and scalars name, before and since numpy 2.
_ALLOWED = {("numpy", "dtype"), ("numpy", "ndarray")} | {
    (f"numpy.{core}.{name}", function)
    for core in ("core", "_core")
    for name, function in [
        ("multiarray", "_reconstruct"),
        ("multiarray", "scalar"),
        ("numeric", "_frombuffer"),
    ]
}

#: ``{category: {field: array}}``.
Targets = dict[str, dict[str, npt.NDArray[np.float64]]]
Given = Mapping[str, Mapping[str, npt.ArrayLike]]


def save_targets(path: Path, targets: Given, *, windows: Given | None = None) -> None:
    """Write targets, whole or not at all.

    Raises `TargetError` if the targets are malformed.

    Parameters
    ----------
    path : Path
        A file with the suffix ``.npz``.
    targets : mapping
        ``{category: {field: array}}`` as `validate_target_structure` wants it.
    windows : mapping, optional
        The same of the recording's windows, as `validate_window_targets` wants it.
    """
    validate_target_structure(targets)
    flat: dict[str, Any] = flatten(targets, windows or {})
    if windows is not None:
        validate_window_targets(windows)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **flat)


def flatten(targets: Given, windows: Given) -> dict[str, npt.NDArray[np.float64]]:
    """Return targets, and those of windows, by the keys that files have for them."""
    return _flat(targets) | {WINDOWS + key: array for key, array in _flat(windows).items()}


def _flat(targets: Given) -> dict[str, Any]:
    return {
        f"{category}/{name}": np.asarray(value)
        for category, fields in sorted(targets.items())
        for name, value in sorted(fields.items())
    }


def load_targets(path: Path, *, level: Level = "recording") -> Targets:
    """Read the targets of a recording, or those of its windows.

    Returns ``{category: {field: array}}``, float64, valid by `validate_target_structure` or
    `validate_window_targets`; files of the older form have no windows, may lack fields and have
    others. Raises `TargetError` if the file is missing or damaged, holds objects other than arrays,
    has no windows where these are asked for, or is malformed.
    """
    with _opened(path) as archive:
        of_windows = level == "window"
        if not of_windows and not set(CATEGORIES).isdisjoint(older := _names(archive)):
            return {category: _older_fields(archive, category) for category in older}
        names = [name for name in _names(archive) if name.startswith(WINDOWS) == of_windows]
        if of_windows and not names:
            raise TargetError("no windows")
        targets = _targets(archive, names)
        (validate_window_targets if of_windows else validate_target_structure)(targets)
        return targets


def load_target(
    path: Path, name: str, *, level: Level = "window"
) -> npt.NDArray[np.float64] | None:
    """Read one registered target, whatever else the file holds or lacks: others may come and go.

    Returns float64 of the shape that the registry has, with one more axis in front for windows;
    None where there is no MIDI for it. Raises `TargetError` if the file is missing or damaged,
    lacks the target, or holds malformed values of it.
    """
    spec = TARGETS[name]
    with _opened(path) as archive:
        names = _names(archive)
        category = f"{WINDOWS if level == 'window' else ''}{spec.category}/"
        if category + name not in names:
            if spec.source == "midi" and not any(known.startswith(category) for known in names):
                return None
            raise TargetError(f"{category}{name} is missing")
        array: npt.NDArray[np.float64] = _array(archive, category + name)
        problem = _array_problem(spec, array, array.shape[:1] if level == "window" else ())
        if problem:
            raise TargetError(problem)
        return array


def columns_of(targets: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of some targets, in their order."""
    return tuple(
        f"{spec.category}/{spec.name}{entry}"
        for spec in map(TARGETS.__getitem__, targets)
        for entry in ([f":{n}" for n in range(spec.length)] or [""])
    )


def source_of(column: str) -> str:
    """Return what a column is read from: `AUDIO`, `MIDI` or `ALIGNED`."""
    category, _, name = column.partition(":")[0].partition("/")
    if category != "expression":
        return AUDIO
    return ALIGNED if name in TARGETS and TARGETS[name].aligned else MIDI


def stack_columns(
    columns: Sequence[str], find: Callable[[str], npt.ArrayLike | None]
) -> npt.NDArray[np.float64]:
    """Return the values of columns [..., columns]; NaN where there is none.

    ``find`` gives the values of a key ``category/field``, one or one per window, or None.
    """
    found: dict[str, npt.ArrayLike | None] = {}
    parts = []
    for column in columns:
        key, _, number = column.partition(":")
        if key not in found:
            found[key] = find(key)
        values = np.asarray(np.nan if found[key] is None else found[key], np.float64)
        parts.append(values[..., int(number)] if number and values.ndim else values)
    return np.stack(np.broadcast_arrays(*parts), axis=-1) if parts else np.zeros(0)


def column_reader(
    layout: Layout, columns: Sequence[str], *, level: Level = "window"
) -> Callable[[str], npt.NDArray[np.float64]]:
    """Return what reads columns of a recording [columns], or of its windows [segments, columns].

    NaN is what the recording lacks; one of which a target failed has [columns] of NaN. It raises
    `TargetError` as `load_target` does.
    """
    read_target = TargetReader(layout)
    targets = {column.partition(":")[0].rpartition("/")[2] for column in columns}
    failed = {name for target in targets for name in failures(layout, target)}

    def read(name: str) -> npt.NDArray[np.float64]:
        def find(key: str) -> npt.ArrayLike | None:
            if name in failed:
                return None
            return read_target(name, key.rpartition("/")[2], level)

        return stack_columns(columns, find)

    return read


class TargetReader:
    """Reads targets of recordings wherever they are; ``aligned`` are the recordings that are so."""

    def __init__(self, layout: Layout) -> None:
        path = layout.alignments_manifest
        works = read_json(path)["works"].values() if path.exists() else ()
        beats = {name: beats for work in works for name, beats in work["beats"].items()}
        self.aligned = beats.keys()
        self._carried = {name for name in beats if beats[name].startswith(ALIGNED_BEATS)}
        self._layout = layout

    def path(self, name: str, target: str) -> Path:
        """Return the file that has a target of a recording, if any has."""
        if TARGETS[target].aligned or (target in FROM_BEATS and name in self._carried):
            return self._layout.alignment(name)
        return self._layout.targets(name)

    def __call__(
        self, name: str, target: str, level: Level = "window"
    ) -> npt.NDArray[np.float64] | None:
        """Read a target as `load_target` does; None also where the recording is not aligned."""
        if TARGETS[target].aligned and name not in self.aligned:
            return None
        return load_target(self.path(name, target), target, level=level)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a file, and name it in the errors of the block."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise TargetError(f"{path} does not exist; {_RUN}") from None
    except TargetError as error:
        raise TargetError(f"{path}: {error}; delete it and {_RUN}") from None
    except _DAMAGE as error:
        raise TargetError(f"{path} is damaged ({error}); delete it and {_RUN}") from None


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist()]


def _array(archive: zipfile.ZipFile, name: str) -> Any:
    with archive.open(f"{name}.npy") as file:
        return npy.read_array(file, allow_pickle=False)


def _targets(archive: zipfile.ZipFile, names: list[str]) -> Targets:
    targets: Targets = {}
    for full in names:
        category, separator, name = full.removeprefix(WINDOWS).partition("/")
        if not separator:
            raise TargetError(f"the key {full!r} is not of the form category/field")
        targets.setdefault(category, {})[name] = _array(archive, full)
    return targets


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays, dtypes and scalars, and the builtin containers, numbers and strings."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        # numpy 2 still answers to the older name, with a warning.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _older_fields(archive: zipfile.ZipFile, category: str) -> dict[str, npt.NDArray[np.float64]]:
    """Read a category of the older form: an array that holds a pickled ``{field: array}``."""
    if category not in CATEGORIES:
        raise TargetError(f"{category!r} is no category; {nearest(category, CATEGORIES)}")
    try:
        with archive.open(f"{category}.npy") as file:
            if npy.read_magic(file) != (1, 0) or npy.read_array_header_1_0(file)[0] != ():
                raise ValueError("no single object")
            fields = _ArrayUnpickler(file).load()
        fields = fields.item() if isinstance(fields, np.ndarray) else fields
        if not isinstance(fields, dict):
            raise TypeError(f"a {type(fields).__name__} instead of a dict")
        return {str(key): np.asarray(value, np.float64) for key, value in fields.items()}
    # A damaged pickle raises whatever its broken instructions run into.
    except Exception as error:
        raise TargetError(
            f"{category} is refused ({error}); only dicts of numbers are read"
        ) from None


def validate_target_structure(targets: Given) -> None:
    """Check that the targets of a recording, ``{category: {field: array}}``, are complete.

    ``expression`` may be absent; every other category, and every registered field of each category
    that is there, must be present. Raises `TargetError` if a category or field is unknown or
    lacking, or an array has another shape than its registered kind, is not float64, or has infinite
    values. Names all that is wrong.
    """
    _validate(targets, ())


def validate_window_targets(windows: Given) -> int:
    """Check the targets of a recording's windows and return the number of windows.

    As `validate_target_structure`, with the windows along the first axis of every array.
    """
    first = next((array for fields in windows.values() for array in fields.values()), ())
    segments = np.shape(first)[:1]
    _validate(windows, segments)
    return segments[0] if segments else 0


def _validate(targets: Given, leading: tuple[int, ...]) -> None:
    problems = [
        f"{category!r} is no category; {nearest(category, CATEGORIES)}"
        for category in targets
        if category not in CATEGORIES
    ]
    for category in CATEGORIES:
        specs = [s for s in TARGETS.values() if s.category == category and not s.aligned]
        if category not in targets:
            if any(spec.source == "audio" for spec in specs):
                problems.append(f"the category {category!r} is missing")
            continue
        fields = targets[category]
        known = [spec.name for spec in specs]
        problems += [f"{category}/{name} is unknown" for name in fields if name not in known]
        problems += [f"{category}/{name} is missing" for name in known if name not in fields]
        found = (_array_problem(s, fields[s.name], leading) for s in specs if s.name in fields)
        problems += filter(None, found)
    if problems:
        raise TargetError("; ".join(problems))


def _array_problem(spec: TargetSpec, value: npt.ArrayLike, leading: tuple[int, ...]) -> str:
    """Say what is wrong with the values of a target; nothing is the empty string."""
    array = np.asarray(value)
    name = f"{spec.category}/{spec.name}"
    shape = (*leading, *spec.shape)
    if array.dtype != np.float64:
        return f"{name} is {array.dtype}, expected float64"
    if array.shape != shape:
        return f"{name} has the shape {array.shape}, a {spec.kind} has {shape}"
    if np.isinf(array).any():
        return f"{name} is infinite; undefined is NaN"
    return ""
