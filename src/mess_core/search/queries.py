"""Questions to an index, answered by one inner product each.

The query is made of unit blocks, one per layer (see `mess_core.artifacts.index`):

* a recording: its stored blocks (in an index of clips, the mean over its windows);
* a passage: the mean of the blocks of the windows that lie inside it, each block scaled to unit
  length again. A passage that holds no whole window is taken as the window that overlaps it most
  (the mean of several that overlap it equally);
* features made elsewhere: projected like the stored ones, and averaged like a passage.

Weights decide which blocks count: all equally, or the layers that know the named aspects best. The
score is the weighted mean of the layers' cosines, from -1 to 1. Hits come best first; equal scores
are ordered by recording and start. Search is exact, also after exclusion.
"""

__all__ = [
    "EXCLUDES",
    "Hit",
    "find_similar",
    "search_by_aspect",
    "search_by_aspects",
    "search_by_clip",
    "search_by_vector",
]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from mess_core.artifacts.index import Floats, Index, unit_blocks
from mess_core.errors import SearchError, nearest

#: What is left out of the hits: nothing, the query's recording, or all recordings of its work.
EXCLUDES = ("none", "recording", "work")

#: Times closer than this are the same: tables give times to the millisecond.
_TIME_TOLERANCE_S = 1e-3


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer.

    Attributes
    ----------
    recording_id, work_id, performer, composer, title : str
        From the recording table; all but ``recording_id`` may be empty.
    score : float
        Weighted mean of the layers' cosines with the query, from -1 to 1.
    start_s, end_s : float
        The passage in seconds; ``0`` and the duration for a recording.
    """

    recording_id: str
    work_id: str
    performer: str
    composer: str
    title: str
    score: float
    start_s: float
    end_s: float


def find_similar(
    index: Index, recording_id: str, *, k: int = 10, exclude: str = "recording"
) -> list[Hit]:
    """Find what sounds like a recording, all layers counting equally.

    Parameters
    ----------
    index : Index
        From `load_features`, `load_artifact`, `load_latest` or `build_index`.
    recording_id : str
        A recording in the index.
    k : int
        How many hits at most.
    exclude : {'recording', 'work', 'none'}
        What to leave out: the recording's own rows, all of its work, or nothing.

    Returns
    -------
    list of Hit
        Best first; all that there are when fewer than ``k``.

    Raises
    ------
    SearchError
        If the recording is unknown, or ``k`` or ``exclude`` is none of the allowed.
    """
    return _answer(index, _rows_of(index, recording_id), None, k, exclude)


def search_by_aspect(
    index: Index, recording_id: str, aspect: str, *, k: int = 10, exclude: str = "recording"
) -> list[Hit]:
    """Find what is like a recording in one musical aspect.

    Parameters
    ----------
    index, recording_id, k, exclude
        As for `find_similar`.
    aspect : str
        A resolved aspect of the index's aspect map.

    Returns
    -------
    list of Hit
        Best first; scores are the cosines in the layer that knows the aspect best.

    Raises
    ------
    SearchError
        As `find_similar`, and if the aspect is unknown, or no probe found it well enough.
    """
    return search_by_aspects(index, recording_id, {aspect: 1.0}, k=k, exclude=exclude)


def search_by_aspects(
    index: Index,
    recording_id: str,
    weights: Mapping[str, float],
    *,
    k: int = 10,
    exclude: str = "recording",
) -> list[Hit]:
    """Find what is like a recording in several aspects at once.

    Parameters
    ----------
    index, recording_id, k, exclude
        As for `find_similar`.
    weights : mapping of str to float
        Resolved aspects and how much they count; only their ratios matter.

    Returns
    -------
    list of Hit
        Best first.

    Raises
    ------
    SearchError
        As `search_by_aspect`, and if weights are negative, not finite or all zero.
    """
    return _answer(index, _rows_of(index, recording_id), weights, k, exclude)


def search_by_clip(
    index: Index,
    recording_id: str,
    start: float,
    end: float | None = None,
    *,
    k: int = 10,
    aspects: Mapping[str, float] | None = None,
    exclude: str = "none",
) -> list[Hit]:
    """Find passages like a passage of a recording.

    Parameters
    ----------
    index : Index
        An index of clips.
    recording_id : str
        A recording in the index.
    start, end : float
        The passage in seconds, on any times inside the recording. Without ``end`` it is as long as
        a window, or ends with the recording.
    k : int
        How many hits at most.
    aspects : mapping of str to float, optional
        Aspects and how much they count; all layers equally when not given.
    exclude : {'none', 'recording', 'work'}
        What to leave out; by default nothing, so that the passage finds itself first.

    Returns
    -------
    list of Hit
        Best first.

    Raises
    ------
    SearchError
        As `search_by_aspects`, and if the index holds no clips or the times lie outside of the
        recording.
    """
    if index.kind != "clips":
        raise SearchError(f"this is an index of {index.kind}; passages need an index of clips")
    rows = _rows_of(index, recording_id)
    return _answer(index, _covering(index, rows, start, end), aspects, k, exclude)


def search_by_vector(
    index: Index,
    features: npt.NDArray[np.floating[Any]],
    *,
    k: int = 10,
    aspects: Mapping[str, float] | None = None,
) -> list[Hit]:
    """Find what is like features that were made elsewhere, by the index's own encoder.

    Parameters
    ----------
    index : Index
        Of either kind.
    features : ndarray [shape=(layers, dims) or (windows, layers, dims)]
        Pooled features with all of the encoder's layers. Several windows are averaged as the
        windows of a passage are.
    k : int
        How many hits at most.
    aspects : mapping of str to float, optional
        Aspects and how much they count; all layers equally when not given.

    Returns
    -------
    list of Hit
        Best first.

    Raises
    ------
    SearchError
        As `search_by_aspects`, and if the features do not fit the index or have no direction.
    """
    dims, highest = index.mean.shape[1], max(index.layers)
    if features.ndim == 2:
        features = features[np.newaxis]
    if features.ndim != 3 or 0 in features.shape or features.shape[2] != dims:
        raise SearchError(f"features have shape {features.shape}, expected (..., layers, {dims})")
    if features.shape[1] <= highest:
        raise SearchError(
            f"features have {features.shape[1]} layers, but the index uses layer {highest}; "
            "give all layers of the encoder that made the index"
        )
    blocks, usable = unit_blocks(features[:, list(index.layers)].astype(np.float32), index.mean)
    if not usable.all():
        raise SearchError(
            "the query's features are not finite or equal the corpus mean, so they have no "
            "direction to search in; check that its audio is not silent"
        )
    return _ranked(index, _average(blocks), aspects, k, ())


def _answer(
    index: Index,
    rows: Sequence[int],
    aspects: Mapping[str, float] | None,
    k: int,
    exclude: str,
) -> list[Hit]:
    skipped = _excluded(index, index.rows[rows[0]].recording_id, exclude)
    return _ranked(index, _average(index.blocks(rows)), aspects, k, skipped)


def _rows_of(index: Index, recording_id: str) -> tuple[int, ...]:
    try:
        return index.positions[recording_id]
    except KeyError:
        raise SearchError(
            f"recording {recording_id!r} is not in the index: "
            f"{nearest(recording_id, index.positions)}"
        ) from None


def _average(blocks: Floats) -> Floats:
    mean = blocks.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(mean, axis=1, keepdims=True)
    # Windows that cancel out in a layer leave it nothing to ask for: its cosines are all zero.
    unit: Floats = (mean / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return unit


def _covering(
    index: Index, rows: Sequence[int], start: float, end: float | None
) -> tuple[int, ...]:
    windows = [(index.rows[row].start_s, index.rows[row].end_s) for row in rows]
    begins, ends = min(s for s, _ in windows), max(e for _, e in windows)
    if end is None:
        end = min(start + windows[0][1] - windows[0][0], ends)
    if not begins - _TIME_TOLERANCE_S <= start < end <= ends + _TIME_TOLERANCE_S:
        raise SearchError(
            f"{start:g} to {end:g} s is no passage of recording {index.rows[rows[0]].recording_id}:"
            f" its indexed windows cover {begins:g} to {ends:g} s, and the start must come before "
            "the end"
        )
    inside = [s >= start - _TIME_TOLERANCE_S and e <= end + _TIME_TOLERANCE_S for s, e in windows]
    if not any(inside):
        overlaps = [min(e, end) - max(s, start) for s, e in windows]
        inside = [overlap >= max(overlaps) - _TIME_TOLERANCE_S for overlap in overlaps]
    return tuple(row for row, covered in zip(rows, inside, strict=True) if covered)


def _excluded(index: Index, recording_id: str, exclude: str) -> tuple[int, ...]:
    if exclude not in EXCLUDES:
        raise SearchError(f"exclude {exclude!r} is unknown: {nearest(exclude, EXCLUDES)}")
    if exclude == "none":
        return ()
    own = index.positions[recording_id]
    if exclude == "recording":
        return own
    work_id = index.rows[own[0]].work_id
    if not work_id:
        raise SearchError(
            f"the work of recording {recording_id} is not known, so it cannot be excluded; "
            "fill work_id in the recording table, or exclude 'recording'"
        )
    return tuple(row for row, entry in enumerate(index.rows) if entry.work_id == work_id)


def _ranked(
    index: Index,
    blocks: Floats,
    aspects: Mapping[str, float] | None,
    k: int,
    skipped: Sequence[int],
) -> list[Hit]:
    if k < 1:
        raise SearchError(f"k is {k}, expected at least 1")
    query = index.query(blocks, _layer_weights(index, aspects))
    hits = [_hit(index, row, score) for row, score in _nearest(index, query, k, skipped)]
    return sorted(hits, key=lambda hit: (-hit.score, hit.recording_id, hit.start_s))[:k]


def _hit(index: Index, position: int, score: float) -> Hit:
    row = index.rows[position]
    return Hit(
        recording_id=row.recording_id,
        work_id=row.work_id,
        performer=row.performer,
        composer=row.composer,
        title=row.title,
        # Rounding may leave a cosine a little above 1.
        score=max(-1.0, min(1.0, score)),
        start_s=row.start_s,
        end_s=row.end_s,
    )


def _nearest(
    index: Index, query: Floats, k: int, skipped: Sequence[int]
) -> list[tuple[int, float]]:
    """Return the best k rows that are not skipped, and every row that ties with the last."""
    left = len(index.rows) - len(skipped)
    others = faiss.IDSelectorNot(faiss.IDSelectorBatch(np.asarray(skipped, dtype=np.int64)))
    options = faiss.SearchParameters(sel=others)  # type: ignore[call-arg]
    wanted = min(k + 1, left)
    while wanted:
        scores, rows = index.flat.search(query, wanted, params=options)
        # FAISS breaks ties by position; more of them may wait behind the last.
        if wanted == left or scores[0, -1] < scores[0, k - 1]:
            return list(zip(rows[0].tolist(), scores[0].tolist(), strict=True))
        wanted = min(2 * wanted, left)
    return []


def _layer_weights(index: Index, aspects: Mapping[str, float] | None) -> dict[int, float]:
    if aspects is None:
        return dict.fromkeys(index.layers, 1.0 / len(index.layers))
    for aspect, weight in aspects.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise SearchError(f"the weight of {aspect} is {weight}, expected a number from 0")
    total = sum(aspects.values())
    if not total:
        raise SearchError("no aspect has a weight above 0; give at least one, as in rubato=1")
    weights: dict[int, float] = {}
    for aspect, weight in aspects.items():
        layer = _layer_of(index, aspect)
        weights[layer] = weights.get(layer, 0.0) + weight / total
    return weights


def _layer_of(index: Index, name: str) -> int:
    known = index.aspects.get("aspects", {})
    if not known:
        raise SearchError(
            f"the index has no aspect map, so it cannot be searched by {name!r}; probe the "
            "targets, resolve the aspects and build the index again"
        )
    if name not in known:
        raise SearchError(f"aspect {name!r} is unknown: {nearest(name, known)}")
    aspect = known[name]
    if not aspect["resolved"]:
        raise SearchError(_unresolved(name, aspect, index.aspects.get("min_r2"), known))
    return int(aspect["layer"])


def _unresolved(
    name: str, aspect: Mapping[str, Any], min_r2: float | None, known: Mapping[str, Any]
) -> str:
    reached = "no target of it was probed" if aspect["r2"] is None else f"R2 {aspect['r2']:.2f}"
    usable = ", ".join(sorted(other for other, entry in known.items() if entry["resolved"]))
    return (
        f"aspect {name!r} is not resolved: the best its probes reached is {reached}, the limit "
        f"min_r2 is {min_r2} ({aspect.get('reason') or 'no reason given'}); search by a resolved "
        f"aspect ({usable or 'there is none'}), probe more recordings, or lower min_r2 and resolve "
        "the aspects again"
    )
