"""The index: one vector per recording or clip, such that any question is one inner product.

`mess_core.index.projection` says what a stored vector is, `mess_core.search.scoring` what a query
is. FAISS holds the vectors; beside them lie the rows (what each vector is) and every row's
predicted values of the aspects.
"""

__all__ = [
    "FIELDS",
    "ROW_TYPE",
    "Index",
    "Row",
    "Rows",
    "build_index",
    "check_aspects",
    "index_recordings",
]

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import ArtifactError
from mess_core.extraction.storage import segment_times
from mess_core.index.factory import EXACT_UP_TO, FLAT, MEMORY_GB, choose_factory, flat_index, hold
from mess_core.index.projection import SMALLEST_SHARE, Projection
from mess_core.layout import INDEX_KINDS
from mess_core.progress import Report, counted
from mess_core.recordings import Recording
from mess_core.targets.registry import PROBED

Floats = npt.NDArray[np.float32]
Features = npt.NDArray[np.floating[Any]]
Measured = npt.NDArray[np.float64]

#: Rows that are projected at a time: 40 MB of 13 layers with 768 numbers.
_AT_ONCE = 1024

#: The passage of a row, in seconds: of the recording, and of its work (`mess_core.alignment.maps`).
_TIMES = ("start_s", "end_s", "work_start_s", "work_end_s")

#: A row on disk: the number of its recording, and its times, NaN where it is not aligned.
ROW_TYPE = np.dtype([("recording", "<i8"), *((name, "<f8") for name in _TIMES)])


@dataclass(frozen=True, slots=True)
class Row:
    """What one row of an index is: a passage of a recording, or all of it."""

    #: From the recording table; all but the id may be empty.
    recording_id: str
    work_id: str
    performer: str
    composer: str
    title: str
    split: str
    #: The passage in seconds; 0 and the duration for a recording.
    start_s: float
    end_s: float
    #: The same in seconds of its work; None where it is not aligned with other performances.
    work_start_s: float | None = None
    work_end_s: float | None = None

    @classmethod
    def of(
        cls,
        recording: Recording,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        work_s: Sequence[float] = (math.nan, math.nan),
    ) -> "Row":
        """Make the row of a recording in the table, or of a passage (``work_s``: in its work)."""
        facts = {name: getattr(recording, name) for name in FIELDS}
        end_s = recording.duration_s if end_s is None else end_s
        return cls(**facts, **_times(start_s, end_s, *work_s))


def _times(start_s: float, end_s: float, work_start_s: float, work_end_s: float) -> dict[str, Any]:
    work_s = [None if math.isnan(time) else time for time in (work_start_s, work_end_s)]
    return dict(zip(_TIMES, (start_s, end_s, *work_s), strict=True))


#: Features and measured targets of some rows, and what these are.
_Part = tuple[Features, Measured, list[Row]]

#: The fields that rows of one recording share.
FIELDS = tuple(field.name for field in fields(Row) if field.name not in _TIMES)


class Rows:
    """The rows of an index, in the order of its vectors.

    ``recordings`` has the columns `FIELDS`, with one entry per recording. ``table`` is an array of
    `ROW_TYPE` [n], which may be memory-mapped.
    """

    def __init__(self, recordings: Mapping[str, Sequence[str]], table: npt.NDArray[np.void]):
        self.recordings = recordings
        self.table = table

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Rows":
        """Make columns of rows; raise `ArtifactError` if those of one recording disagree."""
        numbers: dict[str, int] = {}
        known: list[tuple[str, ...]] = []

        def entry(row: Row) -> tuple[int | float, ...]:
            facts = tuple(getattr(row, name) for name in FIELDS)
            number = numbers.setdefault(row.recording_id, len(numbers))
            if number == len(known):
                known.append(facts)
            elif known[number] != facts:
                raise ArtifactError(
                    f"recording {row.recording_id} is described as {known[number]} and as {facts}; "
                    "give all its rows the same work, performer, composer, title and split"
                )
            times = (getattr(row, name) for name in _TIMES)
            return number, *(math.nan if time is None else time for time in times)

        # Row by row, so that no list of them is made.
        table = np.fromiter((entry(row) for row in rows), ROW_TYPE)
        columns = {name: [facts[i] for facts in known] for i, name in enumerate(FIELDS)}
        return cls(columns, table)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, position: int) -> Row:
        number, *times = self.table[position].item()
        facts = {name: column[number] for name, column in self.recordings.items()}
        return Row(**facts, **_times(*times))

    def __iter__(self) -> Iterator[Row]:
        return (self[number] for number in range(len(self)))

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of every recording, by its id."""
        return {name: number for number, name in enumerate(self.recordings["recording_id"])}

    @cached_property
    def _grouped(self) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64]]:
        """Rows sorted by recording (None: as they are), and where there each recording starts."""
        of_row = np.ascontiguousarray(self.table["recording"])
        order = None
        if (of_row[1:] < of_row[:-1]).any():
            order = np.argsort(of_row, kind="stable")
            of_row = of_row[order]
        borders = np.searchsorted(of_row, np.arange(len(self.numbers) + 1))
        return order, borders.astype(np.int64)

    def positions(self, recording_id: str) -> npt.NDArray[np.int64]:
        """Return the rows of a recording in the order of the index; KeyError if it has none."""
        number = self.numbers[recording_id]
        order, borders = self._grouped
        first, end = borders[number : number + 2].tolist()
        return np.arange(first, end) if order is None else order[first:end]

    def having(self, field: str, values: Iterable[str]) -> npt.NDArray[np.bool_]:
        """Return which rows [n] are of recordings with one of some values in one of `FIELDS`."""
        wanted = set(values)
        chosen = np.array([value in wanted for value in self.recordings[field]], np.bool_)
        order, borders = self._grouped
        grouped = np.repeat(chosen, np.diff(borders))
        if order is None:
            return grouped
        found = np.empty(len(self), np.bool_)
        found[order] = grouped
        return found

    def check(self, kind: str) -> None:
        """Raise `ArtifactError` if no index of this kind can have these rows."""
        if kind not in INDEX_KINDS:
            raise ArtifactError(f"index kind {kind!r} is none of {', '.join(INDEX_KINDS)}")
        if not len(self):
            raise ArtifactError(f"an index of {kind} needs at least one row, got none")
        names = self.recordings["recording_id"]
        if len(self.numbers) < len(names) or "" in self.numbers:
            raise ArtifactError("recording ids are empty or repeated; give each recording its own")
        numbers = self.table["recording"]
        if numbers.min() < 0 or numbers.max() >= len(names):
            raise ArtifactError(
                f"rows are of recordings {numbers.min()} to {numbers.max()}, but there are "
                f"{len(names)}, counted from 0"
            )
        used = np.bincount(numbers, minlength=len(names))
        if (used == 0).any():
            raise ArtifactError(f"recording {names[int(np.argmin(used))]} has no row")
        if kind == "recordings" and (used > 1).any():
            twice = names[int(np.argmax(used))]
            raise ArtifactError(f"recording {twice} occurs twice in an index of recordings")
        start, end = self.table["start_s"], self.table["end_s"]
        wrong = ~((start >= 0) & (start <= end) & (end < math.inf))
        start, end = self.table["work_start_s"], self.table["work_end_s"]
        wrong |= ~((start <= end) & np.isfinite(end - start) | np.isnan(start) & np.isnan(end))
        if wrong.any():
            row = self[int(np.argmax(wrong))]
            raise ArtifactError(
                f"recording {row.recording_id}: {row.start_s} to {row.end_s} s is no passage, or "
                f"{row.work_start_s} to {row.work_end_s} s of its work is none; times must be "
                "finite with 0 <= start <= end (of the work, start <= end or both missing)"
            )


@dataclass(frozen=True, eq=False)
class Index:
    """An index in memory, or memory-mapped; queries do not change it, so threads may share it."""

    #: ``recordings`` or ``clips``.
    kind: str
    #: What each stored vector is.
    rows: Rows
    #: What makes the vectors.
    projection: Projection
    #: Every row's predicted value [A, n] of every aspect, in standard deviations of the true value;
    #: NaN for aspects without a direction.
    predicted: Floats
    #: The aspect map (``aspects.json``); empty when there is none.
    aspects: Mapping[str, Any]
    #: Where it comes from: dataset, encoder, licence, stage versions.
    facts: Mapping[str, Any]
    #: The stored vectors, as FAISS's index of the inner product.
    vectors: Any
    #: FAISS's name of its kind; ``Flat`` is exact.
    factory: str = FLAT
    #: Of the artifact that it was loaded from; empty for one that was built here.
    version_id: str = ""

    @property
    def exact(self) -> bool:
        """Whether searches compare every row exactly, not only those that look best by a code."""
        return self.factory == FLAT

    def stored(self, positions: npt.ArrayLike) -> Floats:
        """Return the stored vectors [len(positions), width] of some rows, exactly."""
        chosen = np.asarray(positions, dtype=np.int64).reshape(-1)
        found: Floats = self.vectors.reconstruct_batch(chosen)
        return found

    @cached_property
    def relative_to_work(self) -> "Index":
        """The rows of works with several recordings, as `mess_core.index.relative` makes them."""
        from mess_core.index.relative import relative_to_work

        return relative_to_work(self)


def build_index(
    features: Features,
    rows: Iterable[Row],
    *,
    kind: str,
    projection: Projection,
    aspects: Mapping[str, Any],
    facts: Mapping[str, Any],
    measured: Measured | None = None,
    exact_up_to: int = EXACT_UP_TO,
    memory_gb: float = MEMORY_GB,
) -> Index:
    """Build the index of features in memory.

    Raises `ArtifactError` if shapes and rows disagree, a recording occurs twice in an index of
    recordings, a value is not finite, a row equals the corpus mean in some layer, the aspect map is
    of other aspects than the projection, or the memory does not suffice.

    Parameters
    ----------
    features : ndarray [shape=(n, L, dims)]
        The encoder's pooled features of every row, with all layers. Not changed.
    rows : iterable of Row
        What each of the n rows is.
    kind : str
        ``recordings`` (one row per recording) or ``clips``.
    projection : Projection
        Of this corpus (`mess_core.index.fit_projection`).
    aspects : mapping
        The content of ``aspects.json``; empty when aspects were not probed.
    facts : mapping
        Builtins for the manifest: ``dataset``, ``encoder``, ``licence``, stage versions, ...
    measured : ndarray [shape=(n, T)], optional
        The rows' ``projection.columns``, NaN where undefined; needed where there are some.
    exact_up_to : int
        Rows up to which searches are exact (`mess_core.index.factory`).
    memory_gb : float
        Gigabytes that the vectors of a larger index may take where it is served.
    """
    given = list(rows)
    parts = [(features, np.zeros((len(given), 0)) if measured is None else measured, given)]
    return _build(parts, len(given), kind, projection, aspects, facts, exact_up_to, memory_gb)


def index_recordings(
    recordings: Sequence[Recording],
    read: Callable[[Recording], Features],
    measure: Callable[[Recording], Measured] | None = None,
    work_times: Callable[[Recording, Measured], Measured] | None = None,
    *,
    kind: str,
    window_s: float,
    overlap: float,
    projection: Projection,
    aspects: Mapping[str, Any],
    facts: Mapping[str, Any],
    exact_up_to: int = EXACT_UP_TO,
    memory_gb: float = MEMORY_GB,
    progress: Report | None = None,
) -> Index:
    """Build the index of recordings, or of their windows, reading one recording at a time.

    Beside the index, about 0.3 GB of features are in memory, however many recordings there are.

    Raises `ArtifactError` as `build_index` does.

    Parameters
    ----------
    recordings : sequence of Recording
        From the recording table.
    read : callable
        Gives a recording's features ``[L, dims]``, for clips those of its windows ``[W, L, dims]``.
    measure : callable, optional
        Gives its ``projection.columns`` ``[T]``, for clips those of its windows ``[W, T]``, NaN
        where undefined; needed where there are some.
    work_times : callable, optional
        Gives start and end of a recording's windows in the work, both ``[W, 2]``, NaN where a
        window is not aligned, for clips.
    window_s, overlap : float
        How windows were cut, for the times of clips.
    kind, projection, aspects, facts, exact_up_to, memory_gb
        As for `build_index`.
    progress : callable, optional
        Called with the recordings done, those in all, and the id of the last.
    """
    parts = (
        _part(recording, read(recording), measure, work_times, kind, window_s, overlap)
        for recording in counted(recordings, progress, lambda recording: recording.recording_id)
    )
    expected = len(recordings)
    if kind == "clips":
        hop_s = window_s * (1 - overlap)
        expected += int(sum(recording.duration_s for recording in recordings) / hop_s)
    return _build(parts, expected, kind, projection, aspects, facts, exact_up_to, memory_gb)


def _part(
    recording: Recording,
    features: Features,
    measure: Callable[[Recording], Measured] | None,
    work_times: Callable[[Recording, Measured], Measured] | None,
    kind: str,
    window_s: float,
    overlap: float,
) -> _Part:
    if kind != "clips":
        features, rows = features[np.newaxis], [Row.of(recording)]
    else:
        starts = segment_times(
            len(features), duration_s=recording.duration_s, window_s=window_s, overlap=overlap
        )
        windows = np.column_stack([starts, starts + window_s])
        aligned = np.nan * windows if work_times is None else work_times(recording, windows)
        rows = [
            Row.of(recording, start_s=start_s, end_s=end_s, work_s=work_s)
            for start_s, end_s, *work_s in np.hstack([windows, aligned]).tolist()
        ]
    measured = np.zeros(0) if measure is None else measure(recording)
    return features, np.tile(measured, (len(rows), 1)) if measured.ndim == 1 else measured, rows


def _build(
    parts: Iterable[_Part],
    expected: int,
    kind: str,
    projection: Projection,
    aspects: Mapping[str, Any],
    facts: Mapping[str, Any],
    exact_up_to: int,
    memory_gb: float,
) -> Index:
    check_aspects(projection, aspects)
    vectors = flat_index(projection.width, expected)
    predicted: list[Floats] = [np.empty((0, len(projection.names)), np.float32)]

    def added() -> Iterator[Row]:
        for features, measured, rows in _blocks(parts, projection):
            block, values, usable = projection.project(features, measured)
            _check_usable(usable, rows, projection)
            vectors.add(block)
            predicted.append(values)
            yield from rows

    table = Rows.of(added())
    table.check(kind)
    choice = choose_factory(len(table), projection.width, memory_gb * 1e9, exact_up_to=exact_up_to)
    return Index(
        kind=kind,
        rows=table,
        projection=projection,
        predicted=np.ascontiguousarray(np.concatenate(predicted).T),
        aspects=_builtins("aspects", aspects),
        facts=_builtins("facts", facts),
        vectors=hold(vectors, choice),
        factory=choice.factory,
    )


def check_aspects(projection: Projection, aspects: Mapping[str, Any]) -> None:
    """Refuse an aspect map that is malformed, or has not resolved the projection's aspects.

    ``aspects`` is the content of ``aspects.json``, empty when aspects were not probed. Raises
    `ArtifactError`, which names the aspects.
    """
    known = aspects.get("aspects", {})
    if not isinstance(known, dict) or not all(_is_entry(entry) for entry in known.values()):
        raise ArtifactError(
            "the aspect map is malformed: expected aspects, each with resolved (true or false), "
            "layer and r2 (a number or null), and sources; resolve the aspects again"
        )
    resolved = {
        name: [" ".join(entry["sources"]), entry["layer"] if PROBED in entry["sources"] else -1]
        for name, entry in known.items()
        if entry["resolved"]
    }
    its = zip(projection.sources.tolist(), projection.aspect_layers.tolist(), strict=True)
    read = dict(zip(projection.names.tolist(), map(list, its), strict=True))
    if aspects and resolved != read:
        raise ArtifactError(
            f"the aspect map has resolved {resolved} (aspect, sources and layer), but the "
            f"projection has {read}; fit the projection and build the index again"
        )


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("resolved"), bool):
        return False
    if not isinstance(entry.get("sources"), list):
        return False
    numbers = [entry.get(key, "") for key in ("layer", "r2")]
    return all(isinstance(n, int | float | None) and not isinstance(n, bool) for n in numbers)


def _blocks(parts: Iterable[_Part], projection: Projection) -> Iterator[_Part]:
    """Cut and join parts to blocks of `_AT_ONCE` rows or some more, of the layers in use."""
    kept: list[Features] = []
    values: list[Measured] = []
    rows: list[Row] = []
    for features, measured, of in parts:
        _check_shape(features, measured, of, projection)
        for start in range(0, len(of), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            kept.append(features[part, projection.layers])
            values.append(measured[part])
            rows += of[part]
            if len(rows) >= _AT_ONCE:
                yield np.concatenate(kept), np.concatenate(values), rows
                kept, values, rows = [], [], []
    if rows:
        yield np.concatenate(kept), np.concatenate(values), rows


def _check_shape(
    features: Features, measured: Measured, rows: Sequence[Row], projection: Projection
) -> None:
    of = f" of recording {rows[0].recording_id}" if rows else ""
    if features.ndim != 3 or len(features) != len(rows) or features.shape[2] != projection.dims:
        raise ArtifactError(
            f"features{of} have shape {features.shape}, expected ({len(rows)}, layers, "
            f"{projection.dims}): one row each"
        )
    if measured.shape != (len(rows), len(projection.columns)):
        raise ArtifactError(
            f"measured targets{of} have shape {measured.shape}, expected {len(rows)} of "
            f"{projection.columns.tolist()}; run the targets rule again"
        )
    highest = int(projection.layers.max())
    if highest >= features.shape[1]:
        raise ArtifactError(
            f"layer {highest} does not exist; the features have 0-{features.shape[1] - 1}"
        )


def _check_usable(
    usable: npt.NDArray[np.bool_], rows: Sequence[Row], projection: Projection
) -> None:
    if usable.all():
        return
    position, place = (int(number) for number in np.argwhere(~usable)[0])
    row = rows[position]
    raise ArtifactError(
        f"recording {row.recording_id} ({row.start_s:.1f} to {row.end_s:.1f} s) has no direction "
        f"in layer {projection.layers[place]}: its features are not finite or equal the corpus "
        f"mean (to {SMALLEST_SHARE:g} of its length); extract it again, or check that it is not "
        "silent"
    )


def _builtins(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    try:
        copy: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{name} must be finite builtins that JSON can hold: {error}") from None
    return copy
