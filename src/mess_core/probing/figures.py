"""A picture of the probing results: which layer knows what.

Rows are targets, grouped by category; columns are layers; colour is R2, from 0 (below it the
colour is that of 0, the printed number is not changed) to 1. The best layer of each target is
outlined. On the right: the best layer's R2, the R2 with the layer chosen inside the training
folds, and the confidence. The colour map, cividis, looks nearly the same with and without colour
blindness and in grey.
"""

__all__ = ["plot_layer_map"]

from collections.abc import Collection, Mapping, Sequence
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
from mess_core.probing.results import read_results
from mess_core.targets.registry import CATEGORIES, scalar_targets

# Inches: a cell holds ".86" in the small size; margins hold names, the title and the right columns.
_CELL_WIDTH, _CELL_HEIGHT = 0.4, 0.26
_SIDES, _TOP_AND_BOTTOM = 5.6, 1.5
_MIN_WIDTH = 8.0
_SMALL = 7.0
_DPI = 150
# R2 from which a cell of cividis is light enough for dark text.
_LIGHT = 0.45
_RIGHT_COLUMNS = "{:>5}  {:>6}  {:<6}"

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
    if output.suffix not in (".png", ".svg"):
        raise ProbingError(f"{output}: layer maps are drawn as .png or .svg")
    results = read_results(
        results_folder, [t for t in scalar_targets() if targets is None or t in targets]
    )
    # The salt and the left-out date and version make files reproducible.
    metadata = {"Date": None} if output.suffix == ".svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "mess"}):
        figure = _draw(list(results.values()))
        with atomic_path(output) as temporary:
            figure.savefig(temporary, dpi=_DPI, metadata=metadata)


def _draw(results: Sequence[Result]) -> Figure:
    groups = {c: [r for r in results if r["category"] == c] for c in CATEGORIES}
    groups = {category: members for category, members in groups.items() if members}
    n_layers = max(1, *(len(result["layers"]) for result in results))
    figure = Figure(
        figsize=(
            max(_MIN_WIDTH, _SIDES + _CELL_WIDTH * n_layers),
            _TOP_AND_BOTTOM + _CELL_HEIGHT * (len(results) + len(groups)),
        ),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(groups),
        1,
        sharex=True,
        squeeze=False,
        height_ratios=[len(members) for members in groups.values()],
    )[:, 0].tolist()
    images = [
        _draw_category(ax, category, members, n_layers)
        for ax, (category, members) in zip(axes, groups.items(), strict=True)
    ]
    _label(figure, axes, images[0], results[0], n_layers)
    return figure


def _draw_category(ax: Axes, category: str, members: Sequence[Result], n_layers: int) -> AxesImage:
    values = np.full((len(members), n_layers), np.nan)
    for row, result in enumerate(members):
        if result["layers"]:
            values[row] = [score["r2"] for score in result["layers"]]
            _draw_numbers(ax, row, values[row], result["best_layer"])
        else:
            reason = shorten(f"not probed: {result['reason']}", width=max(70, 7 * n_layers))
            ax.text((n_layers - 1) / 2, row, reason, size=_SMALL, ha="center", va="center")
    image = ax.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    ax.set_facecolor("0.9")
    ax.set_yticks(range(len(members)), [result["target"] for result in members], size=8)
    ax.set_ylabel(category, rotation=0, ha="right", va="center", weight="bold", labelpad=8)
    ax.tick_params(length=0, labelbottom=False)
    right = ax.secondary_yaxis("right")
    right.set_yticks(
        range(len(members)), [_right_text(r) for r in members], family="monospace", size=_SMALL
    )
    right.tick_params(length=0)
    return image


def _draw_numbers(ax: Axes, row: int, values: np.ndarray[Any, Any], best: int) -> None:
    for layer, r2 in enumerate(values):
        colour = "black" if r2 > _LIGHT else "white"
        ax.text(
            layer, row, _short(r2), size=_SMALL, color=colour, ha="center", va="center", zorder=4
        )
    # White under black is seen on every colour of the map.
    for width, colour in ((3.5, "white"), (1.6, "black")):
        ax.add_patch(
            Rectangle(
                (best - 0.5, row - 0.5),
                1,
                1,
                fill=False,
                lw=width,
                ec=colour,
                zorder=3,
                clip_on=False,
            )
        )


def _short(r2: float) -> str:
    """Write a number in the space of a cell: ``.86``, ``-.20``, ``<-1``."""
    if r2 <= -1:
        return "<-1"
    tidy = round(r2, 2) + 0.0  # -0.0 + 0.0 is 0.0
    return f"{tidy:.2f}".replace("0.", ".", 1)


def _right_text(result: Result) -> str:
    nested = result.get("r2_nested")
    return _RIGHT_COLUMNS.format(
        *("-" if value is None else f"{value:.2f}" for value in (result["best_r2"], nested)),
        result["confidence"],
    )


def _label(
    figure: Figure, axes: Sequence[Axes], image: AxesImage, result: Result, n_layers: int
) -> None:
    encoder = result["encoder"]
    state = "" if encoder["trained"] else " (untrained)"
    title = f"Which layer knows what: {encoder['name']}{state}, dataset {result['dataset']}"
    figure.suptitle(title)
    axes[0].annotate(
        _RIGHT_COLUMNS.format("best", "nested", "confidence"),
        (1, 1),
        xytext=(4, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        family="monospace",
        size=_SMALL,
    )
    axes[-1].tick_params(labelbottom=True)
    axes[-1].set_xticks(range(n_layers))
    axes[-1].set_xlabel("layer (hidden state); outlined: the best of each target")
    figure.colorbar(
        image,
        ax=axes,
        pad=0.01,
        orientation="horizontal",
        extend="min",
        shrink=0.6,
        aspect=50,
        label="R² out of fold, below 0 coloured as 0",
    )
    figure.align_ylabels(axes)
