"""What R2 would be if targets had nothing to do with features: works exchange their targets.

*The null hypothesis* is that which targets a work has is independent of which features it has. Then
works may exchange their targets, all rows of a work together, and the statistic of the real target
is one draw among those of the permuted ones (Good 2005, ch. 3).

*The statistic* is the largest out-of-fold R2 over the penalties, each penalty the same in all
folds; likewise within works. It is computed in the same way for real and permuted targets; nothing
in it was chosen by looking at the real one. (The R2 that is reported chooses the penalty inside the
training folds. To repeat that choice for every permuted target would take k times as long.)

*Works of unequal length.* Works exchange only with those of like length: in the order of their
numbers of recordings and rows, groups of at least five (equal ones stay together). A work's
recordings get, in order and again from the first when there are more of them, those of the other
work, and a recording's rows get the other's rows at the same share of its length (a row may come
twice or not at all). So the order of time, the span over which targets change slowly, and the level
of each recording survive. Where the works of each group have the same numbers of recordings and
rows this is a plain exchange and the test is exact; else it is approximate. (Without groups it
misleads: with 1 to 4 recordings in a work, p values of unrelated targets had a mean of 0.42.)

*p values* are ``(1 + permuted targets whose statistic is at least the own) / (1 + permuted
targets)``, where a permuted target's statistic is its largest over all layers: this corrects for
looking at many layers (Westfall and Young 1993).

Squared errors come from sums, not from predictions: with ``c`` the coefficients in a training
union's basis, the error within the works of the held-out fold is ``y'y - 2 y'Zc + c'Z'Zc`` of
deviations from the works' means, and what is left is the error of the works' means.
"""

__all__ = ["PermutedTargets", "corrected_p", "exchange_works", "permuted_r2"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mess_core.probing.decompositions import FoldDecompositions, union_moment
from mess_core.probing.folds import ProbeRows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Fewer works have few permutations; more are less alike.
_GROUP = 5

# Statistics that differ by less are equal: they are computed in float32.
_TIE = 1e-6


def exchange_works(rows: ProbeRows, n_permutations: int, rng: np.random.Generator) -> Ints:
    """Let works exchange their rows' targets.

    Parameters
    ----------
    rows : ProbeRows
        The present rows, their works and recordings.
    n_permutations : int
        How often.
    rng : Generator
        Where permutations come from; the identity may be among them.

    Returns
    -------
    ndarray of int64 [shape=(n_permutations, m)]
        From which row each row gets its target.
    """
    order = np.lexsort((rows.recordings, rows.works))
    recording = np.concatenate([[0], np.cumsum(np.diff(rows.recordings[order]) != 0)])
    length = np.bincount(recording)
    start = np.cumsum(length) - length
    work = rows.works[order][start]
    n_recordings = np.bincount(work)
    first = np.cumsum(n_recordings) - n_recordings
    rank = np.arange(len(work)) - first[work]
    position = np.arange(len(order)) - start[recording]
    groups = _alike(n_recordings, rows.work_sizes)
    index = np.empty((n_permutations, len(order)), np.int64)
    for permuted in index:
        dealt = np.concatenate([rng.permutation(group) for group in groups])
        other = np.empty_like(dealt)
        other[np.concatenate(groups)] = dealt
        other = other[work]
        source = (first[other] + rank % n_recordings[other])[recording]
        permuted[order] = order[start[source] + position * length[source] // length[recording]]
    return index


def _alike(n_recordings: Ints, n_rows: Ints) -> list[Ints]:
    """Return groups of works of like length."""
    order = np.lexsort((n_rows, n_recordings))
    sizes = np.stack([n_recordings, n_rows])[:, order]
    cuts = [0]
    for number in range(_GROUP, len(order) - _GROUP + 1):
        if number - cuts[-1] >= _GROUP and (sizes[:, number] != sizes[:, number - 1]).any():
            cuts.append(number)
    return np.split(order, cuts[1:])


@dataclass(frozen=True)
class PermutedTargets:
    """The real target and its permutations, in C = (permutations + 1) * q columns.

    Attributes
    ----------
    values : ndarray of float32 [shape=(m, C)]
        First the q columns of the real target, then those of the first permutation, ...
    work_means : ndarray of float64 [shape=(n_works, C)]
        Their means over each work.
    within : ndarray of float64 [shape=(n_works, C)]
        Their sums of squares around these.
    n_columns : int
        q.
    """

    values: npt.NDArray[np.float32]
    work_means: Floats
    within: Floats
    n_columns: int

    @classmethod
    def of(cls, Y: Floats, rows: ProbeRows, index: Ints) -> "PermutedTargets":
        """Permute standardised targets ``[m, q]`` as `exchange_works` says."""
        real = np.arange(len(Y))[np.newaxis]
        values = Y.astype(np.float32)[np.concatenate([real, index])].transpose(1, 0, 2)
        values = np.ascontiguousarray(values.reshape(len(Y), -1))
        means = rows.sum_by_work(values) / rows.work_sizes[:, np.newaxis]
        within = rows.sum_by_work(values**2) - rows.work_sizes[:, np.newaxis] * means**2
        return cls(values, means, within, Y.shape[1])


def permuted_r2(
    targets: PermutedTargets,
    cross: npt.NDArray[np.float32],
    rows: ProbeRows,
    decompositions: FoldDecompositions,
    alphas: Sequence[float],
) -> Floats:
    """Return the statistics of the real and of all permuted targets for one layer.

    Parameters
    ----------
    targets : PermutedTargets
        C columns.
    cross : ndarray of float32 [shape=(k, D, C)]
        As `mess_core.probing.decompositions.union_moment` takes it.
    rows : ProbeRows
        The rows of these targets.
    decompositions : FoldDecompositions
        The layer's, of the same rows.
    alphas : sequence of float
        Penalties.

    Returns
    -------
    ndarray of float64 [shape=(2, permutations + 1)]
        The largest R2 over the penalties, and the largest within works; NaN where a permuted
        target does not vary.
    """
    within, between = np.zeros((2, len(alphas), cross.shape[2]))
    for fold in range(rows.n_folds):
        for error, part in zip(
            (within, between),
            _squared_errors(targets, cross, rows, decompositions, alphas, fold),
            strict=True,
        ):
            error += part
    total_within = targets.within.sum(axis=0)
    total_within[total_within < _TIE * rows.n_rows] = np.nan
    mean = np.average(targets.work_means, axis=0, weights=rows.work_sizes)
    total = targets.within.sum(axis=0) + rows.work_sizes @ (targets.work_means - mean) ** 2
    return np.array(
        [
            _largest(total, within + between, targets.n_columns),
            _largest(total_within, within, targets.n_columns),
        ]
    )


def _squared_errors(
    targets: PermutedTargets,
    cross: npt.NDArray[np.float32],
    rows: ProbeRows,
    decompositions: FoldDecompositions,
    alphas: Sequence[float],
    fold: int,
) -> tuple[Floats, Floats]:
    """Return a held-out fold's squared errors within works and of works' means [alphas, C]."""
    training = decompositions.training(fold)
    work_means = decompositions.work_means
    moment, mean = union_moment(cross, targets.work_means, rows, work_means, training, (fold,))
    basis = training.basis.astype(np.float32)
    solved = basis.T @ moment.astype(np.float32)
    held_out = basis.T @ (cross[fold] / training.scale[:, np.newaxis]).astype(np.float32)
    scatter = decompositions.within_scatter(fold)
    mine = rows.work_folds == fold
    weight = np.sqrt(rows.work_sizes[mine])[:, np.newaxis]
    works = (weight * training.standardise(work_means[mine])).astype(np.float32) @ basis
    truth = weight * (targets.work_means[mine] - mean)
    errors = []
    for alpha in alphas:
        shrunk = solved / (training.values + alpha).astype(np.float32)[:, np.newaxis]
        product = (shrunk * (scatter @ shrunk - 2 * held_out)).sum(axis=0, dtype=np.float64)
        missed = ((truth - works @ shrunk) ** 2).sum(axis=0)
        errors.append((targets.within[mine].sum(axis=0) + product, missed))
    within, between = (np.array(arrays) for arrays in zip(*errors, strict=True))
    return within, between


def _largest(total: Floats, error: Floats, n_columns: int) -> Floats:
    """Return the largest R2 over penalties [permutations + 1] of errors [alphas, C]."""
    return np.asarray(
        (1 - error / total).reshape(len(error), -1, n_columns).mean(axis=2).max(axis=0)
    )


def corrected_p(statistics: Floats) -> Floats:
    """Return p values that are corrected for looking at many layers.

    Parameters
    ----------
    statistics : ndarray [shape=(layers, permutations + 1)]
        The real target's first. A permuted target that has none counts as large.

    Returns
    -------
    ndarray of float64 [shape=(layers,)]
        At least 1 / (permutations + 1).
    """
    own, permuted = statistics[:, :1], statistics[:, 1:].max(axis=0)
    exceed = ~(permuted < own - _TIE * np.maximum(1, np.abs(own)))
    return np.asarray((1 + exceed.sum(axis=1)) / statistics.shape[1])
