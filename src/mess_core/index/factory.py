"""How FAISS holds the vectors: exactly up to a number of rows, in less memory above it.

Questions weigh blocks at will, and that decides what can be used. Measured with a million made-up
clips of 94 numbers, 40 questions of each kind and 10 hits (`make bench-search`; docs/search.md has
more). *Recall* is the share of the exact ten that is found; in brackets how much lower the ten
score that are found, where it is 0.0005 at least (unrelated clips score 0, equal ones 1). Times are
those of one thread:

================================= ===== ==== ========== ========== ========== ==========
FAISS factory, candidates         bytes ms   general    random     two        one
                                                        weights    aspects    aspect
================================= ===== ==== ========== ========== ========== ==========
``Flat``                          376   12   1          1          1          1
``SQ8``                           94    73   .99        .92        .29 (.002) .06 (.001)
``Pad96,SQ8,RFlat``, 400          472   7    1          1          .83        .33
``PQ47x4fs,RFlat``, 1000          400   1    1          .61 (.012) .04 (.017) .01 (.021)
``PQ94x4fs,RFlat``, 1000          423   2    1          .96 (.001) .41 (.005) .11 (.004)
``IVF1024,SQ8``, 64 cells         104   5    .06 (.116) .80 (.005) .11 (.005) .03 (.002)
``IVF1024,SQ8``, 256 cells        104   19   .28 (.064) .91        .22 (.003) .03 (.001)
``IVF1024,PQ94x4fsr,RFlat``, all
cells, 1000                       433   4    1          .99        .44 (.002) .10 (.001)
cells, 10,000                     433   6    1          1          .82        .43
================================= ===== ==== ========== ========== ========== ==========

* No cell can be left out. The general block is whitened, so that all its directions are worth the
  same, and the cells of k-means follow the aspects: who looks into a quarter of them misses three
  quarters of the hits that are alike in general.
* But the centre of its cell is a good first guess of a clip. What is left is coded in 4 bits per
  number (``x4fsr``), which FAISS scans several times faster than it reads exact vectors.
* Codes cannot tell the best of a million clips from the second best when one or two numbers decide.
  There the tenth best is 0.000001 better than the eleventh (median), and what is found instead
  scores the same to three digits, if enough candidates are compared exactly. Most of them are
  needed for *unlike*, whose hits lie far out, where codes are coarse: of a million clips drawn
  around the demo's real vectors, 1000 candidates hold .64 (.097) of such hits, 4000 .93 (.011),
  10,000 .997. For that, and for exact contributions, exact vectors are kept behind the codes
  (``RFlat``).
* FAISS's scalar codes are fast for widths that are multiples of 16 only (``Pad96``), and then still
  take twice the memory.

So: ``Flat`` up to `EXACT_UP_TO` rows, and above ``IVF..,PQ..x4fsr,RFlat``,

* with 10,000 candidates where codes and exact vectors fit in the memory (4.6 bytes per number);
* with 4000 where only codes do (0.6 bytes per number): exact vectors stay on the disk, and a
  question reads a page for each candidate, unless the system still has it.
"""

__all__ = ["EXACT_UP_TO", "FLAT", "MEMORY_GB", "Choice", "choose_factory", "search_parameters"]

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from mess_core.errors import ArtifactError
from mess_core.index.contents import FLAT

Floats = npt.NDArray[np.float32]

#: Of these classes FAISS declares the C++ constructors, not those that its Python wrappers give.
_FAISS: Any = faiss

#: Rows up to which an index is exact, and gigabytes that the vectors of a larger one may take.
EXACT_UP_TO = 1_000_000
MEMORY_GB = 4.0

#: Cells, and rows that each has at least: k-means wants 39 to learn from.
_CELLS, _PER_CELL = 1024, 64
#: Rows that cells and codes are learned from: 195 per cell.
_LEARNED_FROM = 200_000
#: Rows without which nothing can be learned.
_FEWEST = 1000
#: Candidates whose exact scores are computed, with exact vectors in memory and on the disk.
_IN_MEMORY, _ON_DISK = 10_000, 4000
#: FAISS's factor is candidates per hit; what an index is saved with is meant for so many hits.
_HITS = 10
_ID_BYTES, _FLOAT_BYTES = 8, 4
_AT_ONCE = 65536


@dataclass(frozen=True, slots=True)
class Choice:
    """How vectors are held.

    Attributes
    ----------
    factory : str
        FAISS's name for it.
    candidates : int
        Rows of a search whose exact scores are computed; 0 where all are.
    memory_bytes, disk_bytes : int
        What searches touch all the time, and the size of the file.
    why : str
        The reason, a sentence.
    """

    factory: str
    candidates: int
    memory_bytes: int
    disk_bytes: int
    why: str


def choose_factory(
    n: int,
    width: int,
    memory_bytes: float = MEMORY_GB * 1e9,
    *,
    exact_up_to: int = EXACT_UP_TO,
) -> Choice:
    """Choose how to hold vectors.

    Parameters
    ----------
    n : int
        How many.
    width : int
        Numbers of each.
    memory_bytes : float
        What they may take where they are served, if they are more than ``exact_up_to``.
    exact_up_to : int
        Rows up to which search is exact. Taken for at least 1000: less cannot be learned from.

    Returns
    -------
    Choice

    Raises
    ------
    ArtifactError
        If not even codes fit in the memory.
    """
    exact = n * width * _FLOAT_BYTES
    if n <= max(exact_up_to, _FEWEST):
        why = f"{n} rows are at most {exact_up_to}: every row is compared exactly"
        return Choice(FLAT, 0, exact, exact, why)
    # Two numbers share a byte; each row has its number.
    codes = n * (-(-width // 2) + _ID_BYTES)
    factory = f"IVF{min(_CELLS, n // _PER_CELL)},PQ{width}x4fsr,RFlat"
    given = f"the {memory_bytes / 1e9:g} GB of memory"
    above = f"{n} rows are more than {exact_up_to}"
    if codes + exact <= memory_bytes:
        why = f"{above}; codes and exact vectors fit in {given}"
        return Choice(factory, _IN_MEMORY, codes + exact, codes + exact, why)
    if codes <= memory_bytes:
        why = f"{above}; codes fit in {given}, exact vectors are read from the disk"
        return Choice(factory, _ON_DISK, codes, codes + exact, why)
    raise ArtifactError(
        f"the codes of {n} rows of {width} numbers take {codes / 1e9:.2f} GB, more than {given} "
        "that an index may take; raise index.memory_gb, or make windows overlap less"
    )


def train_index(vectors: Floats, choice: Choice) -> Any:
    """Make FAISS's index of the inner product.

    Cells and codes are learned from at most 200,000 rows that are spread evenly; FAISS's own seeds
    are fixed, and so is the order of its sums.

    Parameters
    ----------
    vectors : ndarray of float32 [shape=(n, width)]
    choice : Choice
        From `choose_factory`.

    Returns
    -------
    faiss.Index
    """
    n, width = vectors.shape
    index: Any = faiss.index_factory(width, choice.factory, faiss.METRIC_INNER_PRODUCT)
    with _one_thread():
        if choice.factory != FLAT:
            chosen = np.unique(np.linspace(0, n - 1, min(n, _LEARNED_FROM)).astype(np.int64))
            index.train(vectors[chosen])
            index.k_factor = choice.candidates / _HITS
            cells = faiss.extract_index_ivf(index)
            cells.nprobe = cells.nlist
        for start in range(0, n, _AT_ONCE):
            index.add(vectors[start : start + _AT_ONCE])
    return index


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let FAISS use one thread.

    Its sums do not depend on the machine then, and its many small steps of learning codes wait for
    no other (on a busy machine 0.5 s became 60 s with two).
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def search_parameters(index: Any, wanted: int, allowed: npt.NDArray[np.bool_] | None = None) -> Any:
    """Return what FAISS has to be told besides the query, None where it is nothing.

    Parameters
    ----------
    index : faiss.Index
        From `train_index`, or read from its file.
    wanted : int
        Hits that are asked for. The more, the fewer candidates each has: their number stays.
    allowed : ndarray of bool [shape=(n,)], optional
        Which rows may be hits; all by default.
    """
    # FAISS keeps what its parameters point to as long as these live.
    selector = None
    if allowed is not None:
        selector = _FAISS.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if not isinstance(index, faiss.IndexRefine):
        return None if selector is None else _FAISS.SearchParameters(sel=selector)
    cells = faiss.extract_index_ivf(index)
    candidates = index.k_factor * _HITS
    return _FAISS.IndexRefineSearchParameters(
        k_factor=max(1.0, candidates / wanted),
        base_index_params=_FAISS.SearchParametersIVF(nprobe=cells.nprobe, sel=selector),
    )
