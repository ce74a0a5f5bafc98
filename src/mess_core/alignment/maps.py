"""A recording's map to the time of its work, in memory and on disk.

*Work time* is the time of one recording of the work, the reference, in seconds.
``data/alignments/{dataset}/{recording_id}.npz`` holds a recording's `Alignment` beside the targets
that follow from it, ``manifest.json`` which works are aligned.
"""

__all__ = ["Alignment", "WorkAlignment", "read_work"]

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mess_core.errors import AlignmentError, nearest
from mess_core.files import read_json
from mess_core.layout import Layout
from mess_core.targets.curves import Float


@dataclass(frozen=True, eq=False)
class Alignment:
    """One recording's map to work time: straight lines between knots, regions apart.

    Attributes
    ----------
    times, work_times : ndarray [shape=(n,)]
        Knots: seconds of the recording, and of the reference; both strictly increasing.
    errors : ndarray [shape=(n,)]
        Standard error of ``times`` at the knots, s.
    regions : ndarray [shape=(k, 2)]
        From where to where, s of the recording, it plays what the reference plays; in order.
        Between two of them one of both plays what the other does not (a cut, a repeat).
    confidence : ndarray [shape=(k,)]
        How sure it is that a region is the same music, 0 to 1.
    loudness : ndarray [shape=(m,)]
        Momentary loudness of the recording, dBFS, as `mess_core.targets.sound.Sound` has it.
    beats : ndarray [shape=(b,)]
        When the recording reaches the beats of the work, s; NaN outside of the regions. Empty where
        the work has none.
    """

    times: Float
    work_times: Float
    errors: Float
    regions: Float
    confidence: Float
    loudness: Float = field(default_factory=lambda: np.empty(0))
    beats: Float = field(default_factory=lambda: np.empty(0))

    def to_work(self, times: Float) -> Float:
        """Return work times of times of the recording, NaN outside of the regions."""
        found = np.interp(times, self.times, self.work_times)
        return np.where(_inside(times, self.regions), found, np.nan)

    def to_recording(self, work_times: Float) -> Float:
        """Return times of the recording of work times, NaN outside of the regions."""
        found = np.interp(work_times, self.work_times, self.times)
        spans = np.interp(self.regions, self.times, self.work_times)
        return np.where(_inside(work_times, spans), found, np.nan)

    def windows_to_work(self, windows: Float) -> Float:
        """Return start and end in the work of passages [n, 2] of the recording.

        Both are NaN unless one region holds the whole passage. But less than half of it may lie
        before the first region or after the last (silence, what dies away), where both clocks go on
        alike.
        """
        if not len(self.regions):
            return np.full_like(windows, np.nan)
        inside = np.clip(windows, self.regions[0, 0], self.regions[-1, 1])
        found = self.to_work(inside) + (windows - inside)
        first = np.searchsorted(self.regions[:, 0], inside[:, 0], side="right")
        # A passage may end where the next region begins.
        last = np.searchsorted(self.regions[:, 0], inside[:, 1], side="left")
        held = 2 * np.ptp(inside, axis=1) > np.ptp(windows, axis=1)
        whole = held & (first == last) & np.isfinite(found).all(axis=1)
        return np.where(whole[:, np.newaxis], found, np.nan)

    def arrays(self) -> dict[str, Float]:
        """Return the attributes as they are stored."""
        return dict(vars(self))

    @classmethod
    def read(cls, path: Path) -> "Alignment":
        """Read what a file holds of a map; raises `AlignmentError` if it cannot be used."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(**{entry.name: stored[entry.name] for entry in fields(cls)})
        except Exception as error:  # whatever numpy and zipfile run into in a damaged file
            raise AlignmentError(
                f"{path} cannot be read ({error}); delete it and run the alignments rule"
            ) from None


def _inside(times: Float, regions: Float) -> Any:
    """Return which times lie in one of some regions, edges included."""
    number = np.searchsorted(regions[:, 0], times, side="right") - 1
    ends = np.append(regions[:, 1], -np.inf)  # before the first region, the last entry counts
    return times <= ends[number]


@dataclass(frozen=True, eq=False)
class WorkAlignment:
    """All recordings of a work on its time axis.

    Attributes
    ----------
    work_id : str
    reference : str
        The recording whose seconds are the work's time; its own alignment is the identity.
    alignments : mapping of str to Alignment
        By ``recording_id``, the reference among them.
    sources : mapping of str to str
        What each was aligned by: ``audio`` or ``midi``.
    left_out : mapping of str to str
        Recordings that do not play the work, or hardly any of it, with the reason.
    beats_from : str
        The recording whose annotated beats (``R``) or tracked beats (``R (tracked)``) are the
        work's; empty where there are none.
    """

    work_id: str
    reference: str
    alignments: Mapping[str, Alignment]
    sources: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)
    beats_from: str = ""

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says of the work."""
        return {
            "reference": self.reference,
            "beats_from": self.beats_from,
            "sources": dict(self.sources),
            "left_out": dict(self.left_out),
        }


def read_work(layout: Layout, work_id: str) -> WorkAlignment:
    """Read the alignments of a work's recordings.

    Raises `AlignmentError` if the work is not aligned: it is unknown, or has one recording only.
    """
    path = layout.alignments_manifest
    if not path.exists():
        raise AlignmentError(
            f"{path} does not exist; run: snakemake all_alignments --config "
            f"dataset={layout.dataset}"
        )
    works: dict[str, Any] = read_json(path)["works"]
    if work_id not in works:
        raise AlignmentError(
            f"{layout.dataset} has no aligned performances of {work_id!r}; there must be two "
            f"usable recordings of it: {nearest(work_id, works)}"
        )
    if not works[work_id]["sources"]:
        reasons = "; ".join(dict.fromkeys(works[work_id]["left_out"].values()))
        raise AlignmentError(f"no performances of {work_id} are aligned: {reasons}")
    names = ("reference", "beats_from", "sources", "left_out")
    facts = {name: works[work_id][name] for name in names}
    maps = {name: Alignment.read(layout.alignment(name)) for name in facts["sources"]}
    return WorkAlignment(work_id, alignments=maps, **facts)
