"""All recordings of a work on the time axis of one of them.

Two recordings that both have MIDI are aligned by their notes, others by their audio. The reference
is the recording of median length, one with MIDI where two or more have it; if most of the others do
not play what it plays, the next is tried. So one more recording of a work is aligned to the
reference, not to all, and a pair that was aligned before comes from the cache.
"""

__all__ = ["LEAST_SHARED", "align_work", "shared_music"]

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from mess_core import stages
from mess_core.alignment.audio import Features, align_audio, extract
from mess_core.alignment.maps import Alignment, WorkAlignment
from mess_core.alignment.notes import align_notes
from mess_core.cache import cached
from mess_core.errors import AlignmentError
from mess_core.extraction.audio import load_audio
from mess_core.files import fingerprint
from mess_core.recordings import Recording
from mess_core.targets.notes import read_performance
from mess_core.targets.registry import AUDIO, MIDI

#: A recording that shares less with the reference plays something else.
LEAST_SHARED = 0.4
#: References that are tried.
_CANDIDATES = 5


def align_work(work_id: str, recordings: Sequence[Recording], *, cache: Path) -> WorkAlignment:
    """Align the recordings of a work, whose files must be those of the table (`check_unchanged`).

    Returns the work without loudness and beats. What plays something else is left out, with the
    reason; where no two go together all are, and the reference is empty. Maps of pairs are kept in
    the cache. Raises `AudioError` or `MidiError` if a file cannot be used, and `StorageError` if
    the cache cannot be written.
    """
    reason = f"no two recordings of {work_id} play the same music; check their work_id"
    if len(recordings) < 2:
        reason = f"no other recording of {work_id} can be used"
    left_out = dict.fromkeys((r.recording_id for r in recordings), reason)
    best = WorkAlignment(work_id, "", {}, {}, left_out)
    for reference in _candidates(recordings) if len(recordings) > 1 else ():
        work = _aligned_to(reference, work_id, recordings, cache)
        if len(work.alignments) > max(1, len(best.alignments)):
            best = work
        if 2 * len(best.alignments) > len(recordings):
            break
    return best


def shared_music(alignment: Alignment, reference_s: float, other_s: float) -> float:
    """Return how much of the shorter of two recordings the other plays too, 0 to 1.

    That is the time that regions cover, each counted as much as is sure of it.
    """
    spans = np.interp(alignment.regions, alignment.times, alignment.work_times)
    covered = np.minimum(np.ptp(alignment.regions, axis=1), np.ptp(spans, axis=1))
    shorter = max(min(reference_s, other_s), 1e-3)
    return float(min(1.0, (covered * alignment.confidence).sum() / shorter))


def _candidates(recordings: Sequence[Recording]) -> list[Recording]:
    """Return what may be the reference, the best first."""
    with_midi = [r for r in recordings if r.midi]
    known = with_midi if len(with_midi) > 1 else list(recordings)
    middle = float(np.median([r.duration_s for r in known]))
    ordered = sorted(known, key=lambda r: (abs(r.duration_s - middle), r.recording_id))
    return ordered[:_CANDIDATES]


def _aligned_to(
    reference: Recording, work_id: str, recordings: Sequence[Recording], cache: Path
) -> WorkAlignment:
    alignments, left_out = {}, {}
    sources = {reference.recording_id: MIDI if reference.midi else AUDIO}
    for recording in recordings:
        name = recording.recording_id
        source = MIDI if reference.midi and recording.midi else AUDIO
        if recording is reference:
            continue
        try:
            found = _pair(reference, recording, source, cache)
        except AlignmentError as error:
            left_out[name] = str(error)
            continue
        shared = shared_music(found, reference.duration_s, recording.duration_s)
        if shared < LEAST_SHARED:
            left_out[name] = (
                f"only {100 * shared:.0f} % of it is what {reference.recording_id} plays; is it of "
                f"{work_id}? Correct its work_id, or put it into the folder of its work"
            )
            continue
        alignments[name], sources[name] = found, source
    alignments[reference.recording_id] = _identity(alignments.values())
    names = [r.recording_id for r in recordings if r.recording_id in alignments]
    return WorkAlignment(
        work_id,
        reference.recording_id,
        {name: alignments[name] for name in names},
        {name: sources[name] for name in names},
        left_out,
    )


def _identity(others: Iterable[Alignment]) -> Alignment:
    """Return the reference's own map: its regions are what anybody else plays, too."""
    spans = [np.interp(each.regions, each.times, each.work_times) for each in others]
    joined: list[list[float]] = []
    for start, stop in sorted(np.concatenate(spans or [np.empty((0, 2))]).tolist()):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(stop, joined[-1][1])
        else:
            joined.append([start, stop])
    regions = np.array(joined).reshape(-1, 2)
    knots = regions.ravel() if joined else np.zeros(1)
    return Alignment(knots, knots, np.zeros(len(knots)), regions, np.ones(len(regions)))


def _pair(reference: Recording, other: Recording, source: str, cache: Path) -> Alignment:
    """Align two recordings, or take their map from the cache."""
    hashes = [r.midi_sha256 if source == MIDI else r.audio_sha256 for r in (reference, other)]

    def write(path: Path) -> None:
        if source == MIDI:
            made = align_notes(*(read_performance(Path(r.midi)) for r in (reference, other)))
        else:
            made = align_audio(_features(reference), _features(other))
        np.savez(path, allow_pickle=False, **made.arrays())

    key = fingerprint({"stage": stages.ALIGNMENTS, "source": source, "recordings": hashes})
    return Alignment.read(cached(cache, "pairs", key, ".npz", write))


@lru_cache(maxsize=2)
def _features(recording: Recording) -> Features:
    """Return what a recording is aligned by; the reference's are asked for again and again."""
    return extract(load_audio(Path(recording.audio)))
