"""Published corpora of piano performances with MIDI, as their archives unpack."""

__all__ = ["MAESTRODataset", "SMDDataset"]

from collections.abc import Sequence
from pathlib import Path

from mess_core.datasets.base import (
    BaseDataset,
    Source,
    distinct_ids,
    read_rows,
    resolve_midi_path,
    safe_id,
    unique_ids,
)
from mess_core.errors import DatasetError

_MAESTRO_COLUMNS = {
    "canonical_composer",
    "canonical_title",
    "split",
    "midi_filename",
    "audio_filename",
}


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
        rows = read_rows(table, _MAESTRO_COLUMNS)
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


class SMDDataset(BaseDataset):
    """Saarland Music Data (SMD), the MIDI-audio piano part.

    Files are named ``{composer}_{work}_{performer}_{date}-SMD.wav``, for example
    ``Bach_BWV849-01_001_20090916-SMD.wav``: one movement is one work.
    """

    name = "smd"
    licence = "CC BY-NC-SA 3.0"
    citation = (
        "M. Müller, V. Konz, W. Bogler, V. Arifi-Müller: Saarland Music Data (SMD). "
        "Late-breaking session, ISMIR 2011."
    )
    layout = "SMD-piano_v2/ as the archive unpacks, or wav-44/*-SMD.wav and midi/*-SMD.mid"

    def sources(self) -> Sequence[Source]:
        """Return one source per recording, from the folder of the highest sample rate."""
        found = sorted(self.root.rglob("*-SMD.wav")) or sorted(self.root.rglob("*-SMD.mp3"))
        # The archive also holds the recordings at 22 kHz, and the MIDI rendered.
        folders = sorted({path.parent for path in found}, key=_worse)
        if not folders:
            raise DatasetError(f"{self.root} holds no *-SMD.wav; SMD is expected as {self.layout}")
        files = [path for path in found if path.parent == folders[0]]
        sources = []
        for audio in files:
            composer, work, performer, *_ = [*audio.stem.split("_"), "", "", ""]
            sources.append(
                Source(
                    recording_id=safe_id(audio.stem),
                    work_id=safe_id(f"{composer}_{work}"),
                    audio=audio,
                    midi=resolve_midi_path(audio),
                    performer=performer,
                    composer=composer,
                    title=work,
                )
            )
        return sources


def _worse(folder: Path) -> tuple[bool, bool]:
    return "midi" in folder.name, "44" not in folder.name
