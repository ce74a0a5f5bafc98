"""What there is to search: an index's recordings, windows and aspects, and curves of its data."""

__all__ = ["Listing", "curves", "describe_aspects", "list_recordings", "windows"]

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import TargetError
from mess_core.index.index import FIELDS, Index
from mess_core.layout import Layout
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.search.search import directed
from mess_core.targets.npz import load_target
from mess_core.targets.registry import CURVE_FRAMES, TARGETS

_TIMES = ("start_s", "end_s", "work_start_s", "work_end_s")
_CURVES = {
    "tempo": "local_tempo_curve",
    "loudness": "loudness_curve",
    "brightness": "brightness_curve",
}
#: What a text is looked for in.
_TEXTS = ("recording_id", "composer", "title", "performer", "work_id")


@dataclass(frozen=True, slots=True)
class Listing:
    """The recordings of an index, in the order of its rows."""

    facts: Sequence[dict[str, Any]]
    #: Of each the words that it is found by, without case and accents.
    texts: Sequence[str]

    def find(self, text: str, **wanted: str | None) -> list[dict[str, Any]]:
        """Return the recordings that have every word of a text, and what is wanted of columns."""
        words = _folded(text).split()
        columns = {name: value for name, value in wanted.items() if value is not None}
        return [
            facts
            for facts, own in zip(self.facts, self.texts, strict=True)
            if all(word in own for word in words)
            and all(facts[name] == value for name, value in columns.items())
        ]


def _folded(text: str) -> str:
    parts = unicodedata.normalize("NFKD", text)
    return "".join(c for c in parts if not unicodedata.combining(c)).casefold()


@lru_cache(maxsize=1)
def list_recordings(index: Index) -> Listing:
    """Return an index's recordings with their facts and ``duration_s``."""
    rows = index.rows
    ends = np.zeros(len(rows.numbers))
    np.maximum.at(ends, rows.table["recording"], rows.table["end_s"])
    columns = zip(*(rows.recordings[name] for name in FIELDS), ends.tolist(), strict=True)
    facts = [dict(zip((*FIELDS, "duration_s"), values, strict=True)) for values in columns]
    texts = [_folded(" ".join(each[name] for name in _TEXTS)) for each in facts]
    return Listing(facts, texts)


def describe_aspects(index: Index) -> list[dict[str, Any]]:
    """Return what can be searched by, and how well it is known."""
    steered = directed(index)
    known = ASPECT_REGISTRY
    return [
        {
            "name": name,
            "description": known[name].description if name in known else "",
            "directed": name in steered,
            **{key: entry.get(key) for key in ("resolved", "r2", "interval", "finding", "reason")},
        }
        for name, entry in index.aspects.get("aspects", {}).items()
    ]


def windows(index: Index, recording_id: str) -> dict[str, Any]:
    """Return when a recording's windows are, and their values of aspects that have a direction."""
    positions = index.rows.positions(recording_id)
    table = index.rows.table[positions]
    aspects = index.projection.aspects
    return {
        "windows": {name: _numbers(table[name]) for name in _TIMES},
        "aspects": {
            name: _numbers(index.predicted[aspects[name].number, positions], 4)
            for name in directed(index)
        },
    }


def curves(layout: Layout, index: Index, recording_id: str, points: int) -> dict[str, Any]:
    """Return the curves that targets of an index's windows have, joined, of so many points at most.

    Windows that overlap are averaged. Left out is what is not measured here.
    """
    table = index.rows.table[index.rows.positions(recording_id)]
    starts = table["start_s"]
    step = float(table["end_s"][0] - starts[0]) / CURVE_FRAMES
    joined = {}
    for name, target in _CURVES.items():
        try:
            values = load_target(layout.targets(recording_id), target)
        except TargetError:
            continue
        if values is None or len(values) != len(starts):
            continue
        curve = _joined(values, np.rint((starts - starts[0]) / step).astype(int))
        together = -(-len(curve) // points)
        padded = np.pad(curve, (0, -len(curve) % together), constant_values=np.nan)
        joined[name] = {
            "unit": TARGETS[target].unit,
            "start_s": float(starts[0]),
            "step_s": step * together,
            "values": _numbers(_means(padded.reshape(-1, together).T), 3),
        }
    return joined


def _joined(values: npt.NDArray[np.float64], first: npt.NDArray[np.int64]) -> Any:
    """Return one curve of those of windows [n, frames], which begin at some of its frames."""
    places = first[:, np.newaxis] + np.arange(values.shape[1])
    length = int(places.max()) + 1
    known = np.isfinite(values)
    sums, counts = (
        np.bincount(places[known], weights=weights, minlength=length)
        for weights in (values[known], None)
    )
    return np.divide(sums, counts, out=np.full(length, np.nan), where=counts > 0)


def _means(columns: npt.NDArray[np.float64]) -> Any:
    counts = np.isfinite(columns).sum(axis=0)
    sums = np.nansum(columns, axis=0)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def _numbers(values: npt.NDArray[Any], digits: int = 6) -> list[float | None]:
    """Return numbers as JSON has them: what is not finite is null."""
    given: Iterable[float] = np.asarray(values, np.float64).round(digits).tolist()
    return [value if np.isfinite(value) else None for value in given]
