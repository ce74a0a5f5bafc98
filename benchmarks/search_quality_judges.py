"""From what a search finds to figures: which queries are asked, and how answers are judged.

A search is a function from a query's row to a score for every row, NaN where it was not found. What
may be found is always in another recording than the query.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.search_quality_corpora import Clips, Span, same_passage
from benchmarks.search_quality_metrics import (
    Bools,
    Floats,
    Found,
    Hubness,
    Ints,
    Mean,
    drift,
    first_right,
    found,
    found_by_chance,
    hubness,
    mean_of_groups,
    partial_correlation,
    share_larger,
)
from mess_core.index.index import Index
from mess_core.search.query import Query, clip_id
from mess_core.search.search import search

Search = Callable[[int], Floats]
Figures = dict[str, Mean]

#: The name of what a random order reaches.
CHANCE = "chance"

#: Hits of a query that are looked at.
K = 10


class Ordered(NamedTuple):
    """How one query's distances go with the true ones in X given Y, and in Y given X."""

    work: str
    wanted: float
    leak: float


class Grown(NamedTuple):
    """Of one query's hits the share with more X, and the drift of the rest.

    Beside them what all candidates have, which is the level of chance for this query; all four are
    NaN where nothing was found, and ``unanswered`` is 1.
    """

    work: str
    share: float
    share_by_chance: float
    drift: float
    drift_by_chance: float
    unanswered: float


def cosine(vectors: npt.NDArray[np.floating[Any]]) -> Search:
    """Return the search by the plain cosine of vectors [n, D], as they are."""
    unit: npt.NDArray[np.floating[Any]] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return lambda row: np.asarray(unit @ unit[row], np.float64)


def asking(index: Index, clips: Clips, *, k: int | None = None, **respects: Any) -> Search:
    """Return the search that asks an index of clips, as a service does.

    Parameters
    ----------
    index : Index
        Whose rows are the clips, in any order.
    clips : Clips
        All windows.
    k : int, optional
        How many hits; all by default.
    **respects
        Of a `Query`: ``like``, ``ignore``, ``unlike``, ``more`` or ``less``.
    """
    ids = [clip_id(name, start) for name, start in zip(clips.names, clips.starts_s, strict=True)]
    rows = {clip: row for row, clip in enumerate(ids)}

    def scores(row: int) -> Floats:
        query = Query(clip=ids[row], exclude="recording", k=k or len(ids), **respects)
        found = np.full(len(ids), np.nan)
        for hit in search(index, query).hits:
            found[rows[hit.clip]] = hit.score
        return found

    return scores


def all_layers_centred(features: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Return vectors whose cosine is the mean of the centred layers' cosines.

    Parameters
    ----------
    features : ndarray [shape=(n, L, D)]
    """
    centred = features - features.mean(axis=0)
    unit: npt.NDArray[np.floating[Any]] = centred / np.linalg.norm(centred, axis=2, keepdims=True)
    return unit.reshape(len(features), -1)


def choose_queries(works: Sequence[str], per_work: int) -> list[int]:
    """Return rows drawn from each work's (seeded), at most so many of each work.

    Evenly spaced rows would favour some doses of a planted work, which lie evenly too.
    """
    rng, chosen = np.random.default_rng(0), list[int]()
    for work in dict.fromkeys(works):
        rows = [row for row, other in enumerate(works) if other == work]
        drawn = rng.choice(rows, min(per_work, len(rows)), replace=False)
        chosen += sorted(drawn.tolist())
    return chosen


def others(clips: Clips, row: int, *, of_work: bool = False) -> Bools:
    """Say which windows are in other recordings than a row's (of the same work, if wanted)."""
    apart = clips.numbers != clips.numbers[row]
    return np.asarray(apart & (clips.work_numbers == clips.work_numbers[row]) if of_work else apart)


def best_hits(scores: Floats, candidates: Bools, k: int = K) -> Ints:
    """Return the best candidates that were found, at most k, best first."""
    rows = np.flatnonzero(candidates & np.isfinite(scores))
    return rows[np.argsort(-scores[rows], kind="stable")[:k]]


def judge_passages(
    searches: dict[str, Search],
    clips: Clips,
    spans: Sequence[Span],
    queries: Sequence[int],
    *,
    of_work: bool = False,
) -> dict[str, Figures]:
    """Judge how well searches find the same passage by another player, and chance.

    Parameters
    ----------
    searches : dict of str to Search
        By name.
    clips, spans
        All windows, and what they hold.
    queries : sequence of int
        Rows; those without a right answer are left out.
    of_work : bool
        Search the query's work alone: the right place among the passages of one piece.

    Returns
    -------
    dict
        By name, and for `CHANCE`, the fields of `Found`, works counting equally.
    """
    works: list[str] = []
    results: dict[str, list[Found]] = {name: [] for name in (CHANCE, *searches)}
    for row in queries:
        candidates = others(clips, row, of_work=of_work)
        right = same_passage(spans[row], spans) & candidates
        if not right.any():
            continue
        works.append(clips.works[row])
        results[CHANCE].append(found_by_chance(int(candidates.sum()), int(right.sum())))
        for name, ask in searches.items():
            results[name].append(found([first_right(ask(row), right, candidates)]))
    return {name: _means(works, each, Found._fields) for name, each in results.items()}


def _means(works: Sequence[str], results: Sequence[Any], fields: Iterable[str]) -> Figures:
    return {
        field: mean_of_groups(works, [getattr(one, field) for one in results]) for field in fields
    }


def judge_distances(
    ask: Search, clips: Clips, wanted: Floats, ignored: Floats, queries: Iterable[int]
) -> list[Ordered]:
    """Judge whether a search orders by one aspect and not by another.

    Parameters
    ----------
    ask : Search
        Whose scores fall with the distance.
    clips : Clips
        All n windows.
    wanted, ignored : ndarray of float64 [shape=(n, q)]
        True values of X and of Y.
    queries : iterable of int
        Rows.
    """
    results = []
    for row in queries:
        candidates = others(clips, row)
        apart = -ask(row)[candidates]
        x, y = (distances(values, row)[candidates] for values in (wanted, ignored))
        pair = partial_correlation(apart, x, [y]), partial_correlation(apart, y, [x])
        results.append(Ordered(clips.works[row], *pair))
    return results


def distances(values: Floats, row: int) -> Floats:
    """Return the Euclidean distances of values [n, q] from a row; NaN where one is undefined."""
    return np.asarray(np.linalg.norm(values - values[row], axis=1))


def summed_up(results: Sequence[Ordered] | Sequence[Grown]) -> Figures:
    """Return the means of all fields but the work, works counting equally."""
    fields = [field for field in results[0]._fields if field != "work"]
    return _means([one.work for one in results], results, fields)


def judge_more(
    ask: Search, clips: Clips, value: Floats, rest: Floats, queries: Iterable[int], *, k: int = K
) -> list[Grown]:
    """Judge whether hits have more of an aspect than the query, and how far the rest is apart.

    Parameters
    ----------
    ask : Search
        Of which the first hits are judged.
    clips : Clips
        All n windows.
    value : ndarray of float64 [shape=(n,)]
        True values of the aspect.
    rest : ndarray of float64 [shape=(aspects, n)]
        True values of the others.
    queries : iterable of int
        Rows; those that no candidate exceeds are left out.
    k : int
        How many hits.
    """
    results = []
    for row in queries:
        candidates = others(clips, row)
        if (value[candidates] > value[row]).any():
            hits = best_hits(ask(row), candidates, k)
            results.append(_grown(clips.works[row], row, value, rest, hits, candidates))
    return results


def _grown(
    work: str, row: int, value: Floats, rest: Floats, hits: Ints, candidates: Bools
) -> Grown:
    # Who answers only what is easy must be compared with chance on just that.
    every = np.flatnonzero(candidates) if len(hits) else hits
    return Grown(
        work=work,
        share=share_larger(value, row, hits),
        share_by_chance=share_larger(value, row, every),
        drift=drift(rest, row, hits),
        drift_by_chance=drift(rest, row, every),
        unanswered=float(not len(hits)),
    )


def judge_hubness(ask: Search, clips: Clips, k: int = K) -> Hubness:
    """Count how often each window is among the k nearest of others, every window asked for."""
    every = range(len(clips.recordings))
    return hubness([best_hits(ask(row), others(clips, row), k) for row in every], len(every))
