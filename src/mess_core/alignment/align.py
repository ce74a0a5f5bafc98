"""All recordings of a work on the time axis of one of them."""

__all__ = ["align_work"]

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mess_core.alignment.maps import Alignment, WorkAlignment
from mess_core.alignment.notes import align_notes, shared_music
from mess_core.errors import AlignmentError
from mess_core.recordings import Recording
from mess_core.targets.notes import read_performance

#: Less in common is another work.
LEAST_SHARED = 0.4


def align_work(work_id: str, recordings: Sequence[Recording], *, cache: Path) -> WorkAlignment:
    """Align the recordings of a work that have MIDI by their notes; the others are left out.

    The reference is the recording whose length is the median. Raises `AlignmentError` if fewer than
    two recordings have MIDI.
    """
    played = {r.recording_id: read_performance(Path(r.midi)) for r in recordings if r.midi}
    if len(played) < 2:
        raise AlignmentError(f"{len(played)} recordings of {work_id} have MIDI, 2 are needed")
    by_length = sorted(played, key=lambda name: (played[name].span[1], name))
    reference = by_length[len(by_length) // 2]
    ends = np.array(played[reference].span)
    left_out = {r.recording_id: "it has no MIDI" for r in recordings if not r.midi}
    alignments = {}
    for name, performance in played.items():
        if name == reference:
            alignments[name] = Alignment(ends, ends, np.zeros(2), ends[None], np.ones(1))
            continue
        found = align_notes(played[reference], performance)
        if shared_music(found, played[reference], performance) < LEAST_SHARED:
            left_out[name] = f"it plays little or nothing of what {reference} plays"
        else:
            alignments[name] = found
    sources = dict.fromkeys(alignments, "midi")
    return WorkAlignment(work_id, reference, alignments, sources, left_out)
