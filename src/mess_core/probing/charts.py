"""Pictures of how stable and separable what layers know is, and of how they may have collapsed.

Colours are those of Okabe and Ito, cividis and PuOr, which are told apart with colour blindness.
"""

__all__ = ["plot_collapse", "plot_separability", "plot_stability"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mess_core.probing.figures import by_category, save_figure, short_number

# Inches.
_ROW, _CELL = 0.24, 0.42
_SMALL = 7.0
# R2 of a single fold below this is drawn at the edge: how much worse than the mean is noise.
_WORST = -0.5
_SIGNIFICANT = 0.05
# Luma from which a cell takes dark text.
_LIGHT = 0.45
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "0.55"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP*"

_STABILITY = "How stable over folds"
_SEPARABILITY = "Can aspects be separated"

#: How a cell marks a verdict beside the share that is retained.
_MARKS = {"separable": "", "correlated": "°", "entangled": "*", "uncertain": "?"}

Row = Mapping[str, Any]
Floats = npt.NDArray[np.float64]


def plot_stability(rows: Sequence[Row], output: Path, *, title: str = "") -> None:
    """Draw how stable R2 and the ranking of layers are over folds.

    Parameters
    ----------
    rows : sequence of dict
        Of `mess_core.probing.stability.stability_table`; targets without figures are left out, and
        without any the picture says so.
    output : Path
        The picture, ``.png`` or ``.svg``; written whole or not at all.
    title : str
        What was probed.

    Raises
    ------
    ProbingError
        If the suffix is another one.
    """
    groups = by_category(row for row in rows if row["n_folds"])
    if not groups:
        _say(f"{_titled(_STABILITY, title)}\nNo target has results over folds.", output)
        return
    sizes = [len(members) for members in groups.values()]
    figure = Figure(figsize=(10.0, 1.9 + _ROW * (sum(sizes) + len(sizes))), layout="constrained")
    grid = figure.subplots(
        len(groups), 2, sharex="col", squeeze=False, height_ratios=sizes, width_ratios=(3, 2)
    )
    for (left, right), (category, members) in zip(grid, groups.items(), strict=True):
        _draw_spread(left, members)
        _draw_concordance(right, members)
        left.set_ylabel(category, rotation=0, ha="right", va="center", weight="bold", labelpad=8)
    labels = [
        "R² of the best layer\ndots: folds (◂ below), bar: all rows",
        f"Kendall's W over layers (filled: p < {_SIGNIFICANT})\n"
        "right: folds with the same best layer",
    ]
    for top, bottom, label in zip(grid[0], grid[-1], labels, strict=True):
        top.set_title(label, size=9)
        bottom.set_xlabel(label, size=9)
    figure.suptitle(_titled(_STABILITY, title))
    figure.align_ylabels(grid[:, 0])
    save_figure(figure, output)


def plot_separability(pairs: Sequence[Row], output: Path, *, title: str = "") -> None:
    """Draw whether aspects outlive the erasure of each other.

    Parameters
    ----------
    pairs : sequence of dict
        Of `mess_core.probing.separability.separate_aspects`; without any the picture says so.
    output : Path
        The picture, ``.png`` or ``.svg``; written whole or not at all.
    title : str
        What was probed.

    Raises
    ------
    ProbingError
        If the suffix is another one.
    """
    if not pairs:
        _say(f"{_titled(_SEPARABILITY, title)}\nFewer than two aspects have a layer.", output)
        return
    names = list(dict.fromkeys(pair["aspect"] for pair in pairs))
    side = _CELL * len(names)
    # One below the other: side by side, many aspects are too small to be read on a page.
    figure = Figure(figsize=(side + 4.4, 3 * (side + 1.3) + 0.6), layout="constrained")
    axes = figure.subplots(3, 1)
    _draw_matrix(
        axes[0],
        names,
        {_key(pair): _retained(pair) for pair in pairs},
        (0, 1),
        "share of the row's R² left after erasing the column\n"
        "* entangled   ° correlated in the music\n? uncertain   - not encoded",
    )
    _draw_matrix(
        axes[1],
        names,
        {_key(pair): (c := pair["correlation"], _short(c)) for pair in pairs},
        (-1, 1),
        "correlation of the targets within works\n(of the pair where it is strongest)",
        colours="PuOr",
    )
    _draw_matrix(
        axes[2],
        names,
        {_key(pair): (a := pair["angle"], "-" if a is None else f"{a:.0f}") for pair in pairs},
        (0, 90),
        "smallest angle between what the probes read\n(degrees, in the row's layer)",
    )
    layers = {pair["aspect"]: pair["layer"] for pair in pairs}
    for ax in axes:
        ax.set_yticks(range(len(names)), [f"{name} (layer {layers[name]})" for name in names])
    figure.suptitle(_titled(_SEPARABILITY, title))
    save_figure(figure, output)


def plot_collapse(encoders: Mapping[str, Sequence[Row]], output: Path, *, title: str = "") -> None:
    """Draw rank, within-work variance and likeness to references over layers.

    Parameters
    ----------
    encoders : mapping of str to sequence of dict
        Per encoder its layers, from 0, of `mess_core.probing.geometry.layer_geometry`; at least
        one.
    output : Path
        The picture, ``.png`` or ``.svg``; written whole or not at all.
    title : str
        What was described.

    Raises
    ------
    ProbingError
        If the suffix is another one.
    """
    figure = Figure(figsize=(13.5, 4.6), layout="constrained")
    rank, share, likeness = figure.subplots(1, 3)
    _draw_lines(rank, encoders, {"rankme": "", "rankme_centred": ", centred"})
    rank.set_title("effective rank (RankMe)", size=10)
    rank.set_ylim(bottom=0)
    of_variance = {"within_work": "", "within_work_standardised": ", standardised"}
    _draw_lines(share, encoders, of_variance)
    chance = next(iter(encoders.values()))[0]["within_work_chance"]
    share.axhline(chance, color=_GREY, ls=":", label="rows unrelated to works")
    share.set_title("share of variance within works", size=10)
    share.set_ylim(0, 1.02)
    keys = dict.fromkeys(
        key for layers in encoders.values() for key in layers[0] if key.startswith("cka_")
    )
    _draw_lines(likeness, encoders, {key: f" and {key[4:].replace('_', ' ')}" for key in keys})
    likeness.set_title("likeness (linear CKA, debiased)", size=10)
    likeness.set_ylim(-0.1, 1.02)
    for ax in (rank, share, likeness):
        ax.set_xlabel("layer (hidden state)")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        if ax.lines:
            ax.legend(fontsize=_SMALL, loc="best")
    figure.suptitle(_titled("Has the representation collapsed", title))
    save_figure(figure, output)


def _say(text: str, output: Path) -> None:
    figure = Figure(figsize=(8.0, 1.6))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    save_figure(figure, output)


def _titled(question: str, title: str) -> str:
    return f"{question}: {title}" if title else question


def _draw_spread(ax: Axes, members: Sequence[Row]) -> None:
    for number, row in enumerate(members):
        values = np.array(row["r2_folds"], float)
        shown = values[values >= _WORST]
        ax.plot(
            [max(values.min(), _WORST), max(values.max(), _WORST)],
            [number] * 2,
            color=_GREY,
            lw=1,
            zorder=1,
        )
        ax.plot(shown, np.full(len(shown), number), "o", color=_BLUE, ms=4, alpha=0.7, zorder=2)
        if len(shown) < len(values):
            ax.plot(_WORST, number, "<", color=_BLUE, ms=5, zorder=2)
        ax.plot(max(row["r2"], _WORST), number, "|", color="black", ms=10, mew=2, zorder=3)
    ax.axvline(0, color="0.8", lw=0.8, zorder=0)
    ax.set_xlim(_WORST - 0.05, 1.02)
    ax.set_yticks(range(len(members)), [row["target"] for row in members], size=8)
    _list_rows(ax, len(members))


def _draw_concordance(ax: Axes, members: Sequence[Row]) -> None:
    for number, row in enumerate(members):
        if row["kendall_w"] is None:
            continue
        fill = _ORANGE if row["kendall_p"] < _SIGNIFICANT else "white"
        ax.plot([0, row["kendall_w"]], [number] * 2, color="0.8", lw=1, zorder=1)
        ax.plot(row["kendall_w"], number, "o", mec=_ORANGE, mfc=fill, ms=6, zorder=2)
        ax.text(1.06, number, f"{row['agreement']:.0%}", size=_SMALL, va="center")
    ax.set_xlim(0, 1.25)
    ax.set_xticks([0, 0.5, 1])
    ax.set_yticks(range(len(members)), [""] * len(members))
    _list_rows(ax, len(members))


def _list_rows(ax: Axes, n: int) -> None:
    ax.set_ylim(n - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", alpha=0.3)


def _draw_matrix(
    ax: Axes,
    names: Sequence[str],
    cells: Mapping[tuple[str, str], tuple[float | None, str]],
    limits: tuple[float, float],
    label: str,
    *,
    colours: str = "cividis",
) -> None:
    """Draw a value and a text for pairs of names; a value of None leaves the cell grey."""
    values = np.full((len(names), len(names)), np.nan)
    for (row, column), (value, _) in cells.items():
        values[names.index(row), names.index(column)] = np.nan if value is None else value
    image = ax.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1])
    for (row, column), (value, text) in cells.items():
        light = value is None or _luminance(image.to_rgba(np.array([value]))[0]) > _LIGHT
        ax.text(
            names.index(column),
            names.index(row),
            text,
            size=_SMALL,
            color="black" if light else "white",
            ha="center",
            va="center",
        )
    ax.set_facecolor("0.9")
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.tick_params(length=0, labelsize=8)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, pad=0.02)
    bar.set_label(label, size=8)


def _luminance(colour: Floats) -> float:
    """Return the luma of an RGB colour (ITU-R BT.709), 0 to 1."""
    return float(colour[:3] @ [0.2126, 0.7152, 0.0722])


def _key(pair: Row) -> tuple[str, str]:
    return pair["aspect"], pair["erased"]


def _retained(pair: Row) -> tuple[float | None, str]:
    mark = _MARKS.get(pair["verdict"])
    if mark is None:
        return None, "-"
    return pair["retained"], f"{short_number(pair['retained'])}{mark}"


def _short(value: float | None) -> str:
    return "-" if value is None else short_number(value)


def _draw_lines(ax: Axes, encoders: Mapping[str, Sequence[Row]], fields: Mapping[str, str]) -> None:
    """Draw a line per encoder (colour) and field (dashes, marker)."""
    for colour, (encoder, layers) in zip(_COLOURS, encoders.items(), strict=False):
        for number, (field, suffix) in enumerate(fields.items()):
            values = np.array([row.get(field) for row in layers], float)
            if not np.isfinite(values).any():
                continue
            ax.plot(
                values,
                color=colour,
                ls=("-", "--", "-.", ":")[number % 4],
                marker=_MARKERS[number % len(_MARKERS)],
                ms=4,
                label=f"{encoder}{suffix}",
            )
