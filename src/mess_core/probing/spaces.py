"""Spaces: the rows of one layer of one source, stacked, with what ridge regression needs of them.

A source is the encoder, its untrained twin, or the plain descriptors, which have one layer. Rows
are windows or recordings; a recording's descriptors are the mean of its windows'. What depends on
the features alone is computed here, once for all targets, in one folder per layer:

* ``rows.npy``: float32 ``[n, dims]``, recordings in the order of the recording table;
* ``folds.npz``: a `mess_core.probing.moments.FoldDecompositions`;
* ``space.json``: how many rows each recording has.
"""

__all__ = ["Space", "make_space"]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mess_core.errors import ProbingError, StorageError
from mess_core.extraction.storage import load_features
from mess_core.files import read_json, save_array, write_json
from mess_core.layout import DESCRIPTORS, UNTRAINED, Layout
from mess_core.probing.folds import ProbeRows, deal_folds, plan_rows
from mess_core.progress import Report
from mess_core.recordings import Recording
from mess_core.targets.npz import load_descriptors

if TYPE_CHECKING:
    from mess_core.probing.moments import FoldDecompositions

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Space:
    """A layer's rows on disk.

    Attributes
    ----------
    folder : Path
        What `make_space` wrote.
    """

    folder: Path

    @cached_property
    def counts(self) -> dict[str, int]:
        """Rows of every recording, in the rows' order."""
        counts: dict[str, int] = read_json(self.folder / "space.json")["counts"]
        return counts

    @cached_property
    def rows(self) -> Floats:
        """All rows, float32 [shape=(n, dims)], memory-mapped."""
        path = self.folder / "rows.npy"
        try:
            rows: Floats = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StorageError(
                f"{path} cannot be read ({error}); delete {self.folder} and run snakemake again"
            ) from None
        return rows

    @cached_property
    def decompositions(self) -> "FoldDecompositions":
        """Of all rows."""
        from mess_core.probing.moments import FoldDecompositions

        return FoldDecompositions.load(self.folder / "folds.npz")

    def decompose(self, rows: ProbeRows) -> "FoldDecompositions":
        """Return the decompositions of some rows: those on disk where these are all rows."""
        from mess_core.probing.moments import decompose_folds

        if rows.digest == self.decompositions.digest:
            return self.decompositions
        return decompose_folds(self.rows, rows)


def make_space(
    layout: Layout,
    recordings: Sequence[Recording],
    *,
    source: str,
    layer: int,
    unit: str = "windows",
    n_folds: int = 5,
    progress: Report | None = None,
) -> Space:
    """Stack the rows of one layer and decompose them.

    Parameters
    ----------
    layout : Layout
        Where features and targets lie.
    recordings : sequence of Recording
        Whose rows; folds never share a work.
    source : str
        One of `mess_core.layout.SOURCES`.
    layer : int
        Hidden state; 0 for descriptors.
    unit : {'windows', 'recordings'}
        What a row is.
    n_folds : int
        Folds of the cross-validation.
    progress : callable, optional
        Called with the decompositions done, those in all, and the folds left out of the last.

    Returns
    -------
    Space

    Raises
    ------
    StorageError, TargetError
        If features or descriptors are missing or damaged.
    ProbingError
        If recordings have features of different widths.
    """
    from mess_core.probing.moments import decompose_folds

    blocks = [_rows_of(layout, r.recording_id, source, layer, unit) for r in recordings]
    if len({block.shape[1] for block in blocks}) > 1:
        raise ProbingError(
            f"{layout.dataset}: recordings have {source} features of different widths; they are of "
            "different encoders: run the features rule again"
        )
    counts = {r.recording_id: len(b) for r, b in zip(recordings, blocks, strict=True)}
    X = np.concatenate(blocks)
    works = [r.work_id for r in recordings for _ in range(counts[r.recording_id])]
    names = [r.recording_id for r in recordings for _ in range(counts[r.recording_id])]
    rows = plan_rows(works, deal_folds(works, n_folds), recordings=names)
    space = Space(layout.decomposition(source, layer))
    save_array(space.folder / "rows.npy", X)
    decompose_folds(X, rows, progress=progress).save(space.folder / "folds.npz")
    write_json(space.folder / "space.json", {"source": source, "unit": unit, "counts": counts})
    return space


def _rows_of(layout: Layout, name: str, source: str, layer: int, unit: str) -> Floats:
    if source == DESCRIPTORS:
        windows = load_descriptors(layout.targets(name))
        return windows if unit == "windows" else windows.mean(axis=0, keepdims=True)
    if source == UNTRAINED:
        layout = Layout(layout.data, layout.dataset, UNTRAINED)
    if unit == "windows":
        return load_features(layout, name, view="segments")[:, layer]
    return load_features(layout, name, view="aggregated")[np.newaxis, layer]
