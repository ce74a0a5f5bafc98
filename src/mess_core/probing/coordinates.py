"""Coordinates of an aspect: the few numbers that its probes read from a window's features.

An aspect's targets (columns ``Y [n, q]``, standardised, a shape's columns weighted so that it
counts as one target) are predicted by ridge regression from the features of the aspect's layer,
each with the penalty that probing chose. The predictions ``Z B`` mostly vary along fewer directions
than q. Reduced-rank ridge regression (Mukherjee and Zhu 2011, "Reduced rank ridge regression and
its kernel extensions", with the identity as weights) keeps the best of them: with ``Z B = U S V'``
the coordinates are ``Z B V_r``, centred and of variance 1 each over the rows. A component is kept
when it has at least `SMALLEST_SHARE` of the predictions' variance, and there are at most
`LARGEST_RANK`.

Where the aspect has a direction (`mess_core.probing.aspects.Aspect.more`), its *value* is the mean
of its standardised targets, signed such that more of the value is more of the aspect, in standard
deviations. The predicted value is linear in the coordinates. Its *standard error* is the root mean
square error of the same readout in cross-validation: learned without a fold and judged on it. Folds
share no work. What is averaged over a recording's rows errs less than each of them.
"""

__all__ = [
    "GOOD_SHARE",
    "LARGEST_RANK",
    "SMALLEST_SHARE",
    "AspectCoordinates",
    "fit_coordinates",
    "musical_layers",
]

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mess_core.files import read_json
from mess_core.layout import ENCODER
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.probing.decompositions import LayerFeatures, RidgeDecomposition, decompose
from mess_core.probing.discovery import LayerDiscoverySystem
from mess_core.probing.folds import Bools, Floats, plan_rows
from mess_core.probing.results import read_results, score_r2
from mess_core.progress import Report, counted

#: Dimensions of an aspect at most, and the share of the predictions' variance that one must have.
LARGEST_RANK, SMALLEST_SHARE = 4, 0.02

#: Share of the best layer's mean R2 that a layer needs to count in general similarity. Chosen on
#: the demo and on rendered performances (docs/search.md), where all layers together do worse.
GOOD_SHARE = 0.85


@dataclass(frozen=True, eq=False)
class AspectCoordinates:
    """How to read an aspect from the features of its layer.

    Coordinates are ``(x - mean) @ readout`` [r], of variance 1 over the rows, with their ``mean``
    [D] and a ``readout`` [D, r]. The predicted value is ``coordinates @ value``, in standard
    deviations of the true value; ``standard_error``, in the same unit, is its error on works that
    were not learned from. Both are None where the aspect has no direction.
    """

    name: str
    layer: int
    readout: Floats
    mean: Floats
    value: Floats | None
    standard_error: float | None


def musical_layers(results: Iterable[Mapping[str, Any]]) -> list[int]:
    """Return the layers that know most about music, of probing results; empty when none does.

    A layer's knowledge is its mean R2 over targets, within works where there is such a one;
    negative ones count as 0. Layers with at least `GOOD_SHARE` of the best are returned.
    """
    probed = [result["layers"] for result in results if result["layers"]]
    known = [[max(0.0, score_r2(score)) for score in layers] for layers in probed]
    means = np.mean(known, axis=0) if known else np.zeros(0)
    good = means >= GOOD_SHARE * means.max(initial=0.0)
    return [int(layer) for layer in np.flatnonzero(good & (means > 0))]


def fit_coordinates(
    discovery: LayerDiscoverySystem, *, averaged: bool = False, progress: Report | None = None
) -> list[AspectCoordinates]:
    """Fit the coordinates of every aspect that the aspect map has resolved, in its order.

    ``averaged`` says whether standard errors are of recordings' means over their rows.

    Raises
    ------
    ProbingError, StorageError, TargetError
        If results, features or targets are missing or damaged.
    """
    layout = discovery.layout
    aspects = read_json(layout.aspects)["aspects"]
    chosen = {name: entry for name, entry in aspects.items() if entry["resolved"]}
    used = {target for entry in chosen.values() for target in entry["targets"]}
    results = read_results(layout.probing, sorted(used)) if used else {}
    with threadpool_limits(limits=1, user_api="blas"):
        return [
            _fit(discovery, name, chosen[name], results, averaged)
            for name in counted(chosen, progress)
        ]


def _fit(
    discovery: LayerDiscoverySystem,
    name: str,
    entry: Mapping[str, Any],
    results: Mapping[str, Any],
    averaged: bool,
) -> AspectCoordinates:
    layer = int(entry["layer"])
    features = discovery.features[ENCODER][layer]
    targets = [
        _Target.load(discovery, target, float(results[target]["layers"][layer]["alpha"]))
        for target in entry["targets"]
    ]
    X = features.rows.astype(np.float64)
    mean = X.mean(axis=0)
    slopes = np.column_stack([target.slopes(X) for target in targets])
    readout, basis = _reduce(X - mean, slopes)
    sign = ASPECT_REGISTRY[name].more if name in ASPECT_REGISTRY else 0
    if not sign or any(target.columns.shape[1] > 1 for target in targets):
        return AspectCoordinates(name, layer, readout, mean, None, None)
    value, error = _judge(discovery, features, targets, basis, averaged)
    return AspectCoordinates(name, layer, readout, mean, sign * value, error)


@dataclass(frozen=True)
class _Target:
    """One target's standardised columns [n, q] (NaN where absent), and its ridge penalty."""

    columns: Floats
    alpha: float

    @classmethod
    def load(cls, discovery: LayerDiscoverySystem, name: str, alpha: float) -> "_Target":
        values = discovery.load_targets(name)
        columns = values.reshape(len(values), -1)
        spread = np.nanstd(columns, axis=0)
        centred = columns - np.nanmean(columns, axis=0)
        # A column that does not vary has nothing to be predicted.
        scaled = centred / np.where(spread > 0, spread, np.inf) / np.sqrt(columns.shape[1])
        return cls(scaled, alpha)

    @property
    def present(self) -> Bools:
        return np.asarray(np.isfinite(self.columns).all(axis=1))

    def slopes(self, X: Floats) -> Floats:
        """Return the coefficients [D, q] for raw features, learned from the rows that have it."""
        kept = self.present
        Y = self.columns[kept]
        training = decompose(X[kept])
        return _slopes(training, X[kept].T @ (Y - Y.mean(axis=0)), self.alpha)


def _slopes(training: RidgeDecomposition, products: Floats, alpha: float) -> Floats:
    """Return the coefficients for raw features from the products ``X'y`` of centred targets."""
    moment = products / training.scale[:, np.newaxis]
    solved = training.solve(moment, [alpha])[:, 0]
    return np.asarray(solved / training.scale[:, np.newaxis])


def _reduce(centred: Floats, slopes: Floats) -> tuple[Floats, Floats]:
    """Keep the directions along which predictions vary.

    Returns the readout [D, r], and the basis [q, r] with predictions ``coordinates @ basis.T``.
    """
    predicted = centred @ slopes
    _, strengths, directions = np.linalg.svd(predicted, full_matrices=False)
    share = strengths**2 / np.maximum(np.square(strengths).sum(), np.finfo(float).tiny)
    rank = max(1, min(LARGEST_RANK, int((share >= SMALLEST_SHARE).sum())))
    spread = np.maximum(strengths[:rank] / np.sqrt(len(centred)), np.finfo(float).tiny)
    kept = directions[:rank].T
    return slopes @ kept / spread, kept * spread


def _judge(
    discovery: LayerDiscoverySystem,
    features: LayerFeatures,
    targets: Sequence[_Target],
    basis: Floats,
    averaged: bool,
) -> tuple[Floats, float]:
    """Return how the value is read from coordinates, and the readout's error on unheard works."""
    present = np.logical_and.reduce([target.present for target in targets])
    rows = plan_rows(discovery.works, discovery.folds, present, discovery.names)
    Y = np.column_stack([target.columns for target in targets])[rows.indices]
    X = np.asarray(features.rows[rows.indices], float)
    decompositions = features.decompose(rows, nested=False)
    # What the kept directions say of the mean of all targets, before its scale.
    read = basis @ np.linalg.pinv(basis) @ np.full(Y.shape[1], 1 / Y.shape[1])
    truth, predicted = Y.mean(axis=1), np.empty(len(Y))
    for fold in range(rows.n_folds):
        training, out = decompositions.training(fold), rows.folds == fold
        mean = Y[~out].mean(axis=0)
        others = np.where(out[:, np.newaxis], 0.0, Y - mean)
        products = X.T @ others
        columns = zip(np.hsplit(products, len(targets)), targets, strict=True)
        slopes = np.column_stack([_slopes(training, p, target.alpha) for p, target in columns])
        predicted[out] = mean.mean() + (X[out] - training.mean) @ slopes @ read
    scale = truth.std()
    wrong = truth - predicted
    if averaged:
        wrong = np.bincount(rows.recordings, wrong) / np.bincount(rows.recordings)
    error = float(np.sqrt(np.square(wrong).mean()) / scale)
    return basis.T @ np.full(len(basis), 1 / len(basis)) / scale, error
