"""How certain an R2 is: intervals, the probability to be the best layer, and the works' sums.

Rows of one work are not independent, works are. So everything here resamples works.

* *R2 from sums.* Let each work w have n rows, targets with sum S and sum of squares Q, and
  residuals of out-of-fold predictions with sum E and sum of squares F. For works that count c
  times, ``R2 = 1 - sum(c F) / (sum(c Q) - sum(c S)^2 / sum(c n))``, and within works, where targets
  and predictions are centred per work, ``R2 = 1 - sum(c (F - E^2 / n)) / sum(c (Q - S^2 / n))``
  (`WorkSums`). Knowing which work it is cannot raise the second.
* *Intervals* are those of a t distribution with one degree of freedom less than there are works,
  around ``log(1 - R2)``, with the standard deviation of its bootstrap over works as the standard
  error (Efron and Tibshirani 1993, ch. 12). The logarithm makes skewed distributions even and keeps
  intervals below 1. In simulations of 3 to 40 works with equal and unequal errors they covered the
  true value in 90 to 98 % of 400 repetitions, the bootstrap's percentiles in 60 to 94 %. The probes
  are not fitted again: an interval says how far the choice of works that were *tested* moves R2.
* *Best layers.* A layer's probability to be best is the share of resamples in which its R2 is the
  largest, and the smallest set of layers that has 95 % is the confidence set of the best layer.
* *Several columns.* R2 of a target with several columns is the mean of the columns' R2.
"""

__all__ = [
    "WorkSums",
    "best_probability",
    "interval",
    "likely_best",
    "resample_works",
    "seed_of",
]

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mess_core.probing.folds import ProbeRows

Floats = npt.NDArray[np.float64]

#: What intervals and sets of best layers are to cover.
COVERAGE = 0.95

# A variance of standardised targets below this is rounding: they do not vary.
_ROUNDING = 1e-12


def seed_of(name: str) -> int:
    """Return a seed that depends on nothing but ``name``, on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def resample_works(n_works: int, n_resamples: int, rng: np.random.Generator) -> Floats:
    """Draw works with replacement.

    Returns
    -------
    ndarray of float64 [shape=(n_resamples, n_works)]
        How often each work was drawn; each row sums to ``n_works``.
    """
    drawn = rng.integers(n_works, size=(n_resamples, n_works))
    flat = drawn + n_works * np.arange(n_resamples)[:, np.newaxis]
    counts = np.bincount(flat.ravel(), minlength=n_resamples * n_works)
    return counts.reshape(n_resamples, n_works).astype(np.float64)


@dataclass(frozen=True)
class WorkSums:
    """The sums over works from which R2 follows, for K predictions of the same targets.

    Attributes
    ----------
    sizes : ndarray [shape=(n_works,)]
        Rows of each work.
    sums, squares : ndarray [shape=(n_works, q)]
        Sums of the standardised targets and of their squares.
    errors, squared_errors : ndarray [shape=(n_works, K, q)]
        Sums of the residuals and of their squares.
    """

    sizes: npt.NDArray[np.int64]
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
        """Return R2 over all rows of works that count so often.

        Parameters
        ----------
        counts : ndarray [shape=(R, n_works)]
            How often each work counts, R times.

        Returns
        -------
        ndarray of float64 [shape=(R, K)]
            NaN where the targets do not vary.
        """
        sizes = (counts @ self.sizes)[:, np.newaxis]
        total = counts @ self.squares - (counts @ self.sums) ** 2 / np.maximum(sizes, 1)
        return _r2(total, np.tensordot(counts, self.squared_errors, axes=1), sizes)

    def r2_within(self, counts: Floats) -> Floats:
        """Return R2 of targets and predictions that are centred per work; see `r2`."""
        of_work = self.sizes[:, np.newaxis]
        total = counts @ (self.squares - self.sums**2 / of_work)
        errors = self.squared_errors - self.errors**2 / of_work[:, np.newaxis]
        return _r2(total, np.tensordot(counts, errors, axes=1), counts @ of_work)


def _r2(total: Floats, error: Floats, sizes: Floats) -> Floats:
    """Return the mean over columns of 1 - error [R, K, q] / total [R, q]."""
    varies = (total > _ROUNDING * sizes)[:, np.newaxis]
    ratio = np.divide(error, total[:, np.newaxis], out=np.zeros_like(error), where=varies)
    columns = varies.sum(axis=2)
    mean = ratio.sum(axis=2) / np.maximum(columns, 1)
    return np.where(columns > 0, 1 - mean, np.nan)


def interval(r2: float, resampled: Floats, n_works: int) -> tuple[float, float] | None:
    """Return the 95 % interval of an R2.

    Parameters
    ----------
    r2 : float
        Of all works.
    resampled : ndarray [shape=(R,)]
        Its bootstrap; NaN where a resample leaves it undefined.
    n_works : int
        Works that were resampled, at least 2.

    Returns
    -------
    tuple of (float, float) or None
        None where it is undefined.
    """
    from scipy.special import stdtrit

    defined = resampled[~np.isnan(resampled)]
    if np.isnan(r2) or not defined.size:
        return None
    centre, logs = (np.log(np.maximum(1 - value, _ROUNDING)) for value in (r2, defined))
    error = float(logs.std()) * np.sqrt(n_works / (n_works - 1))
    reach = stdtrit(n_works - 1, (1 + COVERAGE) / 2) * error
    return float(1 - np.exp(centre + reach)), float(1 - np.exp(centre - reach))


def best_probability(values: Floats) -> tuple[float, ...]:
    """Return each layer's probability to be the best.

    Parameters
    ----------
    values : ndarray [shape=(R, layers)]
        R2 per resample; resamples that leave it undefined do not count.

    Returns
    -------
    tuple of float
        Summing to 1; the lower one of equal layers gets the resample.
    """
    defined = values[~np.isnan(values).any(axis=1)]
    wins = np.bincount(defined.argmax(axis=1), minlength=values.shape[1])
    return tuple((wins / max(len(defined), 1)).tolist())


def likely_best(probability: tuple[float, ...]) -> tuple[int, ...]:
    """Return the smallest set of layers that holds the best one with a probability of 95 %."""
    order = np.argsort(-np.array(probability), kind="stable")
    enough = np.searchsorted(np.cumsum(np.array(probability)[order]), COVERAGE - _ROUNDING)
    return tuple(sorted(order[: enough + 1].tolist()))
