"""The one module that knows the `snakemake` object of a script."""

__all__ = ["job"]

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from mess_core.config import Settings
from mess_core.errors import MessError


@contextmanager
def job(snakemake: Any) -> Iterator[Settings]:
    """Give a script its settings, and its log everything that is printed.

    Parameters
    ----------
    snakemake : object
        What Snakemake puts into a script.

    Yields
    ------
    Settings
        The configuration.

    Raises
    ------
    SystemExit
        With status 1 when the block raises. The cause stands at the end of the log (with a
        traceback unless it is one of our own errors) and, in short, on the terminal.
    """
    path = Path(snakemake.log[0])
    terminal = sys.stderr
    with path.open("w", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        try:
            yield Settings.from_config(snakemake.config)
        except MessError as error:
            print(f"{type(error).__name__}: {error}", file=log)
            print(f"rule {snakemake.rule}: {error}\n(log: {path})", file=terminal)
            sys.exit(1)
        except Exception as error:
            traceback.print_exc(file=log)
            print(f"rule {snakemake.rule}: {type(error).__name__}: {error}", file=terminal)
            print(f"This is a bug in mess_core; the traceback is in {path}", file=terminal)
            sys.exit(1)
