"""``mess question``: what probing answered; ``mess provenance``: how a result was made."""

__all__ = ["add_parser"]

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

from mess_core.cli.printing import table
from mess_core.errors import StorageError
from mess_core.layout import QUESTIONS, Layout
from mess_core.workflow.record import find_record

#: What each question asks, and the columns of its table that fit a terminal.
_SHOWN = {
    "layers": (
        "Which layer encodes a target best, and which others may be as good?",
        "target best_layer best_layers r2 r2_within r2_lo r2_hi p nested untrained descriptors",
    ),
    "stability": (
        "How stable are R2 and the ranking of the layers over folds?",
        "target best_layer r2 r2_std r2_min kendall_w kendall_p agreement",
    ),
    "separability": (
        "Which aspects can be told apart: what is left of one when the other is erased?",
        "aspect erased layer r2_within r2_within_erased retained angle rank_correlation verdict",
    ),
    "collapse": (
        "Do the rows fill their space, and keep the recordings of a work apart?",
        "source layer rankme within_work within_work_standardised cka_untrained cka_descriptors",
    ),
}


def add_parser(subparsers: Any) -> None:
    """Add ``question`` and ``provenance`` to the command line."""
    parser = subparsers.add_parser(
        "question",
        help="show what probing found: layers, stability, separability, collapse",
        description="Show the table that answers a research question. "
        + " ".join(f"{name}: {asked}" for name, (asked, _) in _SHOWN.items()),
    )
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("--dataset", default="demo", help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=Path("data"), help="default: %(default)s")
    parser.add_argument("--all", action="store_true", help="all columns, tab-separated")
    parser.set_defaults(run=_answer)
    parser = subparsers.add_parser(
        "provenance",
        help="print how a result was made",
        description="Print the record of the job that made a result, as JSON: configuration, "
        "stages, encoder, hashes of inputs and outputs, code and libraries.",
    )
    parser.add_argument("file", type=Path, help="a result, as data/probing/demo/rubato.json")
    parser.set_defaults(run=_provenance)


def _provenance(args: argparse.Namespace) -> int:
    print(json.dumps(find_record(args.file), indent=2, ensure_ascii=False))
    return 0


def _answer(args: argparse.Namespace) -> int:
    layout = Layout(args.data, args.dataset)
    path = layout.answer(args.question, ".tsv")
    if not path.is_file():
        raise StorageError(
            f"{path} does not exist; make it with `snakemake {path} --config "
            f"dataset={args.dataset}`"
        )
    text = path.read_text(encoding="utf-8")
    if args.all:
        sys.stdout.write(text)
        return 0
    asked, columns = _SHOWN[args.question]
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    there = [name for name in columns.split() if rows and name in rows[0]]
    # Why there are no figures, where there are none.
    there += ["reason"] if any(row.get("reason") for row in rows) else []
    shown = [{name: _short(row[name]) for name in there} for row in rows]
    print("\n".join([asked, "", *(table(shown) if shown else ["nothing was probed"])]))
    print(f"\nall columns: {path}\npicture: {layout.answer(args.question, '.png')}")
    return 0


def _short(cell: str) -> str:
    """Return a number with three decimals; text as it is, nothing as a dash."""
    try:
        return cell if cell.lstrip("-").isdigit() else f"{float(cell):.3f}"
    except ValueError:
        return cell or "-"
