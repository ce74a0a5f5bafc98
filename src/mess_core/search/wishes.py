"""Wishes: what hits are to be in themselves, as in "slow and soft, but bright".

A wish has groups of signed weights of aspects. A row's value in a group is the sum of weights times
predicted values (standard deviations from the corpus mean; 0 where unknown). Its *percentile* is
the share of the rows that it is above, of those that may be hits. Where the question starts from
something, likeness has a percentile too. A row's score is its *smallest* percentile: "X but Y"
needs both. Equal scores are ordered by the mean percentile, then by recording and start.
"""

__all__ = ["Ranking", "known_part", "rankings", "values_of"]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mess_core.errors import SearchError, nearest
from mess_core.index.index import Index
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.search.query import Query

#: How many times more rows are looked at when those at first do not suffice.
_TIMES_MORE = 4


class Ranking(NamedTuple):
    """The rows that are best in all criteria at once, in no order."""

    #: Places in the criteria.
    rows: npt.NDArray[np.int64]
    #: Their percentiles [criteria, rows], from 0 to 1.
    percentiles: npt.NDArray[np.float64]
    #: No other row's smallest percentile reaches it.
    floor: float


def known_part(index: Index, query: Query, directed: Sequence[str]) -> tuple[Query, list[str]]:
    """Return the question without what the index does not have of its wish, and what that is.

    Raises `SearchError` if an aspect is unknown or has no direction, or if nothing is left.
    """
    lost = [name for name in query.wished if name not in directed]
    for name in lost:
        if name not in {*index.aspects.get("aspects", {}), *ASPECT_REGISTRY}:
            raise SearchError(f"aspect {name!r} of the wish is unknown: {nearest(name, directed)}")
        registered = ASPECT_REGISTRY.get(name)
        if name in index.projection.aspects or (registered and not registered.more):
            raise SearchError(
                f"there is no more or less of {name!r}: it is a shape, so it cannot be wished for"
            )
    if not lost:
        return query, []
    groups = [{n: w for n, w in group.items() if n not in lost} for group in query.wish]
    left = tuple(group for group in groups if any(group.values()))
    told = f"this index does not know {', '.join(lost)} (`mess tour` says why)"
    if not left:
        choice = ", ".join(directed) or "nothing: no aspect has a direction"
        raise SearchError(f"{told}, and the wish is of nothing else; wish for {choice}")
    return replace(query, wish=left), [f"{told}, so it does not count in the wish"]


def values_of(index: Index, group: Mapping[str, float]) -> npt.NDArray[np.float32]:
    """Return the value of every row [n] in a group of a wish."""
    total = np.zeros(len(index.rows), np.float32)
    for name, weight in group.items():
        values = index.predicted[index.projection.aspects[name].number]
        total += np.float32(weight) * np.nan_to_num(values)
    return total


def rankings(criteria: Sequence[npt.NDArray[np.floating[Any]]], k: int) -> Iterator[Ranking]:
    """Give the rows that are among the best of every criterion [n]: more each time, at last all.

    The first should have the best k, if the criteria have nothing to do with each other.
    """
    n = len(criteria[0])
    ordered = [np.sort(values) for values in criteria]
    best = 0 if not n else int(n * min(1.0, 4 * k / n) ** (1 / len(criteria)))
    while n:
        best = min(max(best, k), n)
        limits = [values[n - best] for values in ordered]
        among = np.ones(n, np.bool_)
        for values, limit in zip(criteria, limits, strict=True):
            among &= values >= limit
        rows = np.flatnonzero(among)
        below = [np.searchsorted(o, v[rows]) / n for o, v in zip(ordered, criteria, strict=True)]
        floors = (np.searchsorted(o, at) / n for o, at in zip(ordered, limits, strict=True))
        yield Ranking(rows, np.array(below), 0.0 if best == n else float(max(floors)))
        if best == n:
            return
        best *= _TIMES_MORE
