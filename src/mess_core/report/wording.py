"""How numbers, times and lists are put into words, and the pieces that sections are made of."""

__all__ = ["Section", "clock", "details", "duration", "listed", "two"]

from collections.abc import Sequence
from typing import NamedTuple

from mess_core.report.markup import Html, tag


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    body: Html


def details(title: str, content: Html) -> Html:
    """Return what is shown when its title is chosen."""
    return tag("details", tag("summary", title), content)


def listed(names: Sequence[str]) -> str:
    """Return names after a colon; nothing where there are none."""
    return f": {', '.join(names)}" if names else ""


def two(text: str | None) -> str:
    """Return a number of a table with two decimals; a dash where there is none."""
    # -0.0 + 0.0 is 0.0.
    return f"{round(float(text), 2) + 0.0:.2f}" if text else "-"


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def duration(seconds: float) -> str:
    """Return a duration in the unit that fits."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
