"""Which rows a probe sees, whose works they are, and how works are dealt to folds.

Rows are windows or recordings. Many rows are of one *work*, and a probe that has met a work could
name it instead of hearing how it is played. So whole works are dealt to folds. Rows that do not
have the target drop out, and what depends on the rows but not on their target is shared by all
targets that have the same rows: `ProbeRows.digest` names them.
"""

__all__ = ["ProbeRows", "deal_folds", "plan_rows"]

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mess_core.errors import ProbingError

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class ProbeRows:
    """The rows that are probed: those of n rows that are ``present`` [n].

    ``works``, ``recordings`` and ``folds`` [m] number those of the m present rows from 0. Where
    recordings are not known, each work is one. No fold is empty or shares a work with another.
    """

    present: Bools
    works: Ints
    recordings: Ints
    folds: Ints

    @property
    def n_rows(self) -> int:
        """Rows that are present."""
        return len(self.works)

    @property
    def n_works(self) -> int:
        """Works of the present rows."""
        return _count(self.works)

    @property
    def n_folds(self) -> int:
        """Folds of the present rows."""
        return _count(self.folds)

    @property
    def n_recordings(self) -> int:
        """Recordings of the present rows."""
        return _count(self.recordings)

    @cached_property
    def indices(self) -> Ints:
        """Positions of the present rows among all rows [shape=(m,)]."""
        return np.flatnonzero(self.present)

    @cached_property
    def work_sizes(self) -> Ints:
        """Rows of each work [shape=(n_works,)]."""
        return np.bincount(self.works)

    @cached_property
    def work_folds(self) -> Ints:
        """Fold of each work [shape=(n_works,)]."""
        folds = np.empty(self.n_works, np.int64)
        folds[self.works] = self.folds
        return folds

    def sum_by_work(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return the sums [n_works, ...] over each work of values [m, ...] of the present rows."""
        order, starts = self._by_work
        return np.add.reduceat(values[order], starts, dtype=np.float64)

    @cached_property
    def _by_work(self) -> tuple[Ints, Ints]:
        """The rows sorted by work, and where in that order each work starts."""
        order = np.argsort(self.works, kind="stable")
        return order, np.concatenate([[0], np.cumsum(self.work_sizes)[:-1]])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of which rows are present, their works and their folds."""
        hashed = hashlib.sha256(len(self.present).to_bytes(8, "little"))
        for array in (np.packbits(self.present), self.works, self.folds):
            hashed.update(array.astype("<i8").tobytes())
        return hashed.hexdigest()


def deal_folds(works: Sequence[str], n_folds: int) -> Ints:
    """Deal whole works to folds of about equal size, and return each row's fold.

    Works go, the largest first and equal ones by name, to the fold that has the fewest rows so
    far. The order of the rows does not matter, and the result is the same on every machine. Where
    there are fewer works than folds, each work is a fold.
    """
    sizes = sorted(Counter(works).items(), key=lambda item: (-item[1], item[0]))
    filled = [0] * min(n_folds, len(sizes))
    fold_of: dict[str, int] = {}
    for work, size in sizes:
        fold_of[work] = filled.index(min(filled))
        filled[fold_of[work]] += size
    return np.array([fold_of[work] for work in works], np.int64)


def plan_rows(
    works: Sequence[str],
    folds: npt.NDArray[np.integer],
    present: Bools | None = None,
    recordings: Sequence[str] | None = None,
) -> ProbeRows:
    """Plan which rows are probed, in which folds.

    All targets keep the same folds, so that they can be compared. Only where a fold would be left
    without a row are the works of the present rows dealt anew.

    ``works``, ``folds`` and ``recordings`` are those of each row; rows that are ``present`` have
    the target (all when not given). Raises `ProbingError` if lengths differ, a recording is of two
    works, or a work is in two folds.
    """
    if present is None:
        present = np.ones(len(works), np.bool_)
    if not len(works) == len(folds) == len(present) == len(recordings or works):
        raise ProbingError(
            f"{len(works)} works, {len(folds)} folds, {len(present)} targets and "
            f"{len(recordings or works)} recordings do not belong together: give one of each per "
            "row"
        )
    of_work = _numbered(works)
    _check_nested(of_work, folds, "work", "folds", "a probe would know what it is tested on")
    of_recording = of_work if recordings is None else _numbered(recordings)
    _check_nested(of_recording, of_work, "recording", "works", "give recordings unique names")
    kept = [works[row] for row in np.flatnonzero(present).tolist()]
    n_folds = len(np.unique(folds))
    dealt = np.asarray(folds, np.int64)[present]
    if len(np.unique(dealt)) < min(n_folds, len(set(kept))):
        dealt = deal_folds(kept, n_folds)
    return ProbeRows(
        present, *(_renumbered(codes) for codes in (of_work[present], of_recording[present], dealt))
    )


def _count(codes: Ints) -> int:
    return int(codes.max(initial=-1)) + 1


def _numbered(names: Sequence[str]) -> Ints:
    return _renumbered(np.asarray(names))


def _renumbered(values: npt.NDArray[np.generic]) -> Ints:
    return np.asarray(np.unique(values, return_inverse=True)[1], np.int64)


def _check_nested(
    inner: Ints, outer: npt.NDArray[np.integer], name: str, groups: str, remedy: str
) -> None:
    pairs = np.unique(np.stack([inner, outer]), axis=1)
    if pairs.shape[1] > _count(inner):
        number = int(np.argmax(np.bincount(pairs[0])))
        row = int(np.flatnonzero(inner == number)[0])
        raise ProbingError(f"the {name} of row {row} is in several {groups}: {remedy}")
