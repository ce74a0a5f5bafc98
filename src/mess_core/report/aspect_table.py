"""The section about aspects: what can be searched by, and how well it is known."""

__all__ = ["aspects_section"]

from collections.abc import Mapping
from typing import Any

from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.report.findings import Findings
from mess_core.report.markup import Html, join, table, tag
from mess_core.report.wording import Section

#: The axis of R2 in the aspect table: values outside stand at its ends. Pixels.
_LOWEST, _HIGHEST, _AXIS, _HEIGHT = -0.5, 1.0, 190, 22


def aspects_section(findings: Findings) -> Section:
    """Show what can be searched by, and how well it is known."""
    limit = findings.aspects["min_r2"]
    known = findings.aspects["aspects"]
    order = sorted(known, key=lambda a: (not known[a]["resolved"], -(known[a]["r2"] or 0)))
    rows = [_aspect_row(name, known[name], limit) for name in order]
    caption = (
        f"Searchable: R² within works of at least {limit:g}, with the layer where it is highest. "
        "Dot: R² of ridge probes on works that they have not heard, mean of the aspect's targets "
        "(negative ones count as 0). Line: 95 % interval, bootstrap over works; negative R² count "
        "in it as they are, so it may lie below the dot. Thick tick: what an untrained encoder of "
        "the same shape reaches. Validated: the interval lies above that. Dotted: the limit. The "
        "axis goes from -0.5 to 1, and values beyond stand at its ends."
    )
    headings = ("aspect", "searchable", "layer", "R² within works", "validated")
    body = table((*headings, "best layer of each target", "finding"), rows, caption=caption)
    return Section("aspects", "Aspects", body)


def _aspect_row(name: str, aspect: Mapping[str, Any], limit: float) -> list[str]:
    registered = ASPECT_REGISTRY.get(name)
    about = registered.description if registered else ""
    targets = "; ".join(
        f"{target} {entry['r2']:.2f} (layer {entry['layer']})"
        for target, entry in aspect["targets"].items()
    )
    missing = f"; without a result: {', '.join(aspect['missing'])}" if aspect["missing"] else ""
    return [
        join([name, tag("small", about)]),
        "yes" if aspect["resolved"] else "no",
        "-" if aspect["layer"] is None else str(aspect["layer"]),
        _range(aspect, limit),
        "yes" if aspect["validated"] else "no",
        tag("small", (targets + missing).removeprefix("; ")),
        tag("small", (aspect["reason"] or aspect["finding"])),
    ]


def _range(aspect: Mapping[str, Any], limit: float) -> Html:
    """Draw R2, its interval, the baseline and the limit on an axis, beside the numbers."""
    if aspect["r2"] is None:
        return Html("-")
    interval = aspect["interval"]
    told = f"{aspect['r2']:.2f}" + (" [{:.2f}, {:.2f}]".format(*interval) if interval else "")
    middle = _HEIGHT / 2
    shapes = [_line(0.0, 3, _HEIGHT - 3, opacity="0.25"), _line(limit, 2, _HEIGHT - 2, dashed=True)]
    if interval:
        shapes.append(
            tag(
                "line",
                x1=_at(interval[0]),
                x2=_at(interval[1]),
                y1=f"{middle:g}",
                y2=f"{middle:g}",
                stroke="currentColor",
                stroke_width="2",
                opacity="0.55",
            )
        )
    if aspect["baseline"] is not None:
        shapes.append(_line(aspect["baseline"], 5, _HEIGHT - 5, width=3, colour="#d55e00"))
    shapes.append(
        tag(
            "circle", cx=_at(aspect["r2"]), cy=f"{middle:g}", r="4.5", fill="#0072b2", stroke="#fff"
        )
    )
    label = f"R2 {told}, untrained {aspect['baseline']:.2f}" if aspect["baseline"] else f"R2 {told}"
    drawing = tag(
        "svg", *shapes, width=_AXIS, height=_HEIGHT, class_="range", role="img", aria_label=label
    )
    return join([drawing, tag("span", told, class_="number")])


def _at(value: float) -> str:
    share = (min(max(value, _LOWEST), _HIGHEST) - _LOWEST) / (_HIGHEST - _LOWEST)
    return f"{5 + share * (_AXIS - 10):.1f}"


def _line(
    value: float,
    top: float,
    bottom: float,
    *,
    width: int = 1,
    colour: str = "currentColor",
    opacity: str | None = None,
    dashed: bool = False,
) -> Html:
    return tag(
        "line",
        x1=_at(value),
        x2=_at(value),
        y1=f"{top:g}",
        y2=f"{bottom:g}",
        stroke=colour,
        stroke_width=width,
        opacity=opacity,
        stroke_dasharray="2 3" if dashed else None,
    )
