"""Signs that a representation has collapsed: few dimensions are filled, or works are points.

Features ``X`` are the rows (windows or recordings) of one layer, as extracted.

* `rankme` (Garrido et al. 2023): the effective rank, ``exp(-sum p log p)`` with ``p`` the singular
  values divided by their sum, plus 1e-7. From 1 (one direction) to ``min(n, D)`` (all equally). As
  in the paper features are not centred, so an offset that all rows share counts as a direction;
  ``rankme_centred`` leaves it out. It compares encoders of the same width on the same rows;
  there is no value below which a representation is collapsed.
* ``within_work``: the part of the total variance (sum over dimensions) that lies within works, from
  0 (all rows of a work are one point) to 1. Rows without any relation to their works have
  ``(n - works) / (n - 1)`` on average (``within_work_chance``). A few dimensions with a large
  variance rule the sum; ``within_work_standardised`` is the mean over dimensions that vary, which
  is what a standardising probe meets.
* `linear_cka` (Kornblith et al. 2019): similarity to a reference, unchanged by rotation and
  uniform scaling, from 0 to 1. It uses the unbiased estimate of HSIC (Song et al. 2012) in
  numerator and denominator, as Nguyen et al. (2021) do, because with fewer rows than dimensions the
  plain estimate is near 1 for unrelated features. Unrelated features have 0 on average, so it may
  be slightly negative.
"""

__all__ = ["layer_geometry", "linear_cka", "rankme"]

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mess_core.errors import ProbingError
from mess_core.probing.folds import Features, Floats

# Garrido et al. 2023, for float32.
_EPSILON = 1e-7

# Features are float32: a dimension that varies less than its rounding does not vary.
_ROUNDING = float(np.finfo(np.float32).eps)

#: The unbiased estimate of HSIC divides by n - 3.
MIN_ROWS = 4


def layer_geometry(
    X: Features, works: Sequence[str], references: Mapping[str, Features] | None = None
) -> dict[str, Any]:
    """Describe the geometry of one layer, of features [n, D] with at least 2 rows.

    ``references`` are features of the same rows to compare with, for example an untrained
    encoder's. Returns ``n_rows``, ``n_works``, ``n_dims``, ``rankme``, ``rankme_centred``,
    ``within_work``, ``within_work_standardised``, ``within_work_chance`` and ``cka_{name}`` per
    reference. None where features do not vary or, of CKA, rows are fewer than 4.

    Raises
    ------
    ProbingError
        If rows differ in number or are not finite.
    """
    values = _checked(X)
    centred = values - values.mean(axis=0)
    within, total = _within_and_total(centred, works)
    varies = total > len(X) * (_ROUNDING * np.abs(values).max(axis=0)) ** 2
    moving = bool(varies.any())
    return {
        "n_rows": len(values),
        "n_works": len(set(works)),
        "n_dims": values.shape[1],
        "rankme": rankme(values),
        "rankme_centred": rankme(centred * varies) if moving else None,
        "within_work": float(within[varies].sum() / total[varies].sum()) if moving else None,
        "within_work_standardised": (
            float((within[varies] / total[varies]).mean()) if moving else None
        ),
        "within_work_chance": (len(values) - len(set(works))) / (len(values) - 1),
        **{f"cka_{name}": linear_cka(values, other) for name, other in (references or {}).items()},
    }


def rankme(X: Features) -> float:
    """Return the effective rank of features ``[n, D]`` as they are; NaN where all are 0."""
    values = np.asarray(X, float)
    # The smaller product: its eigenvalues are the squared singular values.
    product = values @ values.T if len(values) < values.shape[1] else values.T @ values
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(product), 0.0))
    if not singular.any():
        return float("nan")
    share = singular / singular.sum() + _EPSILON
    return float(np.exp(-(share * np.log(share)).sum()))


def linear_cka(X: Features, Y: Features) -> float | None:
    """Compare two representations of the same rows by linear centred kernel alignment.

    Features that are equal up to rotation and scale have 1; None where one does not vary, and for
    fewer than 4 rows.

    Raises
    ------
    ProbingError
        If rows differ in number or are not finite.
    """
    if len(X) != len(Y):
        raise ProbingError(f"{len(X)} rows cannot be compared with {len(Y)}: give the same rows")
    first, second = _centred(_checked(X)), _centred(_checked(Y))
    if len(first) < MIN_ROWS:
        return None
    own = _unbiased_hsic(first, first) * _unbiased_hsic(second, second)
    return float(_unbiased_hsic(first, second) / np.sqrt(own)) if own > 0 else None


def _unbiased_hsic(X: Floats, Y: Floats) -> float:
    """Return n(n - 3) times the estimate of Song et al. (2012, eq. 5), without any [n, n] matrix.

    With K = XX' and L = YY' without their diagonals, ``tr(KL) + (1'K1)(1'L1) / ((n - 1)(n - 2)) -
    2 / (n - 2) 1'KL1``. As columns of X and Y sum to 0, row i of K sums to minus its diagonal.
    """
    n = len(X)
    k, m = np.square(X).sum(axis=1), np.square(Y).sum(axis=1)
    trace = np.square(X.T @ Y).sum() - k @ m
    return float(trace + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m))


def _centred(X: Floats) -> Floats:
    """Return features around their mean, scaled to a mean square norm of 1; rounding becomes 0."""
    deviations = X - X.mean(axis=0)
    size = np.sqrt(np.square(deviations).sum(axis=1).mean())
    largest = np.sqrt(np.square(X).sum(axis=1).mean())
    return np.asarray(deviations / size if size > _ROUNDING * largest else np.zeros_like(X))


def _within_and_total(X: Features, works: Sequence[str]) -> tuple[Floats, Floats]:
    """Return each dimension's sum of squares around works' means and around 0."""
    _, of_work, sizes = np.unique(np.asarray(works), return_inverse=True, return_counts=True)
    order = np.argsort(of_work, kind="stable")
    sums = np.add.reduceat(np.asarray(X, float)[order], np.cumsum(sizes) - sizes)
    total = np.square(X).sum(axis=0)
    between = (sums**2 / sizes[:, np.newaxis]).sum(axis=0)
    return np.maximum(total - between, 0.0), total


def _checked(X: Features) -> Floats:
    values = np.asarray(X, float)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ProbingError(
            f"features of shape {values.shape} must be finite [rows, dims]; extract again"
        )
    return values
