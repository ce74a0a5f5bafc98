"""Linear erasure of a concept from features: LEACE.

LEACE (Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form", Theorem 4.2)
changes features ``x`` as little as an affine map can such that no linear probe predicts the concept
``z`` from them better than its mean does. A linear probe is as good as the mean exactly when the
covariance of features and concept is zero. With ``S = Cov(x)``, ``C = Cov(x, z)`` and the whitening
``W = (S^1/2)^+``, LEACE takes away what lies, once whitened, in the span of the concept::

    erase(x) = x - W^+ P W (x - mean),    P = the orthogonal projection onto the columns of W C

As P has the rank of ``W C``, at most the number of the concept's columns, the map is kept as two
thin matrices: what is *read* from a row and where it is *written* (taken away).

With few rows the whitening of directions that hardly vary is noise. A ``penalty`` takes the place
of LEACE's covariance by ``S + penalty / n`` (ridge's shrinkage). The covariance with the concept
still becomes exactly zero on the rows that were learned from, since ``W^+ P W C = C`` for every
invertible ``W``; what is read is then the ridge probe's prediction of the concept. The change is no
longer the smallest one.
"""

__all__ = ["Eraser", "fit_eraser", "unit_columns", "whitened_projection"]

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mess_core.errors import ProbingError

Floats = npt.NDArray[np.float64]

# Below this share of the largest, a direction of features or a multiple correlation is rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Eraser:
    """An affine map that takes a concept out of features.

    Attributes
    ----------
    mean : ndarray [shape=(D,)]
        Of the rows that it was learned from.
    write : ndarray [shape=(D, r)]
        Directions along which features change, r = the concept's rank.
    read : ndarray [shape=(D, r)]
        How much along each: ``read.T @ (x - mean)``.
    """

    mean: Floats
    write: Floats
    read: Floats

    def erase(self, X: npt.NDArray[np.floating]) -> Floats:
        """Return features ``[n, D]`` without the concept."""
        return np.asarray(X - ((X - self.mean) @ self.read) @ self.write.T)


def fit_eraser(
    X: npt.NDArray[np.floating], Z: npt.NDArray[np.floating], *, penalty: float = 0.0
) -> Eraser:
    """Learn to erase a concept from features.

    Parameters
    ----------
    X : ndarray [shape=(n, D)]
        Finite features; more columns than rows are welcome.
    Z : ndarray [shape=(n,) or (n, q)]
        The concept: one number or several per row. Collinear columns count once, and a concept that
        does not vary erases nothing.
    penalty : float
        0 is LEACE. More shrinks the whitening, see the module.

    Returns
    -------
    Eraser

    Raises
    ------
    ProbingError
        If the rows differ in number, a value is not finite or the penalty is negative.
    """
    concept = np.asarray(Z, float).reshape(len(Z), -1)
    _check(X, concept, penalty)
    mean = np.asarray(X.mean(axis=0, dtype=float))
    _, values, basis = np.linalg.svd(X - mean, full_matrices=False)
    varies = values > _ROUNDING * values.max(initial=0.0)
    values, basis = values[varies], basis[varies].T
    moments = basis.T @ ((X - mean).T @ unit_columns(concept))
    write, read = whitened_projection(values**2, moments, penalty)
    return Eraser(mean, basis @ write, basis @ read)


def unit_columns(Y: Floats) -> Floats:
    """Return columns ``[n, q]`` centred and of length 1; those that do not vary become 0."""
    centred = Y - Y.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    varies = length > _ROUNDING * np.linalg.norm(Y, axis=0)
    return np.asarray(np.where(varies, centred / np.where(varies, length, 1.0), 0.0))


def whitened_projection(values: Floats, moments: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Return what LEACE writes and reads, in coordinates where features are uncorrelated.

    Parameters
    ----------
    values : ndarray [shape=(r,)]
        Sums of squares of the coordinates, above 0.
    moments : ndarray [shape=(r, q)]
        Their sums of products with the concept's columns, centred and of length 1.
    penalty : float
        Added to ``values`` in the whitening.

    Returns
    -------
    write, read : ndarray [shape=(r, rank)]
        Coordinates ``u`` become ``u - write @ (read.T @ u)``.
    """
    root = np.sqrt(values + penalty)[:, np.newaxis]
    directions, strength, _ = np.linalg.svd(moments / root, full_matrices=False)
    directions = directions[:, strength > _ROUNDING]
    return root * directions, directions / root


def _check(X: npt.NDArray[np.floating], concept: Floats, penalty: float) -> None:
    if X.ndim != 2 or len(X) != len(concept):
        raise ProbingError(
            f"features {X.shape} and concept {concept.shape} must be rows of the same number"
        )
    if not (np.isfinite(X).all() and np.isfinite(concept).all()):
        raise ProbingError("features and concept must be finite: leave rows with NaN out")
    if not penalty >= 0:
        raise ProbingError(f"the penalty is {penalty}, it must be 0 or more")
