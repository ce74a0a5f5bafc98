"""The pictures that answer the research questions.

The same results give the same file, byte for byte, with the same version of matplotlib. Colours are
cividis, PuOr and those of Okabe and Ito, which are told apart with colour blindness.

*Which layer knows what*: rows are targets, columns are layers, colour is R2 within works from 0
(below it the colour is that of 0) to 1. Targets without one (no work has rows that differ) show the
pooled R2 and a star, those with a caution an exclamation mark. Bold numbers have a 95 % interval
above 0. The best layer has a thick outline, the layers that are best with 95 % probability together
a thin one.
"""

__all__ = [
    "by_category",
    "draw_counterfactuals",
    "plot_collapse",
    "plot_evaluation",
    "plot_layer_map",
    "plot_separability",
    "plot_stability",
    "save_figure",
    "short_number",
]

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import shorten
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from mess_core.errors import ProbingError
from mess_core.files import atomic_path
from mess_core.probing.folds import Floats
from mess_core.probing.results import confidence, layer_name, score_interval, score_r2
from mess_core.targets.registry import CATEGORIES

# Inches: a cell holds ".86" in the small size; margins hold names, the title and the right columns.
_CELL_WIDTH, _CELL_HEIGHT = 0.4, 0.26
_NAMES, _TOP_AND_BOTTOM = 3.4, 1.7
_MIN_WIDTH = 8.0
_ROW, _CELL = 0.24, 0.42
_SMALL = 7.0
_DPI = 150
# Characters that a figure takes in the right columns, and inches of a character.
_FIGURE, _CHARACTER = 6, 0.06
# R2 of a single fold below this is drawn at the edge: how much worse than the mean is noise.
_WORST = -0.5
_SIGNIFICANT = 0.05
# R2 (in cividis) or luma from which a cell takes dark text.
_LIGHT = 0.45
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "0.55"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS, _DASHES = "osD^vP*", ("-", "--", "-.", ":")

#: How a cell marks a verdict beside the share that is retained.
_MARKS = {"separable": "", "correlated": "°", "entangled": "*", "uncertain": "?"}

Row = Mapping[str, Any]
#: The value of a cell (None leaves it grey) and its text.
Cell = tuple[float | None, str]


def plot_layer_map(results: Sequence[Row], output: Path) -> None:
    """Draw R2 by layer and target of probing results, at least one."""
    groups = by_category(results)
    baselines = list({name: None for result in results for name in result["baselines"]})
    n_layers = max(1, *(len(result["layers"]) for result in results))
    right = _CHARACTER * len(_columns(_headings(baselines), baselines))
    width = max(_MIN_WIDTH, _NAMES + right + _CELL_WIDTH * n_layers)
    height = _TOP_AND_BOTTOM + _CELL_HEIGHT * (len(results) + len(groups))
    figure = Figure(figsize=(width, height), layout="constrained")
    sizes = [len(members) for members in groups.values()]
    axes = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=sizes)
    column = axes[:, 0].tolist()
    images = [
        _draw_category(ax, category, members, n_layers, baselines)
        for ax, (category, members) in zip(column, groups.items(), strict=True)
    ]
    _label(figure, column, images[0], results, n_layers, baselines)
    save_figure(figure, output)


def save_figure(figure: Figure, output: Path) -> None:
    """Write a figure that was drawn without pyplot, whole or not at all, reproducibly.

    Raises `ProbingError` if the suffix is not ``.png`` or ``.svg``, and `StorageError` if the file
    cannot be written.
    """
    if output.suffix not in (".png", ".svg"):
        raise ProbingError(f"{output}: pictures are drawn as .png or .svg")
    FigureCanvasAgg(figure)
    # The salt and the left-out date and version make files reproducible.
    metadata = {"Date": None} if output.suffix == ".svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "mess"}), atomic_path(output) as temporary:
        figure.savefig(temporary, dpi=_DPI, metadata=metadata)


def by_category(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Group rows about targets by their category, in the registry's order."""
    listed = list(rows)
    groups = {c: [row for row in listed if row["category"] == c] for c in CATEGORIES}
    return {category: members for category, members in groups.items() if members}


def short_number(value: float) -> str:
    """Write a number in the space of a cell: ``.86``, ``-.20``, ``<-1``."""
    if value <= -1:
        return "<-1"
    tidy = round(value, 2) + 0.0  # -0.0 + 0.0 is 0.0
    return f"{tidy:.2f}".replace("0.", ".", 1)


def _draw_category(
    ax: Axes, category: str, members: Sequence[Row], n_layers: int, baselines: Sequence[str]
) -> AxesImage:
    values = np.full((len(members), n_layers), np.nan)
    for row, result in enumerate(members):
        if result["layers"]:
            values[row] = [score_r2(score) for score in result["layers"]]
            _draw_numbers(ax, row, result["layers"])
            _outline(ax, row, _runs(result["best_layers"]), width=0.9)
            _outline(ax, row, [(result["best_layer"], result["best_layer"])], width=2.0)
        else:
            reason = shorten(f"not probed: {result['reason']}", width=max(70, 7 * n_layers))
            ax.text((n_layers - 1) / 2, row, reason, size=_SMALL, ha="center", va="center")
    image = ax.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    ax.set_facecolor("0.9")
    ax.set_yticks(range(len(members)), [_name(result) for result in members], size=8)
    ax.set_ylabel(category, rotation=0, ha="right", va="center", weight="bold", labelpad=8)
    ax.tick_params(length=0, labelbottom=False)
    right = ax.secondary_yaxis("right")
    figures = [_right_text(result, baselines) for result in members]
    right.set_yticks(range(len(members)), figures, family="monospace", size=_SMALL)
    right.tick_params(length=0)
    return image


def _name(result: Row) -> str:
    pooled, caution = result["primary"] == "r2", result["caution"]
    return f"{result['target']}{' *' if pooled else ''}{' !' if caution else ''}"


def _draw_numbers(ax: Axes, row: int, layers: Sequence[Row]) -> None:
    for layer, score in enumerate(layers):
        r2, interval = score_r2(score), score_interval(score)
        colour = "black" if r2 > _LIGHT else "white"
        weight = "bold" if interval and interval[0] > 0 else "normal"
        text = ax.text(layer, row, short_number(r2), size=_SMALL, ha="center", va="center")
        text.set(color=colour, weight=weight, zorder=4)


def _runs(layers: Collection[int]) -> list[tuple[int, int]]:
    """Return the first and last of each run of neighbouring layers."""
    ordered = sorted(layers)
    breaks = [i for i, (a, b) in enumerate(pairwise(ordered), start=1) if b > a + 1]
    return [
        (ordered[start], ordered[stop - 1])
        for start, stop in pairwise([0, *breaks, len(ordered)])
        if stop > start
    ]


def _outline(ax: Axes, row: int, runs: Iterable[tuple[int, int]], *, width: float) -> None:
    for first, last in runs:
        # White under black is seen on every colour of the map.
        for line, colour in ((width + 1.6, "white"), (width, "black")):
            style: Any = {"fill": False, "zorder": 3, "clip_on": False, "lw": line, "ec": colour}
            ax.add_patch(Rectangle((first - 0.5, row - 0.5), last - first + 1, 1, **style))


def _right_text(result: Row, baselines: Sequence[str]) -> str:
    if not result["layers"]:
        return ""
    score, measure = result["layers"][result["best_layer"]], result["primary"]
    mixture = result["mixture"] or {}
    compared = [result["baselines"].get(name) for name in baselines]
    texts = (
        _figure(score_r2(score)),
        _interval(score_interval(score)),
        confidence(score_r2(score)),
        _figure(result["r2_within_nested" if measure == "r2_within" else "r2_nested"]),
        _figure(mixture.get(measure)),
        *(_figure(baseline and score_r2(baseline)) for baseline in compared),
        _figure(score["p_within" if measure == "r2_within" else "p"], digits=3),
    )
    return _columns(texts, baselines)


def _headings(baselines: Sequence[str]) -> tuple[str, ...]:
    names = (name.replace("_", " ") for name in baselines)
    return "best", "95 %", "confidence", "nested", "mixture", *names, "p"


def _columns(texts: Sequence[str], baselines: Sequence[str]) -> str:
    """Write texts under the headings, right-aligned in columns of equal width for every row."""
    widths = [max(_FIGURE, len(heading)) for heading in _headings(baselines)]
    widths[1] = len("[-0.00, -0.00]")
    return "  ".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))


def _figure(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def _interval(bounds: Sequence[float] | None) -> str:
    return "-" if bounds is None else f"[{', '.join(map(_figure, bounds))}]"


def _label(
    figure: Figure,
    axes: Sequence[Axes],
    image: AxesImage,
    results: Sequence[Row],
    n_layers: int,
    baselines: Sequence[str],
) -> None:
    encoder, dataset = results[0]["encoder"], results[0]["dataset"]
    state = "" if encoder["trained"] else " (untrained)"
    figure.suptitle(f"Which layer knows what: {encoder['name']}{state}, dataset {dataset}")
    headings = _columns(_headings(baselines), baselines)
    place: Any = {"xytext": (4, 4), "xycoords": "axes fraction", "textcoords": "offset points"}
    axes[0].annotate(headings, (1, 1), **place, family="monospace", size=_SMALL)
    names = [str(layer_name(encoder, layer)) for layer in range(n_layers)]
    axes[-1].set_xticks(range(n_layers), names)
    rotation = 90 if "layer_names" in encoder else 0
    axes[0].tick_params("x", labeltop=True, labelrotation=rotation)
    axes[-1].tick_params("x", labelbottom=True, labelrotation=rotation)
    axes[-1].set_xlabel("layer; thick outline: the best, thin: best with 95 % probability together")
    bar: Any = {"orientation": "horizontal", "extend": "min", "shrink": 0.6, "aspect": 50}
    label = (
        "R² within works, out of fold, below 0 coloured as 0\n"
        "bold: 95 % interval above 0   * pooled: no work has rows that differ   "
        "! see the caution in the table"
    )
    figure.colorbar(image, ax=axes, label=label, pad=0.01, **bar)
    figure.align_ylabels(axes)


def plot_stability(rows: Sequence[Row], output: Path, *, title: str = "") -> None:
    """Draw how stable R2 and layers' ranking are over folds, from `stability_table`."""
    groups = by_category(row for row in rows if row["n_folds"])
    heading = _titled("How stable over folds", title)
    if not groups:
        why = rows[0]["reason"] if rows else None
        _say(f"{heading}\nNo target has results over folds{(why and f': {why}') or '.'}", output)
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
    figure.suptitle(heading)
    figure.align_ylabels(grid[:, 0])
    save_figure(figure, output)


def plot_separability(pairs: Sequence[Row], output: Path, *, title: str = "") -> None:
    """Draw whether aspects outlive the erasure of each other, from `separate_aspects`."""
    heading = _titled("Can aspects be separated", title)
    if not any(pair["erased"] for pair in pairs):
        why = next((f": {pair['reason']}" for pair in pairs), ".")
        _say(f"{heading}\nFewer than two aspects have a layer{why}", output)
        return
    names = list(dict.fromkeys(pair["aspect"] for pair in pairs))
    side = _CELL * len(names)
    # One below the other: side by side, many aspects are too small to be read on a page.
    figure = Figure(figsize=(side + 4.4, 3 * (side + 1.3) + 0.6), layout="constrained")
    axes = figure.subplots(3, 1)
    left, alike, angles = (
        {(pair["aspect"], pair["erased"]): cell(pair) for pair in pairs}
        for cell in (_retained, _correlation, _angle)
    )
    label = (
        "share of the row's R² left after erasing the column\n"
        "* entangled   ° correlated in the music\n? uncertain   - not encoded"
    )
    _draw_matrix(axes[0], names, left, (0, 1), label)
    label = "correlation of the targets within works\n(of the pair where it is strongest)"
    _draw_matrix(axes[1], names, alike, (-1, 1), label, colours="PuOr")
    label = "smallest angle between what the probes read\n(degrees, in the row's layer)"
    _draw_matrix(axes[2], names, angles, (0, 90), label)
    layers = {pair["aspect"]: pair["layer"] for pair in pairs}
    for ax in axes:
        ax.set_yticks(range(len(names)), [f"{name} (layer {layers[name]})" for name in names])
    figure.suptitle(heading)
    save_figure(figure, output)


def plot_collapse(
    encoders: Mapping[str, Sequence[Row]],
    output: Path,
    *,
    title: str = "",
    layers: Sequence[str] = (),
) -> None:
    """Draw rank, within-work variance and similarity over layers, from `layer_geometry`.

    There is at least one encoder, each with its layers from 0 on; ``layers`` are their names,
    if they have any.
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
    keys = (key for layers in encoders.values() for key in layers[0] if key.startswith("cka_"))
    _draw_lines(likeness, encoders, {key: f" and {key[4:].replace('_', ' ')}" for key in keys})
    likeness.set_title("likeness (linear CKA, debiased)", size=10)
    likeness.set_ylim(-0.1, 1.02)
    for ax in (rank, share, likeness):
        ax.set_xlabel("layer")
        if layers:
            ax.set_xticks(range(len(layers)), layers, rotation=45)
        else:
            ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        if ax.lines:
            ax.legend(fontsize=_SMALL, loc="best")
    figure.suptitle(_titled("Has the representation collapsed", title))
    save_figure(figure, output)


def plot_evaluation(lines: Sequence[Row], output: Path, *, title: str = "") -> None:
    """Draw how good answers are, from `mess_core.evaluation.evaluate`: figures beside chance.

    Of whole spaces but layers how often the first answer is right, and whether people agree; of
    aspects what they are asked for. All else is in the table.
    """
    heading = _titled("How good answers are", title)
    of_spaces, of_aspects = ("recall@1", "agreement"), ("like", "more")
    shown = [
        line
        for line in lines
        if line["value"] is not None and line["measure"] != "drift"
        if (line["judge"] in of_aspects if line["source"] else line["measure"] in of_spaces)
        and not line["asked"].startswith("layer ")
    ]
    if not shown:
        _say(f"{heading}\nNothing could be judged: see the table.", output)
        return
    moved = [line for line in lines if line["judge"] == "counterfactual"]
    heights = [1.2 + _CELL_HEIGHT * len(shown), 4.5][: 1 + bool(moved)]
    figure = Figure(figsize=(7.5, sum(heights)), layout="constrained")
    ax, *below = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    for its in below:
        draw_counterfactuals(its, moved)
    for number, line in enumerate(shown):
        if line["low"] is not None:
            ax.plot([line["low"], line["high"]], [number] * 2, color=_GREY, lw=1.5)
        if line["chance"] is not None:
            ax.plot(line["chance"], number, "|", color=_ORANGE, ms=9, mew=2)
        ax.plot(line["value"], number, "o", color=_BLUE, ms=5)
    against = [f", not {line['against']}" if line["judge"] == "like" else "" for line in shown]
    names = [
        f"{line['judge']}: {line['asked']}{other} ({line['measure']})"
        for line, other in zip(shown, against, strict=True)
    ]
    ax.set_yticks(range(len(shown)), names, size=8)
    _list_rows(ax, len(shown))
    ax.set_xlim(min([-0.05, *(line["low"] or 0.0 for line in shown)]), 1.05)
    ax.set_xlabel("with 95 % interval over works; orange: chance", size=8)
    figure.suptitle(heading)
    save_figure(figure, output)


def draw_counterfactuals(ax: Axes, lines: Sequence[Row]) -> None:
    """Draw which aspect moves with which parameter, from lines of the judge "counterfactual"."""
    values = {(each["against"], each["asked"]): each["value"] for each in lines}
    cells = {names: (value, short_number(value)) for names, value in values.items()}
    rows, aspects = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    reach = max(map(abs, values.values()))
    label = "how much more of an aspect there is with\nmore of a parameter (standard deviations)"
    _draw_matrix(ax, rows, cells, (-reach, reach), label, colours="PuOr", columns=aspects)
    ax.set_yticks(range(len(rows)), rows)


def _say(text: str, output: Path) -> None:
    figure = Figure(figsize=(8.0, 1.6))
    figure.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    save_figure(figure, output)


def _titled(question: str, title: str) -> str:
    return f"{question}: {title}" if title else question


def _draw_spread(ax: Axes, members: Sequence[Row]) -> None:
    for number, row in enumerate(members):
        values = np.array(row["r2_folds"], float)
        shown = values[values >= _WORST]
        ends = np.maximum([values.min(), values.max()], _WORST)
        ax.plot(ends, [number] * 2, color=_GREY, lw=1, zorder=1)
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
    cells: Mapping[tuple[str, str], Cell],
    limits: tuple[float, float],
    label: str,
    *,
    colours: str = "cividis",
    columns: Sequence[str] = (),
) -> None:
    """Draw cells by their names of row and column, which are the same unless given."""
    columns = columns or names
    values = np.full((len(names), len(columns)), np.nan)
    for (row, column), (value, _) in cells.items():
        values[names.index(row), columns.index(column)] = np.nan if value is None else value
    image = ax.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1])
    for (row, column), (value, text) in cells.items():
        light = value is None or _luminance(image.to_rgba(np.array([value]))[0]) > _LIGHT
        place, colour = (columns.index(column), names.index(row)), "black" if light else "white"
        ax.text(*place, text, size=_SMALL, color=colour, ha="center", va="center")
    ax.set_facecolor("0.9")
    ax.set_xticks(range(len(columns)), columns, rotation=90)
    ax.tick_params(length=0, labelsize=8)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, pad=0.02)
    bar.set_label(label, size=8)


def _luminance(colour: Floats) -> float:
    """Return the luma of an RGB colour (ITU-R BT.709), 0 to 1."""
    return float(colour[:3] @ [0.2126, 0.7152, 0.0722])


def _retained(pair: Row) -> Cell:
    mark = _MARKS.get(pair["verdict"])
    if mark is None:
        return None, "-"
    return pair["retained"], f"{short_number(pair['retained'])}{mark}"


def _correlation(pair: Row) -> Cell:
    value = pair["correlation"]
    return value, "-" if value is None else short_number(value)


def _angle(pair: Row) -> Cell:
    value = pair["angle"]
    return value, "-" if value is None else f"{value:.0f}"


def _draw_lines(ax: Axes, encoders: Mapping[str, Sequence[Row]], fields: Mapping[str, str]) -> None:
    """Draw a line per encoder (colour) and field (dashes, marker)."""
    for colour, (encoder, layers) in zip(_COLOURS, encoders.items(), strict=False):
        for number, (field, suffix) in enumerate(fields.items()):
            values = np.array([row.get(field) for row in layers], float)
            if np.isfinite(values).any():
                style: Any = {"ls": _DASHES[number % len(_DASHES)], "color": colour, "ms": 4}
                marker = _MARKERS[number % len(_MARKERS)]
                ax.plot(values, marker=marker, label=f"{encoder}{suffix}", **style)
