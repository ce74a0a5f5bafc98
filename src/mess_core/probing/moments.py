"""Everything that probing needs to know about one layer's features, whatever the target.

With k folds the nested scheme trains on all folds minus one (to test) and on all folds minus two
(to choose by): k(k + 1)/2 *training unions*. Each has its `RidgeDecomposition`, of which a target
needs nothing but ``Z'y``. They are made once per layer and kept (`FoldDecompositions.save`).

*More rows than columns.* Rows are read twice, in blocks: once for the mean of each work, once for
the scatter of each fold around its works' means. Everything else is sums of these: a fold's
scatter is that within its works plus that of the works' means; a union's is that of its folds plus
that of the folds' means. (Adding up what is in a union says the same as subtracting from the total
what is not, costs as little, and cancels no digits.) *More columns than rows:* the union's rows are
read, and the eigenvectors are those of ``ZZ'``.

For permutation tests, which need squared errors of hundreds of targets but no predictions, the
scatter within works of each held-out fold is kept too, in the basis of the union that does not hold
it: the squared error of coefficients in that basis is a quadratic form in them. It is float32,
good for comparing errors with each other.

At 20,000 rows of 768 numbers in 5 folds a layer's file has 83 MB.
"""

__all__ = ["FoldDecompositions", "decompose_folds", "row_blocks", "union_moment"]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile
from threadpoolctl import threadpool_limits

from mess_core.errors import ProbingError, StorageError
from mess_core.files import atomic_path
from mess_core.probing.folds import ProbeRows
from mess_core.probing.ridge import RidgeDecomposition, decompose, decompose_scatter
from mess_core.progress import Report, counted

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Features = npt.NDArray[np.floating]

# Rows that are converted to float64 at a time: 25 MB of 768 columns.
_BLOCK = 4096

_PARTS = ("mean", "scale", "basis", "values")

# What reading a file raises that is no archive, another archive, or half of one.
_DAMAGE = (ValueError, EOFError, OSError, BadZipFile, LookupError)


class FoldDecompositions:
    """The training unions' decompositions of one layer.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        As `decompose_folds` makes them and `load` finds them, each asked for when it is used.

    Attributes
    ----------
    digest : str
        `ProbeRows.digest` of the rows that were decomposed.
    work_means : ndarray of float64 [shape=(n_works, D)]
        Mean features of each work.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._arrays = arrays
        self.digest = str(arrays["digest"])
        self.work_means: Floats = arrays["work_means"]

    def training(self, *out: int) -> RidgeDecomposition:
        """Return the decomposition of all rows but those of one or two folds, in rising order."""
        return RidgeDecomposition(*(self._arrays[f"{part}/{_name(out)}"] for part in _PARTS))

    def within_scatter(self, fold: int) -> npt.NDArray[np.float32]:
        """Return a fold's scatter around its works' means, seen by the union of all other folds.

        Returns
        -------
        ndarray of float32 [shape=(r, r)]
            ``(D V)'(D V)``, with ``V`` the union's basis and ``D`` the deviations of the fold's
            rows from the means of their works, divided by the union's scale.
        """
        return self._arrays[f"within/{fold}"]

    def save(self, path: Path) -> None:
        """Write everything to an ``.npz`` file without pickle, whole or not at all.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        with atomic_path(path) as temporary:
            np.savez(temporary, **dict[str, Any](self._arrays))

    @classmethod
    def load(cls, path: Path) -> "FoldDecompositions":
        """Open a file that `save` wrote; its arrays are read when they are used.

        Raises
        ------
        StorageError
            If the file is missing or damaged, now or when an array is used.
        """
        return cls(_Archive(path))


class _Archive(Mapping[str, npt.NDArray[Any]]):
    """An ``.npz`` file, opened anew for each array: it may be one of thousands."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getitem__(self, key: str) -> npt.NDArray[Any]:
        with self._open() as archive:
            return np.asarray(archive[key])

    def __iter__(self) -> Iterator[str]:
        with self._open() as archive:
            yield from archive.files

    def __len__(self) -> int:
        with self._open() as archive:
            return len(archive.files)

    @contextmanager
    def _open(self) -> Iterator[NpzFile]:
        try:
            with self._path.open("rb") as file, NpzFile(file, allow_pickle=False) as archive:
                yield archive
        except FileNotFoundError:
            raise StorageError(f"{self._path} does not exist; decompose its layer first") from None
        except _DAMAGE as error:
            raise StorageError(
                f"{self._path} holds no decompositions ({error}); delete it and decompose again"
            ) from None


def decompose_folds(
    X: Features, rows: ProbeRows, *, progress: Report | None = None
) -> FoldDecompositions:
    """Decompose all training unions of one layer.

    Parameters
    ----------
    X : ndarray [shape=(n, D)]
        Features of all rows, present or not; may be memory-mapped, is read in blocks.
    rows : ProbeRows
        Which rows are present, and their works and folds.
    progress : callable, optional
        Called with the decompositions done, those in all, and the folds left out of the last.

    Returns
    -------
    FoldDecompositions

    Raises
    ------
    ProbingError
        If the features are no matrix of that many rows, or those of a present row are not finite.
    """
    if X.ndim != 2 or len(X) != len(rows.present) or not X.shape[1]:
        raise ProbingError(
            f"features have the shape {X.shape}, expected [{len(rows.present)}, dims]"
        )
    # These matrices are small: threads of BLAS wait for each other longer than they compute, and
    # jobs of other layers run beside this one.
    with threadpool_limits(limits=1, user_api="blas"):
        return FoldDecompositions(dict(_decomposed(X, rows, progress)))


def row_blocks(X: Features, rows: ProbeRows) -> Iterator[tuple[int, Ints, Floats]]:
    """Read the present rows in blocks of one fold each.

    Parameters
    ----------
    X : ndarray [shape=(n, D)]
        Features of all rows.
    rows : ProbeRows
        Which of them are present.

    Yields
    ------
    tuple of (int, ndarray of int64 [shape=(b,)], ndarray of float64 [shape=(b, D)])
        The fold, the positions among the present rows, and the features.
    """
    for fold in range(rows.n_folds):
        positions = np.flatnonzero(rows.folds == fold)
        for block in np.split(positions, range(_BLOCK, len(positions), _BLOCK)):
            yield fold, block, X[rows.indices[block]].astype(np.float64)


def union_moment(
    cross: Features,
    target_means: Floats,
    rows: ProbeRows,
    work_means: Floats,
    training: RidgeDecomposition,
    out: tuple[int, ...],
) -> tuple[Floats, Floats]:
    """Put together what a training union says about targets from what its folds and works say.

    Parameters
    ----------
    cross : ndarray [shape=(k, D, q)]
        Per fold the products, summed over rows, of the features' deviations from the means of their
        works and the targets.
    target_means, work_means : ndarray [shape=(n_works, q)], ndarray [shape=(n_works, D)]
        Mean targets and features of each work.
    rows : ProbeRows
        The rows that these are of.
    training : RidgeDecomposition
        Of the union.
    out : tuple of int
        The folds that are not in the union.

    Returns
    -------
    tuple of (ndarray of float64 [shape=(D, q)], ndarray of float64 [shape=(q,)])
        ``Z'y`` of the union's standardised features, and the targets' means in it.
    """
    kept = ~np.isin(rows.work_folds, out)
    sizes = rows.work_sizes[kept]
    mean = np.average(target_means[kept], axis=0, weights=sizes)
    deviations = (work_means[kept] - training.mean) * sizes[:, np.newaxis]
    moment = deviations.T @ (target_means[kept] - mean)
    moment += sum(cross[fold] for fold in range(rows.n_folds) if fold not in out)
    return moment / training.scale[:, np.newaxis], mean


def _decomposed(
    X: Features, rows: ProbeRows, progress: Report | None
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    means = _work_means(X, rows)
    yield "digest", np.array(rows.digest)
    yield "work_means", means
    sizes = np.bincount(rows.folds)
    unions = [*((i,) for i in range(len(sizes))), *combinations(range(len(sizes)), 2)]
    wide = {out for out in unions if rows.n_rows - sizes[list(out)].sum() < X.shape[1]}
    sums = _FoldSums.of(X, rows, means) if len(wide) < len(unions) else None
    for out in counted(unions, progress, _name):
        if sums is None or out in wide:
            training = decompose(X[rows.indices[~np.isin(rows.folds, out)]].astype(np.float64))
        else:
            training = sums.decompose(out)
        yield from ((f"{part}/{_name(out)}", getattr(training, part)) for part in _PARTS)
        if len(out) == 1:
            seen = training.basis / training.scale[:, np.newaxis]
            if sums is None:
                mine = rows.folds == out[0]
                coordinates = (X[rows.indices[mine]] - means[rows.works[mine]]) @ seen
                within = coordinates.T @ coordinates
            else:
                within = seen.T @ sums.within[out[0]] @ seen
            yield f"within/{out[0]}", within.astype(np.float32)


def _work_means(X: Features, rows: ProbeRows) -> Floats:
    sums = np.zeros((rows.n_works, X.shape[1]))
    for _, block, values in row_blocks(X, rows):
        if not np.isfinite(values).all():
            row = rows.indices[block[np.argwhere(~np.isfinite(values))[0, 0]]]
            raise ProbingError(
                f"features of row {row} are not finite; extract that recording again"
            )
        order = np.argsort(rows.works[block], kind="stable")
        works, starts = np.unique(rows.works[block][order], return_index=True)
        sums[works] += np.add.reduceat(values[order], starts)
    return np.asarray(sums / rows.work_sizes[:, np.newaxis])


@dataclass(frozen=True)
class _FoldSums:
    """Per fold its size [k], mean [k, D], and scatter [k, D, D] within works and in all."""

    sizes: Ints
    means: Floats
    within: Floats
    scatter: Floats

    @classmethod
    def of(cls, X: Features, rows: ProbeRows, work_means: Floats) -> "_FoldSums":
        within = np.zeros((rows.n_folds, X.shape[1], X.shape[1]))
        for fold, block, values in row_blocks(X, rows):
            deviations = values - work_means[rows.works[block]]
            within[fold] += deviations.T @ deviations
        in_fold = [rows.work_folds == fold for fold in range(rows.n_folds)]
        pooled = [_pool(rows.work_sizes[mine], work_means[mine]) for mine in in_fold]
        means, between = (np.array(arrays) for arrays in zip(*pooled, strict=True))
        return cls(np.bincount(rows.folds), means, within, within + between)

    def decompose(self, out: tuple[int, ...]) -> RidgeDecomposition:
        kept = [fold for fold in range(len(self.sizes)) if fold not in out]
        mean, between = _pool(self.sizes[kept], self.means[kept])
        scatter = between + self.scatter[kept].sum(axis=0)
        return decompose_scatter(int(self.sizes[kept].sum()), mean, scatter)


def _pool(sizes: Ints, means: Floats) -> tuple[Floats, Floats]:
    """Return the mean [D] of groups together, and the scatter [D, D] of their means."""
    mean = np.average(means, axis=0, weights=sizes)
    deviations = means - mean
    return mean, deviations.T @ (deviations * sizes[:, np.newaxis])


def _name(out: tuple[int, ...]) -> str:
    return "-".join(map(str, out))
