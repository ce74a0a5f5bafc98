"""The plain questions, each a `Query` of its own: what is like this, in general or in some aspects.

They return hits only, best first; `mess_core.search.search` answers every question and says why
there are no hits. All take ``k``, how many hits at most, and ``exclude``, what to leave out: the
query's ``recording``, all recordings of its ``work``, or ``none``. All raise `SearchError` if the
recording or an aspect is unknown, the aspect is not known well enough, or an argument is not
allowed.
"""

__all__ = [
    "find_similar",
    "search_by_aspect",
    "search_by_aspects",
    "search_by_clip",
    "search_by_vector",
]

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.index.index import Index
from mess_core.search.query import Query
from mess_core.search.search import Hit, search, search_features


def find_similar(
    index: Index, recording_id: str, *, k: int = 10, exclude: str = "recording"
) -> list[Hit]:
    """Find what sounds like a recording in general; scores are cosines, from -1 to 1."""
    return list(search(index, Query(recording_id, k=k, exclude=exclude)).hits)


def search_by_aspect(
    index: Index, recording_id: str, aspect: str, *, k: int = 10, exclude: str = "recording"
) -> list[Hit]:
    """Find what is like a recording in one musical aspect.

    Scores are 1 minus the squared distance: 1 at most, and 0 on average.
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
    """Find what is like a recording in several aspects; only the ratios of weights matter."""
    query = Query(recording_id, like=_given(weights), k=k, exclude=exclude)
    return list(search(index, query).hits)


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
    aspects : mapping of str to float, optional
        Aspects and how much they count; in general when not given.
    k, exclude
        As above; by default nothing is left out, so that the passage finds itself first.
    """
    query = Query(recording_id, start, end, like=_given(aspects), k=k, exclude=exclude)
    return list(search(index, query).hits)


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
        Pooled features with all of the encoder's layers.
    k, aspects
        As for `search_by_clip`.
    """
    return list(search_features(index, features, Query(like=_given(aspects), k=k)).hits)


def _given(weights: Mapping[str, float] | None) -> Mapping[str, float]:
    """Return weights for a query, which refuses none as it refuses those that are all zero."""
    return {} if weights is None else weights or {"general": 0.0}
