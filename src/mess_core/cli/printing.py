"""How commands print tables, and read times."""

__all__ = ["length", "seconds", "table"]

import argparse
import math
from collections.abc import Mapping, Sequence


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the lines of a table: the keys of the rows, which all have the same, and the rows."""
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    lines = [{name: name for name in widths}, {name: "-" * widths[name] for name in widths}, *rows]
    return ["  ".join(line[n].ljust(widths[n]) for n in widths).rstrip() for line in lines]


def seconds(text: str) -> float:
    """Read a time that somebody typed: seconds, ``1:05`` or ``1:02:03.5``.

    Raises `argparse.ArgumentTypeError` if it is no time.
    """
    *larger, last = text.strip().split(":")
    try:
        parts = [*map(int, larger), float(last)]
    except ValueError:
        parts = [math.nan]
    if (
        len(parts) > 3
        or not all(0 <= part < math.inf for part in parts)
        or any(part >= 60 for part in parts[1:])
    ):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; give seconds or minutes:seconds, as in 65 or 1:05"
        )
    return float(sum(part * 60**power for power, part in enumerate(reversed(parts))))


def length(text: str) -> float:
    """Read how long something is, as `seconds` does; more than 0."""
    if not (read := seconds(text)):
        raise argparse.ArgumentTypeError("it has to be more than 0 s")
    return read
