"""How certain an R2 is: intervals, the probability to be the best layer, and permutation tests.

Rows of one work are not independent, works are. So works are resampled, and works exchange targets.

* *R2 from sums.* Let each work w have n rows, targets with sum S and sum of squares Q, and
  residuals of out-of-fold predictions with sum E and sum of squares F. For works that count c
  times, ``R2 = 1 - sum(c F) / (sum(c Q) - sum(c S)^2 / sum(c n))``, and within works, where targets
  and predictions are centred per work, ``R2 = 1 - sum(c (F - E^2 / n)) / sum(c (Q - S^2 / n))``
  (`WorkSums`). Knowing which work it is cannot raise the second. R2 of a target with several
  columns is the mean of the columns' R2.
* *Intervals* are those of a t distribution with one degree of freedom less than there are works,
  with the standard deviation of the bootstrap over works as the standard error (Efron and
  Tibshirani 1993, ch. 12); those of R2 around ``log(1 - R2)``, which keeps them below 1. In
  simulations of 3 to 40 works they covered the true value in 90 to 98 % of 400 repetitions, the
  bootstrap's percentiles in 60 to 94 %. The probes are not fitted again: an interval says how far
  the choice of works that were *tested* moves R2.
* *Best layers.* A layer's probability to be best is the share of resamples in which its R2 is the
  largest, and the smallest set of layers that has 95 % is the confidence set of the best layer.
* *Permutation tests.* Under the null hypothesis, which targets a work has is independent of which
  features it has. Then works may exchange their targets, all rows of a work together, and the
  statistic of the real target is one draw among those of the permuted ones (Good 2005, ch. 3). It
  is the largest out-of-fold R2 over the penalties, each the same in all folds; likewise within
  works. (Choosing it inside the training folds, as reported R2 does, takes k times as long.)
* *Works of unequal length* exchange only with those of like length: in the order of their numbers
  of recordings and rows, groups of at least five (equal ones stay together). A work's recordings
  get, in order and again from the first when there are more of them, those of the other work, and a
  recording's rows get the other's rows at the same share of its length (a row may come twice or not
  at all). So the order of time, the span over which targets change slowly, and the level of each
  recording survive. Where the works of each group have the same numbers of recordings and rows the
  test is exact; else it is approximate. (Without groups it misleads: with 1 to 4 recordings in a
  work, p values of unrelated targets had a mean of 0.42.)
* *p values* are ``(1 + permuted targets whose statistic is at least the own) / (1 + permuted
  targets)``, where a permuted target's statistic is its largest over all layers: this corrects for
  looking at many layers (Westfall and Young 1993).

Squared errors of permuted targets come from sums, not from predictions: with ``c`` the coefficients
in a training union's basis, the error within the works of the held-out fold is ``y'y - 2 y'Zc +
c'Z'Zc`` of deviations from the works' means, and what is left is the error of the works' means.
"""

__all__ = [
    "PermutedTargets",
    "WorkSums",
    "best_probability",
    "corrected_p",
    "exchange_works",
    "holm",
    "interval",
    "likely_best",
    "paired_p",
    "permuted_r2",
    "resample_works",
    "seed_of",
    "t_interval",
]

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mess_core.probing.decompositions import FoldDecompositions, union_moment
from mess_core.probing.folds import Features, Floats, Ints, ProbeRows

#: What intervals and sets of best layers are to cover.
COVERAGE = 0.95

# A variance of standardised targets below this is rounding: they do not vary.
_ROUNDING = 1e-12

# Works in a group that exchange: fewer have few permutations, more are less alike.
_GROUP = 5

# Statistics that differ by less are equal: they are computed in float32.
_TIE = 1e-6


def seed_of(name: str) -> int:
    """Return a seed that depends on nothing but ``name``, on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def resample_works(n_works: int, n_resamples: int, rng: np.random.Generator) -> Floats:
    """Return how often each work is drawn with replacement [n_resamples, n_works]."""
    drawn = rng.integers(n_works, size=(n_resamples, n_works))
    flat = drawn + n_works * np.arange(n_resamples)[:, np.newaxis]
    counts = np.bincount(flat.ravel(), minlength=n_resamples * n_works)
    return counts.reshape(n_resamples, n_works).astype(np.float64)


@dataclass(frozen=True)
class WorkSums:
    """The sums over works from which R2 follows, for K predictions of the same targets.

    ``sizes`` [n_works] are the rows of each work, ``sums`` and ``squares`` [n_works, q] of the
    standardised targets, ``errors`` and ``squared_errors`` [n_works, K, q] of the residuals.
    """

    sizes: Ints
    sums: Floats
    squares: Floats
    errors: Floats
    squared_errors: Floats

    @classmethod
    def of(cls, Y: Floats, predictions: Floats, rows: ProbeRows) -> "WorkSums":
        """Sum up targets ``[m, q]`` and predictions ``[m, K, q]`` of the present rows."""
        residuals = Y[:, np.newaxis] - predictions
        arrays = (rows.sum_by_work(values) for values in (Y, Y**2, residuals, residuals**2))
        return cls(rows.work_sizes, *arrays)

    def r2(self, counts: Floats) -> Floats:
        """Return R2 [R, K] of works that count so often [R, n_works]; NaN without variation."""
        sizes = (counts @ self.sizes)[:, np.newaxis]
        total = counts @ self.squares - (counts @ self.sums) ** 2 / np.maximum(sizes, 1)
        return _r2(total, np.tensordot(counts, self.squared_errors, axes=1), sizes)

    def r2_within(self, counts: Floats) -> Floats:
        """Return R2 of targets and predictions that are centred per work; see `r2`."""
        squares, errors = self._within
        sizes = counts @ self.sizes[:, np.newaxis]
        return _r2(counts @ squares, np.tensordot(counts, errors, axes=1), sizes)

    @property
    def _within(self) -> tuple[Floats, Floats]:
        """The squares of targets and of residuals that are centred per work."""
        sizes = self.sizes[:, np.newaxis]
        errors = self.squared_errors - self.errors**2 / sizes[:, np.newaxis]
        return self.squares - self.sums**2 / sizes, errors

    def loss(self, *, within: bool) -> Floats:
        """Return each work's share [n_works, K] of 1 - R2 (within works) of all works."""
        total, errors = self._within if within else (self.squares, self.squared_errors)
        total = total.sum(axis=0)
        if not within:
            total = total - self.sums.sum(axis=0) ** 2 / self.sizes.sum()
        varies = total > _ROUNDING * self.sizes.sum()
        return np.asarray((errors[..., varies] / total[varies]).mean(axis=2))


def _r2(total: Floats, error: Floats, sizes: Floats) -> Floats:
    """Return the mean over columns of 1 - error [R, K, q] / total [R, q]."""
    varies = (total > _ROUNDING * sizes)[:, np.newaxis]
    ratio = np.divide(error, total[:, np.newaxis], out=np.zeros_like(error), where=varies)
    columns = varies.sum(axis=2)
    mean = ratio.sum(axis=2) / np.maximum(columns, 1)
    return np.where(columns > 0, 1 - mean, np.nan)


def interval(r2: float, resampled: Floats, n_works: int) -> tuple[float, float] | None:
    """Return the 95 % interval of an R2, from its bootstrap [R] over at least 2 works.

    NaN in the bootstrap is left out. None where the interval is undefined.
    """
    centre, logs = (np.log(np.maximum(1 - np.asarray(v), _ROUNDING)) for v in (r2, resampled))
    bounds = t_interval(float(centre), logs, n_works)
    return bounds and (float(1 - np.exp(bounds[1])), float(1 - np.exp(bounds[0])))


def t_interval(value: float, resampled: Floats, n_works: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a figure as it is; see `interval`."""
    from scipy.special import stdtrit

    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or not defined.size or n_works < 2:
        return None
    error = float(defined.std()) * np.sqrt(n_works / (n_works - 1))
    reach = stdtrit(n_works - 1, (1 + COVERAGE) / 2) * error
    return float(value - reach), float(value + reach)


def paired_p(gains: Sequence[float]) -> float:
    """Return the p value of works' mean gain not being above 0: a paired t test, one-sided."""
    from scipy.special import stdtr

    values, n = np.asarray(gains, np.float64), len(gains)
    error = float(values.std(ddof=1)) / np.sqrt(n) if n > 1 else 0.0
    if error <= _ROUNDING:
        return 1.0
    return float(stdtr(n - 1, -values.mean() / error))


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected for looking at all of them (Holm 1979), in their order."""
    values, n = np.asarray(p, np.float64), len(p)
    order = np.argsort(values, kind="stable")
    corrected = np.empty(n)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(n, 0, -1)), 1.0)
    return list(map(float, corrected))


def best_probability(values: Floats) -> tuple[float, ...]:
    """Return each layer's probability to be the best, from R2 per resample [R, layers].

    Resamples that leave it undefined do not count; the lower one of equal layers gets the resample.
    """
    defined = values[~np.isnan(values).any(axis=1)]
    wins = np.bincount(defined.argmax(axis=1), minlength=values.shape[1])
    return tuple((wins / max(len(defined), 1)).tolist())


def likely_best(probability: tuple[float, ...]) -> tuple[int, ...]:
    """Return the smallest set of layers that holds the best one with a probability of 95 %."""
    order = np.argsort(-np.array(probability), kind="stable")
    enough = np.searchsorted(np.cumsum(np.array(probability)[order]), COVERAGE - _ROUNDING)
    return tuple(sorted(order[: enough + 1].tolist()))


def exchange_works(rows: ProbeRows, n_permutations: int, rng: np.random.Generator) -> Ints:
    """Return from which row each row gets its target [n_permutations, m]; may be its own."""
    order = np.lexsort((rows.recordings, rows.works))
    recording = np.concatenate([[0], np.cumsum(np.diff(rows.recordings[order]) != 0)])
    length = np.bincount(recording)
    start = np.cumsum(length) - length
    work = rows.works[order][start]
    n_recordings = np.bincount(work)
    first = np.cumsum(n_recordings) - n_recordings
    rank = np.arange(len(work)) - first[work]
    position = np.arange(len(order)) - start[recording]
    groups = _alike(n_recordings, rows.work_sizes)
    index = np.empty((n_permutations, len(order)), np.int64)
    for permuted in index:
        dealt = np.concatenate([rng.permutation(group) for group in groups])
        other = np.empty_like(dealt)
        other[np.concatenate(groups)] = dealt
        other = other[work]
        source = (first[other] + rank % n_recordings[other])[recording]
        permuted[order] = order[start[source] + position * length[source] // length[recording]]
    return index


def _alike(n_recordings: Ints, n_rows: Ints) -> list[Ints]:
    """Return groups of works of like length."""
    order = np.lexsort((n_rows, n_recordings))
    sizes = np.stack([n_recordings, n_rows])[:, order]
    cuts = [0]
    for number in range(_GROUP, len(order) - _GROUP + 1):
        if number - cuts[-1] >= _GROUP and (sizes[:, number] != sizes[:, number - 1]).any():
            cuts.append(number)
    return np.split(order, cuts[1:])


@dataclass(frozen=True)
class PermutedTargets:
    """The real target and its permutations, in C = (permutations + 1) * q columns.

    ``values``, float32 [m, C], are first the q columns of the real target, then those of the first
    permutation, ...; ``work_means`` and ``within`` [n_works, C] their means over each work and sums
    of squares around these; ``n_columns`` is q.
    """

    values: Features
    work_means: Floats
    within: Floats
    n_columns: int

    @classmethod
    def of(cls, Y: Floats, rows: ProbeRows, index: Ints) -> "PermutedTargets":
        """Permute standardised targets ``[m, q]`` as `exchange_works` says."""
        real = np.arange(len(Y))[np.newaxis]
        values = Y.astype(np.float32)[np.concatenate([real, index])].transpose(1, 0, 2)
        values = np.ascontiguousarray(values.reshape(len(Y), -1))
        means = rows.sum_by_work(values) / rows.work_sizes[:, np.newaxis]
        within = rows.sum_by_work(values**2) - rows.work_sizes[:, np.newaxis] * means**2
        return cls(values, means, within, Y.shape[1])


def permuted_r2(
    targets: PermutedTargets,
    cross: Features,
    rows: ProbeRows,
    decompositions: FoldDecompositions,
    alphas: Sequence[float],
) -> Floats:
    """Return the statistics [2, permutations + 1] of all targets, the real one first.

    They are the largest R2 over the penalties, and the largest within works, in one layer; NaN
    where a permuted target does not vary. ``cross`` is float32 [k, D, C], as
    `mess_core.probing.decompositions.union_moment` takes it.
    """
    within, between = np.zeros((2, len(alphas), cross.shape[2]))
    for fold in range(rows.n_folds):
        errors = _squared_errors(targets, cross, rows, decompositions, alphas, fold)
        within += errors[0]
        between += errors[1]
    total_within = targets.within.sum(axis=0)
    total_within[total_within < _TIE * rows.n_rows] = np.nan
    mean = np.average(targets.work_means, axis=0, weights=rows.work_sizes)
    total = targets.within.sum(axis=0) + rows.work_sizes @ (targets.work_means - mean) ** 2
    statistics = (total, within + between), (total_within, within)
    return np.array([_largest(*each, targets.n_columns) for each in statistics])


def _squared_errors(
    targets: PermutedTargets,
    cross: Features,
    rows: ProbeRows,
    decompositions: FoldDecompositions,
    alphas: Sequence[float],
    fold: int,
) -> tuple[Floats, Floats]:
    """Return a held-out fold's squared errors within works and of works' means [alphas, C]."""
    training = decompositions.training(fold)
    work_means = decompositions.work_means
    moment, mean = union_moment(cross, targets.work_means, rows, work_means, training, (fold,))
    basis = training.basis.astype(np.float32)
    solved = basis.T @ moment.astype(np.float32)
    held_out = basis.T @ (cross[fold] / training.scale[:, np.newaxis]).astype(np.float32)
    scatter = decompositions.within_scatter(fold)
    mine = rows.work_folds == fold
    weight = np.sqrt(rows.work_sizes[mine])[:, np.newaxis]
    works = (weight * training.standardise(work_means[mine])).astype(np.float32) @ basis
    truth = weight * (targets.work_means[mine] - mean)
    errors = []
    for alpha in alphas:
        shrunk = solved / (training.values + alpha).astype(np.float32)[:, np.newaxis]
        product = (shrunk * (scatter @ shrunk - 2 * held_out)).sum(axis=0, dtype=np.float64)
        missed = ((truth - works @ shrunk) ** 2).sum(axis=0)
        errors.append((targets.within[mine].sum(axis=0) + product, missed))
    within, between = (np.array(arrays) for arrays in zip(*errors, strict=True))
    return within, between


def _largest(total: Floats, error: Floats, n_columns: int) -> Floats:
    """Return the largest R2 over penalties [permutations + 1] of errors [alphas, C]."""
    return np.asarray(
        (1 - error / total).reshape(len(error), -1, n_columns).mean(axis=2).max(axis=0)
    )


def corrected_p(statistics: Floats) -> Floats:
    """Return p values [layers], corrected for looking at many layers.

    Of statistics ``[layers, permutations + 1]`` the real target's are first. A permuted target that
    has none counts as large.
    """
    own, permuted = statistics[:, :1], statistics[:, 1:].max(axis=0)
    exceed = ~(permuted < own - _TIE * np.maximum(1, np.abs(own)))
    return np.asarray((1 + exceed.sum(axis=1)) / statistics.shape[1])
