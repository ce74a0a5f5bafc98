"""Progress of long work: a bar in a terminal, plain lines with rates in a log; and times."""

__all__ = ["Progress", "Report", "clock", "counted", "duration"]

import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import TextIO, TypeVar

#: What reports progress: takes how much is done, of how much, and the name of what is done.
Report = Callable[[int, int, str], None]

Item = TypeVar("Item")

#: Shortest time between two lines, in seconds: a person watches a terminal, a log is read later.
_TERMINAL_S = 0.1
_LOG_S = 5.0
#: Characters of a bar, and of a terminal whose width is not known.
_BAR = 24
_WIDTH = 80


def counted(
    items: Collection[Item], report: Report | None, name: Callable[[Item], str] = str
) -> Iterator[Item]:
    """Give items, and report after each how many are done; ``name`` gives an item's name."""
    for done, item in enumerate(items, start=1):
        yield item
        if report:
            report(done, len(items), name(item))


class Progress:
    """A callable that takes ``(done, total)``, or ``(done, total, name)``, and reports it.

    Parameters
    ----------
    what : str
        Plural noun of what is counted, for example ``recordings``.
    stream : text file, optional
        Where to write; standard error as it is when the object is called.
    """

    def __init__(self, what: str, *, stream: TextIO | None = None) -> None:
        self._what = what
        self._stream = stream
        self._start = time.monotonic()
        self._last = -_LOG_S

    def __call__(self, done: int, total: int, name: str = "") -> None:
        """Report that ``done`` of ``total`` are finished, the last of them ``name``."""
        stream = self._stream or sys.stderr
        now = time.monotonic() - self._start
        terminal = stream.isatty()
        if done < total and now - self._last < (_TERMINAL_S if terminal else _LOG_S):
            return
        self._last = now
        rate = done / now if now > 0 else 0.0
        left = f", {duration((total - done) / rate)} left" if rate and done < total else ""
        line = f"{done}/{total} {self._what}, {rate:.1f}/s{left}{name and f': {name}'}"
        if terminal:
            # The last column stays free: in it, many terminals begin a new line.
            width = _width(stream) - 1
            line = f"{_bar(done, total)} {line}"[:width]
            stream.write(f"\r{line:<{width}}" + ("\n" if done == total else ""))
        else:
            stream.write(line + "\n")
        stream.flush()


def _bar(done: int, total: int) -> str:
    full = _BAR * done // max(total, 1)
    return f"[{'#' * full}{'.' * (_BAR - full)}]"


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _WIDTH
    except (OSError, ValueError):
        return _WIDTH


def clock(time_s: float) -> str:
    """Return a time as minutes, seconds and tenths, ``1:02.5``."""
    minutes, rest = divmod(round(time_s, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def duration(seconds: float) -> str:
    """Return a duration in the two units that matter: seconds, minutes, hours."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
