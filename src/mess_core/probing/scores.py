"""From out-of-fold predictions to what is reported: scores, best layers, mixture, cautions.

What the figures mean is said in `mess_core.probing.probe`, how certain they are in
`mess_core.probing.inference`.
"""

__all__ = ["LayerPredictions", "LayerScore", "Mixture", "ProbeResult", "score_layers"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mess_core.probing.folds import Floats, Ints, ProbeRows
from mess_core.probing.inference import (
    WorkSums,
    best_probability,
    corrected_p,
    interval,
    likely_best,
)

# A spread below this share of a value's size is rounding, not variation.
_ROUNDING = 1e-12

# Rows of a work whose distances are compared, evenly spread over it.
_PAIRED = 40

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class LayerPredictions:
    """A layer's predictions, at the penalties that each test fold's training folds chose.

    In ``values`` [m, k, q] each row is predicted, for each test fold, from rows in neither that
    fold nor the row's own. ``alphas`` are the penalty for each test fold, ``permuted`` what
    `mess_core.probing.inference.permuted_r2` returns.
    """

    values: Floats
    alphas: tuple[float, ...]
    permuted: Floats


@dataclass(frozen=True, slots=True)
class LayerScore:
    """How well one layer predicts the target.

    * ``layer``: the hidden state, 0 is the input of the first transformer layer.
    * ``r2``: the coefficient of determination of all out-of-fold predictions.
    * ``r2_within``: the same of targets and predictions that are centred per work; None where no
      work has two different values.
    * ``r2_folds``, ``r2_within_folds``: both of each fold alone; None where the target does not
      vary there.
    * ``r2_std``, ``r2_min``: standard deviation (of at least two) and minimum of ``r2_folds``.
    * ``interval``, ``interval_within``: 95 % intervals of ``r2`` and ``r2_within``.
    * ``correlation``: Pearson's, of targets and out-of-fold predictions (mean over columns); None
      where predictions do not vary.
    * ``rmse``: root of the mean squared error, in the target's unit; for several columns in their
      standard deviations.
    * ``alpha_folds``, ``alpha``: the penalty that was chosen for each fold, and their median (the
      lower one of two).
    * ``p``, ``p_within``: of both R2, corrected over layers; None without permutations.
    * ``selectivity``: R2 minus that of targets permuted between works.
    * ``distances``: how far distances between predictions follow those between true values:
      Spearman's correlation over pairs of rows of one work, mean over works; None where no work has
      three different values.
    """

    layer: int
    r2: float
    r2_within: float | None
    r2_folds: tuple[float | None, ...]
    r2_within_folds: tuple[float | None, ...]
    r2_std: float | None
    r2_min: float | None
    interval: Interval | None
    interval_within: Interval | None
    correlation: float | None
    rmse: float
    alpha: float
    alpha_folds: tuple[float, ...]
    p: float | None
    p_within: float | None
    selectivity: float | None
    distances: float | None


@dataclass(frozen=True, slots=True)
class Mixture:
    """How well all layers together predict the target.

    ``weights`` are each layer's part, at least 0: its weight times the spread of its predictions,
    in standard deviations of the target; mean over the folds. All else is as in `LayerScore`.
    """

    r2: float
    r2_within: float | None
    interval: Interval | None
    interval_within: Interval | None
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """All layers' scores for one target.

    * ``n_rows``, ``n_works``, ``n_recordings``, ``n_folds``: rows that have the target, their
      works, their recordings (where these were given), and the folds that they were dealt to (0
      where the target cannot be probed).
    * ``primary``: ``r2_within``, or ``r2`` where no work has two different values of the target.
    * ``layers``: from layer 0 on; empty where the target cannot be probed.
    * ``best_layer``: the best by the primary measure, the lower one of equals.
    * ``best_r2``, ``best_r2_within``: its R2; the primary one is optimistic, because it chose the
      layer.
    * ``best_by_r2``, ``best_by_r2_within``: the layers that are best by each measure.
    * ``best_probability``: each layer's probability to be the best by the primary measure.
    * ``best_layers``: the smallest set of layers that holds the best with a probability of 95 %.
    * ``p``: the smallest of the layers' by the primary measure: of no layer knowing anything.
    * ``r2_nested``, ``r2_within_nested``, ``interval_nested``, ``interval_within_nested``: when the
      layer, too, is chosen inside the training folds; ``nested_layers``: that of each fold.
    * ``works``, ``loss``: the works, and each one's share of what the nested choice loses of the
      primary R2: they sum to 1 minus that R2. Two sources are compared work by work.
    * ``mixture``: all layers together.
    * ``caution``: what to beware of: R2 that comes from differences between works only.
    * ``reason``: why the target cannot be probed.
    """

    n_rows: int
    n_works: int
    n_folds: int = 0
    n_recordings: int | None = None
    primary: str | None = None
    layers: tuple[LayerScore, ...] = ()
    best_layer: int | None = None
    best_r2: float | None = None
    best_r2_within: float | None = None
    best_by_r2: int | None = None
    best_by_r2_within: int | None = None
    best_probability: tuple[float, ...] = ()
    best_layers: tuple[int, ...] = ()
    p: float | None = None
    r2_nested: float | None = None
    r2_within_nested: float | None = None
    interval_nested: Interval | None = None
    interval_within_nested: Interval | None = None
    nested_layers: tuple[int, ...] = ()
    works: tuple[str, ...] = ()
    loss: tuple[float, ...] = ()
    mixture: Mixture | None = None
    caution: str | None = None
    reason: str | None = None


def score_layers(
    layers: Sequence[LayerPredictions], Y: Floats, rows: ProbeRows, resampled: Floats, unit: float
) -> ProbeResult:
    """Score all layers, the ones that are chosen among them, and their mixture.

    ``Y`` [m, q] are the standardised targets, ``resampled`` [R, n_works] how often each bootstrap
    resample takes each work, and ``unit`` the standard deviation of a single-column target.
    """
    everything = np.arange(rows.n_rows)
    tested = np.array([layer.values[everything, rows.folds] for layer in layers])
    nested = _choose_nested(layers, Y, rows)
    mixed, parts = _mix(layers, Y, rows)
    chosen = tested[nested[rows.folds], everything]
    measured = _Measured.of(Y, np.stack([*tested, chosen, mixed], axis=1), rows, resampled)
    correlations = [_correlation(Y, values) for values in tested]
    scores = _score_each(layers, measured, unit, correlations, _followed(Y, tested, rows))
    r2, r2_within = (overall[: len(layers)] for overall in (measured.r2, measured.r2_within))
    by_within = bool(np.isfinite(r2_within).all())
    best_by = int(r2.argmax()), int(r2_within.argmax()) if by_within else None
    best = scores[best_by[0] if best_by[1] is None else best_by[1]]
    primary = measured.resampled_within if by_within else measured.resampled
    probability = best_probability(primary[:, : len(layers)])
    p = [score.p_within if by_within else score.p for score in scores]
    of_nested, of_mixture = measured.column(-2), measured.column(-1)
    return ProbeResult(
        n_rows=rows.n_rows,
        n_works=rows.n_works,
        n_folds=rows.n_folds,
        primary="r2_within" if by_within else "r2",
        layers=scores,
        best_layer=best.layer,
        best_r2=best.r2,
        best_r2_within=best.r2_within,
        best_by_r2=best_by[0],
        best_by_r2_within=best_by[1],
        best_probability=probability,
        best_layers=likely_best(probability),
        p=min((value for value in p if value is not None), default=None),
        r2_nested=of_nested[0],
        r2_within_nested=of_nested[1],
        interval_nested=of_nested[2],
        interval_within_nested=of_nested[3],
        nested_layers=tuple(nested.tolist()),
        loss=tuple(measured.sums.loss(within=by_within)[:, -2].tolist()),
        mixture=Mixture(*of_mixture, tuple(parts.mean(axis=0).tolist())),
        caution=_caution(scores[best_by[0]]),
    )


@dataclass(frozen=True)
class _Measured:
    """Both R2 of K predictions, overall [K], per fold [k, K] and per resample [R, K]; RMSE [K]."""

    r2: Floats
    r2_within: Floats
    folds: Floats
    folds_within: Floats
    resampled: Floats
    resampled_within: Floats
    rmse: Floats
    sums: WorkSums

    @classmethod
    def of(cls, Y: Floats, predictions: Floats, rows: ProbeRows, resampled: Floats) -> "_Measured":
        sums = WorkSums.of(Y, predictions, rows)
        all_works = np.ones((1, rows.n_works))
        in_fold = (rows.work_folds == np.arange(rows.n_folds)[:, np.newaxis]).astype(np.float64)
        return cls(
            sums.r2(all_works)[0],
            sums.r2_within(all_works)[0],
            sums.r2(in_fold),
            sums.r2_within(in_fold),
            sums.r2(resampled),
            sums.r2_within(resampled),
            np.sqrt(sums.squared_errors.sum(axis=(0, 2)) / Y.size),
            sums,
        )

    def column(self, number: int) -> tuple[float, float | None, Interval | None, Interval | None]:
        """Return R2, R2 within works, and their intervals of one prediction."""
        n_works = len(self.sums.sizes)
        return (
            float(self.r2[number]),
            _defined(self.r2_within[number]),
            interval(self.r2[number], self.resampled[:, number], n_works),
            interval(self.r2_within[number], self.resampled_within[:, number], n_works),
        )


def _score_each(
    layers: Sequence[LayerPredictions],
    measured: _Measured,
    unit: float,
    correlations: Sequence[float | None],
    distances: Sequence[float | None],
) -> tuple[LayerScore, ...]:
    statistics = np.stack([layer.permuted for layer in layers], axis=1)
    p, p_within = (_p_values(values) for values in statistics)
    scores = []
    for number, layer in enumerate(layers):
        r2, r2_within, of_r2, of_within = measured.column(number)
        folds = [_defined(value) for value in measured.folds[:, number]]
        known = [value for value in folds if value is not None]
        permuted = layer.permuted[0, 1:]
        scores.append(
            LayerScore(
                layer=number,
                r2=r2,
                r2_within=r2_within,
                r2_folds=tuple(folds),
                r2_within_folds=tuple(map(_defined, measured.folds_within[:, number])),
                r2_std=float(np.std(known)) if len(known) > 1 else None,
                r2_min=min(known, default=None),
                interval=of_r2,
                interval_within=of_within,
                correlation=correlations[number],
                rmse=unit * float(measured.rmse[number]),
                alpha=sorted(layer.alphas)[(len(layer.alphas) - 1) // 2],
                alpha_folds=layer.alphas,
                p=p[number],
                p_within=p_within[number],
                selectivity=r2 - float(np.nanmean(permuted)) if permuted.size else None,
                distances=distances[number],
            )
        )
    return tuple(scores)


def _choose_nested(layers: Sequence[LayerPredictions], Y: Floats, rows: ProbeRows) -> Ints:
    """Return for each test fold the layer that predicts its training folds best [k]."""
    training = (rows.work_folds != np.arange(rows.n_folds)[:, np.newaxis]).astype(np.float64)
    inner = []
    for layer in layers:
        sums = WorkSums.of(Y, layer.values, rows)
        plain, within = (np.diagonal(r2(training)) for r2 in (sums.r2, sums.r2_within))
        inner.append(np.where(np.isnan(within), plain, within))
    return np.asarray(np.argmax(inner, axis=0))


def _mix(layers: Sequence[LayerPredictions], Y: Floats, rows: ProbeRows) -> tuple[Floats, Floats]:
    """Return the mixture's out-of-fold predictions [m, q] and the layers' parts in it [k, layers].

    Predictions and targets are taken as deviations from the mean of the rows that a prediction was
    learned from, so that weights of 0 predict that mean.
    """
    from scipy.optimize import nnls

    means = _training_means(Y, rows)
    mixed, parts = np.empty_like(Y), np.empty((rows.n_folds, len(layers)))
    for fold in range(rows.n_folds):
        both = np.stack([*(layer.values[:, fold] for layer in layers), Y], axis=-1)
        both -= means[:, fold, :, np.newaxis]
        test = rows.folds == fold
        # The triangle of a QR decomposition has the same least squares in few rows.
        triangle = np.asarray(np.linalg.qr(both[~test].reshape(-1, both.shape[-1]), mode="r"))
        weights, _ = nnls(triangle[:, :-1], triangle[:, -1])
        mixed[test] = means[test, fold] + both[test][..., :-1] @ weights
        parts[fold] = weights * both[~test][..., :-1].std(axis=0).mean(axis=0)
    return mixed, parts


def _training_means(Y: Floats, rows: ProbeRows) -> Floats:
    """Return the mean over all rows in neither the row's own fold nor the test fold [m, k, q]."""
    fold = np.arange(rows.n_folds)
    kept = ((fold != fold[:, np.newaxis, np.newaxis]) & (fold != fold[:, np.newaxis])).astype(float)
    sums = (rows.folds == fold[:, np.newaxis]).astype(float) @ Y
    sizes = kept @ np.bincount(rows.folds)
    return np.asarray((kept @ sums / sizes[:, :, np.newaxis])[rows.folds])


def _correlation(Y: Floats, predicted: Floats) -> float | None:
    centred = predicted - predicted.mean(axis=0)
    spread = centred.std(axis=0)
    varies = spread > _ROUNDING * np.abs(predicted).max(axis=0)
    if not varies.any():
        return None
    return float(((Y * centred).mean(axis=0)[varies] / spread[varies]).mean())


def _followed(Y: Floats, predicted: Floats, rows: ProbeRows) -> list[float | None]:
    """Return how far distances of predictions [K, m, q] follow the true ones, for each of K."""
    found = []
    for work in range(rows.n_works):
        mine = np.flatnonzero(rows.works == work)
        mine = mine[np.linspace(0, len(mine) - 1, min(len(mine), _PAIRED)).astype(int)]
        first, second = np.triu_indices(len(mine), 1)
        both = np.concatenate([Y[np.newaxis, mine], predicted[:, mine]])
        ranks = _ranks(np.linalg.norm(both[:, first] - both[:, second], axis=2))
        spread = np.sqrt(np.square(ranks).sum(axis=1))
        if len(mine) > 2 and spread[0] > 0:
            found.append((ranks[1:] @ ranks[0]) / np.maximum(spread[0] * spread[1:], _ROUNDING))
    return np.mean(found, axis=0).tolist() if found else [None] * len(predicted)


def _ranks(values: Floats) -> Floats:
    """Return each row's ranks, centred; where they do not differ by more than rounding, 0."""
    ranks = values.argsort(axis=1).argsort(axis=1) - (values.shape[1] - 1) / 2
    varies = np.ptp(values, axis=1, keepdims=True) > _ROUNDING if values.size else False
    return np.asarray(np.where(varies, ranks, 0.0))


def _p_values(statistics: Floats) -> list[float | None]:
    """Return each layer's p [layers]; None without permutations or without an own statistic."""
    if statistics.shape[1] == 1 or np.isnan(statistics[:, 0]).any():
        return [None] * len(statistics)
    return list(map(float, corrected_p(statistics)))


def _caution(score: LayerScore) -> str | None:
    """Say where the best R2 may come from knowing the works."""
    if score.interval is None or score.interval[0] <= 0:
        return None
    known = f"layer {score.layer} predicts the target of unheard works (R2 {score.r2:.2f})"
    if score.r2_within is None:
        return f"{known}; how works are played cannot be told apart: none has two different values"
    if score.interval_within is None or score.interval_within[0] <= 0:
        return (
            f"{known} but not its differences within works (R2 {score.r2_within:.2f}): it may know "
            "what is played, not how"
        )
    return None


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
