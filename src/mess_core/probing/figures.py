"""A picture of the probing results: which layer knows what.

Rows are targets, grouped by category; columns are layers; colour is R2, from 0 (below it the
colour is that of 0, the printed number is not changed) to 1. It is the R2 within works; targets
that have none (no work has rows that differ) show the pooled one and a star, and those whose
result comes with a caution an exclamation mark. Bold numbers have a 95 % interval above 0. The best
layer of each target has a thick outline, the layers that are best with 95 % probability together a
thin one. On the right are, of the same R2, the best layer's and its 95 % interval, the confidence
that it gives (`results.confidence`), that with the layer chosen inside the training folds, that of
the mixture of layers, those of the baselines, and p (corrected over layers). The colour map,
cividis, looks nearly the same with and without colour blindness and in grey.
"""

__all__ = ["by_category", "plot_layer_map", "save_figure", "short_number"]

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
from mess_core.probing.results import confidence, read_results, score_interval, score_r2
from mess_core.targets.registry import CATEGORIES, TARGETS

# Inches: a cell holds ".86" in the small size; margins hold names, the title and the right columns.
_CELL_WIDTH, _CELL_HEIGHT = 0.4, 0.26
_NAMES, _TOP_AND_BOTTOM = 3.4, 1.7
_MIN_WIDTH = 8.0
_SMALL = 7.0
_DPI = 150
# R2 from which a cell of cividis is light enough for dark text.
_LIGHT = 0.45
# Characters that a figure takes in the right columns, and inches of a character.
_FIGURE, _CHARACTER = 6, 0.06

Result = Mapping[str, Any]


def plot_layer_map(
    results_folder: Path, output: Path, *, targets: Collection[str] | None = None
) -> None:
    """Draw R2 by layer and target for all results of a folder.

    The same results give the same file, byte for byte, with the same version of matplotlib.

    Parameters
    ----------
    results_folder : Path
        ``data/probing/{dataset}``.
    output : Path
        The picture, ``.png`` or ``.svg``; written whole or not at all.
    targets : collection of str, optional
        Whose results to draw; those of all targets by default.

    Raises
    ------
    ProbingError
        If the suffix is another one, the folder holds no result, or its results do not belong
        together.
    """
    results = read_results(results_folder, [t for t in TARGETS if targets is None or t in targets])
    save_figure(_draw(list(results.values())), output)


def save_figure(figure: Figure, output: Path) -> None:
    """Write a figure as ``.png`` or ``.svg``, whole or not at all, reproducibly.

    Parameters
    ----------
    figure : Figure
        Drawn without pyplot.
    output : Path
        Its suffix says the format.

    Raises
    ------
    ProbingError
        If the suffix is another one.
    StorageError
        If the file cannot be written.
    """
    if output.suffix not in (".png", ".svg"):
        raise ProbingError(f"{output}: pictures are drawn as .png or .svg")
    FigureCanvasAgg(figure)
    # The salt and the left-out date and version make files reproducible.
    metadata = {"Date": None} if output.suffix == ".svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "mess"}), atomic_path(output) as temporary:
        figure.savefig(temporary, dpi=_DPI, metadata=metadata)


def by_category(rows: Iterable[Result]) -> dict[str, list[Result]]:
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


def _draw(results: Sequence[Result]) -> Figure:
    groups = by_category(results)
    baselines = list({name: None for result in results for name in result["baselines"]})
    n_layers = max(1, *(len(result["layers"]) for result in results))
    right = _CHARACTER * len(_columns(_headings(baselines), baselines))
    figure = Figure(
        figsize=(
            max(_MIN_WIDTH, _NAMES + right + _CELL_WIDTH * n_layers),
            _TOP_AND_BOTTOM + _CELL_HEIGHT * (len(results) + len(groups)),
        ),
        layout="constrained",
    )
    axes = figure.subplots(
        len(groups),
        1,
        sharex=True,
        squeeze=False,
        height_ratios=[len(members) for members in groups.values()],
    )[:, 0].tolist()
    images = [
        _draw_category(ax, category, members, n_layers, baselines)
        for ax, (category, members) in zip(axes, groups.items(), strict=True)
    ]
    _label(figure, axes, images[0], results, n_layers, baselines)
    return figure


def _draw_category(
    ax: Axes, category: str, members: Sequence[Result], n_layers: int, baselines: Sequence[str]
) -> AxesImage:
    values = np.full((len(members), n_layers), np.nan)
    for row, result in enumerate(members):
        if result["layers"]:
            values[row] = [score_r2(score) for score in result["layers"]]
            _draw_numbers(ax, row, values[row], [_is_sure(score) for score in result["layers"]])
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
    right.set_yticks(
        range(len(members)),
        [_right_text(result, baselines) for result in members],
        family="monospace",
        size=_SMALL,
    )
    right.tick_params(length=0)
    return image


def _name(result: Result) -> str:
    marks = {" *": result["primary"] == "r2", " !": result["caution"]}
    return "".join((result["target"], *(mark for mark, marked in marks.items() if marked)))


def _is_sure(score: Result) -> bool:
    interval = score_interval(score)
    return interval is not None and interval[0] > 0


def _draw_numbers(ax: Axes, row: int, values: np.ndarray[Any, Any], sure: Sequence[bool]) -> None:
    for layer, r2 in enumerate(values):
        colour = "black" if r2 > _LIGHT else "white"
        ax.text(
            layer,
            row,
            short_number(r2),
            size=_SMALL,
            color=colour,
            weight="bold" if sure[layer] else "normal",
            ha="center",
            va="center",
            zorder=4,
        )


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
            ax.add_patch(
                Rectangle(
                    (first - 0.5, row - 0.5),
                    last - first + 1,
                    1,
                    fill=False,
                    lw=line,
                    ec=colour,
                    zorder=3,
                    clip_on=False,
                )
            )


def _right_text(result: Result, baselines: Sequence[str]) -> str:
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
    results: Sequence[Result],
    n_layers: int,
    baselines: Sequence[str],
) -> None:
    encoder, dataset = results[0]["encoder"], results[0]["dataset"]
    state = "" if encoder["trained"] else " (untrained)"
    figure.suptitle(f"Which layer knows what: {encoder['name']}{state}, dataset {dataset}")
    axes[0].annotate(
        _columns(_headings(baselines), baselines),
        (1, 1),
        xytext=(4, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        family="monospace",
        size=_SMALL,
    )
    axes[0].tick_params(labeltop=True)
    axes[-1].tick_params(labelbottom=True)
    axes[-1].set_xticks(range(n_layers))
    axes[-1].set_xlabel(
        "layer (hidden state); thick outline: the best, thin: best with 95 % probability together"
    )
    note = (
        "\nbold: 95 % interval above 0   * pooled: no work has rows that differ   "
        "! see the caution in the table"
    )
    figure.colorbar(
        image,
        ax=axes,
        pad=0.01,
        orientation="horizontal",
        extend="min",
        shrink=0.6,
        aspect=50,
        label=f"R² within works, out of fold, below 0 coloured as 0{note}",
    )
    figure.align_ylabels(axes)
