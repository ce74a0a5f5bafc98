"""The performances of every work against each other: a table, and tempo curves of a few works."""

__all__ = ["MOST_WORKS", "performance_rows", "plot_performances"]

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mess_core.alignment.curves import WorkCurves, work_curves
from mess_core.alignment.maps import read_work
from mess_core.files import read_json
from mess_core.layout import Layout
from mess_core.probing.pictures import save_figure
from mess_core.recordings import Recording
from mess_core.targets.npz import TargetReader

#: Works in the picture: the first in the order of their ids.
MOST_WORKS = 6

#: Performances that are named in the picture; more would hide each other.
_NAMED = 8

#: Against the others, in the table.
_TARGETS = ("relative_tempo", "timing_deviation", "relative_loudness")

#: So much of the curves has to fit: a fermata must not flatten the rest.
_SHOWN = (0.5, 99.5)

# Inches.
_WIDTH, _PANEL = 9.0, 2.2


def performance_rows(layout: Layout, recordings: Iterable[Recording]) -> list[dict[str, Any]]:
    """Return a row per recording of every aligned work, by work.

    They have ``work_id``, ``recording_id``, ``performer``, ``reference`` (of the work), ``source``
    and ``share`` of the alignment, the recording's targets against the others (None where
    undefined), and ``beats``: whose are the beats that its tempo is measured by.
    """
    performers = {r.recording_id: r.performer for r in recordings}
    read = TargetReader(layout)
    return [
        {
            "work_id": work_id,
            "recording_id": name,
            "performer": performers.get(name, ""),
            "reference": work["reference"],
            "source": source,
            "share": work["share"][name],
            **{target: _number(read(name, target, "recording")) for target in _TARGETS},
            "beats": work["beats"][name],
        }
        for work_id, work in sorted(_works(layout).items())
        for name, source in sorted(work["sources"].items())
    ]


def _works(layout: Layout) -> dict[str, Any]:
    works = read_json(layout.alignments_manifest)["works"].items()
    return {work_id: work for work_id, work in works if work["sources"]}


def _number(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def plot_performances(layout: Layout, output: Path) -> None:
    """Draw the tempo of the performances of the first works over work time, with the consensus.

    Raises `AlignmentError` if a file of an alignment cannot be used, and `StorageError` if the
    picture cannot be written.
    """
    works = sorted(_works(layout))[:MOST_WORKS]
    figure = Figure(figsize=(_WIDTH, _PANEL * max(1, len(works))), layout="constrained")
    axes = figure.subplots(max(1, len(works)), 1, squeeze=False)[:, 0].tolist()
    if not works:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, "no work has two recordings", ha="center", va="center")
    for ax, work_id in zip(axes, works, strict=False):
        _draw(ax, work_curves(read_work(layout, work_id)), work_id)
    figure.suptitle(f"How performances move: {layout.dataset}")
    save_figure(figure, output)


def _draw(ax: Axes, curves: WorkCurves, work_id: str) -> None:
    known = np.isfinite(curves.beat_rate).any()
    scale = 60 * curves.beat_rate if known else np.ones(len(curves.work_times))
    tempos = scale * np.exp(curves.log_tempo)
    for number, (name, tempo) in enumerate(zip(curves.recordings, tempos, strict=True)):
        label = name.removeprefix(f"{work_id}_") if number < _NAMED else None
        ax.plot(curves.work_times, tempo, lw=0.9, alpha=0.8, label=label)
    consensus = scale * np.exp(curves.consensus_tempo)
    ax.plot(curves.work_times, consensus, color="black", lw=2, label="all together")
    ax.set_title(work_id, size=9, loc="left")
    ax.set_ylabel("BPM" if known else "tempo / the reference's", size=8)
    ax.set_xlabel("s of the reference", size=8)
    ax.margins(x=0)
    low, high = np.nanpercentile(tempos, _SHOWN)
    ax.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    ax.tick_params(labelsize=7)
    ax.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
