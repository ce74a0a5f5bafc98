"""Spaces: what turns the features of windows into vectors that are compared, and judged.

* *general* and *learned*: the blocks of an index that its searches compare.
* *baseline*: what is to be surpassed: the *plain cosine* of the encoder's features as they are, and
  centred and whitened features of the *untrained* twin and of the *descriptors*.
* *aspect*: the blocks of an index's aspects, read from audio alone.
* *layer*: each of the encoder's layers, centred and whitened.

What is whitened here is fitted to the windows that are judged (`drawn`), as an index does it; it
learns nothing of works or players.
"""

__all__ = [
    *("ASPECT", "BASELINE", "GENERAL", "LAYER", "LEARNED", "MOST_ROWS"),
    *("Space", "apart", "drawn", "features_of", "search_of", "spaces_of", "whitened", "works_of"),
]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

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

#: Groups of spaces, in the order in which they are listed.
GENERAL, LEARNED, BASELINE, ASPECT, LAYER = "general", "learned", "baseline", "aspect", "layer"

#: Windows that are judged at most: of whole works, drawn at random.
MOST_ROWS = 3000

#: From features [n, L, D] of all layers, and measured columns [n, T], to vectors [n, d].
Read = Callable[[Features, Floats | None], Floats]


@dataclass(frozen=True, eq=False)
class Space:
    """What turns features into vectors that are compared.

    ``group`` is `GENERAL` or another of these, ``source``, whose features it reads, one of
    `mess_core.layout.SOURCES`. Vectors are compared by their distance where it is ``euclidean``,
    else by their cosine. ``read`` makes them [n, d] of features [n, L, D] with all layers, and of
    the values [n, T] of the projection's columns, NaN where undefined.
    """

    name: str
    group: str
    source: str
    euclidean: bool
    read: Read


def spaces_of(layout: Layout, index: Index) -> list[Space]:
    """Return the spaces that are there for an index of clips, in the order of their groups.

    A baseline is there where all recordings have features of its source, of as many windows.
    """
    projection = index.projection
    recordings = np.array(index.rows.recordings["recording_id"])
    judged = np.unique(recordings[index.rows.table["recording"][drawn(index)]]).tolist()
    features = features_of(layout, judged)
    groups = dict.fromkeys(projection.spaces, LEARNED) | {GENERAL: GENERAL}
    spaces = [
        Space(name, groups[name], ENCODER, False, _block(projection, block))
        for name, block in projection.spaces.items()
    ]
    spaces.append(Space("plain cosine", BASELINE, ENCODER, False, _plain))
    for source in (UNTRAINED, DESCRIPTORS):
        of_source = layout.of(source)
        if all(of_source.features("segments", name).is_file() for name in judged):
            its = features_of(of_source, judged)
            read = whitened(its, range(its.shape[1]))
            spaces += [Space(source, BASELINE, source, False, read)] * (len(its) == len(features))
    readable = projection.read_from([AUDIO])
    spaces += [
        Space(name, ASPECT, ENCODER, True, _block(projection, aspect.stored))
        for name, aspect in projection.aspects.items()
        if readable[name]
    ]
    return spaces + [
        Space(f"layer {layer}", LAYER, ENCODER, False, whitened(features, [layer]))
        for layer in range(features.shape[1])
    ]


def works_of(index: Index) -> npt.NDArray[np.str_]:
    """Return the work of each recording of an index; one that has none is a work of its own."""
    works, names = (np.array(index.rows.recordings[c]) for c in ("work_id", "recording_id"))
    return np.where(works == "", names, works)


def drawn(index: Index) -> Ints:
    """Return the rows of works drawn at random, as many as may be judged.

    They are of whole recordings: of a first work that is larger, of some of its recordings.
    """
    works, of_recording = np.unique(works_of(index), return_inverse=True)
    of_row = index.rows.table["recording"]
    turn = np.random.default_rng(0).permutation(len(works)).argsort()
    order = np.argsort(turn[of_recording], kind="stable")
    ends = np.bincount(of_row, minlength=len(order))[order].cumsum()
    last = np.append(np.diff(of_recording[order]) != 0, True)
    whole = np.flatnonzero(last & (ends <= MOST_ROWS))
    n = whole[-1] + 1 if len(whole) else max(1, int((ends <= MOST_ROWS).sum()))
    return np.flatnonzero(np.isin(of_row, order[:n]))


def features_of(layout: Layout, recordings: Iterable[str]) -> npt.NDArray[np.float32]:
    """Return the features [n, L, D] of the windows of recordings, one after the other."""
    return np.concatenate([load_features(layout, name, view="segments") for name in recordings])


def _plain(features: Features, _: Floats | None) -> Floats:
    return features.reshape(len(features), -1).astype(np.float64)


def _block(projection: Projection, columns: slice) -> Read:
    """Return what reads columns of stored vectors, aspects from audio alone."""

    def read(features: Features, measured: Floats | None) -> Floats:
        kept = features[:, projection.layers]
        return projection.project(kept, measured, [AUDIO])[0][:, columns].astype(np.float64)

    return read


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
