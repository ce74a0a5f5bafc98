"""Stability of probing results over folds.

Each fold tests on works of its own. A result is stable when R2 is about the same in every fold,
and when the folds rank the layers alike.

*Kendall's W* (Kendall and Babington Smith 1939) is the concordance of m folds that each rank n
layers by R2, the best first. With ``R`` the sum of each layer's ranks and ``S`` the sum of squared
deviations of R from its mean::

    W = 12 S / (m^2 (n^3 - n) - m T)

where T sums ``t^3 - t`` over all groups of t tied layers of all folds. 0: the folds have nothing in
common; 1: they agree. Its p value is the share of 1,999 random rankings (each fold's ranks shuffled
by themselves, seeded by the target's name) with a W at least as large, counting the observed one.
Folds share training rows, which makes them agree: a small p says that the ranking is not random,
not that it holds in another corpus.
"""

__all__ = ["Concordance", "kendall_w", "stability_table"]

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import ProbingError
from mess_core.probing.results import score_r2

_PERMUTATIONS = 1999

# Two values of W from the same ranks in another order may differ by this much.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Concordance:
    """How far raters agree.

    Attributes
    ----------
    w : float
        Kendall's W, 0 to 1.
    p : float
        Its p value by permutation.
    """

    w: float
    p: float


def kendall_w(
    values: npt.ArrayLike, *, n_permutations: int = _PERMUTATIONS, seed: int = 0
) -> Concordance | None:
    """Measure how far folds rank layers alike.

    Parameters
    ----------
    values : array_like [shape=(m, n)]
        A figure of each of n layers in each of m folds; only its order in a fold counts.
    n_permutations : int
        Random rankings for the p value.
    seed : int
        Of these.

    Returns
    -------
    Concordance or None
        None for fewer than two folds or layers, or where every fold ties all layers.

    Raises
    ------
    ProbingError
        If the values are no matrix or not finite.
    """
    from scipy.stats import rankdata

    matrix = np.asarray(values, float)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ProbingError(f"values {matrix.shape} must be finite [folds, layers]")
    m, n = matrix.shape
    if m < 2 or n < 2 or not np.ptp(matrix, axis=1).any():
        return None
    ranks = rankdata(matrix, axis=1)
    largest = m**2 * (n**3 - n) - m * _ties(matrix)
    w = 12 * _spread(ranks.sum(axis=0)) / largest
    rng = np.random.default_rng(seed)
    sums = np.zeros((n_permutations, n))
    for fold in ranks:
        sums += rng.permuted(np.tile(fold, (n_permutations, 1)), axis=1)
    reached = 12 * _spread(sums) / largest >= w - _ROUNDING
    return Concordance(float(w), float((1 + reached.sum()) / (1 + n_permutations)))


def stability_table(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Describe how stable the results of targets are over folds.

    Parameters
    ----------
    results : iterable of dict
        Probing results (`mess_core.probing.results`).

    Returns
    -------
    list of dict
        Per target ``target``, ``category``, ``measure`` (``r2_within``, or ``r2`` where no work has
        rows that differ: which R2 all figures are of), ``n_folds``, ``best_layer``, its ``r2``,
        ``r2_folds``, ``r2_std``, ``r2_min`` and ``r2_max`` over them, ``kendall_w`` and
        ``kendall_p`` of the ranking of all layers, ``best_layer_folds`` (each fold's best layer)
        and ``agreement`` (the share of folds whose best layer is ``best_layer``). None where a
        target was not probed; folds in which it does not vary are left out.
    """
    return [_row(result) for result in results]


def _row(result: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"target": result["target"], "category": result["category"]}
    best = result["best_layer"]
    if best is None:
        return row | dict.fromkeys(_FIGURES)
    measure = result["primary"]
    folds = _layers_by_fold(result["layers"], measure)
    of_best = folds[:, best].tolist()
    winners = folds.argmax(axis=1).tolist()
    seed = int.from_bytes(hashlib.sha256(result["target"].encode()).digest()[:8], "little")
    concordance = kendall_w(folds, seed=seed)
    figures = (
        measure,
        len(folds),
        best,
        score_r2(result["layers"][best]),
        of_best,
        float(np.std(of_best)) if len(of_best) > 1 else None,
        min(of_best, default=None),
        max(of_best, default=None),
        concordance and concordance.w,
        concordance and concordance.p,
        winners,
        winners.count(best) / len(winners) if winners else None,
    )
    return row | dict(zip(_FIGURES, figures, strict=True))


_FIGURES = (
    "measure",
    "n_folds",
    "best_layer",
    "r2",
    "r2_folds",
    "r2_std",
    "r2_min",
    "r2_max",
    "kendall_w",
    "kendall_p",
    "best_layer_folds",
    "agreement",
)


def _layers_by_fold(layers: Sequence[Mapping[str, Any]], measure: str) -> npt.NDArray[np.float64]:
    """Return R2 ``[folds, layers]`` of those folds where it is defined."""
    values = np.array([layer[f"{measure}_folds"] for layer in layers], float).T
    return np.asarray(values[np.isfinite(values).all(axis=1)])


def _spread(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    deviations = sums - sums.mean(axis=-1, keepdims=True)
    return np.asarray((deviations**2).sum(axis=-1))


def _ties(matrix: npt.NDArray[np.float64]) -> int:
    """Sum ``t^3 - t`` over the groups of t equal values of each row."""
    counts = [np.unique(row, return_counts=True)[1] for row in matrix]
    return int(sum((count**3 - count).sum() for count in counts))
