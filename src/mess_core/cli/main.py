"""The command line, ``mess COMMAND``."""

__all__ = ["main"]

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from mess_core.cli import (
    artifacts,
    compare,
    embed,
    landmarks,
    model,
    recordings,
    render,
    results,
    search,
    serve,
    train,
    triplets,
)
from mess_core.errors import MessError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 1 after one of our own errors."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names have accents; where the terminal has none, an escape is better than an error.
            stream.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; Python must not try to flush into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MessError, OSError) as error:
        print(f"mess {args.command}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        extras = "serve" if args.command in ("serve", "explore") else "extract,analysis"
        print(
            f"mess {args.command}: needs {error.name}, which the plain install leaves out; "
            f'from the checkout: pip install ".[{extras}]"',
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"mess {args.command}: interrupted", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mess", description="Find music that sounds and is played alike."
    )
    parser.add_argument("--version", action="version", version=f"mess {version('mess-core')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = (
        recordings,
        render,
        model,
        train,
        embed,
        search,
        serve,
        compare,
        landmarks,
        results,
        artifacts,
        triplets,
    )
    for module in modules:
        module.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
