"""Judges: what a space of features knows of playing, and how good the order is that it finds.

A space has a vector, or one per layer, for each of n windows; `Rows` says what these are of. An
order is judged as a `Search`: a score of every window for the one that is asked.

Every figure is a mean over works (over groups, of triplets), so that long works count once, with
what chance reaches there. Intervals are of 95 %, from a bootstrap over works
(`mess_core.probing.inference`). NaN: what was not found ranks last; an undefined truth is left out;
a query without a right answer, or with fewer than `LEAST` candidates, does not count; a figure
without any query is NaN.
"""

__all__ = [
    *("Figure", "Line", "Rows", "Search", "cosine", "general", "like_not", "line"),
    *("mean_over_works", "more", "overlapping", "partial_correlation", "same_passage"),
    *("triplets", "within_works"),
]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from mess_core.index.fitting import fit_projection
from mess_core.probing.folds import Bools, Features, Floats, Ints, deal_folds
from mess_core.probing.inference import interval, resample_works, seed_of, t_interval
from mess_core.probing.probe import probe
from mess_core.probing.separability import centred

#: Gives a score of every row [n] for the row that is asked, more for what is closer; NaN for what
#: it does not find.
Search = Callable[[int], Floats]
#: A figure as the table of the evaluation has it; see `line`.
Line = dict[str, Any]

#: Queries drawn from each work, first hits looked at, and the fewest candidates that have an order.
PER_WORK, HITS, LEAST = 20, 10, 4
#: Where recall is measured.
RECALL = (1, HITS)
_RESAMPLES, _FOLDS = 2000, 5
# A smaller share of the sum of squares is rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, its 95 % interval over works (None where there are too few), and chance.

    ``n`` are the queries, rows or triplets that it is of.
    """

    value: float
    interval: tuple[float, float] | None
    chance: float
    n: int
    works: int


@dataclass(frozen=True, eq=False)
class Rows:
    """What each of n rows is of: arrays of names [n]; a performer may be empty."""

    recordings: npt.NDArray[np.str_]
    works: npt.NDArray[np.str_]
    performers: npt.NDArray[np.str_]

    def others(self, row: int) -> Bools:
        """Say which rows are of other recordings, in the same work also by other players."""
        player = (self.performers == self.performers[row]) & (self.performers != "")
        alike = (self.recordings == self.recordings[row]) | (player & self.of_work(row))
        return np.asarray(~alike)

    def rivals(self, row: int) -> Bools:
        """Say which of the others are of the same work."""
        return np.asarray(self.others(row) & self.of_work(row))

    def of_work(self, row: int) -> Bools:
        """Say which rows are of the same work."""
        return np.asarray(self.works == self.works[row])

    @cached_property
    def queries(self) -> list[Ints]:
        """The rows that are asked, of each work."""
        rng = np.random.default_rng(0)
        of_works = [np.flatnonzero(self.works == work) for work in np.unique(self.works)]
        return [rng.choice(rows, min(PER_WORK, len(rows)), replace=False) for rows in of_works]


def cosine(vectors: Features) -> Search:
    """Search by the cosine of vectors [n, D] or [n, L, D], layers side by side, as they are."""
    flat = vectors.reshape(len(vectors), -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = flat / np.where(length > 0, length, 1)
    return lambda row: np.asarray(unit @ unit[row], np.float64)


def general(features: npt.NDArray[np.float32]) -> Search:
    """Search by the whitened general block of features [n, L, D], fitted to them.

    As `mess_core.index.fitting` makes it for an index, of all layers. Nothing of works or players
    is learned.
    """
    projection = fit_projection(lambda layer: features[:, layer], range(features.shape[1]))
    return cosine(projection.read(features)[0])


def within_works(
    features: npt.NDArray[Any],
    truth: Floats,
    rows: Rows,
    *,
    name: str = "truth",
    judged: Bools | None = None,
) -> Figure:
    """Judge what the layers of features [n, L, D] know of a truth [n]; chance is 0.

    It is the R2 within works of a ridge regression that is learned from the differences within
    other works (`mess_core.probing.probe`); the layer is chosen in the training folds. The works of
    rows that are not ``judged`` [n] only serve to learn from.
    """
    kept = np.isfinite(truth)
    works, numbers = np.unique(rows.works[kept], return_inverse=True)
    layers = [centred(layer[kept], numbers) for layer in features.swapaxes(0, 1)]
    values, of_rows = centred(truth[kept][:, np.newaxis], numbers)[:, 0], rows.works[kept].tolist()
    folds = deal_folds(of_rows, _FOLDS)
    found = probe(layers, values, of_rows, folds, name=name, n_permutations=0, n_resamples=1)
    if not found.loss:
        return Figure(np.nan, None, 0.0, found.n_rows, found.n_works)
    counted = np.isin(works, rows.works if judged is None else rows.works[judged])
    squares = np.bincount(numbers, values**2)
    lost = np.array([dict(zip(found.works, found.loss, strict=True))[w] for w in works.tolist()])
    errors = (lost * squares.sum())[counted]
    n, squares = int(counted.sum()), squares[counted]
    value = float(1 - errors.sum() / squares.sum())
    counts = resample_works(n, _RESAMPLES, np.random.default_rng(seed_of(name)))
    reach = interval(value, 1 - counts @ errors / (counts @ squares), n)
    return Figure(value, reach, 0.0, int(counted[numbers].sum()), n)


def same_passage(search: Search, rows: Rows, spans: Floats) -> dict[str, Figure]:
    """Judge how high the same passage by another player ranks among windows of other recordings.

    ``spans`` [n, 2] are in beats of the work. Returns the mean of 1 / rank as ``MRR``, and whether
    it is among the first k as ``recall@1``, ``recall@10``. Equal scores share their mean rank.
    """

    def judge(row: int) -> list[float]:
        candidates = rows.others(row)
        right = (candidates & overlapping(spans, rows, row))[candidates]
        if not right.any() or len(right) < LEAST:
            return [np.nan] * 6
        scores = search(row)[candidates]
        ranks = rankdata(-np.where(np.isnan(scores), -np.inf, scores))
        first = float(ranks[right].min())
        # The chance that all right ones lie behind the first 0, 1, 2, ... of a random order.
        n, among = len(right), int(right.sum())
        places = np.arange(n - among)
        behind = np.cumprod([1.0, *((n - among - places) / (n - places))])
        ranked = -np.diff(behind, append=0.0)
        return [
            *(1 / first, *(float(first <= k) for k in RECALL)),
            float(ranked @ (1 / np.arange(1, len(behind) + 1))),
            *(1 - behind[min(k, len(behind) - 1)] for k in RECALL),
        ]

    figures = _over_works(rows, judge, 3)
    return dict(zip(("MRR", *(f"recall@{k}" for k in RECALL)), figures, strict=True))


def overlapping(spans: Floats, rows: Rows, row: int) -> Bools:
    """Say which spans of beats [n, 2] share half of the shorter one with a row's, in its work."""
    starts, ends = spans.T
    shared = np.minimum(ends, ends[row]) - np.maximum(starts, starts[row])
    shorter = np.minimum(ends - starts, ends[row] - starts[row])
    return np.asarray(rows.of_work(row) & (shorter > 0) & (shared >= shorter / 2))


def like_not(search: Search, rows: Rows, wanted: Floats, given: Floats) -> list[Figure]:
    """Judge whether an order of a work's other players follows X (values [n, q]), not Y ([n, p]).

    Returns the partial Spearman correlation of its distances with the true ones in X, given those
    in Y, and the leak: that with Y, given X.
    """

    def judge(row: int) -> list[float]:
        rivals = rows.rivals(row)
        apart = [-search(row), *(np.linalg.norm(v - v[row], axis=1) for v in (wanted, given))]
        far, x, y = (values[rivals] for values in apart)
        return [partial_correlation(far, x, y), partial_correlation(far, y, x), 0.0, 0.0]

    return _over_works(rows, judge, 2)


def partial_correlation(x: Floats, y: Floats, given: Floats) -> float:
    """Return the Spearman correlation of x and y without what a third explains of both.

    0 where nothing of x is left, NaN where nothing of y is, and with fewer than `LEAST` entries
    that are defined.
    """
    values = np.array([x, y, given])
    values = values[:, np.isfinite(values).all(axis=0)]
    if values.shape[1] < LEAST:
        return np.nan
    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    total = np.square(ranks).sum(axis=1)
    left = ranks[:2] - np.outer(ranks[:2] @ ranks[2] / max(total[2], 1.0), ranks[2])
    spread = np.square(left).sum(axis=1)
    explained = spread <= _ROUNDING * total[:2]
    if explained.any():
        return np.nan if explained[1] else 0.0
    return float(left[0] @ left[1] / np.sqrt(spread.prod()))


def more(search: Search, rows: Rows, values: Floats) -> Figure:
    """Judge which share of the first hits among a work's other players truly has more [n].

    Chance is the share of all of them that have. A search that finds nothing does not count.
    """

    def judge(row: int) -> list[float]:
        rivals = np.flatnonzero(rows.rivals(row) & np.isfinite(values))
        if len(rivals) < LEAST or np.isnan(values[row]):
            return [np.nan] * 2
        scores = search(row)[rivals]
        hits = np.argsort(-scores, kind="stable")[: min(HITS, int(np.isfinite(scores).sum()))]
        greater = values[rivals] > values[row]
        return [float(greater[hits].mean()), float(greater.mean())] if len(hits) else [np.nan] * 2

    return _over_works(rows, judge)[0]


def triplets(apart: Floats, heard: Floats, groups: npt.NDArray[np.str_]) -> Figure:
    """Judge whether distances [n, n] order the players of a group as other distances do.

    Of the triplets (a, b, c) in which listeners hear one of b and c nearer to a, the half in which
    they do so most clearly counts. Equal distances agree half. Chance is 0.5.
    """
    shares, n = [], 0
    for group in np.unique(groups):
        threes = np.array([*permutations(np.flatnonzero(groups == group), 3)], np.int64)
        a, b, c = threes.reshape(-1, 3).T
        told, clear = apart[a, b] - apart[a, c], heard[a, b] - heard[a, c]
        kept = (b < c) & np.isfinite(told) & np.isfinite(clear) & (clear != 0)
        if not kept.any():
            continue
        kept &= np.abs(clear) >= np.median(np.abs(clear[kept]))
        shares.append(float((np.sign(told * clear)[kept] + 1).mean() / 2))
        n += int(kept.sum())
    return mean_over_works(np.array(shares), np.full(len(shares), 0.5), n)


def _over_works(
    rows: Rows, judge: Callable[[int], Sequence[float]], count: int = 1
) -> list[Figure]:
    """Return figures from what is judged of each query: ``count`` values, then their chances."""
    of_works, n = [], 0
    for queries in rows.queries:
        results = np.array([judge(int(row)) for row in queries])
        known = np.isfinite(results).all(axis=1)
        if known.any():
            of_works.append(results[known].mean(axis=0))
            n += int(known.sum())
    columns = np.array(of_works).reshape(-1, 2 * count).T
    return [mean_over_works(columns[i], columns[count + i], n) for i in range(count)]


def mean_over_works(values: Floats, chance: Floats, n: int) -> Figure:
    """Return the mean of works' values [w] and of their chances [w], with its interval."""
    if not len(values):
        return Figure(np.nan, None, np.nan, 0, 0)
    value, works = float(values.mean()), len(values)
    counts = resample_works(works, _RESAMPLES, np.random.default_rng(seed_of("works")))
    reach = t_interval(value, counts @ values / counts.sum(axis=1), works)
    # No figure lies beyond.
    bounds = reach and (max(-1.0, reach[0]), min(1.0, reach[1]))
    return Figure(value, bounds, float(chance.mean()), n, works)


def line(
    judge: str,
    asked: str,
    figure: Figure | None = None,
    *,
    measure: str = "",
    against: str = "",
    ceiling: float | None = None,
    reason: str = "too few players of a work",
) -> Line:
    """Return a figure as a line of the evaluation's table, or why there is none."""
    names = {"judge": judge, "asked": asked, "measure": measure, "against": against, "source": ""}
    if figure is None or np.isnan(figure.value):
        unknown = dict.fromkeys(("value", "low", "high", "chance", "ceiling"))
        return names | unknown | {"n": 0, "works": 0, "reason": reason}
    low, high = figure.interval or (None, None)
    known = {"value": figure.value, "low": low, "high": high, "chance": figure.chance}
    counts = {"n": figure.n, "works": figure.works, "reason": ""}
    return names | known | {"ceiling": ceiling} | counts
