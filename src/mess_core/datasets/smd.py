"""Saarland Music Data: piano pieces recorded on a Yamaha Disklavier, with MIDI."""

__all__ = ["SMDDataset"]

from collections.abc import Sequence
from pathlib import Path

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
    layout = "SMD-piano_v2/ as the archive unpacks, or wav-44/*-SMD.wav and midi/*-SMD.mid"

    def sources(self) -> Sequence[Source]:
        """Return one source per recording, from the folder of the highest sample rate."""
        found = sorted(self.root.rglob("*-SMD.wav")) or sorted(self.root.rglob("*-SMD.mp3"))
        # The archive also holds the recordings at 22 kHz, and the MIDI rendered.
        folders = sorted({path.parent for path in found}, key=_badness)
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


def _badness(folder: Path) -> tuple[bool, bool]:
    return "midi" in folder.name, "44" not in folder.name
