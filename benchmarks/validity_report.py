"""What `benchmarks.validity` found, as Markdown and as a picture.

The picture's colours are PuOr, of which the ends are told apart with colour blindness.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from benchmarks.markdown import table, two
from benchmarks.validity_analysis import OWN_SCALE, SCALES
from mess_core.files import atomic_path
from mess_core.probing.questions.pictures import save_figure
from mess_core.report.validity import OWN_PARAMETER
from mess_core.targets.registry import TARGETS

Facts = Mapping[str, Any]

#: Headers of columns.
PARAMETERS = {
    "tempo": "tempo",
    "rubato": "rubato",
    "level": "level",
    "dynamic_range": "range",
    "articulation": "artic.",
    "pedal": "pedal",
    "melody_lead_ms": "lead",
    "chord_spread_ms": "spread",
    "tilt": "tilt",
}

# Inches.
_ROW, _COLUMN, _NAMES, _MARGINS = 0.235, 0.37, 2.2, 2.9
_SMALL = 6.5
_DARK = 0.55  # share of the colour range from which a cell takes light text


def dose_text(facts: Facts) -> str:
    """Return the responses to parameters as Markdown."""
    judged = [row for row in facts["rows"] if row["own"]]
    reached = sum(row["reached"] for row in judged)
    first = [
        f"**Dose and response.** {len(facts['works'])} demo scores, rendered, one parameter at "
        f"{len(next(iter(facts['strengths'].values())))} strengths, all others in the middle: "
        "Spearman correlation of each target with each parameter, median of the scores. "
        "In bold the target's own parameter, with its expected sign. "
        'Targets are measured without knowing the beats, but for those marked "(beats)". '
        f"{reached} of {len(judged)} rows with an own parameter reach the bar.",
        "",
        "Strengths: "
        + "; ".join(
            f"`{name}` {', '.join(f'{value:g}' for value in values)}"
            for name, values in facts["strengths"].items()
        )
        + ".",
        "",
    ]
    header = ["target", "own", "weakest to strongest", "bar", "reached", *PARAMETERS.values()]
    return "\n".join([*first, *table(header, map(_dose_row, facts["rows"]))])


def _dose_row(row: Facts) -> list[str]:
    cells = [
        f"**{two(value)}**" if name == row["own"] else two(value)
        for name, value in row["responses"].items()
    ]
    if not row["own"]:
        return [f"`{row['target']}`", "none", "", "", "", *cells]
    unit = TARGETS[row["target"].split()[0]].unit
    weakest, strongest = row["ends"]
    change = f"{_value(weakest)} to {_value(strongest)} {'' if unit == '1' else unit}".strip()
    missed = f"**missed** in {len(row['works_below'])} of {len(row['by_work'])}"
    own = f"{PARAMETERS[row['own']]} {'+' if row['sign'] > 0 else '-'}"
    verdict = "yes" if row["reached"] else missed
    return [f"`{row['target']}`", own, change, f"{row['bar']:g}", verdict, *cells]


def asap_text(facts: Facts) -> str:
    """Return the agreement with annotated beats as Markdown."""
    first = [
        f"**Annotated beats.** {facts['performances']} performances of {facts['works']} works of "
        f"ASAP, all that have at least {facts['at_least']}. `tempo` is measured on the first "
        f"{facts['heard_s']:g} s, rendered, the others on the MIDI of the whole performance "
        'without beats; "(beats)" is the rate of the annotated beats, and the same function with '
        "them. Spearman correlation within works, mean of the works with its 95 % bootstrap "
        "interval.",
        "",
    ]
    header = [
        "estimate",
        "truth",
        "mean work",
        "interval",
        "median work",
        "works",
        "bar",
        "reached",
    ]
    return "\n".join([*first, *table(header, map(_asap_row, facts["rows"]))])


def _asap_row(row: Facts) -> list[str]:
    span = " to ".join(map(two, row["interval"] or (None, None)))
    found = [two(row["mean"]), span, two(row["median"]), str(row["groups"])]
    bar, verdict = "", ""
    if row["bar"] is not None:
        bar = f"{row['bar']:g}"
        verdict = "yes" if row["mean"] is not None and row["mean"] >= row["bar"] else "**missed**"
    return [f"`{row['estimate']}`", row["truth"], *found, bar, verdict]


def percepiano_text(facts: Facts) -> str:
    """Return the agreement with listeners as Markdown."""
    cells = [scale for row in facts["rows"] for scale in row["scales"].values()]
    half = np.median(
        [(cell["interval"][1] - cell["interval"][0]) / 2 for cell in cells if cell["groups"]]
    )
    first = [
        f"**Listeners.** {facts['clips']} clips of {facts['passages']} passages of PercePiano with "
        f"at least {facts['at_least']} pianists each (deadpan renditions left out), each clip's "
        "ratings averaged over listeners. Spearman correlation of each target with each scale "
        "within passages, mean of the passages; 95 % intervals are the mean and "
        f"{half:.2f} either side (median cell). In bold the scale that the target ought to go "
        "with. The first row is the correlation of the means of two halves of the listeners (by "
        "number, in turn). A column is named by its scale's high end:",
        "",
        "; ".join(f"*{short}*: {long} ({name})" for name, (short, long) in SCALES.items()) + ".",
        "",
    ]
    header = ["target", *(short for short, _ in SCALES.values())]
    listeners = ["*other listeners*", *(two(c["mean"]) for c in facts["listeners"].values())]
    rows = [listeners, *map(_percepiano_row, facts["rows"])]
    return "\n".join([*first, *table(header, rows)])


def _percepiano_row(row: Facts) -> list[str]:
    own, _ = OWN_SCALE.get(row["target"], ("", 0))
    values = {name: two(cell["mean"]) for name, cell in row["scales"].items()}
    return [f"`{row['target']}`", *(f"**{v}**" if n == own else v for n, v in values.items())]


def _value(value: float) -> str:
    """Write a value with three digits or all before the point; what is smaller than 0.0001 is 0."""
    if abs(value) < 1e-4:
        return "0"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def copy_small(picture: Path, copy: Path) -> None:
    """Write a picture with 256 colours, which its text and its cells do with, a third as large."""
    with Image.open(picture) as image, atomic_path(copy) as temporary:
        image.convert("RGB").quantize(256).save(temporary, "PNG", optimize=True)


def draw(facts: Facts, output: Path) -> None:
    """Draw the responses to parameters and to listeners' scales that were measured."""
    maps = []
    if "dose" in facts:
        values = {row["target"]: row["responses"] for row in facts["dose"]["rows"]}
        title = "with parameters of the interpretation,\ntilt of the sound (median demo score)"
        maps.append((title, values, PARAMETERS, OWN_PARAMETER, 1.0))
    if "percepiano" in facts:
        values = {
            row["target"]: {name: cell["mean"] for name, cell in row["scales"].items()}
            for row in facts["percepiano"]["rows"]
        }
        names = {name: short for name, (short, _) in SCALES.items()}
        title = "with listeners' scales, named by the high end\n(mean of PercePiano's passages)"
        maps.append((title, values, names, OWN_SCALE, 0.6))
    if not maps:
        return
    targets = [name for name in maps[-1][1] if name in TARGETS]
    widths = [len(names) for _, _, names, _, _ in maps]
    size = (_NAMES + _COLUMN * sum(widths), _MARGINS + _ROW * len(targets))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(1, len(maps), squeeze=False, sharey=True, width_ratios=widths)[0]
    for ax, (title, values, names, own, limit) in zip(grid, maps, strict=True):
        _draw_map(ax, [values[t] for t in targets], list(names), limit)
        ax.set_xticks(range(len(names)), list(names.values()), rotation=90)
        ax.set_title(title, size=9)
        _outline(ax, targets, list(names), own)
    grid[0].set_yticks(range(len(targets)), targets)
    figure.suptitle("Spearman correlation of targets (outlined: what a target is meant to follow)")
    save_figure(figure, output)


def _draw_map(ax: Axes, rows: Sequence[Facts], columns: Sequence[str], limit: float) -> None:
    values = np.array([[row[name] for name in columns] for row in rows], float)
    image = ax.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ax.text(
                column,
                row,
                two(value).replace("0.", ".", 1),
                size=_SMALL,
                color="white" if abs(value) > _DARK * limit else "black",
                ha="center",
                va="center",
            )
    ax.set_facecolor("0.9")
    ax.tick_params(length=0, labelsize=8)
    bar = ax.figure.colorbar(image, ax=ax, orientation="horizontal", pad=0.01, shrink=0.7)
    bar.set_ticks([-limit, -limit / 2, 0, limit / 2, limit])
    bar.ax.tick_params(labelsize=7)


def _outline(
    ax: Axes, targets: Sequence[str], columns: Sequence[str], own: Mapping[str, tuple[str, int]]
) -> None:
    for row, target in enumerate(targets):
        if target in own:
            corner = (columns.index(own[target][0]) - 0.5, row - 0.5)
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, ec="black", lw=1.6))
    families = [TARGETS[target].category for target in targets]
    for row in range(1, len(targets)):
        if families[row] != families[row - 1]:
            ax.axhline(row - 0.5, color="black", lw=0.8)
