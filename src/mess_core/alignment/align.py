"""All recordings of a work on the time axis of one of them.

Two recordings that both have MIDI are aligned by their notes, others by their audio. The reference
is the recording of median length, one with MIDI if two or more have it; where most of the others do
not play what it plays, the next is tried. So one more recording of a work is aligned to the
reference only, and a pair that was aligned before is taken from the cache.
"""

__all__ = ["LEAST_SHARED", "align_work", "shared_music"]

from collections.abc import Sequence
from functools import cache as remember, partial
from pathlib import Path

import numpy as np

from mess_core import stages
from mess_core.alignment.audio import Features, align_audio, extract
from mess_core.alignment.maps import Alignment, WorkAlignment
from mess_core.alignment.notes import align_notes
from mess_core.cache import cached
from mess_core.extraction.audio import load_audio
from mess_core.files import fingerprint
from mess_core.recordings import Recording
from mess_core.targets.notes import read_performance
from mess_core.targets.registry import AUDIO, MIDI

#: A recording that shares less with the reference plays something else.
LEAST_SHARED = 0.4
#: References that are tried.
CANDIDATES = 5


def align_work(work_id: str, recordings: Sequence[Recording], *, cache: Path) -> WorkAlignment:
    """Align the recordings of a work, at least two.

    What plays something else is left out, with the reason; where no two recordings go together all
    are. Raises `AudioError`, `MidiError` or `AlignmentError` if a file cannot be used, and
    `StorageError` if the cache cannot be written.

    Parameters
    ----------
    work_id : str
    recordings : sequence of Recording
        Their files must be those that the table describes (`check_unchanged`).
    cache : Path
        Where maps of pairs are kept.
    """
    works = [_to(reference, recordings, cache, work_id) for reference in ()]
    tried: list[WorkAlignment] = works
    for reference in _candidates(recordings)[:CANDIDATES]:
        tried.append(_to(reference, recordings, cache, work_id))
        if 2 * len(tried[-1].alignments) > len(recordings):
            break
    best = max(tried, key=lambda work: len(work.alignments))
    if len(best.alignments) > 1:
        return best
    reason = f"no two recordings of {work_id} play the same music; check work_id"
    left_out = dict.fromkeys((r.recording_id for r in recordings), reason)
    return WorkAlignment(work_id, best.reference, {}, {}, left_out)
