"""The report as pages that need nothing but themselves: no network, no script, no other file."""

__all__ = ["render_pages"]

import base64
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from mess_core.evaluation.tables import side_by_side
from mess_core.layout import PAGES
from mess_core.probing.aspects import ASPECT_REGISTRY, aspect_r2
from mess_core.probing.results import confidence
from mess_core.progress import clock, duration
from mess_core.report.findings import Findings
from mess_core.search.query import command

Row = Mapping[str, Any]

#: CSS pixels per inch.
_CSS_DPI = 96
#: A picture scrolls rather than being shown smaller than this share of the size it was drawn in.
_SMALLEST = 0.8


def render_pages(findings: Findings) -> dict[str, str]:
    """Return the HTML of `mess_core.layout.PAGES`: ``report`` has all sections, the others one."""
    template = _template()
    return {page: template.render(findings=findings, page=page) for page in PAGES}


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "about": lambda name: ASPECT_REGISTRY[name].description if name in ASPECT_REGISTRY else "",
        "best_first": _best_first,
        "clock": clock,
        "code": lambda value: Markup("<code>{}</code>").format(value or "-"),
        "command": command,
        "confidence": lambda r2: confidence(float(r2)),
        "duration": duration,
        "highest": _highest,
        "image": _image,
        "own_parameter": _own_parameter,
        "percent": lambda line: f"{100 * float(line['value']):.0f} of 100",
        "side_by_side": side_by_side,
        "to": lambda low, high: f"{_two(low)} to {_two(high)}" if low else "-",
        "two": _two,
    }
    return environment.get_template("page.html.jinja")


def _image(path: Path) -> dict[str, Any]:
    """Return a picture as a data URI, with its size as drawn, in CSS pixels."""
    from PIL import Image

    with Image.open(path) as image:
        dpi = image.info.get("dpi", (_CSS_DPI, _CSS_DPI))
        width, height = (
            round(_CSS_DPI * n / density) for n, density in zip(image.size, dpi, strict=True)
        )
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    return {"uri": uri, "width": width, "height": height, "smallest": round(_SMALLEST * width)}


def _best_first(aspects: Mapping[str, Row]) -> list[tuple[str, Row]]:
    return sorted(aspects.items(), key=lambda a: (not a[1]["resolved"], -aspect_r2(a[1])))


def _highest(layers: Iterable[Row]) -> list[Row]:
    """Return the three targets that are known best."""
    probed = (row for row in layers if row["measure"])
    return sorted(probed, key=lambda row: -float(row[row["measure"]]))[:3]


def _own_parameter(row: Row) -> Row:
    """Add the correlation of a target with its own parameter, where that is known."""
    own = row["own"] if f"of_{row['own']}" in row else ""
    parameters = any(name.startswith("of_") for name in row)
    return {**row, "own": own, "own_r": row.get(f"of_{own}", ""), "parameters": parameters}


def _two(value: str | float | None) -> str:
    """Return a number with two decimals; a dash where there is none."""
    # -0.0 + 0.0 is 0.0.
    return "-" if value in ("", None) else f"{round(float(value), 2) + 0.0:.2f}"
