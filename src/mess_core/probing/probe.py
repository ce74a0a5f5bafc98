"""How well a linear readout of each layer predicts one target, for works it has not heard.

A probe is a ridge regression per layer from standardised features to a target of one column (a
scalar) or several (a shape). Rows are windows or recordings. The rules:

* *Folds never share a work* (`mess_core.probing.folds`). A probe that has seen the work could name
  it instead of hearing how it is played.
* *Everything is learned on training rows*: mean, scale, coefficients, penalty, and for what is
  called nested also the layer or the mixture of layers.
* *Nested choice.* To test fold ``i``, the penalty is the one with the smallest squared error over
  all folds ``j != i`` predicted from the rows in neither ``i`` nor ``j``. Inner folds are outer
  folds, so they never share a work either, and k folds need k(k + 1)/2 decompositions per layer
  (`mess_core.probing.decompositions`), which serve all targets that have the same rows. This
  takes three works: one to test, one to choose by, one to learn from.
* *R2* is that of the out-of-fold predictions of all rows together, against the mean of all rows:
  1 is perfect, 0 is no better than the mean, negative is worse. ``r2_folds`` is the same within
  each fold, against the fold's own mean.
* *R2 within works*, ``r2_within``, is that of the same predictions with predictions and targets
  centred per work. A probe that knows which piece is played, and nothing of how, has none. It is
  the *primary* measure wherever some work has two different values of the target; else R2 is.
  The best layer, the set of likely best layers and the nested choice of the layer go by it; the
  penalty goes by the squared error, as in any ridge regression.
* *The best layer's* R2 is optimistic, because it chose the layer. ``r2_nested`` is not: each fold
  is predicted by the layer that was best inside its training folds. Nor is the *mixture*: layers'
  predictions are added with weights of at least 0 that are learned inside the training folds by
  least squares (stacking: Wolpert 1992, Breiman 1996).
* *Uncertainty* (`mess_core.probing.inference`): intervals from a bootstrap over works, p from
  exchanging whole works' targets, corrected over layers. ``selectivity`` is R2 minus the mean R2 of
  the exchanged targets, each with the penalty that suits it best, so that it is rather too small
  than too large.
* *Several columns* are standardised and share the penalty; R2 is the mean of the columns' R2.
  Columns that do not vary are left out.

Rows whose target is NaN drop out. A target that cannot be probed (too few rows or works, no
variance) is no error: the result has no layers and says why.
"""

__all__ = ["MIN_ROWS", "MIN_WORKS", "deal_folds", "probe", "probe_layers"]

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from threadpoolctl import threadpool_limits

from mess_core.errors import ProbingError
from mess_core.probing.decompositions import (
    ALPHAS,
    FoldDecompositions,
    decompose_folds,
    row_blocks,
    union_moment,
)
from mess_core.probing.folds import Bools, Features, Floats, Ints, ProbeRows, deal_folds, plan_rows
from mess_core.probing.inference import (
    PermutedTargets,
    exchange_works,
    permuted_r2,
    resample_works,
    seed_of,
)
from mess_core.probing.scores import LayerPredictions, ProbeResult, score_layers
from mess_core.recordings import MIN_WORKS

#: Fewer rows than this are not probed: an R2 of less than ten points is an anecdote.
MIN_ROWS = 10

# A spread below this share of a value's size is rounding, not variation.
_ROUNDING = 1e-12


def probe(
    features: Sequence[Features] | Features,
    Y: Features,
    works: Sequence[str],
    folds: Ints,
    *,
    name: str,
    recordings: Sequence[str] | None = None,
    decompositions: Callable[[int, ProbeRows], FoldDecompositions] | None = None,
    alphas: Sequence[float] = ALPHAS,
    n_permutations: int = 199,
    n_resamples: int = 2000,
) -> ProbeResult:
    """Probe every layer for one target.

    Raises `ProbingError` if shapes do not fit, a feature is not finite, a target is infinite, a
    work is in two folds, decompositions are of other rows, or a setting is out of range.

    Parameters
    ----------
    features : sequence of ndarray [shape=(n, D)]
        One matrix per layer; may be memory-mapped.
    Y : ndarray [shape=(n,) or (n, q)]
        The target. A row with NaN has none.
    works, folds
        The work and the fold of each row, from `deal_folds`; at least 3 folds.
    name : str
        The target's name: the seed of bootstrap and permutations.
    recordings : sequence of str, optional
        The recording of each row. Permutations then exchange targets recording by recording.
    decompositions : callable, optional
        Given a layer and the rows that have the target, returns the layer's decompositions of
        these rows; when not given, `decompose_folds` makes them.
    alphas : sequence of float
        Penalties to choose from, all above 0.
    n_permutations, n_resamples : int
        Permuted targets (0 leaves out p and selectivity), and bootstrap resamples (at least 1).
    """
    Y = Y[:, np.newaxis] if Y.ndim == 1 else Y
    _validate(features, Y, works, alphas, n_permutations, n_resamples)
    present = np.asarray(~np.isnan(Y).any(axis=1))
    rows = plan_rows(works, folds, present, recordings)
    y = Y[rows.present].astype(np.float64)
    n_recordings = None if recordings is None else rows.n_recordings
    if reason := _hopeless(y, rows, len(np.unique(folds))):
        return ProbeResult(rows.n_rows, rows.n_works, n_recordings=n_recordings, reason=reason)
    y, unit = _standardise(y)
    seed = seed_of(name)
    index = exchange_works(rows, n_permutations, np.random.default_rng([seed, 1]))
    resampled = resample_works(rows.n_works, n_resamples, np.random.default_rng([seed, 0]))
    # These matrices are small: threads of BLAS wait for each other longer than they compute, and
    # jobs of other targets run beside this one.
    with threadpool_limits(limits=1, user_api="blas"):
        permuted = PermutedTargets.of(y, rows, index) if n_permutations else None
        predicted = []
        for layer in range(len(features)):
            X = features[layer]
            known = decompositions(layer, rows) if decompositions else decompose_folds(X, rows)
            predicted.append(_predict_layer(X, y, rows, known, alphas, permuted))
        result = score_layers(predicted, y, rows, resampled, unit)
    names = np.unique(np.asarray(works)[rows.present]).tolist()
    return replace(result, n_recordings=n_recordings, works=tuple(names))


def probe_layers(
    features: Features,
    target: Features,
    works: Sequence[str],
    *,
    n_folds: int = 5,
    alphas: Sequence[float] = ALPHAS,
    name: str = "target",
) -> ProbeResult:
    """Probe every layer for one target of rows that fit into memory; deals folds itself.

    ``features`` are [n, layers, D], ``n_folds`` is at least 3 (one per work where there are fewer
    works). All else is as `probe` takes it, which also says what is raised.
    """
    if features.ndim != 3 or 0 in features.shape[1:]:
        raise ProbingError(f"features have the shape {features.shape}, expected [n, layers, dims]")
    if n_folds < MIN_WORKS:
        raise ProbingError(f"n_folds is {n_folds}, it must be at least {MIN_WORKS}")
    folds = deal_folds(works, n_folds)
    return probe(features.swapaxes(0, 1), target, works, folds, name=name, alphas=alphas)


def _validate(
    features: Sequence[Features] | Features,
    Y: Features,
    works: Sequence[str],
    alphas: Sequence[float],
    n_permutations: int,
    n_resamples: int,
) -> None:
    if not len(features):
        raise ProbingError("features have no layers, expected [n, dims] of each")
    if Y.ndim != 2 or not Y.shape[1] or len(Y) != len(works):
        raise ProbingError(
            f"targets of shape {Y.shape} and {len(works)} works do not belong together; give one "
            "target [n] or [n, columns] and one work per row"
        )
    if np.isinf(Y).any():
        raise ProbingError(
            f"the target of row {np.argwhere(np.isinf(Y))[0, 0]} is infinite; "
            "where a target is undefined it must be NaN"
        )
    if not alphas or not all(0 < alpha < float("inf") for alpha in alphas):
        raise ProbingError(f"alphas are {list(alphas)}, expected finite numbers above 0")
    if n_permutations < 0 or n_resamples < 1:
        raise ProbingError(
            f"{n_permutations} permutations and {n_resamples} resamples were asked for, "
            "expected at least 0 and at least 1"
        )


def _hopeless(Y: Floats, rows: ProbeRows, n_folds: int) -> str | None:
    for name, has, least in (
        ("rows", rows.n_rows, MIN_ROWS),
        ("works", rows.n_works, MIN_WORKS),
        ("folds", n_folds, MIN_WORKS),
    ):
        if has < least:
            return f"needs at least {least} {name} with this target, has {has}"
    if not _varies(Y).any():
        return f"the target is {Y[0, 0]:g} in all {len(Y)} rows: there is nothing to predict"
    return None


def _varies(Y: Floats) -> Bools:
    return np.asarray(np.ptp(Y, axis=0) > _ROUNDING * np.abs(Y).max(axis=0))


def _standardise(Y: Floats) -> tuple[Floats, float]:
    """Return the columns that vary, standardised, and the unit of errors: a single one's spread."""
    Y = Y[:, _varies(Y)]
    spread = Y.std(axis=0)
    return (Y - Y.mean(axis=0)) / spread, float(spread[0]) if len(spread) == 1 else 1.0


def _predict_layer(
    X: Features,
    Y: Floats,
    rows: ProbeRows,
    decompositions: FoldDecompositions,
    alphas: Sequence[float],
    permuted: PermutedTargets | None,
) -> LayerPredictions:
    if decompositions.digest != rows.digest:
        raise ProbingError(
            "decompositions are of other rows, works or folds than the target; make them again"
        )
    cross, cross_permuted = _cross_moments(X, Y, rows, decompositions, permuted)
    predictions = _predict(X, rows, *_readouts(Y, rows, decompositions, cross, alphas))
    error = ((Y[:, np.newaxis, np.newaxis] - predictions) ** 2).mean(axis=3)
    chosen = [
        int(error[rows.folds != fold, fold].sum(axis=0).argmin()) for fold in range(rows.n_folds)
    ]
    values = np.stack([predictions[:, fold, a] for fold, a in enumerate(chosen)], axis=1)
    statistics = np.full((2, 1), np.nan)
    if permuted:
        statistics = permuted_r2(permuted, cross_permuted, rows, decompositions, alphas)
    return LayerPredictions(values, tuple(alphas[a] for a in chosen), statistics)


def _cross_moments(
    X: Features,
    Y: Floats,
    rows: ProbeRows,
    decompositions: FoldDecompositions,
    permuted: PermutedTargets | None,
) -> tuple[Floats, Features]:
    """Return the products of features and targets per fold, as `union_moment` takes them."""
    shape = rows.n_folds, X.shape[1]
    exact = np.zeros((*shape, Y.shape[1]))
    rough = np.zeros((*shape, permuted.values.shape[1] if permuted else 0), np.float32)
    for fold, block, values in row_blocks(X, rows):
        deviations = values - decompositions.work_means[rows.works[block]]
        exact[fold] += deviations.T @ Y[block]
        if permuted:
            rough[fold] += deviations.T.astype(np.float32) @ permuted.values[block]
    return exact, rough


def _readouts(
    Y: Floats,
    rows: ProbeRows,
    decompositions: FoldDecompositions,
    cross: Floats,
    alphas: Sequence[float],
) -> tuple[Floats, Floats]:
    """Return slopes [k, k, D, alphas, q] and intercepts [k, k, alphas, q] of all training unions.

    The union that holds neither fold ``i`` nor fold ``j`` is at ``i, j`` and ``j, i``.
    """
    k, works = rows.n_folds, decompositions.work_means
    target_means = rows.sum_by_work(Y) / rows.work_sizes[:, np.newaxis]
    slopes = np.empty((k, k, works.shape[1], len(alphas), Y.shape[1]))
    intercepts = np.empty((k, k, len(alphas), Y.shape[1]))
    for out in [*((i,) for i in range(k)), *combinations(range(k), 2)]:
        training = decompositions.training(*out)
        moment, mean = union_moment(cross, target_means, rows, works, training, out)
        slope = training.solve(moment, alphas) / training.scale[:, np.newaxis, np.newaxis]
        intercept = mean - np.tensordot(training.mean, slope, axes=1)
        for i, j in {(out[0], out[-1]), (out[-1], out[0])}:
            slopes[i, j], intercepts[i, j] = slope, intercept
    return slopes, intercepts


def _predict(X: Features, rows: ProbeRows, slopes: Floats, intercepts: Floats) -> Floats:
    """Predict each row from all unions that do not hold its fold [m, k, alphas, q]."""
    predictions = np.empty((rows.n_rows, *intercepts.shape[1:]))
    for fold, block, values in row_blocks(X, rows):
        predictions[block] = intercepts[fold] + np.tensordot(values, slopes[fold], axes=(1, 1))
    return predictions
