"""Coordinates of an aspect: the few numbers that are read of it from a window.

An aspect's true targets are columns ``Y [n, q]``, standardised, a shape's columns weighted so that
it counts as one target. They are the aspect's own source (`mess_core.probing.aspects`), or are
predicted by ridge regression from the features of the aspect's layer, or from its audio targets,
with the penalty that probing chose. What is read, ``Z B``, mostly varies along fewer directions
than q. Reduced-rank ridge regression (Mukherjee and Zhu 2011, "Reduced rank ridge regression and
its kernel extensions", with the identity as weights) keeps the best of them: with ``Z B = U S V'``
the coordinates are ``Z B V_r``, centred and, where they are probed, of variance 1 each. A component
is kept when it has at least `SMALLEST_SHARE` of the variance; there are at most `LARGEST_RANK`.
Sources that stand in predict the same coordinates. An undefined value counts as the corpus mean.

Where the aspect has a direction (`mess_core.probing.aspects.Aspect.more`), its *value* is the mean
of its standardised targets, signed such that more of the value is more of the aspect, in standard
deviations. Its *standard error* is the root mean square error of the same readout in
cross-validation over folds that share no work. What is averaged over a recording's rows errs less
than each of them. A true target has no such error: `MEASURED_STEP` stands for it.
"""

__all__ = [
    *("GOOD_SHARE", "LARGEST_RANK", "MEASURED_STEP", "SMALLEST_SHARE"),
    *("AspectCoordinates", "fit_coordinates", "musical_layers"),
]

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from scipy.linalg import block_diag
from threadpoolctl import threadpool_limits

from mess_core.files import read_json
from mess_core.layout import ENCODER
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.probing.decompositions import (
    FoldDecompositions,
    RidgeDecomposition,
    decompose,
    decompose_folds,
)
from mess_core.probing.discovery import LayerDiscoverySystem, fill
from mess_core.probing.folds import Bools, Floats, ProbeRows, plan_rows
from mess_core.probing.results import read_results, score_r2
from mess_core.progress import Report, counted
from mess_core.targets.npz import columns_of
from mess_core.targets.registry import PROBED, Level

#: Dimensions of an aspect at most, and the share of the predictions' variance that one must have.
LARGEST_RANK, SMALLEST_SHARE = 4, 0.02

#: What "more" of a measured aspect asks for, in standard deviations: as the standard error of a
#: probe with an R2 of 0.75.
MEASURED_STEP = 0.5

# A spread below this share of a value's size is rounding, not variation.
_ROUNDING = 1e-12

#: Share of the best layer's mean R2 that a layer needs to count in general similarity. Chosen on
#: the demo and on rendered performances (docs/search.md), where all layers together do worse.
GOOD_SHARE = 0.85


@dataclass(frozen=True, eq=False)
class AspectCoordinates:
    """How to read an aspect from the features of its layer, and from measured targets.

    From features [D] coordinates are ``(x - mean) @ readout`` [r]; from measured columns [c] they
    are ``(m - column_means) @ measured``, with those columns alone that the source has. ``layer``
    is -1 and the readout 0 where the probe is none of the ``sources``. The value is ``coordinates @
    value``, in standard deviations of the true value; ``standard_error``, in the same unit, is its
    error on works that were not learned from. Both are None where the aspect has no direction.
    """

    name: str
    layer: int
    readout: Floats
    mean: Floats
    value: Floats | None
    standard_error: float | None
    sources: tuple[str, ...] = (PROBED,)
    columns: tuple[str, ...] = ()
    column_means: Floats = field(default_factory=lambda: np.zeros(0))
    measured: Floats = field(default_factory=lambda: np.zeros((0, 1)))


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

    ``averaged`` says whether standard errors are of recordings' means over their rows. Raises
    `ProbingError`, `StorageError` or `TargetError` if results, features or targets are missing or
    damaged.
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
    first = entry["sources"][0]
    measured: Level = "recording" if averaged else "window"
    level = None if first == PROBED else measured
    targets = [_Target.load(discovery, target, level) for target in entry["truth"]["targets"]]
    sources = {s: _open(discovery, entry, s, targets, results, level) for s in entry["sources"]}
    to, basis = _reduce(sources[first], equal=first == PROBED)
    nothing = np.zeros(0), np.zeros((0, to.shape[1]))
    read = {name: (s.rows.mean(axis=0), s.slopes @ to) for name, s in sources.items()}
    mean, readout = read.pop(PROBED, nothing)
    value, error = None, None
    sign = ASPECT_REGISTRY[name].more if name in ASPECT_REGISTRY else 0
    if sign and all(target.columns.shape[1] == 1 for target in targets):
        value, error = _judge(discovery, sources[first], targets, basis, averaged)
        value = sign * value
    return AspectCoordinates(
        name,
        int(entry["layer"]) if PROBED in sources else -1,
        readout,
        mean,
        value,
        error,
        tuple(sources),
        tuple(column for source in sources for column in _columns(entry, source)),
        *map(np.concatenate, zip(nothing, *read.values(), strict=True)),
    )


@dataclass(frozen=True)
class _Target:
    """One target's standardised columns [n, q]; NaN where absent."""

    name: str
    columns: Floats
    #: What turns its raw columns into these, but for their mean [q, q].
    scaling: Floats

    @classmethod
    def load(
        cls, discovery: LayerDiscoverySystem, name: str, level: Level | None = None
    ) -> "_Target":
        values = discovery.load_targets(name, level)
        columns = values.reshape(len(values), -1)
        mean, spread = np.nanmean(columns, axis=0), np.nanstd(columns, axis=0)
        # A column that does not vary has nothing to be predicted.
        varies = spread > _ROUNDING * np.abs(mean)
        scale = 1 / np.where(varies, spread, np.inf) / np.sqrt(columns.shape[1])
        return cls(name, (columns - mean) * scale, np.diag(scale))

    @property
    def present(self) -> Bools:
        return np.asarray(np.isfinite(self.columns).all(axis=1))

    def slopes(self, X: Floats, alpha: float) -> Floats:
        """Return the coefficients [D, q] for raw rows, learned from those that have it."""
        kept = self.present
        Y = self.columns[kept]
        training = decompose(X[kept])
        return _slopes(training, X[kept].T @ (Y - Y.mean(axis=0)), alpha)


@dataclass(frozen=True)
class _Source:
    """What an aspect is read from: rows [n, D], and the slopes [D, q] of the targets' columns.

    Where these were learned: each target's penalty, and the decompositions of some rows.
    """

    rows: Floats
    slopes: Floats
    alphas: Sequence[float] = ()
    decompose: Callable[[ProbeRows], FoldDecompositions] | None = None


def _open(
    discovery: LayerDiscoverySystem,
    entry: Mapping[str, Any],
    source: str,
    targets: Sequence[_Target],
    results: Mapping[str, Any],
    level: Level | None,
) -> _Source:
    if source == PROBED:
        features = discovery.features[ENCODER][entry["layer"]]
        rows, known = features.rows.astype(np.float64), features.decompose
        alphas = [results[target.name]["layers"][entry["layer"]]["alpha"] for target in targets]
    else:
        rows = fill(discovery.load_columns(_columns(entry, source), level))
        if source == entry["truth"]["source"]:
            return _Source(rows, block_diag(*(target.scaling for target in targets)))
        known = partial(decompose_folds, rows)
        alphas = [entry["agreement"][source]["alphas"][target.name] for target in targets]
    slopes = [target.slopes(rows, alpha) for target, alpha in zip(targets, alphas, strict=True)]
    return _Source(rows, np.column_stack(slopes), alphas, partial(known, nested=False))


def _columns(entry: Mapping[str, Any], source: str) -> tuple[str, ...]:
    truth = entry["truth"]
    if source == PROBED:
        return ()
    return columns_of(truth["targets"] if source == truth["source"] else entry["measures"][source])


def _slopes(training: RidgeDecomposition, products: Floats, alpha: float) -> Floats:
    """Return the coefficients for raw rows from the products ``X'y`` of centred targets."""
    moment = products / training.scale[:, np.newaxis]
    solved = training.solve(moment, [alpha])[:, 0]
    return np.asarray(solved / training.scale[:, np.newaxis])


def _reduce(source: _Source, *, equal: bool) -> tuple[Floats, Floats]:
    """Keep the directions along which what is read of the targets' columns [n, q] varies.

    Returns what turns columns into coordinates [q, r], and the basis [q, r] with columns
    ``coordinates @ basis.T``.
    """
    columns = (source.rows - source.rows.mean(axis=0)) @ source.slopes
    _, strengths, directions = np.linalg.svd(columns, full_matrices=False)
    share = strengths**2 / np.maximum(np.square(strengths).sum(), np.finfo(float).tiny)
    rank = max(1, min(LARGEST_RANK, int((share >= SMALLEST_SHARE).sum())))
    spread = np.maximum(strengths[:rank] / np.sqrt(len(columns)), np.finfo(float).tiny)
    spread = spread if equal else np.ones(rank)
    kept = directions[:rank].T
    return kept / spread, kept * spread


def _judge(
    discovery: LayerDiscoverySystem,
    source: _Source,
    targets: Sequence[_Target],
    basis: Floats,
    averaged: bool,
) -> tuple[Floats, float]:
    """Return how the value is read from coordinates, and the readout's error on unheard works."""
    mean_of = basis.T @ np.full(len(basis), 1 / len(basis))
    if source.decompose is None:
        own = (source.rows - source.rows.mean(axis=0)) @ source.slopes
        return mean_of / (own.mean(axis=1).std() or np.inf), MEASURED_STEP
    present = np.logical_and.reduce([target.present for target in targets])
    rows = plan_rows(discovery.works, discovery.folds, present, discovery.names)
    Y = np.column_stack([target.columns for target in targets])[rows.indices]
    X = source.rows[rows.indices]
    decompositions = source.decompose(rows)
    # What the kept directions say of the mean of all targets, before its scale.
    read = basis @ np.linalg.pinv(basis) @ np.full(Y.shape[1], 1 / Y.shape[1])
    truth, predicted = Y.mean(axis=1), np.empty(len(Y))
    for fold in range(rows.n_folds):
        training, out = decompositions.training(fold), rows.folds == fold
        mean = Y[~out].mean(axis=0)
        others = np.where(out[:, np.newaxis], 0.0, Y - mean)
        products = np.hsplit(X.T @ others, len(targets))
        slopes = np.column_stack(
            [_slopes(training, p, alpha) for p, alpha in zip(products, source.alphas, strict=True)]
        )
        predicted[out] = mean.mean() + (X[out] - training.mean) @ slopes @ read
    scale = truth.std()
    wrong = truth - predicted
    if averaged:
        wrong = np.bincount(rows.recordings, wrong) / np.bincount(rows.recordings)
    return mean_of / scale, float(np.sqrt(np.square(wrong).mean()) / scale)
