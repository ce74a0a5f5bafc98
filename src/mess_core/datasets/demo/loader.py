"""The demo corpus as a dataset."""

__all__ = ["DemoDataset"]

from collections.abc import Sequence

from mess_core.datasets.base import BaseDataset, Source
from mess_core.datasets.demo.catalogue import demo_recordings
from mess_core.errors import DatasetError


class DemoDataset(BaseDataset):
    """Public-domain keyboard music, performed from scores by rules and rendered."""

    name = "demo"
    licence = (
        "MIT (scores and performances written for this project; the music is in the public domain)"
    )
    citation = "The demo corpus of MESS"
    layout = "{recording_id}.wav, .mid and .beats.tsv, made by `mess recordings demo`"

    def sources(self) -> Sequence[Source]:
        """Return one source per work and interpretation."""
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} does not exist; it is made as {self.layout}")
        return [
            Source(
                recording_id=recording.recording_id,
                work_id=recording.work_id,
                audio=self.root / f"{recording.recording_id}.wav",
                midi=self.root / f"{recording.recording_id}.mid",
                beats=self.root / f"{recording.recording_id}.beats.tsv",
                performer=recording.performer,
                composer=recording.composer,
                title=recording.title,
                split=recording.split,
            )
            for recording in demo_recordings()
        ]
