"""How good answers are: pure functions of ranks, distances, true values and neighbours.

Every figure has its level of chance: what a search in random order reaches, from a formula or from
all candidates. Nothing here knows how answers were found.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from mess_core.report.validity import interval

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

#: What is left of a variable's variance below this share is rounding: the others explain all of it.
NOTHING = 1e-9


class Found(NamedTuple):
    """Share of queries with a right answer first, among the first ten, and mean 1 / its rank."""

    recall_1: float
    recall_10: float
    mrr: float


class Hubness(NamedTuple):
    """How unevenly rows turn up among the k nearest of others.

    Attributes
    ----------
    skewness : float
        Of the number of lists that a row is in (Radovanovic, Nanopoulos and Ivanovic 2010).
    antihubs : float
        Share of rows that are in no list, so that no query among the rows finds them.
    largest : float
        Most lists that one row is in.
    """

    skewness: float
    antihubs: float
    largest: float


class Mean(NamedTuple):
    """A mean over groups, its 95 % bootstrap interval, and how many groups it is of."""

    value: float
    low: float
    high: float
    groups: int


def first_right(scores: Floats, right: Bools, candidates: Bools) -> float:
    """Return the rank of the best right candidate, from 1; equal scores share their mean rank.

    Parameters
    ----------
    scores : ndarray of float64 [shape=(n,)]
        The higher the better; NaN, for what was not found, comes after everything else.
    right, candidates : ndarray of bool [shape=(n,)]
        Which rows answer the query, and which may be found.

    Returns
    -------
    float
        Infinite where no candidate is right.
    """
    if not (right & candidates).any():
        return np.inf
    known = np.where(np.isnan(scores), -np.inf, scores)
    return float(rankdata(-known[candidates])[right[candidates]].min())


def found(ranks: Iterable[float]) -> Found:
    """Sum up the ranks of the first right answers."""
    known = np.array(list(ranks), float)
    return Found(*(float(x.mean()) for x in (known <= 1, known <= 10, 1 / known)))


def found_by_chance(candidates: int, right: int) -> Found:
    """Return what a random order of the candidates reaches, ``right`` of which are right."""
    wrong = candidates - right
    # The chance that the first r are all wrong, for r from 0 to wrong + 1: the last is 0.
    drawn = np.arange(wrong + 1)
    none = np.concatenate([[1.0], np.cumprod((wrong - drawn) / (candidates - drawn))])
    first = none[:-1] - none[1:]
    ranks = np.arange(1, len(first) + 1)
    return Found(*(float(x) for x in (first[:1].sum(), first[:10].sum(), (first / ranks).sum())))


def mean_of_chances(chances: Iterable[Found]) -> Found:
    """Return the mean of the chances of several queries."""
    return Found(*(float(column.mean()) for column in np.array(list(chances)).T))


def partial_correlation(x: Floats, y: Floats, given: Sequence[Floats]) -> float:
    """Return the Spearman correlation of x and y with what others explain taken out of both.

    All variables are ranked, and the ranks of x and y are regressed on those of the others.

    Parameters
    ----------
    x, y : ndarray of float64 [shape=(n,)]
    given : sequence of ndarray of float64 [shape=(n,)]
        The others; with none it is the plain rank correlation.

    Returns
    -------
    float
        NaN where x or y do not vary, or the others explain all of it. Entries that are undefined in
        any variable are left out.
    """
    values = np.array([x, y, *given], float)
    values = values[:, np.isfinite(values).all(axis=0)]
    if values.shape[1] < len(values) + 1:
        return np.nan
    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    total = np.square(ranks[:2]).sum(axis=1)
    others = ranks[2:].T
    left = ranks[:2].T - others @ np.linalg.lstsq(others, ranks[:2].T, rcond=None)[0]
    spread = np.square(left).sum(axis=0)
    if (spread <= NOTHING * total).any():
        return np.nan
    return float(left[:, 0] @ left[:, 1] / np.sqrt(spread.prod()))


def share_larger(values: Floats, query: int, rows: Ints) -> float:
    """Return the share of rows whose value is larger than the query's; NaN without rows.

    Parameters
    ----------
    values : ndarray of float64 [shape=(n,)]
        True values of all rows.
    query : int
        The query's row.
    rows : ndarray of int64 [shape=(m,)]
        Hits, or for the level of chance all candidates. Undefined values do not count.
    """
    others = values[rows]
    others = others[np.isfinite(others)]
    return float((others > values[query]).mean()) if len(others) else np.nan


def drift(values: Floats, query: int, rows: Ints) -> float:
    """Return how far rows lie from the query, in standard deviations of all rows' values.

    Parameters
    ----------
    values : ndarray of float64 [shape=(aspects, n)]
        True values of all rows in the aspects that ought to stay.
    query : int
        The query's row.
    rows : ndarray of int64 [shape=(m,)]
        Hits, or for the level of chance all candidates.

    Returns
    -------
    float
        Mean absolute difference over rows and aspects that are defined; NaN where none is.
    """
    spread = np.nanstd(values, axis=1)
    apart = np.abs(values[:, rows] - values[:, [query]]) / spread[:, np.newaxis]
    known = apart[np.isfinite(apart)]
    return float(known.mean()) if len(known) else np.nan


def hubness(neighbours: Sequence[npt.ArrayLike], rows: int) -> Hubness:
    """Count in how many lists of neighbours each row is.

    Parameters
    ----------
    neighbours : sequence of array_like of int
        The list of each query.
    rows : int
        How many rows there are.
    """
    lists = [np.asarray(found, np.int64) for found in neighbours]
    counts = np.bincount(np.concatenate(lists), minlength=rows)
    deviations = counts - counts.mean()
    spread = counts.std()
    skewness = float((deviations**3).mean() / spread**3) if spread else 0.0
    return Hubness(skewness, float((counts == 0).mean()), float(counts.max()))


def hubness_by_chance(rows: int, k: int) -> Hubness:
    """Return what random lists have, one of length k per row: the counts are binomial.

    The largest count is not of a closed form: NaN.
    """
    p = k / rows
    skewness = (1 - 2 * p) / np.sqrt(rows * p * (1 - p))
    return Hubness(float(skewness), float((1 - p) ** rows), np.nan)


def mean_of_groups(groups: Sequence[Hashable], values: Iterable[float]) -> Mean:
    """Return the mean over groups of their mean defined value, groups counting equally.

    Rows of one work are no independent witnesses, so works are what is drawn for the interval.

    Parameters
    ----------
    groups : sequence
        The group of each value.
    values : iterable of float
        NaN where undefined; a group without a defined value is left out.
    """
    members: dict[Hashable, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        if np.isfinite(value):
            members.setdefault(group, []).append(value)
    return mean_with_interval({group: float(np.mean(own)) for group, own in members.items()})


def mean_with_interval(of_groups: Mapping[Hashable, float]) -> Mean:
    """Return the mean of the groups' defined values with its bootstrap interval."""
    known = np.array([value for value in of_groups.values() if np.isfinite(value)])
    if not len(known):
        return Mean(np.nan, np.nan, np.nan, 0)
    return Mean(float(known.mean()), *interval(known), len(known))
