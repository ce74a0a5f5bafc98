"""Ridge regression on standardised features, for many penalties and targets from one decomposition.

For rows ``X [n, D]`` and a target ``y [n]`` the coefficients are those of scikit-learn's
``make_pipeline(StandardScaler(), Ridge(alpha))``: with ``Z`` the standardised rows and ``y``
centred they minimise ``|y - Z b|^2 + alpha |b|^2``, so ``b = V (V'Z'y) / (s^2 + alpha)`` for ``Z =
U s V'``.

What depends on ``X`` alone (mean, scale, ``V``, ``s^2``: `RidgeDecomposition`) is apart from what
depends on ``y`` (``Z'y``, which `RidgeDecomposition.solve` takes): one decomposition serves every
penalty and every target that has the same rows. ``V`` and ``s^2`` come from the eigenvectors of the
smaller of ``Z'Z`` and ``ZZ'``, which costs a quarter of an SVD of ``Z`` at 4,000 rows of 768
numbers. Squaring ``Z`` loses what is smaller than about 1e-8 of its largest singular value, far
below every penalty in `ALPHAS`.

Columns that do not vary say nothing: their coefficients are 0, also for rows in which they do.
"""

__all__ = ["ALPHAS", "RidgeDecomposition", "decompose", "decompose_scatter"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mess_core.probing.folds import Bools, Features, Floats

#: Penalties to choose from. ``s^2`` of standardised rows sums to ``n * D``, so that the range
#: reaches from hardly any shrinkage to almost the mean, for 48 rows of 48 numbers and for 20,000
#: of 768.
ALPHAS: tuple[float, ...] = tuple(10.0**exponent for exponent in range(-1, 7))

# Features are stored as float32: a column that varies less than its rounding does not vary.
_ROUNDING = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class RidgeDecomposition:
    """What ridge regression needs to know about its training rows.

    Attributes
    ----------
    mean, scale : ndarray [shape=(D,)]
        Of the training rows' columns; the scale of a constant column is 1.
    basis : ndarray [shape=(D, r)]
        Right singular vectors of the standardised rows, r = their rank.
    values : ndarray [shape=(r,)]
        Squared singular values.
    """

    mean: Floats
    scale: Floats
    basis: Floats
    values: Floats

    def standardise(self, X: Floats) -> Floats:
        """Return rows ``[n, D]`` in units of the training rows' spread around their mean."""
        return np.asarray((X - self.mean) / self.scale)

    def solve(self, moment: Features, alphas: Sequence[float]) -> Floats:
        """Return the coefficients [D, len(alphas), q] of all penalties (above 0) and targets.

        ``moment [D, q]`` is ``Z'y`` of each target; the coefficients are for standardised features.
        """
        rotated = (self.basis.T @ moment)[:, np.newaxis]
        shrunk = rotated / np.add.outer(self.values, np.asarray(alphas))[:, :, np.newaxis]
        solved = self.basis @ shrunk.reshape(len(shrunk), len(alphas) * moment.shape[1])
        return np.asarray(solved.reshape(len(moment), len(alphas), -1))

    def coefficients(self, X: Floats, y: Floats, alphas: Sequence[float]) -> Floats:
        """Return the coefficients of all penalties [D, len(alphas)] for standardised features.

        ``X [n, D]`` are the rows that were decomposed, as they were given, and ``y [n]`` their
        target. The prediction for a row is the mean of ``y`` plus its standardised features times
        these.
        """
        moment = self.standardise(X).T @ (y - y.mean())
        return self.solve(moment[:, np.newaxis], alphas)[:, :, 0]


def decompose(X: Floats) -> RidgeDecomposition:
    """Decompose finite training rows ``[n, D]``, once for all penalties and targets."""
    mean = X.mean(axis=0)
    scale, varies = _scale(mean, X.std(axis=0))
    Z = np.where(varies, (X - mean) / scale, 0.0)
    if len(Z) >= Z.shape[1]:
        return RidgeDecomposition(mean, scale, *_eigen(Z.T @ Z, max(Z.shape)))
    vectors, values = _eigen(Z @ Z.T, max(Z.shape))
    return RidgeDecomposition(mean, scale, (Z.T @ vectors) / np.sqrt(values), values)


def decompose_scatter(n: int, mean: Floats, scatter: Floats) -> RidgeDecomposition:
    """Decompose n training rows of which only sums are known; not for more columns than rows.

    With the mean ``[D]`` and the scatter ``(X - mean)'(X - mean)`` of rows X, the result is that
    of `decompose` up to rounding.
    """
    scale, varies = _scale(mean, np.sqrt(np.diagonal(scatter) / n))
    weight = varies / scale
    basis, values = _eigen(scatter * weight * weight[:, np.newaxis], max(n, len(mean)))
    return RidgeDecomposition(mean, scale, basis * varies[:, np.newaxis], values)


def _scale(mean: Floats, spread: Floats) -> tuple[Floats, Bools]:
    """Return the columns' scale, and which of them vary."""
    varies = spread > _ROUNDING * np.abs(mean)
    return np.where(varies, spread, 1.0), varies


def _eigen(product: Floats, size: int) -> tuple[Floats, Floats]:
    """Return eigenvectors [D, r] and eigenvalues [r] above the rounding of a product of rows."""
    values, vectors = np.linalg.eigh(product)
    kept = values > max(values[-1], 0.0) * size * np.finfo(np.float64).eps
    return vectors[:, kept], values[kept]
