"""Targets side by side: the numbers that an aspect is measured by, each with a name.

A column is ``category/field``, the key of a targets file, and for an entry of a shape
``category/field:number``. This module imports nothing but numpy, for services.
"""

__all__ = ["WINDOWS", "columns_of", "is_midi", "stack_columns"]

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from mess_core.targets.registry import TARGETS

#: What the keys of windows' targets begin with.
WINDOWS = "windows/"

Floats = npt.NDArray[np.float64]


def columns_of(targets: Iterable[str]) -> tuple[str, ...]:
    """Return the columns of some targets, in their order."""
    specs = [TARGETS[name] for name in targets]
    keys = [(f"{spec.category}/{spec.name}", spec.length) for spec in specs]
    return tuple(
        name
        for key, length in keys
        for name in ([f"{key}:{n}" for n in range(length)] if length else [key])
    )


def is_midi(column: str) -> bool:
    """Return whether a column is read from MIDI."""
    return column.startswith("expression/")


def stack_columns(columns: Sequence[str], find: Callable[[str], npt.ArrayLike | None]) -> Floats:
    """Return the values of at least one column [..., columns]; NaN where there is none.

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
    return np.stack(np.broadcast_arrays(*parts), axis=-1)
