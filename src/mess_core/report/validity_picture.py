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
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from mess_core.probing.figures import by_category, save_figure, short_number

# Inches.
_ROW, _CELL, _NAMES, _PANEL, _MARGINS = 0.24, 0.5, 3.0, 1.6, 2.2
_SMALL = 7.0
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "0.55"
# PuOr is dark at both ends: from this correlation on cells take white text.
_DARK = 0.6

Row = Mapping[str, Any]
Together = Mapping[str, Mapping[str, float | None]]


def plot_validity(
    rows: Sequence[Row], output: Path, *, parameters: Together | None = None, title: str = ""
) -> None:
    """Draw how valid targets are.

    Parameters
    ----------
    rows : sequence of dict
        Of `mess_core.report.validity.measure_validity`; at least one.
    output : Path
        The picture, ``.png`` or ``.svg``; written whole or not at all.
    parameters : mapping of str to mapping, optional
        Of `mess_core.report.validity.parameter_rows`, where parameters are known.
    title : str
        What was measured.

    Raises
    ------
    ProbingError
        If the suffix is another one.
    StorageError
        If the file cannot be written.
    """
    groups = by_category(rows)
    names = list(parameters or {})
    blocks = ([names] if names else []) + list(groups.values())
    sizes = [len(block) for block in blocks]
    widths = [_PANEL] * 3 + ([_CELL * len(names)] if names else [])
    figure = Figure(
        figsize=(_NAMES + sum(widths) + 0.4, _MARGINS + _ROW * (sum(sizes) + len(sizes))),
        layout="constrained",
    )
    grid = figure.subplots(
        len(blocks),
        len(widths),
        squeeze=False,
        sharex="col",
        height_ratios=sizes,
        width_ratios=widths,
    )
    if names:
        _draw_parameters(grid[0], names, parameters or {})
    for axes, (category, members) in zip(grid[bool(names) :], groups.items(), strict=True):
        _draw_category(axes, category, members, names)
    _label(figure, grid, names)
    figure.suptitle(f"Do targets measure what they say{f': {title}' if title else ''}")
    save_figure(figure, output)


def _draw_category(
    axes: Sequence[Axes], category: str, members: Sequence[Row], names: Sequence[str]
) -> None:
    _draw_bars(axes[0], [row["defined"] for row in members], _BLUE)
    _draw_bars(axes[1], [row["within_works"] for row in members], _ORANGE)
    _draw_agreement(axes[2], members)
    for ax in axes:
        _list_rows(ax, [""] * len(members))
    axes[0].set_yticks(range(len(members)), [row["target"] for row in members], size=8)
    _head(axes[0], category)
    if names:
        _draw_cells(axes[3], [[row[f"of_{name}"] for name in names] for row in members])
        for number, row in enumerate(members):
            if row["own"] in names:
                _outline(axes[3], names.index(row["own"]), number)


def _draw_parameters(axes: Sequence[Axes], names: Sequence[str], together: Together) -> None:
    """Draw how far parameters go together, beside their names and nothing else."""
    for ax in axes[:3]:
        ax.set_frame_on(False)
        ax.tick_params(bottom=False, labelbottom=False)
        _list_rows(ax, [""] * len(names))
        ax.grid(visible=False)
    axes[0].text(
        0,
        (len(names) - 1) / 2,
        "how far the parameters themselves go together  ▸",
        size=8,
        va="center",
        style="italic",
        # It may reach over its panel, which must not be made wider for it.
        in_layout=False,
    )
    axes[0].set_yticks(range(len(names)), names, size=8)
    _head(axes[0], "parameters")
    _draw_cells(axes[3], [[together[one][other] for other in names] for one in names])
    _list_rows(axes[3], [""] * len(names))


def _head(ax: Axes, text: str) -> None:
    ax.set_ylabel(text, rotation=0, ha="right", va="center", weight="bold", labelpad=8)


def _draw_bars(ax: Axes, values: Sequence[float | None], colour: str) -> None:
    for number, value in enumerate(values):
        ax.text(1.06, number, "-" if value is None else f"{value:.2f}", size=_SMALL, va="center")
        if value is not None:
            ax.barh(number, value, height=0.6, color=colour)
    ax.set_xlim(0, 1.35)
    ax.set_xticks([0, 0.5, 1])


def _draw_agreement(ax: Axes, members: Sequence[Row]) -> None:
    ax.axvline(0, color="0.8", lw=0.8, zorder=0)
    for number, row in enumerate(members):
        if row["midi_r"] is None:
            continue
        ax.plot([row["midi_lo"], row["midi_hi"]], [number] * 2, color=_GREY, lw=1.5, zorder=1)
        ax.plot(row["midi_r"], number, "o", color=_BLUE, ms=5, zorder=2)
        ax.text(1.1, number, short_number(row["midi_r"]), size=_SMALL, va="center")
    ax.set_xlim(-1.05, 1.6)
    ax.set_xticks([-1, 0, 1])


def _draw_cells(ax: Axes, cells: Sequence[Sequence[float | None]]) -> AxesImage:
    values = np.array(cells, float)
    image = ax.imshow(values, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        ax.text(
            column,
            row,
            short_number(value) if np.isfinite(value) else "-",
            size=_SMALL,
            color="white" if abs(value) > _DARK else "black",
            ha="center",
            va="center",
        )
    ax.set_facecolor("0.9")
    return image


def _outline(ax: Axes, column: int, row: int) -> None:
    for width, colour in ((3.4, "white"), (1.8, "black")):
        ax.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5), 1, 1, fill=False, lw=width, ec=colour, clip_on=False
            )
        )


def _list_rows(ax: Axes, labels: Sequence[str]) -> None:
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_yticks(range(len(labels)), labels)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", alpha=0.3)


def _label(figure: Figure, grid: Any, names: Sequence[str]) -> None:
    """Name the columns above the first targets and below the last: there may be many between."""
    labels = [
        "share of rows\nthat have it",
        "share of variance\nwithin works",
        "audio with MIDI, within\nworks: mean and 95 %",
    ]
    first = grid[1 if names else 0]
    for ax, top, label in zip(grid[-1], first, labels, strict=False):
        ax.set_xlabel(label, size=8)
        top.set_title(label, size=8)
    if names:
        above = grid[0, 3].secondary_xaxis("top")
        above.set_xticks(range(len(names)), names, rotation=40, ha="left", size=8)
        above.tick_params(length=0)
        last = grid[-1, 3]
        last.set_xticks(range(len(names)), names, rotation=40, ha="right", size=8)
        for ax in grid[:, 3]:
            ax.grid(visible=False)
            ax.tick_params(length=0)
        bar = figure.colorbar(
            last.images[0], ax=grid[:, 3].tolist(), location="bottom", aspect=40, pad=0.01
        )
        bar.set_label("Spearman correlation within works;\noutlined: the target's own", size=8)
    figure.align_ylabels(grid[:, 0])
