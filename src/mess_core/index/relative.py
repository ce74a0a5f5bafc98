"""Rows as their work sees them: by what each differs from the mean of its work's rows.

With ``g`` and ``a`` a row's general block and the block of an aspect, and ``m`` their means over
all rows of its work, the relative blocks are ::

    g' = (g - m_g) / |g - m_g|        a' = (a - m_a) / sqrt(2 v_a)

where ``v_a`` is the mean of ``|a - m_a|^2`` over the rows of works with several recordings: the
expected squared distance of two of them is ``2 v_a``, and 1 after scaling. So all that
`mess_core.search.scoring` says of stored vectors is true of relative ones: similarities are 1 for
what differs from its work in the same way and 0 on average, and a question is a vector. Predicted
values are centred too; a move that changes one by 1 is scaled as the block is. The only recording
of a work differs from nothing and cannot be compared.

Relative vectors are no linear image of stored ones, and are not kept. With ``q`` the question's
vector, its inner product with a relative vector is ::

    (q_g . g - q_g . m_g) / |g - m_g| + sum_a (q_a . a - q_a . m_a) / sqrt(2 v_a) + q_n . |a'|^2

so that, of a row, the length and the squares suffice (A + 1 numbers), the means of its work, and
one inner product with the stored vector: a question reads all stored vectors once, where they are.
"""

__all__ = ["RelativeVectors"]

import numpy as np
import numpy.typing as npt

from mess_core.index.projection import Projection

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

#: Rows that are read at a time while means are computed: 12 MB of 94 numbers.
_AT_ONCE = 16384

#: A general block closer to the mean of its work differs from it by rounding only.
_SHORTEST = 1e-6


class RelativeVectors:
    """The relative vectors of all rows, in the place of FAISS's index of the stored ones.

    Parameters
    ----------
    stored : ndarray of float32 [shape=(n, width)]
        All stored vectors; kept, not copied.
    projection : Projection
        What they are laid out by.
    works : ndarray of int [shape=(n,)]
        The number of each row's work, from 0.
    several : ndarray of bool [shape=(n_works,)]
        Which works have several recordings.
    """

    def __init__(self, stored: Floats, projection: Projection, works: Ints, several: Bools) -> None:
        self._stored, self._projection, self._works = stored, projection, works
        #: Which rows [n] can be compared.
        self.comparable = several[works]
        self._means = self._mean_of_works(len(several))
        self._lengths = np.empty(len(stored), np.float32)
        self._squares = np.empty((len(stored), len(projection.names)), np.float32)
        firsts = np.cumsum([0, *projection.sizes[:-1]])[: len(projection.sizes)]
        for start in range(0, len(stored), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            general, aspects = self._centred(part)
            self._lengths[part] = np.linalg.norm(general, axis=1)
            self._squares[part] = np.add.reduceat(np.square(aspects), firsts, axis=1)
        self._lengths[self._lengths < _SHORTEST] = np.inf
        variance = self._squares[self.comparable].mean(axis=0, dtype=np.float64)
        spread = np.where(variance > 0, np.sqrt(2 * variance), 1.0)
        self._squares /= np.square(spread)
        #: What the aspects' blocks are divided by [E].
        self.spread = np.repeat(spread, projection.sizes)

    def _mean_of_works(self, n_works: int) -> Doubles:
        """Return the means [n_works, G + E] of blocks."""
        blocks = self._projection.general + len(self._projection.offset)
        sums = np.zeros((n_works, blocks))
        for start in range(0, len(self._stored), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            works = self._works[part]
            # Rows of a work mostly follow each other.
            firsts = np.flatnonzero(np.diff(works, prepend=-1))
            runs = np.add.reduceat(self._stored[part, :blocks], firsts, axis=0, dtype=np.float64)
            np.add.at(sums, works[firsts], runs)
        counts = np.bincount(self._works, minlength=n_works)
        return sums / np.maximum(counts, 1)[:, np.newaxis]

    def _centred(self, rows: slice | Ints) -> list[Doubles]:
        """Return what general blocks and the aspects' blocks of rows differ in from their works."""
        means = self._means[self._works[rows]]
        centred = np.subtract(self._stored[rows, : means.shape[1]], means, dtype=np.float64)
        return np.split(centred, [self._projection.general], axis=1)

    def reconstruct_batch(self, positions: Ints) -> Floats:
        """Return the relative vectors [len(positions), width] of some rows."""
        general, aspects = self._centred(positions)
        general = general / self._lengths[positions, np.newaxis]
        return self._projection.lay_out(general, aspects / self.spread)

    def best(self, vector: Floats, wanted: int, allowed: Bools | None) -> tuple[Floats, Ints]:
        """Return the largest inner products with a vector [width], and their rows, best first.

        ``allowed`` [n] says which rows may be hits, at least ``wanted`` of them; all by default.
        """
        products = self._products(vector)
        if allowed is not None:
            products[~allowed] = -np.inf
        best = np.argpartition(-products, wanted - 1)[:wanted]
        best = best[np.lexsort((best, -products[best]))]
        return products[best], best

    def _products(self, vector: Floats) -> Floats:
        general = self._projection.general
        blocks = slice(general, self._means.shape[1])
        asked = (vector[blocks] / self.spread).astype(np.float32)
        products = self._squares @ vector[blocks.stop :]
        # Nothing is copied: these are views of the stored vectors.
        if asked.any():
            mean = (self._means[:, blocks] @ asked).astype(np.float32)
            products += self._stored[:, blocks] @ asked - mean[self._works]
        if vector[:general].any():
            mean = (self._means[:, :general] @ vector[:general]).astype(np.float32)
            inner = self._stored[:, :general] @ vector[:general] - mean[self._works]
            products += inner / self._lengths
        return np.asarray(products, np.float32)
