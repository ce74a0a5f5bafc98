"""How FAISS holds the vectors: exactly up to a number of rows, in less memory above it.

Questions weigh blocks at will, and that decides what can be used:

* All cells are scanned. The general block is whitened, so cells of k-means follow the aspects, and
  a search of a quarter of them misses three quarters of the hits that are alike in general. But the
  centre of its cell is a good first guess of a clip, and what is left is coded in 4 bits per number
  (``x4fsr``), which FAISS scans several times faster than it reads exact vectors.
* Codes cannot tell the best of a million clips from the second best when one or two numbers decide.
  So exact vectors are kept behind the codes (``RFlat``), and many candidates are compared exactly:
  10,000 where codes and vectors fit in the memory (4.6 bytes per number), 4000 where only codes do
  (0.6 bytes per number) and each candidate is a page of the disk.
"""

__all__ = [
    "EXACT_UP_TO",
    "FLAT",
    "MEMORY_GB",
    "choose_factory",
    "flat_index",
    "hold",
    "inner_products",
    "search_parameters",
]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from mess_core.errors import ArtifactError

#: Of these classes FAISS declares the C++ constructors, not those that its Python wrappers give.
_FAISS: Any = faiss

#: FAISS's name of the exact index.
FLAT = "Flat"
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
_REFINED = ",RFlat"
_ID_BYTES, _FLOAT_BYTES = 8, 4
_AT_ONCE = 65536


class Choice(NamedTuple):
    """How vectors are held."""

    #: FAISS's name for it.
    factory: str
    #: Rows of a search whose exact scores are computed; 0 where all are.
    candidates: int


def choose_factory(
    n: int, width: int, memory_bytes: float = MEMORY_GB * 1e9, *, exact_up_to: int = EXACT_UP_TO
) -> Choice:
    """Choose how to hold n vectors of ``width`` numbers.

    Up to ``exact_up_to`` they are held exactly, and always up to 1000: codes cannot be learned from
    fewer. More may take ``memory_bytes`` where they are served; `ArtifactError` if not even their
    codes fit.
    """
    if n <= max(exact_up_to, _FEWEST):
        return Choice(FLAT, 0)
    exact = n * width * _FLOAT_BYTES
    # Two numbers share a byte; each row has its number.
    codes = n * (-(-width // 2) + _ID_BYTES)
    factory = f"IVF{min(_CELLS, n // _PER_CELL)},PQ{width}x4fsr{_REFINED}"
    if codes > memory_bytes:
        raise ArtifactError(
            f"the codes of {n} rows of {width} numbers take {codes / 1e9:.2f} GB, more than the "
            f"{memory_bytes / 1e9:g} GB of memory that an index may take; raise index.memory_gb, "
            "or make windows overlap less"
        )
    return Choice(factory, _IN_MEMORY if codes + exact <= memory_bytes else _ON_DISK)


def flat_index(width: int, expected: int = 0) -> Any:
    """Return FAISS's empty exact index of the inner product, with room for the expected rows."""
    index: Any = faiss.index_factory(width, FLAT, faiss.METRIC_INNER_PRODUCT)
    # Without room a growing index is copied again and again, and lies twice in memory then.
    index.codes.resize(expected * width * _FLOAT_BYTES)
    index.codes.resize(0)
    return index


def inner_products(index: Any, vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the inner product [n] of a vector with every row of an exact index."""
    stored = _FAISS.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    return np.asarray(stored.reshape(index.ntotal, index.d) @ vector)


def hold(exact: Any, choice: Choice) -> Any:
    """Put codes in front of the vectors of a `flat_index`, which becomes a part, where chosen.

    Cells and codes are learned from at most 200,000 rows that are spread evenly; FAISS's own seeds
    are fixed, and so is the order of its sums.
    """
    if choice.factory == FLAT:
        return exact
    n = exact.ntotal
    coded: Any = faiss.index_factory(
        exact.d, choice.factory.removesuffix(_REFINED), faiss.METRIC_INNER_PRODUCT
    )
    with _one_thread():
        learned_from = np.linspace(0, n - 1, min(n, _LEARNED_FROM)).astype(np.int64)
        coded.train(exact.reconstruct_batch(np.unique(learned_from)))
        coded.nprobe = coded.nlist
        for start in range(0, n, _AT_ONCE):
            coded.add(exact.reconstruct_n(start, min(_AT_ONCE, n - start)))
    index = _FAISS.IndexRefine(coded, exact)
    index.k_factor = choice.candidates / _HITS
    return index


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let FAISS use one thread: its sums do not depend on the machine then.

    Learning codes takes many small steps. With two threads on a busy machine 0.5 s became 60 s.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def search_parameters(index: Any, wanted: int, allowed: npt.NDArray[np.bool_] | None = None) -> Any:
    """Return what FAISS has to be told besides the query, None where it is nothing.

    The more hits are ``wanted``, the fewer candidates each has: their number stays. ``allowed`` [n]
    says which rows may be hits; all by default.
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
