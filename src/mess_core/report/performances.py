"""The performances of every work against each other: a table, and tempo curves of a few works."""

__all__ = ["AGAINST", "performance_rows", "plot_performances"]

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mess_core.alignment.curves import work_curves
from mess_core.alignment.maps import read_work
from mess_core.alignment.pictures import draw_tempo
from mess_core.files import read_json
from mess_core.layout import Layout
from mess_core.probing.pictures import save_figure
from mess_core.recordings import Recording
from mess_core.targets.npz import TargetReader

#: Works in the picture: the first in the order of their ids.
_MOST_WORKS = 6

#: Targets against the others, in the table.
AGAINST = ("relative_tempo", "timing_deviation", "relative_loudness")


def performance_rows(layout: Layout, recordings: Iterable[Recording]) -> list[dict[str, Any]]:
    """Return a row for each of the recordings that are aligned, by work.

    Of the alignment: its ``reference``, ``source``, ``share`` of the recording, and whose ``beats``
    its tempo is measured by; and the targets against the others, None where undefined.
    """
    read = TargetReader(layout)
    works = read_json(layout.alignments_manifest)["works"]
    rows = []
    for r in sorted(recordings, key=lambda r: (r.work_id, r.recording_id)):
        work, name = works.get(r.work_id, {"sources": {}}), r.recording_id
        if name in work["sources"]:
            row: dict[str, Any] = {
                "work_id": r.work_id,
                "recording_id": name,
                "performer": r.performer,
            }
            row |= {"reference": work["reference"], "source": work["sources"][name]}
            row["share"] = work["share"][name]
            for target in AGAINST:
                value = read(name, target, "recording")
                row[target] = None if value is None or np.isnan(value) else float(value)
            rows.append(row | {"beats": work["beats"][name]})
    return rows


def plot_performances(layout: Layout, output: Path) -> None:
    """Draw the tempo of the performances of the first works over work time, with the consensus.

    Raises `AlignmentError` if an alignment, `StorageError` if the picture's file cannot be used.
    """
    works = read_json(layout.alignments_manifest)["works"]
    shown = sorted(work_id for work_id in works if works[work_id]["sources"])[:_MOST_WORKS]
    curves = {work_id: work_curves(read_work(layout, work_id)) for work_id in shown}
    save_figure(draw_tempo(curves), output)
