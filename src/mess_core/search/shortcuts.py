"""The plain questions, each a `Query` of its own: what is like this, in general or in some aspects.

They return hits only; `mess_core.search.search` answers every other question, and says why there
are no hits. See `mess_core.search.search` for what a passage is.
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
    """Find what sounds like a recording in general.

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
        Best first; all that there are when fewer than ``k``. Scores are cosines, from -1 to 1.

    Raises
    ------
    SearchError
        If the recording is unknown, or ``k`` or ``exclude`` is none of the allowed.
    """
    return list(search(index, Query(recording_id, k=k, exclude=exclude)).hits)


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
        Best first; scores are 1 minus the squared distance, up to 1 and 0 on average.

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
    query = Query(recording_id, like=weights or _NOTHING, k=k, exclude=exclude)
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
    k : int
        How many hits at most.
    aspects : mapping of str to float, optional
        Aspects and how much they count; in general when not given.
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
    like = {} if aspects is None else aspects or _NOTHING
    query = Query(recording_id, start, end, like=like, k=k, exclude=exclude)
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
        Pooled features with all of the encoder's layers. Several windows are averaged as the
        windows of a passage are.
    k : int
        How many hits at most.
    aspects : mapping of str to float, optional
        Aspects and how much they count; in general when not given.

    Returns
    -------
    list of Hit
        Best first.

    Raises
    ------
    SearchError
        As `search_by_aspects`, and if the features do not fit the index or have no direction.
    """
    like = {} if aspects is None else aspects or _NOTHING
    return list(search_features(index, features, Query(like=like, k=k)).hits)


#: Weights that were given and name nothing are refused, as all-zero ones are.
_NOTHING: Mapping[str, float] = {"general": 0.0}
