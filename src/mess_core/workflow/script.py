"""The one module that knows the `snakemake` object of a script: its params, log and record."""

__all__ = ["Job", "job"]

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mess_core.errors import MessError
from mess_core.layout import Layout
from mess_core.workflow.record import code, now, write_record


@dataclass(frozen=True, slots=True)
class Job:
    """What a script is run with.

    ``cfg`` are the rule's params but ``stale_with``: the arguments of the function that does the
    work. ``config`` is the configuration, for settings that do not affect results.
    """

    layout: Layout
    cfg: dict[str, Any]
    config: Mapping[str, Any]
    threads: int


@contextmanager
def job(snakemake: Any) -> Iterator[Job]:
    """Give a script its arguments, and write what it prints to its log.

    When the block ends well, it is recorded how the outputs were made. When it raises, the cause
    stands at the end of the log (with a traceback unless it is one of our own errors) and, in
    short, on the terminal; the process ends with status 1, or with 130 after Ctrl-C.
    """
    path = Path(snakemake.log[0])
    terminal = sys.stderr
    config, cfg = snakemake.config, dict(snakemake.params.cfg)
    cfg.pop("stale_with", None)
    layout = Layout(Path(config["data"]), config["dataset"])
    with path.open("w", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        try:
            # The files as they are now: somebody may edit them while the job runs.
            started, known_code = now(), code()
            yield Job(layout, cfg, config, snakemake.threads)
            write_record(
                layout,
                outputs=[Path(name) for name in snakemake.output],
                inputs=[Path(name) for name in snakemake.input],
                rule=snakemake.rule,
                wildcards=dict(snakemake.wildcards.items()),
                params=snakemake.params.cfg,
                config=config,
                threads=snakemake.threads,
                started=started,
                code=known_code,
            )
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
