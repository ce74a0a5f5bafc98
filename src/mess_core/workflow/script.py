"""The one module that knows the `snakemake` object of a script: its settings, log and record."""

__all__ = ["job"]

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from mess_core.errors import MessError
from mess_core.workflow import software
from mess_core.workflow.config import Settings
from mess_core.workflow.record import write_record


@contextmanager
def job(snakemake: Any) -> Iterator[Settings]:
    """Give a script its settings, its log what is printed, and its outputs a record.

    Parameters
    ----------
    snakemake : object
        What Snakemake puts into a script.

    Yields
    ------
    Settings
        The configuration. When the block ends well, it is recorded how the outputs were made
        (`mess_core.workflow.record`).

    Raises
    ------
    SystemExit
        With status 1 when the block raises. The cause stands at the end of the log (with a
        traceback unless it is one of our own errors) and, in short, on the terminal. With status
        130 after Ctrl-C.
    """
    path = Path(snakemake.log[0])
    terminal = sys.stderr
    with path.open("w", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        try:
            settings, started = Settings.from_config(snakemake.config), software.now()
            # Of the files as they are now: somebody may edit them while the job runs.
            software.code()
            yield settings
            _record(snakemake, settings, started)
        except MessError as error:
            print(f"{type(error).__name__}: {error}", file=log)
            print(f"rule {snakemake.rule}: {error}\n(log: {path})", file=terminal)
            sys.exit(1)
        except KeyboardInterrupt:
            # Ctrl-C reaches every process; Snakemake itself says that it stops.
            print("interrupted: what is finished is kept", file=log)
            sys.exit(130)
        except Exception as error:
            traceback.print_exc(file=log)
            print(f"rule {snakemake.rule}: {type(error).__name__}: {error}", file=terminal)
            print(f"This is a bug in mess_core; the traceback is in {path}", file=terminal)
            sys.exit(1)


def _record(snakemake: Any, settings: Settings, started: str) -> None:
    write_record(
        settings.layout,
        [Path(path) for path in snakemake.output],
        inputs=[Path(path) for path in snakemake.input],
        started=started,
        rule=snakemake.rule,
        wildcards=dict(snakemake.wildcards.items()),
        params=snakemake.params.cfg,
        config=settings.by_key,
        threads=snakemake.threads,
        again={
            "folder": str(Path.cwd()),
            "snakefile": str(Path(snakemake.scriptdir).resolve().parents[1] / "Snakefile"),
        },
    )
