"""Fitting a projection to a corpus: means, principal components, and the decorrelation of aspects.

The principal components are those of at most `SAMPLE` rows, spread evenly over the corpus, through
the eigenvectors of their Gram matrix: the layers of a real encoder have 10,000 numbers side by
side. Everything else is of all rows.
"""

__all__ = ["GENERAL_DIMS", "SAMPLE", "eigen", "fit_projection"]

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mess_core.errors import ArtifactError, SearchError
from mess_core.index.projection import REACH, Projection, unit_rows
from mess_core.targets.registry import PROBED

if TYPE_CHECKING:
    from mess_core.probing.coordinates import AspectCoordinates

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]

#: Width of the general block at most; less where rows vary along fewer directions.
GENERAL_DIMS = 128
#: Features whose principal components are computed.
SAMPLE = 2048
#: How far the components' variances are at least shrunk towards their mean in whitening.
WHITENING_SHRINKAGE = 0.1
#: Weight of the identity in the correlation matrix of the aspects' coordinates.
DECORRELATION_SHRINKAGE = 0.1

#: A component with less than this share of the largest variance is rounding.
_ROUNDING = 1e-9
#: Features that are read at a time: 40 MB of 13 layers with 768 numbers.
_AT_ONCE = 1024


def fit_projection(
    layer_rows: Callable[[int], npt.NDArray[np.float32]],
    layers: Sequence[int],
    *,
    general_layers: Collection[int] | None = None,
    coordinates: "Sequence[AspectCoordinates]" = (),
    measured: Callable[[Sequence[str]], npt.NDArray[np.float64]] | None = None,
    recordings: Sequence[str] | None = None,
    spaces: Mapping[str, Features] | None = None,
) -> Projection:
    """Fit the projection of a corpus.

    Raises `ArtifactError` if layers or aspects occur twice, an aspect's layer is not kept, a
    space's basis does not fit the layers, or values are not finite, and `SearchError` if rows do
    not vary.

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
    measured : callable, optional
        Gives some columns of measured targets ``[n, columns]`` of the same rows
        (`mess_core.targets.npz`); not needed where no aspect is measured.
    recordings : sequence of str, optional
        The recording of every row, for an index of recordings: aspects are scaled and decorrelated
        such that recordings' means, which vary less than their rows, have what is promised.
    spaces : mapping of str to ndarray [shape=(B * D, any)], optional
        Learned spaces: what makes components of the centred unit features of the B layers, each
        divided by the square root of B, side by side in the order of ``layers``. They are centred
        here.
    """
    rows = [layer_rows(layer) for layer in layers]
    _check_layers(rows, layers, coordinates)
    chosen = set(layers if general_layers is None else general_layers)
    if not chosen or not chosen <= set(layers):
        raise ArtifactError(
            f"general similarity is to be made of layers {sorted(chosen)}; expected at least one "
            f"of {list(layers)}"
        )
    means = np.array([_mean(layer) for layer in rows], np.float32)
    for layer, mean in zip(layers, means, strict=True):
        if not np.isfinite(mean).all():
            raise ArtifactError(f"features of layer {layer} are not finite; extract them again")
    basis = _principal(rows, means, [layer in chosen for layer in layers])
    for name, learned in (spaces or {}).items():
        if learned.ndim != 2 or len(learned) != len(basis):
            raise ArtifactError(
                f"the basis of space {name!r} has shape {learned.shape}, expected ({len(basis)}, "
                f"components): {means.shape[1]} numbers of each of the layers {list(layers)}"
            )
    reading = _bare(np.array(layers, np.int64), means, basis, coordinates, spaces or {})
    columns = reading.columns.tolist()
    if columns and measured is None:
        raise ArtifactError(f"aspects are measured by {', '.join(columns)}: give their values")
    values = measured(columns) if measured and columns else None
    moments = _moments(reading, rows, values, recordings)
    projection = _decorrelated(replace(reading, centre=moments.centre.astype(np.float32)), moments)
    projection.check()
    return projection


def _check_layers(
    rows: Sequence[Features], layers: Sequence[int], coordinates: "Sequence[AspectCoordinates]"
) -> None:
    if not layers or len(set(layers)) < len(layers):
        raise ArtifactError(f"layers {list(layers)} must name at least one layer, each once")
    for aspect in coordinates:
        if PROBED in aspect.sources and aspect.layer not in layers:
            raise ArtifactError(
                f"aspect {aspect.name!r} needs layer {aspect.layer}, but only {list(layers)} are "
                "kept; add that layer"
            )
    if len(rows[0]) < 2:
        raise SearchError(f"{len(rows[0])} row has nothing to be compared with; give at least two")


def _mean(rows: Features) -> Floats:
    total = np.zeros(rows.shape[1])
    for start in range(0, len(rows), _AT_ONCE):
        total += rows[start : start + _AT_ONCE].sum(axis=0, dtype=np.float64)
    return total / len(rows)


def _principal(rows: Sequence[Features], means: Features, kept_layers: Sequence[bool]) -> Features:
    """Return the whitening basis [B * D, G], 0 for layers left out."""
    n = len(rows[0])
    chosen = np.unique(np.linspace(0, n - 1, min(n, SAMPLE)).astype(np.int64))
    flat = np.concatenate(
        [
            unit_rows(np.subtract(layer[chosen], mean, dtype=np.float64), mean)[0]
            for layer, mean, kept in zip(rows, means, kept_layers, strict=True)
            if kept
        ],
        axis=1,
    ) / np.sqrt(len(rows))
    flat -= flat.mean(axis=0)
    variances, directions = eigen(flat)
    shrinkage = max(WHITENING_SHRINKAGE, _shrinkage(flat, variances))
    variances = variances[:GENERAL_DIMS]
    kept = variances > _ROUNDING * max(variances.max(initial=0.0), np.finfo(float).tiny)
    if not kept.any():
        raise SearchError("all rows have the same features, so none is more alike than another")
    variances, directions = variances[kept], directions[:, kept]
    scale = 1.0 / np.sqrt((1 - shrinkage) * variances + shrinkage * variances.mean())
    basis = np.zeros((*means.shape, len(scale)), np.float32)
    basis[np.array(kept_layers)] = (directions * scale).reshape(-1, means.shape[1], len(scale))
    return basis.reshape(means.size, -1)


def eigen(flat: Floats) -> tuple[Floats, Floats]:
    """Return the variances of centred rows [n, P], the largest first, and the first directions."""
    gram = len(flat) <= flat.shape[1]
    values, vectors = np.linalg.eigh(flat @ flat.T if gram else flat.T @ flat)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, : -GENERAL_DIMS - 1 : -1]
    if gram:
        first = values[:GENERAL_DIMS]
        vectors = (flat.T @ vectors) / np.sqrt(np.where(first > 0, first, 1.0))
    return values / len(flat), vectors


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


def _bare(
    layers: npt.NDArray[np.int64],
    means: Features,
    basis: Features,
    coordinates: "Sequence[AspectCoordinates]",
    spaces: Mapping[str, Features],
) -> Projection:
    """Return a projection that reads components and coordinates as they are."""
    sizes = np.array([aspect.readout.shape[1] for aspect in coordinates], np.int64)
    basis = np.column_stack([basis, *spaces.values()]).astype(np.float32)
    total, width = int(sizes.sum()), basis.shape[1]
    errors = [np.nan if a.standard_error is None else a.standard_error for a in coordinates]
    value = np.zeros((total, len(sizes)))
    columns = list(dict.fromkeys(column for a in coordinates for column in a.columns))
    column_means, measured = np.zeros(len(columns)), np.zeros((len(columns), total))
    readout = np.zeros((means.shape[1], total))
    for number, (aspect, end) in enumerate(zip(coordinates, np.cumsum(sizes), strict=True)):
        mine, places = slice(end - sizes[number], end), [columns.index(c) for c in aspect.columns]
        column_means[places], measured[places, mine] = aspect.column_means, aspect.measured
        if PROBED in aspect.sources:
            readout[:, mine] = aspect.readout
        if aspect.value is not None:
            value[mine, number] = aspect.value
    arrays = {
        "centre": np.zeros(width),
        "readout": readout,
        "column_means": column_means,
        "measured": measured,
        "offset": np.zeros(total),
        "decorrelate": np.eye(total),
        "bounds": np.full(total, np.inf),
        "value": value,
        "steer": np.zeros(total),
        "standard_errors": np.array(errors),
        "erase": np.zeros((width, total)),
    }
    return Projection(
        layers=layers,
        means=means,
        basis=basis,
        names=np.array([aspect.name for aspect in coordinates], np.str_),
        aspect_layers=np.array([aspect.layer for aspect in coordinates], np.int64),
        sources=np.array([" ".join(aspect.sources) for aspect in coordinates], np.str_),
        columns=np.array(columns, np.str_),
        sizes=sizes,
        learned=np.array([*spaces], np.str_),
        learned_sizes=np.array([basis.shape[1] for basis in spaces.values()], np.int64),
        **{name: array.astype(np.float32) for name, array in arrays.items()},
    )


class _Moments(NamedTuple):
    """Of coordinates [E] and components [G]."""

    #: The components' mean over rows.
    centre: Floats
    #: The coordinates' means, standard deviations and correlations.
    mean: Floats
    spread: Floats
    correlation: Floats
    #: Covariances [G, E] of components and coordinates of variance 1.
    cross: Floats


def _moments(
    projection: Projection,
    rows: Sequence[Features],
    measured: Floats | None,
    recordings: Sequence[str] | None,
) -> _Moments:
    """Read all rows, some at a time; with ``recordings``, of each recording's mean."""
    n, size = len(rows[0]), len(projection.offset)
    width = size + projection.components
    names = np.zeros(1) if recordings is None else np.asarray(recordings)
    _, numbers, counts = np.unique(names, return_inverse=True, return_counts=True)
    sums, products = np.zeros((len(counts), width)), np.zeros((width, width))
    for start in range(0, n, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        values = None if measured is None else measured[part]
        features = np.stack([layer[part] for layer in rows], axis=1)
        components, coordinates, _ = projection.read(features, values)
        both = np.column_stack([coordinates, components])
        if recordings is None:
            sums += both.sum(axis=0)
            products += both.T @ both
        else:
            np.add.at(sums, numbers[part], both)
    centre = sums.sum(axis=0)[size:] / n
    if recordings is not None:
        sums /= counts[:, np.newaxis]
        products, n = sums.T @ sums, len(sums)
    mean = sums.sum(axis=0) / n
    covariance = products / n - np.outer(mean, mean)
    spread = np.sqrt(np.maximum(np.diagonal(covariance)[:size], np.finfo(float).tiny))
    correlation = covariance[:size, :size] / np.outer(spread, spread)
    np.fill_diagonal(correlation, 1.0)
    return _Moments(centre, mean[:size], spread, correlation, covariance[size:, :size] / spread)


def _decorrelated(reading: Projection, moments: _Moments) -> Projection:
    """Give coordinates variance 1, decorrelate them, and find out what moves and erases them."""
    size = len(moments.mean)
    if not size:
        return reading
    spans = [aspect.coordinates for aspect in reading.aspects.values()]
    probed = np.repeat([s.startswith(PROBED) for s in reading.sources.tolist()], reading.sizes)
    mixed = moments.correlation * np.outer(probed, probed)
    shrunk = (1 - DECORRELATION_SHRINKAGE) * mixed + DECORRELATION_SHRINKAGE * np.eye(size)
    shrunk[~probed, ~probed] = 1.0
    values, vectors = np.linalg.eigh(shrunk)
    root = vectors * np.sqrt(values) @ vectors.T
    zca = vectors / np.sqrt(values) @ vectors.T
    variances = np.einsum("ij,ik,kj->j", zca, moments.correlation, zca)
    # What is measured has the spread that it had: its distances are those of the targets.
    weights = np.where(probed, 1.0, moments.spread)
    relative = [weights[span] / weights[span].max() for span in spans]
    scales = np.concatenate(
        [w * np.sqrt(0.5 / (w**2 @ variances[s])) for w, s in zip(relative, spans, strict=True)]
    )
    value = reading.value.astype(np.float64) * moments.spread[:, np.newaxis]
    steer, erase = np.zeros(size), np.zeros((reading.components, size))
    for number, span in enumerate(spans):
        gradient = root[span, span] @ value[span, number] / scales[span]
        if gradient.any():
            steer[span] = gradient / (gradient @ gradient)
        for part in reading.spaces.values():
            directions, strength, _ = np.linalg.svd(moments.cross[part, span], full_matrices=False)
            told = strength > _ROUNDING * max(strength.max(initial=0.0), np.finfo(float).tiny)
            erase[part, span.start : span.start + told.sum()] = directions[:, told]
    arrays = {
        "readout": reading.readout / moments.spread,
        "measured": reading.measured / moments.spread,
        "offset": moments.mean / moments.spread,
        "decorrelate": zca * scales,
        "bounds": REACH * np.sqrt(variances) * scales,
        "value": value,
        "steer": steer,
        "erase": erase,
    }
    stored: dict[str, Any] = {name: array.astype(np.float32) for name, array in arrays.items()}
    return replace(reading, **stored)
