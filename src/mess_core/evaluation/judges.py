"""Judges: what a space of features knows of playing, and how good the order is that it finds.

A space has a vector, or one per layer, for each of n windows; `Rows` says what these are of. An
order is judged as a `Search`: a score of every window for the one that is asked.

Every figure is a mean over works, so that long works count once, with what chance reaches there.
Intervals are of 95 %, from a bootstrap over works (`mess_core.probing.inference`). NaN: what was
not found ranks last; an undefined truth is left out; a query without a right answer, or with fewer
than `LEAST` candidates, does not count; a figure without any query is NaN.
"""

__all__ = [
    *("Figure", "Line", "Rows", "Search", "cosine", "like_not", "line", "mean_over_works", "more"),
    *("occupancy", "overlapping", "partial_correlation", "same_passage", "same_player"),
    *("share_over_works", "unit_length", "within_works"),
]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import hypergeom, rankdata, skew

from mess_core.probing.folds import Bools, Features, Floats, Ints, deal_folds
from mess_core.probing.inference import interval, resample_works, seed_of, t_interval
from mess_core.probing.probe import probe
from mess_core.probing.separability import centred

#: Gives a score of every row [n] for the row that is asked, more for what is closer; NaN for what
#: it does not find.
Search = Callable[[int], Features]
#: A figure as the table of the evaluation has it; see `line`.
Line = dict[str, Any]

#: Queries drawn from each work, first hits looked at, and the fewest candidates that have an order.
PER_WORK, HITS, LEAST = 20, 10, 4
#: Where one right answer is enough, and how many of the first a second stage could put in order.
FIRST, RERANKED = (1, HITS), 200
_RESAMPLES, _SPACES_RESAMPLED, _FOLDS = 2000, 50, 5
# Rows of the distances that are held at once; wider spaces are too large to resample their rank.
_BLOCK, _WIDEST = 1000, 256
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
        recordings = self._numbers[0]
        alike = self.by_player(row) & self.of_work(row)
        return np.asarray(~alike & (recordings != recordings[row]))

    def rivals(self, row: int) -> Bools:
        """Say which of the others are of the same work."""
        return np.asarray(self.others(row) & self.of_work(row))

    def of_work(self, row: int) -> Bools:
        """Say which rows are of the same work."""
        works = self._numbers[1]
        return np.asarray(works == works[row])

    def by_player(self, row: int) -> Bools:
        """Say which rows are by the same player; none where the player is not known."""
        players = self._numbers[2]
        return np.asarray((players == players[row]) & (self.performers[row] != ""))

    @cached_property
    def _numbers(self) -> Ints:
        """Recordings, works and performers as numbers [3, n]: they are compared very often."""
        names = (self.recordings, self.works, self.performers)
        return np.array([np.unique(each, return_inverse=True)[1] for each in names])

    @cached_property
    def queries(self) -> list[Ints]:
        """The rows that are asked, of each work."""
        rng = np.random.default_rng(0)
        of_works = [np.flatnonzero(self.works == work) for work in np.unique(self.works)]
        return [rng.choice(rows, min(PER_WORK, len(rows)), replace=False) for rows in of_works]


def unit_length(vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return vectors [n, d] of unit length; those of no length stay so."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1))


def cosine(vectors: Features) -> Search:
    """Search by the cosine of vectors [n, D] or [n, L, D], layers side by side, as they are."""
    unit = unit_length(vectors.reshape(len(vectors), -1))
    return lambda row: np.asarray(unit @ unit[row], np.float64)


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

    ``spans`` [n, 2] are on the time axis of the work, NaN where unknown. Returns the mean of 1 /
    rank as ``MRR``; whether one is among the first k as ``recall@1`` and ``recall@10``; as
    ``recall@200`` the share of all of them, or of 200, that is among the first 200; and as
    ``nDCG@10`` the discounted gain (Järvelin and Kekäläinen 2002) of the first 10, as a share of
    what the best order of the first 200 has; 0 where none is among these. Equal scores share their
    mean rank.
    """

    def wanted(row: int) -> tuple[Bools, Bools]:
        candidates = rows.others(row)
        return candidates, candidates & overlapping(spans, rows, row)

    return _ranked(search, rows, wanted)


def same_player(search: Search, rows: Rows) -> dict[str, Figure]:
    """Judge how high the same player ranks among windows of other works: ``MRR``, ``recall@1``.

    Players with a name who play several works are asked for.
    """

    def wanted(row: int) -> tuple[Bools, Bools]:
        candidates = ~rows.of_work(row)
        return candidates, candidates & rows.by_player(row)

    found = _ranked(search, rows, wanted)
    return {measure: found[measure] for measure in ("MRR", "recall@1")}


def _ranked(
    search: Search, rows: Rows, wanted: Callable[[int], tuple[Bools, Bools]]
) -> dict[str, Figure]:
    """Judge how high what is right ranks; ``wanted`` says which rows are candidates, and right."""
    measures = ("MRR", *(f"recall@{k}" for k in (*FIRST, RERANKED)), f"nDCG@{HITS}")

    def judge(row: int) -> list[float]:
        candidates, right = wanted(row)
        right = right[candidates]
        if not right.any() or len(right) < LEAST:
            return [np.nan] * 2 * len(measures)
        scores = search(row)[candidates]
        ranks = rankdata(-np.where(np.isnan(scores), -np.inf, scores))[right]
        gain = (1 / np.log2(1 + ranks[ranks <= HITS])).sum()
        # Of equal scores more than 200 may share a rank.
        there = min((ranks <= RERANKED).sum(), RERANKED)
        best = _best_gains(min(len(right), RERANKED))[there]
        found = [*(float(ranks.min() <= k) for k in FIRST), there / min(len(ranks), RERANKED)]
        chance = _by_chance(len(right), len(ranks))
        return [1 / ranks.min(), *found, gain / max(best, 1.0), *chance]

    return dict(zip(measures, _over_works(rows, judge, len(measures)), strict=True))


@cache
def _best_gains(n: int) -> Floats:
    """Return the discounted gain of n places, of which the first 0, 1, ... n are right [n + 1]."""
    gains = 1 / np.log2(2 + np.arange(n)) * (np.arange(n) < HITS)
    return np.cumsum([0.0, *gains])


@cache
def _by_chance(n: int, among: int) -> list[float]:
    """Return the measures of `_ranked` in a random order of n, of which some are right."""
    # The chance that all right ones lie behind the first 0, 1, 2, ...
    places = np.arange(n - among)
    behind = np.cumprod([1.0, *((n - among - places) / (n - places)), 0.0])
    ranked = -np.diff(behind)
    seen = min(n, RERANKED)
    right, best = np.arange(1, min(among, seen) + 1), _best_gains(seen)
    gains = right / seen * best[-1] / best[right]
    return [
        float(ranked @ (1 / np.arange(1, len(behind)))),
        *(1 - behind[min(k, len(behind) - 1)] for k in FIRST),
        seen * among / n / min(among, RERANKED),
        float(hypergeom.pmf(right, n, among, seen) @ gains),
    ]


def overlapping(spans: Floats, rows: Rows, row: int) -> Bools:
    """Say which spans [n, 2] share half of the shorter one with a row's, in its work."""
    starts, ends = spans.T
    shared = np.minimum(ends, ends[row]) - np.maximum(starts, starts[row])
    shorter = np.minimum(ends - starts, ends[row] - starts[row])
    return np.asarray(rows.of_work(row) & (shorter > 0) & (shared >= shorter / 2))


def like_not(search: Search, rows: Rows, wanted: Floats, given: Floats) -> list[Figure]:
    """Judge whether an order of a work's other players follows X (values [n, q]), not Y ([n, p]).

    Returns the partial Spearman correlation of its distances with the true ones in X, given those
    in Y, and the leak: that with Y, given X. Of a search with several scores [s, n] of each row the
    s correlations, then the s leaks.
    """
    count = 2 * len(np.atleast_2d(search(0)))

    def judge(row: int) -> Floats:
        rivals = rows.rivals(row)
        x, y = (np.linalg.norm(v[rivals] - v[row], axis=1) for v in (wanted, given))
        far = -np.atleast_2d(search(row))[:, rivals]
        both = partial_correlation(far, x, y), partial_correlation(far, y, x)
        return np.concatenate([*both, np.zeros(count)])

    return _over_works(rows, judge, count, [(-1.0, 1.0)] * count)


def partial_correlation(x: Features, y: Floats, given: Floats) -> Floats:
    """Return the Spearman correlations of x [..., n] and y [n] without what a third [n] explains.

    0 where nothing of x is left, NaN where nothing of y is, and with fewer than `LEAST` entries
    that are defined.
    """
    values = np.concatenate([np.atleast_2d(x), [y, given]])
    values = values[:, np.isfinite(values).all(axis=0)]
    if values.shape[1] < LEAST:
        return np.full(x.shape[:-1], np.nan)
    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    total = np.square(ranks).sum(axis=1)
    left = ranks[:-1] - np.outer(ranks[:-1] @ ranks[-1] / max(total[-1], 1.0), ranks[-1])
    spread = np.square(left).sum(axis=1)
    nothing = spread <= _ROUNDING * total[:-1]
    if nothing[-1]:
        return np.full(x.shape[:-1], np.nan)
    scale = np.sqrt(np.where(nothing, 1.0, spread))
    found = np.where(nothing, 0.0, left @ left[-1] / (scale * scale[-1]))[:-1]
    return np.asarray(found.reshape(x.shape[:-1]))


def more(search: Search, rows: Rows, values: Floats, others: Floats) -> list[Figure]:
    """Judge which share of the first hits among a work's other players truly has more [n].

    Returns that and the drift: how far they are from what is asked in ``others`` [n, q], the mean
    over these. Chance is what all candidates have. A search that finds nothing does not count.
    """

    def judge(row: int) -> list[float]:
        rivals = np.flatnonzero(rows.rivals(row) & np.isfinite(values))
        scores = search(row)[rivals]
        hits = np.argsort(-scores, kind="stable")[: min(HITS, int(np.isfinite(scores).sum()))]
        if len(rivals) < LEAST or np.isnan(values[row]) or not len(hits):
            return [np.nan] * 4
        greater = (values[rivals] > values[row]).astype(np.float64)
        away = np.abs(others[rivals] - others[row])
        return [_known_mean(part) for part in (greater[hits], away[hits], greater, away)]

    return _over_works(rows, judge, 2, [(0.0, 1.0), (0.0, np.inf)])


def _known_mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else np.nan


def occupancy(vectors: Floats, rows: Rows) -> dict[str, Figure]:
    """Judge how vectors [n, d], compared by their cosine, fill their space.

    * ``hubness``: the skewness of how often a row is among the 10 nearest of a row of another
      recording (k-occurrence; Radovanović, Nanopoulos and Ivanović 2010): 0 where all are as often,
      the larger the more often a few hubs are. Works are resampled, neighbours are not.
    * ``RankMe`` (Garrido et al. 2023): the effective rank, at most the smaller one of n and d; of
      at most 256 dimensions.
    * ``within works``: the share of the variance within works; chance is that of unrelated rows.

    Nothing is judged of a single recording.
    """
    from mess_core.probing.questions import rankme

    works, of_work = np.unique(rows.works, return_inverse=True)
    _, of, sizes = np.unique(rows.recordings, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return {}
    n, unit, often = len(vectors), unit_length(vectors), np.zeros(len(vectors), np.int64)
    k, wide = min(HITS, n - int(sizes.max())), vectors.shape[1] > _WIDEST
    for part in np.array_split(np.arange(n), n // _BLOCK + 1):
        away = -unit[part] @ unit.T
        away[of[part, np.newaxis] == of] = np.inf
        often += np.bincount(np.argpartition(away, k - 1, axis=1)[:, :k].ravel(), minlength=n)
    within, total = (np.square(centred(unit, g)).sum(axis=1) for g in (of_work, 0 * of_work))

    def measure(chosen: Ints) -> list[float]:
        share = within[chosen].sum() / total[chosen].sum()
        hubs = float(skew(often[chosen])) if np.ptp(often[chosen]) else 0.0
        return [hubs, np.nan if wide else rankme(unit[chosen]), float(share)]

    drawn = _counts(len(works))[:_SPACES_RESAMPLED, of_work].astype(np.int64)
    resampled = np.array([measure(np.repeat(np.arange(n), each)) for each in drawn]).T
    values, most = measure(np.arange(n)), float(min(vectors.shape))
    unrelated, figures = (n - len(works)) / (n - 1), {}
    names, chances = ("hubness", "RankMe", "within works"), (np.nan, np.nan, unrelated)
    limits = (-np.inf, np.inf), (1.0, most), (0.0, 1.0)
    each = zip(names, chances, limits, values, resampled, strict=True)
    for name, chance, bounds, value, found in each:
        if not np.isnan(value):
            reach = _bounded(t_interval(value, found, len(works)), bounds, len(works))
            figures[name] = Figure(value, reach, chance, n, len(works))
    return figures


def _over_works(
    rows: Rows,
    judge: Callable[[int], Sequence[float] | Floats],
    count: int,
    bounds: Sequence[tuple[float, float]] = (),
) -> list[Figure]:
    """Return figures from what is judged of each query: ``count`` values, then their chances."""
    results = [np.array([judge(int(row)) for row in queries]) for queries in rows.queries]
    figures = []
    for column in range(count):
        both = [each[np.isfinite(each[:, column])][:, [column, count + column]] for each in results]
        means = np.array([each.mean(axis=0) for each in both if len(each)]).reshape(-1, 2)
        limits, n = (*bounds, *[(0.0, 1.0)] * count)[column], sum(map(len, both))
        figures.append(mean_over_works(means[:, 0], means[:, 1], n, bounds=limits))
    return figures


@cache
def _counts(works: int) -> Floats:
    return resample_works(works, _RESAMPLES, np.random.default_rng(seed_of("works")))


def mean_over_works(
    values: Floats, chance: Floats | float, n: int, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Figure:
    """Return the mean of works' values [w], and of their chances ([w] or one), with its interval.

    That keeps to ``bounds``, which are those of a share, and needs three works.
    """
    if not len(values):
        return Figure(np.nan, None, np.nan, 0, 0)
    value, works = float(values.mean()), len(values)
    reach = t_interval(value, _counts(works) @ values / works, works)
    return Figure(value, _bounded(reach, bounds, works), float(np.mean(chance)), n, works)


def share_over_works(right: Floats, works: npt.NDArray[np.str_]) -> Figure:
    """Return the share of triplets that are right [n], NaN where not known; chance is 0.5."""
    known = np.isfinite(right)
    means = [right[known & (works == work)].mean() for work in np.unique(works[known])]
    return mean_over_works(np.array(means), 0.5, int(known.sum()))


def _bounded(
    reach: tuple[float, float] | None, bounds: Sequence[float], works: int
) -> tuple[float, float] | None:
    """Return an interval within bounds; two works tell nothing of others."""
    return (max(bounds[0], reach[0]), min(bounds[1], reach[1])) if reach and works > 2 else None


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
    chance = None if np.isnan(figure.chance) else figure.chance
    known = {"value": figure.value, "low": low, "high": high, "chance": chance, "ceiling": ceiling}
    return names | known | {"n": figure.n, "works": figure.works, "reason": ""}
