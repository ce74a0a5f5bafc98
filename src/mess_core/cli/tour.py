"""``mess tour``: where a finished run's results are, three example queries, and what is next."""

__all__ = ["add_parser", "run"]

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mess_core.cli import search as cli_search
from mess_core.files import read_json
from mess_core.layout import Layout

if TYPE_CHECKING:
    from mess_core.index.index import Index

_HITS = 5


def add_parser(subparsers: Any) -> None:
    """Add ``tour`` to the command line."""
    parser = subparsers.add_parser(
        "tour",
        help="show the results of a finished run with three example queries",
        description="Show where the results are, three example queries, and what to type next.",
    )
    parser.add_argument("--dataset", default="demo", help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=Path("data"), help="default: %(default)s")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the tour."""
    layout = Layout(args.data, args.dataset)
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
    print("\n" + "\n".join(_next(args.dataset, index, resolved)))
    return 0


def _resolved(index: "Index") -> list[str]:
    """Return the searchable aspects, the best known first."""
    known = index.aspects["aspects"]
    return sorted((a for a in known if known[a]["resolved"]), key=lambda a: -known[a]["r2"])


def _places(layout: Layout, destination: str) -> list[str]:
    places = {
        "recordings": layout.table,
        "features": layout.embeddings,
        "targets": layout.targets("*").parent,
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
        f"Aspects: {len(resolved)} of {len(known)} reach min_r2 {limit} and can be searched by"
    ]
    for name in sorted(known, key=lambda a: (a not in resolved, -(known[a]["r2"] or 0))):
        entry = known[name]
        if entry["r2"] is None:
            lines.append(f"  {name:<18}no result, cannot be searched by")
            continue
        facts = f"R2 {entry['r2']:.2f} within works in layer {entry['layer']:>2}"
        facts += f", {'' if entry['validated'] else 'not '}validated"
        lines.append(f"  {name:<18}{facts}{'' if entry['resolved'] else ', below the limit'}")
    lines.append("  (validated: surely above what an untrained encoder of the same shape knows)")
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
    """Return three queries of different kinds, in the form of the command line."""
    names = list(index.rows.numbers)
    first, middle = names[0], names[len(names) // 2]
    aspect = f" --aspect {resolved[0]}" if resolved else ""
    weighed = f" --like general --like {resolved[0]}=0.5 --explain" if resolved else ""
    return [
        f"--recording {first} -k {_HITS}",
        f"--recording {middle} --exclude work{aspect} -k {_HITS}",
        f"--recording {first} --from 5 --to 10 --exclude recording --dedupe 5{weighed} -k {_HITS}",
    ]


def _next(dataset: str, index: "Index", resolved: list[str]) -> list[str]:
    recording = next(iter(index.rows.numbers))
    search = f"  mess search --recording {recording}"
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
        f"{search} --from 2.5 --to 9 --json",
        f"  snakemake data/probing/{dataset}/tempo.json   # one result, rebuilt when stale",
        "  mess recordings --folder PATH --name mine && snakemake --config dataset=mine",
        "  (mess and snakemake are in .venv/bin; README.md explains every step)",
    ]
