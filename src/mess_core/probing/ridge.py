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
import numpy.typing as npt

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

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    basis: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]

    def standardise(self, X: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return rows ``[n, D]`` in units of the training rows' spread around their mean."""
        return np.asarray((X - self.mean) / self.scale)

    def solve(
        self, moment: npt.NDArray[np.floating], alphas: Sequence[float]
    ) -> npt.NDArray[np.float64]:
        """Return the coefficients of all penalties and targets for standardised features.

        Parameters
        ----------
        moment : ndarray [shape=(D, q)]
            ``Z'y`` of each target.
        alphas : sequence of float
            Penalties, all above 0.

        Returns
        -------
        ndarray of float64 [shape=(D, len(alphas), q)]
        """
        rotated = (self.basis.T @ moment)[:, np.newaxis]
        shrunk = rotated / np.add.outer(self.values, np.asarray(alphas))[:, :, np.newaxis]
        solved = self.basis @ shrunk.reshape(len(shrunk), len(alphas) * moment.shape[1])
        return np.asarray(solved.reshape(len(moment), len(alphas), -1))

    def coefficients(
        self, X: npt.NDArray[np.float64], y: npt.NDArray[np.float64], alphas: Sequence[float]
    ) -> npt.NDArray[np.float64]:
        """Return the coefficients of all penalties for standardised features.

        Parameters
        ----------
        X : ndarray [shape=(n, D)]
            The rows that were decomposed, as they were given.
        y : ndarray [shape=(n,)]
            Their target.
        alphas : sequence of float
            Penalties, all above 0.

        Returns
        -------
        ndarray of float64 [shape=(D, len(alphas))]
            The prediction for a row is the mean of ``y`` plus its standardised features times
            these.
        """
        moment = self.standardise(X).T @ (y - y.mean())
        return self.solve(moment[:, np.newaxis], alphas)[:, :, 0]


def decompose(X: npt.NDArray[np.float64]) -> RidgeDecomposition:
    """Decompose training rows once for all penalties and targets.

    Parameters
    ----------
    X : ndarray [shape=(n, D)]
        Finite features; more columns than rows are welcome.

    Returns
    -------
    RidgeDecomposition
    """
    mean = X.mean(axis=0)
    scale, varies = _scale(mean, X.std(axis=0))
    Z = np.where(varies, (X - mean) / scale, 0.0)
    if len(Z) >= Z.shape[1]:
        return RidgeDecomposition(mean, scale, *_eigen(Z.T @ Z, max(Z.shape)))
    vectors, values = _eigen(Z @ Z.T, max(Z.shape))
    return RidgeDecomposition(mean, scale, (Z.T @ vectors) / np.sqrt(values), values)


def decompose_scatter(
    n: int, mean: npt.NDArray[np.float64], scatter: npt.NDArray[np.float64]
) -> RidgeDecomposition:
    """Decompose training rows of which only sums are known; not for more columns than rows.

    Parameters
    ----------
    n : int
        Number of rows.
    mean : ndarray [shape=(D,)]
        Of their columns.
    scatter : ndarray [shape=(D, D)]
        ``(X - mean)'(X - mean)``.

    Returns
    -------
    RidgeDecomposition
        The same as `decompose` of the rows, up to rounding.
    """
    scale, varies = _scale(mean, np.sqrt(np.diagonal(scatter) / n))
    weight = varies / scale
    basis, values = _eigen(scatter * weight * weight[:, np.newaxis], max(n, len(mean)))
    return RidgeDecomposition(mean, scale, basis * varies[:, np.newaxis], values)


def _scale(
    mean: npt.NDArray[np.float64], spread: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the columns' scale, and which of them vary."""
    varies = spread > _ROUNDING * np.abs(mean)
    return np.where(varies, spread, 1.0), varies


def _eigen(
    product: npt.NDArray[np.float64], size: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return eigenvectors [D, r] and eigenvalues [r] above the rounding of a product of rows."""
    values, vectors = np.linalg.eigh(product)
    kept = values > max(values[-1], 0.0) * size * np.finfo(np.float64).eps
    return vectors[:, kept], values[kept]
