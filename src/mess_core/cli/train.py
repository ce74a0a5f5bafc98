"""``mess train``: train a small encoder of one's own."""

__all__ = ["add_parser", "run"]

import argparse
from pathlib import Path
from typing import Any

from mess_core.cli.printing import length


def add_parser(subparsers: Any) -> None:
    """Add ``train`` to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="train a small encoder of piano music",
        description="Render performances on sampled pianos in changed versions, train a small "
        "encoder on them, and export it as a folder for `encoder`. Run again, it goes on from its "
        "checkpoint, which is at most a minute old.",
    )
    for name, told in {
        "--performances": "MIDI files, or performances.npz",
        "--pianos": "a sound file of notes each",
    }.items():
        parser.add_argument(name, type=Path, required=True, metavar="FOLDER", help=told)
    parser.add_argument(
        "--seconds", type=length, required=True, help="of training in all, with earlier calls"
    )
    parser.add_argument("--out", type=Path, default=Path("data/models/trained"), metavar="FOLDER")
    parser.add_argument(
        "--leave-out", metavar="PIANO", help="validate on it, and do not train on it"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--begin", metavar="FOLDER", help="a small encoder to begin from, such as mess-small"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that render (default: 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, export, and print the validation."""
    from mess_core.training.train import train

    options = {name: getattr(args, name) for name in ("seconds", "leave_out", "seed", "begin")}
    train(args.performances, args.pianos, args.out, workers=args.workers, **options)
    print(f"next: mess model verify {args.out}\n      snakemake --config encoder={args.out}")
    return 0
