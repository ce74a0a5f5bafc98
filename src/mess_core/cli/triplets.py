"""``mess triplets``: which of two passages is nearer to a third, by people's ears.

``make`` writes a study, ``import`` puts ratings beside its answers, ``score`` says how far people
agree, and spaces with them, ``export`` writes all answers for other programs.
"""

__all__ = ["add_parser"]

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add ``triplets`` to the command line."""
    parser = subparsers.add_parser(
        "triplets",
        help="judgments of people: make a study, import ratings, score, export",
        description="Which of two passages is nearer to a third? Judgments of people, of a study "
        "or from ratings, in data/judgments (docs/judgments.md).",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for add in (_add_import, _add_score, _add_export):
        options = add(actions)
        options.add_argument("--dataset", default="demo", help="default: %(default)s")
        options.add_argument("--data", type=Path, default=Path("data"), help="default: %(default)s")


def _add_import(actions: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser("import", help="take a table of ratings")
    return parser


def _add_score(actions: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser("score", help="how far people agree")
    return parser


def _add_export(actions: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser("export", help="for other programs")
    return parser
