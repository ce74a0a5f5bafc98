"""The index: one vector per recording or clip, such that any weighting is one inner product.

Features of a row are ``[layers, dims]``. Raw transformer features of all music point the same way
(their plain cosines are near 0.99), so each layer's corpus mean is taken away first. What is left
is scaled to unit length per layer: a *block*. A stored vector is the concatenation of its B blocks,
divided by ``sqrt(B)``, hence of unit length itself.

A query has the same layout with its block of layer l multiplied by ``w_l * sqrt(B)``, where the
weights sum to 1. Its inner product with a stored vector is then ``sum_l w_l * cos_l``, the weighted
mean of the layers' cosines: a score from -1 to 1. General similarity weighs all layers equally; an
aspect weighs the layer that knows it best. One `faiss.IndexFlatIP` serves them all.
"""

__all__ = ["Index", "Row", "build_index", "check_aspects", "check_rows", "unit_blocks"]

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from mess_core.errors import ArtifactError
from mess_core.layout import INDEX_KINDS
from mess_core.recordings import Recording

Floats = npt.NDArray[np.float32]

#: A centred block shorter than this share of the layer's mean is rounding noise: ten times what
#: float32 arithmetic leaves over (6e-8) with some room.
SMALLEST_SHARE = 1e-6


@dataclass(frozen=True, slots=True)
class Row:
    """What one row of an index is: a passage of a recording, or all of it.

    Attributes
    ----------
    recording_id, work_id, performer, composer, title, split : str
        From the recording table; all but ``recording_id`` may be empty.
    start_s, end_s : float
        The passage in seconds; ``0`` and the duration for a recording.
    """

    recording_id: str
    work_id: str
    performer: str
    composer: str
    title: str
    split: str
    start_s: float
    end_s: float

    @classmethod
    def of(cls, recording: Recording, *, start_s: float = 0.0, end_s: float | None = None) -> "Row":
        """Make the row of a recording in the table, or of a passage of it."""
        return cls(
            recording_id=recording.recording_id,
            work_id=recording.work_id,
            performer=recording.performer,
            composer=recording.composer,
            title=recording.title,
            split=recording.split,
            start_s=start_s,
            end_s=recording.duration_s if end_s is None else end_s,
        )


@dataclass(frozen=True, eq=False)
class Index:
    """An index in memory; queries do not change it, so threads may share it.

    Attributes
    ----------
    kind : str
        ``recordings`` or ``clips``.
    layers : tuple of int
        The encoder's layers that the B blocks stand for.
    rows : tuple of Row
        What each stored vector is.
    mean : ndarray [shape=(B, dims)]
        The corpus mean of each layer.
    aspects : mapping
        The aspect map (``aspects.json``); empty when there is none.
    facts : mapping
        Where it comes from: dataset, encoder, licence, stage versions.
    flat : faiss.IndexFlatIP
        The stored vectors, ``B * dims`` wide.
    """

    kind: str
    layers: tuple[int, ...]
    rows: tuple[Row, ...]
    mean: Floats
    aspects: Mapping[str, Any]
    facts: Mapping[str, Any]
    flat: Any

    @cached_property
    def positions(self) -> Mapping[str, tuple[int, ...]]:
        """The rows of every recording, as numbers in the order of the index."""
        found: dict[str, list[int]] = {}
        for position, row in enumerate(self.rows):
            found.setdefault(row.recording_id, []).append(position)
        return {recording_id: tuple(rows) for recording_id, rows in found.items()}

    def blocks(self, positions: Sequence[int]) -> Floats:
        """Return the stored unit blocks of some rows.

        Returns
        -------
        ndarray [shape=(len(positions), B, dims)]
        """
        stored: Floats = self.flat.reconstruct_batch(np.asarray(positions, dtype=np.int64))
        return stored.reshape(len(positions), *self.mean.shape) * np.float32(
            math.sqrt(len(self.layers))
        )

    def query(self, blocks: Floats, weights: Mapping[int, float]) -> Floats:
        """Lay out a query.

        Parameters
        ----------
        blocks : ndarray [shape=(B, dims)]
            Unit blocks.
        weights : mapping of int to float
            Weight of each layer, summing to 1; a layer that is not named weighs nothing.

        Returns
        -------
        ndarray [shape=(1, B * dims)]
            Its inner product with a stored vector is the weighted mean of the layers' cosines.
        """
        scale = np.array([weights.get(layer, 0.0) for layer in self.layers], dtype=np.float32)
        scaled = blocks * (scale * np.float32(math.sqrt(len(self.layers))))[:, np.newaxis]
        return np.ascontiguousarray(scaled.reshape(1, -1), dtype=np.float32)


def unit_blocks(features: Floats, mean: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Take the mean away and scale each block to unit length.

    Parameters
    ----------
    features : ndarray [shape=(n, B, dims)]
    mean : ndarray [shape=(B, dims)]

    Returns
    -------
    blocks : ndarray [shape=(n, B, dims)]
        Freshly made; the caller's array is not changed.
    usable : ndarray of bool [shape=(n, B)]
        False where a block is not finite, or nothing but rounding is left of it.
    """
    centred = features.astype(np.float32) - mean
    lengths = _lengths(centred)
    usable = np.isfinite(lengths) & (lengths > SMALLEST_SHARE * _lengths(mean))
    divisor = np.where(usable, lengths, 1.0).astype(np.float32)
    return centred / divisor[..., np.newaxis], usable


def _lengths(vectors: Floats) -> npt.NDArray[np.float64]:
    lengths: npt.NDArray[np.float64] = np.sqrt(
        np.einsum("...d,...d->...", vectors, vectors, dtype=np.float64)
    )
    return lengths


def build_index(
    features: npt.NDArray[np.floating[Any]],
    rows: Sequence[Row],
    *,
    kind: str,
    layers: Sequence[int],
    aspects: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Index:
    """Build the index of recordings or clips.

    Parameters
    ----------
    features : ndarray [shape=(n, L, dims)]
        The encoder's pooled features of every row. Not changed.
    rows : sequence of Row
        What each of the n rows is.
    kind : str
        ``recordings`` (one row per recording) or ``clips``.
    layers : sequence of int
        The layers to keep, each from 0 to L - 1.
    aspects : mapping
        The content of ``aspects.json``; empty when aspects were not probed.
    facts : mapping
        Builtins for the manifest: ``dataset``, ``encoder`` (``name``, ``weights_sha256``,
        ``trained``), ``licence``, stage versions, ...

    Returns
    -------
    Index

    Raises
    ------
    ArtifactError
        If shapes and rows disagree, a recording occurs twice in an index of recordings, a value is
        not finite, a row equals the corpus mean in some layer, or a resolved aspect needs a layer
        that is not kept.
    """
    check_rows(rows, kind)
    _check_layers(features, rows, layers)
    check_aspects(aspects, layers)
    _check_finite(features, rows)
    chosen = np.ascontiguousarray(features[:, list(layers)], dtype=np.float32)
    mean = chosen.mean(axis=0, dtype=np.float64).astype(np.float32)
    blocks, usable = unit_blocks(chosen, mean)
    _check_usable(usable, rows, layers)
    flat = faiss.IndexFlatIP(mean.size)
    flat.add(blocks.reshape(len(rows), -1) / np.float32(math.sqrt(len(layers))))
    return Index(
        kind=kind,
        layers=tuple(int(layer) for layer in layers),
        rows=tuple(rows),
        mean=mean,
        aspects=_builtins("aspects", aspects),
        facts=_builtins("facts", facts),
        flat=flat,
    )


def check_rows(rows: Sequence[Row], kind: str) -> None:
    """Refuse rows that no index of this kind can have.

    Raises
    ------
    ArtifactError
        If the kind is unknown, there is no row, a recording id is empty or (in an index of
        recordings) repeated, or times are not finite and in order.
    """
    if kind not in INDEX_KINDS:
        raise ArtifactError(f"index kind {kind!r} is none of {', '.join(INDEX_KINDS)}")
    if not rows:
        raise ArtifactError(f"an index of {kind} needs at least one row, got none")
    seen: set[str] = set()
    for row in rows:
        if not row.recording_id:
            raise ArtifactError("a row has an empty recording_id")
        if not 0 <= row.start_s <= row.end_s < math.inf:
            raise ArtifactError(
                f"recording {row.recording_id}: {row.start_s} to {row.end_s} s is no passage; "
                "times must be finite with 0 <= start <= end"
            )
        if kind == "recordings" and row.recording_id in seen:
            raise ArtifactError(
                f"recording {row.recording_id} occurs twice in an index of recordings"
            )
        seen.add(row.recording_id)


def _check_layers(
    features: npt.NDArray[np.floating[Any]], rows: Sequence[Row], layers: Sequence[int]
) -> None:
    if features.ndim != 3 or features.shape[0] != len(rows) or 0 in features.shape:
        raise ArtifactError(
            f"features have shape {features.shape}, expected ({len(rows)}, layers, dims): "
            "one row each"
        )
    n_layers = features.shape[1]
    if not layers or len(set(layers)) != len(layers):
        raise ArtifactError(f"layers {list(layers)} must name at least one layer, each once")
    for layer in layers:
        if not 0 <= layer < n_layers:
            raise ArtifactError(f"layer {layer} does not exist; the features have 0-{n_layers - 1}")


def check_aspects(aspects: Mapping[str, Any], layers: Sequence[int]) -> None:
    """Refuse an aspect map whose resolved aspects need layers that the index does not keep.

    Raises
    ------
    ArtifactError
        If a resolved aspect's layer is not among ``layers``.
    """
    for name, aspect in aspects.get("aspects", {}).items():
        if aspect["resolved"] and aspect["layer"] not in layers:
            raise ArtifactError(
                f"aspect {name!r} needs layer {aspect['layer']}, but the index keeps only "
                f"{list(layers)}; add that layer to the index's layers"
            )


def _describe(row: Row) -> str:
    return f"recording {row.recording_id} ({row.start_s:.1f} to {row.end_s:.1f} s)"


def _check_finite(features: npt.NDArray[np.floating[Any]], rows: Sequence[Row]) -> None:
    for row, values in zip(rows, features, strict=True):
        if not np.isfinite(values).all():
            raise ArtifactError(
                f"{_describe(row)} has features that are not finite; extract it again"
            )


def _check_usable(
    usable: npt.NDArray[np.bool_], rows: Sequence[Row], layers: Sequence[int]
) -> None:
    if usable.all():
        return
    row, block = np.argwhere(~usable)[0]
    raise ArtifactError(
        f"{_describe(rows[row])} has no direction in layer {layers[block]}: its features equal the "
        f"corpus mean (to {SMALLEST_SHARE:g} of its length) or overflow; an index needs at least "
        "two different rows, and features that vary"
    )


def _builtins(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    try:
        copy: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{name} must be finite builtins that JSON can hold: {error}") from None
    return copy
