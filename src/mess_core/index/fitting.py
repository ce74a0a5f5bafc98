"""Fitting a projection to a corpus: means, principal components, and the decorrelation of aspects.

The principal components are those of at most `SAMPLE` rows, spread evenly over the corpus, through
the eigenvectors of their Gram matrix: the layers of a real encoder have 10,000 numbers side by
side. Everything else is of all rows.
"""

__all__ = ["GENERAL_DIMS", "SAMPLE", "fit_projection"]

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import ArtifactError, SearchError
from mess_core.index.projection import REACH, Projection, unit_layers

if TYPE_CHECKING:
    from mess_core.probing.coordinates import AspectCoordinates

Floats = npt.NDArray[np.float64]

#: Width of the general block at most; less where rows vary along fewer directions.
GENERAL_DIMS = 128
#: Rows whose principal components are computed.
SAMPLE = 2048
#: How far the components' variances are at least shrunk towards their mean in whitening.
WHITENING_SHRINKAGE = 0.1
#: Weight of the identity in the correlation matrix of the aspects' coordinates.
DECORRELATION_SHRINKAGE = 0.1

#: A component with less than this share of the largest variance is rounding.
_ROUNDING = 1e-9
_AT_ONCE = 4096


def fit_projection(
    layer_rows: Callable[[int], npt.NDArray[np.float32]],
    layers: Sequence[int],
    *,
    general_layers: Collection[int] | None = None,
    coordinates: "Sequence[AspectCoordinates]" = (),
    recordings: Sequence[str] | None = None,
) -> Projection:
    """Fit the projection of a corpus.

    Parameters
    ----------
    layer_rows : callable
        Gives the features ``[n, dims]`` of a layer's number, of the same rows for every layer.
        They may be memory-mapped.
    layers : sequence of int
        The layers that are used; aspects' layers must be among them.
    general_layers : collection of int, optional
        Those of them that general similarity is made of; all by default.
    coordinates : sequence of AspectCoordinates
        The aspects.
    recordings : sequence of str, optional
        The recording of every row, for an index of recordings: aspects are scaled and decorrelated
        such that recordings' means, which vary less than their rows, have what is promised.

    Returns
    -------
    Projection

    Raises
    ------
    ArtifactError
        If layers or aspects occur twice, an aspect's layer is not kept, or values are not finite.
    SearchError
        If rows do not vary.
    """
    rows = [layer_rows(layer) for layer in layers]
    means = np.array([layer.mean(axis=0, dtype=np.float64) for layer in rows], np.float32)
    _check(rows, layers, means)
    chosen = set(layers if general_layers is None else general_layers)
    if not chosen or not chosen <= set(layers):
        raise ArtifactError(
            f"general similarity is to be made of layers {sorted(chosen)}; expected at least one "
            f"of {list(layers)}"
        )
    kept = np.array([layer in chosen for layer in layers])
    basis, centre = _principal(rows, means, kept)
    bare = Projection(
        layers=np.array(layers, np.int64),
        means=means,
        basis=basis,
        centre=centre,
        **_no_aspects(means.shape[1], basis.shape[1]),
    )
    if not coordinates:
        bare.check()
        return bare
    return _with_aspects(bare, rows, coordinates, recordings)


def _check(
    rows: Sequence[npt.NDArray[np.float32]], layers: Sequence[int], means: npt.NDArray[np.float32]
) -> None:
    if not layers or len(set(layers)) < len(layers):
        raise ArtifactError(f"layers {list(layers)} must name at least one layer, each once")
    for layer, mean in zip(layers, means, strict=True):
        if not np.isfinite(mean).all():
            raise ArtifactError(f"features of layer {layer} are not finite; extract them again")
    if len(rows[0]) < 2:
        raise SearchError(f"{len(rows[0])} row has nothing to be compared with; give at least two")


def _principal(
    rows: Sequence[npt.NDArray[np.float32]],
    means: npt.NDArray[np.float32],
    kept_layers: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the whitening basis [B * D, G], 0 for layers left out, and the components' mean."""
    n = len(rows[0])
    chosen = np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64))
    features = np.stack([layer[chosen] for layer in rows], axis=1)
    blocks, _ = unit_layers(features, means)
    flat = blocks[:, kept_layers].reshape(len(blocks), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    variances, directions = _eigen(flat)
    kept = variances > _ROUNDING * max(variances.max(initial=0.0), np.finfo(float).tiny)
    if not kept.any():
        raise SearchError("all rows have the same features, so none is more alike than another")
    shrinkage = max(WHITENING_SHRINKAGE, _shrinkage(flat, variances))
    variances, directions = variances[kept][:GENERAL_DIMS], directions[:, kept][:, :GENERAL_DIMS]
    scale = 1.0 / np.sqrt((1 - shrinkage) * variances + shrinkage * variances.mean())
    spread = np.zeros((*means.shape, len(scale)), np.float32)
    spread[kept_layers] = (directions * scale).reshape(-1, means.shape[1], len(scale))
    basis = spread.reshape(means.size, -1)
    return basis, _mean_component(rows, means, basis)


def _eigen(flat: Floats) -> tuple[Floats, Floats]:
    """Return variances, the largest first, and directions [P, r] of centred rows [n, P]."""
    if len(flat) > flat.shape[1]:
        values, vectors = np.linalg.eigh(flat.T @ flat)
        return values[::-1] / len(flat), vectors[:, ::-1]
    values, vectors = np.linalg.eigh(flat @ flat.T)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    length = np.sqrt(np.where(values > 0, values, 1.0))
    return values / len(flat), (flat.T @ vectors) / length


def _shrinkage(centred: Floats, variances: Floats) -> float:
    """Return how little of the variances' spread is known from rows [n, P], from 0 to 1.

    The intensity of Ledoit and Wolf (2004), "A well-conditioned estimator for large-dimensional
    covariance matrices", lemmas 3.2 to 3.4. It is 1 where rows are few: then nothing is whitened.
    """
    n, p = centred.shape
    squared = float(np.square(variances).sum())
    spread = squared - float(variances.sum()) ** 2 / p
    noise = float(np.square(np.square(centred).sum(axis=1)).sum()) / n**2 - squared / n
    return min(1.0, noise / spread) if spread > 0 else 1.0


def _mean_component(
    rows: Sequence[npt.NDArray[np.float32]],
    means: npt.NDArray[np.float32],
    basis: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    n, total = len(rows[0]), np.zeros(basis.shape[1])
    for start in range(0, n, _AT_ONCE):
        features = np.stack([layer[start : start + _AT_ONCE] for layer in rows], axis=1)
        blocks, _ = unit_layers(features, means)
        total += (blocks.reshape(len(blocks), -1) @ basis).sum(axis=0, dtype=np.float64)
    return (total / n).astype(np.float32)


def _no_aspects(dims: int, general: int) -> dict[str, Any]:
    return _aspect_arrays(
        names=np.array([], "U1"),
        aspect_layers=np.array([], np.int64),
        sizes=np.array([], np.int64),
        readout=np.zeros((dims, 0)),
        offset=np.zeros(0),
        decorrelate=np.zeros((0, 0)),
        bounds=np.zeros(0),
        value=np.zeros((0, 0)),
        steer=np.zeros(0),
        standard_errors=np.zeros(0),
        erase=np.zeros((general, 0)),
    )


def _aspect_arrays(**arrays: npt.NDArray[Any]) -> dict[str, Any]:
    """Return arrays with their floats in the precision that is stored."""
    return {
        name: array.astype(np.float32) if array.dtype == np.float64 else array
        for name, array in arrays.items()
    }


def _with_aspects(
    bare: Projection,
    rows: Sequence[npt.NDArray[np.float32]],
    coordinates: "Sequence[AspectCoordinates]",
    recordings: Sequence[str] | None,
) -> Projection:
    sizes = np.array([aspect.readout.shape[1] for aspect in coordinates], np.int64)
    ends = np.cumsum(sizes)
    spans = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    errors = [np.nan if a.standard_error is None else a.standard_error for a in coordinates]
    total = int(ends[-1])
    value = np.zeros((total, len(sizes)))
    for number, (aspect, span) in enumerate(zip(coordinates, spans, strict=True)):
        if aspect.value is not None:
            value[span, number] = aspect.value
    reading = _replace(
        bare,
        names=np.array([aspect.name for aspect in coordinates]),
        aspect_layers=np.array([aspect.layer for aspect in coordinates], np.int64),
        sizes=sizes,
        standard_errors=np.array(errors),
        readout=np.column_stack([aspect.readout for aspect in coordinates]),
        offset=np.zeros(total),
        decorrelate=np.eye(total),
        bounds=np.full(total, np.inf),
        value=value,
        steer=np.zeros(total),
        erase=np.zeros((bare.general, total)),
    )
    order = {int(layer): place for place, layer in enumerate(bare.layers)}
    for aspect in coordinates:
        if aspect.layer not in order:
            raise ArtifactError(
                f"aspect {aspect.name!r} needs layer {aspect.layer}, but only {list(order)} are "
                "kept; add that layer"
            )
    moments = _Moments.of(reading, rows, recordings)
    projection = _decorrelated(reading, moments, spans)
    projection.check()
    return projection


class _Moments:
    """Means, covariances and correlations of coordinates [E] and whitened components [G]."""

    def __init__(self, n: int, sums: Floats, products: Floats, size: int) -> None:
        mean = sums / n
        covariance = products / n - np.outer(mean, mean)
        self.mean = mean[:size]
        self.spread = np.sqrt(np.maximum(np.diagonal(covariance)[:size], np.finfo(float).tiny))
        self.correlation = covariance[:size, :size] / np.outer(self.spread, self.spread)
        np.fill_diagonal(self.correlation, 1.0)
        self.cross = covariance[size:, :size] / self.spread

    @classmethod
    def of(
        cls,
        projection: Projection,
        rows: Sequence[npt.NDArray[np.float32]],
        recordings: Sequence[str] | None,
    ) -> "_Moments":
        size = len(projection.offset)
        sums = np.zeros(size + projection.general)
        products = np.zeros((len(sums), len(sums)))
        readings: Iterable[Floats] = _readings(projection, rows)
        if recordings is not None:
            readings = [_means_of(readings, recordings)]
        n = 0
        for both in readings:
            n += len(both)
            sums += both.sum(axis=0)
            products += both.T @ both
        return cls(n, sums, products, size)


def _readings(projection: Projection, rows: Sequence[npt.NDArray[np.float32]]) -> Iterator[Floats]:
    """Give coordinates and components [m, E + G] of some rows at a time."""
    for start in range(0, len(rows[0]), _AT_ONCE):
        features = np.stack([layer[start : start + _AT_ONCE] for layer in rows], axis=1)
        yield np.column_stack(
            [projection.coordinates(features), projection.components(features)[0]]
        )


def _means_of(readings: Iterable[Floats], recordings: Sequence[str]) -> Floats:
    """Return the mean of each recording's rows."""
    _, numbers, counts = np.unique(np.asarray(recordings), return_inverse=True, return_counts=True)
    every = np.concatenate(list(readings))
    sums = np.zeros((len(counts), every.shape[1]))
    np.add.at(sums, numbers, every)
    return np.asarray(sums / counts[:, np.newaxis])


def _decorrelated(reading: Projection, moments: _Moments, spans: Sequence[slice]) -> Projection:
    """Give coordinates variance 1, decorrelate them, and find out what moves and erases them."""
    size = len(moments.mean)
    shrunk = (1 - DECORRELATION_SHRINKAGE) * moments.correlation
    shrunk += DECORRELATION_SHRINKAGE * np.eye(size)
    values, vectors = np.linalg.eigh(shrunk)
    root = vectors * np.sqrt(values) @ vectors.T
    zca = vectors / np.sqrt(values) @ vectors.T
    variances = np.einsum("ij,ik,kj->j", zca, moments.correlation, zca)
    scales = np.concatenate(
        [np.full(s.stop - s.start, np.sqrt(0.5 / variances[s].sum())) for s in spans]
    )
    value = reading.value.astype(np.float64) * moments.spread[:, np.newaxis]
    steer, erase = np.zeros(size), np.zeros((reading.general, size))
    for number, span in enumerate(spans):
        gradient = root[span, span] @ value[span, number] / scales[span]
        if gradient.any():
            steer[span] = gradient / (gradient @ gradient)
        directions, strength, _ = np.linalg.svd(moments.cross[:, span], full_matrices=False)
        told = strength > _ROUNDING * max(strength.max(initial=0.0), np.finfo(float).tiny)
        erase[:, span.start : span.start + told.sum()] = directions[:, told]
    return _replace(
        reading,
        readout=reading.readout / moments.spread,
        offset=moments.mean / moments.spread,
        decorrelate=zca * scales,
        bounds=REACH * np.sqrt(variances) * scales,
        value=value,
        steer=steer,
        erase=erase,
    )


def _replace(projection: Projection, **arrays: npt.NDArray[Any]) -> Projection:
    return replace(projection, **_aspect_arrays(**arrays))
