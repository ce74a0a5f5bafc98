"""What a finished run has left.

``mess question``: what probing and evaluation answered. ``mess provenance``: how a result was made.
``mess tour``: where everything is, example queries, and what is next.
"""

__all__ = ["add_parser"]

import argparse
import csv
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import TYPE_CHECKING, Any

from mess_core.cli import search as cli_search
from mess_core.cli.printing import table
from mess_core.errors import StorageError
from mess_core.evaluation.tables import side_by_side
from mess_core.files import read_json
from mess_core.layout import Layout
from mess_core.probing.aspects import aspect_r2
from mess_core.workflow.record import find_record

if TYPE_CHECKING:
    from mess_core.index.index import Index

#: How many hits the queries of the tour ask for, in general and by an aspect.
_HITS, _OF_ASPECT = 5, 3

#: The aspects that the tour asks for, where they can be.
_ASKED = ("brightness", "tempo", "dynamics", "articulation", "rubato")

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
    "evaluation": (
        "How good are answers? Figures, half of their 95 % intervals (chance, ceiling)",
        "judge asked measure against source value low high chance ceiling works",
    ),
}


def add_parser(subparsers: Any) -> None:
    """Add ``question``, ``provenance`` and ``tour`` to the command line."""
    parser = subparsers.add_parser(
        "question",
        help="show what was found: layers, stability, separability, collapse, evaluation",
        description="Show the table that answers a research question. "
        + " ".join(f"{name}: {asked}" for name, (asked, _) in _SHOWN.items()),
    )
    parser.add_argument("question", choices=_SHOWN)
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
    parser = subparsers.add_parser(
        "tour",
        help="show the results of a finished run with example queries",
        description="Show where the results are, example queries, and what to type next.",
    )
    parser.add_argument("--dataset", default="demo", help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=Path("data"), help="default: %(default)s")
    parser.set_defaults(run=_tour)


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
    lines = table(shown) if shown else ["nothing was probed"]
    if args.question == "evaluation":
        tables = side_by_side(rows).items()
        lines = [text for title, those in tables for text in (title, *table(those), "")]
        lines += ["Rules", *(_rule(row) for row in rows if row["judge"] == "rule"), ""]
        missing = [row for row in rows if row["reason"] and row["judge"] != "rule"]
        lines += [f"{row['judge']}, {row['asked']}: {row['reason']}" for row in missing]
    print("\n".join([asked, "", *lines]))
    print(f"\nall columns: {path}\npicture: {layout.answer(args.question, '.png')}")
    return 0


def _rule(row: Mapping[str, str]) -> str:
    """Return what a rule says, in as many lines as the terminal needs."""
    text = f"{row['measure']:<11}{row['asked']}: {row['reason'].removeprefix('not known: ')}"
    return fill(text, get_terminal_size().columns, subsequent_indent=" " * 11)


def _short(cell: str) -> str:
    """Return a number with three decimals; text as it is, nothing as a dash."""
    try:
        return cell if cell.lstrip("-").isdigit() else f"{float(cell):.3f}"
    except ValueError:
        return cell or "-"


def _tour(args: argparse.Namespace) -> int:
    layout = Layout(args.data, args.dataset)
    if not layout.publish_receipt.exists():
        raise StorageError(
            f"{args.dataset} has no finished run here; run `snakemake --config "
            f"dataset={args.dataset}`"
        )
    destination = read_json(layout.publish_receipt)["destination"]
    index = cli_search.open_index(destination, args.dataset, "recordings")
    resolved = _resolved(index)
    print("\n".join(_places(layout, destination)))
    print("\n" + "\n".join(_aspects(index, resolved)))
    where = _where(args.dataset, destination)
    parser = argparse.ArgumentParser()
    cli_search.add_parser(parser.add_subparsers())
    for query in _queries(index, resolved):
        print(f"\n$ mess search {query}{where}")
        cli_search.run(parser.parse_args(["search", *shlex.split(query + where)]))
    data = "" if args.data == Path("data") else f" --data {shlex.quote(str(args.data))}"
    print("\n" + "\n".join(_next(args.dataset, index, resolved, where + data)))
    return 0


def _resolved(index: "Index") -> list[str]:
    """Return the searchable aspects, the best known first."""
    known = index.aspects["aspects"]
    return sorted((a for a in known if known[a]["resolved"]), key=lambda a: -aspect_r2(known[a]))


def _places(layout: Layout, destination: str) -> list[str]:
    places = {
        "recordings": layout.table,
        "features": layout.embeddings,
        "targets": layout.targets("*").parent,
        "alignments": layout.alignments_manifest.parent,
        "probing": layout.probing,
        "aspect map": layout.aspects,
        "layer map": layout.answer("layers", ".png"),
        "reports": layout.reports,
        "report": f"{layout.page('report')} (one page with all of it, to open in a browser)",
        "published": destination,
    }
    return ["Results", *(f"  {name:<12}{place}" for name, place in places.items())]


def _aspects(index: "Index", resolved: list[str]) -> list[str]:
    known = index.aspects["aspects"]
    limit = index.aspects["min_r2"]
    lines = [
        f"Aspects: {len(resolved)} of {len(known)} are measured, or reach min_r2 {limit}, and can "
        "be searched by"
    ]
    for name in (*resolved, *(name for name in known if name not in resolved)):
        cannot = "" if name in resolved else "cannot be searched by: "
        lines.append(f"  {name:<18}{cannot}{known[name]['finding']}")
    from mess_core.search.search import directed

    steered = ", ".join(directed(index)) or "no aspect"
    lines.append(f"  more or less can be asked of {steered}")
    return lines


def _where(dataset: str, destination: str) -> str:
    """Return the options that name the place, where the command line would not find it itself."""
    from mess_core.publishing.publish import published_datasets

    options = ""
    if destination != cli_search.DEFAULT_LOCATION:
        options += f" --artifacts {shlex.quote(destination)}"
    if published_datasets(destination) != [dataset]:
        options += f" --dataset {dataset}"
    return options


def _queries(index: "Index", resolved: list[str]) -> list[str]:
    """Return queries of different kinds, in the form of the command line.

    What an aspect means is heard best from the recording that has most of it.
    """
    names = list(index.rows.numbers)
    asked = [name for name in _ASKED if name in resolved]
    values = {name: index.predicted[index.projection.aspects[name].number] for name in asked}
    most = {name: names[int(values[name].argmax())] for name in asked}
    weighed = f" --like general --like {resolved[0]}=0.5 --explain" if resolved else ""
    return [
        f"--recording {names[0]} -k {_HITS}",
        *(f"--recording {most[a]} --aspect {a} --exclude work -k {_OF_ASPECT}" for a in asked),
        f"--recording {names[0]} --from 5 --to 10 --exclude recording --dedupe 5{weighed} "
        f"-k {_HITS}",
    ]


def _next(dataset: str, index: "Index", resolved: list[str], options: str) -> list[str]:
    recording = next(iter(index.rows.numbers))
    search = f"  mess search --recording {recording}"
    words = '  mess search --words "slow and soft"'
    chosen = "" if dataset == "demo" else f" --config dataset={dataset}"
    both = []
    if len(resolved) > 1:
        one, other = resolved[:2]
        both = [
            f'{search} --aspects "{one}=0.7,{other}=0.3"',
            f"{search} --from 5 --to 10 --like {one} --ignore {other}",
        ]
    return [
        "What next",
        *both,
        *([words] if {"tempo", "dynamics"} <= {*resolved} else []),
        f"{search} --from 2.5 --to 9 --json",
        f"  snakemake data/probing/{dataset}/tempo.json{chosen}   # one result, rebuilt when stale",
        "  mess recordings --folder PATH --name mine && snakemake --config dataset=mine",
        "  (mess and snakemake are in .venv/bin; README.md explains every step)",
        "",
        "Mark a passage and hear what is like it, in your browser:",
        f"  mess explore{options}",
    ]
