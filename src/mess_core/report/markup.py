"""HTML that cannot hold what it should not: all text is escaped unless it is `Html` already."""

__all__ = ["Html", "join", "picture", "table", "tag"]

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

#: CSS pixels per metre.
_CSS_METRE = 96 / 0.0254

#: A picture is scrolled rather than shown smaller than this share of the size it was drawn in.
_SMALLEST = 0.8

_VOID = ("img", "meta", "br")


class Html(str):
    """Text that is HTML."""

    __slots__ = ()


def join(parts: Iterable[str], separator: str = "") -> Html:
    """Join parts; those that are no `Html` are escaped."""
    return Html(separator.join(_escaped(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: str | int | bool | None) -> Html:
    """Return an element.

    Parameters
    ----------
    name : str
        The element's name.
    *children : str
        Its content; what is no `Html` is escaped.
    **attributes : str, int, bool or None
        Of names, ``_`` at the end is dropped (``class_``) and others become ``-``. True gives the
        name alone, None and False leave it out.
    """
    given = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_quoted(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, numbers: int = 0
) -> Html:
    """Return a table that can be scrolled sideways where it is too wide.

    Parameters
    ----------
    headings : sequence of str
        Of the columns.
    rows : iterable of sequence of str
        Their cells; the first of each heads its row.
    caption : str
        What the table shows.
    numbers : int
        So many of the last columns hold numbers, which are aligned to the right.
    """
    right = len(headings) - numbers
    align = [None if column < right else "number" for column in range(len(headings))]
    head = (
        tag("th", heading, scope="col", class_=kind)
        for heading, kind in zip(headings, align, strict=True)
    )
    body = (
        tag(
            "tr",
            tag("th", cells[0], scope="row"),
            *(tag("td", c, class_=a) for c, a in zip(cells[1:], align[1:], strict=True)),
        )
        for cells in rows
    )
    content = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body))
    # Not a <caption>, which would be as wide as the table and scroll with it.
    told = tag("figcaption", caption)
    return tag("figure", told, _scrolled(content, caption), class_="table")


def picture(path: Path, *, alt: str, caption: str) -> Html:
    """Return a figure with a PNG file inside the page.

    Parameters
    ----------
    path : Path
        The picture.
    alt : str
        What it shows, for those who do not see it.
    caption : str
        How to read it.
    """
    content = path.read_bytes()
    width, height = _size(content)
    uri = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    legible = f"min-width: {round(_SMALLEST * width)}px"
    image = tag("img", src=uri, alt=alt, width=width, height=height, style=legible)
    told = tag("figcaption", caption)
    return tag("figure", _scrolled(image, caption), told, class_="picture")


def _size(png: bytes) -> tuple[int, int]:
    """Return a picture's width and height in CSS pixels, in the size that it was drawn in."""
    # All numbers of PNG are big-endian; the chunk pHYs holds pixels per metre.
    pixels = [int.from_bytes(png[at : at + 4], "big") for at in (16, 20)]
    at = png.find(b"pHYs") + 4
    density = int.from_bytes(png[at : at + 4], "big") if at > 4 else _CSS_METRE
    width, height = (round(number * _CSS_METRE / density) for number in pixels)
    return width, height


def _scrolled(content: Html, caption: str) -> Html:
    # What scrolls must be reachable by the keyboard, and have a name: the caption's first sentence.
    label = caption.split(". ")[0]
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=label)


def _escaped(part: str) -> str:
    return part if isinstance(part, Html) else escape(part)


def _quoted(value: str | int | bool) -> str:
    return escape(str(value), quote=True)
