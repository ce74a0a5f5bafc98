"""Saarland Music Data: piano pieces recorded on a Yamaha Disklavier, with MIDI."""

__all__ = ["SMDDataset"]

from collections.abc import Sequence

from mess_core.datasets.base import BaseDataset, Source, resolve_midi_path, safe_id
from mess_core.errors import DatasetError


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
    layout = "wav-44/*.wav (44.1 kHz), midi/*.mid with the same stems"

    def sources(self) -> Sequence[Source]:
        """Return one source per file in ``wav-44``."""
        folder = self.root / "wav-44"
        files = sorted(folder.glob("*.wav"))
        if not files:
            raise DatasetError(f"{folder} holds no WAV files; SMD is expected as {self.layout}")
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
