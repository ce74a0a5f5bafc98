"""How well a linear readout of each layer predicts one scalar target, for works it has not heard.

One probe is a ridge regression per layer from standardised features to the target. The rules:

* *Folds never share a work.* Many recordings play the same work; a probe that has seen the work
  could name it instead of hearing how it is played. Whole works are dealt to folds, large ones
  first.
* *Everything is learned on training rows*: mean, scale, coefficients, penalty, and for
  ``r2_nested`` the layer.
* *Nested choice.* To test fold ``i``, the penalty is the one with the smallest squared error over
  all folds ``j != i`` predicted from the rows in neither ``i`` nor ``j``. Inner folds are outer
  folds, so they never share a work either, and k folds need k(k + 1)/2 decompositions per layer.
  This takes three works: one to test, one to choose by, one to learn from.
* *R2* is that of the out-of-fold predictions of all rows together, against the mean of all rows:
  1 is perfect, 0 is no better than the mean, negative is worse. ``r2_folds`` is the same within
  each fold, against the fold's own mean; it is None where a fold's target does not vary.
* ``best_r2`` is the largest of the layers' R2, and that choice makes it optimistic: with many
  layers and few works some layer looks good by luck. ``r2_nested`` is free of it: each fold is
  predicted by the layer that was best inside its training folds.

Rows whose target is NaN drop out. A target that cannot be probed (too few rows or works, no
variance) is no error: the result has no layers and says why.
"""

__all__ = [
    "MIN_ROWS",
    "MIN_WORKS",
    "LayerScore",
    "ProbeResult",
    "deal_folds",
    "probe_layers",
]

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from mess_core.errors import ProbingError
from mess_core.probing.ridge import ALPHAS, decompose

#: Fewer rows than this are not probed: an R2 of less than ten points is an anecdote.
MIN_ROWS = 10

#: One work to test, one to choose the penalty and the layer by, one to learn from.
MIN_WORKS = 3

# A spread below this share of a value's size is rounding, not variation.
_ROUNDING = 1e-12

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LayerScore:
    """How well one layer predicts the target.

    Attributes
    ----------
    layer : int
        Hidden state, 0 is the input of the first transformer layer.
    r2 : float
        Coefficient of determination of all out-of-fold predictions.
    r2_std : float or None
        Standard deviation of ``r2_folds``; None where fewer than two folds have one.
    r2_folds : tuple of (float or None)
        R2 within each fold; None where the target does not vary within it.
    correlation : float or None
        Pearson's, of targets and out-of-fold predictions; None where the predictions do not vary.
    rmse : float
        Root of the mean squared error, in the target's unit.
    alpha : float
        Median penalty of the folds (the lower one of two).
    alpha_folds : tuple of float
        The penalty that was chosen for each fold.
    """

    layer: int
    r2: float
    r2_std: float | None
    r2_folds: tuple[float | None, ...]
    correlation: float | None
    rmse: float
    alpha: float
    alpha_folds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """All layers' scores for one target.

    Attributes
    ----------
    n_rows, n_works, n_folds : int
        Rows that have the target, their works, and the folds that these were dealt to (0 where the
        target cannot be probed).
    layers : tuple of LayerScore
        From layer 0 on; empty where the target cannot be probed.
    best_layer : int or None
        The layer with the largest ``r2``, the lower one of equals.
    best_r2 : float or None
        Its ``r2``; optimistic, because it chose the layer.
    r2_nested : float or None
        R2 when the layer, too, is chosen inside the training folds.
    nested_layers : tuple of int
        The layer that was chosen for each fold.
    reason : str or None
        Why the target cannot be probed.
    """

    n_rows: int
    n_works: int
    n_folds: int = 0
    layers: tuple[LayerScore, ...] = ()
    best_layer: int | None = None
    best_r2: float | None = None
    r2_nested: float | None = None
    nested_layers: tuple[int, ...] = ()
    reason: str | None = None


def deal_folds(works: Sequence[str], n_folds: int) -> Ints:
    """Deal whole works to folds of about equal size.

    Works go, the largest first and equal ones by name, to the fold that has the fewest rows so
    far. The order of the rows does not matter, and the result is the same on every machine.

    Parameters
    ----------
    works : sequence of str
        The work of each row.
    n_folds : int
        Folds to make; where there are fewer works, each work is a fold.

    Returns
    -------
    ndarray of int64 [shape=(len(works),)]
        Each row's fold, from 0.
    """
    sizes = sorted(Counter(works).items(), key=lambda item: (-item[1], item[0]))
    filled = [0] * min(n_folds, len(sizes))
    fold_of: dict[str, int] = {}
    for work, size in sizes:
        fold_of[work] = filled.index(min(filled))
        filled[fold_of[work]] += size
    return np.array([fold_of[work] for work in works], np.int64)


def probe_layers(
    features: npt.NDArray[np.floating],
    target: npt.NDArray[np.floating],
    works: Sequence[str],
    *,
    n_folds: int = 5,
    alphas: Sequence[float] = ALPHAS,
) -> ProbeResult:
    """Probe every layer for one target.

    Parameters
    ----------
    features : ndarray [shape=(n, layers, dims)]
        One row per recording or window.
    target : ndarray [shape=(n,)]
        NaN where a row has no target.
    works : sequence of str
        The work of each row.
    n_folds : int
        Folds, at least 3; one per work where there are fewer works.
    alphas : sequence of float
        Penalties to choose from, all above 0.

    Returns
    -------
    ProbeResult

    Raises
    ------
    ProbingError
        If shapes do not fit, a feature or a target is infinite, a feature is NaN, or a setting is
        out of range.
    """
    _validate(features, target, works, n_folds, alphas)
    present = np.flatnonzero(~np.isnan(target)).tolist()
    y = target[present].astype(np.float64)
    kept = [works[row] for row in present]
    if reason := _hopeless(y, len(set(kept))):
        return ProbeResult(len(y), len(set(kept)), reason=reason)
    folds = _folds_of_present(works, present, n_folds)
    # These matrices are small: threads of BLAS wait for each other longer than they compute, and
    # jobs of other targets run beside this one.
    with threadpool_limits(limits=1, user_api="blas"):
        layers = [
            _probe_layer(features[present, layer].astype(np.float64), y, folds, alphas)
            for layer in range(features.shape[1])
        ]
    return _summarise(layers, y, folds, len(set(kept)))


def _validate(
    features: npt.NDArray[np.floating],
    target: npt.NDArray[np.floating],
    works: Sequence[str],
    n_folds: int,
    alphas: Sequence[float],
) -> None:
    if features.ndim != 3 or 0 in features.shape[1:]:
        raise ProbingError(f"features have the shape {features.shape}, expected [n, layers, dims]")
    if target.shape != features.shape[:1] or len(works) != len(features):
        raise ProbingError(
            f"{len(features)} rows of features, targets of shape {target.shape} and {len(works)} "
            "works do not belong together; give one target and one work per row"
        )
    if not np.isfinite(features).all():
        row, layer, _ = np.argwhere(~np.isfinite(features))[0]
        raise ProbingError(
            f"features of row {row}, layer {layer} are not finite; extract that recording again"
        )
    if np.isinf(target).any():
        raise ProbingError(
            f"the target of row {np.flatnonzero(np.isinf(target))[0]} is infinite; "
            "where a target is undefined it must be NaN"
        )
    if n_folds < MIN_WORKS:
        raise ProbingError(f"n_folds is {n_folds}, it must be at least {MIN_WORKS}")
    if not alphas or not all(0 < alpha < float("inf") for alpha in alphas):
        raise ProbingError(f"alphas are {list(alphas)}, expected finite numbers above 0")


def _hopeless(y: Floats, n_works: int) -> str | None:
    if len(y) < MIN_ROWS:
        return f"{len(y)} rows have this target, at least {MIN_ROWS} are needed"
    if n_works < MIN_WORKS:
        return f"rows with this target are of {n_works} works, at least {MIN_WORKS} are needed"
    if _is_constant(y):
        return f"the target is {y[0]:g} in all {len(y)} rows: there is nothing to predict"
    return None


def _folds_of_present(works: Sequence[str], present: list[int], n_folds: int) -> Ints:
    """Return the folds of the rows that have the target.

    Works are dealt once for all targets, so that targets are compared on the same folds; only
    where a fold would stay empty are the works of this target's own rows dealt instead.
    """
    folds = deal_folds(works, n_folds)[present]
    kept = [works[row] for row in present]
    if len(set(folds.tolist())) < min(n_folds, len(set(kept))):
        return deal_folds(kept, n_folds)
    return folds


@dataclass(frozen=True, slots=True)
class _LayerPredictions:
    """Out-of-fold predictions of a layer; per fold the penalty and its inner squared error."""

    predicted: Floats
    alphas: tuple[float, ...]
    inner_error: Floats


def _probe_layer(X: Floats, y: Floats, folds: Ints, alphas: Sequence[float]) -> _LayerPredictions:
    n_folds = int(folds.max()) + 1
    error = np.zeros((n_folds, len(alphas)))
    for i, j in combinations(range(n_folds), 2):
        predictions = _predict_held_out(X, y, (folds == i) | (folds == j), alphas)
        squared = (predictions - y[:, np.newaxis]) ** 2
        error[i] += squared[folds == j].sum(axis=0)
        error[j] += squared[folds == i].sum(axis=0)
    chosen = error.argmin(axis=1)
    predicted = np.empty_like(y)
    for i in range(n_folds):
        out = folds == i
        predicted[out] = _predict_held_out(X, y, out, [alphas[chosen[i]]])[out, 0]
    return _LayerPredictions(predicted, tuple(alphas[a] for a in chosen), error.min(axis=1))


def _predict_held_out(
    X: Floats, y: Floats, out: npt.NDArray[np.bool_], alphas: Sequence[float]
) -> Floats:
    """Predict the rows in ``out`` from the others: ``[n, alphas]``, NaN in training rows."""
    training = decompose(X[~out])
    coefficients = training.coefficients(X[~out], y[~out], alphas)
    predictions = np.full((len(y), len(alphas)), np.nan)
    predictions[out] = y[~out].mean() + training.standardise(X[out]) @ coefficients
    return predictions


def _summarise(
    layers: Sequence[_LayerPredictions], y: Floats, folds: Ints, n_works: int
) -> ProbeResult:
    scores = tuple(_score(number, layer, y, folds) for number, layer in enumerate(layers))
    best = max(scores, key=lambda score: score.r2)
    nested = np.array([layer.inner_error for layer in layers]).argmin(axis=0)
    predicted = np.array([layer.predicted for layer in layers])
    return ProbeResult(
        n_rows=len(y),
        n_works=n_works,
        n_folds=len(nested),
        layers=scores,
        best_layer=best.layer,
        best_r2=best.r2,
        r2_nested=_r2(y, predicted[nested[folds], np.arange(len(y))]),
        nested_layers=tuple(nested.tolist()),
    )


def _score(number: int, layer: _LayerPredictions, y: Floats, folds: Ints) -> LayerScore:
    predicted = layer.predicted
    in_fold = [folds == i for i in range(len(layer.alphas))]
    r2_folds = tuple(
        None if _is_constant(y[rows]) else _r2(y[rows], predicted[rows]) for rows in in_fold
    )
    defined = [value for value in r2_folds if value is not None]
    return LayerScore(
        layer=number,
        r2=_r2(y, predicted),
        r2_std=float(np.std(defined)) if len(defined) > 1 else None,
        r2_folds=r2_folds,
        correlation=(None if _is_constant(predicted) else float(np.corrcoef(y, predicted)[0, 1])),
        rmse=float(np.sqrt(np.mean((y - predicted) ** 2))),
        alpha=sorted(layer.alphas)[(len(layer.alphas) - 1) // 2],
        alpha_folds=layer.alphas,
    )


def _r2(y: Floats, predicted: Floats) -> float:
    return float(1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def _is_constant(values: Floats) -> bool:
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())
