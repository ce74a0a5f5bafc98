"""Rows as their work sees them: by what each differs from the mean of its work's rows.

With ``g`` and ``a`` a row's block of a space and of an aspect, and ``m`` their means over all rows
of its work, the relative blocks are ::

    g' = (g - m_g) / |g - m_g|        a' = (a - m_a) / sqrt(2 v_a)

where ``v_a`` is the mean of ``|a - m_a|^2``: the expected squared distance of two rows is
``2 v_a``, and 1 after scaling. So what `mess_core.search.scoring` says of stored vectors is true of
relative ones: similarities are 1 for what differs from its work in the same way and 0 on average.
Predicted values are centred too; a move that changes one by 1 is scaled as the block is. The only
recording of a work differs from nothing and cannot be compared.
"""

__all__ = ["relative_to_work"]

from dataclasses import replace
from itertools import pairwise

import numpy as np

from mess_core.index.factory import FLAT, flat_index
from mess_core.index.index import Index, Rows

#: Rows that are laid out at a time: 12 MB of 94 numbers.
_AT_ONCE = 16384

#: A space's block closer to the mean of its work differs from it by rounding only.
_SHORTEST = 1e-6


def relative_to_work(index: Index) -> Index:
    """Return an exact index, in memory, of the rows of works with several recordings.

    There has to be such a work. Rows are in the order of works.
    """
    names, of_recording, counts = np.unique(
        index.rows.recordings["work_id"], return_inverse=True, return_counts=True
    )
    works = of_recording[index.rows.table["recording"]]
    kept = np.flatnonzero(((names != "") & (counts > 1))[works])
    kept = kept[np.argsort(works[kept], kind="stable")]
    projection, components = index.projection, index.projection.components
    blocks = np.empty((len(kept), components + len(projection.offset)), np.float32)
    predicted = index.predicted[:, kept]
    squares = np.zeros(blocks.shape[1])
    borders = [0, *(np.flatnonzero(np.diff(works[kept])) + 1).tolist(), len(kept)]
    for first, end in pairwise(borders):
        stored = index.stored(kept[first:end])[:, : blocks.shape[1]]
        centred = np.subtract(stored, stored.mean(axis=0, dtype=np.float64))
        blocks[first:end] = centred
        squares += np.square(centred).sum(axis=0)
        values = predicted[:, first:end]
        values -= values.mean(axis=1, dtype=np.float64, keepdims=True)
    spread = np.ones(len(projection.offset))
    for aspect in projection.aspects.values():
        its = squares[components:][aspect.coordinates]
        spread[aspect.coordinates] = np.sqrt(2 * its.sum() / len(kept)) or 1.0
    for part in projection.spaces.values():
        blocks[np.linalg.norm(blocks[:, part], axis=1) < _SHORTEST, part] = 0.0
    vectors = flat_index(projection.width, len(kept))
    for first in range(0, len(kept), _AT_ONCE):
        spaces, aspects = np.split(blocks[first : first + _AT_ONCE], [components], axis=1)
        vectors.add(projection.lay_out(spaces, aspects / spread))
    return replace(
        index,
        rows=Rows(index.rows.recordings, index.rows.table[kept]),
        projection=replace(projection, steer=(projection.steer / spread).astype(np.float32)),
        predicted=predicted,
        vectors=vectors,
        factory=FLAT,
    )
