"""What probing needs of the features alone, computed once per layer for all targets.

The rows of a *layer* of one *source* (the encoder, its untrained copy, or descriptors) are windows
or recordings. `decompose_source` writes

* ``{source}/{layer}/rows.npy``: float32 ``[n, D]``, recordings in the order of the table;
* ``{source}/{layer}/folds.npz``: a `FoldDecompositions`;
* ``{source}/receipt.json``: how many rows each recording has; written last.

A probe is a ridge regression on standardised features: for rows ``X`` and a target ``y`` its
coefficients are those of scikit-learn's ``make_pipeline(StandardScaler(), Ridge(alpha))``. With
``Z = U s V'`` the standardised rows and ``y`` centred they are ``V (V'Z'y) / (s^2 + alpha)``. What
depends on ``X`` alone (`RidgeDecomposition`) is apart from ``Z'y``, so that one decomposition
serves every penalty and every target that has the same rows. ``V`` and ``s^2`` come from the
eigenvectors of the smaller of ``Z'Z`` and ``ZZ'``, which costs a quarter of an SVD of ``Z`` at
4,000 rows of 768 numbers. Squaring ``Z`` loses what is smaller than about 1e-8 of its largest
singular value, far below every penalty in `ALPHAS`. Columns that do not vary say nothing: their
coefficients are 0, also for rows in which they do.

With k folds, nested cross-validation trains on all folds but one (to test) and on all folds but two
(to choose): k(k + 1)/2 *training unions*. Each has its `RidgeDecomposition`, of which a target
needs nothing but ``Z'y``.

*More rows than columns.* Rows are read twice, in blocks: once for the mean of each work, once for
the scatter of each fold around its works' means. Everything else is sums of these. (Adding up what
is in a union costs as little as subtracting from the total what is not, and cancels no digits.)
*More columns than rows:* the union's rows are read, and the eigenvectors are those of ``ZZ'``.

Permutation tests need squared errors of hundreds of targets but no predictions. For them the
scatter within works of each held-out fold is kept, too, in the basis of the union without it:
the squared error of coefficients in that basis is a quadratic form in them. It is float32, which
is enough to compare errors with each other.

At 20,000 rows of 768 numbers in 5 folds a layer's ``folds.npz`` has 83 MB.
"""

__all__ = [
    "ALPHAS",
    "FoldDecompositions",
    "LayerFeatures",
    "RidgeDecomposition",
    "decompose",
    "decompose_folds",
    "decompose_source",
    "row_blocks",
    "union_moment",
]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile
from threadpoolctl import threadpool_limits

from mess_core import stages
from mess_core.errors import ProbingError, StorageError
from mess_core.extraction.storage import load_features
from mess_core.files import atomic_path, save_array, write_json
from mess_core.layout import Layout
from mess_core.probing.folds import Bools, Features, Floats, Ints, ProbeRows, deal_folds, plan_rows
from mess_core.progress import Report, counted
from mess_core.recordings import Recording

#: Penalties to choose from. ``s^2`` of standardised rows sums to ``n * D``, so that the range
#: reaches from hardly any shrinkage to almost the mean, for 48 rows of 48 numbers and for 20,000
#: of 768.
ALPHAS: tuple[float, ...] = tuple(10.0**exponent for exponent in range(-1, 7))

# Features are stored as float32: a column that varies less than its rounding does not vary.
_ROUNDING = float(np.finfo(np.float32).eps)

# Rows that are converted to float64 at a time: 25 MB of 768 columns.
_BLOCK = 4096

_PARTS = ("mean", "scale", "basis", "values")

# What reading a file raises that is no archive, another archive, or half of one.
_DAMAGE = (ValueError, EOFError, OSError, BadZipFile, LookupError)


@dataclass(frozen=True, slots=True)
class RidgeDecomposition:
    """What ridge regression needs to know about its training rows.

    ``mean`` and ``scale`` [D] are those of the columns; the scale of a constant one is 1. ``basis``
    [D, r] are the right singular vectors of the standardised rows, ``values`` [r] the squared
    singular values.
    """

    mean: Floats
    scale: Floats
    basis: Floats
    values: Floats

    def standardise(self, X: Floats) -> Floats:
        """Return rows ``[n, D]`` in units of the training rows' spread around their mean."""
        return np.asarray((X - self.mean) / self.scale)

    def solve(self, moment: Features, alphas: Sequence[float]) -> Floats:
        """Return the coefficients [D, len(alphas), q] of all penalties (above 0) and targets.

        ``moment [D, q]`` is ``Z'y`` of each target; the coefficients are for standardised features.
        """
        rotated = (self.basis.T @ moment)[:, np.newaxis]
        shrunk = rotated / np.add.outer(self.values, np.asarray(alphas))[:, :, np.newaxis]
        solved = self.basis @ shrunk.reshape(len(shrunk), len(alphas) * moment.shape[1])
        return np.asarray(solved.reshape(len(moment), len(alphas), -1))


def decompose(X: Floats) -> RidgeDecomposition:
    """Decompose finite training rows ``[n, D]``, once for all penalties and targets."""
    mean = X.mean(axis=0)
    scale, varies = _scale(mean, X.std(axis=0))
    Z = np.where(varies, (X - mean) / scale, 0.0)
    if len(Z) >= Z.shape[1]:
        return RidgeDecomposition(mean, scale, *_eigen(Z.T @ Z, max(Z.shape)))
    vectors, values = _eigen(Z @ Z.T, max(Z.shape))
    return RidgeDecomposition(mean, scale, (Z.T @ vectors) / np.sqrt(values), values)


def _scale(mean: Floats, spread: Floats) -> tuple[Floats, Bools]:
    """Return the columns' scale, and which of them vary."""
    varies = spread > _ROUNDING * np.abs(mean)
    return np.where(varies, spread, 1.0), varies


def _eigen(product: Floats, size: int) -> tuple[Floats, Floats]:
    """Return eigenvectors [D, r] and eigenvalues [r] above the rounding of a product of rows."""
    values, vectors = np.linalg.eigh(product)
    kept = values > max(values[-1], 0.0) * size * np.finfo(np.float64).eps
    return vectors[:, kept], values[kept]


class FoldDecompositions:
    """The training unions' decompositions of one layer.

    ``digest`` is that of the `ProbeRows` that were decomposed, ``work_means`` [n_works, D] are the
    mean features of each work.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], path: Path | None = None) -> None:
        self._arrays, self._path = arrays, path
        self.digest = str(self._read("digest"))
        self.work_means: Floats = self._read("work_means")

    def training(self, *out: int) -> RidgeDecomposition:
        """Return the decomposition of all rows but those of one or two folds, in rising order."""
        return RidgeDecomposition(*(self._read(f"{part}/{_name(out)}") for part in _PARTS))

    def within_scatter(self, fold: int) -> npt.NDArray[np.float32]:
        """Return a fold's scatter around its works' means, in the basis of all other folds.

        It is ``(D V)'(D V)`` [r, r], with ``V`` the basis of the union of the other folds and ``D``
        the deviations of the fold's rows from their works' means, divided by the union's scale.
        """
        return self._read(f"within/{fold}")

    def save(self, path: Path) -> None:
        """Write everything to an ``.npz`` file, whole or not at all."""
        with atomic_path(path) as temporary:
            np.savez(temporary, **dict[str, Any](self._arrays))

    @classmethod
    def load(cls, path: Path) -> "FoldDecompositions":
        """Open a file that `save` wrote; its arrays are read when they are used.

        Raises `StorageError` if the file is missing or damaged, now or when an array is used.
        """
        try:
            file = path.open("rb")
        except OSError as error:
            raise _unreadable(path, error) from None
        try:
            return cls(NpzFile(file, own_fid=True, allow_pickle=False), path)
        except _DAMAGE as error:
            file.close()
            raise _unreadable(path, error) from None

    def _read(self, name: str) -> npt.NDArray[Any]:
        try:
            return self._arrays[name]
        except _DAMAGE as error:
            if self._path is None:
                raise
            raise _unreadable(self._path, error) from None


def _unreadable(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"{path} cannot be read ({error}); delete {path.parents[1]} and run snakemake again"
    )


@dataclass(frozen=True)
class LayerFeatures:
    """A layer's rows and decompositions, in a folder that `decompose_source` wrote."""

    folder: Path

    @cached_property
    def rows(self) -> npt.NDArray[np.float32]:
        """All rows, float32 [shape=(n, D)], memory-mapped."""
        path = self.folder / "rows.npy"
        try:
            rows: npt.NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _unreadable(path, error) from None
        return rows

    def decompose(self, rows: ProbeRows, *, nested: bool = True) -> FoldDecompositions:
        """Return `decompose_folds` of some rows: from disk where these are all rows."""
        known = FoldDecompositions.load(self.folder / "folds.npz")
        if rows.digest == known.digest:
            return known
        return decompose_folds(self.rows, rows, nested=nested)


def decompose_source(
    layout: Layout,
    recordings: Sequence[Recording],
    *,
    source: str,
    n_layers: int,
    unit: str = "windows",
    n_folds: int = 5,
    progress: Report | None = None,
) -> None:
    """Stack the rows of every layer of a source and decompose them; one layer is in memory.

    ``source`` is one of `mess_core.layout.SOURCES`. A row is one of ``unit``, ``windows`` or
    ``recordings``. Raises `StorageError` if features are missing or damaged, and `ProbingError` if
    recordings have features of different widths.
    """
    for layer in counted(range(n_layers), progress):
        blocks = [_rows_of(layout.of(source), r.recording_id, layer, unit) for r in recordings]
        if len({block.shape[1] for block in blocks}) > 1:
            raise ProbingError(
                f"{layout.dataset}: recordings have {source} features of different widths; they "
                "are of different encoders: run the features rule again"
            )
        counts = [len(block) for block in blocks]
        works, names = (
            np.repeat([getattr(r, name) for r in recordings], counts).tolist()
            for name in ("work_id", "recording_id")
        )
        rows = plan_rows(works, deal_folds(works, n_folds), recordings=names)
        folder, X = layout.decomposition(source, layer), np.concatenate(blocks)
        save_array(folder / "rows.npy", X)
        decompose_folds(X, rows).save(folder / "folds.npz")
    facts = {"stage": stages.DECOMPOSITION, "source": source, "unit": unit, "layers": n_layers}
    by_recording = {r.recording_id: count for r, count in zip(recordings, counts, strict=True)}
    write_json(layout.decomposition_receipt(source), facts | {"counts": by_recording})


def _rows_of(layout: Layout, name: str, layer: int, unit: str) -> npt.NDArray[np.float32]:
    if unit == "windows":
        return load_features(layout, name, view="segments")[:, layer]
    return load_features(layout, name, view="aggregated")[np.newaxis, layer]


def decompose_folds(X: Features, rows: ProbeRows, *, nested: bool = True) -> FoldDecompositions:
    """Decompose all training unions of one layer.

    ``X`` [n, D] are all rows, present or not; it may be memory-mapped and is read in blocks.
    ``nested`` says whether the unions without two folds are needed, too. Raises `ProbingError` if
    the features are no matrix of that many rows, or those of a present row are not finite.
    """
    if X.ndim != 2 or len(X) != len(rows.present) or not X.shape[1]:
        raise ProbingError(
            f"features have the shape {X.shape}, expected [{len(rows.present)}, dims]"
        )
    # These matrices are small: threads of BLAS wait for each other longer than they compute.
    with threadpool_limits(limits=1, user_api="blas"):
        return FoldDecompositions(dict(_decomposed(X, rows, nested)))


def row_blocks(X: Features, rows: ProbeRows) -> Iterator[tuple[int, Ints, Floats]]:
    """Read the present rows in blocks: fold, positions [b] among these rows, features [b, D]."""
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
    """Return ``Z'y`` [D, q] of a training union's rows, and the targets' means [q] in it.

    ``cross`` [k, D, q] are, per fold, the products of the features' deviations from the means of
    their works and the targets, summed over rows. ``target_means`` [n_works, q] and ``work_means``
    [n_works, D] are means of each work, ``training`` is the decomposition of the union without the
    folds ``out``.
    """
    kept = ~np.isin(rows.work_folds, out)
    sizes = rows.work_sizes[kept]
    mean = np.average(target_means[kept], axis=0, weights=sizes)
    deviations = (work_means[kept] - training.mean) * sizes[:, np.newaxis]
    moment = deviations.T @ (target_means[kept] - mean)
    moment += sum(cross[fold] for fold in range(rows.n_folds) if fold not in out)
    return moment / training.scale[:, np.newaxis], mean


def _decomposed(
    X: Features, rows: ProbeRows, nested: bool
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    means = _work_means(X, rows)
    yield "digest", np.array(rows.digest)
    yield "work_means", means
    sizes = np.bincount(rows.folds)
    # The union of no folds has nothing to decompose.
    outs = [n for n in ((1, 2) if nested else (1,)) if n < len(sizes)]
    unions = [out for n in outs for out in combinations(range(len(sizes)), n)]
    wide = {out for out in unions if rows.n_rows - sizes[list(out)].sum() < X.shape[1]}
    sums = _FoldSums.of(X, rows, means) if len(wide) < len(unions) else None
    for out in unions:
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
        """Decompose the other folds, as `decompose` does; not for more columns than rows."""
        kept = [fold for fold in range(len(self.sizes)) if fold not in out]
        n = int(self.sizes[kept].sum())
        mean, between = _pool(self.sizes[kept], self.means[kept])
        scatter = between + self.scatter[kept].sum(axis=0)
        scale, varies = _scale(mean, np.sqrt(np.diagonal(scatter) / n))
        weight = varies / scale
        basis, values = _eigen(scatter * weight * weight[:, np.newaxis], max(n, len(mean)))
        return RidgeDecomposition(mean, scale, basis * varies[:, np.newaxis], values)


def _pool(sizes: Ints, means: Floats) -> tuple[Floats, Floats]:
    """Return the mean [D] of groups together, and the scatter [D, D] of their means."""
    mean = np.average(means, axis=0, weights=sizes)
    deviations = means - mean
    return mean, deviations.T @ (deviations * sizes[:, np.newaxis])


def _name(out: tuple[int, ...]) -> str:
    return "-".join(map(str, out))
