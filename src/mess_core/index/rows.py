"""What the rows of an index are: passages of recordings, as columns, so that a million is small."""

__all__ = ["ROW_TYPE", "Row", "Rows"]

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import overload

import numpy as np
import numpy.typing as npt

from mess_core.errors import ArtifactError
from mess_core.layout import INDEX_KINDS
from mess_core.recordings import Recording

#: A row on disk: the number of its recording, and the passage in seconds.
ROW_TYPE = np.dtype([("recording", "<i8"), ("start_s", "<f8"), ("end_s", "<f8")])


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


#: The fields that rows of one recording share.
FIELDS = tuple(field.name for field in fields(Row) if field.name not in ("start_s", "end_s"))


def _entry(
    row: Row, numbers: dict[str, int], known: list[tuple[str, ...]]
) -> tuple[int, float, float]:
    """Return what the table says of a row; add its recording to those that are known."""
    facts = tuple(getattr(row, name) for name in FIELDS)
    number = numbers.setdefault(row.recording_id, len(numbers))
    if number == len(known):
        known.append(facts)
    elif known[number] != facts:
        raise ArtifactError(
            f"recording {row.recording_id} is described as {known[number]} and as {facts}; "
            "give all its rows the same work, performer, composer, title and split"
        )
    return number, row.start_s, row.end_s


class Rows(Sequence[Row]):
    """The rows of an index, in the order of its vectors.

    Parameters
    ----------
    recordings : mapping of str to sequence of str
        The fields of `FIELDS` as columns, one entry per recording.
    table : ndarray of `ROW_TYPE` [shape=(n,)]
        May be memory-mapped.
    """

    def __init__(self, recordings: Mapping[str, Sequence[str]], table: npt.NDArray[np.void]):
        self.recordings = recordings
        self.table = table

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "Rows":
        """Make columns of rows; what is said of a recording first is kept.

        Raises
        ------
        ArtifactError
            If rows of one recording disagree about it.
        """
        numbers: dict[str, int] = {}
        known: list[tuple[str, ...]] = []
        # Row by row, so that no list of them is made.
        table = np.fromiter((_entry(row, numbers, known) for row in rows), ROW_TYPE)
        columns = {name: [facts[i] for facts in known] for i, name in enumerate(FIELDS)}
        return cls(columns, table)

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, position: int) -> Row: ...
    @overload
    def __getitem__(self, position: slice) -> "tuple[Row, ...]": ...
    def __getitem__(self, position: int | slice) -> "Row | tuple[Row, ...]":
        if isinstance(position, slice):
            return tuple(self[number] for number in range(len(self))[position])
        number, start_s, end_s = self.table[position].item()
        facts = {name: column[number] for name, column in self.recordings.items()}
        return Row(**facts, start_s=start_s, end_s=end_s)

    def __iter__(self) -> Iterator[Row]:
        return (self[number] for number in range(len(self)))

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of every recording, by its id."""
        return {name: number for number, name in enumerate(self.recordings["recording_id"])}

    @cached_property
    def _grouped(self) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64]]:
        """Rows sorted by recording (None: as they are), and where there each recording starts."""
        of_row = np.ascontiguousarray(self.table["recording"])
        order = None
        if (of_row[1:] < of_row[:-1]).any():
            order = np.argsort(of_row, kind="stable")
            of_row = of_row[order]
        borders = np.searchsorted(of_row, np.arange(len(self.numbers) + 1))
        return order, borders.astype(np.int64)

    def positions(self, recording_id: str) -> npt.NDArray[np.int64]:
        """Return the rows of a recording, as numbers in the order of the index.

        Raises
        ------
        KeyError
            If the index does not hold it.
        """
        number = self.numbers[recording_id]
        order, borders = self._grouped
        first, end = borders[number : number + 2].tolist()
        return np.arange(first, end) if order is None else order[first:end]

    def having(self, field: str, values: Iterable[str]) -> npt.NDArray[np.bool_]:
        """Return which rows are of recordings with one of some values in a field.

        Parameters
        ----------
        field : str
            One of `FIELDS`.
        values : iterable of str
            Of which one must be equal.

        Returns
        -------
        ndarray of bool [shape=(n,)]
        """
        wanted = set(values)
        chosen = np.array([value in wanted for value in self.recordings[field]], np.bool_)
        order, borders = self._grouped
        grouped = np.repeat(chosen, np.diff(borders))
        if order is None:
            return grouped
        found = np.empty(len(self), np.bool_)
        found[order] = grouped
        return found

    def check(self, kind: str) -> None:
        """Refuse rows that no index of this kind can have.

        Raises
        ------
        ArtifactError
            If the kind is unknown, there is no row, a recording id is empty or repeated, a row's
            recording does not exist, or times are not finite and in order.
        """
        if kind not in INDEX_KINDS:
            raise ArtifactError(f"index kind {kind!r} is none of {', '.join(INDEX_KINDS)}")
        if not len(self):
            raise ArtifactError(f"an index of {kind} needs at least one row, got none")
        names = self.recordings["recording_id"]
        if len(self.numbers) < len(names) or "" in self.numbers:
            raise ArtifactError("recording ids are empty or repeated; give each recording its own")
        used = np.bincount(self._valid_numbers(), minlength=len(names))
        if (used == 0).any():
            raise ArtifactError(f"recording {names[int(np.argmin(used))]} has no row")
        if kind == "recordings" and (used > 1).any():
            twice = names[int(np.argmax(used))]
            raise ArtifactError(f"recording {twice} occurs twice in an index of recordings")
        start, end = self.table["start_s"], self.table["end_s"]
        wrong = ~((start >= 0) & (start <= end) & (end < math.inf))
        if wrong.any():
            row = self[int(np.argmax(wrong))]
            raise ArtifactError(
                f"recording {row.recording_id}: {row.start_s} to {row.end_s} s is no passage; "
                "times must be finite with 0 <= start <= end"
            )

    def _valid_numbers(self) -> npt.NDArray[np.int64]:
        numbers: npt.NDArray[np.int64] = self.table["recording"]
        names = self.recordings["recording_id"]
        if numbers.min() < 0 or numbers.max() >= len(names):
            raise ArtifactError(
                f"rows are of recordings {numbers.min()} to {numbers.max()}, but there are "
                f"{len(names)}, counted from 0"
            )
        return numbers
