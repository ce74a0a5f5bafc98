"""MAESTRO: about 200 hours of virtuosic piano competition performances with aligned MIDI."""

__all__ = ["MAESTRODataset"]

import csv
from collections.abc import Sequence
from pathlib import Path

from mess_core.datasets.base import BaseDataset, Source, safe_id, unique_ids
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
    layout = "maestro-v*.csv and the year folders (2004/, ...) beside it, as the archive unpacks"

    def sources(self) -> Sequence[Source]:
        """Return one source per row of the CSV."""
        table = self._table()
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            lacking = sorted(_COLUMNS - set(reader.fieldnames or ()))
            if lacking:
                raise DatasetError(f"{table} lacks the columns {lacking}; is it MAESTRO's own CSV?")
            rows = list(reader)
        ids = unique_ids(Path(row["audio_filename"]) for row in rows)
        return [
            Source(
                recording_id=name,
                work_id=safe_id(f"{row['canonical_composer']}_{row['canonical_title']}"),
                audio=self.root / row["audio_filename"],
                midi=self.root / row["midi_filename"],
                composer=row["canonical_composer"],
                title=row["canonical_title"],
                split=row["split"],
            )
            for name, row in zip(ids, rows, strict=True)
        ]

    def _table(self) -> Path:
        tables = sorted(self.root.glob("maestro-v*.csv"))
        if not tables:
            raise DatasetError(
                f"{self.root} holds no maestro-v*.csv; MAESTRO is expected as {self.layout}"
            )
        return tables[-1]
