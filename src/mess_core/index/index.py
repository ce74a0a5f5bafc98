"""The index: one vector per recording or clip, such that any question is one inner product.

`mess_core.index.projection` says what a stored vector is, `mess_core.search.scoring` what a query
is. FAISS holds the vectors; beside them lie the rows (what each vector is) and every row's
predicted values of the aspects.
"""

__all__ = ["Index", "Row", "Rows", "build_index"]

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import ArtifactError
from mess_core.index.contents import check_aspects
from mess_core.index.factory import (
    EXACT_UP_TO,
    FLAT,
    MEMORY_GB,
    choose_factory,
    train_index,
)
from mess_core.index.projection import SMALLEST_SHARE, Projection
from mess_core.index.rows import Row, Rows

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Index:
    """An index in memory, or memory-mapped; queries do not change it, so threads may share it.

    Attributes
    ----------
    kind : str
        ``recordings`` or ``clips``.
    rows : Rows
        What each stored vector is.
    projection : Projection
        What made the vectors, and makes those of features from elsewhere.
    predicted : ndarray of float32 [shape=(A, n)]
        Every row's predicted value of every aspect, in standard deviations of the true value; NaN
        for aspects without a direction.
    aspects : mapping
        The aspect map (``aspects.json``); empty when there is none.
    facts : mapping
        Where it comes from: dataset, encoder, licence, stage versions.
    vectors : faiss.Index
        The stored vectors, of the inner product.
    factory : str
        FAISS's name of its kind; ``Flat`` is exact.
    version_id : str
        Of the artifact that it was loaded from; empty for one that was built here.
    """

    kind: str
    rows: Rows
    projection: Projection
    predicted: Floats
    aspects: Mapping[str, Any]
    facts: Mapping[str, Any]
    vectors: Any
    factory: str = FLAT
    version_id: str = ""

    @property
    def exact(self) -> bool:
        """Whether searches compare every row exactly, not only those that look best by a code."""
        return self.factory == FLAT

    def stored(self, positions: npt.ArrayLike) -> Floats:
        """Return the stored vectors [len(positions), width] of some rows, exactly."""
        chosen = np.asarray(positions, dtype=np.int64).reshape(-1)
        found: Floats = self.vectors.reconstruct_batch(chosen)
        return found


def build_index(
    features: npt.NDArray[np.floating[Any]],
    rows: Iterable[Row],
    *,
    kind: str,
    projection: Projection,
    aspects: Mapping[str, Any],
    facts: Mapping[str, Any],
    exact_up_to: int = EXACT_UP_TO,
    memory_gb: float = MEMORY_GB,
) -> Index:
    """Build the index of recordings or clips.

    Parameters
    ----------
    features : ndarray [shape=(n, L, dims)]
        The encoder's pooled features of every row, with all layers. Not changed.
    rows : iterable of Row
        What each of the n rows is.
    kind : str
        ``recordings`` (one row per recording) or ``clips``.
    projection : Projection
        Of this corpus (`mess_core.search.fit_projection`).
    aspects : mapping
        The content of ``aspects.json``; empty when aspects were not probed.
    facts : mapping
        Builtins for the manifest: ``dataset``, ``encoder`` (``name``, ``weights_sha256``,
        ``trained``), ``licence``, stage versions, ...
    exact_up_to : int
        Rows up to which searches are exact (`mess_core.index.factory`).
    memory_gb : float
        Gigabytes that the vectors of a larger index may take where it is served.

    Returns
    -------
    Index

    Raises
    ------
    ArtifactError
        If shapes and rows disagree, a recording occurs twice in an index of recordings, a value is
        not finite, a row equals the corpus mean in some layer, the aspect map is of other aspects
        than the projection, or the memory does not suffice.
    """
    table = Rows.of(rows)
    table.check(kind)
    check_aspects(projection, aspects)
    _check_shape(features, table, projection)
    vectors, predicted, usable = projection.project(features[:, projection.layers])
    _check_usable(usable, table, projection)
    choice = choose_factory(len(table), projection.width, memory_gb * 1e9, exact_up_to=exact_up_to)
    return Index(
        kind=kind,
        rows=table,
        projection=projection,
        predicted=np.ascontiguousarray(predicted.T),
        aspects=_builtins("aspects", aspects),
        facts=_builtins("facts", facts),
        vectors=train_index(vectors, choice),
        factory=choice.factory,
    )


def _check_shape(
    features: npt.NDArray[np.floating[Any]], rows: Rows, projection: Projection
) -> None:
    if features.ndim != 3 or len(features) != len(rows) or features.shape[2] != projection.dims:
        raise ArtifactError(
            f"features have shape {features.shape}, expected ({len(rows)}, layers, "
            f"{projection.dims}): one row each"
        )
    highest = int(projection.layers.max())
    if highest >= features.shape[1]:
        raise ArtifactError(
            f"layer {highest} does not exist; the features have 0-{features.shape[1] - 1}"
        )


def _check_usable(usable: npt.NDArray[np.bool_], rows: Rows, projection: Projection) -> None:
    if usable.all():
        return
    position, place = (int(number) for number in np.argwhere(~usable)[0])
    row = rows[position]
    raise ArtifactError(
        f"recording {row.recording_id} ({row.start_s:.1f} to {row.end_s:.1f} s) has no direction "
        f"in layer {projection.layers[place]}: its features are not finite or equal the corpus "
        f"mean (to {SMALLEST_SHARE:g} of its length); extract it again, or check that it is not "
        "silent"
    )


def _builtins(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    try:
        copy: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{name} must be finite builtins that JSON can hold: {error}") from None
    return copy
