"""What there is to search: recordings, windows and aspects of an index, and curves of its data."""

__all__ = ["curves", "describe_aspects", "list_recordings", "windows"]

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import TargetError
from mess_core.index.index import FIELDS, Index
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.search.search import directed
from mess_core.search.words import plain
from mess_core.targets.npz import load_target
from mess_core.targets.registry import TARGETS

_CURVES = {"tempo": "local_tempo", "loudness": "loudness", "brightness": "brightness"}


@lru_cache(maxsize=1)
def list_recordings(index: Index) -> dict[str, tuple[dict[str, Any], str]]:
    """Return each recording's facts with its ``duration_s``, and the text to find it by."""
    ends = np.zeros(len(index.rows.numbers))
    np.maximum.at(ends, index.rows.table["recording"], index.rows.table["end_s"])
    columns = zip(*(index.rows.recordings[name] for name in FIELDS), ends.tolist(), strict=True)
    rows = [dict(zip((*FIELDS, "duration_s"), values, strict=True)) for values in columns]
    texts = [plain(" ".join(row[name] for name in FIELDS)) for row in rows]
    return {row["recording_id"]: (row, text) for row, text in zip(rows, texts, strict=True)}


def describe_aspects(index: Index) -> list[dict[str, Any]]:
    """Return what can be searched by, and how well it is known."""
    steered, keys = directed(index), ("resolved", "r2", "interval", "finding", "reason")
    told = {name: aspect.description for name, aspect in ASPECT_REGISTRY.items()}
    return [
        {"name": name, "description": told.get(name, ""), "directed": name in steered}
        | {key: entry.get(key) for key in keys}
        for name, entry in index.aspects.get("aspects", {}).items()
    ]


def windows(index: Index, recording_id: str) -> dict[str, Any]:
    """Return when a recording's windows are, and their values of aspects that have a direction."""
    positions, aspects = index.rows.positions(recording_id), index.projection.aspects
    values = {name: index.predicted[aspects[name].number, positions] for name in directed(index)}
    times, table = ("start_s", "end_s", "work_start_s", "work_end_s"), index.rows.table[positions]
    return {
        "windows": {name: _numbers(table[name]) for name in times},
        "aspects": {name: _numbers(each) for name, each in values.items()},
    }


def curves(path: Path, index: Index, recording_id: str, points: int) -> dict[str, Any]:
    """Return the curves of a recording's windows, joined, of so many points at most.

    Windows that overlap are averaged; what its file of targets has not is left out.
    """
    table, joined = index.rows.table[index.rows.positions(recording_id)], {}
    for name, stem in _CURVES.items():
        target = TARGETS[f"{stem}_curve"]
        try:
            values = load_target(path, target.name)
        except TargetError:
            continue
        if values is None or len(values) != len(table):
            continue
        step_s = float(table["end_s"][0] - table["start_s"][0]) / target.length
        first = np.rint((table["start_s"] - table["start_s"][0]) / step_s).astype(np.int64)
        places = first[:, np.newaxis] + np.arange(target.length)
        together = int(places.max()) // points + 1
        cells, known = places // together, np.isfinite(values)
        sums = np.bincount(cells[known], values[known], int(cells.max()) + 1)
        counts = np.bincount(cells[known], minlength=len(sums))
        joined[name] = {
            "unit": target.unit,
            "start_s": float(table["start_s"][0]),
            "step_s": step_s * together,
            "values": _numbers(np.where(counts, sums, np.nan) / np.maximum(counts, 1)),
        }
    return joined


def _numbers(values: npt.NDArray[Any]) -> list[float | None]:
    given = np.asarray(values, np.float64).round(4).tolist()
    return [value if math.isfinite(value) else None for value in given]
