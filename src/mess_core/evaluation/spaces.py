"""Spaces: what turns the features of windows into vectors that are compared, and judged.

* *general* and what was learned: the blocks of an index that its searches compare.
* What is to be surpassed: the *plain cosine* of the encoder's features as they are, and centred and
  whitened features of the *untrained* twin and of the *descriptors*.
* The blocks of an index's aspects, read from audio alone.
* Each *layer* of the encoder, centred and whitened.

What is whitened here is fitted to the windows that are judged (`drawn`), as an index does it; it
learns nothing of works or players.
"""

__all__ = [
    *("MOST_ROWS", "Space", "apart", "drawn", "features_of", "search_of", "spaces_of", "whitened"),
    "works_of",
]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.evaluation.judges import Search, cosine
from mess_core.extraction.storage import load_features
from mess_core.index.fitting import fit_projection
from mess_core.index.index import Index
from mess_core.index.projection import Projection
from mess_core.layout import DESCRIPTORS, ENCODER, UNTRAINED, Layout
from mess_core.probing.folds import Features, Floats, Ints
from mess_core.targets.registry import AUDIO

#: Windows that are judged at most: of whole works, drawn at random.
MOST_ROWS = 3000

#: From features [n, L, D] of all layers, and measured columns [n, T], to vectors [n, d].
Read = Callable[[Features, Floats | None], Floats]


@dataclass(frozen=True, eq=False)
class Space:
    """What turns features into vectors that are compared.

    ``source``, whose features it reads, is one of `mess_core.layout.SOURCES`. Vectors are compared
    by their distance where it is ``euclidean``, else by their cosine. ``read`` makes them [n, d] of
    features [n, L, D] with all layers, and of the values [n, T] of the projection's columns, NaN
    where undefined.
    """

    name: str
    source: str
    euclidean: bool
    read: Read


def spaces_of(
    layout: Layout,
    index: Index,
    rows: Ints | None = None,
    baselines: Iterable[str] = (UNTRAINED, DESCRIPTORS),
) -> list[Space]:
    """Return the spaces that are there for an index of clips; ``rows`` are those that are `drawn`.

    A baseline is there where all recordings have its features, of as many windows. What a dataset
    is no longer compared with may have old ones: name the ``baselines`` of its settings.
    """
    projection = index.projection
    recordings = np.array(index.rows.recordings["recording_id"])
    rows = drawn(index) if rows is None else rows
    judged = np.unique(recordings[index.rows.table["recording"][rows]]).tolist()
    features, block = features_of(layout, judged), _blocks(projection)
    spaces = [Space(name, ENCODER, False, block(part)) for name, part in projection.spaces.items()]
    spaces += [
        Space("plain cosine", ENCODER, False, lambda x, _: x.reshape(len(x), -1).astype(np.float64))
    ]
    for source in baselines:
        of_source = layout.of(source)
        if all(of_source.features("segments", name).is_file() for name in judged):
            its = features_of(of_source, judged)
            read = whitened(its, range(its.shape[1]))
            spaces += [Space(source, source, False, read)] * (len(its) == len(features))
    readable = projection.read_from([AUDIO])
    spaces += [
        Space(name, ENCODER, True, block(aspect.stored))
        for name, aspect in projection.aspects.items()
        if readable[name]
    ]
    return spaces + [
        Space(f"layer {layer}", ENCODER, False, whitened(features, [layer]))
        for layer in range(features.shape[1])
    ]


def works_of(index: Index) -> npt.NDArray[np.str_]:
    """Return the work of each recording of an index; one that has none is a work of its own."""
    works, names = (np.array(index.rows.recordings[c]) for c in ("work_id", "recording_id"))
    return np.where(works == "", names, works)


def drawn(index: Index) -> Ints:
    """Return the rows of works drawn at random, as many as may be judged.

    Works that do not fit are left out; where none fits, there are whole recordings of the first.
    """
    works, of_recording = np.unique(works_of(index), return_inverse=True)
    of_row = index.rows.table["recording"]
    order = np.random.default_rng(0).permutation(len(works))
    if whole := _fitting(order, of_recording[of_row]):
        return np.flatnonzero(np.isin(of_recording[of_row], whole))
    parts = np.flatnonzero(of_recording == order[0])
    return np.flatnonzero(np.isin(of_row, _fitting(parts, of_row) or parts[:1]))


def _fitting(order: Ints, of_row: Ints) -> list[int]:
    """Return those that have rows and fit, one after the other."""
    sizes, room, chosen = np.bincount(of_row, minlength=max(order) + 1), MOST_ROWS, list[int]()
    for n in order.tolist():
        if 0 < sizes[n] <= room:
            room -= sizes[n]
            chosen.append(n)
    return chosen


def features_of(layout: Layout, recordings: Iterable[str]) -> npt.NDArray[np.float32]:
    """Return the features [n, L, D] of the windows of recordings, one after the other."""
    return np.concatenate([load_features(layout, name, view="segments") for name in recordings])


def _blocks(projection: Projection) -> Callable[[slice], Read]:
    """Return what reads columns of stored vectors, aspects from audio alone, projected once."""
    last: tuple[Any, ...] = (None, None, None)

    def read(columns: slice, features: Features, measured: Floats | None) -> Floats:
        nonlocal last
        if last[0] is not features or last[1] is not measured:
            kept = features[:, projection.layers]
            last = features, measured, projection.project(kept, measured, [AUDIO])[0]
        return np.asarray(last[2][:, columns], np.float64)

    return lambda columns: partial(read, columns)


def whitened(features: npt.NDArray[np.float32], layers: Sequence[int]) -> Read:
    """Return what reads centred and whitened components of some layers, fitted to features."""
    projection = fit_projection(lambda layer: features[:, layer], layers)
    return lambda given, _: projection.read(given[:, layers])[0]


def search_of(vectors: npt.NDArray[np.floating], euclidean: bool) -> Search:
    """Search by vectors [n, d]: their cosine, or how near they are."""
    if not euclidean:
        return cosine(vectors)
    return lambda row: -np.linalg.norm(vectors - vectors[row], axis=1)


def apart(vectors: npt.NDArray[np.floating], euclidean: bool, a: Ints, b: Ints) -> Floats:
    """Return how far rows ``a`` [t] of vectors are from rows ``b`` [t]: 1 - cosine, or distance."""
    if euclidean:
        return np.asarray(np.linalg.norm(vectors[a] - vectors[b], axis=1))
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1)
    return np.asarray(np.maximum(1 - np.einsum("td,td->t", unit[a], unit[b]), 0.0))
