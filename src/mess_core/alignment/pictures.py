"""Pictures of the performances of a work.

Colours are those of Okabe and Ito, which are told apart with colour blindness. Figures are
returned; `mess_core.probing.pictures.save_figure` writes them.
"""

__all__ = ["draw_tempo", "draw_worm"]

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from mess_core.alignment.compare import Comparison, Ranking
from mess_core.alignment.curves import RATE, WorkCurves, smooth
from mess_core.targets.curves import Float
from mess_core.targets.notes import SHAPE_SMOOTHING_S

_COLOURS = ("#0072B2", "#D55E00", "#009E73")
_OTHERS = "0.65"
#: So much of the curves has to fit; a single fermata must not flatten the rest.
_SHOWN = (0.5, 99.5)
#: A worm turns with the phrase: a Gaussian of so many s, and of so much of its length.
_WORM_S, _WORM_SHARE = 1.5, 1 / 50
#: Times that are written beside a worm.
_MARKS = 7
#: Curves are drawn smoothed over so much of what is shown: 1.2 s of 5 minutes.
_DRAWN_SHARE = 1 / 250


def draw_tempo(works: Mapping[str, WorkCurves], ranking: Ranking | None = None) -> Figure:
    """Draw the tempo of all performances of some works over work time, with the consensus.

    Tempo is in BPM where there are beats, else in % of the consensus. Three performances are
    highlighted: those that deviate most, or the first of a ranking. Of that the passage is shaded,
    and only its surroundings are shown.
    """
    height = 2.6 if len(works) > 1 else 4.2
    figure = Figure(figsize=(10.0, height * max(1, len(works))), layout="constrained")
    if not works:
        figure.text(0.5, 0.5, "no work has two recordings", ha="center", va="center")
        return figure
    panels = figure.subplots(len(works), 1, squeeze=False)[:, 0]
    for ax, (work_id, curves) in zip(panels, works.items(), strict=True):
        start, end = curves.work_times[[0, -1]]
        if ranking:
            start, end = ranking.surroundings
            ax.axvspan(*ranking.passage, color="#F0E442", alpha=0.4, lw=0, zorder=0)
        spread_s = max(SHAPE_SMOOTHING_S, (end - start) * _DRAWN_SHARE)
        log_tempo = np.array([smooth(row, spread_s) for row in curves.log_tempo])
        common = smooth(curves.consensus_tempo, spread_s)
        spread = [np.ptp(np.nanpercentile(row, (16, 84))) for row in log_tempo - common]
        names = [curves.recordings[i] for i in np.argsort(spread)[:-4:-1]]
        if ranking:
            names = [row.recording_id for row in ranking.rows[:3]]
        known = np.isfinite(curves.beat_rate).any()
        unit = 60 * smooth(curves.beat_rate, spread_s) if known else 100 * np.exp(-common)
        tempos = unit * np.exp(log_tempo)
        for row in tempos:
            ax.plot(curves.work_times, row, color=_OTHERS, lw=0.7)
        ax.plot(curves.work_times, unit * np.exp(common), color="black", lw=1.6, label="consensus")
        for name, colour in zip(names, _COLOURS, strict=False):
            ax.plot(curves.work_times, tempos[curves.row(name)], color=colour, lw=1.3, label=name)
        there = (curves.work_times >= start) & (curves.work_times <= end)
        low, high = np.nanpercentile(tempos[:, there], _SHOWN)
        ax.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
        ax.set_ylabel("tempo, BPM" if known else "tempo, % of the consensus")
        ax.set_title(f"{work_id}, smoothed over {spread_s:.1f} s", size=9, loc="left")
        ax.set_xlim(start, end)
        ax.locator_params(axis="x", integer=True)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda time, _: _minutes(time)))
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    panels[-1].set_xlabel("time in the reference, min:s")
    return figure


def draw_worm(compared: Comparison) -> Figure:
    """Draw loudness over tempo of two performances as they move (Langner & Goebl 2003).

    A worm begins thin and pale and ends thick and dark; times are each recording's own. Up and to
    the right is louder and faster. The consensus's worm is grey in both.
    """
    spread = max(_WORM_S, _WORM_SHARE * len(compared.work_times) / RATE)
    in_bpm = np.isfinite(compared.bpm).any()
    in_percent = 100 * np.exp(compared.log_tempo - compared.log_tempo[-1])
    x, y = (
        np.array([smooth(row, spread) for row in rows])
        for rows in (compared.bpm if in_bpm else in_percent, compared.loudness)
    )
    age = np.linspace(0, 1, x.shape[1])[:, None]
    figure = Figure(figsize=(10.0, 5.2), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for row, (ax, colour) in enumerate(zip(panels, _COLOURS, strict=False)):
        ax.plot(x[-1], y[-1], color=_OTHERS, lw=1.0)
        # Blended with white, not transparent: neighbouring dots overlap.
        colours = 1 - (1 - np.array(to_rgb(colour))) * (0.2 + 0.8 * age)
        ax.plot(x[row], y[row], color=colour, lw=0.6)
        ax.scatter(x[row], y[row], s=3 + 20 * age[:, 0], c=colours, lw=0, zorder=3)
        known = np.flatnonzero(np.isfinite(x[row] + y[row]))
        room = 0.08 * np.ptp([ax.get_xlim(), ax.get_ylim()], axis=1)
        named: list[Float] = []  # places far enough apart to be read
        for i in known[:: max(1, len(known) // _MARKS)]:
            at = np.array([x[row, i], y[row, i]])
            if all((np.abs(at - other) > room).any() for other in named):
                named.append(at)
                ax.plot(*at, "o", color=colour, mec="white", ms=6, zorder=4)
                when = _minutes(compared.times[row, i])
                ax.annotate(when, at, (6, 6), textcoords="offset points", size=8, zorder=5)
        ax.set_title(compared.recordings[row], size=9, color=colour)
        ax.set_xlabel("tempo, BPM" if in_bpm else "tempo, % of the consensus")
        ax.grid(alpha=0.3)
    panels[0].set_ylabel("loudness, dBFS")
    panels[0].margins(0.1)
    figure.suptitle(
        f"Tempo and loudness, smoothed over {spread:.1f} s; from pale to dark; grey: consensus"
    )
    return figure


def _minutes(time_s: float) -> str:
    return f"{int(time_s) // 60}:{int(time_s) % 60:02d}"
