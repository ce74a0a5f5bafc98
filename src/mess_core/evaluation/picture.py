"""A picture of how good answers are: each figure with its interval, and chance as a tick."""

__all__ = ["plot_evaluation"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mess_core.probing.pictures import save_figure

# Inches.
_ROW, _WIDTH, _MARGINS = 0.26, 7.5, 1.2
_BLUE, _GREY, _ORANGE = "#0072B2", "0.55", "#D55E00"


def plot_evaluation(lines: Sequence[Mapping[str, Any]], output: Path, *, title: str) -> None:
    """Draw the lines of `mess_core.evaluation.corpus.evaluate` as a ``.png`` or ``.svg``.

    Raises `ProbingError` if the suffix is another one, `StorageError` if it cannot be written.
    """
    shown = [line for line in lines if line["value"] is not None]
    figure = Figure(figsize=(_WIDTH, _MARGINS + _ROW * max(len(shown), 2)), layout="constrained")
    ax = figure.subplots()
    for number, line in enumerate(shown):
        if line["low"] is not None:
            ax.plot([line["low"], line["high"]], [number] * 2, color=_GREY, lw=1.5)
        ax.plot(line["chance"], number, "|", color=_ORANGE, ms=9, mew=2)
        ax.plot(line["value"], number, "o", color=_BLUE, ms=5)
    ax.set_yticks(range(len(shown)), [_name(line) for line in shown], size=8)
    ax.set_ylim(max(len(shown), 1) - 0.5, -0.5)
    ax.set_xlim(min([-0.05, *(line["low"] or 0.0 for line in shown)]), 1.05)
    ax.grid(axis="x", alpha=0.3)
    ax.set_xlabel("with 95 % interval over works; orange: chance", size=8)
    if not shown:
        ax.text(0.5, 0, "nothing could be judged: see the table", ha="center")
    figure.suptitle(f"How good answers are: {title}")
    save_figure(figure, output)


def _name(line: Mapping[str, Any]) -> str:
    against = f", not {line['against']}" if line["against"] else ""
    return f"{line['judge']}: {line['asked']}{against} ({line['measure']})"
