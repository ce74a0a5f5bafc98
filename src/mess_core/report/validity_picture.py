"""A picture of the validity of targets: defined, moved by playing, agreeing with what is known.

Rows are targets, grouped by category. Bars: the share of rows that have the target, and the share
of its variance within works. Points: agreement with the MIDI target of the same meaning, with its
95 % interval. Cells, where parameters of the interpretations are known: correlation with each; the
target's own parameter is outlined, and above stand the parameters themselves. Colours are those of
Okabe and Ito, and PuOr, which are told apart with colour blindness.
"""

__all__ = ["plot_validity"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from mess_core.probing.pictures import by_category, save_figure, short_number

# Inches.
_ROW, _CELL, _NAMES, _PANEL, _MARGINS = 0.24, 0.5, 2.4, 1.6, 2.6
_SMALL = 7.0
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "0.55"
# PuOr is dark at both ends: from this correlation on cells take white text.
_DARK = 0.6

Row = Mapping[str, Any]


class _Line(NamedTuple):
    """A line of the picture: a heading (without cells), a parameter (without row) or a target."""

    label: str
    row: Row | None = None
    cells: Sequence[float | None] = ()


def plot_validity(
    rows: Sequence[Row],
    output: Path,
    *,
    parameters: Mapping[str, Mapping[str, float | None]] | None = None,
    title: str = "",
) -> None:
    """Draw how valid targets are, as a ``.png`` or ``.svg``.

    ``rows`` are those of `mess_core.report.validity.measure_validity`, at least one; ``parameters``
    those of `parameter_rows`, where any are known. Raises `ProbingError` if the suffix is another
    one, and `StorageError` if the file cannot be written.
    """
    names = list(parameters or {})
    lines: list[_Line] = []
    if parameters:
        lines += [_Line("parameters"), *(_Line(n, None, [*parameters[n].values()]) for n in names)]
    for category, members in by_category(rows).items():
        lines += [_Line(category)]
        lines += [_Line(row["target"], row, [row[f"of_{n}"] for n in names]) for row in members]
    widths = [_PANEL] * 3 + [_CELL * len(names)] * bool(names)
    figure = Figure(
        figsize=(_NAMES + sum(widths) + 0.4, _MARGINS + _ROW * len(lines)), layout="constrained"
    )
    axes = figure.subplots(1, len(widths), sharey=True, width_ratios=widths)
    _draw_bars(axes[0], lines, "defined", _BLUE, "share of rows\nthat have it")
    _draw_bars(axes[1], lines, "within_works", _ORANGE, "share of variance\nwithin works")
    _draw_agreement(axes[2], lines)
    if names:
        image = _draw_cells(axes[3], lines, names)
        bar = figure.colorbar(image, ax=axes[3], location="bottom", aspect=40, pad=0.01)
        bar.set_label("Spearman correlation within works;\noutlined: the target's own", size=8)
    _name_lines(axes[0], lines)
    figure.suptitle(f"Do targets measure what they say{f': {title}' if title else ''}")
    save_figure(figure, output)


def _name_lines(ax: Axes, lines: Sequence[_Line]) -> None:
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.set_yticks(range(len(lines)), [line.label for line in lines], size=8)
    for label, line in zip(ax.get_yticklabels(), lines, strict=True):
        if not line.row and not line.cells:
            label.set_fontweight("bold")


def _draw_bars(ax: Axes, lines: Sequence[_Line], key: str, colour: str, label: str) -> None:
    for number, line in enumerate(lines):
        if line.row:
            value = line.row[key]
            ax.barh(number, value or 0, height=0.6, color=colour)
            told = "-" if value is None else f"{value:.2f}"
            ax.text(1.06, number, told, size=_SMALL, va="center")
    _finish_panel(ax, label, (0, 1.35), [0, 0.5, 1])


def _draw_agreement(ax: Axes, lines: Sequence[_Line]) -> None:
    ax.axvline(0, color="0.8", lw=0.8, zorder=0)
    for number, line in enumerate(lines):
        if not line.row or line.row["midi_r"] is None:
            continue
        value, low, high = (line.row[key] for key in ("midi_r", "midi_lo", "midi_hi"))
        if low is not None:
            ax.plot([low, high], [number] * 2, color=_GREY, lw=1.5, zorder=1)
        ax.plot(value, number, "o", color=_BLUE, ms=5, zorder=2)
        ax.text(1.1, number, short_number(value), size=_SMALL, va="center")
    label = "audio with MIDI, within\nworks: mean and 95 %"
    _finish_panel(ax, label, (-1.05, 1.6), [-1, 0, 1])


def _finish_panel(
    ax: Axes, label: str, limits: tuple[float, float], ticks: Sequence[float]
) -> None:
    ax.set_xlim(*limits)
    ax.set_xticks(ticks)
    # Above and below: there may be many lines between.
    ax.set_xlabel(label, size=8)
    ax.set_title(label, size=8)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", alpha=0.3)
    ax.set_axisbelow(True)


def _draw_cells(ax: Axes, lines: Sequence[_Line], names: Sequence[str]) -> AxesImage:
    values = np.array([line.cells or [None] * len(names) for line in lines], float)
    image = ax.imshow(values, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
    for number, line in enumerate(lines):
        for column, value in enumerate(line.cells):
            told = "-" if value is None else short_number(value)
            colour = "white" if abs(value or 0) > _DARK else "black"
            ax.text(column, number, told, size=_SMALL, color=colour, ha="center", va="center")
        if line.row and line.row["own"] in names:
            _outline(ax, names.index(line.row["own"]), number)
    ax.set_xticks(range(len(names)), names, size=8)
    ax.tick_params(axis="x", labeltop=True, labelrotation=90, length=0)
    ax.tick_params(axis="y", length=0)
    return image


def _outline(ax: Axes, column: int, row: int) -> None:
    for width, colour in ((3.4, "white"), (1.8, "black")):
        place = (column - 0.5, row - 0.5)
        ax.add_patch(Rectangle(place, 1, 1, fill=False, lw=width, ec=colour, clip_on=False))
