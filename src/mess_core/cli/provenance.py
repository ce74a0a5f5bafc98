"""``mess provenance``: print the record of the job that made a result."""

__all__ = ["add_parser"]

import argparse
import json
from pathlib import Path

from mess_core.workflow.record import find_record


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command ``provenance``."""
    parser = commands.add_parser(
        "provenance",
        help="print how a result was made",
        description="Print the record of the job that made a result, as JSON: configuration, "
        "stages, encoder, hashes of inputs and outputs, code and libraries.",
    )
    parser.add_argument("file", type=Path, help="a result, as data/probing/demo/rubato.json")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    print(json.dumps(find_record(args.file), indent=2, ensure_ascii=False))
    return 0
