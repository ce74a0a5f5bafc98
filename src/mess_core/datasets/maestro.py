"""MAESTRO: about 200 hours of virtuosic piano competition performances with aligned MIDI."""

__all__ = ["MAESTRODataset"]

from collections.abc import Sequence
from pathlib import Path

from mess_core.datasets.base import BaseDataset, Source, distinct_ids, read_rows, unique_ids
from mess_core.errors import DatasetError

_COLUMNS = {"canonical_composer", "canonical_title", "split", "midi_filename", "audio_filename"}


class MAESTRODataset(BaseDataset):
    """MAESTRO v2 and v3; its CSV gives composer, title and split.

    The same composer and title are one work. Performers are not given by the dataset.
    """

    name = "maestro"
    licence = "CC BY-NC-SA 4.0"
    citation = (
        "C. Hawthorne, A. Stasyuk, A. Roberts, I. Simon, C.-Z. A. Huang, S. Dieleman, E. Elsen, "
        "J. Engel, D. Eck: Enabling Factorized Piano Music Modeling and Generation with the "
        "MAESTRO Dataset. ICLR 2019."
    )
    layout = "maestro-v3.0.0/ as the archive unpacks: maestro-v*.csv and the year folders"

    def sources(self) -> Sequence[Source]:
        """Return one source per row of the CSV."""
        table = self._table()
        rows = read_rows(table, _COLUMNS)
        ids = unique_ids(Path(row["audio_filename"]) for row in rows)
        works = distinct_ids(
            f"{row['canonical_composer']}_{row['canonical_title']}" for row in rows
        )
        return [
            Source(
                recording_id=name,
                work_id=work,
                audio=table.parent / row["audio_filename"],
                midi=table.parent / row["midi_filename"],
                composer=row["canonical_composer"],
                title=row["canonical_title"],
                split=row["split"],
            )
            for name, work, row in zip(ids, works, rows, strict=True)
        ]

    def _table(self) -> Path:
        tables = [
            p for where in ("", "*/") for p in sorted(self.root.glob(f"{where}maestro-v*.csv"))
        ]
        if not tables:
            raise DatasetError(
                f"{self.root} holds no maestro-v*.csv; MAESTRO is expected as {self.layout}"
            )
        return tables[-1]
