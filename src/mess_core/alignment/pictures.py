"""Pictures of the performances of a work.

Colours are those of Okabe and Ito, which are told apart with colour blindness. Figures are
returned; `mess_core.probing.pictures.save_figure` writes them.
"""

__all__ = ["draw_tempo", "draw_worm"]

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mess_core.alignment.compare import Comparison
from mess_core.alignment.curves import RATE, WorkCurves, smooth
from mess_core.targets.curves import Float
from mess_core.targets.notes import SHAPE_SMOOTHING_S

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_CONSENSUS, _OTHERS = "black", "0.65"
_SMALL = 8.0
#: So much of the curves has to fit; a single fermata must not flatten the rest.
_SHOWN = (0.5, 99.5)
#: A worm turns with the phrase: a Gaussian of so many s, and of so much of its length.
_WORM_S, _WORM_SHARE = 1.5, 1 / 50
_MARKS, _OFFSET = 7, "offset points"
#: Curves are drawn smoothed over so much of what is shown: 1.2 s of 5 minutes.
_DRAWN_SHARE = 1 / 250


def draw_tempo(
    curves: WorkCurves,
    work_id: str,
    *,
    passage: tuple[float, float] | None = None,
    shown: Sequence[str] = (),
) -> Figure:
    """Draw the tempo of all performances over work time, with the consensus.

    Tempo is in BPM where there are beats, and below that in % of the consensus. ``shown``, at most
    five, are highlighted; else the three that deviate most. A passage of work time is shaded, and
    is what is shown, with as much before and after it.
    """
    start, end = curves.work_times[[0, -1]]
    if passage is not None:
        around = max(10.0, passage[1] - passage[0])
        start, end = max(start, passage[0] - around), min(end, passage[1] + around)
    there = (curves.work_times >= start) & (curves.work_times <= end)
    spread_s = max(SHAPE_SMOOTHING_S, (end - start) * _DRAWN_SHARE)
    log_tempo = np.array([smooth(row, spread_s) for row in curves.log_tempo])
    common = smooth(curves.consensus_tempo, spread_s)
    against = 100 * np.expm1(log_tempo - common)
    spread = [np.ptp(np.nanpercentile(row, (16, 84))) for row in against]
    names = list(shown) or [curves.recordings[i] for i in np.argsort(spread)[:-4:-1]]
    panels = [(against, np.where(np.isfinite(common), 0.0, np.nan))]
    labels = ["faster than the consensus, %"]
    if np.isfinite(curves.beat_rate).any():
        bpm = 60 * np.exp(smooth(np.log(curves.beat_rate), spread_s))
        panels.insert(0, (bpm * np.exp(log_tempo), bpm * np.exp(common)))
        labels.insert(0, "tempo, BPM")
    figure = Figure(figsize=(10.0, 1.6 + 2.6 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (values, consensus), label in zip(axes, panels, labels, strict=True):
        for name, row in zip(curves.recordings, values, strict=True):
            if name not in names:
                ax.plot(curves.work_times, row, color=_OTHERS, lw=0.7, zorder=1)
        ax.plot(curves.work_times, consensus, color=_CONSENSUS, lw=1.6, label="consensus", zorder=2)
        for name, colour in zip(names, _COLOURS, strict=False):
            row = values[curves.row(name)]
            ax.plot(curves.work_times, row, color=colour, lw=1.3, label=name, zorder=3)
        if passage is not None:
            ax.axvspan(*passage, color="#F0E442", alpha=0.4, lw=0, zorder=0)
        low, high = np.nanpercentile(values[:, there], _SHOWN)
        ax.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
        ax.set_ylabel(label)
        ax.grid(alpha=0.3)
    axes[-1].set_xlim(start, end)
    axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda time, _: _minutes(time)))
    axes[-1].xaxis.set_major_locator(MaxNLocator(10, steps=[1, 1.5, 2, 3, 6, 10]))
    axes[-1].set_xlabel("time in the reference, min:s")
    handles, named = axes[0].get_legend_handles_labels()
    figure.legend(handles, named, loc="outside lower center", ncols=2, fontsize=_SMALL)
    figure.suptitle(
        f"Tempo of {len(curves.recordings)} performances, smoothed over {spread_s:.1f} s: {work_id}"
    )
    return figure


def draw_worm(compared: Comparison) -> Figure:
    """Draw loudness over tempo of two performances as they move (Langner & Goebl 2003).

    A worm begins thin and pale and ends thick and dark; times are each recording's own. Up and to
    the right is louder and faster. The consensus's worm is grey in both.
    """
    curves, part = compared.curves, compared.part
    length_s = (part.stop - part.start) / RATE
    spread = max(_WORM_S, _WORM_SHARE * length_s)
    in_bpm = np.isfinite(curves.beat_rate[part]).any()
    unit = 60 * curves.beat_rate if in_bpm else 100 * np.exp(-curves.consensus_tempo)
    tempos = np.vstack([curves.log_tempo, curves.consensus_tempo])[:, part]
    louds = np.vstack([curves.loudness, curves.consensus_loudness])[:, part]
    x = np.array([smooth(row, spread) for row in np.exp(tempos) * unit[part]])
    y = np.array([smooth(row, spread) for row in louds])
    figure = Figure(figsize=(10.0, 5.2), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, name, colour in zip(panels, compared.recordings, _COLOURS, strict=False):
        row = curves.row(name)
        ax.plot(x[-1], y[-1], color=_OTHERS, lw=1.0, zorder=1)
        _draw_trail(ax, x[row], y[row], colour)
        _mark(ax, x[row], y[row], curves.times[row, part], colour)
        ax.set_title(name, size=9, color=colour)
        ax.set_xlabel("tempo, BPM" if in_bpm else "tempo, % of the consensus")
        ax.grid(alpha=0.3)
    panels[0].set_ylabel("loudness, dBFS")
    panels[0].margins(0.1)
    figure.suptitle(
        f"Tempo and loudness, smoothed over {spread:.1f} s; from pale to dark; grey: consensus",
        size=11,
    )
    return figure


def _draw_trail(ax: Axes, x: Float, y: Float, colour: str) -> None:
    points = np.stack([x, y], axis=1)
    lines = np.stack([points[:-1], points[1:]], axis=1)
    age = np.linspace(0, 1, len(lines))[:, None]
    # Blended with white, not transparent: ends of neighbouring lines overlap.
    colours = 1 - (1 - np.array(to_rgb(colour))) * (0.2 + 0.8 * age)
    widths = 0.8 + 2.2 * age[:, 0]
    trail = LineCollection(list(lines), colors=colours, linewidths=widths, capstyle="round")
    trail.set_zorder(3)
    ax.add_collection(trail)


def _mark(ax: Axes, x: Float, y: Float, times: Float, colour: str) -> None:
    """Say when the worm is where, at a few places that are far enough apart to be read."""
    known = np.flatnonzero(np.isfinite(x + y))
    if not len(known):
        return
    room = 0.08 * np.array([np.ptp(x[known]), np.ptp(y[known])])
    free: list[Float] = []
    for place in known[np.linspace(0, len(known) - 1, _MARKS).astype(int)]:
        at = np.array([x[place], y[place]])
        if all((np.abs(at - other) > room).any() for other in free):
            free.append(at)
            ax.plot(*at, "o", color=colour, mec="white", ms=6, zorder=4)
            text = ax.annotate(_minutes(times[place]), (at[0], at[1]), (6, 6), textcoords=_OFFSET)
            box = {"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.5}
            text.set(size=_SMALL, zorder=5, bbox=box)


def _minutes(time_s: float) -> str:
    return f"{int(time_s) // 60}:{int(time_s) % 60:02d}"
