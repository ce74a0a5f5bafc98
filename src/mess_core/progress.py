"""Progress of long work: one moving line in a terminal, plain lines with rates in a log."""

__all__ = ["Progress"]

import sys
import time
from typing import TextIO

#: Shortest time between two lines, in seconds: a person watches a terminal, a log is read later.
_TERMINAL_S = 0.1
_LOG_S = 5.0


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
        left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
        line = f"{done}/{total} {self._what}, {rate:.1f}/s{left}{name and f': {name}'}"
        if terminal:
            stream.write(f"\r{line[:100]:<100}" + ("\n" if done == total else ""))
        else:
            stream.write(line + "\n")
        stream.flush()
